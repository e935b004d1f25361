//! Keeping what start-up wrote: a tar archive of the new and changed files and links, in the order of their paths and with owner,
//! mode and time as they are, so that the same content gives the same bytes. What must never be shipped is left out and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::class::{self, Class};
use super::walk::{self, Entry, below};
use crate::digest::HashingWriter;
use crate::profile::Captured;
use crate::tar::parents;

/// Files up to this size are read before anything of them is written.
const WHOLE: u64 = 64 << 20;

/// Writes the archive of these entries, which are sorted by path. Gives what is in it and what is not. What has vanished since the
/// walk is left out and counted.
pub(super) fn write<'a>(
    root: &Path,
    entries: impl IntoIterator<Item = (&'a Entry, Class)>,
    out: &mut dyn Write,
) -> io::Result<Captured> {
    let mut kept = BTreeMap::new();
    let mut left_out: BTreeMap<String, u64> = BTreeMap::new();
    for (entry, class) in entries {
        let class = class.of_size(entry.size);
        if class.shipped {
            kept.insert(entry.path.as_str(), (entry, class));
        } else {
            *left_out.entry(class.name.into()).or_default() += 1;
        }
    }
    let tar = tar::Builder::new(HashingWriter::new(out));
    let mut archive = Archive { root, tar, folders: BTreeSet::new(), files: 0, bytes: 0 };
    for (path, (entry, class)) in kept {
        match if entry.is_link() { archive.link(path) } else { archive.file(path, class) } {
            Ok(()) => {}
            Err(Why::Left(class)) => *left_out.entry(class.into()).or_default() += 1,
            Err(Why::Failed(e)) => return Err(io::Error::new(e.kind(), format!("{path}: {e}"))),
        }
    }
    let Archive { tar, files, bytes, .. } = archive;
    let (_, digest, _) = tar.into_inner()?.finish();
    Ok(Captured { digest, files, bytes, left_out })
}

/// Why an entry is not in the archive.
enum Why {
    /// It is left out, as of this class.
    Left(&'static str),
    /// The archive cannot be written.
    Failed(io::Error),
}

/// Nothing of it has been written: it has gone, or is no longer what it was.
fn vanished(_: impl Into<io::Error>) -> Why {
    Why::Left("vanished")
}

struct Archive<'r, 'o> {
    root: &'r Path,
    tar: tar::Builder<HashingWriter<&'o mut dyn Write>>,
    /// Written already.
    folders: BTreeSet<String>,
    files: u64,
    bytes: u64,
}

impl Archive<'_, '_> {
    /// Writes the folders above a path that are not there yet: those of a file that is kept, and no others.
    fn folders(&mut self, path: &str) -> Result<(), Why> {
        for above in
            parents(path).filter(|above| !above.is_empty() && !self.folders.contains(*above)).collect::<Vec<_>>()
        {
            let meta = fs::symlink_metadata(below(self.root, above)).map_err(vanished)?;
            let mut header = header(&meta, tar::EntryType::Directory);
            let name = format!("{}/", above.trim_start_matches('/'));
            self.tar.append_data(&mut header, name, io::empty()).map_err(Why::Failed)?;
            self.folders.insert(above.to_owned());
        }
        Ok(())
    }

    fn link(&mut self, path: &str) -> Result<(), Why> {
        let at = below(self.root, path);
        let meta = fs::symlink_metadata(&at).map_err(vanished)?;
        let to = fs::read_link(&at).map_err(vanished)?;
        self.folders(path)?;
        let mut header = header(&meta, tar::EntryType::Symlink);
        self.tar.append_link(&mut header, path.trim_start_matches('/'), to).map_err(Why::Failed)?;
        self.files += 1;
        Ok(())
    }

