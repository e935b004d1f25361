//! What was seen so far, in memory bounded by what is distinct.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;

use super::super::sightings::{Key, Run, Sighting, Sightings};

/// Distinct files, looked-up paths and mapped paths that are kept; what is beyond is counted as lost.
const LIMIT: usize = 1 << 20;
/// Bytes of all these paths.
const NAMES: usize = 256 << 20;
/// Runs of one file that are kept to the byte; later ones are aligned outwards to pages, so that pages bound their number.
const EXACT_RUNS: usize = 1 << 16;
const PAGE: u64 = 4096;

/// What `stat` says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// Device and inode.
    pub key: Key,
    /// Type and permissions.
    pub mode: u32,
    /// Size in bytes.
    pub size: u64,
}

impl Stat {
    pub(super) fn is_regular(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }
}

/// One thing learnt from a call or a sample.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// A file was opened or executed.
    Seen { stat: Stat, kinds: u8 },
    /// Bytes of a file were asked for.
    Touched { stat: Stat, kinds: u8, start: u64, end: u64 },
    /// A file has this path, as the container sees it.
    Named { key: Key, path: Vec<u8> },
    /// A path was looked up or looked for.
    LookedUp(Vec<u8>),
    /// A file is being mapped, under this path as `/proc` shows it to us.
    Mapped { stat: Stat, path: Vec<u8> },
    /// This process opened a file for writing.
    Wrote { key: Key, comm: String },
    /// A thread is about to create a file at this path inside its root.
    Creates { tid: u32, path: Vec<u8>, comm: String },
    /// A thread of that process ran.
    Alive { tid: u32, process: u32 },
    /// That thread ends.
    Gone { tid: u32 },
    /// The process of that thread ends.
    Ended { tid: u32 },
    /// A program uses something that cannot be followed.
    Blind { how: &'static str, comm: String },
    /// A call or mapping could not be looked at.
    Missed,
}

#[derive(Debug, Default)]
struct File {
    kinds: u8,
    first: u64,
    size: u64,
    path: Option<String>,
    /// By first byte: the byte behind the last one, and the time.
    runs: BTreeMap<u64, (u64, u64)>,
}

/// The notebook.
#[derive(Debug, Default)]
pub(super) struct Notebook {
    files: HashMap<Key, File>,
    lookups: BTreeMap<String, u64>,
    writers: HashMap<Key, String>,
    mapped: HashMap<Vec<u8>, Vec<Stat>>,
    created: HashMap<u32, Vec<(Vec<u8>, String)>>,
    tasks: HashMap<u32, u32>,
    names: usize,
    blind: BTreeSet<(&'static str, String)>,
    /// Calls that were looked at.
    pub events: u64,
    missed: u64,
    overflow: u64,
    not_utf8: u64,
}

impl Notebook {
    /// Takes in what was learnt at a time.
    pub(super) fn write(&mut self, facts: Vec<Fact>, at: u64) {
        for fact in facts {
            match fact {
                Fact::Seen { stat, kinds } => {
                    self.file(stat, kinds, at);
                }
                Fact::Touched { stat, kinds, start, end } => {
                    let end = end.min(stat.size);
                    if start < end
                        && let Some(file) = self.file(stat, kinds, at)
                    {
                        file.touch(start, end, at);
                    }
                }
                Fact::Named { key, path } => match (self.files.get_mut(&key), String::from_utf8(path)) {
                    (Some(file), Ok(path)) => file.path = file.path.take().or(Some(path)),
                    (_, Err(_)) => self.not_utf8 += 1,
                    (None, _) => {}
                },
                Fact::LookedUp(path) => match String::from_utf8(path) {
                    Ok(path) if self.lookups.contains_key(&path) => {}
                    Ok(path) if self.lookups.len() >= LIMIT || !self.has_room(path.len()) => self.overflow += 1,
                    Ok(path) => {
                        self.lookups.insert(path, at);
                    }
                    Err(_) => self.not_utf8 += 1,
                },
                Fact::Mapped { stat, path } => self.mapping(stat, path),
                Fact::Wrote { key, comm } => {
                    if self.writers.len() < LIMIT {
                        self.writers.insert(key, comm);
                    } else {
                        self.overflow += 1;
                    }
                }
                Fact::Creates { tid, path, comm } => self.created.entry(tid).or_default().push((path, comm)),
                Fact::Alive { tid, process } => {
                    self.tasks.insert(tid, process);
                }
                Fact::Gone { tid } => {
                    self.tasks.remove(&tid);
                }
                Fact::Ended { tid } => {
                    if let Some(process) = self.tasks.remove(&tid) {
                        self.forget(process);
                    }
                }
                Fact::Blind { how, comm } => {
                    self.missed += 1;
                    if self.blind.len() < 64 {
                        self.blind.insert((how, comm));
                    }
                }
                Fact::Missed => self.missed += 1,
            }
        }
    }

