//! The recorder of last resort, which needs neither a capability nor tracing: every file is pushed out of the page cache before the
//! start, and what `mincore` finds in there afterwards was brought in meanwhile, by whomever, with the kernel's read-ahead.
//! Hides what a look costs and whom the kernel does not tell the truth.

use std::collections::{HashMap, HashSet};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Error;
use super::incore::{evict, is_told, resident};
use super::perf::{now, page_size};
use super::sightings::{Run, Sighting, Sightings};
use super::spans::Spans;
use super::touch::CACHED;
use super::walk::{Entry, Snapshot, below};

/// Larger files are looked at while the command runs, so that their ranges get times. With the smaller ones a round would take too
/// long: a look costs some microseconds a file.
const SAMPLED: u64 = 1 << 20;
/// Between two looks at a file that is being read, and at one that is not.
const SOON: Duration = Duration::from_millis(500);
const LATE: Duration = Duration::from_secs(8);
/// A round is followed by a rest of that many times its length: 1.5 % of one core at most.
const REST: u32 = 66;
/// Files tried to find out how a device caches.
const TRIES: usize = 8;

/// What it is known to add, for the profile's header.
pub(super) const INFLATION: &str = "pages that came into the page cache meanwhile, with the kernel's read-ahead, brought in by whomever on this \
     node; what start-up wrote into existing files counts as touched";
/// What it cannot see, for the profile's header.
pub(super) const BLIND: &str = "pages that were in the page cache before and could not be pushed out (other processes map them), files that this \
     user neither owns nor may write, files on tmpfs, O_DIRECT, what was read and deleted, renamed, cut off or pushed out again for want of memory between two looks; files of up to 1 MiB \
     are looked at once, at the end, and have no other time";

/// One recording.
pub(super) struct Residency {
    root: PathBuf,
    small: Vec<Watched>,
    big: Vec<Watched>,
    left_out: LeftOut,
    sampler: Option<Sampler>,
    /// How often somebody had dropped the page cache before the start; nothing before `start`.
    drops: Option<u64>,
}

/// A file and what is known of it.
struct Watched {
    path: String,
    key: (u64, u64),
    size: u64,
    times: [i64; 4],
    /// Resident before the start: of these pages nothing can be said.
    baseline: Spans,
    /// The baseline and all that was found.
    known: Spans,
    found: Vec<Run>,
    fate: Fate,
    due: Instant,
    pause: Duration,
}

/// What became of a file, as of the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Same,
    /// Its size or time of modification: pages may be there because they were written.
    Changed,
    /// Another file, or none, has its path.
    Gone,
}

/// Files that nothing can be said of.
#[derive(Debug, Default)]
struct LeftOut {
    unreadable: u64,
    untold: u64,
    forgetful: u64,
}

struct Sampler {
    stop: Sender<()>,
    thread: JoinHandle<Vec<Watched>>,
}

