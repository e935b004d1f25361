//! The conversion: every layer is inflated once, cut into chunks that a pool of threads compresses into a spool, put into
//! its final order, read back and checked, and stored. It carries out a plan and decides nothing by itself.
//!
//! Memory is bounded by workers and chunk size, temporary disk by the compressed size; spool files have no name, so that
//! nothing is left whatever ends the process. The tag is written last.

mod hot;
mod ingest;
mod publish;
mod spool;
mod stack;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use crate::digest::Digest;
use crate::estargz::{self, Level};
use crate::image::{self, Descriptor, Image, names};
use crate::plan::{self, LayerIndex, Layout, Match, Plan};
use crate::profile::Profile;
use crate::progress::Progress;
use crate::store::{self, Images};
use crate::tar;

use ingest::Ingested;

/// Most layers an image may have: overlayfs and containerd stop there.
const MAX_LAYERS: usize = 127;

/// What decides the output's bytes, and how much of the machine is used.
#[derive(Debug, Clone)]
pub struct Options {
    /// Layout.
    pub layout: Layout,
    /// Bytes of a chunk.
    pub chunk_size: u64,
    /// Compression level of the lazy layers.
    pub level: Level,
    /// `os/arch[/variant]` picked from an index.
    pub platform: String,
    /// Use a profile that fits badly.
    pub force_profile: bool,
    /// Compressing threads. Does not change a byte of the output.
    pub jobs: NonZeroUsize,
    /// Where spool files live.
    pub temp_dir: PathBuf,
}

/// Why a conversion stopped. Nothing was tagged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A manifest or config is wrong.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// A layer's archive cannot be read.
    #[error("layer {layer} ({digest})")]
    Layer {
        /// Position, lowest is 0.
        layer: usize,
        /// Its digest.
        digest: Digest,
        /// The cause.
        #[source]
        source: Box<LayerError>,
    },
    /// The layers cannot be stacked.
    #[error("{layers} layers: at most {MAX_LAYERS} can be mounted")]
    TooManyLayers {
        /// Number of layers of the result.
        layers: usize,
    },
    /// The profile is one of another image.
    #[error("the profile is one of another image: {matched} of {profiled} profiled bytes are in files of this one")]
    ForeignProfile {
        /// Bytes matched.
        matched: u64,
        /// Bytes profiled.
        profiled: u64,
    },
    /// A layout that needs a profile, without one.
    #[error("layout {0} needs a profile")]
    NoProfile(Layout),
    /// The hot layer could not be made.
    #[error("writing the hot layer")]
    Hot(#[source] Box<LayerError>),
}

/// Why one layer cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The archive.
    #[error(transparent)]
    Tar(#[from] tar::Error),
    /// The eStargz side.
    #[error(transparent)]
    Estargz(#[from] estargz::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Files of this machine.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A media type that is not handled.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// The content is not what the config says.
    #[error("its content has diffID {found}: the config says {expected}")]
    DiffId {
        /// As computed.
        found: Digest,
        /// As recorded.
        expected: Digest,
    },
    /// A hard link that a lazy mount cannot follow, or would follow to other content.
    #[error("hard link {path:?} to {target:?}: {why}")]
    Link {
        /// The link.
        path: String,
        /// What it links to.
        target: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An entry below a symlink.
    #[error(
        "{path:?} lies below {parent:?}, which is no folder: an ordinary unpack goes through it, a lazy mount cannot"
    )]
    NoFolder {
        /// The entry.
        path: String,
        /// What is above it.
        parent: String,
    },
    /// Another layer failed first.
    #[error("stopped because another layer failed")]
    Stopped,
}

/// One layer of the result.
#[derive(Debug, Clone, Serialize)]
pub struct LayerReport {
    /// `estargz` or `hot`.
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
    /// Bytes that the snapshotter prefetches.
    pub prefetch_size: u64,
    /// Entries.
    pub entries: usize,
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
    /// How the profile fitted, when there was one.
    pub fit: Option<Match>,
    /// Layers, lowest first.
    pub layers: Vec<LayerReport>,
}

