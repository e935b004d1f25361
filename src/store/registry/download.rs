//! Reading blobs: whole ones that go on where a connection broke, and ranges.

use std::io::{self, Read};
use std::sync::{Arc, PoisonError};

use super::Shared;
use crate::http::retry::Backoff;
use crate::http::{Response, Url, address};
use crate::image::Descriptor;
use crate::store::{Error, ReadAt};

/// Bytes after which a transfer counts as going well, so that a long one survives many breaks and a hopeless one ends.
const PROGRESS: u64 = 8 << 20;

impl Shared {
    /// Asks for bytes `from..to` of a blob and gives back an answer that has exactly them.
    fn range(&self, blob: &Descriptor, from: u64, to: u64) -> Result<Response, Error> {
        let url = self.url(&format!("blobs/{}", blob.digest))?;
        let what = || format!("read bytes {from} to {to} of blob {} in {}", blob.digest, self.name);
        let range = format!("bytes={from}-{}", to - 1);
        let known = self.resolved.lock().unwrap_or_else(PoisonError::into_inner).get(&blob.digest).cloned();
        let mut response = None;
        if let Some(known) = known {
            let got = self.at(&known, &range)?;
            if matches!(got.status(), 200 | 206 | 416) {
                response = Some(got);
            } else {
                // Signed URLs end (401, 403, 410, and 400 in some clouds): ask the registry for a new one.
                self.resolved.lock().unwrap_or_else(PoisonError::into_inner).remove(&blob.digest);
            }
        }
        let response = if let Some(response) = response {
            response
        } else {
            let got = self.call(&|| self.client.get(url.as_str()).header("range", &range))?;
            if *got.url() != url && got.status() == 206 {
                let resolved = got.url().clone();
                self.resolved.lock().unwrap_or_else(PoisonError::into_inner).insert(blob.digest, resolved);
            }
            got
        };
        match response.status() {
            206 => {}
            404 => return Err(self.no_blob(&blob.digest)),
            200 => {
                let who = response.url().host_str().unwrap_or_default();
                let why = format!("{who} answered a request for a range with the whole (200): expected 206");
                return Err(Error::Unsupported { what: format!("reading a part of blob {}", blob.digest), why });
            }
            416 => {
                let found = response.header("content-range").unwrap_or("no such range").to_owned();
                return Err(self.other_size(blob, found));
            }
            _ => {
                let response = self.ok(response, &what())?;
                let why = format!("it was answered {}: expected 206", response.status());
                return Err(Error::Unsupported { what: what(), why });
            }
        }
        let stated = response.header("content-range").unwrap_or("no Content-Range");
        if stated.trim() == format!("bytes {from}-{}/{}", to - 1, blob.size)
            || stated.trim() == format!("bytes {from}-{}/*", to - 1)
        {
            return Ok(response);
        }
        if stated.rsplit_once('/').is_some_and(|(_, size)| size.parse().is_ok_and(|s: u64| s != blob.size)) {
            return Err(self.other_size(blob, stated.to_owned()));
        }
        let why = format!("the answer has {stated:?}: expected bytes {from}-{}/{}", to - 1, blob.size);
        Err(Error::Unsupported { what: what(), why })
    }

    fn at(&self, url: &Url, range: &str) -> Result<Response, Error> {
        let mut request = self.client.get(url.as_str()).header("range", range);
        if address::same_origin(url, &self.base)
            && let (_, Some(header)) = self.auth.header()?
        {
            request = request.header("authorization", &header);
        }
        request
            .send()
            .map_err(|source| Error::Http { what: format!("ask for a part of a blob of {}", self.name), source })
    }

    fn other_size(&self, blob: &Descriptor, found: String) -> Error {
        let what = format!("blob {} in {}", blob.digest, self.name);
        Error::Corrupt { what, expected: format!("{} bytes", blob.size), found }
    }
}

/// Whether a read may go on over a new connection.
fn is_broken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::TimedOut)
}

/// A whole blob as a stream, not verified here.
pub(super) struct Whole {
    shared: Arc<Shared>,
    blob: Descriptor,
    body: Option<Response>,
    /// Bytes given out.
    at: u64,
    /// Where the body at hand ends.
    until: u64,
    backoff: Backoff,
    broke_at: u64,
}