    fn file(&mut self, stat: Stat, kinds: u8, at: u64) -> Option<&mut File> {
        if self.files.len() >= LIMIT && !self.files.contains_key(&stat.key) {
            self.overflow += 1;
            return None;
        }
        let file = self.files.entry(stat.key).or_insert_with(|| File { first: at, ..File::default() });
        file.kinds |= kinds;
        file.first = file.first.min(at);
        file.size = stat.size;
        Some(file)
    }

    /// Takes room for a path, if there is some.
    fn has_room(&mut self, bytes: usize) -> bool {
        let fits = self.names + bytes <= NAMES;
        self.names += if fits { bytes } else { 0 };
        fits
    }

    fn mapping(&mut self, stat: Stat, path: Vec<u8>) {
        if !self.mapped.contains_key(&path) && (self.mapped.len() >= LIMIT || !self.has_room(path.len())) {
            self.overflow += 1;
            return;
        }
        // A path that is replaced over and over while mapped: the last few are those still of use.
        let known = self.mapped.entry(path).or_default();
        known.retain(|s| s.key != stat.key);
        if known.len() >= 16 {
            known.remove(0);
        }
        known.push(stat);
    }

    /// Whether a path is known for the file.
    pub(super) fn has_name(&self, key: Key) -> bool {
        self.files.get(&key).is_some_and(|f| f.path.is_some())
    }

    /// Files that were mapped under that path, the last one last.
    pub(super) fn mapped(&self, path: &[u8]) -> &[Stat] {
        self.mapped.get(path).map_or(&[], Vec::as_slice)
    }

    /// Files that the thread was about to create, and the process that did.
    pub(super) fn take_created(&mut self, tid: u32) -> Vec<(Vec<u8>, String)> {
        self.created.remove(&tid).unwrap_or_default()
    }

    /// Whether the thread was noted as [`Fact::Alive`].
    pub(super) fn knows(&self, tid: u32) -> bool {
        self.tasks.contains_key(&tid)
    }

    /// Processes that were seen and have not ended.
    pub(super) fn processes(&self) -> BTreeSet<u32> {
        self.tasks.values().copied().collect()
    }

    /// Forgets a process that is gone.
    pub(super) fn forget(&mut self, process: u32) {
        self.tasks.retain(|_, p| *p != process);
    }

    /// Threads with files that they were about to create.
    pub(super) fn creators(&self) -> Vec<u32> {
        self.created.keys().copied().collect()
    }

    /// Whether a byte of a file was seen to be read.
    #[cfg(test)]
    pub(super) fn touched(&self, key: Key, at: u64) -> bool {
        self.files.get(&key).is_some_and(|f| f.runs.range(..=at).next_back().is_some_and(|(_, r)| r.0 > at))
    }

