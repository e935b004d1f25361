//! What is to be read, and in which order: the ranges of a profile, put together to what lies in one chunk of a converted image.
//!
//! A lazy snapshotter decompresses a whole chunk for the first byte of it, and two readers of one chunk that is not there yet
//! decompress it twice. It also fetches at least 2 MiB of the blob from a chunk's start on, in whole regions, and two readers that
//! want overlapping sets of regions at the same time both fetch what they share. One thread therefore reads what lies in one
//! chunk, and one after the other the chunks that stand close together and are touched at about the same time: a unit.

use std::ops::Range;

use crate::plan;
use crate::profile::{File, Profile};

/// A file to read of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Absolute path inside the container.
    pub path: String,
    /// Its size when it was profiled: a file of another size is another version.
    pub size: u64,
}

/// Ranges of one file that are read by one thread, one after the other. Two that touch lie in two chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Position in [`List::targets`].
    pub target: usize,
    /// Bytes, ascending and disjoint.
    pub ranges: Vec<Range<u64>>,
}

impl Unit {
    /// Bytes in its ranges.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|r| r.end - r.start).sum()
    }
}

/// Units in the order of their first touch.
#[derive(Debug, Clone, Default)]
pub struct List {
    /// Files.
    pub targets: Vec<Target>,
    /// What to read of them.
    pub units: Vec<Unit>,
}

impl List {
    /// Everything that a profile says is read, exactly; never more.
    pub fn of(profile: &Profile) -> Self {
        let mut list = Self::default();
        let mut timed: Vec<(u64, Unit)> = Vec::new();
        for file in profile.files.iter().filter(|f| !f.ranges.is_empty()) {
            let target = list.targets.len();
            list.targets.push(Target { path: file.path.clone(), size: file.size });
            timed.extend(units(file).map(|(at, ranges)| (at, Unit { target, ranges })));
        }
        // Units of a file in a burst are read in the order of their offsets; the sort is stable.
        timed.sort_by_key(|(at, _)| *at);
        list.units = timed.into_iter().map(|(_, unit)| unit).collect();
        list
    }

    /// Adds a whole file in pieces behind everything else.
    pub fn add_whole(&mut self, path: String, size: u64) {
        let target = self.targets.len();
        self.targets.push(Target { path, size });
        let mut at = 0;
        while at < size {
            let end = (at + PIECE).min(size);
            self.units.push(Unit { target, ranges: std::iter::once(at..end).collect() });
            at = end;
        }
    }

    /// Cuts it in two by file: what is to be kept, and the rest; each in its order.
    pub(super) fn split(self, mut keep: impl FnMut(&Target) -> bool) -> (Self, Self) {
        let (mut kept, mut rest) = (Self::default(), Self::default());
        let moved = self.targets.into_iter().map(|target| {
            let is_kept = keep(&target);
            let into = if is_kept { &mut kept.targets } else { &mut rest.targets };
            into.push(target);
            (is_kept, into.len() - 1)
        });
        let moved: Vec<(bool, usize)> = moved.collect();
        for unit in self.units {
            let Some((is_kept, target)) = moved.get(unit.target).copied() else { continue };
            let into = if is_kept { &mut kept.units } else { &mut rest.units };
            into.push(Unit { target, ..unit });
        }
        (kept, rest)
    }

    /// Bytes in all ranges.
    pub fn bytes(&self) -> u64 {
        self.units.iter().map(Unit::bytes).sum()
    }
}

/// Piece of a file that is read whole: long enough for a network disk to read ahead in.
const PIECE: u64 = 8 << 20;

/// Chunks of one unit stand no further apart than this, in bytes of the file: what 2 MiB of the blob hold, or a little more.
const NEAR: u64 = 4 << 20;
/// And are first touched within so many milliseconds.
const TOGETHER: u64 = 300;
/// Bytes of a unit of several chunks: there have to be enough units for all threads.
const UNIT: u64 = 8 << 20;

/// The ranges of a file by the chunks that they lie in, put together, with the time of the first touch.
fn units(file: &File) -> impl Iterator<Item = (u64, Vec<Range<u64>>)> {
    let chunks = plan::hot_chunks(file);
    let mut out: Vec<(u64, Vec<Range<u64>>)> = Vec::with_capacity(chunks.len());
    let mut ranges = file.ranges.iter().peekable();
    let mut rest: Option<(Range<u64>, u64)> = None;
    for chunk in chunks {
        let (mut first, mut inside) = (u64::MAX, Vec::new());
        while let Some((range, at)) = rest.take().or_else(|| ranges.next().map(|r| (r.0..r.0 + r.1, r.2))) {
            if range.start >= chunk.end {
                rest = Some((range, at));
                break;
            }
            first = first.min(at);
            let end = range.end.min(chunk.end);
            inside.push(range.start..end);
            if end < range.end {
                rest = Some((end..range.end, at));
                break;
            }
        }
        if inside.is_empty() {
            continue;
        }
        match out.last_mut() {
            Some((at, before)) if are_together((*at, before), (first, &inside)) => {
                *at = first.min(*at);
                before.extend(inside);
            }
            _ => out.push((first, inside)),
        }
    }
    out.into_iter()
}

