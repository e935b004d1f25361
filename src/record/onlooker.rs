//! The filemap recorder turned to the whole machine: who touches which part of the files below some mounts, for as long as it looks
//! on. A container that does not exist yet can be recorded so, under any kind of control groups, and with it whoever reads ahead
//! for it.
//!
//! Each event carries its process, and the kernel tells of every process that begins and of every program that is executed: the
//! processes of a container are those that descend from its first one. A reader that it starts is told from the workload by
//! how it came about: `esgz warm` forks the reader and then becomes the workload, so a descendant that still runs `esgz`
//! without having executed it itself is the reader. Nothing is looked up in `/proc`, where short-lived processes are gone.
//!
//! The events of all belong to one page cache: what a reader brought in decides what a fault of the workload maps.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs::File as Opened;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::Error;
use super::assemble::{Scale, kinds_of};
use super::cache::Cache;
use super::perf::{self, Life, Step, Watch};
use super::table::kernel_device;
use super::touch::{Event, Touch, What, fold};
use super::tracer::{Recording, Sink, Tracer};
use super::walk::{Entry, Limits, Snapshot};
use crate::profile::{File, Origin};

/// Lets through events of file systems without a disk, which have devices without a major number, as FUSE mounts do. The
/// kernel keeps a device as `major << 20 | minor`.
const WITHOUT_DISK: &str = "s_dev < 1048576";
/// Wish for each CPU's ring, in bytes.
const RING: usize = 32 << 20;
/// Some 200 MB; a vLLM start with its reader has less than half a million.
const MOST: usize = 4 << 20;

/// A look at the whole machine.
pub struct Onlooker {
    recording: Recording<Heard>,
    began: u64,
}

/// Who is who.
#[derive(Debug, Clone, Copy)]
pub struct Cast<'a> {
    /// First process of the container.
    pub container: u32,
    /// A reader outside of it.
    pub reader: Option<u32>,
    /// Name of the program that starts a reader inside of it.
    pub program: &'a str,
}

/// What a container's processes touched of files, and what the reader did.
#[derive(Debug, Default)]
pub struct Seen {
    /// Touched by the workload.
    pub workload: Vec<File>,
    /// Bytes of files that the workload touched and that were not found below the mounts, in whole pages.
    pub unmapped_bytes: u64,
    /// Touched by the reader.
    pub reader: Vec<File>,
    /// Events on these mounts, whoever's.
    pub events: u64,
    /// Events that the kernel dropped, of any mount.
    pub lost: u64,
}

/// Everything that was heard, not sorted out yet.
pub struct Onlooked {
    heard: Heard,
    began: u64,
}

#[derive(Default)]
struct Heard {
    events: Vec<Event>,
    steps: Vec<Step>,
    lost: u64,
}

impl Sink for Heard {
    fn event(&mut self, event: Event) {
        if self.events.len() < MOST {
            self.events.push(event);
        } else {
            self.lost += 1;
        }
    }

    fn step(&mut self, step: Step) {
        if self.steps.len() < MOST {
            self.steps.push(step);
        } else {
            self.lost += 1;
        }
    }

    fn lost(&mut self, count: u64) {
        self.lost += count;
    }
}

impl Onlooker {
    /// Name of the recorder that it is.
    pub const RECORDER: &str = "filemap";

    /// Begins to look on, at file systems without a disk. What is in the page cache before is not known: the mounts that matter
    /// should be new, or the cache dropped.
    pub fn start() -> Result<Self, Error> {
        Self::with(WITHOUT_DISK)
    }

    fn with(filter: &str) -> Result<Self, Error> {
        let mut tracer = Tracer::filemap()?;
        tracer.off_by_one = counts_one_too_many(&tracer)?;
        let filter = CString::new(filter).map_err(|e| Error::Perf(e.into()))?;
        let (rings, _) = tracer.open(Watch::Everybody(&filter), RING)?;
        let began = perf::now();
        Ok(Self { recording: Recording::start(Arc::new(tracer), rings, Heard::default()), began })
    }

