use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::stub::{Answer, Stub};
use super::*;

fn client() -> Client {
    let retry = Retry { attempts: 3, first: Duration::from_millis(1), longest: Duration::from_millis(1100) };
    Client::new().expect("a client").with_retry(retry)
}

/// A server whose n-th answer is the n-th of the list, the last one again and again.
fn script(answers: Vec<Answer>) -> Stub {
    let next = AtomicU32::new(0);
    Stub::start(move |_| {
        let i = next.fetch_add(1, Ordering::Relaxed) as usize;
        answers[i.min(answers.len() - 1)].clone()
    })
}

fn text(mut response: Response) -> String {
    let mut s = String::new();
    response.read_to_string(&mut s).expect("a body");
    s
}

#[test]
fn temporary_failures_are_repeated_and_others_are_not() {
    for (statuses, expected, requests) in [
        (vec![200], 200, 1),
        (vec![500, 200], 200, 2),
        (vec![503, 502, 200], 200, 3),
        (vec![408, 200], 200, 2),
        (vec![429, 200], 200, 2),
        (vec![504, 504, 504, 200], 504, 3),
        (vec![400, 200], 400, 1),
        (vec![401, 200], 401, 1),
        (vec![404, 200], 404, 1),
        (vec![501, 200], 501, 1),
    ] {
        let stub = script(statuses.iter().map(|s| Answer::new(*s, "x")).collect());
        let response = client().get(&stub.url("/")).send().expect("an answer");
        assert_eq!((response.status(), stub.asked().len()), (expected, requests), "{statuses:?}");
    }
}

#[test]
fn retry_after_is_honoured() {
    let stub = script(vec![Answer::new(429, "").with("Retry-After", 1), Answer::new(200, "")]);
    let started = Instant::now();
    assert_eq!(client().get(&stub.url("/")).send().expect("an answer").status(), 200);
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    let stub = script(vec![Answer::new(503, "").with("Retry-After", 0), Answer::new(200, "")]);
    assert_eq!(client().get(&stub.url("/")).send().expect("an answer").status(), 200);
}

#[test]
fn a_server_that_is_down_is_temporary_and_named() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let error = client().get(&format!("http://{gone}/v2/")).send().err().expect("nobody listens");
    assert!(error.is_temporary());
    assert_eq!(error.to_string(), format!("GET http://{gone}/v2/ got no answer"));
    assert!(chain_contains(&error, "refused"), "{error:?}");
}

#[test]
fn a_silent_server_ends_in_a_timeout() {
    let stub = Stub::start(|_| {
        std::thread::sleep(Duration::from_millis(500));
        Answer::new(200, "")
    });
    let result = client().get(&stub.url("/health")).timeout(Duration::from_millis(50)).attempts(1).send();
    assert!(matches!(result, Err(Error::Timeout { .. })));
}

#[test]
fn redirects_are_followed_and_lose_the_password_at_another_origin() {
    let other = script(vec![Answer::new(200, "there")]);
    let elsewhere = other.url("/blob?sig=secret");
    let stub = Stub::start(move |asked| match asked.target.as_str() {
        "/a/start" => Answer::new(302, "").with("Location", "next"),
        "/a/next" => Answer::new(307, "").with("Location", "/abs"),
        "/abs" => Answer::new(302, "").with("Location", &elsewhere),
        _ => Answer::new(302, "").with("Location", &asked.target),
    });
    let response =
        client().get(&stub.url("/a/start")).header("Authorization", "Basic x").header("Range", "bytes=0-1").send();
    let response = response.expect("an answer");
    assert_eq!(response.url().as_str(), other.url("/blob?sig=secret"));
    assert_eq!(text(response), "there");
    assert!(stub.asked().iter().all(|a| a.header("authorization") == Some("Basic x")));
    assert_eq!(stub.lines(), ["GET /a/start", "GET /a/next", "GET /abs"]);
    assert_eq!(other.asked()[0].header("authorization"), None);
    assert_eq!(other.asked()[0].header("range"), Some("bytes=0-1"));
    assert!(matches!(client().get(&stub.url("/loop")).send(), Err(Error::Redirect { .. })));
    assert_eq!(client().post(&stub.url("/a/start")).send().expect("an answer").status(), 302);
}

