//! The threads that compress, decompress and hash. One pool for all layers, so that `--jobs` bounds the whole conversion,
//! and with it the memory: what is queued or in flight is a few chunks a thread.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::LayerError;
use super::spool::Spool;
use crate::deflate::Fragment;
use crate::estargz::codec::{Decoder, Encoder};
use crate::estargz::{self, ChunkInfo, Format, Level, Member};

/// Payloads from this size on are sampled: the sample's cost is then at most a few percent.
const SAMPLED: usize = 1 << 20;
/// Bytes of a sample, from the middle.
const SAMPLE: usize = 64 << 10;
/// Thousandths that a level must save to be worth its time.
const WORTH: usize = 15;

/// What each thread keeps, because it is costly to create.
pub(super) struct Tools {
    format: Format,
    encoders: Vec<(Level, Encoder)>,
    decoder: Decoder,
}

impl Tools {
    /// The level for a payload that may be worth no effort: the fastest one where a sample becomes hardly larger by it, as
    /// in device code, which comes compressed in CUDA libraries and is a third of a vLLM image (1 % more bytes at 1.6 times
    /// the speed).
    fn worthwhile(&mut self, raw: &[u8], level: Level) -> Level {
        if raw.len() < SAMPLED || level <= Level::FAST {
            return level;
        }
        let from = (raw.len() - SAMPLE) / 2;
        let sample = &raw[from..from + SAMPLE];
        let (fast, good) = (self.encoder(Level::FAST).size(sample), self.encoder(level).size(sample));
        if fast * 1000 <= good * (1000 + WORTH) { Level::FAST } else { level }
    }

    /// Compresses a payload and compares; `adaptive`: only as much as is [`Tools::worthwhile`].
    pub(super) fn member(&mut self, raw: Vec<u8>, level: Level, adaptive: bool) -> Result<Member, String> {
        let level = if adaptive { self.worthwhile(&raw, level) } else { level };
        let bytes = self.encoder(level).member(&raw);
        Member::made(raw, bytes, &mut self.decoder)
    }

    /// The same of a payload whose compression by the source is good enough; `level` is for what cannot be kept of it.
    pub(super) fn kept(&mut self, raw: Vec<u8>, source: &Fragment, level: Level) -> Result<Member, String> {
        match self.encoder(level).kept(&raw, source) {
            Some(bytes) => Member::made(raw, bytes?, &mut self.decoder),
            None => self.member(raw, level, true),
        }
    }

    /// The encoder of a level; a conversion has two or three of them.
    fn encoder(&mut self, level: Level) -> &mut Encoder {
        let at = self.encoders.iter().position(|(l, _)| *l == level).unwrap_or_else(|| {
            self.encoders.push((level, Encoder::new(self.format, level)));
            self.encoders.len() - 1
        });
        &mut self.encoders[at].1
    }
}

type Job = Box<dyn FnOnce(&mut Tools) + Send>;

/// Bytes of payload that may be in memory between a reader and the end of their way.
#[derive(Default)]
struct Budget {
    used: Mutex<u64>,
    freed: Condvar,
    /// Buffers of payloads that came to their end. The kernel fills new ones with zeros, page by page.
    spare: Mutex<Vec<Vec<u8>>>,
}

/// Buffers that are kept.
const SPARE: usize = 8;
/// Smaller ones cost nothing.
const LARGE: usize = 128 << 10;

/// A part of the budget, given back when it is dropped.
pub(super) struct Permit {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Permit {
    /// A buffer of so many bytes, whatever they are.
    pub(super) fn buffer(&self, size: usize) -> Vec<u8> {
        let mut spare = self.budget.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |buffer: &Vec<u8>| size >= LARGE && buffer.capacity() >= size && buffer.capacity() / 4 <= size;
        // The nearest in length: what it lacks is filled with zeros.
        let nearest = (0..spare.len()).filter(|&i| fits(&spare[i])).min_by_key(|&i| spare[i].len().abs_diff(size));
        let Some(mut buffer) = nearest.map(|i| spare.swap_remove(i)) else { return vec![0; size] };
        drop(spare);
        buffer.resize(size, 0);
        buffer
    }

    /// Ends with the buffer of a payload that nobody needs any more.
    pub(super) fn recycle(self, buffer: Vec<u8>) {
        let mut spare = self.budget.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.len() >= LARGE && spare.len() < SPARE {
            spare.push(buffer);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *self.budget.used.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.budget.freed.notify_all();
    }
}

/// The way into the pool.
pub(super) struct Pool {
    jobs: Sender<Job>,
    workers: usize,
    budget: Arc<Budget>,
    most: u64,
}

impl Pool {
    /// Runs `work` with a pool of that many threads, which make members of this format and end with it.
    ///
    /// `memory`: bytes of payload that may be on their way; at least one chunk always is.
    pub(super) fn with<T>(workers: NonZeroUsize, memory: u64, format: Format, work: impl FnOnce(&Self) -> T) -> T {
        let workers = workers.get();
        let (send, receive) = bounded::<Job>(workers * 2);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                let receive = receive.clone();
                scope.spawn(move || {
                    let mut tools = Tools { format, encoders: Vec::new(), decoder: Decoder::default() };
                    receive.into_iter().for_each(|job| job(&mut tools));
                });
            }
            drop(receive);
            work(&Self { jobs: send, workers, budget: Arc::default(), most: memory })
        })
    }

    /// Number of threads.
    pub(super) fn workers(&self) -> usize {
        self.workers
    }

    /// Waits until so many bytes more may be in memory. Whoever holds a permit must come to an end without asking for another
    /// one.
    pub(super) fn permit(&self, bytes: u64) -> Permit {
        let mut used = self.budget.used.lock().unwrap_or_else(PoisonError::into_inner);
        while *used > 0 && *used + bytes > self.most {
            used = self.budget.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        *used += bytes;
        Permit { budget: Arc::clone(&self.budget), bytes }
    }

    /// The same without waiting.
    fn try_permit(&self, bytes: u64) -> Option<Permit> {
        let mut used = self.budget.used.lock().unwrap_or_else(PoisonError::into_inner);
        if *used > 0 && *used + bytes > self.most {
            return None;
        }
        *used += bytes;
        Some(Permit { budget: Arc::clone(&self.budget), bytes })
    }

    /// Queues a job; waits while the queue is full. Jobs wait for nothing themselves.
    pub(super) fn run(&self, job: impl FnOnce(&mut Tools) + Send + 'static) -> Result<(), LayerError> {
        self.jobs.send(Box::new(job)).map_err(|_| LayerError::Stopped)
    }
}

