//! Where blobs and images live: a registry, an OCI layout folder.
//!
//! The seam is [`Blobs`] for content and [`Images`] for names. Contracts hold for every store: what comes out was checked
//! against its digest (a short or altered stream is an error at its end, never silently less), `put` is idempotent, and a
//! name or a blob is visible only when it is complete and verified.

use std::io::{self, Read};

use crate::digest::Digest;
use crate::image::{Descriptor, Image, Reference};

pub mod layout;
#[cfg(test)]
pub(crate) mod memory;
pub mod registry;

/// Random access to bytes of a known length.
pub trait ReadAt: Send + Sync {
    /// Length in bytes.
    fn size(&self) -> u64;
    /// Fills `buf` from `offset`; an error if fewer bytes are there.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
}

/// Content by digest.
pub trait Blobs: Send + Sync {
    /// Opens a blob as a stream that fails at its end when length or digest differ from the descriptor.
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, Error>;
    /// Opens a blob for ranged reads. These are not verified: the caller checks what it reads (TOC digest, chunk digests).
    fn open_at(&self, blob: &Descriptor) -> Result<Box<dyn ReadAt>, Error>;
    /// Whether the blob is there.
    fn has(&self, digest: &Digest) -> Result<bool, Error>;
    /// Stores a blob whose digest and size the caller vouches for; the store checks both again.
    fn put(&self, blob: &Descriptor, content: &dyn ReadAt) -> Result<(), Error>;
}

/// Images by name.
pub trait Images: Blobs {
    /// Finds an image manifest (from an index: the one for `platform`, `os/arch[/variant]`) and its config, both verified.
    fn image(&self, platform: &str) -> Result<Image, Error>;
    /// Stores a manifest and gives it the reference's tag. Last step of every write.
    fn put_manifest(&self, media_type: &str, bytes: &[u8]) -> Result<Digest, Error>;
}

/// Opens the store that a reference names. `write`: it will be written to (a layout folder is created when missing, a
/// registry is asked for push rights).
pub fn open(reference: &Reference, write: bool) -> Result<Box<dyn Images>, Error> {
    Ok(match reference {
        Reference::Registry(r) => Box::new(registry::Registry::open(r, write)?),
        Reference::Layout { dir, tag } => Box::new(layout::Layout::open(dir, tag.as_deref(), write)?),
    })
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

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("placeholder")]
pub struct Error;
