//! A benchmark in words: the table, what does not count and why, and what the numbers mean. The same text from a report just made and
//! from one read back from JSON.

use std::fmt::Write;
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::arm::ORIGINAL;
use super::result::{Outcome, Report, SCHEMA};
use super::stats::{self, Row, Spread};

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

/// Table and words.
pub fn render(report: &Report) -> String {
    let references = [format!("{ORIGINAL} cold"), format!("{ORIGINAL} warm")];
    let rows = stats::rows(report, &references.each_ref().map(String::as_str));
    let mut text = String::new();
    if !report.complete {
        text.push_str("PARTIAL: the benchmark did not get to its end; this is what was measured until then.\n");
    }
    text.push_str(&table(&rows));
    text.push('\n');
    dropped(report, &mut text);
    words(report, &mut text);
    text
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "arm",
        "n",
        "pull s",
        "create s",
        "ready s",
        "chat s",
        "total s [min-max]",
        "x cold",
        "x warm",
        "MB over link",
        "requests",
        "snapshotter CPU-s",
        "lazy layers",
        "valid",
    ]);
    for row in rows {
        let median = |s: Option<Spread>| s.map_or("-".into(), |s| seconds(s.median));
        let ratio = |i: usize| row.ratios.get(i).copied().flatten().map_or("-".into(), |(r, _)| format!("{r:.2}"));
        let total =
            row.total.map_or("-".into(), |s| format!("{} [{}-{}]", seconds(s.median), seconds(s.min), seconds(s.max)));
        let cells = [
            row.valid.to_string(),
            median(row.pull),
            median(row.create),
            median(row.ready),
            median(row.chat),
            total,
            ratio(0),
            ratio(1),
            row.bytes.map_or("-".into(), |s| megabytes(s.median)),
            row.requests.map_or("-".into(), |s| s.median.to_string()),
            median(row.snapshotter_cpu),
            row.layers.map_or("-".into(), |(lazy, all)| format!("{lazy}/{all}")),
            format!("{}/{}", row.valid, row.runs),
        ];
        let right = cells.into_iter().map(|c| Cell::new(c).set_alignment(CellAlignment::Right));
        table.add_row(std::iter::once(Cell::new(&row.name)).chain(right));
    }
    table.to_string()
}

/// Two decimals below ten seconds, one above.
fn seconds(ms: u64) -> String {
    let s = Duration::from_millis(ms).as_secs_f64();
    if ms < 9_995 { format!("{s:.2}") } else { format!("{s:.1}") }
}

fn megabytes(bytes: u64) -> String {
    let tenths = (bytes + 50_000) / 100_000;
    format!("{}.{}", tenths / 10, tenths % 10)
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

fn words(report: &Report, text: &mut String) {
    let m = &report.machine;
    let _ = writeln!(
        text,
        "machine: {} CPUs ({}), {} MB of memory, kernel {}; registry, link, snapshotter and workload share it",
        m.cpus,
        if m.cpu_model.is_empty() { "model unknown" } else { &m.cpu_model },
        m.memory_bytes / 1_000_000,
        m.kernel
    );
    let bandwidth = match report.link.bandwidth_mb {
        0 => "no limit of bandwidth".into(),
        mb => format!("{mb} MB/s over all connections"),
    };
    let _ = writeln!(
        text,
        "link: {} ms per request, {bandwidth}, in front of {} for every arm (setting up a connection is not charged)",
        report.link.latency_ms, report.link.upstream
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
        "n: runs that count, of {} asked for, rounds interleaved and rotated; figures are medians over them (medians of phases need \
         not add up), x cold and x warm medians of per-round ratios to \"{ORIGINAL}\"; so few runs show sizes, not significance.",
        report.rounds
    );
    let _ = writeln!(text, "started {}", report.started);
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test is what it is for")]
#[path = "report_tests.rs"]
pub(super) mod tests;
