//! Arms: which image under which snapshotter, with what besides.
//!
//! `NAME[@SNAPSHOTTER][,OPTION...]=REF`. `original=REF` is the baseline: overlayfs, one cold and one warm run a round. Any other
//! `NAME=REF` runs cold under stargz; `NAME@overlayfs=REF` (or `@stargz`) and the options ([`ArmOption`]) say otherwise.

use std::path::Path;
use std::str::FromStr;

use super::Error;
use super::evidence::LAZY;
use super::option::{self, ArmOption};
use super::result::{ArmFacts, LayerFacts, Start};
use super::stack::Mode;
use crate::digest::Digest;
use crate::image::reference::RegistryReference;
use crate::image::{Descriptor, Image, Reference, names};

/// The baseline's name.
pub const ORIGINAL: &str = "original";

/// One configuration under benchmark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arm {
    /// Its name.
    pub name: String,
    /// `overlayfs` or `stargz`.
    pub snapshotter: String,
    /// What is done besides, in the order given.
    pub options: Vec<ArmOption>,
    /// The image; its host is replaced by the link's when it is pulled.
    pub image: RegistryReference,
}

impl Arm {
    /// The runs of one round: the baseline's warm run follows its cold one, on the image that it left on disk.
    pub fn starts(&self) -> &'static [Start] {
        if self.name == ORIGINAL {
            &[Start::Cold, Start::Warm]
        } else if self.has(&ArmOption::Disk) {
            &[Start::Warm]
        } else {
            &[Start::Cold]
        }
    }

    /// Whether it has this option.
    pub fn has(&self, option: &ArmOption) -> bool {
        self.options.contains(option)
    }

    /// The profile for a read-ahead inside the container.
    pub fn injected(&self) -> Option<&Path> {
        self.options.iter().find_map(|o| if let ArmOption::Warm(file) = o { Some(file.as_path()) } else { None })
    }

    /// Settings of the stack's daemons.
    pub fn mode(&self) -> Mode {
        option::mode(&self.options)
    }

    /// What is to be known of the arm's image; `named` is the digest that its reference resolves to.
    pub fn facts(&self, image: &Image) -> ArmFacts {
        let mut chain: Option<Digest> = None;
        let layer = |(layer, diff_id): (&Descriptor, &Digest)| {
            let id = chain.map_or(*diff_id, |below| Digest::of(format!("{below} {diff_id}").as_bytes()));
            chain = Some(id);
            LayerFacts {
                digest: layer.digest,
                size: layer.size,
                toc: layer.annotation(names::TOC_DIGEST).is_some(),
                kind: layer.annotation(names::LAYER_KIND).map(Into::into),
                chain: id,
            }
        };
        ArmFacts {
            name: self.name.clone(),
            reference: self.image.to_string(),
            snapshotter: self.snapshotter.clone(),
            manifest: image.descriptor.digest,
            config: image.manifest.config.digest,
            layers: image.manifest.layers.iter().zip(&image.config.diff_ids).map(layer).collect(),
            options: self.options.iter().map(ToString::to_string).collect(),
            predicted: None,
        }
    }

    /// Name of the table row.
    pub fn row(&self, start: Start) -> String {
        match start {
            Start::Cold if self.name == ORIGINAL => format!("{} cold", self.name),
            Start::Cold => self.name.clone(),
            Start::Warm if self.has(&ArmOption::Disk) => self.name.clone(),
            Start::Warm => format!("{} warm", self.name),
        }
    }
}

impl FromStr for Arm {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let fail = |why: String| Error::Arm { found: s.into(), why };
        let form = "expected NAME[@SNAPSHOTTER][,OPTION...]=REF";
        let (left, reference) = s.split_once('=').ok_or_else(|| fail(form.into()))?;
        let (left, options) = left.split_once(',').map_or((left, None), |(left, options)| (left, Some(options)));
        let options: Vec<ArmOption> =
            options.into_iter().flat_map(|o| o.split(',')).map(str::parse).collect::<Result<_, _>>().map_err(fail)?;
        let (name, snapshotter) = match left.split_once('@') {
            Some((name, snapshotter)) => (name, snapshotter),
            None if left == ORIGINAL => (left, "overlayfs"),
            None => (left, LAZY),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
        if name.is_empty() || !name.chars().all(plain) {
            return Err(fail("the name is not letters, digits and [-_.+]".into()));
        }
        if snapshotter != LAZY && snapshotter != "overlayfs" {
            return Err(fail(format!("unknown snapshotter {snapshotter:?}: expected overlayfs or stargz")));
        }
        if name == ORIGINAL && snapshotter != "overlayfs" {
            return Err(fail(
                "\"original\" is the baseline and runs under overlayfs: give this arm another name".into(),
            ));
        }
        if name == ORIGINAL && !options.is_empty() {
            return Err(fail("\"original\" is the baseline and has no options: give this arm another name".into()));
        }
        if let Some(why) = option::conflict(&options, snapshotter) {
            return Err(fail(why));
        }
        match reference.parse().map_err(|e: crate::image::Error| fail(e.to_string()))? {
            Reference::Registry(image) => {
                Ok(Self { name: name.into(), snapshotter: snapshotter.into(), options, image })
            }
            Reference::Layout { .. } | Reference::OciArchive { .. } | Reference::DockerArchive { .. } => {
                Err(fail("the image must be in the stack's registry: host/repository:tag".into()))
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test is what it is for")]
#[path = "arm_tests.rs"]
mod tests;
