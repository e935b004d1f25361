//! Where the recorded program lives: its root as we reach it, the mounts below, and what of it is not to be looked at.

use std::fs;
use std::io;
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
        // The link leads into the process's own mount namespace; the table names mount points as that one sees them.
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        Self::new(&format!("/proc/{pid}/mountinfo"), Path::new("/"), root, own)
    }

    fn new(table: &str, seen: &Path, root: PathBuf, own: &[&Target]) -> Result<Self, Error> {
        let refused = |source| Error::System { what: "read the mount table", source };
        let text = fs::read_to_string(table).map_err(refused)?;
        let mounts = Mounts::parse(&text, seen).ok_or_else(|| refused(io::Error::other("it has no root")))?;
        let limits = Limits {
            mounts: mounts.points().map(ToOwned::to_owned).collect(),
            own: own.iter().flat_map(|t| t.inside(&root)).collect(),
        };
        Ok(Self { root, mounts, limits })
    }

    /// The files of the root file system as they are now.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.root, "/", &self.limits)
    }
}
