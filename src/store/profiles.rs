//! Profiles beside the image that they are of: one artifact a profile, told apart by a name.
//!
//! The artifact's bytes follow from the profile, its name and the image alone, so that the same push is the same artifact. What
//! comes back is read with every bound checked, and is the file that was pushed, byte for byte.

use std::io::Read;

use serde_json::{Map, Value, json};

use super::referrers::{Referrer, Referrers};
use super::{Error, select};
use crate::digest::Digest;
use crate::image::{Descriptor, Manifest, names};
use crate::profile::{self, Profile};
use crate::progress::chain;

/// The name of a profile that is given none.
pub const DEFAULT_NAME: &str = "default";
/// Compressed profiles above this size are neither written nor read: a whole vLLM start has some hundred KB.
const MAX_COMPRESSED: u64 = 64 << 20;
/// Fast, and on JSON not far behind the best.
const LEVEL: i32 = 9;
const LONGEST_NAME: usize = 128;
const EMPTY: &[u8] = b"{}";

/// A profile as its artifact tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What tells it from the other profiles of the image.
    pub name: String,
    /// Digest of the artifact.
    pub digest: Digest,
    /// Annotations of the artifact, in their order; cleaned for printing.
    pub about: Vec<(String, String)>,
    layer: Descriptor,
}

impl Stored {
    /// The value of an annotation, or nothing.
    pub fn about(&self, key: &str) -> &str {
        self.about.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v)
    }

    /// Bytes of the profile as it is stored.
    pub fn size(&self) -> u64 {
        self.layer.size
    }
}

/// What a push did.
#[derive(Debug)]
pub struct Pushed {
    /// Digest of the artifact.
    pub digest: Digest,
    /// Older profiles of the name that the store did not let go, each with the reason: a pull takes the one recorded last.
    pub left: Vec<Error>,
}

/// Whether a text can be the name of a profile: 1 to 128 printable ASCII characters, no spaces.
pub fn is_name(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Puts a profile file beside the image of a manifest, in the place of the one that has the name. `bytes` are those of `profile`.
pub fn push(
    store: &dyn Referrers,
    image: &Descriptor,
    name: &str,
    profile: &Profile,
    bytes: &[u8],
) -> Result<Pushed, Error> {
    let what = || format!("profile {name:?}");
    let packed = zstd::bulk::compress(bytes, LEVEL);
    let packed = packed.map_err(|source| Error::Io { what: format!("compressing the {}", what()), source })?;
    if packed.len() as u64 > MAX_COMPRESSED {
        let why = format!("{} bytes compressed: expected at most {MAX_COMPRESSED}", packed.len());
        return Err(Error::Unsupported { what: what(), why });
    }
    let replaced: Vec<Digest> = list(store, image)?.iter().filter(|s| s.name == name).map(|s| s.digest).collect();
    let config = Descriptor::new(names::EMPTY, Digest::of(EMPTY), EMPTY.len() as u64);
    let layer = Descriptor::new(names::PROFILE_ZSTD, Digest::of(&packed), packed.len() as u64);
    store.put(&config, &EMPTY.to_vec())?;
    store.put(&layer, &packed)?;
    let mut annotations = about(profile);
    annotations.push((names::PROFILE_NAME.into(), name.into()));
    annotations.sort();
    let manifest = manifest(&config, &layer, image, &annotations);
    let descriptor =
        Descriptor { annotations, ..Descriptor::new(names::MANIFEST, Digest::of(&manifest), manifest.len() as u64) };
    let referrer = Referrer { descriptor, artifact_type: Some(names::PROFILE.into()) };
    let left = store.put_referrer(&image.digest, &referrer, &manifest, &replaced)?;
    Ok(Pushed { digest: referrer.descriptor.digest, left })
}

fn manifest(
    config: &Descriptor,
    layer: &Descriptor,
    subject: &Descriptor,
    annotations: &[(String, String)],
) -> Vec<u8> {
    let annotations: Map<_, _> = annotations.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect();
    let subject = Descriptor::new(&subject.media_type, subject.digest, subject.size);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": names::MANIFEST, "artifactType": names::PROFILE, "config": config.to_json(),
        "layers": [layer.to_json()], "subject": subject.to_json(), "annotations": annotations,
    });
    manifest.to_string().into_bytes()
}

/// What a list should tell of a profile.
fn about(profile: &Profile) -> Vec<(String, String)> {
    let header = &profile.header;
    let gpu = header.host.get("gpus").map(String::as_str).unwrap_or_default();
    let pairs = [
        (names::CREATED, header.started_at.as_str()),
        (names::PROFILE_RECORDER, &header.recorder.name),
        (names::PROFILE_VERSION, &header.recorder.version),
        (names::PROFILE_UNTIL, &header.until),
        (names::PROFILE_GPU, gpu),
    ];
    pairs.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| ((*k).into(), printable(v))).collect()
}

