//! Which small files share a member (`--min-chunk-size`): a lazy start pays a request for every member, and a small file
//! compressed by itself is larger.
//!
//! The cut depends on the final order and on sizes alone, so that any number of threads makes the same members: consecutive
//! small files gather until their payloads, each as compressed by itself, have the size asked for. A file that has it alone or
//! has several chunks stays by itself, since whoever reads a neighbour would decompress it too. No member holds more than a
//! chunk. The landmark never gets here: what stands in front of it and behind it is cut by itself.

use std::iter;

use super::Options;
use super::ingest::Content;
use super::pool::{Piece, Work, pieces};
use crate::estargz::{self, Member, Stretch};
use crate::plan::LayerIndex;
use crate::tar::padding;

/// Consecutive entries of the final order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// One entry, its chunks in members of their own.
    Alone(usize),
    /// A first and a last file with payload, and everything between them, in one member.
    Shared(Vec<usize>),
}

/// A member to be.
#[derive(Default)]
struct Gathered {
    entries: Vec<usize>,
    /// How many of them there are up to the last one with payload.
    upto: usize,
    payloads: usize,
    /// Bytes of the archive, up to the last entry.
    raw: u64,
    /// Bytes of the payloads' own members.
    compressed: u64,
}

impl Gathered {
    /// Ends it. Entries behind the last payload belong in front of what follows.
    fn end(&mut self, out: &mut Vec<Part>) {
        let mut all = std::mem::take(self);
        let behind = all.entries.split_off(all.upto);
        if all.payloads > 1 {
            out.push(Part::Shared(all.entries));
        } else {
            out.extend(all.entries.into_iter().map(Part::Alone));
        }
        out.extend(behind.into_iter().map(Part::Alone));
    }
}

/// Cuts a part of a layer's final order: that in front of the landmark, or that behind it.
pub(super) fn parts(order: &[usize], index: &LayerIndex, content: &Content, options: &Options) -> Vec<Part> {
    let mut out = Vec::new();
    let mut open = Gathered::default();
    for &i in order {
        let entry = &index.entries[i];
        let head = entry.raw.len() as u64;
        match content.chunks[i].as_slice() {
            [] if open.entries.is_empty() => out.push(Part::Alone(i)),
            [] => {
                open.entries.push(i);
                open.raw += head;
            }
            [only] if only.compressed < options.min_chunk_size => {
                let tail = padding(only.size) as u64;
                if open.raw + head + only.size > options.chunk_size {
                    open.end(&mut out);
                }
                open.entries.push(i);
                open.upto = open.entries.len();
                open.payloads += 1;
                open.raw += head + only.size + tail;
                open.compressed += only.compressed;
                if open.compressed >= options.min_chunk_size {
                    open.end(&mut out);
                }
            }
            _ => {
                open.end(&mut out);
                out.push(Part::Alone(i));
            }
        }
    }
    open.end(&mut out);
    out
}

impl Part {
    /// What gives its members, in their order.
    pub(super) fn work<'a>(
        &'a self,
        index: &'a LayerIndex,
        content: &'a Content,
        options: &Options,
    ) -> Box<dyn Iterator<Item = Work> + 'a> {
        let of = |i: usize| pieces(&index.entries[i].path, &content.chunks[i], &content.spool);
        match self {
            Self::Alone(i) => Box::new(of(*i).map(Piece::work)),
            Self::Shared(all) => {
                let entries = all.iter().map(|&i| (index.entries[i].raw.clone(), of(i).next())).collect();
                Box::new(iter::once(share(entries, options)))
            }
        }
    }
}

/// Reads the payloads back and compresses them together; raw headers stand with them.
fn share(entries: Vec<(Vec<u8>, Option<Piece>)>, options: &Options) -> Work {
    let sizes = entries.iter().map(|(header, piece)| header.len() as u64 + piece.as_ref().map_or(0, |p| p.info.size));
    let size = sizes.sum();
    let (level, adaptive) = (options.level, options.adaptive);
    let run = move |tools: &mut super::pool::Tools| {
        let path = entries.iter().find_map(|(_, piece)| piece.as_ref().map(|p| p.path.clone())).unwrap_or_default();
        let mut stretch = Stretch::default();
        for (header, piece) in entries {
            let member = piece.map(|piece| piece.open(tools)).transpose()?;
            stretch.add(&header, member.as_ref().map_or(&[], Member::raw));
        }
        let member = tools.member(stretch.finish(), level, adaptive);
        member.map_err(|why| estargz::Error::Chunk { path, offset: 0, why })
    };
    Work { size, run: Box::new(run) }
}
