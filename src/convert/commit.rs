//! The end of a payload's way: members come from the pool in the order of the source and go to the spool. Where the final
//! order will probably be that order, they become the finished blob on the way, so that nothing is read twice.

use std::io;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::early::{Early, Straight};
use super::pool::Permit;
use super::spool::{Blob, Spool};
use super::{LayerError, Options};
use crate::digest::Digest;
use crate::estargz::{self, ChunkInfo, Member, Summary, Writer, landmark};
use crate::tar::Entry;

/// What a reader sends, in the order of its archive.
pub(super) enum Item {
    /// An entry; its chunks follow.
    Entry(Box<Entry>),
    /// A chunk of the last entry, when it is compressed and was compared.
    Chunk(Receiver<(Result<Member, String>, Permit)>),
    /// Digest of the last entry's content, when it has several chunks or none that is kept.
    Digest(Digest),
}

/// A blob with the entries in the order of the source, each once, nothing prefetched, lying in front of the spool.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    pub(super) summary: Summary,
    /// How many entries it has.
    pub(super) entries: usize,
}

impl Ready {
    pub(super) fn blob(&self, spool: &Arc<Spool>) -> Blob {
        Blob::whole(spool, self.summary.size)
    }
}

/// What was written.
pub(super) struct Committed {
    /// Chunks of each entry.
    pub(super) chunks: Vec<Vec<ChunkInfo>>,
    /// The finished blob; its store waits to be told that it is complete.
    pub(super) ready: Option<(Ready, Straight)>,
}

struct Committer<'a> {
    spool: &'a Arc<Spool>,
    options: &'a Options,
    writer: Option<Writer<Straight>>,
    chunks: Vec<Vec<ChunkInfo>>,
    /// The last entry, when it has a payload.
    open: Option<Box<Entry>>,
    /// Digest of its content.
    digest: Option<Digest>,
}

/// Takes everything that a reader sends. `early`: make the finished blob on the way.
pub(super) fn run(
    items: Receiver<Item>,
    spool: &Arc<Spool>,
    options: &Options,
    early: Option<&Arc<Early>>,
) -> Result<Committed, LayerError> {
    let mut committer = Committer { spool, options, writer: None, chunks: Vec::new(), open: None, digest: None };
    if let Some(early) = early {
        let mut writer = Writer::create(options.format, options.level, Straight::new(early));
        writer.landmark(false).map_err(|e| committer.failed(e))?;
        committer.writer = Some(writer);
    }
    for item in items {
        match item {
            Item::Entry(entry) => {
                committer.end()?;
                committer.entry(entry)?;
            }
            Item::Chunk(answer) => {
                let (member, permit) = answer.recv().map_err(|_| LayerError::Stopped)?;
                permit.recycle(committer.chunk(member)?);
            }
            Item::Digest(digest) => committer.digest = Some(digest),
        }
    }
    committer.finish()
}

impl Committer<'_> {
    fn io(&self, source: io::Error) -> LayerError {
        LayerError::Io { doing: format!("writing a temporary file in {}", self.options.temp_dir.display()), source }
    }

    fn failed(&self, error: estargz::Error) -> LayerError {
        match error {
            estargz::Error::Io { source, .. } => self.io(source),
            other => other.into(),
        }
    }

    /// Goes on without the finished blob where it cannot be one: a name that comes twice or a link to what comes later needs
    /// another order.
    fn attempt(
        &mut self,
        step: impl FnOnce(&mut Writer<Straight>) -> Result<(), estargz::Error>,
    ) -> Result<(), LayerError> {
        match self.writer.as_mut().map(step) {
            Some(Err(estargz::Error::Toc { .. })) => {
                self.writer = None;
                Ok(())
            }
            Some(Err(e)) => Err(self.failed(e)),
            Some(Ok(())) | None => Ok(()),
        }
    }

    fn entry(&mut self, entry: Box<Entry>) -> Result<(), LayerError> {
        self.chunks.push(Vec::new());
        if landmark::is_ours(&entry.path) {
            self.writer = None;
        }
        if entry.size == 0 {
            return self.attempt(|writer| writer.entry(&entry));
        }
        self.attempt(|writer| writer.begin(&entry))?;
        self.open = Some(entry);
        Ok(())
    }

    /// Gives back the payload's buffer.
    fn chunk(&mut self, member: Result<Member, String>) -> Result<Vec<u8>, LayerError> {
        let chunks = self.chunks.last_mut().ok_or(LayerError::Stopped)?;
        let member = member.map_err(|why| {
            let path = self.open.as_ref().map(|e| e.path.clone()).unwrap_or_default();
            estargz::Error::Chunk { path, offset: chunks.iter().map(|c| c.size).sum(), why }
        })?;
        let first = chunks.is_empty();
        let straight = self.writer.as_ref().map(Writer::position);
        self.attempt(|writer| writer.chunk(&member, None))?;
        let place = match straight.filter(|_| self.writer.is_some()) {
            Some(place) => place,
            None => self.spool.append(member.bytes()).map_err(|source| self.io(source))?,
        };
        self.digest = first.then(|| member.digest());
        let info = ChunkInfo {
            size: member.raw().len() as u64,
            digest: member.digest(),
            compressed: member.bytes().len() as u64,
            place,
        };
        self.chunks.last_mut().ok_or(LayerError::Stopped)?.push(info);
        Ok(member.into_raw())
    }

    /// Ends the last entry.
    fn end(&mut self) -> Result<(), LayerError> {
        if self.open.take().is_none() {
            return Ok(());
        }
        let digest = self.digest.take();
        self.attempt(|writer| {
            writer.end(digest.ok_or_else(|| estargz::Error::Toc { why: "a file without digest".into() })?)
        })
    }

    fn finish(mut self) -> Result<Committed, LayerError> {
        self.end()?;
        let entries = self.chunks.len();
        let ready = match self.writer.take().map(Writer::finish) {
            Some(Ok((straight, summary))) => Some((Ready { summary, entries }, straight)),
            Some(Err(e)) => return Err(self.failed(e)),
            None => None,
        };
        Ok(Committed { chunks: self.chunks, ready })
    }
}
