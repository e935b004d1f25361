//! What is found out about an image, and how it is put as JSON.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::super::Failure;
use super::super::output::megabytes;
use crate::convert::startup;
use crate::digest::Digest;
use crate::estargz::{Layer, landmark};
use crate::image::{Descriptor, Image, Reference, names};
use crate::profile::{File, carried};
use crate::progress::chain;
use crate::store::Blobs;
use crate::tar::clean;
use crate::verify;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) reference: String,
    pub(super) digest: Digest,
    pub(super) platform: String,
    /// Of the manifest, ours alone.
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) layers: Vec<LayerReport>,
    /// Bytes of all layers as stored.
    pub(super) compressed: u64,
    /// Bytes that the snapshotter prefetches.
    pub(super) prefetch: u64,
    /// Bytes of the hot layer as stored.
    pub(super) hot: u64,
    /// What its hot layer adds to the image, by class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) added: Option<String>,
    /// Facts about the machine that compiled caches among that were made on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) made_on: BTreeMap<String, String>,
    /// Where this machine is another one, if that was asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) mismatches: Vec<startup::Mismatch>,
    /// What makes the image as a whole wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) problems: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct IndexReport {
    pub(super) reference: String,
    pub(super) digest: Digest,
    /// Of the index, ours alone.
    pub(super) annotations: BTreeMap<String, String>,
    /// In the order of the index.
    pub(super) images: Vec<Report>,
}

#[derive(Debug, Serialize)]
pub(super) struct LayerReport {
    pub(super) index: usize,
    /// `estargz`, `zstd:chunked`, `hot`, or the compression of an ordinary layer.
    pub(super) kind: &'static str,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) uncompressed_size: Option<u64>,
    #[serde(flatten)]
    pub(super) toc: Option<TocReport>,
}

#[derive(Debug, Serialize)]
pub(super) struct TocReport {
    pub(super) toc_digest: Digest,
    /// Whether the layer's annotation names this TOC: mounted lazily only then.
    pub(super) toc_annotated: bool,
    pub(super) toc_offset: u64,
    /// Bytes of the TOC as stored.
    pub(super) toc_size: u64,
    pub(super) entries: usize,
    pub(super) files: usize,
    pub(super) chunks: usize,
    /// Compressed members that hold them; fewer where small files share some.
    pub(super) members: usize,
    /// `prefetch`, `no-prefetch` or `none`.
    pub(super) landmark: &'static str,
    /// Entries in front of the landmark.
    pub(super) prioritized: usize,
    pub(super) prefetch_size: Option<u64>,
    /// What the stock reader would trip over.
    pub(super) problems: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) list: Vec<Listed>,
}

