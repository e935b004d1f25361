//! What an earlier conversion made already: the image behind the destination's tag, and layers that a journal on this machine
//! remembers, also of a conversion that was cut off before its tag.
//!
//! A layer is known by its key, which covers everything that decides its bytes: the encoder and its options, every raw
//! header and content digest in final order, every chunk boundary. Only equal keys are reused, so that a wrong guess costs
//! time and never changes a byte. Whose source digest and encoder are those of a known layer is read without being
//! compressed, which is where the time goes.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::{Error, HotCodec, LayerReport, Options, Report, publish};
use crate::digest::{Digest, Hasher};
use crate::image::{Descriptor, Image, names};
use crate::plan::{Chunking, HotLayer, LayerIndex, Order};
use crate::profile::{Origin, Profile};
use crate::store::{self, Images};

/// A journal above this size is cut to its newer half.
const JOURNAL_BYTES: u64 = 4 << 20;

/// A layer that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) key: String,
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: Digest,
}

/// The image behind the destination's tag.
pub(super) fn existing(dst: &dyn Images, options: &Options) -> Result<Option<Image>, Error> {
    usable(dst.image(&options.platform))
}

/// What is no usable image counts as none; a store out of reach does not.
pub(super) fn usable<T>(found: Result<T, store::Error>) -> Result<Option<T>, Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(e) => match e.kind() {
            store::Kind::NotFound | store::Kind::Corrupt | store::Kind::Unsupported => Ok(None),
            _ => Err(e.into()),
        },
    }
}

/// Key of a whole conversion: source, encoder and its options, layout, and of the profile what can matter.
pub(super) fn image_key(
    image: &Image,
    profile: Option<&Profile>,
    startup: Option<&Digest>,
    program: Option<&Digest>,
    options: &Options,
) -> String {
    let mut h = Hasher::default();
    let mut field = |bytes: &[u8]| {
        h.update(&(bytes.len() as u64).to_le_bytes());
        h.update(bytes);
    };
    field(image.descriptor.digest.to_string().as_bytes());
    field(publish::encoder(options).as_bytes());
    field(options.layout.to_string().as_bytes());
    if options.hot_layer == HotLayer::Move {
        field(b"moved");
    }
    if options.hot_codec == HotCodec::Gzip {
        field(b"gzip");
    }
    // What a plan took in or left out; the usual rule leaves the key as it was before there was another.
    if !options.rule.is_usual() {
        field(b"rule");
        field(&serde_json::to_vec(&options.rule).unwrap_or_default());
    }
    if let Some(digest) = startup {
        field(b"startup");
        field(digest.to_string().as_bytes());
    }
    if let Some(digest) = program {
        field(b"embedded");
        field(digest.to_string().as_bytes());
    }
    field(&[u8::from(options.keep_layers)]);
    if profile.is_some() && options.layout.has_hot() {
        field(b"carried");
    }
    for file in profile.iter().flat_map(|p| &p.files).filter(|f| f.origin == Origin::Image) {
        // Strings and numbers: nothing that JSON cannot hold.
        field(&serde_json::to_vec(file).unwrap_or_default());
    }
    h.finish().to_string()
}

/// The report of a conversion whose result is there already, whole.
pub(super) fn unchanged(
    dst: &dyn Images,
    old: &Image,
    key: &str,
    source: &Image,
    options: &Options,
) -> Result<Option<Report>, Error> {
    // One image of an index is not what the tag is to stand for.
    if old.manifest.annotation(names::KEY) != Some(key) || old.index.is_some() {
        return Ok(None);
    }
    for layer in old.manifest.layers.iter().chain([&old.manifest.config]) {
        if !dst.has(&layer.digest)? {
            return Ok(None);
        }
    }
    let layers = old.manifest.layers.iter().map(LayerReport::reused).collect();
    Ok(Some(Report {
        digest: old.descriptor.digest,
        source: source.descriptor.digest,
        layout: options.layout,
        fit: None,
        mismatches: Vec::new(),
        startup: None,
        unchanged: true,
        layers,
    }))
}

