//! From a name to one image: indexes, platforms, and the checks that every store makes alike.

use std::io::Read;

use serde_json::{Value, json};

use super::layout::REF_NAME;
use super::{Blobs, Error, referrers};
use crate::digest::Digest;
use crate::image::manifest::MAX_JSON_BYTES;
use crate::image::{Config, Descriptor, Image, Manifest, names};

/// Indexes inside indexes end somewhere.
const MAX_DEPTH: usize = 4;

/// One entry of an index.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) descriptor: Descriptor,
    /// `os/arch[/variant]`, where the entry says so.
    pub(super) platform: Option<String>,
    /// The entry as it stands in the index.
    pub(super) raw: Value,
}

/// Reads the entries of an index or of a Docker manifest list.
pub(super) fn entries(index: &Value, what: &str) -> Result<Vec<Entry>, Error> {
    let list = index.get("manifests").and_then(Value::as_array);
    let list = list.ok_or_else(|| Error::Malformed { what: what.into(), why: "no list of manifests".into() })?;
    let entry = |(i, value): (usize, &Value)| {
        let descriptor = Descriptor::from_json(value, &format!("entry {i} of {what}"))?;
        let platform = value.get("platform").map(|p| {
            let get = |key| p.get(key).and_then(Value::as_str).filter(|s| !s.is_empty());
            let base = format!("{}/{}", get("os").unwrap_or("unknown"), get("architecture").unwrap_or("unknown"));
            get("variant").map_or_else(|| base.clone(), |v| format!("{base}/{v}"))
        });
        Ok(Entry { descriptor, platform, raw: value.clone() })
    };
    list.iter().enumerate().map(entry).collect()
}

/// Whether an entry is about an image and not one: `BuildKit`'s attestations, signatures that `cosign save` puts beside it.
pub(super) fn is_attestation(entry: &Entry) -> bool {
    let kind = entry.descriptor.annotation("kind").and_then(|k| k.strip_prefix("dev.cosignproject.cosign/"));
    entry.platform.as_deref().is_some_and(|p| p.starts_with("unknown/"))
        || entry.descriptor.annotation(names::REFERENCE_TYPE).is_some()
        || kind.is_some_and(|k| k != "image" && k != "imageIndex")
}

/// What an attestation is about, where it says so.
fn subject(entry: &Entry) -> Option<&str> {
    entry.descriptor.annotation(names::REFERENCE_DIGEST)
}

/// A platform with the variant that its architecture implies.
fn normal(platform: &str) -> String {
    match platform {
        "linux/arm64" => "linux/arm64/v8".into(),
        "linux/arm" => "linux/arm/v7".into(),
        "linux/amd64/v1" => "linux/amd64".into(),
        p => p.into(),
    }
}

/// Picks the entry for a platform.
pub(super) fn pick<'a>(entries: &'a [Entry], platform: &str, what: &str) -> Result<&'a Entry, Error> {
    let images: Vec<&Entry> = entries.iter().filter(|e| !is_attestation(e)).collect();
    let exact = images.iter().find(|e| e.platform.as_deref().is_some_and(|p| normal(p) == normal(platform)));
    // `linux/arm64` may mean any variant of it when the usual one is not there.
    let any_variant = || {
        let prefix = format!("{platform}/");
        images.iter().find(|e| e.platform.as_deref().is_some_and(|p| p.starts_with(&prefix)))
    };
    let only = || images.first().filter(|e| images.len() == 1 && e.platform.is_none());
    if let Some(entry) = exact.or_else(any_variant).or_else(only) {
        return Ok(*entry);
    }
    let mut found: Vec<_> = images.iter().map(|e| e.platform.as_deref().unwrap_or("unnamed")).collect();
    found.dedup();
    let found = if found.is_empty() { "no image".into() } else { found.join(", ") };
    Err(Error::NoPlatform { what: what.into(), platform: platform.into(), found })
}