#[derive(Debug, Serialize)]
pub(super) struct Listed {
    pub(super) path: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// Annotations that this program wrote, of a manifest or index.
pub(super) fn ours(raw: &serde_json::Value) -> BTreeMap<String, String> {
    let annotations = raw.get("annotations").and_then(|a| a.as_object()).into_iter().flatten();
    annotations
        .filter(|(key, _)| key.starts_with("dev.esgz."))
        .map(|(k, v)| (k.clone(), v.as_str().map_or_else(|| v.to_string(), |text| shown(k, text))))
        .collect()
}

/// The value of an annotation; of the packed list for `esgz warm node` what is in it, and what the wrapped entrypoint means.
fn shown(key: &str, text: &str) -> String {
    match key {
        names::WARM => match carried::unpack(text) {
            Ok(list) => {
                let bytes: u64 = list.files.iter().map(File::touched_bytes).fold(0, u64::saturating_add);
                let ranges: usize = list.files.iter().map(|f| f.ranges.len()).sum();
                format!(
                    "{} of {} lazy files in {ranges} ranges, packed {} bytes",
                    megabytes(bytes),
                    list.files.len(),
                    text.len()
                )
            }
            Err(e) => format!("not usable: {e}"),
        },
        names::ENTRYPOINT => {
            let original = if text.is_empty() { "none" } else { text };
            format!("{original}, behind the embedded read-ahead; a pod's own command replaces both")
        }
        _ => text.into(),
    }
}

pub(super) fn report(reference: &Reference, blobs: &dyn Blobs, image: &Image, files: bool) -> Result<Report, Failure> {
    let layers = image.manifest.layers.iter().enumerate();
    let layers: Vec<LayerReport> = layers.map(|(i, l)| layer(i, l, blobs, files)).collect::<Result<_, _>>()?;
    let top = image.manifest.layers.last().filter(|l| l.is_hot());
    let made_on = startup::facts(top.into_iter().flat_map(|l| &l.annotations).map(|(k, v)| (k.as_str(), v.as_str())));
    Ok(Report {
        reference: reference.to_string(),
        digest: image.descriptor.digest,
        platform: image.config.platform(),
        annotations: ours(&image.manifest.raw),
        compressed: layers.iter().map(|l| l.size).sum(),
        prefetch: layers.iter().filter_map(|l| l.toc.as_ref()?.prefetch_size).sum(),
        hot: layers.iter().filter(|l| l.kind == "hot").map(|l| l.size).sum(),
        layers,
        added: top.and_then(|l| l.annotation(names::LAYER_ADDED_CLASSES)).map(Into::into),
        made_on,
        mismatches: Vec::new(),
        problems: image
            .stale_hot_layer()
            .map(|(was, is)| {
                format!("the hot layer was made over other layers (then {was}, now {is}): it would bring back old files; convert the image again")
            })
            .into_iter()
            .collect(),
    })
}

fn layer(index: usize, descriptor: &Descriptor, blobs: &dyn Blobs, files: bool) -> Result<LayerReport, Failure> {
    let ordinary = match descriptor.media_type.as_str() {
        _ if descriptor.is_hot() => "hot",
        names::LAYER_GZIP | names::DOCKER_LAYER_GZIP => "gzip",
        names::LAYER_ZSTD | names::DOCKER_LAYER_ZSTD => "zstd",
        names::LAYER_TAR | names::DOCKER_LAYER_TAR => "tar",
        _ => "other",
    };
    let claims = descriptor.annotation(names::TOC_DIGEST);
    let toc = match verify::open_toc(blobs, descriptor)? {
        Some(Ok(layer)) => Some(layer),
        // A layer that says of itself that it is eStargz is broken when it cannot be opened.
        Some(Err(e)) if claims.is_some() => {
            let why = format!("layer {index} ({}): {}", descriptor.digest, chain(&e));
            return Err(Failure::new(1, why).hint("`esgz verify` lists everything that is wrong with it"));
        }
        Some(Err(_)) | None => None,
    };
    Ok(LayerReport {
        index,
        kind: toc.as_ref().map_or(ordinary, |l| l.format.name()),
        digest: descriptor.digest,
        size: descriptor.size,
        uncompressed_size: descriptor.annotation(names::UNCOMPRESSED_SIZE).and_then(|s| s.parse().ok()),
        toc: toc.map(|l| toc_report(&l, claims, files)),
    })
}

fn toc_report(layer: &Layer, claims: Option<&str>, files: bool) -> TocReport {
    let entries: Vec<_> = layer.toc.entries.iter().filter(|e| e.kind != "chunk").collect();
    let find = |name: &str| entries.iter().position(|e| clean(&e.name) == name);
    let (landmark, prioritized) = match (find(landmark::NO_PREFETCH), find(landmark::PREFETCH)) {
        (Some(_), _) => ("no-prefetch", 0),
        (None, Some(at)) => ("prefetch", at),
        (None, None) => ("none", 0),
    };
    let chunks = layer.toc.entries.iter().filter(|e| e.offset > 0).count();
    let members = layer.toc.entries.iter().map(|e| e.offset).filter(|&o| o > 0).collect::<HashSet<_>>().len();
    let list = entries.iter().filter(|_| files).map(|e| Listed {
        path: e.name.clone(),
        kind: e.kind.clone(),
        offset: e.offset,
        size: e.size,
    });
    TocReport {
        toc_digest: layer.toc_digest,
        toc_annotated: claims == Some(layer.toc_digest.to_string().as_str()),
        toc_offset: layer.toc_offset,
        toc_size: layer.footer_offset() - layer.toc_offset,
        entries: entries.len(),
        files: entries.iter().filter(|e| e.kind == "reg").count(),
        chunks,
        members,
        landmark,
        prioritized,
        prefetch_size: layer.prefetch_size(),
        problems: layer
            .problems()
            .into_iter()
            .map(|p| if p.path.is_empty() { p.what } else { format!("{:?}: {}", p.path, p.what) })
            .collect(),
        list: list.collect(),
    }
}
