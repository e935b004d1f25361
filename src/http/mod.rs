//! The one HTTP client: TLS from the system store, proxies, redirects, retry, redaction. Nothing else names the HTTP crate.
//!
//! Blocking outside, async inside: a small runtime, made with the first client, moves the bytes. A body is read as it is
//! asked for, so what is not read is not fetched (beyond socket buffers).

use std::error::Error as StdError;
use std::io::{self, Read};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::timeout;

pub mod address;
pub mod openai;
pub mod retry;
#[cfg(test)]
pub(crate) mod stub;

pub use reqwest::{Method, Url};
pub use retry::Retry;

/// A connection that takes longer than this is not coming.
const CONNECT: Duration = Duration::from_secs(20);
/// Longest silence while a body moves or an answer is awaited.
const IDLE: Duration = Duration::from_secs(90);
/// Longest silence between the last byte sent and the answer: a registry hashes what it got before it answers.
const DIGESTING: Duration = Duration::from_mins(10);
/// As browsers and curl have it, roughly.
const MAX_REDIRECTS: u32 = 10;
/// Piece of a streamed request body.
const PIECE: u64 = 256 << 10;
/// How much of an error body is read.
const MAX_ERROR_BODY: u64 = 64 << 10;

/// Why a request got no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime behind the client did not start.
    #[error("could not start the HTTP client")]
    Runtime(#[source] io::Error),
    /// The TLS side could not be set up.
    #[error("could not set up the HTTP client")]
    Setup(#[source] Cause),
    /// An HTTPS request on a machine without certificate authorities.
    #[error(
        "no CA certificates found on this system, so {url} cannot be trusted: install ca-certificates or set SSL_CERT_FILE"
    )]
    NoCertificates {
        /// What was asked for.
        url: String,
    },
    /// The certificate of the server was not accepted.
    #[error("{url} has a certificate that is not trusted here")]
    Certificate {
        /// What was asked for.
        url: String,
        /// The verifier's complaint.
        #[source]
        source: Cause,
    },
    /// Not a URL, or a header value that no header can have.
    #[error("invalid request to {url}")]
    Invalid {
        /// What was asked for.
        url: String,
        /// The parser's complaint.
        #[source]
        source: Cause,
    },
    /// No connection, or it broke before the answer.
    #[error("{method} {url} got no answer")]
    Send {
        /// Method.
        method: Method,
        /// What was asked for.
        url: String,
        /// What the connection said.
        #[source]
        source: Cause,
    },
    /// Nothing came for too long.
    #[error("{method} {url} got no answer within {seconds:.1} s")]
    Timeout {
        /// Method.
        method: Method,
        /// What was asked for.
        url: String,
        /// How long was waited.
        seconds: f64,
    },
    /// The server refused.
    #[error("{method} {url} was answered {status}{}{detail}", if .detail.is_empty() { "" } else { ": " })]
    Status {
        /// Method.
        method: Method,
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
        /// What the server said about it, cleaned and shortened.
        detail: String,
    },
    /// A redirect that is not followed.
    #[error("{url} redirects {why}")]
    Redirect {
        /// Who redirects.
        url: String,
        /// Why it is not followed.
        why: String,
    },
    /// An answer above the bound of what it may be.
    #[error("the answer of {url} is larger than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// The bound.
        limit: u64,
    },
    /// The body of the answer broke off.
    #[error("the answer of {url} broke off")]
    Body {
        /// What was asked for.
        url: String,
        /// What the connection said.
        #[source]
        source: Cause,
    },
    /// What was to be sent could not be read.
    #[error("what was to be sent to {url} could not be read")]
    Content {
        /// Where it was to go.
        url: String,
        /// The reader's complaint.
        #[source]
        source: io::Error,
    },
}

/// An error of a library that stays unnamed.
pub type Cause = Box<dyn StdError + Send + Sync>;

impl Error {
    /// Whether the same request may succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Send { .. } | Self::Timeout { .. } | Self::Body { .. } => true,
            Self::Status { status, .. } => retry::is_temporary(*status),
            _ => false,
        }
    }

    /// The HTTP status, where there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}

fn runtime() -> Result<&'static Runtime, Error> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let mut builder = Builder::new_multi_thread();
    let made = builder.worker_threads(2).thread_name("esgz-http").enable_io().enable_time().build();
    let made = made.map_err(Error::Runtime)?;
    Ok(RUNTIME.get_or_init(|| made))
}

