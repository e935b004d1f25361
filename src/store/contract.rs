//! What holds for every store.

use std::io::{self, Read};

use serde_json::json;

use super::layout::Layout;
use super::registry::Registry;
use super::registry::fake::Fake;
use super::{Blobs, Error, Images, Kind};
use crate::digest::Digest;
use crate::image::{Descriptor, Reference, names};

/// Gives the store with an image name.
type Open<'a> = &'a dyn Fn(&str) -> Box<dyn Images>;

fn blob(content: &[u8]) -> Descriptor {
    Descriptor::new(names::LAYER_TAR, Digest::of(content), content.len() as u64)
}

fn read(store: &dyn Blobs, blob: &Descriptor) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    store.open(blob)?.read_to_end(&mut bytes).map_err(|e| Error::from_io(e, "it"))?;
    Ok(bytes)
}

/// Manifest bytes of an image of one layer, without storing them.
pub(super) fn image(store: &dyn Images, text: &str, architecture: &str) -> Vec<u8> {
    let layer = blob(text.as_bytes());
    store.put(&layer, &text.as_bytes().to_vec()).expect("put");
    let rootfs = json!({"type": "layers", "diff_ids": [layer.digest.to_string()]});
    let config = json!({"architecture": architecture, "os": "linux", "rootfs": rootfs}).to_string().into_bytes();
    let mut descriptor = blob(&config);
    descriptor.media_type = names::CONFIG.into();
    store.put(&descriptor, &config).expect("put");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": names::MANIFEST, "config": descriptor.to_json(), "layers": [layer.to_json()],
        "unknown": {"kept": true},
    });
    manifest.to_string().into_bytes()
}

fn blobs_come_out_as_they_went_in(open: Open<'_>) {
    let store = open("t");
    let large: Vec<u8> = (0..900_000_u32).flat_map(u32::to_le_bytes).collect();
    for content in [&b"x"[..], b"a few bytes", &large, b""] {
        let blob = blob(content);
        assert!(!store.has(&blob.digest).expect("asked"));
        for _ in 0..2 {
            store.put(&blob, &content.to_vec()).expect("put is idempotent");
        }
        assert!(store.has(&blob.digest).expect("asked"));
        assert!(read(&*store, &blob).expect("there") == content);
        let at = store.open_at(&blob).expect("there");
        assert_eq!(at.size(), blob.size);
        let n = content.len();
        for (from, to) in [(0, 0), (0, n), (n, n), (n / 3, n / 2), (n.saturating_sub(1), n), (0, n.min(1))] {
            let mut buf = vec![0; to - from];
            at.read_exact_at(&mut buf, from as u64).expect("inside");
            assert!(buf == content[from..to], "{from}..{to}");
        }
        for (from, len) in [(blob.size, 1), (0, n + 1), (u64::MAX, 2), (blob.size + 1, 1)] {
            let error = at.read_exact_at(&mut vec![0; len], from).expect_err("outside");
            assert!(matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput), "{error:?}");
        }
    }
}

fn a_missing_blob_is_not_found(open: Open<'_>) {
    let (store, blob) = (open("t"), blob(b"never put"));
    assert_eq!(read(&*store, &blob).expect_err("missing").kind(), Kind::NotFound);
    let ranged = store.open_at(&blob).map_err(io::Error::from).and_then(|at| at.read_exact_at(&mut [0; 2], 0));
    let error = ranged.expect_err("missing");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains(&blob.digest.to_string()), "{error}");
}

fn content_that_is_not_the_digest_never_appears(open: Open<'_>) {
    let store = open("t");
    let right = b"the right content for it".to_vec();
    for (wrong, size) in [
        (&b"the wrong content for it"[..], right.len()),
        (b"short", right.len()),
        (&right, right.len() - 1),
        (b"", right.len()),
    ] {
        let descriptor = Descriptor::new("t", Digest::of(&right), size as u64);
        let error = store.put(&descriptor, &wrong.to_vec()).expect_err("wrong");
        assert_eq!(error.kind(), Kind::Corrupt, "{error:?}");
        assert!(!store.has(&descriptor.digest).expect("asked"));
    }
}

