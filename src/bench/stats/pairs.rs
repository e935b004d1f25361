//! Two arms compared round by round, and what may be said about it.
//!
//! The method: the ratio of the two totals within each round, where both met the same machine; Student's t interval (95 %) around
//! the mean of the logarithms, so that the result is a geometric mean with its interval; beside it the exact signed-rank test of
//! Wilcoxon, which supposes symmetry only but cannot say anything with few rounds. All comparisons of a report are one family: their p
//! values are raised after Holm, so that the chance of even one false claim is 5 %.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::result::Run;
use super::{ranks, student};

/// Confidence of the intervals.
pub const LEVEL: f64 = 0.95;
/// Fewest pairs for an interval: two give one with 12.7 standard errors to each side, which says nothing.
pub const FEWEST: usize = 3;
/// Logarithms of ratios that lie closer together than this do not vary: whole milliseconds of long runs can hide what they do.
const STILL: f64 = 1e-9;

/// What may be said about a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The interval lies below 1, also after all comparisons are counted.
    Faster,
    /// It lies above 1, also after all comparisons are counted.
    Slower,
    /// The interval excludes 1, but that many comparisons give one like it by chance too often.
    NotAlone,
    /// The interval includes 1.
    Undecided,
    /// Fewer pairs than [`FEWEST`].
    TooFew,
    /// The ratio is the same in every round, which no interval can be made of.
    NoSpread,
}

/// An arm against a baseline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The row compared.
    pub row: String,
    /// The row it is compared with.
    pub baseline: String,
    /// Rounds in which both count.
    pub n: usize,
    /// Geometric mean of the ratios of the totals, row to baseline.
    pub ratio: f64,
    /// Its interval.
    pub interval: Option<(f64, f64)>,
    /// Median of the differences, row less baseline, in milliseconds.
    pub difference_ms: f64,
    /// Least and largest of them.
    pub difference_range_ms: (f64, f64),
    /// Two-sided p value of the t test on the logarithms.
    pub p: Option<f64>,
    /// The same, raised after Holm.
    pub p_holm: Option<f64>,
    /// Two-sided exact p value of the signed-rank test on the logarithms.
    pub p_rank: Option<f64>,
    /// The same, raised after Holm.
    pub p_rank_holm: Option<f64>,
    /// What may be said.
    pub verdict: Verdict,
}

/// Totals of a row by round, of the runs that count.
fn totals(runs: &[Run], row: &str) -> BTreeMap<u32, f64> {
    let mut all = BTreeMap::new();
    for run in runs.iter().filter(|r| r.row == row) {
        // 2^32 ms are 49 days; a zero has no logarithm.
        let ms = run.counted().and_then(|m| u32::try_from(m.phases.total_ms).ok()).filter(|ms| *ms > 0);
        if let Some(ms) = ms {
            all.entry(run.round).or_insert(f64::from(ms));
        }
    }
    all
}

/// Compares two rows; none when no round has both.
fn pair(runs: &[Run], row: &str, baseline: &str) -> Option<Comparison> {
    let (mine, theirs) = (totals(runs, row), totals(runs, baseline));
    let both: Vec<(f64, f64)> = mine.iter().filter_map(|(round, ms)| Some((*ms, *theirs.get(round)?))).collect();
    let n = both.len();
    let logs: Vec<f64> = both.iter().map(|(a, b)| (a / b).ln()).collect();
    let mut differences: Vec<f64> = both.iter().map(|(a, b)| a - b).collect();
    differences.sort_unstable_by(f64::total_cmp);
    let (first, last) = (*differences.first()?, *differences.last()?);
    let count = f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    let mean = logs.iter().sum::<f64>() / count;
    let square = logs.iter().map(|l| (l - mean).powi(2)).sum::<f64>();
    let error = (square / (count - 1.0) / count).sqrt();
    let still = logs.iter().all(|l| (l - mean).abs() < STILL);
    let t = (n >= FEWEST && !still).then(|| mean / error);
    let half = t.and(student::quantile(LEVEL, n.saturating_sub(1))).map(|q| q * error);
    Some(Comparison {
        row: row.into(),
        baseline: baseline.into(),
        n,
        ratio: mean.exp(),
        interval: half.map(|h| ((mean - h).exp(), (mean + h).exp())),
        difference_ms: f64::midpoint(differences[(n - 1) / 2], differences[n / 2]),
        difference_range_ms: (first, last),
        p: t.and_then(|t| student::p(t, n - 1)),
        p_holm: None,
        p_rank: if n >= FEWEST { ranks::p(&logs) } else { None },
        p_rank_holm: None,
        verdict: if n < FEWEST { Verdict::TooFew } else { Verdict::NoSpread },
    })
}

/// Compares every row with every baseline, each pair once, as one family.
pub fn compare(runs: &[Run], rows: &[&str], baselines: &[&str]) -> Vec<Comparison> {
    let earlier = |row: &str, i: usize| baselines.iter().position(|b| *b == row).is_some_and(|mine| mine <= i);
    let pairs = baselines.iter().enumerate().flat_map(|(i, b)| {
        // A baseline against one behind it is the same comparison as the other way round.
        rows.iter().filter(move |r| !earlier(r, i)).filter_map(|r| pair(runs, r, b))
    });
    let mut all: Vec<Comparison> = pairs.collect();
    let raised = holm(&all.iter().map(|c| c.p).collect::<Vec<_>>());
    let ranked = holm(&all.iter().map(|c| c.p_rank).collect::<Vec<_>>());
    for ((c, p), rank) in all.iter_mut().zip(raised).zip(ranked) {
        (c.p_holm, c.p_rank_holm) = (p, rank);
        if let Some((low, high)) = c.interval {
            let sure = p.is_some_and(|p| p < 1.0 - LEVEL);
            c.verdict = match (high < 1.0, low > 1.0) {
                (true, _) if sure => Verdict::Faster,
                (_, true) if sure => Verdict::Slower,
                (false, false) => Verdict::Undecided,
                _ => Verdict::NotAlone,
            };
        }
    }
    all
}

/// Holm's way of raising p values for the number of them: the least times their number, the next times one less, never falling.
fn holm(p: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut order: Vec<(f64, usize)> = p.iter().enumerate().filter_map(|(i, p)| Some(((*p)?, i))).collect();
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let mut out = vec![None; p.len()];
    let mut least = 0.0_f64;
    for (done, (p, i)) in order.iter().enumerate() {
        let left = f64::from(u32::try_from(order.len() - done).unwrap_or(u32::MAX));
        least = least.max((p * left).min(1.0));
        out[*i] = Some(least);
    }
    out
}

#[cfg(test)]
#[path = "pairs_tests.rs"]
mod tests;
