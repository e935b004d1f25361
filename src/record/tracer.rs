//! The recorders: which tracepoints, how their events become touches, and the thread that empties the rings.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::Error;
use super::format::{Field, Format};
use super::perf::{Record, Ring, Step, Watch};
use super::touch::{Event, What};
use super::tracefs::Tracefs;

/// A recorder that this kernel has.
#[derive(Clone)]
pub(super) struct Tracer {
    /// `filemap` or `page-cache`.
    pub name: &'static str,
    layouts: Vec<Layout>,
    /// Early kernels report one page too many in `mm_filemap_get_pages`; found out by reading one page and looking.
    pub off_by_one: bool,
}

/// Where a tracepoint keeps what we want.
#[derive(Clone)]
struct Layout {
    id: u64,
    what: What,
    kind_of_event: Field,
    thread: Field,
    ino: Field,
    dev: Field,
    index: Field,
    last: Option<Field>,
    order: Option<Field>,
}

const FILEMAP: [(&str, What); 4] = [
    ("filemap/mm_filemap_get_pages", What::Read),
    ("filemap/mm_filemap_fault", What::Fault),
    ("filemap/mm_filemap_map_pages", What::Around),
    (PAGE_CACHE, What::Added),
];
/// Most bytes of all rings together, but for [`SMALL_RING`] each.
const RINGS: usize = 512 << 20;
/// What a ring has in any case.
const SMALL_RING: usize = 1 << 20;
const PAGE_CACHE: &str = "filemap/mm_filemap_add_to_page_cache";

impl Tracer {
    /// Finds the exact tracepoints.
    pub(super) fn filemap() -> Result<Self, Error> {
        let tracefs = Tracefs::open()?;
        let layouts = FILEMAP.iter().map(|(event, what)| Layout::find(&tracefs, event, *what));
        Ok(Self { name: "filemap", layouts: layouts.collect::<Result<_, _>>()?, off_by_one: false })
    }

    /// Finds the tracepoint of cache misses.
    pub(super) fn page_cache() -> Result<Self, Error> {
        let layouts = vec![Layout::find(&Tracefs::open()?, PAGE_CACHE, What::Added)?];
        Ok(Self { name: "page-cache", layouts, off_by_one: false })
    }

    /// Whether only cache misses are seen.
    pub(super) fn misses_only(&self) -> bool {
        self.name == "page-cache"
    }

    /// What a raw event tells.
    fn decode(&self, process: u32, at: u64, raw: &[u8]) -> Option<Event> {
        let layout = self.layouts.iter().find(|l| l.kind_of_event.read(raw) == Some(l.id & 0xffff))?;
        let start = layout.index.read(raw)?;
        let last = match (layout.last, layout.order) {
            (Some(last), _) => last.read(raw)?,
            (None, Some(order)) => start.checked_add(1_u64.checked_shl(u32::try_from(order.read(raw)?).ok()?)? - 1)?,
            (None, None) => start,
        };
        let end = if self.off_by_one && layout.what == What::Read { last } else { last.checked_add(1)? };
        (start < end).then_some(Event {
            what: layout.what,
            thread: u32::try_from(layout.thread.read(raw)?).ok()?,
            process,
            dev: u32::try_from(layout.dev.read(raw)?).ok()?,
            ino: layout.ino.read(raw)?,
            start,
            end,
            at,
        })
    }

    /// Opens one ring for each CPU. `bytes` is the wish for each ring; it is halved until the kernel grants it. Gives the
    /// granted size, too.
    pub(super) fn open(&self, watch: Watch<'_>, bytes: usize) -> Result<(Vec<Ring>, usize), Error> {
        let ids: Vec<u64> = self.layouts.iter().map(|l| l.id).collect();
        let cpus = cpus()?;
        // A node of many CPUs shares out what it has; rings are locked memory.
        let mut bytes = bytes.min((RINGS / cpus.len().max(1)).max(SMALL_RING));
        loop {
            match cpus.iter().map(|&cpu| Ring::open(watch, cpu, &ids, bytes)).collect::<io::Result<Vec<_>>>() {
                Ok(rings) => return Ok((rings, bytes)),
                // EPERM: above the locked memory we may have; ENOMEM: above what there is. Other refusals do not depend on the size.
                Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOMEM)) && bytes > 64 << 10 => {
                    bytes /= 2;
                }
                Err(e) => return Err(Error::Perf(e)),
            }
        }
    }

    /// Empties rings. Gives the number of records.
    pub(super) fn drain(&self, rings: &mut [Ring], sink: &mut impl Sink) -> u64 {
        let mut count = 0;
        for ring in rings {
            count += ring.drain(&mut |record| match record {
                Record::Sample(process, at, raw) => {
                    if let Some(event) = self.decode(process, at, raw) {
                        sink.event(event);
                    }
                }
                Record::Step(step) => sink.step(step),
                Record::Lost(n) => sink.lost(n),
            });
        }
        count
    }
}

/// What rings are emptied into.
pub(super) trait Sink {
    /// An event.
    fn event(&mut self, event: Event);
    /// Where everybody is watched: a step of a process.
    fn step(&mut self, _step: Step) {}
    /// So many events the kernel dropped.
    fn lost(&mut self, count: u64);
}

impl Layout {
    fn find(tracefs: &Tracefs, event: &'static str, what: What) -> Result<Self, Error> {
        let format = tracefs.event(event)?.ok_or(Error::NoTracepoint { event })?;
        Self::new(event, &format, what)
    }

    fn new(event: &str, format: &Format, what: What) -> Result<Self, Error> {
        let field = |name| format.field(name).map_err(|why| Error::Format { event: event.to_owned(), why });
        Ok(Self {
            id: format.id,
            what,
            kind_of_event: field("common_type")?,
            thread: field("common_pid")?,
            ino: field("i_ino")?,
            dev: field("s_dev")?,
            index: field("index")?,
            last: format.find("last_index"),
            order: format.find("order"),
        })
    }
}

/// The thread that empties the rings until it is told to stop, or nobody waits for it any more.
pub(super) struct Recording<S> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<S>>,
}

/// Far below what fills a ring: 1 MiB takes 13,000 events.
const EVERY: Duration = Duration::from_millis(20);

impl<S: Sink + Default + Send + 'static> Recording<S> {
    /// Starts it.
    pub(super) fn start(tracer: Arc<Tracer>, mut rings: Vec<Ring>, mut sink: S) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                tracer.drain(&mut rings, &mut sink);
                thread::sleep(EVERY);
            }
            tracer.drain(&mut rings, &mut sink);
            sink
        });
        Self { stop, thread: Some(thread) }
    }

    /// Stops it and gives what it has.
    pub(super) fn stop(mut self) -> S {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join).transpose();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).unwrap_or_default()
    }
}

impl<S> Drop for Recording<S> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The CPUs that are on.
fn cpus() -> Result<Vec<u32>, Error> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").map_err(Error::Perf)?;
    list(text.trim()).ok_or_else(|| Error::Perf(io::Error::other(format!("cannot parse the list of CPUs {text:?}"))))
}

/// `0-3,8` and the like.
fn list(text: &str) -> Option<Vec<u32>> {
    let mut all = Vec::new();
    for part in text.split(',') {
        let (a, b) = part.split_once('-').unwrap_or((part, part));
        all.extend(a.parse::<u32>().ok()?..=b.parse::<u32>().ok()?);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_expanded() {
        assert_eq!(list("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(list("7"), Some(vec![7]));
        assert_eq!(list("x"), None);
    }
}
