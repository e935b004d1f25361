//! A repository of a registry (OCI distribution spec; Docker Registry HTTP API v2).
//!
//! What Artifact Registry needs shapes the transfers: an upload is one write of the whole blob and starts over in a new
//! session when it fails, a download redirects to a signed URL that ranged reads keep.

use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use self::auth::{Auth, Files};
use super::select::{self, Document};
use super::verified::Verified;
use super::{Blobs, Error, Growing, Images, ReadAt};
use crate::digest::{Digest, Hasher};
use crate::http::{self, Client, Method, Request, Response, Url, address};
use crate::image::manifest::MAX_JSON_BYTES;
use crate::image::reference::RegistryReference;
use crate::image::{Descriptor, Image, names};

mod auth;
mod download;
mod growing;
#[cfg(test)]
pub(super) mod fake;
mod mount;
mod referrers;
#[cfg(test)]
mod tests;

/// What `GET /manifests/` is told to be understood. Schema 1 is not: a registry that still has it converts or says so.
const ACCEPT: [&str; 4] = [names::MANIFEST, names::INDEX, names::DOCKER_MANIFEST, names::DOCKER_LIST];
/// Docker Hub answers at another name than the one it is called by.
const DOCKER_HUB: [&str; 2] = ["docker.io", "registry-1.docker.io"];
const DIGEST_HEADER: &str = "docker-content-digest";

/// A repository of a registry, and in it one image by tag or digest.
pub struct Registry {
    shared: Arc<Shared>,
    reference: RegistryReference,
}

/// What open blobs keep.
struct Shared {
    client: Client,
    /// `https://host/v2/repository/`
    base: Url,
    auth: Auth,
    /// `host/repository`, as it stands in messages.
    name: String,
    /// Where blobs really are, as redirects told.
    resolved: Mutex<HashMap<Digest, Url>>,
    /// Most bytes asked for in one request.
    segment: u64,
    /// An upload of a growing blob failed: no more of them.
    whole_only: AtomicBool,
}

/// Artifact Registry limits what one request returns to 9.9 GB.
const SEGMENT: u64 = 4 << 30;

impl Registry {
    /// Prepares for a repository; asks nothing yet. `write`: push rights are requested where tokens are.
    pub fn open(reference: &RegistryReference, write: bool) -> Result<Self, Error> {
        let what = || format!("prepare for {}", reference.host);
        let client = Client::new().map_err(|source| Error::Http { what: what(), source })?;
        Self::with(client, Files::of_user(), reference, write)
    }

    fn with(client: Client, files: Files, reference: &RegistryReference, write: bool) -> Result<Self, Error> {
        let host = if reference.host == DOCKER_HUB[0] { DOCKER_HUB[1] } else { &reference.host };
        let scheme = if address::is_loopback(host) { "http" } else { "https" };
        let base = format!("{scheme}://{host}/v2/{}/", reference.repository);
        let base: Url = base.parse().map_err(|_| Error::Unsupported {
            what: format!("the registry host {:?}", reference.host),
            why: "expected a name or an address, and a port".into(),
        })?;
        let auth = Auth::new(client.clone(), base.clone(), &reference.host, &reference.repository, write, files);
        let name = format!("{}/{}", reference.host, reference.repository);
        let shared = Shared {
            client,
            base,
            auth,
            name,
            resolved: Mutex::default(),
            segment: SEGMENT,
            whole_only: AtomicBool::default(),
        };
        Ok(Self { shared: Arc::new(shared), reference: reference.clone() })
    }

    fn document(&self, selector: &str, expected: Option<&Descriptor>) -> Result<Document, Error> {
        let shared = &self.shared;
        let url = shared.url(&format!("manifests/{selector}"))?;
        let what = || format!("manifest {selector} of {}", shared.name);
        let response = shared.call(&|| {
            let request = shared.client.get(url.as_str());
            ACCEPT.iter().fold(request, |r, kind| r.header("accept", kind))
        })?;
        let response = match response.status() {
            404 => return Err(shared.not_found(&format!("image {selector}"))),
            _ => shared.ok(response, &format!("read the {}", what()))?,
        };
        let kind =
            response.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default().trim().to_owned();
        let stated = response.header(DIGEST_HEADER).map(str::to_owned);
        if let Some(length) = response.content_length() {
            select::check_json_size(length, what)?;
        }
        let bytes = response.bytes(MAX_JSON_BYTES);
        let bytes = bytes.map_err(|source| Error::Http { what: format!("read the {}", what()), source })?;
        // What was asked for by digest must have it; what was asked for by tag must have the one the registry states.
        let asked = expected.map(|d| d.digest).or_else(|| selector.parse().ok());
        if let Some(digest) = asked {
            select::check(&bytes, &digest, expected.map(|d| d.size), what)?;
        }
        if let Some(digest) = stated.and_then(|s| s.parse().ok()) {
            select::check(&bytes, &digest, None, || format!("{} (by its Docker-Content-Digest)", what()))?;
        }
        let kind = expected.map_or(kind, |d| d.media_type.clone());
        Ok(Document { descriptor: Descriptor::new(&kind, Digest::of(&bytes), bytes.len() as u64), bytes })
    }

