//! The pictures of a report, drawn as SVG in two widths: for a screen (and a blog), and for a phone.
//!
//! The three families of stacked bars are those of the benchmark that this one grew out of: everything until the first answer,
//! what comes before the server starts, and the start of the server itself, with the loading of the weights. A bar is the row's
//! median run, not the medians of its phases, which do not add up.

mod axis;
mod bars;
mod curves;
mod svg;
mod waterfall;

use super::figures::thousandths;
use super::result::{Measured, Report, Run};
use super::spans::{self, Span};
use super::stats::{Ahead, Analysis, Row, Spread};
use axis::Unit;
use bars::{Bar, Part, stacked};
use curves::{Curve, curves};
use svg::Drawing;
pub(super) use svg::STYLE;

const WIDE: f64 = 960.0;
const NARROW: f64 = 334.0;

/// A picture.
#[derive(Debug, Clone)]
pub(super) struct Picture {
    /// Short name, for files and elements: letters, digits and hyphens.
    pub(super) id: String,
    /// Its title.
    pub(super) title: String,
    /// What it shows.
    pub(super) note: String,
    /// For a screen.
    pub(super) wide: Drawing,
    /// For a phone.
    pub(super) narrow: Drawing,
}

impl Picture {
    fn new(id: &str, title: &str, note: &str, draw: impl Fn(f64) -> Drawing) -> Self {
        Self { id: id.into(), title: title.into(), note: note.into(), wide: draw(WIDE), narrow: draw(NARROW) }
    }

    /// The file of its own.
    pub(super) fn alone(&self, source: &str) -> String {
        self.wide.alone(&self.title, source)
    }
}

/// Class of a phase's colour: the same in every picture.
fn phase_class(name: &str) -> &'static str {
    match name {
        "pull" => "f0",
        "create" => "f1",
        spans::BOOT => "f2",
        spans::IMPORT | spans::START => "f3",
        "engine-init" => "f4",
        "load" => "f5",
        "compile" | "warm-up" => "f6",
        "kv-cache" => "f7",
        "graph-capture" => "f8",
        "api-start" => "f9",
        spans::ANSWER | spans::FIRST_TOKEN => "f10",
        _ => "f11",
    }
}

/// A row with its median run.
struct Typical<'a> {
    row: &'a Row,
    run: &'a Run,
    measured: &'a Measured,
    spans: Vec<Span>,
}

fn typical<'a>(report: &'a Report, all: &'a Analysis) -> Vec<Typical<'a>> {
    let each = |row: &'a Row| {
        let run = report.runs.get(row.typical?)?;
        let measured = run.counted()?;
        Some(Typical { row, run, measured, spans: spans::spans(run, measured) })
    };
    all.rows.iter().filter_map(each).collect()
}

/// All pictures that there is something for, in the order of a page.
pub(super) fn pictures(report: &Report, all: &Analysis) -> Vec<Picture> {
    let rows = typical(report, all);
    let mut out = Vec::new();
    if rows.is_empty() {
        return out;
    }
    out.push(end_to_end(&rows));
    out.push(preparing(&rows));
    out.extend(server(&rows));
    out.extend(over_time(&rows));
    out.extend(ahead(&rows));
    out.extend(rows.iter().enumerate().map(|(i, t)| fall(i, t)));
    out
}

fn part(name: &str, value: u64, class: &'static str) -> Part {
    Part { name: name.into(), value, class }
}

fn end_to_end(rows: &[Typical<'_>]) -> Picture {
    let bar = |t: &Typical<'_>| {
        let p = t.measured.phases;
        Bar {
            name: t.row.name.clone(),
            parts: vec![
                part("preparing: pull and create", p.pull_ms.unwrap_or(0).saturating_add(p.create_ms), "f0"),
                part("start, until ready", p.ready_ms, "f3"),
                part("first answer", p.chat_ms, "f10"),
            ],
            range: t.row.total.map(|s| (s.min, s.max)),
            note: String::new(),
        }
    };
    let bars: Vec<Bar> = rows.iter().map(bar).collect();
    let title = "From the pull to the first answer";
    let note = "Each bar is the median run of its arm; the thin line reaches from the fastest run to the slowest.";
    Picture::new("end-to-end", title, note, |w| stacked(w, &bars, Unit::Time, title))
}

fn preparing(rows: &[Typical<'_>]) -> Picture {
    let bar = |t: &Typical<'_>| {
        let p = t.measured.phases;
        let parts = vec![part("pull", p.pull_ms.unwrap_or(0), "f0"), part("create", p.create_ms, "f1")];
        Bar { name: t.row.name.clone(), parts, range: None, note: String::new() }
    };
    let bars: Vec<Bar> = rows.iter().map(bar).collect();
    let title = "Before the server starts";
    let note = "Pulling the image, and creating pod and container, of the same runs. From disk there is no pull.";
    Picture::new("preparing", title, note, |w| stacked(w, &bars, Unit::Time, title))
}

/// Only where the log told of phases: one stretch without a name would say nothing.
fn server(rows: &[Typical<'_>]) -> Option<Picture> {
    let inside = |t: &Typical<'_>| {
        let outside = ["pull", "create", spans::FIRST_TOKEN, spans::ANSWER];
        t.spans.iter().filter(|s| !outside.contains(&s.name.as_str())).cloned().collect::<Vec<_>>()
    };
    let told = |s: &Span| s.name != spans::BOOT && s.name != spans::START;
    if !rows.iter().any(|t| inside(t).iter().any(told)) {
        return None;
    }
    let bar = |t: &Typical<'_>| {
        let parts = inside(t).iter().map(|s| part(&s.name, s.ms(), phase_class(&s.name))).collect();
        Bar { name: t.row.name.clone(), parts, range: None, note: String::new() }
    };
    let bars: Vec<Bar> = rows.iter().map(bar).collect();
    let title = "The server's start, phase by phase";
    let note = "From the started container until ready, by what the workload logs; load is the loading of the weights.";
    Some(Picture::new("server", title, note, |w| stacked(w, &bars, Unit::Time, title)))
}

