//! `esgz convert`, `verify` and `inspect` on OCI layouts.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use esgz::digest::Digest;
use predicates::prelude::*;
use serde_json::{Value, json};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn put(dir: &Path, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    fs::write(dir.join("blobs/sha256").join(digest.hex()), bytes).expect("a blob");
    digest
}

/// A layout with one image of one uncompressed layer.
fn layout(dir: &Path) {
    fs::create_dir_all(dir.join("blobs/sha256")).expect("a folder");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
    let mut tar = tar::Builder::new(Vec::new());
    for (name, size) in [("etc/a", 10_000), ("etc/b", 0), ("etc/c", 70_000)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        let content: Vec<u8> = (0..size).map(|n| u8::try_from(n * n % 251).expect("small")).collect();
        tar.append_data(&mut header, name, &content[..]).expect("an entry");
    }
    let tar = tar.into_inner().expect("an archive");
    let layer = put(dir, &tar);
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [layer] },
    });
    let config = config.to_string();
    let config_digest = put(dir, config.as_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len(),
        },
        "layers": [{ "mediaType": LAYER, "digest": layer, "size": tar.len() }],
    });
    let manifest = manifest.to_string();
    let digest = put(dir, manifest.as_bytes());
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": manifest.len(),
            "annotations": { "org.opencontainers.image.ref.name": "v1" },
        }],
    });
    fs::write(dir.join("index.json"), index.to_string()).expect("an index");
}

fn esgz(args: &[&str]) -> assert_cmd::assert::Assert {
    Command::new(env!("CARGO_BIN_EXE_esgz")).arg("--quiet").args(args).assert()
}

/// Converts and gives both references, the new layer's file and the folder that holds it all.
fn converted() -> (String, String, PathBuf, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a folder");
    let (src, dst) = (dir.path().join("src"), dir.path().join("dst"));
    layout(&src);
    let (from, to) = (format!("oci:{}:v1", src.display()), format!("oci:{}:v2", dst.display()));
    esgz(&["convert", &from, &to]).success();
    let inspected = json_of(&["inspect", "--json", &to]);
    let layer: Digest = inspected["layers"][0]["digest"].as_str().expect("a digest").parse().expect("a digest");
    (from, to, dst.join("blobs/sha256").join(layer.hex()), dir)
}

fn json_of(args: &[&str]) -> Value {
    serde_json::from_slice(&esgz(args).get_output().stdout).expect("JSON")
}

#[test]
fn what_was_converted_verifies_and_says_so_on_one_line() {
    let (src, dst, _, _dir) = converted();
    esgz(&["verify", &src, &dst])
        .success()
        .stdout(predicate::str::contains("equal to its source, 3 paths, 3 files with 80000 bytes, 1 layers").count(1));
    esgz(&["verify", &dst]).success().stdout(predicate::str::contains("conforming"));
    let report = json_of(&["verify", "--json", &src, &dst]);
    assert_eq!((&report["files"], &report["problems"]), (&json!(3), &json!([])));
}

#[test]
fn what_is_wrong_is_listed_and_exits_with_three() {
    let (src, dst, layer, _dir) = converted();
    let good = fs::read(&layer).expect("the layer");
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let damages: [(&[u8], &str); 3] = [
        (&flipped, "layer 0: "),
        (&good[..good.len() - 1], "layer 0: cannot be opened"),
        (b"", "layer 0: cannot be opened"),
    ];
    for (bytes, what) in damages {
        fs::remove_file(&layer).expect("the layer");
        fs::write(&layer, bytes).expect("the layer");
        esgz(&["verify", &src, &dst]).code(3).stdout(predicate::str::contains(what));
        let report = json_of(&["verify", "--json", &src, &dst]);
        assert_eq!(report["problems"][1]["layer"], 0, "{report:#}");
    }
    fs::remove_file(&layer).expect("the layer");
    esgz(&["verify", &dst]).code(3).stdout(predicate::str::contains("does not exist"));
    esgz(&["inspect", &dst]).code(1).stderr(predicate::str::contains("does not exist"));
}