    /// Stops.
    pub fn stop(self) -> Onlooked {
        Onlooked { heard: self.recording.stop(), began: self.began }
    }
}

impl Onlooked {
    /// Sorts out who touched what below these mounts. Walks them, so they must still be there.
    pub fn sort_out(mut self, mounts: &[PathBuf], cast: Cast<'_>) -> Seen {
        let walked: Vec<Snapshot> = mounts.iter().map(|m| Snapshot::take(m, "/", &Limits::default())).collect();
        let entries = || walked.iter().flat_map(|s| &s.entries);
        let devices: HashSet<u32> = entries().map(|e| kernel_device(e.dev)).collect();
        self.heard.events.retain(|e| devices.contains(&e.dev));
        let events = self.heard.events.len() as u64;
        let parts = parts(self.heard.events, self.heard.steps, cast);
        let mut named: HashMap<(u32, u64), Vec<&Entry>> = HashMap::new();
        let touched: HashSet<(u32, u64)> = parts.iter().flatten().map(|t| (t.dev, t.ino)).collect();
        for e in entries() {
            let key = (kernel_device(e.dev), e.ino);
            if touched.contains(&key) {
                named.entry(key).or_default().push(e);
            }
        }
        let scale = Scale { start: self.began, page: perf::page_size() as u64 };
        let [workload, reader] = parts;
        let (workload, unmapped_bytes) = files(&workload, &named, scale);
        let (reader, _) = files(&reader, &named, scale);
        Seen { workload, unmapped_bytes, reader, events, lost: self.heard.lost }
    }
}

/// Whose an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Workload,
    Reader,
}

/// The touches of the workload and those of the reader, folded.
fn parts(mut events: Vec<Event>, steps: Vec<Step>, cast: Cast<'_>) -> [Vec<Touch>; 2] {
    let roles = roles(steps, cast);
    events.sort_by_key(|e| e.at);
    let touched = Cache::default().narrow(&events);
    [Role::Workload, Role::Reader].map(|role| {
        let own = touched.iter().filter(|e| roles.get(&e.process) == Some(&role));
        fold(own.map(|e| Touch::from(*e)).collect())
    })
}

/// What is known of a process of the container.
#[derive(Debug, Clone, Copy, Default)]
struct Process {
    /// It runs the program that starts the reader.
    runs_program: bool,
    /// It came to that by a fork, not by executing it.
    is_split_off: bool,
}

/// The roles of all processes that have one.
fn roles(mut steps: Vec<Step>, cast: Cast<'_>) -> HashMap<u32, Role> {
    // The kernel's order is that of each CPU only.
    steps.sort_by_key(|s| s.at);
    let mut inside: HashMap<u32, Process> = HashMap::from([(cast.container, Process::default())]);
    for step in steps {
        match step.what {
            // A thread.
            Life::Forked(parent) if parent == step.process => {}
            Life::Forked(parent) => match inside.get(&parent).copied() {
                Some(Process { runs_program, .. }) => {
                    inside.insert(step.process, Process { runs_program, is_split_off: runs_program });
                }
                // Its number belonged to another one before.
                None if step.process != cast.container => {
                    inside.remove(&step.process);
                }
                None => {}
            },
            Life::Executed(name) => {
                if let Some(process) = inside.get_mut(&step.process) {
                    let name = name.split(|b| *b == 0).next().unwrap_or_default();
                    *process = Process { runs_program: name == cast.program.as_bytes(), is_split_off: false };
                }
            }
        }
    }
    let role = |p: Process| if p.runs_program && p.is_split_off { Role::Reader } else { Role::Workload };
    let outside = cast.reader.map(|pid| (pid, Role::Reader));
    inside.into_iter().map(|(pid, p)| (pid, role(p))).chain(outside).collect()
}

