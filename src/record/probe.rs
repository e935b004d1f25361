//! Asking the command whether it is ready: an HTTP page, or a whole chat answer. Plain HTTP to this machine only.

use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use super::conditions::{Condition, Mark};
use crate::http::{Client, address, openai};

/// Where to ask: a plain HTTP URL of this machine. The command runs here, and what it answers is told to nobody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url(String);

impl Url {
    /// Parses `http://127.0.0.1:8000/path`; other machines and TLS are refused.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let url: crate::http::Url = text.parse().map_err(|e| format!("{e}"))?;
        if url.scheme() != "http" {
            return Err("expected http://".into());
        }
        let host = url.host_str().unwrap_or_default();
        if !address::is_loopback(host) {
            return Err(format!("{host:?} is not this machine (127.0.0.1, localhost or [::1])"));
        }
        Ok(Self(url.to_string()))
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    /// An answer with that status, or with any 2xx.
    Page(Url, Option<u16>),
    /// A chat completion that has text, from the named model or the first one served.
    Chat(Url, Option<String>),
}

const EVERY: Duration = Duration::from_millis(100);
/// Longest wait for one page, and for one chat answer on a slow machine.
const PAGE: Duration = Duration::from_secs(10);
const CHAT: Duration = Duration::from_mins(10);

/// Asks in the background, each question until it is answered. Ends with the process.
pub(super) fn ask(questions: Vec<Ask>, marks: &Sender<Mark>) -> Result<(), crate::http::Error> {
    for question in questions {
        let (client, marks) = (Client::new()?, marks.clone());
        thread::spawn(move || {
            let tell = |mark| {
                let _nobody_listens_any_more = marks.send(mark);
            };
            let phase = |name| tell(Mark::Phase(name, Instant::now()));
            match question {
                Ask::Page(url, status) => {
                    until(|| match status {
                        None => openai::answers(&client, &url.0, PAGE),
                        Some(status) => openai::status(&client, &url.0, PAGE) == Some(status),
                    });
                    phase("ready");
                    tell(Mark::Met(Condition::Http, Instant::now()));
                }
                Ask::Chat(url, model) => {
                    let mut name = String::new();
                    until(|| match openai::model(&client, &url.0, PAGE) {
                        Ok(first) => {
                            name = model.clone().unwrap_or(first);
                            true
                        }
                        Err(_) => false,
                    });
                    phase("ready");
                    until(|| openai::stream(&client, &url.0, &name, CHAT, &mut || phase("first-token")).is_ok());
                    phase("first-chat");
                    tell(Mark::Met(Condition::Chat, Instant::now()));
                }
            }
        });
    }
    Ok(())
}

fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        thread::sleep(EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_asked() {
        for right in ["http://127.0.0.1:8000/v1/chat/completions", "http://localhost", "http://[::1]:80/x"] {
            assert!(Url::parse(right).is_ok(), "{right}");
        }
        for wrong in
            ["https://127.0.0.1/", "http://example.org/", "127.0.0.1:80", "http://127.evil.org/", "http://127.0.0.1:x/"]
        {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
    }
}
