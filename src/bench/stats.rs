//! Numbers of several runs: what a row's valid runs say ([`Row`]), and how rows differ, paired by round ([`pairs`]).
//!
//! Invalid and failed runs are counted and left out. A report may come from anywhere: sums stop at the largest number, they do
//! not panic.

use serde::Serialize;
use serde_json::Value;

use super::arm::ORIGINAL;
use super::result::{Anchor, ArmFacts, CpuUse, Measured, Report, Run, Split, Start, Traffic};
use crate::plan::Predicted;
use crate::profile::cover::{Cover, Missed};

pub mod pairs;
pub mod ranks;
pub mod student;

use pairs::Comparison;

/// Where some values lie.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// How many.
    pub n: usize,
    /// Middle value; the mean of the middle two for an even number, rounded down.
    pub median: u64,
    /// Smallest.
    pub min: u64,
    /// Largest.
    pub max: u64,
    /// Standard deviation of the sample; absent for a single value.
    pub sd: Option<f64>,
}

impl Spread {
    /// Of some values; none when there are none.
    pub fn of(values: impl IntoIterator<Item = u64>) -> Option<Self> {
        let mut all: Vec<u64> = values.into_iter().collect();
        all.sort_unstable();
        let (min, max) = (*all.first()?, *all.last()?);
        let (low, high) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
        // From the least value on, so that little is lost of small differences between large numbers.
        let above: Vec<f64> = all.iter().map(|v| real(v - min)).collect();
        let count = real(all.len() as u64);
        let mean = above.iter().sum::<f64>() / count;
        let square: f64 = above.iter().map(|v| (v - mean).powi(2)).sum();
        let sd = (all.len() > 1).then(|| (square / (count - 1.0)).sqrt());
        Some(Self { n: all.len(), median: low + (high - low) / 2, min, max, sd })
    }
}

/// The nearest `f64`.
#[expect(clippy::cast_precision_loss, reason = "53 bits are more than any of these figures is good for")]
pub fn real(value: u64) -> f64 {
    value as f64
}

/// What the read-ahead of an arm did, medians of what its runs tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Ahead {
    /// Bytes that the profile names.
    pub planned: Option<Spread>,
    /// Bytes that were read ahead.
    pub read: Option<Spread>,
    /// Bytes that were there already: the workload was faster.
    pub resident: Option<Spread>,
    /// Bytes passed over.
    pub skipped: Option<Spread>,
    /// Milliseconds it took.
    pub ms: Option<Spread>,
    /// Bytes on the list that were touched, in 1/1000 of the bytes on it; like the following of a traced run, not of those that count.
    pub precision: Option<Spread>,
    /// Bytes touched of lazily served files that are on the list, in 1/1000 of all those touched.
    pub recall: Option<Spread>,
    /// Bytes touched of such files that are not on the list.
    pub missed: Option<Spread>,
    /// In so many ranges.
    pub missed_ranges: Option<Spread>,
}

/// A file with touched bytes that a row's read-ahead had not on its list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Miss {
    /// The row.
    pub row: String,
    /// The file and its misses.
    #[serde(flatten)]
    pub file: Missed,
}

/// One row of the table. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// The arm.
    pub arm: String,
    /// How its runs start.
    pub start: Start,
    /// Runs made.
    pub runs: usize,
    /// Runs measured to the end.
    pub measured: usize,
    /// Runs that count.
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
    /// Total without the chat: what a prediction is about.
    pub until_ready: Option<Spread>,
    /// Bytes over the link.
    pub bytes: Option<Spread>,
    /// Requests over the link.
    pub requests: Option<Spread>,
    /// CPU time of the lazy snapshotter.
    pub cpu_snapshotter: Option<Spread>,
    /// CPU time of containerd.
    pub cpu_containerd: Option<Spread>,
    /// CPU time of the container's processes.
    pub cpu_workload: Option<Spread>,
    /// CPU time that the read-ahead says it used.
    pub cpu_reader: Option<Spread>,
    /// Lazy layers and all layers; absent when the runs do not agree.
    pub layers: Option<(usize, usize)>,
    /// The read-ahead, where there was one.
    pub ahead: Option<Ahead>,
    /// The prediction, where there was one.
    pub predicted: Option<Predicted>,
    /// Index in the report of the run whose total is the median (the lower one of the middle two): what pictures show, since the
    /// medians of phases do not add up.
    pub typical: Option<usize>,
}

