//! Threads that read the units of lists, as many at a time as the pace allows, of one list or of several side by side. Hides what
//! can go wrong with a file: it is counted and passed over.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde::Serialize;

use super::list::{List, Unit};
use super::pace::{Cpu, Pace};
use super::roots::Roots;
use crate::record::incore;

/// Bytes a thread asks for in one call. FUSE asks the snapshotter for 128 KiB at a time.
const BUFFER: usize = 256 << 10;
/// Between two looks at the machine.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Files that stay open for all their units, of all lists together; others are opened again for each.
const OPEN: usize = 500;

/// What became of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Bytes that the profile names.
    pub bytes_planned: u64,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// Bytes that were in the page cache already: the workload was faster, or another reader.
    pub bytes_resident: u64,
    /// Bytes of files that are missing, of another size or not to be read, of failed reads, and of what was not reached.
    pub bytes_skipped: u64,
    /// Files that the profile names.
    pub files_planned: u64,
    /// Files that are not there.
    pub files_missing: u64,
    /// Files of another size: another version.
    pub files_changed: u64,
    /// Files that may not be read.
    pub files_denied: u64,
    /// Files that could not be opened for another reason, or of which a read failed.
    pub files_failed: u64,
    /// Most reads that were allowed in flight.
    pub in_flight_max: usize,
}

impl Counts {
    /// Adds those of another list.
    pub(super) fn add(&mut self, other: &Self) {
        let sums = [
            (&mut self.bytes_planned, other.bytes_planned),
            (&mut self.bytes_read, other.bytes_read),
            (&mut self.bytes_resident, other.bytes_resident),
            (&mut self.bytes_skipped, other.bytes_skipped),
            (&mut self.files_planned, other.files_planned),
            (&mut self.files_missing, other.files_missing),
            (&mut self.files_changed, other.files_changed),
            (&mut self.files_denied, other.files_denied),
            (&mut self.files_failed, other.files_failed),
        ];
        for (sum, more) in sums {
            *sum = sum.saturating_add(more);
        }
        self.in_flight_max = self.in_flight_max.max(other.in_flight_max);
    }
}

/// What bounds the reading.
#[derive(Debug, Clone, Copy, Default)]
pub struct Budget {
    /// Bytes to read at most.
    pub bytes: Option<u64>,
    /// Time to read at most.
    pub time: Option<Duration>,
}

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// Everything was read or passed over.
    Done,
    /// The budget is used up.
    Budget,
    /// Nobody needs it any more.
    Stopped,
}

/// What became of one list.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) counts: Counts,
    pub(super) ended: Ended,
    /// When nothing was left to do.
    pub(super) at: Instant,
}

/// Reads a list. Units from `whole_from` on are read beside the others by a quarter of the threads. `alive` is asked several
/// times a second whether anybody still needs it.
pub(super) fn read(
    list: List,
    whole_from: usize,
    roots: Roots,
    threads: usize,
    budget: Budget,
    mut alive: impl FnMut() -> bool,
) -> (Counts, Ended) {
    let mut readers = Readers::start(threads);
    let id = readers.add(list, whole_from, roots, budget);
    loop {
        readers.wait(TICK);
        if let Some(done) = readers.finished(id) {
            return (done.counts, done.ended);
        }
        readers.look();
        if !alive() {
            readers.stop();
        }
    }
}

/// Threads that read lists side by side, a unit of each in turn: a short list does not wait for a long one. How many reads are in flight,
/// buffers and files that stay open are bounded for all lists together.
pub(super) struct Readers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    most: usize,
    pace: Pace,
    next_id: u64,
}

struct Shared {
    turns: Mutex<Turns>,
    changed: Condvar,
    /// Files that are kept open.
    open: AtomicUsize,
}

/// Who reads what next.
struct Turns {
    lists: Vec<Turn>,
    /// Position of the one that was read of last.
    last: usize,
    /// Reads that may be in flight.
    limit: usize,
    over: bool,
}

/// A list and what is left of it.
struct Turn {
    id: u64,
    work: Arc<Work>,
    listed: Range<usize>,
    /// Units that are whole files, of which only some threads read before the rest is done.
    whole: Range<usize>,
    in_flight: usize,
    done: Option<Instant>,
}

