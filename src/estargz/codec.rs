//! The two formats that a layer may have: what differs is how a member is compressed and how the TOC is found.

use super::{Level, frame, gzip};
use crate::deflate::Fragment;
use crate::image::names;

/// Format of a layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// Gzip members, the TOC in a tar entry.
    #[default]
    Estargz,
    /// Zstd frames, the TOC in a frame that decoders skip.
    ZstdChunked,
}

impl Format {
    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Estargz => "estargz",
            Self::ZstdChunked => "zstd:chunked",
        }
    }

    /// By its name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Estargz, Self::ZstdChunked].into_iter().find(|f| f.name() == name)
    }

    /// Of a layer.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Estargz => names::LAYER_GZIP,
            Self::ZstdChunked => names::LAYER_ZSTD,
        }
    }
}

/// Makes members; costly to create, so each thread keeps one.
pub enum Encoder {
    /// Gzip members.
    Gzip(gzip::Encoder),
    /// Zstd frames.
    Zstd(frame::Encoder),
}

impl Encoder {
    /// An encoder of one level.
    pub fn new(format: Format, level: Level) -> Self {
        match format {
            Format::Estargz => Self::Gzip(gzip::Encoder::new(level)),
            Format::ZstdChunked => Self::Zstd(frame::Encoder::new(level)),
        }
    }

    /// Bytes that a buffer would take, give or take the member's frame.
    pub fn size(&mut self, raw: &[u8]) -> usize {
        match self {
            Self::Gzip(e) => e.size(raw),
            Self::Zstd(e) => e.member(raw).len(),
        }
    }

    /// The member of a payload that a source had compressed already; `None` where the format has no use for that.
    pub fn kept(&mut self, raw: &[u8], source: &Fragment) -> Option<Result<Vec<u8>, String>> {
        match self {
            Self::Gzip(e) => Some(e.kept(raw, source)),
            Self::Zstd(_) => None,
        }
    }

    /// Compresses a buffer of less than 4 GiB into one member.
    pub fn member(&mut self, raw: &[u8]) -> Vec<u8> {
        match self {
            Self::Gzip(e) => e.member(raw),
            Self::Zstd(e) => e.member(raw),
        }
    }
}

/// Opens members of either format and of known size.
#[derive(Default)]
pub struct Decoder {
    gzip: gzip::Decoder,
    zstd: frame::Decoder,
    scratch: Vec<u8>,
}

impl Decoder {
    /// Decompresses the member at the start of `member`, which must hold exactly `size` bytes.
    pub fn open(&mut self, member: &[u8], size: usize) -> Result<Vec<u8>, String> {
        let mut raw = vec![0; size];
        self.fill(member, &mut raw)?;
        Ok(raw)
    }

    /// Whether a member holds exactly these bytes.
    pub fn holds(&mut self, member: &[u8], raw: &[u8]) -> Result<(), String> {
        let mut scratch = std::mem::take(&mut self.scratch);
        // Never made smaller: it would be filled with zeros again.
        if scratch.len() < raw.len() {
            scratch.resize(raw.len(), 0);
        }
        let filled = self.fill(member, &mut scratch[..raw.len()]);
        let same = scratch[..raw.len()] == *raw;
        self.scratch = scratch;
        filled?;
        if same { Ok(()) } else { Err("the member holds other bytes than those it was made of".into()) }
    }

    fn fill(&mut self, member: &[u8], raw: &mut [u8]) -> Result<(), String> {
        if member.starts_with(&frame::MAGIC) { self.zstd.fill(member, raw) } else { self.gzip.fill(member, raw) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    const FORMATS: [Format; 2] = [Format::Estargz, Format::ZstdChunked];

    #[test]
    fn members_of_every_level_open_with_both_decoders() {
        let raw: Vec<u8> = (0..100_000u32).flat_map(|n| (n.wrapping_mul(n) % 251).to_le_bytes()).collect();
        for (format, level) in FORMATS.iter().flat_map(|f| (0..=12).map(move |l| (*f, l))) {
            let mut encoder = Encoder::new(format, Level::new(level).expect("valid"));
            for len in [0, 1, 511, 70_000, raw.len()] {
                let member = encoder.member(&raw[..len]);
                assert_eq!(Decoder::default().open(&member, len).expect("own member"), &raw[..len]);
                let mut out = Vec::new();
                match format {
                    Format::Estargz => flate2::read::GzDecoder::new(&member[..]).read_to_end(&mut out),
                    Format::ZstdChunked => zstd::Decoder::new(&member[..]).and_then(|mut d| d.read_to_end(&mut out)),
                }
                .expect("own member");
                assert_eq!(out, &raw[..len], "{format:?} level {level}, {len} bytes");
            }
        }
    }

    #[test]
    fn a_flipped_bit_or_another_size_is_an_error() {
        for format in FORMATS {
            let text = b"some text, some text";
            let mut member = Encoder::new(format, Level::DEFAULT).member(text);
            let mut decoder = Decoder::default();
            decoder.open(&member, 19).expect_err("too small");
            decoder.open(&member, 21).expect_err("too large");
            decoder.holds(&member, text).expect("what it was made of");
            decoder.holds(&member, b"some text, some next").expect_err("another text");
            decoder.holds(&member, b"some text").expect_err("a part of it");
            // What follows it does not matter.
            decoder.holds(&[&member[..], &member, b"x"].concat(), text).expect("once more");
            let last = member.len() - 6;
            member[last] ^= 1;
            decoder.open(&member, 20).expect_err("damaged");
        }
    }
}
