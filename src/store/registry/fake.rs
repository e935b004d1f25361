//! A registry for tests: the protocol in memory, and a hook that makes it go wrong.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{DIGEST_HEADER, Files, Registry};
use crate::digest::Digest;
use crate::http::stub::{Answer, Asked, Stub};
use crate::http::{Client, Retry};
use crate::image::{Reference, names};
use crate::store::select;

#[derive(Default)]
pub(super) struct Content {
    pub(super) blobs: HashMap<String, Vec<u8>>,
    /// Type and bytes by tag and by digest.
    pub(super) manifests: HashMap<String, (String, Vec<u8>)>,
    /// Digests by other repository.
    elsewhere: HashMap<String, HashMap<String, Vec<u8>>>,
    sessions: usize,
    /// Whether it lists what is about a manifest.
    pub(super) lists_referrers: bool,
    /// What was written to a session; there may be one write.
    pub(super) written: HashMap<String, Vec<u8>>,
}

/// The registry; `a/b` is its one repository.
pub(in crate::store) struct Fake {
    pub(super) stub: Stub,
    pub(super) content: Arc<Mutex<Content>>,
}

impl Fake {
    pub(in crate::store) fn start() -> Self {
        Self::failing(|_, _| None)
    }

    /// `fault` sees a request and how many of the same method and path came before it, and may answer in our place.
    pub(super) fn failing(fault: impl Fn(&Asked, usize) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let content: Arc<Mutex<Content>> = Arc::default();
        let inside = content.clone();
        let seen = Mutex::new(HashMap::<String, usize>::new());
        let stub = Stub::start(move |asked| {
            let path = asked.target.split('?').next().unwrap_or_default();
            let before = {
                let mut seen = seen.lock().expect("seen");
                let n = seen.entry(format!("{} {path}", asked.method)).or_default();
                *n += 1;
                *n - 1
            };
            fault(asked, before).unwrap_or_else(|| answer(&mut inside.lock().expect("content"), asked))
        });
        Self { stub, content }
    }

    /// A registry with the referrers API.
    pub(in crate::store) fn listing() -> Self {
        let fake = Self::start();
        fake.content.lock().expect("content").lists_referrers = true;
        fake
    }

    /// A client of `a/b`, with `:tag` or `@digest`.
    pub(in crate::store) fn registry(&self, selector: &str) -> Registry {
        self.registry_of(selector, "/nonexistent".into(), true)
    }

    pub(super) fn registry_of(&self, selector: &str, credentials: PathBuf, write: bool) -> Registry {
        let Ok(Reference::Registry(reference)) = format!("{}/a/b{selector}", self.stub.host).parse() else {
            panic!("a registry reference");
        };
        let retry = Retry { attempts: 4, first: Duration::from_millis(1), longest: Duration::from_millis(5) };
        let client = Client::new().expect("a client").with_retry(retry);
        Registry::with(client, Files::only(credentials), &reference, write).expect("a registry")
    }

    pub(super) fn put_blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.content.lock().expect("content").blobs.insert(digest.to_string(), bytes.into());
        digest
    }

    /// A blob of another repository.
    pub(super) fn put_elsewhere(&self, repository: &str, bytes: &[u8]) {
        let mut content = self.content.lock().expect("content");
        let there = content.elsewhere.entry(repository.into()).or_default();
        there.insert(Digest::of(bytes).to_string(), bytes.into());
    }

    pub(super) fn put_manifest(&self, tag: &str, kind: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let mut content = self.content.lock().expect("content");
        for name in [tag.to_owned(), digest.to_string()] {
            content.manifests.insert(name, (kind.into(), bytes.into()));
        }
        digest
    }
}

pub(super) fn error(status: u16, code: &str) -> Answer {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"as asked"}}]}}"#);
    Answer::new(status, body).with("content-type", "application/json")
}

/// A whole body or the range that was asked for.
pub(super) fn body(asked: &Asked, bytes: &[u8]) -> Answer {
    let Some((from, to)) = asked.range() else { return Answer::new(200, bytes) };
    if from >= bytes.len() {
        return error(416, "RANGE_INVALID").with("content-range", format!("bytes */{}", bytes.len()));
    }
    let to = to.unwrap_or(bytes.len() - 1).min(bytes.len() - 1);
    Answer::new(206, &bytes[from..=to]).with("content-range", format!("bytes {from}-{to}/{}", bytes.len()))
}

