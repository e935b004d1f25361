//! Uploads of blobs that are still being made: `POST`, one `PATCH` without a length, and an empty `PUT` with the digest, as
//! `docker push` does it, which is why every registry knows it. Artifact Registry takes one write a session, and this is one.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Shared, check_answer, session_of};
use crate::http::{self, Method, Url, address};
use crate::store::{Error, Growing};

/// Most bytes of a piece.
const PIECE: usize = 1 << 20;
/// A session that was left is given back, if that is no trouble.
const GOODBYE: Duration = Duration::from_secs(5);

/// One attempt. After a failure of the registry's there are no others, and blobs are uploaded when they are complete.
pub(super) fn put(shared: &Shared, blob: &dyn Growing) -> Result<bool, Error> {
    if shared.whole_only.load(Ordering::Relaxed) {
        return Ok(false);
    }
    let session = shared.session(|| what(shared))?;
    let result = send(shared, &session, blob);
    if let Err(e) = &result {
        // Content that ended early is no fault of the registry's.
        shared.whole_only.fetch_or(!matches!(e, Error::Io { .. }), Ordering::Relaxed);
        if let Ok((_, request)) = shared.to_session(Method::DELETE, &session) {
            let _needless = request.attempts(1).timeout(GOODBYE).send();
        }
    }
    result.map(|()| true)
}

fn what(shared: &Shared) -> String {
    format!("upload a layer to {} while it is compressed", shared.name)
}

fn send(shared: &Shared, session: &Url, blob: &dyn Growing) -> Result<(), Error> {
    let next = |offset| {
        let mut piece = vec![0; PIECE];
        let length = blob.read_at(&mut piece, offset)?;
        piece.truncate(length);
        Ok(piece)
    };
    let (_, request) = shared.to_session(Method::PATCH, session)?;
    let response = request.header("content-type", "application/octet-stream").grow(&next).attempts(1).send();
    let response = response.map_err(|e| match e {
        http::Error::Content { source, .. } => Error::Io { what: what(shared), source },
        source => Error::Http { what: what(shared), source },
    })?;
    let mut target = session_of(&shared.ok(response, &what(shared))?, || what(shared))?;
    let Some(blob) = blob.descriptor() else {
        let why = "its digest is not known at its end".into();
        return Err(Error::Unsupported { what: what(shared), why });
    };
    target.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
    let mut answered = false;
    let response = loop {
        let (generation, request) = shared.to_session(Method::PUT, &target)?;
        let response = request.body("").attempts(1).send();
        let response = response.map_err(|source| Error::Http { what: what(shared), source })?;
        // The token may have ended on the way.
        if response.status() != 401 || answered || !address::same_origin(response.url(), &shared.base) {
            break response;
        }
        shared.auth.answer(generation, &response)?;
        answered = true;
    };
    let response = shared.ok(response, &what(shared))?;
    if response.status() != 201 {
        let why = format!("it was answered {}: expected 201", response.status());
        return Err(Error::Unsupported { what: what(shared), why });
    }
    check_answer(&response, &blob.digest, || what(shared))
}

#[cfg(test)]
mod tests {
    use std::io;

    use serde_json::json;

    use super::super::fake::{Fake, error};
    use super::*;
    use crate::digest::Digest;
    use crate::http::stub::Answer;
    use crate::image::{Descriptor, names};
    use crate::store::{Blobs, Kind};

    /// Bytes that come in pieces, and end or are given up.
    struct Bytes {
        bytes: Vec<u8>,
        whole: bool,
    }

    impl Growing for Bytes {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            let rest = &self.bytes[usize::try_from(offset).expect("small")..];
            if rest.is_empty() && !self.whole {
                return Err(io::Error::other("given up"));
            }
            let n = rest.len().min(buf.len()).min(70_000);
            buf[..n].copy_from_slice(&rest[..n]);
            Ok(n)
        }

