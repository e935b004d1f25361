use serde_json::json;

use super::super::layout::Layout;
use super::super::registry::Registry;
use super::super::registry::fake::Fake;
use super::super::{Images, Kind, contract};
use super::*;
use crate::image::Reference;
use crate::profile::Header;

/// Gives the store of one image, which is there.
type Open<'a> = &'a dyn Fn() -> Box<dyn Referrers>;

fn profile(started_at: &str) -> (Profile, Vec<u8>) {
    let header = Header {
        platform: "linux/amd64".into(),
        started_at: started_at.into(),
        until: "chat\u{1b}[2J answer".into(),
        host: [("gpus".to_owned(), "NVIDIA L4".to_owned())].into(),
        ..Header::default()
    };
    let profile = Profile { schema: profile::SCHEMA.into(), header, files: Vec::new(), writes: Vec::new() };
    let bytes = profile::write(&profile);
    (profile, bytes)
}

fn put(store: &dyn Referrers, name: &str, started_at: &str) -> Pushed {
    let (profile, bytes) = profile(started_at);
    push(store, &subject(store), name, &profile, &bytes).expect("pushed")
}

fn subject(store: &dyn Referrers) -> Descriptor {
    store.image("linux/amd64").expect("an image").descriptor
}

fn furnish(store: &dyn Images) {
    store.put_manifest(names::MANIFEST, &contract::image(store, "layer", "amd64")).expect("put");
}

fn names_of(store: &dyn Referrers) -> Vec<String> {
    list(store, &subject(store)).expect("a list").into_iter().map(|s| s.name).collect()
}

fn what_was_pushed_comes_back(open: Open<'_>) {
    let store = open();
    assert!(names_of(&*store).is_empty());
    let pushed = put(&*store, "L4", "2026-01-01T00:00:00Z");
    let all = list(&*open(), &subject(&*store)).expect("a list");
    let [found] = &all[..] else { panic!("{all:?}") };
    assert_eq!((found.digest, found.about(names::PROFILE_GPU)), (pushed.digest, "NVIDIA L4"));
    assert_eq!(found.about(names::PROFILE_UNTIL), "chat?[2J answer", "no escape sequence reaches a terminal");
    let (bytes, read) = fetch(&*open(), found).expect("fetched");
    assert_eq!((read, bytes), profile("2026-01-01T00:00:00Z"));
}

fn a_push_of_the_same_is_the_same_artifact(open: Open<'_>) {
    let [one, two] = [(); 2].map(|()| put(&*open(), "a", "2026-01-01T00:00:00Z").digest);
    assert_eq!(one, two);
    assert_eq!(names_of(&*open()), ["a"]);
}

fn names_live_side_by_side_and_the_same_name_is_replaced(open: Open<'_>) {
    let store = open();
    put(&*store, "b", "2026-01-01T00:00:00Z");
    put(&*store, "a", "2026-01-01T00:00:00Z");
    let last = put(&*store, "b", "2025-01-01T00:00:00Z");
    assert!(last.left.is_empty());
    assert_eq!(names_of(&*store), ["a", "b"]);
    let all = list(&*store, &subject(&*store)).expect("a list");
    assert_eq!(choose(&all, Some("b"), "it").expect("there").digest, last.digest, "also where it is the older one");
    let error = choose(&all, None, "h.io/a:t").expect_err("which one");
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(error.to_string(), "the one profile does not exist in what is beside h.io/a:t (there are a, b)");
    let error = choose(&all, Some("c"), "it").expect_err("no such name").to_string();
    assert!(error.contains("profile \"c\"") && error.contains("a, b"), "{error}");
}

