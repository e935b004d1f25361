//! Threads that read the units of a list, as many at a time as the pace allows. Hides what can go wrong with a file: it is
//! counted and passed over.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
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
const TICK: Duration = Duration::from_millis(100);
/// Files that stay open for all their units; others are opened again for each.
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

enum State {
    Open(Arc<File>),
    /// To be opened for each unit.
    Closed,
    Bad,
}

struct Work<'a> {
    list: &'a List,
    /// Units from here on are whole files, of which only some threads read before the rest is done.
    whole_from: usize,
    roots: &'a Roots,
    budget: Budget,
    states: Vec<OnceLock<State>>,
    open: AtomicUsize,
    next: AtomicUsize,
    next_whole: AtomicUsize,
    limit: Mutex<usize>,
    changed: Condvar,
    stop: AtomicBool,
    over_budget: AtomicBool,
    read: AtomicU64,
    resident: AtomicU64,
    missing: AtomicU64,
    other: AtomicU64,
    denied: AtomicU64,
    failed: AtomicU64,
}

/// Reads the list. Units from `whole_from` on are read beside the others by a quarter of the threads. `alive` is asked several
/// times a second whether anybody still needs it.
pub(super) fn read(
    list: &List,
    whole_from: usize,
    roots: &Roots,
    threads: usize,
    budget: Budget,
    mut alive: impl FnMut() -> bool,
) -> (Counts, Ended) {
    let began = Instant::now();
    let mut pace = Pace::new(threads);
    let work = Work {
        list,
        whole_from: whole_from.min(list.units.len()),
        roots,
        budget,
        states: list.targets.iter().map(|_| OnceLock::new()).collect(),
        open: AtomicUsize::new(0),
        next: AtomicUsize::new(0),
        next_whole: AtomicUsize::new(whole_from.min(list.units.len())),
        limit: Mutex::new(pace.limit()),
        changed: Condvar::new(),
        stop: AtomicBool::new(false),
        over_budget: AtomicBool::new(false),
        read: AtomicU64::new(0),
        resident: AtomicU64::new(0),
        missing: AtomicU64::new(0),
        other: AtomicU64::new(0),
        denied: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    };
    let mut most = pace.limit();
    let mut stopped = false;
    std::thread::scope(|scope| {
        let work = &work;
        // A machine that gives us fewer threads than wanted gets fewer reads; with none nothing is read.
        let started = (0..threads.max(1)).map_while(|i| {
            let builder = std::thread::Builder::new().stack_size(1 << 18);
            builder.spawn_scoped(scope, move || work.thread(i)).ok()
        });
        let started: Vec<_> = started.collect();
        while started.iter().any(|t| !t.is_finished()) {
            std::thread::park_timeout(TICK);
            pace.look(Cpu::now());
            most = most.max(pace.limit());
            work.set_limit(pace.limit());
            if budget.time.is_some_and(|t| began.elapsed() >= t) {
                work.over_budget.store(true, Relaxed);
                work.end();
            } else if !stopped && !alive() {
                stopped = true;
                work.end();
            }
        }
    });
    let ended = if stopped {
        Ended::Stopped
    } else if work.over_budget.load(Relaxed) {
        Ended::Budget
    } else {
        Ended::Done
    };
    (work.counts(most), ended)
}

impl Work<'_> {
    fn thread(&self, index: usize) {
        let mut buffer = vec![0; BUFFER];
        let whole_first = index % 4 == 3;
        while self.may_go_on(index) {
            let Some(unit) = self.take(whole_first) else { break };
            self.unit(unit, &mut buffer);
        }
    }

    fn take(&self, whole_first: bool) -> Option<&Unit> {
        let listed = || {
            let i = self.next.fetch_add(1, Relaxed);
            (i < self.whole_from).then(|| &self.list.units[i])
        };
        let whole = || self.list.units.get(self.next_whole.fetch_add(1, Relaxed));
        if whole_first { whole().or_else(listed) } else { listed().or_else(whole) }
    }

    /// Waits for its turn; false at the end.
    fn may_go_on(&self, index: usize) -> bool {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        while index >= *limit && !self.stop.load(Relaxed) && !self.is_empty() {
            let (again, _) = self.changed.wait_timeout(limit, TICK).unwrap_or_else(PoisonError::into_inner);
            limit = again;
        }
        !self.stop.load(Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.next.load(Relaxed) >= self.whole_from && self.next_whole.load(Relaxed) >= self.list.units.len()
    }

    fn set_limit(&self, to: usize) {
        *self.limit.lock().unwrap_or_else(PoisonError::into_inner) = to;
        self.changed.notify_all();
    }

    fn end(&self) {
        self.stop.store(true, Relaxed);
        self.changed.notify_all();
    }

    fn unit(&self, unit: &Unit, buffer: &mut [u8]) {
        let target = &self.list.targets[unit.target];
        let mut opened = None;
        let state = self.states[unit.target].get_or_init(|| match self.open(&target.path, target.size) {
            Some(file) => {
                let file = Arc::new(file);
                opened = Some(Arc::clone(&file));
                if self.open.fetch_add(1, Relaxed) < OPEN { State::Open(file) } else { State::Closed }
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
            if self.range(&file, range, buffer).is_err() {
                self.failed.fetch_add(1, Relaxed);
                return;
            }
            if self.stop.load(Relaxed) {
                return;
            }
        }
    }

    /// Opens a file if it is the one that was profiled, and counts it otherwise.
    fn open(&self, path: &str, size: u64) -> Option<File> {
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Relaxed);
            None
        };
        let file = match self.roots.open(path) {
            Ok(file) => file,
            Err(e) => {
                return count(match e.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => &self.missing,
                    io::ErrorKind::PermissionDenied => &self.denied,
                    _ => &self.failed,
                });
            }
        };
        match file.metadata() {
            Ok(meta) if meta.is_file() && meta.len() == size => {}
            Ok(_) => return count(&self.other),
            Err(_) => return count(&self.failed),
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
        self.resident.fetch_add(unit.bytes() - left, Relaxed);
        out
    }

    fn range(&self, file: &File, range: Range<u64>, buffer: &mut [u8]) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end && !self.stop.load(Relaxed) {
            let want = buffer.len().min(usize::try_from(range.end - at).unwrap_or(usize::MAX));
            let n = match file.read_at(&mut buffer[..want], at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => n as u64,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            at += n;
            let read = self.read.fetch_add(n, Relaxed) + n;
            if self.budget.bytes.is_some_and(|most| read >= most) {
                self.over_budget.store(true, Relaxed);
                self.end();
            }
        }
        Ok(())
    }

    fn counts(&self, in_flight_max: usize) -> Counts {
        let planned = self.list.bytes();
        let (read, resident) = (self.read.load(Relaxed), self.resident.load(Relaxed));
        Counts {
            bytes_planned: planned,
            bytes_read: read,
            bytes_resident: resident,
            bytes_skipped: planned.saturating_sub(read.saturating_add(resident)),
            files_planned: self.list.targets.len() as u64,
            files_missing: self.missing.load(Relaxed),
            files_changed: self.other.load(Relaxed),
            files_denied: self.denied.load(Relaxed),
            files_failed: self.failed.load(Relaxed),
            in_flight_max,
        }
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
