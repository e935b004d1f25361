//! Tracepoints of one process tree through `perf_event_open`: one ring per CPU, shared by all events of that CPU. Hides the
//! kernel's structures and memory ordering; gives out whole records only.
#![expect(unsafe_code, reason = "perf_event_open and its shared ring have no safe wrapper")]

use std::ffi::CStr;
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
const SAMPLE_TID: u64 = 1 << 1;
const SAMPLE_TIME: u64 = 1 << 2;
const SAMPLE_RAW: u64 = 1 << 10;
const FLAG_INHERIT: u64 = 1 << 1;
const FLAG_COMM: u64 = 1 << 9;
const FLAG_TASK: u64 = 1 << 13;
const FLAG_WATERMARK: u64 = 1 << 14;
/// Every record ends with what a sample begins with: process, thread and time.
const FLAG_SAMPLE_ID_ALL: u64 = 1 << 18;
const FLAG_COMM_EXEC: u64 = 1 << 24;
const FLAG_USE_CLOCKID: u64 = 1 << 25;
/// Processes that begin, programs that are executed.
const FLAGS_OF_STEPS: u64 = FLAG_COMM | FLAG_TASK | FLAG_COMM_EXEC | FLAG_SAMPLE_ID_ALL;
const OPEN_CLOEXEC: libc::c_ulong = 1 << 3;
const PID_CGROUP: libc::c_ulong = 1 << 2;
const IOC_SET_OUTPUT: libc::c_ulong = 0x2405;
const IOC_SET_FILTER: libc::c_ulong = 0x4008_2406;
const RECORD_LOST: u32 = 2;
const RECORD_COMM: u32 = 3;
const RECORD_FORK: u32 = 7;
const RECORD_SAMPLE: u32 = 9;
/// In the header of a `RECORD_COMM`: the name is new because a program was executed.
const MISC_COMM_EXEC: u16 = 1 << 13;
/// Offsets in `struct perf_event_mmap_page`.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;

/// What a ring holds.
pub(super) enum Record<'a> {
    /// A tracepoint hit: the process as it is numbered here, `CLOCK_MONOTONIC` nanoseconds and the raw event.
    Sample(u32, u64, &'a [u8]),
    /// A process began or became another program; only where everybody is watched.
    Step(Step),
    /// The kernel dropped that many records here.
    Lost(u64),
}

/// A step in the life of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// The process, as it is numbered here.
    pub process: u32,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub at: u64,
    /// What happened.
    pub what: Life,
}

