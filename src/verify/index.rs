//! An index against its source: each image against the one of its platform, and what the index says of them.

use serde::Serialize;

use super::{Error, Options, Problem, Report, Say, verify};
use crate::digest::Digest;
use crate::image::names;
use crate::progress::Progress;
use crate::store::Images;
use crate::store::index::{Child, Index, Part};

/// One image of an index.
#[derive(Debug, Clone, Serialize)]
pub struct PartReport {
    /// `os/arch[/variant]`.
    pub platform: String,
    /// What was examined and found.
    #[serde(flatten)]
    pub report: Report,
}

/// What was examined of an index and what was found.
#[derive(Debug, Clone, Serialize)]
pub struct IndexReport {
    /// Digest of the source's index, when there was a source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Digest>,
    /// Digest of the index that was verified.
    pub digest: Digest,
    /// Its images that were examined.
    pub images: Vec<PartReport>,
    /// What is wrong with the index itself.
    pub problems: Vec<Problem>,
}

/// The result for what may be an index.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Verified {
    /// One image.
    Image(Report),
    /// An index.
    Index(IndexReport),
}

/// Verifies the images of `platforms`, or all of them when none is named, of the index of `dst` against those of `src`, or in
/// themselves alone. Where neither is an index, their images are compared.
pub fn verify_index(
    src: Option<&dyn Images>,
    dst: &dyn Images,
    platforms: &[String],
    options: &Options,
    progress: &dyn Progress,
) -> Result<Verified, Error> {
    let source = src.map(Index::open).transpose()?.flatten();
    let Some(index) = Index::open(dst)? else {
        let Some(source) = source else { return verify(src, dst, options, progress).map(Verified::Image) };
        let mut problems = Vec::new();
        let what = format!("one image: the source is an index of {}", listed(&source.parts));
        Say { layer: None, out: &mut problems }.say("", what);
        let digest = dst.manifest(None)?.descriptor.digest;
        return Ok(Verified::Index(IndexReport {
            source: Some(source.descriptor.digest),
            digest,
            images: Vec::new(),
            problems,
        }));
    };
    let mut problems = Vec::new();
    let mut say = Say { layer: None, out: &mut problems };
    check(&index, &mut say);
    let pairs = match (&source, src) {
        (Some(source), _) => pairs(source, &index, platforms, &mut say)?,
        (None, Some(_)) => {
            say.say("", format!("an index of {}: the source is one image", listed(&index.parts)));
            Vec::new()
        }
        (None, None) => index.select(platforms)?.into_iter().map(|part| (None, part)).collect(),
    };
    let mut images = Vec::new();
    for (from, part) in pairs {
        let from = src.zip(from).map(|(src, from)| Child::new(src, Some(from.descriptor.clone()), &from.platform));
        let into = Child::new(dst, Some(part.descriptor.clone()), &part.platform);
        let report = verify(from.as_ref().map(|c| c as &dyn Images), &into, options, progress)
            .map_err(|e| Error::Platform { platform: part.platform.clone(), source: Box::new(e) })?;
        images.push(PartReport { platform: part.platform.clone(), report });
    }
    let (source, digest) = (source.map(|s| s.descriptor.digest), index.descriptor.digest);
    Ok(Verified::Index(IndexReport { source, digest, images, problems }))
}

fn listed(parts: &[Part]) -> String {
    parts.iter().map(|p| p.platform.as_str()).collect::<Vec<_>>().join(", ")
}

/// What an index says that needs no source.
fn check(index: &Index, say: &mut Say<'_>) {
    let found = index.raw.get("mediaType").and_then(|t| t.as_str()).unwrap_or("absent");
    if found != names::INDEX {
        say.say("", format!("the index has media type {found:?}: expected {:?}", names::INDEX));
    }
    for other in &index.others {
        let about = other.annotation(names::REFERENCE_DIGEST);
        if about.is_some_and(|a| index.parts.iter().all(|p| p.descriptor.digest.to_string() != a)) {
            let about = about.unwrap_or_default();
            say.say("", format!("entry {} is about {about}: the index has no such image", other.digest));
        }
    }
}

/// Each image of the source with the one of the same platform.
fn pairs<'a>(
    source: &'a Index,
    index: &'a Index,
    platforms: &[String],
    say: &mut Say<'_>,
) -> Result<Vec<(Option<&'a Part>, &'a Part)>, Error> {
    let want = source.descriptor.digest.to_string();
    if let Some(recorded) = index.raw.get("annotations").and_then(|a| a.get(names::SOURCE))
        && recorded.as_str() != Some(&want)
    {
        say.say("", format!("annotation {} is {recorded}: the source is {want}", names::SOURCE));
    }
    let mut left: Vec<Option<&Part>> = index.parts.iter().map(Some).collect();
    let (mut pairs, mut places) = (Vec::new(), Vec::new());
    for from in source.select(platforms)? {
        // The whole platform, `os.version` and `os.features` included.
        let same = |p: Option<&Part>| p.is_some_and(|p| p.raw.get("platform") == from.raw.get("platform"));
        match left.iter().position(|p| same(*p)) {
            Some(i) => {
                places.push(i);
                pairs.extend(left[i].take().map(|part| (Some(from), part)));
            }
            None => say.say("", format!("no image for {}: the source has one", from.platform)),
        }
    }
    if !places.is_sorted() {
        say.say("", format!("the images are in the order {}: the source's is another", listed(&index.parts)));
    }
    for extra in left.into_iter().flatten().filter(|_| platforms.is_empty()) {
        say.say("", format!("an image for {}: the source has none", extra.platform));
    }
    Ok(pairs)
}
