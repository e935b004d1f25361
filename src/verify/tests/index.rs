//! Indexes: every platform comes out equal, what is bound to the source is not carried along, and nothing is named early.

use std::sync::Mutex;

use serde_json::{Value, json};

use super::super::{Verified, verify_index};
use super::*;
use crate::convert::{Converted, Error, IndexReport, convert_index};
use crate::image::{Descriptor, names};
use crate::progress::Progress;
use crate::store::index::Index;
use crate::store::{Blobs, Images};

/// Stores an image's manifest for a platform; gives the entry of an index.
fn part(store: &Memory, platform: &Value, layers: &[Vec<Item>]) -> Value {
    let archives: Vec<Vec<u8>> = layers.iter().map(|l| archive(l)).collect();
    let layers: Vec<Value> = archives.iter().map(|a| store.add(names::LAYER_TAR, a.clone()).to_json()).collect();
    let diff_ids: Vec<Digest> = archives.iter().map(|a| Digest::of(a)).collect();
    let mut config = platform.clone();
    config["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
    let config = store.add(names::CONFIG, config.to_string().into_bytes()).to_json();
    let manifest = json!({ "schemaVersion": 2, "mediaType": names::MANIFEST, "config": config, "layers": layers });
    let mut entry = store.add(names::MANIFEST, manifest.to_string().into_bytes()).to_json();
    entry["platform"] = platform.clone();
    entry
}

fn attestation(store: &Memory, of: &Value) -> Value {
    let manifest = json!({ "schemaVersion": 2, "mediaType": names::MANIFEST, "layers": [], "about": of["digest"] });
    let mut entry = store.add(names::MANIFEST, manifest.to_string().into_bytes()).to_json();
    entry["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    entry["annotations"] =
        json!({ names::REFERENCE_TYPE: "attestation-manifest", names::REFERENCE_DIGEST: of["digest"] });
    entry
}

fn amd64() -> Value {
    json!({ "architecture": "amd64", "os": "linux" })
}

fn arm64() -> Value {
    json!({ "architecture": "arm64", "os": "linux", "variant": "v8", "os.version": "1", "os.features": ["x"] })
}

fn shared() -> Vec<Item> {
    vec![Item::dir("d"), Item::file("d/shared", bytes(4000, 1))]
}

/// An index of two platforms that share their lower layer, with an attestation for each.
fn source() -> Memory {
    let store = Memory::default();
    let one = part(&store, &amd64(), &[shared(), vec![Item::file("d/amd64", bytes(3000, 2))]]);
    let mut two = part(&store, &arm64(), &[shared(), vec![Item::file("d/arm64", bytes(3000, 3))]]);
    two["annotations"] = json!({ "kept": "yes", "dev.esgz.old": "no" });
    two["data"] = "e30=".into();
    let entries = [attestation(&store, &one), one.clone(), two.clone(), attestation(&store, &two)];
    put(&store, &entries);
    store
}

fn put(store: &Memory, entries: &[Value]) -> Digest {
    let index = json!({
        "schemaVersion": 2, "mediaType": names::INDEX, "manifests": entries, "future": 1,
        "annotations": { "team": "ml", "dev.esgz.key": "stale" },
    });
    store.put_manifest(names::INDEX, index.to_string().as_bytes()).expect("memory")
}

/// Keeps the warnings.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Progress for Heard {
    fn start(&self, _: &str, _: u64) -> u64 {
        0
    }
    fn advance(&self, _: u64, _: u64) {}
    fn done(&self, _: u64) {}
    fn warn(&self, message: &str) {
        self.0.lock().expect("heard").push(message.into());
    }
}

impl Heard {
    fn all(self) -> Vec<String> {
        self.0.into_inner().expect("heard")
    }
}

fn names_of(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn run(
    src: &Memory,
    dst: &Memory,
    profiles: &[Profile],
    list: &[&str],
    options: &convert::Options,
) -> (IndexReport, Vec<String>) {
    let heard = Heard::default();
    match convert_index(src, dst, profiles, &names_of(list), options, &heard).expect("converted") {
        Converted::Index(report) => (report, heard.all()),
        Converted::Image(_) => panic!("an index becomes an index"),
    }
}

fn problems(src: &Memory, dst: &Memory, list: &[&str]) -> Vec<String> {
    let options = Options { platform: String::new(), jobs: NonZeroUsize::MIN };
    match verify_index(Some(src), dst, &names_of(list), &options, &Silent).expect("both can be read") {
        Verified::Index(r) => {
            let images = r.images.iter().flat_map(|i| &i.report.problems);
            r.problems.iter().chain(images).map(|p| p.what.clone()).collect()
        }
        Verified::Image(r) => r.problems.iter().map(|p| p.what.clone()).collect(),
    }
}

fn index_of(store: &Memory) -> Index {
    Index::open(store).expect("there").expect("an index")
}

#[test]
fn every_platform_is_converted_and_listed_as_it_was() {
    let (src, dst) = (source(), Memory::default());
    let (report, heard) = run(&src, &dst, &[], &[], &options(Layout::Plain));
    assert_eq!(problems(&src, &dst, &[]), Vec::<String>::new());
    let (old, new) = (index_of(&src), index_of(&dst));
    assert_eq!((new.descriptor.digest, report.source), (report.digest, old.descriptor.digest));
    let entries = new.raw["manifests"].as_array().expect("a list");
    assert_eq!(entries.iter().map(|e| &e["platform"]).collect::<Vec<_>>(), [&amd64(), &arm64()]);
    assert_eq!(entries[1]["annotations"], json!({ "kept": "yes" }));
    assert_eq!((&entries[1]["data"], &new.raw["future"]), (&Value::Null, &json!(1)));
    let source = old.descriptor.digest.to_string();
    let annotations = &new.raw["annotations"];
    assert_eq!((&annotations["team"], &annotations[names::LAYOUT]), (&json!("ml"), &json!("plain")));
    for key in [names::SOURCE, names::BASE_DIGEST] {
        assert_eq!(annotations[key], source, "{key}");
    }
    assert_eq!(annotations[names::KEY], Value::Null);
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].starts_with("2 attestations") && heard[0].ends_with(&source), "{heard:?}");
    assert_eq!((report.left_out.len(), new.others.len()), (2, 0));
    // What picks one platform picks the same image.
    for platform in ["linux/amd64", "linux/arm64"] {
        assert_eq!(dst.image(platform).expect("there").config.raw["architecture"], platform[6..]);
    }
}

