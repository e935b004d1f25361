//! One gzip member (RFC 1952) at a time, through libdeflate.

use libdeflater::{CompressionLvl, Compressor, Decompressor};

use crate::deflate::Fragment;

/// Fixed header: deflate, no name, no time, no flags, unknown OS. Nothing in it depends on the machine.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Compression level, 0 (stored) to 12.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(i32);

impl Level {
    /// The fastest that compresses.
    pub const FAST: Self = Self(1);
    /// A few percent smaller than the default, at a seventh of its speed.
    pub const BEST: Self = Self(10);
    /// The default: smaller and ten times faster than Go's level 9 (`field/crates.md`, a.1).
    pub const DEFAULT: Self = Self(6);

    /// The default of zstd, and its own.
    pub const ZSTD: Self = Self(3);

    /// Not compressed at all.
    pub const STORED: Self = Self(0);

    /// A level of libdeflate, or of zstd, of whose more ones we offer as many; `None` above 12.
    pub fn new(level: u8) -> Option<Self> {
        (level <= 12).then_some(Self(level.into()))
    }

    /// As a number.
    pub fn get(self) -> i32 {
        self.0
    }
}

/// Makes members; costly to create, so each thread keeps one.
pub struct Encoder {
    compressor: Compressor,
    out: Vec<u8>,
}

impl Encoder {
    /// An encoder of one level.
    pub fn new(level: Level) -> Self {
        let level = CompressionLvl::new(level.0).unwrap_or_default();
        Self { compressor: Compressor::new(level), out: Vec::new() }
    }

    /// A whole deflate stream.
    fn deflate(&mut self, raw: &[u8]) -> &[u8] {
        let bound = self.compressor.deflate_compress_bound(raw.len());
        // Never made smaller: it would be filled with zeros again.
        if self.out.len() < bound {
            self.out.resize(bound, 0);
        }
        let n = self.compressor.deflate_compress(raw, &mut self.out);
        &self.out[..n.expect("the buffer has the size that libdeflate asked for")]
    }

    /// Bytes that a buffer would take without the member's frame.
    pub fn size(&mut self, raw: &[u8]) -> usize {
        self.deflate(raw).len()
    }

    /// The member of a payload that a source had compressed already: what cannot be kept of that is compressed anew.
    pub fn kept(&mut self, raw: &[u8], source: &Fragment) -> Result<Vec<u8>, String> {
        let member = source.stream(raw, HEADER.to_vec(), |head| self.deflate(head).to_vec());
        let member = member.map_err(|e| format!("the source's blocks could not be kept ({e})"))?;
        Ok(framed(member, raw))
    }

    /// Compresses a buffer of less than 4 GiB into one member.
    pub fn member(&mut self, raw: &[u8]) -> Vec<u8> {
        let stream = self.deflate(raw);
        let mut member = Vec::with_capacity(HEADER.len() + stream.len() + 8);
        member.extend_from_slice(&HEADER);
        member.extend_from_slice(stream);
        framed(member, raw)
    }
}

/// Header and stream with checksum and size behind them.
fn framed(mut member: Vec<u8>, raw: &[u8]) -> Vec<u8> {
    member.extend_from_slice(&libdeflater::crc32(raw).to_le_bytes());
    member.extend_from_slice(&u32::try_from(raw.len() & 0xffff_ffff).unwrap_or_default().to_le_bytes());
    member.shrink_to_fit();
    member
}

/// Opens members of known size.
pub struct Decoder(Decompressor);

impl Default for Decoder {
    fn default() -> Self {
        Self(Decompressor::new())
    }
}

impl Decoder {
    /// Decompresses the member at the start of `member`, which must fill `raw`.
    pub fn fill(&mut self, member: &[u8], raw: &mut [u8]) -> Result<(), String> {
        let n = self.0.gzip_decompress(member, raw).map_err(|e| format!("gzip member does not decompress ({e})"))?;
        if n != raw.len() {
            return Err(format!("gzip member holds {n} bytes: expected {}", raw.len()));
        }
        Ok(())
    }
}
