//! Placeholder.
use super::{Blobs, Error, Images, ReadAt};
use crate::digest::Digest;
use crate::image::{Descriptor, Image};
use std::io::Read;
/// Placeholder.
pub struct Layout;
impl Layout {
    /// Placeholder.
    pub fn open(_dir: &std::path::Path, _tag: Option<&str>, _write: bool) -> Result<Self, Error> {
        Err(Error)
    }
}
impl Blobs for Layout {
    fn open(&self, _: &Descriptor) -> Result<Box<dyn Read + Send>, Error> {
        Err(Error)
    }
    fn open_at(&self, _: &Descriptor) -> Result<Box<dyn ReadAt>, Error> {
        Err(Error)
    }
    fn has(&self, _: &Digest) -> Result<bool, Error> {
        Err(Error)
    }
    fn put(&self, _: &Descriptor, _: &dyn ReadAt) -> Result<(), Error> {
        Err(Error)
    }
}
impl Images for Layout {
    fn image(&self, _: &str) -> Result<Image, Error> {
        Err(Error)
    }
    fn put_manifest(&self, _: &str, _: &[u8]) -> Result<Digest, Error> {
        Err(Error)
    }
}
