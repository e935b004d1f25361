//! The figures of a profile: what was touched by phase, size, origin, folder and layer, and what was written.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::{File, Header, Origin, Profile};

const MIB: u64 = 1 << 20;
/// Size classes by their upper bounds; files of up to 64 KiB cost a round trip whatever is read of them, those of up to 16 MiB go
/// into a hot layer, those of up to 64 MiB have a digest.
const CLASSES: [(&str, u64); 5] = [
    ("<= 64 KiB", 64 << 10),
    ("<= 1 MiB", MIB),
    ("<= 16 MiB", 16 * MIB),
    ("<= 64 MiB", 64 * MIB),
    ("> 64 MiB", u64::MAX),
];
/// Files from this size on can be called sparsely read.
const SPARSE: u64 = MIB;
/// A folder is shown by itself from this share of all touched bytes on (2 %).
const FOLDER_SHARE: u64 = 50;
/// Folders further down are not shown by themselves: a path may have as many parts as its profile has bytes.
const DEEPEST: usize = 64;

/// Files that have something in common. Sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Group {
    /// What they have in common.
    pub name: String,
    /// How many.
    pub files: u64,
    /// Bytes in them.
    pub size: u64,
    /// Bytes touched of them.
    pub touched: u64,
}

/// What was touched first in a phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PhaseFigures {
    /// Its name; empty for the time before the first named point.
    pub name: String,
    /// Its beginning, ms since the start.
    pub at_ms: u64,
    /// Files first touched in it.
    pub files: u64,
    /// Bytes first touched in it.
    pub touched: u64,
}

/// A large file of which little was touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sparse {
    /// Its path.
    pub path: String,
    /// Bytes in it.
    pub size: u64,
    /// Bytes touched.
    pub touched: u64,
    /// Ranges that they lie in.
    pub ranges: usize,
}

/// Written files of one class and phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WriteFigures {
    /// What they are for.
    pub class: String,
    /// The phase of their last change; `None` when the time is not known.
    pub phase: Option<String>,
    /// How many.
    pub files: u64,
    /// Bytes in them.
    pub size: u64,
}

/// Which layer of an image holds which path.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// Their names, lowest first.
    pub names: Vec<String>,
    /// Layer by absolute path.
    pub of: HashMap<String, usize>,
}

impl Layers {
    /// The layer that a file of the image lies in.
    pub fn find(&self, file: &File) -> Option<usize> {
        self.of.get(&file.path).copied().filter(|_| file.origin == Origin::Image)
    }
}

/// The figures of a profile.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// What was recorded, where and how.
    pub header: Header,
    /// All files.
    pub total: Group,
    /// By phase, in order; the first stands for the time before any named point.
    pub phases: Vec<PhaseFigures>,
    /// By size class, ascending.
    pub sizes: Vec<Group>,
    /// By origin.
    pub origins: Vec<Group>,
    /// By layer of the image, lowest first, where that is known; the last one holds files that are in none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Group>,
    /// By folder, most touched first: those with a share worth showing, each without what is shown by itself below it.
    pub folders: Vec<Group>,
    /// Large files of which little was touched, most untouched bytes first.
    pub sparse: Vec<Sparse>,
    /// What start-up wrote, by class and phase.
    pub writes: Vec<WriteFigures>,
}

impl Group {
    fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    fn add(&mut self, file: &File) {
        self.files += 1;
        self.size = self.size.saturating_add(file.size);
        self.touched = self.touched.saturating_add(file.touched_bytes());
    }

    fn take(&mut self, other: &Self) {
        self.files = self.files.saturating_sub(other.files);
        self.size = self.size.saturating_sub(other.size);
        self.touched = self.touched.saturating_sub(other.touched);
    }
}

impl Summary {
    /// Sums a profile up.
    pub fn of(profile: &Profile, layers: Option<&Layers>) -> Self {
        let mut total = Group::named("all");
        let mut sizes = CLASSES.map(|(name, _)| Group::named(name));
        let mut origins = BTreeMap::new();
        let names = layers.into_iter().flat_map(|l| l.names.iter().map(Group::named));
        let mut by_layer: Vec<Group> = names.chain(layers.map(|_| Group::named("in no layer"))).collect();
        for file in &profile.files {
            total.add(file);
            sizes[CLASSES.iter().position(|(_, up_to)| file.size <= *up_to).unwrap_or(CLASSES.len() - 1)].add(file);
            origins.entry(file.origin).or_insert_with(|| Group::named(file.origin.name())).add(file);
            let last = by_layer.len().saturating_sub(1);
            let at = layers.and_then(|l| l.find(file)).unwrap_or(last);
            if let Some(group) = by_layer.get_mut(at) {
                group.add(file);
            }
        }
        let mut sparse: Vec<Sparse> = profile
            .files
            .iter()
            .filter(|f| f.size >= SPARSE && !f.ranges.is_empty())
            .map(|f| Sparse { path: f.path.clone(), size: f.size, touched: f.touched_bytes(), ranges: f.ranges.len() })
            .filter(|s| s.touched < s.size)
            .collect();
        sparse.sort_by(|a, b| (b.size - b.touched, &a.path).cmp(&(a.size - a.touched, &b.path)));
        Self {
            header: profile.header.clone(),
            phases: phases(profile),
            sizes: sizes.into(),
            origins: origins.into_values().collect(),
            layers: by_layer,
            folders: folders(profile, total.touched),
            sparse,
            writes: writes(profile),
            total,
        }
    }
}

