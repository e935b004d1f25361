//! Finding tracepoints: tracefs where it is mounted, else a mount of our own that nobody else sees (a detached mount
//! descriptor, so neither the command nor the host's mount table learns of it).
#![expect(unsafe_code, reason = "fsopen, fsconfig and fsmount have no safe wrapper in nix or libc")]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::Error;
use super::format::Format;

/// An opened tracefs.
pub(super) struct Tracefs(OwnedFd);

impl Tracefs {
    /// Opens the mounted tracefs, or mounts one for ourselves.
    pub(super) fn open() -> Result<Self, Error> {
        for dir in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"] {
            if Path::new(dir).join("events").is_dir() {
                return Ok(Self(File::open(dir).map_err(Error::Tracefs)?.into()));
            }
        }
        mount().map(Self).map_err(Error::Tracefs)
    }

    /// The layout of `group/name`, nothing when this kernel does not have it.
    pub(super) fn event(&self, event: &str) -> Result<Option<Format>, Error> {
        let path = format!("events/{event}/format");
        let file = match openat(self.0.as_fd(), path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            Err(e) => return Err(Error::Tracefs(e.into())),
        };
        let mut text = String::new();
        File::from(file).read_to_string(&mut text).map_err(Error::Tracefs)?;
        Format::parse(&text).map(Some).map_err(|why| Error::Format { event: event.to_owned(), why })
    }
}

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// A detached mount of tracefs (kernel 5.2).
fn mount() -> io::Result<OwnedFd> {
    let fd = |r: libc::c_long| {
        let raw = libc::c_int::try_from(Errno::result(r)?).map_err(io::Error::other)?;
        // SAFETY: the system call has just given this descriptor to us and nobody else knows it.
        Ok::<_, io::Error>(unsafe { OwnedFd::from_raw_fd(raw) })
    };
    // SAFETY: the name is a NUL-terminated string that outlives the call.
    let context = fd(unsafe { libc::syscall(libc::SYS_fsopen, c"tracefs".as_ptr(), FSOPEN_CLOEXEC) })?;
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: CMD_CREATE takes no key, value or aux; the descriptor is open.
    let created = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0) };
    Errno::result(created)?;
    // SAFETY: the descriptor is open; flags and attributes are plain integers.
    fd(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })
}
