//! How well a list of ranges covers what a run touched, in bytes: what was on it, what was on it in vain, and what was missing.

use serde::{Deserialize, Serialize};

use super::{File, Header, Profile, Range, SCHEMA, names, ranges};

/// Files with misses that are named.
pub const NAMED: usize = 20;

/// A list against what was touched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cover {
    /// Bytes on the list.
    pub listed_bytes: u64,
    /// Bytes touched.
    pub touched_bytes: u64,
    /// Bytes touched that are on the list.
    pub hit_bytes: u64,
    /// Bytes touched that are not on it.
    pub missed_bytes: u64,
    /// In so many ranges.
    pub missed_ranges: u64,
    /// In so many files.
    pub missed_files: u64,
    /// Those of them with the most such bytes, at most [`NAMED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missed: Vec<Missed>,
}

/// A file with touched bytes that are not on the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// Its path.
    pub path: String,
    /// Such bytes.
    pub bytes: u64,
    /// Ranges of them.
    pub ranges: u64,
}

impl Cover {
    /// Compares files of a list with files of a run: they are the same where they share a name and have the same size.
    pub fn of(list: Vec<File>, touched: Vec<File>) -> Self {
        let profile = |files| Profile { schema: SCHEMA.into(), header: Header::default(), files, writes: Vec::new() };
        let (list, touched) = (profile(list), profile(touched));
        let mut out = Self::default();
        for group in names::groups(&[&list, &touched]) {
            let side = |run| group.iter().filter(move |(r, _)| *r == run).map(|(_, f)| *f);
            let joined = |run, size: Option<u64>| {
                let files = side(run).filter(|f| size.is_none_or(|s| s == f.size));
                super::union(files.flat_map(|f| f.ranges.iter().copied()).collect())
            };
            out.listed_bytes = out.listed_bytes.saturating_add(ranges::bytes(&joined(0, None)));
            let Some(seen) = side(1).next() else { continue };
            let touches = joined(1, None);
            let rest = ranges::without(&touches, &joined(0, Some(seen.size)));
            out.touched_bytes = out.touched_bytes.saturating_add(ranges::bytes(&touches));
            out.miss(&seen.path, &rest);
        }
        out.hit_bytes = out.touched_bytes.saturating_sub(out.missed_bytes);
        out.missed.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
        out.missed.truncate(NAMED);
        out
    }

    fn miss(&mut self, path: &str, rest: &[Range]) {
        if rest.is_empty() {
            return;
        }
        let (bytes, ranges) = (ranges::bytes(rest), rest.len() as u64);
        self.missed_bytes = self.missed_bytes.saturating_add(bytes);
        self.missed_ranges = self.missed_ranges.saturating_add(ranges);
        self.missed_files += 1;
        self.missed.push(Missed { path: path.into(), bytes, ranges });
    }

    /// Adds touched bytes of which nobody knows the file: they are not on the list.
    pub fn add_unnamed(&mut self, bytes: u64) {
        self.touched_bytes = self.touched_bytes.saturating_add(bytes);
        self.missed_bytes = self.missed_bytes.saturating_add(bytes);
    }

    /// Of the bytes on the list those that were touched, in 1/1000; nothing where there are none.
    pub fn precision_permille(&self) -> Option<u64> {
        permille(self.hit_bytes, self.listed_bytes)
    }

    /// Of the bytes touched those that are on the list, in 1/1000; nothing where there are none.
    pub fn recall_permille(&self) -> Option<u64> {
        permille(self.hit_bytes, self.touched_bytes)
    }
}

