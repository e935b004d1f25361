//! The reader beside the workload: a process of its own, while this one becomes the workload, with the same process id.
//!
//! Nobody has to reap the reader. Where we are not process 1 it is a grandchild, which the system's (or the container's) process
//! 1 takes over. As process 1 we are the one who takes over, and after `exec` that is the workload: there the reader is a
//! child made by `clone` without a signal, which no ordinary `wait` sees (`__WCLONE` in `wait(2)`) and which tells nobody of
//! its end. It stays an entry in the process table, without memory, until the container ends.
#![expect(unsafe_code, reason = "fork and clone")]

use std::fs::File;
use std::io::{self, Read, Seek};

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, getpid, setsid};

/// In which process we are after the split.
pub enum Side {
    /// The one that becomes the workload.
    Workload,
    /// The detached one.
    Reader,
}

/// Splits off the reader. Call it before any thread is started.
pub fn split() -> io::Result<Side> {
    if getpid().as_raw() == 1 {
        // Flags 0: a plain child, whose end is signalled by nothing. The stack and everything else is copied as by fork.
        // SAFETY: no thread but this one is there; the child goes on with copies of everything, as after fork(2).
        let pid = unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) };
        return match pid {
            0 => {
                let _own_session = setsid();
                Ok(Side::Reader)
            }
            pid if pid > 0 => Ok(Side::Workload),
            _ => Err(io::Error::last_os_error()),
        };
    }
    // SAFETY: no thread but this one is there.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            waitpid(child, None)?;
            Ok(Side::Workload)
        }
        ForkResult::Child => {
            let _own_session = setsid();
            // SAFETY: as above; the child between the two ends at once, without running anything registered for an exit.
            match unsafe { fork() } {
                Ok(ForkResult::Child) => Ok(Side::Reader),
                // SAFETY: it never comes back.
                Ok(ForkResult::Parent { .. }) | Err(_) => unsafe { libc::_exit(0) },
            }
        }
    }
}

/// A process that is watched, known by an open file of `/proc`: it answers for no other process of the same id.
pub struct Watched(Option<File>);

impl Watched {
    /// Ourselves, for the other side of a split. Without `/proc` nothing is seen, and the process counts as alive.
    pub fn this_process() -> Self {
        Self(File::open("/proc/self/stat").ok())
    }

    /// Whether it is there and no zombie.
    pub fn is_alive(&mut self) -> bool {
        let Some(file) = &mut self.0 else { return true };
        let mut text = String::new();
        let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
        // `PID (NAME) STATE …`; the name may hold anything.
        let state = text.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        read.is_ok() && !matches!(state, Some('Z' | 'X') | None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_watched_until_it_ends() {
        assert!(Watched::this_process().is_alive());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let mut watched = Watched(File::open(format!("/proc/{}/stat", child.id())).ok());
        assert!(watched.is_alive());
        child.kill().expect("killed");
        // A zombie, which nobody has waited for.
        let gone = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            !watched.is_alive()
        });
        assert!(gone);
        child.wait().expect("reaped");
        assert!(!watched.is_alive());
        assert!(Watched(None).is_alive());
    }
}