/// Whether what is read of a chunk joins what is read of those before it.
fn are_together(before: (u64, &[Range<u64>]), next: (u64, &[Range<u64>])) -> bool {
    let bytes = |ranges: &[Range<u64>]| ranges.iter().map(|r| r.end - r.start).sum::<u64>();
    let (Some(end), Some(start)) = (before.1.last().map(|r| r.end), next.1.first().map(|r| r.start)) else {
        return false;
    };
    start.saturating_sub(end) <= NEAR
        && before.0.abs_diff(next.0) <= TOGETHER
        && bytes(before.1) + bytes(next.1) <= UNIT
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "one range, not its numbers")]
mod tests {
    use super::*;
    use crate::profile::{Header, Kind, Range as Touched, SCHEMA, sample};
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn profile(files: Vec<File>) -> Profile {
        Profile { schema: SCHEMA.into(), header: Header::default(), files, writes: vec![] }
    }

    #[test]
    fn units_come_in_the_order_of_first_touch_and_within_a_chunk_in_the_order_of_offsets() {
        let big = sample::file(
            "/big",
            100 * MIB,
            &[Touched(0, 4096, 50), Touched(8192, 4096, 7), Touched(40 * MIB, 3 * MIB, 9)],
        );
        let small = sample::file("/small", 5000, &[Touched(0, 5000, 8)]);
        let list = List::of(&profile(vec![big, small]));
        let shown: Vec<_> = list.units.iter().map(|u| (u.target, u.ranges.clone())).collect();
        assert_eq!(
            shown,
            [(0, vec![0..4096, 8192..12288]), (1, vec![0..5000]), (0, vec![40 * MIB..42 * MIB, 42 * MIB..43 * MIB]),]
        );
        assert_eq!(list.bytes(), 4096 + 4096 + 3 * MIB + 5000);
    }

    #[test]
    fn chunks_that_are_far_apart_in_place_or_time_or_too_many_are_read_by_several() {
        let units = |ranges: &[Touched]| {
            let list = List::of(&profile(vec![sample::file("/f", 400 * MIB, ranges)]));
            list.units.iter().map(|u| u.ranges[0].start / MIB).collect::<Vec<_>>()
        };
        assert_eq!(units(&[Touched(0, MIB, 0), Touched(5 * MIB, MIB, 0)]), [0], "4 MiB apart");
        assert_eq!(units(&[Touched(0, MIB, 0), Touched(5 * MIB + 4096, MIB, 0)]), [0, 5], "a page more");
        assert_eq!(units(&[Touched(0, MIB, 900), Touched(3 * MIB, MIB, 600)]), [0], "0.3 s apart");
        assert_eq!(units(&[Touched(0, MIB, 901), Touched(3 * MIB, MIB, 600)]), [3, 0], "a millisecond more");
        assert_eq!(units(&[Touched(0, 20 * MIB, 0)]), [0, 8, 16], "8 MiB each");
    }

    #[test]
    fn a_list_is_cut_by_file_and_keeps_its_order() {
        let file = |path: &str, ranges: &[Touched]| sample::file(path, 100 * MIB, ranges);
        let files = vec![
            file("/a", &[Touched(0, 10, 3), Touched(50 * MIB, 10, 0)]),
            file("/b", &[Touched(0, 20, 1)]),
            file("/c", &[Touched(0, 30, 2)]),
        ];
        let (kept, rest) = List::of(&profile(files)).split(|t| t.path != "/b");
        let shown = |list: &List| {
            list.units.iter().map(|u| (list.targets[u.target].path.clone(), u.ranges[0].start)).collect::<Vec<_>>()
        };
        assert_eq!(shown(&kept), [("/a".into(), 50 * MIB), ("/c".into(), 0), ("/a".into(), 0)]);
        assert_eq!(shown(&rest), [("/b".into(), 0)]);
        assert_eq!((kept.bytes(), rest.bytes()), (50, 20));
    }

    #[test]
    fn files_that_are_only_looked_up_are_not_read() {
        let mut looked = sample::file("/looked", 100, &[]);
        looked.kinds = vec![Kind::Stat];
        assert!(List::of(&profile(vec![looked])).targets.is_empty());
    }

    #[test]
    fn a_whole_file_is_read_in_pieces_behind_the_rest() {
        let mut list = List::of(&profile(vec![sample::file("/a", 10, &[Touched(0, 10, 1)])]));
        list.add_whole("/w.safetensors".into(), 20 * MIB);
        assert_eq!(list.units.last().map(|u| u.ranges.clone()), Some(vec![16 * MIB..20 * MIB]));
        assert_eq!((list.units.len(), list.bytes()), (4, 20 * MIB + 10));
    }

    proptest! {
        #[test]
        fn units_hold_exactly_the_profiled_bytes(
            size in MIB..200 * MIB,
            picks in proptest::collection::btree_map(0u64..50_000, (1u64..3_000_000, 0u64..100), 0..40),
        ) {
            let mut ranges: Vec<Touched> = Vec::new();
            for (page, (length, at)) in picks {
                let start = page * 4096;
                if start < size && ranges.last().is_none_or(|r| r.0 + r.1 < start) {
                    ranges.push(Touched(start, length.min(size - start), at));
                }
            }
            let list = List::of(&profile(vec![sample::file("/f", size, &ranges)]));
            let mut found: Vec<_> = list.units.iter().flat_map(|u| u.ranges.iter().cloned()).collect();
            found.sort_by_key(|r| r.start);
            let mut joined: Vec<Range<u64>> = Vec::new();
            for r in found {
                match joined.last_mut() {
                    Some(last) if last.end == r.start => last.end = r.end,
                    _ => joined.push(r),
                }
            }
            prop_assert_eq!(joined, ranges.iter().map(|r| r.0..r.0 + r.1).collect::<Vec<_>>());
            for u in &list.units {
                prop_assert!(u.ranges.is_sorted_by(|a, b| a.end <= b.start));
            }
        }
    }
}
