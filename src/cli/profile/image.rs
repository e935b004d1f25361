//! The files of an image, from its layers or from a folder.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::super::output::Output;
use super::super::{Failure, chain, store_failure};
use crate::digest::Digest;
use crate::estargz::landmark;
use crate::image::{Descriptor, Reference, layer};
use crate::profile::summary::Layers;
use crate::profile::tree::{Node, Tree};
use crate::store::{self, Blobs};
use crate::tar::{Entry, Kind, Merged, Reader};

/// What an image's layers tell.
pub(super) struct Read {
    /// The manifest's digest.
    pub(super) digest: Digest,
    /// Its merged files.
    pub(super) tree: Tree,
    /// Which layer each of them lies in.
    pub(super) layers: Layers,
}

/// Reads the entries of all layers. Every layer is read whole.
pub(super) fn read(reference: &Reference, platform: &str, out: &Output) -> Result<Read, Failure> {
    let failed = |e: store::Error| store_failure(&e, reference);
    let store = store::open(reference, false).map_err(failed)?;
    let image = store.image(platform).map_err(failed)?;
    let progress = out.progress();
    let mut all = Vec::new();
    for (i, descriptor) in image.manifest.layers.iter().enumerate() {
        let task = progress.start(&format!("layer {i}"), descriptor.size);
        let read = entries(&*store, descriptor);
        progress.advance(task, descriptor.size);
        progress.done(task);
        all.push(read.map_err(|e| Failure::new(1, format!("{reference}: layer {i} ({}): {e}", descriptor.digest)))?);
    }
    let merged = Merged::of(all.iter().map(Vec::as_slice), landmark::is_ours);
    let (mut tree, mut layers) = (Tree::default(), Layers::default());
    for (i, descriptor) in image.manifest.layers.iter().enumerate() {
        let short: String = descriptor.digest.hex().chars().take(12).collect();
        let hot = if descriptor.is_hot() { " (hot)" } else { "" };
        layers.names.push(format!("{i} {short}{hot}"));
    }
    let by_path: Vec<HashMap<&str, usize>> =
        all.iter().map(|layer| layer.iter().enumerate().map(|(i, e)| (e.path.as_str(), i)).collect()).collect();
    for (path, at) in merged.iter() {
        let entry = &all[at.layer][at.index];
        let node = match entry.kind {
            Kind::File => Node::File { size: entry.size },
            Kind::Hardlink => match target(&all[at.layer], &by_path[at.layer], entry) {
                Some(size) => Node::File { size },
                None => continue,
            },
            Kind::Symlink => Node::Link(entry.link.clone()),
            Kind::Dir => Node::Dir,
            Kind::Char | Kind::Block | Kind::Fifo => continue,
        };
        tree.add(path, node);
        layers.of.insert(format!("/{path}"), at.layer);
    }
    Ok(Read { digest: image.descriptor.digest, tree, layers })
}

/// The size of the file that a hard link leads to within its layer.
fn target(layer: &[Entry], by_path: &HashMap<&str, usize>, link: &Entry) -> Option<u64> {
    let mut at = link;
    // A hard link's target is no hard link again but in odd archives; a circle ends.
    for _ in 0..40 {
        at = &layer[*by_path.get(at.link.as_str())?];
        match at.kind {
            Kind::File => return Some(at.size),
            Kind::Hardlink => {}
            _ => return None,
        }
    }
    None
}

fn entries(store: &dyn Blobs, descriptor: &Descriptor) -> Result<Vec<Entry>, String> {
    let blob = store.open(descriptor).map_err(|e| chain(&e))?;
    let mut blob = layer::decompress(&descriptor.media_type, blob).map_err(|e| chain(&e))?;
    let mut reader = Reader::new(&mut blob);
    let mut out = Vec::new();
    while let Some(entry) = reader.next().map_err(|e| chain(&e))? {
        // The headers are not written again.
        out.push(Entry { raw: Vec::new(), ..entry });
    }
    // The digest is checked at the end of the stream.
    io::copy(&mut blob, &mut io::sink()).map_err(|e| e.to_string())?;
    Ok(out)
}

/// The files of a folder, without those of other file systems mounted below it. Names that are not UTF-8 cannot be in a profile and
/// are left out.
pub(super) fn folder(root: &Path) -> Result<Tree, Failure> {
    let failed = |path: &Path, e: &io::Error| Failure::new(1, format!("{}: {e}", path.display()));
    let device = fs::metadata(root).map_err(|e| failed(root, &e))?.dev();
    let mut tree = Tree::default();
    let mut left = vec![(root.to_owned(), String::new())];
    while let Some((dir, inside)) = left.pop() {
        for entry in fs::read_dir(&dir).map_err(|e| failed(&dir, &e))? {
            let entry = entry.map_err(|e| failed(&dir, &e))?;
            let (path, name) = (entry.path(), entry.file_name());
            let Ok(name) = name.into_string() else { continue };
            let inside = if inside.is_empty() { name } else { format!("{inside}/{name}") };
            match node(&path) {
                Ok(Some((Node::Dir, on))) => {
                    tree.add(&inside, Node::Dir);
                    if on == device {
                        left.push((path, inside));
                    }
                }
                Ok(Some((node, _))) => tree.add(&inside, node),
                Ok(None) => {}
                // Gone since the folder was listed.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed(&path, &e)),
            }
        }
    }
    Ok(tree)
}

/// What a path is, and the device that it is on; none for what is no file, folder or symlink.
fn node(path: &Path) -> io::Result<Option<(Node, u64)>> {
    let meta = fs::symlink_metadata(path)?;
    let node = match meta.file_type() {
        t if t.is_dir() => Node::Dir,
        t if t.is_file() => Node::File { size: meta.len() },
        t if t.is_symlink() => match fs::read_link(path)?.into_os_string().into_string() {
            Ok(text) => Node::Link(text),
            Err(_) => return Ok(None),
        },
        _ => return Ok(None),
    };
    Ok(Some((node, meta.dev())))
}
