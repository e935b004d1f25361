//! Waiting for whatever comes first: a signal to pass on, a child that ended, or a moment of time.
#![expect(unsafe_code, reason = "sigtimedwait has no safe wrapper")]

use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

/// What we pass on to the command.
const FORWARDED: [Signal; 6] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// Signals blocked for the life of this value, to be waited for.
pub(super) struct Signals {
    set: SigSet,
    before: SigSet,
}

impl Signals {
    /// Blocks them; threads started later inherit that.
    pub(super) fn block() -> nix::Result<Self> {
        // SIGTTOU stops whoever gives the terminal away, or back, from the background.
        let set: SigSet = FORWARDED.into_iter().chain([Signal::SIGCHLD, Signal::SIGTTOU]).collect();
        Ok(Self { set, before: set.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)? })
    }

    /// The next signal, if one comes in time.
    pub(super) fn wait(&self, at_most: Duration) -> Option<Signal> {
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(at_most.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: at_most.subsec_nanos().into(),
        };
        // SAFETY: set and timeout are valid for the call; no siginfo is asked for.
        let signal = unsafe { libc::sigtimedwait(self.set.as_ref(), std::ptr::null_mut(), &raw const timeout) };
        Signal::try_from(signal).ok()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _only_fails_on_a_wrong_argument = self.before.thread_set_mask();
    }
}
