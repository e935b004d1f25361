//! Events, small enough to keep all of them, and the touches that they tell of, folded together when they are many. Folding loses
//! no page and no earliest time, so a recording of hours needs memory for distinct ranges only.

use super::cache::Cache;
use super::tracer::Sink;

/// Bits of [`Touch::kinds`].
pub(super) const READ: u8 = 1;
/// Through a mapping.
pub(super) const MMAP: u8 = 2;
/// A page came into the cache; by which way is not known.
pub(super) const CACHED: u8 = 4;
/// The file was opened.
pub(super) const OPEN: u8 = 8;
/// The file was executed.
pub(super) const EXEC: u8 = 16;

/// A run of pages of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Touch {
    /// Device of the real file, as the kernel keeps it: `major << 20 | minor`.
    pub dev: u32,
    /// How, [`READ`] and the like.
    pub kinds: u8,
    /// Events folded into this one.
    pub events: u32,
    /// Inode of the real file.
    pub ino: u64,
    /// First page.
    pub start: u64,
    /// Page behind the last one.
    pub end: u64,
    /// First touch, on the records' clock.
    pub at: u64,
}

/// What an event tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Asked for through a system call.
    Read,
    /// A fault on one page.
    Fault,
    /// The window around a fault, of which the kernel maps what the cache has.
    Around,
    /// Came into the cache.
    Added,
}

/// An event as the kernel told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    /// What it tells.
    pub what: What,
    /// The thread that it happened to, as the kernel numbers it.
    pub thread: u32,
    /// Its process, as it is numbered here.
    pub process: u32,
    /// Device of the real file.
    pub dev: u32,
    /// Inode of the real file.
    pub ino: u64,
    /// First page.
    pub start: u64,
    /// Page behind the last one.
    pub end: u64,
    /// When, on the records' clock.
    pub at: u64,
}

/// How events become touches.
#[derive(Debug)]
pub(super) enum Reckoning {
    /// What came into the cache was touched.
    Misses,
    /// What was asked for was touched; of a window everything, since the cache held unknown pages before.
    Windows,
    /// What was asked for was touched; of a window what the cache can have had.
    Narrowed(Cache),
}

/// All touches of a recording.
#[derive(Debug)]
pub(super) struct Log {
    reckoning: Reckoning,
    /// Not reckoned yet, in the order of each CPU only.
    fresh: Vec<Event>,
    touches: Vec<Touch>,
    limit: usize,
    /// Events taken in.
    pub events: u64,
    /// Events the kernel dropped.
    pub lost: u64,
}

/// 56 MB of events before the first folding; a whole vLLM start has some 300,000.
const LIMIT: usize = 1 << 20;
/// The CPUs' rings are emptied one after the other: only what is older than that is in order.
const SETTLED: u64 = 2_000_000_000;

impl Default for Log {
    fn default() -> Self {
        Self::new(Reckoning::Windows)
    }
}

impl Log {
    pub(super) fn new(reckoning: Reckoning) -> Self {
        Self { reckoning, fresh: Vec::new(), touches: Vec::new(), limit: LIMIT, events: 0, lost: 0 }
    }

    /// Takes in one event.
    pub(super) fn push(&mut self, event: Event) {
        self.events += 1;
        self.fresh.push(event);
        if self.fresh.len() >= self.limit {
            let newest = self.fresh.iter().map(|e| e.at).max().unwrap_or_default();
            self.reckon(newest.saturating_sub(SETTLED));
            // Where everything is newer than that, so much more is waited for.
            self.limit = LIMIT.max(self.fresh.len() * 2);
        }
    }

    /// Reckons with all events up to a moment.
    fn reckon(&mut self, until: u64) {
        self.fresh.sort_by_key(|e| e.at);
        let split = self.fresh.partition_point(|e| e.at <= until);
        let rest = self.fresh.split_off(split);
        let events = std::mem::replace(&mut self.fresh, rest);
        let touched = match &mut self.reckoning {
            Reckoning::Misses => events,
            Reckoning::Windows => events.into_iter().filter(|e| e.what != What::Added).collect(),
            Reckoning::Narrowed(cache) => cache.narrow(&events),
        };
        self.touches.extend(touched.into_iter().map(Touch::from));
        self.touches = fold(std::mem::take(&mut self.touches));
    }

