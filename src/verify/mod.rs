//! Is a converted image its source, and what it says of itself? Both root file systems are compared path by path; every
//! layer of the converted image is read whole and held against its TOC, digests, landmark and annotations.
//!
//! What is found wrong is data: a list of problems, empty when the image is right. Errors are for what could not be
//! examined. Every layer is streamed once, so that memory is bounded by the number of entries and no blob touches the disk.

mod blob;
mod content;
mod index;
mod manifest;
mod rootfs;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use serde::Serialize;

use crate::convert::in_parallel;
use crate::digest::Digest;
use crate::estargz::{self, Format, Layer, landmark};
use crate::image::{Descriptor, Image, names};
use crate::progress::{Progress, chain};
use crate::store::{self, Blobs, Images};

pub use content::ReadError;
pub use index::{IndexReport, PartReport, Verified, verify_index};

use content::Content;
use rootfs::RootFs;
use stream::Archive;

/// How to verify.
#[derive(Debug, Clone)]
pub struct Options {
    /// `os/arch[/variant]` picked from an index.
    pub platform: String,
    /// Layers read at a time.
    pub jobs: NonZeroUsize,
}

/// Why an image could not be examined.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// An image of an index could not be examined.
    #[error("platform {platform}")]
    Platform {
        /// `os/arch[/variant]`.
        platform: String,
        /// The cause.
        #[source]
        source: Box<Self>,
    },
    /// A layer could not be fetched.
    #[error("layer {layer} ({digest})")]
    Fetch {
        /// Position, lowest is 0.
        layer: usize,
        /// Its digest.
        digest: Digest,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A layer of the source cannot be read, so that there is nothing to compare with.
    #[error("layer {layer} ({digest}) of the source")]
    Source {
        /// Position, lowest is 0.
        layer: usize,
        /// Its digest.
        digest: Digest,
        /// The cause.
        #[source]
        source: Box<ReadError>,
    },
}

/// Something wrong with the converted image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Layer of the converted image, lowest is 0; none for the image as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// The path, empty for the layer or image as a whole.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Expected and found.
    pub what: String,
}

/// What was examined and what was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Digest of the source's manifest, when there was a source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Digest>,
    /// Digest of the manifest that was verified.
    pub digest: Digest,
    /// Layers of the verified image.
    pub layers: usize,
    /// Paths of its root file system.
    pub paths: usize,
    /// Regular files of its root file system, each content counted once.
    pub files: usize,
    /// Bytes in them.
    pub bytes: u64,
    /// Paths that the hot layer adds to the source, as it says.
    pub added: usize,
    /// The same paths by class: as a profile names them, and `folder`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub added_classes: BTreeMap<&'static str, usize>,
    /// Chunks whose digest was computed.
    pub chunks: u64,
    /// Everything found wrong.
    pub problems: Vec<Problem>,
}

/// Opens a layer's footer and TOC by ranged reads. `None`: its media type is not one that eStargz has.
pub fn open_toc(blobs: &dyn Blobs, layer: &Descriptor) -> Result<Option<Result<Layer, estargz::Error>>, store::Error> {
    let format = match layer.media_type.as_str() {
        names::LAYER_GZIP | names::DOCKER_LAYER_GZIP => Format::Estargz,
        names::LAYER_ZSTD => Format::ZstdChunked,
        _ => return Ok(None),
    };
    if layer.is_hot() {
        return Ok(None);
    }
    let blob = blobs.open_at(layer)?;
    let opened = Layer::open(blob.size(), |offset, length| {
        let mut bytes = vec![0; length];
        blob.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    });
    Ok(Some(opened.and_then(|l| {
        let wrong = || estargz::Error::Footer {
            why: format!("it ends as {} has it: expected {} by its media type", l.format.name(), format.name()),
        };
        if l.format == format { Ok(l) } else { Err(wrong()) }
    })))
}

/// Whether what failed is the layer, not the way to it: it is missing, altered or makes no sense.
fn is_wrong(error: &(dyn std::error::Error + 'static)) -> bool {
    let store = |e: &(dyn std::error::Error + 'static)| {
        let inside = e.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let error = e.downcast_ref().or_else(|| inside.and_then(|i| i.downcast_ref::<store::Error>()));
        error.map(store::Error::kind)
    };
    match std::iter::successors(Some(error), |e| e.source()).find_map(store) {
        Some(kind) => matches!(kind, store::Kind::Corrupt | store::Kind::NotFound),
        None => true,
    }
}

/// Problems of one place.
struct Say<'a> {
    layer: Option<usize>,
    out: &'a mut Vec<Problem>,
}