#[test]
fn an_image_that_was_never_converted_does_not_conform() {
    let (src, _, _, _dir) = converted();
    esgz(&["verify", &src]).code(3).stdout(predicate::str::contains("expected eStargz"));
}

#[test]
fn inspect_shows_layers_tocs_and_files() {
    let (_, dst, layer, _dir) = converted();
    esgz(&["inspect", "--files", &dst])
        .success()
        .stdout(predicate::str::contains("dev.esgz.layout: plain").and(predicate::str::contains("\tetc/c")));
    let report = json_of(&["inspect", "--json", &dst]);
    let shown = &report["layers"][0];
    assert_eq!(
        (&shown["kind"], &shown["landmark"], &shown["files"]),
        (&json!("estargz"), &json!("no-prefetch"), &json!(4))
    );
    assert_eq!(shown["size"], fs::metadata(layer).expect("the layer").len());
    assert_eq!(shown["problems"], json!([]));
}

#[test]
fn flags_that_do_not_go_together_are_usage_errors() {
    let dir = tempfile::tempdir().expect("a folder");
    let (source, out) = (dir.path().join("src"), dir.path().join("dst"));
    layout(&source);
    let (src, dst) = (format!("oci:{}:v1", source.display()), format!("oci:{}:v1", out.display()));
    for (flags, what) in [
        (&["--layout", "hot"][..], "needs --profile"),
        (&["--layout", "hot+landmark"], "needs --profile"),
        (&["--layout", "warm"], "expected plain, landmark, hot, hot+landmark, auto"),
        (&["--hot-layer", "move"], "layout plain has no hot layer"),
        (&["--startup-layer", "x.tar"], "layout plain has no hot layer"),
        (&["--chunks", "fitted"], "needs --profile"),
        (&["--level", "13"], "expected auto or a number from 0 to 12"),
        (&["--fast", "--best"], "cannot be used with"),
        (&["--chunk-size", "1"], "4096"),
        (&["--jobs", "0"], "invalid value"),
    ] {
        esgz(&[&["convert", &src, &dst], flags].concat()).code(2).stderr(predicate::str::contains(what));
    }
    assert!(!out.exists(), "nothing was written");
}

#[test]
fn what_becomes_of_a_start_up_layer_is_said() {
    let dir = tempfile::tempdir().expect("a folder");
    let (source, out) = (dir.path().join("src"), dir.path().join("dst"));
    layout(&source);
    let touched = esgz::profile::File {
        path: "/etc/a".into(),
        origin: esgz::profile::Origin::Image,
        size: 10_000,
        digest: None,
        first_touch_ms: 0,
        kinds: vec![esgz::profile::Kind::Read],
        ranges: vec![esgz::profile::Range(0, 10_000, 0)],
        links: Vec::new(),
    };
    let profile = esgz::profile::Profile {
        schema: esgz::profile::SCHEMA.into(),
        header: esgz::profile::Header::default(),
        files: vec![touched],
        writes: Vec::new(),
    };
    let (p, startup) = (dir.path().join("p.json"), dir.path().join("s.tar"));
    fs::write(&p, esgz::profile::write(&profile)).expect("a profile");
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["etc/__pycache__/gone.cpython-312.pyc", "etc/log", "root/.cache/vllm/modelinfos/llama.json"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(16);
        tar.append_data(&mut header, name, &[0; 16][..]).expect("an entry");
    }
    fs::write(&startup, tar.into_inner().expect("an archive")).expect("a file");
    Command::new(env!("CARGO_BIN_EXE_esgz"))
        .args(["convert", &format!("oci:{}:v1", source.display()), &format!("oci:{}:v2", out.display())])
        .args([Path::new("--profile"), &p, Path::new("--startup-layer"), &startup])
        .assert()
        .success()
        .stderr(predicate::str::contains(
            "start-up layer: 0 files of 0 bytes added; left out: 1 stale, 0 whose path is taken, 1 model-metadata, 1 other",
        ))
        .stderr(predicate::str::contains("--startup-classes bytecode,model-metadata takes it along"));
}