/// Folded touches by file, in the order of paths, and the bytes of those without a name.
fn files(touches: &[Touch], named: &HashMap<(u32, u64), Vec<&Entry>>, scale: Scale) -> (Vec<File>, u64) {
    let (mut out, mut unmapped) = (Vec::new(), 0_u64);
    for group in touches.chunk_by(|a, b| (a.dev, a.ino) == (b.dev, b.ino)) {
        let Some([first, others @ ..]) = named.get(&(group[0].dev, group[0].ino)).map(Vec::as_slice) else {
            let pages = group.iter().map(|t| t.end - t.start).fold(0, u64::saturating_add);
            unmapped = unmapped.saturating_add(pages.saturating_mul(scale.page));
            continue;
        };
        out.push(File {
            path: first.path.clone(),
            links: others.iter().map(|e| e.path.clone()).collect(),
            origin: Origin::Image,
            size: first.size,
            digest: None,
            first_touch_ms: group.iter().map(|t| scale.ms(t.at)).min().unwrap_or_default(),
            kinds: kinds_of(group.iter().fold(0, |k, t| k | t.kinds)),
            ranges: group.iter().filter_map(|t| scale.range(t, first.size)).collect(),
        });
    }
    out.sort_by(|a, b| a.path.cmp(&b.path));
    (out, unmapped)
}