fn a_blob_of_another_size_is_corrupt(open: Open<'_>) {
    let (store, content) = (open("t"), b"twelve bytes".to_vec());
    let mut blob = blob(&content);
    store.put(&blob, &content).expect("put");
    for size in [11, 13] {
        blob.size = size;
        assert_eq!(read(&*store, &blob).expect_err("wrong size").kind(), Kind::Corrupt, "{size}");
    }
}

fn an_image_comes_out_as_it_went_in(open: Open<'_>) {
    let store = open("round");
    let bytes = image(&*store, "layer", "amd64");
    let digest = store.put_manifest(names::MANIFEST, &bytes).expect("put");
    assert_eq!(digest, Digest::of(&bytes));
    let image = open("round").image("linux/amd64").expect("there");
    assert_eq!(image.descriptor, Descriptor::new(names::MANIFEST, digest, bytes.len() as u64));
    assert_eq!(image.manifest.raw["unknown"]["kept"], true);
    assert_eq!((image.config.platform().as_str(), image.manifest.layers.len()), ("linux/amd64", 1));
}

fn a_name_moves_to_the_last_image(open: Open<'_>) {
    let store = open("moves");
    let mut last = None;
    for text in ["first", "second"] {
        let bytes = image(&*store, text, "amd64");
        last = Some(store.put_manifest(names::MANIFEST, &bytes).expect("put"));
    }
    assert_eq!(Some(store.image("linux/amd64").expect("there").descriptor.digest), last);
}

fn a_name_of_nothing_is_not_found(open: Open<'_>) {
    open("other").has(&Digest::of(b"")).expect("the store is there");
    assert_eq!(open("nobody").image("linux/amd64").expect_err("no such name").kind(), Kind::NotFound);
}

fn a_manifest_without_its_blobs_gets_no_name(open: Open<'_>) {
    let store = open("early");
    let bytes = image(&*store, "there", "amd64");
    let missing = String::from_utf8(bytes)
        .expect("JSON")
        .replace(&blob(b"there").digest.to_string(), &Digest::of(b"not").to_string());
    store.put_manifest(names::MANIFEST, missing.as_bytes()).expect_err("a layer is missing");
    assert_eq!(store.image("linux/amd64").expect_err("no name").kind(), Kind::NotFound);
}

fn an_index_leads_to_the_image_of_the_platform(open: Open<'_>) {
    let mut entries = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let store = open(architecture);
        let bytes = image(&*store, &format!("for {architecture}"), architecture);
        let digest = store.put_manifest(names::MANIFEST, &bytes).expect("put");
        let mut entry = Descriptor::new(names::MANIFEST, digest, bytes.len() as u64).to_json();
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entries.push(entry);
    }
    let mut attestation = entries[0].clone();
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    entries.insert(0, attestation);
    let index = json!({"schemaVersion": 2, "mediaType": names::INDEX, "manifests": entries}).to_string();
    let store = open("multi");
    store.put_manifest(names::INDEX, index.as_bytes()).expect("put");
    for platform in ["linux/amd64", "linux/arm64"] {
        assert_eq!(store.image(platform).expect("there").config.platform(), platform);
    }
    let error = store.image("linux/s390x").expect_err("not there");
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().ends_with("has no image for linux/s390x: found linux/amd64, linux/arm64"), "{error}");
}

fn a_part_is_there_by_its_digest_and_has_no_name(open: Open<'_>) {
    let store = open("parts");
    let bytes = image(&*store, "part", "amd64");
    let digest = store.put_part(names::MANIFEST, &bytes).expect("put");
    let part = Descriptor::new(names::MANIFEST, digest, bytes.len() as u64);
    assert_eq!(store.manifest(Some(&part)).expect("there").bytes, bytes);
    assert_eq!(store.manifest(None).expect_err("no name").kind(), Kind::NotFound);
    let missing = String::from_utf8(bytes).expect("JSON").replace(&part_layer(b"part"), &part_layer(b"not"));
    store.put_part(names::MANIFEST, missing.as_bytes()).expect_err("a layer is missing");
    let index = json!({"schemaVersion": 2, "mediaType": names::INDEX, "manifests": [part.to_json()]}).to_string();
    let digest = store.put_manifest(names::INDEX, index.as_bytes()).expect("put");
    let found = open("parts").manifest(None).expect("there");
    assert_eq!((found.descriptor.digest, found.bytes), (digest, index.into_bytes()));
}

