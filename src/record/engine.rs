//! The recorders under one roof: which one this machine allows, what each needs before the start, and what it has seen in the end.
//! docs/profile.md has the contracts; `tests/truth` holds them to it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::unistd::Pid;

use super::assemble::{Assembled, Scale, assemble};
use super::cache::Cache;
use super::fanotify::{self, Fanotify, Writers};
use super::mounts::is_pseudo;
use super::perf::{self, Watch};
use super::place::Place;
use super::residency::{self, Residency};
use super::seccomp::{self, Filter, Supervisor};
use super::sightings::Sightings;
use super::spans::Spans;
use super::table::Table;
use super::touch::{Log, Reckoning};
use super::tracer::{Recording, Tracer};
use super::walk::{self, Entry, Snapshot};
use super::{Error, incore, naming};
use crate::profile::Recorder;
use crate::progress::{Progress, chain};

/// What the user asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Which {
    /// The first of the others that this machine allows.
    #[default]
    Auto,
    /// `mm_filemap_get_pages`, `_fault` and `_map_pages`: what is asked for, cached or not (kernel 6.12 or so).
    Filemap,
    /// `mm_filemap_add_to_page_cache`: what comes into an emptied page cache.
    PageCache,
    /// What is opened, and of that what comes into an emptied page cache.
    Fanotify,
    /// Every call that opens, reads or maps, looked at before it runs; no privilege is needed.
    Seccomp,
    /// What comes into an emptied page cache, whoever brings it there; no privilege is needed.
    Residency,
}

impl Which {
    /// The order in which `Auto` tries them: the fewest bytes too many first. That `Seccomp` slows the start more than the
    /// ones behind it matters less: a profile is taken once.
    const ALL: [Self; 5] = [Self::Filemap, Self::Seccomp, Self::PageCache, Self::Fanotify, Self::Residency];

    /// All of them, as they are listed to a user.
    pub const EVERY: [Self; 6] =
        [Self::Auto, Self::Filemap, Self::PageCache, Self::Fanotify, Self::Seccomp, Self::Residency];

    /// As the profile and the command line have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Filemap => "filemap",
            Self::PageCache => "page-cache",
            Self::Fanotify => "fanotify",
            Self::Seccomp => "seccomp",
            Self::Residency => "residency",
        }
    }
}

/// Whom to record.
#[derive(Debug)]
pub(super) enum Subject {
    /// A process of ours that has not begun, with all that it will start.
    Child(Pid),
    /// These threads of a process and its children, and all that they will start.
    Threads(Vec<i32>, Pid),
    /// Everything in the control group of a process.
    Cgroup(OwnedFd, Pid),
}

impl Subject {
    /// The process that it is about.
    fn leader(&self) -> Pid {
        match self {
            Self::Child(pid) | Self::Threads(_, pid) | Self::Cgroup(_, pid) => *pid,
        }
    }

    /// Its threads.
    fn processes(&self) -> Vec<i32> {
        match self {
            Self::Threads(all, _) => all.clone(),
            Self::Child(pid) | Self::Cgroup(_, pid) => vec![pid.as_raw()],
        }
    }
}

/// A recorder that this machine allows.
pub(super) struct Engine {
    kind: Kind,
    /// Tells who writes what, beside a recorder that does not.
    writers: Option<Writers>,
    /// Facts for the profile's header.
    facts: BTreeMap<String, String>,
    notes: Vec<String>,
}

/// Each recorder in the state it is in.
enum Kind {
    Trace { tracer: Tracer, table: Option<Table>, recording: Option<Recording<Log>>, dropped: bool },
    Fanotify(Prepared<Fanotify>),
    Residency(Prepared<Residency>),
    Seccomp { filter: Option<Filter>, supervisor: Option<Supervisor> },
}

/// A recorder that needs the page cache looked at before it runs.
struct Prepared<T> {
    residency: Option<Residency>,
    running: Option<T>,
}

impl<T> Prepared<T> {
    fn new() -> Self {
        Self { residency: None, running: None }
    }
}

/// What was seen, not named yet.
pub(super) enum Raw {
    Touches(Log, HashMap<(u64, u64), String>),
    Sightings(Sightings),
}

/// What was seen, and how well.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// By file.
    pub assembled: Assembled,
    /// Events taken in.
    pub events: u64,
    /// Events that are known to be missing.
    pub lost: u64,
    /// What is to be said of this run.
    pub notes: Vec<String>,
    /// Names of the programs that wrote files, by the device and inode that `stat` shows.
    pub writers: HashMap<(u64, u64), String>,
}

