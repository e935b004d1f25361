//! Files that appear when they are complete.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Error, ReadAt};
use crate::digest::Hasher;
use crate::image::Descriptor;

/// Piece in which content is hashed and written.
const PIECE: usize = 1 << 20;

/// An error of the file system, no space told apart. `needed`: bytes of what was being written.
pub(super) fn failed(source: io::Error, doing: &str, path: &Path, needed: u64) -> Error {
    if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return Error::Full { path: path.into(), needed, source };
    }
    Error::Io { what: format!("{doing} {}", path.display()), source }
}

/// Copies a blob's content into a file, which is called `path` in errors; an error if it is not what the descriptor says.
/// `what` names the blob.
pub(super) fn copy(
    content: &dyn ReadAt,
    blob: &Descriptor,
    mut out: impl Write,
    path: &Path,
    what: &str,
) -> Result<(), Error> {
    let corrupt = |expected: String, found: String| Error::Corrupt { what: what.into(), expected, found };
    if content.size() != blob.size {
        return Err(corrupt(format!("{} bytes", blob.size), format!("{} bytes", content.size())));
    }
    let mut hasher = Hasher::default();
    let mut buf = vec![0; usize::try_from(blob.size).unwrap_or(PIECE).min(PIECE)];
    let mut offset = 0;
    while offset < blob.size {
        let n = usize::try_from(blob.size - offset).unwrap_or(PIECE).min(PIECE);
        let piece = &mut buf[..n];
        content.read_exact_at(piece, offset).map_err(|e| Error::from_io(e, what))?;
        hasher.update(piece);
        out.write_all(piece).map_err(|e| failed(e, "writing", path, blob.size))?;
        offset += n as u64;
    }
    let found = hasher.finish();
    if found == blob.digest { Ok(()) } else { Err(corrupt(blob.digest.to_string(), found.to_string())) }
}

/// A dotted temporary file with the mode of a lasting one.
pub(super) fn temporary(dir: &Path) -> io::Result<tempfile::NamedTempFile> {
    // Blobs are for all to read, within the umask.
    let mode = fs::Permissions::from_mode(0o644);
    tempfile::Builder::new().prefix(".esgz-").permissions(mode).tempfile_in(dir)
}

/// A file without a name, with the mode of a lasting one; an error where the file system has none.
pub fn nameless(dir: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).mode(0o644).custom_flags(libc::O_TMPFILE).open(dir)
}

/// A file that gets its name when it is complete.
pub(super) enum Unnamed {
    /// Without a name, where the file system can do that: nothing is left of it after a kill.
    Nameless(File),
    Temporary(tempfile::NamedTempFile),
}

impl Unnamed {
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        match nameless(dir) {
            // A name is given through /proc.
            Ok(file) if fs::symlink_metadata(proc_path(&file)).is_ok() => Ok(Self::Nameless(file)),
            Err(e) if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::PermissionDenied) => Err(e),
            _ => temporary(dir).map(Self::Temporary),
        }
    }

    /// A file without a name, if it is on the file system of a folder.
    pub(super) fn of(file: &File, dir: &Path) -> Option<Self> {
        let there = file.metadata().ok()?.dev() == fs::metadata(dir).ok()?.dev();
        let file = file.try_clone().ok().filter(|_| there)?;
        fs::symlink_metadata(proc_path(&file)).ok()?;
        Some(Self::Nameless(file))
    }

    pub(super) fn file(&self) -> &File {
        match self {
            Self::Nameless(file) => file,
            Self::Temporary(file) => file.as_file(),
        }
    }

    /// Gives it its name; what has that name is replaced.
    pub(super) fn publish(self, path: &Path) -> io::Result<()> {
        use nix::fcntl::{AT_FDCWD, AtFlags};
        match self {
            Self::Nameless(file) => {
                let link = |to: &Path| {
                    let from = proc_path(&file);
                    nix::unistd::linkat(AT_FDCWD, &from, AT_FDCWD, to, AtFlags::AT_SYMLINK_FOLLOW)
                        .map_err(io::Error::from)
                };
                match link(path) {
                    // Another writer was first, or a blob of a wrong size is in the way: ours is checked, so it wins.
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                        // The descriptor's number is this file's alone in this process.
                        let name = format!(".esgz-{}-{}", std::process::id(), file.as_raw_fd());
                        let beside = path.with_file_name(name);
                        let _absent = fs::remove_file(&beside);
                        link(&beside)?;
                        fs::rename(&beside, path)
                    }
                    result => result,
                }
            }
            Self::Temporary(file) => file.persist(path).map(drop).map_err(io::Error::from),
        }
    }
}

fn proc_path(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}