fn part_layer(content: &[u8]) -> String {
    blob(content).digest.to_string()
}

fn many_threads_share_a_store(open: Open<'_>) {
    let store = &*open("t");
    std::thread::scope(|scope| {
        for i in 0..8_u8 {
            scope.spawn(move || {
                let content = vec![i / 2; 300_000];
                let blob = blob(&content);
                store.put(&blob, &content).expect("put");
                assert!(read(store, &blob).expect("there") == content);
            });
        }
    });
}

const ALL: [fn(Open<'_>); 11] = [
    blobs_come_out_as_they_went_in,
    a_missing_blob_is_not_found,
    content_that_is_not_the_digest_never_appears,
    a_blob_of_another_size_is_corrupt,
    an_image_comes_out_as_it_went_in,
    a_name_moves_to_the_last_image,
    a_name_of_nothing_is_not_found,
    a_manifest_without_its_blobs_gets_no_name,
    an_index_leads_to_the_image_of_the_platform,
    a_part_is_there_by_its_digest_and_has_no_name,
    many_threads_share_a_store,
];

#[test]
fn a_layout_folder_keeps_the_contract() {
    for case in ALL {
        let dir = tempfile::tempdir().expect("a folder");
        case(&|tag| Box::new(Layout::open(&dir.path().join("l"), Some(tag), true).expect("a layout")));
    }
}

#[test]
fn a_registry_keeps_the_contract() {
    for case in ALL {
        let fake = Fake::start();
        case(&|tag| Box::new(fake.registry(&format!(":{tag}"))));
    }
}

#[test]
#[ignore = "needs a registry: ESGZ_TEST_REGISTRY=host:port"]
fn a_real_registry_keeps_the_contract() {
    let host = std::env::var("ESGZ_TEST_REGISTRY").expect("ESGZ_TEST_REGISTRY");
    for (i, case) in ALL.iter().enumerate() {
        case(&|tag| {
            let name = format!("{host}/contract-{}/case-{i}:{tag}", std::process::id());
            let Ok(Reference::Registry(reference)) = name.parse() else { panic!("{name}") };
            Box::new(Registry::open(&reference, true).expect("a registry"))
        });
    }
}

/// The other side is skopeo: what we write it must copy without a change, and what it writes we must read.
#[test]
#[ignore = "needs skopeo and a registry: ESGZ_TEST_REGISTRY=host:port"]
fn skopeo_and_we_read_each_other() {
    let host = std::env::var("ESGZ_TEST_REGISTRY").expect("ESGZ_TEST_REGISTRY");
    let dir = tempfile::tempdir().expect("a folder");
    let name = |tag: &str| format!("{host}/skopeo-{}/image:{tag}", std::process::id());
    let folder = |n: &str| format!("oci:{}/{n}:v1", dir.path().display());
    let open = |name: &str, write| super::open(&name.parse().expect("a reference"), write).expect("a store");
    let skopeo = |from: &str, to: &str| {
        let flags = ["copy", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false", from, to];
        let run = std::process::Command::new("skopeo").args(flags).output().expect("skopeo");
        assert!(run.status.success(), "{from} {to}: {}", String::from_utf8_lossy(&run.stderr));
    };
    let digest_of = |name: &str| open(name, false).image("linux/amd64").expect("an image").descriptor.digest;
    let (ours, theirs, pushed) = (folder("ours"), folder("theirs"), name("ours"));
    for place in [&ours, &pushed] {
        let store = open(place, true);
        let digest = store.put_manifest(names::MANIFEST, &image(&*store, "layer", "amd64")).expect("put");
        assert_eq!(digest_of(place), digest);
    }
    skopeo(&ours, &format!("docker://{}", name("theirs")));
    skopeo(&format!("docker://{pushed}"), &theirs);
    assert_eq!(digest_of(&name("theirs")), digest_of(&ours));
    assert_eq!(digest_of(&theirs), digest_of(&pushed));
    let image = open(&theirs, false).image("linux/amd64").expect("an image");
    assert_eq!(read(&*open(&theirs, false), &image.manifest.layers[0]).expect("there"), b"layer");
}