    /// The touches folded: by device and inode, then ascending, disjoint and not adjacent.
    pub(super) fn into_touches(mut self) -> Vec<Touch> {
        self.reckon(u64::MAX);
        self.touches
    }
}

impl Sink for Log {
    fn event(&mut self, event: Event) {
        self.push(event);
    }

    fn lost(&mut self, count: u64) {
        self.lost += count;
    }
}

impl From<Event> for Touch {
    fn from(e: Event) -> Self {
        let kinds = match e.what {
            What::Read => READ,
            What::Fault | What::Around => MMAP,
            What::Added => CACHED,
        };
        Self { dev: e.dev, kinds, events: 1, ino: e.ino, start: e.start, end: e.end, at: e.at }
    }
}

/// Joins overlapping and adjacent runs of the same file; the earliest time and all kinds stay.
pub(super) fn fold(mut touches: Vec<Touch>) -> Vec<Touch> {
    touches.sort_unstable_by_key(|t| (t.dev, t.ino, t.start, t.end, t.at));
    let mut out: Vec<Touch> = Vec::new();
    for t in touches {
        match out.last_mut() {
            Some(last) if (last.dev, last.ino) == (t.dev, t.ino) && t.start <= last.end => {
                last.end = last.end.max(t.end);
                last.at = last.at.min(t.at);
                last.kinds |= t.kinds;
                last.events = last.events.saturating_add(t.events);
            }
            _ => out.push(t),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn touch(ino: u64, start: u64, end: u64, at: u64) -> Touch {
        Touch { dev: 1, kinds: READ, events: 1, ino, start, end, at }
    }

    #[test]
    fn adjacent_and_overlapping_runs_join_and_keep_the_earliest_time() {
        let folded = fold(vec![
            touch(7, 4, 6, 30),
            touch(7, 0, 2, 20),
            touch(7, 2, 3, 10),
            touch(8, 3, 4, 5),
            touch(7, 5, 9, 40),
        ]);
        let want =
            [Touch { events: 2, ..touch(7, 0, 3, 10) }, Touch { events: 2, ..touch(7, 4, 9, 30) }, touch(8, 3, 4, 5)];
        assert_eq!(folded, want);
    }

    #[test]
    fn events_are_reckoned_in_the_order_of_time_however_they_arrive() {
        let event = |what, start, at| Event { what, thread: 1, process: 1, dev: 1, ino: 7, start, end: start + 4, at };
        for limit in [2, 100] {
            let mut log = Log { limit, ..Log::new(Reckoning::Narrowed(Cache::default())) };
            log.push(event(What::Around, 0, 30));
            log.push(event(What::Added, 2, 20));
            let pages: Vec<_> = log.into_touches().iter().map(|t| (t.start, t.end)).collect();
            assert_eq!(pages, [(2, 4)], "the window came behind the pages");
        }
        let mut log = Log::new(Reckoning::Misses);
        log.push(event(What::Added, 2, 20));
        assert_eq!(log.into_touches()[0].kinds, CACHED);
    }

    proptest! {
        #[test]
        fn folding_neither_adds_nor_loses_a_page(runs in proptest::collection::vec((0..3_u64, 0..40_u64, 1..6_u64, 0..100_u64), 0..40)) {
            let touches: Vec<_> = runs.iter().map(|&(ino, start, len, at)| touch(ino, start, start + len, at)).collect();
            let pages = |ts: &[Touch]| ts.iter().flat_map(|t| (t.start..t.end).map(|p| (t.ino, p))).collect::<std::collections::BTreeSet<_>>();
            let folded = fold(touches.clone());
            prop_assert_eq!(pages(&folded), pages(&touches));
            prop_assert_eq!(folded.iter().map(|t| t.events).sum::<u32>() as usize, touches.len());
            prop_assert!(folded.windows(2).all(|w| w[0].ino < w[1].ino || w[0].end < w[1].start));
            prop_assert_eq!(fold(folded.clone()), folded);
        }
    }
}
