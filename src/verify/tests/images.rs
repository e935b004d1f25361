//! Every shape of image comes out equal.

use super::*;
use crate::image::names;
use crate::store::Images;

/// One layer with one of everything.
pub(super) fn everything() -> Vec<Item> {
    let long = format!("d/{}", "long-name/".repeat(12));
    vec![
        Item::dir("./"),
        Item::dir("./d/"),
        Item::file("./d/empty", ""),
        Item::file("./d/chunked", bytes(4321, 1)).owner(1000, 1000, "user", "staff"),
        Item::file("d/exact", bytes(2000, 2)).mode(0o4755),
        Item::file("/d/absolute", "x").mode(0o2711).mtime(0),
        Item::file("missing/parents/file", "y").mode(0o1644),
        Item::hardlink("d/link", "./d/chunked").owner(1000, 1000, "user", "staff"),
        Item::hardlink("d/link2", "d/link"),
        Item::symlink("d/sym", "../d//chunked/"),
        Item::special("d/null", b'3', (1, 3)),
        Item::special("d/disk", b'4', (8, 1)),
        Item::special("d/pipe", b'6', (0, 0)),
        Item::file("d/attributes", "a").pax("SCHILY.xattr.user.text", "v").pax("SCHILY.xattr.user.bin", b"\0\xff\n="),
        Item::file("d/fraction", "f").pax("mtime", "1600000000.999999999"),
        Item::file("d/before", "f").pax("mtime", "-1.5"),
        Item::file(&format!("{long}pax"), "p"),
        Item::file(&format!("{long}gnu"), "g").gnu(),
        Item::hardlink("d/link to a symlink", "d/sym"),
        Item::hardlink("d/link to a pipe", "d/pipe"),
        Item::symlink("d/longlink", &long).gnu(),
        Item::symlink("d/longlink2", &long),
        Item::file("d/twice", "old"),
        Item::file("d/twice", bytes(1500, 3)),
        Item::file("d/häßlich \u{1f4a9} <&>\n", "u"),
    ]
}

pub(super) fn upper() -> Vec<Item> {
    vec![
        Item::dir("d"),
        Item::file("d/.wh.null", ""),
        Item::file("d/exact", "changed"),
        Item::dir("w"),
        Item::file("w/.wh..wh..opq", ""),
        Item::file("w/new", "n"),
        Item::file(".wh.gone", ""),
    ]
}

const PROFILE: &[&str] = &[
    "/d/link2",
    "/d/exact",
    "/missing/parents/file",
    "/d/häßlich \u{1f4a9} <&>\n",
    "/d/twice",
    "/w/new",
    "/not/there",
];

#[test]
fn small_images_of_every_shape() {
    let shapes: Vec<Vec<Vec<Item>>> = vec![
        vec![],
        vec![vec![]],
        vec![vec![Item::dir("a"), Item::dir("a/b")]],
        vec![vec![Item::file("a", ""), Item::file("b", "")]],
        vec![
            vec![Item::dir("gone"), Item::file("gone/x", "x"), Item::dir("w"), Item::file("w/old", "o")],
            everything(),
            upper(),
        ],
        vec![everything(), vec![], upper(), everything()],
    ];
    for shape in shapes {
        let src = image(&shape.iter().map(Vec::as_slice).collect::<Vec<_>>());
        for layout in LAYOUTS {
            for hot_layer in [HotLayer::Copy, HotLayer::Move] {
                let (dst, report) = converted_with(&src, &convert::Options { hot_layer, ..options(layout) }, PROFILE);
                assert_eq!(digest_of(&dst), report.digest);
                // In itself too, and converted once more.
                assert_eq!(check(None, &dst).problems, []);
                let (again, _) = converted(&dst, Layout::Landmark, PROFILE);
                let known = ["annotation", "the source has", "history"];
                let problems = check(Some(&src), &again).problems;
                assert_eq!(problems.iter().find(|p| !known.iter().any(|k| p.what.contains(k))), None, "{layout}");
            }
        }
    }
}

#[test]
fn the_bytes_do_not_depend_on_the_threads() {
    let src = image(&[&everything(), &upper(), &[Item::file("big", bytes(100_000, 7))]]);
    for layout in LAYOUTS {
        let digests: Vec<Digest> = [1, 2, 8]
            .map(|jobs| {
                let options = convert::Options { jobs: NonZeroUsize::new(jobs).expect("some"), ..options(layout) };
                let profile = layout.needs_profile().then(|| profile(PROFILE));
                convert(&src, &Memory::default(), profile.as_ref(), &options, &Silent).expect("converted").digest
            })
            .into();
        assert!(digests.iter().all(|d| *d == digests[0]), "{digests:?}");
    }
}

