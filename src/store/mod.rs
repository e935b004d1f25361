//! Where blobs and images live: a registry, an OCI layout folder, an archive of one image.
//!
//! The seam is [`Blobs`] for content and [`Images`] for names. Contracts hold for every store: what comes out was checked
//! against its digest (a short or altered stream is an error at its end, never silently less), `put` is idempotent, and a
//! name or a blob is visible only when it is complete and verified.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::image::{Descriptor, Image, Reference};

pub mod archive;
mod file;
pub mod index;
pub mod layout;
#[cfg(test)]
pub(crate) mod memory;
pub mod profiles;
pub mod referrers;
pub mod registry;
mod select;
mod verified;

pub use file::nameless;
pub use select::Document;

/// Random access to bytes of a known length.
pub trait ReadAt: Send + Sync {
    /// Length in bytes.
    fn size(&self) -> u64;
    /// Fills `buf` from `offset`; an error if fewer bytes are there.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// The file without a name that holds these bytes and nothing else, to be kept: a store on the same file system gives it a
    /// name where it would copy it.
    fn give_away(&self) -> Option<&File> {
        None
    }
}

/// A blob that is still being made.
pub trait Growing: Send + Sync {
    /// Reads what there is from `offset`, at least a byte; waits while there is nothing. 0 at the end; an error where there
    /// will be none.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// What it is; known when [`Growing::read_at`] has told the end.
    fn descriptor(&self) -> Option<Descriptor>;
}

/// Content by digest.
pub trait Blobs: Send + Sync {
    /// Opens a blob as a stream that fails at its end when length or digest differ from the descriptor.
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, Error>;
    /// Opens a blob for ranged reads. These are not verified: the caller checks what it reads (TOC digest, chunk digests).
    /// A registry is not asked before the first read, which saves a round trip; a missing blob may show only then.
    fn open_at(&self, blob: &Descriptor) -> Result<Box<dyn ReadAt>, Error>;
    /// Whether the blob is there.
    fn has(&self, digest: &Digest) -> Result<bool, Error>;
    /// Stores a blob whose digest and size the caller vouches for; the store checks both again.
    fn put(&self, blob: &Descriptor, content: &dyn ReadAt) -> Result<(), Error>;
    /// Takes a blob in while it is being made, for a store to which that saves time; the others say `false`. One attempt: what
    /// fails or says `false` has stored nothing, and [`Blobs::put`] is there for the finished blob.
    fn put_growing(&self, _blob: &dyn Growing) -> Result<bool, Error> {
        Ok(false)
    }
}

/// Images by name.
pub trait Images: Blobs {
    /// Finds an image manifest (from an index: the one for `platform`, `os/arch[/variant]`) and its config, both verified.
    fn image(&self, platform: &str) -> Result<Image, Error>;
    /// The manifest or index that the name stands for, or with `of` the one of that descriptor, verified.
    fn manifest(&self, of: Option<&Descriptor>) -> Result<Document, Error>;
    /// Stores a manifest under its digest alone: one that an index to come will list.
    fn put_part(&self, media_type: &str, bytes: &[u8]) -> Result<Digest, Error>;
    /// Stores a manifest or index and gives it the reference's tag. Last step of every write.
    fn put_manifest(&self, media_type: &str, bytes: &[u8]) -> Result<Digest, Error>;
}

/// Opens the store that a reference names. `write`: it will be written to (a layout folder is created when missing, a
/// registry is asked for push rights).
pub fn open(reference: &Reference, write: bool) -> Result<Box<dyn Images>, Error> {
    Ok(match reference {
        Reference::Registry(r) => Box::new(registry::Registry::open(r, write)?),
        Reference::Layout { dir, tag } => Box::new(layout::Layout::open(dir, tag.as_deref(), write)?),
        Reference::OciArchive { file, tag } if write => Box::new(archive::Writer::create(file, tag.as_deref())?),
        Reference::OciArchive { file, tag } => Box::new(archive::Archive::oci(file, tag.as_deref())?),
        Reference::DockerArchive { file, name } if !write => Box::new(archive::Archive::docker(file, name.as_deref())?),
        Reference::DockerArchive { .. } => {
            return Err(Error::Unsupported {
                what: format!("writing to {reference}"),
                why: "that format cannot carry eStargz layers: write to a registry, oci:DIR:TAG or oci-archive:FILE"
                    .into(),
            });
        }
    })
}

/// Opens the store that the image of `src` is to be copied or converted to; blobs that both have in one registry are taken over
/// there.
pub fn open_beside(src: &Reference, dst: &Reference) -> Result<Box<dyn Images>, Error> {
    match (src, dst) {
        (Reference::Registry(from), Reference::Registry(to)) => {
            Ok(Box::new(registry::Registry::open(to, true)?.mounting(from)))
        }
        _ => open(dst, true),
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|o| self.get(o..)?.get(..buf.len()));
        buf.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_exact_at(buf, offset)
    }
}