impl Say<'_> {
    fn say(&mut self, path: &str, what: String) {
        self.out.push(Problem { layer: self.layer, path: path.into(), what });
    }
}

/// Verifies `dst` against `src`, or in itself alone.
pub fn verify(
    src: Option<&dyn Images>,
    dst: &dyn Images,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Report, Error> {
    let source = src.map(|s| s.image(&options.platform)).transpose()?;
    let image = dst.image(&options.platform)?;
    let mut problems = Vec::new();
    manifest::check(&image, source.as_ref(), &mut problems);

    // Converting leaves out the hot layer of an earlier conversion; so does the comparison.
    let sources = source.as_ref().map_or(0, |s| source_layers(s).len());
    let count = image.manifest.layers.len();
    let read = in_parallel(sources + count, options.jobs.get(), |i| match (i.checked_sub(sources), src, &source) {
        (Some(layer), _, _) => converted_layer(dst, &image, layer, progress),
        (None, Some(src), Some(source)) => source_layer(src, source, i, progress).map(|c| (Some(c), Vec::new())),
        (None, _, _) => Ok((None, Vec::new())),
    })?;
    let mut contents = Vec::new();
    for (content, mut found) in read {
        contents.push(content);
        problems.append(&mut found);
    }
    let converted = contents.split_off(sources);
    let from: Vec<Content> = contents.into_iter().flatten().collect();

    let mut report = Report {
        source: source.as_ref().map(|s| s.descriptor.digest),
        digest: image.descriptor.digest,
        layers: count,
        paths: 0,
        files: 0,
        bytes: 0,
        added: 0,
        added_classes: BTreeMap::new(),
        chunks: converted.iter().flatten().map(|c| c.chunks).sum(),
        problems,
    };
    if converted.iter().all(Option::is_some) {
        let converted: Vec<Content> = converted.into_iter().flatten().collect();
        compare(&image, source.as_ref().map(|s| (s, from.as_slice())), &converted, &mut report);
    } else {
        let what = "the root file system is not compared, since a layer cannot be read".into();
        report.problems.push(Problem { layer: None, path: String::new(), what });
    }
    report.problems.sort_by_key(|p| p.layer);
    Ok(report)
}

/// The layers below the hot one.
fn lazy_layers(image: &Image) -> &[Descriptor] {
    match image.manifest.layers.as_slice() {
        [below @ .., top] if top.is_hot() => below,
        all => all,
    }
}

/// The layers of a source that a conversion takes: not the copies of an earlier one.
fn source_layers(image: &Image) -> &[Descriptor] {
    match image.manifest.layers.as_slice() {
        [below @ .., top] if top.is_copies() => below,
        all => all,
    }
}

fn source_layer(src: &dyn Images, image: &Image, i: usize, progress: &dyn Progress) -> Result<Content, Error> {
    let layer = &image.manifest.layers[i];
    let task = progress.start(&format!("reading source layer {i}"), layer.size);
    let blob = src.open(layer)?;
    let read = Archive::open(&layer.media_type, blob, None, progress, task)
        .map_err(ReadError::from)
        .and_then(|archive| content::read(archive, None, |_, _| {}));
    progress.done(task);
    let read = read.and_then(|c| {
        let (found, expected) = (c.totals.diff_id, image.config.diff_ids[i]);
        let wrong = || ReadError::Digest { what: "diffID", found, expected };
        if found == expected { Ok(c) } else { Err(wrong()) }
    });
    read.map_err(|e| Error::Source { layer: i, digest: layer.digest, source: Box::new(e) })
}

type Read = (Option<Content>, Vec<Problem>);

/// Reads a layer of the converted image; what cannot be read is a problem.
fn converted_layer(dst: &dyn Images, image: &Image, i: usize, progress: &dyn Progress) -> Result<Read, Error> {
    let descriptor = &image.manifest.layers[i];
    let mut problems = Vec::new();
    let mut say = Say { layer: Some(i), out: &mut problems };
    let fetch =
        |e: Box<dyn std::error::Error + Send + Sync>| Error::Fetch { layer: i, digest: descriptor.digest, source: e };
    let toc = match open_toc(dst, descriptor) {
        Ok(toc) => toc,
        Err(e) if is_wrong(&e) => {
            say.say("", format!("cannot be opened: {}", chain(&e)));
            return Ok((None, problems));
        }
        Err(e) => return Err(fetch(e.into())),
    };
    let lazy = match toc {
        Some(Ok(layer)) => Some(layer),
        Some(Err(e)) if !is_wrong(&e) => return Err(fetch(e.into())),
        Some(Err(e)) => {
            say.say("", chain(&e));
            None
        }
        None => {
            if !descriptor.is_hot() {
                let (found, estargz, chunked) = (&descriptor.media_type, names::LAYER_GZIP, names::LAYER_ZSTD);
                say.say("", format!("media type {found:?}: expected eStargz, {estargz}, or zstd:chunked, {chunked}"));
            }
            None
        }
    };
    let task = progress.start(&format!("reading layer {i}"), descriptor.size);
    let read = |toc: Option<&Layer>, say: &mut Say<'_>| -> Result<Result<Content, ReadError>, Error> {
        let blob = match dst.open(descriptor) {
            Ok(blob) => blob,
            Err(e) if is_wrong(&e) => return Ok(Err(ReadError::Store(e))),
            Err(e) => return Err(fetch(e.into())),
        };
        let archive =
            Archive::open(&descriptor.media_type, blob, toc.map(|l| (l.format, content::bounds(l))), progress, task);
        let content =
            archive.map_err(ReadError::from).and_then(|a| content::read(a, toc, |path, what| say.say(path, what)));
        match content {
            Err(e) if !is_wrong(&e) => Err(fetch(e.into())),
            content => Ok(content),
        }
    };
    let mut content = read(lazy.as_ref(), &mut say)?;
    if let (Some(layer), Err(e)) = (&lazy, &content) {
        // Once more as an ordinary layer: what it unpacks to is worth knowing all the same.
        say.say("", format!("it cannot be read by its TOC: {}", e.chain()));
        for p in layer.problems() {
            say.say(&p.path, p.what);
        }
        content = read(None, &mut say)?;
    } else if let (Some(layer), Ok(content)) = (&lazy, &content) {
        blob::check(layer, content, &mut |path, what| say.say(path, what));
    }
    progress.done(task);
    let content = match content {
        Ok(content) => content,
        Err(e) => {
            say.say("", format!("cannot be read: {}", e.chain()));
            return Ok((None, problems));
        }
    };
    manifest::check_layer(image, i, lazy.as_ref(), &content.totals, &mut say);
    Ok((Some(content), problems))
}

