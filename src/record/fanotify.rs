//! The recorder for hosts without tracefs: fanotify says who opens, executes and reads which file, and in which order; which pages
//! that touched only [`Residency`] can tell, so its limits are ours. Hides marks, queues, and whose event it is.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::fanotify::{EventFFlags, Fanotify as Group, FanotifyEvent, InitFlags, MarkFlags, MaskFlags};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::Pid;

use super::Error;
use super::mounts::Mounts;
use super::perf::now;
use super::residency::Residency;
use super::sightings::{Sighting, Sightings};
use super::touch::{EXEC, OPEN, READ};
use super::tree::{Owner, Tree};
use super::walk::below;

/// What it is known to add, for the profile's header.
pub(super) const INFLATION: &str = "of the files that the command opened, the pages that came into the page cache meanwhile, with the kernel's \
     read-ahead; what processes read that ended before they could be looked at is taken for the command's";
/// What it cannot see, for the profile's header.
pub(super) const BLIND: &str = "pages that were in the page cache before and could not be pushed out (other processes map them), files on tmpfs, \
     O_DIRECT, what was read and deleted, renamed, cut off or pushed out again for want of memory; ranges of files of up to 1 MiB have the time of the file's first open";

/// Longest wait for an event: the delay of the end.
const WAIT: u16 = 50;
/// Longest time that is given to what is still queued at the end.
const LEFT: Duration = Duration::from_secs(5);

/// A recording.
pub(super) struct Fanotify {
    listener: Listener,
    residency: Residency,
}

/// Who writes what, and nothing else: a companion of recorders that cannot tell.
pub(super) struct Writers(Listener);

/// Whether fanotify can be used here, with the reason if not.
pub(super) fn available() -> Result<(), String> {
    let marked =
        group().and_then(|g| g.mark(MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_MOUNT, asked(), cwd(), Some("/")));
    marked.map_err(|e| match e {
        Errno::EPERM => "fanotify is refused: it needs CAP_SYS_ADMIN in the initial user namespace".into(),
        Errno::ENOSYS => "this kernel was built without fanotify".into(),
        Errno::EINVAL => "fanotify of this kernel does not know FAN_OPEN_EXEC: expected 5.0 or later".into(),
        Errno::EMFILE => "all fanotify groups of this user are taken (/proc/sys/fs/fanotify/max_user_groups)".into(),
        other => format!("fanotify is refused: {}", other.desc()),
    })
}

impl Fanotify {
    /// Watches the root and what is mounted below it. Call it while the command waits at its gate.
    pub(super) fn start(root: &Path, mounts: &Mounts, child: Pid, mut residency: Residency) -> Result<Self, Error> {
        let listener = Listener::start(root, mounts, child, asked())?;
        residency.start();
        Ok(Self { listener, residency })
    }

    /// Ends it; the last look is taken at what was opened.
    pub(super) fn stop(self) -> Sightings {
        let mut out = self.listener.stop();
        let opened: HashSet<(u64, u64)> = out.files.keys().copied().collect();
        let looked = self.residency.stop(Some(&opened));
        for (key, resident) in looked.files {
            let Some(file) = out.files.get_mut(&key) else { continue };
            file.kinds |= resident.kinds;
            file.size = resident.size;
            file.path = resident.path.or(file.path.take());
            file.runs = resident.runs;
            // The first look that finds pages comes late, the event in time.
            for run in file.runs.iter_mut().filter(|r| r.at == resident.first) {
                run.at = file.first.min(run.at);
            }
        }
        out.notes.extend(looked.notes);
        out.lost += looked.lost;
        out
    }
}

impl Writers {
    /// Watches the root's file system for files that are closed after writing.
    pub(super) fn start(root: &Path, mounts: &Mounts, child: Pid) -> Result<Self, Error> {
        Listener::start(root, mounts, child, MaskFlags::FAN_CLOSE_WRITE).map(Self)
    }

    /// Names of programs by device and inode, as `stat` gives them, of what they wrote.
    pub(super) fn stop(self) -> HashMap<(u64, u64), String> {
        self.0.stop().writers
    }
}

fn asked() -> MaskFlags {
    MaskFlags::FAN_OPEN | MaskFlags::FAN_OPEN_EXEC | MaskFlags::FAN_ACCESS | MaskFlags::FAN_CLOSE_WRITE
}

fn cwd() -> BorrowedFd<'static> {
    nix::fcntl::AT_FDCWD
}

fn group() -> nix::Result<Group> {
    let flags = InitFlags::FAN_CLASS_NOTIF
        | InitFlags::FAN_CLOEXEC
        | InitFlags::FAN_NONBLOCK
        | InitFlags::FAN_UNLIMITED_QUEUE
        | InitFlags::FAN_UNLIMITED_MARKS;
    Group::init(
        flags,
        EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC | EventFFlags::O_LARGEFILE | EventFFlags::O_NOATIME,
    )
}

/// The thread that takes the events in.
struct Listener {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Sightings>,
}