/// What happens to processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It began, as a child of this one.
    Forked(u32),
    /// It executed a program: the file's name, cut to 15 bytes and padded with zeros.
    Executed([u8; 16]),
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
    /// Those of every process that pass this filter (kernel documentation, "Event filtering"), and the steps of all.
    Everybody(&'a CStr),
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
        let each = |pid, flags, more| move |&id: &u64| open(pid, cpu, id, flags, more);
        let events = match watch {
            Watch::Myself => ids.iter().map(each(0, 0, 0)).collect::<io::Result<Vec<_>>>()?,
            Watch::Cgroup(dir) => ids.iter().map(each(dir.as_raw_fd(), PID_CGROUP, 0)).collect::<io::Result<_>>()?,
            Watch::Everybody(filter) => {
                let mut events = Vec::new();
                for &id in ids {
                    // One of them tells the steps.
                    let event = open(-1, cpu, id, 0, if events.is_empty() { FLAGS_OF_STEPS } else { 0 })?;
                    // SAFETY: an open perf event and a NUL-terminated text that outlives the call.
                    Errno::result(unsafe { libc::ioctl(event.as_raw_fd(), IOC_SET_FILTER, filter.as_ptr()) })?;
                    events.push(event);
                }
                events
            }
            Watch::Threads(all) => {
                let mut events = Vec::new();
                for &tid in all {
                    match ids.iter().map(each(tid, 0, FLAG_INHERIT)).collect::<io::Result<Vec<_>>>() {
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
            let misc = u16::from_ne_bytes([self.scratch[4], self.scratch[5]]);
            let len = u64::from(u16::from_ne_bytes([self.scratch[6], self.scratch[7]]));
            if len < 8 || len > head - tail {
                // A ring that cannot be parsed holds records that nobody will see.
                sink(Record::Lost(1));
                tail = head;
                break;
            }
            self.fetch(tail + 8, usize::try_from(len - 8).unwrap_or(0));
            if let Some(record) = record(kind, misc, &self.scratch) {
                sink(record);
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

/// The record behind a header; nothing for those that nobody asked for.
fn record(kind: u32, misc: u16, body: &[u8]) -> Option<Record<'_>> {
    let half = |at: usize| body.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
    let word = |at: usize| body.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_ne_bytes);
    let known = match kind {
        RECORD_SAMPLE => {
            let end = half(16).and_then(|n| usize::try_from(n).ok()).and_then(|n| n.checked_add(20)).unwrap_or(0);
            half(0).zip(word(8)).zip(body.get(20..end)).map(|((process, at), raw)| Record::Sample(process, at, raw))
        }
        RECORD_FORK => half(0)
            .zip(half(4))
            .zip(word(16))
            .map(|((process, parent), at)| Record::Step(Step { process, at, what: Life::Forked(parent) })),
        RECORD_COMM if misc & MISC_COMM_EXEC != 0 => {
            let mut name = [0; 16];
            let end = body.len().saturating_sub(16);
            for (to, from) in name.iter_mut().zip(body.get(8..end).unwrap_or_default()) {
                *to = *from;
            }
            let step = |(process, at)| Record::Step(Step { process, at, what: Life::Executed(name) });
            half(0).zip(word(end + 8)).map(step)
        }
        RECORD_LOST => Some(Record::Lost(word(8).unwrap_or(1))),
        _ => return None,
    };
    Some(known.unwrap_or(Record::Lost(1)))
}

fn open(pid: i32, cpu: u32, id: u64, flags: libc::c_ulong, more: u64) -> io::Result<OwnedFd> {
    let attr = Attr {
        kind: TYPE_TRACEPOINT,
        size: u32::try_from(size_of::<Attr>()).unwrap_or(0),
        config: id,
        sample_period: 1,
        sample_type: SAMPLE_TID | SAMPLE_TIME | SAMPLE_RAW,
        flags: FLAG_WATERMARK | FLAG_USE_CLOCKID | more,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of words of 32 bits and the bytes behind them.
    fn body(words: &[u32], rest: &[u8]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_ne_bytes()).chain(rest.iter().copied()).collect()
    }

    /// A time as two words.
    fn time(at: u64) -> [u32; 2] {
        let b = at.to_ne_bytes();
        [u32::from_ne_bytes([b[0], b[1], b[2], b[3]]), u32::from_ne_bytes([b[4], b[5], b[6], b[7]])]
    }

    fn step(kind: u32, misc: u16, body: &[u8]) -> Option<Step> {
        match record(kind, misc, body)? {
            Record::Step(step) => Some(step),
            Record::Sample(..) | Record::Lost(_) => None,
        }
    }

    #[test]
    fn records_are_cut_where_the_kernel_cuts_them() {
        let [a, b] = time(5_000_000_007);
        let sample = body(&[41, 42, a, b, 6], b"abcdef\0\0\0\0");
        assert!(matches!(record(RECORD_SAMPLE, 0, &sample), Some(Record::Sample(41, 5_000_000_007, b"abcdef"))));
        for cut in 0..26 {
            assert!(matches!(record(RECORD_SAMPLE, 0, &sample[..cut]), Some(Record::Lost(1))), "{cut}");
        }
        let lost = body(&[9, 9, 3, 0, 41, 42, a, b], b"");
        assert!(matches!(record(RECORD_LOST, 0, &lost), Some(Record::Lost(3))));
        // Child, parent, thread, parent's thread, time, and what every record ends with.
        let fork = body(&[50, 41, 51, 42, a, b, 41, 42, 1, 2], b"");
        let forked = Step { process: 50, at: 5_000_000_007, what: Life::Forked(41) };
        assert_eq!(step(RECORD_FORK, 0, &fork), Some(forked));
    }

    #[test]
    fn a_new_name_is_a_step_only_where_a_program_was_executed() {
        let [a, b] = time(8);
        for (name, padded) in [("esgz", b"esgz\0\0\0\0".as_slice()), ("exactly-eight-15", b"exactly-eight-15")] {
            let comm = [body(&[50, 50], padded), body(&[50, 50, a, b], b"")].concat();
            let mut bytes = [0; 16];
            bytes[..name.len()].copy_from_slice(name.as_bytes());
            let executed = Step { process: 50, at: 8, what: Life::Executed(bytes) };
            assert_eq!(step(RECORD_COMM, MISC_COMM_EXEC, &comm), Some(executed));
            assert!(record(RECORD_COMM, 0, &comm).is_none());
        }
    }
}
