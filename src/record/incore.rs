//! Which pages of a file lie in the page cache: `mincore` on a mapping that nobody reads. Hides windows and the kernel's way of
//! refusing: to a user who neither owns the file nor may write it, it says that every page is there (`mincore(2)`, kernel 5.2).
#![expect(unsafe_code, reason = "mmap and mincore have no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::perf::page_size;
use super::spans::Spans;

/// Bytes looked at in one go: small enough that what is known already can be passed over, large enough that the calls do not count.
const WINDOW: u64 = 64 << 20;
/// So far behind a file's end no folio of it reaches.
const BEHIND: u64 = 4 << 20;

/// A part of a file, mapped but out of reach.
struct Mapping {
    base: NonNull<libc::c_void>,
    len: usize,
}

impl Mapping {
    /// `offset` is a multiple of the page size; both may lie behind the file's end.
    fn new(file: &File, offset: u64, len: usize) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // Private, since FUSE refuses shared mappings of files that it does not cache.
        // SAFETY: a fresh mapping at an address of the kernel's choice, without any access; the result is checked below.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_NONE, libc::MAP_PRIVATE, file.as_raw_fd(), offset)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base).ok_or_else(|| io::Error::other("mapping at address zero"))?;
        Ok(Self { base, len })
    }

    /// One byte for each page, its lowest bit set for what is in memory.
    fn resident(&self, pages: &mut Vec<u8>) -> io::Result<()> {
        pages.clear();
        pages.resize(self.len.div_ceil(page_size()), 0);
        // SAFETY: the range is this mapping and the vector has a byte for each of its pages.
        let result = unsafe { libc::mincore(self.base.as_ptr(), self.len, pages.as_mut_ptr()) };
        Errno::result(result)?;
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and length are those of the mapping made in `new`, unmapped only here.
        unsafe { libc::munmap(self.base.as_ptr(), self.len) };
    }
}

/// The pages of a file of `size` bytes that are in the page cache, those in `known` perhaps left out.
pub(super) fn resident(file: &File, size: u64, known: &Spans) -> io::Result<Spans> {
    let page = page_size() as u64;
    let mut found = Spans::default();
    let mut states = Vec::new();
    let mut at = 0;
    while at < size {
        let len = (size - at).min(WINDOW);
        let first = at / page;
        if !known.covers((first, first + len.div_ceil(page))) {
            let len = usize::try_from(len).map_err(io::Error::other)?;
            Mapping::new(file, at, len)?.resident(&mut states)?;
            let mut next = first;
            for run in states.chunk_by(|a, b| a & 1 == b & 1) {
                let end = next + run.len() as u64;
                if run[0] & 1 == 1 {
                    found.append((next, end));
                }
                next = end;
            }
        }
        at += WINDOW;
    }
    Ok(found)
}

/// The parts of a range that are not in the page cache, cut to whole pages outwards but never beyond the range. An error where the
/// kernel does not say.
pub(crate) fn absent(file: &File, size: u64, range: std::ops::Range<u64>) -> io::Result<Vec<std::ops::Range<u64>>> {
    let page = page_size() as u64;
    let start = range.start / page * page;
    if !is_told(file, size)? {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    let len = usize::try_from(range.end.saturating_sub(start)).map_err(io::Error::other)?;
    if len == 0 {
        return Ok(Vec::new());
    }
    let mut states = Vec::new();
    Mapping::new(file, start, len)?.resident(&mut states)?;
    let (mut out, mut at) = (Vec::new(), start);
    for run in states.chunk_by(|a, b| a & 1 == b & 1) {
        let end = at + run.len() as u64 * page;
        if run[0] & 1 == 0 {
            out.push(at.max(range.start)..end.min(range.end));
        }
        at = end;
    }
    Ok(out)
}

/// Whether the kernel tells us the truth about this file: no page far behind its end can be in memory, but one who must not know
/// is told that it is.
pub(super) fn is_told(file: &File, size: u64) -> io::Result<bool> {
    let mut state = Vec::new();
    let page = page_size();
    let end = size.next_multiple_of(page as u64).saturating_add(BEHIND);
    Mapping::new(file, end, page)?.resident(&mut state)?;
    Ok(state[0] & 1 == 0)
}

/// Length of a file and how much of it lies in the page cache, in bytes of whole pages; `None` where the kernel does not tell this user.
///
/// # Errors
/// Of opening and mapping it.
pub fn in_memory(path: &Path) -> io::Result<Option<(u64, u64)>> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    if !is_told(&file, size)? {
        return Ok(None);
    }
    Ok(Some((size, resident(&file, size, &Spans::default())?.pages() * page_size() as u64)))
}

