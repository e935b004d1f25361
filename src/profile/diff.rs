//! What changed between two profiles: of two releases, or of two runs of one.
//!
//! Files are compared by path first (hard links counted), then by digest for those whose path only one of the profiles has. Of a file
//! whose content changed no byte counts as shared. A file without a digest (recorders leave large ones out) counts as unchanged when
//! its size is the same: such files are counted as assumed.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::{File, Origin, Profile, names, ranges};

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Touched only in the new profile.
    New,
    /// Touched only in the old one.
    Gone,
    /// The same content under another path.
    Moved,
    /// Another content under the same path.
    Changed,
    /// Touched in both, with the same content.
    Kept,
}

impl Change {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Gone => "gone",
            Self::Moved => "moved",
            Self::Changed => "changed",
            Self::Kept => "kept",
        }
    }
}

/// A file of either profile. All figures are bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileDiff {
    /// Path in the new profile, in the old one for a file that is gone.
    pub path: String,
    /// Path in the old profile, for a file that moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_path: Option<String>,
    /// What became of it.
    pub change: Change,
    /// Where it came from.
    pub origin: Origin,
    /// Size in the old profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_size: Option<u64>,
    /// Size in the new profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_size: Option<u64>,
    /// Touched only in the old profile.
    pub only_old: u64,
    /// Touched only in the new profile.
    pub only_new: u64,
    /// Touched in both.
    pub both: u64,
    /// The content counts as the same because the size is: a digest is missing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub assumed: bool,
}

/// Sums over files. All figures but the counts are bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Files of the old profile.
    pub old_files: u64,
    /// Files of the new profile.
    pub new_files: u64,
    /// Touched in the old profile.
    pub old: u64,
    /// Touched in the new profile.
    pub new: u64,
    /// Touched in the old profile alone.
    pub only_old: u64,
    /// Touched in the new profile alone.
    pub only_new: u64,
    /// Touched in both.
    pub both: u64,
    /// Share of the bytes touched in the new profile that the old one has, 0 to 1: the recall of the old one. 1 without any.
    pub recall: f64,
    /// Share of the bytes touched in the old profile that the new one has, 0 to 1: its precision. 1 without any.
    pub precision: f64,
}

/// The comparison.
#[derive(Debug, PartialEq, Serialize)]
pub struct Diff {
    /// Over all files.
    pub total: Totals,
    /// By origin.
    pub origins: BTreeMap<Origin, Totals>,
    /// How many files were new, gone, moved, changed or kept, and how many of the last are assumed to be.
    pub counts: Counts,
    /// All files: most bytes that only one profile has first, then by path.
    pub files: Vec<FileDiff>,
    /// Paths that only the new profile wrote.
    pub new_writes: Vec<String>,
    /// Paths that only the old profile wrote.
    pub gone_writes: Vec<String>,
}

/// Numbers of files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Only in the new profile.
    pub new: u64,
    /// Only in the old profile.
    pub gone: u64,
    /// Same content, other path.
    pub moved: u64,
    /// Same path, other content.
    pub changed: u64,
    /// In both with the same content.
    pub kept: u64,
    /// Of these: those whose content is assumed to be the same.
    pub assumed: u64,
}

