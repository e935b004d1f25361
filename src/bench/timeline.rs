//! The moments of a run on one clock: our own marks, and what the container's log tells with the stamps that containerd gave its
//! lines when it read them (`2026-11-26T10:00:00.123456789Z stderr F what was said`). Hidden here: split lines, and the wall
//! clock, which is trusted only while it goes along with the steady one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::result::Moment;
use crate::profile::Phase;
use crate::record::phases;

/// So far may the wall clock run apart from the steady one during a run.
const APART: Duration = Duration::from_millis(50);
/// So much of a log is read, bytes.
const LOG: u64 = 64 << 20;

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    steady: Instant,
    wall: SystemTime,
}

impl Clock {
    /// Now.
    pub(super) fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    /// The moment on the steady clock.
    pub(super) fn steady(self) -> Instant {
        self.steady
    }

    /// Whether both clocks went on by the same until `later`: else the stamps of the time between cannot be placed.
    fn agrees(self, later: Self) -> bool {
        let steady = later.steady.saturating_duration_since(self.steady);
        later.wall.duration_since(self.wall).is_ok_and(|wall| wall.abs_diff(steady) <= APART)
    }

    /// Milliseconds from this moment to a stamp; `None` for one before it.
    fn ms(self, stamp: jiff::Timestamp) -> Option<u64> {
        let since = SystemTime::from(stamp).duration_since(self.wall).ok()?;
        u64::try_from(since.as_millis()).ok()
    }
}

/// Our own marks of a run.
pub(super) struct Marks {
    /// The first one, to which all times are relative.
    pub(super) first: Clock,
    /// End of the pull, if there was one.
    pub(super) pulled: Option<Instant>,
    /// The container was started.
    pub(super) created: Instant,
    /// First `200`.
    pub(super) ready: Instant,
    /// First text of the answer.
    pub(super) first_token: Instant,
    /// End of the answer.
    pub(super) answer: Instant,
    /// The last one, to see whether the clocks still agree.
    pub(super) last: Clock,
}

/// All moments in order. Without a log, or with one that cannot be placed, our own marks alone.
pub(super) fn moments(marks: &Marks, log: &[u8]) -> Vec<Moment> {
    let ms = |t: Instant| u64::try_from((t - marks.first.steady).as_millis()).unwrap_or(u64::MAX);
    let mut all: Vec<(String, u64)> = Vec::new();
    all.extend(marks.pulled.map(|t| ("pulled".into(), ms(t))));
    all.push(("created".into(), ms(marks.created)));
    if marks.first.agrees(marks.last) {
        let told = told(marks.first, ms(marks.created), log);
        all.extend(told.into_iter().map(|p| (p.name, p.at_ms)));
    }
    all.push(("ready".into(), ms(marks.ready)));
    all.push(("first-token".into(), ms(marks.first_token)));
    all.push(("answer".into(), ms(marks.answer)));
    all.sort_by_key(|(_, at)| *at);
    all.into_iter().map(|(name, at_ms)| Moment { name, at_ms }).collect()
}

/// What the log tells: its first line, and the workload's own phases. `import` begins with the container.
fn told(first: Clock, created: u64, log: &[u8]) -> Vec<Phase> {
    let mut own = vec![Phase { name: phases::START.into(), at_ms: created }];
    let mut first_line = None;
    for (stamp, line) in lines(log) {
        let Some(at) = first.ms(stamp) else { continue };
        first_line.get_or_insert(at);
        if let Some(told) = phases::read(&phases::plain(&line)) {
            phases::enter(&mut own, told, at);
        }
    }
    // Other workloads than vLLM have no phases of their own, and so no start either.
    own.retain(|p| p.name != phases::START);
    own.extend(first_line.map(|at_ms| Phase { name: "first-log".into(), at_ms }));
    own
}

