//! `--platform all`: `esgz convert`, `verify` and `inspect` on an index in an OCI layout.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use esgz::digest::Digest;
use predicates::prelude::*;
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn put(dir: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = Digest::of(bytes);
    fs::write(dir.join("blobs/sha256").join(digest.hex()), bytes).expect("a blob");
    json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
}

fn image(dir: &Path, os: &str, architecture: &str) -> Value {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in [("etc/shared", "the same everywhere"), ("etc/machine", architecture)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content.as_bytes()).expect("an entry");
    }
    let tar = tar.into_inner().expect("an archive");
    let layer = put(dir, "application/vnd.oci.image.layer.v1.tar", &tar);
    let rootfs = json!({ "type": "layers", "diff_ids": [layer["digest"]] });
    let config = json!({ "architecture": architecture, "os": os, "config": {}, "rootfs": rootfs }).to_string();
    let config = put(dir, "application/vnd.oci.image.config.v1+json", config.as_bytes());
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
    let mut entry = put(dir, MANIFEST, manifest.to_string().as_bytes());
    entry["platform"] = json!({ "os": os, "architecture": architecture });
    entry
}

/// A layout with an index of images, and an attestation of the first.
pub(crate) fn layout(dir: &Path, platforms: &[(&str, &str)]) {
    fs::create_dir_all(dir.join("blobs/sha256")).expect("a folder");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
    let mut manifests: Vec<Value> = platforms.iter().map(|(os, architecture)| image(dir, os, architecture)).collect();
    let mut attestation = put(dir, MANIFEST, b"{}");
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    attestation["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": manifests[0]["digest"],
    });
    manifests.push(attestation);
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }).to_string();
    let mut entry = put(dir, INDEX, index.as_bytes());
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
    fs::write(dir.join("index.json"), json!({ "schemaVersion": 2, "manifests": [entry] }).to_string()).expect("index");
}

fn esgz(args: &[&str]) -> assert_cmd::assert::Assert {
    Command::new(env!("CARGO_BIN_EXE_esgz")).args(args).assert()
}

fn json_of(args: &[&str]) -> Value {
    serde_json::from_slice(&esgz(args).success().get_output().stdout).expect("JSON")
}

#[test]
fn an_index_is_converted_verified_and_shown_as_one() {
    let dir = tempfile::tempdir().expect("a folder");
    layout(&dir.path().join("src"), &[("linux", "amd64"), ("linux", "arm64")]);
    let [src, dst] = [("src", "v1"), ("dst", "v2")].map(|(d, t)| format!("oci:{}/{d}:{t}", dir.path().display()));
    let archive = format!("oci-archive:{}/archive.tar:v3", dir.path().display());
    let all = ["--platform", "all", "--no-reuse"];
    let converted = esgz(&["convert", all[0], all[1], all[2], &src, &dst])
        .success()
        .stderr(predicate::str::contains("v2 linux/arm64: 1 layers").and(predicate::str::contains("is left out")));
    let digest = String::from_utf8_lossy(&converted.get_output().stdout).trim().to_owned();

    let report = json_of(&["inspect", "--json", "--platform", "all", &dst]);
    assert_eq!((&report["digest"], &report["images"][1]["platform"]), (&json!(digest), &json!("linux/arm64")));
    esgz(&["inspect", "--platform", "all", &dst])
        .success()
        .stdout(predicate::str::contains("\nindex\n").and(predicate::str::contains("linux/arm64")));
    esgz(&["inspect", "--platform", "linux/arm64", &dst]).success().stdout(predicate::str::contains("\nlinux/arm64\n"));

    esgz(&["verify", "--platform", "all", &src, &dst])
        .success()
        .stdout(predicate::str::contains("equal to its source, 2 paths").count(2));
    esgz(&["verify", "--platform", "linux/arm64", &src, &dst]).success();
    esgz(&["verify", "--platform", "all", &dst]).success().stdout(predicate::str::contains("conforming").count(2));
    esgz(&["convert", "--platform", "all", &src, &dst])
        .success()
        .stdout(predicate::str::contains(&digest))
        .stderr(predicate::str::contains("index of 2 images: nothing to do"));
    let report = json_of(&["convert", "--json", "--platform", "linux/arm64,linux/amd64", &src, &archive]);
    assert_eq!((&report["digest"], &report["images"][0]["platform"]), (&json!(digest), &json!("linux/amd64")));
    esgz(&["verify", "--platform", "all", &src, &archive]).success();

    // The image of one platform in the index's place.
    esgz(&["convert", &src, &dst]).success();
    let failed = esgz(&["verify", "--platform", "all", &src, &dst]).code(3);
    failed.stdout("one image: the source is an index of linux/amd64, linux/arm64\n");
}

#[test]
fn what_cannot_be_converted_is_refused_with_what_can() {
    let dir = tempfile::tempdir().expect("a folder");
    layout(&dir.path().join("src"), &[("windows", "amd64"), ("linux", "amd64")]);
    let [src, dst] = [("src", "v1"), ("dst", "v2")].map(|(d, t)| format!("oci:{}/{d}:{t}", dir.path().display()));
    esgz(&["convert", "--platform", "all", &src, &dst]).code(1).stderr(
        predicate::str::contains("has an image for windows/amd64")
            .and(predicate::str::contains("hint: name the platforms to convert: --platform linux/amd64")),
    );
    esgz(&["verify", &dst]).code(1);
    for wrong in ["linux", "all,linux/amd64", "linux/amd64,"] {
        esgz(&["convert", "--platform", wrong, &src, &dst])
            .code(2)
            .stderr(predicate::str::contains("expected all, or"));
    }
}
