//! Reading the archive of a start-up layer: what each file in it is for, and everything about it that the layer will show. What is an
//! accident of how the archive was made (the order, owners' names, fractions of seconds, extended attributes) is dropped here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::{Classes, digest_of, host};
use crate::convert::LayerError;
use crate::digest::{Digest, HashingReader};
use crate::estargz::landmark;
use crate::python;
use crate::record::class::{self, Class};
use crate::tar::{self, Entry, Kind, Time, whiteout};

/// An archive of captured files, read once; payloads are read again when they are written.
pub(in crate::convert) struct Startup {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// Of what in it may become a part of an image.
    digest: Digest,
    /// By path; of several entries the last.
    pub(super) captured: BTreeMap<String, Captured>,
    pub(super) classes: Classes,
}

pub(super) struct Captured {
    /// Without headers.
    pub(super) entry: Entry,
    /// Where the payload begins.
    pub(super) at: u64,
    pub(super) digest: Option<Digest>,
    pub(super) class: Class,
    /// Whether the path or the content is that of something never shipped, and what it is then.
    pub(super) never: Option<&'static str>,
    /// Of bytecode, what it is made from, if an interpreter would take it.
    pub(super) bytecode: Option<python::Header>,
}

impl Startup {
    pub(super) fn open(path: &Path, classes: &Classes) -> Result<Self, LayerError> {
        let io = |source| LayerError::Io { doing: "reading it".into(), source };
        let file = File::open(path).map_err(io)?;
        let mut archive = tar::Reader::new(BufReader::with_capacity(1 << 20, &file));
        let mut captured = BTreeMap::new();
        while let Some(entry) = archive.next()? {
            let at = archive.position();
            let (mut digest, mut head) = (None, Vec::new());
            if entry.kind == Kind::File {
                let mut payload = HashingReader::new((&mut archive).take(entry.size));
                (&mut payload).take(class::HEAD as u64).read_to_end(&mut head).map_err(io)?;
                io::copy(&mut payload, &mut io::sink()).map_err(io)?;
                let (found, read) = payload.finish();
                if read != entry.size {
                    return Err(io(io::ErrorKind::UnexpectedEof.into()));
                }
                digest = Some(found);
            }
            // What an archive says of the root is an accident of where it was made.
            if !entry.path.is_empty() {
                captured.insert(entry.path.clone(), Captured::new(entry, at, digest, &head));
            }
        }
        let may = |c: &&Captured| c.never.is_none() && (c.entry.kind == Kind::Dir || classes.0.contains(&c.class));
        let digest = digest_of(captured.values().filter(may).map(|c| (&c.entry, c.digest)));
        Ok(Self { path: path.into(), file, digest, captured, classes: classes.clone() })
    }

    /// Over everything that decides what it adds to an image, and what is said of that.
    pub(in crate::convert) fn key(&self, host: &BTreeMap<String, String>) -> Digest {
        let host = host::bound(host);
        Digest::of(format!("{} {} {host:?}", self.digest, self.classes).as_bytes())
    }

    /// Paths of the sources whose content is needed: of bytecode that is bound to it by hash.
    pub(in crate::convert) fn hashed_sources(&self) -> impl Iterator<Item = String> {
        let hashed = |h: &python::Header| matches!(h.made, python::Made::Hash(_));
        let found = self.captured.iter().filter(move |(_, c)| c.bytecode.as_ref().is_some_and(hashed));
        found.filter_map(|(path, _)| python::source_of(path))
    }
}

impl Captured {
    fn new(entry: Entry, at: u64, digest: Option<Digest>, head: &[u8]) -> Self {
        let class = class::of(&format!("/{}", entry.path)).of_size(entry.size);
        let is_bytecode = class == class::BYTECODE && entry.kind == Kind::File;
        let never = never(&entry, class, head);
        // Times that nobody looks at are those of the image, see `select`.
        let is_own_time = entry.kind != Kind::Dir && !is_bytecode;
        let seconds = if is_own_time { entry.mtime.seconds.max(0) } else { 0 };
        let entry = Entry {
            raw: Vec::new(),
            // No file that a start writes gives rights away.
            mode: entry.mode & if entry.kind == Kind::Dir { 0o1777 } else { 0o777 },
            uname: String::new(),
            gname: String::new(),
            mtime: Time { seconds, nanos: 0 },
            xattrs: Vec::new(),
            ..entry
        };
        let bytecode = python::Header::parse(head).filter(|_| is_bytecode);
        Self { entry, at, digest, class, never, bytecode }
    }
}

/// What an entry is that no start-up layer brings along, whatever is asked for.
fn never(entry: &Entry, class: Class, head: &[u8]) -> Option<&'static str> {
    let odd_name = entry.path.split('/').any(|part| part.starts_with(whiteout::PREFIX));
    if odd_name || landmark::is_ours(&entry.path) || !matches!(entry.kind, Kind::File | Kind::Dir | Kind::Symlink) {
        return Some("special");
    }
    if entry.kind == Kind::Dir {
        return None;
    }
    if !class.shipped {
        return Some(class.name);
    }
    // Next to its source, or instead of it, an interpreter takes it unchecked.
    let is_bytecode = class == class::BYTECODE;
    if Path::new(&entry.path).extension().is_some_and(|e| e == "pyc")
        && (!is_bytecode || python::source_of(&entry.path).is_none())
        || is_bytecode && entry.kind != Kind::File
    {
        return Some("unchecked bytecode");
    }
    // Bytecode that is shipped is made from a source of the image.
    (!class.trusted && class::holds_secret(head)).then_some(class::SECRET.name)
}
