//! The rest of the image, after the start: every file is read once, slowly, so that the snapshotter has all of it and a registry
//! that is down or a token that has expired later is no I/O error in the running server.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde::Serialize;

use super::pace::Cpu;
use crate::record::incore;

/// Bytes between two looks at the machine and the clock.
const PIECE: u64 = 4 << 20;
/// With less than this share of the CPUs idle, in thousandths, it waits.
const IDLE: u64 = 250;
/// How long it waits then; as long as that at most twenty times in a row, since a server under load is never idle.
const WAIT: Duration = Duration::from_millis(100);
const PATIENCE: u32 = 20;

/// What was fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Rest {
    /// Files that were read to their end.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Files and folders that could not be read.
    pub failed: u64,
    /// Milliseconds it took.
    pub ms: u64,
    /// It came to the end.
    pub complete: bool,
}

/// Reads every regular file of the file system that `root` is on, at most `rate` bytes a second, pausing while the CPUs are
/// busy. What was not in the page cache before is dropped from it again.
pub(super) fn fetch(root: &Path, rate: u64, mut alive: impl FnMut() -> bool) -> Rest {
    let began = Instant::now();
    let mut rest = Rest::default();
    let mut throttle = Throttle { rate: rate.max(1), began, bytes: 0, cpu: Cpu::now() };
    let mut open: Vec<PathBuf> = vec![root.to_owned()];
    // Overlays give their files devices of their own, but folders always the mount's.
    let mount = fs::metadata(root).map(|m| m.dev()).ok();
    let mut buffer = vec![0; 1 << 20];
    rest.complete = true;
    'walk: while let Some(dir) = open.pop() {
        let Ok(list) = fs::read_dir(&dir) else {
            rest.failed += 1;
            continue;
        };
        let mut entries: Vec<_> = list.flatten().map(|e| e.path()).collect();
        entries.sort_unstable();
        for path in entries {
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() {
                if Some(meta.dev()) == mount {
                    open.push(path);
                }
            } else if meta.is_file() {
                match whole(&path, &meta, &mut buffer, &mut throttle, &mut alive) {
                    Ok(Some(bytes)) => {
                        rest.files += 1;
                        rest.bytes += bytes;
                    }
                    Ok(None) => {
                        rest.complete = false;
                        break 'walk;
                    }
                    Err(_) => rest.failed += 1,
                }
            }
        }
    }
    rest.ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    rest
}

/// Reads a file; `None` when nobody needs it any more.
fn whole(
    path: &Path,
    meta: &fs::Metadata,
    buffer: &mut [u8],
    throttle: &mut Throttle,
    alive: &mut impl FnMut() -> bool,
) -> io::Result<Option<u64>> {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOATIME;
    let open = |flags| fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
    // Only the owner may leave the access time alone.
    let file = open(flags).or_else(|_| open(flags & !libc::O_NOATIME))?;
    let (size, mut at) = (meta.len(), 0);
    while at < size {
        let (start, end) = (at, (at + PIECE).min(size));
        let was_there = incore::absent(&file, size, at..end).is_ok_and(|a| a.is_empty());
        if !was_there {
            piece(&file, at, end, buffer)?;
            forget(&file, at, end - at);
        }
        at = end;
        if !alive() || !was_there && !throttle.spent(end - start, alive) {
            return Ok(None);
        }
    }
    Ok(Some(size))
}

fn piece(file: &File, mut at: u64, end: u64, buffer: &mut [u8]) -> io::Result<()> {
    while at < end {
        let want = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        match file.read_at(&mut buffer[..want], at) {
            Ok(0) => return Ok(()),
            Ok(n) => at += n as u64,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The snapshotter has it on its disk; in memory it would push out what is in use. What somebody has mapped stays.
fn forget(file: &File, at: u64, len: u64) {
    if let (Ok(at), Ok(len)) = (libc::off_t::try_from(at), libc::off_t::try_from(len)) {
        let _advice_only = posix_fadvise(file, at, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}

struct Throttle {
    rate: u64,
    began: Instant,
    bytes: u64,
    cpu: Option<Cpu>,
}

impl Throttle {
    /// Waits until so many bytes were due and the CPUs have time; false when nobody needs them any more.
    fn spent(&mut self, bytes: u64, alive: &mut impl FnMut() -> bool) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        let due = Duration::from_millis(self.bytes.saturating_mul(1000) / self.rate);
        while let Some(ahead) = due.checked_sub(self.began.elapsed()).filter(|a| !a.is_zero()) {
            if !alive() {
                return false;
            }
            std::thread::sleep(ahead.min(WAIT));
        }
        for _ in 0..PATIENCE {
            let last = std::mem::replace(&mut self.cpu, Cpu::now());
            if last.zip(self.cpu).and_then(|(from, to)| to.idle_since(from)).is_none_or(|idle| idle >= IDLE) {
                break;
            }
            if !alive() {
                return false;
            }
            std::thread::sleep(WAIT);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_read_and_none_behind_a_link() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(dir.path().join("a/b")).expect("made");
        fs::write(dir.path().join("a/b/c"), vec![1; 5 << 20]).expect("written");
        fs::write(dir.path().join("d"), b"12").expect("written");
        std::os::unix::fs::symlink("/", dir.path().join("link")).expect("linked");
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRUSR).expect("made");
        let rest = fetch(dir.path(), u64::MAX, || true);
        assert_eq!((rest.files, rest.bytes, rest.failed, rest.complete), (2, (5 << 20) + 2, 0, true));
        let stopped = fetch(dir.path(), u64::MAX, || false);
        assert!(!stopped.complete && stopped.files == 0, "{stopped:?}");
    }

    #[test]
    fn it_keeps_to_its_rate() {
        let mut throttle = Throttle { rate: 10 << 20, began: Instant::now(), bytes: 0, cpu: None };
        let began = Instant::now();
        assert!(throttle.spent(2 << 20, &mut || true));
        // A lower bound only: a busy machine makes it later.
        assert!(began.elapsed() >= Duration::from_millis(190), "{:?}", began.elapsed());
        assert!(!throttle.spent(1 << 40, &mut || false), "it waits for no one who is gone");
    }
}