    /// Writes a manifest or index under a tag or its digest.
    fn put_document(&self, selector: &str, media_type: &str, bytes: &[u8], digest: Digest) -> Result<Response, Error> {
        let shared = &self.shared;
        let url = shared.url(&format!("manifests/{selector}"))?;
        let what = || format!("write manifest {selector} to {}", shared.name);
        let response = shared.call(&|| {
            shared.client.request(Method::PUT, url.as_str()).header("content-type", media_type).body(bytes)
        })?;
        let response = shared.ok(response, &what())?;
        if !matches!(response.status(), 200..=202) {
            let why = format!("it was answered {}: expected 201", response.status());
            return Err(Error::Unsupported { what: what(), why });
        }
        check_answer(&response, &digest, what)?;
        Ok(response)
    }

    /// One upload session: everything, or nothing that anybody can see.
    fn upload(&self, blob: &Descriptor, content: &dyn ReadAt) -> Result<(), Error> {
        let shared = &self.shared;
        let what = || format!("upload blob {} to {}", blob.digest, shared.name);
        let Some(mut target) = self.begin_upload(blob)? else { return Ok(()) };
        target.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        // Hashed as it is sent. The last piece does not leave if the whole is not what it should be.
        let running = Mutex::new((Hasher::default(), 0));
        let fill = |buf: &mut [u8], offset: u64| {
            content.read_exact_at(buf, offset)?;
            let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
            if offset == 0 {
                *running = (Hasher::default(), 0);
            }
            running.0.update(buf);
            running.1 += buf.len() as u64;
            if running.1 == blob.size {
                let found = running.0.clone().finish();
                if found != blob.digest {
                    let (expected, found) = (blob.digest.to_string(), found.to_string());
                    return Err(Error::Corrupt { what: "what was to be uploaded".into(), expected, found }.into());
                }
            }
            Ok(())
        };
        let (generation, request) = shared.to_session(Method::PUT, &target)?;
        let request = request.header("content-type", "application/octet-stream").stream(blob.size, &fill).attempts(1);
        let response = request.send().map_err(|e| match e {
            http::Error::Content { source, .. } => Error::from_io(source, "what was to be uploaded"),
            source => Error::Http { what: what(), source },
        })?;
        if response.status() == 401 && address::same_origin(response.url(), &shared.base) {
            // The token ended on the way; the next session starts with a new one.
            shared.auth.answer(generation, &response)?;
            let source = http::Error::Status {
                method: Method::PUT,
                url: address::redacted(&target),
                status: 503,
                detail: "the token expired during the upload".into(),
            };
            return Err(Error::Http { what: what(), source });
        }
        let response = shared.ok(response, &what())?;
        if response.status() != 201 {
            let why = format!("it was answered {}: expected 201", response.status());
            return Err(Error::Unsupported { what: what(), why });
        }
        check_answer(&response, &blob.digest, what)
    }
}

/// Where an answer says that an upload session goes on.
fn session_of(response: &Response, what: impl Fn() -> String) -> Result<Url, Error> {
    let session = response.location().filter(|_| response.status() == 202).ok_or_else(|| Error::Unsupported {
        what: what(),
        why: format!("it was answered {}: expected 202 and a Location", response.status()),
    })?;
    if !address::is_private(&session) {
        let why = format!("it sends uploads to {}, which is not encrypted", address::redacted(&session));
        return Err(Error::Unsupported { what: what(), why });
    }
    Ok(session)
}

/// The digest that a registry states for what it took must be ours.
fn check_answer(response: &Response, expected: &Digest, what: impl Fn() -> String) -> Result<(), Error> {
    match response.header(DIGEST_HEADER) {
        Some(found) if found != expected.to_string() => Err(Error::Corrupt {
            what: format!("the answer to {}", what()),
            expected: expected.to_string(),
            found: found.into(),
        }),
        _ => Ok(()),
    }
}

impl Shared {
    fn url(&self, path: &str) -> Result<Url, Error> {
        self.base.join(path).map_err(|_| Error::Unsupported { what: path.into(), why: "it makes no URL".into() })
    }

    /// Opens an upload session.
    fn session(&self, what: impl Fn() -> String) -> Result<Url, Error> {
        let url = self.url("blobs/uploads/")?;
        let response = self.call(&|| self.client.post(url.as_str()).body(""))?;
        session_of(&self.ok(response, &what())?, what)
    }

