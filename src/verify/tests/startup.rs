//! Bytecode that start-up would write again goes into the hot layer, if it fits its source.

use std::path::PathBuf;
use std::sync::Mutex;

use super::*;
use crate::convert::startup::{Classes, Shipped};
use crate::image::names;
use crate::progress::Progress;
use crate::store::Images;

/// As an interpreter writes it for a source of this time and size.
fn pyc(flags: u32, time: u32, size: u32) -> Vec<u8> {
    let header = [0x0a0d_0dcb, flags, time, size].map(u32::to_le_bytes).concat();
    [header, bytes(1700, 3)].concat()
}

/// What `_imp.source_hash` of that interpreter gives for `print()`.
const HASH: (u32, u32) = (0x5c54_6190, 0xc11e_ada0);

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
        Item::file("lib/__pycache__/m.cpython-311.pyc", pyc(3, HASH.0, HASH.1)),
        // Stale: another time, another size, an unknown flag, no header, no source, another source's hash, to be looked at or not.
        Item::file("lib/__pycache__/m.a.pyc", pyc(0, 1_700_000_001, 7)),
        Item::file("lib/__pycache__/m.b.pyc", pyc(0, 1_700_000_000, 8)),
        Item::file("lib/__pycache__/m.c.pyc", pyc(8, 1_700_000_000, 7)),
        Item::file("lib/__pycache__/m.d.pyc", &pyc(0, 1_700_000_000, 7)[..11]),
        Item::file("lib/__pycache__/m.e.pyc", pyc(3, HASH.0, 2)),
        Item::file("lib/__pycache__/n.f.pyc", pyc(1, HASH.0, HASH.1)),
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
        let left_out = [("special", 1), ("temporary", 1), ("unchecked bytecode", 2)].into();
        let classes = [("bytecode", 3)].into();
        let want = Shipped { files: 3, bytes: 3 * 1716, classes, stale: 7, taken: 2, left_out };
        assert_eq!(report.startup, Some(want.clone()));
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
fn what_the_archive_brings_along_is_not_missing_in_the_image() {
    let tar = Captured::new(&captured());
    let with = |pyc: &str, force_profile| {
        let mut p = profile(&["/hot", pyc]);
        (p.files[0].size, p.files[0].ranges) = (1, vec![Range(0, 1, 0)]);
        let options = convert::Options { force_profile, ..tar.options(Layout::Hot) };
        convert(&source(), &Memory::default(), Some(&p), &options, &Silent)
    };
    let report = with("/lib/__pycache__/m.cpython-312.pyc", false).expect("the profile is of this image");
    let fit = report.fit.expect("used");
    assert_eq!((fit.missing_files, fit.profiled_bytes, fit.matched_bytes, report.mismatches.len()), (0, 1, 1, 0));
    // What is stale or left out of the archive, and what is nowhere.
    for pyc in ["/lib/__pycache__/m.a.pyc", "/tmp/__pycache__/t.cpython-312.pyc", "/lib/__pycache__/none.pyc"] {
        let e = with(pyc, false).expect_err("most of the profile is missing");
        assert!(matches!(e, convert::Error::ForeignProfile { matched: 1, profiled: 101 }), "{e}");
        let report = with(pyc, true).expect("forced");
        let missing: Vec<_> = report.mismatches.iter().map(|m| (m.path.as_str(), &m.what)).collect();
        assert_eq!(missing, [(pyc, &crate::plan::What::Missing)]);
        assert_eq!(report.fit.expect("used").missing_files, 1);
    }
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

/// Remembers what is said of compile caches.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Progress for Heard {
    fn start(&self, _: &str, _: u64) -> u64 {
        0
    }
    fn advance(&self, _: u64, _: u64) {}
    fn done(&self, _: u64) {}
    fn warn(&self, message: &str) {
        if message.contains("compile caches") {
            self.0.lock().expect("one thread").push(message.into());
        }
    }
}

fn top(dst: &Memory) -> crate::image::Descriptor {
    dst.image("").expect("an image").manifest.layers.last().expect("a layer").clone()
}

