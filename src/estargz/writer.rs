//! Writes a blob in its final order from entries and ready-made payload members.

mod shared;

use std::collections::HashSet;
use std::io;

use super::codec::{Decoder, Encoder};
use super::toc::{self, Toc, TocEntry};
use super::{Chunked, Error, Format, Level, chunked, footer, landmark};
use crate::digest::{Digest, Hasher};
use crate::tar::{END, Entry, Kind, padding, regular_header};

pub use shared::Stretch;

/// Header bytes that gather up (folders, links) are cut into members of about this size.
const HEADER_MEMBER: usize = 1 << 20;

/// Where finished members go, in blob order.
pub trait Members {
    /// Takes a member; `place` is what the caller said of it (where it lies already), `None` for members made here.
    fn put(&mut self, member: &[u8], place: Option<u64>) -> io::Result<()>;
}

impl Members for Vec<u8> {
    fn put(&mut self, member: &[u8], _: Option<u64>) -> io::Result<()> {
        self.extend_from_slice(member);
        Ok(())
    }
}

/// A chunk of a file whose member was made before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkInfo {
    /// Bytes of payload.
    pub size: u64,
    /// Digest of the payload.
    pub digest: Digest,
    /// Bytes of the member.
    pub compressed: u64,
    /// Where the caller keeps the member.
    pub place: u64,
}

/// A member as it was read back, decompressed and held against the digest of its chunk.
#[derive(Debug, Clone)]
pub struct Member {
    bytes: Vec<u8>,
    raw: Vec<u8>,
    digest: Digest,
}

impl Member {
    /// Opens the member of a chunk. `path` and `offset` (bytes) are the chunk's place, for the error.
    pub fn open(
        path: &str,
        offset: u64,
        info: &ChunkInfo,
        bytes: Vec<u8>,
        decoder: &mut Decoder,
    ) -> Result<Self, Error> {
        let fail = |why| Error::Chunk { path: path.into(), offset, why };
        let raw = decoder.open(&bytes, usize::try_from(info.size).unwrap_or(usize::MAX)).map_err(fail)?;
        let digest = Digest::of(&raw);
        if digest != info.digest {
            return Err(fail(format!("what was written does not read back as {}: found {digest}", info.digest)));
        }
        Ok(Self { bytes, raw, digest })
    }

    /// A member that was just made of `raw`: decompressed and compared.
    pub fn made(raw: Vec<u8>, bytes: Vec<u8>, decoder: &mut Decoder) -> Result<Self, String> {
        decoder.holds(&bytes, &raw)?;
        let digest = Digest::of(&raw);
        Ok(Self { bytes, raw, digest })
    }

    /// The member's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Digest of the payload.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The payload.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The payload alone.
    pub fn into_raw(self) -> Vec<u8> {
        self.raw
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob, bytes.
    pub size: u64,
    /// Digest of the decompressed blob.
    pub diff_id: Digest,
    /// Size of the decompressed blob, bytes.
    pub uncompressed_size: u64,
    /// Digest of the TOC's JSON.
    pub toc_digest: Digest,
    /// Bytes in front of the landmark's payload that a snapshotter prefetches; `None` with the no-prefetch landmark.
    pub prefetch_size: Option<u64>,
    /// Its format.
    pub format: Format,
    /// What annotations say of a zstd:chunked layer's TOC.
    pub chunked: Option<Chunked>,
}

/// The writer. Entries come in their final order, each exactly once; [`Writer::finish`] ends it.
pub struct Writer<M> {
    out: M,
    format: Format,
    encoder: Encoder,
    blob: Hasher,
    at: u64,
    diff: Hasher,
    uncompressed: u64,
    /// Tar bytes not yet in a member: padding and headers.
    pending: Vec<u8>,
    entries: Vec<TocEntry>,
    names: HashSet<String>,
    prefetch_size: Option<u64>,
    landmark: bool,
    /// The file that was begun.
    open: Option<Open>,
}

/// A file whose chunks are coming.
#[derive(Debug, Clone, Copy)]
struct Open {
    /// Its TOC entry.
    at: usize,
    /// Bytes that it has.
    size: u64,
    /// Bytes that came.
    offset: u64,
}

impl<M: Members> Writer<M> {
    /// Starts a blob. `level` is for the members made here: headers and the TOC.
    pub fn create(format: Format, level: Level, out: M) -> Self {
        Self {
            out,
            format,
            encoder: Encoder::new(format, level),
            blob: Hasher::default(),
            at: 0,
            diff: Hasher::default(),
            uncompressed: 0,
            pending: Vec::new(),
            entries: Vec::new(),
            names: HashSet::new(),
            prefetch_size: None,
            landmark: false,
            open: None,
        }
    }

