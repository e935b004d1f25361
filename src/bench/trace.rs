//! How good a read-ahead was, from a run of its own in which the recorder looked on: what the workload touched of the files that
//! lazy layers serve, against the list that the reader was given.
//!
//! Such a run is slower than others and counts nowhere else. Figures that rest on lost events, on a list of which nothing is
//! served lazily, or on a reader that could not be told from the workload are not given out: the reason is.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Arm;
use super::evidence::LAZY;
use super::option::ArmOption;
use crate::image::{Image, names, wrapped};
use crate::profile::cover::Cover;
use crate::profile::{self, File, carried};
use crate::record::{Cast, Onlooked, Onlooker, Seen};

/// What a traced run tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The recorder.
    pub recorder: String,
    /// Where the list comes from.
    pub list: String,
    /// Events on the lazy mounts, whoever's.
    pub events: u64,
    /// Events that the kernel dropped.
    pub lost_events: u64,
    /// Bytes on the list that no lazy layer serves in the version listed: the hot layer has the file, a mount covers it, it is
    /// another one or none. They are in no other figure.
    pub left_out_bytes: u64,
    /// Bytes of lazily served files that the reader asked for: the proof that it was told from the workload.
    pub reader_bytes: u64,
    /// Bytes of the workload's touches without a file, in whole pages; they count as missed.
    #[serde(default)]
    pub unmapped_bytes: u64,
    /// The list against what was touched.
    pub cover: Cover,
    /// Why nothing can be concluded from that; empty when something can.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<String>,
}

impl Trace {
    /// The list against what was touched, where that can be relied on.
    pub fn cover(&self) -> Option<&Cover> {
        self.withheld.is_empty().then_some(&self.cover)
    }
}

/// Where a reader has its list from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A profile.
    File(PathBuf),
    /// The manifest's annotation, as far as it has one.
    Annotation(Option<String>),
    /// The profile in the image itself.
    Embedded,
}

impl Source {
    /// Of an arm that reads ahead of lazy layers; nothing for others.
    pub(super) fn of(arm: &Arm, image: &Image) -> Option<Self> {
        if arm.snapshotter != LAZY {
            return None;
        }
        if let Some(profile) = arm.injected() {
            return Some(Self::File(profile.into()));
        }
        if arm.has(&ArmOption::Node) {
            return Some(Self::Annotation(image.manifest.annotation(names::WARM).map(Into::into)));
        }
        wrapped::unwrap(&image.manifest.raw, &mut image.config.raw.clone()).then_some(Self::Embedded)
    }

    fn words(&self) -> String {
        match self {
            Self::File(path) => format!("profile {}", path.display()),
            Self::Annotation(_) => format!("annotation {}", names::WARM),
            Self::Embedded => format!("{}/{} of the image", wrapped::FOLDER, wrapped::PROFILE),
        }
    }

    /// The files on the list. `root` is that of the container.
    fn files(&self, root: &Path) -> Result<Vec<File>, String> {
        let open = |path: &Path| {
            let mut bytes = Vec::new();
            let read = fs::File::open(path).and_then(|f| f.take(profile::MAX_BYTES + 1).read_to_end(&mut bytes));
            read.map_err(|e| e.to_string())?;
            profile::read(&bytes).map_err(|e| e.to_string())
        };
        let profile = match self {
            Self::File(path) => open(path),
            Self::Annotation(Some(packed)) => carried::unpack(packed).map_err(|e| e.to_string()),
            Self::Annotation(None) => Err("the manifest has none".into()),
            Self::Embedded => open(&root.join(wrapped::FOLDER.trim_start_matches('/')).join(wrapped::PROFILE)),
        };
        let mut files = profile.map_err(|e| format!("{}: {e}", self.words()))?.files;
        files.retain(|f| !f.ranges.is_empty());
        Ok(files)
    }
}