fn phases(profile: &Profile) -> Vec<PhaseFigures> {
    let before = PhaseFigures { name: String::new(), at_ms: 0, files: 0, touched: 0 };
    let named = profile.header.phases.iter();
    let named = named.map(|p| PhaseFigures { name: p.name.clone(), at_ms: p.at_ms, ..before.clone() });
    let mut out: Vec<PhaseFigures> = std::iter::once(before.clone()).chain(named).collect();
    for file in &profile.files {
        out[profile.phases_begun(file.first_touch_ms)].files += 1;
        for range in &file.ranges {
            let phase = &mut out[profile.phases_begun(range.2)];
            phase.touched = phase.touched.saturating_add(range.1);
        }
    }
    out
}

fn writes(profile: &Profile) -> Vec<WriteFigures> {
    let mut out: BTreeMap<(&str, usize), WriteFigures> = BTreeMap::new();
    for write in &profile.writes {
        // Unknown times behind all phases.
        let at = write.at_ms.map_or(usize::MAX, |at| profile.phases_begun(at));
        let figures = out.entry((&write.class, at)).or_insert_with(|| WriteFigures {
            class: write.class.clone(),
            phase: write.at_ms.map(|at| profile.phase_at(at).into()),
            files: 0,
            size: 0,
        });
        figures.files += 1;
        figures.size = figures.size.saturating_add(write.size);
    }
    out.into_values().collect()
}

/// The folders that hold a share of the touched bytes worth showing, each without those below it that do.
fn folders(profile: &Profile, touched: u64) -> Vec<Group> {
    let mut all: BTreeMap<&str, Group> = BTreeMap::new();
    for file in &profile.files {
        // Of the root the name is empty.
        for (end, _) in file.path.match_indices('/').take(DEEPEST) {
            let name = &file.path[..end];
            all.entry(name).or_default().add(file);
        }
    }
    let least = (touched / FOLDER_SHARE).max(1);
    let mut shown: BTreeMap<&str, Group> =
        all.into_iter().filter(|(name, g)| name.is_empty() || g.touched >= least).collect();
    // Deepest first, so that each is taken out of the nearest one above it, whole.
    let names: Vec<&str> = shown.keys().copied().collect();
    let whole = shown.clone();
    for name in names.iter().rev() {
        let above = name.rmatch_indices('/').map(|(end, _)| &name[..end]).find(|a| whole.contains_key(a));
        if let Some(group) = above.and_then(|a| shown.get_mut(a)) {
            group.take(&whole[name]);
        }
    }
    let shown = shown.into_iter().filter(|(_, g)| g.files > 0);
    let mut out: Vec<Group> = shown.map(|(name, g)| Group { name: format!("{name}/"), ..g }).collect();
    out.sort_by(|a, b| (b.touched, &a.name).cmp(&(a.touched, &b.name)));
    out
}

#[cfg(test)]
mod tests {
    use super::super::Range;
    use super::super::sample::{file, profile};
    use super::*;

    fn sums(groups: &[Group]) -> (u64, u64, u64) {
        groups.iter().fold((0, 0, 0), |(n, s, t), g| (n + g.files, s + g.size, t + g.touched))
    }

    #[test]
    fn every_way_of_grouping_adds_up_to_the_whole() {
        let p = profile();
        let layers = Layers { names: vec!["base".into()], of: [("/usr/bin/python3".to_owned(), 0)].into() };
        let s = Summary::of(&p, Some(&layers));
        let total = (s.total.files, s.total.size, s.total.touched);
        for groups in [&s.sizes, &s.origins, &s.layers, &s.folders] {
            assert_eq!(sums(groups), total, "{groups:?}");
        }
        assert_eq!(s.phases.iter().map(|p| p.touched).sum::<u64>(), s.total.touched);
        assert_eq!(s.layers.iter().map(|l| l.files).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn bytes_belong_to_the_phase_in_which_they_were_first_touched() {
        let mib = 1 << 20;
        let s = Summary::of(&profile(), None);
        let got: Vec<_> = s.phases.iter().map(|p| (p.name.as_str(), p.files, p.touched)).collect();
        assert_eq!(got, [("", 3, 8192 + 3 * mib), ("ready", 0, 4096), ("first-chat", 1, 9 * mib)]);
        assert_eq!(
            s.writes.iter().map(|w| (w.class.as_str(), w.phase.as_deref())).collect::<Vec<_>>(),
            [("bytecode", Some("")), ("temporary", Some("first-chat"))]
        );
    }

    #[test]
    fn a_folder_is_shown_without_what_is_shown_below_it() {
        let files = vec![
            file("/a/b/c/large", 1000, &[Range(0, 900, 0)]),
            file("/a/b/small", 10, &[Range(0, 10, 0)]),
            file("/a/d/medium", 100, &[Range(0, 90, 0)]),
            file("/top", 5, &[]),
        ];
        let s = Summary::of(&Profile { files, ..profile() }, None);
        let got: Vec<_> = s.folders.iter().map(|g| (g.name.as_str(), g.files, g.touched)).collect();
        assert_eq!(got, [("/a/b/c/", 1, 900), ("/a/d/", 1, 90), ("/a/b/", 1, 10), ("/", 1, 0)]);
    }

    #[test]
    fn sparse_files_are_large_and_come_by_what_was_not_touched() {
        let s = Summary::of(&profile(), None);
        let got: Vec<_> = s.sparse.iter().map(|s| (s.path.as_str(), s.ranges)).collect();
        assert_eq!(got, [("/opt/app/torch.so", 2), ("/usr/lib/libcuda.so.1", 1)]);
    }
}