    /// The end of the recording.
    pub(super) fn into_sightings(mut self) -> Sightings {
        // Of these nothing but the name is known.
        self.files.retain(|_, f| f.kinds != 0);
        for file in self.files.values() {
            if let Some(path) = &file.path {
                self.lookups.remove(path);
            }
        }
        let mut notes: Vec<String> =
            mem::take(&mut self.blind).into_iter().map(|(how, comm)| format!("{comm} {how}")).collect();
        let mut say = |n: u64, words: &str| {
            if n > 0 {
                notes.push(format!("{n} {words}"));
            }
        };
        say(self.missed, "calls or mappings could not be looked at");
        say(self.overflow, "files or paths were more than are kept");
        say(self.not_utf8, "looked-up paths are not UTF-8 and left out");
        let sighting = |f: File| Sighting {
            kinds: f.kinds,
            first: f.first,
            size: f.size,
            path: f.path,
            runs: f.runs.into_iter().map(|(start, (end, at))| Run { start, end, at }).collect(),
        };
        Sightings {
            files: self.files.into_iter().map(|(key, file)| (key, sighting(file))).collect(),
            lookups: self.lookups,
            writers: self.writers,
            events: self.events,
            lost: self.missed + self.overflow,
            notes,
        }
    }
}

impl File {
    /// Joins the bytes with what they overlap or touch; the earliest time stays.
    fn touch(&mut self, start: u64, end: u64, at: u64) {
        let (mut start, mut end, mut at) = if self.runs.len() < EXACT_RUNS {
            (start, end, at)
        } else {
            (start / PAGE * PAGE, end.checked_next_multiple_of(PAGE).unwrap_or(end), at)
        };
        if let Some((&s, &(e, t))) = self.runs.range(..=start).next_back()
            && e >= start
        {
            if e >= end && t <= at {
                return;
            }
            (start, end, at) = (s, end.max(e), at.min(t));
        }
        while let Some((&s, &(e, t))) = self.runs.range(start..=end).next() {
            self.runs.remove(&s);
            (end, at) = (end.max(e), at.min(t));
        }
        self.runs.insert(start, (end, at));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stat(ino: u64, size: u64) -> Stat {
        Stat { key: (1, ino), mode: libc::S_IFREG, size }
    }

    #[test]
    fn touches_are_cut_at_the_size_and_what_was_opened_is_not_only_looked_up() {
        let mut book = Notebook::default();
        book.write(
            vec![
                Fact::LookedUp(b"/a".into()),
                Fact::LookedUp(b"/b".into()),
                Fact::LookedUp(b"/\xff".into()),
                Fact::Touched { stat: stat(1, 100), kinds: 1, start: 90, end: 4096 },
                Fact::Touched { stat: stat(2, 100), kinds: 1, start: 100, end: 200 },
                Fact::Named { key: (1, 1), path: b"/a".into() },
                Fact::Missed,
            ],
            5,
        );
        let seen = book.into_sightings();
        assert_eq!(seen.files[&(1, 1)].runs, [Run { start: 90, end: 100, at: 5 }]);
        assert!(!seen.files.contains_key(&(1, 2)), "asking at the end reads nothing");
        assert_eq!(seen.lookups.into_keys().collect::<Vec<_>>(), ["/b"]);
        assert_eq!((seen.lost, seen.notes.len()), (1, 2));
    }

    #[test]
    fn the_number_of_runs_is_bounded_by_pages() {
        let mut file = File::default();
        let n = EXACT_RUNS as u64;
        for i in 0..n * 4 {
            file.touch(i * 8, i * 8 + 1, i);
        }
        assert!(file.runs.len() <= EXACT_RUNS + 1, "{}", file.runs.len());
        let covered = |at: u64| file.runs.range(..=at).next_back().is_some_and(|(_, r)| r.0 > at);
        assert!((0..n * 4).all(|i| covered(i * 8)));
    }

    proptest! {
        #[test]
        fn runs_hold_each_byte_touched_and_no_other(touches in proptest::collection::vec((0..60_u64, 1..9_u64, 0..100_u64), 0..40)) {
            let mut file = File::default();
            let mut want = BTreeMap::new();
            for &(start, len, at) in &touches {
                file.touch(start, start + len, at);
                for byte in start..start + len {
                    want.entry(byte).and_modify(|t: &mut u64| *t = at.min(*t)).or_insert(at);
                }
            }
            let got: Vec<u64> = file.runs.iter().flat_map(|(&s, &(e, _))| s..e).collect();
            prop_assert_eq!(got, want.keys().copied().collect::<Vec<_>>());
            for (&s, &(e, at)) in &file.runs {
                prop_assert_eq!(want.range(s..e).map(|(_, t)| *t).min(), Some(at));
                prop_assert!(!file.runs.contains_key(&e), "adjacent runs are joined");
            }
        }
    }
}
