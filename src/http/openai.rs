//! The questions that a start is measured by: does a page answer, and a whole answer of an OpenAI-compatible server.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use serde_json::{Value, json};

use super::Client;

/// The question, the same in every recording and benchmark.
pub const PROMPT: &str = "Say hello.";
/// Tokens of the answer.
pub const MAX_TOKENS: u32 = 8;

/// Largest answer that is read, bytes.
const LIMIT: u64 = 16 << 20;

/// Whether the page answers 2xx within that time. Every failure is a no.
pub fn answers(client: &Client, url: &str, within: Duration) -> bool {
    status(client, url, within).is_some_and(|s| (200..300).contains(&s))
}

/// The status that the page answers with within that time, if it answers.
pub fn status(client: &Client, url: &str, within: Duration) -> Option<u16> {
    lone(client.get(url), within).send().ok().map(|r| r.status())
}

/// The first model served beside a chat URL (`…/v1/chat/completions`).
pub fn model(client: &Client, chat: &str, within: Duration) -> Result<String, String> {
    let list = match chat.strip_suffix("/chat/completions") {
        Some(base) => format!("{base}/models"),
        None => chat.to_owned(),
    };
    let models = json_of(lone(client.get(&list), within), &list)?;
    Ok(models["data"][0]["id"].as_str().ok_or_else(|| format!("{list} lists no model"))?.to_owned())
}

/// The text of one whole chat answer, temperature 0.
pub fn chat(client: &Client, url: &str, model: &str, within: Duration) -> Result<String, String> {
    let question = json!({
        "model": model,
        "messages": [{ "role": "user", "content": PROMPT }],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
    });
    let answer = json_of(lone(client.post(url).json(&question), within), url)?;
    let text = answer["choices"][0]["message"]["content"].as_str();
    Ok(text.ok_or_else(|| format!("{url}: the answer has no text"))?.to_owned())
}

/// The text of one streamed chat answer, temperature 0; `first` is called when its first text arrives. A server that does not
/// stream answers whole.
pub fn stream(
    client: &Client,
    url: &str,
    model: &str,
    within: Duration,
    first: &mut dyn FnMut(),
) -> Result<String, String> {
    let question = json!({
        "model": model,
        "messages": [{ "role": "user", "content": PROMPT }],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
        "stream": true,
    });
    let response =
        lone(client.post(url).json(&question), within).send().and_then(super::Response::ok).map_err(words)?;
    let (mut text, mut done, mut whole) = (String::new(), false, String::new());
    let mut lines = BufReader::new(response.take(LIMIT));
    let mut line = Vec::new();
    while !done {
        line.clear();
        if lines.read_until(b'\n', &mut line).map_err(|e| format!("{url}: {e}"))? == 0 {
            break;
        }
        let shown = String::from_utf8_lossy(&line);
        // Server-sent events: `data: {…}`, ended by `data: [DONE]`.
        let Some(data) = shown.trim_end().strip_prefix("data:").map(str::trim_start) else {
            whole.push_str(&shown);
            continue;
        };
        done = data == "[DONE]";
        let chunk: Value = serde_json::from_str(data).unwrap_or_default();
        text_of(&chunk["choices"][0]["delta"], &mut text, first);
    }
    if text.is_empty() {
        let answer: Value = serde_json::from_str(&whole).unwrap_or_default();
        text_of(&answer["choices"][0]["message"], &mut text, first);
        done = true;
    }
    if !done {
        return Err(format!("{url}: the answer broke off"));
    }
    if text.is_empty() { Err(format!("{url}: the answer has no text")) } else { Ok(text) }
}

/// Adds the text of a message or of a piece of one; reasoning models begin with their reasoning.
fn text_of(message: &Value, text: &mut String, first: &mut dyn FnMut()) {
    for key in ["reasoning_content", "reasoning", "content"] {
        if let Some(piece) = message[key].as_str().filter(|p| !p.is_empty()) {
            if text.is_empty() {
                first();
            }
            text.push_str(piece);
        }
    }
}

/// One attempt on a connection of its own: what is asked here is whether the server answers now.
fn lone(request: super::Request<'_>, within: Duration) -> super::Request<'_> {
    request.header("connection", "close").timeout(within).attempts(1)
}

fn json_of(request: super::Request<'_>, url: &str) -> Result<Value, String> {
    let body = request.send().and_then(super::Response::ok).and_then(|r| r.bytes(LIMIT)).map_err(words)?;
    serde_json::from_slice(&body).map_err(|e| format!("{url} does not answer with JSON: {e}"))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn words(e: super::Error) -> String {
    let causes = std::iter::successors(Some(&e as &dyn std::error::Error), |&e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::super::stub::{Answer, Stub};
    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    #[test]
    fn a_chat_answer_is_asked_of_the_first_model() {
        let server = Stub::start(|asked| match asked.target.as_str() {
            "/v1/models" => Answer::new(200, r#"{"data":[{"id":"m"}]}"#),
            "/v1/chat/completions" if String::from_utf8_lossy(&asked.body).contains(r#""model":"m""#) => {
                Answer::new(200, r#"{"choices":[{"message":{"content":"hi"}}]}"#)
            }
            _ => Answer::new(404, "no"),
        });
        let client = Client::new().expect("client");
        let url = server.url("/v1/chat/completions");
        let name = model(&client, &url, WITHIN).expect("a model");
        assert_eq!(chat(&client, &url, &name, WITHIN).as_deref(), Ok("hi"));
        assert!(chat(&client, &url, "other", WITHIN).expect_err("no such model").contains("404"));
        assert!(!answers(&client, &server.url("/health"), WITHIN));
        assert!(answers(&client, &server.url("/v1/models"), WITHIN));
    }

    #[test]
    fn a_streamed_answer_tells_its_first_text_and_ends_whole() {
        let say = |text: &str| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":{text:?}}}}}]}}\n\n");
        let role = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
        let body = format!(": hello\n{role}{}{}data: [DONE]\n\n", say("hi"), say(" you"));
        let broken = format!("{role}{}", say("hi"));
        let server = Stub::start(move |asked| match asked.target.as_str() {
            "/v1/chat/completions" => Answer::new(200, body.as_str()),
            "/broken" => Answer::new(200, broken.as_str()),
            "/empty" => Answer::new(200, "data: [DONE]\n\n"),
            "/whole" => Answer::new(200, r#"{"choices":[{"message":{"content":"all"}}]}"#),
            _ => Answer::new(500, "no"),
        });
        let client = Client::new().expect("client");
        let mut firsts = 0;
        let mut ask = |path: &str| stream(&client, &server.url(path), "m", WITHIN, &mut || firsts += 1);
        assert_eq!(ask("/v1/chat/completions").as_deref(), Ok("hi you"));
        assert_eq!(ask("/whole").as_deref(), Ok("all"));
        assert!(ask("/empty").expect_err("nothing said").contains("no text"));
        assert!(ask("/broken").expect_err("no end").contains("broke off"));
        assert!(ask("/else").expect_err("an error").contains("500"));
        assert_eq!(firsts, 3);
    }

    #[test]
    fn half_an_answer_is_none() {
        let server = Stub::start(|_| Answer::new(200, r#"{"choices":[{"message":{"content":"hi"}}]}"#).cut(20));
        let client = Client::new().expect("client");
        assert!(chat(&client, &server.url("/v1/chat/completions"), "m", WITHIN).is_err());
        let odd = Stub::start(|_| Answer::new(200, r#"{"choices":[]}"#));
        assert!(chat(&client, &odd.url("/v1/chat/completions"), "m", WITHIN).expect_err("empty").contains("no text"));
    }
}