/// Without prioritized files the landmark layout is the plain one, which is finished while the source is read; the other is
/// put together from the spool.
#[test]
fn a_layer_that_is_finished_on_the_way_is_the_one_put_together_later() {
    let src = image(&[&everything(), &upper(), &[Item::file("big", bytes(100_000, 7))]]);
    let digests = |layout| -> Vec<Digest> {
        let (_, report) = converted(&src, layout, &["/not/there"]);
        report.layers.iter().map(|l| l.digest).collect()
    };
    assert_eq!(digests(Layout::Plain), digests(Layout::Landmark));
}

/// Changes only when the encoder does (libdeflate, our version, TOC, manifest): then so do the digests in every registry.
#[test]
fn the_manifest_digest_is_pinned() {
    let lower = [
        Item::dir("d"),
        Item::file("d/chunked", bytes(4321, 1)).owner(1000, 1000, "user", "staff"),
        Item::file("d/exact", bytes(2000, 2)).mode(0o4755),
        Item::hardlink("d/link", "d/chunked"),
        Item::file("d/fraction", "f").pax("mtime", "1600000000.5").pax("SCHILY.xattr.user.x", b"\xff"),
        Item::special("d/null", b'3', (1, 3)),
    ];
    let upper = [Item::dir("d"), Item::file("d/.wh.null", ""), Item::symlink("s", "d")];
    // Uncompressed, so that the source's digests depend on no compressor.
    let tars = [archive(&lower), archive(&upper)].map(|tar| (names::LAYER_TAR, tar.clone(), tar));
    let (_, report) = converted(&Memory::image_of(&tars), Layout::Landmark, &["/d/link", "/d/exact"]);
    assert_eq!(report.digest.to_string(), "sha256:4a1f9d2b2667f25cddc82f08796c1557ee0cadd6882d13bbf11a5951c1e7db50");
}

#[test]
fn layers_of_every_compression() {
    let tar = archive(&everything());
    let zstd = zstd::encode_all(&tar[..], 3).expect("memory");
    let layers = [(names::LAYER_ZSTD, zstd, tar.clone()), (names::LAYER_TAR, tar.clone(), tar.clone())];
    let src = Memory::image_of(&layers);
    converted(&src, Layout::Landmark, PROFILE);
    converted(&src, Layout::Hot, PROFILE);
}

#[test]
fn an_archive_without_its_end_is_an_archive() {
    let mut tar = archive(&everything());
    tar.truncate(tar.len() - 1024);
    converted(&Memory::of(&[tar]), Layout::Plain, &[]);
}

#[test]
fn prioritized_files_stand_before_the_landmark_and_its_prefetch_ends_there() {
    let src = image(&[&[
        Item::dir("d"),
        Item::file("d/a", bytes(3000, 1)),
        Item::file("d/b", bytes(50, 2)),
        Item::hardlink("d/c", "d/b"),
    ]]);
    let (dst, report) = converted(&src, Layout::Landmark, &["/d/c"]);
    let image = dst.image("").expect("an image");
    let layer =
        super::super::open_toc(&dst, &image.manifest.layers[0]).expect("there").expect("gzip").expect("eStargz");
    let names: Vec<&str> = layer.toc.entries.iter().filter(|e| e.kind != "chunk").map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["d/", "d/b", "d/c", ".prefetch.landmark", "d/a"]);
    assert_eq!(layer.prefetch_size(), report.layers[0].prefetch_size);
    let (_, plain) = converted(&src, Layout::Plain, &[]);
    assert_eq!(plain.layers[0].prefetch_size, Some(0));
}

#[test]
fn the_hot_layer_has_whole_link_sets_and_never_a_file_of_a_lower_layer_that_was_changed() {
    let lower = [
        Item::dir("d"),
        Item::file("d/a", "old"),
        Item::file("d/b", "b"),
        Item::hardlink("d/c", "d/b"),
        Item::file("d/set", "s"),
        Item::hardlink("d/broken", "d/set"),
        Item::file("d/gone", "g"),
        Item::dir("e"),
        Item::file("e/x", "x"),
    ];
    let upper = [
        Item::dir("d"),
        Item::file("d/a", "new"),
        Item::file("d/broken", "own"),
        Item::file("d/.wh.gone", ""),
        Item::file(".wh.e", ""),
    ];
    let src = image(&[&lower, &upper]);
    let (dst, report) = converted(&src, Layout::Hot, &["/d/a", "/d/c", "/d/set", "/d/gone", "/e/x"]);
    let hot = report.layers.last().expect("layers");
    assert_eq!(hot.kind, "hot");
    let blob = dst.bytes(&hot.digest);
    let mut tar = crate::tar::Reader::new(zstd::Decoder::new(&blob[..]).expect("zstd"));
    let mut names = Vec::new();
    while let Some(e) = tar.next().expect("a tar") {
        names.push(e.path);
    }
    assert_eq!(names, ["d", "d/a", "d/b", "d/c"]);
}
