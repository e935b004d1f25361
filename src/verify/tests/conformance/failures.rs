//! What must fail, and the exact words: everything that is said of one damage, and nothing else.

use super::super::edit::{replace, with_toc};
use super::*;
use crate::estargz::footer;
use crate::estargz::toc::{Toc, TocEntry};

const SIZE: usize = 3500;

fn items() -> Vec<Item> {
    vec![
        Item::dir("d"),
        Item::file("d/a", bytes(SIZE, 1)),
        Item::file("d/b", bytes(200, 2)),
        Item::file("d/empty", ""),
        Item::hardlink("d/link", "d/b"),
    ]
}

/// Members have the size of what they hold, so that another content moves nothing.
fn stored(src: &Memory) -> Memory {
    let options = convert::Options { level: Level::STORED, ..options(Layout::Plain) };
    converted_with(src, &options, &[]).0
}

/// Everything that is said, a line each.
fn told(src: &Memory, dst: &Memory) -> Vec<String> {
    check(Some(src), dst).problems.iter().map(|p| format!("{}: {}", p.path, p.what)).collect()
}

fn entry<'a>(toc: &'a mut Toc, name: &str, nth: usize) -> &'a mut TocEntry {
    toc.entries.iter_mut().filter(|e| e.name == name).nth(nth).expect("listed")
}

/// A digest, and the one that is expected.
fn differ(what: &str, found: Digest, want: Digest) -> String {
    format!("{what} {found}: expected {want}")
}

#[test]
fn a_wrong_toc_under_a_right_digest() {
    let src = image(&[&items()]);
    let fails = |what: &str, edit: &dyn Fn(&mut Toc), expected: &[&str]| {
        let dst = stored(&src);
        let bad = with_toc(&blob(&dst, 0), edit);
        replace(&dst, 0, bad);
        assert_eq!(told(&src, &dst), expected, "{what}");
    };
    let content = bytes(SIZE, 1);
    let [one, two] = [1000, 2000].map(|from| Digest::of(&content[from..from + 1000]));
    let [whole, rest, other] = [&content[..], &content[3000..3400], b"other"].map(Digest::of);
    let toc = open(&blob(&stored(&src), 0)).expect("eStargz").toc;
    let offset = |nth| entry(&mut toc.clone(), "d/a", nth).offset;
    let [from, to] = [1, 2].map(offset);

    fails("nothing", &|_| {}, &[]);
    fails(
        "another chunk digest",
        &|t| entry(t, "d/a", 1).chunk_digest = Some(other),
        &[&differ("d/a: chunk at 1000: digest", one, other)],
    );
    fails(
        "chunk digests swapped",
        &|t| {
            entry(t, "d/a", 1).chunk_digest = Some(two);
            entry(t, "d/a", 2).chunk_digest = Some(one);
        },
        &[&differ("d/a: chunk at 1000: digest", one, two), &differ("d/a: chunk at 2000: digest", two, one)],
    );
    fails("chunk digest lost", &|t| entry(t, "d/a", 2).chunk_digest = None, &["d/a: no digest for the chunk at 2000"]);
    // The file's own digest stands in for it.
    fails("digest of the only chunk lost", &|t| entry(t, "d/b", 0).chunk_digest = None, &[]);
    fails(
        "both digests lost",
        &|t| {
            let b = entry(t, "d/b", 0);
            (b.chunk_digest, b.digest) = (None, None);
        },
        &["d/b: no digest for the chunk at 0"],
    );
    fails(
        "another file digest",
        &|t| entry(t, "d/a", 0).digest = Some(other),
        &[&format!("d/a: the TOC records digest {other} for the file: found {whole}")],
    );
    fails(
        "an offset twice",
        &|t| entry(t, "d/a", 2).offset = from,
        &[
            &format!(": chunk at 1000 of \"d/a\": its member at {from} does not lie before the next at {from}"),
            &format!("d/a: offset {from} is that of \"d/a\" too"),
        ],
    );
    fails(
        "offsets swapped",
        &|t| {
            entry(t, "d/a", 1).offset = to;
            entry(t, "d/a", 2).offset = from;
        },
        &[
            &format!(": chunk at 1000 of \"d/a\": its member at {to} does not lie before the next at {from}"),
            &format!("d/a: its member at {from} stands in front of the one listed before it at {to}"),
        ],
    );
    fails(
        "a chunk lost",
        &|t| t.entries.retain(|e| e.chunk_offset != 3000),
        &[": chunk at 3000 of \"d/a\": the chunks end there, the file has 3500 bytes"],
    );
    fails("a file lost", &|t| t.entries.retain(|e| e.name != "d/a"), &["d/a: it is in the archive and not in the TOC"]);
    fails(
        "a link lost",
        &|t| t.entries.retain(|e| e.name != "d/link"),
        &["d/link: it is in the archive and not in the TOC"],
    );
    fails(
        "a link's target lost",
        &|t| t.entries.retain(|e| e.name != "d/b"),
        &["d/link: its target \"d/b\" is not listed before it", "d/b: it is in the archive and not in the TOC"],
    );
    fails(
        "a file twice",
        &|t| {
            let e = entry(t, "d/empty", 0).clone();
            t.entries.push(e);
        },
        &["d/empty: it is listed twice"],
    );
    let more = TocEntry { name: "x".into(), kind: "dir".into(), ..TocEntry::default() };
    fails("a folder of nothing", &|t| t.entries.push(more.clone()), &["x: it is in the TOC and not in the archive"]);
    let last = Digest::of(&content[3000..]);
    fails(
        "another size",
        &|t| entry(t, "d/a", 0).size = 3400,
        &[&differ("d/a: chunk at 3000: digest", rest, last), "d/a: the TOC says size 3400: the archive 3500"],
    );
    fails("another mode", &|t| entry(t, "d/a", 0).mode = 0o4644, &["d/a: the TOC says mode 4644: the archive 644"]);
    fails("another version", &|t| t.version = 2, &[": TOC version 2: expected 1"]);
    fails(
        "landmark lost",
        &|t| drop(t.entries.remove(0)),
        &[
            ": no landmark: the snapshotter prefetches by its own default",
            ".no.prefetch.landmark: it is in the archive and not in the TOC",
        ],
    );
}

