//! Medians, rows, baselines, and reports that are not to be trusted.

use super::*;
use crate::bench::report::tests::{failed, report, run};
use crate::bench::trace::Trace;

#[test]
fn a_median_is_the_middle() {
    assert_eq!(Spread::of([]), None);
    assert_eq!(Spread::of([5]), Some(Spread { n: 1, median: 5, min: 5, max: 5, sd: None }));
    // The sample's variance of 1, 5, 9 is 16.
    assert_eq!(Spread::of([9, 1, 5]), Some(Spread { n: 3, median: 5, min: 1, max: 9, sd: Some(4.0) }));
    let even = Spread::of([9, 1, 5, 6]).expect("a spread");
    assert_eq!((even.median, even.min, even.max), (5, 1, 9));
    assert_eq!(Spread::of([u64::MAX, u64::MAX]).map(|s| (s.median, s.sd)), Some((u64::MAX, Some(0.0))));
}

#[test]
fn invalid_and_failed_runs_are_counted_and_left_out() {
    let runs = vec![run("hot", 1, 100, &[]), run("hot", 2, 1, &["no"]), failed("hot", 3)];
    let row = &Analysis::of(&report(runs)).rows[0];
    assert_eq!((row.runs, row.measured, row.valid, row.typical), (3, 2, 1, Some(0)));
    assert_eq!(row.total.map(|t| (t.n, t.min, t.max)), Some((1, 100, 100)));
}

#[test]
fn the_first_arm_on_disk_is_a_baseline_too() {
    let mut report = report(vec![
        run("original cold", 1, 1000, &[]),
        run("original warm", 1, 400, &[]),
        run("hot", 1, 500, &[]),
        run("full", 1, 200, &[]),
        run("other", 1, 100, &[]),
    ]);
    for i in [2, 3] {
        report.arms[i].options = vec!["tuned".into(), "disk".into()];
    }
    let all = Analysis::of(&report);
    assert_eq!(all.baselines, ["original cold", "original warm", "full"]);
    let ratio = |row, base| all.ratio(row, base).map(|(r, i)| ((r * 100.0).round(), i));
    assert_eq!(ratio("hot", "full"), Some((250.0, None)));
    assert_eq!(ratio("original warm", "original cold"), Some((40.0, None)));
    assert_eq!(ratio("original cold", "original warm"), Some((250.0, None)));
    assert_eq!(ratio("hot", "hot"), None);
}

#[test]
fn the_typical_run_is_the_median_one() {
    let runs = vec![run("a", 1, 30, &[]), run("b", 1, 1, &[]), run("a", 2, 10, &[]), run("a", 3, 20, &[])];
    let all = Analysis::of(&report(runs));
    assert_eq!(all.rows.iter().map(|r| r.typical).collect::<Vec<_>>(), [Some(3), Some(1)]);
}

#[test]
fn what_a_reader_tells_is_taken_as_far_as_it_is_there() {
    let mut r = run("a", 1, 30, &[]);
    let tell = |r: &mut Run, warm: Value| {
        if let crate::bench::result::Outcome::Measured(m) = &mut r.outcome {
            m.warm = Some(warm);
        }
    };
    tell(&mut r, serde_json::json!({ "bytes_planned": 10, "bytes_read": -1, "ms": "x", "precision": 0.9126 }));
    let ahead = |r: &Run| Analysis::of(&report(vec![r.clone()])).rows[0].ahead.expect("a read-ahead");
    let a = ahead(&r);
    assert_eq!((a.planned.map(|s| s.median), a.read, a.ms), (Some(10), None, None));
    assert_eq!((a.precision, a.recall), (None, None), "the reader's own word is no measurement");
    tell(&mut r, serde_json::json!({ "images": [{ "bytes_read": 4 }, { "bytes_read": 5 }] }));
    assert_eq!(ahead(&r).read.map(|s| s.median), Some(9));
    tell(&mut r, serde_json::json!([{ "bytes_read": u64::MAX }, { "bytes_read": 3 }, 7]));
    assert_eq!(ahead(&r).read.map(|s| s.median), Some(u64::MAX));
}

/// A traced run with that trace.
fn traced(row: &str, total_ms: u64, invalid: &[&str], trace: Trace) -> Run {
    let mut run = run(row, 0, total_ms, invalid);
    run.traced = true;
    if let crate::bench::result::Outcome::Measured(m) = &mut run.outcome {
        m.trace = Some(trace);
    }
    run
}

fn trace() -> Trace {
    let missed = vec![Missed { path: "/x".into(), bytes: 40, ranges: 3 }];
    let cover = Cover {
        listed_bytes: 240,
        touched_bytes: 160,
        hit_bytes: 120,
        missed_bytes: 40,
        missed_ranges: 3,
        missed_files: 1,
        missed,
    };
    Trace { cover, ..Trace::default() }
}

#[test]
fn a_traced_run_tells_of_the_read_ahead_and_is_in_no_other_figure() {
    let counted = report(vec![run("a", 1, 30, &[]), run("a", 2, 50, &[]), run("original cold", 1, 90, &[])]);
    let plain = Analysis::of(&counted);
    assert_eq!((plain.rows[0].ahead, plain.misses.len()), (None, 0));
    let with = |run: Run| {
        let mut report = counted.clone();
        report.traced = vec![run];
        Analysis::of(&report)
    };
    let mut all = with(traced("a", 7_000, &[], trace()));
    let a = all.rows[0].ahead.expect("a read-ahead");
    assert_eq!((a.precision.map(|s| s.median), a.recall.map(|s| s.median)), (Some(500), Some(750)));
    assert_eq!((a.missed.map(|s| s.median), a.missed_ranges.map(|s| s.median), a.planned), (Some(40), Some(3), None));
    assert_eq!(all.misses, [Miss { row: "a".into(), file: Missed { path: "/x".into(), bytes: 40, ranges: 3 } }]);
    // Everything else is as it was.
    all.rows[0].ahead = None;
    all.misses.clear();
    assert_eq!(all, plain);
    // What speaks against the run or its trace leaves nothing of it; another row's says nothing here.
    let doubtful = Trace { withheld: vec!["3 events were lost".into()], ..trace() };
    for none in [traced("a", 7, &["it was warm"], trace()), traced("a", 7, &[], doubtful), traced("b", 7, &[], trace())]
    {
        assert_eq!(with(none), plain);
    }
}

#[test]
fn sums_of_a_hostile_report_do_not_panic() {
    let mut r = run("a", 1, u64::MAX, &[]);
    if let crate::bench::result::Outcome::Measured(m) = &mut r.outcome {
        m.link = Split {
            pull: Traffic { requests: u64::MAX, bytes: u64::MAX },
            start: Traffic { requests: 1, bytes: 1 },
            chat: Traffic::default(),
        };
        m.cpu.pull.snapshotter_ms = u64::MAX;
        m.cpu.start.snapshotter_ms = u64::MAX;
    }
    let row = &Analysis::of(&report(vec![r])).rows[0];
    assert_eq!(row.bytes.map(|s| s.median), Some(u64::MAX));
    assert_eq!(row.cpu_snapshotter.map(|s| s.median), Some(u64::MAX));
}