    fn put(&mut self, member: &[u8], place: Option<u64>) -> Result<(), Error> {
        let failed = |source| Error::Io { doing: format!("writing the layer at byte {}", self.at), source };
        // Headers are not read back: their loss would show in nobody's comparison.
        if member.is_empty() {
            return Err(failed(io::Error::new(io::ErrorKind::OutOfMemory, "a member could not be compressed")));
        }
        self.out.put(member, place).map_err(failed)?;
        self.blob.update(member);
        self.at += member.len() as u64;
        Ok(())
    }

    fn hash(&mut self, raw: &[u8]) {
        self.diff.update(raw);
        self.uncompressed += raw.len() as u64;
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let raw = std::mem::take(&mut self.pending);
        self.hash(&raw);
        let member = self.encoder.member(&raw);
        self.put(&member, None)
    }

    fn name(&mut self, entry: &Entry) -> Result<(), Error> {
        if entry.kind == Kind::Hardlink && !self.names.contains(&entry.link) {
            return Err(Error::Toc {
                why: format!(
                    "hard link {:?} stands before its target {:?}, or has none in this layer",
                    entry.path, entry.link
                ),
            });
        }
        if !self.names.insert(entry.path.clone()) {
            return Err(Error::Toc { why: format!("{:?} would be in it twice", entry.path) });
        }
        Ok(())
    }

    /// Adds an entry without payload.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), Error> {
        debug_assert_eq!(entry.size, 0, "an entry with payload goes through file()");
        self.name(entry)?;
        self.pending.extend_from_slice(&entry.raw);
        let mut toc = TocEntry::of(entry);
        if entry.kind == Kind::File {
            toc.digest = Some(Digest::of(b""));
        }
        self.entries.push(toc);
        if self.pending.len() >= HEADER_MEMBER { self.flush() } else { Ok(()) }
    }

    /// Adds a file with its chunks. `next` gives the chunks' members one after another.
    pub fn file<E: From<Error>>(
        &mut self,
        entry: &Entry,
        digest: Digest,
        chunks: &[ChunkInfo],
        mut next: impl FnMut() -> Result<Member, E>,
    ) -> Result<(), E> {
        self.begin(entry)?;
        let mut offset = 0;
        for chunk in chunks {
            let member = next()?;
            if member.raw.len() as u64 != chunk.size || member.digest != chunk.digest {
                let why = format!("the member given for it is that of {}: expected {}", member.digest, chunk.digest);
                return Err(Error::Chunk { path: entry.path.clone(), offset, why }.into());
            }
            self.chunk(&member, Some(chunk.place))?;
            offset += chunk.size;
        }
        Ok(self.end(digest)?)
    }

    /// Begins a file with payload; its chunks and [`Writer::end`] follow.
    pub fn begin(&mut self, entry: &Entry) -> Result<(), Error> {
        debug_assert!(entry.size > 0, "a file without payload goes through entry()");
        self.name(entry)?;
        self.pending.extend_from_slice(&entry.raw);
        self.flush()?;
        self.open = Some(Open { at: self.entries.len(), size: entry.size, offset: 0 });
        self.entries.push(TocEntry::of(entry));
        Ok(())
    }

