//! `esgz profile merge`, `diff`, `show`, `import` and `export`: what the command line adds to the library.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use esgz::digest::Digest;
use esgz::profile::{Profile, read};
use predicates::prelude::*;
use serde_json::{Value, json};

fn esgz(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_esgz"));
    command.arg("profile").args(args);
    command
}

/// A profile of files with one range each: path, size, offset, length.
fn profile(dir: &Path, name: &str, files: &[(&str, u64, u64, u64)]) -> String {
    let files: Vec<Value> = files
        .iter()
        .map(|(path, size, at, len)| {
            json!({"path": path, "origin": "image", "size": size, "first_touch_ms": 1, "kinds": ["read"], "ranges": [[at, len, 1]]})
        })
        .collect();
    let header = json!({
        "platform": "linux/amd64", "command": ["true"], "recorder": {"name": "filemap", "version": "0", "inflation": ""},
        "started_at": "2026-01-01T00:00:00Z", "until": "exit", "events": 1, "lost_events": 0,
    });
    let path = dir.join(name);
    fs::write(&path, json!({"schema": "esgz.profile/v1", "header": header, "files": files}).to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn parsed(bytes: &[u8]) -> Profile {
    read(bytes).expect("a profile")
}

#[test]
fn profiles_are_merged_by_mode_from_files_and_stdin() {
    let dir = tempfile::tempdir().unwrap();
    let a = profile(dir.path(), "a", &[("/f", 100, 0, 50), ("/one", 10, 0, 10)]);
    let b = profile(dir.path(), "b", &[("/f", 100, 20, 50), ("/other", 10, 0, 10)]);
    for (mode, files, touched) in [("union", 3, 70), ("intersection", 1, 30), ("quantile=0.5", 3, 70)] {
        let out =
            esgz(&["merge", &a, "-", "-o", "-", "--mode", mode]).write_stdin(fs::read(&b).unwrap()).assert().success();
        let p = parsed(&out.get_output().stdout);
        let f = p.files.iter().find(|f| f.path == "/f").expect("in all modes");
        assert_eq!((p.files.len(), f.touched_bytes(), p.header.merged.len()), (files, touched, 2), "{mode}");
    }
    esgz(&["merge", "-", "-", "-o", "-"]).assert().code(2).stderr(predicate::str::contains("- is given twice"));
    esgz(&["merge", &a, "-o", "/none/x"]).assert().code(1).stderr(predicate::str::contains("cannot write /none/x"));
    let target = dir.path().join("merged");
    esgz(&["merge", &a, &b, "-o", target.to_str().unwrap()]).assert().success().stdout("");
    assert_eq!(parsed(&fs::read(&target).unwrap()).files.len(), 3);
    fs::write(&target, "{}").unwrap();
    let bad = esgz(&["merge", &a, target.to_str().unwrap(), "-o", "-"]).assert().code(1).stdout("");
    bad.stderr(predicate::str::contains("merged: profile has schema"));
}

#[test]
fn a_difference_can_fail_a_gate() {
    let dir = tempfile::tempdir().unwrap();
    let old = profile(dir.path(), "old", &[("/f", 100, 0, 75), ("/gone", 10, 0, 10)]);
    let new = profile(dir.path(), "new", &[("/f", 100, 0, 100)]);
    let out = esgz(&["diff", &old, &new, "--json"]).assert().success();
    let json: Value = serde_json::from_slice(&out.get_output().stdout).unwrap();
    assert_eq!((&json["total"]["recall"], &json["counts"]["gone"]), (&json!(0.75), &json!(1)));
    esgz(&["diff", &old, &new, "--fail-above", "25"]).assert().success();
    let fails = esgz(&["diff", &old, &new, "--fail-above", "24.9", "--limit", "1"]).assert().code(3);
    fails
        .stdout(predicate::str::contains("OLD has 75.00 % of the"))
        .stdout(predicate::str::contains("and 1 more files"))
        .stderr(predicate::str::contains("25.00 % of the bytes that NEW touched are not in OLD"));
    esgz(&["diff", &old, &new, "--fail-above", "101"]).assert().code(2);
}

#[test]
fn a_profile_is_shown_as_table_json_and_page() {
    let dir = tempfile::tempdir().unwrap();
    let p = profile(dir.path(), "p", &[("/opt/big", 1 << 30, 0, 4096), ("/opt/</script>", 10, 0, 10)]);
    esgz(&["show", &p]).assert().success().stdout(predicate::str::contains("SPARSELY READ"));
    let out = esgz(&["show", &p, "--json"]).assert().success();
    let json: Value = serde_json::from_slice(&out.get_output().stdout).unwrap();
    assert_eq!((&json["total"]["files"], &json["sparse"][0]["path"]), (&json!(2), &json!("/opt/big")));
    let page = dir.path().join("p.html");
    esgz(&["show", &p, "--html", page.to_str().unwrap()]).assert().success().stdout("");
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.starts_with("<!DOCTYPE html>") && html.matches("</script>").count() == 2);
    let again = esgz(&["show", "-", "--html", "-"]).write_stdin(fs::read(&p).unwrap()).assert().success();
    assert_eq!(again.get_output().stdout, html.as_bytes());
}

#[test]
fn lists_go_out_and_come_in_with_a_folder_of_files() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::write(root.join("usr/bin/x"), [7; 5000]).unwrap();
    fs::write(root.join("usr/bin/y"), [7; 10]).unwrap();
    std::os::unix::fs::symlink("usr/bin", root.join("bin")).unwrap();
    let rootfs = root.to_str().unwrap();
    let p = profile(dir.path(), "p", &[("/usr/bin/x", 5000, 0, 4096)]);
    for (to, from, touched) in [
        ("ctr-remote", "ctr-remote", 5000),
        ("nydus", "nydus", 5000),
        ("nydus-ranges", "nydus", 4096),
        ("paths", "paths", 5000),
    ] {
        let list = esgz(&["export", "--to", to, &p]).assert().success().get_output().stdout.clone();
        let back = esgz(&["import", "--from", from, "-", "--rootfs", rootfs]).write_stdin(list).assert().success();
        let back = parsed(&back.get_output().stdout);
        let f = &back.files[0];
        assert_eq!((f.path.as_str(), f.size, f.touched_bytes()), ("/usr/bin/x", 5000, touched), "{to}");
        assert_eq!(back.header.recorder.name, format!("import ({from})"));
    }
    let import = |list: &str, more: &[&str]| {
        esgz(&[&["import", "--from", "paths", "-"], more].concat()).write_stdin(list).assert()
    };
    let out = import("/bin/*\n/nope\n", &["--rootfs", rootfs]).code(1);
    out.stderr(predicate::str::contains("no entry stands for a file of the image"));
    let out = import("/usr/bin/*\n/nope\n", &["--rootfs", rootfs]).success();
    assert_eq!(parsed(&out.get_output().stdout).files.len(), 2);
    out.stderr(predicate::str::contains("1 entries stand for no file"));
    let out = import("/bin\n", &["--rootfs", rootfs]).success();
    assert_eq!(parsed(&out.get_output().stdout).files.len(), 2, "a folder behind a symlink");
    import("/a/*\n", &[])
        .code(1)
        .stderr(predicate::str::contains("line 1: found \"/a/*\"").and(predicate::str::contains("--rootfs")));
    esgz(&["import", "--from", "ctr-remote", "-"])
        .write_stdin("x\n")
        .assert()
        .code(1)
        .stderr(predicate::str::contains("-: line 1:"));
}

