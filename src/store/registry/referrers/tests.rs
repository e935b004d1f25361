use serde_json::json;

use super::super::fake::{Fake, error};
use super::*;
use crate::http::stub::{Answer, Asked, Stub};
use crate::image::Descriptor;
use crate::store::Blobs;

const KIND: &str = "application/x.test+json";

fn subject() -> Digest {
    Digest::of(b"the image")
}

fn artifact(registry: &Registry, text: &str) -> (Referrer, Vec<u8>) {
    let config = Descriptor::new(names::EMPTY, Digest::of(b"{}"), 2);
    registry.put(&config, &b"{}".to_vec()).expect("put");
    let about = Descriptor::new(names::MANIFEST, subject(), 9);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": names::MANIFEST, "artifactType": KIND, "config": config.to_json(),
        "layers": [config.to_json()], "subject": about.to_json(), "annotations": {"text": text},
    });
    let bytes = manifest.to_string().into_bytes();
    let mut descriptor = Descriptor::new(names::MANIFEST, Digest::of(&bytes), bytes.len() as u64);
    descriptor.annotations.push(("text".into(), text.into()));
    (Referrer { descriptor, artifact_type: Some(KIND.into()) }, bytes)
}

fn put(registry: &Registry, text: &str, replaced: &[Digest]) -> (Referrer, Vec<Error>) {
    let (referrer, bytes) = artifact(registry, text);
    let left = registry.put_referrer(&subject(), &referrer, &bytes, replaced).expect("put");
    (referrer, left)
}

/// Answers for the API alone.
fn api(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Fake {
    Fake::failing(move |asked, _| asked.target.contains("/referrers/").then(|| answer(asked)))
}

#[test]
fn whatever_is_no_list_means_that_the_tag_has_it() {
    let login = Stub::start(|_| Answer::new(200, "<html>log in</html>").with("content-type", "text/html"));
    let page = login.url("/signin?continue=x");
    let cases: [Fake; 7] = [
        api(|_| error(404, "NOT_FOUND")),
        api(|_| error(405, "UNSUPPORTED")),
        api(|_| error(403, "DENIED")),
        // As Artifact Registry does it.
        api(move |_| Answer::new(302, "").with("location", &page)),
        api(|_| Answer::new(302, "").with("location", "http://example.com/login")),
        api(|_| Answer::new(200, "<html></html>").with("content-type", names::INDEX)),
        api(|_| Answer::new(200, "{}")),
    ];
    for (i, fake) in cases.iter().enumerate() {
        let registry = fake.registry(":t");
        let (one, _) = put(&registry, "one", &[]);
        assert_eq!(registry.referrers(&subject(), KIND).expect("a list"), [one], "case {i}");
        assert!(registry.referrers(&Digest::of(b"other"), KIND).expect("an empty list").is_empty());
    }
    assert!(login.asked().iter().all(|a| a.header("authorization").is_none()), "no credentials to the page");
}

#[test]
fn an_api_out_of_order_is_an_error_where_the_tag_has_nothing() {
    let fake = api(|_| error(503, "UNAVAILABLE"));
    let registry = fake.registry(":t");
    assert_eq!(registry.referrers(&subject(), KIND).expect_err("unknown").kind(), Kind::Unreachable);
    let (one, _) = put(&registry, "one", &[]);
    assert_eq!(registry.referrers(&subject(), KIND).expect("a list"), [one]);
}

#[test]
fn the_list_under_the_tag_keeps_what_others_wrote() {
    let fake = Fake::start();
    let registry = fake.registry(":t");
    let foreign = json!({
        "mediaType": names::MANIFEST, "digest": fake.put_manifest("x", names::MANIFEST, b"{}").to_string(), "size": 2,
        "artifactType": "application/signature", "future": {"kept": true},
    });
    let there =
        json!({"schemaVersion": 2, "mediaType": names::INDEX, "manifests": [foreign], "annotations": {"a": "b"}});
    fake.put_manifest(&referrers::tag(&subject()), names::INDEX, there.to_string().as_bytes());
    let (old, _) = put(&registry, "old", &[]);
    let (new, left) = put(&registry, "new", &[old.descriptor.digest]);
    let index = registry.by_tag(&subject()).expect("read").expect("there");
    assert_eq!((&index["manifests"][0], &index["annotations"]), (&foreign, &there["annotations"]));
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(2));
    assert_eq!(registry.referrers(&subject(), KIND).expect("a list"), [new]);
    assert!(left.is_empty());
}

