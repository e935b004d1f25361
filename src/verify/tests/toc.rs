//! TOCs that the stock readers refuse or read wrongly: numbers are those of `field/estargz-and-stargz-snapshotter.md`, 1.11.

use super::edit::{blob, open, replace, with_json, with_toc};
use super::*;
use crate::estargz::toc::{Toc, TocEntry};

fn items() -> Vec<Item> {
    vec![
        Item::dir("d"),
        Item::file("d/chunked", bytes(3500, 1)),
        Item::file("d/a", bytes(100, 2)),
        Item::file("d/b", bytes(100, 3)).pax("mtime", "1600000000.75"),
        Item::file("d/empty", ""),
        Item::hardlink("d/link", "d/a"),
        Item::symlink("s", "d"),
    ]
}

fn at(toc: &Toc, name: &str, nth: usize) -> usize {
    let found = toc.entries.iter().enumerate().filter(|(_, e)| e.name == name).map(|(i, _)| i).nth(nth);
    found.expect("listed")
}

/// Verifies the image of [`items`] after a change to its layer's TOC.
fn after(edit: impl FnOnce(&mut Toc)) -> Report {
    let src = image(&[&items()]);
    let (dst, _) = converted(&src, Layout::Landmark, &["/d/b"]);
    replace(&dst, 0, with_toc(&blob(&dst, 0), edit));
    check(Some(&src), &dst)
}

type Edit = fn(&mut Toc);