/// Sends requests; clones share connections.
#[derive(Clone)]
pub struct Client {
    runtime: &'static Runtime,
    retry: Retry,
    inner: Arc<Inner>,
}

/// The clients underneath, made when first needed: plain HTTP inside a container without CA certificates works.
#[derive(Default)]
struct Inner {
    /// For this machine: never through a proxy, which could neither reach it nor should see what it is told.
    local: OnceLock<Made>,
    remote: OnceLock<Made>,
}

struct Made {
    client: reqwest::Client,
    certificates: bool,
}

impl Client {
    /// Makes a client. Certificates are looked up with the first request; an HTTPS one fails when there are none.
    pub fn new() -> Result<Self, Error> {
        Ok(Self { runtime: runtime()?, retry: Retry::default(), inner: Arc::default() })
    }

    /// The same client with another retry policy.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// The retry policy.
    pub fn retry(&self) -> Retry {
        self.retry
    }

    /// Starts a request.
    pub fn request(&self, method: Method, url: &str) -> Request<'_> {
        let url = url.parse().map_err(|e| Error::Invalid { url: url.chars().take(200).collect(), source: Box::new(e) });
        Request {
            client: self,
            method,
            url,
            headers: Ok(HeaderMap::new()),
            body: Content::None,
            timeout: None,
            attempts: self.retry.attempts,
        }
    }

    /// Starts a GET.
    pub fn get(&self, url: &str) -> Request<'_> {
        self.request(Method::GET, url)
    }

    /// Starts a POST.
    pub fn post(&self, url: &str) -> Request<'_> {
        self.request(Method::POST, url)
    }

    fn made_for(&self, url: &Url) -> Result<&Made, Error> {
        let local = address::is_loopback(url.host_str().unwrap_or_default());
        let slot = if local { &self.inner.local } else { &self.inner.remote };
        if let Some(made) = slot.get() {
            return Ok(made);
        }
        let made = make(local)?;
        Ok(slot.get_or_init(|| made))
    }
}

fn make(local: bool) -> Result<Made, Error> {
    // The provider is the process's; another client may have installed it before.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let builder = || {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("esgz/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // One connection a transfer: layers moved in parallel neither share one congestion window nor break together.
            .http1_only()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(32);
        if local { builder.no_proxy() } else { builder }
    };
    match builder().build() {
        Ok(client) => Ok(Made { client, certificates: true }),
        Err(e) if chain_contains(&e, "CA certificates") => {
            let client = builder().tls_certs_only([]).build().map_err(|e| Error::Setup(Box::new(e)))?;
            Ok(Made { client, certificates: false })
        }
        Err(e) => Err(Error::Setup(Box::new(e))),
    }
}

