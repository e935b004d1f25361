//! `esgz plan`, and what `esgz convert --layout auto` makes of it.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use esgz::digest::Digest;
use predicates::prelude::*;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

fn esgz(args: &[&str]) -> Assert {
    Command::new(env!("CARGO_BIN_EXE_esgz")).args(args).assert()
}

fn put(dir: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = Digest::of(bytes);
    fs::write(dir.join("blobs/sha256").join(digest.hex()), bytes).expect("a blob");
    json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
}

/// An image with a small file and one of 20 MiB, of which a third is read here and there.
fn image(dir: &Path) {
    fs::create_dir_all(dir.join("blobs/sha256")).expect("a folder");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
    let mut tar = tar::Builder::new(Vec::new());
    for (name, size) in [("small", 9000), ("large.so", 20 * MIB)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, std::io::Read::take(std::io::repeat(b'x'), size)).expect("an entry");
    }
    let layer = put(dir, "application/vnd.oci.image.layer.v1.tar", &tar.into_inner().expect("an archive"));
    let rootfs = json!({ "type": "layers", "diff_ids": [layer["digest"]] });
    let config = json!({ "architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs }).to_string();
    let config = put(dir, "application/vnd.oci.image.config.v1+json", config.as_bytes());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer] });
    let mut entry = put(dir, media_type, manifest.to_string().as_bytes());
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
    fs::write(dir.join("index.json"), json!({ "schemaVersion": 2, "manifests": [entry] }).to_string()).expect("index");
}

fn profile(path: &Path) {
    let file = |path: &str, size: u64, ranges: Value| json!({"path": path, "origin": "image", "size": size, "first_touch_ms": 1, "kinds": ["read"], "ranges": ranges});
    let pieces: Vec<Value> = (0..7).map(|i| json!([i * 3 * MIB, MIB, 100 + i])).collect();
    let profile = json!({
        "schema": "esgz.profile/v1",
        "header": {
            "platform": "linux/amd64", "command": ["x"], "recorder": {"name": "filemap", "version": "0", "inflation": ""},
            "host": {"page_cache": "dropped before the start"}, "phases": [{"name": "start", "at_ms": 0}, {"name": "ready", "at_ms": 5000}],
            "started_at": "2026-01-01T00:00:00Z", "until": "exit", "events": 1, "lost_events": 0,
        },
        "files": [file("/small", 9000, json!([[0, 9000, 1]])), file("/large.so", 20 * MIB, json!(pieces))],
    });
    fs::write(path, profile.to_string()).expect("a profile");
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        image(&dir.path().join("l"));
        profile(&dir.path().join("p.json"));
        Self(dir)
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn src(&self) -> String {
        format!("oci:{}:v1", self.at("l"))
    }

    fn plan(&self, more: &[&str]) -> Assert {
        esgz(&[&["plan", &self.src(), "--profile", &self.at("p.json")], more].concat())
    }

    fn json(&self, more: &[&str]) -> Value {
        let out = self.plan(&[more, &["--json"]].concat()).success();
        serde_json::from_slice(&out.get_output().stdout).expect("JSON")
    }
}

#[test]
fn a_plan_says_what_it_chose_and_why() {
    let place = Place::new();
    let words = [
        "layout ",
        "- not ",
        "warm start: 5.00 s to ready (phase ready of the profile)",
        "original-cold",
        "hot+warm-node",
    ];
    let plan = place.plan(&[]).success();
    let text = String::from_utf8_lossy(&plan.get_output().stdout).into_owned();
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in\n{text}");
    }
    assert!(!text.contains("+startup"), "the profile wrote no bytecode");

    let report = place.json(&[]);
    let arms = report["arms"].as_array().expect("arms");
    assert_eq!(arms.len(), 8);
    for arm in arms {
        let parts: u64 = arm["parts"].as_array().expect("parts").iter().filter_map(|p| p["us"].as_u64()).sum();
        assert_eq!(arm["total_ms"], json!((parts + 500) / 1000), "the parts add up in {arm}");
    }
    assert_eq!(report["layer_bytes"].as_array().map(Vec::len), Some(1));
    assert_eq!((&report["workload"]["ready_ms"], &report["workload"]["files"]), (&json!(5000), &json!(2)));
    assert_eq!(report, place.json(&[]), "the same question has the same answer");
}