/// Whether this recorder works here, with words for what it will not see as this user.
pub(super) fn available() -> Result<Option<String>, String> {
    let known = File::open("/proc/self/exe").and_then(|file| {
        let size = file.metadata()?.len();
        evict(&file);
        resident(&file, size.min(SAMPLED), &Spans::default())
    });
    let ours = known.map_err(|e| format!("mincore is refused ({e})"))?;
    if ours.is_empty() {
        return Err(
            "mincore does not see this very program, which runs: the system call is not what it should be".into()
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|l| u64::from_str_radix(l.strip_prefix("CapEff:")?.trim(), 16).ok());
    let owner_of_all = capabilities.is_some_and(|c| c >> CAP_FOWNER & 1 == 1);
    Ok((!owner_of_all).then(|| {
        let user = nix::unistd::geteuid();
        format!("without CAP_FOWNER only files that user {user} owns or may write are seen")
    }))
}

const CAP_FOWNER: u32 = 3;

impl Residency {
    /// Pushes all files of the walks (the root's and those of mounts below it) out of the page cache and notes what stays there.
    pub(super) fn prepare(root: &Path, walks: &[&Snapshot]) -> Result<Self, Error> {
        let refused = |source| Error::System { what: "look into the page cache", source };
        // Dirty pages cannot be evicted. What a mount below holds is synced file by file where it matters.
        let _best_effort = File::open(root).map(|dir| nix::unistd::syncfs(&dir));
        let mut this = Self {
            root: root.to_owned(),
            small: Vec::new(),
            big: Vec::new(),
            left_out: LeftOut::default(),
            sampler: None,
            drops: None,
        };
        let mut seen = HashSet::new();
        let entries = walks.iter().flat_map(|w| &w.entries).filter(|e| e.size > 0 && seen.insert((e.dev, e.ino)));
        let mut devices: HashMap<u64, Vec<&Entry>> = HashMap::new();
        entries.for_each(|e| devices.entry(e.dev).or_default().push(e));
        for files in devices.into_values() {
            if files.iter().take(TRIES).find_map(|e| remembers(root, e)) == Some(false) {
                this.left_out.forgetful += files.len() as u64;
                continue;
            }
            for e in files {
                this.watch(e);
            }
        }
        if this.small.is_empty() && this.big.is_empty() && !seen.is_empty() {
            let why = this.left_out.words().join("; ");
            return Err(refused(io::Error::other(if why.is_empty() { "no file".into() } else { why })));
        }
        Ok(this)
    }

    fn watch(&mut self, e: &Entry) {
        let Ok((file, _)) = open(&self.root, &e.path, (e.dev, e.ino)) else {
            self.left_out.unreadable += 1;
            return;
        };
        evict(&file);
        let look = || resident(&file, e.size, &Spans::default());
        let mut baseline = look();
        if baseline.as_ref().is_ok_and(|b| !b.is_empty()) {
            // Before a file is written back for nothing.
            if !is_told(&file, e.size).unwrap_or(false) {
                self.left_out.untold += 1;
                return;
            }
            let _best_effort = file.sync_data();
            evict(&file);
            baseline = look();
        }
        let Ok(baseline) = baseline else {
            self.left_out.untold += 1;
            return;
        };
        let watched = Watched {
            path: e.path.clone(),
            key: (e.dev, e.ino),
            size: e.size,
            times: e.times,
            known: baseline.clone(),
            baseline,
            found: Vec::new(),
            fate: Fate::Same,
            due: Instant::now() + SOON,
            pause: SOON,
        };
        if e.size > SAMPLED { self.big.push(watched) } else { self.small.push(watched) }
    }

    /// Begins to look at the big files from time to time. Call it behind the fork: it starts a thread.
    pub(super) fn start(&mut self) {
        self.drops = Some(drops());
        let (stop, stopped) = channel();
        let (root, mut files) = (self.root.clone(), std::mem::take(&mut self.big));
        let thread = thread::spawn(move || {
            let mut rest = SOON;
            while stopped.recv_timeout(rest) == Err(RecvTimeoutError::Timeout) {
                let begun = Instant::now();
                for file in files.iter_mut().filter(|f| f.due <= begun) {
                    file.pause = if file.look(&root) { SOON } else { (file.pause * 2).min(LATE) };
                    file.due = begun + file.pause;
                }
                rest = SOON.max(begun.elapsed() * REST);
            }
            files
        });
        self.sampler = Some(Sampler { stop, thread });
    }

    /// Takes the last look, at all files or at those of these devices and inodes `only`.
    pub(super) fn stop(mut self, only: Option<&HashSet<(u64, u64)>>) -> Sightings {
        if let Some(Sampler { stop, thread }) = self.sampler.take() {
            drop(stop);
            self.big = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        let mut out = Sightings { notes: self.left_out.words(), ..Sightings::default() };
        let mut sum = Sum::default();
        for mut file in self.small.into_iter().chain(self.big).filter(|f| only.is_none_or(|o| o.contains(&f.key))) {
            file.look(&self.root);
            sum.add(&file);
            if file.found.is_empty() {
                continue;
            }
            file.found.sort_unstable_by_key(|r| r.start);
            out.events += file.found.len() as u64;
            let first = file.found.iter().map(|r| r.at).min().unwrap_or_default();
            let sighting = Sighting { kinds: CACHED, first, size: file.size, path: Some(file.path), runs: file.found };
            out.files.insert(file.key, sighting);
        }
        out.notes.extend(sum.words());
        let dropped = self.drops.map_or(0, |before| drops().saturating_sub(before));
        if dropped > 0 {
            out.lost += dropped;
            out.notes.push(format!(
                "the page cache was dropped {dropped} times meanwhile: what was read before may be missing"
            ));
        }
        out
    }
}

impl Watched {
    /// Tells whether anything is new.
    fn look(&mut self, root: &Path) -> bool {
        let Ok((file, meta)) = open(root, &self.path, self.key) else {
            self.fate = Fate::Gone;
            return false;
        };
        if meta.len() != self.size || [meta.mtime(), meta.mtime_nsec()] != self.times[..2] {
            self.fate = Fate::Changed;
        }
        let at = now();
        // What cannot be seen now may be seen by a later look.
        let Ok(there) = resident(&file, self.size.min(meta.len()), &self.known) else { return false };
        let fresh = there.without(&self.known);
        let page = page_size() as u64;
        self.found.extend(fresh.iter().map(|(start, end)| Run {
            start: start * page,
            end: (end * page).min(self.size),
            at,
        }));
        self.known = self.known.union(&fresh);
        !fresh.is_empty()
    }
}

/// What has to be said at the end.
#[derive(Debug, Default)]
struct Sum {
    gone: u64,
    changed: u64,
    resident: u64,
    resident_pages: u64,
}

impl Sum {
    fn add(&mut self, file: &Watched) {
        self.gone += u64::from(file.fate == Fate::Gone);
        self.changed += u64::from(file.fate == Fate::Changed && !file.found.is_empty());
        self.resident += u64::from(!file.baseline.is_empty());
        self.resident_pages += file.baseline.pages();
    }

    fn words(&self) -> Vec<String> {
        let bytes = self.resident_pages * page_size() as u64;
        let all = [
            (
                self.resident,
                format!(
                    "{bytes} bytes of {} files stayed in the page cache before the start (others map them): whether they were touched is not known",
                    self.resident
                ),
            ),
            (
                self.gone,
                format!(
                    "{} files were deleted or replaced meanwhile: what was read of them before is not known",
                    self.gone
                ),
            ),
            (self.changed, format!("{} files were changed meanwhile: their ranges may be writes", self.changed)),
        ];
        all.into_iter().filter(|(n, _)| *n > 0).map(|(_, words)| words).collect()
    }
}

impl LeftOut {
    fn words(&self) -> Vec<String> {
        let all = [
            (self.unreadable, "files cannot be opened and were left out"),
            (
                self.untold,
                "files were left out: the kernel does not say what is cached of files that one neither owns nor may write",
            ),
            (
                self.forgetful,
                "files were left out: their file system does not cache, or drops what it cached when a file is opened again",
            ),
        ];
        all.into_iter().filter(|(n, _)| *n > 0).map(|(n, words)| format!("{n} {words}")).collect()
    }
}

/// How often the page cache of this machine was dropped by hand: each time all that no look has seen yet is lost.
fn drops() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix("drop_pagecache ")?.parse().ok()).unwrap_or_default()
}

/// Opens a file if it still is the one of that device and inode. Waits for nothing and follows no link in the last place.
fn open(root: &Path, path: &str, key: (u64, u64)) -> io::Result<(File, Metadata)> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(below(root, path))?;
    let meta = file.metadata()?;
    if (meta.dev(), meta.ino()) == key { Ok((file, meta)) } else { Err(io::Error::other("another file")) }
}

/// Whether what is read of a file stays in the page cache when it is opened again: some FUSE file systems drop it, so that our own
/// looks would destroy what they look for. Nothing when this file does not tell.
fn remembers(root: &Path, e: &Entry) -> Option<bool> {
    let key = (e.dev, e.ino);
    let (file, _) = open(root, &e.path, key).ok()?;
    if !is_told(&file, e.size).ok()? || file.read_at(&mut [0], 0).ok()? == 0 {
        return None;
    }
    drop(file);
    let (again, _) = open(root, &e.path, key).ok()?;
    Some(resident(&again, 1, &Spans::default()).ok()?.covers((0, 1)))
}

#[cfg(test)]
mod tests;