#[test]
fn wrong_bytes_under_right_digests() {
    let src = image(&[&items()]);
    // Of the members: 1 is the landmark, 3 to 6 are d/a, 8 is d/b.
    let fails = |what: &str, edit: &dyn Fn(&mut Vec<Vec<u8>>), expected: &[String]| {
        let dst = stored(&src);
        let good = blob(&dst, 0);
        let mut raw: Vec<Vec<u8>> = members(&good).into_iter().map(|(_, raw)| raw).collect();
        raw.pop();
        edit(&mut raw);
        let mut encoder = gzip::Encoder::new(Level::STORED);
        let mut bad: Vec<u8> = raw.iter().flat_map(|raw| encoder.member(raw)).collect();
        bad.extend_from_slice(&good[good.len() - footer::SIZE..]);
        assert_eq!(bad.len(), good.len(), "{what}: nothing moved");
        replace(&dst, 0, bad);
        assert_eq!(told(&src, &dst), expected, "{what}");
    };
    let recorded = |path: &str, want: Digest, found: Digest| {
        format!("{path}: the TOC records digest {want} for the file: found {found}")
    };
    let (a, b) = (bytes(SIZE, 1), bytes(200, 2));
    let [one, two, whole, small] = [&a[1000..2000], &a[2000..3000], &a, &b].map(Digest::of);

    fails("nothing", &|_| {}, &[]);
    let mut bad = a.clone();
    bad[1007] ^= 1;
    let (chunk, file) = (Digest::of(&bad[1000..2000]), Digest::of(&bad));
    fails(
        "a bit of a chunk",
        &|m| m[4][7] ^= 1,
        &[
            differ("d/a: chunk at 1000: digest", chunk, one),
            recorded("d/a", whole, file),
            differ("d/a: content", file, whole),
        ],
    );
    let mut bad = b.clone();
    bad[199] ^= 0x80;
    let file = Digest::of(&bad);
    fails(
        "a bit of a file with two names",
        &|m| m[8][199] ^= 0x80,
        &[
            differ("d/b: chunk at 0: digest", file, small),
            recorded("d/b", small, file),
            differ("d/b: content", file, small),
            differ("d/link: content", file, small),
        ],
    );
    let file = Digest::of(&[&a[..1000], &a[2000..3000], &a[1000..2000], &a[3000..]].concat());
    fails(
        "chunks swapped",
        &|m| m.swap(4, 5),
        &[
            differ("d/a: chunk at 1000: digest", two, one),
            differ("d/a: chunk at 2000: digest", one, two),
            recorded("d/a", whole, file),
            differ("d/a: content", file, whole),
        ],
    );
    let [found, mark] = [0x0e, landmark::CONTENT].map(|b| Digest::of(&[b]));
    let no = landmark::NO_PREFETCH;
    fails(
        "a bit of the landmark",
        &|m| m[1][0] ^= 1,
        &[
            differ(&format!("{no}: chunk at 0: digest"), found, mark),
            recorded(no, mark, found),
            format!("{no}: its content is not the one byte 0x0f"),
        ],
    );
    // Two digits of d/a's mode, 644, swapped: its checksum stays.
    fails(
        "a mode",
        &|m| m[2][511 + 512 + 104..][..2].reverse(),
        &["d/a: the TOC says mode 644: the archive 464".into(), "d/a: mode 0464: expected 0644".into()],
    );
    fails("a name", &|m| m[2][511 + 512 + 2] = b'A', &[
        ": the root file system is not compared, since a layer cannot be read".into(),
        ": it cannot be read by its TOC: tar header at byte 1536: checksum 4903: expected 4871; this is not a tar archive or it is damaged".into(),
        ": cannot be read: tar header at byte 1536: checksum 4903: expected 4871; this is not a tar archive or it is damaged".into(),
    ]);
}

