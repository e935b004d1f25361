//! The start-up layer: what a container would write again on every fresh start, given as a tar archive, goes into the hot
//! layer behind its copies. So far that is Python bytecode; whatever else the archive holds is left out and counted.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Error, LayerError, Options};
use crate::digest::{Digest, Hasher, HashingReader};
use crate::plan::LayerIndex;
use crate::python::{self, source_of};
use crate::tar::{self, At, Entry, Kind, Merged, padding, parents};

/// Where files of a container come from elsewhere or do not last.
const NEVER: [&str; 7] = ["proc", "sys", "dev", "run", "tmp", "var/run", "var/tmp"];

/// An archive of captured files, read once; payloads are read again when they are written.
pub(super) struct Startup {
    path: PathBuf,
    file: File,
    /// Of the whole archive.
    pub(super) digest: Digest,
    /// By path; of several entries the last.
    captured: BTreeMap<String, Captured>,
}

struct Captured {
    entry: Entry,
    /// Where the payload begins.
    at: u64,
    digest: Option<Digest>,
    /// What the payload begins with.
    head: Vec<u8>,
}

/// What became of the files of a start-up layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Shipped {
    /// Files in the hot layer.
    pub files: usize,
    /// Bytes in them.
    pub bytes: u64,
    /// Bytecode whose source the image has not, or not with the time and size that it was compiled from.
    pub stale: usize,
    /// Files whose path the image has already, or cannot have.
    pub taken: usize,
    /// No bytecode, or in a place that does not last.
    pub other: usize,
}

/// Entries of the hot layer that come from a start-up layer, in their order.
pub(super) struct Additions<'a> {
    startup: &'a Startup,
    captured: Vec<&'a Captured>,
    /// Folders of the image that they lie in.
    pub(super) folders: Vec<At>,
    pub(super) shipped: Shipped,
}

impl Startup {
    /// The one that the options name, if any.
    pub(super) fn of(options: &Options) -> Result<Option<Self>, Error> {
        options.startup.as_ref().map(|path| Self::open(path).map_err(|e| failed(path, e))).transpose()
    }

    fn open(path: &Path) -> Result<Self, LayerError> {
        let io = |source| LayerError::Io { doing: "reading it".into(), source };
        let file = File::open(path).map_err(io)?;
        let mut archive = tar::Reader::new(HashingReader::new(BufReader::with_capacity(1 << 20, &file)));
        let mut captured = BTreeMap::new();
        while let Some(entry) = archive.next()? {
            let at = archive.position();
            let (mut digest, mut head) = (None, Vec::new());
            if entry.kind == Kind::File {
                let mut payload = HashingReader::new((&mut archive).take(entry.size));
                (&mut payload).take(python::HEADER as u64).read_to_end(&mut head).map_err(io)?;
                io::copy(&mut payload, &mut io::sink()).map_err(io)?;
                digest = Some(payload.finish().0);
            }
            captured.insert(entry.path.clone(), Captured { entry, at, digest, head });
        }
        let mut rest = archive.into_inner();
        io::copy(&mut rest, &mut io::sink()).map_err(io)?;
        let (digest, _) = rest.finish();
        Ok(Self { path: path.into(), file, digest, captured })
    }

