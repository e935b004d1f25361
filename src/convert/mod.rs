//! The conversion: every layer is inflated once, cut into chunks that a pool of threads compresses, compares and puts into a
//! spool, which is the finished blob unless the plan reorders it, and stored. It carries out a plan and decides nothing itself.
//!
//! Memory is bounded by workers and chunk size, temporary disk by the compressed size; spool files have no name, so that
//! nothing is left whatever ends the process. The tag is written last.

mod bound;
mod commit;
mod early;
mod embed;
mod error;
mod group;
mod hot;
mod index;
mod ingest;
mod pool;
mod publish;
mod report;
mod reuse;
mod shape;
mod source;
mod spool;
mod stack;
pub mod startup;

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::digest::Digest;
use crate::estargz::{Format, Level};
use crate::image::manifest::stack_digest;
use crate::image::{Descriptor, Image, names, wrapped};
use crate::plan::{self, Chunking, HotLayer, LayerIndex, Layout, Order, Plan, Rule, What};
use crate::profile::{self, Profile, carried};
use crate::progress::Progress;
use crate::store::Images;
use crate::tar::{At, Merged};

use embed::{Embedded, Program};
use ingest::{Content, Mode};
use pool::{Piece, Pool, ReadBack, pieces};
use reuse::{Journal, Known};
use startup::{Additions, Startup, Target};

pub use error::{Error, LayerError};
pub use hot::HotCodec;
pub use index::{Converted, IndexReport, PartReport, convert_index};
pub use report::{LayerReport, Report};
pub(crate) use startup::{class_of as added_class, digest_of as additions_digest};

/// Most layers an image may have: overlayfs and containerd stop there.
const MAX_LAYERS: usize = 127;

/// What decides the output's bytes, and how much of the machine is used.
#[derive(Debug, Clone)]
pub struct Options {
    /// Layout.
    pub layout: Layout,
    /// What becomes of the hot layer's files below it.
    pub hot_layer: HotLayer,
    /// Which files the hot layer takes.
    pub rule: Rule,
    /// Format of the lazy layers.
    pub format: Format,
    /// Bytes of a chunk.
    pub chunk_size: u64,
    /// Small files share a member until their compressed payloads have this many bytes; 0: a member each.
    pub min_chunk_size: u64,
    /// Compression level of the lazy layers.
    pub level: Level,
    /// Compression of the hot layer.
    pub hot_codec: HotCodec,
    /// Tar archive of files that start-up writes; those of the classes below go into the hot layer.
    pub startup: Option<PathBuf>,
    /// Which of them.
    pub startup_classes: startup::Classes,
    /// Static program that is put into the hot layer and started before the image's own entrypoint, to read ahead.
    pub embed: Option<PathBuf>,
    /// What a gzip source compressed about as well as this level would is kept as it is; chunks that the level hardly makes
    /// smaller than the fastest one get the fastest.
    pub adaptive: bool,
    /// Cut large files along the profile's ranges instead of into chunks of one size.
    pub fitted: bool,
    /// Compression level of the hot chunks of such files.
    pub hot_level: Level,
    /// `os/arch[/variant]` picked from an index.
    pub platform: String,
    /// Use a profile that fits badly.
    pub force_profile: bool,
    /// Compressing threads. Does not change a byte of the output.
    pub jobs: NonZeroUsize,
    /// Bytes of payload that may be on their way through memory, compressed copies not counted; usually four chunks a
    /// thread.
    pub memory: Option<u64>,
    /// Where spool files live.
    pub temp_dir: PathBuf,
    /// Take over what an earlier conversion made, where that does not change a byte.
    pub reuse: bool,
    /// Leave layers in that change nothing.
    pub keep_layers: bool,
    /// Where stored layers are remembered, so that a conversion that was cut off goes on where it was.
    pub journal: Option<PathBuf>,
}