#[test]
fn redirects_never_leave_encryption() {
    for location in ["http://example.com/", "ftp://127.0.0.1/", "file:///etc/passwd"] {
        let stub = script(vec![Answer::new(302, "").with("Location", location)]);
        assert!(matches!(client().get(&stub.url("/")).send(), Err(Error::Redirect { .. })), "{location}");
    }
}

#[test]
fn what_the_server_says_is_shown_and_the_query_is_not() {
    for (kind, body, expected) in [
        (
            "application/json",
            r#"{"errors":[{"code":"DENIED","message":"no\nway"},{"code":"X"}]}"#,
            ": DENIED: no way; X",
        ),
        ("application/json", r#"{"message":"Not found"}"#, ": Not found"),
        ("application/json", r#"{"error":{"code":7}}"#, r#": {"code":7}"#),
        ("text/plain", "plain\u{1b}[31m words\n", ": plain [31m words"),
        ("text/html", "<html>long page</html>", ""),
        ("text/plain", "", ""),
    ] {
        let stub = script(vec![Answer::new(403, body).with("Content-Type", kind)]);
        let error = client().get(&stub.url("/v2/?token=secret")).send().expect("an answer").ok().err().expect("403");
        assert_eq!(error.status(), Some(403));
        assert_eq!(error.to_string(), format!("GET {}?token=*** was answered 403{expected}", stub.url("/v2/")));
    }
}

#[test]
fn a_body_that_breaks_off_is_an_error_and_a_large_one_is_refused() {
    let stub = script(vec![Answer::new(200, vec![7; 100_000]).cut(60_000)]);
    let mut body = Vec::new();
    let result = client().get(&stub.url("/")).send().expect("a head").read_to_end(&mut body);
    assert_eq!(result.expect_err("cut").kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(body.len(), 60_000);
    assert!(matches!(client().get(&stub.url("/")).send().expect("a head").bytes(1 << 20), Err(Error::Body { .. })));
    assert!(matches!(client().get(&stub.url("/")).send().expect("a head").bytes(99_999), Err(Error::TooLarge { .. })));
}

#[test]
fn a_stream_is_sent_whole_with_its_length_and_from_the_start_again() {
    let stub = script(vec![Answer::new(500, ""), Answer::new(201, "")]);
    let data: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
    let offsets = Mutex::new(Vec::new());
    let fill = |buf: &mut [u8], offset: u64| {
        offsets.lock().expect("offsets").push(offset);
        let from = usize::try_from(offset).expect("small");
        buf.copy_from_slice(&data[from..from + buf.len()]);
        Ok(())
    };
    let request = client();
    let request = request.request(Method::PUT, &stub.url("/up")).stream(data.len() as u64, &fill);
    assert_eq!(request.send().expect("an answer").status(), 201);
    let asked = stub.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|a| a.body == data && a.header("content-length") == Some("2800000")));
    assert!(asked.iter().all(|a| a.header("transfer-encoding").is_none()));
    assert_eq!(offsets.lock().expect("offsets").iter().filter(|o| **o == 0).count(), 2);
}

#[test]
fn a_stream_that_cannot_be_read_is_not_repeated_nor_completed() {
    let stub = script(vec![Answer::new(201, "")]);
    let fill = |_: &mut [u8], offset: u64| if offset == 0 { Ok(()) } else { Err(io::Error::other("disk")) };
    let client = client();
    let result = client.request(Method::PUT, &stub.url("/")).stream(1 << 20, &fill).send();
    assert!(matches!(result, Err(Error::Content { .. })));
    assert_eq!(stub.asked().len(), 0);
}

#[test]
fn what_grows_is_sent_in_pieces_until_it_ends() {
    let stub = script(vec![Answer::new(202, "")]);
    let offsets = Mutex::new(Vec::new());
    let next = |offset: u64| {
        offsets.lock().expect("offsets").push(offset);
        Ok(vec![b'x'; if offset < 5000 { 2000 } else { 0 }])
    };
    let client = client();
    let answer = client.request(Method::PATCH, &stub.url("/")).grow(&next).attempts(1).send();
    assert_eq!(answer.expect("an answer").status(), 202);
    assert_eq!(*offsets.lock().expect("offsets"), [0, 2000, 4000, 6000]);
    let asked = &stub.asked()[0];
    assert_eq!((asked.header("content-length"), asked.body.len()), (None, 6000));
}

#[test]
fn what_stops_growing_is_never_complete() {
    let stub = script(vec![Answer::new(202, "")]);
    let next = |offset: u64| if offset == 0 { Ok(vec![0; 1 << 20]) } else { Err(io::Error::other("given up")) };
    for _ in 0..20 {
        let client = client();
        let result = client.request(Method::PATCH, &stub.url("/")).grow(&next).attempts(1).send();
        assert!(matches!(result, Err(Error::Content { .. })));
    }
    assert_eq!(stub.asked().len(), 0);
}

#[test]
fn a_post_without_a_body_has_a_length() {
    let stub = script(vec![Answer::new(202, "")]);
    client().post(&stub.url("/")).body("").send().expect("an answer");
    client().post(&stub.url("/")).json(&serde_json::json!({"a": 1})).send().expect("an answer");
    let asked = stub.asked();
    assert_eq!(asked[0].header("content-length"), Some("0"));
    assert_eq!(
        (asked[1].header("content-type"), asked[1].body.as_slice()),
        (Some("application/json"), &br#"{"a":1}"#[..])
    );
    assert!(asked[0].header("user-agent").is_some_and(|a| a.starts_with("esgz/")));
}

#[test]
fn a_wrong_url_or_header_is_told_without_a_request() {
    assert!(matches!(client().get("not a url").send(), Err(Error::Invalid { .. })));
    let stub = script(vec![Answer::new(200, "")]);
    let result = client().get(&stub.url("/")).header("Authorization", "two\nlines").send();
    assert!(matches!(result, Err(Error::Invalid { .. })));
    assert_eq!(stub.asked().len(), 0);
}

/// Runs in a process of its own, below.
#[test]
#[ignore = "a part of the next test"]
fn without_certificates_only_https_fails() {
    let stub = script(vec![Answer::new(200, "")]);
    assert_eq!(client().get(&stub.url("/")).send().expect("plain HTTP needs none").status(), 200);
    let error = client().get("https://127.0.0.2:1/").send().err().expect("nothing to trust");
    assert!(matches!(error, Error::NoCertificates { .. }), "{error:?}");
    assert!(error.to_string().contains("SSL_CERT_FILE"));
}

#[test]
fn a_system_without_certificates_is_told_clearly() {
    let run = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "--ignored", "http::tests::without_certificates_only_https_fails"])
        .env("SSL_CERT_FILE", "/dev/null")
        .env_remove("SSL_CERT_DIR")
        .output()
        .expect("this test again");
    let words = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && words.contains("1 passed"), "{words}");
}

#[test]
fn a_certificate_error_is_found_however_deep_it_is_wrapped() {
    let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
    let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
    for (error, expected) in [
        (io::Error::other(unknown.clone()), true),
        (io::Error::other(io::Error::other(unknown)), true),
        (io::Error::other(rustls::Error::HandshakeNotComplete), false),
        (io::Error::other(refused), false),
    ] {
        assert_eq!(is_certificate_error(&error), expected, "{error:?}");
    }
}
