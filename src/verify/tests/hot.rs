//! What the hot layer holds, and what is left below it.

use super::*;
use crate::image::names;
use crate::store::Images;

const PATHS: &[&str] = &["/d/a", "/d/set", "/big"];

fn source() -> Memory {
    let lower = [
        Item::dir("d").mode(0o750),
        Item::file("d/a", bytes(3000, 1)),
        Item::file("d/b", "b"),
        Item::file("d/set", "s"),
        Item::hardlink("d/other", "d/set"),
        Item::file("d/whole", "old"),
        // Too large for the hot layer.
        Item::file("big", vec![7; 17 << 20]),
        Item::file("small", "t"),
    ];
    image(&[&lower, &[Item::dir("d").mode(0o750), Item::file("d/a", "new")]])
}

fn names_of(dst: &Memory, layer: usize) -> Vec<String> {
    let descriptor = dst.image("").expect("an image").manifest.layers[layer].clone();
    let (blob, mut tar) = (dst.bytes(&descriptor.digest), Vec::new());
    let read = if descriptor.media_type == names::LAYER_ZSTD {
        zstd::stream::copy_decode(&blob[..], &mut tar).map(|()| 0)
    } else {
        std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&blob[..]), &mut tar)
    };
    read.expect("a layer");
    let mut reader = crate::tar::Reader::new(&tar[..]);
    let mut names = Vec::new();
    while let Some(entry) = reader.next().expect("an archive") {
        names.push(entry.path.clone());
    }
    names
}

fn options_of(layout: Layout, hot_layer: HotLayer) -> convert::Options {
    convert::Options { hot_layer, chunk_size: 1 << 20, ..options(layout) }
}

#[test]
fn with_a_landmark_only_what_the_hot_layer_has_not_is_prefetched() {
    let (dst, report) = converted_with(&source(), &options_of(Layout::HotLandmark, HotLayer::Copy), PATHS);
    assert_eq!(names_of(&dst, 2), ["d", "d/a", "d/set", "d/other"]);
    assert_eq!(names_of(&dst, 0)[..2], ["big", ".prefetch.landmark"]);
    assert_eq!(names_of(&dst, 1)[0], ".no.prefetch.landmark");
    assert!(report.layers[0].prefetch_size > Some(0));
    assert_eq!(dst.image("").expect("an image").manifest.raw["annotations"][names::LAYOUT], "hot+landmark");
}

#[test]
fn it_can_be_gzip() {
    let options = convert::Options { hot_codec: convert::HotCodec::Gzip, ..options_of(Layout::Hot, HotLayer::Copy) };
    let (dst, report) = converted_with(&source(), &options, PATHS);
    assert_eq!(names_of(&dst, 2), ["d", "d/a", "d/set", "d/other"]);
    let (zstd, other) = converted_with(&source(), &options_of(Layout::Hot, HotLayer::Copy), PATHS);
    assert_ne!(report.digest, other.digest);
    let images = [dst, zstd].map(|d| d.image("").expect("an image"));
    assert_eq!(images[0].manifest.layers[2].media_type, names::LAYER_GZIP);
    assert_eq!(images[0].config.diff_ids, images[1].config.diff_ids, "it shows the same");
}

#[test]
fn what_is_moved_is_only_there() {
    let src = source();
    let (dst, _) = converted_with(&src, &options_of(Layout::Hot, HotLayer::Move), PATHS);
    assert_eq!(names_of(&dst, 2), ["d", "d/a", "d/set", "d/other"]);
    // The old d/a of the lower layer was never visible and stays.
    let below = names_of(&dst, 0);
    assert_eq!(below, [".no.prefetch.landmark", "d", "d/a", "d/b", "d/whole", "big", "small", "stargz.index.json"]);
    assert_eq!(names_of(&dst, 1), [".no.prefetch.landmark", "d", "stargz.index.json"]);
    let top = dst.image("").expect("an image").manifest.layers[2].clone();
    assert_eq!((top.is_hot(), top.is_copies()), (true, false));
    // Converting it again loses nothing, and does not take it for copies.
    let (again, _) = converted(&dst, Layout::Plain, &[]);
    assert_eq!(again.image("").expect("an image").manifest.layers.len(), 3);
    let (again, _) = converted_with(&dst, &options_of(Layout::Hot, HotLayer::Move), &["/d/b"]);
    assert_eq!(names_of(&again, 3), ["d", "d/b"]);
}

#[test]
fn a_moved_layer_over_others_than_its_own_is_found() {
    let (dst, _) = converted_with(&source(), &options_of(Layout::Hot, HotLayer::Move), PATHS);
    dst.edit_manifest(|m| {
        m["layers"][2]["annotations"][names::LAYER_BELOW] = serde_json::json!(Digest::of(b"others").to_string());
    });
    assert!(said(&check(None, &dst), "made over other layers"));
    // Taken for copies, what it holds alone is found.
    let (dst, _) = converted_with(&source(), &options_of(Layout::Hot, HotLayer::Move), PATHS);
    dst.edit_manifest(|m| {
        m["layers"][2]["annotations"].as_object_mut().expect("annotations").remove(names::LAYER_MOVED);
    });
    assert!(said(&check(None, &dst), "hot layer over changed lower layers"));
}