/// Pushes what is clean and not mapped by anybody out of the page cache.
pub(super) fn evict(file: &File) {
    let _advice_only = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{FileExt, PermissionsExt};

    use super::*;

    /// Not in `/tmp`, which may be a tmpfs: it evicts nothing.
    fn file(len: usize) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new_in("/var/tmp").expect("a file on a disk");
        file.write_all(&vec![7; len]).expect("room");
        file.as_file().sync_all().expect("synced");
        evict(file.as_file());
        file
    }

    #[test]
    fn what_is_read_becomes_resident_and_evicting_undoes_it() {
        let file = file(3_000_001);
        let look = |size| resident(file.as_file(), size, &Spans::default()).expect("mincore answers");
        assert_eq!(look(3_000_001), Spans::default());
        assert!(is_told(file.as_file(), 3_000_001).expect("mincore answers"));
        posix_fadvise(file.as_file(), 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).expect("advice");
        let page = page_size() as u64;
        for at in [10 * page, 11 * page + 5, 3_000_000] {
            file.as_file().read_at(&mut [0], at).expect("read");
        }
        let last = 3_000_000 / page;
        assert_eq!(look(3_000_001), [(10, 12), (last, last + 1)].into_iter().collect());
        assert!(is_told(file.as_file(), 3_000_001).expect("mincore answers"), "resident pages make no liar");
        evict(file.as_file());
        assert_eq!(look(3_000_001), Spans::default());
    }

    #[test]
    fn windows_join_and_what_is_known_is_passed_over() {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").expect("a file on a disk");
        let size = 2 * WINDOW + 5000;
        file.as_file().set_len(size).expect("a hole");
        let page = page_size() as u64;
        posix_fadvise(file.as_file(), 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).expect("advice");
        for at in [WINDOW - 1, WINDOW, size - 1] {
            file.as_file().read_at(&mut [0], at).expect("read");
        }
        let (edge, last) = (WINDOW / page, (size - 1) / page);
        let all: Spans = [(edge - 1, edge + 1), (last, last + 1)].into_iter().collect();
        assert_eq!(resident(file.as_file(), size, &Spans::default()).expect("mincore answers"), all);
        let known = [(0, edge)].into_iter().collect();
        let rest = resident(file.as_file(), size, &known).expect("mincore answers");
        assert_eq!(rest, [(edge, edge + 1), (last, last + 1)].into_iter().collect());
    }

    #[test]
    fn who_must_not_know_is_found_out() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let file = file(100_000);
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).expect("readable for all");
        let path = file.path().to_owned();
        // The system call itself, unlike libc's function, changes this thread alone.
        let other = std::thread::spawn(move || {
            // SAFETY: plain integers; the thread ends with its identity.
            Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, -1, 65534, -1) }).expect("another user");
            let file = File::open(path).expect("readable");
            (
                resident(&file, 100_000, &Spans::default()).expect("an answer"),
                is_told(&file, 100_000).expect("an answer"),
            )
        });
        let (claimed, told) = other.join().expect("no panic");
        assert_eq!(claimed.pages(), 25, "the kernel claims that all is resident");
        assert!(!told);
        assert!(resident(file.as_file(), 100_000, &Spans::default()).expect("mincore answers").is_empty());
    }
}