/// The state of the page cache in which everything that comes into it is known.
const DROPPED: &str = "dropped before the start";
/// Where nobody may drop it.
const PUSHED: &str = "pushed out file by file";
/// Smaller files have no folios that are larger than the window of a fault.
const HUGE: u64 = 64 << 10;
/// What a kept page cache does to the filemap recorder. Measured on 6.18: `filemap_map_pages` leaves before its tracepoint when a
/// 2 MiB folio could be mapped whole, and such folios are in the cache when a file was written lately.
const KEPT: &str = "mapped files that are cached in 2 MiB folios may be missing";

impl Engine {
    /// Finds a recorder; with `Auto` the refusals of all are the error. `running` tells that the subject runs already.
    pub(super) fn find(which: Which, running: bool) -> Result<Self, Error> {
        if which != Which::Auto {
            return Self::of(which, running);
        }
        let mut refusals = Vec::new();
        for which in Which::ALL {
            match Self::of(which, running) {
                Ok(mut engine) => {
                    engine.notes.extend(refusals.iter().map(|r| format!("not recorded with {r}")));
                    return Ok(engine);
                }
                Err(e) => refusals.push(format!("{}: {}", which.name(), chain(&e))),
            }
        }
        Err(Error::NoRecorder { refusals })
    }

    fn of(which: Which, running: bool) -> Result<Self, Error> {
        let refused = |why| Error::Refused { recorder: which.name(), why };
        let mut notes = Vec::new();
        let trace = |tracer| Kind::Trace { tracer, table: None, recording: None, dropped: false };
        let kind = match which {
            Which::Auto | Which::Filemap => trace(allowed(Tracer::filemap()?)?),
            Which::PageCache => {
                let tracer = allowed(Tracer::page_cache()?)?;
                if !can_drop_caches() {
                    return Err(Error::DropCaches(io::ErrorKind::PermissionDenied.into()));
                }
                trace(tracer)
            }
            Which::Fanotify => {
                fanotify::available().map_err(refused)?;
                Kind::Fanotify(Prepared::new())
            }
            Which::Seccomp if running => return Err(refused("it must see the command from its start".into())),
            Which::Seccomp => {
                seccomp::available().map_err(refused)?;
                let filter = Filter::prepare().map_err(|e| refused(e.to_string()))?;
                Kind::Seccomp { filter: Some(filter), supervisor: None }
            }
            Which::Residency => {
                notes.extend(residency::available().map_err(refused)?);
                Kind::Residency(Prepared::new())
            }
        };
        Ok(Self { kind, writers: None, facts: BTreeMap::new(), notes })
    }

    /// What it is called, what it adds and what it cannot see.
    pub(super) fn describe(&self) -> Recorder {
        let (name, inflation, blind) = match &self.kind {
            Kind::Trace { tracer, .. } if tracer.misses_only() => (
                Which::PageCache,
                "cache misses with the kernel's read-ahead, after the page cache was dropped: measured 1.0 to 2.6 times the bytes \
                 really touched; pages that another process reads into the cache first",
                "pages that were still in the cache (mapped by other processes), files on tmpfs, O_DIRECT, paths that are only looked up",
            ),
            Kind::Trace { .. } => (
                Which::Filemap,
                "read(2) exact to the page; faults through mappings with those pages of the kernel's fault-around of up to 64 KiB that \
                 were in the page cache then, which the command may have touched or not (with --keep-cache all pages of it)",
                "files on tmpfs, O_DIRECT, paths that are only looked up",
            ),
            Kind::Fanotify(_) => (Which::Fanotify, fanotify::INFLATION, fanotify::BLIND),
            Kind::Seccomp { .. } => (Which::Seccomp, seccomp::INFLATION, seccomp::BLIND),
            Kind::Residency(_) => (Which::Residency, residency::INFLATION, residency::BLIND),
        };
        Recorder {
            name: name.name().into(),
            version: env!("CARGO_PKG_VERSION").into(),
            inflation: inflation.into(),
            blind: blind.into(),
        }
    }

