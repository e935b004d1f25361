//! Starting the command behind a gate: it exists, so that tracing can be attached to it, but it runs nothing before it is let
//! go. Hides fork and exec and what must not happen between them.
#![expect(unsafe_code, reason = "fork and exec")]

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::seccomp::Filter;
use nix::fcntl::OFlag;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{ForkResult, Pid, chdir, chroot, fork, pipe2, setpgid};

/// A command that waits at the gate.
pub(super) struct Gated {
    /// Its process, and process group.
    pub pid: Pid,
    gate: File,
    report: File,
}

/// Where a command name may lie, in the order to be tried.
fn candidates(name: &OsString) -> Vec<CString> {
    let as_c = |bytes: Vec<u8>| CString::new(bytes).ok();
    if name.as_bytes().contains(&b'/') {
        return as_c(name.clone().into_vec()).into_iter().collect();
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    std::env::split_paths(&path).filter_map(|dir| as_c(dir.join(name).into_os_string().into_vec())).collect()
}

impl Gated {
    /// Forks. Call it before any thread is started. With `root` the command is confined there; `streams` become its stdout and
    /// stderr, and it puts the filter on before its own program runs.
    pub(super) fn start(
        command: &[OsString],
        root: Option<&Path>,
        streams: [Option<RawFd>; 2],
        filter: Option<&Filter>,
    ) -> io::Result<Self> {
        let name = command.first().ok_or_else(|| io::Error::other("no command"))?;
        let programs = candidates(name);
        let args = command.iter().map(|a| CString::new(a.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let argv: Vec<*const libc::c_char> = args.iter().map(|a| a.as_ptr()).chain([std::ptr::null()]).collect();
        let root = root.map(|r| CString::new(r.as_os_str().as_bytes())).transpose()?;
        let (gate_child, gate) = pipe2(OFlag::O_CLOEXEC)?;
        let (report, report_child) = pipe2(OFlag::O_CLOEXEC)?;
        // In the foreground of a terminal we are, the command takes our place there: a background group may not read from it.
        // SAFETY: plain numbers; on what is no terminal, or not ours, the call fails.
        let foreground = unsafe { libc::tcgetpgrp(0) == libc::getpgrp() };
        // SAFETY: the child calls only async-signal-safe functions and allocates nothing before it execs or exits.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                let _also_done_by_the_child = setpgid(child, child);
                Ok(Self { pid: child, gate: gate.into(), report: report.into() })
            }
            ForkResult::Child => {
                drop((gate, report));
                let errno = in_child(root.as_ref(), &programs, &argv, &gate_child, (streams, filter, foreground));
                // SAFETY: a write to an open descriptor and the end of this process.
                unsafe {
                    libc::write(report_child.as_raw_fd(), errno.to_ne_bytes().as_ptr().cast(), 4);
                    libc::_exit(127)
                }
            }
        }
    }

    /// Opens the gate.
    pub(super) fn open(&mut self) -> io::Result<()> {
        self.gate.write_all(&[1])
    }

    /// Waits until the command's own program runs, or did not.
    pub(super) fn wait(mut self) -> io::Result<Pid> {
        let mut errno = Vec::new();
        self.report.read_to_end(&mut errno)?;
        match errno.try_into() {
            Ok(bytes) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(bytes))),
            Err(_) => Ok(self.pid),
        }
    }
}

/// All that happens between fork and exec; gives the error number that ended it.
fn in_child(
    root: Option<&CString>,
    programs: &[CString],
    argv: &[*const libc::c_char],
    gate: &OwnedFd,
    (streams, filter, foreground): ([Option<RawFd>; 2], Option<&Filter>, bool),
) -> i32 {
    let _own_group = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    if foreground {
        // SIGTTOU, which a background group gets for this, is blocked with what we forward.
        // SAFETY: plain numbers; what cannot be done changes nothing.
        unsafe { libc::tcsetpgrp(0, libc::getpid()) };
    }
    // Rust ignores SIGPIPE and we have blocked what we forward: the command must inherit neither.
    let _reset = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    // SAFETY: setting a default disposition is always allowed.
    unsafe { libc::signal(Signal::SIGPIPE as i32, libc::SIG_DFL) };
    for (fd, of) in (1..).zip(streams) {
        if let Some(of) = of {
            // SAFETY: both are plain numbers; a descriptor that is not open is an error that is looked at.
            if unsafe { libc::dup2(of, fd) } < 0 {
                return nix::errno::Errno::last_raw();
            }
        }
    }
    if let Some(root) = root
        && let Err(e) = chroot(root.as_c_str()).and_then(|()| chdir(c"/"))
    {
        return e as i32;
    }
    let mut byte = 0_u8;
    // Brings the pages of this code in, so that the trace does not begin with faults of ours.
    // SAFETY: NUL-terminated strings and a NULL-terminated array; an empty path fails at once.
    unsafe { libc::execv(c"".as_ptr(), argv.as_ptr()) };
    // SAFETY: one byte into a local variable.
    if unsafe { libc::read(gate.as_raw_fd(), (&raw mut byte).cast(), 1) } != 1 {
        return libc::ECANCELED;
    }
    if let Some(filter) = filter {
        // Without us its calls fail: rather none than a crippled one. The parent is the thread that lives as long as esgz.
        let _best_effort = set_pdeathsig(Signal::SIGKILL);
        // SAFETY: we are a child that has not called exec.
        if let Err(errno) = unsafe { filter.install() } {
            return errno;
        }
    }
    let mut errno = libc::ENOENT;
    for program in programs {
        // SAFETY: as above; the strings behind argv live in the caller. Returns only if it failed.
        unsafe { libc::execv(program.as_ptr(), argv.as_ptr()) };
        let e = nix::errno::Errno::last_raw();
        // As a shell does: a later directory may have it, a refusal is remembered.
        if !matches!(e, libc::ENOENT | libc::ENOTDIR) {
            errno = e;
            if e != libc::EACCES {
                break;
            }
        }
    }
    errno
}
