//! Which calls the kernel tells us of, and how a process comes under the filter. All is prepared before the fork: between fork
//! and exec nothing may be allocated.
#![expect(unsafe_code, reason = "seccomp and passing a descriptor have no safe wrapper")]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;

/// How this architecture is called in `seccomp_data.arch` (linux/audit.h).
#[cfg(target_arch = "x86_64")]
pub(super) const ARCHITECTURE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
pub(super) const ARCHITECTURE: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) const ARCHITECTURE: Option<u32> = None;

/// Offsets in `struct seccomp_data`; of the arguments the low halves, which come first on both architectures.
const NR: u32 = 0;
const ARCH: u32 = 4;
const fn argument(n: u32) -> u32 {
    16 + 8 * n
}

/// Not in libc for every architecture; elsewhere it has the number of asm-generic/unistd.h.
#[cfg(target_arch = "x86_64")]
pub(super) const SYS_RENAMEAT: libc::c_long = libc::SYS_renameat;
#[cfg(not(target_arch = "x86_64"))]
pub(super) const SYS_RENAMEAT: libc::c_long = 38;

/// Calls of which every one is told. Reads of standard input too: it may be a file.
const TOLD: &[libc::c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    SYS_RENAMEAT,
    libc::SYS_renameat2,
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_copy_file_range,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_io_uring_setup,
    libc::SYS_io_submit,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
];

/// Calls that are told unless an argument has one of these bits: `(call, argument, bits)`. With `AT_EMPTY_PATH` it is an open
/// file that is asked about, not a path.
const TOLD_UNLESS: &[(libc::c_long, u32, libc::c_int)] = &[
    (libc::SYS_mmap, 3, libc::MAP_ANONYMOUS),
    (libc::SYS_newfstatat, 3, libc::AT_EMPTY_PATH),
    (libc::SYS_statx, 2, libc::AT_EMPTY_PATH),
];

/// The filter, and the way that its listener takes from the child to us.
pub(in super::super) struct Filter {
    program: Vec<libc::sock_filter>,
    ours: UnixStream,
    childs: UnixStream,
}

/// What the child sends: an error number, zero with a listener.
const MESSAGE: usize = size_of::<i32>();
/// Room for a control message with one descriptor, aligned as its header is.
type Control = [u64; 4];

impl Filter {
    /// Prepares it. Call it before the fork.
    pub(in super::super) fn prepare() -> io::Result<Self> {
        let (ours, childs) = UnixStream::pair()?;
        Ok(Self { program: program(), ours, childs })
    }

