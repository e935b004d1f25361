//! The link's clocks on a paused one, and short transfers through real sockets.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use super::{BUFFER, Link, Preset, Shape, Shared, pump};

const NONE: Shape = Shape { latency: Duration::ZERO, bytes_per_second: 0, connection_bytes_per_second: 0 };

/// Answers each 4-byte request (a length) with that many bytes; at the end of requests says "end" and closes.
async fn answer(mut peer: impl AsyncRead + AsyncWrite + Unpin) {
    let mut request = [0; 4];
    while peer.read_exact(&mut request).await.is_ok() {
        let body = vec![7; usize::try_from(u32::from_be_bytes(request)).unwrap()];
        if peer.write_all(&body).await.is_err() {
            return;
        }
    }
    let _closed = peer.write_all(b"end").await;
}

/// A link of real sockets.
async fn link(shape: Shape) -> Link {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((peer, _)) = listener.accept().await {
            tokio::spawn(answer(peer));
        }
    });
    Link::start("127.0.0.1:0", &server, shape).await.unwrap()
}

/// A connection in memory. With the clock paused time passes only while everybody waits for it, so durations are exact.
fn connect(shared: &Arc<Shared>) -> DuplexStream {
    let (client, inner) = duplex(BUFFER);
    let (outer, server) = duplex(BUFFER);
    tokio::spawn(answer(server));
    let shared = Arc::clone(shared);
    tokio::spawn(async move { pump(tokio::io::split(inner), tokio::io::split(outer), &shared).await });
    client
}

async fn get(peer: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: u32) {
    peer.write_all(&bytes.to_be_bytes()).await.unwrap();
    let mut body = vec![0; usize::try_from(bytes).unwrap()];
    peer.read_exact(&mut body).await.unwrap();
    assert!(body.first().is_none_or(|b| *b == 7) && body.last().is_none_or(|b| *b == 7));
}

#[tokio::test(start_paused = true)]
async fn latency_is_added_once_a_request() {
    let shared = Arc::new(Shared::new("", Shape { latency: Duration::from_millis(40), ..NONE }));
    let mut peer = connect(&shared);
    let start = Instant::now();
    for _ in 0..5 {
        get(&mut peer, 300_000).await;
    }
    assert_eq!(start.elapsed(), Duration::from_millis(200));
    assert_eq!((shared.traffic().requests, shared.traffic().bytes), (5, 1_500_000));
}

#[tokio::test(start_paused = true)]
async fn a_request_in_two_pieces_is_one_request() {
    let shared = Arc::new(Shared::new("", Shape { latency: Duration::from_millis(40), ..NONE }));
    let mut peer = connect(&shared);
    let start = Instant::now();
    peer.write_all(&[0, 0]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    peer.write_all(&[0, 1]).await.unwrap();
    peer.read_u8().await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_millis(60));
    assert_eq!(shared.traffic().requests, 1);
}

