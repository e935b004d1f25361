//! What is read of the source and decided for it, before anything of the new image is put together.

use std::collections::HashSet;

use super::ingest::{self, Content, Mode};
use super::pool::Pool;
use super::reuse::{self, Known};
use super::shape::{self, retain};
use super::startup::Startup;
use super::{Error, Job, LayerError, Options, publish, stack};
use crate::image::Image;
use crate::plan::{self, LayerIndex, Order, Plan, What};
use crate::profile::Profile;
use crate::progress::Progress;
use crate::tar::{At, Merged};

/// What was read of the source and decided for it.
pub(super) struct Planned {
    /// The source without the layers that are left out.
    pub(super) image: Image,
    /// Where each layer was in the source.
    pub(super) positions: Vec<usize>,
    pub(super) indexes: Vec<LayerIndex>,
    pub(super) contents: Vec<Content>,
    /// What a container sees of the layers.
    pub(super) merged: Merged,
    pub(super) plan: Plan,
    /// Final order of each layer.
    pub(super) orders: Vec<Order>,
    /// Key of each layer.
    pub(super) keys: Vec<String>,
    /// Layers that exist.
    pub(super) known: Vec<Option<Known>>,
}

impl Planned {
    pub(super) fn layer_error(&self, layer: usize, source: LayerError) -> Error {
        Error::Layer {
            layer: self.positions[layer],
            digest: self.image.manifest.layers[layer].digest,
            source: Box::new(source),
        }
    }
}

impl Job<'_> {
    /// Reads all layers and makes the plan. Layers that turn out to be no others than known ones are read but not
    /// compressed; those of which that was thought in vain are read a second time.
    pub(super) fn read(
        &self,
        pool: &Pool,
        profile: Option<&Profile>,
        candidates: Vec<Option<Known>>,
    ) -> Result<Planned, Error> {
        let options = self.options;
        let ingest = |image: &Image, modes: &[Option<Mode<'_>>]| {
            ingest::layers(self.src, self.dst, image, modes, self.chunking, options, pool, self.progress)
        };
        let mut hot_paths = match profile {
            Some(profile) if options.layout.has_hot() => plan::hot_paths(profile, &options.rule),
            _ => HashSet::new(),
        };
        hot_paths.extend(self.more.startup.iter().flat_map(Startup::hashed_sources));
        let modes: Vec<_> = candidates
            .iter()
            .map(|c| Some(if c.is_some() { Mode::Keep(&hot_paths) } else { Mode::Compress }))
            .collect();
        let (mut indexes, mut contents): (Vec<LayerIndex>, Vec<_>) =
            ingest(self.image, &modes)?.into_iter().map(|(_, ingested)| ingested.split()).unzip();
        let mut image = self.image.clone();
        let mut known = candidates;
        let mut positions: Vec<usize> = (0..indexes.len()).collect();
        if !options.keep_layers {
            let kept = shape::kept(&indexes, &image.config.diff_ids);
            shape::drop_layers(&mut image, &kept);
            retain(&mut positions, &kept);
            retain(&mut indexes, &kept);
            retain(&mut contents, &kept);
            retain(&mut known, &kept);
            for (i, _) in kept.iter().enumerate().filter(|(_, stays)| !**stays) {
                let digest = self.image.manifest.layers[i].digest;
                self.progress.warn(&format!("layer {i} ({digest}) changes nothing and is left out"));
            }
        }
        let compressed: Vec<bool> = known.iter().map(Option::is_none).collect();
        stack::complete(&mut indexes, &mut contents).map_err(|(layer, source)| Error::Layer {
            layer: positions[layer],
            digest: image.manifest.layers[layer].digest,
            source: Box::new(source),
        })?;
        let merged = plan::merged(&indexes);
        let plan = plan::plan(options.layout, options.hot_layer, &options.rule, &indexes, &merged, profile);
        let orders: Vec<_> = indexes
            .iter()
            .zip(plan.prioritized.iter().zip(&plan.moved))
            .map(|(index, (first, moved))| plan::order(&index.entries, first, moved))
            .collect();
        let encoder = publish::encoder(options);
        let keys: Vec<_> = indexes
            .iter()
            .zip(&orders)
            .map(|(index, order)| reuse::layer_key(&encoder, index, order, self.chunking))
            .collect();
        // What is needed beside the hot layer's files: sources that bytecode is to be compared with.
        let mut needed = plan.hot.clone();
        if let Some(startup) = self.more.startup.as_ref().filter(|s| s.hashed_sources().next().is_some()) {
            let contents = plan::Contents::new(&indexes);
            needed.extend(startup.hashed_sources().filter_map(|s| contents.of(merged.get(&s)?)));
        }
        for (layer, slot) in known.iter_mut().enumerate() {
            let missing = |at: &At| {
                at.layer == layer
                    && indexes[layer].entries[at.index].size > 0
                    && contents[layer].chunks[at.index].is_empty()
            };
            if slot.as_ref().is_some_and(|k| k.key != keys[layer]) || needed.iter().any(missing) {
                *slot = None;
            }
        }
        let again: Vec<_> = compressed
            .iter()
            .zip(&known)
            .map(|(compressed, known)| (!compressed && known.is_none()).then_some(Mode::Compress))
            .collect();
        if again.iter().any(Option::is_some) {
            for (layer, ingested) in ingest(&image, &again)? {
                let (_, mut content) = ingested.split();
                // The folders that the layer was completed with.
                let added = indexes[layer].entries.len() - content.chunks.len();
                content.chunks.splice(0..0, (0..added).map(|_| Vec::new()));
                contents[layer] = content;
            }
        }
        Ok(Planned { image, positions, indexes, contents, merged, plan, orders, keys, known })
    }
}

/// Mismatches that are named in a warning; the report has all of them.
const NAMED: usize = 5;

pub(super) fn check_fit(plan: &Plan, options: &Options, progress: &dyn Progress) -> Result<(), Error> {
    let fit = plan.fit;
    if fit.is_foreign() {
        if !options.force_profile {
            return Err(Error::ForeignProfile { matched: fit.matched_bytes, profiled: fit.profiled_bytes });
        }
        progress.warn("the profile matches less than half of this image; used as --force-profile says");
    }
    if fit.changed_files > 0 {
        progress.warn(&format!(
            "{} profiled files have other content in this image; their paths are used all the same",
            fit.changed_files
        ));
    }
    if fit.moved_files > 0 {
        progress.warn(&format!("{} profiled files were found under other paths by their content", fit.moved_files));
    }
    if fit.missing_files > 0 {
        progress.warn(&format!("{} profiled files are not in this image", fit.missing_files));
    }
    for m in plan.mismatches.iter().filter(|m| !matches!(m.what, What::Moved(_))).take(NAMED) {
        let what = if m.what == What::Missing { "missing" } else { "changed" };
        progress.warn(&format!("{what}: {} ({} bytes were touched)", m.path, m.touched_bytes));
    }
    Ok(())
}
