//! The read-ahead inside an image: program, list and wrapped entrypoint, and back again.

use super::*;
use crate::convert::Error;
use crate::image::{Image, names, wrapped};
use crate::profile::carried;
use crate::store::Images;

/// The head of a static program for amd64, and something behind it.
fn program(dir: &tempfile::TempDir, kind: u8) -> std::path::PathBuf {
    let mut elf = b"\x7fELF\x02\x01".to_vec();
    elf.resize(120, 0);
    (elf[18], elf[32], elf[54], elf[56], elf[64]) = (62, 64, 56, 1, kind);
    elf.extend(bytes(5000, 9));
    let path = dir.path().join(format!("esgz-{kind}"));
    std::fs::write(&path, elf).expect("written");
    path
}

fn source() -> Memory {
    image(&[&[Item::dir("lib"), Item::file("lib/hot", "h")], &[Item::file("big", bytes(100, 1))]])
}

/// A profile whose one file stays lazy: too large a part of it is untouched.
fn lazy() -> Profile {
    let mut profile = profile(&["/lib/hot", "/huge"]);
    profile.files[1].size = 80 << 20;
    profile.files[1].ranges = vec![Range(4096, 8192, 1)];
    profile.header.platform = "linux/amd64".into();
    profile
}

fn huge() -> Memory {
    image(&[&[Item::dir("lib"), Item::file("lib/hot", "h")], &[Item::file("huge", vec![0; 80 << 20])]])
}

fn image_of(store: &Memory) -> Image {
    store.image("").expect("an image")
}

fn embedding(embed: Option<std::path::PathBuf>) -> convert::Options {
    convert::Options { embed, chunk_size: 4 << 20, ..options(Layout::Hot) }
}

#[test]
fn the_image_starts_its_read_ahead_and_can_be_put_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let (src, dst) = (huge(), Memory::default());
    let options = embedding(Some(program(&dir, 1)));
    convert(&src, &dst, Some(&lazy()), &options, &Silent).expect("converted");
    let found = image_of(&dst);
    assert_eq!(found.config.raw["config"]["Entrypoint"], serde_json::json!(["/.esgz/esgz", "warm", "--"]));
    assert_eq!(found.config.raw["config"]["Cmd"], serde_json::json!(["x"]));
    let verified = check(Some(&src), &dst);
    assert_eq!(verified.problems, []);
    assert_eq!(verified.added_classes, [("folder", 1), ("warm", 2)].into());

    // The list is that of the lazy file, in the layer as in the manifest.
    let top = found.manifest.layers.last().expect("a hot layer");
    let layer = zstd::decode_all(&dst.bytes(&top.digest)[..]).expect("zstd");
    let mut reader = crate::tar::Reader::new(&layer[..]);
    let mut files = std::collections::BTreeMap::new();
    while let Some(entry) = reader.next().expect("an archive") {
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut content).expect("in memory");
        files.insert(entry.path.clone(), (entry.mode, content));
    }
    let (mode, embedded) = &files[".esgz/profile.json"];
    let list = profile::read(embedded).expect("a profile");
    let shown: Vec<_> = list.files.iter().map(|f| (f.path.as_str(), f.ranges.clone())).collect();
    assert_eq!((shown, *mode), (vec![("/huge", vec![Range(4096, 8192, 1)])], 0o644));
    assert_eq!(files[".esgz/esgz"].0, 0o755);
    let packed = found.manifest.raw["annotations"][names::WARM].as_str().expect("it is carried");
    assert_eq!(carried::unpack(packed).expect("own output"), list);

    // Converted again without it, it is as if it had never been there.
    let (again, plain) = (Memory::default(), Memory::default());
    convert(&dst, &again, Some(&lazy()), &embedding(None), &Silent).expect("converted");
    convert(&src, &plain, Some(&lazy()), &embedding(None), &Silent).expect("converted");
    assert_eq!(image_of(&again).config.raw["config"], image_of(&plain).config.raw["config"]);
    assert_eq!(check(Some(&src), &again).problems.iter().filter(|p| p.what.contains("config")).count(), 0);
    assert_eq!(image_of(&again).manifest.raw["annotations"].get(names::ENTRYPOINT), None);
    // And with it, it is not wrapped twice.
    let twice = Memory::default();
    convert(&dst, &twice, Some(&lazy()), &options, &Silent).expect("converted");
    assert_eq!(image_of(&twice).config.raw, found.config.raw);
}