#[test]
fn link_and_node_can_be_named_changed_and_read_from_a_file() {
    let place = Place::new();
    let total = |report: &Value, arm: &str| {
        let found = report["arms"].as_array().expect("arms").iter().find(|a| a["arm"] == arm).expect("the arm");
        found["total_ms"].as_u64().expect("a number")
    };
    let (rig, slow) = (place.json(&[]), place.json(&["--link", "slow"]));
    assert!(total(&slow, "plain") > total(&rig, "plain"));
    assert_eq!(total(&slow, "original-warm"), total(&rig, "original-warm"));
    fs::write(place.at("m.json"), r#"{"link": {"latency_ms": 7}, "node": {"cores": 3}}"#).expect("a file");
    let by_file = place.json(&["--model", &place.at("m.json")]);
    assert_eq!(by_file, place.json(&["--latency-ms", "7", "--cores", "3"]));
    assert_eq!(by_file["model"]["link"]["latency_ms"], 7);
    assert_eq!(place.json(&["--model", "gke-l4"])["model"]["node"]["cores"], 8);
    assert_eq!(place.json(&["--warm-ms", "9000"])["workload"]["ready_ms"], 9000);
    let lazy = place.json(&["--recorded-lazy"])["workload"]["ready_ms"].as_u64().expect("a number");
    assert!((1666..5000).contains(&lazy), "{lazy}");

    let written = place.json(&["--startup-ms", "3000"]);
    assert_eq!(total(&written, "original-warm+startup"), 3250, "as measured, and the container");
    assert_eq!(
        total(&written, "original-warm"),
        total(&rig, "original-warm"),
        "a start without its writes takes what it took"
    );
}

#[test]
fn what_is_no_model_is_refused() {
    let place = Place::new();
    fs::write(place.at("m.json"), r#"{"node": {"core": 3}}"#).expect("a file");
    fs::write(place.at("big.json"), " ".repeat(70_000)).expect("a file");
    for (flags, word) in [
        (["--model", &place.at("m.json")], "unknown field `core`"),
        (["--model", &place.at("big.json")], "expected at most 65536 bytes"),
        (["--model", "moon"], "rig, gke-l4 or a JSON file"),
        (["--link", "moon"], "expected rig, gke-ar, lan, slow"),
        (["--bandwidth-mb", "0"], "link.bandwidth_mb is 0: expected 1 to"),
        (["--cores", "0"], "node.cores is 0"),
    ] {
        place.plan(&flags).code(2).stderr(predicate::str::contains(word));
    }
    esgz(&["plan", &place.src()]).code(2).stderr(predicate::str::contains("--profile"));
}

#[test]
fn convert_carries_the_plan_out_and_flags_win() {
    let place = Place::new();
    let convert = |more: &[&str], to: &str| {
        let to = format!("oci:{}:{to}", place.at("out"));
        esgz(&[&["convert", "--json", "--profile", &place.at("p.json")], more, &[&place.src(), &to]].concat())
    };
    let report =
        |assert: Assert| -> Value { serde_json::from_slice(&assert.success().get_output().stdout).expect("JSON") };
    let hot_bytes = |r: &Value| r["layers"].as_array().and_then(|l| l.last()).map(|l| l["uncompressed_size"].clone());

    // Over a far link the large file is cheaper in the hot layer; its usual place is a lazy one.
    let far = ["--latency-ms", "300", "--bandwidth-mb", "400", "--hot-layer", "copy"];
    let usual = report(convert(&["--layout", "hot"], "usual"));
    let placed = report(convert(&far, "t"));
    assert_eq!(placed["layout"], "hot");
    assert!(hot_bytes(&placed).and_then(|n| n.as_u64()) > Some(20 * MIB), "{placed}");
    assert!(hot_bytes(&usual).and_then(|n| n.as_u64()) < Some(MIB), "{usual}");
    // The same again is known, another plan is not.
    assert_eq!(report(convert(&far, "t"))["unchanged"], true);
    assert_eq!(report(convert(&[&far[..], &["--no-reuse"]].concat(), "u"))["digest"], placed["digest"]);
    let near = report(convert(&["--link", "lan"], "t"));
    assert_eq!(
        (&near["unchanged"], &near["layout"]),
        (&json!(false), &json!("plain")),
        "two files are not worth a layer"
    );
    esgz(&["verify", &place.src(), &format!("oci:{}:u", place.at("out"))]).success();

    // What is asked for is done, whatever is predicted.
    assert_eq!(report(convert(&["--link", "lan", "--hot-layer", "copy"], "c"))["layout"], "hot");
    let pinned = report(convert(&[&far[..], &["--chunk-size", "1048576", "--hot-level", "0"]].concat(), "d"));
    assert_ne!(pinned["digest"], placed["digest"]);
    convert(&["--layout", "hot", "--link", "lan"], "x")
        .code(2)
        .stderr(predicate::str::contains("nothing is predicted").and(predicate::str::contains("--layout auto")));
}
