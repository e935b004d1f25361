//! The profile file, schema `esgz.profile/v1`: what a container read and wrote from its start to a ready condition, down to
//! byte ranges. Pure: who recorded it and what is done with it are not known here.
//!
//! Files are keyed by path and content, never by layer index or manifest digest, so that a profile survives a rebuild.
//! Times are milliseconds since the command was started.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

pub mod carried;
pub mod combine;
pub mod cover;
pub mod diff;
pub mod export;
mod file;
pub mod glob;
pub mod import;
mod merge;
mod names;
pub mod page;
pub mod ranges;
pub mod summary;
pub mod tree;
#[cfg(test)]
pub(crate) mod sample;
pub use file::{Error, MAX_BYTES, read, write};
pub use ranges::union;

/// The schema name that the file carries.
pub const SCHEMA: &str = "esgz.profile/v1";

/// A whole profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// What was recorded, where and how.
    pub header: Header,
    /// Files that were touched, in the order of their first touch.
    pub files: Vec<File>,
    /// What start-up wrote, by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<Write>,
}

/// What was recorded, where and how. Environment values are never recorded; arguments that look like secrets are redacted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Image reference, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Manifest digest, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<Digest>,
    /// Config digest, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_digest: Option<Digest>,
    /// `os/arch`.
    pub platform: String,
    /// The command and its arguments, redacted.
    pub command: Vec<String>,
    /// Kernel, GPU, driver, file system of the root: whatever explains the figures.
    #[serde(default)]
    pub host: BTreeMap<String, String>,
    /// Which recorder ran and what it is known to add.
    pub recorder: Recorder,
    /// Start, RFC 3339 UTC.
    pub started_at: String,
    /// What ended the recording.
    pub until: String,
    /// Named points in time, ms since the start, in order.
    #[serde(default)]
    pub phases: Vec<Phase>,
    /// Raw events seen.
    pub events: u64,
    /// Events the kernel dropped: above zero the profile is incomplete and says so.
    pub lost_events: u64,
    /// Events on files that start-up itself had written: left out of `files`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub own_writes: u64,
    /// Events of files that could not be mapped to a path, by device.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unmapped: BTreeMap<String, u64>,
    /// The recordings that a merged profile was made of; empty for a recording.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<Source>,
    /// What the recorder has to say about this run: what it left out, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The archive of what start-up wrote, if it was captured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Captured>,
}

/// An archive of what start-up wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Captured {
    /// Of the archive.
    pub digest: Digest,
    /// Files and links in it.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Files that were left out, by class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, u64>,
}

/// A recording that went into a merged profile.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Image reference, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Manifest digest, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<Digest>,
    /// The command and its arguments, redacted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Start, RFC 3339 UTC.
    pub started_at: String,
    /// Name of the recorder.
    pub recorder: String,
    /// Models of the host's GPUs, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Which recorder ran and what it is known to add.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Recorder {
    /// `filemap`, `page-cache`, `fanotify`, `seccomp` or `residency`: docs/profile.md has each one's contract.
    pub name: String,
    /// esgz version.
    pub version: String,
    /// In words: what it over-reports, and why.
    pub inflation: String,
    /// In words: what it cannot see.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub blind: String,
}

/// A named point in time, which begins the phase of that name. What is touched before the first one belongs to none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Name, such as `ready` or `first-chat`.
    pub name: String,
    /// Milliseconds since the start.
    pub at_ms: u64,
}

/// Where a file came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A file of the image.
    Image,
    /// A mounted volume.
    Volume,
    /// Injected by the runtime, such as a GPU driver's libraries.
    Driver,
}

/// How a file was touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Executed.
    Exec,
    /// Opened.
    Open,
    /// Read through a system call.
    Read,
    /// Read through a mapping.
    Mmap,
    /// Only its metadata was read.
    Stat,
}

/// A touched file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// Absolute path inside the container, cleaned (`/usr/bin/python3.11`). Bytes that are not UTF-8 cannot be carried; the
    /// recorder counts such files as unmapped.
    pub path: String,
    /// Other names of the same file (hard links), sorted: its bytes are counted once, under `path`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
    /// Where it came from.
    pub origin: Origin,
    /// Size in bytes.
    pub size: u64,
    /// Digest of its content, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// First touch, ms since the start.
    pub first_touch_ms: u64,
    /// How it was touched, sorted.
    pub kinds: Vec<Kind>,
    /// Touched ranges: ascending, disjoint, not adjacent, aligned outwards to 4 KiB and cut at the size.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Range>,
}

impl Origin {
    /// As the profile file spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Volume => "volume",
            Self::Driver => "driver",
        }
    }
}

impl Profile {
    /// How many phases have begun at a moment (ms since the start): 0 before the first.
    pub(crate) fn phases_begun(&self, at_ms: u64) -> usize {
        self.header.phases.partition_point(|p| p.at_ms <= at_ms)
    }

    /// The phase that a moment (ms since the start) belongs to, empty before the first.
    pub fn phase_at(&self, at_ms: u64) -> &str {
        self.header.phases[..self.phases_begun(at_ms)].last().map_or("", |p| p.name.as_str())
    }
}

impl File {
    /// Whether nothing but its metadata was read.
    pub fn is_looked_up_only(&self) -> bool {
        self.kinds == [Kind::Stat] && self.ranges.is_empty()
    }

    /// Bytes in the touched ranges.
    pub fn touched_bytes(&self) -> u64 {
        self.ranges.iter().map(|r| r.1).fold(0, u64::saturating_add)
    }
}

/// `[offset, length, first_touch_ms]`, bytes and milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range(pub u64, pub u64, pub u64);

/// A file that start-up wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Write {
    /// Absolute path inside the container.
    pub path: String,
    /// Size in bytes at the end of the recording.
    pub size: u64,
    /// Permission bits, octal.
    pub mode: String,
    /// `new` or `changed` (a file of the image that was modified).
    pub change: String,
    /// What it is for, as far as its path tells: `bytecode`, `compile-cache`, `model-metadata`, `weights`, `cache`, `log`, `secret`,
    /// `injected`, `temporary` or `other`.
    pub class: String,
    /// Last modification, ms since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<u64>,
    /// Name of the program that wrote it (`comm`), where the recorder can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<String>,
}
