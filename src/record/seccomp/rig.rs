//! Commands under the filter, and files for them.
#![expect(unsafe_code, reason = "fork and exec")]

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use tempfile::TempDir;

use super::super::sightings::{Key, Run, Sighting, Sightings};
use super::{Filter, Supervisor, available};

pub(super) const MIB: usize = 1 << 20;

/// A command under the filter.
pub(super) struct Job {
    pub pid: Pid,
    pub supervisor: Supervisor,
}

impl Job {
    pub(super) fn start(command: &[&str]) -> Self {
        let filter = Filter::prepare().expect("a socket pair");
        let words: Vec<CString> = command.iter().map(|w| CString::new(*w).expect("no zero in it")).collect();
        let argv: Vec<_> = words.iter().map(|w| w.as_ptr()).chain([std::ptr::null()]).collect();
        // SAFETY: the child calls only async-signal-safe functions before it execs or exits.
        match unsafe { fork() }.expect("a process") {
            ForkResult::Child => {
                // SAFETY: NUL-terminated strings and a NULL-terminated array; then the end of this process.
                unsafe {
                    if filter.install().is_ok() {
                        libc::execv(argv[0], argv.as_ptr());
                    }
                    libc::_exit(127)
                }
            }
            ForkResult::Parent { child } => {
                let listener = filter.listener().expect("a filter");
                Self { pid: child, supervisor: Supervisor::start(listener, child).expect("threads") }
            }
        }
    }

    pub(super) fn wait(&self) -> i32 {
        match waitpid(self.pid, None).expect("our child") {
            WaitStatus::Exited(_, code) => code,
            WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn record(command: &[&str]) -> Sightings {
    let mut job = Job::start(command);
    let code = job.wait();
    let seen = job.supervisor.stop();
    assert_eq!((code, seen.lost), (0, 0), "{:?}", seen.notes);
    seen
}

/// Runs a Python program in a folder with `big`, 4 MiB.
pub(super) fn python(dir: &Rig, program: &str) -> Sightings {
    let program = format!("import os, mmap, sys, time, threading\nos.chdir({:?})\n{program}", dir.path());
    record(&["/usr/bin/python3", "-S", "-E", "-c", &program])
}

pub(super) struct Rig {
    dir: TempDir,
}

impl Rig {
    pub(super) fn new() -> Option<Self> {
        if available().is_err() || !Path::new("/usr/bin/python3").exists() {
            return None;
        }
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("big"), vec![7; 4 * MIB]).expect("a file");
        Some(Self { dir })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn key(&self, name: &str) -> Key {
        let meta = fs::metadata(self.path().join(name)).expect("it is there");
        (meta.dev(), meta.ino())
    }

    pub(super) fn sighting<'a>(&self, seen: &'a Sightings, name: &str) -> &'a Sighting {
        seen.files.get(&self.key(name)).unwrap_or_else(|| panic!("{name} was not seen"))
    }

    pub(super) fn ranges(&self, seen: &Sightings, name: &str) -> Vec<(u64, u64)> {
        self.sighting(seen, name).runs.iter().map(|r| (r.start, r.end)).collect()
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.path().join(name).to_str().expect("UTF-8").to_owned()
    }
}

pub(super) fn holds(runs: &[Run], at: u64) -> bool {
    runs.iter().any(|r| r.start <= at && at < r.end)
}
