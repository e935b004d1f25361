//! Where the files of a list are looked for: the root of the container, or on a node the mounts of its layers, topmost first.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Folders, the first that has a file gives it.
#[derive(Debug)]
pub(super) struct Roots(Vec<(PathBuf, File)>);

impl Roots {
    /// Opens the folders.
    pub(super) fn open_all<'a>(folders: impl IntoIterator<Item = &'a Path>) -> io::Result<Self> {
        let open = |path: &Path| {
            use std::os::unix::fs::OpenOptionsExt;
            let mut how = std::fs::OpenOptions::new();
            let dir = how.read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path)?;
            Ok((path.to_owned(), dir))
        };
        folders.into_iter().map(open).collect::<io::Result<_>>().map(Self)
    }

    /// Whether one of them has the file, of this size.
    pub(super) fn has(&self, path: &str, size: u64) -> bool {
        self.open(path).and_then(|f| f.metadata()).is_ok_and(|m| m.is_file() && m.len() == size)
    }

    /// Opens a file. Links are not followed: a profile has real paths, and a link of an image must not lead out of it.
    pub(super) fn open(&self, path: &str) -> io::Result<File> {
        let inside = path.trim_start_matches('/');
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for (root, dir) in &self.0 {
            // A FIFO in its place must not hold us.
            let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
            let how =
                OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
            match openat2(dir.as_fd(), inside, how) {
                Ok(file) => return Ok(file.into()),
                // Sandboxes without the call; our own root needs no guard.
                Err(Errno::ENOSYS | Errno::EPERM) if root == Path::new("/") => {
                    use std::os::unix::fs::OpenOptionsExt;
                    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY;
                    return std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
                }
                // Another layer may have what this one has not.
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(e) => last = e.into(),
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_first_folder_that_has_a_file_gives_it_and_links_lead_nowhere() {
        let (a, b) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        fs::create_dir_all(a.path().join("d")).expect("made");
        fs::create_dir_all(b.path().join("d")).expect("made");
        fs::write(a.path().join("d/both"), "a").expect("written");
        fs::write(b.path().join("d/both"), "b").expect("written");
        fs::write(b.path().join("d/lower"), "b").expect("written");
        std::os::unix::fs::symlink("/etc/passwd", a.path().join("d/link")).expect("linked");
        nix::unistd::mkfifo(&a.path().join("d/fifo"), nix::sys::stat::Mode::S_IRUSR).expect("made");
        let roots = Roots::open_all([a.path(), b.path()]).expect("opened");
        let read = |path: &str| roots.open(path).map(|f| io::read_to_string(f).unwrap_or_default());
        assert_eq!(read("/d/both").ok().as_deref(), Some("a"));
        assert_eq!(read("/d/lower").ok().as_deref(), Some("b"));
        assert!(roots.open("/d/fifo").is_ok_and(|f| f.metadata().is_ok_and(|m| !m.is_file())), "it does not block");
        assert_eq!(roots.open("/d/none").map_err(|e| e.kind()).err(), Some(io::ErrorKind::NotFound));
        for bad in ["/d/link", "/../etc/passwd"] {
            assert!(roots.open(bad).is_err(), "{bad}");
        }
    }
}
