//! One layer read whole: its entries, a digest of every file, and every chunk held against the TOC on the way.

use std::collections::HashMap;
use std::io::{self, Read};

use super::stream::{Archive, Totals};
use crate::digest::{Digest, Hasher};
use crate::estargz::{Layer, Span};
use crate::image;
use crate::tar::{self, Entry, Kind};

/// A layer as it was read.
pub(super) struct Content {
    /// In the order of the archive; without their raw headers.
    pub(super) entries: Vec<Entry>,
    /// Digest of each file's content.
    pub(super) digests: Vec<Option<Digest>>,
    /// The entry that each one shows: itself, or what is at the end of a chain of hard links; none for folders. Of several
    /// entries with its target's path a link means the last one before it.
    pub(super) contents: Vec<Option<usize>>,
    /// Where each header begins in the archive, and its payload.
    pub(super) places: Vec<(u64, u64)>,
    pub(super) totals: Totals,
    /// Chunks whose digest was computed and found right.
    pub(super) chunks: u64,
}

/// Why a layer cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The archive.
    #[error(transparent)]
    Tar(#[from] tar::Error),
    /// The store has it not, or not right.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// The media type.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// It is not what manifest or config say.
    #[error("{what} {found}: expected {expected}")]
    Digest {
        /// Of what.
        what: &'static str,
        /// As computed.
        found: Digest,
        /// As recorded.
        expected: Digest,
    },
    /// A payload or the end of the blob.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl ReadError {
    /// The error and its causes in words.
    pub(super) fn chain(&self) -> String {
        super::chain(self)
    }
}

/// Where the members begin that the TOC speaks of, from the first to the footer.
pub(super) fn bounds(layer: &Layer) -> Vec<u64> {
    let tail = layer.footer_offset();
    let named = layer.toc.entries.iter().map(|e| e.offset).filter(|&o| o < tail);
    let mut bounds: Vec<u64> = named.chain([0, layer.toc_offset, tail]).collect();
    bounds.sort_unstable();
    bounds.dedup();
    bounds
}

/// Reads a layer. `say(path, what)` takes what is wrong with a chunk.
pub(super) fn read(
    mut archive: Archive<'_>,
    layer: Option<&Layer>,
    mut say: impl FnMut(&str, String),
) -> Result<Content, ReadError> {
    // A TOC whose chunks make no sense is reported by `Layer::problems`; its files are then hashed as a whole.
    let files = layer.and_then(|l| l.files().ok()).unwrap_or_default();
    let files: HashMap<&str, (Option<Digest>, &[Span])> =
        files.iter().map(|(path, toc, spans)| (path.as_str(), (toc.digest, spans.as_slice()))).collect();
    let (mut entries, mut digests, mut contents, mut places, mut chunks) = (vec![], vec![], vec![], vec![], 0);
    let mut latest: HashMap<String, Option<usize>> = HashMap::new();
    let mut buf = vec![0; 1 << 18];
    let mut tar = tar::Reader::new(&mut archive);
    while let Some(mut entry) = tar.next()? {
        let begin = tar.position();
        places.push((begin - entry.raw.len() as u64, begin));
        entry.raw = Vec::new();
        let mut digest = None;
        if entry.kind == Kind::File {
            let (recorded, spans) = files.get(entry.path.as_str()).copied().unwrap_or_default();
            let fail = |source| ReadError::Io { doing: format!("reading {:?}", entry.path), source };
            let mut whole = Hasher::default();
            for span in spans {
                // The only chunk of a file is the file.
                let mut one = (spans.len() > 1).then(Hasher::default);
                let got = copy(&mut (&mut tar).take(span.size), &mut buf, |b| {
                    whole.update(b);
                    if let Some(one) = &mut one {
                        one.update(b);
                    }
                });
                if got.map_err(fail)? < span.size {
                    // The sizes differ, which is said where the TOC is compared.
                    break;
                }
                match (span.digest, one.unwrap_or_else(|| whole.clone()).finish()) {
                    (Some(want), found) if want != found => {
                        say(&entry.path, format!("chunk at {}: digest {found}: expected {want}", span.offset));
                    }
                    (Some(_), _) => chunks += 1,
                    // Said by `Layer::problems`.
                    (None, _) => {}
                }
            }
            copy(&mut tar, &mut buf, |b| whole.update(b)).map_err(fail)?;
            let found = whole.finish();
            if let Some(want) = recorded.filter(|want| *want != found) {
                say(&entry.path, format!("the TOC records digest {want} for the file: found {found}"));
            }
            digest = Some(found);
        }
        digests.push(digest);
        let content = match entry.kind {
            Kind::Dir => None,
            Kind::Hardlink => latest.get(&entry.link).copied().flatten(),
            _ => Some(entries.len()),
        };
        contents.push(content);
        latest.insert(entry.path.clone(), content);
        entries.push(entry);
    }
    let totals =
        archive.finish().map_err(|source| ReadError::Io { doing: "reading the end of the layer".into(), source })?;
    Ok(Content { entries, digests, contents, places, totals, chunks })
}

/// Gives everything that `from` holds to `each`; the number of bytes.
fn copy(from: &mut impl Read, buf: &mut [u8], mut each: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut total = 0;
    loop {
        match from.read(buf) {
            Ok(0) => return Ok(total),
            Ok(n) => {
                each(&buf[..n]);
                total += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
