//! A layer's blob as its uncompressed archive, with digests and sizes taken on both sides, and for eStargz layers cut at
//! the places where the TOC says that members begin.

use std::io::{self, BufReader, Read, Take};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::bufread::MultiGzDecoder;

use crate::digest::{Digest, Hasher};
use crate::estargz::Format;
use crate::image::{self, layer};
use crate::progress::Progress;

const READ: usize = 1 << 18;

/// Digest and length of what passed.
type Passed = (Hasher, u64);

/// Hashes the compressed side, which the decoder on top of it owns.
struct Watched<'a> {
    inner: Box<dyn Read + Send>,
    passed: Arc<Mutex<Passed>>,
    progress: &'a dyn Progress,
    task: u64,
}

impl Read for Watched<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        passed.0.update(&buf[..n]);
        passed.1 += n as u64;
        self.progress.advance(self.task, n as u64);
        Ok(n)
    }
}

enum Input<'a> {
    Plain(Box<dyn Read + Send + 'a>),
    Members(Box<Members<Watched<'a>>>),
}

/// The uncompressed archive.
pub(super) struct Archive<'a> {
    input: Input<'a>,
    compressed: Arc<Mutex<Passed>>,
    uncompressed: Passed,
}

/// What a whole layer came to.
pub(super) struct Totals {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) diff_id: Digest,
    pub(super) uncompressed: u64,
    /// Where members begin: (in the blob, in the archive), ascending.
    pub(super) marks: Vec<(u64, u64)>,
}

impl<'a> Archive<'a> {
    /// Opens a blob by its media type, or, with `bounds` (ascending, from 0), as members of a format that begin there.
    pub(super) fn open(
        media_type: &str,
        blob: Box<dyn Read + Send>,
        bounds: Option<(Format, Vec<u64>)>,
        progress: &'a dyn Progress,
        task: u64,
    ) -> Result<Self, image::Error> {
        let compressed = Arc::new(Mutex::new(Passed::default()));
        let blob = Watched { inner: blob, passed: Arc::clone(&compressed), progress, task };
        let input = match bounds {
            Some((format, bounds)) => {
                let members = Members::new(blob, format, bounds);
                let failed = |e: io::Error| image::Error::Value { what: "the zstd decoder".into(), why: e.to_string() };
                Input::Members(Box::new(members.map_err(failed)?))
            }
            None => Input::Plain(layer::decompress(media_type, blob)?),
        };
        Ok(Self { input, compressed, uncompressed: Passed::default() })
    }

    /// Reads what is left and gives the totals.
    pub(super) fn finish(mut self) -> io::Result<Totals> {
        io::copy(&mut self, &mut io::sink())?;
        let marks = match self.input {
            Input::Members(m) => m.marks,
            Input::Plain(_) => Vec::new(),
        };
        let (hasher, size) = std::mem::take(&mut *self.compressed.lock().unwrap_or_else(PoisonError::into_inner));
        let (diff, uncompressed) = self.uncompressed;
        Ok(Totals { digest: hasher.finish(), size, diff_id: diff.finish(), uncompressed, marks })
    }
}

impl Read for Archive<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = match &mut self.input {
            Input::Plain(r) => r.read(buf)?,
            Input::Members(r) => r.read(buf)?,
        };
        self.uncompressed.0.update(&buf[..n]);
        self.uncompressed.1 += n as u64;
        Ok(n)
    }
}

/// What lies between two bounds, decompressed.
enum Section<R: Read> {
    Gzip(Box<MultiGzDecoder<Take<BufReader<R>>>>),
    Zstd(zstd::Decoder<'static, Take<BufReader<R>>>),
}

impl<R: Read> Section<R> {
    fn into_inner(self) -> Take<BufReader<R>> {
        match self {
            Self::Gzip(d) => d.into_inner(),
            Self::Zstd(d) => d.into_inner(),
        }
    }
}

impl<R: Read> Read for Section<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(d) => d.read(buf),
            Self::Zstd(d) => d.read(buf),
        }
    }
}

/// Members, each of which must begin and end at a bound.
struct Members<R: Read> {
    format: Format,
    section: Option<Section<R>>,
    bounds: Vec<u64>,
    marks: Vec<(u64, u64)>,
    /// Bytes given out.
    at: u64,
}

impl<R: Read> Members<R> {
    fn new(blob: R, format: Format, bounds: Vec<u64>) -> io::Result<Self> {
        let mut members = Self { format, section: None, bounds, marks: Vec::new(), at: 0 };
        members.next_section(BufReader::with_capacity(READ, blob).take(0))?;
        Ok(members)
    }

    /// Goes on with the members from the next bound; the last ones reach to the end of the blob.
    fn next_section(&mut self, mut blob: Take<BufReader<R>>) -> io::Result<()> {
        let next = self.marks.len();
        let Some(&begin) = self.bounds.get(next) else { return Ok(()) };
        blob.set_limit(self.bounds.get(next + 1).map_or(u64::MAX, |end| end - begin));
        self.marks.push((begin, self.at));
        self.section = Some(match self.format {
            Format::Estargz => Section::Gzip(Box::new(MultiGzDecoder::new(blob))),
            Format::ZstdChunked => Section::Zstd(zstd::Decoder::with_buffer(blob)?),
        });
        Ok(())
    }
}

impl<R: Read> Read for Members<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(section) = &mut self.section else { return Ok(0) };
            let n = section.read(buf).map_err(|e| {
                if e.get_ref().and_then(|inner| inner.downcast_ref::<crate::store::Error>()).is_some() {
                    return e;
                }
                let begin = self.marks.last().map_or(0, |m| m.0);
                io::Error::new(e.kind(), format!("the members from byte {begin} of the blob: {e}"))
            })?;
            self.at += n as u64;
            if n > 0 || buf.is_empty() {
                return Ok(n);
            }
            if let Some(section) = self.section.take() {
                self.next_section(section.into_inner())?;
            }
        }
    }
}
