//! One member for several small files: a request fetches them all, and they are compressed as one. The TOC addresses each by
//! its place in the decompressed member, `innerOffset`, which snapshotters before 0.13 do not know.

use super::{Error, Member, Members, Writer};
use crate::digest::Digest;
use crate::estargz::toc::TocEntry;
use crate::tar::{Entry, padding};

/// The archive's bytes that such a member holds: from the payload of its first file to that of its last one. Padding of the
/// last and header of the first are not in it, so that it begins with a payload as every member does.
#[derive(Debug, Default)]
pub struct Stretch {
    raw: Vec<u8>,
    /// Bytes of the last payload.
    last: Option<u64>,
}

impl Stretch {
    /// Adds an entry; `payload` is empty for those without.
    pub fn add(&mut self, header: &[u8], payload: &[u8]) {
        if let Some(size) = self.last {
            self.raw.resize(self.raw.len() + padding(size), 0);
            self.raw.extend_from_slice(header);
        }
        self.raw.extend_from_slice(payload);
        self.last = Some(payload.len() as u64);
    }

    /// The bytes.
    pub fn finish(self) -> Vec<u8> {
        self.raw
    }
}

/// What is left to compare of a member.
struct Rest<'a> {
    raw: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let end = usize::try_from(length).ok().and_then(|n| self.at.checked_add(n))?;
        let bytes = self.raw.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }
}

impl<M: Members> Writer<M> {
    /// Adds entries that share a member, made of a [`Stretch`]; the first and the last of them are files with payload, and
    /// files come with the digest of their content.
    pub fn shared(&mut self, entries: &[(&Entry, Option<Digest>)], member: &Member) -> Result<(), Error> {
        let mut rest = Rest { raw: &member.raw, at: 0 };
        let mut before = None;
        for (entry, digest) in entries {
            let wrong = |why: &str| Error::Chunk { path: entry.path.clone(), offset: 0, why: why.into() };
            self.name(entry)?;
            match before {
                None => {
                    self.pending.extend_from_slice(&entry.raw);
                    self.flush()?;
                }
                Some(size) => {
                    rest.take(padding(size) as u64);
                    if rest.take(entry.raw.len() as u64) != Some(entry.raw.as_slice()) {
                        return Err(wrong("the member given for it and others has another header in its place"));
                    }
                }
            }
            before = Some(entry.size);
            let mut toc = TocEntry { digest: *digest, ..TocEntry::of(entry) };
            if entry.size > 0 {
                (toc.offset, toc.inner_offset) = (self.at, rest.at as u64);
                let found = rest.take(entry.size).map(Digest::of);
                if found.is_none() || found != *digest {
                    return Err(wrong("the member given for it and others has another content in its place"));
                }
                toc.chunk_digest = found;
            }
            self.entries.push(toc);
        }
        let last = entries.last().map(|(entry, _)| entry);
        if rest.at != member.raw.len() || last.is_none_or(|entry| entry.size == 0) {
            let path = last.map(|entry| entry.path.clone()).unwrap_or_default();
            return Err(Error::Chunk {
                path,
                offset: 0,
                why: "the member given for it and others does not end there".into(),
            });
        }
        self.put(&member.bytes, None)?;
        self.hash(&member.raw);
        self.pending.resize(padding(before.unwrap_or_default()), 0);
        Ok(())
    }
}
