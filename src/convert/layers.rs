//! The new layers: put together as planned, or taken over, and stored.

use super::embed::Embedded;
use super::planned::Planned;
use super::pool::Pool;
use super::reuse::Known;
use super::startup::Additions;
use super::{Error, Job, LayerError, LayerReport, commit, hot, publish, spool};
use crate::image::{Descriptor, names};

impl Job<'_> {
    /// Writes and stores the hot layer.
    pub(super) fn store_hot(
        &self,
        planned: &Planned,
        additions: Option<&Additions<'_>>,
        embedded: Option<&Embedded<'_>>,
        pool: &Pool,
    ) -> Result<publish::NewLayer, Error> {
        let Planned { indexes, contents, plan, .. } = planned;
        let mut entries = plan.hot.clone();
        // An unpacker that met a file without its folders would make them anew.
        entries.extend(additions.iter().flat_map(|a| &a.folders).filter(|at| !plan.hot.contains(at)));
        let hot = hot::build(&entries, indexes, contents, self.options, pool, additions, embedded);
        let hot = hot.map_err(|e| Error::Hot(Box::new(e)))?;
        let task = self.progress.start("storing the hot layer", hot.descriptor.size);
        self.dst.put(&hot.descriptor, &hot.blob)?;
        self.progress.advance(task, hot.descriptor.size);
        self.progress.done(task);
        Ok(publish::NewLayer { descriptor: hot.descriptor, diff_id: hot.diff_id, report: hot.report })
    }

    /// Orders, reads back and stores an eStargz layer, or takes over the one that is there.
    pub(super) fn store_layer(
        &self,
        planned: &Planned,
        i: usize,
        pool: &Pool,
    ) -> Result<publish::NewLayer, LayerError> {
        let source = &planned.image.manifest.layers[i];
        let (index, content, order) = (&planned.indexes[i], &planned.contents[i], &planned.orders[i]);
        if let Some(known) = &planned.known[i] {
            let mut descriptor = known.descriptor.clone();
            descriptor.annotations.retain(|(key, _)| is_ours(key));
            descriptor.annotations.extend(source.annotations.iter().filter(|(key, _)| !is_replaced(key)).cloned());
            descriptor.annotations.sort();
            let report = LayerReport { source_size: source.size, ..LayerReport::reused(&descriptor) };
            return Ok(publish::NewLayer { descriptor, diff_id: known.diff_id, report });
        }
        let task = self.progress.start(&format!("storing layer {i}"), content.uncompressed);
        let in_order = |r: &&commit::Ready| {
            r.entries == index.entries.len() && order.front.is_empty() && order.rest.iter().copied().eq(0..r.entries)
        };
        let ready = content.ready.as_ref().filter(in_order);
        let (blob, summary) = match ready {
            Some(ready) => {
                self.progress.advance(task, content.uncompressed);
                (ready.blob(&content.spool), ready.summary.clone())
            }
            None => spool::assemble(index, content, order, self.options, pool, |n| {
                self.progress.advance(task, n);
            })?,
        };
        let is_stored = ready.is_some() && content.early.as_ref().is_some_and(|early| early.is_stored());
        let mut descriptor = Descriptor::new(summary.format.media_type(), summary.digest, summary.size);
        descriptor.annotations = source.annotations.iter().filter(|(key, _)| !is_replaced(key)).cloned().collect();
        let mut annotate = |key: &str, value: String| descriptor.annotations.push((key.into(), value));
        annotate(names::TOC_DIGEST, summary.toc_digest.to_string());
        annotate(names::UNCOMPRESSED_SIZE, summary.uncompressed_size.to_string());
        if let Some(chunked) = &summary.chunked {
            annotate(names::CHUNKED_CHECKSUM, chunked.checksum.to_string());
            annotate(names::CHUNKED_POSITION, chunked.position.clone());
        }
        annotate(names::LAYER_KIND, summary.format.name().into());
        annotate(names::LAYER_SOURCE, source.digest.to_string());
        annotate(names::LAYER_KEY, planned.keys[i].clone());
        descriptor.annotations.sort();
        if !is_stored {
            self.dst.put(&descriptor, &blob)?;
        }
        self.progress.done(task);
        let known = Known { key: planned.keys[i].clone(), descriptor, diff_id: summary.diff_id };
        if let Err(e) = self.journal.append(&publish::encoder(self.options), &source.digest, &known) {
            self.progress.warn(&format!("the layer is stored, but could not be remembered in the journal: {e}"));
        }
        let report = LayerReport {
            kind: summary.format.name(),
            source: Some(source.digest),
            source_size: source.size,
            digest: summary.digest,
            size: summary.size,
            uncompressed_size: summary.uncompressed_size,
            prefetch_size: Some(summary.prefetch_size.unwrap_or(0)),
            entries: Some(order.front.len() + order.rest.len()),
            reused: false,
        };
        Ok(publish::NewLayer { descriptor: known.descriptor, diff_id: known.diff_id, report })
    }
}

/// Annotations that this program writes on an eStargz layer.
fn is_ours(key: &str) -> bool {
    key.starts_with("dev.esgz.")
        || [names::TOC_DIGEST, names::UNCOMPRESSED_SIZE, names::CHUNKED_CHECKSUM, names::CHUNKED_POSITION]
            .contains(&key)
}

/// Annotations of a source layer that say what is no longer true of the new one.
pub(super) fn is_replaced(key: &str) -> bool {
    ["containerd.io/snapshot/", "io.containers.", "io.github.containers.zstd-chunked.", "dev.esgz."]
        .iter()
        .any(|prefix| key.starts_with(prefix))
}
