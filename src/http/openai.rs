//! The questions that a start is measured by: does a page answer, and a whole answer of an OpenAI-compatible server.

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
    let response = lone(client.get(url), within).send();
    response.is_ok_and(|r| (200..300).contains(&r.status()))
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

/// One attempt on a connection of its own: what is asked here is whether the server answers now.
fn lone(request: super::Request<'_>, within: Duration) -> super::Request<'_> {
    request.header("connection", "close").timeout(within).attempts(1)
}

fn json_of(request: super::Request<'_>, url: &str) -> Result<Value, String> {
    let fail = |e: super::Error| {
        let causes = std::iter::successors(Some(&e as &dyn std::error::Error), |&e| e.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    };
    let body = request.send().and_then(super::Response::ok).and_then(|r| r.bytes(LIMIT)).map_err(fail)?;
    serde_json::from_slice(&body).map_err(|e| format!("{url} does not answer with JSON: {e}"))
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
    fn half_an_answer_is_none() {
        let server = Stub::start(|_| Answer::new(200, r#"{"choices":[{"message":{"content":"hi"}}]}"#).cut(20));
        let client = Client::new().expect("client");
        assert!(chat(&client, &server.url("/v1/chat/completions"), "m", WITHIN).is_err());
        let odd = Stub::start(|_| Answer::new(200, r#"{"choices":[]}"#));
        assert!(chat(&client, &odd.url("/v1/chat/completions"), "m", WITHIN).expect_err("empty").contains("no text"));
    }
}