/// Whole lines of a CRI log with the stamp of their beginning. A long line comes in parts (`P`), each with its stream's next part or end
/// (`F`) somewhere behind it.
fn lines(log: &[u8]) -> Vec<(jiff::Timestamp, Vec<u8>)> {
    let mut begun: BTreeMap<&[u8], (jiff::Timestamp, Vec<u8>)> = BTreeMap::new();
    let mut all = Vec::new();
    for line in log.split(|b| *b == b'\n') {
        let mut fields = line.splitn(4, |b| *b == b' ');
        let (Some(stamp), Some(stream), Some(tag)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let text = fields.next().unwrap_or_default();
        let Some(stamp) = std::str::from_utf8(stamp).ok().and_then(|s| s.parse().ok()) else { continue };
        begun.entry(stream).or_insert((stamp, Vec::new())).1.extend_from_slice(text);
        if tag != b"P" {
            all.extend(begun.remove(stream));
        }
    }
    all.extend(begun.into_values());
    all.sort_by_key(|(stamp, _)| *stamp);
    all
}

/// The log of a container; empty when it cannot be read.
pub(super) fn log(file: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _partly = File::open(file).and_then(|f| f.take(LOG).read_to_end(&mut bytes));
    bytes
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test is what it is for")]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-11-26T10:00:02.500000000Z stderr F hello
2026-11-26T10:00:09.1Z stderr P (EngineCore pid=9) INFO [core.py:103] Initializing a V1
2026-11-26T10:00:09.2Z stdout F another stream in between
2026-11-26T10:00:09.3Z stderr F  LLM engine (v0.18.0)
not a stamp stderr F Starting to load model m
2026-11-26T10:00:11.25+00:00 stdout F \u{1b}[36m(EngineCore)\u{1b}[0m Starting to load model m...
2026-11-26T10:00:13Z stderr F Model loading took 0.25 GiB
2026-11-26T10:00:14Z stderr F Dynamo bytecode transform time: 5.03 s
";

    fn marks(last_wall: i64) -> Marks {
        let steady = Instant::now();
        let wall = |s: i64| {
            SystemTime::from("2026-11-26T10:00:00Z".parse::<jiff::Timestamp>().unwrap())
                + Duration::from_secs(u64::try_from(s).unwrap())
        };
        let at = |ms| steady + Duration::from_millis(ms);
        Marks {
            first: Clock { steady, wall: wall(0) },
            pulled: Some(at(1_000)),
            created: at(1_500),
            ready: at(20_000),
            first_token: at(20_300),
            answer: at(20_700),
            last: Clock { steady: at(21_000), wall: wall(last_wall) },
        }
    }

    fn named(all: &[Moment]) -> Vec<(&str, u64)> {
        all.iter().map(|m| (m.name.as_str(), m.at_ms)).collect()
    }

    #[test]
    fn the_log_is_placed_between_our_own_marks() {
        let all = moments(&marks(21), LOG.as_bytes());
        let want = [
            ("pulled", 1_000),
            ("created", 1_500),
            ("import", 1_500),
            ("first-log", 2_500),
            ("engine-init", 9_100),
            ("load", 11_250),
            ("compile", 13_000),
            ("ready", 20_000),
            ("first-token", 20_300),
            ("answer", 20_700),
        ];
        assert_eq!(named(&all), want);
    }

    #[test]
    fn stamps_of_a_clock_that_was_set_are_left_out() {
        let all = moments(&marks(3_600), LOG.as_bytes());
        assert_eq!(
            named(&all).iter().map(|(n, _)| *n).collect::<Vec<_>>(),
            ["pulled", "created", "ready", "first-token", "answer"]
        );
        // Backwards, too.
        assert_eq!(moments(&marks(0), LOG.as_bytes()).len(), 5);
    }

    #[test]
    fn other_workloads_have_a_first_line_only() {
        let mut warm = marks(21);
        warm.pulled = None;
        let all = moments(&warm, b"2026-11-26T09:00:00Z stdout F of another life\n2026-11-26T10:00:03Z stdout F Uvicorn running\nrubbish\n\xff \xff\n");
        assert_eq!(named(&all)[..2], [("created", 1_500), ("first-log", 3_000)]);
        assert_eq!(moments(&warm, b"").len(), 4);
        // Cut off in the middle of a long line.
        assert_eq!(named(&moments(&warm, b"2026-11-26T10:00:03Z stdout P begun"))[1], ("first-log", 3_000));
    }
}