/// A report's statistics.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Analysis {
    /// Every row, in the order of the arms.
    pub rows: Vec<Row>,
    /// Rows that the others are compared with.
    pub baselines: Vec<String>,
    /// What the predictions start from, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Anchor>,
    /// The comparisons, one family.
    pub comparisons: Vec<Comparison>,
    /// The most missed files of each traced row.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub misses: Vec<Miss>,
}

impl Analysis {
    /// Of a report.
    pub fn of(report: &Report) -> Self {
        let rows = rows(report);
        let baselines = baselines(report, &rows);
        let names: Vec<&str> = rows.iter().map(|r| r.name.as_str()).collect();
        let against: Vec<&str> = baselines.iter().map(String::as_str).collect();
        let comparisons = pairs::compare(&report.runs, &names, &against);
        let misses = rows.iter().filter_map(|row| Some((row, covered(report, &row.name)?))).flat_map(|(row, cover)| {
            cover.missed.iter().map(|file| Miss { row: row.name.clone(), file: file.clone() })
        });
        let misses = misses.collect();
        Self { rows, baselines, anchor: report.anchor, comparisons, misses }
    }

    /// Ratio and interval of a row to a baseline, whichever way the pair was compared.
    pub fn ratio(&self, row: &str, baseline: &str) -> Option<(f64, Option<(f64, f64)>)> {
        self.comparisons.iter().find_map(|c| {
            if (c.row.as_str(), c.baseline.as_str()) == (row, baseline) {
                Some((c.ratio, c.interval))
            } else if (c.row.as_str(), c.baseline.as_str()) == (baseline, row) {
                Some((1.0 / c.ratio, c.interval.map(|(low, high)| (1.0 / high, 1.0 / low))))
            } else {
                None
            }
        })
    }
}

/// The original cold and warm, and the first arm that starts from an image on disk besides.
fn baselines(report: &Report, rows: &[Row]) -> Vec<String> {
    let disk = report.arms.iter().find(|a| a.options.iter().any(|o| o == "disk")).map(|a| a.name.as_str());
    let is = |r: &&Row| r.arm == ORIGINAL;
    let mut all: Vec<String> = rows.iter().filter(is).map(|r| r.name.clone()).collect();
    all.extend(rows.iter().find(|r| disk == Some(r.arm.as_str()) && r.arm != ORIGINAL).map(|r| r.name.clone()));
    all
}

/// Rows in the arms' order, not that of the first round, which a partial report may lack.
fn rows(report: &Report) -> Vec<Row> {
    let mut names: Vec<(&ArmFacts, &str)> = Vec::new();
    for arm in &report.arms {
        for run in report.runs.iter().filter(|r| r.arm == arm.name) {
            if names.iter().all(|(_, row)| *row != run.row) {
                names.push((arm, &run.row));
            }
        }
    }
    names.into_iter().map(|(arm, name)| row(name, arm, report)).collect()
}

/// What the traced run of a row tells.
fn covered<'a>(report: &'a Report, row: &str) -> Option<&'a Cover> {
    report.traced.iter().filter(|r| r.row == row).find_map(Run::cover)
}

