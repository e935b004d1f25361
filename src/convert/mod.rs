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
mod layers;
mod planned;
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
use crate::image::{Image, names, wrapped};
use crate::plan::{self, Chunking, HotLayer, Layout, Rule};
use crate::profile::{self, Profile, carried};
use crate::progress::Progress;
use crate::store::Images;
use crate::tar::At;

use embed::{Embedded, Program};
use planned::{Planned, check_fit};
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
}

/// The list for the read-ahead inside the image, with what the compiled caches beside it are bound to.
fn written(list: &Profile, additions: Option<&Additions<'_>>) -> Vec<u8> {
    let mut list = list.clone();
    list.header.host.extend(additions.map(|a| a.host.clone()).unwrap_or_default());
    profile::write(&list)
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
