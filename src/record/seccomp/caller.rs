//! Looking at the thread behind a call, through `/proc`: its memory, its descriptors, its root. All of it is in the caller's hand:
//! nothing of it is trusted, all of it is bounded, and nothing is changed.
#![expect(unsafe_code, reason = "statx and process_vm_readv have no safe wrapper")]

use std::cell::OnceCell;
use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::notebook::Stat;

const PATH_MAX: usize = 4096;
/// Memory is read in pieces that do not cross a page of the smallest size, so that a piece is there whole or not at all.
const PIECE: usize = 256;
/// `IOV_MAX`: the kernel takes no more parts.
const PARTS: u64 = 1024;
/// The kernel cuts a single read there (`MAX_RW_COUNT`).
const MAX_READ: u64 = 0x7fff_f000;

/// A thread that waits in a call.
pub(super) struct Caller {
    pub tid: u32,
    root: OnceCell<Vec<u8>>,
}

/// Whether the error says that the call itself will fail, or that its caller is gone: then there is nothing to be seen.
pub(super) fn is_moot(e: &io::Error) -> bool {
    use libc::{EBADF, EFAULT, EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ESRCH};
    e.raw_os_error().is_some_and(|e| [EBADF, EFAULT, EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ESRCH].contains(&e))
}

/// `stat` of a path or, when it is empty, of `dir` itself. Asks no server of a network file system and no FUSE daemon.
pub(super) fn stat(dir: libc::c_int, path: &CStr) -> io::Result<Stat> {
    // SAFETY: all zeros is a valid statx.
    let mut s: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: a NUL-terminated path and a structure to write to.
    Errno::result(unsafe {
        libc::statx(
            dir,
            path.as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT | libc::AT_STATX_DONT_SYNC,
            libc::STATX_TYPE | libc::STATX_INO | libc::STATX_SIZE,
            &raw mut s,
        )
    })?;
    Ok(Stat {
        key: (libc::makedev(s.stx_dev_major, s.stx_dev_minor), s.stx_ino),
        mode: s.stx_mode.into(),
        size: s.stx_size,
    })
}

/// [`stat`] of a path of ours.
pub(super) fn stat_path(path: &[u8]) -> io::Result<Stat> {
    stat(libc::AT_FDCWD, &CString::new(path)?)
}

/// The file behind a symbolic link, in bytes.
pub(super) fn link(path: &str) -> io::Result<Vec<u8>> {
    Ok(fs::read_link(path)?.into_os_string().into_vec())
}

/// A file found by path.
pub(super) struct Found {
    pub stat: Stat,
    fd: OwnedFd,
}

impl Found {
    /// Its first bytes, at most `limit`, from an offset on.
    pub(super) fn read(&self, offset: u64, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; limit];
        let n = File::open(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))?.read_at(&mut bytes, offset)?;
        bytes.truncate(n);
        Ok(bytes)
    }

    /// Its path as `/proc` shows it to us.
    pub(super) fn path(&self) -> io::Result<Vec<u8>> {
        link(&format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }
}

impl Caller {
    pub(super) fn new(tid: u32) -> Self {
        Self { tid, root: OnceCell::new() }
    }

    /// Its process, as `/proc` numbers it.
    pub(super) fn process(&self) -> io::Result<u32> {
        let mut status = [0; 512];
        let n = File::open(format!("/proc/{}/status", self.tid))?.read(&mut status)?;
        let text = String::from_utf8_lossy(&status[..n]);
        let process = text.lines().find_map(|l| l.strip_prefix("Tgid:")?.trim().parse().ok());
        process.ok_or_else(|| io::Error::other("no Tgid in /proc/TID/status"))
    }

    /// Whether no other thread is left in its process.
    pub(super) fn is_alone(&self) -> io::Result<bool> {
        Ok(fs::read_dir(format!("/proc/{}/task", self.tid))?.take(2).count() == 1)
    }

    /// The name of its process.
    pub(super) fn comm(&self) -> String {
        let process = self.process().unwrap_or(self.tid);
        fs::read(format!("/proc/{process}/comm"))
            .map_or_else(|_| "?".into(), |name| String::from_utf8_lossy(name.trim_ascii_end()).into_owned())
    }

