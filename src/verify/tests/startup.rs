//! Bytecode that start-up would write again goes into the hot layer, if it fits its source.

use std::path::PathBuf;

use super::*;
use crate::convert::Shipped;
use crate::image::names;
use crate::store::Images;

/// As an interpreter writes it for a source of this time and size.
fn pyc(flags: u32, time: u32, size: u32) -> Vec<u8> {
    let header = [0x0a0d_0dcb, flags, time, size].map(u32::to_le_bytes).concat();
    [header, bytes(1700, 3)].concat()
}

fn source() -> Memory {
    let lower = [
        Item::dir("lib").mode(0o751),
        Item::file("lib/m.py", "print()").mtime(1_700_000_000),
        Item::file("lib/n.py", "n").pax("mtime", "1700000000.9"),
        Item::dir("lib/old"),
        Item::file("lib/old/o.py", "o").mtime(5),
        Item::dir("lib/old/__pycache__"),
        Item::file("lib/old/__pycache__/o.cpython-312.pyc", "there"),
        Item::symlink("link", "lib"),
        Item::dir("tmp"),
        Item::file("tmp/t.py", "t").mtime(5),
    ];
    image(&[&lower, &[Item::file("hot", "h")]])
}

fn captured() -> Vec<Item> {
    vec![
        Item::dir("./"),
        Item::dir("./lib/").mode(0o700),
        Item::dir("lib/__pycache__/").mode(0o755),
        Item::file("lib/__pycache__/m.cpython-312.pyc", pyc(0, 1_700_000_000, 7)),
        Item::file("lib/__pycache__/n.cpython-312.opt-1.pyc", pyc(0, 1_700_000_000, 1)),
        Item::file("lib/__pycache__/m.cpython-311.pyc", pyc(3, 1, 2)),
        // Stale: another time, another size, an unknown flag, no header, no source.
        Item::file("lib/__pycache__/m.a.pyc", pyc(0, 1_700_000_001, 7)),
        Item::file("lib/__pycache__/m.b.pyc", pyc(0, 1_700_000_000, 8)),
        Item::file("lib/__pycache__/m.c.pyc", pyc(8, 1_700_000_000, 7)),
        Item::file("lib/__pycache__/m.d.pyc", &pyc(0, 1_700_000_000, 7)[..11]),
        Item::file("lib/__pycache__/gone.cpython-312.pyc", pyc(0, 1_700_000_000, 7)),
        // Taken: there already, or below what is no folder.
        Item::file("lib/old/__pycache__/o.cpython-312.pyc", pyc(0, 5, 1)),
        Item::file("link/__pycache__/m.cpython-312.pyc", pyc(0, 1_700_000_000, 7)),
        // Other.
        Item::file("tmp/__pycache__/t.cpython-312.pyc", pyc(0, 5, 1)),
        Item::file("lib/m.pyc", pyc(0, 1_700_000_000, 7)),
        Item::symlink("lib/__pycache__/n.x.pyc", "m.cpython-312.pyc"),
        Item::special("lib/m.py", b'3', (0, 0)),
    ]
}

struct Captured {
    dir: tempfile::TempDir,
}

impl Captured {
    fn new(items: &[Item]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("s.tar"), archive(items)).expect("written");
        Self { dir }
    }

    fn options(&self, layout: Layout) -> convert::Options {
        convert::Options { startup: Some(self.path()), ..options(layout) }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("s.tar")
    }
}

#[test]
fn bytecode_that_fits_is_added_and_nothing_else() {
    let tar = Captured::new(&captured());
    // Also without any file to copy.
    for paths in [&["/hot"][..], &["/not/there"]] {
        let (dst, report) = converted_with(&source(), &tar.options(Layout::Hot), paths);
        let bytes = 3 * 1716;
        assert_eq!(report.startup, Some(Shipped { files: 3, bytes, stale: 5, taken: 2, other: 4 }));
        let verified = check(Some(&source()), &dst);
        assert_eq!((verified.added, verified.problems.len()), (4, 0), "with their folder");
        assert_eq!(check(None, &dst).added, 4);
    }
}