/// A file of a length that does not change while it is read.
#[derive(Debug)]
pub struct FileAt {
    file: File,
    size: u64,
}

impl FileAt {
    /// Takes the length as it is now.
    pub fn new(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file, size })
    }
}

impl ReadAt for FileAt {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such image or blob.
    #[error("{what} does not exist in {place}{why}")]
    NotFound {
        /// Name or digest.
        what: String,
        /// The store.
        place: String,
        /// What is there instead, in brackets, where that is known.
        why: String,
    },
    /// The index has no image for the platform.
    #[error("{what} has no image for {platform}: found {found}")]
    NoPlatform {
        /// The image.
        what: String,
        /// What was asked for.
        platform: String,
        /// The platforms of the index.
        found: String,
    },
    /// The store does not let us.
    #[error("access to {place} denied: {why}")]
    Denied {
        /// Host and repository.
        place: String,
        /// What it said, and whose credentials were used.
        why: String,
    },
    /// Content that is not what its digest or length promises.
    #[error("{what} is corrupt: expected {expected}, found {found}")]
    Corrupt {
        /// Which content.
        what: String,
        /// Digest or size as promised.
        expected: String,
        /// As found.
        found: String,
    },
    /// JSON of a wrong shape.
    #[error("{what}: {why}")]
    Malformed {
        /// Which document.
        what: String,
        /// Expected and found.
        why: String,
    },
    /// Something that this program or the other side cannot do.
    #[error("{what} is not supported: {why}")]
    Unsupported {
        /// What.
        what: String,
        /// Expected and found.
        why: String,
    },
    /// No space.
    #[error("no space left for {needed} bytes at {}", path.display())]
    Full {
        /// The file or folder.
        path: PathBuf,
        /// Bytes of what was being written.
        needed: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file system, or content that could not be read.
    #[error("{what} failed")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The registry could not be asked.
    #[error("could not {what}")]
    Http {
        /// What was being done.
        what: String,
        /// What the client said.
        #[source]
        source: crate::http::Error,
    },
    /// A manifest or config that is not one.
    #[error(transparent)]
    Image(#[from] crate::image::Error),
}

/// What sort of failure it was, for those who decide or advise by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Not there: check the name.
    NotFound,
    /// Not allowed: log in, or ask for rights.
    Denied,
    /// Not what it should be: fetch or build again.
    Corrupt,
    /// Not something we or they can do.
    Unsupported,
    /// Out of reach or out of order: may work later.
    Unreachable,
    /// No certificate authority, or one that does not know the server.
    Untrusted,
    /// No space left.
    Full,
    /// Anything else.
    Other,
}

impl Error {
    /// What sort of failure it was.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } | Self::NoPlatform { .. } => Kind::NotFound,
            Self::Denied { .. } => Kind::Denied,
            Self::Corrupt { .. } | Self::Malformed { .. } => Kind::Corrupt,
            Self::Unsupported { .. } | Self::Image(crate::image::Error::MediaType { .. }) => Kind::Unsupported,
            Self::Full { .. } => Kind::Full,
            Self::Image(_) => Kind::Corrupt,
            Self::Http { source, .. } => Self::kind_of(source),
            Self::Io { source, .. } => {
                let ours = source.get_ref().and_then(|e| e.downcast_ref::<Self>()).map(Self::kind);
                let http = || source.get_ref().and_then(|e| e.downcast_ref()).map(Self::kind_of);
                ours.or_else(http).unwrap_or(Kind::Other)
            }
        }
    }

    fn kind_of(error: &crate::http::Error) -> Kind {
        match error {
            crate::http::Error::NoCertificates { .. } | crate::http::Error::Certificate { .. } => Kind::Untrusted,
            e if e.is_temporary() => Kind::Unreachable,
            _ => Kind::Other,
        }
    }

    /// Whether the same may succeed later.
    fn is_temporary(&self) -> bool {
        self.kind() == Kind::Unreachable
    }

    /// An error of reading; ours if one of ours is inside.
    fn from_io(error: io::Error, what: &str) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => ours,
            Err(source) => Self::Io { what: format!("reading {what}"), source },
        }
    }
}

impl From<Error> for io::Error {
    /// Keeps the error inside, under the nearest kind.
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            Kind::NotFound => io::ErrorKind::NotFound,
            Kind::Denied => io::ErrorKind::PermissionDenied,
            Kind::Corrupt => io::ErrorKind::InvalidData,
            Kind::Unsupported => io::ErrorKind::Unsupported,
            Kind::Full => io::ErrorKind::StorageFull,
            Kind::Unreachable | Kind::Untrusted | Kind::Other => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod contract;