impl Whole {
    pub(super) fn open(shared: Arc<Shared>, blob: &Descriptor) -> Result<Self, Error> {
        let backoff = shared.client.retry().start();
        let mut whole = Self { shared, blob: blob.clone(), body: None, at: 0, until: 0, backoff, broke_at: 0 };
        whole.connect()?;
        Ok(whole)
    }

    /// Asks for what is next: the whole blob, a segment of a very large one, or what a break left over.
    fn connect(&mut self) -> Result<(), Error> {
        let (shared, blob) = (&self.shared, &self.blob);
        let to = blob.size.min(self.at.saturating_add(shared.segment));
        if self.at > 0 || to < blob.size {
            self.body = Some(shared.range(blob, self.at, to)?);
            self.until = to;
            return Ok(());
        }
        let url = shared.url(&format!("blobs/{}", blob.digest))?;
        let response = shared.call(&|| shared.client.get(url.as_str()))?;
        if response.status() == 404 {
            return Err(shared.no_blob(&blob.digest));
        }
        let what = format!("read blob {} in {}", blob.digest, shared.name);
        let response = shared.ok(response, &what)?;
        if response.status() != 200 {
            return Err(Error::Unsupported {
                what,
                why: format!("it was answered {}: expected 200", response.status()),
            });
        }
        if let Some(length) = response.content_length().filter(|l| *l != blob.size) {
            return Err(shared.other_size(blob, format!("{length} bytes")));
        }
        self.body = Some(response);
        self.until = blob.size;
        Ok(())
    }

    /// Waits and tries again, or gives the error back when that has been done too often.
    fn broken(&mut self, error: io::Error) -> io::Result<()> {
        self.body = None;
        if self.at - self.broke_at >= PROGRESS {
            self.backoff.progressed();
        }
        self.broke_at = self.at;
        match self.backoff.failed(None) {
            Some(wait) => std::thread::sleep(wait),
            None => return Err(error),
        }
        Ok(())
    }
}

impl Read for Whole {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.blob.size || buf.is_empty() {
            return Ok(0);
        }
        loop {
            if self.at >= self.until {
                self.body = None;
            }
            let Some(body) = &mut self.body else {
                // The client has repeated what may be repeated.
                self.connect()?;
                continue;
            };
            let most = usize::try_from(self.until - self.at).unwrap_or(usize::MAX).min(buf.len());
            let error = match body.read(&mut buf[..most]) {
                Ok(0) => {
                    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the connection ended at byte {}", self.at))
                }
                Ok(n) => {
                    self.at += n as u64;
                    return Ok(n);
                }
                Err(e) if is_broken(&e) => e,
                Err(e) => return Err(e),
            };
            self.broken(error)?;
        }
    }
}

/// Ranges of a blob.
pub(super) struct Ranged {
    shared: Arc<Shared>,
    blob: Descriptor,
}

impl Ranged {
    pub(super) fn new(shared: Arc<Shared>, blob: &Descriptor) -> Self {
        Self { shared, blob: blob.clone() }
    }
}

impl ReadAt for Ranged {
    fn size(&self) -> u64 {
        self.blob.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.blob.size);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut backoff = self.shared.client.retry().start();
        let mut done = 0;
        while done < buf.len() {
            let from = offset + done as u64;
            let to = end.min(from.saturating_add(self.shared.segment));
            let mut body = self.shared.range(&self.blob, from, to)?;
            let until = usize::try_from(to - offset).map_or(buf.len(), |u| u.min(buf.len()));
            let error = loop {
                match body.read(&mut buf[done..until]) {
                    Ok(0) => break None,
                    Ok(n) => done += n,
                    Err(e) if is_broken(&e) => break Some(e),
                    Err(e) => return Err(e),
                }
            };
            if done == until {
                continue;
            }
            match backoff.failed(None) {
                Some(wait) => std::thread::sleep(wait),
                None => return Err(error.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())),
            }
        }
        Ok(())
    }
}
