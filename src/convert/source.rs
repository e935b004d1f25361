//! A source layer as its uncompressed archive, and how it was compressed where that can be kept.

use std::io::{self, Read};

use super::LayerError;
use crate::deflate::{Fragment, Gunzip};
use crate::estargz::Level;
use crate::estargz::codec::{Encoder, Format};
use crate::image::layer;

/// Bytes of a sample.
const SAMPLE: u64 = 64 << 10;
/// Bytes in front of a sample that matches may reach into.
const WINDOW: usize = 32 << 10;
/// Payload for each sampled byte.
const SPARSE: u64 = 512;
/// Percent of our size that a source may have: as bad as that is the fastest level of any library, and hardly anybody's default.
const WORST: u64 = 108;

enum Archive<'a> {
    Kept(Box<Gunzip<Box<dyn Read + Send + 'a>>>),
    Other(Box<dyn Read + Send + 'a>),
}

/// The reader of a layer.
pub(super) struct Source<'a> {
    archive: Archive<'a>,
    judge: Judge,
}

impl<'a> Source<'a> {
    /// Opens a layer. `keep`: its compression may be kept where it is not much worse than that of a level.
    pub(super) fn open(media_type: &str, blob: impl Read + Send + 'a, keep: Option<Level>) -> Result<Self, LayerError> {
        let archive = match keep {
            Some(_) if layer::is_gzip(media_type) => Archive::Kept(Box::new(Gunzip::new(Box::new(blob)))),
            _ => Archive::Other(layer::decompress(media_type, blob)?),
        };
        Ok(Self { archive, judge: Judge::new(keep.unwrap_or(Level::DEFAULT)) })
    }

    /// Remembers what [`Source::fragment`] needs of the next bytes.
    pub(super) fn hold(&mut self, size: u64) {
        if let Archive::Kept(gunzip) = &mut self.archive {
            gunzip.hold(size);
        }
    }

    /// How the source compressed the payload that was read since, if that is good enough.
    pub(super) fn fragment(&mut self, raw: &[u8]) -> Result<Option<Fragment>, LayerError> {
        let Archive::Kept(gunzip) = &mut self.archive else { return Ok(None) };
        let Some(fragment) = gunzip.fragment() else { return Ok(None) };
        let good = self.judge.good(&fragment, raw);
        let good = good.map_err(|why| LayerError::Io {
            doing: "reading how the layer is compressed".into(),
            source: io::Error::new(io::ErrorKind::InvalidData, why),
        })?;
        Ok(good.then_some(fragment))
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.archive {
            Archive::Kept(r) => r.read(buf),
            Archive::Other(r) => r.read(buf),
        }
    }
}

/// Judges a layer's compression by samples, in the order of its archive: the same layer is judged the same everywhere.
struct Judge {
    encoder: Encoder,
    seen: u64,
    sampled: u64,
    /// Bits of the samples.
    theirs: u64,
    ours: u64,
}

impl Judge {
    fn new(level: Level) -> Self {
        Self { encoder: Encoder::new(Format::Estargz, level), seen: 0, sampled: 0, theirs: 0, ours: 0 }
    }

    fn good(&mut self, fragment: &Fragment, raw: &[u8]) -> Result<bool, &'static str> {
        if self.seen >= self.sampled * SPARSE {
            let (range, bits) = fragment.sample(SAMPLE)?;
            let before = range.start.saturating_sub(WINDOW);
            let (window, whole) = (&raw[before..range.start], &raw[before..range.end]);
            let ours = self.encoder.size(whole).saturating_sub(self.encoder.size(window));
            self.sampled += range.len() as u64;
            self.theirs += bits;
            self.ours += ours as u64 * 8;
        }
        self.seen += raw.len() as u64;
        Ok(self.theirs * 100 <= self.ours * WORST)
    }
}
