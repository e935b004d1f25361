//! What recorders see that name files as `stat` does: by the device and inode that the container sees.

use std::collections::{BTreeMap, HashMap};

/// A file as `stat` names it: device and inode.
pub(super) type Key = (u64, u64);

/// All that such a recorder saw.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    /// Files that were opened, read, mapped or executed.
    pub files: HashMap<Key, Sighting>,
    /// Absolute cleaned paths that were only looked up or looked for, with the first time.
    pub lookups: BTreeMap<String, u64>,
    /// Name (`comm`) of the process that opened the file for writing.
    pub writers: HashMap<Key, String>,
    /// Events taken in.
    pub events: u64,
    /// Events that could not be made use of: above zero the recording is incomplete.
    pub lost: u64,
    /// What the user must know, in words.
    pub notes: Vec<String>,
}

/// One file.
#[derive(Debug, Default)]
pub(super) struct Sighting {
    /// How it was touched: bits of [`touch`](super::touch).
    pub kinds: u8,
    /// First time, `CLOCK_MONOTONIC` ns.
    pub first: u64,
    /// Size in bytes when last seen.
    pub size: u64,
    /// A path that it was seen under: a hint, it may have been renamed since.
    pub path: Option<String>,
    /// What was read: ascending, disjoint, not adjacent.
    pub runs: Vec<Run>,
}

/// Bytes that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// First byte.
    pub start: u64,
    /// Byte behind the last one.
    pub end: u64,
    /// First time, `CLOCK_MONOTONIC` ns.
    pub at: u64,
}