#[test]
fn folders_of_the_image_keep_their_own_metadata() {
    let tar = Captured::new(&captured());
    let (dst, _) = converted_with(&source(), &tar.options(Layout::Hot), &["/hot"]);
    let top = dst.image("").expect("an image").manifest.layers[2].clone();
    let layer = zstd::decode_all(&dst.bytes(&top.digest)[..]).expect("zstd");
    let mut reader = crate::tar::Reader::new(&layer[..]);
    let mut entries = Vec::new();
    while let Some(e) = reader.next().expect("an archive") {
        entries.push((e.path.clone(), e.mode));
    }
    let name = |path: &str, mode| (path.to_owned(), mode);
    let expected = [
        name("hot", 0o644),
        name("lib", 0o751),
        name("lib/__pycache__", 0o755),
        name("lib/__pycache__/m.cpython-311.pyc", 0o644),
        name("lib/__pycache__/m.cpython-312.pyc", 0o644),
        name("lib/__pycache__/n.cpython-312.opt-1.pyc", 0o644),
    ];
    assert_eq!(entries, expected);
}

#[test]
fn what_is_added_must_be_what_the_layer_says() {
    let tar = Captured::new(&captured());
    let (dst, _) = converted_with(&source(), &tar.options(Layout::Hot), &["/hot"]);
    for edit in [None, Some(serde_json::json!(Digest::of(b"others").to_string()))] {
        dst.edit_manifest(|m| {
            let annotations = m["layers"][2]["annotations"].as_object_mut().expect("annotations");
            match &edit {
                Some(value) => _ = annotations.insert(names::LAYER_ADDED.into(), value.clone()),
                None => _ = annotations.remove(names::LAYER_ADDED),
            }
        });
        let report = check(Some(&source()), &dst);
        assert!(said(&report, "a file that is not in the source"), "{:?}", report.problems);
        assert_eq!(report.added, 0);
    }
}

#[test]
fn the_same_archive_again_does_nothing_and_another_one_makes_another_image() {
    let (src, dst) = (source(), Memory::default());
    let (tar, other) = (Captured::new(&captured()), Captured::new(&captured()[..5]));
    let p = profile(&["/hot"]);
    let run = |tar: &Captured| convert(&src, &dst, Some(&p), &tar.options(Layout::Hot), &Silent).expect("converted");
    let first = run(&tar);
    let again = run(&tar);
    assert_eq!((again.unchanged, again.digest), (true, first.digest));
    let changed = run(&other);
    assert_eq!((changed.unchanged, changed.startup.map(|s| s.files)), (false, Some(2)));
    // Converted again without the archive, what was added is left out with the copies.
    let (plain, _) = converted(&dst, Layout::Plain, &[]);
    assert_eq!(plain.image("").expect("an image").manifest.layers.len(), 2);
}

#[test]
fn archives_that_cannot_be_used_are_named() {
    let no_folder = [Item::file("lib/__pycache__/m.cpython-312.pyc", pyc(0, 1_700_000_000, 7))];
    let damaged = Captured::new(&captured());
    std::fs::write(damaged.path(), [7; 5000]).expect("written");
    let missing = Captured::new(&[]);
    std::fs::remove_file(missing.path()).expect("removed");
    for (tar, why) in [
        (Captured::new(&no_folder), "neither the image nor the archive"),
        (damaged, "tar header"),
        (missing, "reading it"),
    ] {
        let dst = Memory::default();
        let p = profile(&["/hot"]);
        let e = convert(&source(), &dst, Some(&p), &tar.options(Layout::Hot), &Silent).expect_err(why);
        let said = crate::progress::chain(&e);
        assert!(said.contains(why) && said.contains("s.tar"), "{said}");
        assert!(dst.image("").is_err(), "nothing is tagged");
    }
}
