//! What an earlier conversion made is taken over, and never changes a byte of the result.

use super::*;
use crate::image::names;
use crate::store::{Blobs, Images};

fn base() -> Vec<Item> {
    vec![Item::dir("d"), Item::file("d/a", bytes(90, 1)), Item::file("d/b", bytes(5000, 2)), Item::file("d/c", "c")]
}

fn top(version: u8) -> Vec<Item> {
    vec![Item::dir("d"), Item::file("d/a", bytes(100, version)), Item::file("d/.wh.c", ""), Item::file("new", "n")]
}

fn run(src: &Memory, dst: &Memory, layout: Layout, paths: &[&str], options: &convert::Options) -> convert::Report {
    let profile = layout.needs_profile().then(|| profile(paths));
    let report = convert(src, dst, profile.as_ref(), options, &Silent).expect("converted");
    assert_eq!(check(Some(src), dst).problems, [], "{layout}");
    // The same image as one that was made from nothing.
    let fresh = Memory::default();
    let digest = convert(src, &fresh, profile.as_ref(), options, &Silent).expect("converted").digest;
    if options.journal.is_none() {
        assert_eq!(report.digest, digest, "{layout}");
    }
    report
}

fn reused(report: &convert::Report) -> Vec<bool> {
    report.layers.iter().map(|l| l.reused).collect()
}

#[test]
fn the_same_conversion_again_does_nothing() {
    for layout in LAYOUTS {
        let (src, dst) = (image(&[&base(), &top(1)]), Memory::default());
        let first = run(&src, &dst, layout, &["/d/a"], &options(layout));
        assert!(!first.unchanged);
        let written = dst.written();
        let again = run(&src, &dst, layout, &["/d/a"], &options(layout));
        assert_eq!((again.unchanged, again.digest, dst.written()), (true, first.digest, written), "{layout}");
        assert!(again.layers.iter().all(|l| l.reused));

        let anew = convert::Options { reuse: false, ..options(layout) };
        let anew = run(&src, &dst, layout, &["/d/a"], &anew);
        assert_eq!((anew.unchanged, anew.digest, dst.written()), (false, first.digest, written), "{layout}");
        assert!(anew.layers.iter().all(|l| !l.reused));
    }
}

#[test]
fn a_missing_layer_is_made_again_although_the_tag_is_there() {
    let (src, dst) = (image(&[&base(), &top(1)]), Memory::default());
    let first = run(&src, &dst, Layout::Plain, &[], &options(Layout::Plain));
    dst.remove(&first.layers[0].digest);
    let again = run(&src, &dst, Layout::Plain, &[], &options(Layout::Plain));
    assert_eq!((again.unchanged, reused(&again)), (false, vec![false, true]));
}

#[test]
fn only_changed_layers_are_made_and_stored() {
    for layout in LAYOUTS {
        let dst = Memory::default();
        run(&image(&[&base(), &top(1)]), &dst, layout, &["/d/b", "/new"], &options(layout));
        let before = dst.written();
        let report = run(&image(&[&base(), &top(9)]), &dst, layout, &["/d/b", "/new"], &options(layout));
        let hot = if layout.has_hot() { vec![false] } else { vec![] };
        assert_eq!(reused(&report), [vec![true, false], hot].concat(), "{layout}");
        let made: u64 = report.layers.iter().filter(|l| !l.reused).map(|l| l.size).sum();
        // Nothing was stored but what was made: the layer on top, the hot layer when it changed, the config.
        assert!(dst.written() - before <= made + 2000, "{layout}");
    }
}

#[test]
fn another_profile_makes_another_order_or_hot_layer() {
    let (src, dst) = (image(&[&base(), &top(1)]), Memory::default());
    run(&src, &dst, Layout::Landmark, &["/d/b"], &options(Layout::Landmark));
    // The base has nothing in front now; the other layer is as it was.
    let report = run(&src, &dst, Layout::Landmark, &["/not/there"], &options(Layout::Landmark));
    assert_eq!(reused(&report), [false, true]);

    let dst = Memory::default();
    run(&src, &dst, Layout::Hot, &["/d/b"], &options(Layout::Hot));
    let report = run(&src, &dst, Layout::Hot, &["/new"], &options(Layout::Hot));
    assert_eq!(reused(&report), [true, true, false]);
}

