//! What a start asks for, as a profile tells it: its own time, the files of the image with what is touched of them and when, and
//! the bytecode that it writes.

use std::ops::Range;

use serde::Serialize;

use super::chunks;
use crate::profile::{Origin, Profile};

/// A start.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Microseconds to ready on a warm root: the image on disk, the page cache dropped.
    pub ready_us: u64,
    /// Where that figure comes from.
    pub ready_from: ReadyFrom,
    /// Whether the recording read from the disk.
    pub from_disk: bool,
    /// Files of the image of which something is read, in the order of the profile.
    pub files: Vec<Touched>,
    /// Bytes of bytecode that the start writes.
    pub bytecode_bytes: u64,
    /// Files of it.
    pub bytecode_files: u64,
    /// How much slower the machine at hand is than the one of the recording: a ratio.
    pub pace: (u64, u64),
    /// Microseconds to ready on a warm root that holds what a start would write, where that was measured.
    pub startup_us: Option<u64>,
}

/// What the workload's own time is taken from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadyFrom {
    /// The time of this phase of the recording.
    Phase(String),
    /// The last first touch of a range: the recording has no phase that ends it.
    LastTouch,
    /// A measured time that replaces the recording's.
    Measured,
}

/// A file of which something is read.
#[derive(Debug, Clone)]
pub struct Touched {
    /// Path, with a leading slash.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Of these touched.
    pub touched: u64,
    /// Touched ranges in the profile.
    pub ranges: usize,
    /// Touched spans, rounded out and joined as chunks are fitted to them, each with the microseconds of its first touch.
    pub spans: Vec<(Range<u64>, u64)>,
}

/// Phases that may end a start, best first.
const ENDS: [&str; 5] = ["ready", "first-token", "first-chat", "stopped", "exit"];

impl Workload {
    /// What a profile says. `lazy_us`: what the recording paid for a root that was itself lazy, 0 on a warm one; it is taken
    /// off, down to a third of the recorded time.
    pub fn of(profile: &Profile, lazy_us: u64) -> Self {
        let image = profile.files.iter().filter(|f| f.origin == Origin::Image && !f.is_looked_up_only());
        let files: Vec<_> = image
            .map(|f| {
                // A range behind the end would be one of nothing.
                let spans = chunks::spans(f.ranges.iter().map(|r| (r.0, r.1)), f.size).into_iter();
                let spans = spans.filter(|s| s.start < s.end);
                let spans = spans.map(|s| {
                    // Ranges ascend and are disjoint.
                    let from = f.ranges.partition_point(|r| r.0.saturating_add(r.1) <= s.start);
                    let here = f.ranges[from..].iter().take_while(|r| r.0 < s.end);
                    let first = here.map(|r| r.2).min().unwrap_or(f.first_touch_ms);
                    (s, first.saturating_mul(1000))
                });
                Touched {
                    path: f.path.clone(),
                    size: f.size,
                    touched: f.touched_bytes().min(f.size),
                    ranges: f.ranges.len(),
                    spans: spans.collect(),
                }
            })
            .collect();
        let phases = &profile.header.phases;
        let end = ENDS.iter().find_map(|name| phases.iter().find(|p| p.name == *name && p.at_ms > 0));
        let last = || files.iter().flat_map(|f| &f.spans).map(|s| s.1).max().unwrap_or(0);
        let recorded = end.map_or_else(last, |p| p.at_ms.saturating_mul(1000));
        let bytecode = || profile.writes.iter().filter(|w| w.class == "bytecode");
        Self {
            ready_us: recorded.saturating_sub(lazy_us).max(recorded / 3),
            ready_from: end.map_or(ReadyFrom::LastTouch, |p| ReadyFrom::Phase(p.name.clone())),
            from_disk: profile.header.host.get("page_cache").is_some_and(|s| s.starts_with("dropped")),
            files,
            bytecode_bytes: bytecode().map(|w| w.size).fold(0, u64::saturating_add),
            bytecode_files: bytecode().count() as u64,
            pace: (1, 1),
            startup_us: None,
        }
    }

    /// The same start on a machine on which its warm start, from the disk, takes this long: a measurement of the machine at hand. The
    /// times of touches move with it.
    #[must_use]
    pub fn measured(mut self, ready_us: u64) -> Self {
        let before = self.ready_us.max(1);
        for (_, at) in self.files.iter_mut().flat_map(|f| &mut f.spans) {
            *at = scaled(*at, ready_us, before);
        }
        self.pace = (ready_us, before);
        self.from_disk = true;
        (self.ready_us, self.ready_from) = (ready_us, ReadyFrom::Measured);
        self
    }

    /// The same start, of which is known how long it takes from the disk when what it writes is there already.
    #[must_use]
    pub fn with_startup(self, ready_us: u64) -> Self {
        Self { startup_us: Some(ready_us), ..self }
    }

    /// Touched bytes of the image.
    pub fn touched(&self) -> u64 {
        self.files.iter().map(|f| f.touched).fold(0, u64::saturating_add)
    }
}

/// `value · up / down`, rounded down.
pub(super) fn scaled(value: u64, up: u64, down: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(up) / u128::from(down.max(1))).unwrap_or(u64::MAX)
}
