//! What a conversion did.

use serde::Serialize;

use super::startup;
use crate::digest::Digest;
use crate::estargz::Format;
use crate::image::{Descriptor, names};
use crate::plan::{Layout, Match, Mismatch};

/// One layer of the result.
#[derive(Debug, Clone, Serialize)]
pub struct LayerReport {
    /// `estargz`, `zstd:chunked` or `hot`.
    pub kind: &'static str,
    /// Digest of the layer it was made from.
    pub source: Option<Digest>,
    /// Size of the layer it was made from, bytes.
    pub source_size: u64,
    /// Digest.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Bytes decompressed.
    pub uncompressed_size: u64,
    /// Bytes that the snapshotter prefetches; not known of a reused layer.
    pub prefetch_size: Option<u64>,
    /// Entries; not known of a reused layer.
    pub entries: Option<usize>,
    /// Made by an earlier conversion.
    pub reused: bool,
}

impl LayerReport {
    pub(super) fn reused(descriptor: &Descriptor) -> Self {
        Self {
            kind: match descriptor.annotation(names::LAYER_KIND) {
                Some("hot") => "hot",
                other => other.and_then(Format::from_name).unwrap_or_default().name(),
            },
            source: descriptor.annotation(names::LAYER_SOURCE).and_then(|d| d.parse().ok()),
            source_size: 0,
            digest: descriptor.digest,
            size: descriptor.size,
            uncompressed_size: descriptor
                .annotation(names::UNCOMPRESSED_SIZE)
                .and_then(|n| n.parse().ok())
                .unwrap_or_default(),
            prefetch_size: None,
            entries: None,
            reused: true,
        }
    }
}

/// What a conversion did.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Digest of the new manifest.
    pub digest: Digest,
    /// Digest of the manifest that was converted.
    pub source: Digest,
    /// Layout.
    pub layout: Layout,
    /// How the profile fitted, when there was one and it was used.
    pub fit: Option<Match>,
    /// Profiled files that are not in the image as they were profiled, most touched bytes first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mismatches: Vec<Mismatch>,
    /// What became of the start-up layer, when there was one and it was used.
    pub startup: Option<startup::Shipped>,
    /// The destination had this very image already; nothing was read or written.
    pub unchanged: bool,
    /// Layers, lowest first.
    pub layers: Vec<LayerReport>,
}