fn chain_contains(error: &(dyn StdError + 'static), text: &str) -> bool {
    let mut next = Some(error);
    while let Some(e) = next {
        if e.to_string().contains(text) {
            return true;
        }
        next = e.source();
    }
    false
}

fn is_certificate_error(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(e) = next {
        if matches!(e.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        // The source of an I/O error is the source of what it wraps, which would be passed over.
        let wrapped = e.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map(|w| w as &(dyn StdError + 'static)).or_else(|| e.source());
    }
    false
}

/// Fills a buffer with what is to be sent, from an offset.
pub type Fill<'a> = &'a dyn Fn(&mut [u8], u64) -> io::Result<()>;
/// Gives what is to be sent next, from an offset; nothing at the end.
pub type Next<'a> = &'a dyn Fn(u64) -> io::Result<Vec<u8>>;

enum Content<'a> {
    None,
    Bytes(Bytes),
    Stream { length: u64, fill: Fill<'a> },
    Growing(Next<'a>),
}

/// A request being put together.
#[must_use]
pub struct Request<'a> {
    client: &'a Client,
    method: Method,
    url: Result<Url, Error>,
    headers: Result<HeaderMap, Cause>,
    body: Content<'a>,
    timeout: Option<Duration>,
    attempts: u32,
}

impl<'a> Request<'a> {
    /// Adds a header. `Authorization` does not follow a redirect to another origin.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Ok(headers) = &mut self.headers {
            let parsed = name.parse::<HeaderName>().map_err(Cause::from);
            match parsed.and_then(|n| Ok((n, value.parse::<HeaderValue>()?))) {
                Ok((name, mut value)) => {
                    value.set_sensitive(name == AUTHORIZATION);
                    headers.append(name, value);
                }
                Err(e) => self.headers = Err(e),
            }
        }
        self
    }

    /// Sends bytes.
    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = Content::Bytes(Bytes::from(bytes.into()));
        self
    }

    /// Sends JSON.
    pub fn json(self, value: &serde_json::Value) -> Self {
        self.header("content-type", "application/json").body(value.to_string())
    }

    /// Sends `length` bytes as they are read, in order, from offset 0 with every attempt. An error of `fill` ends the
    /// request before it is complete.
    pub fn stream(mut self, length: u64, fill: Fill<'a>) -> Self {
        self.body = if length == 0 { Content::Bytes(Bytes::new()) } else { Content::Stream { length, fill } };
        self
    }

    /// Sends bytes as they come, in pieces of any size, until there are none. The length need not be known. An error of
    /// `next` ends the request before it is complete.
    pub fn grow(mut self, next: Next<'a>) -> Self {
        self.body = Content::Growing(next);
        self
    }

    /// Bounds the whole exchange, the body of the answer and all attempts included.
    pub fn timeout(mut self, whole: Duration) -> Self {
        self.timeout = Some(whole);
        self
    }

    /// Attempts altogether; 1 for a request that must not be repeated.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sends and gives back any answer, also an error status once attempts are used up. Redirects of GET and HEAD are
    /// followed.
    pub fn send(self) -> Result<Response, Error> {
        let origin = self.url?;
        let headers = self.headers.map_err(|source| Error::Invalid { url: address::redacted(&origin), source })?;
        let deadline = self.timeout.map(|t| Instant::now() + t);
        let mut backoff = self.client.retry.attempts(self.attempts).start();
        let mut url = origin.clone();
        let mut hops = 0;
        loop {
            let mut headers = headers.clone();
            if !address::same_origin(&origin, &url) {
                headers.remove(AUTHORIZATION);
            }
            let exchange = Exchange { client: self.client, method: &self.method, url: &url, headers, deadline };
            let wait = match exchange.run(&self.body) {
                Ok(response) => {
                    let follows = matches!(self.method, Method::GET | Method::HEAD);
                    if follows && let Some(next) = response.redirect()? {
                        hops += 1;
                        if hops > MAX_REDIRECTS {
                            let why = format!("for the {hops}th time");
                            return Err(Error::Redirect { url: address::redacted(&origin), why });
                        }
                        url = next;
                        continue;
                    }
                    if !retry::is_temporary(response.status()) {
                        return Ok(response);
                    }
                    let asked = response.header(RETRY_AFTER.as_str()).and_then(retry::retry_after);
                    match backoff.failed(asked).filter(|w| leaves_time(deadline, *w)) {
                        Some(wait) => wait,
                        None => return Ok(response),
                    }
                }
                Err(e) if e.is_temporary() => match backoff.failed(None).filter(|w| leaves_time(deadline, *w)) {
                    Some(wait) => wait,
                    None => return Err(e),
                },
                Err(e) => return Err(e),
            };
            std::thread::sleep(wait);
            url = origin.clone();
            hops = 0;
        }
    }
}

fn leaves_time(deadline: Option<Instant>, wait: Duration) -> bool {
    deadline.is_none_or(|d| Instant::now() + wait < d)
}

/// One attempt at one URL.
struct Exchange<'a> {
    client: &'a Client,
    method: &'a Method,
    url: &'a Url,
    headers: HeaderMap,
    deadline: Option<Instant>,
}