#[tokio::test(start_paused = true)]
async fn the_rates_hold_for_one_connection_and_for_many_together() {
    let common = Shape { bytes_per_second: 40_000_000, ..NONE };
    let each = Shape { connection_bytes_per_second: 40_000_000, ..NONE };
    let both = Shape { bytes_per_second: 80_000_000, connection_bytes_per_second: 20_000_000, ..NONE };
    // 0.6 s each: 40 MB/s for all or for the only one, four of 40 MB/s side by side, two of 20 MB/s, and eight that share 80 MB/s.
    for (shape, connections, bytes) in [
        (common, 1, 24_000_000),
        (common, 8, 24_000_000),
        (each, 1, 24_000_000),
        (each, 4, 96_000_000),
        (both, 2, 24_000_000),
        (both, 8, 48_000_000),
    ] {
        let shared = Arc::new(Shared::new("", shape));
        let start = Instant::now();
        let all = (0..connections).map(|_| {
            let mut peer = connect(&shared);
            async move {
                get(&mut peer, bytes / connections).await;
                // Held until counted: the server says some more when a client goes.
                peer
            }
        });
        let _peers = all.collect::<tokio::task::JoinSet<_>>().join_all().await;
        let took = start.elapsed();
        // The burst lets the first 10 ms through; timers fire at whole milliseconds.
        assert!(took >= Duration::from_millis(590), "{connections} connections, {shape:?}: {took:?}");
        assert!(took <= Duration::from_millis(602), "{connections} connections, {shape:?}: {took:?}");
        assert_eq!((shared.traffic().requests, shared.traffic().bytes), (u64::from(connections), u64::from(bytes)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_opened_link_lets_everything_through_and_is_shaped_again_afterwards() {
    let slow = Shape { latency: Duration::from_millis(40), bytes_per_second: 1_000_000, ..NONE };
    let shared = Arc::new(Shared::new("", slow));
    let accepting = tokio::spawn(std::future::pending());
    let link = Link { address: "127.0.0.1:0".parse().unwrap(), shared: Arc::clone(&shared), accepting };
    let mut peer = connect(&shared);
    let start = Instant::now();
    let opened = link.open();
    get(&mut peer, 50_000_000).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    drop(opened);
    get(&mut peer, 1_000_000).await;
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(shared.traffic().requests, 2);
}

#[tokio::test]
async fn a_link_of_sockets_is_never_faster_than_said() {
    let link = link(Shape { bytes_per_second: 40_000_000, connection_bytes_per_second: 20_000_000, ..NONE }).await;
    let start = Instant::now();
    let mut peers = Vec::new();
    for connections in [1, 4] {
        let all = (0..connections).map(|_| {
            let address = link.address();
            async move {
                let mut peer = TcpStream::connect(address).await.unwrap();
                get(&mut peer, 2_000_000).await;
                peer
            }
        });
        peers.extend(all.collect::<tokio::task::JoinSet<_>>().join_all().await);
    }
    // 2 MB at 20 MB/s, then 8 MB at 40 MB/s, less two bursts.
    assert!(start.elapsed() >= Duration::from_millis(280), "{:?}", start.elapsed());
    assert_eq!((link.traffic().requests, link.traffic().bytes), (5, 10_000_000));
}

#[tokio::test]
async fn a_client_that_has_said_everything_still_hears_the_answer() {
    let link = link(NONE).await;
    let mut peer = TcpStream::connect(link.address()).await.unwrap();
    peer.write_all(&5_u32.to_be_bytes()).await.unwrap();
    peer.shutdown().await.unwrap();
    let mut all = Vec::new();
    peer.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, [7, 7, 7, 7, 7, b'e', b'n', b'd']);
}

#[tokio::test]
async fn a_registry_that_is_not_there_closes_the_connection() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = gone.local_addr().unwrap().to_string();
    drop(gone);
    let link = Link::start("127.0.0.1:0", &upstream, NONE).await.unwrap();
    let mut peer = TcpStream::connect(link.address()).await.unwrap();
    let n = timeout(Duration::from_secs(5), peer.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(n, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_sender() {
    let link = link(NONE).await;
    let mut peer = TcpStream::connect(link.address()).await.unwrap();
    peer.write_all(&200_000_000_u32.to_be_bytes()).await.unwrap();
    let (mut passed, mut same) = (0, 0);
    while same < 10 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let now = link.traffic().bytes;
        same = if now > 0 && now == passed { same + 1 } else { 0 };
        passed = now;
        // What the socket buffers of two connections take, not the answer.
        assert!(passed < 50_000_000, "{passed}");
    }
}

#[tokio::test]
async fn a_dropped_link_ends_its_connections() {
    let link = link(NONE).await;
    let mut peer = TcpStream::connect(link.address()).await.unwrap();
    get(&mut peer, 1).await;
    drop(link);
    let n = timeout(Duration::from_secs(5), peer.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(n, Ok(0) | Err(_)));
}

#[test]
fn no_connection_of_a_preset_is_faster_than_all_together() {
    for preset in Preset::ALL {
        let (latency, all, each) = preset.figures();
        assert!(latency > 0 && all > 0 && each <= all, "{}", preset.name());
    }
}

#[test]
fn a_name_means_the_same_link_to_a_prediction() {
    for preset in Preset::ALL {
        let (latency, all, each) = preset.figures();
        let shaped = crate::plan::Model::preset("rig").unwrap().behind(latency, all, each).link;
        assert_eq!(shaped, crate::plan::Link::preset(preset.name()).unwrap(), "{}", preset.name());
    }
}
