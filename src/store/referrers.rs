//! Artifacts about an image: manifests with the image's for their `subject`. How a store finds them again is its own affair: a
//! registry has an API for it or, without one, an index under a tag that is made of the subject's digest (OCI distribution spec
//! 1.1, "Listing Referrers" and "Referrers Tag Schema"); a layout folder has its `index.json`.

use serde_json::{Value, json};

use super::select::{self, Entry};
use super::{Error, Images, layout, registry};
use crate::digest::Digest;
use crate::image::{Descriptor, Reference, names};

/// Most artifacts about one image that are looked at: more is no list that somebody keeps.
pub(super) const MOST: usize = 1000;

/// An artifact as a list has it. Only the artifact's own manifest can be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrer {
    /// Where its manifest is; annotations as in that manifest.
    pub descriptor: Descriptor,
    /// `artifactType`, where the list says it.
    pub artifact_type: Option<String>,
}

/// A store that lists artifacts by the manifest that they are about.
pub trait Referrers: Images {
    /// The artifacts that may be about a manifest and of a type: those of which the list says nothing else.
    fn referrers(&self, subject: &Digest, artifact_type: &str) -> Result<Vec<Referrer>, Error>;
    /// Stores an artifact whose blobs are there, and lists it in the place of the `replaced` ones. What of these could not be
    /// taken out is given back with the reason.
    fn put_referrer(
        &self,
        subject: &Digest,
        referrer: &Referrer,
        manifest: &[u8],
        replaced: &[Digest],
    ) -> Result<Vec<Error>, Error>;
}

/// Opens the store of a reference for artifacts. `write` as in [`super::open`].
pub fn open(reference: &Reference, write: bool) -> Result<Box<dyn Referrers>, Error> {
    match reference {
        Reference::Registry(r) => Ok(Box::new(registry::Registry::open(r, write)?)),
        Reference::Layout { dir, tag } => Ok(Box::new(layout::Layout::open(dir, tag.as_deref(), write)?)),
        Reference::OciArchive { .. } | Reference::DockerArchive { .. } => Err(Error::Unsupported {
            what: format!("an artifact beside {reference}"),
            why: "it holds one image and nothing about it: expected a registry or oci:DIR:TAG".into(),
        }),
    }
}

impl Referrer {
    pub(super) fn of(entry: &Entry) -> Self {
        let artifact_type = entry.raw.get("artifactType").and_then(Value::as_str).map(Into::into);
        Self { descriptor: entry.descriptor.clone(), artifact_type }
    }

    pub(super) fn to_json(&self) -> Value {
        let mut entry = self.descriptor.to_json();
        if let Some(kind) = &self.artifact_type {
            entry["artifactType"] = kind.as_str().into();
        }
        entry
    }

    /// Whether it may be of a type.
    pub(super) fn may_be(&self, artifact_type: &str) -> bool {
        self.descriptor.media_type == names::MANIFEST
            && self.artifact_type.as_deref().is_none_or(|t| t == artifact_type)
    }
}

/// The entries of an index that may be of a type.
pub(super) fn listed(index: &Value, artifact_type: &str, what: &str) -> Result<Vec<Referrer>, Error> {
    let all = select::entries(index, what)?.into_iter().map(|e| Referrer::of(&e));
    let list: Vec<_> = all.filter(|r| r.may_be(artifact_type)).collect();
    bounded(list.len(), what)?;
    Ok(list)
}

/// Refuses a list that is too long.
pub(super) fn bounded(length: usize, what: &str) -> Result<(), Error> {
    if length > MOST {
        let why = format!("it lists {length} artifacts: expected at most {MOST}");
        return Err(Error::Malformed { what: what.into(), why });
    }
    Ok(())
}

/// The tag that stands for the list of a registry without the API.
pub(super) fn tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// Whether an entry of a layout's index is about an image, or the list of what is, and none itself.
pub(super) fn is_aside(entry: &Entry) -> bool {
    let about = entry.descriptor.annotation(layout::REF_NAME).map(|name| name.strip_prefix("sha256-"));
    match about {
        Some(hex) => hex.is_some_and(|h| format!("sha256:{h}").parse::<Digest>().is_ok()),
        None => entry.raw.get("artifactType").is_some(),
    }
}

/// An empty list.
pub(super) fn empty() -> Value {
    json!({ "schemaVersion": 2, "mediaType": names::INDEX, "manifests": [] })
}

/// Puts an artifact into a list of manifests, at the place of the first that it replaces; what else is there stays as it is.
pub(super) fn merge(list: &mut Vec<Value>, referrer: &Referrer, replaced: &[Digest]) {
    let own = referrer.descriptor.digest;
    let goes = |entry: &Value| {
        let digest = entry.get("digest").and_then(Value::as_str).and_then(|d| d.parse::<Digest>().ok());
        digest.is_some_and(|d| d == own || replaced.contains(&d))
    };
    let mut new = Some(referrer.to_json());
    for entry in std::mem::take(list) {
        if goes(&entry) {
            list.extend(new.take());
        } else {
            list.push(entry);
        }
    }
    list.extend(new);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn referrer(name: &str) -> Referrer {
        let descriptor = Descriptor::new(names::MANIFEST, Digest::of(name.as_bytes()), 2);
        Referrer { descriptor, artifact_type: Some("a/b".into()) }
    }

    #[test]
    fn a_replaced_entry_gives_its_place_away_and_the_others_stay() {
        let mut list = vec![json!({"digest": "odd", "x": 1}), referrer("old").to_json(), referrer("more").to_json()];
        let (old, more) = (Digest::of(b"old"), Digest::of(b"more"));
        merge(&mut list, &referrer("new"), &[old, more]);
        assert_eq!(list, [json!({"digest": "odd", "x": 1}), referrer("new").to_json()]);
        merge(&mut list, &referrer("new"), &[]);
        merge(&mut list, &referrer("last"), &[]);
        assert_eq!(list[1..], [referrer("new").to_json(), referrer("last").to_json()]);
    }

    #[test]
    fn a_list_is_bounded_and_other_types_are_left_out() {
        let mut index = empty();
        let mut other = referrer("other");
        other.artifact_type = Some("c/d".into());
        let mut silent = referrer("silent");
        silent.artifact_type = None;
        index["manifests"] = json!([referrer("one").to_json(), other.to_json(), silent.to_json()]);
        assert_eq!(listed(&index, "a/b", "it").expect("a list"), [referrer("one"), silent]);
        index["manifests"] = vec![referrer("one").to_json(); MOST + 1].into();
        let error = listed(&index, "a/b", "it").expect_err("too long").to_string();
        assert!(error.contains("1001 artifacts: expected at most 1000"), "{error}");
    }
}
