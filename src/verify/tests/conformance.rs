//! The conformance suite: what the reference implementation tests of itself (`field/estargz-and-stargz-snapshotter.md`, 4.3),
//! and for each the test that asserts it here. Names without a module are in this file, those with one in its folder or
//! beside it. Readers of other makers judge the same blobs in `scripts/oracle` and `scripts/e2e`.
//!
//! | scenario | test |
//! |---|---|
//! | names with prefix "", "./", "/", "../" × source none/gzip/zstd × ustar/PAX/GNU × level × min-chunk-size | `spelling_archiver_compression_and_level_leave_no_trace_in_the_toc` |
//! | lossless: the archive's headers as they were | `random::random_trees_come_out_equal` |
//! | metadata store memory, passthrough | `scripts/oracle`, `scripts/e2e` |
//! | **build**: files, folders, attributes, empty files between; one of everything; only empty; nothing | `images::small_images_of_every_shape` |
//! | diffID is that of the decompressed blob | `images::small_images_of_every_shape`, `damage::every_damage_of_the_config_is_told` |
//! | TOC version, every key of every kind | `the_toc_says_of_each_kind_of_entry_what_its_header_says` |
//! | the entries of a sequential writer | `images::the_bytes_do_not_depend_on_the_threads`, `images::a_layer_that_is_finished_on_the_way_is_the_one_put_together_later` |
//! | **digests**: TOC digest, every entry listed, every chunk its digest; no file, small, big, with others | `every_chunk_of_three_bytes_has_its_digest` |
//! | must fail: other TOC, chunk digest lost or changed, offset twice, entries lost, a flipped bit, chunks swapped | `failures::*`; every position: `damage::*`, `grouped::every_damage_of_a_shared_member_is_told`, `chunked::every_damage_is_told`; every rule: `toc::*` |
//! | **write and open**: exact number and places of members | `a_blob_has_exactly_these_members_at_any_level`, `the_number_of_members_is_that_of_the_payloads` |
//! | xattrs that are no UTF-8, owners and their names, devices, setuid, setgid, sticky, symlinks without size | `the_toc_says_of_each_kind_of_entry_what_its_header_says` |
//! | a file of six chunks read at every offset | `every_read_at_every_offset_gives_its_bytes` |
//! | root as an entry | `what_is_read_comes_first_with_what_it_needs`, `images::small_images_of_every_shape` |
//! | an existing TOC is dropped | `landmarks_and_a_toc_in_the_source_are_not_taken_over`, `what_hangs_on_a_landmark_of_the_source_is_refused` |
//! | hard links and link counts | `names_of_one_content_are_counted_through_chains_of_links`, `differences::every_difference_of_the_root_file_systems_is_named` |
//! | several files in a member | `grouped::*`; read at every offset: `every_read_at_every_offset_gives_its_bytes` |
//! | **sorting**: nothing read, in order, shuffled files, folders, links; long names; all types; landmarks there; missing; twice; root | `what_is_read_comes_first_with_what_it_needs`, `plan::order` |
//! | **metadata**: dirty names | `spelling_archiver_compression_and_level_leave_no_trace_in_the_toc`, `tar::path` |
//! | empty layer with its landmark | `images::small_images_of_every_shape`, `the_number_of_members_is_that_of_the_payloads` |
//! | inner chunks | `grouped::every_file_reads_back_by_its_inner_offset` |
//! | **layer**: prefetch takes exactly the prioritized chunks, or none | `what_is_read_comes_first_with_what_it_needs`, `grouped::small_files_share_members_and_larger_ones_do_not` |
//! | whiteouts with siblings, with their name beside them; opaque with sibling and attributes | `whiteouts_keep_their_attributes_and_their_siblings`, `traps::a_whiteout_behind_what_it_hides_is_found_when_the_source_has_it_in_front` |
//! | landmarks are not shown | `landmarks_and_a_toc_in_the_source_are_not_taken_over`, `traps::landmarks_in_the_wrong_place_or_form_are_found` |
//! | state file, `.`, `..` | the snapshotter's own |
//! | **footer**: 51 bytes at every offset | `estargz::footer` |
//! | 47 bytes, 46 bytes, short and long extra fields | `footers::footers_of_other_kinds_and_extra_fields_of_other_lengths_are_refused` |
//! | **more**: offsets behind 4 GiB and behind the blob | `footers::*` |
//! | a hundred thousand entries | `a_toc_of_a_hundred_thousand_entries_is_written_and_read` |
//! | TOC in the order of the blob | `toc::verify_finds_every_toc_that_readers_trip_over` |
//! | the same bytes from any number of threads | `images::the_bytes_do_not_depend_on_the_threads`, `grouped::the_bytes_do_not_depend_on_the_threads_or_on_what_was_there` |
//! | unpacks as under overlayfs | `scripts/e2e` |
//! | GNU long names | `what_is_read_comes_first_with_what_it_needs`, `images::small_images_of_every_shape` |
//! | sparse files, global headers | `a_global_header_that_only_comments_is_carried`, `global_headers_that_say_more_and_sparse_files_are_refused_where_they_stand` |
//! | names that are no UTF-8 | `traps::what_cannot_be_carried_is_refused_by_name` |

mod failures;
mod footers;