/// The profiles beside the image of a manifest: by name, the last recorded first.
pub fn list(store: &dyn Referrers, image: &Descriptor) -> Result<Vec<Stored>, Error> {
    let mut all: Vec<Stored> = Vec::new();
    for referrer in store.referrers(&image.digest, names::PROFILE)? {
        let document = match store.manifest(Some(&referrer.descriptor)) {
            Ok(document) => document,
            // A list may lag behind what was deleted.
            Err(e) if e.kind() == super::Kind::NotFound => continue,
            Err(e) => return Err(e),
        };
        all.extend(stored(&document, &image.digest)?.filter(|s| all.iter().all(|a| a.digest != s.digest)));
    }
    all.sort_by(|a, b| (&a.name, b.about(names::CREATED), a.digest).cmp(&(&b.name, a.about(names::CREATED), b.digest)));
    Ok(all)
}

/// Reads an artifact; `None` if it is not a profile of the image.
fn stored(document: &select::Document, image: &Digest) -> Result<Option<Stored>, Error> {
    let digest = document.descriptor.digest;
    let what = format!("artifact {digest}");
    let raw: Value = serde_json::from_slice(&document.bytes)
        .map_err(|source| crate::image::Error::Json { what: what.clone(), source })?;
    let subject = raw.get("subject").and_then(|s| s.get("digest")).and_then(Value::as_str);
    let kind = raw.get("artifactType").and_then(Value::as_str);
    if kind != Some(names::PROFILE) || subject != Some(image.to_string().as_str()) {
        return Ok(None);
    }
    let manifest = Manifest::parse(&document.bytes, &what)?;
    let [layer] = &manifest.layers[..] else {
        let why = format!("{} layers: expected one", manifest.layers.len());
        return Err(Error::Malformed { what, why });
    };
    if layer.media_type != names::PROFILE_ZSTD {
        let why = format!("a layer of type {:?}: expected {:?}", printable(&layer.media_type), names::PROFILE_ZSTD);
        return Err(Error::Malformed { what, why });
    }
    let annotations = raw.get("annotations").and_then(Value::as_object);
    let about = annotations.into_iter().flatten().filter_map(|(k, v)| Some((printable(k), printable(v.as_str()?))));
    let mut stored = Stored { name: String::new(), digest, about: about.collect(), layer: layer.clone() };
    stored.name = Some(stored.about(names::PROFILE_NAME)).filter(|n| is_name(n)).unwrap_or(DEFAULT_NAME).into();
    Ok(Some(stored))
}

/// The profile of a name, or without one the only one; of several that have the name the last recorded. `all` as [`list`] gives
/// them, `image` names the image in errors.
pub fn choose<'a>(all: &'a [Stored], name: Option<&str>, image: &str) -> Result<&'a Stored, Error> {
    let mut names: Vec<&str> = all.iter().map(|s| s.name.as_str()).collect();
    names.dedup();
    let there = if names.is_empty() { "there is none".into() } else { format!("there are {}", names.join(", ")) };
    let missing =
        |what: String| Error::NotFound { what, place: format!("what is beside {image}"), why: format!(" ({there})") };
    match name {
        Some(name) => all.iter().find(|s| s.name == name).ok_or_else(|| missing(format!("profile {name:?}"))),
        None if names.len() > 1 => Err(missing("the one profile".into())),
        None => all.first().ok_or_else(|| missing("a profile".into())),
    }
}

/// Fetches a profile and checks it: the bytes of the file, and what they say.
pub fn fetch(store: &dyn Referrers, stored: &Stored) -> Result<(Vec<u8>, Profile), Error> {
    let what = || format!("profile {:?} ({})", stored.name, stored.digest);
    let too_large =
        |size: &str, most| Error::Malformed { what: what(), why: format!("{size} bytes: expected at most {most}") };
    if stored.layer.size > MAX_COMPRESSED {
        return Err(too_large(&stored.layer.size.to_string(), MAX_COMPRESSED));
    }
    let mut packed = Vec::new();
    store.open(&stored.layer)?.read_to_end(&mut packed).map_err(|e| Error::from_io(e, &what()))?;
    let mut bytes = Vec::new();
    let unpacked =
        zstd::Decoder::with_buffer(&packed[..]).and_then(|d| d.take(profile::MAX_BYTES + 1).read_to_end(&mut bytes));
    unpacked.map_err(|e| Error::Malformed { what: what(), why: format!("it does not decompress: {e}") })?;
    if bytes.len() as u64 > profile::MAX_BYTES {
        return Err(too_large("more", profile::MAX_BYTES));
    }
    let profile = profile::read(&bytes).map_err(|e| Error::Malformed { what: what(), why: chain(&e) })?;
    Ok((bytes, profile))
}

/// A text of others as it may be printed.
fn printable(text: &str) -> String {
    text.chars().take(2 * LONGEST_NAME).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests;
