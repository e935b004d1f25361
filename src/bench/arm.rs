//! Arms: which image under which snapshotter, and in what order they run.
//!
//! `original=REF` is the baseline: overlayfs, one cold and one warm run a round. Any other `NAME=REF` runs cold under stargz;
//! `NAME@overlayfs=REF` (or `@stargz`) says otherwise.

use std::str::FromStr;

use super::Error;
use super::evidence::LAZY;
use super::result::{ArmFacts, LayerFacts, Start};
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
    /// The image; its host is replaced by the link's when it is pulled.
    pub image: RegistryReference,
}

impl Arm {
    /// The runs of one round: the baseline's warm run follows its cold one, on the image that it left on disk.
    pub fn starts(&self) -> &'static [Start] {
        if self.name == ORIGINAL { &[Start::Cold, Start::Warm] } else { &[Start::Cold] }
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
            options: Vec::new(),
            predicted: None,
        }
    }

    /// Name of the table row.
    pub fn row(&self, start: Start) -> String {
        match start {
            Start::Cold if self.name == ORIGINAL => format!("{} cold", self.name),
            Start::Cold => self.name.clone(),
            Start::Warm => format!("{} warm", self.name),
        }
    }
}

impl FromStr for Arm {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let fail = |why: String| Error::Arm { found: s.into(), why };
        let (left, reference) =
            s.split_once('=').ok_or_else(|| fail("expected NAME=REF or NAME@SNAPSHOTTER=REF".into()))?;
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
        match reference.parse().map_err(|e: crate::image::Error| fail(e.to_string()))? {
            Reference::Registry(image) => Ok(Self { name: name.into(), snapshotter: snapshotter.into(), image }),
            Reference::Layout { .. } | Reference::OciArchive { .. } | Reference::DockerArchive { .. } => {
                Err(fail("the image must be in the stack's registry: host/repository:tag".into()))
            }
        }
    }
}

/// The arms of a round (from 1): all of them, starting one further each time, so that none is always first.
pub fn order(arms: usize, round: u32) -> Vec<usize> {
    let first = usize::try_from(round.saturating_sub(1)).unwrap_or(0) % arms.max(1);
    (0..arms).map(|i| (i + first) % arms).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test is what it is for")]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides_the_snapshotter() {
        let arm = |s: &str| s.parse::<Arm>().map(|a| (a.name, a.snapshotter, a.image.to_string()));
        let ok = |n: &str, s: &str, r: &str| Some((n.to_owned(), s.to_owned(), r.to_owned()));
        assert_eq!(arm("original=127.0.0.1:5070/m:o").ok(), ok("original", "overlayfs", "127.0.0.1:5070/m:o"));
        assert_eq!(arm("hot=127.0.0.1:5070/m:h").ok(), ok("hot", "stargz", "127.0.0.1:5070/m:h"));
        assert_eq!(arm("x@overlayfs=localhost/m").ok(), ok("x", "overlayfs", "localhost/m:latest"));
        for bad in [
            "hot",
            "=localhost/m",
            "a b=localhost/m",
            "x@soci=localhost/m",
            "original@stargz=localhost/m",
            "x=oci:dir",
            "x=vllm",
        ] {
            assert!(bad.parse::<Arm>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_arm_is_first_in_turn() {
        assert_eq!(order(3, 1), [0, 1, 2]);
        assert_eq!(order(3, 2), [1, 2, 0]);
        assert_eq!(order(3, 3), [2, 0, 1]);
        assert_eq!(order(3, 4), [0, 1, 2]);
        assert_eq!(order(0, 1), Vec::<usize>::new());
    }

    #[test]
    fn only_the_original_is_also_run_warm() {
        let original: Arm = "original=localhost/m".parse().unwrap();
        assert_eq!(
            original.starts().iter().map(|s| original.row(*s)).collect::<Vec<_>>(),
            ["original cold", "original warm"]
        );
        let other: Arm = "hot=localhost/m".parse().unwrap();
        assert_eq!(other.starts().iter().map(|s| other.row(*s)).collect::<Vec<_>>(), ["hot"]);
    }
}
