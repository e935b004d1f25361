//! Touches: what an event says, small enough to keep all of them, and folded together when they are many. Folding loses no
//! page and no earliest time, so a recording of hours needs memory for distinct ranges only.

/// Bits of [`Touch::kinds`].
pub(super) const READ: u8 = 1;
/// Through a mapping.
pub(super) const MMAP: u8 = 2;
/// A page came into the cache; by which way is not known.
pub(super) const CACHED: u8 = 4;

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

/// All touches of a recording.
#[derive(Debug)]
pub(super) struct Log {
    touches: Vec<Touch>,
    limit: usize,
    /// Events taken in.
    pub events: u64,
    /// Events the kernel dropped.
    pub lost: u64,
}

/// 48 MB of touches before the first folding; a whole vLLM start has 52,000.
const LIMIT: usize = 1 << 20;

impl Default for Log {
    fn default() -> Self {
        Self { touches: Vec::new(), limit: LIMIT, events: 0, lost: 0 }
    }
}

impl Log {
    /// Takes in one event.
    pub(super) fn push(&mut self, touch: Touch) {
        self.events += 1;
        self.touches.push(touch);
        if self.touches.len() >= self.limit {
            self.touches = fold(std::mem::take(&mut self.touches));
            self.limit = LIMIT.max(self.touches.len() * 2);
        }
    }

    /// The touches folded: by device and inode, then ascending, disjoint and not adjacent.
    pub(super) fn into_touches(self) -> Vec<Touch> {
        fold(self.touches)
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