#[test]
fn how_the_archive_was_packed_does_not_matter() {
    let noisy = |items: Vec<Item>| -> Vec<Item> {
        let noise = |item: Item| {
            item.mtime(77).pax("mtime", "99.5").pax("SCHILY.xattr.user.noise", "x").owner(0, 0, "me", "us")
        };
        items.into_iter().rev().map(noise).collect()
    };
    let (plain, shuffled) = (Captured::new(&captured()), Captured::new(&noisy(captured())));
    assert_ne!(std::fs::read(plain.path()).expect("read"), std::fs::read(shuffled.path()).expect("read"));
    let (a, _) = converted_with(&source(), &plain.options(Layout::Hot), &["/hot"]);
    let (b, _) = converted_with(&source(), &shuffled.options(Layout::Hot), &["/hot"]);
    assert_eq!(top(&a).digest, top(&b).digest);
    assert_eq!(digest_of(&a), digest_of(&b));
    // Owners by number and modes are no noise.
    let other = captured().into_iter().map(|i| i.mode(0o600)).collect::<Vec<_>>();
    let (c, _) = converted_with(&source(), &Captured::new(&other).options(Layout::Hot), &["/hot"]);
    assert_ne!(top(&a).digest, top(&c).digest);
}

/// What a start of a server leaves behind, beside bytecode.
fn caches() -> Vec<Item> {
    let token = format!("x = hf_{}", "a1B2".repeat(9));
    vec![
        Item::dir("root"),
        Item::dir("root/.cache"),
        Item::dir("root/.cache/vllm"),
        Item::file("root/.cache/vllm/graph.so", bytes(900, 1)).mode(0o4755).mtime(1_650_000_000),
        Item::file("root/.cache/vllm/noted.json", token),
        Item::dir("root/.cache/huggingface"),
        Item::dir("root/.cache/huggingface/hub"),
        Item::file("root/.cache/huggingface/hub/config", "{}"),
        Item::symlink("root/.cache/huggingface/hub/ref", "config"),
        Item::file("root/.cache/huggingface/token", "s"),
        Item::file("root/.cache/.wh.x", "s"),
        Item::dir("data"),
        Item::file("data/x.cache", "x"),
        Item::dir("tmp"),
        Item::file("tmp/x", "x"),
        Item::dir("var"),
        Item::dir("var/log"),
        Item::file("var/log/x", "x"),
        Item::dir("run"),
        Item::file("run/x", "x"),
        Item::dir("etc"),
        Item::file("etc/resolv.conf", "x"),
        Item::dir("lib/__pycache__"),
        Item::file("lib/__pycache__/m.cpython-312.pyc", pyc(0, 1_700_000_000, 7)),
    ]
}

/// The source with a volume at `/data`.
fn with_volume() -> Memory {
    let src = source();
    let mut config = src.image("").expect("an image").config.raw;
    config["config"]["Volumes"] = serde_json::json!({ "/data": {} });
    let config = src.add(names::CONFIG, config.to_string().into_bytes());
    src.edit_manifest(|m| m["config"] = config.to_json());
    src
}

#[test]
fn other_classes_go_by_name_and_what_must_stay_stays() {
    let tar = Captured::new(&caches());
    let src = with_volume();
    let run = |classes: &str, host: &[(&str, &str)]| {
        let (dst, heard) = (Memory::default(), Heard::default());
        let startup_classes = classes.parse().expect("classes");
        let options = convert::Options { startup_classes, ..tar.options(Layout::Hot) };
        let mut p = profile(&["/hot"]);
        p.header.host = host.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let report = convert(&src, &dst, Some(&p), &options, &heard).expect("converted");
        let verified = check(Some(&src), &dst);
        assert_eq!(verified.problems, []);
        (dst, report.startup.expect("used"), verified, heard.0.into_inner().expect("one thread"))
    };
    let (dst, shipped, ..) = run("bytecode", &[]);
    assert_eq!((shipped.files, shipped.classes), (1, [("bytecode", 1)].into()));
    assert_eq!(top(&dst).annotation("dev.esgz.layer.host.gpus"), None);
    let all = "other,cache,model-metadata,compile-cache,bytecode";
    let (dst, shipped, verified, heard) = run(all, &[("gpus", "NVIDIA L4"), ("torch", "2.10.0"), ("kernel", "6")]);
    let by_class = [("bytecode", 1), ("compile-cache", 1), ("model-metadata", 2)];
    assert_eq!(shipped.classes, by_class.into());
    let left = [("injected", 1), ("log", 1), ("secret", 2), ("special", 1), ("temporary", 2), ("volume", 1)];
    assert_eq!(shipped.left_out, left.into());
    assert!(heard.is_empty(), "{heard:?}");
    assert_eq!(verified.added_classes, by_class.into_iter().chain([("folder", 6)]).collect());
    let top = top(&dst);
    assert_eq!(top.annotation(names::LAYER_ADDED_CLASSES), Some("bytecode=1,compile-cache=1,model-metadata=2"));
    assert_eq!(top.annotation("dev.esgz.layer.host.gpus"), Some("NVIDIA L4"));
    assert_eq!(top.annotation("dev.esgz.layer.host.torch"), Some("2.10.0"));
    assert_eq!(top.annotation("dev.esgz.layer.host.kernel"), None);
    let layer = zstd::decode_all(&dst.bytes(&top.digest)[..]).expect("zstd");
    let mut reader = crate::tar::Reader::new(&layer[..]);
    let mut graph = None;
    while let Some(e) = reader.next().expect("an archive") {
        graph = graph.or((e.path == "root/.cache/vllm/graph.so").then_some((e.mode, e.mtime.seconds)));
    }
    assert_eq!(graph, Some((0o755, 1_650_000_000)), "build tools compare the times of compiled caches");
}