    /// What is to be done before the start: an empty page cache, and which device is which.
    pub(super) fn prepare(
        &mut self,
        place: &Place,
        before: &Snapshot,
        keep_cache: bool,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let needs = match &self.kind {
            Kind::Trace { tracer, .. } => tracer.misses_only(),
            Kind::Fanotify(_) | Kind::Residency(_) => true,
            Kind::Seccomp { .. } => false,
        };
        // It reads a little itself, so before the cache is emptied.
        if let Kind::Trace { tracer, table, .. } = &mut self.kind {
            let (found, unknown) = Table::of_root(&place.root, &place.mounts, before, tracer)?;
            for words in &unknown {
                progress.warn(words);
            }
            *table = Some(found);
        }
        let state = if keep_cache && !needs {
            format!("kept: {}", self.when_kept())
        } else {
            match (drop_caches(), &self.kind) {
                (Ok(()), _) => DROPPED.into(),
                // These push out file by file what they look at.
                (Err(_), Kind::Fanotify(_) | Kind::Residency(_)) => PUSHED.into(),
                // Calls are seen whatever the cache holds, but it maps the huge folios that it has at one touch.
                (Err(_), Kind::Seccomp { .. }) => {
                    before.entries.iter().filter(|e| e.size > HUGE).for_each(|e| push_out(place, e));
                    PUSHED.into()
                }
                (Err(e), _) if needs => return Err(Error::DropCaches(e)),
                (Err(e), _) => {
                    let words = self.when_kept();
                    progress.warn(&format!("the page cache was not dropped ({e}): {words}"));
                    format!("kept: {words}")
                }
            }
        };
        let is_dropped = state == DROPPED;
        self.facts.insert("page_cache".into(), state);
        match &mut self.kind {
            Kind::Trace { dropped, .. } => *dropped = is_dropped,
            Kind::Fanotify(p) => p.residency = Some(look(place, before)?),
            Kind::Residency(p) => p.residency = Some(look(place, before)?),
            Kind::Seccomp { .. } => {}
        }
        Ok(())
    }

    /// What a kept page cache does to this recorder.
    fn when_kept(&self) -> &'static str {
        match self.kind {
            Kind::Seccomp { .. } => "a touch of a mapped file that is cached in 2 MiB folios counts all of them",
            _ => KEPT,
        }
    }

    /// The filter that the command has to put on, if this recorder wants one.
    pub(super) fn filter(&self) -> Option<&Filter> {
        match &self.kind {
            Kind::Seccomp { filter, .. } => filter.as_ref(),
            _ => None,
        }
    }

    /// Begins to record. A command of ours still waits at its gate.
    pub(super) fn start(
        &mut self,
        subject: &Subject,
        place: &Place,
        before: &Snapshot,
        ring: usize,
    ) -> Result<(), Error> {
        match &mut self.kind {
            Kind::Trace { tracer, table, recording, dropped } => {
                let child = subject.processes();
                let watch = match subject {
                    Subject::Cgroup(dir, _) => Watch::Cgroup(dir.as_fd()),
                    Subject::Child(_) | Subject::Threads(..) => Watch::Threads(&child),
                };
                let (rings, granted) = tracer.open(watch, ring)?;
                self.facts.insert("ring_bytes_per_cpu".into(), granted.to_string());
                // Looked at with the rings open: what comes in from here on is told.
                let reckoning = match (tracer.misses_only(), *dropped) {
                    (true, _) => Reckoning::Misses,
                    (false, true) => Reckoning::Narrowed(Cache::with_warm(warm(place, before, table.as_ref()))),
                    (false, false) => Reckoning::Windows,
                };
                *recording = Some(Recording::start(Arc::new(tracer.clone()), rings, Log::new(reckoning)));
                // A comfort: without the right to it the writers stay unknown.
                self.writers = Writers::start(&place.root, &place.mounts, subject.leader()).ok();
            }
            Kind::Fanotify(p) => {
                if let Some(residency) = p.residency.take() {
                    p.running = Some(Fanotify::start(&place.root, &place.mounts, subject.leader(), residency)?);
                }
            }
            Kind::Residency(p) => {
                p.running = p.residency.take();
                if let Some(r) = &mut p.running {
                    r.start();
                }
            }
            Kind::Seccomp { .. } => {}
        }
        Ok(())
    }

    /// Goes on once the command's gate is open, for what can only begin then.
    pub(super) fn released(&mut self, pid: Pid) -> Result<(), Error> {
        if let Kind::Seccomp { filter, supervisor } = &mut self.kind
            && let Some(filter) = filter.take()
        {
            let refused = |e: io::Error| Error::Refused { recorder: Which::Seccomp.name(), why: e.to_string() };
            let listener = filter.listener().map_err(refused)?;
            *supervisor = Some(Supervisor::start(listener, pid).map_err(refused)?);
        }
        Ok(())
    }

    /// Facts for the profile's header.
    pub(super) fn facts(&self) -> &BTreeMap<String, String> {
        &self.facts
    }

    /// Adds a fact.
    pub(super) fn note(&mut self, name: &str, value: String) {
        self.facts.insert(name.into(), value);
    }

    /// Ends recording; what it has seen waits for [`Engine::assemble`].
    pub(super) fn stop(&mut self) -> Raw {
        match &mut self.kind {
            Kind::Trace { recording, .. } => {
                let log = recording.take().map(Recording::stop).unwrap_or_default();
                Raw::Touches(log, self.writers.take().map(Writers::stop).unwrap_or_default())
            }
            Kind::Fanotify(p) => Raw::Sightings(p.running.take().map(Fanotify::stop).unwrap_or_default()),
            Kind::Residency(p) => Raw::Sightings(p.running.take().map(|r| r.stop(None)).unwrap_or_default()),
            // It stays: what is left of the command's calls has to be answered.
            Kind::Seccomp { supervisor, .. } => {
                Raw::Sightings(supervisor.as_mut().map(Supervisor::stop).unwrap_or_default())
            }
        }
    }

    /// Names what was seen. `start` is when the command was let go, on the records' clock.
    pub(super) fn assemble(
        &mut self,
        raw: Raw,
        place: &Place,
        before: &Snapshot,
        after: &Snapshot,
        start: u64,
    ) -> Seen {
        let scale = Scale { start, page: perf::page_size() as u64 };
        let mut notes = std::mem::take(&mut self.notes);
        match raw {
            Raw::Touches(log, writers) => {
                let mut table = match &mut self.kind {
                    Kind::Trace { table, .. } => table.take().unwrap_or_default(),
                    _ => Table::default(),
                };
                let is_new = |e: &&Entry| before.get(&e.path).is_none();
                let own = after.entries.iter().filter(is_new).filter_map(|e| table.key(e)).collect();
                if let Some(upper) = place.mounts.upper() {
                    table.add_upper(&upper, before);
                }
                let Log { events, lost, .. } = log;
                let within = (place.root.as_path(), &place.mounts, &place.limits);
                let assembled = assemble(&log.into_touches(), &mut table, &own, within, scale);
                Seen { assembled, events, lost, notes, writers }
            }
            Raw::Sightings(seen) => {
                let (assembled, more) = naming::assemble(&seen, place, before, scale);
                notes.extend(seen.notes);
                notes.extend(more);
                Seen { assembled, events: seen.events, lost: seen.lost, notes, writers: seen.writers }
            }
        }
    }
}

