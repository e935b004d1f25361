//! `--profile`: a file, or what is beside the image.

use std::path::PathBuf;

use super::platform::Platforms;
use super::profile;
use super::{Failure, store_failure};
use crate::image::Reference;
use crate::profile::Profile;
use crate::store::index::Index;
use crate::store::{self, profiles, referrers};

/// Where a profile comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Profiled {
    File(PathBuf),
    /// From beside the image, by its name where there are several.
    Image(Option<String>),
}

/// Reads the value of `--profile`.
pub(super) fn profiled(text: &str) -> Result<Profiled, String> {
    match text.strip_prefix("from-image").map(|rest| rest.strip_prefix(':').ok_or(rest)) {
        Some(Err("")) => Ok(Profiled::Image(None)),
        Some(Ok(name)) if profiles::is_name(name) => Ok(Profiled::Image(Some(name.into()))),
        Some(Ok(_)) => Err("expected from-image:NAME, the name without spaces".into()),
        _ => Ok(Profiled::File(text.into())),
    }
}

/// Reads profiles and merges them; where an index is meant, those of one platform.
pub(super) fn read(places: &[Profiled], image: &Reference, platform: &Platforms) -> Result<Vec<Profile>, Failure> {
    let apart = matches!(platform, Platforms::Index(_));
    let mut all: Vec<Profile> = Vec::new();
    for place in places {
        let found = match place {
            Profiled::File(path) => vec![profile::read(path)?],
            Profiled::Image(name) => beside(image, platform, name.as_deref())?,
        };
        for next in found {
            match all.iter_mut().find(|p| !apart || p.header.platform == next.header.platform) {
                None => all.push(next),
                Some(first) => first.merge(next),
            }
        }
    }
    Ok(all)
}

/// The profile beside an image; of an index one for each image that has any.
fn beside(reference: &Reference, platform: &Platforms, name: Option<&str>) -> Result<Vec<Profile>, Failure> {
    let failed = |e: store::Error| {
        let hint = format!("see what is there with `esgz profile pull --list {reference}`");
        let failure = store_failure(&e, reference);
        if e.kind() == store::Kind::NotFound { failure.hint(hint) } else { failure }
    };
    let store = referrers::open(reference, false).map_err(failed)?;
    let images = match platform {
        Platforms::One(platform) => vec![store.image(platform).map_err(failed)?.descriptor],
        Platforms::Index(list) => match Index::open(&*store).map_err(failed)? {
            Some(index) => index.select(list).map_err(failed)?.iter().map(|p| p.descriptor.clone()).collect(),
            None => vec![store.manifest(None).map_err(failed)?.descriptor],
        },
    };
    let (mut found, mut missing) = (Vec::new(), None);
    for image in &images {
        let all = profiles::list(&*store, image).map_err(failed)?;
        match profiles::choose(&all, name, &format!("image {}", image.digest)) {
            Ok(chosen) => found.push(profiles::fetch(&*store, chosen).map_err(failed)?.1),
            Err(e) if all.is_empty() => missing = Some(e),
            Err(e) => return Err(failed(e)),
        }
    }
    match missing {
        Some(e) if found.is_empty() => Err(failed(e)),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_file_unless_it_says_otherwise() {
        let image = |name: Option<&str>| Ok(Profiled::Image(name.map(Into::into)));
        assert_eq!(profiled("from-image"), image(None));
        assert_eq!(profiled("from-image:Qwen/Qwen3@L4"), image(Some("Qwen/Qwen3@L4")));
        for file in ["p.json", "./from-image", "from-image.json"] {
            assert_eq!(profiled(file), Ok(Profiled::File(file.into())));
        }
        assert!(profiled("from-image:").is_err() && profiled("from-image:a b").is_err());
    }
}
