//! When to try again and how long to wait.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use jiff::Timestamp;

/// How often and how patiently a request is repeated.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Attempts altogether, the first included.
    pub attempts: u32,
    /// Wait before the second attempt; it doubles from there.
    pub first: Duration,
    /// Longest wait, also where the server asks for more.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 6, first: Duration::from_millis(250), longest: Duration::from_mins(1) }
    }
}

impl Retry {
    /// Starts counting.
    pub fn start(&self) -> Backoff {
        Backoff { retry: *self, failed: 0 }
    }

    /// The same waits with another number of attempts.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }
}

/// Counts the failures of one piece of work.
#[derive(Debug)]
pub struct Backoff {
    retry: Retry,
    failed: u32,
}

impl Backoff {
    /// Notes a failure: how long to wait before the next attempt, or nothing when there is none left. `asked` is what the
    /// server asked for.
    pub fn failed(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.failed += 1;
        if self.failed >= self.retry.attempts {
            return None;
        }
        let full = self.retry.first.saturating_mul(1 << (self.failed - 1).min(16)).min(self.retry.longest);
        // Half fixed, half random, so that many clients of a server that comes back do not come back together.
        let random = u32::try_from(RandomState::new().hash_one(self.failed) & 0xffff).unwrap_or(0);
        let jittered = full / 2 + full / 2 * random / 0xffff;
        Some(asked.map_or(jittered, |a| a.max(jittered).min(self.retry.longest)))
    }

    /// Work went on since the last failure: start counting again.
    pub fn progressed(&mut self) {
        self.failed = 0;
    }
}

/// Whether an HTTP status says that the same request may succeed later.
pub fn is_temporary(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// Reads a `Retry-After` value: seconds or an HTTP date.
pub fn retry_after(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp();
    Some(Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_stay_bounded_and_end() {
        let retry = Retry { attempts: 5, first: Duration::from_millis(100), longest: Duration::from_millis(250) };
        let mut backoff = retry.start();
        for full in [100, 200, 250, 250] {
            let wait = backoff.failed(None).expect("attempts are left").as_millis();
            assert!((full / 2..=full).contains(&wait), "{wait} of {full}");
        }
        assert_eq!(backoff.failed(None), None);
        backoff.progressed();
        assert!(backoff.failed(None).is_some());
    }

    #[test]
    fn the_server_may_ask_for_more_but_not_for_ever() {
        let mut backoff =
            Retry { attempts: 9, first: Duration::from_millis(1), longest: Duration::from_secs(3) }.start();
        assert_eq!(backoff.failed(Some(Duration::from_secs(2))), Some(Duration::from_secs(2)));
        assert_eq!(backoff.failed(Some(Duration::from_hours(1))), Some(Duration::from_secs(3)));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let soon = Timestamp::now() + Duration::from_secs(100);
        let text = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&soon).expect("prints");
        let wait = retry_after(&text).expect("a date").as_secs();
        assert!((97..=100).contains(&wait), "{wait}");
        assert_eq!(retry_after("soon"), None);
    }
}
