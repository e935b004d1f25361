//! Recording without any privilege: a seccomp filter tells us of the calls of a process tree, each before it runs; we look at
//! the caller through `/proc`, note what it is about to do, and let it go on. Hides the filter, its listener and `/proc`; gives
//! out [`Sightings`].
//!
//! Contract:
//! - No capability is needed, and any user will do. Linux 5.6 or later; signals may interrupt calls that wait for us before
//!   5.19 (an `EINTR` that would not have been), the page tables are read in full before 6.7.
//! - `no_new_privs` is set: set-user-ID programs and file capabilities give nothing (in restricted pods they never do).
//! - The workload may have filters of its own, but none with a listener (`EBUSY`), and its `SECCOMP_RET_TRACE` and
//!   `SECCOMP_RET_LOG` do not act on the calls that we are told of. Debuggers work.
//! - Reads are exact to the byte, as asked for at the call's beginning and cut at the file's size: a call that then fails, or
//!   reads less, counts too; and where threads share a file position, it may move between our look and the call.
//! - Mapped files are sampled: every 250 ms or slower, and before `munmap`, `mremap`, `execve` and the end of a process. Pages
//!   carry the time of the sample that saw them first. Over-reported: the fault-around of up to 64 KiB for a touched page (2 MiB
//!   where the page cache maps huge pages). Missed: pages taken out of the page tables between samples (reclaim,
//!   `MADV_DONTNEED`, a mapping put over another), and those touched since the last sample by a process that is killed.
//! - If this process is killed, the kernel fails the told calls of the process tree with `ENOSYS`: it ends with us.
//! - Not seen: `io_uring` (stated when it is set up), 32-bit programs, direct reads by devices, and what runs outside the tree.
//! - The path hint of a file is one that it was seen under; look-ups are cleaned by their letters.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::unistd::Pid;

use super::perf::now;
use super::sightings::{Key, Sightings};
use calls::{Context, created, observe};
use listener::{Call, Listener};
use mappings::Known;
use notebook::{Fact, Notebook, Stat};

mod caller;
mod calls;
mod exec;
mod filter;
mod listener;
mod mappings;
mod notebook;
mod pages;
mod probe;
mod sampler;

pub(super) use filter::Filter;
pub(super) use probe::available;

/// What it is known to add, for the profile's header.
pub(super) const INFLATION: &str = "reads exact to the page, as asked for when the call begins (a call that fails or reads less counts whole); mapped \
     files with the kernel's fault-around of up to 64 KiB a touch, 2 MiB where the page cache has huge pages; times of mapped pages are \
     those of a look every 250 ms or more";
/// What it cannot see, for the profile's header.
pub(super) const BLIND: &str = "io_uring, 32-bit programs, pages that were taken out of the page tables between two looks, the last touches of a \
     process that is killed; set-user-ID programs have no effect while it runs";

/// A call that takes longer than this to look at (a FUSE daemon of the workload that waits for us itself) is let go unseen.
const PATIENCE_NS: u64 = 5_000_000_000;
const WATCH: Duration = Duration::from_millis(250);
/// Threads at most; more than at the start only to replace those that are stuck.
const THREADS: usize = 32;

/// Answers the told calls of a process tree, from [`Supervisor::start`] to the end of the tree or of this process: without an
/// answer each such call would fail.
pub(super) struct Supervisor {
    shared: Arc<Shared>,
}

struct Shared {
    listener: Listener,
    /// Until [`Supervisor::stop`] takes it.
    notebook: Mutex<Option<Notebook>>,
    recording: AtomicBool,
    root_pid: u32,
    base: Vec<u8>,
    /// Our own program.
    ours: Option<Key>,
    /// The command's first process has left our program.
    started: AtomicBool,
    desks: Mutex<Vec<Arc<Desk>>>,
}

/// What a thread is looking at.
#[derive(Default)]
struct Desk {
    /// The call, zero when there is none: the kernel counts from a random number.
    id: AtomicU64,
    since: AtomicU64,
    stuck: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Supervisor {
    /// Serves a listener from now on. `root_pid` is the filtered child, which is not past its first exec.
    pub(super) fn start(listener: OwnedFd, root_pid: Pid) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            listener: Listener::new(listener)?,
            notebook: Mutex::new(Some(Notebook::default())),
            recording: AtomicBool::new(true),
            root_pid: root_pid.as_raw().unsigned_abs(),
            base: caller::link(&format!("/proc/{root_pid}/root"))?,
            ours: caller::stat_path(b"/proc/self/exe").ok().map(|s| s.key),
            started: AtomicBool::new(false),
            desks: Mutex::default(),
        });
        let threads = thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4));
        for _ in 0..threads {
            shared.serve_on_a_thread()?;
        }
        let watched = Arc::clone(&shared);
        thread::Builder::new().name("seccomp-watch".into()).spawn(move || watched.watch())?;
        let sampled = Arc::clone(&shared);
        thread::Builder::new().name("seccomp-sample".into()).spawn(move || sampled.sample())?;
        Ok(Self { shared })
    }

    /// Ends the recording. What is left of the process tree keeps its filter, so calls are answered as before, but unseen: each
    /// told call still costs it two changes of context.
    pub(super) fn stop(&mut self) -> Sightings {
        self.shared.recording.store(false, Ordering::Release);
        self.shared.sample_all();
        // A call that is being looked at right now has not run: leaving it out is right.
        let mut notebook = lock(&self.shared.notebook).take().unwrap_or_default();
        for tid in notebook.creators() {
            let facts = created(tid, notebook.take_created(tid), &self.shared.base);
            notebook.write(facts, now());
        }
        notebook.into_sightings()
    }
}

