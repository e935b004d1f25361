//! As much of an image as an interpreter needs: its program, standard library and shared libraries become a folder, the sources to be
//! compiled are kept beside it. One pass over the layers, lowest first, into a file without a name; only what the merged image shows
//! gets a name, folders and files before any symlink, so that no path of the image leads out of the folder.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, symlink};
use std::path::Path;

use super::Error;
use crate::image::{Image, layer};
use crate::plan::{self, Contents, LayerIndex};
use crate::progress::Progress;
use crate::store::Images;
use crate::tar::{self, At, Entry, Kind, Merged, parents};

/// Bytes that are kept of an image at most.
const MOST: u64 = 4 << 30;
/// A source or a library of the system is not larger.
const LARGEST: u64 = 64 << 20;
/// An interpreter that has everything linked in, with its symbols.
const LARGEST_PROGRAM: u64 = 512 << 20;

/// What was kept.
pub(super) struct Unpacked {
    indexes: Vec<LayerIndex>,
    pub(super) merged: Merged,
    /// Where the content of an entry lies in the spool.
    kept: HashMap<At, u64>,
    spool: File,
}

impl Unpacked {
    /// Reads all layers.
    pub(super) fn read(
        store: &dyn Images,
        image: &Image,
        sources: &HashSet<&str>,
        temp_dir: &Path,
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let temp = |source| Error::Temp { dir: temp_dir.into(), source };
        let spool = tempfile::tempfile_in(temp_dir).map_err(temp)?;
        let mut out = BufWriter::with_capacity(1 << 20, &spool);
        let (mut indexes, mut kept, mut at) = (Vec::new(), HashMap::new(), 0);
        for (i, descriptor) in image.manifest.layers.iter().enumerate() {
            let task = progress.start(&format!("reading layer {i}"), descriptor.size);
            let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Layer {
                layer: i,
                digest: descriptor.digest,
                source,
            };
            let blob = store.open(descriptor)?;
            let mut blob = layer::decompress(&descriptor.media_type, blob).map_err(|e| failed(e.into()))?;
            let mut archive = tar::Reader::new(&mut blob);
            let mut index = LayerIndex::default();
            while let Some(entry) = archive.next().map_err(|e| failed(e.into()))? {
                if entry.kind == Kind::File && (sources.contains(entry.path.as_str()) || is_runtime(&entry)) {
                    if at + entry.size > MOST {
                        return Err(Error::TooLarge { most: MOST });
                    }
                    let n = copy((&mut archive).take(entry.size), &mut out).map_err(|e| match e {
                        Failed::Read(e) => failed(e.into()),
                        Failed::Write(e) => temp(e),
                    })?;
                    if n != entry.size {
                        return Err(failed(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
                    }
                    kept.insert(At { layer: i, index: index.entries.len() }, at);
                    at += n;
                }
                index.digests.push(None);
                index.entries.push(Entry { raw: Vec::new(), ..entry });
            }
            // The blob's digest is checked at its end.
            io::copy(&mut blob, &mut io::sink()).map_err(|e| failed(e.into()))?;
            progress.advance(task, descriptor.size);
            progress.done(task);
            indexes.push(index);
        }
        out.into_inner().map_err(|e| temp(e.into_error()))?;
        let merged = plan::merged(&indexes);
        Ok(Self { indexes, merged, kept, spool })
    }

    /// Finds what hard links lead to.
    pub(super) fn contents(&self) -> Contents<'_> {
        Contents::new(&self.indexes)
    }

    /// An entry.
    pub(super) fn at(&self, at: At) -> &Entry {
        &self.indexes[at.layer].entries[at.index]
    }

    /// The entry of a path as its layer has it.
    pub(super) fn entry(&self, path: &str) -> Option<&Entry> {
        self.merged.get(path).map(|at| self.at(at))
    }

    /// The content of a file, if it was kept and is no larger than a source.
    pub(super) fn content(&self, at: At) -> io::Result<Option<Vec<u8>>> {
        let size = self.indexes[at.layer].entries[at.index].size;
        let Some(from) = self.kept.get(&at).filter(|_| size <= LARGEST) else { return Ok(None) };
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        self.spool.read_exact_at(&mut bytes, *from)?;
        Ok(Some(bytes))
    }

    /// Makes a folder (empty so far) the root that an interpreter runs in. Sources that are to be compiled are not in it.
    pub(super) fn write_runtime(&self, root: &Path) -> io::Result<()> {
        let mut made = BTreeSet::new();
        let mut folders = |path: &str| -> io::Result<()> {
            for above in parents(path) {
                if made.insert(above.to_owned()) {
                    fs::DirBuilder::new().mode(0o755).create(root.join(above))?;
                }
            }
            Ok(())
        };
        let visible = || self.merged.iter().filter(|(p, _)| !p.is_empty() && self.merged.odd_parent(p).is_none());
        let contents = Contents::new(&self.indexes);
        for (path, at) in visible() {
            let Some(at) = contents.of(at) else { continue };
            let (entry, Some(from)) = (&self.indexes[at.layer].entries[at.index], self.kept.get(&at)) else { continue };
            let named = Entry { path: path.into(), kind: Kind::File, ..entry.clone() };
            if !is_runtime(&named) {
                continue;
            }
            folders(path)?;
            let mode = 0o644 | (entry.mode & 0o111);
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(root.join(path))?;
            let mut spool = &self.spool;
            io::Seek::seek(&mut spool, io::SeekFrom::Start(*from))?;
            io::copy(&mut spool.take(entry.size), &mut file)?;
        }
        for (path, at) in visible() {
            let entry = &self.indexes[at.layer].entries[at.index];
            if entry.kind == Kind::Symlink && !is_package(path) {
                folders(path)?;
                symlink(&entry.link, root.join(path))?;
            }
        }
        Ok(())
    }
}

enum Failed {
    Read(io::Error),
    Write(io::Error),
}

/// Copies and tells which side failed.
fn copy(mut from: impl Read, to: &mut impl Write) -> Result<u64, Failed> {
    let (mut buf, mut n) = (vec![0; 1 << 16], 0);
    loop {
        let got = from.read(&mut buf).map_err(Failed::Read)?;
        if got == 0 {
            return Ok(n);
        }
        to.write_all(&buf[..got]).map_err(Failed::Write)?;
        n += got as u64;
    }
}

fn is_package(path: &str) -> bool {
    path.split('/').any(|part| matches!(part, "site-packages" | "dist-packages"))
}

/// Whether an interpreter may need a file to run at all: itself, its standard library, a library of the system.
fn is_runtime(entry: &Entry) -> bool {
    let path = entry.path.as_str();
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    if is_package(path) {
        return false;
    }
    let of_python =
        |part: &str| part.strip_prefix("python").is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()));
    let library = name.contains(".so");
    if name.starts_with("python") && folder.ends_with("bin") || library && name.starts_with("libpython") {
        return entry.size <= LARGEST_PROGRAM;
    }
    let in_lib = folder.split('/').next_back().is_some_and(|last| {
        matches!(last, "lib" | "lib64") || last.ends_with("-linux-gnu") || last.ends_with("-linux-musl")
    });
    let in_lib = in_lib && !path.contains("/cuda");
    let needed =
        path.split('/').any(of_python) || library && in_lib || matches!(path, "etc/ld.so.cache" | "etc/localtime");
    needed && entry.size <= LARGEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interpreter_runs_on_is_kept_and_packages_are_not() {
        for (path, want) in [
            ("usr/bin/python3.12", true),
            ("opt/conda/bin/python3.12", true),
            ("usr/lib/python3.12/os.py", true),
            ("usr/lib/python3.12/lib-dynload/_ssl.cpython-312-x86_64-linux-gnu.so", true),
            ("usr/lib/x86_64-linux-gnu/libc.so.6", true),
            ("lib64/ld-linux-x86-64.so.2", true),
            ("root/.local/share/uv/python/cpython-3.12/lib/libpython3.12.so.1.0", true),
            ("usr/lib/python3/dist-packages/a.py", false),
            ("usr/local/lib/python3.12/site-packages/torch/lib/libtorch.so", false),
            ("usr/local/cuda/targets/libcublas.so.12", false),
            ("usr/bin/bash", false),
            ("app/server.py", false),
        ] {
            assert_eq!(is_runtime(&Entry::bare(path, Kind::File)), want, "{path}");
        }
        assert!(!is_runtime(&Entry { size: LARGEST + 1, ..Entry::bare("usr/lib/libx.so", Kind::File) }));
    }
}
