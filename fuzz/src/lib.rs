//! What every fuzz target does with its bytes. `tests/fuzz.rs` includes this file and runs the same on stable.
//!
//! Errors are fine, panics are not; and what was read is held against what must be true of it.

use std::io::{Read, Write};

use esgz::deflate::Gunzip;
use esgz::estargz::gzip::{Encoder, Level};
use esgz::estargz::{Layer, footer, toc};
use esgz::image::{Config, Descriptor, Image, Manifest};
use esgz::plan::{Chunking, HotLayer, Layout, Model, Pinned, Reader, Rule, Workload, choose, hot_paths, plan};
use esgz::profile::combine::{Mode, combine};
use esgz::profile::diff::diff;
use esgz::profile::page::page;
use esgz::profile::summary::Summary;
use esgz::profile::tree::{Node, Tree};
use esgz::profile::{Profile, export, import};
use esgz::tar::{self, BLOCK, END, Entry, Kind, Merged, padding, regular_header};

/// Chunks above this size are not opened: the reader takes up to 1 GiB, which would only make fuzzing slow.
const LARGEST_CHUNK: u64 = 1 << 20;

/// Reads an archive, and the same with the checksums of its headers made right, which few mutants have; then both as the
/// layers of one image.
pub fn tar(bytes: &[u8]) {
    let lower = entries(bytes);
    let mut right = bytes.to_vec();
    for block in right.chunks_exact_mut(BLOCK).filter(|b| b[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let upper = entries(&right);
    let merged = Merged::of([lower.as_slice(), upper.as_slice()], |_| false);
    for (path, at) in merged.iter() {
        assert_eq!([&lower, &upper][at.layer][at.index].path, path, "a path leads to its own entry");
    }
}

/// The entries of an archive, which is read with every payload and once more without.
fn entries(bytes: &[u8]) -> Vec<Entry> {
    let mut reader = tar::Reader::new(bytes);
    let mut out = Vec::new();
    while let Ok(Some(entry)) = reader.next() {
        let (headers, begin) = (entry.raw.len() as u64, reader.position());
        assert!(headers <= begin && begin <= bytes.len() as u64, "{headers} bytes of headers end at {begin}");
        assert_eq!(entry.path, tar::clean(&entry.path), "a path is clean");
        assert!(entry.kind == Kind::File || entry.size == 0, "only files have a payload");
        let mut payload = Vec::new();
        let whole = reader.read_to_end(&mut payload).is_ok();
        assert_eq!(whole, payload.len() as u64 == entry.size, "a payload is whole, or an error");
        out.push(entry);
    }
    let mut reader = tar::Reader::new(bytes);
    let mut skipped = 0;
    while let Ok(Some(_)) = reader.next() {
        skipped += 1;
    }
    assert_eq!(skipped, out.len(), "skipping a payload leads to where reading it leads");
    out
}

/// Content of a stream that is not decompressed further.
const MOST_CONTENT: usize = 1 << 18;

/// Takes the bytes for gzip members, and for the deflate stream of one, which is held against flate2.
pub fn gzip(bytes: &[u8]) {
    let _ = gunzip(bytes);
    let mut content = Vec::with_capacity(MOST_CONTENT);
    let mut inflate = flate2::Decompress::new(false);
    let status = inflate.decompress_vec(bytes, &mut content, flate2::FlushDecompress::Finish);
    if matches!(status, Ok(flate2::Status::StreamEnd)) {
        let stream = &bytes[..usize::try_from(inflate.total_in()).expect("a part of a buffer")];
        let mut sum = flate2::Crc::new();
        sum.update(&content);
        let trailer = [sum.sum().to_le_bytes(), sum.amount().to_le_bytes()].concat();
        let member = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff], stream, &trailer].concat();
        assert_eq!(gunzip(&member), Some(content), "what flate2 decompresses");
    }
}

/// The content of gzip members, read in parts of many sizes; what can be kept of each is made a stream of its own.
fn gunzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Gunzip::new(bytes);
    let mut content = Vec::new();
    for n in 1u64.. {
        let mut part = Vec::new();
        let size = n * n * 97 % 40_000 + 1;
        reader.hold(size);
        reader.by_ref().take(size).read_to_end(&mut part).ok()?;
        if let Some(fragment) = reader.fragment() {
            let stream = fragment.stream(&part, Vec::new(), |head| {
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(head).and_then(|()| encoder.finish()).expect("memory")
            });
            let stream = stream.expect("blocks that were read");
            let mut again = Vec::new();
            flate2::bufread::DeflateDecoder::new(&stream[..]).read_to_end(&mut again).expect("a whole stream");
            assert!(again == part, "a stream of kept blocks holds their content");
            fragment.sample(1000).expect("blocks that were read");
        }
        content.extend_from_slice(&part);
        if part.is_empty() || content.len() > 4 * MOST_CONTENT {
            break;
        }
    }
    Some(content)
}

/// Takes the bytes for a TOC's member, and for the JSON in one. Its blob has one payload, `esgz`, at byte 0 and at byte 27.
pub fn toc(bytes: &[u8]) {
    let _ = toc::parse(bytes);
    let mut encoder = Encoder::new(Level::STORED);
    let payload = encoder.member(b"esgz");
    let size = bytes.len() as u64;
    let raw = [&regular_header(toc::NAME, size, 0o444)[..], bytes, &vec![0; padding(size)], &END].concat();
    let begin = 2 * payload.len() as u64;
    open(&[&payload[..], &payload, &encoder.member(&raw), &footer::write(begin)].concat());
}