/// Whether this kernel tells one page too many of a read: seen by reading one page.
fn counts_one_too_many(tracer: &Tracer) -> Result<bool, Error> {
    let (mut rings, _) = tracer.open(Watch::Myself, 64 << 10)?;
    let read = Opened::open("/proc/self/exe").and_then(|f| f.read_at(&mut [0; 512], 0));
    read.map_err(|source| Error::System { what: "read a page of this program", source })?;
    let mut heard = Heard::default();
    tracer.drain(&mut rings, &mut heard);
    Ok(heard.events.iter().any(|e| e.what == What::Read && (e.start, e.end) == (0, 2)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::process::{Command, Stdio};

    use super::*;

    const CAST: Cast<'_> = Cast { container: 10, reader: Some(7), program: "esgz" };

    fn forked(at: u64, process: u32, parent: u32) -> Step {
        Step { process, at, what: Life::Forked(parent) }
    }

    fn executed(at: u64, process: u32, name: &str) -> Step {
        let mut bytes = [0; 16];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Step { process, at, what: Life::Executed(bytes) }
    }

    fn shown(steps: Vec<Step>) -> (Vec<u32>, Vec<u32>) {
        let roles = roles(steps, CAST);
        let of = |role| {
            let mut all: Vec<u32> = roles.iter().filter(|(_, r)| **r == role).map(|(p, _)| *p).collect();
            all.sort_unstable();
            all
        };
        (of(Role::Workload), of(Role::Reader))
    }

    #[test]
    fn the_reader_is_what_was_split_off_before_the_program_became_the_workload() {
        // 10 executes the program, which forks 11, that forks the reader 12, and becomes the workload, which starts 13 and 14.
        let steps = vec![
            forked(1, 10, 3),
            executed(2, 10, "esgz"),
            forked(3, 11, 10),
            forked(4, 12, 11),
            forked(5, 12, 12),
            executed(6, 10, "sh"),
            forked(7, 13, 10),
            executed(8, 13, "python3"),
            forked(9, 14, 13),
            // Nobody's.
            forked(9, 99, 3),
            executed(9, 98, "esgz"),
        ];
        assert_eq!(shown(steps.clone()), (vec![10, 13, 14], vec![7, 11, 12]));
        // The rings of the CPUs are emptied one after the other.
        assert_eq!(shown(steps.into_iter().rev().collect()), (vec![10, 13, 14], vec![7, 11, 12]));
    }

    #[test]
    fn without_that_program_nobody_in_the_container_is_a_reader() {
        let steps = vec![executed(2, 10, "esgz2"), forked(3, 11, 10), executed(4, 10, "sh"), forked(5, 12, 10)];
        assert_eq!(shown(steps), (vec![10, 11, 12], vec![7]));
        // What executes the program is no reader; what that one forks is.
        let again = vec![forked(1, 11, 10), executed(2, 11, "esgz"), forked(3, 12, 11), executed(4, 12, "cat")];
        assert_eq!(shown(again), (vec![10, 11, 12], vec![7]));
    }

    #[test]
    fn a_number_that_is_used_again_changes_sides() {
        assert_eq!(shown(vec![forked(1, 11, 10), forked(2, 11, 3)]), (vec![10], vec![7]));
        assert_eq!(shown(vec![forked(1, 11, 3), forked(2, 11, 10)]), (vec![10, 11], vec![7]));
    }

    #[test]
    fn pages_that_the_reader_brought_in_count_where_the_workload_maps_them() {
        let event =
            |what, process, start, end, at| Event { what, thread: process, process, dev: 1, ino: 5, start, end, at };
        let events = vec![
            event(What::Around, 10, 0, 16, 30),
            event(What::Added, 7, 2, 6, 10),
            event(What::Read, 7, 2, 6, 20),
            event(What::Read, 99, 40, 50, 40),
            event(What::Read, 10, 60, 61, 50),
        ];
        let [workload, reader] = parts(events, Vec::new(), CAST);
        let pages = |touches: &[Touch]| touches.iter().map(|t| (t.start, t.end)).collect::<Vec<_>>();
        assert_eq!(pages(&workload), [(2, 6), (60, 61)], "not the whole window, and nothing of a stranger");
        assert_eq!(pages(&reader), [(2, 6)]);
    }

    #[test]
    fn the_machine_is_looked_at_and_sides_are_told_apart() {
        let dir = tempfile::tempdir().expect("a folder");
        let page = |n: usize| vec![b'x'; n * 4096];
        // Of a disk that all tests use only these files, lest a busy machine fill the rings.
        let mut inodes = Vec::new();
        for (name, pages) in [("reader", 4), ("workload", 3), ("stranger", 2), ("child", 1)] {
            fs::write(dir.path().join(name), page(pages)).expect("written");
            inodes.push(format!("i_ino == {}", fs::metadata(dir.path().join(name)).expect("there").ino()));
        }
        fs::hard_link(dir.path().join("workload"), dir.path().join("other-name")).expect("linked");
        fs::copy("/bin/sh", dir.path().join("esgz")).expect("copied");
        let device = kernel_device(fs::metadata(dir.path()).expect("there").dev());
        let onlooker = match Onlooker::with(&format!("s_dev == {device} && ({})", inodes.join(" || "))) {
            Ok(onlooker) => onlooker,
            // Without the tracepoints or the right to them there is nothing to test.
            Err(e) => {
                return assert!(matches!(e, Error::Tracefs(_) | Error::NoTracepoint { .. } | Error::Perf(_)), "{e}");
            }
        };
        fs::read(dir.path().join("stranger")).expect("read");
        // As `esgz warm` does it: a fork that reads, and an exec.
        let script = "(while read -r x; do :; done <reader); exec sh -c 'cat workload; (exec cat child); exit 0'";
        let mut program = Command::new("./esgz");
        program.args(["-c", script]).current_dir(dir.path()).stdout(Stdio::null());
        let mut child = program.spawn().expect("started");
        let container = child.id();
        assert!(child.wait().expect("ended").success());
        let cast = Cast { container, reader: None, program: "esgz" };
        let seen = onlooker.stop().sort_out(&[dir.path().to_owned()], cast);
        let whole = |files: &[File]| -> Vec<(String, Vec<String>, u64)> {
            files.iter().map(|f| (f.path.clone(), f.links.clone(), f.touched_bytes())).collect()
        };
        assert_eq!((seen.lost, seen.unmapped_bytes), (0, 0));
        assert_eq!(whole(&seen.reader), [("/reader".to_owned(), vec![], 4 * 4096)]);
        let workload =
            [("/child".to_owned(), vec![], 4096), ("/other-name".to_owned(), vec!["/workload".to_owned()], 3 * 4096)];
        assert_eq!(whole(&seen.workload), workload);
        assert!(seen.events > 4, "{}", seen.events);
    }
}