#[test]
fn a_shared_layer_is_converted_once_and_the_threads_do_not_matter() {
    let digests: Vec<Digest> = [(1, true), (2, true), (8, false)]
        .map(|(jobs, reuse)| {
            let options =
                convert::Options { jobs: NonZeroUsize::new(jobs).expect("some"), reuse, ..options(Layout::Plain) };
            let (report, _) = run(&source(), &Memory::default(), &[], &[], &options);
            let reused: Vec<Vec<bool>> =
                report.images.iter().map(|i| i.report.layers.iter().map(|l| l.reused).collect()).collect();
            assert_eq!(reused, [[false, false], [true, false]], "{jobs}");
            report.digest
        })
        .into();
    assert!(digests.iter().all(|d| *d == digests[0]), "{digests:?}");
}

#[test]
fn each_image_is_the_one_that_is_made_of_it_alone() {
    let (src, dst, alone) = (source(), Memory::default(), Memory::default());
    let (report, _) = run(&src, &dst, &[], &[], &options(Layout::Plain));
    let heard = Heard::default();
    let arm = convert::Options { platform: "linux/arm64".into(), ..options(Layout::Plain) };
    let one = convert(&src, &alone, None, &arm, &heard).expect("converted");
    assert_eq!(one.digest, report.images[1].report.digest);
    let heard = heard.all();
    assert!(heard.len() == 1 && heard[0].starts_with("1 attestation,"), "its own attestation alone: {heard:?}");
    assert!(heard[0].ends_with(&report.source.to_string()), "it stays in the index: {heard:?}");
}