#[test]
fn compiled_caches_without_a_home_or_for_other_packages_are_warned_about() {
    let tar = Captured::new(&caches());
    let lower =
        [Item::dir("l"), Item::dir("l/torch-2.11.0.dist-info"), Item::file("l/torch-2.11.0.dist-info/METADATA", "x")];
    let src = image(&[&lower, &[Item::file("hot", "h")]]);
    let warnings = |host: &[(&str, &str)]| {
        let heard = Heard::default();
        let options =
            convert::Options { startup_classes: "compile-cache".parse().expect("a class"), ..tar.options(Layout::Hot) };
        let mut p = profile(&["/hot"]);
        p.header.host = host.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        convert(&src, &Memory::default(), Some(&p), &options, &heard).expect("converted");
        heard.0.into_inner().expect("one thread")
    };
    let unknown = "the profile does not say with which hardware and packages the compile caches were made: \
                   nobody can tell where they are of use";
    assert_eq!(warnings(&[]), [unknown]);
    let other = "the compile caches were made with torch 2.10.0, here is 2.11.0 in the image";
    assert_eq!(warnings(&[("gpus", "L4"), ("torch", "2.10.0")]), [other]);
    assert!(warnings(&[("gpus", "L4"), ("torch", "2.11.0")]).is_empty());
}

#[test]
fn classes_that_are_never_shipped_have_no_name() {
    for wrong in ["secret", "log", "temporary", "injected", "weights", "bytecode,", "", "Bytecode"] {
        assert!(wrong.parse::<Classes>().is_err(), "{wrong}");
    }
    assert_eq!("cache,bytecode,cache".parse::<Classes>().expect("two").to_string(), "bytecode,cache");
}

#[test]
fn sources_are_read_for_bytecode_bound_by_hash_though_their_layer_is_there() {
    let lower = [
        Item::dir("lib"),
        Item::file("lib/store.py", "print()").mtime(1),
        Item::hardlink("lib/m.py", "lib/store.py").mtime(2),
        Item::dir("lib/__pycache__"),
    ];
    let src = image(&[&lower, &[Item::file("hot", "h")]]);
    let bound = Captured::new(&[
        Item::dir("lib/__pycache__"),
        Item::file("lib/__pycache__/m.cpython-312.pyc", pyc(1, HASH.0, HASH.1)),
        Item::file("lib/__pycache__/m.other.pyc", pyc(0, 1, 7)),
        Item::file("lib/__pycache__/m.another.pyc", pyc(0, 2, 7)),
    ]);
    let (fresh, report) = converted_with(&src, &bound.options(Layout::Hot), &["/hot"]);
    let shipped = report.startup.expect("used");
    assert_eq!((shipped.files, shipped.stale), (2, 1), "a hard link has the time of its file");
    let again = Memory::default();
    let p = profile(&["/hot"]);
    let run = |o: &convert::Options| convert(&src, &again, Some(&p), o, &Silent).expect("converted");
    run(&options(Layout::Hot));
    run(&bound.options(Layout::Hot));
    assert_eq!(digest_of(&again), digest_of(&fresh));
}

#[test]
fn a_layer_that_adds_a_secret_is_found_out() {
    let lower = [Item::dir("root"), Item::file("root/a", "a")];
    let secret = [Item::file("root/.netrc", "machine x password y")];
    let (src, dst) = (image(&[&lower]), image(&[&lower, &secret]));
    let tar = archive(&secret);
    let entry = crate::tar::Reader::new(&tar[..]).next().expect("valid").expect("one");
    let added = convert::additions_digest([(&entry, Some(Digest::of(b"machine x password y")))]);
    dst.edit_manifest(|m| {
        m["layers"][1]["annotations"] =
            serde_json::json!({ names::LAYER_KIND: "hot", names::LAYER_ADDED: added.to_string() });
    });
    for src in [Some(&src), None] {
        let report = check(src, &dst);
        assert_eq!(report.added_classes, [("secret", 1)].into());
        assert!(said(&report, "of class secret, which no hot layer may add"), "{:?}", report.problems);
    }
}
