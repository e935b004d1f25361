//! Descriptors, manifests and configs: typed for reading, raw JSON for writing.

use serde_json::{Map, Value};

use super::{Error, names};
use crate::digest::{Digest, Hasher};

/// JSON documents above this size are refused before they are read: registries accept manifests of at least 4 MiB (OCI
/// distribution spec), nobody writes larger ones.
pub const MAX_JSON_BYTES: u64 = 16 << 20;

/// Points at a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type.
    pub media_type: String,
    /// Digest.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// Annotations in their order.
    pub annotations: Vec<(String, String)>,
}

impl Descriptor {
    /// A descriptor without annotations.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.into(), digest, size, annotations: Vec::new() }
    }

    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Whether it is the natively unpacked layer on top.
    pub fn is_hot(&self) -> bool {
        self.annotation(names::LAYER_KIND) == Some("hot")
    }

    /// Whether it is a hot layer without which the image shows the same.
    pub fn is_copies(&self) -> bool {
        self.is_hot() && self.annotation(names::LAYER_MOVED).is_none()
    }

    /// Reads a descriptor, naming `what` in the error.
    pub fn from_json(value: &Value, what: &str) -> Result<Self, Error> {
        let typed: oci_spec::image::Descriptor =
            serde_json::from_value(value.clone()).map_err(|source| Error::Json { what: what.into(), source })?;
        let digest = typed
            .digest()
            .to_string()
            .parse()
            .map_err(|e: crate::digest::Error| Error::Value { what: what.into(), why: e.to_string() })?;
        let mut annotations: Vec<_> = typed.annotations().clone().unwrap_or_default().into_iter().collect();
        annotations.sort();
        Ok(Self { media_type: typed.media_type().to_string(), digest, size: typed.size(), annotations })
    }

    /// Writes the descriptor.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        map.insert("mediaType".into(), self.media_type.clone().into());
        map.insert("digest".into(), self.digest.to_string().into());
        map.insert("size".into(), self.size.into());
        if !self.annotations.is_empty() {
            let a: Map<_, _> = self.annotations.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect();
            map.insert("annotations".into(), a.into());
        }
        map.into()
    }
}

/// An image manifest with its original JSON.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The JSON as read; patch this, never a typed copy.
    pub raw: Value,
    /// Media type.
    pub media_type: String,
    /// The image config.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
}

impl Manifest {
    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.raw.get("annotations")?.get(key)?.as_str()
    }

    /// Parses manifest bytes; `what` names the image in errors. An index or schema 1 manifest is an error here.
    pub fn parse(bytes: &[u8], what: &str) -> Result<Self, Error> {
        let raw: Value = serde_json::from_slice(bytes)
            .map_err(|source| Error::Json { what: format!("manifest of {what}"), source })?;
        let what = format!("manifest of {what}");
        let version = raw.get("schemaVersion").and_then(Value::as_u64);
        let media_type = raw.get("mediaType").and_then(Value::as_str).unwrap_or(names::MANIFEST).to_owned();
        if version == Some(1) || media_type == names::DOCKER_SCHEMA1 || media_type == names::DOCKER_SCHEMA1_SIGNED {
            return Err(Error::MediaType {
                what,
                found: names::DOCKER_SCHEMA1.into(),
                expected: "an OCI or Docker schema 2 manifest (schema 1 carries no layer types or diffIDs; re-push the image with a current tool)",
            });
        }
        if media_type != names::MANIFEST && media_type != names::DOCKER_MANIFEST {
            return Err(Error::MediaType {
                what,
                found: media_type,
                expected: "an OCI or Docker schema 2 image manifest",
            });
        }
        if version != Some(2) {
            return Err(Error::Value {
                what,
                why: format!("schemaVersion is {}: expected 2", raw.get("schemaVersion").unwrap_or(&Value::Null)),
            });
        }
        let config = raw.get("config").ok_or_else(|| Error::Value { what: what.clone(), why: "no config".into() })?;
        let config = Descriptor::from_json(config, &format!("config descriptor in the {what}"))?;
        let layers = raw
            .get("layers")
            .and_then(Value::as_array)
            .ok_or_else(|| Error::Value { what: what.clone(), why: "no list of layers".into() })?;
        let layers = layers
            .iter()
            .enumerate()
            .map(|(i, l)| Descriptor::from_json(l, &format!("layer {i} in the {what}")))
            .collect::<Result<_, _>>()?;
        Ok(Self { raw, media_type, config, layers })
    }
}

/// An image config with its original JSON.
#[derive(Debug, Clone)]
pub struct Config {
    /// The JSON as read.
    pub raw: Value,
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
}

impl Config {
    /// Parses config bytes; `what` names the image in errors.
    pub fn parse(bytes: &[u8], what: &str) -> Result<Self, Error> {
        let what = format!("config of {what}");
        let raw: Value = serde_json::from_slice(bytes).map_err(|source| Error::Json { what: what.clone(), source })?;
        let typed: oci_spec::image::ImageConfiguration =
            serde_json::from_value(raw.clone()).map_err(|source| Error::Json { what: what.clone(), source })?;
        let diff_ids = typed
            .rootfs()
            .diff_ids()
            .iter()
            .map(|d| {
                d.parse().map_err(|e: crate::digest::Error| Error::Value { what: what.clone(), why: e.to_string() })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { raw, diff_ids })
    }

    /// `os/architecture[/variant]`.
    pub fn platform(&self) -> String {
        let get = |k| self.raw.get(k).and_then(Value::as_str).unwrap_or("unknown");
        let mut s = format!("{}/{}", get("os"), get("architecture"));
        if let Some(v) = self.raw.get("variant").and_then(Value::as_str) {
            s.push('/');
            s.push_str(v);
        }
        s
    }
}

/// One digest for a stack of layers.
pub fn stack_digest(diff_ids: &[Digest]) -> Digest {
    let mut hasher = Hasher::default();
    for id in diff_ids {
        hasher.update(id.to_string().as_bytes());
    }
    hasher.finish()
}

/// One image of one platform, as found in a store: manifest and config, both verified against their digests.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest's descriptor.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: Manifest,
    /// The config.
    pub config: Config,
    /// The index that it was picked from, if any.
    pub index: Option<Digest>,
    /// Entries of that index that are statements about it (`vnd.docker.reference.digest`).
    pub attestations: Vec<Digest>,
}

impl Image {
    /// Whether the layer on top is a hot layer that says it was made over other layers than those below it, as after a
    /// rebase: its copies would bring back old files. Gives what it says and what is there.
    pub fn stale_hot_layer(&self) -> Option<(String, Digest)> {
        let (top, below) = (self.manifest.layers.last()?, self.config.diff_ids.split_last()?.1);
        let recorded = top.annotation(names::LAYER_BELOW)?;
        let found = stack_digest(below);
        (recorded != found.to_string()).then(|| (recorded.to_owned(), found))
    }

    /// Puts manifest and config together and checks that they speak of the same number of layers.
    pub fn new(descriptor: Descriptor, manifest: Manifest, config: Config, what: &str) -> Result<Self, Error> {
        if manifest.layers.len() != config.diff_ids.len() {
            return Err(Error::Value {
                what: what.into(),
                why: format!(
                    "the manifest lists {} layers and the config {} diffIDs",
                    manifest.layers.len(),
                    config.diff_ids.len()
                ),
            });
        }
        Ok(Self { descriptor, manifest, config, index: None, attestations: Vec::new() })
    }
}
