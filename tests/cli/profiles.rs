//! `esgz profile push` and `pull`, and `esgz convert --profile from-image`, on an OCI layout.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use predicates::prelude::*;
use serde_json::{Value, json};

use super::index::layout;

fn esgz(args: &[&str]) -> Assert {
    Command::new(env!("CARGO_BIN_EXE_esgz")).args(args).assert()
}

/// A profile that read a file of the layout's images.
fn profile(path: &Path, platform: &str, image: Option<&str>) -> Vec<u8> {
    let read = |p: &str, size: u64| json!({"path": p, "origin": "image", "size": size, "first_touch_ms": 1, "kinds": ["read"], "ranges": [[0, size, 1]]});
    let mut header = json!({
        "platform": platform, "command": ["x"], "recorder": {"name": "filemap", "version": "0", "inflation": ""},
        "started_at": "2026-01-01T00:00:00Z", "until": "exit", "events": 1, "lost_events": 0,
    });
    if let Some(digest) = image {
        header["image_digest"] = digest.into();
    }
    let profile = json!({"schema": "esgz.profile/v1", "header": header, "files": [read("/etc/shared", 19)]});
    fs::write(path, profile.to_string()).expect("a profile");
    profile.to_string().into_bytes()
}

#[test]
fn a_profile_goes_beside_its_image_and_comes_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name).display().to_string();
    layout(&dir.path().join("l"), &[("linux", "amd64"), ("linux", "arm64")]);
    let image = format!("oci:{}:v1", at("l"));
    let bytes = profile(&dir.path().join("p"), "linux/amd64", None);
    esgz(&["profile", "pull", &image])
        .code(1)
        .stderr(predicate::str::contains("there is none").and(predicate::str::contains("profile push")));

    let pushed = esgz(&["profile", "push", &at("p"), &image])
        .success()
        .stderr(predicate::str::contains("does not say which image"));
    let digest = String::from_utf8_lossy(&pushed.get_output().stdout).trim().to_owned();
    esgz(&["profile", "pull", &image, "-o", &at("back")]).success().stderr(predicate::str::contains(digest.as_str()));
    assert_eq!(fs::read(at("back")).expect("written"), bytes);
    assert_eq!(esgz(&["profile", "pull", &image]).success().get_output().stdout, bytes);
    // The other platform has none.
    esgz(&["profile", "pull", "--platform", "linux/arm64", &image]).code(1);

    esgz(&["profile", "push", "--name", "L4", &at("p"), &image]).success();
    let error = "(there are L4, default)";
    esgz(&["profile", "pull", &image])
        .code(1)
        .stderr(predicate::str::contains(error).and(predicate::str::contains("--name")));
    esgz(&["profile", "pull", "--list", &image]).success().stdout(
        predicate::str::contains("L4")
            .and(predicate::str::contains("filemap"))
            .and(predicate::str::contains(digest.as_str())),
    );
    let list = esgz(&["profile", "pull", "--list", "--json", &image]).success();
    let list: Value = serde_json::from_slice(&list.get_output().stdout).expect("JSON");
    assert_eq!((&list[0]["name"], &list[1]["digest"]), (&json!("L4"), &json!(digest)));
    assert_eq!(esgz(&["profile", "pull", "--name", "L4", &image]).success().get_output().stdout, bytes);
}

#[test]
fn what_does_not_fit_is_said_and_what_is_no_profile_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name).display().to_string();
    layout(&dir.path().join("l"), &[("linux", "amd64")]);
    let image = format!("oci:{}:v1", at("l"));
    let other = format!("sha256:{}", "0".repeat(64));
    profile(&dir.path().join("p"), "linux/arm64", Some(&other));
    let words = || {
        predicate::str::contains(format!("recorded in image {other}"))
            .and(predicate::str::contains("recorded on linux/arm64"))
    };
    esgz(&["profile", "push", &at("p"), &image]).success().stderr(words());
    esgz(&["profile", "pull", &image, "-o", &at("back")]).success().stderr(words());

    fs::write(at("p"), r#"{"schema":"x"}"#).expect("a file");
    esgz(&["profile", "push", &at("p"), &image]).code(1).stderr(predicate::str::contains("schema"));
    esgz(&["profile", "push", "--name", "a b", &at("p"), &image]).code(2);
    let archive = format!("oci-archive:{}", at("x.tar"));
    esgz(&["profile", "pull", &archive]).code(1).stderr(predicate::str::contains("expected a registry or oci:DIR:TAG"));
    let missing = format!("oci:{}:v1", at("none"));
    esgz(&["profile", "push", &at("back"), &missing]).code(1);
    assert!(!Path::new(&at("none")).exists(), "a push makes no folder");
}

#[test]
fn convert_takes_the_profile_from_beside_the_image() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name).display().to_string();
    layout(&dir.path().join("l"), &[("linux", "amd64"), ("linux", "arm64")]);
    let image = format!("oci:{}:v1", at("l"));
    let to = |name: &str| format!("oci:{}:{name}", at("out"));
    let convert = |more: &[&str], name: &str| {
        let to = to(name);
        let args = [&["convert", "--no-reuse"], more, &[&image, &to]].concat();
        esgz(&args)
    };
    convert(&["--profile", "from-image"], "none").code(1).stderr(predicate::str::contains("profile pull --list"));
    profile(&dir.path().join("p"), "linux/amd64", None);
    esgz(&["profile", "push", &at("p"), &image]).success();

    let by_file = convert(&["--profile", &at("p")], "file").success().get_output().stdout.clone();
    let by_image = convert(&["--profile", "from-image"], "image").success().get_output().stdout.clone();
    assert_eq!(by_file, by_image, "the same profile makes the same image");
    assert_ne!(by_file, convert(&[], "plain").success().get_output().stdout.clone());

    esgz(&["profile", "push", "--name", "L4", &at("p"), &image]).success();
    convert(&["--profile", "from-image"], "two").code(1).stderr(predicate::str::contains("there are L4, default"));
    let named = convert(&["--profile", "from-image:L4"], "named").success().get_output().stdout.clone();
    assert_eq!(by_file, named);
    // Of the index only one image has a profile: the other is converted without.
    let all = ["--platform", "all"];
    let by_image =
        convert(&[&all[..], &["--profile", "from-image:L4"]].concat(), "all").success().get_output().stdout.clone();
    let by_file =
        convert(&[&all[..], &["--profile", &at("p")]].concat(), "all-file").success().get_output().stdout.clone();
    assert_eq!(by_file, by_image);
}
