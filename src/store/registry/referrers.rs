//! Listing what is about a manifest: by the API where the registry has it, else by the tag schema.
//!
//! Registries without the API answer all sorts of things (404, a redirect to a page for people to log in): whatever is not a list
//! means that there is none here. Whether the API is there is told by the answer to the write, so that a list is never kept in two
//! places.

use serde_json::Value;

use super::super::referrers::{self, Referrer, Referrers};
use super::{Registry, Shared, check_answer};
use crate::digest::Digest;
use crate::http::{self, Method, address, retry};
use crate::image::manifest::MAX_JSON_BYTES;
use crate::image::names;
use crate::store::{Error, Kind, select};

/// The answer to a manifest with a subject that the registry lists by itself.
const SUBJECT_HEADER: &str = "oci-subject";
/// Pages of a list that are read.
const MOST_PAGES: usize = 50;

impl Referrers for Registry {
    fn referrers(&self, subject: &Digest, artifact_type: &str) -> Result<Vec<Referrer>, Error> {
        let told = self.shared.by_api(subject, artifact_type);
        // An empty list is no last word: what was written before the registry had the API is under the tag.
        if let Ok(Some(list)) = &told
            && !list.is_empty()
        {
            return told.map(Option::unwrap_or_default);
        }
        match (self.by_tag(subject)?, told) {
            (Some(index), _) => referrers::listed(&index, artifact_type, &self.list_name(subject)),
            (None, Ok(_)) => Ok(Vec::new()),
            // The API is out of order, which says nothing about what it lists.
            (None, Err(e)) => Err(e),
        }
    }

    fn put_referrer(
        &self,
        subject: &Digest,
        referrer: &Referrer,
        manifest: &[u8],
        replaced: &[Digest],
    ) -> Result<Vec<Error>, Error> {
        let digest = Digest::of(manifest);
        let answer = self.put_document(&digest.to_string(), &referrer.descriptor.media_type, manifest, digest)?;
        if answer.header(SUBJECT_HEADER) != Some(&subject.to_string()) {
            self.list_by_tag(subject, referrer, replaced)?;
            return Ok(Vec::new());
        }
        let old = replaced.iter().filter(|d| **d != digest);
        Ok(old.filter_map(|d| self.shared.delete_manifest(d).err()).collect())
    }
}

impl Registry {
    fn list_name(&self, subject: &Digest) -> String {
        format!("tag {} of {}", referrers::tag(subject), self.shared.name)
    }

    /// The index under the tag of the schema, if there is one.
    fn by_tag(&self, subject: &Digest) -> Result<Option<Value>, Error> {
        let document = match self.document(&referrers::tag(subject), None) {
            Ok(document) => document,
            Err(e) if e.kind() == Kind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let what = self.list_name(subject);
        let index = select::as_index(&document, &what)?;
        let no_index = || Error::Malformed { what, why: "it is no index, so it lists nothing about the image".into() };
        index.ok_or_else(no_index).map(Some)
    }

    /// Reads the list under the tag, changes it and writes it back. Nothing keeps others from doing the same meanwhile, so it is
    /// read once more and changed again until the change is there.
    fn list_by_tag(&self, subject: &Digest, referrer: &Referrer, replaced: &[Digest]) -> Result<(), Error> {
        let mut backoff = self.shared.client.retry().start();
        loop {
            let found = self.by_tag(subject)?;
            let mut index = found.clone().unwrap_or_else(referrers::empty);
            if let Some(list) = index.get_mut("manifests").and_then(Value::as_array_mut) {
                referrers::merge(list, referrer, replaced);
            }
            if found.as_ref() == Some(&index) {
                return Ok(());
            }
            let bytes = index.to_string().into_bytes();
            self.put_document(&referrers::tag(subject), names::INDEX, &bytes, Digest::of(&bytes))?;
            if self.by_tag(subject)?.as_ref() == Some(&index) {
                return Ok(());
            }
            let Some(wait) = backoff.failed(None) else {
                let why = "what was written did not stay: somebody else is writing it too".into();
                return Err(Error::Unsupported { what: self.list_name(subject), why });
            };
            std::thread::sleep(wait);
        }
    }
}

impl Shared {
    /// The list of the API; `None` where there is no API.
    fn by_api(&self, subject: &Digest, artifact_type: &str) -> Result<Option<Vec<Referrer>>, Error> {
        let what = format!("the list of what is about {subject} in {}", self.name);
        let mut url = self.url(&format!("referrers/{subject}"))?;
        url.query_pairs_mut().append_pair("artifactType", artifact_type);
        let mut all = Vec::new();
        for page in 0..MOST_PAGES {
            let answer = match self.call(&|| self.client.get(url.as_str()).header("accept", names::INDEX)) {
                Ok(answer) => answer,
                Err(Error::Http { source: http::Error::Redirect { .. }, .. }) if page == 0 => return Ok(None),
                Err(e) => return Err(e),
            };
            if page == 0 && answer.status() != 200 && !retry::is_temporary(answer.status()) {
                return Ok(None);
            }
            let next = answer.header("link").and_then(next).map(|link| answer.url().join(link));
            let answer = self.ok(answer, &format!("read {what}"))?;
            let own = address::same_origin(answer.url(), &self.base);
            let bytes = answer.bytes(MAX_JSON_BYTES);
            let bytes = bytes.map_err(|source| Error::Http { what: format!("read {what}"), source })?;
            let json = serde_json::from_slice(&bytes).ok().filter(|v: &Value| v.get("manifests").is_some());
            let Some(index) = json else {
                if page == 0 {
                    return Ok(None);
                }
                return Err(Error::Malformed { what, why: "a page of it is no index".into() });
            };
            all.extend(referrers::listed(&index, artifact_type, &what)?);
            referrers::bounded(all.len(), &what)?;
            match next {
                None => return Ok(Some(all)),
                Some(Ok(link)) if own && address::same_origin(&link, &self.base) => url = link,
                Some(_) => {
                    let why = "its next page is at another server, or nowhere".into();
                    return Err(Error::Malformed { what, why });
                }
            }
        }
        Err(Error::Malformed { what, why: format!("more than {MOST_PAGES} pages") })
    }

    fn delete_manifest(&self, digest: &Digest) -> Result<(), Error> {
        let what = format!("delete manifest {digest} of {}", self.name);
        let url = self.url(&format!("manifests/{digest}"))?;
        let answer = self.call(&|| self.client.request(Method::DELETE, url.as_str()))?;
        if answer.status() == 404 {
            return Ok(());
        }
        check_answer(&self.ok(answer, &what)?, digest, || what.clone())
    }
}

/// Where a `Link` header (RFC 8288) says the next page is.
fn next(link: &str) -> Option<&str> {
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    let next = rest.split(';').map(|p| p.trim().replace('"', "")).any(|p| p.eq_ignore_ascii_case("rel=next"));
    next.then_some(target)
}

#[cfg(test)]
mod tests;
