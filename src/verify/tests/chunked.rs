//! zstd:chunked layers.

use zstd::stream::decode_all;

use super::edit::{blob, layer, open};
use super::*;
use crate::image::names;
use crate::store::Images;
use crate::tar::Reader;

const LAYOUTS: [Layout; 4] = [Layout::Plain, Layout::Landmark, Layout::Hot, Layout::HotLandmark];

fn chunked(layout: Layout) -> convert::Options {
    convert::Options { format: Format::ZstdChunked, adaptive: false, level: Level::ZSTD, ..options(layout) }
}

fn source() -> Memory {
    let lower = [
        Item::dir("d"),
        Item::file("d/a", bytes(3500, 1)).pax("SCHILY.xattr.user.x", b"\xff"),
        Item::file("d/b", bytes(200, 2)),
        Item::file("d/empty", ""),
        Item::hardlink("d/link", "d/b"),
    ];
    image(&[
        &lower,
        &[Item::dir("d"), Item::file("d/c", bytes(900, 4)), Item::file("d/.wh.a", ""), Item::symlink("s", "d")],
    ])
}

fn run(src: &Memory, options: &convert::Options) -> (Memory, convert::Report) {
    let dst = Memory::default();
    let profile = (options.layout != Layout::Plain).then(|| profile(&["/d/link", "/d/c"]));
    let report = convert(src, &dst, profile.as_ref(), options, &Silent).expect("converted");
    assert_eq!(check(Some(src), &dst).problems, [], "{}", options.layout);
    assert_eq!(check(None, &dst).problems, [], "{}", options.layout);
    (dst, report)
}

#[test]
fn every_layout_is_equal_to_its_source_with_and_without_shared_frames() {
    let src = source();
    for (layout, min_chunk_size) in LAYOUTS.into_iter().flat_map(|l| [0, 600].map(|min| (l, min))) {
        let with = |jobs| convert::Options {
            jobs: NonZeroUsize::new(jobs).expect("some"),
            min_chunk_size,
            chunk_size: if min_chunk_size > 0 { 4096 } else { 1000 },
            ..chunked(layout)
        };
        let (dst, report) = run(&src, &with(1));
        assert_eq!(run(&src, &with(3)).1.digest, report.digest, "{layout}");
        assert_eq!(report.layers[0].kind, "zstd:chunked");
        assert_eq!(layer(&dst, 0).media_type, names::LAYER_ZSTD);
        // What is there is taken over, and another format takes over nothing.
        let profile = (layout != Layout::Plain).then(|| profile(&["/d/link", "/d/c"]));
        let again =
            |options: convert::Options| convert(&src, &dst, profile.as_ref(), &options, &Silent).expect("converted");
        assert!(again(with(2)).unchanged, "{layout}");
        let gzip = again(convert::Options { format: Format::Estargz, ..with(2) });
        assert!(!gzip.unchanged && gzip.layers.iter().filter(|l| l.kind == "estargz").all(|l| !l.reused), "{layout}");
    }
}

#[test]
fn a_decoder_that_knows_nothing_of_it_sees_an_archive() {
    let (dst, report) = run(&source(), &chunked(Layout::Landmark));
    let blob = blob(&dst, 0);
    let tar = decode_all(&blob[..]).expect("zstd");
    assert_eq!(Digest::of(&tar), dst.image("").expect("an image").config.diff_ids[0]);
    assert_eq!(tar.len() as u64, report.layers[0].uncompressed_size);
    assert!(tar.ends_with(&crate::tar::END));
    let mut archive = Reader::new(&tar[..]);
    let mut names = Vec::new();
    while let Some(entry) = archive.next().expect("a tar") {
        names.push(entry.path);
    }
    assert_eq!(names, ["d", "d/b", "d/link", ".prefetch.landmark", "d/a", "d/empty"]);
    // Every chunk by itself.
    let layer = open(&blob).expect("zstd:chunked");
    let at = |n: u64| usize::try_from(n).expect("small");
    for (path, _, spans) in layer.files().expect("sound") {
        for span in spans {
            layer.chunk(&path, &span, &blob[at(span.member)..at(span.end)]).expect("right");
        }
    }
}

#[test]
fn it_is_converted_again_like_any_other() {
    let src = source();
    let (dst, _) = run(&src, &chunked(Layout::Plain));
    let (back, _) = run(&dst, &options(Layout::Plain));
    let (straight, _) = run(&src, &options(Layout::Plain));
    assert_eq!(blob(&back, 0), blob(&straight, 0));
    let annotations = layer(&back, 0).annotations;
    assert!(!annotations.iter().any(|(key, _)| key.contains("zstd-chunked")), "{annotations:?}");
}

#[test]
fn every_damage_is_told() {
    let src = source();
    let (dst, _) = run(&src, &chunked(Layout::Landmark));
    let (digest, good) = (layer(&dst, 0).digest, blob(&dst, 0));
    let whole = open(&good).expect("zstd:chunked");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x81;
        let cut = good[..at].to_vec();
        for bad in [bad, cut] {
            // The reader alone: the same TOC or an error.
            if let Ok(layer) = open(&bad) {
                assert_eq!(layer.toc_digest, whole.toc_digest, "byte {at}");
            }
            if at % 7 == 0 {
                dst.damage(&digest, bad);
                assert_ne!(check(Some(&src), &dst).problems, [], "byte {at}");
            }
        }
    }
    dst.damage(&digest, good);
    for key in [names::TOC_DIGEST, names::UNCOMPRESSED_SIZE, names::CHUNKED_CHECKSUM, names::CHUNKED_POSITION] {
        for value in [Some("1"), None] {
            let (dst, _) = run(&src, &chunked(Layout::Plain));
            dst.edit_manifest(|m| match value {
                Some(v) => m["layers"][0]["annotations"][key] = v.into(),
                None => drop(m["layers"][0]["annotations"].as_object_mut().expect("ours").remove(key)),
            });
            assert!(said(&check(None, &dst), key), "{key} {value:?}");
        }
    }
    // A layer of the one format under the other's media type.
    dst.edit_manifest(|m| m["layers"][0]["mediaType"] = names::LAYER_GZIP.into());
    assert!(said(&check(None, &dst), "it ends as zstd:chunked has it: expected estargz by its media type"));
}

/// Changes only when the encoder does (libzstd, our version, TOC, manifest).
#[test]
fn the_manifest_digest_is_pinned() {
    let tar = archive(&[Item::dir("d"), Item::file("d/a", bytes(3500, 1)), Item::file("d/b", bytes(200, 2))]);
    // Uncompressed, so that the source's digests depend on no compressor.
    let src = Memory::image_of(&[(names::LAYER_TAR, tar.clone(), tar)]);
    let (_, report) = run(&src, &chunked(Layout::Plain));
    assert_eq!(report.digest.to_string(), "sha256:fe00036b438d272f506760c3605896f102164c61aba48239dfa2cd60fd108c26");
}
