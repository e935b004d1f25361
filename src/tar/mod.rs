//! Tar entries with their raw header bytes: ustar, GNU long names and numbers, PAX records.
//!
//! A layer is copied header for header: what this module parses is only read, never written back, so whatever Rust's or
//! Go's tar libraries cannot carry survives. Formats: POSIX.1-2017 `pax`, GNU tar manual "Basic Tar Format".
//! Compression and OCI are not known here. Untrusted input: every size is bounded before it is allocated.

#[cfg(test)]
pub(crate) mod build;
mod merged;
mod numeric;
mod path;
mod pax;
mod reader;
mod write;

pub use merged::{At, Merged, survivors};
pub use path::{clean, parents};
pub use reader::Reader;
pub use write::{END, headers, padding, regular_header};

/// Tar works in blocks of this many bytes.
pub const BLOCK: usize = 512;

/// Whiteout names of the OCI image spec ("Whiteouts").
pub mod whiteout {
    /// Prefix of a file that hides its namesake in lower layers.
    pub const PREFIX: &str = ".wh.";
    /// Hides everything that lower layers have in its folder.
    pub const OPAQUE: &str = ".wh..wh..opq";

    /// What an entry of this cleaned path hides.
    pub enum Hides {
        /// One path with everything below it.
        Path(String),
        /// Everything in this folder.
        Below(String),
    }

    /// Whether a path is a whiteout, and of what.
    pub fn parse(path: &str) -> Option<Hides> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name == OPAQUE {
            return Some(Hides::Below(dir.into()));
        }
        let hidden = name.strip_prefix(PREFIX)?;
        Some(Hides::Path(if dir.is_empty() { hidden.into() } else { format!("{dir}/{hidden}") }))
    }
}

/// Type of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Folder.
    Dir,
    /// Regular file.
    File,
    /// Symbolic link.
    Symlink,
    /// Another name of an earlier file.
    Hardlink,
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
}

/// A point in time, as exact as the archive has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Seconds since 1970, rounded down.
    pub seconds: i64,
    /// Nanoseconds behind them.
    pub nanos: u32,
}

/// One entry. The payload is read from the [`Reader`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Every header block of the entry as it was read: PAX and GNU long-name blocks with their data, then its own.
    pub raw: Vec<u8>,
    /// Path without leading `/` or `./` and without trailing `/`; empty for the root.
    pub path: String,
    /// Type.
    pub kind: Kind,
    /// Payload bytes; 0 for everything but files.
    pub size: u64,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Owner's name, may be empty.
    pub uname: String,
    /// Group's name, may be empty.
    pub gname: String,
    /// Modification time.
    pub mtime: Time,
    /// Symlink: its text. Hard link: the cleaned path of its target.
    pub link: String,
    /// Device numbers, for devices.
    pub device: (u32, u32),
    /// Extended attributes (`SCHILY.xattr.` records) in the order of the archive.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

impl Entry {
    /// Of root, empty, without rights, a time and headers.
    pub fn bare(path: &str, kind: Kind) -> Self {
        Self {
            raw: Vec::new(),
            path: path.into(),
            kind,
            size: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            uname: String::new(),
            gname: String::new(),
            mtime: Time::default(),
            link: String::new(),
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }
}

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream underneath failed.
    #[error("reading the archive at byte {at}")]
    Read {
        /// Offset in the uncompressed archive.
        at: u64,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A header that is not one.
    #[error("tar header at byte {at}: {why}")]
    Header {
        /// Offset in the uncompressed archive.
        at: u64,
        /// Expected and found.
        why: String,
    },
    /// A legal entry that is not handled.
    #[error("tar entry {path:?} at byte {at}: {why}")]
    Unsupported {
        /// Its name.
        path: String,
        /// Offset in the uncompressed archive.
        at: u64,
        /// What it is.
        why: String,
    },
}