#[test]
fn the_same_conversion_again_writes_nothing() {
    let (src, dst) = (source(), Memory::default());
    let (first, _) = run(&src, &dst, &[], &[], &options(Layout::Plain));
    let written = dst.written();
    let (again, _) = run(&src, &dst, &[], &[], &options(Layout::Plain));
    assert_eq!((again.unchanged, again.digest, dst.written()), (true, first.digest, written));
    // One changed image: the other is not touched.
    let entries = src.manifest(None).expect("there");
    let entries: Value = serde_json::from_slice(&entries.bytes).expect("JSON");
    let changed = part(&src, &arm64(), &[shared(), vec![Item::file("d/arm64", "changed")]]);
    put(&src, &[entries["manifests"][1].clone(), changed]);
    let (report, _) = run(&src, &dst, &[], &[], &options(Layout::Plain));
    let unchanged: Vec<bool> = report.images.iter().map(|i| i.report.unchanged).collect();
    assert_eq!((report.unchanged, unchanged), (false, vec![true, false]));
    assert!(report.images[1].report.layers[0].reused);
    assert_eq!(problems(&src, &dst, &[]), Vec::<String>::new());
}

#[test]
fn a_lost_layer_or_another_selection_is_made_and_listed_again() {
    let (src, dst) = (source(), Memory::default());
    let (first, _) = run(&src, &dst, &[], &[], &options(Layout::Plain));
    dst.remove(&first.images[1].report.layers[1].digest);
    let (again, _) = run(&src, &dst, &[], &[], &options(Layout::Plain));
    assert_eq!((again.unchanged, again.digest), (false, first.digest));
    assert_eq!(problems(&src, &dst, &[]), Vec::<String>::new());

    let (one, _) = run(&src, &dst, &[], &["linux/arm64", "linux/arm64/v8"], &options(Layout::Plain));
    assert_eq!(one.images.iter().map(|i| i.platform.as_str()).collect::<Vec<_>>(), ["linux/arm64/v8"]);
    assert_eq!(problems(&src, &dst, &["linux/arm64"]), Vec::<String>::new());
    assert_eq!(problems(&src, &dst, &[]), ["no image for linux/amd64: the source has one"]);
    // The order is the source's, whatever is asked for first.
    let (both, _) = run(&src, &dst, &[], &["linux/arm64", "linux/amd64"], &options(Layout::Plain));
    assert_eq!(both.digest, first.digest);
}

