//! A slow link in front of a registry: a TCP proxy that adds latency to every request, shares one bandwidth among all
//! connections, bounds each of them, and counts requests and bytes.
//!
//! A request is a turnaround of an HTTP/1.1 connection: the first bytes of a connection, or client bytes after server bytes.
//! Its latency is charged once, before the request goes on; setting up a connection is not charged (a real link would, once
//! more for TLS), for any arm. Bandwidth is charged on what the registry sends, before it is passed on. Hidden here: the
//! clocks of the bandwidths and the pumps. One buffer a direction and connection is all the memory there is; a slow reader
//! stops the pump, which stops the sender.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::result::Traffic;

/// Bytes read in one go.
const BUFFER: usize = 64 << 10;
/// How far the clock may catch up after a timer that fired late or an idle moment. Timers are good to 1-2 ms and a buffer
/// takes 0.16 ms at 400 MB/s, so some is needed; it lets 10 ms worth of bytes through at once.
const BURST: Duration = Duration::from_millis(10);

/// How slow the link is.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Added to each request.
    pub latency: Duration,
    /// Of all connections together; 0 means no limit.
    pub bytes_per_second: u64,
    /// Of each connection; 0 means no limit.
    pub connection_bytes_per_second: u64,
}

/// A link with a name. docs/bench.md says where the figures come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// A GKE node and an Artifact Registry repository in its region.
    GkeAr,
    /// A registry in the same rack.
    Lan,
    /// A public registry far away.
    Slow,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::GkeAr, Self::Lan, Self::Slow];

    /// As it is spelt.
    pub fn name(self) -> &'static str {
        match self {
            Self::GkeAr => "gke-ar",
            Self::Lan => "lan",
            Self::Slow => "slow",
        }
    }

    /// Latency in milliseconds, bandwidth of all connections and of each in 10^6 bytes a second (0: not limited).
    pub fn figures(self) -> (u64, u64, u64) {
        match self {
            Self::GkeAr => (40, 400, 100),
            Self::Lan => (2, 1100, 0),
            Self::Slow => (120, 45, 15),
        }
    }
}

/// A counter of a link's traffic that can go elsewhere.
#[derive(Clone)]
pub struct Meter(Arc<Shared>);

impl Meter {
    /// Everything so far.
    pub fn traffic(&self) -> Traffic {
        self.0.traffic()
    }
}

/// A running link. It stops, with every connection, when dropped.
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    upstream: String,
    latency: Duration,
    pace: Pace,
    /// Of each connection.
    rate: u64,
    /// How many want it unshaped at the moment.
    opened: AtomicU64,
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Shared {
    fn new(upstream: &str, shape: Shape) -> Self {
        Self {
            upstream: upstream.into(),
            latency: shape.latency,
            pace: Pace::new(shape.bytes_per_second),
            rate: shape.connection_bytes_per_second,
            opened: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    fn is_open(&self) -> bool {
        self.opened.load(Ordering::Relaxed) > 0
    }

    fn traffic(&self) -> Traffic {
        Traffic { requests: self.requests.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

impl Link {
    /// Listens on `listen` and forwards to `upstream`. Must be called within a runtime.
    pub async fn start(listen: &str, upstream: &str, shape: Shape) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(upstream, shape));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything so far.
    pub fn traffic(&self) -> Traffic {
        self.shared.traffic()
    }

    /// Lets everything through at once until the guard is dropped: for what has to be there before a run and is no part of it.
    pub fn open(&self) -> Opened<'_> {
        self.shared.opened.fetch_add(1, Ordering::Relaxed);
        Opened(&self.shared)
    }

    /// The same for somebody else.
    pub fn meter(&self) -> Meter {
        Meter(Arc::clone(&self.shared))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A link that is not shaped as long as this lives.
#[must_use]
pub struct Opened<'a>(&'a Shared);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.opened.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, which ends the connections.
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    // An error is one side gone: the other learns it by its connection closing.
                    let _gone = serve(client, &shared).await;
                });
            }
            // Out of descriptors, most likely: wait for some to be closed.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut server = TcpStream::connect(&shared.upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    pump(client.split(), server.split(), shared).await
}

/// Both directions of a connection until both have ended.
async fn pump(
    client: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    server: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    shared: &Shared,
) -> io::Result<()> {
    let turned = AtomicBool::new(true);
    tokio::try_join!(up(client.0, server.1, &turned, shared), down(server.0, client.1, &turned, shared))?;
    Ok(())
}

async fn up(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    turned: &AtomicBool,
    shared: &Shared,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        if turned.swap(false, Ordering::Relaxed) {
            shared.requests.fetch_add(1, Ordering::Relaxed);
            if !shared.is_open() {
                tokio::time::sleep(shared.latency).await;
            }
        }
        to.write_all(&buffer[..n]).await?;
    }
}

async fn down(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    turned: &AtomicBool,
    shared: &Shared,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let own = Pace::new(shared.rate);
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        if !shared.is_open() {
            // The later of the two counts: a connection's own share is free again while it waits for the common one.
            let (own, common) = (own.book(n), shared.pace.book(n));
            if let Some(until) = own.max(common) {
                tokio::time::sleep_until(until).await;
            }
        }
        // Set before the bytes leave: an answer to them cannot come earlier.
        turned.store(true, Ordering::Relaxed);
        to.write_all(&buffer[..n]).await?;
        shared.bytes.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// When the link is free again. Every sender books its bytes behind those booked before, so the sum keeps the rate and
/// connections take turns in the order they come.
struct Pace {
    rate: u64,
    next: Mutex<Instant>,
}

impl Pace {
    /// `rate` in bytes a second; 0: no limit.
    fn new(rate: u64) -> Self {
        Self { rate, next: Mutex::new(Instant::now()) }
    }

    /// Books bytes and says when they may go; `None`: now.
    fn book(&self, bytes: usize) -> Option<Instant> {
        if self.rate == 0 {
            return None;
        }
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let nanos = (bytes as u64).saturating_mul(1_000_000_000) / self.rate;
        let from = now.checked_sub(BURST).map_or(*next, |earliest| earliest.max(*next));
        *next = from + Duration::from_nanos(nanos);
        (*next > now).then_some(*next)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test is what it is for")]
#[path = "link_tests.rs"]
mod tests;
