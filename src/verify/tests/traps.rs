//! Archives that lazy mounts show wrongly: the conversion mends them or refuses them by name, and verify finds them in a
//! blob of somebody else.

use super::edit::{blob, foreign, open, replace, write};
use super::*;

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
        (vec![mark(), Item::hardlink("b", "a"), Item::file("a", "y")], "which is nothing in front of it"),
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
    for layout in LAYOUTS {
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
    for layout in LAYOUTS {
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
        (&[&[Item::dir("a"), Item::hardlink("x", "a")]], "x", "a folder has no second name"),
        (
            &[&[Item::dir("usr"), Item::symlink("lib", "usr")], &[Item::file("lib/x", "")]],
            "lib/x",
            "which is no folder",
        ),
        (&[&[Item::file("a", "old"), Item::hardlink("x", "a"), Item::file("a", "new")]], "x", "replaced there"),
    ];
    for (layers, path, why) in cases {
        for layout in LAYOUTS {
            let p = profile(&["/x", "/lib/x"]);
            let p = layout.needs_profile().then_some(&p);
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