#[test]
fn a_profile_counts_for_the_platform_it_was_recorded_on() {
    let on = |platform: &str, path: &str| {
        let mut p = profile(&[path]);
        p.header.platform = platform.into();
        p
    };
    for layout in [Layout::Landmark, Layout::Hot] {
        let (src, dst) = (source(), Memory::default());
        let (report, heard) = run(&src, &dst, &[on("linux/amd64", "/d/amd64")], &[], &options(layout));
        let layouts: Vec<Layout> = report.images.iter().map(|i| i.report.layout).collect();
        assert_eq!(layouts, [layout, Layout::Plain]);
        assert!(heard.contains(&"linux/arm64/v8: no profile of this platform: layout plain".to_owned()), "{heard:?}");
        assert_eq!(problems(&src, &dst, &[]), Vec::<String>::new());
        let both = [on("linux/amd64", "/d/amd64"), on("linux/arm64", "/d/arm64")];
        let (report, _) = run(&src, &dst, &both, &[], &options(layout));
        assert!(report.images.iter().all(|i| i.report.layout == layout));
        assert_eq!(problems(&src, &dst, &[]), Vec::<String>::new());
    }
    let (src, dst, other) = (source(), Memory::default(), [on("linux/s390x", "/d/shared")]);
    let error = convert_index(&src, &dst, &other, &[], &options(Layout::Hot), &Silent).expect_err("nobody's");
    let expected = "the profile was recorded on linux/s390x: the images are for linux/amd64,linux/arm64/v8";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn what_fails_in_one_platform_names_nothing() {
    let (src, dst) = (source(), Memory::default());
    let part = index_of(&src).parts[1].descriptor.clone();
    let layer = layers_of(&src, &part)[1].clone();
    src.damage(&layer.digest, b"damaged".to_vec());
    let error = convert_index(&src, &dst, &[], &[], &options(Layout::Plain), &Silent).expect_err("damaged");
    assert!(matches!(&error, Error::Platform { platform, .. } if platform == "linux/arm64/v8"), "{error:?}");
    assert_eq!(dst.manifest(None).expect_err("no name").kind(), crate::store::Kind::NotFound);
}

fn layers_of(store: &Memory, manifest: &Descriptor) -> Vec<Descriptor> {
    let bytes = store.manifest(Some(manifest)).expect("there").bytes;
    crate::image::Manifest::parse(&bytes, "x").expect("a manifest").layers
}

#[test]
fn foreign_and_missing_platforms_are_refused_by_name() {
    let store = Memory::default();
    let windows = json!({ "architecture": "amd64", "os": "windows", "os.version": "10.0.17763" });
    let entries = [part(&store, &windows, &[shared()]), part(&store, &amd64(), &[shared()])];
    let digest = put(&store, &entries);
    let refused = |list: &[&str]| {
        let (list, dst) = (names_of(list), Memory::default());
        convert_index(&store, &dst, &[], &list, &options(Layout::Plain), &Silent).expect_err("refused")
    };
    let error = refused(&[]);
    assert!(matches!(&error, Error::ForeignPlatform { linux, .. } if linux == "linux/amd64"), "{error:?}");
    let text = error.to_string();
    assert!(text.starts_with(&format!("index {digest} has an image for windows/amd64: expected linux")), "{text}");
    let text = refused(&["linux/amd64", "linux/s390x"]).to_string();
    assert!(text.ends_with("has no image for linux/s390x: found windows/amd64, linux/amd64"), "{text}");
    run(&store, &Memory::default(), &[], &["linux/amd64"], &options(Layout::Plain));

    let text = {
        put(&store, &[attestation(&store, &entries[0])]);
        refused(&[]).to_string()
    };
    assert!(text.ends_with("has no image"), "{text}");
}

#[test]
fn an_artifact_without_platform_is_left_out_and_an_image_without_one_is_not() {
    let store = Memory::default();
    let mut unsaid = part(&store, &amd64(), &[shared()]);
    unsaid.as_object_mut().expect("an object").remove("platform");
    let empty = store.add("application/vnd.oci.empty.v1+json", b"{}".to_vec()).to_json();
    let artifact = json!({ "schemaVersion": 2, "mediaType": names::MANIFEST, "config": empty, "layers": [] });
    let artifact = store.add(names::MANIFEST, artifact.to_string().into_bytes()).to_json();
    put(&store, &[artifact, unsaid]);
    let dst = Memory::default();
    let (report, heard) = run(&store, &dst, &[], &[], &options(Layout::Plain));
    assert_eq!((report.images[0].platform.as_str(), report.left_out.len()), ("linux/amd64", 1));
    assert!(heard[0].starts_with("1 attestation, signature or artifact ("), "{heard:?}");
    assert_eq!(index_of(&dst).raw["manifests"][0].get("platform"), None);
}

#[test]
fn a_subject_is_not_carried_along() {
    let subject = Descriptor::new(names::MANIFEST, Digest::of(b"subject"), 7).to_json();
    let src = image(&[&shared()]);
    src.edit_manifest(|m| m["subject"] = subject.clone());
    let (dst, heard) = (Memory::default(), Heard::default());
    convert(&src, &dst, None, &options(Layout::Plain), &heard).expect("converted");
    assert_eq!(dst.image("").expect("there").manifest.raw.get("subject"), None);
    let (heard, digest) = (heard.all(), Digest::of(b"subject").to_string());
    assert!(heard.len() == 1 && heard[0].contains(&digest) && heard[0].contains("stays attached"), "{heard:?}");

    let (src, dst) = (source(), Memory::default());
    let mut index = index_of(&src).raw;
    index["subject"] = subject;
    src.put_manifest(names::INDEX, index.to_string().as_bytes()).expect("memory");
    let (_, heard) = run(&src, &dst, &[], &[], &options(Layout::Plain));
    assert_eq!((index_of(&dst).raw.get("subject"), heard.len()), (None, 2));
}

#[test]
fn one_image_stays_one_image() {
    let (src, dst) = (image(&[&shared()]), Memory::default());
    let convert_list = |list: &[&str]| {
        let list = names_of(list);
        convert_index(&src, &dst, &[], &list, &options(Layout::Plain), &Silent)
    };
    let Ok(Converted::Image(report)) = convert_list(&[]) else { panic!("one image") };
    assert_eq!((digest_of(&dst), problems(&src, &dst, &[])), (report.digest, Vec::new()));
    let error = convert_list(&["linux/amd64", "linux/arm64"]).expect_err("no index").to_string();
    assert!(error.contains("has no image for linux/amd64 and linux/arm64: found linux/amd64"), "{error}");
    // Over an image that was converted alone, and the other way round.
    let src = source();
    let (index, _) = run(&src, &dst, &[], &[], &options(Layout::Plain));
    assert_eq!(index_of(&dst).descriptor.digest, index.digest);
    let one = convert(&src, &dst, None, &options(Layout::Plain), &Silent).expect("converted");
    assert_eq!((digest_of(&dst), one.unchanged), (index.images[0].report.digest, false));
    assert!(one.layers.iter().all(|l| l.reused));
}

#[test]
fn an_index_that_is_not_its_source_is_told() {
    let (src, dst) = (source(), Memory::default());
    run(&src, &dst, &[], &[], &options(Layout::Plain));
    let good = index_of(&dst).raw;
    let said = |edit: &dyn Fn(&mut Value)| {
        let mut index = good.clone();
        edit(&mut index);
        dst.put_manifest(names::INDEX, index.to_string().as_bytes()).expect("memory");
        problems(&src, &dst, &[]).join("; ")
    };
    assert_eq!(said(&|_| ()), "");
    let swapped = said(&|i| i["manifests"].as_array_mut().expect("a list").reverse());
    assert_eq!(swapped, "the images are in the order linux/arm64/v8, linux/amd64: the source's is another");
    let extra = said(&|i| {
        let mut more = i["manifests"][0].clone();
        more["platform"]["architecture"] = "riscv64".into();
        i["manifests"].as_array_mut().expect("a list").push(more);
    });
    assert_eq!(extra, "an image for linux/riscv64: the source has none");
    assert!(said(&|i| i["mediaType"] = names::DOCKER_LIST.into()).contains("the index has media type"));
    assert!(said(&|i| i["annotations"][names::SOURCE] = "sha256:0".into()).starts_with("annotation dev.esgz.source"));
    assert!(
        said(&|i| i["manifests"][1]["platform"]["os.version"] = "2".into()).contains("no image for linux/arm64/v8")
    );
    let stale = attestation(&dst, &index_of(&src).parts[0].raw);
    assert!(said(&|i| i["manifests"][1] = stale.clone()).contains("the index has no such image"));
    assert!(dst.has(&Digest::of(b"")).is_ok());
    let (one, _) = converted(&image(&[&shared()]), Layout::Plain, &[]);
    assert_eq!(problems(&src, &one, &[]), ["one image: the source is an index of linux/amd64, linux/arm64/v8"]);
    run(&src, &dst, &[], &[], &convert::Options { reuse: false, ..options(Layout::Plain) });
    assert!(problems(&image(&[&shared()]), &dst, &[])[0].ends_with("the source is one image"));
}