#[test]
fn other_options_reuse_nothing() {
    let (src, dst) = (image(&[&base(), &top(1)]), Memory::default());
    run(&src, &dst, Layout::Plain, &[], &options(Layout::Plain));
    let other = convert::Options { chunk_size: 999, ..options(Layout::Plain) };
    assert_eq!(reused(&run(&src, &dst, Layout::Plain, &[], &other)), [false, false]);
}

#[test]
fn leaving_layers_in_is_another_image() {
    let (src, dst) = (image(&[&base(), &[], &top(1)]), Memory::default());
    run(&src, &dst, Layout::Plain, &[], &options(Layout::Plain));
    let keep = convert::Options { keep_layers: true, ..options(Layout::Plain) };
    let report = run(&src, &dst, Layout::Plain, &[], &keep);
    assert_eq!((report.unchanged, reused(&report)), (false, vec![true, false, true]));
}

#[test]
fn a_file_that_only_a_hard_link_of_the_profile_leads_to_is_read_again() {
    // The profile names the link only; the content of the reused layer was not kept under that name.
    let base = [Item::dir("d"), Item::file("d/a", bytes(3000, 1)), Item::hardlink("d/z", "d/a")];
    let dst = Memory::default();
    run(&image(&[&base, &top(1)[3..]]), &dst, Layout::Hot, &["/new"], &options(Layout::Hot));
    let report = run(&image(&[&base, &top(1)[3..]]), &dst, Layout::Hot, &["/d/z"], &options(Layout::Hot));
    assert_eq!(reused(&report), [false, true, false]);
}

#[test]
fn a_key_that_does_not_fit_is_not_believed() {
    let (src, dst) = (image(&[&base(), &top(1)]), Memory::default());
    run(&src, &dst, Layout::Plain, &[], &options(Layout::Plain));
    dst.edit_manifest(|m| {
        m["annotations"][names::KEY] = "sha256:0".into();
        // The other layer in this one's place.
        let other = m["layers"][1].clone();
        let source = m["layers"][0]["annotations"][names::LAYER_SOURCE].clone();
        m["layers"][0] = other;
        m["layers"][0]["annotations"][names::LAYER_SOURCE] = source;
    });
    let report = run(&src, &dst, Layout::Plain, &[], &options(Layout::Plain));
    assert_eq!(reused(&report), [false, true]);
}

#[test]
fn a_conversion_that_was_cut_off_goes_on_by_its_journal() {
    let dir = tempfile::tempdir().expect("a folder");
    let journal = dir.path().join("sub/journal");
    let with = |layout| convert::Options { journal: Some(journal.clone()), ..options(layout) };
    let (src, dst) = (image(&[&base(), &top(1)]), Memory::default());
    let first = run(&src, &dst, Layout::Plain, &[], &with(Layout::Plain));
    dst.untag();
    // Lines that somebody spoiled cost nothing.
    let mut text = std::fs::read_to_string(&journal).expect("written");
    text.push_str("{\"encoder\":1}\nnot json\n\n");
    std::fs::write(&journal, text).expect("written");
    let again = run(&src, &dst, Layout::Plain, &[], &with(Layout::Plain));
    assert_eq!((reused(&again), again.digest), (vec![true, true], first.digest));

    // Another destination has none of it, whatever the journal says.
    let other = Memory::default();
    assert_eq!(reused(&run(&src, &other, Layout::Plain, &[], &with(Layout::Plain))), [false, false]);
}

#[test]
fn annotations_of_a_reused_layer_are_the_sources_and_ours() {
    let with = |value: &str| {
        let src = image(&[&base(), &top(1)]);
        let value = value.to_owned();
        src.edit_manifest(|m| {
            m["layers"][0]["annotations"] = serde_json::json!({ "team": value, "containerd.io/snapshot/x": "stale" });
        });
        src
    };
    let dst = Memory::default();
    run(&with("a"), &dst, Layout::Plain, &[], &options(Layout::Plain));
    let report = run(&with("b"), &dst, Layout::Plain, &[], &options(Layout::Plain));
    assert_eq!(reused(&report), [true, true]);
    let layer = dst.image("").expect("an image").manifest.layers[0].clone();
    assert_eq!(layer.annotation("team"), Some("b"));
    assert_eq!(layer.annotation("containerd.io/snapshot/x"), None);
    assert!(layer.annotation(names::TOC_DIGEST).is_some());
    assert!(dst.has(&layer.digest).expect("memory"));
}
