//! {truncate, flip, drop, swap} × {footer, TOC, chunk, landmark, header, manifest, config}: always told, never a panic.

use std::ops::Range;

use serde_json::{Value, json};

use super::edit::{blob, inflate, layer, open, replace};
use super::*;
use crate::image::names;
use crate::store::Images;

fn source() -> Memory {
    image(&[
        &[Item::dir("d"), Item::file("d/a", bytes(3500, 1)), Item::file("d/b", bytes(200, 2))],
        &[Item::dir("d"), Item::file("d/c", bytes(900, 4)).mode(0o600)],
    ])
}

/// The parts of the lowest layer's blob.
fn parts(blob: &[u8]) -> Vec<(&'static str, Range<usize>)> {
    let layer = open(blob).expect("eStargz");
    let at = |n: u64| usize::try_from(n).expect("small");
    let end = at(layer.toc_offset);
    let offset = |name: &str, nth: usize| {
        at(layer.toc.entries.iter().filter(|e| e.name == name).nth(nth).expect("listed").offset)
    };
    let mark = offset(".prefetch.landmark", 0);
    vec![
        ("footer", blob.len() - 51..blob.len()),
        ("TOC", end..blob.len() - 51),
        ("chunk", offset("d/a", 1)..offset("d/a", 2)),
        ("last chunk", offset("d/a", 3)..end),
        ("landmark", mark..mark + 21),
        ("header", 0..offset("d/b", 0)),
    ]
}

/// The blob with each damage done to a part of it.
fn damaged(blob: &[u8], part: &Range<usize>) -> Vec<(String, Vec<u8>)> {
    let (before, inside, after) = (&blob[..part.start], &blob[part.clone()], &blob[part.end..]);
    let half = inside.len() / 2;
    let mut out = vec![
        ("truncate".to_owned(), blob[..part.start + half].to_vec()),
        ("truncate in front".into(), before.to_vec()),
        ("drop".into(), [before, after].concat()),
        ("drop half".into(), [before, &inside[half..], after].concat()),
        ("swap".into(), [before, &inside[half..], &inside[..half], after].concat()),
        ("swap with what follows".into(), [before, after, inside].concat()),
    ];
    // Every byte of the small parts.
    for at in part.clone().step_by(inside.len().div_ceil(60)) {
        for bit in [0x01, 0x80] {
            let mut flipped = blob.to_vec();
            flipped[at] ^= bit;
            out.push((format!("flip {bit:#x} of byte {}", at - part.start), flipped));
        }
    }
    out.retain(|(_, b)| b != blob);
    out
}

#[test]
fn every_damage_of_a_blob_is_told() {
    let src = source();
    let (dst, _) = converted(&src, Layout::Landmark, &["/d/b"]);
    let digest = layer(&dst, 0).digest;
    let good = blob(&dst, 0);
    let mut done = 0;
    for (part, range) in parts(&good) {
        for (how, bad) in damaged(&good, &range) {
            dst.damage(&digest, bad);
            assert_ne!(check(Some(&src), &dst).problems, [], "{part}: {how}");
            assert_ne!(check(None, &dst).problems, [], "{part}: {how}");
            done += 1;
        }
        dst.damage(&digest, good.clone());
    }
    assert!(done > 300, "{done} damages");
    assert_eq!(check(Some(&src), &dst).problems, []);
}

/// The same with a descriptor that agrees with the damage, as after a faulty disk under a builder: only what it
/// decompresses to may still be right.
#[test]
fn damage_under_right_digests_is_told_unless_it_changes_nothing() {
    let src = source();
    let (good_image, _) = converted(&src, Layout::Landmark, &["/d/b"]);
    let good = blob(&good_image, 0);
    let tar = inflate(&good);
    for (part, range) in parts(&good) {
        for (how, bad) in damaged(&good, &range) {
            let dst = Memory::default();
            convert(&src, &dst, Some(&profile(&["/d/b"])), &options(Layout::Landmark), &Silent).expect("converted");
            let same = inflate(&bad) == tar;
            if inflate(&bad).is_some() {
                replace(&dst, 0, bad);
            } else {
                let new = dst.add(names::LAYER_GZIP, bad);
                dst.edit_manifest(|m| {
                    m["layers"][0]["digest"] = new.digest.to_string().into();
                    m["layers"][0]["size"] = new.size.into();
                });
            }
            let report = check(Some(&src), &dst);
            assert!(same || !report.problems.is_empty(), "{part}: {how}");
        }
    }
}

type Edit = fn(&mut Value);

fn annotation<'a>(m: &'a mut Value, layer: usize, key: &str) -> &'a mut Value {
    &mut m["layers"][layer]["annotations"][key]
}

fn both(m: &mut Value, key: &str) {
    let a = annotation(m, 0, key).take();
    let b = annotation(m, 1, key).take();
    (*annotation(m, 0, key), *annotation(m, 1, key)) = (b, a);
}

fn drop_annotation(m: &mut Value, key: &str) {
    m["layers"][0]["annotations"].as_object_mut().expect("ours").remove(key);
}

fn cut(v: &mut Value) {
    let s = v.as_str().expect("text");
    *v = s[..s.len() - 1].into();
}