#[test]
fn the_list_inside_the_image_says_what_its_compile_caches_are_bound_to_and_the_manifests_does_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let pyc = [0x0a0d_0dcb_u32, 0, 1_600_000_000, 1].map(u32::to_le_bytes).concat();
    let written = [
        Item::dir("root"),
        Item::dir("root/.cache"),
        Item::dir("root/.cache/vllm"),
        Item::file("root/.cache/vllm/graph.so", "x"),
        Item::dir("lib/__pycache__"),
        Item::file("lib/__pycache__/m.cpython-312.pyc", pyc),
    ];
    let tar = dir.path().join("s.tar");
    std::fs::write(&tar, archive(&written)).expect("written");
    let src = image(&[&[Item::dir("lib"), Item::file("lib/m.py", "m")], &[Item::file("huge", vec![0; 80 << 20])]]);
    let mut profile = lazy();
    profile.header.host = [("gpus", "NVIDIA L4"), ("kernel", "6")].map(|(k, v)| (k.into(), v.into())).into();
    for (classes, facts) in [("bytecode", None), ("bytecode,compile-cache", Some("NVIDIA L4"))] {
        let startup_classes = classes.parse().expect("classes");
        let embed = Some(program(&dir, 1));
        let options = convert::Options { startup: Some(tar.clone()), startup_classes, ..embedding(embed) };
        let dst = Memory::default();
        let report = convert(&src, &dst, Some(&profile), &options, &Silent).expect("converted");
        assert_eq!(report.startup.expect("used").classes["bytecode"], 1);
        assert_eq!(check(Some(&src), &dst).problems, []);
        let list = profile::read(&embedded_list(&dst)).expect("a profile");
        let host: Vec<_> = list.header.host.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(host, facts.map(|card| ("gpus", card)).into_iter().collect::<Vec<_>>(), "{classes}");
        let manifest = image_of(&dst).manifest.raw;
        let packed = manifest["annotations"][names::WARM].as_str().expect("it is carried");
        assert!(carried::unpack(packed).expect("own output").header.host.is_empty());
    }
}

/// The list that a reader in the container finds.
fn embedded_list(dst: &Memory) -> Vec<u8> {
    let top = image_of(dst).manifest.layers.last().expect("a hot layer").digest;
    let layer = zstd::decode_all(&dst.bytes(&top)[..]).expect("zstd");
    let mut reader = crate::tar::Reader::new(&layer[..]);
    while let Some(entry) = reader.next().expect("an archive") {
        if entry.path == ".esgz/profile.json" {
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut reader, &mut content).expect("in memory");
            return content;
        }
    }
    panic!("no list");
}

#[test]
fn another_entrypoint_than_the_wrapped_one_is_a_difference() {
    let dir = tempfile::tempdir().expect("a folder");
    let (src, dst) = (source(), Memory::default());
    let options = convert::Options { embed: Some(program(&dir, 1)), ..options(Layout::Hot) };
    convert(&src, &dst, Some(&profile(&["/lib/hot"])), &options, &Silent).expect("converted");
    assert_eq!(check(Some(&src), &dst).problems, []);
    let mut config = image_of(&dst).config.raw;
    config["config"]["Entrypoint"] = serde_json::json!(["/.esgz/esgz", "warm", "--", "something", "else"]);
    let config = dst.add(names::CONFIG, config.to_string().into_bytes());
    dst.edit_manifest(|m| m["config"] = config.to_json());
    assert!(said(&check(Some(&src), &dst), "config: config is"));
}

#[test]
fn what_cannot_be_embedded_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let refused = |src: &Memory, options: &convert::Options| {
        let dst = Memory::default();
        let e = convert(src, &dst, Some(&profile(&["/lib/hot"])), options, &Silent).expect_err("it is refused");
        assert!(dst.image("").is_err(), "no tag");
        e
    };
    let dynamic = convert::Options { embed: Some(program(&dir, 3)), ..options(Layout::Hot) };
    assert!(matches!(refused(&source(), &dynamic), Error::Program { why, .. } if why.contains("dynamic linker")));
    let good = convert::Options { embed: Some(program(&dir, 1)), ..options(Layout::Hot) };
    let taken = image(&[&[Item::dir("lib"), Item::file("lib/hot", "h"), Item::dir(".esgz")]]);
    assert!(matches!(refused(&taken, &good), Error::Program { why, .. } if why.contains(wrapped::FOLDER)));
}
