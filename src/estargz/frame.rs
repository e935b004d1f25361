//! One zstd frame (RFC 8878) at a time, through libzstd, on one thread: its bytes depend on nothing but the payload.

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, find_frame_compressed_size};

use super::Level;

/// First bytes of a frame.
pub const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// First bytes of a frame that decoders skip; its length follows in four bytes, lowest first.
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// Bytes in front of what such a frame holds.
pub const SKIPPABLE_HEADER: usize = 8;

/// Version of libzstd; another one may write other bytes.
pub fn version() -> &'static str {
    zstd::zstd_safe::version_string()
}

/// Makes frames.
pub struct Encoder(Option<Compressor<'static>>);

impl Encoder {
    /// An encoder of one level; zstd does not store, so that level 0 is 1.
    pub fn new(level: Level) -> Self {
        let compressor = Compressor::new(level.get().max(1)).and_then(|mut c| {
            // As the reference writer has it; without, a flipped bit in a raw block decompresses.
            c.set_parameter(CParameter::ChecksumFlag(true))?;
            Ok(c)
        });
        Self(compressor.ok())
    }

    /// One that libzstd had no memory for.
    #[cfg(test)]
    pub(super) fn without_memory() -> Self {
        Self(None)
    }

    /// Compresses a buffer into one frame. Empty when libzstd had no memory for that, which the comparison of finished
    /// members finds, and of headers and TOC the writer.
    pub fn member(&mut self, raw: &[u8]) -> Vec<u8> {
        self.0.as_mut().and_then(|c| c.compress(raw).ok()).unwrap_or_default()
    }
}

/// Opens frames of known size.
#[derive(Default)]
pub struct Decoder(Option<Decompressor<'static>>);

impl Decoder {
    /// Decompresses the frame at the start of `member`, which must fill `raw`.
    pub fn fill(&mut self, member: &[u8], raw: &mut [u8]) -> Result<(), String> {
        let fail = |e: std::io::Error| format!("zstd frame does not decompress ({e})");
        let end = find_frame_compressed_size(member).map_err(|_| "zstd frame ends early".to_owned())?;
        let decoder = match &mut self.0 {
            Some(d) => d,
            none => none.insert(Decompressor::new().map_err(fail)?),
        };
        let n = decoder.decompress_to_buffer(&member[..end.min(member.len())], raw).map_err(fail)?;
        if n != raw.len() {
            return Err(format!("zstd frame holds {n} bytes: expected {}", raw.len()));
        }
        Ok(())
    }
}

/// A frame that decoders skip. `None` at 4 GiB.
pub fn skippable(content: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(content.len()).ok()?;
    Some([&SKIPPABLE, &length.to_le_bytes(), content].concat())
}

/// What a skippable frame holds that takes up all of `bytes`.
pub fn skipped(bytes: &[u8]) -> Option<&[u8]> {
    let (head, content) = bytes.split_at_checked(SKIPPABLE_HEADER)?;
    let length = u32::try_from(content.len()).ok()?.to_le_bytes();
    (head[..4] == SKIPPABLE && head[4..] == length).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text of some repetitiveness, another one for each seed.
    fn text(seed: u32, lines: u32) -> Vec<u8> {
        let mut x = seed;
        let mut next = || {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            x >> 20
        };
        (0..lines).flat_map(|_| format!("{} line {:x}\n", next() % 97, next()).into_bytes()).collect()
    }

    #[test]
    fn a_frame_does_not_depend_on_those_before_it() {
        for level in 0..=12 {
            let level = Level::new(level).expect("valid");
            let mut used = Encoder::new(level);
            for n in 0..12 {
                // From a few lines to more than the encoder's window at any of these levels.
                let raw = text(n, [20, 400, 9000, 60_000][n as usize % 4]);
                assert!(used.member(&raw) == Encoder::new(level).member(&raw), "level {}, payload {n}", level.get());
            }
        }
    }
}