use std::io::Read;

use serde_json::{Value, json};

use super::edit::{self, blob, layer, open};
use super::*;
use crate::estargz::codec::Decoder;
use crate::estargz::{Layer, Member, Span, Writer, gzip, landmark, toc};
use crate::image::names;
use crate::tar::{END, Entry, Kind, padding, regular_header};

/// The gzip members of a blob: where each begins and what it holds.
fn members(blob: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut rest = blob;
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (at, mut raw) = (blob.len() - rest.len(), Vec::new());
        let mut member = flate2::bufread::GzDecoder::new(rest);
        member.read_to_end(&mut raw).expect("a gzip member");
        rest = member.into_inner();
        out.push((at as u64, raw));
    }
    out
}

/// The one header block of an item.
fn header(item: &Item) -> Vec<u8> {
    archive(std::slice::from_ref(item))[..512].to_vec()
}

fn pad(payload: &[u8]) -> Vec<u8> {
    vec![0; padding(payload.len() as u64)]
}

fn level(n: u8) -> Level {
    Level::new(n).expect("a level")
}

/// Names in the TOC, chunks left out.
fn listed(layer: &Layer) -> Vec<&str> {
    layer.toc.entries.iter().filter(|e| e.kind != "chunk").map(|e| e.name.as_str()).collect()
}

/// The JSON of a layer's TOC, as it is written.
fn toc_json(blob: &[u8]) -> Vec<u8> {
    let members = members(blob);
    let (_, raw) = &members[members.len() - 2];
    let mut tar = crate::tar::Reader::new(&raw[..]);
    assert_eq!(tar.next().expect("an archive").expect("an entry").path, toc::NAME);
    let mut json = Vec::new();
    tar.read_to_end(&mut json).expect("memory");
    json
}