/// Converts the image of `src` into `dst`.
pub fn convert(
    src: &dyn Images,
    dst: &dyn Images,
    profile: Option<&Profile>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Report, Error> {
    let more = More::of(options)?;
    let journal = Journal::at(options.journal.clone(), options.reuse);
    one(src, dst, profile, &more, options, &journal, progress)
}

/// What goes into hot layers beside the image's own files; read once for all conversions that belong together.
#[derive(Default)]
struct More {
    startup: Option<Startup>,
    program: Option<Program>,
}

impl More {
    fn of(options: &Options) -> Result<Self, Error> {
        let program = options.embed.as_deref().map(Program::open).transpose()?;
        Ok(Self { startup: Startup::of(options)?, program })
    }
}

/// Converts one image. `more` and `journal`: of all conversions that belong together.
fn one(
    src: &dyn Images,
    dst: &dyn Images,
    profile: Option<&Profile>,
    more: &More,
    options: &Options,
    journal: &Journal,
    progress: &dyn Progress,
) -> Result<Report, Error> {
    if options.layout.needs_profile() && profile.is_none() {
        return Err(Error::NoProfile(options.layout));
    }
    let mut image = src.image(&options.platform)?;
    publish::strip_hot_layer(&mut image, progress);
    bound::release(&mut image, progress);
    let count = image.manifest.layers.len() + usize::from(options.layout.has_hot());
    if count > MAX_LAYERS {
        return Err(Error::TooManyLayers { layers: count });
    }

    // Also to learn now, not after all the work, that the destination cannot be reached or lets nobody in.
    let old = reuse::existing(dst, options)?.filter(|_| options.reuse);
    if more.program.is_some() && wrapped::wrap(&mut image.config.raw.clone()).is_none() {
        return Err(Error::NothingToWrap);
    }
    let startup = more.startup.as_ref().map(|s| s.key(host_of(profile)));
    let program = more.program.as_ref().map(|p| p.digest);
    let key = reuse::image_key(&image, profile, startup.as_ref(), program.as_ref(), options);
    if let Some(old) = &old
        && let Some(report) = reuse::unchanged(dst, old, &key, &image, options)?
    {
        return Ok(report);
    }
    let chunking = match profile.filter(|_| options.fitted) {
        Some(profile) => Chunking::fitted(profile, options.chunk_size, &options.rule),
        None => Chunking::uniform(options.chunk_size),
    };
    let candidates = reuse::candidates(dst, old.as_ref(), journal, &image, options)?;
    let job = Job { src, dst, image: &image, chunking: &chunking, options, journal, more, progress };
    // Four chunks a thread keep it busy.
    let usual = options.chunk_size.max(plan::HOT_CHUNK).saturating_mul(4 * options.jobs.get() as u64);
    Pool::with(options.jobs, options.memory.unwrap_or(usual), options.format, |pool| {
        job.run(pool, profile, candidates, &key)
    })
}

/// Facts about where the profile was recorded, and with it what start-up wrote there.
fn host_of(profile: Option<&Profile>) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    profile.map_or(&NONE, |p| &p.header.host)
}

/// One conversion.
struct Job<'a> {
    src: &'a dyn Images,
    dst: &'a dyn Images,
    image: &'a Image,
    chunking: &'a Chunking,
    options: &'a Options,
    journal: &'a Journal,
    more: &'a More,
    progress: &'a dyn Progress,
}

/// What was read of the source and decided for it.
struct Planned {
    /// The source without the layers that are left out.
    image: Image,
    /// Where each layer was in the source.
    positions: Vec<usize>,
    indexes: Vec<LayerIndex>,
    contents: Vec<Content>,
    /// What a container sees of the layers.
    merged: Merged,
    plan: Plan,
    /// Final order of each layer.
    orders: Vec<Order>,
    /// Key of each layer.
    keys: Vec<String>,
    /// Layers that exist.
    known: Vec<Option<Known>>,
}

impl Planned {
    fn layer_error(&self, layer: usize, source: LayerError) -> Error {
        Error::Layer {
            layer: self.positions[layer],
            digest: self.image.manifest.layers[layer].digest,
            source: Box::new(source),
        }
    }
}