const ALL: [fn(Open<'_>); 3] = [
    what_was_pushed_comes_back,
    a_push_of_the_same_is_the_same_artifact,
    names_live_side_by_side_and_the_same_name_is_replaced,
];

#[test]
fn a_layout_folder_keeps_profiles() {
    for case in ALL {
        let dir = tempfile::tempdir().expect("a folder");
        let open = || Box::new(Layout::open(&dir.path().join("l"), Some("v1"), true).expect("a layout"));
        furnish(&*open());
        case(&|| open());
    }
}

#[test]
fn a_registry_keeps_profiles_with_the_api_and_without() {
    for start in [Fake::start, Fake::listing] {
        for case in ALL {
            let fake = start();
            furnish(&fake.registry(":t"));
            case(&|| Box::new(fake.registry(":t")));
        }
    }
}

#[test]
#[ignore = "needs a registry: ESGZ_TEST_REGISTRY=host:port"]
fn a_real_registry_keeps_profiles() {
    let host = std::env::var("ESGZ_TEST_REGISTRY").expect("ESGZ_TEST_REGISTRY");
    for (i, case) in ALL.iter().enumerate() {
        let open = || {
            let name = format!("{host}/profiles-{}/case-{i}:t", std::process::id());
            let Ok(Reference::Registry(reference)) = name.parse() else { panic!("{name}") };
            Box::new(Registry::open(&reference, true).expect("a registry"))
        };
        furnish(&*open());
        case(&|| open());
    }
}

/// Puts an artifact that says it is a profile beside the image, with this layer.
fn put_artifact(store: &dyn Referrers, media_type: &str, content: &[u8], edit: impl FnOnce(&mut Value)) {
    let image = subject(store);
    let config = Descriptor::new(names::EMPTY, Digest::of(EMPTY), 2);
    let layer = Descriptor::new(media_type, Digest::of(content), content.len() as u64);
    store.put(&config, &EMPTY.to_vec()).expect("put");
    store.put(&layer, &content.to_vec()).expect("put");
    let mut json: Value = serde_json::from_slice(&manifest(&config, &layer, &image, &[])).expect("JSON");
    edit(&mut json);
    let bytes = json.to_string().into_bytes();
    let descriptor = Descriptor::new(names::MANIFEST, Digest::of(&bytes), bytes.len() as u64);
    let referrer = Referrer { descriptor, artifact_type: Some(names::PROFILE.into()) };
    store.put_referrer(&image.digest, &referrer, &bytes, &[]).expect("put");
}

fn fetched(store: &dyn Referrers) -> Result<(Vec<u8>, Profile), Error> {
    let all = list(store, &subject(store))?;
    fetch(store, choose(&all, None, "it")?)
}

#[test]
fn what_is_no_profile_is_refused() {
    let zip = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).expect("compressed");
    let bomb = {
        // More than a profile may have, in a few KB.
        let mut out = zstd::Encoder::new(Vec::new(), 3).expect("an encoder");
        for _ in 0..=profile::MAX_BYTES >> 20 {
            std::io::Write::write_all(&mut out, &vec![b' '; 1 << 20]).expect("memory");
        }
        out.finish().expect("finished")
    };
    let (_, good) = profile("x");
    for (media_type, content, expected) in [
        (names::PROFILE_ZSTD, b"no zstd".to_vec(), "does not decompress"),
        (names::PROFILE_ZSTD, zip(&good)[..40].to_vec(), "does not decompress"),
        (names::PROFILE_ZSTD, bomb, "more bytes: expected at most 268435456"),
        (names::PROFILE_ZSTD, zip(b"{\"schema\":\"x\"}"), "profile has schema \"x\""),
        ("application/json", good.clone(), "expected \"application/vnd.esgz.profile.v1+json+zstd\""),
    ] {
        let fake = Fake::start();
        let store = fake.registry(":t");
        furnish(&store);
        put_artifact(&store, media_type, &content, |_| {});
        let error = fetched(&store).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}: no {expected}");
        assert_eq!(error.kind(), Kind::Corrupt);
    }
}

#[test]
fn a_damaged_blob_or_artifact_is_no_profile() {
    let dir = tempfile::tempdir().expect("a folder");
    let open = || Layout::open(&dir.path().join("l"), Some("v1"), true).expect("a layout");
    furnish(&open());
    let artifact = put(&open(), "it", "x").digest;
    let layer = list(&open(), &subject(&open())).expect("a list")[0].layer.digest;
    for digest in [layer, artifact] {
        let path = dir.path().join("l/blobs/sha256").join(digest.hex());
        let mut bytes = std::fs::read(&path).expect("a blob");
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).expect("written");
        assert_eq!(fetched(&open()).expect_err("damaged").kind(), Kind::Corrupt, "{digest}");
    }
}

#[test]
fn a_profile_that_states_a_huge_size_is_not_fetched() {
    let fake = Fake::start();
    let store = fake.registry(":t");
    furnish(&store);
    put_artifact(&store, names::PROFILE_ZSTD, b"x", |m| m["layers"][0]["size"] = (MAX_COMPRESSED + 1).into());
    let error = fetched(&store).expect_err("too large").to_string();
    assert!(error.contains("67108865 bytes: expected at most 67108864"), "{error}");
}

#[test]
fn an_artifact_about_another_image_or_of_another_type_is_passed_by() {
    let fake = Fake::start();
    let store = fake.registry(":t");
    furnish(&store);
    put_artifact(&store, names::PROFILE_ZSTD, b"x", |m| {
        m["subject"]["digest"] = Digest::of(b"other").to_string().into();
    });
    put_artifact(&store, names::PROFILE_ZSTD, b"x", |m| m["artifactType"] = "a/b".into());
    put_artifact(&store, names::PROFILE_ZSTD, b"x", |m| m["subject"] = Value::Null);
    put(&store, "mine", "x");
    assert_eq!(names_of(&store), ["mine"]);
}

#[test]
fn a_name_that_is_none_stands_for_the_default() {
    for (written, read) in [("a b", DEFAULT_NAME), ("", DEFAULT_NAME), ("a\u{1b}[0m", "a?[0m")] {
        let fake = Fake::start();
        let store = fake.registry(":t");
        furnish(&store);
        let annotations = json!({ names::PROFILE_NAME: written });
        put_artifact(&store, names::PROFILE_ZSTD, b"x", |m| m["annotations"] = annotations);
        assert_eq!(names_of(&store), [read], "{written:?}");
    }
    assert!(is_name("Qwen/Qwen2.5-0.5B@L4") && !is_name("") && !is_name("a b") && !is_name(&"x".repeat(129)));
}
