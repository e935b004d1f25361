//! Plain HTTP to the loopback: the registry's manifests (past the link, so that looking does not count), `/health`, the chat.
//!
//! One request a connection, HTTP/1.1 with `Connection: close`. Hidden here: that there is no HTTP client behind it. [`image`] is
//! the one place that knows how a manifest is fetched; `store::open` can take it over.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Error;
use crate::digest::Digest;
use crate::image::reference::RegistryReference;
use crate::image::{Config, Descriptor, Image, Manifest, manifest, names};

/// The question.
pub const PROMPT: &str = "Say hello.";
/// Tokens of the answer.
pub const MAX_TOKENS: u32 = 8;

type Boxed = Box<dyn std::error::Error + Send + Sync>;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Body, dechunked.
    pub body: Vec<u8>,
}

/// Sends one request; the body, when there is one, is JSON.
pub async fn request(address: &str, path: &str, accept: &str, body: Option<&str>) -> Result<Response, Boxed> {
    let mut peer = TcpStream::connect(address).await?;
    peer.set_nodelay(true)?;
    let (method, content) = match body {
        Some(b) => ("POST", format!("Content-Type: application/json\r\nContent-Length: {}\r\n", b.len())),
        None => ("GET", String::new()),
    };
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n{content}\r\n{}",
        body.unwrap_or_default()
    );
    peer.write_all(text.as_bytes()).await?;
    let mut all = Vec::new();
    // A server that keeps the connection open in spite of the header is read to the end of its message only.
    loop {
        if let Some(response) = parse(&all, false)? {
            return Ok(response);
        }
        if peer.read_buf(&mut all).await? == 0 {
            return parse(&all, true)?.ok_or_else(|| format!("{address}{path}: the answer is cut off").into());
        }
        if all.len() as u64 > manifest::MAX_JSON_BYTES {
            return Err(format!("{address}{path}: the answer is larger than {} bytes", manifest::MAX_JSON_BYTES).into());
        }
    }
}

/// A whole message, or nothing yet. `ended`: no more bytes will come.
fn parse(all: &[u8], ended: bool) -> Result<Option<Response>, Boxed> {
    let Some(end) = all.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&all[..end])?;
    let rest = &all[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|l| l.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok())
        .ok_or("the answer is not HTTP/1.1")?;
    let field = |name: &str| {
        let found =
            head.split("\r\n").skip(1).filter_map(|l| l.split_once(':')).find(|(k, _)| k.eq_ignore_ascii_case(name));
        found.map(|(_, v)| v.trim().to_ascii_lowercase())
    };
    let body = if field("transfer-encoding").is_some_and(|v| v.contains("chunked")) {
        dechunk(rest)?
    } else if let Some(length) = field("content-length") {
        rest.get(..length.parse::<usize>()?).map(<[u8]>::to_vec)
    } else {
        ended.then(|| rest.to_vec())
    };
    Ok(body.map(|body| Response { status, body }))
}

fn dechunk(mut rest: &[u8]) -> Result<Option<Vec<u8>>, Boxed> {
    let mut body = Vec::new();
    loop {
        let Some(line) = rest.windows(2).position(|w| w == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&rest[..line])?.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16)?;
        let Some(chunk) = line.checked_add(2).and_then(|from| rest.get(from..from.checked_add(size)?)) else {
            return Ok(None);
        };
        if size == 0 {
            return Ok(Some(body));
        }
        body.extend_from_slice(chunk);
        let Some(next) = rest.get(line + 4 + size..) else { return Ok(None) };
        rest = next;
    }
}

/// An image as the registry has it, with the digest that the reference resolves to (an index's, where it is one).
pub async fn image(registry: &str, reference: &RegistryReference) -> Result<(Digest, Image), Error> {
    let what = reference.to_string();
    fetch(registry, reference, &what).await.map_err(|source| Error::Image { reference: what, source })
}

