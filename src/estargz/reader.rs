//! Opens a blob by its footer and TOC, reads files chunk by chunk with every chunk checked, and names what the stock
//! reader would trip over.

use std::collections::{HashMap, HashSet};

use super::codec::Decoder;
use super::toc::{self, Toc, TocEntry};
use super::{Chunked, Error, Format, chunked, footer, landmark};
use crate::digest::Digest;
use crate::tar::clean;

/// Largest chunk that is read: far above what any writer makes, so that a hostile TOC cannot ask for all memory.
const MAX_CHUNK: u64 = 1 << 30;

/// What makes a layer unreadable, or readable wrongly, for the stock reader.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The entry, empty for the layer as a whole.
    pub path: String,
    /// Expected and found.
    pub what: String,
}

/// An opened layer.
#[derive(Debug)]
pub struct Layer {
    /// The TOC.
    pub toc: Toc,
    /// Digest of its JSON.
    pub toc_digest: Digest,
    /// Its format.
    pub format: Format,
    /// What annotations must say of a zstd:chunked layer's TOC.
    pub chunked: Option<Chunked>,
    /// Where the TOC's member begins, or the frame around it.
    pub toc_offset: u64,
    /// Size of the blob.
    pub size: u64,
    trailing_json: bool,
    trailing_bytes: usize,
}

/// A chunk as the TOC describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where the member begins in the blob.
    pub member: u64,
    /// Where the next payload begins at the latest: the member ends before it.
    pub end: u64,
    /// Where the payload begins in the member.
    pub inner: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// Expected digest.
    pub digest: Option<Digest>,
}

/// A regular file: cleaned path, its TOC entry, its chunks.
pub type FileChunks<'a> = (String, &'a TocEntry, Vec<Span>);

impl Layer {
    /// Opens a blob of `size` bytes through `read(offset, length)`: two reads.
    pub fn open(size: u64, mut read: impl FnMut(u64, usize) -> std::io::Result<Vec<u8>>) -> Result<Self, Error> {
        let mut get = |offset: u64, length: u64, what: &str| {
            let length = usize::try_from(length)
                .map_err(|_| Error::Toc { why: format!("{length} bytes do not fit into memory") })?;
            read(offset, length)
                .map_err(|source| Error::Io { doing: format!("reading the {what} at byte {offset}"), source })
        };
        let Some(tail) = size.checked_sub(footer::SIZE as u64) else {
            return Err(Error::Footer {
                why: format!("it has {size} bytes: its footer alone would have {}", footer::SIZE),
            });
        };
        let bytes = get(tail, footer::SIZE as u64, "footer")?;
        if chunked::is_footer(&bytes) {
            let tail = size - chunked::FOOTER as u64;
            let toc_offset = chunked::parse_footer(&bytes[footer::SIZE - chunked::FOOTER..], tail)?;
            let (parsed, chunked) =
                chunked::parse(&get(toc_offset, Self::toc_bytes(toc_offset, tail)?, "TOC")?, toc_offset)?;
            let toc::Parsed { toc, digest, trailing_json, trailing_bytes } = parsed;
            let (format, chunked) = (Format::ZstdChunked, Some(chunked));
            return Ok(Self {
                toc,
                toc_digest: digest,
                format,
                chunked,
                toc_offset,
                size,
                trailing_json,
                trailing_bytes,
            });
        }
        let bytes = bytes.try_into().map_err(|_| Error::Footer { why: "its end cannot be read".into() })?;
        let toc_offset = footer::parse(&bytes)?;
        if toc_offset >= tail {
            return Err(Error::Footer {
                why: format!("the footer says that the TOC begins at byte {toc_offset}, behind itself at {tail}"),
            });
        }
        let member = get(toc_offset, Self::toc_bytes(toc_offset, tail)?, "TOC")?;
        let toc::Parsed { toc, digest, trailing_json, trailing_bytes } = toc::parse(&member)?;
        let (format, chunked) = (Format::Estargz, None);
        Ok(Self { toc, toc_digest: digest, format, chunked, toc_offset, size, trailing_json, trailing_bytes })
    }