impl Job<'_> {
    fn run(
        &self,
        pool: &Pool,
        profile: Option<&Profile>,
        candidates: Vec<Option<Known>>,
        key: &str,
    ) -> Result<Report, Error> {
        let options = self.options;
        let mut planned = self.read(pool, profile, candidates)?;
        let count = planned.indexes.len();
        let additions = self.additions(&planned, profile, pool)?;
        if profile.is_some() {
            if let Some(additions) = &additions {
                let files: HashSet<&str> = additions.files().collect();
                planned.plan.leave_to_startup(|path| files.contains(path.trim_start_matches('/')));
            }
            check_fit(&planned.plan, options, self.progress)?;
        }
        let carried = profile.filter(|_| self.options.layout.has_hot());
        let carried = carried.map(|p| carried::of(&p.header.platform, &planned.plan.lazy));
        let written = carried.as_ref().map(|list| written(list, additions.as_ref())).unwrap_or_default();
        let embedded = self.embedded(&planned, &written)?;
        let with_hot =
            !planned.plan.hot.is_empty() || additions.as_ref().is_some_and(|a| !a.is_empty()) || embedded.is_some();
        let (stored, hot) = std::thread::scope(|scope| {
            let hot =
                with_hot.then(|| scope.spawn(|| self.store_hot(&planned, additions.as_ref(), embedded.as_ref(), pool)));
            let stored = in_parallel(count, pool.workers(), |i| {
                self.store_layer(&planned, i, pool).map_err(|e| planned.layer_error(i, e))
            });
            let hot = hot.map(|h| h.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            (stored, hot)
        });
        let mut layers = stored?;
        if let Some(mut hot) = hot.transpose()? {
            let below: Vec<Digest> = layers.iter().map(|l| l.diff_id).collect();
            hot.descriptor.annotations.push((names::LAYER_BELOW.into(), stack_digest(&below).to_string()));
            if planned.plan.moved.iter().any(|moved| !moved.is_empty()) {
                hot.descriptor.annotations.push((names::LAYER_MOVED.into(), "true".into()));
            }
            hot.descriptor.annotations.sort();
            layers.push(hot);
        }
        let warm = publish::Warm { list: self.packed(carried.as_ref()), wrap: embedded.is_some() };
        let digest = publish::publish(self.dst, &planned.image, &layers, &warm, key, options)?;
        Ok(Report {
            digest,
            source: planned.image.descriptor.digest,
            layout: options.layout,
            fit: profile.is_some().then_some(planned.plan.fit),
            mismatches: planned.plan.mismatches.clone(),
            startup: additions.map(|a| a.shipped),
            unchanged: false,
            layers: layers.into_iter().map(|l| l.report).collect(),
        })
    }

    /// Reads all layers and makes the plan. Layers that turn out to be no others than known ones are read but not
    /// compressed; those of which that was thought in vain are read a second time.
    fn read(&self, pool: &Pool, profile: Option<&Profile>, candidates: Vec<Option<Known>>) -> Result<Planned, Error> {
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

    /// What a reader on the node has to read ahead, for the manifest. A landmark's files are fetched by the snapshotter itself.
    fn packed(&self, carried: Option<&Profile>) -> Option<String> {
        let carried = carried.filter(|c| !c.files.is_empty())?;
        let packed = carried::pack(carried);
        if packed.is_none() {
            self.progress.warn(&format!(
                "the list for `esgz warm node` is left out of the manifest: with {} files it is larger than {} bytes",
                carried.files.len(),
                carried::MAX_PACKED
            ));
        }
        packed
    }

    /// The read-ahead that goes into the image itself. `written`: the profile of the lazy files.
    fn embedded<'b>(&'b self, planned: &Planned, written: &'b [u8]) -> Result<Option<Embedded<'b>>, Error> {
        let Some(program) = &self.more.program else { return Ok(None) };
        program.entries(written, &planned.image.config.platform(), &planned.merged).map(Some)
    }

    /// What the start-up layer adds to this image.
    fn additions(
        &self,
        planned: &Planned,
        profile: Option<&Profile>,
        pool: &Pool,
    ) -> Result<Option<Additions<'_>>, Error> {
        let Some(startup) = &self.more.startup else { return Ok(None) };
        let Planned { indexes, contents, merged, .. } = planned;
        let read = |at: At| {
            let (entry, content) = (&indexes[at.layer].entries[at.index], &contents[at.layer]);
            let chunks = &content.chunks[at.index];
            if chunks.is_empty() && entry.size > 0 {
                return Ok(None);
            }
            let mut members = ReadBack::new(pool, pieces(&entry.path, chunks, &content.spool).map(Piece::work));
            let mut bytes = Vec::new();
            for _ in chunks {
                bytes.extend_from_slice(members.next()?.raw());
            }
            Ok(Some(bytes))
        };
        let image = Target {
            indexes,
            merged,
            volumes: startup::volumes(&planned.image.config.raw),
            host: host_of(profile),
            read: &read,
        };
        let additions = startup.select(&image)?;
        additions.warnings.iter().for_each(|w| self.progress.warn(w));
        Ok(Some(additions))
    }

    /// Writes and stores the hot layer.
    fn store_hot(
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
    fn store_layer(&self, planned: &Planned, i: usize, pool: &Pool) -> Result<publish::NewLayer, LayerError> {
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

/// The list for the read-ahead inside the image, with what the compiled caches beside it are bound to.
fn written(list: &Profile, additions: Option<&Additions<'_>>) -> Vec<u8> {
    let mut list = list.clone();
    list.header.host.extend(additions.map(|a| a.host.clone()).unwrap_or_default());
    profile::write(&list)
}

/// Annotations that this program writes on an eStargz layer.
fn is_ours(key: &str) -> bool {
    key.starts_with("dev.esgz.")
        || [names::TOC_DIGEST, names::UNCOMPRESSED_SIZE, names::CHUNKED_CHECKSUM, names::CHUNKED_POSITION]
            .contains(&key)
}

/// Annotations of a source layer that say what is no longer true of the new one.
fn is_replaced(key: &str) -> bool {
    ["containerd.io/snapshot/", "io.containers.", "io.github.containers.zstd-chunked.", "dev.esgz."]
        .iter()
        .any(|prefix| key.starts_with(prefix))
}

/// Keeps the items whose flag is set.
fn retain<T>(items: &mut Vec<T>, kept: &[bool]) {
    let mut stays = kept.iter();
    items.retain(|_| *stays.next().unwrap_or(&true));
}

/// Mismatches that are named in a warning; the report has all of them.
const NAMED: usize = 5;

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