impl Readers {
    /// Starts the threads. A machine that gives us fewer than wanted gets fewer reads; with none nothing is read.
    pub(super) fn start(threads: usize) -> Self {
        let pace = Pace::new(threads);
        let turns = Turns { lists: Vec::new(), last: 0, limit: pace.limit(), over: false };
        let shared = Arc::new(Shared { turns: Mutex::new(turns), changed: Condvar::new(), open: AtomicUsize::new(0) });
        let started = (0..threads.max(1)).map_while(|i| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().stack_size(1 << 18).spawn(move || shared.thread(i)).ok()
        });
        Self { threads: started.collect(), shared, most: threads, pace, next_id: 0 }
    }

    /// Begins with a list; gives what to ask [`Self::finished`] for.
    pub(super) fn add(&mut self, list: List, whole_from: usize, roots: Roots, budget: Budget) -> u64 {
        let (id, units) = (self.next_id, list.units.len());
        self.next_id += 1;
        let mut turns = self.shared.turns();
        if turns.lists.is_empty() {
            // What the machine was like when the last one ended is long past.
            self.pace = Pace::new(self.most);
        }
        let work = Arc::new(Work::new(list, roots, budget, turns.limit));
        let whole = whole_from.min(units)..units;
        turns.lists.push(Turn { id, work, listed: 0..whole.start, whole, in_flight: 0, done: None });
        drop(turns);
        self.shared.changed.notify_all();
        id
    }

    /// Takes another look at machine and budgets; to be called several times a second ([`TICK`]) while something is read.
    pub(super) fn look(&mut self) {
        self.pace.look(Cpu::now());
        let mut turns = self.shared.turns();
        for turn in turns.lists.iter_mut().filter(|t| !t.is_finished()) {
            if turn.work.budget.time.is_some_and(|t| turn.work.began.elapsed() >= t) {
                turn.end(Ended::Budget);
            }
        }
        drop(turns);
        // Only now: what is over needs no more reads.
        self.allow(self.pace.limit());
    }

    /// So many reads may be in flight from now on.
    pub(super) fn allow(&self, limit: usize) {
        let mut turns = self.shared.turns();
        turns.limit = limit;
        for turn in &turns.lists {
            let counts = &mut turn.work.progress().counts;
            counts.in_flight_max = counts.in_flight_max.max(limit);
        }
        drop(turns);
        self.shared.changed.notify_all();
    }

    /// Ends all lists: nobody needs them any more.
    pub(super) fn stop(&self) {
        self.shared.turns().lists.iter_mut().filter(|t| !t.is_finished()).for_each(|t| t.end(Ended::Stopped));
        self.shared.changed.notify_all();
    }

    /// Waits until a list is finished, but not longer than that.
    pub(super) fn wait(&self, most: Duration) {
        let none = |turns: &mut Turns| !turns.lists.iter().any(Turn::is_finished);
        let _either = self.shared.changed.wait_timeout_while(self.shared.turns(), most, none);
    }

    /// What became of a list, once it is finished; it is forgotten then.
    pub(super) fn finished(&self, id: u64) -> Option<Done> {
        let mut turns = self.shared.turns();
        let i = turns.lists.iter().position(|t| t.id == id && (t.is_finished() || self.threads.is_empty()))?;
        let turn = turns.lists.swap_remove(i);
        drop(turns);
        self.shared.open.fetch_sub(turn.work.kept_open(), Relaxed);
        let (counts, ended) = turn.work.outcome();
        Some(Done { counts, ended, at: turn.done.unwrap_or_else(Instant::now) })
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.stop();
        self.shared.turns().over = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn thread(&self, index: usize) {
        let mut buffer = Vec::new();
        let mut turns = self.turns();
        while !turns.over {
            let next = if index < turns.limit { turns.take(index % 4 == 3) } else { None };
            let Some((work, unit)) = next else {
                // One that waits needs no memory.
                buffer = Vec::new();
                turns = self.changed.wait(turns).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(turns);
            buffer.resize(BUFFER, 0);
            work.unit(unit, &mut buffer, &self.open);
            turns = self.turns();
            if turns.put_back(&work) {
                self.changed.notify_all();
            }
        }
    }
}

impl Turns {
    /// The next unit, of another list than the last one where there is one.
    fn take(&mut self, whole_first: bool) -> Option<(Arc<Work>, usize)> {
        let (lists, last) = (self.lists.len(), self.last);
        (1..=lists).map(|i| (last + i) % lists).find_map(|i| {
            let turn = &mut self.lists[i];
            let unit = turn.take(whole_first)?;
            turn.in_flight += 1;
            self.last = i;
            Some((Arc::clone(&turn.work), unit))
        })
    }

    /// Behind a unit; whether its list is finished with it.
    fn put_back(&mut self, work: &Arc<Work>) -> bool {
        let Some(turn) = self.lists.iter_mut().find(|t| Arc::ptr_eq(&t.work, work)) else { return false };
        turn.in_flight -= 1;
        if work.has_ended() {
            turn.drop_rest();
        }
        if turn.is_finished() {
            turn.done = Some(Instant::now());
        }
        turn.is_finished()
    }
}

impl Turn {
    fn take(&mut self, whole_first: bool) -> Option<usize> {
        let (listed, whole) = (&mut self.listed, &mut self.whole);
        if whole_first { whole.next().or_else(|| listed.next()) } else { listed.next().or_else(|| whole.next()) }
    }

    fn is_finished(&self) -> bool {
        self.in_flight == 0 && self.listed.is_empty() && self.whole.is_empty()
    }

    fn end(&mut self, why: Ended) {
        self.work.progress().ended.get_or_insert(why);
        self.drop_rest();
    }

    fn drop_rest(&mut self) {
        (self.listed, self.whole) = (0..0, 0..0);
    }
}

enum State {
    Open(Arc<File>),
    /// To be opened for each unit.
    Closed,
    Bad,
}

/// The reading of one list.
struct Work {
    list: List,
    roots: Roots,
    budget: Budget,
    began: Instant,
    states: Vec<OnceLock<State>>,
    progress: Mutex<Progress>,
}

struct Progress {
    counts: Counts,
    /// Why it ended early.
    ended: Option<Ended>,
}

impl Work {
    fn new(list: List, roots: Roots, budget: Budget, in_flight_max: usize) -> Self {
        let (bytes_planned, files_planned) = (list.bytes(), list.targets.len() as u64);
        let counts = Counts { bytes_planned, files_planned, in_flight_max, ..Counts::default() };
        Self {
            states: list.targets.iter().map(|_| OnceLock::new()).collect(),
            list,
            roots,
            budget,
            began: Instant::now(),
            progress: Mutex::new(Progress { counts, ended: None }),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self) -> bool {
        self.progress().ended.is_some()
    }

    fn kept_open(&self) -> usize {
        self.states.iter().filter(|s| matches!(s.get(), Some(State::Open(_)))).count()
    }

    fn outcome(&self) -> (Counts, Ended) {
        let Progress { mut counts, ended } = *self.progress();
        counts.bytes_skipped =
            counts.bytes_planned.saturating_sub(counts.bytes_read.saturating_add(counts.bytes_resident));
        (counts, ended.unwrap_or(Ended::Done))
    }

    /// `open`: files that are kept open.
    fn unit(&self, unit: usize, buffer: &mut [u8], open: &AtomicUsize) {
        let unit = &self.list.units[unit];
        let target = &self.list.targets[unit.target];
        let mut opened = None;
        let state = self.states[unit.target].get_or_init(|| match self.open(&target.path, target.size) {
            Some(file) => {
                let file = Arc::new(file);
                opened = Some(Arc::clone(&file));
                let room = open.fetch_update(Relaxed, Relaxed, |n| (n < OPEN).then_some(n + 1));
                if room.is_ok() { State::Open(file) } else { State::Closed }
            }
            None => State::Bad,
        });
        let file = match (state, opened) {
            (State::Open(file), _) => Arc::clone(file),
            (State::Closed, Some(file)) => file,
            (State::Closed, None) => match self.open(&target.path, target.size) {
                Some(file) => Arc::new(file),
                None => return,
            },
            (State::Bad, _) => return,
        };
        for range in self.absent(&file, unit) {
            match self.range(&file, range, buffer) {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => {
                    self.progress().counts.files_failed += 1;
                    return;
                }
            }
        }
    }

    /// Opens a file if it is the one that was profiled, and counts it otherwise.
    fn open(&self, path: &str, size: u64) -> Option<File> {
        let file = match self.roots.open(path) {
            Ok(file) => file,
            Err(e) => {
                let counts = &mut self.progress().counts;
                match e.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => counts.files_missing += 1,
                    io::ErrorKind::PermissionDenied => counts.files_denied += 1,
                    _ => counts.files_failed += 1,
                }
                return None;
            }
        };
        match file.metadata() {
            Ok(meta) if meta.is_file() && meta.len() == size => {}
            Ok(_) => {
                self.progress().counts.files_changed += 1;
                return None;
            }
            Err(_) => {
                self.progress().counts.files_failed += 1;
                return None;
            }
        }
        // Exactly what is asked for, no read-ahead into cold neighbours.
        let _advice_only = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM);
        Some(file)
    }

    /// What of a unit is not in memory; everything, where the kernel does not tell.
    fn absent(&self, file: &File, unit: &Unit) -> Vec<Range<u64>> {
        let (Some(first), Some(last)) = (unit.ranges.first(), unit.ranges.last()) else { return Vec::new() };
        let Ok(absent) = incore::absent(file, self.list.targets[unit.target].size, first.start..last.end) else {
            return unit.ranges.clone();
        };
        let out = intersection(&unit.ranges, &absent);
        let left: u64 = out.iter().map(|r| r.end - r.start).sum();
        self.progress().counts.bytes_resident += unit.bytes() - left;
        out
    }

    /// Whether to go on behind it.
    fn range(&self, file: &File, range: Range<u64>, buffer: &mut [u8]) -> io::Result<bool> {
        let mut at = range.start;
        while at < range.end {
            if self.has_ended() {
                return Ok(false);
            }
            let want = buffer.len().min(usize::try_from(range.end - at).unwrap_or(usize::MAX));
            let n = match file.read_at(&mut buffer[..want], at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => n as u64,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            at += n;
            let mut progress = self.progress();
            progress.counts.bytes_read += n;
            if self.budget.bytes.is_some_and(|most| progress.counts.bytes_read >= most) {
                progress.ended.get_or_insert(Ended::Budget);
            }
        }
        Ok(true)
    }
}

/// What lies in both; each ascending and disjoint.
fn intersection(a: &[Range<u64>], b: &[Range<u64>]) -> Vec<Range<u64>> {
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        let both = x.start.max(y.start)..x.end.min(y.end);
        if both.start < both.end {
            out.push(both);
        }
        if x.end <= y.end { i += 1 } else { j += 1 }
    }
    out
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "one range, not its numbers")]
#[path = "reader_tests.rs"]
mod tests;
