//! Test support: one image in memory, with content that can be damaged behind its digest.

use std::collections::HashMap;
use std::io::{self, Cursor, Read};
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use super::{Blobs, Document, Error, Growing, Images, ReadAt, select};
use crate::digest::Digest;
use crate::image::{Descriptor, Image, names};

/// One image.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    blobs: Mutex<HashMap<Digest, Vec<u8>>>,
    manifest: Mutex<Option<Digest>>,
    written: Mutex<u64>,
    grown: Mutex<Grown>,
}

/// What became of blobs that were offered while they were made.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grown {
    /// Break off after some bytes.
    pub(crate) breaks: bool,
    /// Offers.
    pub(crate) offered: usize,
    /// Blobs that came in whole.
    pub(crate) whole: usize,
}

fn locked<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// An image of layers: media type, blob and its uncompressed archive.
    pub(crate) fn image_of(layers: &[(&str, Vec<u8>, Vec<u8>)]) -> Self {
        let store = Self::default();
        let diff_ids: Vec<_> = layers.iter().map(|(_, _, tar)| Digest::of(tar)).collect();
        let history: Vec<_> = layers.iter().map(|_| json!({ "created_by": "test" })).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "created": "2024-01-01T00:00:00Z", "config": { "Cmd": ["x"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids }, "history": history,
        });
        let config = store.add(names::CONFIG, config.to_string().into_bytes());
        let layers: Vec<_> = layers.iter().map(|(t, blob, _)| store.add(t, blob.clone()).to_json()).collect();
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": names::MANIFEST, "config": config.to_json(), "layers": layers });
        store.put_manifest(names::MANIFEST, manifest.to_string().as_bytes()).expect("memory");
        store
    }

    /// An image of gzip layers.
    pub(crate) fn of(archives: &[Vec<u8>]) -> Self {
        let gzip = |tar: &[u8]| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            io::Write::write_all(&mut out, tar).and_then(|()| out.finish()).expect("memory")
        };
        let layers: Vec<_> = archives.iter().map(|tar| (names::LAYER_GZIP, gzip(tar), tar.clone())).collect();
        Self::image_of(&layers)
    }

    /// Adds a blob.
    pub(crate) fn add(&self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
        locked(&self.blobs).insert(descriptor.digest, bytes);
        descriptor
    }

    /// The bytes of a blob.
    pub(crate) fn bytes(&self, digest: &Digest) -> Vec<u8> {
        locked(&self.blobs)[digest].clone()
    }

    /// Puts other bytes behind a digest.
    pub(crate) fn damage(&self, digest: &Digest, bytes: Vec<u8>) {
        locked(&self.blobs).insert(*digest, bytes);
    }

    /// Bytes of the blobs that were put and not there before.
    pub(crate) fn written(&self) -> u64 {
        *locked(&self.written)
    }

    /// What became of growing blobs so far.
    pub(crate) fn grown(&self) -> Grown {
        *locked(&self.grown)
    }

    /// A store in which uploads of growing blobs break off.
    pub(crate) fn breaking() -> Self {
        Self { grown: Mutex::new(Grown { breaks: true, ..Grown::default() }), ..Self::default() }
    }

    /// Loses a blob.
    pub(crate) fn remove(&self, digest: &Digest) {
        locked(&self.blobs).remove(digest);
    }

    /// Forgets which manifest is the image, as if a conversion had been cut off before its tag.
    pub(crate) fn untag(&self) {
        *locked(&self.manifest) = None;
    }

    /// Changes the manifest; the new one is right about itself.
    pub(crate) fn edit_manifest(&self, edit: impl FnOnce(&mut serde_json::Value)) {
        let mut manifest = self.image("").expect("an image").manifest.raw;
        edit(&mut manifest);
        self.put_manifest(names::MANIFEST, manifest.to_string().as_bytes()).expect("memory");
    }

    fn get(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        locked(&self.blobs).get(digest).cloned().ok_or_else(|| missing(digest))
    }
}

fn missing(digest: &Digest) -> Error {
    Error::NotFound { what: format!("blob {digest}"), place: "memory".into(), why: String::new() }
}

impl Blobs for Memory {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, Error> {
        let bytes = self.get(&blob.digest)?;
        let right = Digest::of(&bytes) == blob.digest && bytes.len() as u64 == blob.size;
        Ok(Box::new(Cursor::new(bytes).chain(End { right })))
    }

    fn open_at(&self, blob: &Descriptor) -> Result<Box<dyn ReadAt>, Error> {
        Ok(Box::new(self.get(&blob.digest)?))
    }

    fn has(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(locked(&self.blobs).contains_key(digest))
    }

    fn put(&self, blob: &Descriptor, content: &dyn ReadAt) -> Result<(), Error> {
        let mut bytes = vec![0; usize::try_from(content.size()).expect("a small blob")];
        content.read_exact_at(&mut bytes, 0).expect("a whole blob");
        assert_eq!((Digest::of(&bytes), bytes.len() as u64), (blob.digest, blob.size), "a right descriptor");
        if locked(&self.blobs).insert(blob.digest, bytes).is_none() {
            *locked(&self.written) += blob.size;
        }
        Ok(())
    }

    fn put_growing(&self, blob: &dyn Growing) -> Result<bool, Error> {
        let breaks = {
            let mut grown = locked(&self.grown);
            grown.offered += 1;
            grown.breaks
        };
        let (mut bytes, mut piece) = (Vec::new(), [0; 700]);
        let failed = |source| Error::Io { what: "growing".into(), source };
        loop {
            match blob.read_at(&mut piece, bytes.len() as u64).map_err(failed)? {
                0 => break,
                n => bytes.extend_from_slice(&piece[..n]),
            }
            if breaks && bytes.len() > 1000 {
                return Err(failed(io::ErrorKind::ConnectionReset.into()));
            }
        }
        self.put(&blob.descriptor().expect("known at the end"), &bytes)?;
        locked(&self.grown).whole += 1;
        Ok(true)
    }
}

impl Images for Memory {
    fn image(&self, platform: &str) -> Result<Image, Error> {
        select::image(self, self.manifest(None)?, platform, "memory", &|d| self.manifest(Some(d)))
    }

    fn manifest(&self, of: Option<&Descriptor>) -> Result<Document, Error> {
        let none = || Error::NotFound { what: "an image".into(), place: "memory".into(), why: String::new() };
        let digest = of.map(|d| d.digest).or(*locked(&self.manifest)).ok_or_else(none)?;
        let bytes = self.get(&digest)?;
        Ok(Document { descriptor: Descriptor::new(names::MANIFEST, digest, bytes.len() as u64), bytes })
    }

    fn put_part(&self, media_type: &str, bytes: &[u8]) -> Result<Digest, Error> {
        Ok(self.add(media_type, bytes.into()).digest)
    }

    fn put_manifest(&self, media_type: &str, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = self.add(media_type, bytes.into()).digest;
        *locked(&self.manifest) = Some(digest);
        Ok(digest)
    }
}

/// The end of a stream, where its digest is known.
struct End {
    right: bool,
}

impl Read for End {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        if self.right { Ok(0) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "digest or size differ")) }
    }
}
