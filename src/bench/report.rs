//! A benchmark in words: the tables, what does not count and why, and what the numbers mean. The same text from a report just
//! made and from one read back from JSON.

use std::fmt::Write;

use serde::Serialize;

use super::figures::seconds;
use super::result::{Outcome, Report, SCHEMA};
use super::stats::Analysis;
use super::{table, words};

/// Reads a report and checks that it is one.
pub fn read(text: &str) -> Result<Report, super::Error> {
    let what = "the report";
    let report: Report =
        serde_json::from_str(text).map_err(|source| super::Error::Json { what: what.into(), source })?;
    if report.schema != SCHEMA {
        return Err(super::Error::Unexpected {
            what: what.into(),
            why: format!("schema {:?}: expected {SCHEMA:?}", report.schema),
        });
    }
    Ok(report)
}

/// Schema of [`Summary`].
pub const SUMMARY: &str = "esgz.bench-summary/v1";

/// The statistics of a report, for other programs.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// [`SUMMARY`].
    pub schema: &'static str,
    /// When the benchmark began, which names it.
    pub started: String,
    /// Whether it got to its end.
    pub complete: bool,
    /// The one sentence that the figures allow.
    pub headline: String,
    /// Every claim, a sentence each.
    pub claims: Vec<String>,
    /// The method, and what it cannot say here.
    pub notes: Vec<String>,
    /// What became of the runs that were traced, or why none was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub traced: Vec<String>,
    /// Rows and comparisons.
    #[serde(flatten)]
    pub analysis: Analysis,
}

impl Summary {
    /// Of a report.
    pub fn of(report: &Report) -> Self {
        let analysis = Analysis::of(report);
        Self {
            schema: SUMMARY,
            started: report.started.clone(),
            complete: report.complete,
            headline: words::headline(report, &analysis).sentence(),
            claims: words::claims(&analysis),
            notes: words::family(&analysis),
            traced: words::traced(report),
            analysis,
        }
    }
}

/// Tables and words.
pub fn render(report: &Report) -> String {
    let all = Analysis::of(report);
    let mut text = String::new();
    if !report.complete {
        text.push_str("PARTIAL: the benchmark did not get to its end; this is what was measured until then.\n");
    }
    for (i, sheet) in table::sheets(&all).iter().enumerate() {
        if i > 0 {
            let _ = writeln!(text, "{}:", sheet.title);
        }
        let _ = writeln!(text, "{}", sheet.text());
    }
    let _ = writeln!(text, "{}.", words::headline(report, &all).sentence());
    dropped(report, &mut text);
    for note in words::traced(report) {
        let _ = writeln!(text, "traced: {note}");
    }
    for note in words::family(&all) {
        let _ = writeln!(text, "comparisons: {note}");
    }
    setting(report, &mut text);
    text
}

/// Runs that are not in the figures. Writing to a string cannot fail.
fn dropped(report: &Report, text: &mut String) {
    for run in &report.runs {
        match &run.outcome {
            Outcome::Measured(m) => {
                for why in &m.invalid {
                    let _ = writeln!(
                        text,
                        "INVALID {}, round {} ({} s, not counted): {why}",
                        run.row,
                        run.round,
                        seconds(m.phases.total_ms)
                    );
                }
            }
            Outcome::Failed { error, log } => {
                let _ = writeln!(text, "FAILED {}, round {}: {error}", run.row, run.round);
                for line in log {
                    let _ = writeln!(text, "    | {line}");
                }
            }
        }
    }
}

fn setting(report: &Report, text: &mut String) {
    let _ = writeln!(text, "machine: {}; registry, link, snapshotter and workload share it", words::machine(report));
    let _ = writeln!(
        text,
        "link: {}, in front of {} for every arm (setting up a connection is not charged)",
        words::link(report),
        report.link.upstream
    );
    let versions: Vec<_> = report.versions.iter().map(|(k, v)| format!("{k} {v}")).collect();
    if !versions.is_empty() {
        let _ = writeln!(text, "versions: esgz {}, {}", report.esgz, versions.join(", "));
    }
    let _ = writeln!(
        text,
        "total: from the start of the pull (warm: of the pod) to a whole answer to {:?}, temperature 0, {} tokens; \
         pull: crictl pull; create: pod, container, start; ready: until /health says 200; chat: model list and answer",
        report.workload.prompt, report.workload.max_tokens
    );
    text.push_str(
        "cold: wiped state, page cache dropped, image not there; warm: image on disk, page cache dropped. \
         In a cold run the registry's own files are cold too.\n",
    );
    let _ = writeln!(
        text,
        "n: runs that count, of those made; {} rounds asked for, their order drawn anew for each; figures are medians over the runs that \
         count (medians of phases need not add up)",
        report.rounds
    );
    let _ = writeln!(text, "started {}", report.started);
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test is what it is for")]
#[path = "report_tests.rs"]
pub(super) mod tests;