#[test]
fn verify_finds_every_toc_that_readers_trip_over() {
    fn entry<'a>(toc: &'a mut Toc, name: &str, nth: usize) -> &'a mut TocEntry {
        let i = at(toc, name, nth);
        &mut toc.entries[i]
    }
    let cases: &[(&str, Edit, &str)] = &[
        (
            "1 order",
            |t| {
                let (a, c) = (at(t, "d/a", 0), at(t, "d/b", 0));
                t.entries.swap(a, c);
            },
            "stands in front of the one listed before",
        ),
        (
            "2 chunk first",
            |t| {
                let i = at(t, "d/chunked", 1);
                let c = t.entries.remove(i);
                t.entries.insert(0, c);
            },
            "a chunk before any file",
        ),
        (
            "2 chunks swapped",
            |t| {
                let i = at(t, "d/chunked", 1);
                t.entries.swap(i, i + 1);
            },
            "does not lie before the next",
        ),
        (
            "3 chunks apart",
            |t| {
                let i = at(t, "d/chunked", 3);
                let c = t.entries.remove(i);
                t.entries.insert(i + 1, c);
            },
            "a chunk of it follows an entry of",
        ),
        (
            "4 chunk missing",
            |t| {
                let i = at(t, "d/chunked", 3);
                t.entries.remove(i);
            },
            "the chunks end there",
        ),
        ("4 chunk overlaps", |t| entry(t, "d/chunked", 1).chunk_size = 1500, "expected the chunk that begins at 2500"),
        ("4 chunk too large", |t| entry(t, "d/chunked", 1).chunk_size = 1 << 40, "left of the file"),
        (
            "5 twice",
            |t| {
                let e = entry(t, "d/empty", 0).clone();
                t.entries.push(e);
            },
            "it is listed twice",
        ),
        ("6 no target", |t| entry(t, "d/link", 0).link_name = "d/none".into(), "is not listed before it"),
        ("6 itself", |t| entry(t, "d/link", 0).link_name = "d/link".into(), "is not listed before it"),
        (
            "6 later",
            |t| {
                let i = at(t, "d/link", 0);
                let e = t.entries.remove(i);
                t.entries.insert(0, e);
            },
            "is not listed before it",
        ),
        (
            "7 same offset",
            |t| {
                let o = entry(t, "d/a", 0).offset;
                entry(t, "d/chunked", 3).offset = o;
            },
            "is that of",
        ),
        ("7 no offset", |t| entry(t, "d/a", 0).offset = 0, "of 100 bytes with offset 0"),
        ("8 no chunk digest", |t| entry(t, "d/chunked", 2).chunk_digest = None, "no digest for the chunk at 2000"),
        ("8 no first chunk digest", |t| entry(t, "d/chunked", 0).chunk_digest = None, "no digest for the chunk at 0"),
        (
            "8 no digest at all",
            |t| {
                let e = entry(t, "d/a", 0);
                e.digest = None;
                e.chunk_digest = None;
            },
            "no digest for the chunk at 0",
        ),
        ("10 other name", |t| entry(t, "d/a", 0).name = "d/\u{fffd}".into(), "it is in the archive and not in the TOC"),
        ("13 rounded", |t| entry(t, "d/b", 0).mod_time = "2020-09-13T12:26:41Z".into(), "the TOC says mtime"),
        ("20 offset of a folder", |t| entry(t, "d/", 0).offset = 1, "of 0 bytes with offset 1"),
        ("20 offset of an empty file", |t| entry(t, "d/empty", 0).offset = 1, "of 0 bytes with offset 1"),
        ("22 wrong chunk", |t| entry(t, "d/chunked", 2).chunk_digest = Some(Digest::of(b"")), "chunk at 2000: digest"),
        ("wrong file digest", |t| entry(t, "d/chunked", 0).digest = Some(Digest::of(b"")), "for the file: found"),
        ("version", |t| t.version = 2, "TOC version 2"),
        (
            "no landmark",
            |t| {
                let i = at(t, ".prefetch.landmark", 0);
                t.entries.remove(i);
            },
            "no landmark",
        ),
        ("inner offset", |t| entry(t, "d/a", 0).inner_offset = 1, "leads to byte"),
        ("inner offset of any size", |t| entry(t, "d/a", 0).inner_offset = u64::MAX, "leads to byte"),
        ("no member there", |t| entry(t, "d/a", 0).offset += 1, "it cannot be read by its TOC"),
        ("behind the TOC", |t| entry(t, "d/a", 0).offset = 1 << 40, "does not lie before the next"),
        (
            "lists itself",
            |t| {
                t.entries.push(TocEntry {
                    name: crate::estargz::toc::NAME.into(),
                    kind: "reg".into(),
                    ..TocEntry::default()
                });
            },
            "the TOC lists itself",
        ),
        (
            "entry missing",
            |t| {
                let i = at(t, "s", 0);
                t.entries.remove(i);
            },
            "it is in the archive and not in the TOC",
        ),
        (
            "entry too many",
            |t| t.entries.push(TocEntry { name: "x".into(), kind: "dir".into(), ..TocEntry::default() }),
            "it is in the TOC and not in the archive",
        ),
        (
            "order of others",
            |t| {
                let i = at(t, "s", 0);
                t.entries.swap(i, i - 1);
            },
            "the TOC lists it where the archive has",
        ),
        ("mode", |t| entry(t, "d/a", 0).mode = 0o777, "the TOC says mode 777"),
        ("uid", |t| entry(t, "d/a", 0).uid = 1, "the TOC says uid 1"),
        ("gid", |t| entry(t, "d/a", 0).gid = 1, "the TOC says gid 1"),
        ("type", |t| entry(t, "d/", 0).kind = "fifo".into(), "the TOC says type fifo"),
        ("size", |t| entry(t, "d/empty", 0).size = 5, "the TOC says size 5"),
        ("link", |t| entry(t, "s", 0).link_name = "e".into(), "the TOC says link target"),
        ("device", |t| entry(t, "s", 0).dev_major = 1, "the TOC says device 1:0"),
        (
            "xattr",
            |t| {
                entry(t, "s", 0).xattrs.insert("user.x".into(), String::new());
            },
            "the TOC says extended attributes",
        ),
        ("owner", |t| entry(t, "s", 0).user_name = "me".into(), "the TOC says owner name"),
        ("group", |t| entry(t, "s", 0).group_name = "us".into(), "the TOC says group name"),
    ];
    let mut silent = Vec::new();
    for (name, edit, what) in cases {
        let report = after(edit);
        if !said(&report, what) {
            silent.push((name, report.problems));
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn bytes_behind_the_toc_are_found() {
    let src = image(&[&items()]);
    let (dst, _) = converted(&src, Layout::Plain, &[]);
    let good = blob(&dst, 0);
    let json = serde_json::to_vec(&open(&good).expect("eStargz").toc).expect("JSON");
    replace(&dst, 0, with_json(&good, &[&json[..], b"\n"].concat()));
    assert!(said(&check(Some(&src), &dst), "bytes follow the TOC's JSON"));
    // A second member in front of the footer.
    let (body, tail) = good.split_at(good.len() - 51);
    let more = crate::estargz::gzip::Encoder::new(Level::DEFAULT).member(&[0; 512]);
    replace(&dst, 0, [body, &more, tail].concat());
    assert!(said(&check(Some(&src), &dst), "bytes follow the TOC's member"));
}
