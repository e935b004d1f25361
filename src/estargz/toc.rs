//! The TOC's JSON.

use std::collections::BTreeMap;
use std::io::Read;

use serde::{Deserialize, Serialize};

use super::Error;
use super::codec::Encoder;
use crate::digest::Digest;
use crate::tar::{END, Entry, Kind, padding, regular_header};

/// Name of the TOC's tar entry; must be spelled exactly so.
pub const NAME: &str = "stargz.index.json";

/// TOCs above this size are refused: 55,000 entries take 21 MB, and a layer with more than two million entries mounts
/// nowhere in the 30 s that the snapshotter allows.
pub const MAX_BYTES: u64 = 1 << 30;

/// Table of contents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Toc {
    /// Always 1.
    pub version: u32,
    /// In blob order.
    pub entries: Vec<TocEntry>,
}

/// One entry; names as in the format's JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TocEntry {
    /// Path.
    pub name: String,
    /// `dir`, `reg`, `symlink`, `hardlink`, `char`, `block`, `fifo` or `chunk`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes, for `reg`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: u64,
    /// RFC 3339, with the fraction if there is one; absent for 1970.
    #[serde(default, rename = "modtime", skip_serializing_if = "String::is_empty")]
    pub mod_time: String,
    /// Link target.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub link_name: String,
    /// Mode.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mode: u64,
    /// Owner.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uid: u64,
    /// Group.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gid: u64,
    /// Owner's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user_name: String,
    /// Group's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group_name: String,
    /// Where the member of this payload begins in the blob.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: u64,
    /// Where the payload begins in the decompressed member.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inner_offset: u64,
    /// Device number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dev_major: u64,
    /// Device number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dev_minor: u64,
    /// Extended attributes, values in base64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, String>,
    /// Digest of the whole file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Where the chunk begins in the file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub chunk_offset: u64,
    /// Bytes of the chunk; 0 means up to the end of the file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub chunk_size: u64,
    /// Digest of the chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_digest: Option<Digest>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl TocEntry {
    /// The metadata of a tar entry; offsets and digests are the writer's.
    pub fn of(entry: &Entry) -> Self {
        use base64::Engine;
        let base64 = base64::engine::general_purpose::STANDARD;
        let kind = match entry.kind {
            Kind::Dir => "dir",
            Kind::File => "reg",
            Kind::Symlink => "symlink",
            Kind::Hardlink => "hardlink",
            Kind::Char => "char",
            Kind::Block => "block",
            Kind::Fifo => "fifo",
        };
        let slash = if entry.kind == Kind::Dir { "/" } else { "" };
        Self {
            name: if entry.path.is_empty() { "./".into() } else { format!("{}{slash}", entry.path) },
            kind: kind.into(),
            size: entry.size,
            mod_time: rfc3339(entry.mtime),
            link_name: entry.link.clone(),
            mode: entry.mode.into(),
            uid: entry.uid,
            gid: entry.gid,
            user_name: entry.uname.clone(),
            group_name: entry.gname.clone(),
            dev_major: entry.device.0.into(),
            dev_minor: entry.device.1.into(),
            xattrs: entry.xattrs.iter().map(|(k, v)| (k.clone(), base64.encode(v))).collect(),
            ..Self::default()
        }
    }
}

/// Times that a tar can hold and RFC 3339 cannot (years outside 1 to 9999) are left out: readers then show year 1.
fn rfc3339(t: crate::tar::Time) -> String {
    if t == crate::tar::Time::default() {
        return String::new();
    }
    let nanos = i32::try_from(t.nanos).unwrap_or_default();
    match jiff::Timestamp::new(t.seconds, 0)
        .ok()
        .filter(|s| (1..=9999).contains(&s.to_zoned(jiff::tz::TimeZone::UTC).year()))
    {
        None => String::new(),
        Some(s) if nanos == 0 => s.to_string(),
        Some(s) => {
            let whole = s.to_string();
            let fraction = format!("{nanos:09}");
            format!("{}.{}Z", whole.trim_end_matches('Z'), fraction.trim_end_matches('0'))
        }
    }
}