/// What a layout's `index.json` has under the tag, or the only thing there; of several entries that are one image's, an index
/// that lists them. `name`: of the layout. `fetch` gives verified manifest bytes.
pub(super) fn tagged(
    index: &Value,
    wanted: Option<&str>,
    name: &str,
    fetch: &dyn Fn(&Descriptor) -> Result<Document, Error>,
) -> Result<Document, Error> {
    let mut all = entries(index, &format!("index.json in {name}"))?;
    if wanted.is_none() {
        all.retain(|e| !referrers::is_aside(e));
    }
    let tag = |e: &Entry| e.descriptor.annotation(REF_NAME).map(ToOwned::to_owned);
    let mut tags: Vec<_> = all.iter().map(tag).collect();
    tags.sort();
    tags.dedup();
    let listed = || {
        let named: Vec<_> = tags.iter().flatten().cloned().collect();
        if named.is_empty() { "none".into() } else { named.join(", ") }
    };
    let not_found =
        |what: &str, why: String| Error::NotFound { what: what.into(), place: name.into(), why: format!(" ({why})") };
    let chosen: Vec<_> = match wanted {
        Some(wanted) => all.into_iter().filter(|e| tag(e).as_deref() == Some(wanted)).collect(),
        None if tags.len() > 1 => {
            return Err(not_found("the one image", format!("there are several: add one of the tags {}", listed())));
        }
        None => all,
    };
    match (&chosen[..], wanted) {
        ([], Some(wanted)) => Err(not_found(&format!("tag {wanted}"), format!("tags there: {}", listed()))),
        ([], None) => Err(not_found("an image", "the index is empty".into())),
        ([one], _) => fetch(&one.descriptor),
        (several, _) => Ok(listed_together(several)),
    }
}

/// An index of entries of a layout, without the tag that holds them together there.
fn listed_together(entries: &[Entry]) -> Document {
    let untagged = |e: &Entry| {
        let mut raw = e.raw.clone();
        if let Some(annotations) = raw.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(REF_NAME);
        }
        raw
    };
    let manifests: Vec<Value> = entries.iter().map(untagged).collect();
    let index = json!({ "schemaVersion": 2, "mediaType": names::INDEX, "manifests": manifests });
    let bytes = index.to_string().into_bytes();
    Document { descriptor: Descriptor::new(names::INDEX, Digest::of(&bytes), bytes.len() as u64), bytes }
}

/// Reads a small verified blob.
pub(super) fn read_json(blobs: &dyn Blobs, blob: &Descriptor, place: &str) -> Result<Vec<u8>, Error> {
    let what = || format!("{} in {place}", blob.digest);
    check_json_size(blob.size, what)?;
    let mut bytes = Vec::new();
    blobs.open(blob)?.read_to_end(&mut bytes).map_err(|e| Error::from_io(e, &what()))?;
    Ok(bytes)
}

/// Refuses JSON too large to be a manifest or config.
pub(super) fn check_json_size(size: u64, what: impl Fn() -> String) -> Result<(), Error> {
    if size > MAX_JSON_BYTES {
        let why = format!("{size} bytes of JSON: expected at most {MAX_JSON_BYTES}");
        return Err(Error::Malformed { what: what(), why });
    }
    Ok(())
}

/// A manifest or index, verified.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its descriptor.
    pub descriptor: Descriptor,
    /// Its JSON.
    pub bytes: Vec<u8>,
}

/// The JSON of an index or Docker manifest list; `None` for anything else.
pub(super) fn as_index(document: &Document, what: &str) -> Result<Option<Value>, Error> {
    let raw: Value = serde_json::from_slice(&document.bytes)
        .map_err(|source| crate::image::Error::Json { what: format!("manifest of {what}"), source })?;
    let stated = raw.get("mediaType").and_then(Value::as_str).unwrap_or(&document.descriptor.media_type);
    let schema1 = raw.get("schemaVersion").and_then(Value::as_u64) == Some(1);
    let is_index = stated == names::INDEX || stated == names::DOCKER_LIST;
    // An index may leave its media type out; it has manifests then, and no layers.
    let is_index = !schema1 && (is_index || (raw.get("manifests").is_some() && raw.get("layers").is_none()));
    Ok(is_index.then_some(raw))
}

/// Follows a document through indexes to the image of the platform. `fetch` gives verified manifest bytes.
pub(super) fn image(
    blobs: &dyn Blobs,
    mut document: Document,
    platform: &str,
    what: &str,
    fetch: &dyn Fn(&Descriptor) -> Result<Document, Error>,
) -> Result<Image, Error> {
    let (mut index, mut attestations) = (None, Vec::new());
    for _ in 0..MAX_DEPTH {
        if let Some(raw) = as_index(&document, what)? {
            let entries = entries(&raw, &format!("index of {what}"))?;
            let picked = pick(&entries, platform, what)?.descriptor.clone();
            let about = |e: &&Entry| is_attestation(e) && subject(e) == Some(&picked.digest.to_string());
            attestations = entries.iter().filter(about).map(|e| e.descriptor.digest).collect();
            index = index.or(Some(document.descriptor.digest));
            document = fetch(&picked)?;
            continue;
        }
        let manifest = Manifest::parse(&document.bytes, what)?;
        // Annotations of an index entry belong to the index.
        let Descriptor { digest, size, .. } = document.descriptor;
        let descriptor = Descriptor::new(&manifest.media_type, digest, size);
        let config_type = manifest.config.media_type.as_str();
        if config_type != names::CONFIG && config_type != names::DOCKER_CONFIG {
            return Err(Error::Unsupported {
                what: what.into(),
                why: format!("it is not a container image but an artifact with a config of type {config_type:?}"),
            });
        }
        let config = Config::parse(&read_json(blobs, &manifest.config, what)?, what)?;
        return Ok(Image { index, attestations, ..Image::new(descriptor, manifest, config, what)? });
    }
    Err(Error::Malformed { what: what.into(), why: format!("more than {MAX_DEPTH} indexes inside each other") })
}

