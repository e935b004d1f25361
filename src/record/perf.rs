//! Tracepoints of one process tree through `perf_event_open`: one ring per CPU, shared by all events of that CPU. Hides the
//! kernel's structures and memory ordering; gives out whole records only.
#![expect(unsafe_code, reason = "perf_event_open and its shared ring have no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

/// `struct perf_event_attr` up to `PERF_ATTR_SIZE_VER3`, the first version with a clock id.
#[repr(C)]
#[derive(Default)]
struct Attr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_watermark: u32,
    bp_type: u32,
    config1: u64,
    config2: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clockid: i32,
}

const TYPE_TRACEPOINT: u32 = 2;
const SAMPLE_TIME: u64 = 1 << 2;
const SAMPLE_RAW: u64 = 1 << 10;
const FLAG_INHERIT: u64 = 1 << 1;
const FLAG_WATERMARK: u64 = 1 << 14;
const FLAG_USE_CLOCKID: u64 = 1 << 25;
const OPEN_CLOEXEC: libc::c_ulong = 1 << 3;
const PID_CGROUP: libc::c_ulong = 1 << 2;
const IOC_SET_OUTPUT: libc::c_ulong = 0x2405;
const RECORD_LOST: u32 = 2;
const RECORD_SAMPLE: u32 = 9;
/// Offsets in `struct perf_event_mmap_page`.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;

/// What a ring holds.
pub(super) enum Record<'a> {
    /// A tracepoint hit: `CLOCK_MONOTONIC` nanoseconds and the raw event.
    Sample(u64, &'a [u8]),
    /// The kernel dropped that many records here.
    Lost(u64),
}

/// Whose events a ring takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Watch<'a> {
    /// Those of the calling thread.
    Myself,
    /// Those of these threads and of all that they will start.
    Threads(&'a [i32]),
    /// Those of every process in the control group whose folder this is.
    Cgroup(BorrowedFd<'a>),
}

/// The ring of one CPU.
pub(super) struct Ring {
    base: NonNull<u8>,
    page: usize,
    size: usize,
    scratch: Vec<u8>,
    events: Vec<OwnedFd>,
}

// SAFETY: the mapping belongs to this value alone and is reached only through `&mut self`.
unsafe impl Send for Ring {}

/// The kernel's page size, the unit of every index in the filemap events.
pub(super) fn page_size() -> usize {
    // SAFETY: sysconf has no preconditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Nanoseconds of the clock that stamps the records.
pub(super) fn now() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid timespec to write to; CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut t) };
    t.tv_sec.unsigned_abs() * 1_000_000_000 + t.tv_nsec.unsigned_abs()
}

impl Ring {
    /// Watches the tracepoints `ids` on one CPU. Records flow at once. `bytes` is rounded up to a power of two of pages.
    pub(super) fn open(watch: Watch<'_>, cpu: u32, ids: &[u64], bytes: usize) -> io::Result<Self> {
        let each = |pid, flags, inherit| move |&id: &u64| open(pid, cpu, id, flags, inherit);
        let events = match watch {
            Watch::Myself => ids.iter().map(each(0, 0, false)).collect::<io::Result<Vec<_>>>()?,
            Watch::Cgroup(dir) => {
                ids.iter().map(each(dir.as_raw_fd(), PID_CGROUP, false)).collect::<io::Result<_>>()?
            }
            Watch::Threads(all) => {
                let mut events = Vec::new();
                for &tid in all {
                    match ids.iter().map(each(tid, 0, true)).collect::<io::Result<Vec<_>>>() {
                        Ok(more) => events.extend(more),
                        // Ended since it was listed.
                        Err(e) if e.raw_os_error() == Some(libc::ESRCH) && all.len() > 1 => {}
                        Err(e) => return Err(e),
                    }
                }
                events
            }
        };
        let first = events.first().ok_or_else(|| io::Error::other("no event to open"))?;
        let page = page_size();
        let size = bytes.div_ceil(page).next_power_of_two() * page;
        // SAFETY: a fresh shared mapping at an address of the kernel's choice; the result is checked below.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                page + size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                first.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapping at address zero"))?;
        // From here on a failure unmaps the ring.
        let mut ring = Self { base, page, size, scratch: Vec::new(), events: Vec::new() };
        for other in &events[1..] {
            // SAFETY: both descriptors are open perf events.
            Errno::result(unsafe { libc::ioctl(other.as_raw_fd(), IOC_SET_OUTPUT, first.as_raw_fd()) })?;
        }
        ring.events = events;
        Ok(ring)
    }

