//! The listener of a filter: calls come in, and are let go on.
#![expect(unsafe_code, reason = "the listener's ioctls have no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP` (linux/seccomp.h, since 6.6): who answers is about to sleep, so that the other one may
/// run on the same processor.
const SYNC_WAKE_UP: libc::c_ulong = 1;

/// A call that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// The kernel's name for this waiting.
    pub id: u64,
    /// The thread, as we see it.
    pub tid: u32,
    /// Which call.
    pub nr: libc::c_long,
    /// Its arguments.
    pub args: [u64; 6],
}

/// The listener.
pub(super) struct Listener {
    fd: OwnedFd,
    /// `u64`s that the kernel's notification takes, which may be larger than ours.
    words: usize,
}

impl Listener {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let mut sizes = libc::seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
        // SAFETY: the kernel writes one structure.
        Errno::result(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, &raw mut sizes) })?;
        let words = usize::from(sizes.seccomp_notif).max(size_of::<libc::seccomp_notif>()).div_ceil(8);
        // SAFETY: an ioctl with a plain number; kernels that do not know it refuse it.
        let _older_kernels_wake_up_elsewhere =
            unsafe { libc::ioctl(fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
        Ok(Self { fd, words })
    }

    /// Waits for a call; `None` when no process is left under the filter (kernels before 6.11 then wait for ever).
    pub(super) fn receive(&self) -> io::Result<Option<Call>> {
        // The kernel wants zeros.
        let mut buffer = [0_u64; 32];
        let buffer = buffer.get_mut(..self.words).ok_or_else(|| io::Error::other("unknown notification size"))?;
        loop {
            buffer.fill(0);
            // SAFETY: the buffer is as large as the kernel said.
            let done = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, buffer.as_mut_ptr()) };
            match Errno::result(done) {
                Ok(_) => break,
                // A signal to us, or the caller is gone already.
                Err(Errno::EINTR) => {}
                Err(Errno::ENOENT) if !self.deserted() => {}
                Err(Errno::ENOENT) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        }
        // SAFETY: the buffer holds a filled notification, is aligned for it and at least as large.
        let notice = unsafe { buffer.as_ptr().cast::<libc::seccomp_notif>().read() };
        Ok(Some(Call { id: notice.id, tid: notice.pid, nr: notice.data.nr.into(), args: notice.data.args }))
    }

    /// Whether something is there to be received within that time.
    pub(super) fn wait(&self, milliseconds: i32) -> bool {
        self.poll(milliseconds) & libc::POLLIN != 0
    }

    fn deserted(&self) -> bool {
        self.poll(0) & libc::POLLHUP != 0
    }

    fn poll(&self, milliseconds: i32) -> libc::c_short {
        let mut fd = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry.
        if unsafe { libc::poll(&raw mut fd, 1, milliseconds) } == 1 { fd.revents } else { 0 }
    }

    /// Whether the caller still waits: if so, what was read about its thread is about it.
    pub(super) fn still_waits(&self, id: u64) -> bool {
        // SAFETY: the kernel reads one `u64`.
        unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0 }
    }

    /// Lets the call go on.
    pub(super) fn proceed(&self, id: u64) {
        // The flag is 1: it fits wherever the header puts it.
        let flags = u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or(1);
        let answer = libc::seccomp_notif_resp { id, val: 0, error: 0, flags };
        loop {
            // SAFETY: the kernel reads one structure.
            let sent = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) };
            // Any other refusal says that nobody waits any more: killed, interrupted, or answered already.
            if sent == 0 || Errno::last_raw() != libc::EINTR {
                return;
            }
        }
    }
}
