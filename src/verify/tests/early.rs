//! Layers that go to their store while they are compressed.

use super::*;
use crate::store::memory::Grown;

fn large(seed: u8) -> Vec<Item> {
    vec![Item::dir("d"), Item::file("d/a", bytes(9000, seed)), Item::file("d/b", bytes(7000, seed + 1))]
}

fn run(src: &Memory, dst: &Memory, layout: Layout) -> Digest {
    let profile = layout.needs_profile().then(|| profile(&["/d/b"]));
    let report = convert(src, dst, profile.as_ref(), &options(layout), &Silent).expect("converted");
    assert_eq!(check(Some(src), dst).problems, [], "{layout}");
    report.digest
}

#[test]
fn only_what_keeps_its_order_is_stored_meanwhile() {
    let src = image(&[&large(1), &large(5), &[Item::file("small", "s")]]);
    for (layout, expected) in [(Layout::Plain, 2), (Layout::Hot, 2), (Layout::Landmark, 0)] {
        let dst = Memory::default();
        run(&src, &dst, layout);
        assert_eq!(dst.grown(), Grown { breaks: false, offered: expected, whole: expected }, "{layout}");
    }
}

#[test]
fn what_breaks_off_is_stored_when_it_is_complete() {
    let src = image(&[&large(1), &large(5)]);
    let (breaking, well) = (Memory::breaking(), Memory::default());
    assert_eq!(run(&src, &breaking, Layout::Plain), run(&src, &well, Layout::Plain));
    assert_eq!(breaking.grown(), Grown { breaks: true, offered: 2, whole: 0 });
    assert_eq!(breaking.written(), well.written());
}

#[test]
fn what_becomes_another_blob_on_the_way_is_given_up() {
    // A name that comes twice: the first is left out, and what was sent so far is not the layer.
    let mut twice = large(1);
    twice.push(Item::file("d/a", bytes(8000, 9)));
    let dst = Memory::default();
    run(&image(&[&twice]), &dst, Layout::Plain);
    assert_eq!(dst.grown(), Grown { breaks: false, offered: 1, whole: 0 });
}

#[test]
fn a_damaged_source_leaves_nothing_behind() {
    let src = image(&[&large(1)]);
    let layer = crate::store::Images::image(&src, "").expect("an image").manifest.layers[0].clone();
    let mut blob = src.bytes(&layer.digest);
    let last = blob.len() - 6;
    blob[last] ^= 1;
    src.damage(&layer.digest, blob);
    let dst = Memory::default();
    convert(&src, &dst, None, &options(Layout::Plain), &Silent).expect_err("damaged");
    assert_eq!((dst.written(), dst.grown().whole), (0, 0));
}
