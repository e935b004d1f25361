//! What the stock readers refuse or read wrongly: numbers are those of `field/estargz-and-stargz-snapshotter.md`, 1.11.
//! The writer never makes it or refuses it by name, and verify finds it in a blob of somebody else.

use super::edit::{blob, foreign, layer, open, replace, with_json, with_toc, write};
use super::*;
use crate::estargz::toc::{Toc, TocEntry};
use crate::image::names;
use crate::store::Images;

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
        ("no member there", |t| entry(t, "d/a", 0).offset += 1, "its members are not where the TOC says"),
        ("behind the TOC", |t| entry(t, "d/a", 0).offset = 1 << 40, "does not lie before the next"),
        (
            "lists itself",
            |t| {
                t.entries.push(TocEntry {
                    name: crate::estargz::toc::NAME.into(),
                    kind: "reg".into(),
                    ..TocEntry::default()
                })
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

/// An image with one layer of somebody else, verified in itself.
fn foreign_layer(items: &[Item]) -> Report {
    let (dst, _) = converted(&image(&[&[]]), Layout::Plain, &[]);
    replace(&dst, 0, foreign(items));
    check(None, &dst)
}

#[test]
fn landmarks_in_the_wrong_place_or_form_are_found() {
    let file = |name: &str, content: &[u8]| Item::file(name, content);
    let (no, yes) = (".no.prefetch.landmark", ".prefetch.landmark");
    assert_eq!(foreign_layer(&[file(no, b"\x0f"), file("a", b"x")]).problems, []);
    assert_eq!(foreign_layer(&[file("a", b"x"), file(yes, b"\x0f"), file("b", b"x")]).problems, []);
    for (items, what) in [
        (vec![file("a", b"x")], "0 landmarks"),
        (vec![file(no, b"\x0f"), file("a", b"x"), file(yes, b"\x0f")], "2 landmarks"),
        (vec![file(no, b"\x0e")], "is not the one byte 0x0f"),
        (vec![file(no, b"\x0f\x0f")], "is not the one byte 0x0f"),
        (vec![file(yes, b"\x0f"), file("a", b"x")], "nothing stands in front of it"),
        (vec![file("a", b"x"), file(no, b"\x0f")], "expected the first one"),
    ] {
        let report = foreign_layer(&items);
        assert!(said(&report, what), "{what}: {:#?}", report.problems);
    }
}

#[test]
fn an_archive_that_readers_trip_over_is_found() {
    let mark = || Item::file(".no.prefetch.landmark", b"\x0f");
    for (items, what) in [
        (vec![mark(), Item::file("a", "x"), Item::file("a", "y")], "it is listed twice"),
        (vec![mark(), Item::file("a", "x"), Item::file("a", "y")], "it is in the archive 2 times"),
        (vec![mark(), Item::hardlink("b", "a"), Item::file("a", "y")], "which is no file in front of it"),
        (
            vec![mark(), Item::symlink("l", "d"), Item::file("l/x", "y")],
            "is no folder: an ordinary unpack goes through it",
        ),
        (vec![mark(), Item::file("stargz.index.json", "{}"), Item::file("a", "y")], "2 entries of that name"),
    ] {
        let report = foreign_layer(&items);
        assert!(said(&report, what), "{what}: {:#?}", report.problems);
    }
}

#[test]
fn a_folder_that_only_lower_layers_list_is_found_and_repeated_by_the_conversion() {
    let lower = [Item::dir("tmp").mode(0o1777), Item::dir("tmp/a").owner(7, 7, "u", "g"), Item::file("tmp/a/x", "x")];
    let upper = [Item::file("tmp/a/y", "y"), Item::file("tmp/z", "z"), Item::file("new/z", "z")];
    let src = image(&[&lower, &upper, &[Item::dir("tmp").mode(0o700)], &[Item::file("tmp/last", "l")]]);
    for layout in [Layout::Plain, Layout::Landmark, Layout::Hot] {
        let (dst, _) = converted(&src, layout, &["/tmp/a/y"]);
        let mut names: Vec<String> =
            open(&blob(&dst, 1)).expect("eStargz").toc.entries.into_iter().map(|e| e.name).collect();
        names.sort();
        names.retain(|n| n.ends_with('/'));
        assert_eq!(names, ["tmp/", "tmp/a/"]);
    }
    let (dst, _) = converted(&src, Layout::Plain, &[]);
    replace(&dst, 3, foreign(&[Item::file(".no.prefetch.landmark", b"\x0f"), Item::file("tmp/last", "l")]));
    assert!(said(&check(None, &dst), "and none for it: a lazy mount shows 0755"));
}

#[test]
fn a_whiteout_behind_what_it_hides_is_found_when_the_source_has_it_in_front() {
    let src = image(&[&[Item::file("a", "old")], &[Item::file(".wh.a", ""), Item::file("a", "new")]]);
    for layout in [Layout::Plain, Layout::Landmark, Layout::Hot] {
        converted(&src, layout, &["/a"]);
    }
    let (dst, _) = converted(&src, Layout::Plain, &[]);
    replace(
        &dst,
        1,
        foreign(&[Item::file(".no.prefetch.landmark", b"\x0f"), Item::file("a", "new"), Item::file(".wh.a", "")]),
    );
    assert!(said(&check(Some(&src), &dst), "and behind it in the source"));
    replace(
        &dst,
        1,
        foreign(&[Item::file(".no.prefetch.landmark", b"\x0f"), Item::file("a", "new"), Item::file(".wh.b", "")]),
    );
    let report = check(Some(&src), &dst);
    assert!(
        said(&report, "this whiteout of the source is missing") && said(&report, "this whiteout is not in the source")
    );
}

#[test]
fn what_cannot_be_carried_is_refused_by_name() {
    let cases: &[(&[&[Item]], &str, &str)] = &[
        (&[&[Item::file("x", "").pax("path", b"\xff")]], "\u{fffd}", "not UTF-8"),
        (&[&[Item::file("x", "").pax("GNU.sparse.major", "1")]], "x", "sparse"),
        (&[&[Item::special("x", b'M', (0, 0))]], "x", "is not a file, link"),
        (&[&[Item::hardlink("x", "none")]], "x", "it is not in this layer"),
        (&[&[Item::file("a", "")], &[Item::hardlink("x", "a")]], "x", "it is not in this layer"),
        (&[&[Item::hardlink("x", "x")]], "x", "that is itself"),
        (&[&[Item::hardlink("x", "y"), Item::hardlink("y", "x")]], "x", "it stands behind the link"),
        (&[&[Item::hardlink("x", "a"), Item::file("a", "")]], "x", "it stands behind the link"),
        (&[&[Item::dir("a"), Item::hardlink("x", "a")]], "x", "it is no file"),
        (
            &[&[Item::dir("usr"), Item::symlink("lib", "usr")], &[Item::file("lib/x", "")]],
            "lib/x",
            "which is no folder",
        ),
        (&[&[Item::file("a", "old"), Item::hardlink("x", "a"), Item::file("a", "new")]], "x", "replaced there"),
    ];
    for (layers, path, why) in cases {
        for layout in [Layout::Plain, Layout::Landmark, Layout::Hot] {
            let p = profile(&["/x", "/lib/x"]);
            let p = (layout != Layout::Plain).then_some(&p);
            let dst = Memory::default();
            let e = convert(&image(layers), &dst, p, &options(layout), &Silent).map(|_| ()).expect_err(why);
            let cause = std::error::Error::source(&e).expect("a cause").to_string();
            assert!(cause.contains(why) && cause.contains(path), "{cause}");
        }
    }
}

#[test]
fn the_writer_refuses_by_name_what_the_readers_would_not_find() {
    let mark = None;
    for (items, why) in [
        (vec![mark.clone(), Some(Item::file("a", "x")), Some(Item::file("a", "y"))], "twice"),
        (vec![mark.clone(), Some(Item::hardlink("a", "a"))], "has none in this layer"),
        (vec![mark, Some(Item::hardlink("a", "b")), Some(Item::file("b", "y"))], "stands before its target"),
        (vec![Some(Item::file("a", "x"))], "without landmark"),
    ] {
        assert!(write(&items).expect_err(why).to_string().contains(why));
    }
}

#[test]
fn a_hot_layer_over_changed_lower_layers_is_found() {
    let src = image(&[&[Item::dir("d"), Item::file("d/a", "one"), Item::file("d/b", "two")]]);
    let (dst, _) = converted(&src, Layout::Hot, &["/d/a"]);
    for (items, what) in [
        (vec![Item::dir("d"), Item::file("d/a", "patched"), Item::file("d/b", "two")], "content"),
        (vec![Item::dir("d"), Item::file("d/b", "two")], "that is not in the source"),
        (
            vec![Item::dir("d"), Item::file("d/a", "one").mode(0o600), Item::file("d/b", "two")],
            "mode 0644: expected 0600",
        ),
        (
            vec![Item::dir("d").mode(0o700), Item::file("d/a", "one"), Item::file("d/b", "two")],
            "mode 0755: expected 0700",
        ),
    ] {
        let patched = image(&[&items]);
        let (new, _) = converted(&patched, Layout::Plain, &[]);
        replace(&dst, 0, blob(&new, 0));
        let report = check(None, &dst);
        assert!(said(&report, &format!("hot layer over changed lower layers: ")), "{:#?}", report.problems);
        assert!(said(&report, what), "{what}: {:#?}", report.problems);
    }
}

#[test]
fn what_the_annotations_say_is_checked() {
    let src = image(&[&items()]);
    let wrong = Digest::of(b"").to_string();
    for (key, value) in [
        (names::TOC_DIGEST, Some(wrong.as_str())),
        (names::TOC_DIGEST, Some("sha256:")),
        (names::TOC_DIGEST, None),
        (names::UNCOMPRESSED_SIZE, Some("1")),
        (names::UNCOMPRESSED_SIZE, None),
        (names::LAYER_SOURCE, Some(wrong.as_str())),
        (names::LAYER_KIND, Some("hot")),
    ] {
        let (dst, _) = converted(&src, Layout::Plain, &[]);
        dst.edit_manifest(|m| match value {
            Some(v) => m["layers"][0]["annotations"][key] = v.into(),
            None => drop(m["layers"][0]["annotations"].as_object_mut().expect("ours").remove(key)),
        });
        assert_ne!(check(Some(&src), &dst).problems, [], "{key} {value:?}");
    }
    let (dst, _) = converted(&src, Layout::Plain, &[]);
    dst.edit_manifest(|m| m["annotations"][names::SOURCE] = wrong.as_str().into());
    assert!(said(&check(Some(&src), &dst), names::SOURCE));
    dst.edit_manifest(|m| m["layers"][0]["mediaType"] = names::LAYER_ZSTD.into());
    assert!(said(&check(None, &dst), "expected eStargz"));
    // An ordinary image is not one of ours.
    assert!(said(&check(None, &src), "not an eStargz layer"));
    assert_eq!(layer(&src, 0).annotations, []);
    assert_eq!(src.image("").expect("an image").manifest.layers.len(), 1);
}

/// Somebody else's image may have other files: every difference is named with its path.
#[test]
fn every_difference_of_the_root_file_systems_is_named() {
    let base = || {
        vec![
            Item::dir("d"),
            Item::file("d/f", "text").pax("SCHILY.xattr.user.x", "1"),
            Item::file("d/g", "text"),
            Item::hardlink("d/h", "d/g"),
            Item::symlink("d/s", "f"),
            Item::special("d/c", b'3', (1, 3)),
        ]
    };
    let src = image(&[&base()]);
    let changes: &[(usize, Item, &str)] = &[
        (1, Item::file("d/f", "test").pax("SCHILY.xattr.user.x", "1"), "content"),
        (1, Item::file("d/f", "text.").pax("SCHILY.xattr.user.x", "1"), "size 5: expected 4"),
        (1, Item::file("d/f", "text").pax("SCHILY.xattr.user.x", "2"), "extended attribute user.x 2: expected 1"),
        (1, Item::file("d/f", "text"), "extended attribute user.x none: expected 1"),
        (1, Item::file("d/f2", "text"), "missing: expected a file"),
        (1, Item::file("d/f2", "text"), "a file that is not in the source"),
        (0, Item::dir("d").mode(0o700), "mode 0700: expected 0755"),
        (0, Item::dir("d").owner(1, 2, "root", "root"), "uid 1: expected 0"),
        (0, Item::dir("d").owner(1, 2, "root", "root"), "gid 2: expected 0"),
        (0, Item::dir("d").owner(0, 0, "toor", "wheel"), "owner name \"toor\""),
        (0, Item::dir("d").owner(0, 0, "toor", "wheel"), "group name \"wheel\""),
        (0, Item::dir("d").mtime(5), "mtime 5.000000000"),
        (2, Item::file("d/g", "text").pax("mtime", "1600000000.5"), "mtime 1600000000.5"),
        (3, Item::file("d/h", "text"), "shares its content with"),
        (3, Item::file("d/h", "text"), "number of names 1: expected 2"),
        (4, Item::symlink("d/s", "g"), "link \"g\": expected \"f\""),
        (4, Item::special("d/s", b'6', (0, 0)), "a pipe: expected a symlink"),
        (5, Item::special("d/c", b'3', (1, 5)), "device (1, 5)"),
        (5, Item::special("d/c", b'4', (1, 3)), "a block device: expected a character device"),
    ];
    for (i, item, what) in changes {
        let mut items = base();
        items[*i] = item.clone();
        let (dst, _) = converted(&image(&[&items]), Layout::Plain, &[]);
        let report = check(Some(&src), &dst);
        assert!(said(&report, what), "{what}: {:#?}", report.problems);
    }
}