    /// In the child, as the last thing before the exec: from here on each told call waits until the parent's supervisor has
    /// seen it. Sets `no_new_privs`. Gives the kernel's error number when it refuses, of which the parent learns too.
    ///
    /// # Safety
    ///
    /// None of its own: it only calls async-signal-safe functions. It is unsafe because there is no way back for the process.
    pub(in super::super) unsafe fn install(&self) -> Result<(), i32> {
        // SAFETY: sets an attribute of the calling thread.
        if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
            return Err(self.refused());
        }
        let filter = libc::sock_fprog {
            len: u16::try_from(self.program.len()).unwrap_or(u16::MAX),
            filter: self.program.as_ptr().cast_mut(),
        };
        let set = |flags: libc::c_ulong| {
            // SAFETY: the kernel copies the program, which outlives the call.
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) }
        };
        // Nobody is locked up here: without the second flag older kernels would slow the processor down for a filter.
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        // Since 5.19 a call that we hold is not ended by a signal.
        let mut listener = set(flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
        if listener < 0 && Errno::last_raw() == libc::EINVAL {
            listener = set(flags);
        }
        match RawFd::try_from(listener) {
            Ok(fd) if fd >= 0 => self.send(0, Some(fd)),
            _ => Err(self.refused()),
        }
    }

    fn refused(&self) -> i32 {
        let errno = Errno::last_raw();
        let _the_caller_learns_it_too = self.send(errno, None);
        errno
    }

    /// Async-signal-safe.
    fn send(&self, errno: i32, fd: Option<RawFd>) -> Result<(), i32> {
        let mut bytes = errno.to_ne_bytes();
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: MESSAGE };
        let mut control: Control = [0; 4];
        // SAFETY: all zeros is an empty message.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if let Some(fd) = fd {
            message.msg_control = control.as_mut_ptr().cast();
            // SAFETY: arithmetic only.
            message.msg_controllen = unsafe { libc::CMSG_SPACE(FD_BYTES) } as _;
            // SAFETY: the control buffer has room for a header and one descriptor.
            unsafe {
                let header = libc::CMSG_FIRSTHDR(&raw const message);
                (*header).cmsg_level = libc::SOL_SOCKET;
                (*header).cmsg_type = libc::SCM_RIGHTS;
                (*header).cmsg_len = libc::CMSG_LEN(FD_BYTES) as _;
                libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
            }
        }
        // SAFETY: the message points to live buffers.
        match unsafe { libc::sendmsg(self.childs.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) } {
            sent if sent < 0 => Err(Errno::last_raw()),
            _ => Ok(()),
        }
    }

    /// In the parent, after the fork: waits for the child's [`Filter::install`].
    pub(in super::super) fn listener(self) -> io::Result<OwnedFd> {
        // Or its end would not be seen when the child dies.
        drop(self.childs);
        let mut bytes = [0_u8; MESSAGE];
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: MESSAGE };
        let mut control: Control = [0; 4];
        // SAFETY: all zeros is an empty message.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of::<Control>() as _;
        let received = loop {
            // SAFETY: the message points to live buffers.
            match unsafe { libc::recvmsg(self.ours.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) } {
                n if n >= 0 => break n,
                _ if Errno::last_raw() == libc::EINTR => {}
                _ => return Err(io::Error::last_os_error()),
            }
        };
        if usize::try_from(received) != Ok(MESSAGE) {
            return Err(io::Error::other("the child ended before it was filtered"));
        }
        match i32::from_ne_bytes(bytes) {
            0 => {}
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
        // SAFETY: the kernel filled the message; the header is checked before its data is read; the descriptor is ours alone.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            if header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS {
                return Err(io::Error::other("the child sent no listener"));
            }
            Ok(OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()))
        }
    }
}

/// Size of a descriptor in a control message.
const FD_BYTES: u32 = 4;

const fn statement(code: u32, k: u32) -> libc::sock_filter {
    jump(code, k, 0, 0)
}

#[expect(clippy::cast_possible_truncation, reason = "BPF codes are below 256")]
const fn jump(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// The BPF program. Calls that it passes whatever their arguments, the kernel passes without running it (since 5.11).
fn program() -> Vec<libc::sock_filter> {
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let equal = |value, jt, jf| jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, jt, jf);
    let any_bit = |bits, jt, jf| jump(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, bits, jt, jf);
    let end = |action| statement(libc::BPF_RET | libc::BPF_K, action);
    let (tell, pass) = (end(libc::SECCOMP_RET_USER_NOTIF), end(libc::SECCOMP_RET_ALLOW));
    // x32 calls have a bit set in their number and so match none.
    let number = |nr: libc::c_long| u32::try_from(nr).unwrap_or(u32::MAX);
    let mut out = vec![load(ARCH), equal(ARCHITECTURE.unwrap_or(0), 1, 0), pass, load(NR)];
    for &nr in TOLD {
        out.extend([equal(number(nr), 0, 1), tell]);
    }
    for &(nr, n, bits) in TOLD_UNLESS {
        out.extend([equal(number(nr), 0, 4), load(argument(n)), any_bit(bits.unsigned_abs(), 0, 1), pass, tell]);
    }
    out.push(pass);
    out
}
