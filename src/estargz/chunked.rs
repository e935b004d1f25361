//! zstd:chunked's TOC and footer, as the stargz snapshotter has them (`estargz/zstdchunked` of containerd/stargz-snapshotter):
//!
//! ```text
//! skippable frame    a zstd frame: the TOC's JSON      <- the footer's offset is behind the skippable frame's header
//! skippable frame    40 bytes: offset, compressed and raw length of that, type 1, "GnUlInUx"; numbers in 8 bytes, lowest first
//! ```
//!
//! Neither is part of the archive. Podman's layers of the same name end with a longer footer of other fields and are not read.

use std::io::Read;

use super::Error;
use super::codec::Encoder;
use super::frame::{self, SKIPPABLE_HEADER, skippable, skipped};
use super::toc::{MAX_BYTES, Parsed, Toc};
use crate::digest::Digest;

/// Bytes of the footer with the header of its frame.
pub(super) const FOOTER: usize = SKIPPABLE_HEADER + 40;
const MAGIC: &[u8; 8] = b"GnUlInUx";
/// Type of a TOC whose entries are those of eStargz.
const CRFS: u64 = 1;

/// What the annotations of a zstd:chunked layer say of its TOC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunked {
    /// Digest of the compressed TOC.
    pub checksum: Digest,
    /// Offset, compressed and raw length, type.
    pub position: String,
}

impl Chunked {
    fn of(offset: u64, compressed: &[u8], raw: u64) -> Self {
        let position = format!("{offset}:{}:{raw}:{CRFS}", compressed.len());
        Self { checksum: Digest::of(compressed), position }
    }
}

/// Whether a blob that ends so is zstd:chunked.
pub(super) fn is_footer(tail: &[u8]) -> bool {
    tail.ends_with(MAGIC)
}

/// The end of a blob whose archive ends at `at`, the digest of the TOC's JSON, and what annotations say of it.
pub(super) fn end(toc: &Toc, at: u64, encoder: &mut Encoder) -> Result<(Vec<u8>, Digest, Chunked), Error> {
    let json = serde_json::to_vec(toc).map_err(|e| Error::Toc { why: format!("it cannot be written ({e})") })?;
    let compressed = encoder.member(&json);
    let frame = skippable(&compressed).filter(|_| !compressed.is_empty());
    let mut out = frame.ok_or_else(|| Error::Toc { why: "its frame would have no size that fits".into() })?;
    let offset = at + SKIPPABLE_HEADER as u64;
    let numbers = [offset, compressed.len() as u64, json.len() as u64, CRFS];
    let footer = [numbers.map(u64::to_le_bytes).as_flattened(), MAGIC].concat();
    out.extend(skippable(&footer).unwrap_or_default());
    Ok((out, Digest::of(&json), Chunked::of(offset, &compressed, json.len() as u64)))
}

/// Where the footer says that the archive ends and the TOC's frame begins. `tail`: where the footer's frame begins.
pub(super) fn parse_footer(bytes: &[u8], tail: u64) -> Result<u64, Error> {
    let wrong = |why: String| Error::Footer { why };
    let footer = skipped(bytes).ok_or_else(|| wrong("the footer at its end is in no frame of its size".into()))?;
    let number = |i: usize| footer[i * 8..][..8].iter().rev().fold(0, |n: u64, b| n << 8 | u64::from(*b));
    let [offset, compressed, _, kind] = [0, 1, 2, 3].map(number);
    if kind != CRFS {
        return Err(wrong(format!("its TOC has type {kind}: expected {CRFS}")));
    }
    let begin = offset.checked_sub(SKIPPABLE_HEADER as u64);
    match begin.filter(|_| offset.checked_add(compressed) == Some(tail)) {
        Some(begin) => Ok(begin),
        None => Err(wrong(format!(
            "the footer says that the TOC has {compressed} bytes from byte {offset}: expected it to end at {tail}"
        ))),
    }
}

/// Reads the TOC from the frame that begins at `begin`.
pub(super) fn parse(bytes: &[u8], begin: u64) -> Result<(Parsed, Chunked), Error> {
    let wrong = |why: String| Error::Toc { why };
    let compressed = skipped(bytes).ok_or_else(|| wrong("it is in no frame of its size".into()))?;
    if !compressed.starts_with(&frame::MAGIC) {
        return Err(wrong("its frame holds no zstd frame".into()));
    }
    let unreadable = |e: std::io::Error| wrong(format!("its frame does not decompress ({e})"));
    let mut json = Vec::new();
    let stream = zstd::Decoder::with_buffer(compressed).map_err(unreadable)?;
    stream.take(MAX_BYTES + 1).read_to_end(&mut json).map_err(unreadable)?;
    if json.len() as u64 > MAX_BYTES {
        return Err(wrong(format!("more than {MAX_BYTES} bytes of JSON are not read")));
    }
    let parsed = Parsed {
        toc: serde_json::from_slice(&json).map_err(|e| wrong(format!("its JSON cannot be read ({e})")))?,
        digest: Digest::of(&json),
        trailing_json: !json.ends_with(b"}"),
        trailing_bytes: 0,
    };
    Ok((parsed, Chunked::of(begin + SKIPPABLE_HEADER as u64, compressed, json.len() as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estargz::{Format, Level};

    #[test]
    fn what_is_written_reads_back_and_nothing_else_does() {
        let toc = Toc { version: 1, entries: vec![] };
        let mut encoder = Encoder::new(Format::ZstdChunked, Level::DEFAULT);
        let (bytes, digest, chunked) = end(&toc, 1000, &mut encoder).expect("written");
        let split = bytes.len() - FOOTER;
        let tail = 1000 + split as u64;
        assert!(is_footer(&bytes));
        // Type and magic as in the reference's `zstdFooterBytes`.
        assert_eq!(bytes[split..][..8], [0x50, 0x2a, 0x4d, 0x18, 40, 0, 0, 0]);
        assert_eq!(bytes[split..][32..], *b"\x01\0\0\0\0\0\0\0GnUlInUx");
        assert_eq!(parse_footer(&bytes[split..], tail).expect("own footer"), 1000);
        let (parsed, again) = parse(&bytes[..split], 1000).expect("own TOC");
        assert_eq!((parsed.toc, parsed.digest, again), (toc, digest, chunked.clone()));
        let json = br#"{"version":1,"entries":[]}"#;
        assert_eq!(digest, Digest::of(json));
        assert_eq!(chunked.position, format!("1008:{}:{}:1", split - 8, json.len()));
        assert_eq!(chunked.checksum, Digest::of(&bytes[8..split]));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x21;
            let raw_length = split + 8 + 16..split + 8 + 24;
            let footer = parse_footer(&bad[split..], tail).ok().filter(|_| is_footer(&bad));
            let read = footer.and_then(|begin| parse(&bad[..split], begin).ok());
            // The raw length is told in the annotation only.
            assert!(read.is_none() || raw_length.contains(&at), "byte {at}");
        }
        for (footer, tail) in [(0, 0), (8, 16), (FOOTER - 8, u64::MAX)] {
            parse_footer(&bytes[split..][..footer], tail).expect_err("too short");
        }
        parse_footer(&bytes[split..], tail - 1).expect_err("ends elsewhere");
    }
}