    /// A request to an upload session, which need not be the registry's: its credentials go to the registry only.
    fn to_session(&self, method: Method, session: &Url) -> Result<(u64, Request<'_>), Error> {
        let (generation, header) = self.auth.header()?;
        let request = self.client.request(method, session.as_str());
        Ok(match header.filter(|_| address::same_origin(session, &self.base)) {
            Some(header) => (generation, request.header("authorization", &header)),
            None => (generation, request),
        })
    }

    /// Sends a request to the registry, once more after a 401 that could be answered. Any answer comes back.
    fn call<'a>(&self, make: &dyn Fn() -> Request<'a>) -> Result<Response, Error> {
        let mut answered = false;
        loop {
            let (generation, header) = self.auth.header()?;
            let request = match &header {
                Some(header) => make().header("authorization", header),
                None => make(),
            };
            let response =
                request.send().map_err(|source| Error::Http { what: format!("ask {}", self.name), source })?;
            // A challenge of somebody whom the registry redirects to is none of ours.
            if response.status() != 401 || answered || !address::same_origin(response.url(), &self.base) {
                return Ok(response);
            }
            self.auth.answer(generation, &response)?;
            answered = true;
        }
    }

    /// Makes an error of an answer of 400 and above.
    fn ok(&self, response: Response, what: &str) -> Result<Response, Error> {
        response.ok().map_err(|e| match e.status() {
            Some(401 | 403) => self.auth.refused(&e),
            Some(404) => Error::NotFound {
                what: format!("what is needed to {what}"),
                place: self.name.clone(),
                why: format!(" ({e})"),
            },
            _ => Error::Http { what: what.into(), source: e },
        })
    }

    fn not_found(&self, what: &str) -> Error {
        Error::NotFound { what: what.into(), place: self.name.clone(), why: String::new() }
    }

    fn no_blob(&self, digest: &Digest) -> Error {
        self.not_found(&format!("blob {digest}"))
    }
}

impl Blobs for Registry {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, Error> {
        let body = download::Whole::open(self.shared.clone(), blob)?;
        Ok(Box::new(Verified::new(body, blob, &self.shared.name)))
    }

    fn open_at(&self, blob: &Descriptor) -> Result<Box<dyn ReadAt>, Error> {
        Ok(Box::new(download::Ranged::new(self.shared.clone(), blob)))
    }

    fn has(&self, digest: &Digest) -> Result<bool, Error> {
        let url = self.shared.url(&format!("blobs/{digest}"))?;
        let response = self.shared.call(&|| self.shared.client.request(Method::HEAD, url.as_str()))?;
        if response.status() == 404 {
            return Ok(false);
        }
        self.shared.ok(response, &format!("look for blob {digest} in {}", self.shared.name))?;
        Ok(true)
    }

    fn put_growing(&self, blob: &dyn Growing) -> Result<bool, Error> {
        growing::put(&self.shared, blob)
    }

    fn put(&self, blob: &Descriptor, content: &dyn ReadAt) -> Result<(), Error> {
        if content.size() != blob.size {
            let what = format!("blob {} for {}", blob.digest, self.shared.name);
            let (expected, found) = (format!("{} bytes", blob.size), format!("{} bytes", content.size()));
            return Err(Error::Corrupt { what, expected, found });
        }
        let mut backoff = self.shared.client.retry().start();
        loop {
            // Also after a failure: an upload whose answer was lost may be there.
            if self.has(&blob.digest)? {
                return Ok(());
            }
            let failed = match self.upload(blob, content) {
                Ok(()) => return Ok(()),
                Err(e) => e,
            };
            // A session that is not known any more is over, like one whose connection broke.
            let lost = matches!(&failed, Error::NotFound { .. });
            match backoff.failed(None).filter(|_| lost || failed.is_temporary()) {
                Some(wait) => std::thread::sleep(wait),
                None => return Err(failed),
            }
        }
    }
}

impl Images for Registry {
    fn image(&self, platform: &str) -> Result<Image, Error> {
        let fetch = |d: &Descriptor| self.manifest(Some(d));
        select::image(self, self.manifest(None)?, platform, &self.reference.to_string(), &fetch)
    }

    fn manifest(&self, of: Option<&Descriptor>) -> Result<Document, Error> {
        let Some(d) = of else { return self.document(&self.reference.selector(), None) };
        select::check_json_size(d.size, || format!("manifest {}", d.digest))?;
        self.document(&d.digest.to_string(), Some(d))
    }

    fn put_part(&self, media_type: &str, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        self.put_document(&digest.to_string(), media_type, bytes, digest).map(|_| digest)
    }

    fn put_manifest(&self, media_type: &str, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        if let Some(expected) = self.reference.digest.filter(|d| *d != digest) {
            let what = format!("the manifest for {}", self.reference);
            return Err(Error::Corrupt { what, expected: expected.to_string(), found: digest.to_string() });
        }
        let selector = self.reference.tag.clone().unwrap_or_else(|| digest.to_string());
        self.put_document(&selector, media_type, bytes, digest).map(|_| digest)
    }
}
