//! Gives a layer to its store while it is being compressed: what is in the spool is sent, and the last chunk is soon followed
//! by the end of the upload.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::spool::Spool;
use crate::estargz::{Members, Summary};
use crate::image::Descriptor;
use crate::store::{Growing, Images};

/// A smaller layer is asked for by its digest first, and takes no time.
const WORTHWHILE: u64 = if cfg!(test) { 1000 } else { 16 << 20 };

/// A blob that grows at the front of a spool.
pub(super) struct Early {
    spool: Arc<Spool>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    written: u64,
    end: Option<End>,
    stored: bool,
}

#[derive(Clone)]
enum End {
    Whole(Descriptor),
    GivenUp,
}

impl Early {
    pub(super) fn new(spool: &Arc<Spool>) -> Arc<Self> {
        Arc::new(Self { spool: Arc::clone(spool), state: Mutex::default(), changed: Condvar::new() })
    }

    /// Stores the blob if the store likes it so. A failure costs nothing but the time that would have been saved.
    pub(super) fn send(&self, dst: &dyn Images) -> Result<(), crate::store::Error> {
        if self.wait(WORTHWHILE).written < WORTHWHILE {
            return Ok(());
        }
        match dst.put_growing(self) {
            Ok(stored) => self.state().stored = stored,
            Err(e) if !matches!(self.state().end, Some(End::GivenUp)) => return Err(e),
            Err(_) => {}
        }
        Ok(())
    }

    /// Whether the finished blob is in the store.
    pub(super) fn is_stored(&self) -> bool {
        self.state().stored
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there are so many bytes, or all.
    fn wait(&self, written: u64) -> MutexGuard<'_, State> {
        let waiting = |s: &mut State| s.written < written && s.end.is_none();
        self.changed.wait_while(self.state(), waiting).unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }
}

impl Growing for Early {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.wait(offset + 1);
        if matches!(state.end, Some(End::GivenUp)) {
            return Err(io::Error::other("it became another one"));
        }
        let there = state.written.saturating_sub(offset);
        drop(state);
        let n = buf.len().min(usize::try_from(there).unwrap_or(usize::MAX));
        self.spool.read_into(&mut buf[..n], offset)?;
        Ok(n)
    }

    fn descriptor(&self) -> Option<Descriptor> {
        match &self.state().end {
            Some(End::Whole(descriptor)) => Some(descriptor.clone()),
            _ => None,
        }
    }
}

/// Appends a blob to a spool as it comes. Dropped before its end it is given up.
pub(super) struct Straight {
    early: Arc<Early>,
}

impl Straight {
    pub(super) fn new(early: &Arc<Early>) -> Self {
        Self { early: Arc::clone(early) }
    }

    /// It is whole, and what it should be.
    pub(super) fn complete(self, summary: &Summary) {
        let descriptor = Descriptor::new(summary.format.media_type(), summary.digest, summary.size);
        self.early.change(|s| s.end = Some(End::Whole(descriptor)));
    }
}

impl Drop for Straight {
    fn drop(&mut self) {
        self.early.change(|s| _ = s.end.get_or_insert(End::GivenUp));
    }
}

impl Members for Straight {
    fn put(&mut self, member: &[u8], _: Option<u64>) -> io::Result<()> {
        self.early.spool.append(member)?;
        self.early.change(|s| s.written += member.len() as u64);
        Ok(())
    }
}