    fn counter(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the first page of the mapping is a `perf_event_mmap_page`, whose head and tail are aligned u64 that kernel and
        // reader share; the mapping lives as long as `self`.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    /// Copies `len` bytes at ring position `at` into the scratch buffer.
    fn fetch(&mut self, at: u64, len: usize) {
        self.scratch.resize(len, 0);
        let start = usize::try_from(at % self.size as u64).unwrap_or(0);
        let first = len.min(self.size - start);
        // SAFETY: `start + first <= size` and the rest starts at the data's beginning with `len - first <= start`, all inside the
        // mapping; the kernel does not write between tail and head; the scratch buffer has `len` bytes.
        unsafe {
            let data = self.base.as_ptr().add(self.page);
            std::ptr::copy_nonoverlapping(data.add(start), self.scratch.as_mut_ptr(), first);
            std::ptr::copy_nonoverlapping(data, self.scratch.as_mut_ptr().add(first), len - first);
        }
    }

    /// Hands out all records that are there and frees their space. Gives their number.
    pub(super) fn drain(&mut self, sink: &mut dyn FnMut(Record<'_>)) -> u64 {
        let head = self.counter(DATA_HEAD).load(Ordering::Acquire);
        let mut tail = self.counter(DATA_TAIL).load(Ordering::Relaxed);
        let mut count = 0;
        while head - tail >= 8 {
            self.fetch(tail, 8);
            let kind = u32::from_ne_bytes([self.scratch[0], self.scratch[1], self.scratch[2], self.scratch[3]]);
            let len = u64::from(u16::from_ne_bytes([self.scratch[6], self.scratch[7]]));
            if len < 8 || len > head - tail {
                // A ring that cannot be parsed holds records that nobody will see.
                sink(Record::Lost(1));
                tail = head;
                break;
            }
            self.fetch(tail + 8, usize::try_from(len - 8).unwrap_or(0));
            let word = |at: usize| self.scratch.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_ne_bytes);
            match kind {
                RECORD_SAMPLE => {
                    let raw = self.scratch.get(8..12).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
                    let end = raw.and_then(|n| usize::try_from(n).ok()).map_or(0, |n| 12 + n);
                    match (word(0), self.scratch.get(12..end)) {
                        (Some(time), Some(raw)) => sink(Record::Sample(time, raw)),
                        _ => sink(Record::Lost(1)),
                    }
                }
                RECORD_LOST => sink(Record::Lost(word(8).unwrap_or(1))),
                _ => {}
            }
            count += 1;
            tail += len;
        }
        self.counter(DATA_TAIL).store(tail, Ordering::Release);
        count
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: base and length are those of the mapping made in `open`, unmapped only here.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.page + self.size) };
    }
}

fn open(pid: i32, cpu: u32, id: u64, flags: libc::c_ulong, inherit: bool) -> io::Result<OwnedFd> {
    let attr = Attr {
        kind: TYPE_TRACEPOINT,
        size: u32::try_from(size_of::<Attr>()).unwrap_or(0),
        config: id,
        sample_period: 1,
        sample_type: SAMPLE_TIME | SAMPLE_RAW,
        flags: FLAG_WATERMARK | FLAG_USE_CLOCKID | if inherit { FLAG_INHERIT } else { 0 },
        wakeup_watermark: u32::MAX, // nobody polls
        clockid: libc::CLOCK_MONOTONIC,
        ..Attr::default()
    };
    // SAFETY: `attr` is laid out as the kernel's structure of the size it states and outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attr, pid, cpu, -1, OPEN_CLOEXEC | flags) };
    let fd = libc::c_int::try_from(Errno::result(fd)?).map_err(io::Error::other)?;
    // SAFETY: a descriptor the kernel has just given to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
