//! `esgz profile push`.

use std::path::PathBuf;

use super::super::output::Output;
use super::super::{Failure, store_failure};
use super::{files, name};
use crate::digest::Digest;
use crate::image::{Image, Reference};
use crate::profile::Profile;
use crate::store::{profiles, referrers};

/// Put a profile beside the image that it is of
///
/// The profile becomes an OCI artifact whose subject is the image's manifest; several profiles of an image are told apart by
/// their names. Where the registry has no referrers API they are listed under the tag sha256-DIGEST. Prints the artifact's
/// digest.
#[derive(Debug, clap::Args)]
#[group(id = "push-args")]
pub(super) struct Args {
    /// Profile to push
    file: PathBuf,
    /// Image: host/repository:tag or oci:DIR:TAG
    image: Reference,
    /// What tells it from other profiles of the image, such as the model or the GPU; a profile of the same name is replaced
    #[arg(long, value_name = "NAME", default_value = profiles::DEFAULT_NAME, value_parser = name)]
    name: String,
    /// Platform to pick from an index
    #[arg(long, value_name = "OS/ARCH", default_value = "linux/amd64")]
    platform: String,
}

pub(super) fn run(args: &Args, out: &Output) -> Result<u8, Failure> {
    let (bytes, profile) = files::read_with_bytes(&args.file)?;
    let failed = |e| store_failure(&e, &args.image);
    // The name must be there: a push makes no layout folder.
    let image = referrers::open(&args.image, false).and_then(|s| s.image(&args.platform)).map_err(failed)?;
    for words in doubts(&profile, &image, &args.image) {
        out.say(format_args!("warning: {words}"));
    }
    let store = referrers::open(&args.image, true).map_err(failed)?;
    let pushed = profiles::push(&*store, &image.descriptor, &args.name, &profile, &bytes).map_err(failed)?;
    for left in &pushed.left {
        out.say(format_args!(
            "warning: the profile that it replaces stays, and a pull takes the one of the two recorded last: {}",
            super::super::chain(left)
        ));
    }
    out.say(format_args!("{}: profile {:?} of image {}", args.image, args.name, image.descriptor.digest));
    out.data(pushed.digest);
    Ok(0)
}

/// What speaks against the profile being one of the image.
pub(super) fn doubts(profile: &Profile, image: &Image, reference: &Reference) -> Vec<String> {
    let header = &profile.header;
    let mut words = Vec::new();
    let of = |d: &Digest| *d == image.descriptor.digest || image.index == Some(*d);
    match &header.image_digest {
        Some(recorded) if !of(recorded) => {
            words
                .push(format!("the profile was recorded in image {recorded}, this one is {}", image.descriptor.digest));
        }
        Some(_) => {}
        None => words.extend(unnamed(header.image.as_deref(), reference)),
    }
    let platform = image.config.platform();
    if !(header.platform.is_empty()
        || platform == header.platform
        || platform.starts_with(&format!("{}/", header.platform)))
    {
        words.push(format!("the profile was recorded on {}, the image is for {platform}", header.platform));
    }
    if header.lost_events > 0 {
        words.push(format!("the profile is incomplete: its recorder lost {} events", header.lost_events));
    }
    words
}

/// What the name of an image tells where its digest is not known. Names of folders and archives tell nothing.
fn unnamed(recorded: Option<&str>, reference: &Reference) -> Option<String> {
    let Some(recorded) = recorded else {
        return Some("the profile does not say which image it was recorded in".into());
    };
    let (Ok(Reference::Registry(of)), Reference::Registry(with)) = (recorded.parse(), reference) else { return None };
    ((of.host.as_str(), of.repository.as_str()) != (with.host.as_str(), with.repository.as_str()))
        .then(|| format!("the profile was recorded in image {of}, this one is {with}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_digest_the_name_tells_the_image() {
        let of = |recorded| unnamed(recorded, &"h.io/a/b:1".parse().expect("a reference"));
        assert!(of(None).is_some_and(|w| w.contains("does not say which image")));
        assert!(of(Some("h.io/a/c:1")).is_some_and(|w| w.contains("h.io/a/c:1, this one is h.io/a/b:1")));
        for same in ["h.io/a/b:2", "oci:dir:1", "a/b"] {
            assert_eq!(of(Some(same)), None, "{same}");
        }
        assert_eq!(unnamed(Some("h.io/a/c:1"), &"oci:dir:1".parse().expect("a reference")), None);
    }
}
