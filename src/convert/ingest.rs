//! Reads source layers: one inflate, cut into chunks, compressed by a pool of threads into spools.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::Sender;

use super::commit::{self, Item, Ready};
use super::early::Early;
use super::pool::Pool;
use super::source::Source;
use super::spool::Spool;
use super::{Error, LayerError, Options};
use crate::digest::{Digest, Hasher, HashingReader};
use crate::estargz::{ChunkInfo, Format, Level};
use crate::image::{Descriptor, Image};
use crate::plan::{Chunking, HotLayer, LayerIndex};
use crate::progress::{Progress, chain};
use crate::store::Images;
use crate::tar::{self, Kind};

/// Entries and chunks that a reader may be ahead of its committer; their payloads are bounded by the pool.
const QUEUED: usize = 1024;

/// The payloads of a layer.
pub(super) struct Content {
    /// Chunks of each entry, by position; empty for entries without payload.
    pub(super) chunks: Vec<Vec<ChunkInfo>>,
    /// Where their members lie.
    pub(super) spool: Arc<Spool>,
    /// Bytes of payload.
    pub(super) uncompressed: u64,
    /// The finished blob, if all entries stay in their order.
    pub(super) ready: Option<Ready>,
    /// That blob on its way to the store.
    pub(super) early: Option<Arc<Early>>,
}

/// What becomes of the payloads of a layer.
pub(super) enum Mode<'a> {
    /// Every chunk is compressed.
    Compress,
    /// The layer is probably there already: payloads are only hashed, but for the files of these paths, which are kept as
    /// they are.
    Keep(&'a HashSet<String>),
}

/// A layer that was read.
pub(super) struct Ingested {
    index: LayerIndex,
    content: Content,
}

impl Ingested {
    pub(super) fn split(self) -> (LayerIndex, Content) {
        (self.index, self.content)
    }
}

/// Reads those layers of an image whose mode is given, as many at a time as there are workers. What becomes a finished blob
/// on the way goes to `dst` meanwhile.
#[expect(clippy::too_many_arguments, reason = "one caller")]
pub(super) fn layers(
    src: &dyn Images,
    dst: &dyn Images,
    image: &Image,
    modes: &[Option<Mode<'_>>],
    chunking: &Chunking,
    options: &Options,
    pool: &Pool,
    progress: &dyn Progress,
) -> Result<Vec<(usize, Ingested)>, Error> {
    let layers = &image.manifest.layers;
    // Largest first, so that no giant is left for the end.
    let mut by_size: Vec<usize> = (0..layers.len()).filter(|&i| modes[i].is_some()).collect();
    by_size.sort_by_key(|&i| std::cmp::Reverse(layers[i].size));
    let stop = AtomicBool::new(false);
    let next = AtomicUsize::new(0);
    let mut done = std::thread::scope(|scope| {
        let (stop, next, by_size) = (&stop, &next, &by_size);
        let upload = move |early: Arc<Early>| {
            scope.spawn(move || {
                if let Err(e) = early.send(dst) {
                    progress.warn(&format!("a layer is stored when it is complete, not meanwhile: {}", chain(&e)));
                }
            });
        };
        let readers: Vec<_> = (0..pool.workers().min(layers.len()))
            .map(|_| {
                scope.spawn(move || {
                    let mut mine = Vec::new();
                    while let Some(&i) = by_size.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let Some(mode) = &modes[i] else { continue };
                        let diff_id = &image.config.diff_ids[i];
                        let result =
                            one(src, &layers[i], diff_id, mode, chunking, options, pool, i, stop, progress, &upload);
                        if result.is_err() {
                            stop.store(true, Ordering::Relaxed);
                        }
                        mine.push((i, result));
                    }
                    mine
                })
            })
            .collect();
        readers
            .into_iter()
            .flat_map(|r| r.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Vec<_>>()
    });
    done.sort_by_key(|(i, _)| *i);
    // The failure that stopped the others is the one to report.
    if let Some(at) = done.iter().position(|(_, r)| r.as_ref().is_err_and(|e| !matches!(e, LayerError::Stopped)))
        && let (layer, Err(source)) = done.swap_remove(at)
    {
        return Err(Error::Layer { layer, digest: layers[layer].digest, source: Box::new(source) });
    }
    done.into_iter()
        .map(|(layer, r)| {
            r.map(|ingested| (layer, ingested)).map_err(|source| Error::Layer {
                layer,
                digest: layers[layer].digest,
                source: Box::new(source),
            })
        })
        .collect()
}

struct Watched<'a> {
    inner: Box<dyn Read + Send>,
    progress: &'a dyn Progress,
    task: u64,
    stop: &'a AtomicBool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped because another layer failed"));
        }
        let n = self.inner.read(buf)?;
        self.progress.advance(self.task, n as u64);
        Ok(n)
    }
}

#[expect(clippy::too_many_arguments, reason = "one call")]
fn one(
    src: &dyn Images,
    layer: &Descriptor,
    diff_id: &Digest,
    mode: &Mode<'_>,
    chunking: &Chunking,
    options: &Options,
    pool: &Pool,
    number: usize,
    stop: &AtomicBool,
    progress: &dyn Progress,
    upload: &dyn Fn(Arc<Early>),
) -> Result<Ingested, LayerError> {
    if stop.load(Ordering::Relaxed) {
        return Err(LayerError::Stopped);
    }
    let doing = match mode {
        Mode::Compress => "converting",
        Mode::Keep(_) => "reading",
    };
    let task = progress.start(&format!("{doing} layer {number}"), layer.size);
    let blob = Watched { inner: src.open(layer)?, progress, task, stop };
    let keep = matches!(mode, Mode::Compress) && options.adaptive && options.format == Format::Estargz;
    let archive = Source::open(&layer.media_type, blob, keep.then_some(options.level))?;
    let result = read(archive, diff_id, mode, chunking, options, pool, upload);
    progress.done(task);
    if result.is_err() && stop.load(Ordering::Relaxed) {
        return Err(LayerError::Stopped);
    }
    result
}