fn over_time(rows: &[Typical<'_>]) -> Option<Picture> {
    const LINES: [&str; 8] = ["l0", "l1", "l2", "l3", "l4", "l5", "l6", "l7"];
    let with: Vec<&Typical<'_>> = rows.iter().filter(|t| t.measured.samples.iter().any(|s| s.link.bytes > 0)).collect();
    if with.is_empty() {
        return None;
    }
    let each = with.iter().enumerate();
    let lines: Vec<Curve<'_>> = each
        .map(|(i, t)| Curve {
            name: t.row.name.clone(),
            class: format!("{} d{}", LINES[i % LINES.len()], i / LINES.len() % 4),
            samples: &t.measured.samples,
            begin: spans::begin(t.run, t.measured),
            end: t.measured.phases.total_ms,
        })
        .collect();
    let title = "Bytes over the link";
    let note = "Running totals of the median runs, from the start of the pull; arms that fetched nothing are left out.";
    Some(Picture::new("bytes", title, note, |w| curves(w, &lines, title)))
}

fn ahead(rows: &[Typical<'_>]) -> Option<Picture> {
    let bar = |t: &Typical<'_>| {
        let a: Ahead = t.row.ahead?;
        let value = |s: Option<Spread>| s.map_or(0, |s| s.median);
        let (read, resident, skipped) = (value(a.read), value(a.resident), value(a.skipped));
        let known = read.saturating_add(resident).saturating_add(skipped);
        let share = |name: &str, s: Option<Spread>| s.map(|s| format!("{name} {} %", thousandths(s.median)));
        let parts = vec![
            part("read ahead", read, "f9"),
            part("there already", resident, "f0"),
            part("passed over", skipped, "f5"),
            part("planned, not reached", value(a.planned).saturating_sub(known), "f2"),
        ];
        let notes: Vec<String> =
            [share("precision", a.precision), share("recall", a.recall)].into_iter().flatten().collect();
        Some(Bar { name: t.row.name.clone(), parts, range: None, note: notes.join(", ") })
    };
    let bars: Vec<Bar> = rows.iter().filter_map(bar).filter(|b| b.parts.iter().any(|p| p.value > 0)).collect();
    if bars.is_empty() {
        return None;
    }
    let title = "What was read ahead";
    let note = "Bytes that the profile names, by what became of them: medians of the runs that count. There already: the workload \
                was faster, or another reader.";
    Some(Picture::new("ahead", title, note, |w| stacked(w, &bars, Unit::Bytes, title)))
}

fn fall(i: usize, t: &Typical<'_>) -> Picture {
    let begin = spans::begin(t.run, t.measured);
    let title = format!("{}, round {}", t.row.name, t.run.round);
    let draw = |w| waterfall::waterfall(w, &t.spans, &t.measured.samples, begin, &title);
    Picture::new(&format!("waterfall-{}", i + 1), &title, "", draw)
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{report, run};
    use super::super::sample::sample;
    use super::*;

    fn of(report: &Report) -> Vec<Picture> {
        pictures(report, &Analysis::of(report))
    }

    #[test]
    fn the_sample_has_every_picture() {
        let ids: Vec<String> = of(&sample(5)).into_iter().map(|p| p.id).collect();
        assert_eq!(ids[..6], ["end-to-end", "preparing", "server", "bytes", "ahead", "waterfall-1"]);
        assert_eq!(ids.len(), 5 + 8);
    }

    #[test]
    fn what_was_not_recorded_is_not_drawn() {
        let ids: Vec<String> = of(&report(vec![run("hot", 1, 400, &[])])).into_iter().map(|p| p.id).collect();
        assert_eq!(ids, ["end-to-end", "preparing", "waterfall-1"]);
        assert!(of(&report(vec![run("hot", 1, 400, &["no"])])).is_empty());
    }

    #[test]
    fn the_bars_are_as_long_as_the_phases() {
        // One arm of 1000 ms: the axis is as long as the drawing, so lengths are shares of its width.
        let all = of(&report(vec![run("hot", 1, 1000, &[])]));
        let svg = all[0].wide.inline("");
        let widths: Vec<f64> = svg
            .split("<rect ")
            .filter(|r| r.contains("part "))
            .filter_map(|r| r.split_once("width=\"")?.1.split_once('"')?.0.parse().ok())
            .collect();
        // pull 100 + create 50, ready 800, chat 50.
        let want = [0.15, 0.8, 0.05].map(|share| share * (WIDE - 1.5));
        assert_eq!(widths.len(), 3, "{svg}");
        assert!(widths.iter().zip(want).all(|(w, want)| (w - want).abs() < 0.1), "{widths:?}");
    }

    #[test]
    fn hostile_figures_are_drawn_too() {
        let mut r = run("hot", 1, 1000, &[]);
        if let super::super::result::Outcome::Measured(m) = &mut r.outcome {
            m.phases.pull_ms = Some(u64::MAX);
            m.phases.ready_ms = u64::MAX;
            m.phases.total_ms = 0;
            m.warm = Some(serde_json::json!({ "bytes_read": u64::MAX, "bytes_skipped": u64::MAX }));
        }
        r.row = "</text><script>".repeat(20);
        for picture in of(&report(vec![r])) {
            let text = picture.alone("x") + &picture.narrow.inline("n");
            assert!(!text.contains("<script") && !text.contains("NaN") && !text.contains("inf\""), "{}", picture.id);
        }
    }
}
