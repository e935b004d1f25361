//! A profile that an image carries itself, for a reader on the node or in the container: ranges, sizes and times of some files, and
//! nothing that tells where it was recorded. Packed it is an annotation of a manifest: what pulls the image has it before any layer.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{File, Header, Kind, Profile, SCHEMA};

/// Longest packed text. Registries take manifests of 4 MiB; a vLLM start has some 10 KB.
pub const MAX_PACKED: usize = 256 << 10;
/// Most bytes that a packed text may be unpacked to.
const MAX_JSON: u64 = 16 << 20;
/// The text is small, and written once for many pulls.
const LEVEL: i32 = 19;

/// Why a text is no packed profile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not base64 of zstd, or too long.
    #[error("not a packed profile: {0}")]
    Packed(&'static str),
    /// What it holds is no profile.
    #[error(transparent)]
    Profile(#[from] super::Error),
}

/// A profile of these files with what a read-ahead needs: no writes, no digests, no notes, no host.
pub fn of<'a>(platform: &str, files: impl IntoIterator<Item = &'a File>) -> Profile {
    let file = |f: &File| File {
        path: f.path.clone(),
        links: Vec::new(),
        origin: f.origin,
        size: f.size,
        digest: None,
        first_touch_ms: f.first_touch_ms,
        kinds: vec![Kind::Read],
        ranges: f.ranges.clone(),
    };
    let header = Header { platform: platform.into(), ..Header::default() };
    let files = files.into_iter().filter(|f| !f.ranges.is_empty()).map(file).collect();
    Profile { schema: SCHEMA.into(), header, files, writes: Vec::new() }
}

/// Packs a profile into a text; `None` when it would be longer than [`MAX_PACKED`].
pub fn pack(profile: &Profile) -> Option<String> {
    let packed = zstd::bulk::compress(&super::write(profile), LEVEL).ok()?;
    Some(STANDARD.encode(packed)).filter(|text| text.len() <= MAX_PACKED)
}

/// Unpacks it, with every bound checked.
pub fn unpack(text: &str) -> Result<Profile, Error> {
    if text.len() > MAX_PACKED {
        return Err(Error::Packed("it is longer than 256 KiB"));
    }
    let packed = STANDARD.decode(text).map_err(|_| Error::Packed("expected base64"))?;
    let not_zstd = |_| Error::Packed("expected one zstd frame");
    let mut json = Vec::new();
    let decoder = zstd::Decoder::new(packed.as_slice()).map_err(not_zstd)?;
    decoder.take(MAX_JSON + 1).read_to_end(&mut json).map_err(not_zstd)?;
    if json.len() as u64 > MAX_JSON {
        return Err(Error::Packed("it unpacks to more than 16 MiB"));
    }
    Ok(super::read(&json)?)
}

#[cfg(test)]
mod tests {
    use super::super::{Range, sample};
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_and_tells_nothing_of_its_machine() {
        let files = [
            sample::file("/big", 100 << 20, &[Range(0, 4096, 50), Range(8192, 4096, 7)]),
            sample::file("/looked", 5, &[]),
        ];
        let carried = of("linux/amd64", &files);
        let text = pack(&carried).expect("it is small");
        let back = unpack(&text).expect("own output");
        assert_eq!(back, carried);
        assert_eq!(back.files.len(), 1, "what is not read is not carried");
        assert_eq!(back.files[0].ranges, files[0].ranges);
        assert!(back.header.host.is_empty() && back.header.command.is_empty());
        assert_eq!(pack(&carried), Some(text), "the same profile is the same text");
    }

    #[test]
    fn other_texts_are_refused() {
        let encode = |bytes: &[u8]| STANDARD.encode(bytes);
        let zstd = |bytes: &[u8]| encode(&zstd::bulk::compress(bytes, 1).expect("memory"));
        let bomb = zstd(&vec![b' '; 17 << 20]);
        assert!(bomb.len() < MAX_PACKED, "it would be caught by its length");
        for (text, why) in [
            ("§".to_owned(), "base64"),
            (encode(b"{}"), "zstd"),
            (bomb, "16 MiB"),
            ("A".repeat(MAX_PACKED + 4), "256 KiB"),
            (zstd(b"{}"), "schema"),
        ] {
            let e = unpack(&text).expect_err(why).to_string();
            assert!(e.contains(why), "{e}");
        }
    }

    #[test]
    fn a_profile_that_does_not_fit_is_not_packed() {
        // Gaps and times without a pattern: the bits of a multiplicative hash.
        let noise = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        let ranges = |n: u64| {
            let mut at = 0;
            let next = |i| {
                at += 8192 + noise(i) % 1000 * 4096;
                Range(at, 4096, noise(i + n) % 100_000)
            };
            (0..n).map(next).collect::<Vec<_>>()
        };
        let packed = |n: u64| pack(&of("linux/amd64", &[sample::file("/big", 1 << 50, &ranges(n))]));
        assert!(packed(1000).is_some_and(|text| text.len() < 20_000));
        assert_eq!(packed(100_000), None);
    }
}