    /// What of it belongs to this image.
    pub(super) fn select(&self, indexes: &[LayerIndex], merged: &Merged) -> Result<Additions<'_>, Error> {
        let mut out =
            Additions { startup: self, captured: Vec::new(), folders: Vec::new(), shipped: Shipped::default() };
        let mut placed = HashSet::new();
        for (path, captured) in &self.captured {
            let shipped = &mut out.shipped;
            if captured.entry.kind == Kind::Dir {
                continue;
            }
            let never = NEVER.iter().any(|n| path.strip_prefix(n).is_some_and(|rest| rest.starts_with('/')));
            let Some(source) = source_of(path).filter(|_| captured.entry.kind == Kind::File && !never) else {
                shipped.other += 1;
                continue;
            };
            if merged.get(path).is_some() || merged.odd_parent(path).is_some() {
                shipped.taken += 1;
                continue;
            }
            let source = merged.get(&source).map(|at| &indexes[at.layer].entries[at.index]);
            if !source.is_some_and(|s| is_compiled_from(&captured.head, s)) {
                shipped.stale += 1;
                continue;
            }
            for above in [""].into_iter().chain(parents(path)).filter(|above| placed.insert(*above)) {
                match (merged.get(above), self.captured.get(above)) {
                    (Some(at), _) => out.folders.push(at),
                    // What the archive says of the root is an accident of where it was made.
                    (None, _) if above.is_empty() => {}
                    (None, Some(folder)) if folder.entry.kind == Kind::Dir => out.captured.push(folder),
                    (None, _) => {
                        let parent = above.into();
                        return Err(failed(&self.path, LayerError::NoParent { path: path.clone(), parent }));
                    }
                }
            }
            shipped.files += 1;
            shipped.bytes += captured.entry.size;
            out.captured.push(captured);
        }
        Ok(out)
    }
}

fn failed(path: &Path, source: LayerError) -> Error {
    Error::Startup { path: path.into(), source: Box::new(source) }
}

impl Additions<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.captured.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.captured.len()
    }

    /// Writes the entries.
    pub(super) fn write(&self, tar: &mut impl Write) -> io::Result<()> {
        for captured in &self.captured {
            let entry = &captured.entry;
            tar.write_all(&entry.raw)?;
            let (mut hasher, mut at, mut left) = (Hasher::default(), captured.at, entry.size);
            let mut buf = vec![0; 1 << 16];
            while left > 0 {
                let n = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                self.startup.file.read_exact_at(&mut buf[..n], at)?;
                hasher.update(&buf[..n]);
                tar.write_all(&buf[..n])?;
                at += n as u64;
                left -= n as u64;
            }
            if captured.digest.is_some_and(|d| d != hasher.finish()) {
                return Err(io::Error::other(format!(
                    "the start-up layer changed while it was read: {:?}",
                    entry.path
                )));
            }
            tar.write_all(&vec![0; padding(entry.size)])?;
        }
        Ok(())
    }

    /// See [`digest_of`].
    pub(super) fn digest(&self) -> Digest {
        digest_of(self.captured.iter().map(|c| (&c.entry, c.digest)))
    }
}

/// Digest over everything that added entries show, by which `verify` knows them again.
pub(crate) fn digest_of<'a>(entries: impl IntoIterator<Item = (&'a Entry, Option<Digest>)>) -> Digest {
    let by_path: BTreeMap<&str, _> = entries.into_iter().map(|(e, digest)| (e.path.as_str(), (e, digest))).collect();
    let mut h = Hasher::default();
    for (path, (e, digest)) in by_path {
        let owner = format!("{:?} {:o} {}:{} {:?}:{:?}", e.kind, e.mode, e.uid, e.gid, e.uname, e.gname);
        let time = format!("{}.{:09}", e.mtime.seconds, e.mtime.nanos);
        let content = digest.map_or_else(String::new, |d| d.to_string());
        let xattrs = e.xattrs.iter().flat_map(|(k, v)| [k.as_bytes(), v]);
        let fields = [path, &owner, &time, &e.link, &content].map(str::as_bytes);
        for field in fields.into_iter().chain(xattrs) {
            h.update(&(field.len() as u64).to_le_bytes());
            h.update(field);
        }
    }
    h.finish()
}

/// Whether an interpreter would take the bytecode for this source.
fn is_compiled_from(head: &[u8], source: &Entry) -> bool {
    python::Header::parse(head).is_some_and(|h| match h.made {
        python::Made::Time { .. } => h.is_of_time(source.mtime.seconds, source.size),
        // By the source's hash, which the interpreter compares or was told not to.
        python::Made::Hash(_) => true,
    })
}
