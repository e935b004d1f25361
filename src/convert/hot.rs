//! Writes the hot layer: raw headers and payloads of the planned entries, one ordinary `tar+zstd` or `tar+gzip`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use super::embed::{self, Embedded};
use super::ingest::Content;
use super::pool::{Piece, Pool, ReadBack, pieces};
use super::startup::{Additions, digest_of};
use super::{LayerError, LayerReport, Options};
use crate::digest::{Digest, HashingWriter};
use crate::image::{Descriptor, names};
use crate::plan::LayerIndex;
use crate::store::ReadAt;
use crate::tar::{At, END, Kind, padding};

/// Compression of the hot layer. Does not change what it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HotCodec {
    /// Smaller and faster to unpack; containerd knows it since 1.5.
    Zstd,
    /// Known everywhere.
    Gzip,
}

enum Encoder<W: Write> {
    Zstd(zstd::Encoder<'static, W>),
    Gzip(flate2::write::GzEncoder<W>),
}

impl<W: Write> Encoder<W> {
    fn new(codec: HotCodec, out: W) -> io::Result<Self> {
        Ok(match codec {
            HotCodec::Zstd => Self::Zstd(zstd::Encoder::new(out, ZSTD_LEVEL)?),
            HotCodec::Gzip => Self::Gzip(flate2::write::GzEncoder::new(out, flate2::Compression::default())),
        })
    }

    fn finish(self) -> io::Result<W> {
        match self {
            Self::Zstd(e) => e.finish(),
            Self::Gzip(e) => e.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Zstd(e) => e.write(buf),
            Self::Gzip(e) => e.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Zstd(e) => e.flush(),
            Self::Gzip(e) => e.flush(),
        }
    }
}

/// Fast to unpack and within 9 % of level 9's size; the node spends its time on creating files.
const ZSTD_LEVEL: i32 = 3;

pub(super) struct Hot {
    pub(super) descriptor: Descriptor,
    pub(super) blob: Blob,
    pub(super) diff_id: Digest,
    pub(super) report: LayerReport,
}

/// The finished layer in a nameless temporary file.
pub(super) struct Blob {
    file: File,
    size: u64,
}

impl ReadAt for Blob {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

/// What the layer says of the files that the layers below have not.
fn added(additions: Option<&Additions<'_>>, embedded: Option<&Embedded<'_>>) -> Vec<(String, String)> {
    let mut classes = additions.map(|a| a.shipped.classes.clone()).unwrap_or_default();
    classes.extend(embedded.map(|e| (embed::CLASS, e.files())));
    if classes.is_empty() {
        return Vec::new();
    }
    let entries = || additions.iter().flat_map(|a| a.entries()).chain(embedded.iter().flat_map(|e| e.entries()));
    let classes: Vec<String> = classes.iter().map(|(class, n)| format!("{class}={n}")).collect();
    let own = [(names::LAYER_ADDED, digest_of(entries()).to_string()), (names::LAYER_ADDED_CLASSES, classes.join(","))];
    let host = additions.iter().flat_map(|a| a.bound_to());
    own.into_iter().map(|(k, v)| (k.to_owned(), v)).chain(host).collect()
}

pub(super) fn build(
    entries: &[At],
    indexes: &[LayerIndex],
    contents: &[Content],
    options: &Options,
    pool: &Pool,
    additions: Option<&Additions<'_>>,
    embedded: Option<&Embedded<'_>>,
) -> Result<Hot, LayerError> {
    let dir = &options.temp_dir;
    let io = |source| LayerError::Io { doing: format!("writing a temporary file in {}", dir.display()), source };
    let file = tempfile::tempfile_in(dir).map_err(io)?;
    let compressed = HashingWriter::new(BufWriter::with_capacity(1 << 20, &file));
    let encoder = Encoder::new(options.hot_codec, compressed).map_err(io)?;
    let mut tar = HashingWriter::new(encoder);
    let todo = entries.iter().flat_map(|at| {
        let (entry, content) = (&indexes[at.layer].entries[at.index], &contents[at.layer]);
        pieces(&entry.path, &content.chunks[at.index], &content.spool).map(Piece::work)
    });
    let mut members = ReadBack::new(pool, todo);
    for at in entries {
        let entry = &indexes[at.layer].entries[at.index];
        tar.write_all(&entry.raw).map_err(io)?;
        if entry.kind != Kind::File {
            continue;
        }
        for _ in &contents[at.layer].chunks[at.index] {
            tar.write_all(members.next()?.raw()).map_err(io)?;
        }
        tar.write_all(&vec![0; padding(entry.size)]).map_err(io)?;
    }
    if let Some(additions) = additions {
        additions.write(&mut tar).map_err(io)?;
    }
    if let Some(embedded) = embedded {
        embedded.write(&mut tar).map_err(io)?;
    }
    tar.write_all(&END).map_err(io)?;
    let (encoder, diff_id, uncompressed_size) = tar.finish();
    let (buffered, digest, size) = encoder.finish().map_err(io)?.finish();
    buffered.into_inner().map_err(|e| io(e.into_error()))?;
    let media_type = match options.hot_codec {
        HotCodec::Zstd => names::LAYER_ZSTD,
        HotCodec::Gzip => names::LAYER_GZIP,
    };
    let mut descriptor = Descriptor::new(media_type, digest, size);
    descriptor.annotations.push((names::LAYER_KIND.into(), "hot".into()));
    descriptor.annotations.extend(added(additions, embedded));
    let report = LayerReport {
        kind: "hot",
        source: None,
        source_size: 0,
        digest,
        size,
        uncompressed_size,
        prefetch_size: Some(0),
        entries: Some(
            entries.len() + additions.map_or(0, Additions::len) + embedded.map_or(0, |e| e.entries().count()),
        ),
        reused: false,
    };
    Ok(Hot { descriptor, blob: Blob { file, size }, diff_id, report })
}
