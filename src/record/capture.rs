//! Keeping what start-up wrote: a tar archive of the new and changed files and links, in the order of their paths and with owner,
//! mode and time as they are, so that the same content gives the same bytes. What must never be shipped is left out and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::class::{self, Class};
use super::walk::{Entry, below};
use crate::digest::HashingWriter;
use crate::profile::Captured;

/// A credential in a larger file would stand at its beginning.
const HEAD: u64 = 64 << 10;
/// What a hub client notes about a model is small; its weights are not, and have no telling name there.
const LARGEST_METADATA: u64 = 16 << 20;

/// Writes the archive of these entries, which are sorted by path. Gives what is in it and what is not.
pub(super) fn write<'a>(
    root: &Path,
    entries: impl IntoIterator<Item = (&'a Entry, Class)>,
    out: &mut dyn Write,
) -> io::Result<Captured> {
    let mut kept = BTreeMap::new();
    let mut left_out: BTreeMap<String, u64> = BTreeMap::new();
    for (entry, class) in entries {
        let class = judge(root, entry, class);
        if class.shipped {
            kept.insert(entry.path.as_str(), entry);
        } else {
            *left_out.entry(class.name.into()).or_default() += 1;
        }
    }
    let folders: BTreeSet<&str> = kept.keys().flat_map(|path| parents(path)).collect();
    let all: BTreeSet<&str> = folders.iter().copied().chain(kept.keys().copied()).collect();
    let mut archive = tar::Builder::new(HashingWriter::new(out));
    let mut bytes = 0;
    for path in all {
        let at = below(root, path);
        let doing = |e: io::Error| io::Error::new(e.kind(), format!("{path}: {e}"));
        let name = path.trim_start_matches('/');
        match kept.get(path) {
            None => {
                let mut header = header(&fs::symlink_metadata(&at).map_err(doing)?, tar::EntryType::Directory);
                archive.append_data(&mut header, format!("{name}/"), io::empty()).map_err(doing)?;
            }
            Some(entry) if entry.is_link() => {
                let mut header = header(&fs::symlink_metadata(&at).map_err(doing)?, tar::EntryType::Symlink);
                archive.append_link(&mut header, name, fs::read_link(&at).map_err(doing)?).map_err(doing)?;
            }
            Some(_) => {
                let file = open(&at).map_err(doing)?;
                let meta = file.metadata().map_err(doing)?;
                let mut header = header(&meta, tar::EntryType::Regular);
                header.set_size(meta.len());
                let mut payload = Whole { file: file.take(meta.len()), left: meta.len() };
                archive.append_data(&mut header, name, &mut payload).map_err(doing)?;
                bytes += meta.len();
            }
        }
    }
    let (_, digest, _) = archive.into_inner()?.finish();
    Ok(Captured { digest, files: kept.len() as u64, bytes, left_out })
}

/// The class of an entry, its size and content looked at, too.
fn judge(root: &Path, entry: &Entry, class: Class) -> Class {
    if class == class::METADATA && entry.size > LARGEST_METADATA {
        return class::WEIGHTS;
    }
    // Bytecode holds whatever its source in the image holds.
    if !class.shipped || entry.is_link() || class == class::BYTECODE {
        return class;
    }
    let mut head = Vec::new();
    match open(&below(root, &entry.path)).and_then(|f| f.take(HEAD).read_to_end(&mut head)) {
        Ok(_) if class::holds_secret(&head) => class::SECRET,
        Ok(_) => class,
        // Gone again, or not ours to read.
        Err(_) => class::TEMPORARY,
    }
}

/// Opens a file, not what a link that has taken its place leads to, and does not wait at a pipe.
fn open(path: &Path) -> io::Result<File> {
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("no longer a file")) }
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

/// The folders above an absolute path, without `/` itself.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(i, _)| &path[..i]).filter(|p| !p.is_empty())
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
        let entries = diff(before, &after).into_iter().map(|(e, _)| (e, class::of(&e.path)));
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
        put("srv/state", "{\"token\": \"hf_abcdefghijklmnopqrstuvwxyz\"}");
        std::os::unix::fs::symlink("old.py", dir.path().join("app/link")).expect("link");
        let (bytes, captured) = capture(dir.path(), &before);
        assert_eq!((captured.files, captured.bytes), (3, 8));
        let left: Vec<_> = captured.left_out.iter().map(|(k, n)| (k.as_str(), *n)).collect();
        assert_eq!(left, [("log", 1), ("secret", 2), ("temporary", 1)]);
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