#[test]
fn two_who_write_the_list_at_once_are_both_in_it() {
    // Somebody else's list takes the place of our first one, before we look and until we have read it.
    let other = Descriptor::new(names::MANIFEST, Digest::of(b"{}"), 2);
    let mut theirs = referrers::empty();
    theirs["manifests"] = json!([other.to_json()]);
    let body = theirs.to_string();
    let fake = Fake::failing(move |asked, before| match (asked.method.as_str(), before) {
        _ if !asked.target.contains("/manifests/sha256-") => None,
        ("PUT", 0) => Some(Answer::new(201, "")),
        ("GET", 1 | 2) => Some(Answer::new(200, body.clone()).with("content-type", names::INDEX)),
        _ => None,
    });
    fake.put_manifest("x", names::MANIFEST, b"{}");
    let registry = fake.registry(":t");
    let (ours, _) = put(&registry, "ours", &[]);
    let index = registry.by_tag(&subject()).expect("read").expect("there");
    assert_eq!(index["manifests"], json!([other.to_json(), ours.to_json()]));
}

#[test]
fn a_list_that_never_stays_is_an_error() {
    let fake = Fake::failing(|asked, _| {
        let list = asked.target.contains("/manifests/sha256-") && asked.method == "GET";
        list.then(|| error(404, "MANIFEST_UNKNOWN"))
    });
    let registry = fake.registry(":t");
    let (referrer, bytes) = artifact(&registry, "it");
    let error = registry.put_referrer(&subject(), &referrer, &bytes, &[]).expect_err("it does not stay");
    assert!(error.to_string().contains("did not stay"), "{error}");
}

#[test]
fn with_the_api_no_tag_is_written_and_every_page_is_read() {
    let fake = Fake::listing();
    let registry = fake.registry(":t");
    let mut all: Vec<_> = ["a", "b", "c"].iter().map(|text| put(&registry, text, &[]).0).collect();
    all.sort_by_key(|r| r.descriptor.digest);
    assert_eq!(registry.referrers(&subject(), KIND).expect("a list"), all);
    let lines = fake.stub.lines();
    assert!(!lines.iter().any(|l| l.contains("/sha256-")), "{lines:?}");
    let first = lines.iter().find(|l| l.contains("/referrers/")).expect("asked");
    assert!(first.ends_with("?artifactType=application%2Fx.test%2Bjson"), "{first}");
}

#[test]
fn what_was_replaced_is_deleted_or_named() {
    for refuses in [false, true] {
        let fake =
            Fake::failing(move |asked, _| (asked.method == "DELETE" && refuses).then(|| error(405, "UNSUPPORTED")));
        fake.content.lock().expect("content").lists_referrers = true;
        let registry = fake.registry(":t");
        let (old, _) = put(&registry, "old", &[]);
        let (new, left) = put(&registry, "new", &[old.descriptor.digest]);
        let list = registry.referrers(&subject(), KIND).expect("a list");
        assert_eq!(list.len(), 1 + usize::from(refuses));
        assert!(list.contains(&new));
        let named = left.iter().any(|e| e.to_string().contains(&old.descriptor.digest.to_string()));
        assert_eq!(named, refuses, "{left:?}");
    }
}

#[test]
fn what_was_written_before_the_api_came_is_found() {
    let fake = Fake::start();
    let registry = fake.registry(":t");
    let (one, _) = put(&registry, "one", &[]);
    let mut content = fake.content.lock().expect("content");
    content.lists_referrers = true;
    // A registry that lists only what comes in from now on.
    let (digest, manifest) =
        (one.descriptor.digest.to_string(), content.manifests.remove(&one.descriptor.digest.to_string()));
    drop(content);
    assert_eq!(registry.referrers(&subject(), KIND).expect("a list"), [one], "{digest} {manifest:?}");
}

#[test]
fn a_list_without_an_end_ends_and_one_that_leads_away_is_not_followed() {
    let page = || Answer::new(200, referrers::empty().to_string()).with("content-type", names::INDEX);
    for (link, expected) in [
        ("<?again=1>; rel=\"next\"", "more than 50 pages"),
        ("<http://example.com/x>; rel=next", "at another server"),
        ("<//[>; rel=\"next\"", "at another server"),
    ] {
        let fake = api(move |_| page().with("link", link));
        let error = fake.registry(":t").referrers(&subject(), KIND).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
    }
    let fake = api(move |_| page().with("link", "</x>; rel=\"prev\""));
    assert!(fake.registry(":t").referrers(&subject(), KIND).expect("the end").is_empty());
}

#[test]
fn a_list_that_is_no_index_is_refused() {
    let fake = Fake::start();
    let manifest = json!({"schemaVersion": 2, "mediaType": names::MANIFEST, "config": {}, "layers": []}).to_string();
    fake.put_manifest(&referrers::tag(&subject()), names::MANIFEST, manifest.as_bytes());
    let error = fake.registry(":t").referrers(&subject(), KIND).expect_err("an image under that tag").to_string();
    assert!(error.contains("it is no index"), "{error}");
}
