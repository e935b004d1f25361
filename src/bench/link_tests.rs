//! Real short transfers through the link.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use super::{Link, Preset, Shape};

const NONE: Shape = Shape { latency: Duration::ZERO, bytes_per_second: 0, connection_bytes_per_second: 0 };

/// Answers each 4-byte request (a length) with that many bytes; at the end of requests says "end" and closes.
async fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4];
                while peer.read_exact(&mut request).await.is_ok() {
                    let body = vec![7; usize::try_from(u32::from_be_bytes(request)).unwrap()];
                    if peer.write_all(&body).await.is_err() {
                        return;
                    }
                }
                let _closed = peer.write_all(b"end").await;
            });
        }
    });
    address
}

async fn link(shape: Shape) -> Link {
    Link::start("127.0.0.1:0", &server().await, shape).await.unwrap()
}

async fn get(peer: &mut TcpStream, bytes: u32) {
    peer.write_all(&bytes.to_be_bytes()).await.unwrap();
    let mut body = vec![0; usize::try_from(bytes).unwrap()];
    peer.read_exact(&mut body).await.unwrap();
    assert!(body.first().is_none_or(|b| *b == 7) && body.last().is_none_or(|b| *b == 7));
}

#[tokio::test]
async fn latency_is_added_once_a_request() {
    let link = link(Shape { latency: Duration::from_millis(40), ..NONE }).await;
    let mut peer = TcpStream::connect(link.address()).await.unwrap();
    let start = Instant::now();
    for _ in 0..5 {
        get(&mut peer, 300_000).await;
    }
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(200), "{took:?}");
    assert!(took < Duration::from_millis(300), "{took:?}");
    assert_eq!((link.traffic().requests, link.traffic().bytes), (5, 1_500_000));
}

#[tokio::test]
async fn a_request_in_two_pieces_is_one_request() {
    let link = link(Shape { latency: Duration::from_millis(40), ..NONE }).await;
    let mut peer = TcpStream::connect(link.address()).await.unwrap();
    let start = Instant::now();
    peer.write_all(&[0, 0]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    peer.write_all(&[0, 1]).await.unwrap();
    peer.read_u8().await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(95), "{:?}", start.elapsed());
    assert_eq!(link.traffic().requests, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rates_hold_for_one_connection_and_for_many_together() {
    let common = Shape { bytes_per_second: 40_000_000, ..NONE };
    let each = Shape { connection_bytes_per_second: 40_000_000, ..NONE };
    let both = Shape { bytes_per_second: 80_000_000, connection_bytes_per_second: 20_000_000, ..NONE };
    // 0.6 s each: 40 MB/s for all or for the only one, four of 40 MB/s side by side, two of 20 MB/s, and eight that share 80 MB/s.
    for (shape, connections, bytes) in [
        (common, 1_u32, 24_000_000),
        (common, 8, 24_000_000),
        (each, 1, 24_000_000),
        (each, 4, 96_000_000),
        (both, 2, 24_000_000),
        (both, 8, 48_000_000),
    ] {
        let mut best = f64::MAX;
        // Never faster than said, which is what a benchmark stands on. A busy machine makes it slower: of some attempts one is
        // within twice the time, or the rate is another one.
        for _ in 0..6 {
            let took = download(shape, connections, bytes).await;
            // The burst lets the first 10 ms through.
            assert!(took >= 0.585, "{connections} connections, {shape:?}: {took} s");
            best = best.min(took);
            if best < 0.62 {
                break;
            }
        }
        assert!(best < 1.2, "{connections} connections, {shape:?}: {best} s");
    }
}

async fn download(shape: Shape, connections: u32, bytes: u32) -> f64 {
    let link = link(shape).await;
    let start = Instant::now();
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let address = link.address();
        all.spawn(async move {
            let mut peer = TcpStream::connect(address).await.unwrap();
            get(&mut peer, bytes / connections).await;
            peer
        });
    }
    // Held until counted: the server says some more when a client goes.
    let _peers = all.join_all().await;
    let took = start.elapsed().as_secs_f64();
    assert_eq!((link.traffic().requests, link.traffic().bytes), (u64::from(connections), u64::from(bytes)));
    took
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
