//! Where the recorded program lives: its root as we reach it, the mounts below, and what of it is not to be looked at.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Error;
use super::mounts::Mounts;
use super::target::Target;
use super::walk::{Limits, Snapshot};

/// A root with its mounts.
#[derive(Debug)]
pub(super) struct Place {
    /// The root as seen from here.
    pub root: PathBuf,
    /// What is mounted.
    pub mounts: Mounts,
    /// Where not to walk.
    pub limits: Limits,
    /// What `root` leads through.
    held: Option<fs::File>,
}

impl Place {
    /// Our own root, or a folder that a command will take for its root.
    pub(super) fn here(root: Option<&Path>, own: &[&Target]) -> Result<Self, Error> {
        let root = root.unwrap_or(Path::new("/"));
        let root = fs::canonicalize(root).map_err(|source| Error::Path {
            what: "cannot use the root",
            path: root.to_owned(),
            source,
        })?;
        Self::new("/proc/self/mountinfo", &root.clone(), root, own)
    }

    /// The root of a running process.
    pub(super) fn of_process(pid: i32, own: &[&Target]) -> Result<Self, Error> {
        // The link leads into the process's own mount namespace, and is held open: it goes with the process. The table names mount
        // points as that one sees them.
        let link = PathBuf::from(format!("/proc/{pid}/root"));
        let refused = |source| Error::Path { what: "cannot look into", path: link.clone(), source };
        let held = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(&link);
        let held = held.map_err(refused)?;
        let root = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        let mut place = Self::new(&format!("/proc/{pid}/mountinfo"), Path::new("/"), root, own)?;
        // A process of our own container sees what we write under the paths that we do.
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        if namespace("self") == namespace(&pid.to_string()) {
            place.limits.own.extend(own.iter().flat_map(|t| t.inside(Path::new("/"))));
        }
        place.held = Some(held);
        Ok(place)
    }

    fn new(table: &str, seen: &Path, root: PathBuf, own: &[&Target]) -> Result<Self, Error> {
        let refused = |source| Error::System { what: "read the mount table", source };
        let text = fs::read_to_string(table).map_err(refused)?;
        let mounts = Mounts::parse(&text, seen).ok_or_else(|| refused(io::Error::other("it has no root")))?;
        let limits = Limits {
            mounts: mounts.points().map(ToOwned::to_owned).collect(),
            own: own.iter().flat_map(|t| t.inside(&root)).collect(),
        };
        Ok(Self { root, mounts, limits, held: None })
    }

    /// The files of the root file system as they are now.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.root, "/", &self.limits)
    }
}
