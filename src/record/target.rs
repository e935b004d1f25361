//! A file that will be written at the end: made sure of before the start, whole or not there afterwards.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::Error;

/// The file to come.
#[derive(Debug)]
pub(super) struct Target {
    what: &'static str,
    path: PathBuf,
    temp: NamedTempFile,
}

impl Target {
    /// Makes sure that it can be written. `what` names it in an error, as `cannot write the profile`.
    pub(super) fn new(what: &'static str, output: &Path) -> Result<Self, Error> {
        let refused = |source| Error::Path { what, path: output.to_owned(), source };
        let name = output.file_name().ok_or_else(|| refused(io::Error::other("no file name")))?;
        let dir = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let dir = fs::canonicalize(dir).map_err(refused)?;
        let path = dir.join(name);
        if path.is_dir() {
            return Err(refused(io::ErrorKind::IsADirectory.into()));
        }
        let temp = NamedTempFile::new_in(&dir).map_err(refused)?;
        Ok(Self { what, path, temp })
    }

    /// Where it will be.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its paths as seen from a root, to be left out of the walks.
    pub(super) fn inside(&self, root: &Path) -> Vec<String> {
        let mut socket = self.path.as_os_str().to_owned();
        socket.push(".sock");
        let of = |p: &Path| p.strip_prefix(root).ok().map(|p| format!("/{}", p.display()));
        [of(&self.path), of(self.temp.path()), of(Path::new(&socket))].into_iter().flatten().collect()
    }

    /// Writes it.
    pub(super) fn write(self, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
        let Self { what, path, mut temp } = self;
        let written = fill(&mut temp).and_then(|()| {
            temp.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
            temp.as_file().sync_all()?;
            temp.persist(&path).map_err(|e| e.error).map(drop)
        });
        written.map_err(|source| Error::Path { what, path, source })
    }
}