/// Converts the image of `src` into `dst`.
pub fn convert(
    src: &dyn Images,
    dst: &dyn Images,
    profile: Option<&Profile>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Report, Error> {
    if options.layout != Layout::Plain && profile.is_none() {
        return Err(Error::NoProfile(options.layout));
    }
    let mut image = src.image(&options.platform)?;
    publish::strip_hot_layer(&mut image, progress);
    let count = image.manifest.layers.len() + usize::from(options.layout == Layout::Hot);
    if count > MAX_LAYERS {
        return Err(Error::TooManyLayers { layers: count });
    }

    // Asked only to learn now, not after all the work, that the destination cannot be reached or lets nobody in.
    dst.has(&image.manifest.config.digest)?;
    let ingested = ingest::layers(src, &image, options, progress)?;
    let (mut indexes, mut contents): (Vec<LayerIndex>, Vec<_>) = ingested.into_iter().map(Ingested::split).unzip();
    stack::complete(&mut indexes, &mut contents).map_err(|(layer, source)| Error::Layer {
        layer,
        digest: image.manifest.layers[layer].digest,
        source: Box::new(source),
    })?;
    let plan = plan::plan(options.layout, &indexes, profile);
    if profile.is_some() {
        check_fit(&plan, options, progress)?;
    }

    let mut layers = store_layers(dst, &image, &indexes, &contents, &plan, options, progress)?;
    if options.layout == Layout::Hot && !plan.hot.is_empty() {
        let hot = hot::build(&plan.hot, &indexes, &contents, options).map_err(|e| Error::Hot(Box::new(e)))?;
        let task = progress.start("storing the hot layer", hot.descriptor.size);
        dst.put(&hot.descriptor, &hot.blob)?;
        progress.advance(task, hot.descriptor.size);
        progress.done(task);
        layers.push(publish::NewLayer { descriptor: hot.descriptor, diff_id: hot.diff_id, report: hot.report });
    }
    let digest = publish::publish(dst, &image, &layers, options)?;
    Ok(Report {
        digest,
        source: image.descriptor.digest,
        layout: options.layout,
        fit: profile.is_some().then_some(plan.fit),
        layers: layers.into_iter().map(|l| l.report).collect(),
    })
}

fn check_fit(plan: &Plan, options: &Options, progress: &dyn Progress) -> Result<(), Error> {
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
    if fit.missing_files > 0 {
        progress.warn(&format!("{} profiled files are not in this image", fit.missing_files));
    }
    Ok(())
}

/// Runs `work` for every item on `threads` threads; results in order, the first failure by position.
pub(crate) fn in_parallel<T: Send, E: Send>(
    count: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<T, E>>>> = (0..count).map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..threads.min(count) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(slot) = results.get(i) else { break };
                    let result = work(i);
                    let failed = result.is_err();
                    *slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(result);
                    if failed {
                        next.store(count, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut out = Vec::with_capacity(count);
    for slot in results {
        // A slot stays empty only behind a failure in another one, which is found on the way or after.
        match slot.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(Ok(value)) => out.push(value),
            Some(Err(e)) => return Err(e),
            None => {}
        }
    }
    Ok(out)
}

/// Orders, reads back and stores the eStargz layers.
fn store_layers(
    dst: &dyn Images,
    image: &Image,
    indexes: &[LayerIndex],
    contents: &[ingest::Content],
    plan: &Plan,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Vec<publish::NewLayer>, Error> {
    in_parallel(indexes.len(), options.jobs.get(), |i| {
        let source = &image.manifest.layers[i];
        let fail = |source_error| Error::Layer { layer: i, digest: source.digest, source: Box::new(source_error) };
        let (index, content) = (&indexes[i], &contents[i]);
        let name = format!("storing layer {i}");
        let task = progress.start(&name, content.uncompressed);
        let order = plan::order(&index.entries, &plan.prioritized[i]);
        let (blob, summary) =
            spool::assemble(index, content, &order, options, |n| progress.advance(task, n)).map_err(fail)?;
        let mut descriptor = Descriptor::new(names::LAYER_GZIP, summary.digest, summary.size);
        let kept = |key: &str| {
            !key.starts_with("containerd.io/snapshot/")
                && !key.starts_with("io.containers.")
                && !key.starts_with("dev.esgz.")
        };
        descriptor.annotations = source.annotations.iter().filter(|(k, _)| kept(k)).cloned().collect();
        let mut annotate = |key: &str, value: String| descriptor.annotations.push((key.into(), value));
        annotate(names::TOC_DIGEST, summary.toc_digest.to_string());
        annotate(names::UNCOMPRESSED_SIZE, summary.uncompressed_size.to_string());
        annotate(names::LAYER_KIND, "estargz".into());
        annotate(names::LAYER_SOURCE, source.digest.to_string());
        descriptor.annotations.sort();
        dst.put(&descriptor, &blob)?;
        progress.done(task);
        let report = LayerReport {
            kind: "estargz",
            source: Some(source.digest),
            source_size: source.size,
            digest: summary.digest,
            size: summary.size,
            uncompressed_size: summary.uncompressed_size,
            prefetch_size: summary.prefetch_size.unwrap_or(0),
            entries: order.front.len() + order.rest.len(),
        };
        Ok(publish::NewLayer { descriptor, diff_id: summary.diff_id, report })
    })
}