/// The blobs that manifest bytes refer to: config and layers, or manifests. Layers that live elsewhere (`urls`) are left
/// out.
pub(super) fn referred(bytes: &[u8], what: &str) -> Result<Vec<Descriptor>, Error> {
    let raw: Value =
        serde_json::from_slice(bytes).map_err(|source| crate::image::Error::Json { what: what.into(), source })?;
    let lists = ["layers", "manifests"].iter().filter_map(|key| raw.get(key)?.as_array()).flatten();
    let here = raw.get("config").into_iter().chain(lists).filter(|d| d.get("urls").is_none());
    here.map(|d| Ok(Descriptor::from_json(d, what)?)).collect()
}

/// Checks bytes against what was promised.
pub(super) fn check(bytes: &[u8], digest: &Digest, size: Option<u64>, what: impl Fn() -> String) -> Result<(), Error> {
    let found = Digest::of(bytes);
    if size.is_some_and(|s| s != bytes.len() as u64) || found != *digest {
        let expected = size.map_or_else(|| digest.to_string(), |s| format!("{digest} of {s} bytes"));
        return Err(Error::Corrupt { what: what(), expected, found: format!("{found} of {} bytes", bytes.len()) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn index(platforms: &[&str]) -> Vec<Entry> {
        let manifests: Vec<_> = platforms
            .iter()
            .map(|p| {
                let mut entry = Descriptor::new(names::MANIFEST, Digest::of(p.as_bytes()), 1).to_json();
                let parts: Vec<_> = p.split('/').collect();
                if let [os, arch, ..] = parts[..] {
                    entry["platform"] = json!({"os": os, "architecture": arch});
                }
                if let [_, _, variant] = parts[..] {
                    entry["platform"]["variant"] = variant.into();
                }
                entry
            })
            .collect();
        entries(&json!({ "manifests": manifests }), "test").unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn the_entry_of_the_platform_is_picked() {
        for (there, wanted, expected) in [
            (&["linux/amd64", "linux/arm64/v8"][..], "linux/amd64", Some("linux/amd64")),
            (&["linux/amd64", "linux/arm64/v8"], "linux/arm64", Some("linux/arm64/v8")),
            (&["linux/amd64", "linux/arm64"], "linux/arm64/v8", Some("linux/arm64")),
            (&["linux/arm/v5", "linux/arm/v7"], "linux/arm", Some("linux/arm/v7")),
            (&["linux/arm/v5", "linux/arm/v6"], "linux/arm", Some("linux/arm/v5")),
            (&["linux/arm/v5", "linux/arm/v7"], "linux/arm/v6", None),
            (&["linux/amd64/v3", "linux/amd64"], "linux/amd64", Some("linux/amd64")),
            (&["unknown/unknown", "linux/amd64"], "linux/amd64", Some("linux/amd64")),
            (&["unknown/unknown", "none"], "linux/amd64", Some("none")),
            (&["none", "also none"], "linux/amd64", None),
            (&["windows/amd64", "linux/s390x"], "linux/amd64", None),
            (&[], "linux/amd64", None),
        ] {
            let entries = index(there);
            let picked = pick(&entries, wanted, "x").ok().map(|e| e.descriptor.digest);
            assert_eq!(picked, expected.map(|e| Digest::of(e.as_bytes())), "{wanted} of {there:?}");
        }
    }

    #[test]
    fn a_missing_platform_says_what_is_there() {
        let there = index(&["unknown/unknown", "linux/s390x", "linux/arm/v7"]);
        let error = pick(&there, "linux/amd64", "h/a:t");
        let error = error.expect_err("none fits").to_string();
        assert_eq!(error, "h/a:t has no image for linux/amd64: found linux/s390x, linux/arm/v7");
    }
}
