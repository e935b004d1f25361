//! What a benchmark asks: the registry for an image (past the link, so that looking does not count), the workload for its health
//! and for a streamed chat answer. The HTTP client and the stores block; here they are waited for.

use std::time::{Duration, Instant};

use super::Error;
use crate::http::{Client, openai};
use crate::image::reference::RegistryReference;
use crate::image::{Image, Reference};
use crate::store;

pub use openai::{MAX_TOKENS, PROMPT};

/// A server that does not answer in this time is asked again.
const HEALTH: Duration = Duration::from_secs(2);

type Boxed = Box<dyn std::error::Error + Send + Sync>;

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Boxed> + Send + 'static) -> Result<T, Boxed> {
    tokio::task::spawn_blocking(work).await?
}

/// The image as the registry has it, of this machine's platform.
pub async fn image(reference: &RegistryReference) -> Result<Image, Error> {
    let r = Reference::Registry(reference.clone());
    let found = blocking(move || Ok(store::open(&r, false)?.image(&platform())?)).await;
    found.map_err(|source| Error::Image { reference: reference.to_string(), source })
}

fn platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{architecture}")
}

/// Whether the workload says that it is ready. Every failure is a no.
pub async fn healthy(client: &Client, address: &str) -> bool {
    let (client, url) = (client.clone(), format!("http://{address}/health"));
    blocking(move || Ok(openai::answers(&client, &url, HEALTH))).await.unwrap_or(false)
}

/// Whether somebody listens there.
pub async fn listens(address: &str) -> bool {
    tokio::net::TcpStream::connect(address).await.is_ok()
}

/// An answer and the moment of its first text.
#[derive(Debug)]
pub struct Answer {
    /// The whole text.
    pub text: String,
    /// When the first piece of it came.
    pub first: Instant,
}

/// Asks for the model's name and then the question, streamed. `within` bounds each of the two.
pub async fn chat(client: &Client, address: &str, within: Duration) -> Result<Answer, Boxed> {
    let (client, url) = (client.clone(), format!("http://{address}/v1/chat/completions"));
    blocking(move || {
        let model = openai::model(&client, &url, within)?;
        let mut first = None;
        let text = openai::stream(&client, &url, &model, within, &mut || first = Some(Instant::now()))?;
        let first = first.ok_or("the answer has no first text")?;
        Ok(Answer { text, first })
    })
    .await
}

/// A page as text, of at most `limit` bytes.
pub(super) async fn page(client: &Client, url: &str, limit: u64) -> Result<String, Boxed> {
    let (client, url) = (client.clone(), url.to_owned());
    blocking(move || {
        let answer = client.get(&url).header("connection", "close").timeout(HEALTH).attempts(1).send()?.ok()?;
        Ok(String::from_utf8_lossy(&answer.bytes(limit)?).into_owned())
    })
    .await
}
