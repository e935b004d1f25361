//! Mounting: a blob that another repository of the same registry has is taken over and not sent (OCI distribution spec,
//! "Mounting a blob from another repository").
//!
//! Asking costs no request of its own: a registry that does not mount opens an ordinary upload session, which is used.

use super::{Registry, check_answer, session_of};
use crate::http::Url;
use crate::image::Descriptor;
use crate::image::reference::RegistryReference;
use crate::store::Error;

impl Registry {
    /// Lets blobs be taken over from the repository of another reference, where that is in the same registry.
    #[must_use]
    pub fn mounting(self, from: &RegistryReference) -> Self {
        if from.host == self.reference.host && from.repository != self.reference.repository {
            self.shared.auth.also_pull(&from.repository);
        }
        self
    }

    /// Starts an upload: where to send the blob, or `None` when it was mounted and is there.
    pub(super) fn begin_upload(&self, blob: &Descriptor) -> Result<Option<Url>, Error> {
        let shared = &self.shared;
        let what = || format!("upload blob {} to {}", blob.digest, shared.name);
        if let Some(from) = shared.auth.other() {
            let mut mount = shared.url("blobs/uploads/")?;
            mount.query_pairs_mut().append_pair("mount", &blob.digest.to_string()).append_pair("from", &from);
            match shared.call(&|| shared.client.post(mount.as_str()).body("")) {
                Ok(response) if response.status() == 201 => {
                    check_answer(&response, &blob.digest, what)?;
                    return Ok(None);
                }
                Ok(response) if response.status() == 202 && response.location().is_some() => {
                    return session_of(&response, what).map(Some);
                }
                // It may be the other repository that is denied, or mounting that is not known: uploading says which. If
                // it is the registry that is out of reach, so does it.
                Ok(_) | Err(_) => shared.auth.forget_other(),
            }
        }
        shared.session(what).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::digest::Digest;
    use crate::http::stub::{Answer, Asked};
    use crate::image::{Reference, names};
    use crate::store::registry::DIGEST_HEADER;
    use crate::store::registry::fake::{Fake, error};
    use crate::store::{Blobs, Kind};

    const CONTENT: &[u8] = b"a layer that another repository has";

    fn blob(content: &[u8]) -> Descriptor {
        Descriptor::new(names::LAYER_TAR, Digest::of(content), content.len() as u64)
    }

    fn mounting(fake: &Fake, from: &str) -> Registry {
        let Ok(Reference::Registry(from)) = from.parse() else { panic!("a registry reference") };
        fake.registry(":t").mounting(&from)
    }

    fn beside(fake: &Fake) -> Registry {
        mounting(fake, &format!("{}/c/d:other", fake.stub.host))
    }

    fn is_mount(asked: &Asked) -> bool {
        asked.method == "POST" && asked.target.contains("mount=")
    }

    /// Methods, with `mount` for the attempt at one.
    fn steps(fake: &Fake) -> Vec<String> {
        fake.stub.asked().iter().map(|a| if is_mount(a) { "mount".into() } else { a.method.clone() }).collect()
    }

    #[test]
    fn what_the_other_repository_has_is_not_sent() {
        let fake = Fake::start();
        fake.put_elsewhere("c/d", CONTENT);
        let registry = beside(&fake);
        registry.put(&blob(CONTENT), &CONTENT.to_vec()).expect("mounted");
        assert_eq!(steps(&fake), ["HEAD", "mount"]);
        let digest = Digest::of(CONTENT).to_string().replace(':', "%3A");
        assert_eq!(fake.stub.asked()[1].target, format!("/v2/a/b/blobs/uploads/?mount={digest}&from=c%2Fd"));
        assert!(registry.has(&Digest::of(CONTENT)).expect("asked"));
    }

    #[test]
    fn a_session_in_place_of_a_mount_is_used() {
        let fake = Fake::start();
        let registry = beside(&fake);
        for content in [CONTENT, b"another"] {
            registry.put(&blob(content), &content.to_vec()).expect("uploaded");
        }
        assert_eq!(steps(&fake), ["HEAD", "mount", "PUT", "HEAD", "mount", "PUT"]);
    }

    #[test]
    fn a_refused_mount_is_an_upload_and_not_tried_again() {
        for status in [400, 401, 403, 404, 405, 200] {
            let fake = Fake::failing(move |asked, _| is_mount(asked).then(|| error(status, "X")));
            let registry = beside(&fake);
            for content in [CONTENT, b"another"] {
                registry.put(&blob(content), &content.to_vec()).expect("uploaded");
            }
            assert_eq!(steps(&fake), ["HEAD", "mount", "POST", "PUT", "HEAD", "POST", "PUT"], "{status}");
        }
        // What may be better later is asked for as often as everything else.
        let fake = Fake::failing(|asked, n| (is_mount(asked) && n < 2).then(|| error(503, "X")));
        beside(&fake).put(&blob(CONTENT), &CONTENT.to_vec()).expect("uploaded");
        assert_eq!(steps(&fake), ["HEAD", "mount", "mount", "mount", "PUT"]);
        let fake = Fake::failing(|asked, _| (asked.method == "POST").then(|| error(403, "DENIED")));
        let failed = beside(&fake).put(&blob(CONTENT), &CONTENT.to_vec()).expect_err("denied");
        assert_eq!((failed.kind(), steps(&fake).len()), (Kind::Denied, 3));
    }

    #[test]
    fn a_mount_of_another_digest_is_corrupt() {
        let other = Digest::of(b"");
        let answer = move || Answer::new(201, "").with(DIGEST_HEADER, other);
        let fake = Fake::failing(move |asked, _| is_mount(asked).then(answer));
        let failed = beside(&fake).put(&blob(CONTENT), &CONTENT.to_vec()).expect_err("another digest");
        assert_eq!(failed.kind(), Kind::Corrupt);
    }

    #[test]
    fn nothing_is_mounted_from_the_same_repository_or_another_registry() {
        let fake = Fake::start();
        for from in [format!("{}/a/b:other", fake.stub.host), "example.com/c/d:t".into()] {
            mounting(&fake, &from).put(&blob(from.as_bytes()), &from.into_bytes()).expect("uploaded");
        }
        assert_eq!(steps(&fake), ["HEAD", "POST", "PUT", "HEAD", "POST", "PUT"]);
    }

    /// A registry whose token server refuses tokens for the other repository, or does not.
    fn with_tokens(refuses: bool) -> Fake {
        Fake::failing(move |asked, _| {
            if asked.target.starts_with("/token") {
                let no = refuses && asked.target.contains("c%2Fd");
                let token = || Answer::new(200, json!({ "token": "t", "expires_in": 3600 }).to_string());
                return Some(if no { error(403, "DENIED") } else { token() });
            }
            let host = asked.header("host").unwrap_or_default();
            let challenge = format!(r#"Bearer realm="http://{host}/token",scope="repository:c/d:pull""#);
            let known = asked.header("authorization") == Some("Bearer t");
            (!known).then(|| error(401, "UNAUTHORIZED").with("www-authenticate", challenge))
        })
    }

    #[test]
    fn a_token_is_for_both_repositories_or_for_ours_alone() {
        let (own, other) = ("scope=repository%3Aa%2Fb%3Apull%2Cpush", "scope=repository%3Ac%2Fd%3Apull");
        for refuses in [false, true] {
            let fake = with_tokens(refuses);
            fake.put_elsewhere("c/d", CONTENT);
            beside(&fake).put(&blob(CONTENT), &CONTENT.to_vec()).expect("there");
            let lines = fake.stub.lines();
            let tokens: Vec<_> = lines.iter().filter_map(|l| l.strip_prefix("GET /token?service=127.0.0.1&")).collect();
            if refuses {
                assert_eq!(tokens[0], format!("{own}&{other}"));
                assert_eq!((tokens.len(), steps(&fake).last().map(String::as_str)), (2, Some("PUT")), "{lines:?}");
                assert!(!steps(&fake).contains(&"mount".to_owned()), "{lines:?}");
            } else {
                assert_eq!(tokens, [format!("{own}&{other}")]);
                assert_eq!(steps(&fake), ["HEAD", "GET", "HEAD", "mount"]);
            }
        }
    }
}
