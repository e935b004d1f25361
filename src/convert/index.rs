//! The conversion of an index: its images one after the other, each as if it were alone, then the index that lists them.
//!
//! Everything that the images share is made once. The manifests are stored when all images are there and the index last, so
//! that a failure leaves blobs and no name.

use serde::Serialize;
use serde_json::{Value, json};

use super::More;
use super::layers::is_replaced;
use super::reuse::{self, Journal};
use super::{Error, Options, Report, bound, publish};
use crate::digest::Digest;
use crate::image::{Descriptor, names};
use crate::plan::Layout;
use crate::profile::Profile;
use crate::progress::Progress;
use crate::store::index::{Child, Index, Part};
use crate::store::{self, Images};

/// What became of one image of an index.
#[derive(Debug, Clone, Serialize)]
pub struct PartReport {
    /// `os/arch[/variant]`.
    pub platform: String,
    /// What its conversion did.
    #[serde(flatten)]
    pub report: Report,
}

/// What the conversion of an index did.
#[derive(Debug, Clone, Serialize)]
pub struct IndexReport {
    /// Digest of the new index.
    pub digest: Digest,
    /// Digest of the index that was converted.
    pub source: Digest,
    /// The destination had this very index already; nothing was written.
    pub unchanged: bool,
    /// Entries of the source that are no images and were left out.
    pub left_out: Vec<Digest>,
    /// Images, in the order of the index.
    pub images: Vec<PartReport>,
}

/// The result for a source that may be an index.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Converted {
    /// The source is one image.
    Image(Report),
    /// The source is an index.
    Index(IndexReport),
}

/// Converts the images of `platforms`, or all of them when none is named, of the index of `src` into an index at `dst`. What is
/// one image and no index is converted as that. Each platform gets the profile that was recorded on it, and layout plain
/// where there is none.
pub fn convert_index(
    src: &dyn Images,
    dst: &dyn Images,
    profiles: &[Profile],
    platforms: &[String],
    options: &Options,
    progress: &dyn Progress,
) -> Result<Converted, Error> {
    let Some(source) = Index::open(src)? else {
        return single(src, dst, profiles, platforms, options, progress).map(Converted::Image);
    };
    let parts = source.select(platforms)?;
    check(&source, &parts, profiles)?;
    let digest = source.descriptor.digest;
    let left_out: Vec<Digest> = source.others.iter().map(|d| d.digest).collect();
    bound::left_out(&left_out, &digest, progress);

    let (more, none) = (More::of(options)?, More::default());
    let old = existing(dst)?.filter(|_| options.reuse);
    let journal = Journal::at(options.journal.clone(), options.reuse);
    let (mut images, mut children) = (Vec::new(), Vec::new());
    for part in &parts {
        let from = Child::new(src, Some(part.descriptor.clone()), &part.platform);
        let into = Child::new(dst, old.as_ref().and_then(|o| o.of(part)), &part.platform);
        let named = Named { inner: progress, platform: &part.platform };
        let profile = profiles.iter().find(|p| is_of(p, &part.platform));
        let mut options = options.clone();
        if profile.is_none() && options.layout.needs_profile() {
            named.warn("no profile of this platform: layout plain");
            (options.layout, options.fitted) = (Layout::Plain, false);
        }
        let more = if options.layout.has_hot() { &more } else { &none };
        let report = super::one(&from, &into, profile, more, &options, &journal, &named)
            .map_err(|e| Error::Platform { platform: part.platform.clone(), source: Box::new(e) })?;
        images.push(PartReport { platform: part.platform.clone(), report });
        children.push(into);
    }

    let mut raw = source.raw.clone();
    bound::drop_subject(&mut raw, &digest, progress);
    let entries = parts.iter().zip(&children).zip(&images);
    raw["manifests"] = entries.map(|((part, child), image)| entry(part, image.report.digest, child.size())).collect();
    annotate(&mut raw, &digest, options);
    let bytes = raw.to_string().into_bytes();
    let new = Digest::of(&bytes);
    let unchanged = old.is_some_and(|o| o.digest() == new) && images.iter().all(|i| i.report.unchanged);
    if !unchanged {
        for child in &children {
            child.flush()?;
        }
        dst.put_manifest(names::INDEX, &bytes)?;
    }
    Ok(Converted::Index(IndexReport { digest: new, source: digest, unchanged, left_out, images }))
}