fn flip(v: &mut Value) {
    let s = v.as_str().expect("text");
    let last = if s.ends_with('0') { "1" } else { "0" };
    *v = format!("{}{last}", &s[..s.len() - 1]).into();
}

#[test]
fn every_damage_of_the_manifest_is_told() {
    let src = source();
    let cases: &[(&str, Edit)] = &[
        ("truncate TOC digest", |m| cut(annotation(m, 0, names::TOC_DIGEST))),
        ("flip TOC digest", |m| flip(annotation(m, 0, names::TOC_DIGEST))),
        ("drop TOC digest", |m| drop_annotation(m, names::TOC_DIGEST)),
        ("swap TOC digests", |m| both(m, names::TOC_DIGEST)),
        ("truncate size", |m| cut(annotation(m, 0, names::UNCOMPRESSED_SIZE))),
        ("flip size", |m| flip(annotation(m, 0, names::UNCOMPRESSED_SIZE))),
        ("drop size", |m| drop_annotation(m, names::UNCOMPRESSED_SIZE)),
        ("swap sizes", |m| both(m, names::UNCOMPRESSED_SIZE)),
        ("flip source", |m| flip(annotation(m, 0, names::LAYER_SOURCE))),
        ("swap sources", |m| both(m, names::LAYER_SOURCE)),
        ("drop all", |m| drop(m["layers"][0]["annotations"].take())),
        ("swap layers", |m| m["layers"].as_array_mut().expect("layers").swap(0, 1)),
        ("one layer twice", |m| m["layers"][1] = m["layers"][0].clone()),
        ("flip size of a layer", |m| m["layers"][0]["size"] = 1.into()),
        ("media type of the manifest", |m| m["mediaType"] = names::DOCKER_MANIFEST.into()),
        ("media type of the config", |m| m["config"]["mediaType"] = names::DOCKER_CONFIG.into()),
        ("media type of a layer", |m| m["layers"][1]["mediaType"] = names::LAYER_TAR.into()),
        ("unknown media type", |m| m["layers"][1]["mediaType"] = "x/y".into()),
        ("a hot layer below", |m| *annotation(m, 0, names::LAYER_KIND) = "hot".into()),
    ];
    for (name, edit) in cases {
        let (dst, _) = converted(&src, Layout::Plain, &[]);
        dst.edit_manifest(edit);
        assert_ne!(check(Some(&src), &dst).problems, [], "{name}");
    }
}

#[test]
fn every_damage_of_the_config_is_told() {
    let src = source();
    let cases: &[(&str, Edit)] = &[
        ("swap diffIDs", |c| c["rootfs"]["diff_ids"].as_array_mut().expect("list").swap(0, 1)),
        ("flip a diffID", |c| c["rootfs"]["diff_ids"][0] = Digest::of(b"").to_string().into()),
        ("drop the command", |c| drop(c["config"].as_object_mut().expect("config").remove("Cmd"))),
        ("another command", |c| c["config"]["Cmd"] = json!(["y"])),
        ("another architecture", |c| c["architecture"] = "arm64".into()),
        ("something more", |c| c["author"] = "x".into()),
    ];
    for (name, edit) in cases {
        let (dst, _) = converted(&src, Layout::Plain, &[]);
        let mut config = dst.image("").expect("an image").config.raw;
        edit(&mut config);
        let config = dst.add(names::CONFIG, config.to_string().into_bytes());
        dst.edit_manifest(|m| m["config"] = config.to_json());
        assert_ne!(check(Some(&src), &dst).problems, [], "{name}");
    }
}

#[test]
fn a_damaged_source_is_an_error_that_names_the_layer() {
    let src = source();
    let (dst, _) = converted(&src, Layout::Plain, &[]);
    let digest = layer(&src, 1).digest;
    let mut bad = src.bytes(&digest);
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    src.damage(&digest, bad);
    let options = Options { platform: "linux/amd64".into(), jobs: NonZeroUsize::MIN };
    let e = verify(Some(&src), &dst, &options, &Silent).map(|_| ()).expect_err("unreadable");
    assert!(e.to_string().contains("layer 1 (sha256:"), "{e}");
}

/// One chunk reached the other threads by then; what they make of half a file is not the cause.
#[test]
fn a_source_that_ends_inside_a_file_is_the_error() {
    let tar = archive(&[Item::file("big", bytes(50_000, 1))]);
    let cut = tar[..2_000].to_vec();
    let src = Memory::image_of(&[(names::LAYER_TAR, cut.clone(), cut)]);
    for layout in [Layout::Plain, Layout::Landmark] {
        let p = profile(&["/big"]);
        let profile = layout.needs_profile().then_some(&p);
        let error = convert(&src, &Memory::default(), profile, &options(layout), &Silent).expect_err("cut off");
        let convert::Error::Layer { source, .. } = error else { panic!("{error:?}") };
        let convert::LayerError::Io { doing, source } = *source else { panic!("{source:?}") };
        assert_eq!((doing.as_str(), source.kind()), ("reading \"big\"", std::io::ErrorKind::UnexpectedEof), "{layout}");
    }
}
