//! From folded touches to the entries of a profile: names, ranges cut at the file's size, what start-up itself had written left out,
//! content digests.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::mounts::{Mounts, device_name};
use super::table::{Table, kernel_device};
use super::touch::{CACHED, EXEC, MMAP, OPEN, READ, Touch};
use super::walk::{self, Limits, below};
use crate::digest::{Digest, HashingReader};
use crate::profile::{File, Kind, Origin, Range, union};

/// The measured part of a profile.
#[derive(Debug, Default)]
pub(super) struct Assembled {
    /// In the order of first touch.
    pub files: Vec<File>,
    /// Events without a path, by device.
    pub unmapped: BTreeMap<String, u64>,
    /// Events on files that start-up itself had written.
    pub own_writes: u64,
}

/// The clock and unit of the touches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// When the command was let go, on the records' clock.
    pub start: u64,
    /// Bytes in a page.
    pub page: u64,
}

/// Names the touches, looking into mounts only where an event asks for it.
pub(super) fn assemble(
    touches: &[Touch],
    table: &mut Table,
    own: &HashSet<(u32, u64)>,
    (root, mounts, limits): (&Path, &Mounts, &Limits),
    scale: Scale,
) -> Assembled {
    let unknown = |t: &&Touch| table.find(t.dev, t.ino).is_none() && !own.contains(&(t.dev, t.ino));
    let devices: BTreeSet<u32> = touches.iter().filter(unknown).map(|t| t.dev).collect();
    for dev in devices {
        table.add_mounts(root, mounts, dev, limits);
    }
    let ourselves = fs::metadata("/proc/self/exe").ok().map(|m| (m.dev(), m.ino()));
    let mut out = Assembled::default();
    let mut timed: Vec<(u64, File)> = Vec::new();
    for group in touches.chunk_by(|a, b| (a.dev, a.ino) == (b.dev, b.ino)) {
        let (dev, ino) = (group[0].dev, group[0].ino);
        let events: u64 = group.iter().map(|t| u64::from(t.events)).sum();
        // Between fork and exec the command is still this program.
        if ourselves.is_some_and(|me| is_same(me, dev, ino, table.find(dev, ino).map(|n| below(root, &n.path)))) {
            continue;
        }
        let Some(named) = table.find(dev, ino) else {
            if own.contains(&(dev, ino)) {
                out.own_writes += events;
            } else {
                *out.unmapped.entry(device_name(dev)).or_default() += events;
            }
            continue;
        };
        let first = group.iter().map(|t| t.at).min().unwrap_or(scale.start);
        let kinds = group.iter().fold(0, |k, t| k | t.kinds);
        let file = File {
            path: named.path.clone(),
            links: named.links.clone(),
            origin: named.origin,
            size: named.size,
            digest: None,
            first_touch_ms: scale.ms(first),
            kinds: kinds_of(kinds),
            ranges: group.iter().filter_map(|t| scale.range(t, named.size)).collect(),
        };
        timed.push((first, file));
    }
    // A copied-up file may have been touched under two inodes.
    timed.sort_by(|a, b| a.1.path.cmp(&b.1.path).then(a.0.cmp(&b.0)));
    timed.dedup_by(|later, first| {
        let same = later.1.path == first.1.path;
        if same {
            join(&mut first.1, &later.1);
        }
        same
    });
    timed.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.path.cmp(&b.1.path)));
    out.files = timed.into_iter().map(|(_, f)| f).collect();
    out
}

/// The kinds that the bits of a touch stand for, sorted.
pub(super) fn kinds_of(bits: u8) -> Vec<Kind> {
    let all = [(EXEC, Kind::Exec), (OPEN | CACHED, Kind::Open), (READ, Kind::Read), (MMAP, Kind::Mmap)];
    all.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, k)| *k).collect()
}

/// Whether an event's file is the one that `stat` calls `(st_dev, st_ino)`; an overlay needs its path for that.
fn is_same((st_dev, st_ino): (u64, u64), dev: u32, ino: u64, path: Option<PathBuf>) -> bool {
    let there = path.and_then(|p| fs::metadata(p).ok()).map(|m| (m.dev(), m.ino()));
    st_ino == ino && (there == Some((st_dev, st_ino)) || kernel_device(st_dev) == dev)
}

impl Scale {
    /// Milliseconds since the start.
    pub(super) fn ms(self, at: u64) -> u64 {
        at.saturating_sub(self.start) / 1_000_000
    }

    /// The bytes of a run of pages, nothing when they lie behind the file's end.
    pub(super) fn range(self, t: &Touch, size: u64) -> Option<Range> {
        let start = t.start.saturating_mul(self.page);
        let end = t.end.saturating_mul(self.page).min(size);
        (start < end).then(|| Range(start, end - start, self.ms(t.at)))
    }
}

/// Adds what is known of the same file from elsewhere.
fn join(into: &mut File, other: &File) {
    into.kinds.extend(&other.kinds);
    into.kinds.sort_unstable();
    into.kinds.dedup();
    into.ranges = union(into.ranges.iter().chain(&other.ranges).copied().collect());
}

/// Puts content digests to the image's files of at most `limit` bytes that the run has left as they were.
pub(super) fn digest(files: &mut [File], root: &Path, changed: &HashSet<&str>, limit: u64) {
    for f in
        files.iter_mut().filter(|f| f.origin == Origin::Image && f.size <= limit && !changed.contains(f.path.as_str()))
    {
        f.digest = hash(root, &f.path, f.size).ok();
    }
}

fn hash(root: &Path, path: &str, size: u64) -> io::Result<Digest> {
    let mut reader = HashingReader::new(walk::open(root, path)?.take(size.saturating_add(1)));
    io::copy(&mut reader, &mut io::sink())?;
    let (digest, count) = reader.finish();
    if count == size { Ok(digest) } else { Err(io::Error::other("size changed")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALE: Scale = Scale { start: 5_000_000, page: 4096 };

    fn touch(start: u64, end: u64, at: u64) -> Touch {
        Touch { dev: 1, kinds: READ, events: 1, ino: 1, start, end, at }
    }

    #[test]
    fn ranges_are_cut_at_the_size_and_times_count_from_the_start() {
        assert_eq!(SCALE.range(&touch(1, 3, 9_000_000), 10_000), Some(Range(4096, 5904, 4)));
        assert_eq!(SCALE.range(&touch(3, 4, 9_000_000), 10_000), None);
        assert_eq!(SCALE.range(&touch(0, u64::MAX, 0), 1), Some(Range(0, 1, 0)));
    }

    #[test]
    fn two_inodes_of_one_path_become_one_file() {
        let file = |ranges: &[Range], kind| File {
            path: "/a".into(),
            links: vec![],
            origin: Origin::Image,
            size: 99_999,
            digest: None,
            first_touch_ms: 1,
            kinds: vec![kind],
            ranges: ranges.to_vec(),
        };
        let mut a = file(&[Range(0, 4096, 3), Range(12288, 4096, 3)], Kind::Mmap);
        join(&mut a, &file(&[Range(4096, 4096, 2), Range(40960, 4096, 9)], Kind::Read));
        assert_eq!(a.ranges, [Range(0, 8192, 2), Range(12288, 4096, 3), Range(40960, 4096, 9)]);
        assert_eq!(a.kinds, [Kind::Read, Kind::Mmap]);
    }
}