/// Takes the bytes for a footer, and for a whole blob.
pub fn footer(bytes: &[u8]) {
    if let Ok(tail) = bytes.try_into()
        && let Ok(offset) = footer::parse(tail)
    {
        assert_eq!(footer::parse(&footer::write(offset)).ok(), Some(offset), "an offset reads back");
    }
    open(bytes);
}

/// Opens a blob and reads what its TOC promises.
fn open(blob: &[u8]) {
    let slice = |from: u64, to: u64| blob.get(usize::try_from(from).ok()?..usize::try_from(to).ok()?);
    let layer = Layer::open(blob.len() as u64, |offset, length| {
        let bytes = offset.checked_add(length as u64).and_then(|end| slice(offset, end));
        Ok(bytes.expect("nothing outside of the blob is asked for").to_vec())
    });
    let Ok(layer) = layer else { return };
    let problems = layer.problems();
    let _ = layer.prefetch_size();
    let Ok(files) = layer.files() else {
        assert_ne!(problems, [], "what cannot be read is a problem");
        return;
    };
    for (path, entry, spans) in files {
        assert_eq!(spans.iter().map(|s| s.size).sum::<u64>(), entry.size, "{path:?}: the chunks are the file");
        for span in spans.iter().filter(|s| s.size <= LARGEST_CHUNK) {
            let member = slice(span.member, span.end).expect("a member lies in the blob");
            if let Ok(chunk) = layer.chunk(&path, span, member) {
                assert_eq!(chunk.len() as u64, span.size, "{path:?}: a chunk has its size");
            }
        }
    }
}

/// Takes the bytes for every JSON document of an image.
pub fn manifest(bytes: &[u8]) {
    if let Ok(value) = serde_json::from_slice(bytes)
        && let Ok(descriptor) = Descriptor::from_json(&value, "fuzz")
    {
        let again = Descriptor::from_json(&descriptor.to_json(), "fuzz");
        assert_eq!(again.ok().as_ref(), Some(&descriptor), "a descriptor reads back");
        assert!(descriptor.is_hot() || !descriptor.is_copies(), "copies are a hot layer");
    }
    let config = Config::parse(bytes, "fuzz");
    if let Ok(config) = &config {
        assert!(config.platform().contains('/'), "{}", config.platform());
    }
    let Ok(manifest) = Manifest::parse(bytes, "fuzz") else { return };
    // The config that would fit; only its number of layers counts.
    let diff_ids: Vec<_> = manifest.layers.iter().map(|l| l.digest).collect();
    let config = Config { raw: manifest.raw.clone(), diff_ids };
    let image = Image::new(manifest.config.clone(), manifest, config, "fuzz").expect("as many layers as diffIDs");
    let _ = image.stale_hot_layer();
}

/// Takes the bytes for a profile, and uses it for all that one is used for without an image.
pub fn profile(bytes: &[u8]) {
    let Ok(profile) = esgz::profile::read(bytes) else { return };
    let again = esgz::profile::read(&esgz::profile::write(&profile));
    assert_eq!(again.ok().as_ref(), Some(&profile), "a profile reads back");
    let mut twice = profile.clone();
    twice.merge(profile.clone());
    for file in &twice.files {
        assert!(file.touched_bytes() <= file.size, "{:?}: more is touched than there is", file.path);
    }
    for profile in [&profile, &twice] {
        let _ = hot_paths(profile, &Rule::default());
        let _ = plan(Layout::HotLandmark, HotLayer::Copy, &Rule::default(), &[], &Merged::default(), Some(profile));
        assert!(
            Chunking::fitted(profile, 1 << 20, &Rule::default()).fitted_files()
                <= profile.files.iter().map(|f| 1 + f.links.len()).sum()
        );
        let model = Model::preset("rig").expect("built in");
        for reader in [Reader::None, Reader::Node] {
            choose(&Workload::of(profile, 0), &model, &Pinned::default(), reader, true);
        }
        shown(profile);
    }
    let all = combine(&[profile.clone(), twice], Mode::Quantile(0.6)).expect("one platform").profile;
    let again = esgz::profile::read(&esgz::profile::write(&all));
    assert_eq!(again.ok().as_ref(), Some(&all), "a merged profile reads back");
    assert_eq!(diff(&profile, &profile).total.only_new, 0, "a profile has all of itself");
}

/// What a profile is turned into for people and other tools.
fn shown(profile: &Profile) {
    let summary = Summary::of(profile, None);
    let html = page(profile, &summary, None);
    assert_eq!(html.matches("</script").count(), 2, "nothing in a profile ends its element");
    for format in [export::Format::CtrRemote, export::Format::Nydus, export::Format::NydusRanges, export::Format::Paths]
    {
        let _ = export::export(profile, format);
    }
}

/// Takes the bytes for every kind of list, with the files of an image and without.
pub fn list(bytes: &[u8]) {
    let mut tree = Tree::default();
    for (path, node) in [
        ("usr/bin/a", Node::File { size: 10_000 }),
        ("usr/lib/b.so", Node::File { size: 3 }),
        ("bin", Node::Link("usr/bin".into())),
        ("loop", Node::Link("/loop/x".into())),
    ] {
        tree.add(path, node);
    }
    for format in [import::Format::CtrRemote, import::Format::Nydus, import::Format::Paths] {
        for tree in [None, Some(&tree)] {
            let context = import::Context { platform: "linux/amd64".into(), tree, ..import::Context::default() };
            let Ok(imported) = import::import(format, bytes, &context) else { continue };
            let again = esgz::profile::read(&esgz::profile::write(&imported.profile));
            assert_eq!(again.ok().as_ref(), Some(&imported.profile), "an imported list is a profile");
        }
    }
}