type Make = dyn FnOnce(&mut Tools) -> Result<Member, estargz::Error> + Send;

/// Work that gives a member, for a thread of the pool.
pub(super) struct Work {
    /// Bytes that it takes.
    pub(super) size: u64,
    pub(super) run: Box<Make>,
}

/// A chunk in a spool.
pub(super) struct Piece {
    /// Its file, for errors.
    pub(super) path: String,
    /// Offset in the file, bytes.
    offset: u64,
    /// Where its member is.
    pub(super) info: ChunkInfo,
    /// Whose `place` that is.
    spool: Arc<Spool>,
}

impl Piece {
    /// Reads it back, decompressed and checked.
    pub(super) fn open(self, tools: &mut Tools) -> Result<Member, estargz::Error> {
        let Self { path, offset, info, spool } = self;
        let member = spool.read(info.place, info.compressed).map_err(|source| estargz::Error::Io {
            doing: format!("reading {path:?} back from the temporary file"),
            source,
        })?;
        Member::open(&path, offset, &info, member, &mut tools.decoder)
    }

    /// The same for another thread.
    pub(super) fn work(self) -> Work {
        Work { size: self.info.size, run: Box::new(|tools| self.open(tools)) }
    }
}

/// The chunks of a file with their offsets.
pub(super) fn pieces<'a>(
    path: &'a str,
    chunks: &'a [ChunkInfo],
    spool: &'a Arc<Spool>,
) -> impl Iterator<Item = Piece> + use<'a> {
    let mut offset = 0;
    chunks.iter().map(move |info| {
        let piece = Piece { path: path.into(), offset, info: *info, spool: Arc::clone(spool) };
        offset += info.size;
        piece
    })
}

/// Gives members in a given order, read back or made by the pool ahead of the one who asks.
pub(super) struct ReadBack<'a, I: Iterator<Item = Work>> {
    pool: &'a Pool,
    todo: Peekable<I>,
    flying: VecDeque<Receiver<(Result<Member, estargz::Error>, Permit)>>,
}

impl<'a, I: Iterator<Item = Work>> ReadBack<'a, I> {
    pub(super) fn new(pool: &'a Pool, todo: I) -> Self {
        Self { pool, todo: todo.peekable(), flying: VecDeque::new() }
    }

    /// The next member.
    pub(super) fn next(&mut self) -> Result<Member, LayerError> {
        while self.flying.len() < 2 * self.pool.workers
            && let Some(size) = self.todo.peek().map(|work| work.size)
        {
            // Others that read back have permits too: who holds some may not wait for more.
            let permit = if self.flying.is_empty() { Some(self.pool.permit(size)) } else { self.pool.try_permit(size) };
            let Some(permit) = permit else { break };
            let Some(work) = self.todo.next() else { break };
            let (reply, answer) = bounded(1);
            self.pool.run(move |tools| {
                let member = (work.run)(tools);
                // One who failed meanwhile no longer listens.
                let _gone = reply.send((member, permit));
            })?;
            self.flying.push_back(answer);
        }
        let next = self.flying.pop_front().ok_or(LayerError::Stopped)?;
        let (member, _permit) = next.recv().map_err(|_| LayerError::Stopped)?;
        Ok(member?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_where_it_is_large_and_fits() {
        let again = |first: usize, second: usize| {
            Pool::with(NonZeroUsize::MIN, 1 << 20, Format::Estargz, |pool| {
                let permit = pool.permit(1);
                let buffer = permit.buffer(first);
                assert_eq!(buffer.len(), first);
                let place = buffer.as_ptr();
                permit.recycle(buffer);
                let buffer = pool.permit(1).buffer(second);
                assert_eq!(buffer.len(), second);
                buffer.as_ptr() == place
            })
        };
        assert!(again(2 * LARGE, LARGE));
        assert!(!again(2 * LARGE, 3 * LARGE), "too small");
        assert!(!again(100 * LARGE, LARGE), "far too large");
    }

    #[test]
    fn payloads_that_hardly_compress_get_no_effort() {
        let mut tools = Tools { format: Format::Estargz, encoders: Vec::new(), decoder: Decoder::default() };
        let mut x = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (x >> 56) as u8 & 0x7f
        })
        .take(SAMPLED)
        .collect();
        let text: Vec<u8> =
            (0..200_000_u32).flat_map(|n| format!("line {} of {}\n", n % 977, n / 7).into_bytes()).collect();
        assert!(text.len() > SAMPLED);
        // Seven bits of eight: any level finds that, none finds more.
        assert_eq!(tools.worthwhile(&noise, Level::DEFAULT), Level::FAST);
        assert_eq!(tools.worthwhile(&noise[1..], Level::DEFAULT), Level::DEFAULT, "too small to sample");
        assert_eq!(tools.worthwhile(&text, Level::DEFAULT), Level::DEFAULT);
        assert_eq!(tools.worthwhile(&noise, Level::STORED), Level::STORED);
    }
}