impl Exchange<'_> {
    fn run(self, body: &Content<'_>) -> Result<Response, Error> {
        let made = self.client.made_for(self.url)?;
        if self.url.scheme() == "https" && !made.certificates {
            return Err(Error::NoCertificates { url: address::redacted(self.url) });
        }
        let builder = made.client.request(self.method.clone(), self.url.clone()).headers(self.headers.clone());
        let inner = match body {
            Content::None => self.head(builder, None, IDLE),
            Content::Bytes(bytes) => {
                // Also an empty body has a length: some servers answer 411 to a POST without one.
                self.head(builder.header(CONTENT_LENGTH, bytes.len()).body(bytes.clone()), None, DIGESTING)
            }
            Content::Stream { length, fill } => {
                let next = |offset| {
                    let mut piece = vec![0; usize::try_from(PIECE.min(length - offset)).unwrap_or(usize::MAX)];
                    if !piece.is_empty() {
                        fill(&mut piece, offset)?;
                    }
                    Ok(piece)
                };
                self.head(builder.header(CONTENT_LENGTH, *length), Some(&next), DIGESTING)
            }
            Content::Growing(next) => self.head(builder, Some(*next), DIGESTING),
        }?;
        Ok(Response {
            runtime: self.client.runtime,
            method: self.method.clone(),
            url: self.url.clone(),
            inner,
            piece: Bytes::new(),
            done: false,
            deadline: self.deadline,
        })
    }

    /// Sends and waits for the head of the answer.
    fn head(
        &self,
        mut builder: reqwest::RequestBuilder,
        feed: Option<Next<'_>>,
        patience: Duration,
    ) -> Result<reqwest::Response, Error> {
        let runtime = self.client.runtime;
        let (sender, receiver) = mpsc::channel::<Bytes>(2);
        if feed.is_some() {
            // An empty piece is the end. A sender that is gone is none: a body without a length would seem complete.
            let pieces = futures::stream::unfold(receiver, async |mut r| match r.recv().await {
                Some(piece) if piece.is_empty() => None,
                Some(piece) => Some((Ok(piece), r)),
                None => Some((Err(io::Error::other("given up")), r)),
            });
            builder = builder.body(reqwest::Body::wrap_stream(pieces));
        }
        let mut answer = runtime.spawn(builder.send());
        let mut early = None;
        if let Some(next) = feed {
            let mut offset = 0;
            loop {
                let piece = match next(offset) {
                    Ok(piece) => piece,
                    Err(source) => {
                        answer.abort();
                        return Err(Error::Content { url: address::redacted(self.url), source });
                    }
                };
                offset += piece.len() as u64;
                let last = piece.is_empty();
                let wait = self.wait(IDLE);
                let sent = runtime.block_on(async {
                    tokio::select! {
                        biased;
                        result = &mut answer => { early = Some(result); Ok(false) }
                        sent = timeout(wait, sender.send(piece.into())) => sent.map(|s| s.is_ok()),
                    }
                });
                match sent {
                    Ok(true) if !last => {}
                    Ok(_) => break,
                    Err(_elapsed) => {
                        answer.abort();
                        return Err(self.timed_out(wait));
                    }
                }
            }
        }
        let joined = if let Some(joined) = early {
            joined
        } else {
            let wait = self.wait(patience);
            let Ok(joined) = runtime.block_on(async { timeout(wait, &mut answer).await }) else {
                answer.abort();
                return Err(self.timed_out(wait));
            };
            joined
        };
        match joined {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(e)) => Err(self.failed(e.without_url())),
            Err(e) => {
                Err(Error::Send { method: self.method.clone(), url: address::redacted(self.url), source: Box::new(e) })
            }
        }
    }

    fn failed(&self, e: reqwest::Error) -> Error {
        let (method, url) = (self.method.clone(), address::redacted(self.url));
        if e.is_builder() {
            Error::Invalid { url, source: Box::new(e) }
        } else if is_certificate_error(&e) {
            Error::Certificate { url, source: Box::new(e) }
        } else if e.is_timeout() {
            Error::Timeout { method, url, seconds: CONNECT.as_secs_f64() }
        } else {
            Error::Send { method, url, source: Box::new(e) }
        }
    }

    fn wait(&self, longest: Duration) -> Duration {
        self.deadline.map_or(longest, |d| longest.min(d.saturating_duration_since(Instant::now())))
    }

    fn timed_out(&self, waited: Duration) -> Error {
        Error::Timeout { method: self.method.clone(), url: address::redacted(self.url), seconds: waited.as_secs_f64() }
    }
}

/// An answer; its body is read through [`Read`].
pub struct Response {
    runtime: &'static Runtime,
    method: Method,
    url: Url,
    inner: reqwest::Response,
    piece: Bytes,
    done: bool,
    deadline: Option<Instant>,
}

impl Response {
    /// HTTP status.
    pub fn status(&self) -> u16 {
        self.inner.status().as_u16()
    }