impl Shared {
    fn serve_on_a_thread(self: &Arc<Self>) -> io::Result<()> {
        let desk = Arc::new(Desk::default());
        lock(&self.desks).push(Arc::clone(&desk));
        let shared = Arc::clone(self);
        thread::Builder::new().name("seccomp-serve".into()).spawn(move || shared.serve(&desk)).map(drop)
    }

    fn serve(&self, desk: &Desk) {
        loop {
            match self.listener.receive() {
                Ok(Some(call)) => {
                    if self.recording.load(Ordering::Acquire) {
                        desk.since.store(now(), Ordering::Relaxed);
                        desk.id.store(call.id, Ordering::Release);
                        if catch_unwind(AssertUnwindSafe(|| self.look(&call))).is_err() {
                            self.note(vec![Fact::Missed], now());
                        }
                    }
                    self.listener.proceed(call.id);
                    desk.id.store(0, Ordering::Release);
                    if desk.stuck.load(Ordering::Acquire) {
                        // Another thread has taken the place.
                        return;
                    }
                }
                Ok(None) => return,
                // Nothing is known to come here; whatever it is, the workload waits for an answer.
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn look(&self, call: &Call) {
        let at = now();
        let mut facts = observe(call, self);
        let files = lock(&self.notebook).as_mut().map(|n| n.take_created(call.tid)).unwrap_or_default();
        facts.extend(created(call.tid, files, &self.base));
        if self.listener.still_waits(call.id)
            && let Some(notebook) = lock(&self.notebook).as_mut()
        {
            notebook.events += 1;
            notebook.write(facts, at);
        }
    }

    fn note(&self, facts: Vec<Fact>, at: u64) {
        if let Some(notebook) = lock(&self.notebook).as_mut() {
            notebook.write(facts, at);
        }
    }

    /// Lets calls go that are looked at for too long, and replaces the threads that are stuck.
    fn watch(self: Arc<Self>) {
        loop {
            thread::sleep(WATCH);
            let desks = lock(&self.desks).clone();
            let mut busy = false;
            for desk in &desks {
                let id = desk.id.load(Ordering::Acquire);
                busy |= id != 0;
                let late = now().saturating_sub(desk.since.load(Ordering::Relaxed)) > PATIENCE_NS;
                if id == 0 || !late || desk.id.load(Ordering::Acquire) != id {
                    continue;
                }
                self.listener.proceed(id);
                if desks.len() < THREADS && !desk.stuck.swap(true, Ordering::AcqRel) {
                    self.note(vec![Fact::Missed], now());
                    let _one_less = self.serve_on_a_thread();
                }
            }
            lock(&self.desks).retain(|d| !d.stuck.load(Ordering::Acquire) || d.id.load(Ordering::Acquire) != 0);
            if !busy && !self.recording.load(Ordering::Acquire) {
                return;
            }
        }
    }
}

impl Known for Shared {
    fn mapped(&self, path: &[u8]) -> Vec<Stat> {
        lock(&self.notebook).as_ref().map(|n| n.mapped(path).to_vec()).unwrap_or_default()
    }
}

impl Context for Shared {
    fn has_name(&self, key: Key) -> bool {
        lock(&self.notebook).as_ref().is_none_or(|n| n.has_name(key))
    }

    fn knows(&self, tid: u32) -> bool {
        lock(&self.notebook).as_ref().is_none_or(|n| n.knows(tid))
    }

    fn base(&self) -> &[u8] {
        &self.base
    }

    fn is_ours(&self, tid: u32) -> bool {
        if tid != self.root_pid || self.started.load(Ordering::Relaxed) {
            return false;
        }
        let ours = caller::stat_path(format!("/proc/{tid}/exe").as_bytes()).is_ok_and(|s| Some(s.key) == self.ours);
        self.started.store(!ours, Ordering::Relaxed);
        ours
    }
}

#[cfg(test)]
mod rig;
#[cfg(test)]
mod tests;