#[test]
fn damaged_bytes_under_the_digest_of_the_right_ones() {
    let src = image(&[&items()]);
    let dst = stored(&src);
    let (digest, good) = (layer(&dst, 0).digest, blob(&dst, 0));
    let start = |i: usize| usize::try_from(members(&good)[i].0).expect("small");
    let flipped = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 1;
        bad
    };
    let (one, two) = (start(4), start(5));
    let unread = ": the root file system is not compared, since a layer cannot be read";
    let (sum, magic) = ("corrupt gzip stream does not have a matching checksum", "invalid gzip header");
    let end = "cannot be read: reading the end of the layer:";
    for (what, bad, toc, layer) in [
        (
            "a chunk's checksum",
            flipped(two - 8),
            format!("it cannot be read by its TOC: reading \"d/a\": the members from byte {one} of the blob: {sum}"),
            format!("cannot be read: reading \"d/a\": {sum}"),
        ),
        (
            "a member's magic",
            flipped(two),
            format!("it cannot be read by its TOC: reading \"d/a\": the members from byte {two} of the blob: {magic}"),
            format!("cannot be read: reading \"d/a\": {magic}"),
        ),
        (
            "the TOC's checksum",
            flipped(good.len() - footer::SIZE - 8),
            format!("TOC: its member ends early ({sum})"),
            format!("{end} {sum}"),
        ),
        (
            "the footer's offset",
            flipped(good.len() - 20),
            "TOC: its member holds no tar entry (reading the archive at byte 0)".into(),
            format!("{end} digest or size differ"),
        ),
        (
            "a byte less",
            good[..good.len() - 1].to_vec(),
            "not an eStargz layer: its last 51 bytes are no gzip member".into(),
            format!("{end} digest or size differ"),
        ),
        (
            "a byte more",
            [&good[..], b"x"].concat(),
            "not an eStargz layer: its last 51 bytes are no gzip member".into(),
            format!("{end} digest or size differ"),
        ),
    ] {
        dst.damage(&digest, bad);
        assert_eq!(told(&src, &dst), [unread.into(), format!(": {toc}"), format!(": {layer}")], "{what}");
    }
}