    /// The first header of that name that is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    /// All headers of that name that are text.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.inner.headers().get_all(name).iter().filter_map(|v| v.to_str().ok())
    }

    /// `Content-Length`, where the server sent one.
    pub fn content_length(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }

    /// Who answered, behind redirects.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// `Location`, resolved against the URL that answered.
    pub fn location(&self) -> Option<Url> {
        self.url.join(self.header(LOCATION.as_str())?).ok()
    }

    /// The answer itself where the status is below 400, otherwise what the server said was wrong.
    pub fn ok(self) -> Result<Self, Error> {
        if self.status() < 400 { Ok(self) } else { Err(self.into_error()) }
    }

    /// The answer as an error, with what the server says in the body.
    pub fn into_error(mut self) -> Error {
        let mut body = Vec::new();
        // What arrived tells more than that the rest did not.
        let _broken = (&mut self).take(MAX_ERROR_BODY).read_to_end(&mut body);
        let kind = self.header("content-type").unwrap_or_default();
        let detail = detail(&body, kind.contains("html"));
        Error::Status { method: self.method.clone(), url: address::redacted(&self.url), status: self.status(), detail }
    }

    /// The whole body, of at most `limit` bytes.
    pub fn bytes(mut self, limit: u64) -> Result<Vec<u8>, Error> {
        let url = || address::redacted(&self.url);
        if self.content_length().is_some_and(|l| l > limit) {
            return Err(Error::TooLarge { url: url(), limit });
        }
        let mut body = Vec::new();
        while let Some(piece) = self.next()? {
            if (body.len() + piece.len()) as u64 > limit {
                return Err(Error::TooLarge { url: address::redacted(&self.url), limit });
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    fn redirect(&self) -> Result<Option<Url>, Error> {
        if !matches!(self.status(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let fail = |why: String| Error::Redirect { url: address::redacted(&self.url), why };
        let next = self.location().ok_or_else(|| fail("to nowhere (no valid Location)".into()))?;
        if !matches!(next.scheme(), "http" | "https") || (address::is_private(&self.url) && !address::is_private(&next))
        {
            return Err(fail(format!("to {}, which is not encrypted", address::redacted(&next))));
        }
        Ok(Some(next))
    }

    fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.done {
            return Ok(None);
        }
        let wait = self.deadline.map_or(IDLE, |d| IDLE.min(d.saturating_duration_since(Instant::now())));
        let piece = self.runtime.block_on(async { timeout(wait, self.inner.chunk()).await });
        self.done = !matches!(piece, Ok(Ok(Some(_))));
        match piece {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(e)) => Err(Error::Body { url: address::redacted(&self.url), source: Box::new(e.without_url()) }),
            Err(_elapsed) => Err(Error::Timeout {
                method: self.method.clone(),
                url: address::redacted(&self.url),
                seconds: wait.as_secs_f64(),
            }),
        }
    }
}

impl Read for Response {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let kind = |e: &Error| match e {
                Error::Timeout { .. } => io::ErrorKind::TimedOut,
                _ => io::ErrorKind::UnexpectedEof,
            };
            match self.next().map_err(|e| io::Error::new(kind(&e), e))? {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let n = buf.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}

/// What an error body says, in one line: the codes and messages of a registry, the message of other JSON, or plain text.
fn detail(body: &[u8], html: bool) -> String {
    use serde_json::Value;
    const LONGEST: usize = 300;
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(json) => {
            let words = |v: &Value| match v {
                Value::String(s) => Some(s.clone()),
                Value::Null => None,
                v => Some(v.to_string()),
            };
            let field = |v: &Value, key: &str| v.get(key).and_then(words).filter(|s| !s.is_empty());
            let errors = json.get("errors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let lines: Vec<_> = errors
                .iter()
                .map(|e| [field(e, "code"), field(e, "message")].into_iter().flatten().collect::<Vec<_>>().join(": "))
                .filter(|line| !line.is_empty())
                .collect();
            let other =
                || ["message", "error_description", "details", "error"].iter().find_map(|key| field(&json, key));
            if lines.is_empty() { other().unwrap_or_default() } else { lines.join("; ") }
        }
        Err(_) if html => String::new(),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let line = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty());
    line.collect::<Vec<_>>().join(" ").chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests;
