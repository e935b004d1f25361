use std::path::PathBuf;

use serde_json::json;

use super::fake::{Fake, body, error};
use super::*;
use crate::http::stub::{Answer, Asked, Stub};
use crate::store::Kind;

fn blob(content: &[u8]) -> Descriptor {
    Descriptor::new(names::LAYER_TAR, Digest::of(content), content.len() as u64)
}

fn read(registry: &Registry, blob: &Descriptor) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    registry.open(blob)?.read_to_end(&mut bytes).map_err(|e| Error::from_io(e, "it"))?;
    Ok(bytes)
}

fn data() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// A docker config for the host of a stub.
fn config(dir: &tempfile::TempDir, host: &str, entry: &serde_json::Value) -> PathBuf {
    let path = dir.path().join("config.json");
    std::fs::write(&path, json!({ "auths": { host: entry } }).to_string()).expect("written");
    path
}

// Authentication

fn wants_basic(asked: &Asked, _: usize) -> Option<Answer> {
    let right = asked.header("authorization") == Some("Basic dTpw");
    (!right).then(|| error(401, "UNAUTHORIZED").with("www-authenticate", r#"Basic realm="x""#))
}

#[test]
fn a_user_and_password_are_sent_when_asked_for() {
    let fake = Fake::failing(wants_basic);
    let digest = fake.put_blob(b"x");
    let dir = tempfile::tempdir().expect("a folder");
    let registry = fake.registry_of(":t", config(&dir, &fake.stub.host, &json!({"auth": "dTpw"})), false);
    assert!(registry.has(&digest).expect("allowed"));
    assert!(registry.has(&digest).expect("allowed"));
    let sent: Vec<_> = fake.stub.asked().iter().map(|a| a.header("authorization").is_some()).collect();
    assert_eq!(sent, [false, true, true], "not before it is asked for, then at once");
}

#[test]
fn wrong_and_missing_credentials_say_where_they_came_from() {
    let dir = tempfile::tempdir().expect("a folder");
    for (entry, expected) in [
        (json!({"auth": "dTp3cm9uZw=="}), "does not accept the credentials found in"),
        (json!({"identitytoken": "x"}), "has an identity token"),
        (json!({}), "no credentials for"),
    ] {
        let fake = Fake::failing(wants_basic);
        let path = config(&dir, &fake.stub.host, &entry);
        let registry = fake.registry_of(":t", path.clone(), false);
        let failed = registry.has(&Digest::of(b"x")).expect_err("denied");
        let text = failed.to_string();
        assert_eq!(failed.kind(), Kind::Denied);
        for part in [expected, &fake.stub.host, &path.display().to_string()] {
            assert!(text.contains(part), "{text}: no {part}");
        }
        assert!(!text.contains("wrong"), "the password must not be shown: {text}");
        assert!(fake.stub.asked().len() <= 2);
    }
}

/// A registry that wants the last token that its token server gave; `life` is what tokens claim.
fn wants_bearer(challenge: &'static str, life: u64) -> Fake {
    let given = Mutex::new(0);
    Fake::failing(move |asked, _| {
        let mut given = given.lock().expect("count");
        if asked.target.starts_with("/token") {
            let known = asked.header("authorization") == Some("Basic dTpw") || asked.method == "POST";
            if !known {
                return Some(error(401, "UNAUTHORIZED"));
            }
            *given += 1;
            return Some(Answer::new(
                200,
                json!({"access_token": format!("t{given}"), "expires_in": life}).to_string(),
            ));
        }
        let wanted = format!("Bearer t{given}");
        if *given > 0 && asked.header("authorization") == Some(&wanted) {
            return None;
        }
        let host = asked.header("host").unwrap_or_default();
        Some(error(401, "UNAUTHORIZED").with("www-authenticate", challenge.replace("HOST", host)))
    })
}

#[test]
fn a_token_is_fetched_once_and_used_until_it_expires() {
    let dir = tempfile::tempdir().expect("a folder");
    for (life, expires, tokens) in [(3600, false, 1), (0, false, 1), (3600, true, 3)] {
        let fake = wants_bearer(r#"Bearer realm="http://HOST/token",service="s p",scope="repository:a/b:pull""#, life);
        let digest = fake.put_blob(b"x");
        let registry = fake.registry_of(":t", config(&dir, &fake.stub.host, &json!({"auth": "dTpw"})), false);
        for _ in 0..3 {
            assert!(registry.has(&digest).expect("allowed"));
            if expires {
                registry.shared.auth.expire();
            }
        }
        let lines = fake.stub.lines();
        let fetched: Vec<_> = lines.iter().filter(|l| l.starts_with("GET /token")).collect();
        assert_eq!(fetched.len(), tokens, "{lines:?}");
        assert_eq!(fetched[0], "GET /token?service=s+p&scope=repository%3Aa%2Fb%3Apull");
    }
}

#[test]
fn what_a_challenge_leaves_out_is_filled_in() {
    let dir = tempfile::tempdir().expect("a folder");
    let fake = wants_bearer(r#"Bearer realm="http://HOST/token""#, 3600);
    let registry = fake.registry_of(":t", config(&dir, &fake.stub.host, &json!({"auth": "dTpw"})), true);
    assert!(!registry.has(&Digest::of(b"")).expect("allowed"));
    assert!(
        fake.stub.lines().contains(&"GET /token?service=127.0.0.1&scope=repository%3Aa%2Fb%3Apull%2Cpush".to_owned())
    );
}

#[test]
fn an_identity_token_is_exchanged() {
    let dir = tempfile::tempdir().expect("a folder");
    let fake = wants_bearer(r#"Bearer realm="http://HOST/token",service="s""#, 3600);
    let entry = json!({"identitytoken": "secret&id"});
    let registry = fake.registry_of(":t", config(&dir, &fake.stub.host, &entry), false);
    assert!(!registry.has(&Digest::of(b"")).expect("allowed"));
    let asked = fake.stub.asked();
    let form = asked.iter().find(|a| a.method == "POST").expect("an exchange");
    let expected =
        "grant_type=refresh_token&service=s&client_id=esgz&scope=repository%3Aa%2Fb%3Apull&refresh_token=secret%26id";
    assert_eq!(form.body, expected.as_bytes());
    assert!(form.header("authorization").is_none());
}

#[test]
fn a_token_that_does_not_help_ends_in_denied() {
    let fake = Fake::failing(|asked, _| {
        if asked.target.starts_with("/token") {
            return Some(Answer::new(200, r#"{"token":"t"}"#));
        }
        let challenge = format!(
            r#"Bearer realm="http://{}/token",error="insufficient_scope""#,
            asked.header("host").unwrap_or_default()
        );
        Some(error(401, "DENIED").with("www-authenticate", challenge))
    });
    let failed = fake.registry(":t").put_manifest(names::MANIFEST, b"{}").expect_err("denied");
    assert_eq!(failed.kind(), Kind::Denied);
    assert!(
        failed.to_string().contains("DENIED: as asked") && failed.to_string().contains("no credentials for"),
        "{failed}"
    );
    assert_eq!(fake.stub.asked().len(), 3, "one token, one more try");
}

#[test]
fn credentials_go_to_no_realm_that_could_be_overheard_or_is_nobodys() {
    let dir = tempfile::tempdir().expect("a folder");
    for challenge in
        [r#"Bearer realm="http://example.com/token""#, r#"Bearer realm="file:///etc/passwd""#, "Negotiate", "Bearer"]
    {
        let fake = wants_bearer(challenge, 60);
        let registry = fake.registry_of(":t", config(&dir, &fake.stub.host, &json!({"auth": "dTpw"})), false);
        let failed = registry.has(&Digest::of(b"")).expect_err("not trusted");
        assert_eq!(failed.kind(), Kind::Unsupported, "{challenge}: {failed}");
        assert_eq!(fake.stub.asked().len(), 1);
    }
}

#[test]
fn a_challenge_of_another_server_is_not_answered() {
    let other = Stub::start(|_| error(401, "GIVE").with("www-authenticate", r#"Basic realm="me""#));
    let there = other.url("/blob");
    let fake = Fake::failing(move |_, _| Some(Answer::new(307, "").with("location", &there)));
    let dir = tempfile::tempdir().expect("a folder");
    let registry = fake.registry_of(":t", config(&dir, &other.host, &json!({"auth": "dTpw"})), false);
    assert_eq!(read(&registry, &blob(b"x")).expect_err("denied").kind(), Kind::Denied);
    assert!(other.asked().iter().all(|a| a.header("authorization").is_none()));
}

#[test]
fn threads_that_fail_together_fetch_one_token() {
    let dir = tempfile::tempdir().expect("a folder");
    let fake = wants_bearer(r#"Bearer realm="http://HOST/token""#, 3600);
    let registry = fake.registry_of(":t", config(&dir, &fake.stub.host, &json!({"auth": "dTpw"})), false);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| registry.has(&Digest::of(b"")).expect("allowed"));
        }
    });
    assert_eq!(fake.stub.lines().iter().filter(|l| l.contains("/token")).count(), 1);
}

// Downloads

#[test]
fn a_stream_that_breaks_goes_on_where_it_stopped() {
    let fake = Fake::failing(|asked, n| {
        let whole = data();
        match n {
            0 => Some(body(asked, &whole).cut(100_000)),
            1 => Some(error(503, "BUSY")),
            2 => Some(body(asked, &whole).cut(0)),
            3 => Some(body(asked, &whole).cut(50_001)),
            _ => None,
        }
    });
    fake.put_blob(&data());
    assert!(read(&fake.registry(":t"), &blob(&data())).expect("whole") == data());
    let asked = fake.stub.asked();
    let ranges: Vec<_> = asked.iter().map(|a| a.header("range").unwrap_or_default()).collect();
    let last = data().len() - 1;
    let (again, more) = (format!("bytes=100000-{last}"), format!("bytes=150001-{last}"));
    assert_eq!(ranges, ["", &again, &again, &again, &more]);
}

#[test]
fn a_stream_that_cannot_be_had_ends_in_an_error() {
    let whole = blob(&data());
    for (name, fault, kind) in [
        (
            "always cut",
            (|asked, _| Some(body(asked, &data()).cut(10))) as fn(&Asked, usize) -> Option<Answer>,
            Kind::Unreachable,
        ),
        (
            "cut, then the whole",
            |_, n| Some(if n == 0 { Answer::new(200, data()).cut(10) } else { Answer::new(200, data()) }),
            Kind::Unsupported,
        ),
        (
            "cut, then gone",
            |_, n| Some(if n == 0 { Answer::new(200, data()).cut(10) } else { error(404, "BLOB_UNKNOWN") }),
            Kind::NotFound,
        ),
        ("short", |_, _| Some(Answer::new(200, "short")), Kind::Corrupt),
        ("long", |_, _| Some(Answer::new(200, vec![0; 400_001])), Kind::Corrupt),
        ("other bytes", |_, _| Some(Answer::new(200, vec![0; 400_000])), Kind::Corrupt),
        ("no content", |_, _| Some(Answer::new(204, "").with("content-length", 400_000)), Kind::Unsupported),
        ("forbidden", |_, _| Some(error(403, "DENIED")), Kind::Denied),
        ("busy", |_, _| Some(error(503, "BUSY")), Kind::Unreachable),
    ] {
        let fake = Fake::failing(fault);
        let failed = read(&fake.registry(":t"), &whole).err().unwrap_or_else(|| panic!("{name}"));
        assert_eq!(failed.kind(), kind, "{name}: {failed:?}");
        assert!(fake.stub.asked().len() <= 5, "{name}: {:?}", fake.stub.lines());
    }
}

#[test]
fn a_very_large_blob_is_read_in_segments() {
    let fake = Fake::start();
    fake.put_blob(&data());
    let mut registry = fake.registry(":t");
    Arc::get_mut(&mut registry.shared).expect("not shared yet").segment = 150_000;
    assert!(read(&registry, &blob(&data())).expect("whole") == data());
    let mut all = vec![0; data().len()];
    registry.open_at(&blob(&data())).expect("there").read_exact_at(&mut all, 0).expect("whole");
    assert!(all == data());
    let asked = fake.stub.asked();
    let ranges: Vec<_> = asked.iter().map(|a| a.header("range").unwrap_or_default()).collect();
    let once = ["bytes=0-149999", "bytes=150000-299999", "bytes=300000-399999"];
    assert_eq!(ranges, [once, once].concat());
}

#[test]
fn ranged_reads_resolve_a_redirect_once_and_again_when_it_ends() {
    for status in [400, 401, 403, 410] {
        let signed = Stub::start(move |asked| {
            if asked.target.ends_with("n=0") && asked.range().is_some_and(|(from, _)| from >= 200) {
                return Answer::new(status, "expired");
            }
            body(asked, &data())
        });
        let there = signed.url("/blob?n=");
        let fake = Fake::failing(move |_, n| Some(Answer::new(307, "").with("location", format!("{there}{n}"))));
        let at = fake.registry(":t").open_at(&blob(&data())).expect("no request yet");
        assert_eq!(fake.stub.asked().len(), 0);
        for from in [0, 100, 200, 300] {
            let mut buf = [0; 50];
            at.read_exact_at(&mut buf, from as u64).expect("there");
            assert_eq!(buf, data()[from..from + 50]);
        }
        assert_eq!(fake.stub.asked().len(), 2, "{status}");
        let targets: Vec<_> = signed.asked().iter().map(|a| a.target.clone()).collect();
        assert_eq!(targets, ["/blob?n=0", "/blob?n=0", "/blob?n=0", "/blob?n=1", "/blob?n=1"]);
    }
}

#[test]
fn a_relative_redirect_is_kept_with_the_registrys_token() {
    let fake = Fake::failing(|asked, n| {
        if let Some(no) = wants_basic(asked, n) {
            return Some(no);
        }
        let direct = asked.target.starts_with("/artifacts-downloads/");
        Some(if direct {
            body(asked, &data())
        } else {
            Answer::new(302, "").with("location", "/artifacts-downloads/p/x")
        })
    });
    let dir = tempfile::tempdir().expect("a folder");
    let registry = fake.registry_of(":t", config(&dir, &fake.stub.host, &json!({"auth": "dTpw"})), false);
    let at = registry.open_at(&blob(&data())).expect("no request yet");
    for from in [0, 7] {
        let mut buf = [0; 50];
        at.read_exact_at(&mut buf, from as u64).expect("there");
        assert_eq!(buf, data()[from..from + 50]);
    }
    let path = format!("GET /v2/a/b/blobs/{}", Digest::of(&data()));
    assert_eq!(fake.stub.lines(), [&path, &path, "GET /artifacts-downloads/p/x", "GET /artifacts-downloads/p/x"]);
}

#[test]
fn a_range_must_be_answered_with_that_range() {
    let ranged = |status: u16, range: &str| Answer::new(status, [7; 10]).with("content-range", range);
    for (name, answer, kind) in [
        ("the whole", Answer::new(200, data()), io_kind(Kind::Unsupported)),
        ("no header", Answer::new(206, [7; 10]), io_kind(Kind::Unsupported)),
        ("another range", ranged(206, "bytes 0-9/400000"), io_kind(Kind::Unsupported)),
        ("another size", ranged(206, "bytes 5-14/400001"), io_kind(Kind::Corrupt)),
        ("not there", error(404, "BLOB_UNKNOWN"), io_kind(Kind::NotFound)),
        ("outside", error(416, "X").with("content-range", "bytes */3"), io_kind(Kind::Corrupt)),
    ] {
        let fake = Fake::failing(move |_, _| Some(answer.clone()));
        let at = fake.registry(":t").open_at(&blob(&data())).expect("no request yet");
        let failed = at.read_exact_at(&mut [0; 10], 5).err().unwrap_or_else(|| panic!("{name}"));
        assert_eq!(failed.kind(), kind, "{name}: {failed}");
        assert_eq!(fake.stub.asked().len(), 1, "{name}");
    }
    let fake = Fake::failing(move |_, _| Some(ranged(206, "bytes 5-14/*")));
    let at = fake.registry(":t").open_at(&blob(&data())).expect("no request yet");
    at.read_exact_at(&mut [0; 10], 5).expect("an unknown size is allowed");
}

fn io_kind(kind: Kind) -> std::io::ErrorKind {
    match kind {
        Kind::NotFound => std::io::ErrorKind::NotFound,
        Kind::Corrupt => std::io::ErrorKind::InvalidData,
        _ => std::io::ErrorKind::Unsupported,
    }
}

#[test]
fn a_range_that_breaks_is_completed() {
    let fake = Fake::failing(|asked, n| (n < 2).then(|| body(asked, &data()).cut(1000)));
    fake.put_blob(&data());
    let mut buf = vec![0; 5000];
    fake.registry(":t").open_at(&blob(&data())).expect("no request yet").read_exact_at(&mut buf, 10).expect("there");
    assert!(buf == data()[10..5010]);
    let asked = fake.stub.asked();
    let ranges: Vec<_> = asked.iter().filter_map(|a| a.header("range")).collect();
    assert_eq!(ranges, ["bytes=10-5009", "bytes=1010-5009", "bytes=2010-5009"]);
}

// Uploads

/// Methods and paths without queries, digests as `D` and sessions as they are.
fn steps(fake: &Fake) -> Vec<String> {
    let short = |l: &String| {
        l.split('?')
            .next()
            .unwrap_or_default()
            .replace("/v2/a/b/blobs/", "")
            .replace(&Digest::of(&data()).to_string(), "D")
    };
    fake.stub.lines().iter().map(short).collect()
}

#[test]
fn an_upload_is_one_write_in_one_session() {
    let fake = Fake::start();
    let registry = fake.registry(":t");
    registry.put(&blob(&data()), &data()).expect("put");
    assert_eq!(steps(&fake), ["HEAD D", "POST uploads/", "PUT uploads/1"]);
    let put = &fake.stub.asked()[2];
    assert_eq!(put.header("content-length"), Some("400000"));
    assert_eq!(put.header("content-type"), Some("application/octet-stream"));
    assert!(put.body == data());
    registry.put(&blob(&data()), &data()).expect("there");
    assert_eq!(steps(&fake).len(), 4, "only looked for");
}

#[test]
fn a_failed_upload_starts_over_in_a_new_session() {
    for (name, status, code) in
        [("busy", 503, "X"), ("slow down", 429, "X"), ("session lost", 404, "BLOB_UPLOAD_UNKNOWN")]
    {
        let fake = Fake::failing(move |asked, _| {
            let first = asked.method == "PUT" && asked.target.contains("uploads/1?");
            first.then(|| error(status, code))
        });
        fake.registry(":t").put(&blob(&data()), &data()).expect(name);
        assert_eq!(
            steps(&fake),
            ["HEAD D", "POST uploads/", "PUT uploads/1", "HEAD D", "POST uploads/", "PUT uploads/2"]
        );
    }
}

#[test]
fn a_token_that_ends_during_an_upload_is_renewed_for_the_next() {
    let dir = tempfile::tempdir().expect("a folder");
    let given = Mutex::new(0);
    let fake = Fake::failing(move |asked, _| {
        let mut given = given.lock().expect("count");
        if asked.target.starts_with("/token") {
            *given += 1;
            return Some(Answer::new(200, json!({"token": format!("t{given}"), "expires_in": 3600}).to_string()));
        }
        let challenge = format!(r#"Bearer realm="http://{}/token""#, asked.header("host").unwrap_or_default());
        let ended = asked.method == "PUT" && asked.target.contains("uploads/1?");
        let none = asked.header("authorization").is_none();
        (ended || none).then(|| error(401, "UNAUTHORIZED").with("www-authenticate", challenge))
    });
    let registry = fake.registry_of(":t", config(&dir, &fake.stub.host, &json!({"auth": "dTpw"})), true);
    registry.put(&blob(&data()), &data()).expect("put");
    let last = fake.stub.asked().pop().expect("requests");
    assert_eq!((last.method.as_str(), last.header("authorization")), ("PUT", Some("Bearer t2")));
}

#[test]
fn an_upload_goes_where_the_registry_says_without_its_password() {
    let other = Stub::start(|asked| Answer::new(201, "").with(DIGEST_HEADER, Digest::of(&asked.body)));
    let there = other.url("/session?a=%2Fb");
    let dir = tempfile::tempdir().expect("a folder");
    let fake = Fake::failing(move |asked, n| {
        wants_basic(asked, n)
            .or_else(|| (asked.method == "POST").then(|| Answer::new(202, "").with("location", &there)))
    });
    let registry = fake.registry_of(":t", config(&dir, &fake.stub.host, &json!({"auth": "dTpw"})), true);
    registry.put(&blob(b"x"), &b"x".to_vec()).expect("put");
    let asked = &other.asked()[0];
    let expected = format!("/session?a=%2Fb&digest={}", Digest::of(b"x").to_string().replace(':', "%3A"));
    assert_eq!((asked.target.as_str(), asked.header("authorization")), (expected.as_str(), None));
}

#[test]
fn uploads_that_cannot_succeed_are_not_repeated() {
    for (name, method, answer, kind) in [
        ("forbidden", "POST", error(403, "DENIED"), Kind::Denied),
        ("no session", "POST", Answer::new(202, ""), Kind::Unsupported),
        ("overheard", "POST", Answer::new(202, "").with("location", "http://example.com/"), Kind::Unsupported),
        ("refused", "PUT", error(400, "DIGEST_INVALID"), Kind::Other),
        ("too large", "PUT", error(413, "X"), Kind::Other),
        ("not finished", "PUT", Answer::new(202, ""), Kind::Unsupported),
        ("other digest", "PUT", Answer::new(201, "").with(DIGEST_HEADER, Digest::of(b"")), Kind::Corrupt),
    ] {
        let fake = Fake::failing(move |asked, _| (asked.method == method).then(|| answer.clone()));
        let failed = fake.registry(":t").put(&blob(&data()), &data()).err().unwrap_or_else(|| panic!("{name}"));
        assert_eq!(failed.kind(), kind, "{name}: {failed:?}");
        assert_eq!(fake.stub.lines().iter().filter(|l| l.starts_with(method)).count(), 1, "{name}");
    }
}

#[test]
fn content_that_changes_under_the_upload_is_never_complete() {
    let fake = Fake::start();
    let mut changed = data();
    changed[399_999] ^= 1;
    assert_eq!(fake.registry(":t").put(&blob(&data()), &changed).expect_err("changed").kind(), Kind::Corrupt);
    assert_eq!(steps(&fake), ["HEAD D", "POST uploads/"], "the write never arrived whole");
}

// Manifests

fn manifest(fake: &Fake) -> Vec<u8> {
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).to_string();
    let mut descriptor = blob(config.as_bytes());
    fake.put_blob(config.as_bytes());
    descriptor.media_type = names::DOCKER_CONFIG.into();
    json!({"schemaVersion": 2, "mediaType": names::DOCKER_MANIFEST, "config": descriptor.to_json(), "layers": []})
        .to_string()
        .into_bytes()
}

#[test]
fn an_image_is_asked_for_in_every_form_and_found_by_tag_or_digest() {
    let fake = Fake::start();
    let digest = fake.put_manifest("t", names::DOCKER_MANIFEST, &manifest(&fake));
    for selector in [":t".to_owned(), format!("@{digest}"), format!(":other@{digest}")] {
        let image = fake.registry(&selector).image("linux/amd64").expect("there");
        assert_eq!((image.descriptor.digest, image.descriptor.media_type.as_str()), (digest, names::DOCKER_MANIFEST));
    }
    let asked = fake.stub.asked();
    let accepted: Vec<_> = asked[0].headers.iter().filter(|(n, _)| n == "accept").map(|(_, v)| v.as_str()).collect();
    assert_eq!(accepted, ACCEPT);
}

#[test]
fn manifests_that_are_not_what_they_should_be_are_refused() {
    let schema1 = json!({"schemaVersion": 1, "fsLayers": []}).to_string();
    let artifact = json!({"schemaVersion": 2, "mediaType": names::MANIFEST, "layers": [],
        "config": Descriptor::new("application/vnd.oci.empty.v1+json", Digest::of(b"{}"), 2).to_json()})
    .to_string();
    for (name, answer, kind, words) in [
        ("schema 1", Answer::new(200, schema1), Kind::Unsupported, "schema 1"),
        ("an artifact", Answer::new(200, artifact), Kind::Unsupported, "vnd.oci.empty"),
        ("not JSON", Answer::new(200, "<html>"), Kind::Corrupt, "JSON"),
        (
            "another digest",
            Answer::new(200, "{}").with(DIGEST_HEADER, Digest::of(b"")),
            Kind::Corrupt,
            "Docker-Content-Digest",
        ),
        ("huge", Answer::new(200, "").with("content-length", 1_u64 << 40), Kind::Corrupt, "1099511627776"),
        ("huge unsaid", Answer::new(200, vec![b' '; 17 << 20]).with("content-length", ""), Kind::Other, ""),
        ("not there", error(404, "MANIFEST_UNKNOWN"), Kind::NotFound, "image t does not exist in 127.0.0.1"),
    ] {
        let fake = Fake::failing(move |_, _| Some(answer.clone()));
        let failed = fake.registry(":t").image("linux/amd64").err().unwrap_or_else(|| panic!("{name}"));
        if name != "huge unsaid" {
            assert_eq!(failed.kind(), kind, "{name}: {failed:?}");
        }
        assert!(failed.to_string().contains(words), "{name}: {failed}");
    }
    let fake = Fake::start();
    let bytes = manifest(&fake);
    let pinned = Digest::of(b"another");
    fake.content.lock().expect("content").manifests.insert(pinned.to_string(), (names::DOCKER_MANIFEST.into(), bytes));
    let failed = fake.registry(&format!("@{pinned}")).image("linux/amd64").expect_err("not the pinned one");
    assert_eq!(failed.kind(), Kind::Corrupt);
}

#[test]
fn a_config_that_was_altered_is_refused() {
    let fake = Fake::start();
    let bytes = manifest(&fake);
    fake.put_manifest("t", names::DOCKER_MANIFEST, &bytes);
    for config in fake.content.lock().expect("content").blobs.values_mut() {
        config[0] = b' ';
    }
    assert_eq!(fake.registry(":t").image("linux/amd64").expect_err("altered").kind(), Kind::Corrupt);
}

#[test]
fn a_manifest_is_written_under_its_type_and_its_digest_checked() {
    let fake = Fake::start();
    let bytes = manifest(&fake);
    let digest = fake.registry(":v1").put_manifest(names::DOCKER_MANIFEST, &bytes).expect("put");
    assert_eq!(digest, Digest::of(&bytes));
    let asked = fake.stub.asked();
    assert_eq!(
        (asked[0].target.as_str(), asked[0].header("content-type")),
        ("/v2/a/b/manifests/v1", Some(names::DOCKER_MANIFEST))
    );
    assert_eq!(asked[0].body, bytes);
    let other = fake.registry(&format!(":v1@{}", Digest::of(b"")));
    assert_eq!(other.put_manifest(names::DOCKER_MANIFEST, &bytes).expect_err("pinned").kind(), Kind::Corrupt);
    let lying = Fake::failing(|_, _| Some(Answer::new(201, "").with(DIGEST_HEADER, Digest::of(b""))));
    assert_eq!(lying.registry(":t").put_manifest(names::MANIFEST, &bytes).expect_err("lying").kind(), Kind::Corrupt);
}

#[test]
fn a_registry_that_is_down_is_unreachable() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let Ok(crate::image::Reference::Registry(reference)) = format!("{gone}/a:t").parse() else { panic!("a reference") };
    let client = Client::new().expect("a client").with_retry(http::Retry::default().attempts(1));
    let registry =
        Registry::with(client, Files::only("/nonexistent".into()), &reference, false).expect("no request yet");
    let failed = registry.image("linux/amd64").expect_err("down");
    assert_eq!(failed.kind(), Kind::Unreachable);
    assert_eq!(failed.to_string(), format!("could not ask {gone}/a"));
}

#[test]
fn hosts_decide_the_scheme() {
    for (host, base) in [
        ("127.0.0.1:5000", "http://127.0.0.1:5000/v2/a/b/"),
        ("localhost:80", "http://localhost/v2/a/b/"),
        ("europe-west1-docker.pkg.dev", "https://europe-west1-docker.pkg.dev/v2/a/b/"),
        ("10.0.0.1:5000", "https://10.0.0.1:5000/v2/a/b/"),
        ("docker.io", "https://registry-1.docker.io/v2/a/b/"),
    ] {
        let Ok(crate::image::Reference::Registry(reference)) = format!("{host}/a/b").parse() else { panic!("{host}") };
        let client = Client::new().expect("a client");
        let registry = Registry::with(client, Files::only("/nonexistent".into()), &reference, false).expect("valid");
        assert_eq!(registry.shared.base.as_str(), base);
    }
}
