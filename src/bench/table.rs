//! The tables of a report: times with their ratios, costs, comparisons, predictions, the read-ahead.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::figures::{
    NONE, median, median_range, megabytes, p, percent, ratio_between, seconds, signed_seconds, thousandths,
};
use super::result::Anchor;
use super::stats::{Analysis, Miss, Row, Spread, real};
use super::words::shown;
use crate::plan::Predicted;

/// A table as data: what the terminal and the page draw in their own ways.
pub(super) struct Sheet {
    /// What it is about.
    pub(super) title: String,
    /// Columns.
    pub(super) head: Vec<String>,
    /// Cells; the first is a name.
    pub(super) rows: Vec<Vec<String>>,
    /// Columns, from the left, that hold text.
    pub(super) texts: usize,
}

impl Sheet {
    fn new(title: impl Into<String>, head: &[&str]) -> Self {
        Self { title: title.into(), head: head.iter().map(|h| (*h).to_owned()).collect(), rows: Vec::new(), texts: 1 }
    }

    /// Drawn with lines.
    pub(super) fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(&self.head);
        for row in &self.rows {
            table.add_row(row.iter().enumerate().map(|(i, text)| {
                let side = if i < self.texts { CellAlignment::Left } else { CellAlignment::Right };
                Cell::new(text).set_alignment(side)
            }));
        }
        table.to_string()
    }
}

/// All that have something to tell.
pub(super) fn sheets(all: &Analysis) -> Vec<Sheet> {
    let some = [comparisons(all), predictions(all), ahead(&all.rows), misses(all)];
    [times(all), costs(&all.rows)].into_iter().chain(some.into_iter().flatten()).collect()
}

fn times(all: &Analysis) -> Sheet {
    let head = ["arm", "n", "pull s", "create s", "ready s", "chat s", "total s [min-max]"];
    let mut sheet = Sheet::new("Times", &head);
    sheet.head.extend(all.baselines.iter().map(|b| format!("x {b}")));
    for row in &all.rows {
        let mut cells = vec![
            row.name.clone(),
            format!("{}/{}", row.valid, row.runs),
            median(row.pull),
            median(row.create),
            median(row.ready),
            median(row.chat),
            median_range(row.total),
        ];
        cells.extend(all.baselines.iter().map(|b| match all.ratio(&row.name, b) {
            Some((ratio, interval)) => ratio_between(ratio, interval),
            None if *b == row.name && row.valid > 0 => "1".into(),
            None => NONE.into(),
        }));
        sheet.rows.push(cells);
    }
    sheet
}

fn costs(rows: &[Row]) -> Sheet {
    let head =
        ["arm", "MB over link", "requests", "snapshotter CPU-s", "containerd", "workload", "reader", "lazy layers"];
    let mut sheet = Sheet::new("Costs", &head);
    for row in rows {
        let count = |s: Option<Spread>| s.map_or(NONE.into(), |s| s.median.to_string());
        sheet.rows.push(vec![
            row.name.clone(),
            mb(row.bytes),
            count(row.requests),
            median(row.cpu_snapshotter),
            median(row.cpu_containerd),
            median(row.cpu_workload),
            median(row.cpu_reader),
            row.layers.map_or(NONE.into(), |(lazy, all)| format!("{lazy}/{all}")),
        ]);
    }
    sheet
}

fn mb(s: Option<Spread>) -> String {
    s.map_or(NONE.into(), |s| megabytes(s.median))
}

fn comparisons(all: &Analysis) -> Option<Sheet> {
    let head =
        ["arm", "against", "n", "shown", "ratio [95 %]", "difference s [min to max]", "p t", "Holm", "p rank", "Holm"];
    let mut sheet = Sheet::new("Comparisons", &head);
    sheet.texts = 2;
    for c in &all.comparisons {
        let (least, most) = c.difference_range_ms;
        let [middle, least, most] = [c.difference_ms, least, most].map(signed_seconds);
        sheet.rows.push(vec![
            c.row.clone(),
            c.baseline.clone(),
            c.n.to_string(),
            shown(c),
            ratio_between(c.ratio, c.interval),
            format!("{middle} [{least} to {most}]"),
            p(c.p),
            p(c.p_holm),
            p(c.p_rank),
            p(c.p_rank_holm),
        ]);
    }
    (!sheet.rows.is_empty()).then_some(sheet)
}

fn predictions(all: &Analysis) -> Option<Sheet> {
    let from = match all.anchor {
        None => String::new(),
        Some(Anchor { ready_ms, measured, startup_ms }) => {
            let whence = if measured { "as the original's warm starts took here" } else { "from the profile" };
            let written = startup_ms
                .map(|ms| format!("; {} s with its start-up writes in place, as measured here", seconds(ms)))
                .unwrap_or_default();
            format!(" (the workload's own {} s {whence}{written})", seconds(ready_ms))
        }
    };
    let mut sheet = Sheet::new(
        format!("Predicted and measured, s{from}"),
        &["arm", "pull", "measured", "create", "measured", "ready", "measured", "sum", "measured", "error of the sum"],
    );
    for row in &all.rows {
        let Some(Predicted { pull_ms, create_ms, ready_ms }) = row.predicted else { continue };
        let sum = pull_ms.saturating_add(create_ms).saturating_add(ready_ms);
        let error = row.until_ready.filter(|s| s.median > 0).map(|s| real(sum) / real(s.median) - 1.0);
        sheet.rows.push(vec![
            row.name.clone(),
            seconds(pull_ms),
            median(row.pull),
            seconds(create_ms),
            median(row.create),
            seconds(ready_ms),
            median(row.ready),
            seconds(sum),
            median(row.until_ready),
            error.map_or(
                NONE.into(),
                |e| if e < 0.0 { format!("{} %", percent(e)) } else { format!("+{} %", percent(e)) },
            ),
        ]);
    }
    (!sheet.rows.is_empty()).then_some(sheet)
}

fn ahead(rows: &[Row]) -> Option<Sheet> {
    let mut sheet = Sheet::new(
        "Read-ahead",
        &[
            "arm",
            "planned MB",
            "read MB",
            "there already MB",
            "passed over MB",
            "took s",
            "precision %",
            "recall %",
            "missed MB",
            "ranges",
        ],
    );
    for row in rows {
        let Some(a) = row.ahead else { continue };
        let share = |s: Option<Spread>| s.map_or(NONE.into(), |s| thousandths(s.median));
        sheet.rows.push(vec![
            row.name.clone(),
            mb(a.planned),
            mb(a.read),
            mb(a.resident),
            mb(a.skipped),
            median(a.ms),
            share(a.precision),
            share(a.recall),
            mb(a.missed),
            a.missed_ranges.map_or(NONE.into(), |s| s.median.to_string()),
        ]);
    }
    (!sheet.rows.is_empty()).then_some(sheet)
}

fn misses(all: &Analysis) -> Option<Sheet> {
    let mut sheet = Sheet::new("Files that the read-ahead missed most of", &["arm", "file", "missed MB", "ranges"]);
    sheet.texts = 2;
    for Miss { row, file } in &all.misses {
        sheet.rows.push(vec![row.clone(), file.path.clone(), megabytes(file.bytes), file.ranges.to_string()]);
    }
    (!sheet.rows.is_empty()).then_some(sheet)
}
