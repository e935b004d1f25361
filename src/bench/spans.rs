//! The phases of one run on its own time axis: the four that every run has, cut further where its timeline tells more.
//!
//! The outer phases come from the marks, so the spans of a run add up to its total exactly. What the workload's log tells only
//! cuts the time until ready, and the first token the time after it; moments outside are moved to the edge, not believed.

use super::result::{Measured, Moment, Run, Start};

/// A stretch of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    /// The phase.
    pub(super) name: String,
    /// Milliseconds since the run's clock began.
    pub(super) from: u64,
    /// Its end.
    pub(super) to: u64,
}

impl Span {
    /// Milliseconds.
    pub(super) fn ms(&self) -> u64 {
        self.to - self.from
    }
}

/// Until the container's process said something.
pub(super) const BOOT: &str = "boot";
/// Until ready, when nothing more is known.
pub(super) const START: &str = "start";
/// Python's imports, where the log shows that it is vLLM's.
pub(super) const IMPORT: &str = "import";
/// From ready to the first token.
pub(super) const FIRST_TOKEN: &str = "first token";
/// From there to the end of the answer, or from ready where no first token was seen.
pub(super) const ANSWER: &str = "answer";

/// Moments that every run has, or may have whatever runs in the container.
const OURS: [&str; 6] = ["pulled", "created", "first-log", "ready", "first-token", "answer"];

/// When the run's clock began, on the clock of its timeline and samples: a warm run begins where the pull would have ended.
pub(super) fn begin(run: &Run, m: &Measured) -> u64 {
    if run.start == Start::Cold {
        return 0;
    }
    m.timeline.iter().find(|t| t.name == "pulled").map_or(0, |t| t.at_ms)
}

/// When a moment was, in milliseconds since the run's clock began.
pub(super) fn moment(run: &Run, m: &Measured, name: &str) -> Option<u64> {
    let at = m.timeline.iter().find(|t| t.name == name)?.at_ms;
    Some(at.saturating_sub(begin(run, m)))
}

/// The spans of a run, without gaps, from 0 to its total. Those of no length are left out.
pub(super) fn spans(run: &Run, m: &Measured) -> Vec<Span> {
    let begin = begin(run, m);
    let pulled = m.phases.pull_ms.unwrap_or(0);
    let created = pulled.saturating_add(m.phases.create_ms);
    let ready = created.saturating_add(m.phases.ready_ms);
    let end = ready.saturating_add(m.phases.chat_ms);
    let mut starts: Vec<(u64, &str)> = vec![(0, "pull"), (pulled, "create")];
    let told = m.timeline.iter().any(|t| !OURS.contains(&t.name.as_str()));
    let inside = |t: u64, low: u64, high: u64| t.saturating_sub(begin).clamp(low, high);
    // A first line behind the first phase that the log names tells nothing more.
    let named = |t: &&Moment| t.name != IMPORT && !OURS.contains(&t.name.as_str());
    let first_named = m.timeline.iter().filter(named).map(|t| t.at_ms).min().unwrap_or(u64::MAX);
    let first_log = m.timeline.iter().any(|t| t.name == "first-log");
    starts.push((created, if first_log || told { BOOT } else { START }));
    let mut within: Vec<(u64, &str)> = m
        .timeline
        .iter()
        .filter(|t| (t.name == "first-log" && t.at_ms <= first_named) || !OURS.contains(&t.name.as_str()))
        .map(|t| {
            let name = match (t.name.as_str(), told) {
                ("first-log", true) => IMPORT,
                ("first-log", false) => START,
                (name, _) => name,
            };
            (inside(t.at_ms, created, ready), name)
        })
        .collect();
    // Stable: moments at one time stay in their order.
    within.sort_by_key(|(at, _)| *at);
    starts.extend(within);
    match m.timeline.iter().find(|t| t.name == "first-token") {
        Some(t) => starts.extend([(ready, FIRST_TOKEN), (inside(t.at_ms, ready, end), ANSWER)]),
        None => starts.push((ready, ANSWER)),
    }
    let mut out: Vec<Span> = Vec::new();
    for (i, (from, name)) in starts.iter().enumerate() {
        let to = starts.get(i + 1).map_or(end, |next| next.0);
        match out.last_mut() {
            Some(last) if last.name == *name => last.to = to,
            _ if to > *from => out.push(Span { name: (*name).into(), from: *from, to }),
            _ => {}
        }
    }
    out
}