/// A container that ran while the recorder looked on, still alive.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    pub(super) source: Source,
    /// Where the lazy layers are mounted.
    pub(super) mounts: Vec<PathBuf>,
    /// First process of the container.
    pub(super) container: u32,
    /// The reader on the node.
    pub(super) reader: Option<u32>,
    /// What the reader says that it has read, where it says anything.
    pub(super) reader_said: Option<u64>,
}

impl Stage {
    /// Sorts out what was seen. Walks all mounts, which takes a while.
    pub(super) fn conclude(&self, onlooked: Onlooked) -> Trace {
        let root = PathBuf::from(format!("/proc/{}/root", self.container));
        let list = self.source.files(&root).map(|files| served(files, &root, &self.mounts));
        let cast = Cast { container: self.container, reader: self.reader, program: wrapped::PROGRAM };
        weigh(self.source.words(), list, onlooked.sort_out(&self.mounts, cast), self.reader_said)
    }
}

/// A file as `lstat` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    dev: u64,
    ino: u64,
    size: u64,
}

fn facts(root: &Path, path: &str) -> Option<Facts> {
    let meta = fs::symlink_metadata(root.join(path.trim_start_matches('/'))).ok()?;
    meta.is_file().then(|| Facts { dev: meta.dev(), ino: meta.ino(), size: meta.len() })
}

/// The files of a list that lazy layers serve to the container in the version listed, and the bytes of the others.
fn served(list: Vec<File>, root: &Path, mounts: &[PathBuf]) -> (Vec<File>, u64) {
    let Ok(top) = fs::metadata(root) else {
        return (Vec::new(), list.iter().map(File::touched_bytes).fold(0, u64::saturating_add));
    };
    let (lazy, others): (Vec<File>, Vec<File>) = list.into_iter().partition(|f| {
        facts(root, &f.path).is_some_and(|shown| {
            shown.size == f.size && is_lazy(top.dev(), shown, mounts.iter().filter_map(|m| facts(m, &f.path)))
        })
    });
    (lazy, others.iter().map(File::touched_bytes).fold(0, u64::saturating_add))
}

/// Whether what an overlay shows is one of these files of lazy mounts. Files on the disk of its writable layer, so those of the hot
/// layer too, it shows with its own device; others with one for each file system below, and with the inode that they have there.
fn is_lazy(overlay: u64, shown: Facts, mut lazy: impl Iterator<Item = Facts>) -> bool {
    shown.dev != overlay && lazy.any(|below| (below.ino, below.size) == (shown.ino, shown.size))
}

fn weigh(words: String, list: Result<(Vec<File>, u64), String>, seen: Seen, reader_said: Option<u64>) -> Trace {
    let mut withheld = Vec::new();
    let (list, left_out_bytes) = list.unwrap_or_else(|why| {
        withheld.push(why);
        (Vec::new(), 0)
    });
    let reader_bytes = seen.reader.iter().map(File::touched_bytes).fold(0, u64::saturating_add);
    let mut cover = Cover::of(list, seen.workload);
    cover.add_unnamed(seen.unmapped_bytes);
    if seen.lost > 0 {
        withheld.push(format!("{} events were lost", seen.lost));
    }
    if withheld.is_empty() && cover.listed_bytes == 0 {
        withheld.push("nothing on the list is served lazily".into());
    }
    if cover.touched_bytes == 0 {
        withheld.push("no touch of a lazily served file was seen".into());
    }
    if reader_bytes == 0 && reader_said != Some(0) {
        withheld.push("no read of the reader was seen, so that it cannot be told from the workload".into());
    }
    Trace {
        recorder: Onlooker::RECORDER.into(),
        list: words,
        events: seen.events,
        lost_events: seen.lost,
        left_out_bytes,
        reader_bytes,
        unmapped_bytes: seen.unmapped_bytes,
        cover,
        withheld,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test is what it is for")]
#[path = "trace_tests.rs"]
mod tests;