fn answer(content: &mut Content, asked: &Asked) -> Answer {
    let Some(path) = asked.target.strip_prefix("/v2/a/b/") else { return error(404, "NAME_UNKNOWN") };
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    match (asked.method.as_str(), path.split_once('/').unwrap_or_default()) {
        ("POST", ("blobs", "uploads/")) => {
            let query = query.replace("%3A", ":").replace("%2F", "/");
            let mount = query.strip_prefix("mount=").and_then(|q| q.split_once("&from="));
            let there = mount.and_then(|(digest, from)| content.elsewhere.get(from)?.get_key_value(digest));
            if let Some((digest, bytes)) = there.map(|(d, b)| (d.clone(), b.clone())) {
                content.blobs.insert(digest.clone(), bytes);
                return Answer::new(201, "").with(DIGEST_HEADER, digest);
            }
            content.sessions += 1;
            Answer::new(202, "").with("location", format!("/v2/a/b/blobs/uploads/{}?state=x%3D", content.sessions))
        }
        ("PATCH", ("blobs", session)) => {
            if query != "state=x%3D" || content.written.contains_key(session) {
                return error(416, "BLOB_UPLOAD_INVALID");
            }
            content.written.insert(session.into(), asked.body.clone());
            Answer::new(202, "").with("location", format!("/v2/a/b/blobs/{session}?state=y"))
        }
        ("DELETE", ("blobs", session)) => {
            content.written.remove(session);
            Answer::new(204, "")
        }
        ("PUT", ("blobs", session)) => {
            let written = content.written.remove(session);
            let state = if written.is_some() { "state=y&digest=" } else { "state=x%3D&digest=" };
            let body = written.unwrap_or_else(|| asked.body.clone());
            let digest = Digest::of(&body).to_string();
            let stated = query.strip_prefix(state).map(|d| d.replace("%3A", ":"));
            if stated.as_deref() != Some(&digest) || asked.header("content-range").is_some() {
                return error(400, "DIGEST_INVALID");
            }
            content.blobs.insert(digest.clone(), body);
            Answer::new(201, "").with(DIGEST_HEADER, digest)
        }
        ("GET" | "HEAD", ("blobs", digest)) => match content.blobs.get(digest) {
            Some(bytes) => body(asked, bytes),
            None => error(404, "BLOB_UNKNOWN"),
        },
        ("GET" | "HEAD", ("manifests", name)) => match content.manifests.get(name) {
            Some((kind, bytes)) => {
                Answer::new(200, bytes.clone()).with("content-type", kind).with(DIGEST_HEADER, Digest::of(bytes))
            }
            None => error(404, "MANIFEST_UNKNOWN"),
        },
        ("PUT", ("manifests", name)) => {
            let Ok(parts) = select::referred(&asked.body, "x") else { return error(400, "MANIFEST_INVALID") };
            let known = |d: &str| content.blobs.contains_key(d) || content.manifests.contains_key(d);
            if !parts.iter().all(|p| known(&p.digest.to_string())) {
                return error(404, "MANIFEST_BLOB_UNKNOWN");
            }
            let (kind, digest) = (asked.header("content-type").unwrap_or_default(), Digest::of(&asked.body));
            for name in [name.to_owned(), digest.to_string()] {
                content.manifests.insert(name, (kind.into(), asked.body.clone()));
            }
            let answer = Answer::new(201, "").with(DIGEST_HEADER, digest);
            match subject(&asked.body) {
                Some(subject) if content.lists_referrers => answer.with("oci-subject", subject),
                _ => answer,
            }
        }
        ("DELETE", ("manifests", name)) => match content.manifests.remove(name) {
            Some(_) => Answer::new(202, ""),
            None => error(404, "MANIFEST_UNKNOWN"),
        },
        ("GET", ("referrers", digest)) if content.lists_referrers => referrers(content, digest, query),
        _ => error(405, "UNSUPPORTED"),
    }
}

fn subject(manifest: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(manifest).ok()?;
    Some(json.get("subject")?.get("digest")?.as_str()?.into())
}

/// One entry a page, so that whoever does not turn the page sees less.
fn referrers(content: &Content, digest: &str, query: &str) -> Answer {
    let about = |(name, (_, bytes)): &(&String, &(String, Vec<u8>))| {
        name.starts_with("sha256:") && subject(bytes).as_deref() == Some(digest)
    };
    let mut all: Vec<_> = content.manifests.iter().filter(about).collect();
    all.sort();
    let page: usize = query.rsplit_once("page=").map_or(0, |(_, n)| n.parse().expect("a page"));
    let entry = |(name, (kind, bytes)): &(&String, &(String, Vec<u8>))| {
        let json: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
        let (artifact, annotations) = (&json["artifactType"], &json["annotations"]);
        serde_json::json!({
            "mediaType": kind, "digest": name, "size": bytes.len(), "artifactType": artifact, "annotations": annotations,
        })
    };
    let list: Vec<_> = all.iter().skip(page).take(1).map(entry).collect();
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": names::INDEX, "manifests": list });
    let answer = Answer::new(200, index.to_string()).with("content-type", names::INDEX);
    if page + 1 < all.len() {
        let next = page + 1;
        return answer.with("link", format!("</v2/a/b/referrers/{digest}?page={next}>; rel=\"next\""));
    }
    answer
}