/// Rounded to the nearest, but all and nothing are said of all and nothing only. A report may come from anywhere.
fn permille(part: u64, whole: u64) -> Option<u64> {
    if whole == 0 || part > whole {
        return None;
    }
    let exact = (u128::from(part) * 2000 + u128::from(whole)) / (u128::from(whole) * 2);
    let rounded = u64::try_from(exact).ok()?;
    Some(match part {
        0 => 0,
        _ if part == whole => 1000,
        _ => rounded.clamp(1, 999),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ranges::tests::{model, run};
    use super::super::sample::file;
    use super::*;

    const KIB: u64 = 1 << 10;

    #[test]
    fn hits_and_misses_are_counted_in_bytes() {
        // Of /a 8 of 12 listed KiB are touched and 4 more, of /b nothing that is listed, /c is not listed at all.
        let list = vec![
            file("/a", 100 * KIB, &[Range(0, 8 * KIB, 0), Range(40 * KIB, 4 * KIB, 0)]),
            file("/b", 100 * KIB, &[Range(0, 4 * KIB, 0)]),
            file("/unused", 100 * KIB, &[Range(0, 16 * KIB, 0)]),
        ];
        let touched = vec![
            file("/a", 100 * KIB, &[Range(4 * KIB, 8 * KIB, 5), Range(40 * KIB, 4 * KIB, 5)]),
            file("/b", 100 * KIB, &[Range(8 * KIB, 4 * KIB, 5), Range(20 * KIB, 4 * KIB, 5)]),
            file("/c", 2 * KIB, &[Range(0, 2 * KIB, 5)]),
        ];
        let cover = Cover::of(list, touched);
        assert_eq!((cover.listed_bytes, cover.touched_bytes), (32 * KIB, 22 * KIB));
        assert_eq!((cover.hit_bytes, cover.missed_bytes), (8 * KIB, 14 * KIB));
        assert_eq!((cover.missed_ranges, cover.missed_files), (4, 3));
        let missed: Vec<_> = cover.missed.iter().map(|m| (m.path.as_str(), m.bytes / KIB, m.ranges)).collect();
        assert_eq!(missed, [("/b", 8, 2), ("/a", 4, 1), ("/c", 2, 1)]);
        assert_eq!((cover.precision_permille(), cover.recall_permille()), (Some(250), Some(364)));
    }

    #[test]
    fn one_range_that_is_listed_in_the_middle_is_missed_in_two() {
        let list = vec![file("/a", 100, &[Range(40, 20, 0)])];
        let cover = Cover::of(list, vec![file("/a", 100, &[Range(0, 100, 0)])]);
        assert_eq!((cover.hit_bytes, cover.missed_bytes, cover.missed_ranges), (20, 80, 2));
    }

    #[test]
    fn a_file_is_the_same_under_another_of_its_names_and_another_with_another_size() {
        let mut touched = file("/lib/b.so.1", 100, &[Range(0, 50, 0)]);
        touched.links = vec!["/lib/b.so".into()];
        let cover = Cover::of(vec![file("/lib/b.so", 100, &[Range(0, 100, 0)])], vec![touched.clone()]);
        assert_eq!((cover.hit_bytes, cover.listed_bytes, cover.missed_bytes), (50, 100, 0));
        let cover = Cover::of(vec![file("/lib/b.so", 101, &[Range(0, 100, 0)])], vec![touched]);
        assert_eq!((cover.hit_bytes, cover.listed_bytes, cover.missed_bytes), (0, 100, 50));
        assert_eq!(cover.missed[0].path, "/lib/b.so.1");
    }

    #[test]
    fn the_files_with_the_most_misses_are_named() {
        let touched = (0..30_u64).map(|i| file(&format!("/f{i:02}"), 1000, &[Range(0, 10 + i % 25, 0)])).collect();
        let cover = Cover::of(Vec::new(), touched);
        assert_eq!((cover.missed.len(), cover.missed_files, cover.missed_ranges), (NAMED, 30, 30));
        assert_eq!((cover.missed[0].path.as_str(), cover.missed[NAMED - 1].bytes), ("/f24", 15));
        assert_eq!((cover.precision_permille(), cover.recall_permille()), (None, Some(0)));
    }

    #[test]
    fn shares_are_rounded_and_almost_all_is_not_all() {
        for (part, whole, share) in [(0, 0, None), (0, 5, Some(0)), (1, 1_000_000, Some(1)), (2, 3, Some(667))] {
            assert_eq!(permille(part, whole), share);
        }
        assert_eq!(permille(999_999, 1_000_000), Some(999));
        assert_eq!((permille(u64::MAX, u64::MAX), permille(2, 1)), (Some(1000), None));
    }

    proptest! {
        #[test]
        fn a_byte_is_hit_or_missed(a in run(), b in run()) {
            let cover = Cover::of(vec![file("/f", 64, &a)], vec![file("/f", 64, &b)]);
            let (a, b) = (model(&a), model(&b));
            let count = |f: &dyn Fn(usize) -> bool| (0..64).filter(|at| f(*at)).count() as u64;
            prop_assert_eq!(cover.hit_bytes, count(&|i| a[i].is_some() && b[i].is_some()));
            prop_assert_eq!(cover.missed_bytes, count(&|i| a[i].is_none() && b[i].is_some()));
            prop_assert_eq!(cover.listed_bytes, count(&|i| a[i].is_some()));
            prop_assert_eq!(cover.missed_ranges, count(&|i| {
                let missed = |i: usize| a[i].is_none() && b[i].is_some();
                missed(i) && (i == 0 || !missed(i - 1))
            }));
        }
    }
}
