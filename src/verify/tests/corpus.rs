//! Writes the corpus of the fuzz targets, `testdata/fuzz`: sound inputs of our own making, and damaged ones.

use serde_json::json;

use super::edit::{blob, foreign, open};
use super::images::{everything, upper};
use super::*;
use crate::estargz::{footer, gzip, toc};
use crate::image::names;
use crate::store::Images;

type Files = Vec<(&'static str, Vec<u8>)>;

fn tars() -> Files {
    let file = |name: &str| Item::file(name, "x");
    let long =
        archive(&[file(&"n".repeat(150)), file(&"g".repeat(150)).gnu(), Item::symlink("s", &"l".repeat(150)).gnu()]);
    let mut binary = archive(&[file("binary numbers")]);
    binary[108..116].copy_from_slice(b"\x80\0\0\0\0\x2d\xc6\xc0");
    binary[136..148].copy_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    let everything = archive(&everything());
    vec![
        ("everything", everything.clone()),
        ("truncated", everything[..5000].to_vec()),
        ("whiteouts", archive(&upper())),
        ("long-names", long),
        ("binary-numbers", binary),
        ("largest-size", archive(&[file("x").pax("size", "18446744073709551615"), file("y")])),
        ("sparse", archive(&[file("x").pax("GNU.sparse.major", "1")])),
        ("comment", archive(&[Item::special("g", b'g', (0, 0)), file("x").pax("comment", "c")])),
        ("twice", archive(&[file("a"), Item::dir("a"), file("a/b"), Item::file("a/.wh..wh..opq", ""), file("./a//b")])),
        ("empty", archive(&[])),
    ]
}

fn tocs() -> Files {
    let (dst, _) = converted(&image(&[&everything()]), Layout::Landmark, &["/d/exact"]);
    let listed = serde_json::to_vec(&open(&blob(&dst, 0)).expect("eStargz").toc).expect("JSON");
    let member = gzip::Encoder::new(Level::DEFAULT).member(&archive(&[Item::file(toc::NAME, &listed)]));
    let entry = |more: serde_json::Value| {
        let mut entry = json!({"name": "a", "type": "reg", "size": 4, "offset": 27, "digest": Digest::of(b"esgz")});
        entry.as_object_mut().expect("an entry").extend(more.as_object().expect("an object").clone());
        entry
    };
    let file = |entries: &[serde_json::Value]| json!({"version": 1, "entries": entries}).to_string().into_bytes();
    let chunk = json!({"name": "a", "type": "chunk", "offset": 27, "innerOffset": 2, "chunkOffset": 2, "chunkDigest": Digest::of(b"gz")});
    vec![
        ("listed", listed.clone()),
        ("member", member),
        ("one-file", file(&[entry(json!({}))])),
        ("two-chunks", file(&[entry(json!({"chunkSize": 2, "chunkDigest": Digest::of(b"es")})), chunk.clone()])),
        ("chunk-first", file(&[chunk])),
        ("largest", file(&[entry(json!({"size": u64::MAX, "chunkSize": u64::MAX, "chunkOffset": u64::MAX}))])),
        ("offset-behind", file(&[entry(json!({"offset": u64::MAX, "innerOffset": u64::MAX}))])),
        ("link-to-itself", file(&[json!({"name": "l", "type": "hardlink", "linkName": "l"})])),
        ("truncated", listed[..300].to_vec()),
        ("trailing", [&file(&[])[..], b"\n{}"].concat()),
    ]
}

fn gzips() -> Files {
    let member = |raw: &[u8], level| gzip::Encoder::new(level).member(raw);
    // Without the frame of the member.
    let stream = |raw: &[u8], level| {
        let member = member(raw, level);
        member[10..member.len() - 8].to_vec()
    };
    let noise = [bytes(9000, 1), bytes(9000, 2), bytes(9000, 1), vec![7; 9000]].concat();
    let text = b"a short text, a short text";
    vec![
        ("coded", stream(&noise, Level::DEFAULT)),
        ("stored", stream(&noise[..300], Level::STORED)),
        ("fixed", stream(text, Level::DEFAULT)),
        ("run", stream(&[0; 150_000], Level::DEFAULT)),
        ("member", member(&noise, Level::BEST)),
        ("members", [member(text, Level::FAST), member(b"", Level::FAST), member(&noise[..500], Level::FAST)].concat()),
        ("truncated", member(&noise, Level::DEFAULT)[..5000].to_vec()),
    ]
}

fn footers() -> Files {
    let small = foreign(&[Item::file(".no.prefetch.landmark", b"\x0f"), Item::file("a", bytes(50, 1))]);
    let mut moved = small.clone();
    let end = moved.len() - footer::SIZE;
    moved[end..].copy_from_slice(&footer::write(end as u64));
    // The other kinds that readers know: legacy stargz, external TOC, zstd:chunked; and extra fields too short for any.
    let gzip = |extra: &[u8]| {
        let length = u16::try_from(extra.len()).expect("short").to_le_bytes();
        [b"\x1f\x8b\x08\x04\0\0\0\0\0\xff", &length[..], extra, b"\x01\0\0\xff\xff\0\0\0\0\0\0\0\0"].concat()
    };
    vec![
        ("footer", footer::write(0x1234).to_vec()),
        ("last-offset", footer::write(u64::MAX >> 1).to_vec()),
        ("legacy", gzip(b"0000000000001234STARGZ")),
        ("external", gzip(b"SG\x11\0STARGZEXTERNALTOC")),
        ("zstd-chunked", [&b"\x50\x2a\x4d\x18\x28\0\0\0"[..], &[0; 32], b"GnUlInUx"].concat()),
        ("no-extra", gzip(b"")),
        ("short-extra", gzip(b"SG")),
        ("blob", small.clone()),
        ("blob-cut", small[..small.len() / 2].to_vec()),
        ("toc-is-footer", moved),
    ]
}

fn manifests() -> Files {
    let (dst, _) = converted(&image(&[&[Item::file("a", "x")], &[Item::file("b", "y")]]), Layout::Hot, &["/b"]);
    let image = dst.image("").expect("an image");
    let (manifest, config) = (image.manifest.raw, image.config.raw);
    let text = |v: &serde_json::Value| v.to_string().into_bytes();
    let mut docker = manifest.clone();
    docker["mediaType"] = names::DOCKER_MANIFEST.into();
    let mut odd = manifest.clone();
    odd["layers"][0]["digest"] = "sha512:00".into();
    vec![
        ("manifest", text(&manifest)),
        ("descriptor", text(&manifest["layers"][2])),
        ("config", text(&config)),
        ("docker", text(&docker)),
        ("odd-digest", text(&odd)),
        ("schema-1", text(&json!({"schemaVersion": 1, "fsLayers": [], "history": []}))),
        ("index", text(&json!({"schemaVersion": 2, "mediaType": names::INDEX, "manifests": [manifest["config"]]}))),
        ("no-layers", text(&json!({"schemaVersion": 2, "config": manifest["config"], "layers": []}))),
        ("truncated", text(&manifest)[..200].to_vec()),
    ]
}

fn profiles() -> Files {
    let read = profile(&["/d/a", "/d/b"]);
    let mut chunked = read.clone();
    chunked.files[0].size = 100 << 20;
    chunked.files[0].links = vec!["/d/c".into()];
    chunked.files[0].digest = Some(Digest::of(b""));
    chunked.files[0].ranges = vec![Range(0, 4096, 1), Range(50 << 20, 8192, 2)];
    let mut large = chunked.clone();
    large.header.events = u64::MAX;
    large.header.lost_events = u64::MAX;
    for file in &mut large.files {
        file.size = u64::MAX;
        file.ranges = vec![Range(1, u64::MAX - 1, u64::MAX)];
    }
    let whole = profile::write(&chunked);
    vec![
        ("read", profile::write(&read)),
        ("chunked", whole.clone()),
        ("largest", profile::write(&large)),
        ("none", profile::write(&profile(&[]))),
        ("truncated", whole[..whole.len() / 2].to_vec()),
        ("other-schema", br#"{"schema":"esgz.profile/v9"}"#.to_vec()),
    ]
}

/// Lists of other tools, of files that the target knows.
fn lists() -> Files {
    let json = json!({"version": "v1", "files": [{"path": "/usr/bin/a", "ranges": [[0, 1], [4096, 9000]]}, {"path": "/bin/a"}]});
    let record = json!({"path": "usr/bin/a", "manifestDigest": Digest::of(b""), "layerIndex": 2});
    vec![
        ("ctr-remote", format!("{record}\n{}\n", json!({"path": "bin/a"})).into_bytes()),
        ("nydus", b"/usr/bin/a\n/usr/lib\n/loop/y\n".to_vec()),
        ("nydus-csv", b"path,size,elapsed\n\"/usr/bin/a\",10000,250\n/b,1.5 KiB,2.500 s\n".to_vec()),
        ("nydus-json", json.to_string().into_bytes()),
        ("paths", b"# comment\n/usr/**/*.so\n/bin/?\n/usr/bin/\\a\n..\n".to_vec()),
    ]
}

#[test]
#[ignore = "writes testdata/fuzz"]
fn write_the_fuzz_corpus() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz");
    let targets = [
        ("gzip", gzips()),
        ("tar", tars()),
        ("toc", tocs()),
        ("footer", footers()),
        ("manifest", manifests()),
        ("profile", profiles()),
        ("list", lists()),
    ];
    for (target, files) in targets {
        std::fs::create_dir_all(root.join(target)).expect("a folder");
        for (name, bytes) in files {
            std::fs::write(root.join(target).join(name), bytes).expect("written");
        }
    }
}