    /// The file behind a descriptor.
    pub(super) fn file(&self, fd: i32) -> io::Result<Stat> {
        if fd < 0 {
            return Err(Errno::EBADF.into());
        }
        stat(libc::AT_FDCWD, &CString::new(format!("/proc/{}/fd/{fd}", self.tid))?)
    }

    /// The path behind a descriptor, as `/proc` shows it to us.
    pub(super) fn file_path(&self, fd: i32) -> io::Result<Vec<u8>> {
        link(&format!("/proc/{}/fd/{fd}", self.tid))
    }

    /// The position of an open file.
    pub(super) fn position(&self, fd: i32) -> io::Result<u64> {
        let mut info = [0; 128];
        let n = File::open(format!("/proc/{}/fdinfo/{fd}", self.tid))?.read(&mut info)?;
        position(&info[..n]).ok_or_else(|| io::Error::other("no position in /proc/TID/fdinfo"))
    }

    /// Fills the buffer from its memory.
    pub(super) fn memory(&self, address: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bad = || io::Error::from(Errno::EFAULT);
        let start = usize::try_from(address).map_err(|_| bad())?;
        let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let remote = libc::iovec { iov_base: start as *mut libc::c_void, iov_len: buffer.len() };
        let pid = libc::pid_t::try_from(self.tid).map_err(|_| bad())?;
        // SAFETY: one local part that is ours to write; the remote address is only a number for the kernel.
        let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
        match Errno::result(read) {
            Ok(n) if usize::try_from(n) == Ok(buffer.len()) => Ok(()),
            Ok(_) | Err(Errno::EFAULT) => Err(bad()),
            Err(Errno::ESRCH) => Err(Errno::ESRCH.into()),
            // Some runtimes forbid the call but not the file.
            Err(refused) => match File::open(format!("/proc/{}/mem", self.tid)) {
                Ok(file) => file.read_exact_at(buffer, address).map_err(|_| bad()),
                Err(_) => Err(refused.into()),
            },
        }
    }

    /// A number in its memory.
    pub(super) fn number(&self, address: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.memory(address, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Up to `IOV_MAX` records of `N` bytes.
    pub(super) fn records<const N: usize>(&self, address: u64, count: u64) -> io::Result<Vec<[u8; N]>> {
        let count = usize::try_from(count.min(PARTS)).map_err(|_| Errno::EINVAL)?;
        let mut bytes = vec![0; count * N];
        if !bytes.is_empty() {
            self.memory(address, &mut bytes)?;
        }
        Ok(bytes.as_chunks::<N>().0.to_vec())
    }

    /// How many bytes an array of `struct iovec` asks for.
    pub(super) fn wanted(&self, parts: u64, count: u64) -> io::Result<u64> {
        let parts = self.records::<16>(parts, count)?;
        let length = |part: &[u8; 16]| part.last_chunk().map_or(0, |len| u64::from_ne_bytes(*len));
        Ok(parts.iter().map(length).fold(0, u64::saturating_add).min(MAX_READ))
    }

    /// A string in its memory, at most as long as a path may be.
    pub(super) fn string(&self, address: u64) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        while out.len() < PATH_MAX {
            let at = address.checked_add(out.len() as u64).ok_or(Errno::EFAULT)?;
            let mut piece = [0; PIECE];
            let piece = &mut piece[..PIECE - usize::try_from(at % PIECE as u64).unwrap_or(0)];
            self.memory(at, piece)?;
            if let Some(end) = piece.iter().position(|&b| b == 0) {
                out.extend_from_slice(&piece[..end]);
                return Ok(out);
            }
            out.extend_from_slice(piece);
        }
        Err(Errno::ENAMETOOLONG.into())
    }

    /// Its root as `/proc` shows it to us.
    fn root(&self) -> io::Result<&[u8]> {
        if let Some(root) = self.root.get() {
            return Ok(root);
        }
        let root = link(&format!("/proc/{}/root", self.tid))?;
        Ok(self.root.get_or_init(|| root))
    }

    /// Takes the beginning off that lies outside its root.
    pub(super) fn inside(&self, outer: &[u8]) -> io::Result<Vec<u8>> {
        Ok(below(self.root()?, outer).unwrap_or(outer).to_owned())
    }

    /// A path argument made absolute inside its root, not yet cleaned.
    pub(super) fn absolute(&self, dir: i32, path: &[u8]) -> io::Result<Vec<u8>> {
        if path.is_empty() {
            return Err(Errno::ENOENT.into());
        }
        if path.starts_with(b"/") {
            return Ok(path.to_owned());
        }
        let dir = match dir {
            libc::AT_FDCWD => link(&format!("/proc/{}/cwd", self.tid))?,
            fd => self.file_path(fd)?,
        };
        Ok([self.inside(&dir)?.as_slice(), path].join(b"/".as_slice()))
    }

    /// A path inside its root as the container knows it, whose root is `base` to us; cleaned.
    pub(super) fn contained(&self, base: &[u8], inside: &[u8]) -> io::Result<Vec<u8>> {
        let deeper = below(base, self.root()?).unwrap_or(b"/");
        Ok(clean(&[deeper, inside].join(b"/".as_slice())))
    }

    /// Finds a file by its path inside the caller's root, as the caller will: links are followed there.
    pub(super) fn find(&self, inside: &[u8]) -> io::Result<Found> {
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
        let root = openat2(nix::fcntl::AT_FDCWD, format!("/proc/{}/root", self.tid).as_str(), how)?;
        let how = how.resolve(ResolveFlag::RESOLVE_IN_ROOT);
        let mut tries = 0;
        let fd = loop {
            match openat2(root.as_fd(), OsStr::from_bytes(inside), how) {
                // `..` while something was renamed.
                Err(Errno::EAGAIN) if tries < 100 => tries += 1,
                // Where we may not go the caller may not either; and links of /proc to open files show when those are read.
                Err(Errno::EACCES | Errno::EXDEV) => return Err(Errno::ENOENT.into()),
                done => break done?,
            }
        };
        Ok(Found { stat: stat(fd.as_raw_fd(), c"")?, fd })
    }
}

/// The part of a path below a root, beginning with a slash.
pub(super) fn below<'a>(root: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    match path.strip_prefix(root)? {
        _ if root == b"/" => Some(path),
        b"" => Some(b"/"),
        rest => rest.starts_with(b"/").then_some(rest),
    }
}

