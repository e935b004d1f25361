//! A server for tests: raw HTTP/1.1 on a loopback port, one thread a connection, with answers that go wrong on purpose.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as it arrived.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Offsets of a `Range: bytes=a-b` header, the end inclusive.
    pub(crate) fn range(&self) -> Option<(usize, Option<usize>)> {
        let (from, to) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((from.parse().ok()?, to.parse().ok()))
    }
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Close the connection after this many bytes of the body.
    pub(crate) cut: Option<usize>,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub(crate) fn with(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    pub(crate) fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }
}

type Handler = dyn Fn(&Asked) -> Answer + Send + Sync;

/// The server; it stops with the value.
pub(crate) struct Stub {
    pub(crate) host: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Stub {
    pub(crate) fn start(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let host = listener.local_addr().expect("bound").to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let handler: Arc<Handler> = Arc::new(handler);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (handler, log) = (handler.clone(), log.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
                    while let Some(request) = read_request(&mut reader) {
                        log.lock().expect("log").push(request.clone());
                        if !respond(&stream, &request, &handler(&request)) {
                            break;
                        }
                    }
                    let _gone = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Self { host, asked }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host)
    }

    /// What was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("log").clone()
    }

    /// `METHOD target` of every request so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().iter().map(|a| format!("{} {}", a.method, a.target)).collect()
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace();
    let mut asked = Asked { method: words.next()?.into(), target: words.next()?.into(), ..Asked::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        asked.headers.push((name.to_lowercase(), value.trim().into()));
    }
    if asked.header("transfer-encoding") == Some("chunked") {
        asked.body = read_chunks(reader)?;
        return Some(asked);
    }
    let length: usize = asked.header("content-length").map_or(0, |l| l.parse().expect("a number"));
    asked.body = vec![0; length];
    reader.read_exact(&mut asked.body).ok()?;
    Some(asked)
}

fn read_chunks(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let length = usize::from_str_radix(line.trim_end(), 16).expect("a chunk's size");
        let mut chunk = vec![0; length + 2];
        reader.read_exact(&mut chunk).ok()?;
        chunk.truncate(length);
        if chunk.is_empty() {
            return Some(body);
        }
        body.append(&mut chunk);
    }
}

/// Whether the connection can go on.
fn respond(mut stream: &TcpStream, request: &Asked, answer: &Answer) -> bool {
    let mut head = format!("HTTP/1.1 {} Words\r\n", answer.status);
    if !answer.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-length")) {
        let _infallible = write!(head, "content-length: {}\r\n", answer.body.len());
    }
    for (name, value) in &answer.headers {
        let _infallible = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    let body = if request.method == "HEAD" { &[][..] } else { &answer.body[..answer.cut.unwrap_or(answer.body.len())] };
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).is_ok() && answer.cut.is_none()
}
