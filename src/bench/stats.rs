//! Numbers of several runs: medians and ranges of those that count, and differences paired by round.
//!
//! A median with its range is all that three runs allow; nothing here claims significance. Ratios are taken within a round,
//! where both arms met the same machine, and their median is reported: a machine that drifts does not move it. Invalid and
//! failed runs are counted and left out.

use super::result::{Measured, Report, Run};

/// Median, smallest and largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    /// Middle value; the mean of the middle two for an even number, rounded down.
    pub median: u64,
    /// Smallest.
    pub min: u64,
    /// Largest.
    pub max: u64,
}

impl Spread {
    /// Of some values; none when there are none.
    pub fn of(values: impl IntoIterator<Item = u64>) -> Option<Self> {
        let mut all: Vec<u64> = values.into_iter().collect();
        all.sort_unstable();
        let (min, max) = (*all.first()?, *all.last()?);
        let (low, high) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
        Some(Self { median: low + (high - low) / 2, min, max })
    }
}

/// One row of the table.
#[derive(Debug, PartialEq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Runs made, those measured to the end, and those that count.
    pub runs: usize,
    /// Measured.
    pub measured: usize,
    /// Valid.
    pub valid: usize,
    /// Pull.
    pub pull: Option<Spread>,
    /// Create.
    pub create: Option<Spread>,
    /// Ready.
    pub ready: Option<Spread>,
    /// Chat.
    pub chat: Option<Spread>,
    /// Total.
    pub total: Option<Spread>,
    /// Bytes over the link.
    pub bytes: Option<Spread>,
    /// Requests over the link.
    pub requests: Option<Spread>,
    /// CPU milliseconds of the lazy snapshotter.
    pub snapshotter_cpu: Option<Spread>,
    /// Lazy layers and all layers; absent when the runs do not agree.
    pub layers: Option<(usize, usize)>,
    /// Median of the per-round ratios of totals to each reference row, and how many rounds.
    pub ratios: Vec<Option<(f64, usize)>>,
}

/// Rows in the order they first ran, each compared with the rows named in `references`.
pub fn rows(report: &Report, references: &[&str]) -> Vec<Row> {
    // The arms' order, not that of the first round, which a partial report may lack.
    let mut names: Vec<&str> = Vec::new();
    for arm in &report.arms {
        for run in report.runs.iter().filter(|r| r.arm == arm.name) {
            if !names.contains(&run.row.as_str()) {
                names.push(&run.row);
            }
        }
    }
    names.iter().map(|name| row(name, &report.runs, references)).collect()
}

fn row(name: &str, runs: &[Run], references: &[&str]) -> Row {
    let mine: Vec<&Run> = runs.iter().filter(|r| r.row == name).collect();
    let valid: Vec<&Measured> = mine.iter().filter_map(|r| r.counted()).collect();
    let spread = |f: &dyn Fn(&Measured) -> Option<u64>| Spread::of(valid.iter().filter_map(|m| f(m)));
    let mut layers: Vec<_> = valid.iter().map(|m| (m.lazy_layers, m.layers)).collect();
    layers.dedup();
    Row {
        name: name.into(),
        runs: mine.len(),
        measured: mine.iter().filter(|r| r.measured().is_some()).count(),
        valid: valid.len(),
        pull: spread(&|m| m.phases.pull_ms),
        create: spread(&|m| Some(m.phases.create_ms)),
        ready: spread(&|m| Some(m.phases.ready_ms)),
        chat: spread(&|m| Some(m.phases.chat_ms)),
        total: spread(&|m| Some(m.phases.total_ms)),
        bytes: spread(&|m| Some(m.link.total().bytes)),
        requests: spread(&|m| Some(m.link.total().requests)),
        snapshotter_cpu: spread(&|m| Some(m.cpu.snapshotter_ms())),
        layers: if layers.len() == 1 { layers.pop() } else { None },
        ratios: references.iter().map(|reference| ratio(name, reference, runs)).collect(),
    }
}

fn ratio(row: &str, reference: &str, runs: &[Run]) -> Option<(f64, usize)> {
    let total = |row: &str, round| {
        let run = runs.iter().find(|r| r.row == row && r.round == round)?;
        u32::try_from(run.counted()?.phases.total_ms).ok().filter(|ms| *ms > 0).map(f64::from)
    };
    let last = runs.iter().map(|r| r.round).max()?;
    let mut all: Vec<f64> = (1..=last).filter_map(|n| Some(total(row, n)? / total(reference, n)?)).collect();
    all.sort_unstable_by(f64::total_cmp);
    let (low, high) = (all.get(all.len().checked_sub(1)? / 2)?, all.get(all.len() / 2)?);
    Some((f64::midpoint(*low, *high), all.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::{failed, report, run};

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([5]), Some(Spread { median: 5, min: 5, max: 5 }));
        assert_eq!(Spread::of([9, 1, 5]), Some(Spread { median: 5, min: 1, max: 9 }));
        assert_eq!(Spread::of([9, 1, 5, 6]), Some(Spread { median: 5, min: 1, max: 9 }));
    }

    #[test]
    fn ratios_are_paired_by_round() {
        // The machine is twice as slow in round 2; the ratio does not see it. Round 3 has no partner.
        let runs = vec![
            run("original cold", 1, 1000, &[]),
            run("hot", 1, 500, &[]),
            run("original cold", 2, 2000, &[]),
            run("hot", 2, 1000, &[]),
            run("original cold", 3, 900, &["no"]),
            run("hot", 3, 10, &[]),
        ];
        let rows = rows(&report(runs), &["original cold", "gone"]);
        assert_eq!(rows[1].name, "hot");
        assert_eq!(rows[1].ratios, [Some((0.5, 2)), None]);
        assert_eq!(rows[0].ratios, [Some((1.0, 2)), None]);
    }

    #[test]
    fn invalid_and_failed_runs_are_counted_and_left_out() {
        let rows = rows(&report(vec![run("hot", 1, 100, &[]), run("hot", 2, 1, &["no"]), failed("hot", 3)]), &[]);
        assert_eq!((rows[0].runs, rows[0].measured, rows[0].valid), (3, 2, 1));
        assert_eq!(rows[0].total, Some(Spread { median: 100, min: 100, max: 100 }));
    }
}