    /// Bytes between the TOC's offset and the footer, when that is not too much.
    fn toc_bytes(toc_offset: u64, tail: u64) -> Result<u64, Error> {
        let length = tail - toc_offset;
        if length > toc::MAX_BYTES {
            return Err(Error::Toc { why: format!("{length} compressed bytes: at most {} are read", toc::MAX_BYTES) });
        }
        Ok(length)
    }

    /// Where the footer begins.
    pub fn footer_offset(&self) -> u64 {
        let footer = match self.format {
            Format::Estargz => footer::SIZE,
            Format::ZstdChunked => chunked::FOOTER,
        };
        self.size - footer as u64
    }

    /// Bytes that a snapshotter prefetches: up to the landmark. `None` when neither landmark is there.
    pub fn prefetch_size(&self) -> Option<u64> {
        let find = |name| self.toc.entries.iter().find(|e| clean(&e.name) == name);
        match (find(landmark::NO_PREFETCH), find(landmark::PREFETCH)) {
            (Some(_), _) => Some(0),
            (None, mark) => mark.map(|e| e.offset),
        }
    }

    /// The chunks of every regular file, by cleaned path, in TOC order, exactly as the stock reader would resolve them.
    pub fn files(&self) -> Result<Vec<FileChunks<'_>>, Error> {
        let entries = &self.toc.entries;
        let mut end = self.toc_offset;
        let mut ends = vec![0; entries.len()];
        for (i, e) in entries.iter().enumerate().rev() {
            ends[i] = end;
            if e.offset != 0 && e.inner_offset == 0 {
                end = e.offset;
            }
        }
        let mut files: Vec<FileChunks<'_>> = Vec::new();
        for (i, e) in entries.iter().enumerate() {
            let chunk = e.kind == "chunk";
            if e.kind == "reg" {
                files.push((clean(&e.name), e, Vec::new()));
            }
            if !(chunk || e.kind == "reg" && e.size > 0) {
                continue;
            }
            let wrong = |why: String| Error::Chunk { path: e.name.clone(), offset: e.chunk_offset, why };
            let Some((_, file, spans)) = files.last_mut() else {
                return Err(wrong("a chunk before any file".into()));
            };
            let left = file
                .size
                .checked_sub(e.chunk_offset)
                .ok_or_else(|| wrong(format!("it begins behind the file's {} bytes", file.size)))?;
            let size = if e.chunk_size == 0 { left } else { e.chunk_size };
            if size > left || size > MAX_CHUNK {
                return Err(wrong(format!("{size} bytes, with {left} left of the file; at most {MAX_CHUNK} are read")));
            }
            if e.offset >= ends[i] {
                return Err(wrong(format!("its member at {} does not lie before the next at {}", e.offset, ends[i])));
            }
            let digest = e.chunk_digest.or(if e.chunk_offset == 0 && size == file.size { file.digest } else { None });
            spans.push(Span {
                member: e.offset,
                end: ends[i],
                inner: e.inner_offset,
                offset: e.chunk_offset,
                size,
                digest,
            });
        }
        for (path, file, spans) in &files {
            let mut at = 0;
            for s in spans {
                if s.offset != at {
                    return Err(Error::Chunk {
                        path: path.clone(),
                        offset: s.offset,
                        why: format!("expected the chunk that begins at {at}"),
                    });
                }
                at += s.size;
            }
            if at != file.size {
                return Err(Error::Chunk {
                    path: path.clone(),
                    offset: at,
                    why: format!("the chunks end there, the file has {} bytes", file.size),
                });
            }
        }
        Ok(files)
    }

    /// Decompresses a chunk from its member's bytes and checks its digest.
    pub fn chunk(&self, path: &str, span: &Span, member: &[u8]) -> Result<Vec<u8>, Error> {
        use std::io::Read;
        let wrong = |why: String| Error::Chunk { path: path.into(), offset: span.offset, why };
        let want = span.digest.ok_or_else(|| wrong("no digest is recorded for it".into()))?;
        let size = usize::try_from(span.size).map_err(|_| wrong("too large for this machine".into()))?;
        // Usually the member holds the chunk and nothing else, which the fast decoder opens at once.
        let raw = match Decoder::default().open(member, size) {
            Ok(raw) if span.inner == 0 => raw,
            _ => {
                let mut stream: Box<dyn Read + '_> = match self.format {
                    Format::Estargz => Box::new(flate2::read::MultiGzDecoder::new(member)),
                    Format::ZstdChunked => {
                        Box::new(zstd::Decoder::with_buffer(member).map_err(|e| wrong(e.to_string()))?)
                    }
                };
                std::io::copy(&mut (&mut stream).take(span.inner), &mut std::io::sink())
                    .map_err(|e| wrong(e.to_string()))?;
                let mut raw = vec![0; size];
                stream
                    .read_exact(&mut raw)
                    .map_err(|e| wrong(format!("its member has no {size} bytes from byte {} ({e})", span.inner)))?;
                raw
            }
        };
        let found = Digest::of(&raw);
        if found != want {
            return Err(wrong(format!("digest {found}: expected {want}")));
        }
        Ok(raw)
    }

    /// Everything that the stock reader refuses or reads wrongly (see the module's invariants), without reading payloads.
    pub fn problems(&self) -> Vec<Problem> {
        let mut out = Vec::new();
        let mut say = |path: &str, what: String| out.push(Problem { path: path.into(), what });
        if self.toc.version != 1 {
            say("", format!("TOC version {}: expected 1", self.toc.version));
        }
        if self.trailing_json {
            say("", "bytes follow the TOC's JSON: readers disagree on whether its digest covers them".into());
        }
        if self.trailing_bytes > 0 {
            say("", format!("{} bytes follow the TOC's member, of which one is read", self.trailing_bytes));
        }
        if self.prefetch_size().is_none() {
            say("", "no landmark: the snapshotter prefetches by its own default".into());
        }
        if let Err(e) = self.files() {
            say("", e.to_string());
        }
        let (mut last, mut names, mut offsets) = (0, HashSet::new(), HashMap::new());
        let mut current = String::new();
        for e in &self.toc.entries {
            let path = clean(&e.name);
            if e.kind == "chunk" {
                if path != current {
                    say(&path, format!("a chunk of it follows an entry of {current:?}"));
                }
            } else {
                if path == toc::NAME {
                    say(&path, "the TOC lists itself".into());
                }
                if e.kind == "hardlink" && !names.contains(&clean(&e.link_name)) {
                    say(&path, format!("its target {:?} is not listed before it", e.link_name));
                }
                if !names.insert(path.clone()) {
                    say(&path, "it is listed twice".into());
                }
                current.clone_from(&path);
            }
            let payload = e.kind == "chunk" || e.kind == "reg" && e.size > 0;
            if payload != (e.offset > 0) {
                say(&path, format!("type {:?} of {} bytes with offset {}", e.kind, e.size, e.offset));
            }
            if !payload {
                continue;
            }
            if e.offset < last {
                say(&path, format!("its member at {} stands in front of the one listed before it at {last}", e.offset));
            }
            last = last.max(e.offset);
            if let Some(other) = offsets.insert((e.offset, e.inner_offset), path.clone()) {
                say(&path, format!("offset {} is that of {other:?} too", e.offset));
            }
            // The file's digest stands in for that of its only chunk.
            let only = e.kind == "reg" && (e.chunk_size == 0 || e.chunk_size == e.size);
            if e.chunk_digest.is_none() && !(only && e.digest.is_some()) {
                say(&path, format!("no digest for the chunk at {}", e.chunk_offset));
            }
            if path == landmark::PREFETCH && e.inner_offset > 0 {
                say(&path, "it shares its member with what stands in front of it: that is not prefetched".into());
            }
        }
        out
    }
}