#[test]
fn wrong_digests_over_right_bytes() {
    let (src, other) = (image(&[&items()]), Digest::of(b"other"));
    let dst = stored(&src);
    let toc = open(&blob(&dst, 0)).expect("eStargz").toc_digest;
    let wrong = format!(": annotation {} ", names::TOC_DIGEST);
    dst.edit_manifest(|m| m["layers"][0]["annotations"][names::TOC_DIGEST] = other.to_string().into());
    assert_eq!(told(&src, &dst), [format!("{wrong}{other}: expected {toc}")]);
    // The same TOC in other words, under the digest of the first.
    let dst = stored(&src);
    let bad = with_toc(&blob(&dst, 0), |t| entry(t, "d/a", 0).user_name = String::new());
    let new = open(&bad).expect("eStargz").toc_digest;
    replace(&dst, 0, bad);
    dst.edit_manifest(|m| m["layers"][0]["annotations"][names::TOC_DIGEST] = toc.to_string().into());
    assert_eq!(told(&src, &dst), [format!("{wrong}{toc}: expected {new}")]);
}

#[test]
fn a_reader_gives_a_chunk_or_says_why_not() {
    let blob = blob(&stored(&image(&[&items()])), 0);
    let layer = open(&blob).expect("eStargz");
    let files = layer.files().expect("sound");
    let (_, _, spans) = files.iter().find(|(path, ..)| path == "d/a").expect("listed");
    let at = |n: u64| usize::try_from(n).expect("small");
    let [one, two] = [1, 2].map(|i| &blob[at(spans[i].member)..at(spans[i].end)]);
    let ends = |size: u64, from: u64, why: &str| format!("its member has no {size} bytes from byte {from} ({why})");
    let content = bytes(SIZE, 1);
    let digest = |from: usize, size: usize| Digest::of(&content[from..from + size]);
    let [right, next, short] = [(1000, 1000), (2000, 1000), (1000, 999)].map(|(from, size)| digest(from, size));
    let mut flipped = one.to_vec();
    flipped[15] ^= 1;
    let mut altered = content[1000..2000].to_vec();
    altered[0] ^= 1;
    let other = Digest::of(&altered);
    for (what, span, member, why) in [
        ("another chunk", spans[1], two, differ("digest", next, right)),
        ("a flipped bit", spans[1], &flipped, differ("digest", other, right)),
        ("too short", Span { size: 999, ..spans[1] }, one, differ("digest", short, right)),
        ("without digest", Span { digest: None, ..spans[1] }, one, "no digest is recorded for it".into()),
        ("too long", Span { size: 1001, ..spans[1] }, one, ends(1001, 0, "failed to fill whole buffer")),
        ("elsewhere in it", Span { inner: 1, ..spans[1] }, one, ends(1000, 1, "failed to fill whole buffer")),
        ("behind it", Span { inner: 1 << 40, ..spans[1] }, one, ends(1000, 1 << 40, "failed to fill whole buffer")),
        ("half of it", spans[1], &one[..500], ends(1000, 0, "incomplete deflate stream")),
        ("none of it", spans[1], b"", ends(1000, 0, "unexpected end of file")),
    ] {
        let e = layer.chunk("d/a", &span, member).map(|_| ()).expect_err(what);
        assert_eq!(e.to_string(), format!("chunk at 1000 of \"d/a\": {why}"), "{what}");
    }
    assert_eq!(layer.chunk("d/a", &spans[1], one).expect("its content"), content[1000..2000]);
}