/// Compares root file systems and layer pairs.
fn compare(image: &Image, from: Option<(&Image, &[Content])>, converted: &[Content], report: &mut Report) {
    let all = RootFs::of(converted);
    report.paths = all.paths();
    (report.files, report.bytes) = all.totals();
    let mut push = |layer: Option<usize>, path: &str, what: String| {
        report.problems.push(Problem { layer, path: path.into(), what });
    };
    let hot = |i: usize| image.manifest.layers[i].is_hot();
    all.lazy_traps(|i| !hot(i), |layer, path, what| push(Some(layer), path, what));
    let lazy = lazy_layers(image).len();
    let top = image.manifest.layers.last();
    // What the hot layer says it adds; what else it has of its own is a difference.
    let recorded = top.and_then(|l| l.annotation(names::LAYER_ADDED));
    let additions = |below: &RootFs<'_>| match recorded.map(|recorded| (recorded, all.additions(lazy, below))) {
        Some((recorded, (paths, found))) if recorded == found.to_string() => paths,
        _ => BTreeSet::new(),
    };
    if top.is_some_and(Descriptor::is_copies) {
        let below = RootFs::of(&converted[..lazy]);
        let added = additions(&below);
        report.added = added.len();
        all.compare(&below, &added, |_, path, what| {
            push(Some(lazy), path, format!("hot layer over changed lower layers: {what}"));
        });
        if from.is_none() {
            report.added_classes = all.classes(&added, |path, what| push(Some(lazy), path, what));
        }
    }
    let Some((source, from)) = from else { return };
    let source_fs = RootFs::of(from);
    let added = additions(&source_fs);
    report.added = added.len();
    report.added_classes = all.classes(&added, |path, what| push(Some(lazy), path, what));
    all.compare(&source_fs, &added, &mut push);
    let pairs = manifest::align(lazy_layers(image), source_layers(source));
    let unknown = pairs.contains(&None);
    for (j, want) in from.iter().enumerate().filter(|(j, _)| !unknown && !pairs.contains(&Some(*j))) {
        let again = from.iter().enumerate().any(|(k, other)| k != j && other.totals.diff_id == want.totals.diff_id);
        if !want.entries.iter().all(|e| landmark::is_ours(&e.path)) && !again {
            push(None, "", format!("layer {j} of the source is left out: it is neither empty nor there twice"));
        }
    }
    for (i, j) in pairs.into_iter().enumerate().filter_map(|(i, j)| Some((i, j?))) {
        let (found, want) = (&converted[i], &from[j]);
        let mut say = |path: &str, what: String| push(Some(i), path, what);
        rootfs::compare_whiteouts(found, want, &mut say);
        blob::moved_whiteouts(want, found, &mut say);
    }
}