/// An item under another type, with its payload and without an end.
fn retyped(item: &Item, kind: u8) -> Vec<u8> {
    let mut raw = archive(std::slice::from_ref(item));
    raw.truncate(raw.len() - END.len());
    raw[156] = kind;
    raw[148..156].copy_from_slice(b"        ");
    let sum: u32 = raw[..512].iter().map(|b| u32::from(*b)).sum();
    raw[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    raw
}

/// Converting what cannot be carried gives this error, and nothing is tagged.
fn refused(tar: Vec<u8>, why: &str) {
    let src = Memory::of(&[tar]);
    for layout in LAYOUTS {
        let (dst, p) = (Memory::default(), profile(&["/a"]));
        let profile = layout.needs_profile().then_some(&p);
        let e = convert(&src, &dst, profile, &options(layout), &Silent).map(|_| ()).expect_err(why);
        let cause = std::error::Error::source(&e).expect("a cause").to_string();
        assert_eq!(cause, why, "{layout}");
        assert!(crate::store::Images::image(&dst, "").is_err(), "{layout}: it is tagged");
    }
}

/// Where the members lie is the format's; how they are compressed is not.
#[test]
fn a_blob_has_exactly_these_members_at_any_level() {
    let (a, b) = (bytes(2500, 1), bytes(200, 2));
    let items = [
        Item::dir("d"),
        Item::file("d/a", &a),
        Item::file("d/empty", ""),
        Item::file("d/b", &b),
        Item::hardlink("d/link", "d/a"),
        Item::dir("e"),
    ];
    let [d, file_a, empty, file_b, link, e] = items.each_ref().map(header);
    for n in [0, 1, 6, 12] {
        let options = convert::Options { level: level(n), ..options(Layout::Landmark) };
        let (dst, _) = converted_with(&image(&[&items]), &options, &["/d/b"]);
        let blob = blob(&dst, 0);
        let layer = open(&blob).expect("eStargz");
        let (starts, found): (Vec<u64>, Vec<Vec<u8>>) = members(&blob).into_iter().unzip();
        let json = serde_json::to_vec(&layer.toc).expect("JSON");
        let expected = [
            [&d[..], &file_b].concat(),
            b.clone(),
            [pad(&b), regular_header(landmark::PREFETCH, 1, 0).to_vec()].concat(),
            vec![landmark::CONTENT],
            [pad(&[landmark::CONTENT]), file_a.clone()].concat(),
            a[..1000].to_vec(),
            a[1000..2000].to_vec(),
            a[2000..].to_vec(),
            [&pad(&a)[..], &empty, &link, &e].concat(),
            [&regular_header(toc::NAME, json.len() as u64, 0o444)[..], &json, &pad(&json), &END].concat(),
            Vec::new(),
        ];
        assert!(found == expected, "level {n}: {:?}", found.iter().map(Vec::len).collect::<Vec<_>>());
        let offsets: Vec<(&str, u64)> =
            layer.toc.entries.iter().filter(|e| e.offset > 0).map(|e| (e.name.as_str(), e.offset)).collect();
        let payloads = ["d/b", ".prefetch.landmark", "d/a", "d/a", "d/a"];
        let places = [1, 3, 5, 6, 7].map(|i| starts[i]);
        assert_eq!(offsets, payloads.into_iter().zip(places).collect::<Vec<_>>(), "level {n}");
        assert_eq!((layer.toc_offset, layer.footer_offset()), (starts[9], starts[10]), "level {n}");
        assert_eq!(layer.prefetch_size(), Some(starts[3]), "level {n}");
        let toc = format!("{:016x}", starts[9]);
        let footer = [
            b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0",
            toc.as_bytes(),
            b"STARGZ\x01\0\0\xff\xff\0\0\0\0\0\0\0\0",
        ]
        .concat();
        assert_eq!(blob[blob.len() - 51..], footer, "level {n}");
    }
}

/// Landmark's header, landmark, what is between payloads, each payload, what is behind the last one if anything, TOC, footer.
#[test]
fn the_number_of_members_is_that_of_the_payloads() {
    let file = |n: usize| Item::file("f", bytes(n, 1));
    let cases: &[(&str, &[Item], usize)] = &[
        ("no entry", &[], 5),
        ("a folder and an empty file", &[Item::dir("d"), Item::file("d/f", "")], 5),
        ("one byte", &[file(1)], 7),
        ("attributes", &[file(1).pax("SCHILY.xattr.user.x", b"\xff\0")], 7),
        ("as long as its blocks", &[file(512)], 6),
        ("as long as a chunk", &[file(1000)], 7),
        ("one byte more", &[file(1001)], 8),
        ("six chunks", &[file(5500)], 12),
        ("two files", &[file(5500), Item::file("g", "x")], 14),
        ("two files with entries between", &[file(9), Item::dir("d"), Item::file("e", ""), Item::file("g", "x")], 9),
        (
            "links, devices and pipes",
            &[
                Item::file("e", ""),
                Item::hardlink("h", "e"),
                Item::symlink("s", "e"),
                Item::special("c", b'3', (1, 3)),
                Item::special("b", b'4', (8, 1)),
                Item::special("p", b'6', (0, 0)),
            ],
            5,
        ),
        (
            "an earlier TOC and landmark",
            &[Item::file(landmark::NO_PREFETCH, b"\x0f"), file(1), Item::file(toc::NAME, "{}")],
            7,
        ),
    ];
    for (what, items, count) in cases {
        let (dst, _) = converted(&image(&[items]), Layout::Plain, &[]);
        let blob = blob(&dst, 0);
        let starts: Vec<u64> = members(&blob).into_iter().map(|(at, _)| at).collect();
        assert_eq!(starts.len(), *count, "{what}");
        let layer = open(&blob).expect("eStargz");
        assert!(layer.toc.entries.iter().all(|e| e.offset == 0 || starts.contains(&e.offset)), "{what}");
    }
}

/// The reference's trees: no file, small ones, big ones, and others among them.
#[test]
fn every_chunk_of_three_bytes_has_its_digest() {
    let (small, big) = (b"bar".to_vec(), bytes(40, 1));
    let trees: [&[Item]; 4] = [
        &[Item::dir("test"), Item::dir("test2")],
        &[Item::file("baz", ""), Item::file("foo", &small), Item::dir("test"), Item::file("test/bar", "bbb")],
        &[Item::file("baz", bytes(41, 2)), Item::file("foo", &big), Item::file("bar", bytes(42, 3))],
        &[
            Item::file("baz", bytes(41, 2)),
            Item::symlink("barlink", "test/bar"),
            Item::file("foo", &big),
            Item::hardlink("link", "foo"),
            Item::dir("test"),
            Item::special("test/char", b'3', (1, 3)),
        ],
    ];
    let contents = [("foo", small), ("foo", big), ("test/bar", b"bbb".to_vec()), ("baz", bytes(41, 2))];
    for (tree, chunks) in trees.into_iter().zip([1, 3, 43, 29]) {
        let options = convert::Options { chunk_size: 3, ..options(Layout::Plain) };
        let (dst, _) = converted_with(&image(&[tree]), &options, &[]);
        let blob = blob(&dst, 0);
        let layer = open(&blob).expect("eStargz");
        assert_eq!(layer.toc_digest, Digest::of(&toc_json(&blob)));
        assert_eq!(listed(&layer).len(), tree.len() + 1, "every entry and the landmark");
        let payloads: Vec<_> = layer.toc.entries.iter().filter(|e| e.offset > 0).collect();
        assert_eq!((payloads.len(), check(None, &dst).chunks), (chunks, chunks as u64));
        let held: Vec<(u64, Vec<u8>)> = members(&blob);
        for e in payloads {
            let (_, raw) = held.iter().find(|(at, _)| *at == e.offset).expect("its member");
            assert_eq!(e.chunk_digest, Some(Digest::of(raw)), "{} at {}", e.name, e.chunk_offset);
            if let Some((_, content)) = contents.iter().find(|(name, c)| e.name == *name && e.size == c.len() as u64) {
                assert_eq!(e.digest, Some(Digest::of(content)), "{}", e.name);
            }
        }
    }
}

/// What a reader gives from a place in a file: the chunks that it touches, each from its member and checked.
fn read_at(layer: &Layer, blob: &[u8], spans: &[Span], offset: u64, length: u64) -> Vec<u8> {
    let at = |n: u64| usize::try_from(n).expect("small");
    let end = offset + length;
    let mut out = Vec::new();
    for span in spans.iter().filter(|s| s.offset < end && offset < s.offset + s.size) {
        let chunk = layer.chunk("f", span, &blob[at(span.member)..at(span.end)]).expect("its content");
        let (from, to) = (offset.saturating_sub(span.offset), (end - span.offset).min(span.size));
        out.extend_from_slice(&chunk[at(from)..at(to)]);
    }
    out
}

#[test]
fn every_read_at_every_offset_gives_its_bytes() {
    let chunks = |format| convert::Options { format, chunk_size: 4, ..options(Layout::Plain) };
    let shared = |format| convert::Options { format, chunk_size: 4096, min_chunk_size: 400, ..options(Layout::Plain) };
    for (size, last) in [(23_u64, 3), (24, 4)] {
        let content = bytes(usize::try_from(size).expect("small"), 9);
        let src = image(&[&[Item::file("before", "x"), Item::file("f", &content), Item::file("g", "yz")]]);
        for format in [Format::Estargz, Format::ZstdChunked] {
            let six = [(0, 4), (4, 4), (8, 4), (12, 4), (16, 4), (20, last)].to_vec();
            for (options, expected) in [(chunks(format), six), (shared(format), vec![(0, size)])] {
                let (dst, _) = converted_with(&src, &options, &[]);
                let blob = blob(&dst, 0);
                let layer = open(&blob).expect("a layer");
                let files = layer.files().expect("sound");
                let (_, _, spans) = files.iter().find(|(path, ..)| path == "f").expect("listed");
                assert_eq!(spans.iter().map(|s| (s.offset, s.size)).collect::<Vec<_>>(), expected);
                assert_eq!(spans[0].inner > 0, options.min_chunk_size > 0, "it stands behind another in its member");
                for offset in 0..size + 3 {
                    for length in 0..size + 3 {
                        let [from, to] =
                            [offset, offset + length].map(|n| usize::try_from(n.min(size)).expect("small"));
                        let found = read_at(&layer, &blob, spans, offset, length);
                        assert_eq!(found, content[from..to], "{format:?}: {length} bytes at {offset}");
                    }
                }
            }
        }
    }
}

/// A tree as an archiver with this prefix before every name has it.
fn spelled(prefix: &str, archiver: fn(&str, Item) -> Item) -> Vec<u8> {
    let long = "long-name/".repeat(12);
    let item = |name: &str, item: Item| {
        let name = format!("{prefix}{name}");
        archiver(&name, item.named(&name))
    };
    let target = format!("{prefix}d/chunked");
    let root = if prefix.is_empty() { "./" } else { prefix };
    archive(&[
        Item::dir(root).mode(0o751),
        item("d/", Item::dir("").mode(0o700)),
        item("d/chunked", Item::file("", bytes(3500, 1)).owner(1000, 1001, "user", "staff")),
        item("d/empty", Item::file("", "").mode(0o4711)),
        item("d/link", Item::hardlink("", &target)),
        item("d/symlink", Item::symlink("", "../d/./chunked")),
        item(&format!("d/{long}x"), Item::file("", "x")),
    ])
}

/// The TOC's entries; where a member lies is the encoder's.
fn entries(src: &Memory, options: &convert::Options) -> Vec<toc::TocEntry> {
    let (dst, _) = converted_with(src, options, &["/d/link"]);
    let mut entries = open(&blob(&dst, 0)).expect("a layer").toc.entries;
    for e in &mut entries {
        (e.offset, e.inner_offset) = (0, 0);
    }
    entries
}

#[test]
fn spelling_archiver_compression_and_level_leave_no_trace_in_the_toc() {
    let options = options(Layout::Landmark);
    let ustar = |_: &str, item| item;
    let expected = entries(&Memory::of(&[spelled("", ustar)]), &options);
    let names: Vec<&str> = expected.iter().map(|e| e.name.as_str()).collect();
    let long = format!("d/{}x", "long-name/".repeat(12));
    let front = ["./", "d/", "d/chunked", "d/chunked", "d/chunked", "d/chunked", "d/link", ".prefetch.landmark"];
    assert_eq!(names, [&front[..], &["d/empty", "d/symlink", &long]].concat());
    // Readers clean `path.Clean("/" + name)`: a name leads nowhere outside the root.
    for prefix in ["", "./", "/", "../", ".//../", "bar/../"] {
        let tar = spelled(prefix, ustar);
        let zstd = zstd::encode_all(&tar[..], 3).expect("memory");
        let sources = [
            Memory::image_of(&[(names::LAYER_TAR, tar.clone(), tar.clone())]),
            Memory::of(std::slice::from_ref(&tar)),
            Memory::image_of(&[(names::LAYER_ZSTD, zstd, tar)]),
        ];
        for (i, src) in sources.iter().enumerate() {
            for n in [0, 1, 6, 12] {
                let found = entries(src, &convert::Options { level: level(n), ..options.clone() });
                assert_eq!(found, expected, "{prefix:?}, source {i}, level {n}");
            }
        }
        let archivers: [fn(&str, Item) -> Item; 2] = [|_, item| item.gnu(), |name, item| item.pax("path", name)];
        for (i, archiver) in archivers.into_iter().enumerate() {
            let found = entries(&Memory::of(&[spelled(prefix, archiver)]), &options);
            assert_eq!(found, expected, "{prefix:?}, archiver {i}");
        }
        for (format, min_chunk_size) in [(Format::Estargz, 400), (Format::ZstdChunked, 0), (Format::ZstdChunked, 400)] {
            let found = entries(&sources[1], &convert::Options { format, min_chunk_size, ..options.clone() });
            assert_eq!(found, expected, "{prefix:?}, {format:?}, members of {min_chunk_size}");
        }
    }
}

/// Key for key, as the format's document has them; what is 0 or empty is left out.
#[test]
fn the_toc_says_of_each_kind_of_entry_what_its_header_says() {
    let items = [
        Item::dir("./"),
        Item::dir("sticky").mode(0o1777),
        Item::file("empty", "").mode(0o4755).mtime(0),
        Item::file("chunked", bytes(1500, 1)).owner(1000, 1001, "user", "staff").mode(0o2755),
        Item::file("x", "x").mode(0).pax("SCHILY.xattr.user.bin", b"\xff\0=").pax("SCHILY.xattr.user.text", "t"),
        Item::hardlink("hard", "./x").mode(0),
        Item::symlink("soft", "../x//y/"),
        Item::special("char", b'3', (1, 3)),
        Item::special("block", b'4', (8, 17)),
        Item::special("pipe", b'6', (0, 0)),
        Item::file("fraction", "").pax("mtime", "1600000000.5"),
    ];
    let (dst, _) = converted(&image(&[&items]), Layout::Plain, &[]);
    let json = toc_json(&blob(&dst, 0));
    assert_eq!(layer(&dst, 0).annotation(names::TOC_DIGEST), Some(Digest::of(&json).to_string().as_str()));
    let mut found: Value = serde_json::from_slice(&json).expect("JSON");
    for e in found["entries"].as_array_mut().expect("a list") {
        e.as_object_mut().expect("an entry").remove("offset");
    }
    let content = bytes(1500, 1);
    let of = |bytes: &[u8]| Digest::of(bytes).to_string();
    let mark = "sha256:dc0e9c3658a1a3ed1ec94274d8b19925c93e1abb7ddba294923ad9bde30f8cb8";
    let nothing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let time = "2020-09-13T12:26:40Z";
    let entry = |name: &str, kind: &str, more: Value| {
        let mut e = json!({ "name": name, "type": kind, "modtime": time, "userName": "root", "groupName": "root" });
        e.as_object_mut().expect("an entry").extend(more.as_object().expect("an object").clone());
        e.as_object_mut().expect("an entry").retain(|_, v| !v.is_null());
        e
    };
    let expected = json!({ "version": 1, "entries": [
        { "name": ".no.prefetch.landmark", "type": "reg", "size": 1, "digest": mark, "chunkDigest": mark },
        entry("./", "dir", json!({ "mode": 0o755 })),
        entry("sticky/", "dir", json!({ "mode": 0o1777 })),
        entry("empty", "reg", json!({ "mode": 0o4755, "modtime": null, "digest": nothing })),
        entry("chunked", "reg", json!({
            "size": 1500, "mode": 0o2755, "uid": 1000, "gid": 1001, "userName": "user", "groupName": "staff",
            "digest": of(&content), "chunkSize": 1000, "chunkDigest": of(&content[..1000]),
        })),
        { "name": "chunked", "type": "chunk", "chunkOffset": 1000, "chunkDigest": of(&content[1000..]) },
        entry("x", "reg", json!({
            "size": 1, "digest": of(b"x"), "chunkDigest": of(b"x"),
            "xattrs": { "user.bin": "/wA9", "user.text": "dA==" },
        })),
        entry("hard", "hardlink", json!({ "linkName": "x" })),
        entry("soft", "symlink", json!({ "mode": 0o777, "linkName": "../x//y/" })),
        entry("char", "char", json!({ "mode": 0o644, "devMajor": 1, "devMinor": 3 })),
        entry("block", "block", json!({ "mode": 0o644, "devMajor": 8, "devMinor": 17 })),
        entry("pipe", "fifo", json!({ "mode": 0o644 })),
        entry("fraction", "reg", json!({ "mode": 0o644, "modtime": "2020-09-13T12:26:40.5Z", "digest": nothing })),
    ] });
    assert_eq!(found, expected);
}

/// What it is, entries, what was read, and the order of the layer.
type Sorted<'a> = (&'a str, &'a [Item], &'a [&'a str], &'a [&'a str]);

#[test]
fn what_is_read_comes_first_with_what_it_needs() {
    let file = |name: &str| Item::file(name, name);
    let (mark, no) = (".prefetch.landmark", ".no.prefetch.landmark");
    let long = format!("{}x", "long-name/".repeat(12));
    let flat = [file("foo"), Item::dir("bar"), file("bar/baz"), file("bar/bar"), file("other")];
    let deep = [Item::dir("a"), Item::dir("a/b"), file("a/b/x"), Item::dir("c"), file("c/y"), Item::dir("e")];
    let links = [Item::dir("d"), file("d/t"), Item::dir("e"), Item::hardlink("e/l", "d/t"), Item::hardlink("m", "e/l")];
    let types =
        [Item::symlink("s", "f"), Item::special("c", b'3', (1, 3)), Item::special("p", b'6', (0, 0)), file("f")];
    let marked = [file("a"), Item::file(mark, b"\x0f"), file("b")];
    let unmarked = [Item::file(no, b"\x0f"), file("a"), file("b")];
    let twice = [Item::file("x", "old"), file("y"), Item::file("x", "new")];
    let hidden = [Item::file(".wh.x", ""), Item::dir("d"), file("d/y"), file("x")];
    let cases: &[Sorted<'_>] = &[
        ("nothing was read", &flat, &[], &[no, "foo", "bar/", "bar/baz", "bar/bar", "other"]),
        ("in its order", &flat, &["/foo", "/bar/baz"], &["foo", "bar/", "bar/baz", mark, "bar/bar", "other"]),
        ("shuffled", &flat, &["/other", "/bar/bar", "/foo"], &["other", "bar/", "bar/bar", "foo", mark, "bar/baz"]),
        (
            "everything",
            &flat,
            &["/bar/bar", "/foo", "/other", "/bar/baz"],
            &["bar/", "bar/bar", "foo", "other", "bar/baz", mark],
        ),
        ("folders", &deep, &["/c/y", "/a/b/x"], &["c/", "c/y", "a/", "a/b/", "a/b/x", mark, "e/"]),
        ("a folder itself", &deep, &["/a", "/c/y"], &["c/", "c/y", mark, "a/", "a/b/", "a/b/x", "e/"]),
        ("a link", &links, &["/e/l"], &["d/", "d/t", "e/", "e/l", mark, "m"]),
        ("a link to a link", &links, &["/m"], &["d/", "d/t", "e/", "e/l", "m", mark]),
        ("what has no content", &types, &["/s", "/c", "/p", "/f"], &["f", mark, "s", "c", "p"]),
        ("missing", &flat, &["/gone", "/other"], &["other", mark, "foo", "bar/", "bar/baz", "bar/bar"]),
        ("all missing", &flat, &["/gone"], &[no, "foo", "bar/", "bar/baz", "bar/bar", "other"]),
        ("a long name", &[file("a"), file(&long)], &[&format!("/{long}")], &[&long, mark, "a"]),
        ("a long GNU name", &[file("a"), file(&long).gnu()], &[&format!("/{long}")], &[&long, mark, "a"]),
        ("earlier landmark, nothing read", &marked, &[], &[no, "a", "b"]),
        ("earlier landmark", &marked, &["/b"], &["b", mark, "a"]),
        ("earlier empty landmark, nothing read", &unmarked, &[], &[no, "a", "b"]),
        ("earlier empty landmark", &unmarked, &["/b"], &["b", mark, "a"]),
        ("twice, nothing read", &twice, &[], &[no, "y", "x"]),
        ("twice", &twice, &["/x"], &["x", mark, "y"]),
        ("root", &[Item::dir("./"), file("a"), file("b")], &["/b"], &["./", "b", mark, "a"]),
        ("root as /", &[Item::dir("/"), file("/a"), file("/b")], &["/b"], &["./", "b", mark, "a"]),
        ("a whiteout of its name", &hidden, &["/x"], &[".wh.x", "x", mark, "d/", "d/y"]),
    ];
    for (what, items, read, expected) in cases {
        let (dst, _) = converted(&image(&[items]), Layout::Landmark, read);
        let layer = open(&blob(&dst, 0)).expect("eStargz");
        assert_eq!(listed(&layer), *expected, "{what}");
        // What is prefetched ends where the landmark's payload begins.
        let size = layer.prefetch_size().expect("a landmark");
        let mut marked = false;
        for (path, _, spans) in layer.files().expect("sound") {
            marked |= landmark::is_ours(&path);
            assert!(spans.iter().all(|s| if marked { s.member >= size } else { s.end <= size }), "{what}: {path}");
        }
    }
}

/// What an earlier conversion put into an archive belongs to no image; below the root the same names do.
#[test]
fn landmarks_and_a_toc_in_the_source_are_not_taken_over() {
    let kept = ["d/", "d/.prefetch.landmark", "d/stargz.index.json", "d/a"];
    let layer_of = |first: &str| {
        [
            Item::file(first, "no landmark, by its content"),
            Item::dir("d"),
            Item::file("./stargz.index.json", "no TOC"),
            Item::file("d/.prefetch.landmark", "k"),
            Item::file("d/stargz.index.json", "k"),
            Item::file("d/a", bytes(1500, 1)),
            Item::file("/.no.prefetch.landmark", b"\x0f"),
            Item::symlink(".prefetch.landmark", "d"),
        ]
    };
    let mark = Digest::of(&[landmark::CONTENT]);
    for first in [".prefetch.landmark", "./.no.prefetch.landmark", "stargz.index.json"] {
        // A layer of nothing else changes nothing.
        let src = image(&[&layer_of(first), &layer_of(first)[..1]]);
        for layout in LAYOUTS {
            let read = ["/.prefetch.landmark", "/stargz.index.json", "/.no.prefetch.landmark", "/d/a"];
            let (dst, report) = converted(&src, layout, &read);
            let layer = open(&blob(&dst, 0)).expect("eStargz");
            let (ours, mut others): (Vec<_>, Vec<_>) =
                layer.toc.entries.iter().filter(|e| e.kind != "chunk").partition(|e| landmark::is_ours(&e.name));
            others.sort_by_key(|e| kept.iter().position(|k| *k == e.name));
            assert_eq!(others.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), kept, "{layout}");
            assert_eq!(ours.len(), 1, "{layout}");
            assert_eq!((ours[0].kind.as_str(), ours[0].size, ours[0].digest), ("reg", 1, Some(mark)), "{layout}");
            assert_eq!(report.layers.iter().filter(|l| l.kind == "estargz").count(), 1, "{layout}");
            assert_eq!(check(None, &dst).paths, kept.len(), "{layout}: they are not shown");
        }
    }
}

/// A link to it would lead to ours, and what lies below it below a file.
#[test]
fn what_hangs_on_a_landmark_of_the_source_is_refused() {
    for name in [".prefetch.landmark", ".no.prefetch.landmark", "stargz.index.json"] {
        let (file, a) = (Item::file(name, "other"), Item::file("a", "a"));
        let link = archive(&[file, Item::hardlink("link", name), a.clone()]);
        let why = "a file of that name is eStargz's own, and made anew with another content";
        refused(link, &format!("hard link \"link\" to {name:?}: {why}"));
        let below = format!("{name}/x");
        let folder = archive(&[Item::dir(name), Item::file(&below, "x"), a.clone()]);
        let why = "which is no folder: an ordinary unpack goes through it, a lazy mount cannot";
        refused(folder, &format!("{below:?} lies below {name:?}, {why}"));
        // A blob of somebody else, in which no folder is listed.
        let (dst, _) = converted(&image(&[&[]]), Layout::Plain, &[]);
        let mark = Item::file(landmark::NO_PREFETCH, [landmark::CONTENT]);
        edit::replace(&dst, 0, edit::foreign(&[mark, Item::file(&below, "x")]));
        let told: Vec<_> = check(None, &dst).problems.into_iter().map(|p| (p.path, p.what)).collect();
        let why = "above it is no folder: an ordinary unpack goes through it, a lazy mount cannot";
        assert_eq!(told, [(below, format!("{name:?} {why}"))]);
    }
}

/// Such as `git archive` writes: the commit.
#[test]
fn a_global_header_that_only_comments_is_carried() {
    let global = retyped(&Item::file("pax_global_header", "30 comment=0123456789abcdef01\n"), b'g');
    let (a, b) = (Item::file("a", "a"), Item::file("b", "b"));
    let src = Memory::of(&[[&global[..], &archive(&[a.clone(), b])].concat()]);
    for layout in LAYOUTS {
        let (dst, _) = converted(&src, layout, &["/b", "/a"]);
        let tar = edit::inflate(&blob(&dst, 0)).expect("gzip");
        let with_its_entry = [&global[..], &header(&a)].concat();
        assert_eq!(tar.windows(with_its_entry.len()).filter(|w| *w == with_its_entry).count(), 1, "{layout}");
    }
    // Nothing has to follow it.
    let (a, alone) = (Item::file("a", "a"), [&global[..], &END].concat());
    for tar in [alone.clone(), [retyped(&a, b'0'), alone].concat()] {
        converted(&Memory::of(&[tar]), Layout::Plain, &[]);
    }
}

#[test]
fn global_headers_that_say_more_and_sparse_files_are_refused_where_they_stand() {
    let a = Item::file("a", "a");
    let behind = |raw: Vec<u8>| [retyped(&a, b'0'), raw, archive(&[Item::file("b", "b")])].concat();
    let global = |records: &str| behind(retyped(&Item::file("pax_global_header", records), b'g'));
    let changes = "tar header at byte 1024: a PAX global header that changes later entries is not supported";
    refused(global("20 mtime=1600000000\n"), changes);
    refused(global("30 comment=0123456789abcdef01\n12 gname=me\n"), changes);
    refused(global("12 gname=me"), "tar header at byte 1024: a PAX record of 12 bytes ends behind its header");
    let sparse = "it is stored sparse, which is not supported: re-create the layer without sparse files";
    let old = retyped(&Item::file("d/holes", bytes(600, 1)), b'S');
    refused(behind(old), &format!("tar entry \"d/holes\" at byte 1024: {sparse}"));
    // The header of the entry itself stands behind the two blocks of its records.
    for record in ["GNU.sparse.numblocks", "GNU.sparse.map", "GNU.sparse.major"] {
        let new = retyped(&Item::file("d/holes", "x").pax(record, "1"), b'x');
        refused(behind(new), &format!("tar entry \"d/holes\" at byte 2048: {sparse}"));
    }
}

/// The snapshotter shows the folder's own attributes beside the one that says opaque.
#[test]
fn whiteouts_keep_their_attributes_and_their_siblings() {
    let lower = [
        Item::dir("w"),
        Item::file("w/old", "o"),
        Item::dir("v"),
        Item::file("v/gone", "g"),
        Item::file("v/both", "old"),
        Item::file("v/stays", "s"),
    ];
    let upper = [
        Item::dir("w").pax("SCHILY.xattr.user.x", "1"),
        Item::file("w/.wh..wh..opq", "").pax("SCHILY.xattr.user.y", "2"),
        Item::file("w/new", "n"),
        Item::dir("v"),
        Item::file("v/.wh.gone", ""),
        Item::file("v/.wh.both", ""),
        Item::file("v/both", "new"),
    ];
    let src = image(&[&lower, &upper]);
    for layout in LAYOUTS {
        let (dst, _) = converted(&src, layout, &["/w/new", "/v/both"]);
        let layer = open(&blob(&dst, 1)).expect("eStargz");
        let names = listed(&layer);
        let has = |name: &str| names.iter().filter(|n| **n == name).count();
        for name in ["w/", "w/.wh..wh..opq", "w/new", "v/", "v/.wh.gone", "v/.wh.both", "v/both"] {
            assert_eq!(has(name), 1, "{layout}: {name}");
        }
        let xattrs = |name: &str| {
            let entry = layer.toc.entries.iter().find(|e| e.name == name).expect("listed");
            entry.xattrs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>()
        };
        assert_eq!((xattrs("w/"), xattrs("w/.wh..wh..opq")), (vec!["user.x=MQ==".into()], vec!["user.y=Mg==".into()]));
        // w, w/new, v, v/both, v/stays.
        assert_eq!(check(None, &dst).paths, 5, "{layout}");
    }
}

#[test]
fn names_of_one_content_are_counted_through_chains_of_links() {
    let tree = |last: Item| {
        [
            Item::file("a", "content"),
            Item::hardlink("b", "./a"),
            Item::hardlink("c", "x/../b"),
            last,
            Item::symlink("s", "a"),
            Item::hardlink("t", "s"),
        ]
    };
    let src = image(&[&tree(Item::hardlink("e", "/c"))]);
    for layout in LAYOUTS {
        let (dst, _) = converted(&src, layout, &["/e"]);
        let layer = open(&blob(&dst, 0)).expect("eStargz");
        let links: Vec<(&str, &str)> = layer
            .toc
            .entries
            .iter()
            .filter(|e| e.kind == "hardlink")
            .map(|e| (e.name.as_str(), e.link_name.as_str()))
            .collect();
        assert_eq!(links, [("b", "a"), ("c", "b"), ("e", "c"), ("t", "s")], "{layout}");
        let report = check(None, &dst);
        assert_eq!((report.paths, report.files, report.bytes), (6, 1, 7), "{layout}");
    }
    // One name less, which only their number tells of the others.
    let (dst, _) = converted(&image(&[&tree(Item::file("e", "content"))]), Layout::Plain, &[]);
    let report = check(Some(&src), &dst);
    let told: Vec<String> =
        report.problems.iter().filter(|p| !p.path.is_empty()).map(|p| format!("{}: {}", p.path, p.what)).collect();
    let expected = [
        "a: number of names 3: expected 4",
        "b: number of names 3: expected 4",
        "c: number of names 3: expected 4",
        "e: shares its content with \"e\": expected \"a\"",
        "e: number of names 1: expected 4",
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_toc_of_a_hundred_thousand_entries_is_written_and_read() {
    let count = 100_000_u64;
    let mut writer = Writer::create(Format::Estargz, Level::FAST, Vec::new());
    writer.landmark(false).expect("memory");
    let entry = |name: &str, kind, size| Entry {
        raw: regular_header(name, size, 0).to_vec(),
        size,
        ..Entry::bare(name.trim_end_matches('/'), kind)
    };
    for n in 0..count {
        // With its slash an old archiver's folder.
        writer.entry(&entry(&format!("{n}/"), Kind::Dir, 0)).expect("memory");
    }
    let raw = b"behind all of them".to_vec();
    let member = gzip::Encoder::new(Level::FAST).member(&raw);
    let member = Member::made(raw.clone(), member, &mut Decoder::default()).expect("just made");
    writer.begin(&entry("last", Kind::File, raw.len() as u64)).expect("memory");
    writer.chunk(&member, None).expect("memory");
    writer.end(member.digest()).expect("all of it");
    let (blob, summary) = writer.finish().expect("memory");
    let layer = open(&blob).expect("eStargz");
    assert_eq!((layer.toc_digest, layer.toc.entries.len() as u64), (summary.toc_digest, count + 2));
    assert_eq!(layer.problems(), []);
    let (last, names) = layer.toc.entries.split_last().expect("many");
    assert!(names[1..].iter().zip(0..count).all(|(e, n)| e.name == format!("{n}/")));
    let at = |n: u64| usize::try_from(n).expect("small");
    let files = layer.files().expect("sound");
    let (path, _, spans) = files.last().expect("many");
    let [from, to] = [spans[0].member, spans[0].end].map(at);
    assert_eq!((path.as_str(), layer.chunk(path, &spans[0], &blob[from..to]).expect("its content")), ("last", raw));
    // Headers are cut into members of a mebibyte; the last ones stand directly in front of the payload.
    let (starts, held): (Vec<u64>, Vec<usize>) = members(&blob).into_iter().map(|(at, raw)| (at, raw.len())).unzip();
    let payload = starts.iter().position(|at| *at == last.offset).expect("a member");
    let headers = &held[2..payload];
    assert_eq!(headers.iter().sum::<usize>() as u64, 511 + (count + 1) * 512);
    assert!(headers.iter().all(|n| *n < (1 << 20) + 512) && headers.len() == 49, "{headers:?}");
}
