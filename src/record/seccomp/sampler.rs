//! Sampling of mapped files from time to time.
#![expect(unsafe_code, reason = "the processor time of a thread")]

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::calls::Context;
use super::mappings::{is_loss, sample};
use super::notebook::Fact;
use super::{Shared, lock, now};

const OFTEN: Duration = Duration::from_millis(250);
const SELDOM: Duration = Duration::from_secs(10);
/// One hundredth of a processor, as long as that is not too seldom.
const REST: u32 = 100;

impl Shared {
    /// Samples until the recording ends.
    pub(super) fn sample(&self) {
        let mut rest = OFTEN;
        while self.recording.load(Ordering::Acquire) {
            // Short naps: the end is not waited for.
            let mut slept = Duration::ZERO;
            while slept < rest && self.recording.load(Ordering::Acquire) {
                thread::sleep(OFTEN);
                slept += OFTEN;
            }
            let before = spent();
            self.sample_all();
            rest = (spent().saturating_sub(before) * REST).clamp(OFTEN, SELDOM);
        }
    }

    /// Samples all processes that were seen.
    pub(super) fn sample_all(&self) {
        let processes = lock(&self.notebook).as_ref().map(super::Notebook::processes).unwrap_or_default();
        for pid in processes {
            if self.is_ours(pid) {
                continue;
            }
            let at = now();
            match sample(pid, &(0..u64::MAX), self) {
                Ok(facts) => self.note(facts, at),
                Err(e) if is_loss(&e) => self.note(vec![Fact::Missed], at),
                Err(_) => {
                    if let Some(notebook) = lock(&self.notebook).as_mut() {
                        notebook.forget(pid);
                    }
                }
            }
        }
    }
}

/// Processor time of this thread so far.
fn spent() -> Duration {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid timespec to write to; every thread has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut t) };
    Duration::new(t.tv_sec.unsigned_abs(), u32::try_from(t.tv_nsec).unwrap_or(0))
}