fn read(
    archive: Source<'_>,
    diff_id: &Digest,
    mode: &Mode<'_>,
    chunking: &Chunking,
    options: &Options,
    pool: &Pool,
    upload: &dyn Fn(Arc<Early>),
) -> Result<Ingested, LayerError> {
    let spool = Arc::new(Spool::create(&options.temp_dir)?);
    // With prioritized and moved files the order is known only when all layers were read; files share members by that order.
    let in_order = !options.layout.has_landmark() && options.hot_layer == HotLayer::Copy;
    let straight = matches!(mode, Mode::Compress) && in_order && options.min_chunk_size == 0;
    let early = straight.then(|| Early::new(&spool));
    if let Some(early) = &early {
        upload(Arc::clone(early));
    }
    let (send, items) = crossbeam_channel::bounded(QUEUED);
    std::thread::scope(|scope| {
        let committer = scope.spawn(|| commit::run(items, &spool, options, early.as_ref()));
        let read = entries(archive, diff_id, mode, chunking, options, pool, send);
        let committed = committer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // A committer that failed leaves its reader without anybody to send to; a reader that failed leaves its committer
        // with half a file. The cause is the other's error in the first case, the reader's own in the second.
        let (committed, (mut index, uncompressed)) = match (committed, read) {
            (Ok(committed), Ok(read)) => (committed, read),
            (Err(e), Ok(_) | Err(LayerError::Stopped)) | (_, Err(e)) => return Err(e),
        };
        let commit::Committed { chunks, ready } = committed;
        if chunks.len() != index.entries.len() {
            return Err(LayerError::Stopped);
        }
        for (digest, chunks) in index.digests.iter_mut().zip(&chunks) {
            if let [only] = chunks.as_slice() {
                *digest = Some(only.digest);
            }
        }
        let ready = ready.map(|(ready, straight)| {
            straight.complete(&ready.summary);
            ready
        });
        let spool = Arc::clone(&spool);
        Ok(Ingested { index, content: Content { chunks, spool, uncompressed, ready, early: early.clone() } })
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the end of `items` tells the committer that nothing follows")]
/// Reads the archive to its end; gives the index and the bytes of payload.
fn entries(
    archive: Source<'_>,
    diff_id: &Digest,
    mode: &Mode<'_>,
    chunking: &Chunking,
    options: &Options,
    pool: &Pool,
    items: Sender<Item>,
) -> Result<(LayerIndex, u64), LayerError> {
    let send = |item| items.send(item).map_err(|_| LayerError::Stopped);
    let mut index = LayerIndex::default();
    let mut archive = tar::Reader::new(HashingReader::new(archive));
    let mut uncompressed = 0;
    while let Some(entry) = archive.next()? {
        let mut digest = None;
        send(Item::Entry(Box::new(entry.clone())))?;
        if entry.kind == Kind::File && entry.size > 0 {
            let level = |hot: bool| match mode {
                Mode::Compress if hot => Some(options.hot_level),
                Mode::Compress => Some(options.level),
                Mode::Keep(paths) => paths.contains(&entry.path).then_some(Level::STORED),
            };
            let mut cuts = chunking.of(&entry).peekable();
            let mut whole = None;
            let mut first = true;
            while let Some(cut) = cuts.next() {
                // The only chunk of a file is the file: hashed once.
                if std::mem::take(&mut first) && (cuts.peek().is_some() || level(cut.hot).is_none()) {
                    whole = Some(Hasher::default());
                }
                let permit = pool.permit(cut.size);
                archive.get_mut().get_mut().hold(cut.size);
                // A chunk is of a size that options allow, whatever the header says.
                let mut raw = permit.buffer(usize::try_from(cut.size).unwrap_or(usize::MAX));
                let short = |source| LayerError::Io { doing: format!("reading {:?}", entry.path), source };
                archive.read_exact(&mut raw).map_err(short)?;
                if let Some(h) = &mut whole {
                    h.update(&raw);
                }
                let Some(level) = level(cut.hot) else {
                    permit.recycle(raw);
                    continue;
                };
                let adaptive = options.adaptive && level == options.level;
                let source = if adaptive { archive.get_mut().get_mut().fragment(&raw)? } else { None };
                let (reply, answer) = crossbeam_channel::bounded(1);
                pool.run(move |tools| {
                    let member = match source {
                        Some(source) => tools.kept(raw, &source, level),
                        None => tools.member(raw, level, adaptive),
                    };
                    // A layer that failed meanwhile no longer listens.
                    let _gone = reply.send((member, permit));
                })?;
                send(Item::Chunk(answer))?;
            }
            digest = whole.map(Hasher::finish);
            if let Some(digest) = digest {
                send(Item::Digest(digest))?;
            }
        } else if entry.kind == Kind::File {
            digest = Some(Digest::of(b""));
        }
        uncompressed += entry.size;
        index.digests.push(digest);
        index.entries.push(entry);
    }
    // What follows the last entry belongs to the diffID, and the blob's own digest is checked at its end.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink())
        .map_err(|source| LayerError::Io { doing: "reading the end of the layer".into(), source })?;
    let (found, _) = rest.finish();
    if found != *diff_id {
        return Err(LayerError::DiffId { found, expected: *diff_id });
    }
    Ok((index, uncompressed))
}
