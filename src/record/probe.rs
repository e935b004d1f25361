//! Asking the command whether it is ready: an HTTP page, or a whole chat answer. Plain HTTP to this machine only.

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Where to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    authority: String,
    path: String,
}

impl Url {
    /// Parses `http://127.0.0.1:8000/path`; other machines and TLS are refused.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://").ok_or("expected http://")?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = authority
            .rsplit_once(':')
            .filter(|(_, port)| port.parse::<u16>().is_ok())
            .map_or(authority, |(host, _)| host);
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        if !(host == "localhost" || address.is_ok_and(|a| a.is_loopback())) {
            return Err(format!("{host:?} is not this machine (127.0.0.1, localhost or [::1])"));
        }
        let authority = if host == authority { format!("{authority}:80") } else { authority.to_owned() };
        Ok(Self { authority, path: format!("/{path}") })
    }

    fn with_path(&self, path: &str) -> Self {
        Self { authority: self.authority.clone(), path: path.to_owned() }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    /// Any 2xx answer.
    Page(Url),
    /// A chat completion with at least one choice, from the named model or the first one served.
    Chat(Url, Option<String>),
}

/// A condition that was met.
#[derive(Debug)]
pub(super) struct Met {
    /// Phase name.
    pub phase: &'static str,
    /// When.
    pub at: Instant,
    /// Whether it was the last one.
    pub last: bool,
}

const EVERY: Duration = Duration::from_millis(100);

/// Asks in the background, one question after the other, until each is answered. Ends with the process.
pub(super) fn ask(questions: Vec<Ask>, met: Sender<Met>) {
    thread::spawn(move || {
        let mut ready = false;
        let count = questions.len();
        for (i, question) in questions.into_iter().enumerate() {
            let last = i + 1 == count;
            let tell = |phase, last| {
                let _nobody_listens_any_more = met.send(Met { phase, at: Instant::now(), last });
            };
            match question {
                Ask::Page(url) => {
                    until(|| matches!(exchange(&url, None, Duration::from_secs(10)), Ok((200..=299, _))));
                    tell(if ready { "page" } else { "ready" }, last);
                    ready = true;
                }
                Ask::Chat(url, model) => {
                    let mut name = String::new();
                    until(|| match models(&url) {
                        Some(first) => {
                            name = model.clone().unwrap_or(first);
                            true
                        }
                        None => false,
                    });
                    if !ready {
                        tell("ready", false);
                    }
                    until(|| chat(&url, &name));
                    tell("first-chat", last);
                    ready = true;
                }
            }
        }
    });
}

fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        thread::sleep(EVERY);
    }
}

/// The first model that is served, once the server answers at all.
fn models(chat: &Url) -> Option<String> {
    let path = chat
        .path
        .strip_suffix("/chat/completions")
        .map_or_else(|| "/v1/models".to_owned(), |base| format!("{base}/models"));
    match exchange(&chat.with_path(&path), None, Duration::from_secs(10)) {
        Ok((200..=299, body)) => {
            Some(serde_json::from_slice::<Value>(&body).ok()?["data"][0]["id"].as_str()?.to_owned())
        }
        _ => None,
    }
}

/// One whole chat answer.
fn chat(url: &Url, model: &str) -> bool {
    let body = json!({
        "model": model,
        "messages": [{"role": "user", "content": "Say hello."}],
        "temperature": 0,
        "max_tokens": 8,
    });
    match exchange(url, Some(&body.to_string()), Duration::from_mins(10)) {
        Ok((200..=299, answer)) => serde_json::from_slice::<Value>(&answer)
            .is_ok_and(|v| v["choices"].as_array().is_some_and(|c| !c.is_empty())),
        _ => false,
    }
}

/// One request over HTTP/1.0, so that the answer ends with the connection.
fn exchange(url: &Url, body: Option<&str>, timeout: Duration) -> io::Result<(u16, Vec<u8>)> {
    let address = url.authority.to_socket_addrs()?.next().ok_or_else(|| io::Error::other("no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(timeout))?;
    let mut request = format!(
        "{} {} HTTP/1.0\r\nHost: {}\r\nConnection: close\r\n",
        if body.is_some() { "POST" } else { "GET" },
        url.path,
        url.authority
    );
    if let Some(body) = body {
        request += "Content-Type: application/json\r\nContent-Length: ";
        request += &body.len().to_string();
        request += "\r\n";
    }
    stream.write_all((request + "\r\n" + body.unwrap_or_default()).as_bytes())?;
    let mut answer = Vec::new();
    stream.take(16 << 20).read_to_end(&mut answer)?;
    split(&answer).ok_or_else(|| io::Error::other("not an HTTP answer"))
}

/// Status and complete body.
fn split(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let body = &answer[end + 4..];
    let length = head.lines().find_map(|l| {
        let (name, value) = l.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    length.is_none_or(|n| n == body.len()).then(|| (status, body.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_asked() {
        let url = Url::parse("http://127.0.0.1:8000/v1/chat/completions").expect("loopback");
        assert_eq!((url.authority.as_str(), url.path.as_str()), ("127.0.0.1:8000", "/v1/chat/completions"));
        assert_eq!(Url::parse("http://localhost").expect("loopback").authority, "localhost:80");
        assert_eq!(Url::parse("http://[::1]:80/x").expect("loopback").authority, "[::1]:80");
        for wrong in
            ["https://127.0.0.1/", "http://example.org/", "127.0.0.1:80", "http://127.evil.org/", "http://127.0.0.1:x/"]
        {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cut_answer_is_no_answer() {
        assert_eq!(split(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"), Some((200, b"ok".to_vec())));
        assert_eq!(split(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"), None);
        assert_eq!(split(b"HTTP/1.0 503 No\r\n\r\n"), Some((503, vec![])));
        assert_eq!(split(b"nonsense"), None);
    }
}