        fn descriptor(&self) -> Option<Descriptor> {
            Some(Descriptor::new(names::LAYER_GZIP, Digest::of(&self.bytes), self.bytes.len() as u64))
        }
    }

    fn content() -> Bytes {
        Bytes { bytes: (0..100_000_u32).flat_map(u32::to_le_bytes).collect(), whole: true }
    }

    /// Method and last word of each request.
    fn steps(fake: &Fake) -> Vec<String> {
        let short = |l: &String| l.split('?').next().unwrap_or_default().replace("/v2/a/b/blobs/", "");
        fake.stub.lines().iter().map(short).collect()
    }

    #[test]
    fn it_is_one_write_without_a_length_and_an_empty_one_with_the_digest() {
        let fake = Fake::start();
        assert!(fake.registry(":t").put_growing(&content()).expect("stored"));
        assert_eq!(steps(&fake), ["POST uploads/", "PATCH uploads/1", "PUT uploads/1"]);
        let asked = fake.stub.asked();
        assert_eq!((asked[1].header("content-length"), asked[1].header("content-range")), (None, None));
        assert_eq!((asked[2].header("content-length"), asked[2].body.len()), (Some("0"), 0));
        let stored = &fake.content.lock().expect("content").blobs;
        assert!(stored[&Digest::of(&content().bytes).to_string()] == content().bytes);
    }

    #[test]
    fn after_a_failure_there_are_no_others_and_whole_blobs_go_as_ever() {
        let session = Answer::new(202, "").with("location", "/elsewhere");
        for (name, method, answer) in [
            ("not known", "PATCH", error(405, "UNSUPPORTED")),
            ("broken", "PATCH", error(500, "X")),
            ("no session", "PATCH", Answer::new(202, "")),
            ("overheard", "PATCH", Answer::new(202, "").with("location", "http://example.com/")),
            ("refused", "PUT", error(400, "DIGEST_INVALID")),
            ("not finished", "PUT", session),
            ("other digest", "PUT", Answer::new(201, "").with(super::super::DIGEST_HEADER, Digest::of(b""))),
        ] {
            let fake = Fake::failing(move |asked, _| {
                (asked.method == method && asked.target.contains("uploads/1")).then(|| answer.clone())
            });
            let registry = fake.registry(":t");
            registry.put_growing(&content()).expect_err(name);
            assert_eq!(steps(&fake).last().map(String::as_str), Some("DELETE uploads/1"), "{name}");
            let before = steps(&fake).len();
            assert!(!registry.put_growing(&content()).expect("left alone"), "{name}");
            assert_eq!(steps(&fake).len(), before, "{name}");
            registry.put(&content().descriptor().expect("known"), &content().bytes).expect(name);
        }
    }

    #[test]
    fn what_is_given_up_never_completes_and_stops_no_other() {
        let fake = Fake::start();
        let registry = fake.registry(":t");
        let failed = registry.put_growing(&Bytes { whole: false, ..content() }).expect_err("given up");
        assert_eq!(failed.kind(), Kind::Other);
        assert_eq!(steps(&fake), ["POST uploads/", "DELETE uploads/1"], "the write never arrived whole");
        assert!(registry.put_growing(&content()).expect("another"));
    }

    #[test]
    fn a_token_that_ends_meanwhile_is_renewed() {
        let dir = tempfile::tempdir().expect("a folder");
        let fake = Fake::failing(move |asked, n| {
            if asked.target.starts_with("/token") {
                return Some(Answer::new(200, json!({"token": format!("t{n}"), "expires_in": 3600}).to_string()));
            }
            let challenge = format!(r#"Bearer realm="http://{}/token""#, asked.header("host").unwrap_or_default());
            let ended = asked.method == "PUT" && asked.header("authorization") == Some("Bearer t0");
            let refused = ended || asked.header("authorization").is_none();
            refused.then(|| error(401, "UNAUTHORIZED").with("www-authenticate", challenge))
        });
        let path = dir.path().join("config.json");
        std::fs::write(&path, json!({ "auths": { &fake.stub.host: {"auth": "dTpw"} } }).to_string()).expect("written");
        assert!(fake.registry_of(":t", path, true).put_growing(&content()).expect("stored"));
        let last = fake.stub.asked().pop().expect("requests");
        assert_eq!((last.method.as_str(), last.header("authorization")), ("PUT", Some("Bearer t1")));
    }
}