impl Listener {
    fn start(root: &Path, mounts: &Mounts, child: Pid, mask: MaskFlags) -> Result<Self, Error> {
        let refused = |e: Errno| Error::System { what: "watch the file systems with fanotify", source: e.into() };
        let group = group().map_err(refused)?;
        // A container has its overlay for itself, so all of it is watched, in whatever mount namespace a process looks at it.
        // Other file systems belong to the whole node: of them only the mount.
        let whole = matches!(mounts.root.kind.as_str(), "overlay" | "fuse.fuse-overlayfs");
        let scope = if whole { MarkFlags::FAN_MARK_FILESYSTEM } else { MarkFlags::FAN_MARK_MOUNT };
        group.mark(MarkFlags::FAN_MARK_ADD | scope, mask, cwd(), Some(root)).map_err(refused)?;
        let mut notes = Vec::new();
        let devices: BTreeSet<u32> = mounts.below.iter().map(|m| m.dev).collect();
        for mount in devices.into_iter().flat_map(|dev| mounts.on(dev)) {
            let point = below(root, &mount.point);
            if let Err(e) = group.mark(MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_MOUNT, mask, cwd(), Some(&point)) {
                notes.push(format!("what is mounted at {} is not watched ({})", mount.point, e.desc()));
            }
        }
        let mut watch = Watch {
            group,
            tree: Tree::of(child),
            root: root.to_owned(),
            gone: 0,
            seen: Sightings { notes, ..Sightings::default() },
        };
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                watch.wait();
                if !watch.drain(None) {
                    break;
                }
            }
            watch.drain(Some(Instant::now() + LEFT));
            watch.finish()
        });
        Ok(Self { stop, thread })
    }

    fn stop(self) -> Sightings {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

struct Watch {
    group: Group,
    tree: Tree,
    root: PathBuf,
    /// Events of processes that had ended.
    gone: u64,
    seen: Sightings,
}

impl Watch {
    fn wait(&self) {
        let _interrupted_or_over =
            poll(&mut [PollFd::new(self.group.as_fd(), PollFlags::POLLIN)], PollTimeout::from(WAIT));
    }

    /// Takes in all that is queued, until a moment if others never cease. Tells whether there can be more.
    fn drain(&mut self, until: Option<Instant>) -> bool {
        loop {
            match self.group.read_events() {
                Ok(events) => events.iter().for_each(|e| self.take(e)),
                Err(Errno::EAGAIN) => return true,
                Err(Errno::EINTR) => {}
                Err(e @ (Errno::EBADF | Errno::EINVAL | Errno::EFAULT)) => {
                    self.seen.lost += 1;
                    self.seen.notes.push(format!("fanotify cannot be read any more ({})", e.desc()));
                    return false;
                }
                // The event whose file could not be opened for us is gone.
                Err(_) => self.seen.lost += 1,
            }
            if until.is_some_and(|u| u < Instant::now()) {
                self.seen.lost += 1;
                self.seen.notes.push(format!("events were still queued {} s after the end", LEFT.as_secs()));
                return true;
            }
        }
    }

    fn take(&mut self, event: &FanotifyEvent) {
        let at = now();
        let mask = event.mask();
        let Some(fd) = event.fd().filter(|_| !mask.contains(MaskFlags::FAN_Q_OVERFLOW)) else {
            // Not its number, but that there were some.
            self.seen.lost += 1;
            return;
        };
        match self.tree.owner(event.pid()) {
            Owner::Other => return,
            Owner::Gone => self.gone += 1,
            Owner::Command => {}
        }
        let Ok(meta) = fstat(fd) else {
            self.seen.lost += 1;
            return;
        };
        if SFlag::from_bits_truncate(meta.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            return;
        }
        self.seen.events += 1;
        let key = (meta.st_dev, meta.st_ino);
        if mask.contains(MaskFlags::FAN_CLOSE_WRITE)
            && let Some(name) = self.tree.name(event.pid())
        {
            self.seen.writers.insert(key, name);
        }
        let bits = [(MaskFlags::FAN_OPEN, OPEN), (MaskFlags::FAN_OPEN_EXEC, EXEC), (MaskFlags::FAN_ACCESS, READ)];
        let kinds = bits.into_iter().filter(|(bit, _)| mask.contains(*bit)).fold(0, |k, (_, kind)| k | kind);
        if kinds == 0 {
            return;
        }
        let file = self.seen.files.entry(key).or_insert_with(|| Sighting {
            first: at,
            size: meta.st_size.unsigned_abs(),
            path: inside(&self.root, fd),
            ..Sighting::default()
        });
        file.kinds |= kinds;
        // Once is enough: a file that is opened and read ten thousand times would fill the queue.
        let once = mask & (MaskFlags::FAN_OPEN | MaskFlags::FAN_OPEN_EXEC | MaskFlags::FAN_ACCESS);
        let ignore =
            MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_IGNORED_MASK | MarkFlags::FAN_MARK_IGNORED_SURV_MODIFY;
        let _only_a_saving = self.group.mark(ignore, once, fd, None::<&str>);
    }

    fn finish(mut self) -> Sightings {
        if self.gone > 0 {
            let words = format!("{} events of processes that had ended are taken for the command's", self.gone);
            self.seen.notes.push(words);
        }
        self.seen
    }
}

/// The path of an open file inside the root, if it has one.
fn inside(root: &Path, fd: BorrowedFd<'_>) -> Option<String> {
    let path = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
    let path = format!("/{}", path.strip_prefix(root).ok()?.to_str()?);
    (!path.ends_with(" (deleted)")).then_some(path)
}

#[cfg(test)]
mod tests;