/// Milliseconds of a phase, all its spans together; none when it has none.
pub(super) fn length(spans: &[Span], name: &str) -> Option<u64> {
    spans.iter().filter(|s| s.name == name).map(Span::ms).reduce(u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::report::tests::run;
    use super::super::result::{Moment, Outcome};
    use super::super::sample::sample;
    use super::*;

    fn with(row: &str, timeline: &[(&str, u64)]) -> Vec<(String, u64, u64)> {
        let mut r = run(row, 1, 1000, &[]);
        if let Outcome::Measured(m) = &mut r.outcome {
            m.timeline = timeline.iter().map(|(n, at_ms)| Moment { name: (*n).into(), at_ms: *at_ms }).collect();
        }
        let spans = spans(&r, r.measured().expect("measured"));
        spans.into_iter().map(|s| (s.name, s.from, s.to)).collect()
    }

    fn named(list: &[(&str, u64, u64)]) -> Vec<(String, u64, u64)> {
        list.iter().map(|(n, a, b)| ((*n).to_owned(), *a, *b)).collect()
    }

    #[test]
    fn without_a_timeline_there_are_the_four_phases() {
        let want = [("pull", 0, 100), ("create", 100, 150), ("start", 150, 950), ("answer", 950, 1000)];
        assert_eq!(with("hot", &[]), named(&want));
        assert_eq!(with("hot", &[("pulled", 100), ("created", 150), ("ready", 950), ("answer", 1000)]), named(&want));
        assert_eq!(with("original warm", &[]), named(&[("create", 0, 50), ("start", 50, 950), ("answer", 950, 1000)]));
    }

    #[test]
    fn the_log_cuts_the_start_and_the_first_token_the_answer() {
        let log = [
            ("created", 150),
            ("first-log", 200),
            ("import", 210),
            ("load", 600),
            ("first-token", 970),
            ("answer", 1000),
        ];
        let want = [
            ("pull", 0, 100),
            ("create", 100, 150),
            ("boot", 150, 200),
            ("import", 200, 600),
            ("load", 600, 950),
            ("first token", 950, 970),
            ("answer", 970, 1000),
        ];
        assert_eq!(with("hot", &log), named(&want));
        // A program that is not vLLM: nothing says that it imports.
        let other = with("hot", &[("first-log", 200)]);
        assert_eq!(other[2..4], named(&[("boot", 150, 200), ("start", 200, 950)]));
        // An import may be told to begin with the process itself, and a first line may come late.
        let whole = with("hot", &[("import", 150), ("first-log", 300), ("load", 600)]);
        assert_eq!(whole[2..4], named(&[("import", 150, 600), ("load", 600, 950)]));
        let late = with("hot", &[("load", 300), ("first-log", 600)]);
        assert_eq!(late[2..4], named(&[("boot", 150, 300), ("load", 300, 950)]));
        // A warm run's clock begins behind the first mark.
        let warm = with("original warm", &[("pulled", 7), ("first-log", 107), ("load", 507)]);
        assert_eq!(warm[1..4], named(&[("boot", 50, 100), ("import", 100, 500), ("load", 500, 950)]));
    }

    #[test]
    fn the_sample_has_all_of_them() {
        let report = sample(1);
        let auto = report.runs.iter().find(|r| r.row == "auto").expect("it");
        let all = spans(auto, auto.measured().expect("measured"));
        let names: Vec<_> = all.iter().map(|s| s.name.as_str()).collect();
        let want = [
            "pull",
            "create",
            "boot",
            "import",
            "engine-init",
            "load",
            "compile",
            "kv-cache",
            "api-start",
            "first token",
            "answer",
        ];
        assert_eq!(names, want);
        assert_eq!((length(&all, "load").is_some(), length(&all, "nothing")), (true, None));
    }

    proptest! {
        #[test]
        fn spans_have_no_gaps_whatever_is_told(
            told in prop::collection::vec((prop_oneof!["first-log", "first-token", "load", "x", "pulled"], any::<u64>()), 0..9),
            warm: bool,
        ) {
            let told: Vec<(&str, u64)> = told.iter().map(|(n, at)| (n.as_str(), *at)).collect();
            let spans = with(if warm { "original warm" } else { "hot" }, &told);
            prop_assert_eq!((spans[0].1, spans[spans.len() - 1].2), (0, 1000));
            prop_assert!(spans.iter().all(|s| s.1 < s.2));
            prop_assert!(spans.windows(2).all(|w| w[0].2 == w[1].1), "{:?}", spans);
        }
    }
}