/// The TOC's member and the digest of its JSON.
pub(super) fn member(toc: &Toc, encoder: &mut Encoder) -> Result<(Vec<u8>, Vec<u8>, Digest), Error> {
    // No byte may follow the closing brace: the readers disagree on whether the digest covers it.
    let json = serde_json::to_vec(toc).map_err(|e| Error::Toc { why: format!("cannot be written ({e})") })?;
    let digest = Digest::of(&json);
    let size = json.len() as u64;
    let mut raw = regular_header(NAME, size, 0o444).to_vec();
    raw.extend_from_slice(&json);
    raw.resize(raw.len() + padding(size), 0);
    raw.extend_from_slice(&END);
    Ok((encoder.member(&raw), raw, digest))
}

/// A TOC as it was read.
#[derive(Debug, PartialEq)]
pub struct Parsed {
    /// The TOC.
    pub toc: Toc,
    /// Digest of its JSON.
    pub digest: Digest,
    /// The tar entry's payload goes on behind the closing brace.
    pub trailing_json: bool,
    /// Bytes behind the TOC's member, in front of the footer.
    pub trailing_bytes: usize,
}

/// Reads the TOC from the bytes between its offset and the footer.
pub fn parse(member: &[u8]) -> Result<Parsed, Error> {
    let wrong = |why: String| Error::Toc { why };
    // Only the first member counts, as for the stock reader.
    let tar = flate2::bufread::GzDecoder::new(member).take(MAX_BYTES + 4096);
    let mut tar = crate::tar::Reader::new(tar);
    let entry = tar.next().map_err(|e| wrong(format!("its member holds no tar entry ({e})")))?;
    let entry = entry.ok_or_else(|| wrong("its member is an empty tar".into()))?;
    if entry.path != NAME {
        return Err(wrong(format!("the entry at the TOC's offset is {:?}: expected {NAME:?}", entry.path)));
    }
    if entry.size > MAX_BYTES {
        return Err(wrong(format!("{} bytes of JSON: at most {MAX_BYTES} are read", entry.size)));
    }
    let mut json = Vec::new();
    let ends_early = |e: std::io::Error| wrong(format!("its member ends early ({e})"));
    tar.read_to_end(&mut json).map_err(ends_early)?;
    let mut rest = tar.into_inner();
    std::io::copy(&mut rest, &mut std::io::sink()).map_err(ends_early)?;
    Ok(Parsed {
        toc: serde_json::from_slice(&json).map_err(|e| wrong(format!("its JSON cannot be read ({e})")))?,
        digest: Digest::of(&json),
        trailing_json: !json.ends_with(b"}"),
        trailing_bytes: rest.into_inner().into_inner().len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estargz::{Format, Level};
    use crate::tar::Time;

    #[test]
    fn times_keep_their_fraction_and_are_never_rounded() {
        for (seconds, nanos, want) in [
            (0, 0, ""),
            (1, 0, "1970-01-01T00:00:01Z"),
            (1_700_000_000, 999_999_999, "2023-11-14T22:13:20.999999999Z"),
            (-1, 500_000_000, "1969-12-31T23:59:59.5Z"),
            (i64::MAX, 0, ""),
        ] {
            assert_eq!(rfc3339(Time { seconds, nanos }), want);
        }
    }

    #[test]
    fn the_toc_reads_back_and_its_digest_covers_its_exact_bytes() {
        let toc =
            Toc { version: 1, entries: vec![TocEntry { name: "a".into(), kind: "dir".into(), ..TocEntry::default() }] };
        let (bytes, _, digest) = member(&toc, &mut Encoder::new(Format::Estargz, Level::DEFAULT)).expect("written");
        let want = Parsed { toc: toc.clone(), digest, trailing_json: false, trailing_bytes: 0 };
        assert_eq!(parse(&bytes).expect("own TOC"), want);
        assert_eq!(digest, Digest::of(&serde_json::to_vec(&toc).expect("json")));
        assert!(parse(&bytes[..bytes.len() / 2]).is_err());
    }
}
