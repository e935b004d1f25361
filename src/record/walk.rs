//! What is on a file system: the regular files below a root with what `lstat` says of them, before and after the run, and
//! what differs. Reads directories and inodes only, never a file.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::profile::Write;

/// A regular file.
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
}

/// The files below a root at one time, by path.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// Sorted by path.
    pub entries: Vec<Entry>,
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
        found
    }

    fn add(&mut self, path: String, meta: &fs::Metadata) {
        if meta.is_file() {
            let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
            self.entries.push(Entry {
                path,
                dev: meta.dev(),
                ino: meta.ino(),
                size: meta.len(),
                mode: meta.mode(),
                times,
            });
        }
    }

    /// The file of that path.
    pub(super) fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.binary_search_by(|e| e.path.as_str().cmp(path)).ok().map(|i| &self.entries[i])
    }
}

/// A path inside a root as seen from outside.
pub(super) fn below(root: &Path, inside: &str) -> PathBuf {
    root.join(inside.trim_start_matches('/'))
}

/// What is new or changed in `after`, by path.
pub(super) fn diff(before: &Snapshot, after: &Snapshot) -> Vec<Write> {
    let old: HashMap<&str, &Entry> = before.entries.iter().map(|e| (e.path.as_str(), e)).collect();
    let changed = after.entries.iter().filter_map(|now| {
        let change = match old.get(now.path.as_str()) {
            None => "new",
            Some(was) if *was != now => "changed",
            Some(_) => return None,
        };
        Some(Write {
            path: now.path.clone(),
            size: now.size,
            mode: format!("{:04o}", now.mode & 0o7777),
            change: change.into(),
            class: class(&now.path).into(),
            at_ms: None,
            writer: None,
        })
    });
    changed.collect()
}

/// What a written file is for, as far as its path tells.
fn class(path: &str) -> &'static str {
    let has = |parts: &[&str]| parts.iter().any(|p| path.contains(p));
    let extension = Path::new(path).extension().and_then(|e| e.to_str()).unwrap_or_default();
    if extension == "pyc" || has(&["/__pycache__/"]) {
        "bytecode"
    } else if extension == "log" || path.starts_with("/var/log/") {
        "log"
    } else if has(&["/.cache/", "/cache/", "_cache/", "/.triton/", "/torchinductor_", "/.nv/", "/.config/"]) {
        "cache"
    } else if ["/tmp/", "/var/tmp/", "/run/", "/var/run/"].iter().any(|d| path.starts_with(d))
        || matches!(extension, "tmp" | "lock" | "pid")
    {
        "temporary"
    } else {
        "other"
    }
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
        let entry =
            |path: &str, size| Entry { path: path.into(), dev: 1, ino: 1, size, mode: 0o10_0644, times: [0; 4] };
        let before = Snapshot { entries: vec![entry("/a", 1), entry("/gone", 1), entry("/same", 1)], skipped: 0 };
        let touched = Entry { times: [0, 0, 0, 1], ..entry("/same2", 1) };
        let after = Snapshot {
            entries: vec![entry("/a", 2), entry("/n/__pycache__/x.cpython-312.pyc", 3), entry("/same", 1), touched],
            skipped: 0,
        };
        let writes: Vec<_> =
            diff(&before, &after).into_iter().map(|w| (w.path, w.size, w.mode, w.change, w.class)).collect();
        let w = |p: &str, s, c: &str, k: &str| (p.to_owned(), s, "0644".to_owned(), c.to_owned(), k.to_owned());
        assert_eq!(
            writes,
            [
                w("/a", 2, "changed", "other"),
                w("/n/__pycache__/x.cpython-312.pyc", 3, "new", "bytecode"),
                w("/same2", 1, "new", "other")
            ]
        );
    }

    #[test]
    fn written_files_are_classed_by_path() {
        for (path, want) in [
            ("/usr/lib/a.pyc", "bytecode"),
            ("/root/.cache/vllm/x", "cache"),
            ("/tmp/torchinductor_root/a.so", "cache"),
            ("/tmp/x", "temporary"),
            ("/var/log/a", "log"),
            ("/opt/x", "other"),
        ] {
            assert_eq!(class(path), want, "{path}");
        }
    }
}
