//! Layers that no writer of ours makes, in images that are otherwise right about themselves.

use std::io::Read;

use super::*;
use crate::estargz::codec::Decoder;
use crate::estargz::gzip::Encoder;
use crate::estargz::toc::{self, Toc};
use crate::estargz::{ChunkInfo, Error, Layer, Member, Writer, footer};
use crate::image::{Descriptor, names};
use crate::store::{Blobs, Images};
use crate::tar::Reader;

/// Decompressed bytes.
pub(super) fn inflate(blob: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::MultiGzDecoder::new(blob).read_to_end(&mut out).ok()?;
    Some(out)
}

pub(super) fn open(blob: &[u8]) -> Result<Layer, Error> {
    Layer::open(blob.len() as u64, |offset, length| {
        let from = usize::try_from(offset).ok().and_then(|o| blob.get(o..)?.get(..length));
        from.map(Into::into).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    })
}

pub(super) fn layer(store: &Memory, i: usize) -> Descriptor {
    store.image("").expect("an image").manifest.layers[i].clone()
}

pub(super) fn blob(store: &Memory, i: usize) -> Vec<u8> {
    store.bytes(&layer(store, i).digest)
}

/// The blob with another TOC entry in front of the footer.
pub(super) fn with_json(blob: &[u8], json: &[u8]) -> Vec<u8> {
    let end = usize::try_from(open(blob).expect("eStargz").toc_offset).expect("small");
    let member = Encoder::new(Level::DEFAULT).member(&archive(&[Item::file(toc::NAME, json)]));
    [&blob[..end], &member, &footer::write(end as u64)].concat()
}

/// The blob with its TOC changed.
pub(super) fn with_toc(blob: &[u8], edit: impl FnOnce(&mut Toc)) -> Vec<u8> {
    let mut toc = open(blob).expect("eStargz").toc;
    edit(&mut toc);
    with_json(blob, &serde_json::to_vec(&toc).expect("JSON"))
}

/// The image with layer `i` replaced, and everything that manifest and config say of it right.
pub(super) fn replace(store: &Memory, i: usize, blob: Vec<u8>) {
    let tar = inflate(&blob).expect("gzip");
    let toc = open(&blob).map(|l| l.toc_digest);
    let new = store.add(names::LAYER_GZIP, blob);
    let mut config = store.image("").expect("an image").config.raw;
    config["rootfs"]["diff_ids"][i] = Digest::of(&tar).to_string().into();
    let config = store.add(names::CONFIG, config.to_string().into_bytes());
    store.edit_manifest(|m| {
        m["config"] = config.to_json();
        let layer = &mut m["layers"][i];
        layer["digest"] = new.digest.to_string().into();
        layer["size"] = new.size.into();
        layer["annotations"][names::UNCOMPRESSED_SIZE] = tar.len().to_string().into();
        if let Ok(toc) = toc {
            layer["annotations"][names::TOC_DIGEST] = toc.to_string().into();
        }
    });
    assert!(store.has(&new.digest).expect("memory"));
}

/// Writes a layer of these items in their order; `None` is the landmark.
pub(super) fn write(items: &[Option<Item>]) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::create(Format::Estargz, Level::DEFAULT, Vec::new());
    for (i, item) in items.iter().enumerate() {
        let Some(item) = item else {
            writer.landmark(i > 0)?;
            continue;
        };
        let tar = archive(std::slice::from_ref(item));
        let mut reader = Reader::new(&tar[..]);
        let entry = reader.next().expect("valid").expect("one");
        let mut raw = Vec::new();
        reader.read_to_end(&mut raw).expect("memory");
        if raw.is_empty() {
            writer.entry(&entry)?;
            continue;
        }
        let member = Encoder::new(Level::DEFAULT).member(&raw);
        let digest = Digest::of(&raw);
        let chunk = ChunkInfo { size: raw.len() as u64, digest, compressed: member.len() as u64, place: 0 };
        let open = || Member::open(&entry.path, 0, &chunk, member.clone(), &mut Decoder::default());
        writer.file(&entry, digest, &[chunk], open)?;
    }
    Ok(writer.finish()?.0)
}

/// What a careless writer makes of these items, one chunk a file, each in its member.
pub(super) fn foreign(items: &[Item]) -> Vec<u8> {
    foreign_shared(items, 1)
}

/// The same with so many files to a member, headers among them as the reference writer has it.
pub(super) fn foreign_shared(items: &[Item], files: usize) -> Vec<u8> {
    let mut encoder = Encoder::new(Level::DEFAULT);
    let (mut out, mut pending, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    let mut payloads = 0;
    for item in items {
        let tar = archive(std::slice::from_ref(item));
        let mut reader = Reader::new(&tar[..]);
        let entry = reader.next().expect("valid").expect("one");
        let mut raw = Vec::new();
        reader.read_to_end(&mut raw).expect("memory");
        pending.extend_from_slice(&entry.raw);
        let mut toc = toc::TocEntry::of(&entry);
        if !raw.is_empty() {
            if payloads % files == 0 {
                out.extend_from_slice(&encoder.member(&std::mem::take(&mut pending)));
            }
            payloads += 1;
            toc.offset = out.len() as u64;
            toc.inner_offset = pending.len() as u64;
            toc.chunk_digest = Some(Digest::of(&raw));
            pending.extend_from_slice(&raw);
            pending.resize(pending.len() + crate::tar::padding(raw.len() as u64), 0);
        }
        if entry.path != toc::NAME {
            entries.push(toc);
        }
    }
    out.extend_from_slice(&encoder.member(&pending));
    let json = serde_json::to_vec(&Toc { version: 1, entries }).expect("JSON");
    let end = out.len() as u64;
    out.extend_from_slice(&encoder.member(&archive(&[Item::file(toc::NAME, json)])));
    out.extend_from_slice(&footer::write(end));
    out
}