/// Compares two profiles.
pub fn diff(old: &Profile, new: &Profile) -> Diff {
    let (mut files, mut gone, mut fresh) = (Vec::new(), Vec::new(), Vec::new());
    for group in names::groups(&[old, new]) {
        let side = |run| {
            let mut of = group.iter().filter(move |(r, _)| *r == run).map(|(_, f)| *f);
            of.next().map(|first| (first, of.fold(first.ranges.clone(), joined)))
        };
        match (side(0), side(1)) {
            (Some(a), Some(b)) => files.push(pair(&a, &b)),
            (Some(a), None) => gone.push(a),
            (None, Some(b)) => fresh.push(b),
            (None, None) => {}
        }
    }
    let mut by_content: HashMap<_, Vec<Side<'_>>> = HashMap::new();
    // Taken from the back, so that they go in order.
    for side in gone.into_iter().rev() {
        by_content.entry((side.0.digest, side.0.size)).or_default().push(side);
    }
    for b in fresh {
        let known = b.0.digest.is_some() && b.0.size > 0;
        let a = by_content.get_mut(&(b.0.digest, b.0.size)).filter(|_| known).and_then(Vec::pop);
        files.push(match a {
            Some(a) => FileDiff { old_path: Some(a.0.path.clone()), change: Change::Moved, ..pair(&a, &b) },
            None => FileDiff { only_new: ranges::bytes(&b.1), new_size: Some(b.0.size), ..alone(b.0, Change::New) },
        });
    }
    files.extend(by_content.into_values().flatten().map(|a| FileDiff {
        only_old: ranges::bytes(&a.1),
        old_size: Some(a.0.size),
        ..alone(a.0, Change::Gone)
    }));
    files.sort_by(|a, b| {
        let apart = |f: &FileDiff| f.only_new.saturating_add(f.only_old);
        (apart(b), &a.path, a.change as u8).cmp(&(apart(a), &b.path, b.change as u8))
    });
    let mut origins: BTreeMap<Origin, Totals> = BTreeMap::new();
    let (mut total, mut counts) = (Totals::default(), Counts::default());
    for f in &files {
        total.add(f);
        origins.entry(f.origin).or_default().add(f);
        counts.add(f);
    }
    total.finish();
    origins.values_mut().for_each(Totals::finish);
    let writes = |of: &Profile, but: &Profile| {
        let there: std::collections::HashSet<&str> = but.writes.iter().map(|w| w.path.as_str()).collect();
        of.writes.iter().filter(|w| !there.contains(w.path.as_str())).map(|w| w.path.clone()).collect()
    };
    Diff { total, origins, counts, files, new_writes: writes(new, old), gone_writes: writes(old, new) }
}

/// A file in one of the profiles, with all that was touched of it.
type Side<'a> = (&'a File, Vec<super::Range>);

fn joined(all: Vec<super::Range>, file: &File) -> Vec<super::Range> {
    super::union(all.into_iter().chain(file.ranges.iter().copied()).collect())
}

fn alone(file: &File, change: Change) -> FileDiff {
    FileDiff {
        path: file.path.clone(),
        old_path: None,
        change,
        origin: file.origin,
        old_size: None,
        new_size: None,
        only_old: 0,
        only_new: 0,
        both: 0,
        assumed: false,
    }
}

fn pair(a: &Side<'_>, b: &Side<'_>) -> FileDiff {
    let known = a.0.digest.zip(b.0.digest);
    let same = a.0.size == b.0.size && known.is_none_or(|(a, b)| a == b);
    let (old, new) = (ranges::bytes(&a.1), ranges::bytes(&b.1));
    let both = if same { ranges::shared(&a.1, &b.1) } else { 0 };
    FileDiff {
        old_size: Some(a.0.size),
        new_size: Some(b.0.size),
        only_old: old.saturating_sub(both),
        only_new: new.saturating_sub(both),
        both,
        assumed: same && known.is_none(),
        ..alone(b.0, if same { Change::Kept } else { Change::Changed })
    }
}

impl Totals {
    fn add(&mut self, f: &FileDiff) {
        self.old_files += u64::from(f.change != Change::New);
        self.new_files += u64::from(f.change != Change::Gone);
        for (sum, n) in [(&mut self.only_old, f.only_old), (&mut self.only_new, f.only_new), (&mut self.both, f.both)] {
            *sum = sum.saturating_add(n);
        }
    }

    fn finish(&mut self) {
        self.old = self.only_old.saturating_add(self.both);
        self.new = self.only_new.saturating_add(self.both);
        self.recall = share(self.both, self.new);
        self.precision = share(self.both, self.old);
    }
}

impl Counts {
    fn add(&mut self, f: &FileDiff) {
        let n = match f.change {
            Change::New => &mut self.new,
            Change::Gone => &mut self.gone,
            Change::Moved => &mut self.moved,
            Change::Changed => &mut self.changed,
            Change::Kept => &mut self.kept,
        };
        *n += 1;
        self.assumed += u64::from(f.assumed);
    }
}