async fn fetch(registry: &str, reference: &RegistryReference, what: &str) -> Result<(Digest, Image), Boxed> {
    let get = async |kind: &str, name: &str, accept: &str, digest: Option<Digest>| -> Result<Vec<u8>, Boxed> {
        let path = format!("/v2/{}/{kind}/{name}", reference.repository);
        let response = request(registry, &path, accept, None).await?;
        if response.status != 200 {
            return Err(format!("{registry}{path} answers {}", response.status).into());
        }
        match digest {
            Some(d) if Digest::of(&response.body) != d => {
                Err(format!("{registry}{path} is not what its digest says").into())
            }
            _ => Ok(response.body),
        }
    };
    let accept = [names::MANIFEST, names::DOCKER_MANIFEST, names::INDEX, names::DOCKER_LIST].join(", ");
    let mut bytes = get("manifests", &reference.selector(), &accept, reference.digest).await?;
    let named = Digest::of(&bytes);
    let value: Value = serde_json::from_slice(&bytes)?;
    if let Some(all) = value.get("manifests").and_then(Value::as_array) {
        let here = |m: &&Value| m["platform"]["os"] == "linux" && m["platform"]["architecture"] == architecture();
        let chosen =
            all.iter().find(here).ok_or_else(|| format!("the index has no image for linux/{}", architecture()))?;
        let chosen = Descriptor::from_json(chosen, "index entry")?;
        bytes = get("manifests", &chosen.digest.to_string(), &accept, Some(chosen.digest)).await?;
    }
    let manifest = Manifest::parse(&bytes, what)?;
    let config = get("blobs", &manifest.config.digest.to_string(), "*/*", Some(manifest.config.digest)).await?;
    let config = Config::parse(&config, what)?;
    let descriptor = Descriptor::new(&manifest.media_type, Digest::of(&bytes), bytes.len() as u64);
    Ok((named, Image::new(descriptor, manifest, config, what)?))
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Whether the workload says that it is ready. Every failure is a no; a server that does not answer in 2 s is asked again.
pub async fn healthy(address: &str) -> bool {
    let asked = tokio::time::timeout(Duration::from_secs(2), request(address, "/health", "*/*", None)).await;
    matches!(asked, Ok(Ok(Response { status: 200, .. })))
}

/// Whether somebody listens there.
pub async fn listens(address: &str) -> bool {
    TcpStream::connect(address).await.is_ok()
}

/// Asks for the model's name and then the question; gives the text of the answer.
pub async fn chat(address: &str) -> Result<String, Boxed> {
    let ask = async |path: &str, body: Option<&str>| -> Result<Value, Boxed> {
        let response = request(address, path, "application/json", body).await?;
        if response.status != 200 {
            let said: String = String::from_utf8_lossy(&response.body).chars().take(300).collect();
            return Err(format!("{path} answers {}: {said}", response.status).into());
        }
        Ok(serde_json::from_slice(&response.body)?)
    };
    let models = ask("/v1/models", None).await?;
    let model = models["data"][0]["id"].as_str().ok_or("/v1/models lists no model")?;
    let question = json!({
        "model": model,
        "messages": [{ "role": "user", "content": PROMPT }],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
    });
    let answer = ask("/v1/chat/completions", Some(&question.to_string())).await?;
    let text = answer["choices"][0]["message"]["content"].as_str();
    Ok(text.ok_or("the chat answer has no text")?.to_owned())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test is what it is for")]
mod tests {
    use super::*;

    fn body(text: &str, ended: bool) -> Option<(u16, String)> {
        parse(text.as_bytes(), ended).unwrap().map(|r| (r.status, String::from_utf8(r.body).unwrap()))
    }

    #[test]
    fn a_message_ends_where_it_says() {
        let ok = |s: &str| Some((200, s.to_owned()));
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", false), ok("abc"));
        assert_eq!(body("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab", true), None);
        assert_eq!(body("HTTP/1.0 200 OK\r\n\r\nab", false), None);
        assert_eq!(body("HTTP/1.0 200 OK\r\n\r\nab", true), ok("ab"));
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(body(chunked, false), ok("abc0123456789"));
        for cut in chunked.find("abc").unwrap()..chunked.rfind("\r\n\r\n").unwrap() {
            assert_eq!(body(&chunked[..cut], true), None, "cut at {cut}");
        }
        assert!(parse(b"SSH-2.0\r\n\r\n", true).is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", true).is_err());
    }
}
