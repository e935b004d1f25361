//! What is on a file system: the regular files and symbolic links below a root with what `lstat` says of them, before and
//! after the run, and what differs. Reads directories and inodes only, never a file.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// A regular file or a symbolic link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Path inside the root.
    pub path: String,
    /// `st_dev`, which on an overlay is not the real file's.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Mode with its type bits.
    pub mode: u32,
    /// Modification and change time in seconds and nanoseconds.
    pub times: [i64; 4],
    /// Owner and group.
    pub owner: [u32; 2],
}

impl Entry {
    /// Whether it is a symbolic link.
    pub(super) fn is_link(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFLNK
    }

    /// Nanoseconds since the epoch at which it was last written, or for a link made.
    pub(super) fn written_at(&self) -> i128 {
        let [seconds, nanos, changed, changed_nanos] = self.times.map(i128::from);
        // A file that was unpacked has an old time; the change of the inode is what happened here.
        (seconds * 1_000_000_000 + nanos).max(changed * 1_000_000_000 + changed_nanos)
    }
}

/// The files below a root at one time, by path.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// Regular files, sorted by path.
    pub entries: Vec<Entry>,
    /// Symbolic links, sorted by path.
    pub links: Vec<Entry>,
    /// Names that are not UTF-8 and so cannot be in a profile, and directories that could not be read.
    pub skipped: u64,
}

/// Where not to go.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// Mount points, as paths inside the root.
    pub mounts: HashSet<String>,
    /// Our own output, as paths inside the root.
    pub own: HashSet<String>,
}

impl Snapshot {
    /// Walks `start` (a path inside `root`), which may itself be a file.
    pub(super) fn take(root: &Path, start: &str, limits: &Limits) -> Self {
        let mut found = Self::default();
        let host = below(root, start);
        let Ok(meta) = fs::symlink_metadata(&host) else { return found };
        if !meta.is_dir() {
            found.add(start.to_owned(), &meta);
            return found;
        }
        let mut open: Vec<(PathBuf, String)> = vec![(host, start.trim_end_matches('/').to_owned())];
        while let Some((dir, inside)) = open.pop() {
            let Ok(list) = fs::read_dir(&dir) else {
                found.skipped += 1;
                continue;
            };
            for item in list.flatten() {
                let name = item.file_name();
                let (Some(name), Ok(meta)) = (name.to_str(), item.metadata()) else {
                    found.skipped += 1;
                    continue;
                };
                let path = format!("{inside}/{name}");
                if limits.mounts.contains(&path) || limits.own.contains(&path) {
                    continue;
                }
                if meta.is_dir() {
                    open.push((item.path(), path));
                } else {
                    found.add(path, &meta);
                }
            }
        }
        found.entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        found.links.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        found
    }

    fn add(&mut self, path: String, meta: &fs::Metadata) {
        let list = match meta.file_type() {
            t if t.is_file() => &mut self.entries,
            t if t.is_symlink() => &mut self.links,
            _ => return,
        };
        list.push(Entry {
            path,
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.len(),
            mode: meta.mode(),
            times: [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()],
            owner: [meta.uid(), meta.gid()],
        });
    }

    /// The file of that path.
    pub(super) fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.binary_search_by(|e| e.path.as_str().cmp(path)).ok().map(|i| &self.entries[i])
    }
}

/// Opens a regular file inside a root. Nothing on the way may be a link: the walk has met none there, and what has been put in
/// since may lead anywhere. Does not wait at a pipe.
pub(super) fn open(root: &Path, inside: &str) -> io::Result<fs::File> {
    let dir = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(root)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let file = fs::File::from(openat2(dir.as_fd(), inside.trim_start_matches('/'), how)?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("no longer a file")) }
}

/// A path inside a root as seen from outside.
pub(super) fn below(root: &Path, inside: &str) -> PathBuf {
    root.join(inside.trim_start_matches('/'))
}

/// The files that are new or changed in `after`, by path.
pub(super) fn diff<'a>(before: &Snapshot, after: &'a Snapshot) -> Vec<(&'a Entry, Change)> {
    changes(&before.entries, &after.entries)
}

/// The symbolic links that are new or lead elsewhere in `after`, by path.
pub(super) fn new_links<'a>(before: &Snapshot, after: &'a Snapshot) -> Vec<&'a Entry> {
    changes(&before.links, &after.links).into_iter().map(|(e, _)| e).collect()
}

/// How a file differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    New,
    Changed,
}

impl Change {
    /// As the profile has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Changed => "changed",
        }
    }
}

fn changes<'a>(before: &[Entry], after: &'a [Entry]) -> Vec<(&'a Entry, Change)> {
    let old: HashMap<&str, &Entry> = before.iter().map(|e| (e.path.as_str(), e)).collect();
    let differs = |now: &'a Entry| match old.get(now.path.as_str()) {
        None => Some((now, Change::New)),
        Some(was) if *was != now => Some((now, Change::Changed)),
        Some(_) => None,
    };
    after.iter().filter_map(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_finds_files_only_and_stays_out_of_mounts_and_own_output() {
        let dir = tempfile::tempdir().expect("folder");
        let make = |p: &str| {
            let p = dir.path().join(p);
            fs::create_dir_all(p.parent().expect("parent")).expect("folder");
            fs::write(p, "x").expect("file");
        };
        ["a/b/c", "a/z", "m/x", "out.json", "é"].into_iter().for_each(make);
        std::os::unix::fs::symlink("a/z", dir.path().join("link")).expect("link");
        let limits = Limits { mounts: ["/m".to_owned()].into(), own: ["/out.json".to_owned()].into() };
        let found = Snapshot::take(dir.path(), "/", &limits);
        assert_eq!(found.entries.iter().map(|e| e.path.as_str()).collect::<Vec<_>>(), ["/a/b/c", "/a/z", "/é"]);
        assert_eq!(found.get("/a/z").map(|e| e.size), Some(1));
        let one = Snapshot::take(dir.path(), "/m/x", &limits);
        assert_eq!(one.entries.len(), 1, "a mounted file is its own root");
    }

    #[test]
    fn new_and_changed_files_are_told_apart_and_deleted_ones_are_not_writes() {
        let entry = |path: &str, size| Entry {
            path: path.into(),
            dev: 1,
            ino: 1,
            size,
            mode: 0o10_0644,
            times: [0; 4],
            owner: [0; 2],
        };
        let of = |entries: Vec<Entry>| Snapshot { entries, ..Snapshot::default() };
        let before = of(vec![entry("/a", 1), entry("/gone", 1), entry("/same", 1), entry("/touched", 1)]);
        let touched = Entry { times: [0, 0, 0, 1], ..entry("/touched", 1) };
        let after = of(vec![entry("/a", 2), entry("/new", 3), entry("/same", 1), touched]);
        let found: Vec<_> = diff(&before, &after).into_iter().map(|(e, c)| (e.path.as_str(), c)).collect();
        assert_eq!(found, [("/a", Change::Changed), ("/new", Change::New), ("/touched", Change::Changed)]);
    }
}