    fn file(&mut self, path: &str, class: Class) -> Result<(), Why> {
        let mut file = walk::open(self.root, path).map_err(vanished)?;
        let meta = file.metadata().map_err(vanished)?;
        let mut content = Vec::new();
        Read::by_ref(&mut file).take(meta.len().min(WHOLE)).read_to_end(&mut content).map_err(vanished)?;
        if content.len() as u64 != meta.len().min(WHOLE) {
            return Err(Why::Left("vanished"));
        }
        if !class.trusted && class::holds_secret(&content[..content.len().min(class::HEAD)]) {
            return Err(Why::Left(class::SECRET.name));
        }
        self.folders(path)?;
        let mut header = header(&meta, tar::EntryType::Regular);
        header.set_size(meta.len());
        let rest = meta.len() - content.len() as u64;
        let mut payload = content.chain(Whole { file: file.take(rest), left: rest });
        self.tar.append_data(&mut header, path.trim_start_matches('/'), &mut payload).map_err(Why::Failed)?;
        self.files += 1;
        self.bytes += meta.len();
        Ok(())
    }
}

fn header(meta: &fs::Metadata, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(meta.mode() & 0o7777);
    header.set_uid(meta.uid().into());
    header.set_gid(meta.gid().into());
    header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
    header.set_size(0);
    header
}

/// A payload that fails when it ends early: the header has promised its size.
struct Whole {
    file: io::Take<File>,
    left: u64,
}

impl Read for Whole {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buf)?;
        if n == 0 && self.left > 0 && !buf.is_empty() {
            return Err(io::Error::other("it became shorter while it was captured"));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

/// Why a start can have written no bytecode, if there is a reason.
pub(super) fn why_nothing(root: &Path) -> Option<&'static str> {
    let read_only =
        nix::sys::statvfs::statvfs(root).is_ok_and(|s| s.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
    if read_only {
        Some("the root file system is read-only")
    } else if std::env::var_os("PYTHONDONTWRITEBYTECODE").is_some_and(|v| !v.is_empty()) {
        Some("PYTHONDONTWRITEBYTECODE is set")
    } else if !nix::unistd::geteuid().is_root() {
        Some("the command does not run as root, so it cannot write where the image's files are")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::walk::{Limits, Snapshot, diff, new_links};
    use super::*;

    fn capture(root: &Path, before: &Snapshot) -> (Vec<u8>, Captured) {
        let after = Snapshot::take(root, "/", &Limits::default());
        let mut out = Vec::new();
        let entries =
            diff(before, &after).into_iter().map(|(e, _)| (e, Class { trusted: false, ..class::of(&e.path) }));
        let links = new_links(before, &after).into_iter().map(|e| (e, class::of(&e.path)));
        let captured = write(root, entries.chain(links), &mut out).expect("written");
        (out, captured)
    }

    #[test]
    fn what_is_new_is_kept_and_what_must_stay_is_not() {
        let dir = tempfile::tempdir().expect("folder");
        let put = |p: &str, content: &str| {
            let p = dir.path().join(p);
            fs::create_dir_all(p.parent().expect("parent")).expect("folder");
            fs::write(p, content).expect("file");
        };
        put("app/old.py", "1");
        let before = Snapshot::take(dir.path(), "/", &Limits::default());
        put("app/__pycache__/old.cpython-312.pyc", "code");
        put(&format!("app/{}/deep", "long-name-".repeat(12)), "deep");
        put("tmp/x", "x");
        put("var/log/a.log", "x");
        put("root/.netrc", "x");
        put("srv/__pycache__/settings.cpython-312.pyc", "x hf_abcdefghijklmnopqrstuvwxyz0123456789");
        put("srv/state", "{\"token\": \"hf_abcdefghijklmnopqrstuvwxyz0123456789\"}");
        std::os::unix::fs::symlink("old.py", dir.path().join("app/link")).expect("link");
        let (bytes, captured) = capture(dir.path(), &before);
        assert_eq!((captured.files, captured.bytes), (3, 8));
        let left: Vec<_> = captured.left_out.iter().map(|(k, n)| (k.as_str(), *n)).collect();
        assert_eq!(left, [("log", 1), ("secret", 3), ("temporary", 1)]);
        assert_eq!(captured.digest, crate::digest::Digest::of(&bytes));
        let mut reader = crate::tar::Reader::new(&bytes[..]);
        let mut names = Vec::new();
        while let Some(e) = reader.next().expect("a valid archive") {
            names.push(e.path);
        }
        let deep = format!("app/{}", "long-name-".repeat(12));
        let want = ["app", "app/__pycache__", "app/__pycache__/old.cpython-312.pyc", "app/link"];
        assert_eq!(
            names,
            want.map(String::from).into_iter().chain([deep.clone(), format!("{deep}/deep")]).collect::<Vec<_>>()
        );
        assert_eq!(capture(dir.path(), &before).0, bytes, "the same bytes again");
    }

    #[test]
    fn a_file_that_shrinks_is_an_error_not_a_damaged_archive() {
        let file = tempfile::tempfile().expect("file");
        let mut short = Whole { file: file.take(10), left: 10 };
        assert!(io::copy(&mut short, &mut io::sink()).is_err());
    }
}
