//! Whether this recorder works here: found by doing all of it once.
#![expect(unsafe_code, reason = "fork")]

use std::ffi::CStr;
use std::io;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::caller::Caller;
use super::filter::{ARCHITECTURE, Filter};
use super::listener::Listener;
use super::pages::Pagemap;

/// What the child opens.
const ASKED: &CStr = c"/proc/self/status";
const PATIENCE_MS: i32 = 5000;

/// Tries it in a child; says in words why it does not work and what to allow.
pub(in super::super) fn available() -> Result<(), String> {
    if ARCHITECTURE.is_none() {
        return Err(format!("it is made for x86_64 and aarch64, not for {}", std::env::consts::ARCH));
    }
    let filter = Filter::prepare().map_err(|e| format!("no socket pair: {e}"))?;
    // SAFETY: the child calls only async-signal-safe functions and allocates nothing before it exits.
    match unsafe { fork() }.map_err(|e| format!("cannot fork: {e}"))? {
        ForkResult::Child => {
            // SAFETY: the process ends here; the path is NUL-terminated.
            unsafe {
                if filter.install().is_err() {
                    libc::_exit(1);
                }
                let opened = libc::openat(libc::AT_FDCWD, ASKED.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
                libc::_exit(if opened < 0 { 2 } else { 0 })
            }
        }
        ForkResult::Parent { child } => {
            let tried = attempt(filter, child);
            if tried.is_err() {
                let _it_may_be_gone = kill(child, Signal::SIGKILL);
            }
            let ended = waitpid(child, None);
            tried?;
            match ended {
                Ok(WaitStatus::Exited(_, 0)) => Ok(()),
                other => Err(format!("a call that was let go on did not work: {other:?}")),
            }
        }
    }
}

fn attempt(filter: Filter, child: Pid) -> Result<(), String> {
    let fd = filter.listener().map_err(|e| refused(&e))?;
    let listener = Listener::new(fd).map_err(|e| format!("seccomp(2) gives no sizes: {e}"))?;
    let tid = child.as_raw().unsigned_abs();
    let mut opened = false;
    // The child's open, and its exit.
    while listener.wait(PATIENCE_MS) {
        let Ok(Some(call)) = listener.receive() else { break };
        if call.nr == libc::SYS_openat {
            let seen = look(&Caller::new(call.tid), call.args[1]);
            opened = true;
            if call.tid != tid {
                return Err("process numbers differ: /proc is not that of our own PID namespace".into());
            }
            seen?;
        }
        listener.proceed(call.id);
        if call.nr == libc::SYS_exit_group {
            break;
        }
    }
    if opened { Ok(()) } else { Err("the kernel told of no call: another filter decides before ours".into()) }
}

/// All ways of looking at a caller.
fn look(caller: &Caller, path: u64) -> Result<(), String> {
    let yama = "; /proc/sys/kernel/yama/ptrace_scope must be 0 or 1, and the runtime's seccomp profile must allow \
                process_vm_readv";
    let say = |what: &str, hint: &str, e: io::Error| format!("cannot {what} of a child: {e}{hint}");
    let name = caller.string(path).map_err(|e| say("read the memory", yama, e))?;
    if name != ASKED.to_bytes() {
        return Err("the memory of a child reads back wrong".into());
    }
    let proc = "; /proc must be mounted without hidepid";
    caller.process().map_err(|e| say("read the status", proc, e))?;
    caller
        .position(0)
        .or_else(|e| if e.raw_os_error() == Some(libc::ENOENT) { Ok(0) } else { Err(e) })
        .map_err(|e| say("see the descriptors", proc, e))?;
    caller
        .find(b"/")
        .map_err(|e| say("look into the root", "; openat2 needs Linux 5.6 and a profile that allows it", e))?;
    Pagemap::open(caller.tid)
        .and_then(|map| map.there(0..1 << 30))
        .map_err(|e| say("read the page tables", proc, e))?;
    Ok(())
}

fn refused(e: &io::Error) -> String {
    let why = match e.raw_os_error() {
        Some(libc::EINVAL | libc::ENOSYS) => "Linux 5.6 or later is needed, with CONFIG_SECCOMP_FILTER",
        Some(libc::EBUSY) => "a filter with a listener is there already, and there can be one only",
        Some(libc::EPERM | libc::EACCES) => "the runtime's seccomp profile must allow seccomp(2) and prctl(2)",
        _ => "the filter was refused",
    };
    format!("cannot install a seccomp filter: {e}; {why}")
}
