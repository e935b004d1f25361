//! An index as a whole: its images, what in it is about images, and each of its images as a store of its own.

use std::io::Read;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::select::{self, Entry};
use super::{Blobs, Document, Error, Growing, Images, Kind, ReadAt};
use crate::digest::Digest;
use crate::image::{Descriptor, Image};

/// One image of an index.
#[derive(Debug, Clone)]
pub struct Part {
    /// Where its manifest is.
    pub descriptor: Descriptor,
    /// `os/arch[/variant]`; of its config where the entry does not say it.
    pub platform: String,
    /// The entry as it stands in the index.
    pub raw: Value,
}

/// An index or Docker manifest list.
#[derive(Debug, Clone)]
pub struct Index {
    /// Where it is.
    pub descriptor: Descriptor,
    /// The JSON as read; patch this.
    pub raw: Value,
    /// Its images, in its order.
    pub parts: Vec<Part>,
    /// Entries that are no images: attestations, signatures, other artifacts.
    pub others: Vec<Descriptor>,
}

impl Index {
    /// Reads the index that a store's name stands for; `None` when that is the manifest of one image.
    pub fn open(store: &dyn Images) -> Result<Option<Self>, Error> {
        let document = store.manifest(None)?;
        let what = format!("index {}", document.descriptor.digest);
        let Some(raw) = select::as_index(&document, &what)? else { return Ok(None) };
        let (mut parts, mut others) = (Vec::new(), Vec::new());
        for entry in select::entries(&raw, &what)? {
            if select::is_attestation(&entry) {
                others.push(entry.descriptor);
                continue;
            }
            match platform(store, &entry) {
                Ok(platform) => parts.push(Part { descriptor: entry.descriptor, platform, raw: entry.raw }),
                Err(e) if e.kind() == Kind::Unsupported => others.push(entry.descriptor),
                Err(e) => return Err(e),
            }
        }
        Ok(Some(Self { descriptor: document.descriptor, raw, parts, others }))
    }

    /// The images of these platforms, in the order of the index; all of them when none is named.
    pub fn select(&self, platforms: &[String]) -> Result<Vec<&Part>, Error> {
        let entry = |p: &Part| Entry {
            descriptor: p.descriptor.clone(),
            platform: Some(p.platform.clone()),
            raw: p.raw.clone(),
        };
        let entries: Vec<Entry> = self.parts.iter().map(entry).collect();
        let what = format!("index {}", self.descriptor.digest);
        let mut picked = vec![platforms.is_empty(); entries.len()];
        for platform in platforms {
            let one = select::pick(&entries, platform, &what)?;
            for (i, _) in entries.iter().enumerate().filter(|(_, e)| std::ptr::eq(*e, one)) {
                picked[i] = true;
            }
        }
        Ok(self.parts.iter().zip(picked).filter_map(|(part, picked)| picked.then_some(part)).collect())
    }
}

/// The platform of an entry, which need not say it: then its config does, and an artifact has none.
fn platform(store: &dyn Images, entry: &Entry) -> Result<String, Error> {
    match &entry.platform {
        Some(platform) => Ok(platform.clone()),
        None => Ok(Child::new(store, Some(entry.descriptor.clone()), "").image("")?.config.platform()),
    }
}

/// One image of an index as a store: it is found by its descriptor, and what is written as its manifest is kept back until
/// the whole index is there.
pub struct Child<'a> {
    store: &'a dyn Images,
    of: Option<Descriptor>,
    platform: &'a str,
    written: Mutex<Option<(String, Vec<u8>)>>,
}

impl<'a> Child<'a> {
    /// The image of a descriptor, if there is one yet.
    pub fn new(store: &'a dyn Images, of: Option<Descriptor>, platform: &'a str) -> Self {
        Self { store, of, platform, written: Mutex::default() }
    }

    /// Stores the manifest that was written, without a name.
    pub fn flush(&self) -> Result<(), Error> {
        match self.written.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some((media_type, bytes)) => self.store.put_part(&media_type, &bytes).map(drop),
            None => Ok(()),
        }
    }

    /// Bytes of the manifest that was written or, without one, of the one that is there.
    pub fn size(&self) -> u64 {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let there = self.of.as_ref().map(|d| d.size);
        written.as_ref().map(|(_, bytes)| bytes.len() as u64).or(there).unwrap_or_default()
    }
}

impl Blobs for Child<'_> {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, Error> {
        self.store.open(blob)
    }

    fn open_at(&self, blob: &Descriptor) -> Result<Box<dyn ReadAt>, Error> {
        self.store.open_at(blob)
    }

    fn has(&self, digest: &Digest) -> Result<bool, Error> {
        self.store.has(digest)
    }

    fn put(&self, blob: &Descriptor, content: &dyn ReadAt) -> Result<(), Error> {
        self.store.put(blob, content)
    }

    fn put_growing(&self, blob: &dyn Growing) -> Result<bool, Error> {
        self.store.put_growing(blob)
    }
}

impl Images for Child<'_> {
    fn image(&self, _: &str) -> Result<Image, Error> {
        let what = self.of.as_ref().map_or_else(String::new, |d| format!("manifest {}", d.digest));
        select::image(self, self.manifest(None)?, self.platform, &what, &|d| self.store.manifest(Some(d)))
    }

    fn manifest(&self, of: Option<&Descriptor>) -> Result<Document, Error> {
        let none = || Error::NotFound {
            what: format!("an image for {}", self.platform),
            place: "the destination".into(),
            why: String::new(),
        };
        self.store.manifest(Some(of.or(self.of.as_ref()).ok_or_else(none)?))
    }

    fn put_part(&self, media_type: &str, bytes: &[u8]) -> Result<Digest, Error> {
        self.store.put_part(media_type, bytes)
    }

    fn put_manifest(&self, media_type: &str, bytes: &[u8]) -> Result<Digest, Error> {
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = Some((media_type.into(), bytes.into()));
        Ok(Digest::of(bytes))
    }
}
