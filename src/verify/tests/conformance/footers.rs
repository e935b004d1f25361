//! Footers: those that other tools write, those that nobody should, and offsets that no test writes a blob for.

use super::super::edit::{inflate, replace};
use super::*;
use crate::estargz::toc::{Toc, TocEntry};
use crate::estargz::{CHUNK_SIZE, footer};

/// An empty gzip member with this extra field.
fn ending(extra: &[u8]) -> Vec<u8> {
    let length = u16::try_from(extra.len()).expect("short").to_le_bytes();
    [b"\x1f\x8b\x08\x04\0\0\0\0\0\xff", &length[..], extra, b"\x01\0\0\xff\xff\0\0\0\0\0\0\0\0"].concat()
}

/// A subfield as the footer has it.
fn field(id: &str, length: u16, content: &str) -> Vec<u8> {
    [id.as_bytes(), &length.to_le_bytes(), content.as_bytes()].concat()
}

const NO_MEMBER: &str = "not an eStargz layer: its last 51 bytes are no gzip member";
const NO_FIELD: &str = "not an eStargz layer: the gzip member at its end has no STARGZ field";

#[test]
fn footers_of_other_kinds_and_extra_fields_of_other_lengths_are_refused() {
    let (dst, _) = converted(&image(&[&[Item::file("a", bytes(1500, 1))]]), Layout::Plain, &[]);
    let good = blob(&dst, 0);
    let toc = open(&good).expect("eStargz").toc_offset;
    let body = &good[..good.len() - footer::SIZE];
    let offset = format!("{toc:016x}STARGZ");
    let own = field("SG", 22, &offset);
    assert_eq!([body, &ending(&own)].concat(), good, "the right one is made the same way");
    let cases = [
        ("legacy stargz, 47 bytes", 47, ending(offset.as_bytes()), NO_MEMBER),
        ("external TOC, 46 bytes", 46, ending(&field("SG", 17, "STARGZEXTERNALTOC")), NO_MEMBER),
        ("no extra field's bytes", 25, ending(b""), NO_MEMBER),
        ("a subfield without length", 27, ending(b"SG"), NO_MEMBER),
        ("an empty subfield", 29, ending(&field("SG", 0, "")), NO_MEMBER),
        ("a byte too few", 50, ending(&field("SG", 21, &offset[1..])), NO_MEMBER),
        ("a byte too many", 52, ending(&field("SG", 23, &format!("{offset}x"))), NO_MEMBER),
        ("another subfield behind it", 55, ending(&[&own[..], b"XX\0\0"].concat()), NO_MEMBER),
        ("a length too small", 51, ending(&field("SG", 21, &offset)), NO_FIELD),
        ("a length too large", 51, ending(&field("SG", 0xffff, &offset)), NO_FIELD),
        ("another subfield", 51, ending(&field("GS", 22, &offset)), NO_FIELD),
        ("another word", 51, ending(&field("SG", 22, &offset.to_lowercase())), NO_FIELD),
        ("no flag for it", 51, [&b"\x1f\x8b\x08\0"[..], &good[good.len() - 47..]].concat(), NO_FIELD),
    ];
    for (what, length, bad, why) in cases {
        assert_eq!(bad.len(), length, "{what}");
        let bad = [body, &bad].concat();
        assert_eq!(open(&bad).expect_err(what).to_string(), why, "{what}");
        let Some(tar) = inflate(&bad) else { continue };
        // Nothing else is wrong with it, and as a source it is a layer as any other.
        let src = Memory::image_of(&[(names::LAYER_GZIP, bad.clone(), tar)]);
        let (again, _) = converted(&src, Layout::Plain, &[]);
        assert!(blob(&again, 0) == good, "{what}");
        replace(&dst, 0, bad);
        assert_eq!(check(None, &dst).problems.into_iter().map(|p| p.what).collect::<Vec<_>>(), [why], "{what}");
    }
    for offset in (0..200_000).step_by(1023) {
        let legacy = [body, &ending(format!("{offset:016x}STARGZ").as_bytes())].concat();
        assert_eq!(open(&legacy).expect_err("legacy").to_string(), NO_MEMBER, "{offset}");
    }
    for length in [0, 1, 25, 50] {
        let why = format!("not an eStargz layer: it has {length} bytes: its footer alone would have 51");
        assert_eq!(open(&good[good.len() - length..]).expect_err("too short").to_string(), why);
    }
}