/// For each layer of the source the one that it probably becomes, if the destination has it.
pub(super) fn candidates(
    dst: &dyn Images,
    old: Option<&Image>,
    journal: &Journal,
    image: &Image,
    options: &Options,
) -> Result<Vec<Option<Known>>, Error> {
    let encoder = publish::encoder(options);
    let mut by_source: HashMap<String, Known> = HashMap::new();
    for (source, known) in journal.read(&encoder) {
        by_source.insert(source, known);
    }
    if let Some(old) = old.filter(|o| o.manifest.annotation(names::ENCODER) == Some(&encoder)) {
        for (descriptor, diff_id) in old.manifest.layers.iter().zip(&old.config.diff_ids) {
            let both = descriptor.annotation(names::LAYER_SOURCE).zip(descriptor.annotation(names::LAYER_KEY));
            if let Some((source, key)) = both {
                let known = Known { key: key.into(), descriptor: descriptor.clone(), diff_id: *diff_id };
                by_source.insert(source.into(), known);
            }
        }
    }
    let mut out = Vec::new();
    for layer in &image.manifest.layers {
        let known = by_source.get(&layer.digest.to_string()).cloned();
        out.push(match known {
            Some(k) if dst.has(&k.descriptor.digest)? => Some(k),
            _ => None,
        });
    }
    Ok(out)
}

/// Key of a layer in its final order.
pub(super) fn layer_key(encoder: &str, index: &LayerIndex, order: &Order, chunking: &Chunking) -> String {
    let mut h = Hasher::default();
    h.update(encoder.as_bytes());
    for part in [&order.front, &order.rest] {
        // The landmark stands between the two.
        h.update(&(part.len() as u64).to_le_bytes());
        for &i in part {
            let entry = &index.entries[i];
            h.update(&(entry.raw.len() as u64).to_le_bytes());
            h.update(&entry.raw);
            if let Some(digest) = index.digests[i] {
                h.update(digest.to_string().as_bytes());
                for cut in chunking.of(entry) {
                    h.update(&(cut.size << 1 | u64::from(cut.hot)).to_le_bytes());
                }
            }
        }
    }
    h.finish().to_string()
}

/// Layers that were stored from this machine, a line of JSON each. A line that makes no sense is passed over: the journal
/// saves time and is never needed. Lines of its own are known also without a file: the images of an index share their layers.
#[derive(Debug)]
pub(super) struct Journal {
    path: Option<PathBuf>,
    /// Whether what is in the file already counts.
    reuse: bool,
    own: Mutex<String>,
}

impl Journal {
    pub(super) fn at(path: Option<PathBuf>, reuse: bool) -> Self {
        Self { path, reuse, own: Mutex::default() }
    }

    /// What it remembers of this encoder, by source layer digest, oldest first.
    fn read(&self, encoder: &str) -> Vec<(String, Known)> {
        let mut text = String::new();
        if let Some(path) = self.path.as_ref().filter(|_| self.reuse)
            && let Ok(file) = File::open(path)
        {
            // More than `append` ever leaves there is not ours.
            let _partial = file.take(2 * JOURNAL_BYTES).read_to_string(&mut text);
        }
        text.push('\n');
        text.push_str(&self.own.lock().unwrap_or_else(PoisonError::into_inner));
        let line = |line: &str| {
            let value: Value = serde_json::from_str(line).ok()?;
            let text = |key: &str| value.get(key).and_then(Value::as_str);
            if text("encoder") != Some(encoder) {
                return None;
            }
            let descriptor = Descriptor::from_json(value.get("layer")?, "journal").ok()?;
            let known = Known { key: text("key")?.into(), descriptor, diff_id: text("diff_id")?.parse().ok()? };
            Some((text("source")?.to_owned(), known))
        };
        text.lines().filter_map(line).collect()
    }

    /// Remembers a stored layer.
    pub(super) fn append(&self, encoder: &str, source: &Digest, known: &Known) -> io::Result<()> {
        let line = json!({
            "encoder": encoder, "source": source, "key": known.key, "diff_id": known.diff_id,
            "layer": known.descriptor.to_json(),
        });
        let line = format!("{line}\n");
        self.own.lock().unwrap_or_else(PoisonError::into_inner).push_str(&line);
        let Some(path) = &self.path else { return Ok(()) };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        if fs::metadata(path).is_ok_and(|m| m.len() > JOURNAL_BYTES) {
            halve(path)?;
        }
        // One write, so that two conversions at a time do not mix their lines.
        OpenOptions::new().append(true).create(true).open(path)?.write_all(line.as_bytes())
    }
}

/// Drops the older half of the lines.
fn halve(path: &Path) -> io::Result<()> {
    let text = fs::read_to_string(path)?;
    let lines: Vec<&str> = text.lines().collect();
    let mut new = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    for line in &lines[lines.len() / 2..] {
        writeln!(new, "{line}")?;
    }
    new.persist(path)?;
    Ok(())
}
