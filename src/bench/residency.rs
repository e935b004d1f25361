//! Whether the page cache was really dropped, seen on the files that a start from disk would profit from: the largest ones that the
//! image has on this machine. `/proc/meminfo` alone could hide one image in what the rest of the machine uses.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use super::evidence::LAZY;
use super::stack::Env;
use crate::record;

/// Files looked at.
const HANDFUL: usize = 8;

/// What was seen of known files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Residency {
    /// Files looked at.
    pub files: usize,
    /// Bytes in them.
    pub bytes: u64,
    /// Bytes of them in the page cache, in whole pages.
    pub resident: u64,
}

/// Where a snapshotter has the files of images on this machine's own disk: for a lazy one that is what it fetched so far.
pub(super) fn root(env: &Env, snapshotter: &str) -> PathBuf {
    if snapshotter == LAZY {
        env.stargz_root.clone()
    } else {
        env.containerd_root.join("io.containerd.snapshotter.v1.overlayfs/snapshots")
    }
}

/// The largest files below a folder, mounts left out. To be called before the cache is dropped: it looks at every file's inode.
pub(super) fn largest(root: &Path) -> io::Result<Vec<PathBuf>> {
    let device = fs::metadata(root)?.dev();
    let mut folders = vec![root.to_owned()];
    let mut largest = BinaryHeap::new();
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            // What a container left behind is removed by the runtime in its own time, maybe now.
            Err(e) if e.kind() == io::ErrorKind::NotFound && folder != root => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = match entry {
                Err(e) if e.kind() == io::ErrorKind::NotFound && folder != root => break,
                entry => entry?,
            };
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != device {
                continue;
            }
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() && metadata.len() > 0 {
                largest.push(Reverse((metadata.len(), entry.path())));
                if largest.len() > HANDFUL {
                    largest.pop();
                }
            }
        }
    }
    Ok(largest.into_sorted_vec().into_iter().map(|Reverse((_, path))| path).collect())
}

/// What lies of these files in the page cache. An error where the kernel does not tell.
pub(super) fn look(files: &[PathBuf]) -> Result<Residency, Error> {
    let mut seen = Residency::default();
    for file in files {
        let (bytes, resident) = record::in_memory(file)
            .and_then(|told| told.ok_or_else(|| io::Error::other("the kernel does not tell this user")))
            .map_err(Error::io(format!("looking for {} in the page cache", file.display())))?;
        seen.files += 1;
        seen.bytes += bytes;
        seen.resident += resident;
    }
    Ok(seen)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test is what it is for")]
mod tests {
    use super::*;

    #[test]
    fn the_largest_files_are_found_and_their_pages_counted() {
        // Not in `/tmp`, which may be a tmpfs: its files are always in memory.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("1/fs/usr")).unwrap();
        for (i, name) in ["a", "b", "c", "d", "1/fs/e", "1/fs/usr/f", "1/fs/usr/g", "h", "i", "j"].iter().enumerate() {
            fs::write(at(name), vec![1; (i + 1) * 100_000]).unwrap();
        }
        fs::write(at("empty"), "").unwrap();
        std::os::unix::fs::symlink("j", at("link")).unwrap();
        let files = largest(dir.path()).unwrap();
        let names: Vec<_> = files.iter().map(|f| f.strip_prefix(dir.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["j", "i", "h", "1/fs/usr/g", "1/fs/usr/f", "1/fs/e", "d", "c"]);
        let seen = look(&files).unwrap();
        assert_eq!((seen.files, seen.bytes), (8, 5_200_000));
        assert!(seen.resident >= seen.bytes, "{seen:?}: just written");
        for file in &files {
            let file = fs::File::open(file).unwrap();
            file.sync_all().unwrap();
            nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        }
        assert_eq!(look(&files).unwrap().resident, 0);
        assert!(largest(Path::new("/no/such")).is_err());
    }
}
