//! The start-up layer: what a container would write again on every fresh start, given as a tar archive, goes into the hot layer behind
//! its copies. Python bytecode, and only where an interpreter would take it for the source that the image shows; other classes of files
//! where they are asked for. What it adds depends on the content of the archive and the image alone, never on how either was packed.

mod archive;
mod host;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::FromStr;

use serde::Serialize;

use super::{Error, LayerError, Options};
use crate::digest::{Digest, Hasher};
use crate::image::{names, wrapped};
use crate::plan::{Contents, LayerIndex};
use crate::python;
use crate::record::class::{self, Class};
use crate::tar::{self, At, Entry, Kind, Merged, Time, padding, parents};

use archive::Captured;
pub(super) use archive::Startup;
pub use host::{Mismatch, facts, mismatch};

/// A source this large is no source; it is not read to be hashed.
const LARGEST_SOURCE: u64 = 16 << 20;

/// The classes of files that a start-up layer may bring along, by their names in a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes(Vec<Class>);

impl Default for Classes {
    fn default() -> Self {
        Self(vec![class::BYTECODE])
    }
}

impl FromStr for Classes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = |name: &str| class::SHIPPED.into_iter().find(|c| c.name == name);
        let all = text.split(',').map(|name| {
            let known = class::SHIPPED.map(|c| c.name).join(", ");
            named(name).ok_or_else(|| format!("no class {name:?} that may be shipped: expected {known}"))
        });
        let all = all.collect::<Result<Vec<_>, _>>()?;
        // In one order, whatever was typed.
        Ok(Self(class::SHIPPED.into_iter().filter(|c| all.contains(c)).collect()))
    }
}

impl fmt::Display for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(|c| c.name).collect::<Vec<_>>().join(","))
    }
}

/// What became of the files of a start-up layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Shipped {
    /// Files and symlinks in the hot layer.
    pub files: usize,
    /// Bytes in them.
    pub bytes: u64,
    /// The same files by class.
    pub classes: BTreeMap<&'static str, usize>,
    /// Bytecode whose source the image has not, or not with the time and size or the hash that it was compiled from.
    pub stale: usize,
    /// Files whose path the image has already, or cannot have.
    pub taken: usize,
    /// Files that are never shipped or were not asked for, by class; `special` is neither file nor symlink, `volume` lies in a volume of
    /// the image, `unchecked bytecode` is where interpreters do not compare it with its source.
    pub left_out: BTreeMap<&'static str, usize>,
}

/// The image that a start-up layer is to fit.
pub(super) struct Target<'a> {
    pub(super) indexes: &'a [LayerIndex],
    pub(super) merged: &'a Merged,
    /// Paths that the image's config declares as volumes, as layers spell them.
    pub(super) volumes: Vec<String>,
    /// Facts about where the archive was made.
    pub(super) host: &'a BTreeMap<String, String>,
    /// Reads the content of a file; `None` where it is not there.
    pub(super) read: &'a dyn Fn(At) -> Result<Option<Vec<u8>>, LayerError>,
}

/// Entries of the hot layer that come from a start-up layer, in their order.
pub(super) struct Additions<'a> {
    startup: &'a Startup,
    entries: Vec<(Entry, &'a Captured)>,
    /// Folders of the image that they lie in.
    pub(super) folders: Vec<At>,
    pub(super) shipped: Shipped,
    /// What compiled caches among them are bound to; nothing where there are none.
    pub(super) host: BTreeMap<String, String>,
    /// What is to be said about them.
    pub(super) warnings: Vec<String>,
}

impl Startup {
    /// The one that the options name, if any.
    pub(super) fn of(options: &Options) -> Result<Option<Self>, Error> {
        let open = |path: &std::path::PathBuf| Self::open(path, &options.startup_classes).map_err(|e| failed(path, e));
        options.startup.as_ref().map(open).transpose()
    }