    /// Adds the next chunk of the file that was begun. `place`: where its member lies already, if it does.
    pub fn chunk(&mut self, member: &Member, place: Option<u64>) -> Result<(), Error> {
        let Some(Open { at, size, offset }) = self.open else {
            return Err(Error::Toc { why: "a chunk outside a file".into() });
        };
        let name = self.entries[at].name.clone();
        let length = member.raw.len() as u64;
        let end = offset + length;
        if end > size || length == 0 {
            let why = format!("a chunk of {length} bytes in a file of {size}");
            return Err(Error::Chunk { path: name, offset, why });
        }
        if offset > 0 {
            self.entries.push(TocEntry { name, kind: "chunk".into(), ..TocEntry::default() });
        }
        if let Some(toc) = self.entries.last_mut() {
            toc.offset = self.at;
            toc.chunk_offset = offset;
            // The last chunk may leave its size out, and a file of one chunk does, as the reference writer has it.
            toc.chunk_size = if end == size { 0 } else { length };
            toc.chunk_digest = Some(member.digest);
        }
        self.put(&member.bytes, place)?;
        self.hash(&member.raw);
        self.open = Some(Open { at, size, offset: end });
        Ok(())
    }

    /// Ends the file. `digest`: of its whole content.
    pub fn end(&mut self, digest: Digest) -> Result<(), Error> {
        let Some(Open { at, size, offset }) = self.open.take() else {
            return Err(Error::Toc { why: "the end of no file".into() });
        };
        if offset != size {
            let why = format!("the chunks do not add up to {size} bytes");
            return Err(Error::Chunk { path: self.entries[at].name.clone(), offset, why });
        }
        self.entries[at].digest = Some(digest);
        self.pending.resize(padding(size), 0);
        Ok(())
    }

    /// Bytes of the blob so far; behind [`Writer::begin`], where the first chunk will be.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Puts the landmark here: behind the prioritized entries, or (`prefetch` false) as the very first entry.
    pub fn landmark(&mut self, prefetch: bool) -> Result<(), Error> {
        debug_assert!(prefetch || self.entries.is_empty(), "the no-prefetch landmark is the first entry");
        let name = if prefetch { landmark::PREFETCH } else { landmark::NO_PREFETCH };
        self.pending.extend_from_slice(&regular_header(name, 1, 0));
        self.flush()?;
        let raw = [landmark::CONTENT];
        let digest = Digest::of(&raw);
        if prefetch {
            self.prefetch_size = Some(self.at);
        }
        self.landmark = true;
        self.names.insert(name.into());
        self.entries.push(TocEntry {
            name: name.into(),
            kind: "reg".into(),
            size: 1,
            offset: self.at,
            digest: Some(digest),
            chunk_digest: Some(digest),
            ..TocEntry::default()
        });
        let member = self.encoder.member(&raw);
        self.put(&member, None)?;
        self.hash(&raw);
        self.pending.resize(padding(1), 0);
        Ok(())
    }

    /// Writes TOC and footer.
    pub fn finish(mut self) -> Result<(M, Summary), Error> {
        if !self.landmark {
            return Err(Error::Toc {
                why: "a layer without landmark would be prefetched by the snapshotter's default".into(),
            });
        }
        if self.format == Format::ZstdChunked {
            // The TOC ends the other format's archive; here it is beside it.
            self.pending.extend_from_slice(&END);
        }
        self.flush()?;
        let toc_offset = self.at;
        let toc = Toc { version: 1, entries: std::mem::take(&mut self.entries) };
        let (toc_digest, chunked) = match self.format {
            Format::Estargz => {
                let (member, raw, digest) = toc::member(&toc, &mut self.encoder)?;
                self.put(&member, None)?;
                self.hash(&raw);
                self.put(&footer::write(toc_offset), None)?;
                (digest, None)
            }
            Format::ZstdChunked => {
                let (end, digest, chunked) = chunked::end(&toc, toc_offset, &mut self.encoder)?;
                self.put(&end, None)?;
                (digest, Some(chunked))
            }
        };
        let summary = Summary {
            digest: self.blob.finish(),
            size: self.at,
            diff_id: self.diff.finish(),
            uncompressed_size: self.uncompressed,
            toc_digest,
            prefetch_size: self.prefetch_size,
            format: self.format,
            chunked,
        };
        Ok((self.out, summary))
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame;
    use super::*;

    #[test]
    fn headers_that_could_not_be_compressed_are_an_error() {
        let mut writer = Writer::create(Format::ZstdChunked, Level::DEFAULT, Vec::new());
        writer.encoder = Encoder::Zstd(frame::Encoder::without_memory());
        let why = writer.landmark(false).expect_err("nothing was written").to_string();
        assert_eq!(why, "writing the layer at byte 0");
        assert_eq!(writer.position(), 0);
    }
}
