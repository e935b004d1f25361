//! Looking after the command: passing signals on, reaping what falls to us (we may be process 1 of a container), ending the
//! whole tree.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::signals::Signals;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself.
    Code(u8),
    /// By a signal.
    Signal(Signal),
}

impl Ended {
    /// The code to pass on: its own, or 128 and the signal's number as shells do.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => u8::try_from(128 + signal as i32).unwrap_or(255),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with code {code}"),
            Self::Signal(signal) => write!(f, "was ended by {signal}"),
        }
    }
}

/// A running command.
pub(super) struct Command {
    pid: Pid,
    signals: Signals,
    ended: Option<Ended>,
}

/// How long a command may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(10);

impl Command {
    /// Looks after `pid`, the leader of its own process group.
    pub(super) fn new(pid: Pid, signals: Signals) -> Self {
        Self { pid, signals, ended: None }
    }

    /// Waits for a moment, passing signals on. Tells how the command ended once it has.
    pub(super) fn wait(&mut self, at_most: Duration) -> Option<Ended> {
        self.reap();
        if self.ended.is_none() {
            match self.signals.wait(at_most) {
                Some(Signal::SIGCHLD | Signal::SIGTTOU) | None => {}
                Some(signal) => self.tell(signal),
            }
            self.reap();
        }
        self.ended
    }

    /// How it ended, once it has.
    pub(super) fn ended(&self) -> Option<Ended> {
        self.ended
    }

    fn tell(&self, signal: Signal) {
        let _gone = kill(Pid::from_raw(-self.pid.as_raw()), signal);
    }

    fn reap(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == self.pid => {
                    self.ended = Some(Ended::Code(u8::try_from(code & 0xff).unwrap_or(255)));
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.pid => self.ended = Some(Ended::Signal(signal)),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// Asks the whole group to end, then ends it. A command that has ended by itself is left alone, and what it left behind.
    pub(super) fn end(&mut self) {
        if self.ended.is_some() {
            return;
        }
        self.tell(Signal::SIGTERM);
        let limit = Instant::now() + GRACE;
        while Instant::now() < limit && kill(Pid::from_raw(-self.pid.as_raw()), None) != Err(Errno::ESRCH) {
            if self.wait(Duration::from_millis(20)).is_some() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.tell(Signal::SIGKILL);
        // What left the group falls to us, its subreaper; ending it may bring us its children in turn.
        for _ in 0..10 {
            let left = children();
            if left.is_empty() {
                break;
            }
            for pid in left {
                let _gone = kill(pid, Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(10));
            self.reap();
        }
    }
}

impl Drop for Command {
    /// Whatever goes wrong, no command is left behind that nobody looks after.
    fn drop(&mut self) {
        // A terminal that it had in the foreground is ours again. SIGTTOU is blocked.
        let stdin = std::io::stdin();
        if nix::unistd::tcgetpgrp(&stdin) == Ok(self.pid) {
            let _it_may_have_gone = nix::unistd::tcsetpgrp(&stdin, nix::unistd::getpgrp());
        }
        self.end();
    }
}

/// Our children, zombies included.
fn children() -> Vec<Pid> {
    let me = i32::try_from(std::process::id()).ok();
    processes().filter(|pid| parent_of(*pid) == me).map(Pid::from_raw).collect()
}

/// All processes that can be seen.
pub(super) fn processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|d| d.file_name().to_str()?.parse().ok())
}

/// Who started a process, or has taken it over.
pub(super) fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, brackets and spaces included.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}
