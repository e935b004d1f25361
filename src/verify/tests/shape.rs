//! Layers that change nothing are left out, and only those.

use super::*;
use crate::image::names;
use crate::store::{Blobs, Images};

/// Converts and tells which layers of the source were kept, and which of its history entries have a layer.
fn kept(layers: &[&[Item]], options: &convert::Options) -> (Vec<usize>, Vec<bool>, Memory, Memory) {
    let (src, dst) = (image(layers), Memory::default());
    let report = convert(&src, &dst, None, options, &Silent).expect("converted");
    assert_eq!(check(Some(&src), &dst).problems, []);
    let sources: Vec<Digest> = src.image("").expect("an image").manifest.layers.iter().map(|l| l.digest).collect();
    // From the top: of several of a kind the uppermost stay.
    let mut below = sources.len();
    let mut kept: Vec<usize> = Vec::new();
    for layer in report.layers.iter().rev() {
        let digest = layer.source.expect("made from one");
        below = (0..below).rfind(|&i| sources[i] == digest).expect("in order");
        kept.insert(0, below);
    }
    let history = dst.image("").expect("an image").config.raw["history"].clone();
    let history = history.as_array().expect("a list").iter().map(|h| h["empty_layer"] != true).collect();
    (kept, history, src, dst)
}

#[test]
fn empty_and_repeated_layers_are_left_out() {
    let (a, b) = ([Item::dir("d"), Item::file("d/x", "1")], [Item::file("d/x", "2"), Item::file("y", "y")]);
    let plain = options(Layout::Plain);
    let (layers, history, ..) = kept(&[&a, &[], &b, &[], &a], &plain);
    assert_eq!((layers, history), (vec![2, 4], vec![false, false, true, false, true]));
    // The content of the last one counts, wherever the repetition stands.
    assert_eq!(kept(&[&a, &b, &a, &b], &plain).0, [2, 3]);
    assert_eq!(kept(&[&a, &a, &a], &plain).0, [2]);
    assert_eq!(kept(&[&[], &[]], &plain).0, [1], "one layer stays");
    let keep = convert::Options { keep_layers: true, ..plain };
    assert_eq!(kept(&[&a, &[], &a], &keep).1, [true, true, true]);
}

#[test]
fn a_layer_that_was_left_out_for_no_reason_is_a_problem() {
    let (a, b) = ([Item::file("x", "1")], [Item::file("x", "2")]);
    let (_, _, src, dst) = kept(&[&a, &b], &options(Layout::Plain));
    // Without the lower layer nothing that is visible changes.
    let config = dst.image("").expect("an image");
    let mut raw = config.config.raw.clone();
    raw["rootfs"]["diff_ids"].as_array_mut().expect("a list").remove(0);
    let config = dst.add(names::CONFIG, raw.to_string().into_bytes());
    dst.edit_manifest(|m| {
        m["config"] = config.to_json();
        m["layers"].as_array_mut().expect("a list").remove(0);
    });
    let report = check(Some(&src), &dst);
    assert!(said(&report, "layer 0 of the source is left out"), "{:?}", report.problems);
    assert!(dst.has(&config.digest).expect("memory"));
}
