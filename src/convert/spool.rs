//! The spool: a nameless temporary file of finished members, and a blob put together from them in its final order.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::group::{self, Part};
use super::ingest::Content;
use super::pool::{Pool, ReadBack};
use super::{LayerError, Options};
use crate::estargz::{Members, Summary, Writer};
use crate::plan::{LayerIndex, Order};
use crate::store::{ReadAt, nameless};

/// Members of one layer, appended by any thread.
pub(super) struct Spool {
    file: File,
    end: AtomicU64,
    given_away: AtomicBool,
}

impl Spool {
    pub(super) fn create(dir: &Path) -> Result<Self, LayerError> {
        // With the mode of a lasting file: that is what it may become.
        let file = nameless(dir).or_else(|_| tempfile::tempfile_in(dir)).map_err(|source| LayerError::Io {
            doing: format!("creating a temporary file in {}", dir.display()),
            source,
        })?;
        Ok(Self { file, end: AtomicU64::new(0), given_away: AtomicBool::new(false) })
    }

    /// Appends bytes and gives their place.
    pub(super) fn append(&self, bytes: &[u8]) -> io::Result<u64> {
        if self.given_away.load(Ordering::Relaxed) {
            return Err(io::Error::other("the temporary file became a blob"));
        }
        let at = self.end.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.file.write_all_at(bytes, at)?;
        Ok(at)
    }

    /// Bytes at a place.
    pub(super) fn read(&self, at: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.read_into(&mut bytes, at)?;
        Ok(bytes)
    }

    /// Fills a buffer from a place.
    pub(super) fn read_into(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, at)
    }
}

/// A blob whose bytes lie in pieces in a spool.
pub(super) struct Blob {
    spool: Arc<Spool>,
    /// (offset in the blob, place in the spool), ascending.
    pieces: Vec<(u64, u64)>,
    size: u64,
}

impl Blob {
    /// A blob that a spool begins with.
    pub(super) fn whole(spool: &Arc<Spool>, size: u64) -> Self {
        Self { spool: Arc::clone(spool), pieces: vec![(0, 0)], size }
    }
}

impl Members for Blob {
    fn put(&mut self, member: &[u8], place: Option<u64>) -> io::Result<()> {
        let place = match place {
            Some(p) => p,
            None => self.spool.append(member)?,
        };
        self.pieces.push((self.size, place));
        self.size += member.len() as u64;
        Ok(())
    }
}

impl ReadAt for Blob {
    fn size(&self) -> u64 {
        self.size
    }

    fn give_away(&self) -> Option<&File> {
        let alone = self.pieces == [(0, 0)] && self.spool.end.load(Ordering::Relaxed) == self.size;
        if alone {
            self.spool.given_away.store(true, Ordering::Relaxed);
        }
        alone.then_some(&self.spool.file)
    }

    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut i = self.pieces.partition_point(|p| p.0 <= offset).saturating_sub(1);
        while !buf.is_empty() {
            let (start, place) = self.pieces[i];
            let end = self.pieces.get(i + 1).map_or(self.size, |p| p.0);
            let n = buf.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
            let (now, rest) = buf.split_at_mut(n);
            self.spool.read_into(now, place + (offset - start))?;
            buf = rest;
            offset += n as u64;
            i += 1;
        }
        Ok(())
    }
}

/// Puts a layer into its final order. Every member is read back and checked on the way.
pub(super) fn assemble(
    index: &LayerIndex,
    content: &Content,
    order: &Order,
    options: &Options,
    pool: &Pool,
    mut advance: impl FnMut(u64),
) -> Result<(Blob, Summary), LayerError> {
    let blob = Blob { spool: Arc::clone(&content.spool), pieces: Vec::new(), size: 0 };
    let mut writer = Writer::create(options.format, options.level, blob);
    let [front, rest] = [&order.front, &order.rest].map(|order| group::parts(order, index, content, options));
    let todo = front.iter().chain(&rest).flat_map(|part| part.work(index, content, options));
    let mut members = ReadBack::new(pool, todo);
    let mut add = |writer: &mut Writer<Blob>, part: &Part| -> Result<(), LayerError> {
        match part {
            Part::Alone(i) => {
                let entry = &index.entries[*i];
                match index.digests[*i] {
                    Some(d) if entry.size > 0 => writer.file(entry, d, &content.chunks[*i], || members.next())?,
                    _ => writer.entry(entry)?,
                }
                advance(entry.size);
            }
            Part::Shared(all) => {
                let entries: Vec<_> = all.iter().map(|&i| (&index.entries[i], index.digests[i])).collect();
                writer.shared(&entries, &members.next()?)?;
                advance(entries.iter().map(|(entry, _)| entry.size).sum());
            }
        }
        Ok(())
    };
    if front.is_empty() {
        writer.landmark(false)?;
    } else {
        for part in &front {
            add(&mut writer, part)?;
        }
        writer.landmark(true)?;
    }
    for part in &rest {
        add(&mut writer, part)?;
    }
    Ok(writer.finish()?)
}
