//! The recorders under one roof: which one this machine allows, what each needs before the start, and what it has seen in the end.
//! docs/profile.md has the contracts; `tests/truth` holds them to it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::Error;
use super::assemble::{Assembled, Scale, assemble};
use super::perf::{self, Watch};
use super::place::Place;
use super::table::Table;
use super::touch::Log;
use super::tracer::{Recording, Tracer};
use super::walk::Snapshot;
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
}

/// Whom to record.
#[derive(Debug)]
pub(super) enum Subject {
    /// A process of ours that has not begun, with all that it will start.
    Child(i32),
    /// These threads and all that they will start.
    Threads(Vec<i32>),
    /// Everything in a control group.
    Cgroup(OwnedFd),
}

/// A recorder that this machine allows.
pub(super) struct Engine {
    tracer: Tracer,
    table: Option<Table>,
    recording: Option<Recording>,
    /// Facts for the profile's header.
    facts: BTreeMap<String, String>,
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

/// What a kept page cache does to the filemap recorder. Measured on 6.18: `filemap_map_pages` leaves before its tracepoint when a
/// 2 MiB folio could be mapped whole, and such folios are in the cache when a file was written lately.
const KEPT: &str = "mapped files that are cached in 2 MiB folios may be missing";

impl Engine {
    /// Finds a recorder; with `Auto` the refusals of all are the error.
    pub(super) fn find(which: Which) -> Result<Self, Error> {
        let tracer = match which {
            Which::Filemap => Tracer::filemap(),
            Which::PageCache => Tracer::page_cache(),
            Which::Auto => {
                let mut refusals = Vec::new();
                let mut or = |name: &str, found: Result<Tracer, Error>| {
                    found.map_err(|e| refusals.push(format!("{name}: {}", chain(&e)))).ok()
                };
                let found = or("filemap", Tracer::filemap()).or_else(|| or("page-cache", Tracer::page_cache()));
                found.ok_or(Error::NoRecorder { refusals })
            }
        }?;
        Ok(Self { tracer, table: None, recording: None, facts: BTreeMap::new() })
    }

    /// What it is called, what it adds and what it cannot see.
    pub(super) fn describe(&self) -> Recorder {
        let (inflation, blind) = if self.tracer.misses_only() {
            (
                "cache misses with the kernel's read-ahead, after the page cache was dropped: measured 1.0 to 2.6 times the bytes \
                 really touched; pages that another process reads into the cache first",
                "pages that were still in the cache (mapped by other processes), files on tmpfs, O_DIRECT, paths that are only looked up",
            )
        } else {
            (
                "read(2) exact to the page; faults through mappings with the kernel's fault-around of up to 64 KiB \
                 (mm_filemap_map_pages), so sparsely touched libraries are over-reported by up to 15 pages a touch",
                "files on tmpfs, O_DIRECT, paths that are only looked up",
            )
        };
        Recorder {
            name: self.tracer.name.into(),
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
        let needs = self.tracer.misses_only();
        let state = if keep_cache && !needs {
            format!("kept: {KEPT}")
        } else {
            match drop_caches() {
                Ok(()) => "dropped before the start".into(),
                Err(e) if needs => return Err(Error::DropCaches(e)),
                Err(e) => {
                    progress.warn(&format!("the page cache was not dropped ({e}): {KEPT}"));
                    format!("kept: {KEPT}")
                }
            }
        };
        self.facts.insert("page_cache".into(), state);
        let (table, unknown) = Table::of_root(&place.root, &place.mounts, before, &mut self.tracer)?;
        for words in &unknown {
            progress.warn(words);
        }
        self.table = Some(table);
        Ok(())
    }

    /// Begins to record.
    pub(super) fn start(&mut self, subject: &Subject, ring: usize) -> Result<(), Error> {
        let child;
        let watch = match subject {
            Subject::Child(pid) => {
                child = [*pid];
                Watch::Threads(&child)
            }
            Subject::Threads(all) => Watch::Threads(all),
            Subject::Cgroup(dir) => Watch::Cgroup(dir.as_fd()),
        };
        let (rings, granted) = self.tracer.open(watch, ring)?;
        self.facts.insert("ring_bytes_per_cpu".into(), granted.to_string());
        self.recording = Some(Recording::start(Arc::new(self.tracer.clone()), rings));
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
    pub(super) fn stop(&mut self) -> Log {
        self.recording.take().map(Recording::stop).unwrap_or_default()
    }

    /// Names what was seen. `start` is when the command was let go, on the records' clock.
    pub(super) fn assemble(self, log: Log, place: &Place, before: &Snapshot, after: &Snapshot, start: u64) -> Seen {
        let mut table = self.table.unwrap_or_default();
        let own = after.entries.iter().filter(|e| before.get(&e.path).is_none()).filter_map(|e| table.key(e)).collect();
        if let Some(upper) = place.mounts.upper() {
            table.add_upper(&upper, before);
        }
        let Log { events, lost, .. } = log;
        let scale = Scale { start, page: perf::page_size() as u64 };
        let within = (place.root.as_path(), &place.mounts, &place.limits);
        let assembled = assemble(&log.into_touches(), &mut table, &own, within, scale);
        Seen { assembled, events, lost, ..Seen::default() }
    }
}

fn drop_caches() -> io::Result<()> {
    nix::unistd::sync();
    fs::write("/proc/sys/vm/drop_caches", "3")
}
