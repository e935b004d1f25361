//! How the library reports what it is doing without printing: a sink that the command line draws as bars, that a log
//! writes as lines, and that a test records.

/// Where progress goes. All methods may be called from any thread.
pub trait Progress: Send + Sync {
    /// Opens a task of `total` units (bytes, 0 when unknown) and gives back its handle.
    fn start(&self, name: &str, total: u64) -> u64;
    /// Adds units to a task.
    fn advance(&self, task: u64, delta: u64);
    /// Closes a task.
    fn done(&self, task: u64);
    /// Says something that does not stop the work.
    fn warn(&self, message: &str);
}

/// Says nothing.
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _: &str, _: u64) -> u64 {
        0
    }
    fn advance(&self, _: u64, _: u64) {}
    fn done(&self, _: u64) {}
    fn warn(&self, _: &str) {}
}

/// An error with all its causes on one line, for a warning or a report.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |&e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