/// A part as a share of the whole, 0 to 1; 1 of nothing.
#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::super::Range;
    use super::super::ranges::tests::{model, run};
    use super::super::sample::{file, profile};
    use super::*;
    use crate::digest::Digest;
    use proptest::prelude::*;

    fn with(files: Vec<File>) -> Profile {
        Profile { files, ..profile() }
    }

    fn known(path: &str, text: &[u8]) -> File {
        File { digest: Some(Digest::of(text)), ..file(path, 100, &[Range(0, 10, 0)]) }
    }

    proptest! {
        #[test]
        fn every_byte_is_counted_once(a in run(), b in run()) {
            let d = diff(&with(vec![file("/f", 64, &a)]), &with(vec![file("/f", 64, &b)]));
            let (a, b) = (model(&a), model(&b));
            let n = |old: bool, new: bool| {
                let is = |i: &usize| a[*i].is_some() == old && b[*i].is_some() == new;
                (0..64).filter(is).count() as u64
            };
            prop_assert_eq!((d.total.only_old, d.total.only_new, d.total.both), (n(true, false), n(false, true), n(true, true)));
            prop_assert!((0.0..=1.0).contains(&d.total.recall) && (0.0..=1.0).contains(&d.total.precision));
        }
    }

    #[test]
    fn files_are_told_apart_by_path_and_content() {
        let old = with(vec![known("/same", b"s"), known("/changed", b"1"), known("/from", b"m"), known("/gone", b"g")]);
        let new = with(vec![known("/same", b"s"), known("/changed", b"2"), known("/to", b"m"), known("/new", b"n")]);
        let d = diff(&old, &new);
        let got: Vec<_> = d
            .files
            .iter()
            .map(|f| (f.path.as_str(), f.old_path.as_deref(), f.change, (f.only_old, f.only_new, f.both)))
            .collect();
        assert_eq!(
            got,
            [
                ("/changed", None, Change::Changed, (10, 10, 0)),
                ("/gone", None, Change::Gone, (10, 0, 0)),
                ("/new", None, Change::New, (0, 10, 0)),
                ("/same", None, Change::Kept, (0, 0, 10)),
                ("/to", Some("/from"), Change::Moved, (0, 0, 10)),
            ]
        );
        let Totals { old_files, new_files, old, new, recall, precision, .. } = d.total;
        assert_eq!((old_files, new_files, old, new), (4, 4, 40, 40));
        assert_eq!((recall, precision), (0.5, 0.5));
        assert_eq!(d.counts, Counts { new: 1, gone: 1, moved: 1, changed: 1, kept: 1, assumed: 0 });
        assert_eq!(d.origins.get(&Origin::Image), Some(&d.total));
    }

    #[test]
    fn a_missing_digest_is_said_and_another_size_is_another_content() {
        let old = with(vec![file("/a", 10, &[Range(0, 5, 0)]), file("/b", 10, &[Range(0, 5, 0)])]);
        let new = with(vec![file("/a", 10, &[Range(0, 5, 0)]), file("/b", 11, &[Range(0, 5, 0)])]);
        let d = diff(&old, &new);
        assert_eq!((d.counts.kept, d.counts.changed, d.counts.assumed), (1, 1, 1));
    }

    #[test]
    fn a_profile_has_all_of_itself_and_of_nothing() {
        let d = diff(&profile(), &profile());
        assert_eq!((d.total.only_old, d.total.only_new, d.total.both), (0, 0, d.total.new));
        let recall = |old: &Profile, new: &Profile| (diff(old, new).total.recall * 100.0).to_string();
        assert_eq!(recall(&profile(), &with(vec![])), "100");
        assert_eq!(recall(&with(vec![]), &profile()), "0");
    }

    #[test]
    fn hard_links_are_one_file() {
        let linked = File { links: vec!["/b".into()], ..file("/a", 10, &[Range(0, 4, 1)]) };
        let d = diff(&with(vec![linked]), &with(vec![file("/b", 10, &[Range(2, 4, 1)])]));
        assert_eq!((d.files.len(), d.total.both, d.total.only_new, d.total.only_old), (1, 2, 2, 2));
    }
}