/// An image of two layers: the upper one replaces a file and removes another.
fn layout(dir: &Path) -> String {
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let put = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(dir.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    };
    let layer = |files: &[(&str, usize)]| {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, size) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(*size as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, vec![7; *size].as_slice()).unwrap();
        }
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Link);
        link.set_size(0);
        tar.append_link(&mut link, "l/hard", files[0].0).unwrap();
        put("application/vnd.oci.image.layer.v1.tar", &tar.into_inner().unwrap())
    };
    let layers = [layer(&[("a", 100), ("b", 200), ("c", 300)]), layer(&[("b", 250), (".wh.c", 0)])];
    let ids: Vec<_> = layers.iter().map(|l| l["digest"].clone()).collect();
    let config = json!({ "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": ids } });
    let config = put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
    let mut entry = put(media_type, manifest.to_string().as_bytes());
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
    fs::write(dir.join("index.json"), json!({ "schemaVersion": 2, "manifests": [entry] }).to_string()).unwrap();
    format!("oci:{}:v1", dir.display())
}

#[test]
fn an_image_tells_sizes_and_layers() {
    let dir = tempfile::tempdir().unwrap();
    let image = layout(&dir.path().join("layout"));
    let list = "/a\n/b\n/c\n/l/hard\n";
    let out = esgz(&["import", "--from", "paths", "-", "--image", &image]).write_stdin(list).assert().success();
    let p = parsed(&out.get_output().stdout);
    let got: Vec<_> = p.files.iter().map(|f| (f.path.as_str(), f.size)).collect();
    assert_eq!(got, [("/a", 100), ("/b", 250), ("/l/hard", 250)]);
    assert!(p.header.image_digest.is_some() && p.header.image.as_deref() == Some(image.as_str()));
    let stdout = out.get_output().stdout.clone();
    let out = esgz(&["show", "-", "--image", &image, "--json"]).write_stdin(stdout).assert().success();
    let json: Value = serde_json::from_slice(&out.get_output().stdout).unwrap();
    let layers: Vec<_> =
        json["layers"].as_array().unwrap().iter().map(|l| (l["files"].clone(), l["touched"].clone())).collect();
    assert_eq!(layers, [(json!(1), json!(100)), (json!(2), json!(500)), (json!(0), json!(0))]);
}