/// Takes `.`, `..` and doubled slashes out of an absolute path, by its letters alone.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut out = Vec::with_capacity(path.len() + 1);
    for part in parts {
        out.push(b'/');
        out.extend_from_slice(part);
    }
    if out.is_empty() { b"/".to_vec() } else { out }
}

/// The `pos:` line of an fdinfo.
fn position(info: &[u8]) -> Option<u64> {
    let line = info.split(|&b| b == b'\n').find_map(|l| l.strip_prefix(b"pos:"))?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_cut_at_a_root() {
        for (path, want) in [("/a//b/./c", "/a/b/c"), ("/a/../../b", "/b"), ("//", "/"), ("/a/b/..", "/a")] {
            assert_eq!(clean(path.as_bytes()), want.as_bytes(), "{path}");
        }
        assert_eq!(below(b"/", b"/usr"), Some(b"/usr".as_slice()));
        assert_eq!(below(b"/r", b"/r/usr"), Some(b"/usr".as_slice()));
        assert_eq!(below(b"/r", b"/r"), Some(b"/".as_slice()));
        assert_eq!(below(b"/r", b"/root"), None);
    }

    #[test]
    fn our_own_memory_and_files_read_back() {
        let me = Caller::new(std::process::id());
        assert_eq!(me.process().expect("we are there"), std::process::id());
        let long = CString::new(vec![b'x'; 3000]).expect("no zero in it");
        assert_eq!(me.string(long.as_ptr() as u64).expect("our own memory"), long.as_bytes());
        let too_long = CString::new(vec![b'x'; 9000]).expect("no zero in it");
        assert!(is_moot(&me.string(too_long.as_ptr() as u64).expect_err("longer than a path")));
        assert!(is_moot(&me.string(8).expect_err("nothing is mapped there")));
        assert!(is_moot(&me.file(-5).expect_err("no descriptor")));
        let found = me.find(b"/usr/../etc/passwd").expect("a file that every system has");
        assert_eq!(found.path().expect("its link"), b"/etc/passwd");
        assert_eq!(found.read(0, 4).expect("it is readable"), b"root");
        assert_eq!(found.stat, stat_path(b"/etc/passwd").expect("as before"));
    }
}
