//! Which pages of a process are there, from its page tables. No privilege is needed for one's own processes.
#![expect(unsafe_code, reason = "PAGEMAP_SCAN has no safe wrapper")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;

use super::super::perf::page_size;

/// `struct pm_scan_arg` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    region_count: u64,
    max_pages: u64,
    inverted: u64,
    all_of: u64,
    any_of: u64,
    wanted: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::Ioctl = 0xc060_6610;
/// `PAGE_IS_PRESENT | PAGE_IS_SWAPPED`.
const THERE: u64 = 1 << 3 | 1 << 4;
/// The same two in an entry of the pagemap file.
const THERE_BITS: u64 = 1 << 63 | 1 << 62;
const REGIONS: usize = 512;
/// Entries of the pagemap file read at once.
const ENTRIES: usize = 8192;

/// `struct procmap_query` of linux/fs.h, without use for its names.
#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    flags: u64,
    address: u64,
    start: u64,
    rest: [u64; 9],
}

/// `_IOWR('f', 17, struct procmap_query)`, since 6.11.
const PROCMAP_QUERY: libc::Ioctl = 0xc068_6611;
/// `PROCMAP_QUERY_COVERING_OR_NEXT_VMA | PROCMAP_QUERY_FILE_BACKED_VMA`.
const NEXT_OF_A_FILE: u64 = 0x10 | 0x20;

/// Whether a process may have a file mapped in an address range. Large programs unmap memory often, and files rarely: this is much
/// cheaper than to read all of their mappings.
pub(super) fn may_map_files(pid: u32, within: &Range<u64>) -> io::Result<bool> {
    let maps = File::open(format!("/proc/{pid}/maps"))?;
    let mut query =
        Query { size: size_of::<Query>() as u64, flags: NEXT_OF_A_FILE, address: within.start, ..Query::default() };
    // SAFETY: the structure has the size that it says.
    match Errno::result(unsafe { libc::ioctl(maps.as_raw_fd(), PROCMAP_QUERY, &raw mut query) }) {
        Ok(_) => Ok(query.start < within.end),
        Err(Errno::ENOENT) => Ok(false),
        Err(Errno::ENOTTY) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

/// The page tables of a process.
pub(super) struct Pagemap {
    file: File,
}

impl Pagemap {
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        Ok(Self { file: File::open(format!("/proc/{pid}/pagemap"))? })
    }

    /// Address ranges inside `within` whose pages are there: present, or swapped out.
    pub(super) fn there(&self, within: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        match self.scan(within.clone()) {
            // Before 6.7 the file has no ioctls.
            Err(e) if e.raw_os_error() == Some(libc::ENOTTY) => self.read(within),
            done => done,
        }
    }

    fn scan(&self, within: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        let mut out = Vec::new();
        let mut start = within.start;
        while start < within.end {
            let mut regions = [Region::default(); REGIONS];
            let mut scan = Scan {
                size: size_of::<Scan>() as u64,
                start,
                end: within.end,
                regions: regions.as_mut_ptr() as u64,
                region_count: REGIONS as u64,
                any_of: THERE,
                wanted: THERE,
                ..Scan::default()
            };
            // SAFETY: the structure says where the regions are and how many fit.
            let n = Errno::result(unsafe { libc::ioctl(self.file.as_raw_fd(), PAGEMAP_SCAN, &raw mut scan) })?;
            let filled = regions.get(..usize::try_from(n).unwrap_or(0)).unwrap_or_default();
            for r in filled {
                push(&mut out, r.start..r.end);
            }
            if scan.walk_end <= start {
                return Err(io::Error::other("a scan of the page tables did not move"));
            }
            start = scan.walk_end;
        }
        Ok(out)
    }

    fn read(&self, within: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        let page = page_size() as u64;
        let mut out = Vec::new();
        let mut entries = vec![0; ENTRIES * 8];
        let mut first = within.start / page;
        let last = within.end.div_ceil(page);
        while first < last {
            let want = usize::try_from(last - first).map_or(ENTRIES, |n| n.min(ENTRIES));
            let n = self.file.read_at(&mut entries[..want * 8], first * 8)? / 8;
            if n == 0 {
                break;
            }
            for (i, entry) in (first..).zip(entries[..n * 8].as_chunks::<8>().0) {
                if u64::from_ne_bytes(*entry) & THERE_BITS != 0 {
                    push(&mut out, i * page..(i + 1) * page);
                }
            }
            first += n as u64;
        }
        Ok(out)
    }
}

/// Adds a range behind the others, joined with the last one where they meet.
fn push(out: &mut Vec<Range<u64>>, range: Range<u64>) {
    match out.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => out.push(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_from_other_memory() {
        let file = File::open("/proc/self/exe").expect("we run");
        let page = page_size();
        let map = |fd: i32, flags: i32| {
            // SAFETY: a fresh private mapping.
            let base = unsafe { libc::mmap(std::ptr::null_mut(), page, libc::PROT_READ, flags, fd, 0) };
            assert_ne!(base, libc::MAP_FAILED);
            base as u64..base as u64 + page as u64
        };
        let me = std::process::id();
        let of_a_file = map(file.as_raw_fd(), libc::MAP_PRIVATE);
        assert!(may_map_files(me, &of_a_file).expect("our own mappings"));
        let other = map(-1, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let highest = (1 << 62)..(1 << 62) + 1;
        // Before 6.11 it is always possible.
        let knows = !may_map_files(me, &highest).expect("our own mappings");
        assert_eq!(may_map_files(me, &other).expect("our own mappings"), !knows);
    }

    #[test]
    fn both_ways_find_the_pages_that_were_touched() {
        let page = page_size();
        // Not joined to a huge page: every second page stays untouched.
        let length = 3000 * page;
        // SAFETY: a fresh private mapping.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED);
        // SAFETY: inside the mapping.
        unsafe { libc::madvise(base, length, libc::MADV_NOHUGEPAGE) };
        let start = base as u64;
        let touched = |i: usize| i.is_multiple_of(2) && i != 10;
        let mut want = Vec::new();
        for i in (0..3000).filter(|&i| touched(i)) {
            // SAFETY: inside the mapping.
            unsafe { base.cast::<u8>().add(i * page).write_volatile(1) };
            push(&mut want, start + (i * page) as u64..start + ((i + 1) * page) as u64);
        }
        let map = Pagemap::open(std::process::id()).expect("our own page tables");
        let within = start..start + length as u64;
        assert_eq!(map.read(within.clone()).expect("the file is readable"), want);
        match map.scan(within.clone()) {
            Ok(got) => assert_eq!(got, want),
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::ENOTTY), "only older kernels lack it"),
        }
        // SAFETY: the mapping is ours and no longer used.
        unsafe { libc::munmap(base, length) };
    }
}
