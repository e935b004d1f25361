//! Why a conversion or one of its layers fails.

use std::path::PathBuf;

use super::MAX_LAYERS;
use crate::digest::Digest;
use crate::plan::Layout;
use crate::{estargz, image, store, tar};

/// Why a conversion stopped. Nothing was tagged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A manifest or config is wrong.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// A layer's archive cannot be read.
    #[error("layer {layer} ({digest})")]
    Layer {
        /// Position, lowest is 0.
        layer: usize,
        /// Its digest.
        digest: Digest,
        /// The cause.
        #[source]
        source: Box<LayerError>,
    },
    /// The layers cannot be stacked.
    #[error("{layers} layers: at most {MAX_LAYERS} can be mounted")]
    TooManyLayers {
        /// Number of layers of the result.
        layers: usize,
    },
    /// The profile is one of another image.
    #[error("the profile is one of another image: {matched} of {profiled} profiled bytes are in files of this one")]
    ForeignProfile {
        /// Bytes matched.
        matched: u64,
        /// Bytes profiled.
        profiled: u64,
    },
    /// An image of an index failed.
    #[error("platform {platform}")]
    Platform {
        /// `os/arch[/variant]`.
        platform: String,
        /// The cause.
        #[source]
        source: Box<Self>,
    },
    /// An image that is not for Linux.
    #[error("index {index} has an image for {platform}: expected linux, which alone has eStargz")]
    ForeignPlatform {
        /// Digest of the index.
        index: Digest,
        /// What it is for.
        platform: String,
        /// The platforms that can be converted, with commas between.
        linux: String,
    },
    /// An index without images.
    #[error("index {index} has no image")]
    NoImages {
        /// Digest of the index.
        index: Digest,
    },
    /// No image is for the platform that the profile was recorded on.
    #[error("the profile was recorded on {recorded}: the images are for {found}")]
    ProfilePlatform {
        /// Platforms of the profiles.
        recorded: String,
        /// Platforms of the images.
        found: String,
    },
    /// A program that cannot be embedded.
    #[error("the program {path:?} cannot be embedded: {why}")]
    Program {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An image that starts nothing.
    #[error("the image has neither entrypoint nor command: there is nothing to read ahead of")]
    NothingToWrap,
    /// A layout that needs a profile, without one.
    #[error("layout {0} needs a profile")]
    NoProfile(Layout),
    /// A start-up layer that cannot be used.
    #[error("start-up layer {}", path.display())]
    Startup {
        /// The archive.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<LayerError>,
    },
    /// The hot layer could not be made.
    #[error("writing the hot layer")]
    Hot(#[source] Box<LayerError>),
}

/// Why one layer cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The archive.
    #[error(transparent)]
    Tar(#[from] tar::Error),
    /// The eStargz side.
    #[error(transparent)]
    Estargz(#[from] estargz::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Files of this machine.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A media type that is not handled.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// The content is not what the config says.
    #[error("its content has diffID {found}: the config says {expected}")]
    DiffId {
        /// As computed.
        found: Digest,
        /// As recorded.
        expected: Digest,
    },
    /// A hard link that a lazy mount cannot follow, or would follow to other content.
    #[error("hard link {path:?} to {target:?}: {why}")]
    Link {
        /// The link.
        path: String,
        /// What it links to.
        target: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An entry below a symlink.
    #[error(
        "{path:?} lies below {parent:?}, which is no folder: an ordinary unpack goes through it, a lazy mount cannot"
    )]
    NoFolder {
        /// The entry.
        path: String,
        /// What is above it.
        parent: String,
    },
    /// A file of a start-up layer in an unknown folder.
    #[error("{path:?} lies in {parent:?}, which neither the image nor the archive lists as a folder")]
    NoParent {
        /// The file.
        path: String,
        /// A folder above it.
        parent: String,
    },
    /// Another layer failed first.
    #[error("stopped because another layer failed")]
    Stopped,
}
