//! What differs from the source, from the layers below, or from what the annotations say, is named.

use super::edit::{blob, layer, replace};
use super::*;
use crate::image::names;
use crate::store::Images;

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
        assert!(said(&report, "hot layer over changed lower layers: "), "{:#?}", report.problems);
        assert!(said(&report, what), "{what}: {:#?}", report.problems);
        // Seen without reading a layer, too.
        assert!(said(&report, "made over other layers"), "{:#?}", report.problems);
    }
}

#[test]
fn what_the_annotations_say_is_checked() {
    let src = image(&[&[Item::file("a", bytes(3500, 1))]]);
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
    assert!(said(&check(None, &dst), "expected zstd:chunked by its media type"));
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