/// The files that have pages in the cache although it was dropped: others map them, or have read them since.
fn warm(place: &Place, before: &Snapshot, table: Option<&Table>) -> HashSet<(u32, u64)> {
    let is_cached = |e: &&Entry| {
        let look = |f: fs::File| incore::resident(&f, e.size, &Spans::default());
        e.size > 0 && walk::open(&place.root, &e.path).and_then(look).is_ok_and(|pages| !pages.is_empty())
    };
    before.entries.iter().filter(is_cached).filter_map(|e| table?.key(e)).collect()
}

/// A tracer that may trace. That tracefs can be read does not say so.
fn allowed(tracer: Tracer) -> Result<Tracer, Error> {
    tracer.open(Watch::Myself, 64 << 10).map(|_| tracer)
}

/// Everything that may be touched: the root and the volumes in it.
fn look(place: &Place, before: &Snapshot) -> Result<Residency, Error> {
    let volumes: Vec<Snapshot> = place
        .mounts
        .below
        .iter()
        .filter(|m| !is_pseudo(&m.kind))
        .map(|m| Snapshot::take(&place.root, &m.point, &place.limits))
        .collect();
    Residency::prepare(&place.root, &[before].into_iter().chain(&volumes).collect::<Vec<_>>())
}

/// Pushes a file out of the page cache; where that is refused it stays.
fn push_out(place: &Place, e: &Entry) {
    if let Ok(file) = walk::open(&place.root, &e.path) {
        incore::evict(&file);
    }
}

const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

fn drop_caches() -> io::Result<()> {
    nix::unistd::sync();
    // The page cache alone: without their inodes, file systems of libfuse's high-level interface give files new numbers.
    fs::write(DROP_CACHES, "1")
}

/// Whether they can be dropped, without doing it.
fn can_drop_caches() -> bool {
    fs::OpenOptions::new().write(true).open(DROP_CACHES).is_ok()
}