fn row(name: &str, arm: &ArmFacts, report: &Report) -> Row {
    let runs = &report.runs;
    let cover = covered(report, name);
    let traced = |f: &dyn Fn(&Cover) -> Option<u64>| Spread::of(cover.and_then(f));
    let mine: Vec<&Run> = runs.iter().filter(|r| r.row == name).collect();
    let valid: Vec<&Measured> = mine.iter().filter_map(|r| r.counted()).collect();
    let spread = |f: &dyn Fn(&Measured) -> Option<u64>| Spread::of(valid.iter().filter_map(|m| f(m)));
    let cpu = |f: fn(&CpuUse) -> u64| spread(&|m| Some(cpu(&m.cpu, f)));
    let told = |key: &str| spread(&|m| told(m, key));
    let mut layers: Vec<_> = valid.iter().map(|m| (m.lazy_layers, m.layers)).collect();
    layers.dedup();
    let start = mine.first().map_or(Start::Cold, |r| r.start);
    Row {
        name: name.into(),
        arm: arm.name.clone(),
        start,
        runs: mine.len(),
        measured: mine.iter().filter(|r| r.measured().is_some()).count(),
        valid: valid.len(),
        pull: spread(&|m| m.phases.pull_ms),
        create: spread(&|m| Some(m.phases.create_ms)),
        ready: spread(&|m| Some(m.phases.ready_ms)),
        chat: spread(&|m| Some(m.phases.chat_ms)),
        total: spread(&|m| Some(m.phases.total_ms)),
        until_ready: spread(&|m| Some(m.phases.total_ms.saturating_sub(m.phases.chat_ms))),
        bytes: spread(&|m| Some(traffic(&m.link).bytes)),
        requests: spread(&|m| Some(traffic(&m.link).requests)),
        cpu_snapshotter: cpu(|c| c.snapshotter_ms),
        cpu_containerd: cpu(|c| c.containerd_ms),
        cpu_workload: cpu(|c| c.workload_ms),
        cpu_reader: spread(&reader_ms),
        layers: if layers.len() == 1 { layers.pop() } else { None },
        ahead: (cover.is_some() || valid.iter().any(|m| m.warm.is_some())).then(|| Ahead {
            planned: told("bytes_planned"),
            read: told("bytes_read"),
            resident: told("bytes_resident"),
            skipped: told("bytes_skipped"),
            ms: told("ms"),
            precision: traced(&Cover::precision_permille),
            recall: traced(&Cover::recall_permille),
            missed: traced(&|c| Some(c.missed_bytes)),
            missed_ranges: traced(&|c| Some(c.missed_ranges)),
        }),
        // Predictions are about cold starts.
        predicted: arm.predicted.filter(|_| start == Start::Cold),
        typical: typical(name, runs),
    }
}

fn typical(name: &str, runs: &[Run]) -> Option<usize> {
    let total = |r: &Run| r.counted().filter(|_| r.row == name).map(|m| m.phases.total_ms);
    let mut all: Vec<(u64, usize)> = runs.iter().enumerate().filter_map(|(i, r)| Some((total(r)?, i))).collect();
    all.sort_unstable();
    all.get(all.len().checked_sub(1)? / 2).map(|(_, i)| *i)
}

/// All phases together.
pub fn traffic(link: &Split<Traffic>) -> Traffic {
    let all = [link.pull, link.start, link.chat];
    let sum = |f: fn(&Traffic) -> u64| all.iter().map(f).fold(0, u64::saturating_add);
    Traffic { requests: sum(|t| t.requests), bytes: sum(|t| t.bytes) }
}

/// One process's CPU time in all phases.
pub fn cpu(cpu: &Split<CpuUse>, f: impl Fn(&CpuUse) -> u64) -> u64 {
    [cpu.pull, cpu.start, cpu.chat].iter().map(f).fold(0, u64::saturating_add)
}

/// A whole number that the read-ahead tells; of a list of readers the sum.
pub fn told(m: &Measured, key: &str) -> Option<u64> {
    said(m.warm.as_ref()?, key)
}

/// The same of its report.
pub fn said(warm: &Value, key: &str) -> Option<u64> {
    each(warm).into_iter().filter_map(|v| v.get(key)?.as_u64()).reduce(u64::saturating_add)
}

/// CPU time of the reader on the node; of one in the container, which is counted as workload too, what it says itself.
pub fn reader_ms(m: &Measured) -> Option<u64> {
    let on_node = cpu(&m.cpu, |c| c.reader_ms);
    if on_node > 0 { Some(on_node) } else { told(m, "cpu_ms") }
}

/// A reader in the container tells of itself, one on the node of each image.
fn each(warm: &Value) -> Vec<&Value> {
    let list = warm.as_array().or_else(|| warm.get("images")?.as_array());
    list.map_or_else(|| vec![warm], |list| list.iter().collect())
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