/// Opens a blob of which only its end is there: a TOC that begins at `at`, and a footer that says so.
fn open_end(at: u64, entries: Vec<TocEntry>) -> Layer {
    let json = serde_json::to_vec(&Toc { version: 1, entries }).expect("JSON");
    let toc = gzip::Encoder::new(Level::DEFAULT).member(&archive(&[Item::file(toc::NAME, json)]));
    let size = at + toc.len() as u64 + 51;
    let mut reads = Vec::new();
    let layer = Layer::open(size, |offset, length| {
        reads.push((offset, length));
        Ok(if offset == at { toc.clone() } else { footer::write(at).to_vec() })
    });
    assert_eq!(reads, [(size - 51, 51), (at, toc.len())]);
    layer.expect("a layer")
}

#[test]
fn a_toc_and_chunks_behind_four_gigabytes_are_found() {
    let far = 5 << 30;
    let chunk = Digest::of(b"chunk");
    let file = |kind: &str, offset: u64, chunk_offset: u64| TocEntry {
        name: "f".into(),
        kind: kind.into(),
        size: if kind == "reg" { far } else { 0 },
        offset,
        chunk_offset,
        chunk_size: CHUNK_SIZE,
        chunk_digest: Some(chunk),
        ..TocEntry::default()
    };
    let count = far / CHUNK_SIZE;
    let entries =
        (0..count).map(|i| file(if i == 0 { "reg" } else { "chunk" }, 100 + i * (CHUNK_SIZE + 18), i * CHUNK_SIZE));
    let at = 100 + count * (CHUNK_SIZE + 18);
    let layer = open_end(at, entries.collect());
    assert_eq!((layer.toc_offset, layer.footer_offset() > at), (at, true));
    let files = layer.files().expect("sound");
    let spans = &files[0].2;
    assert_eq!(spans.len() as u64, count);
    assert!(spans.windows(2).all(|s| s[0].end == s[1].member && s[0].offset + s[0].size == s[1].offset));
    let last = spans.last().expect("many");
    assert_eq!((last.member, last.end, last.offset), (at - CHUNK_SIZE - 18, at, far - CHUNK_SIZE));
    assert!(last.member > u64::from(u32::MAX) && last.offset > u64::from(u32::MAX));
}

#[test]
fn offsets_beyond_the_blob_are_refused_before_anything_is_read_there() {
    let size = 6_u64 << 30;
    let tail = size - 51;
    let behind = |at: u64| {
        format!("not an eStargz layer: the footer says that the TOC begins at byte {at}, behind itself at {tail}")
    };
    let large = "not an eStargz layer: the TOC's offset is too large";
    let cases = [
        (tail, behind(tail)),
        (size, behind(size)),
        (1 << 40, behind(1 << 40)),
        (u64::MAX >> 1, behind(u64::MAX >> 1)),
        ((u64::MAX >> 1) + 1, large.into()),
        (u64::MAX, large.into()),
        (0, format!("TOC: {tail} compressed bytes: at most 1073741824 are read")),
        (tail - (1 << 30) - 1, "TOC: 1073741825 compressed bytes: at most 1073741824 are read".into()),
    ];
    for (at, why) in cases {
        let found = Layer::open(size, |offset, length| {
            assert_eq!((offset, length), (tail, 51), "only the footer");
            Ok(footer::write(at).to_vec())
        });
        assert_eq!(found.expect_err("no layer").to_string(), why);
    }
}