/// A source that is one image, which must be one of `platforms` if any is named.
fn single(
    src: &dyn Images,
    dst: &dyn Images,
    profiles: &[Profile],
    platforms: &[String],
    options: &Options,
    progress: &dyn Progress,
) -> Result<Report, Error> {
    let image = src.image(&options.platform)?;
    let platform = image.config.platform();
    if !platforms.is_empty() {
        return Err(store::Error::NoPlatform {
            what: format!("image {}, which is no index,", image.descriptor.digest),
            platform: platforms.join(" and "),
            found: platform,
        }
        .into());
    }
    let profile = match profiles {
        [] => None,
        several => several.iter().find(|p| is_of(p, &platform)).or(several.first()),
    };
    super::convert(src, dst, profile, options, progress)
}

/// Whether a profile was recorded on a platform. The variant does not matter: a profile records paths.
fn is_of(profile: &Profile, platform: &str) -> bool {
    let base = |p: &str| p.split('/').take(2).map(ToOwned::to_owned).collect::<Vec<_>>();
    base(&profile.header.platform) == base(platform)
}

/// Refuses, before anything is read, what cannot be converted as a whole.
fn check(source: &Index, parts: &[&Part], profiles: &[Profile]) -> Result<(), Error> {
    let names = |parts: &mut dyn Iterator<Item = &str>| parts.collect::<Vec<_>>().join(",");
    let is_linux = |p: &str| p.starts_with("linux/");
    if let Some(foreign) = parts.iter().find(|p| !is_linux(&p.platform)) {
        return Err(Error::ForeignPlatform {
            index: source.descriptor.digest,
            platform: foreign.platform.clone(),
            linux: names(&mut source.parts.iter().map(|p| p.platform.as_str()).filter(|p| is_linux(p))),
        });
    }
    if parts.is_empty() {
        return Err(Error::NoImages { index: source.descriptor.digest });
    }
    if !profiles.is_empty() && !parts.iter().any(|part| profiles.iter().any(|p| is_of(p, &part.platform))) {
        return Err(Error::ProfilePlatform {
            recorded: names(&mut profiles.iter().map(|p| p.header.platform.as_str())),
            found: names(&mut parts.iter().map(|p| p.platform.as_str())),
        });
    }
    Ok(())
}

/// What stands behind the destination's name.
enum Existing {
    Image(Descriptor),
    Index(Index),
}

impl Existing {
    fn digest(&self) -> Digest {
        match self {
            Self::Image(descriptor) => descriptor.digest,
            Self::Index(index) => index.descriptor.digest,
        }
    }

    /// What an earlier conversion may have made of an image of the source.
    fn of(&self, part: &Part) -> Option<Descriptor> {
        match self {
            Self::Image(descriptor) => Some(descriptor.clone()),
            Self::Index(index) => {
                let same = |p: &&Part| p.raw.get("platform") == part.raw.get("platform");
                index.parts.iter().find(same).map(|p| p.descriptor.clone())
            }
        }
    }
}

/// The index or image behind the destination's name.
fn existing(dst: &dyn Images) -> Result<Option<Existing>, Error> {
    let found = match Index::open(dst) {
        Ok(Some(index)) => Ok(Existing::Index(index)),
        Ok(None) => dst.manifest(None).map(|d| Existing::Image(d.descriptor)),
        Err(e) => Err(e),
    };
    reuse::usable(found)
}

/// The entry of a converted image: the source's, platform and unknown fields included, without what is no longer true.
fn entry(part: &Part, digest: Digest, size: u64) -> Value {
    let mut raw = part.raw.clone();
    raw["mediaType"] = json!(names::MANIFEST);
    raw["digest"] = json!(digest);
    raw["size"] = json!(size);
    if let Some(fields) = raw.as_object_mut() {
        // The content itself, and where it is also found.
        fields.shift_remove("data");
        fields.shift_remove("urls");
        if let Some(annotations) = fields.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.retain(|key, _| !is_replaced(key));
        }
    }
    raw
}

/// Says in the index what single manifests say too.
fn annotate(raw: &mut Value, source: &Digest, options: &Options) {
    raw["schemaVersion"] = json!(2);
    raw["mediaType"] = json!(names::INDEX);
    if let Some(all) = raw.get_mut("annotations").and_then(Value::as_object_mut) {
        all.retain(|key, _| !is_replaced(key));
    }
    publish::provenance(raw, source, None, options);
}

/// Progress that says which platform it is about.
struct Named<'a> {
    inner: &'a dyn Progress,
    platform: &'a str,
}

impl Progress for Named<'_> {
    fn start(&self, name: &str, total: u64) -> u64 {
        self.inner.start(&format!("{}: {name}", self.platform), total)
    }

    fn advance(&self, task: u64, delta: u64) {
        self.inner.advance(task, delta);
    }

    fn done(&self, task: u64) {
        self.inner.done(task);
    }

    fn warn(&self, message: &str) {
        self.inner.warn(&format!("{}: {message}", self.platform));
    }
}