    /// What of it belongs to this image.
    pub(super) fn select(&self, image: &Target<'_>) -> Result<Additions<'_>, Error> {
        let (merged, contents) = (image.merged, Contents::new(image.indexes));
        let shown = |at: At| contents.of(at).map(|at| (at, &image.indexes[at.layer].entries[at.index]));
        let mut out = Additions {
            startup: self,
            entries: Vec::new(),
            folders: Vec::new(),
            shipped: Shipped::default(),
            host: BTreeMap::new(),
            warnings: Vec::new(),
        };
        let mut placed = HashSet::new();
        for (path, captured) in self.captured.iter().filter(|(_, c)| c.entry.kind != Kind::Dir) {
            let shipped = &mut out.shipped;
            let in_volume = image.volumes.iter().any(|v| is_below(path, v));
            let asked = self.classes.0.contains(&captured.class);
            let left = captured.never.or_else(|| in_volume.then_some("volume"));
            if let Some(left) = left.or_else(|| (!asked).then_some(captured.class.name)) {
                *shipped.left_out.entry(left).or_default() += 1;
                continue;
            }
            if merged.get(path).is_some() || merged.odd_parent(path).is_some() {
                shipped.taken += 1;
                continue;
            }
            let mut time = captured.entry.mtime;
            if captured.class == class::BYTECODE {
                let source = python::source_of(path).and_then(|s| merged.get(&s)).and_then(shown);
                let fits = |at, source| fits(captured, at, source, image.read).map_err(|e| failed(&self.path, e));
                let Some((at, source)) = source else {
                    shipped.stale += 1;
                    continue;
                };
                if !fits(at, source)? {
                    shipped.stale += 1;
                    continue;
                }
                // No interpreter looks at it; that of the source is the same however the bytecode came to be.
                time = whole(source.mtime);
            }
            let mut above_time = Time::default();
            for above in [""].into_iter().chain(parents(path)) {
                if let Some(at) = merged.get(above) {
                    above_time = whole(image.indexes[at.layer].entries[at.index].mtime);
                    if placed.insert(above) {
                        out.folders.push(at);
                    }
                } else if !above.is_empty() && placed.insert(above) {
                    let folder = self.captured.get(above).filter(|c| c.entry.kind == Kind::Dir && c.never.is_none());
                    let parent = || LayerError::NoParent { path: path.clone(), parent: above.into() };
                    let folder = folder.ok_or_else(|| failed(&self.path, parent()))?;
                    out.entries.push((self.anew(&folder.entry, above_time)?, folder));
                }
            }
            shipped.files += 1;
            shipped.bytes += captured.entry.size;
            *shipped.classes.entry(captured.class.name).or_default() += 1;
            out.entries.push((self.anew(&captured.entry, time)?, captured));
        }
        if out.shipped.classes.contains_key(class::COMPILED.name) {
            out.bind(image);
        }
        Ok(out)
    }

    /// An entry of this time with headers of ours.
    fn anew(&self, entry: &Entry, mtime: Time) -> Result<Entry, Error> {
        let io = |source| failed(&self.path, LayerError::Io { doing: format!("adding {:?}", entry.path), source });
        let raw = tar::headers(&Entry { mtime, ..entry.clone() }).map_err(io)?;
        let raw = raw.ok_or_else(|| io(io::ErrorKind::Unsupported.into()))?;
        // As those who verify it will see it.
        let read = tar::Reader::new(&raw[..]).next().map_err(|e| failed(&self.path, e.into()))?;
        read.ok_or_else(|| io(io::ErrorKind::UnexpectedEof.into()))
    }
}

fn failed(path: &Path, source: LayerError) -> Error {
    Error::Startup { path: path.into(), source: Box::new(source) }
}

fn is_below(path: &str, folder: &str) -> bool {
    folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whole seconds, as our headers have them.
fn whole(time: Time) -> Time {
    Time { seconds: time.seconds.max(0), nanos: 0 }
}

/// Whether an interpreter would take the bytecode for this source, and may.
fn fits(
    captured: &Captured,
    at: At,
    source: &Entry,
    read: &dyn Fn(At) -> Result<Option<Vec<u8>>, LayerError>,
) -> Result<bool, LayerError> {
    let Some(header) = &captured.bytecode else { return Ok(false) };
    Ok(match header.made {
        python::Made::Time { .. } => header.is_of_time(source.mtime.seconds, source.size),
        python::Made::Hash(_) if source.size > LARGEST_SOURCE => false,
        // Also where the interpreter was told not to look: it would run old code for ever.
        python::Made::Hash(_) => read(at)?.is_some_and(|content| header.is_of_source(&content)),
    })
}

impl Additions<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Notes what compiled caches are bound to, and what is wrong with that.
    fn bind(&mut self, image: &Target<'_>) {
        self.host = host::bound(image.host);
        if let Some(what) = host::missing(&self.host) {
            self.warnings.push(format!(
                "the profile does not say with {what} the compile caches were made: nobody can tell where they are of use"
            ));
        }
        let paths: Vec<String> = image.merged.iter().map(|(p, _)| format!("/{p}")).collect();
        let versions = crate::record::host::versions(paths.iter().map(String::as_str));
        let packages = self.host.iter().filter(|(fact, _)| versions.contains_key(*fact));
        let packages: BTreeMap<_, _> = packages.map(|(k, v)| (k.clone(), v.clone())).collect();
        self.warnings.extend(mismatch(&packages, &versions).iter().map(|m| format!("{m} in the image")));
    }

    /// The entries with the digests of their contents.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Entry, Option<Digest>)> {
        self.entries.iter().map(|(entry, captured)| (entry, captured.digest))
    }

    /// Paths of the files among them.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|(e, _)| e.kind == Kind::File).map(|(e, _)| e.path.as_str())
    }

    /// What compiled caches among them are bound to, as annotations.
    pub(super) fn bound_to(&self) -> impl Iterator<Item = (String, String)> {
        self.host.iter().map(|(fact, value)| (format!("{}{fact}", names::LAYER_HOST), value.clone()))
    }

    /// Writes the entries.
    pub(super) fn write(&self, tar: &mut impl Write) -> io::Result<()> {
        for (entry, captured) in &self.entries {
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

/// The class of a path that a hot layer adds, and whether one may.
pub(crate) fn class_of(path: &str, size: u64, kind: Kind) -> (&'static str, bool) {
    if kind == Kind::Dir {
        return ("folder", true);
    }
    if format!("/{path}").strip_prefix(wrapped::FOLDER).is_some_and(|rest| rest.starts_with('/')) {
        return (super::embed::CLASS, true);
    }
    let class = class::of(&format!("/{path}")).of_size(size);
    (class.name, class.shipped)
}

/// Paths of an image's config (`Volumes`), cleaned.
pub(super) fn volumes(config: &serde_json::Value) -> Vec<String> {
    let volumes = config.get("config").and_then(|c| c.get("Volumes")).and_then(|v| v.as_object());
    let paths: BTreeSet<String> = volumes.into_iter().flatten().map(|(path, _)| tar::clean(path)).collect();
    paths.into_iter().collect()
}
