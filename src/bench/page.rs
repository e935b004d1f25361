//! A report as one page for the browser: no network, no fonts, no scripts but its own, and everything readable without that one.
//!
//! Names, reasons and logs come from outside: they go in escaped. The data block holds the statistics, the runs and each picture
//! as a file of its own, which is what the page's buttons save.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::figures::seconds;
use super::flat;
use super::picture::{self, Picture};
use super::report::Summary;
use super::result::{ArmFacts, Outcome, Report};
use super::table::{Sheet, sheets};
use super::words;
use crate::html::{escaped, fill, inert, script_hash};

const HTML: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// Pictures as files of their own: name and content.
pub fn files(report: &Report) -> Vec<(String, String)> {
    let summary = Summary::of(report);
    let source = source(report);
    let all = picture::pictures(report, &summary.analysis);
    all.iter().map(|p| (format!("{}.svg", p.id), p.alone(&source))).collect()
}

/// What a picture that stands alone says below.
fn source(report: &Report) -> String {
    let partial = if report.complete { "" } else { " (partial)" };
    format!("esgz bench {}{partial}, {}, {}", report.started, words::rounds(report), words::link(report))
}

/// Makes the page.
pub fn page(report: &Report) -> String {
    let summary = Summary::of(report);
    let pictures = picture::pictures(report, &summary.analysis);
    let body = body(report, &summary, &pictures);
    let source = source(report);
    let alone: Map<String, Value> = pictures.iter().map(|p| (p.id.clone(), p.alone(&source).into())).collect();
    let runs: Vec<Value> = flat::runs(report).map(|r| Value::Object(flat::record(report, r))).collect();
    // Strings, numbers and lists: nothing that JSON cannot hold.
    let data =
        json!({ "summary": serde_json::to_value(&summary).unwrap_or_default(), "runs": runs, "pictures": alone });
    let title = format!("Start-up benchmark {}", report.started);
    let style = format!("{STYLE}{}", picture::STYLE);
    // What comes from outside last: it may hold a text that looks like one of the places.
    let places = [
        ("@HASH@", script_hash(SCRIPT)),
        ("@TITLE@", escaped(&title)),
        ("@STYLE@", style),
        ("@SCRIPT@", SCRIPT.into()),
        ("@BODY@", body),
        ("@DATA@", inert(&data.to_string())),
    ];
    fill(HTML, &places.each_ref().map(|(place, text)| (*place, text.as_str())))
}

/// Writing to a string cannot fail.
fn body(report: &Report, summary: &Summary, pictures: &[Picture]) -> String {
    let mut out = String::new();
    let lead = format!("{} · {} · {}", report.started, words::rounds(report), words::link(report));
    let headline = words::headline(report, &summary.analysis);
    let _ = write!(out, "<header><p class=\"lead\">{}</p><h1>{}</h1>", escaped(&lead), escaped(&headline.what));
    if !headline.against.is_empty() {
        out.push_str("<ul class=\"against\">");
        for text in &headline.against {
            let _ = write!(out, "<li>{}</li>", escaped(text));
        }
        out.push_str("</ul>");
    }
    out.push_str("</header>");
    if !report.complete {
        out.push_str(
            "<p class=\"card warn\" role=\"alert\">Partial: the benchmark did not get to its end; this is what was measured \
             until then.</p>",
        );
    }
    let dropped = report.runs.iter().filter(|r| r.counted().is_none()).count();
    if dropped > 0 {
        let _ = write!(
            out,
            "<p class=\"card warn\"><a href=\"#dropped\">{dropped} of {} runs do not count</a> and are in no figure.</p>",
            report.runs.len()
        );
    }
    let (falls, charts): (Vec<&Picture>, Vec<&Picture>) = pictures.iter().partition(|p| p.id.starts_with("waterfall"));
    for p in charts {
        let _ = write!(out, "<section class=\"card\"><h2>{}</h2>", escaped(&p.title));
        drawing(&mut out, p);
        out.push_str("</section>");
    }
    if !pictures.is_empty() && !pictures.iter().any(|p| p.id == "server") {
        out.push_str("<p class=\"card note\">The runs tell no phases of the server's start: no line of a log was recognised.</p>");
    }
    for sheet in sheets(&summary.analysis) {
        table(&mut out, &sheet);
    }
    let traced = words::traced(report);
    if !traced.is_empty() {
        list(&mut out, "Runs that were traced, for precision and recall", &traced, "");
    }
    list(
        &mut out,
        "What is claimed",
        &summary.claims,
        "Nothing: no comparison excludes that the arms are equally fast.",
    );
    list(&mut out, "How the comparisons are made", &summary.notes, "There is nothing to compare.");
    if !falls.is_empty() {
        out.push_str(
            "<section class=\"card\"><h2>The median run of each arm</h2><p class=\"note\">Each has its own time axis, from the \
             start of the pull (from disk: of the pod); the curve is what had come over the link.</p>",
        );
        for (i, p) in falls.iter().enumerate() {
            // A few are open: more than that is for who looks for one.
            let open = if i < 12 { " open" } else { "" };
            let _ = write!(out, "<details{open}><summary>{}</summary>", escaped(&p.title));
            drawing(&mut out, p);
            out.push_str("</details>");
        }
        out.push_str("</section>");
    }
    not_counted(&mut out, report);
    metrics(&mut out, report, summary);
    images(&mut out, &report.arms);
    setting(&mut out, report);
    out
}

fn list(out: &mut String, title: &str, all: &[String], nothing: &str) {
    let _ = write!(out, "<section class=\"card\"><h2>{title}</h2>");
    if all.is_empty() {
        let _ = write!(out, "<p>{nothing}</p>");
    } else {
        out.push_str("<ul>");
        for text in all {
            let _ = write!(out, "<li>{}</li>", escaped(text));
        }
        out.push_str("</ul>");
    }
    out.push_str("</section>");
}

fn drawing(out: &mut String, p: &Picture) {
    if !p.note.is_empty() {
        let _ = write!(out, "<p class=\"note\">{}</p>", escaped(&p.note));
    }
    let _ = write!(
        out,
        "{}{}<p class=\"save\" data-picture=\"{}\" hidden></p>",
        p.wide.inline("picture wide"),
        p.narrow.inline("picture narrow"),
        escaped(&p.id)
    );
}

fn table(out: &mut String, sheet: &Sheet) {
    let _ = write!(
        out,
        "<section class=\"card\"><h2>{}</h2><div class=\"scroll\" tabindex=\"0\"><table><thead><tr>",
        escaped(&sheet.title)
    );
    let side = |i: usize| if i < sheet.texts { " class=\"text\"" } else { "" };
    for (i, head) in sheet.head.iter().enumerate() {
        let _ = write!(out, "<th scope=\"col\"{}>{}</th>", side(i), escaped(head));
    }
    out.push_str("</tr></thead><tbody>");
    for row in &sheet.rows {
        out.push_str("<tr>");
        for (i, cell) in row.iter().enumerate() {
            let _ = write!(out, "<td{}>{}</td>", side(i), escaped(cell));
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div></section>");
}

fn not_counted(out: &mut String, report: &Report) {
    if report.runs.iter().all(|r| r.counted().is_some()) {
        return;
    }
    out.push_str("<section class=\"card\" id=\"dropped\"><h2>Runs that do not count</h2>");
    for run in report.runs.iter().filter(|r| r.counted().is_none()) {
        let head = format!("{}, round {}", run.row, run.round);
        match &run.outcome {
            Outcome::Measured(m) => {
                let _ = write!(out, "<h3>{} · invalid ({} s)</h3><ul>", escaped(&head), seconds(m.phases.total_ms));
                for why in &m.invalid {
                    let _ = write!(out, "<li>{}</li>", escaped(why));
                }
                out.push_str("</ul>");
            }
            Outcome::Failed { error, log } => {
                let _ = write!(out, "<h3>{} · failed</h3><p>{}</p>", escaped(&head), escaped(error));
                if !log.is_empty() {
                    let _ = write!(out, "<pre tabindex=\"0\">{}</pre>", escaped(&log.join("\n")));
                }
            }
        }
    }
    out.push_str("</section>");
}

/// The snapshotter's counters in the median runs, where there are any.
fn metrics(out: &mut String, report: &Report, summary: &Summary) {
    let rows: Vec<_> = summary
        .analysis
        .rows
        .iter()
        .filter_map(|row| Some((row, report.runs.get(row.typical?)?.counted()?)))
        .filter(|(_, m)| !m.metrics.is_empty())
        .collect();
    if rows.is_empty() {
        return;
    }
    out.push_str(
        "<section class=\"card\"><h2>The snapshotter's counters</h2><p class=\"note\">What they grew by in the median \
         run.</p>",
    );
    for (row, m) in rows {
        let _ = write!(out, "<details><summary>{}</summary><dl>", escaped(&row.name));
        for (name, value) in &m.metrics {
            let _ = write!(out, "<dt>{}</dt><dd>{value}</dd>", escaped(name));
        }
        out.push_str("</dl></details>");
    }
    out.push_str("</section>");
}

fn images(out: &mut String, arms: &[ArmFacts]) {
    if arms.is_empty() {
        return;
    }
    out.push_str("<section class=\"card\"><h2>Images</h2>");
    for arm in arms {
        let options = arm.options.join(", ");
        let under =
            if options.is_empty() { arm.snapshotter.clone() } else { format!("{}, {options}", arm.snapshotter) };
        let _ = write!(
            out,
            "<details><summary>{} <small>{}</small></summary><dl><dt>Reference</dt><dd>{}</dd><dt>Manifest</dt><dd>{}</dd>\
             <dt>Config</dt><dd>{}</dd>",
            escaped(&arm.name),
            escaped(&under),
            escaped(&arm.reference),
            arm.manifest,
            arm.config
        );
        for (i, layer) in arm.layers.iter().enumerate() {
            let kind = layer.kind.as_deref().unwrap_or(if layer.toc { "lazy" } else { "whole" });
            let _ = write!(
                out,
                "<dt>Layer {}</dt><dd>{} · {} bytes · {}</dd>",
                i + 1,
                layer.digest,
                layer.size,
                escaped(kind)
            );
        }
        out.push_str("</dl></details>");
    }
    out.push_str("</section>");
}

fn setting(out: &mut String, report: &Report) {
    let versions: Vec<String> = report.versions.iter().map(|(k, v)| format!("{k} {v}")).collect();
    let w = &report.workload;
    let facts = [
        ("Machine", words::machine(report)),
        ("Link", format!("{}, in front of {} for every arm", words::link(report), report.link.upstream)),
        ("Shared", "registry, link, snapshotter and workload share the machine".into()),
        ("Versions", format!("esgz {}, {}", report.esgz, versions.join(", "))),
        ("Question", format!("{:?}, temperature 0, {} tokens", w.prompt, w.max_tokens)),
        ("Arguments", w.args.join(" ")),
        ("Environment", w.env.join(", ")),
        ("Began, ended", format!("{}, {}", report.started, report.finished)),
        ("Cold", "wiped state, page cache dropped, image not there; from disk: image there, page cache dropped".into()),
    ];
    out.push_str("<section class=\"card\"><h2>Machine, link and versions</h2><dl>");
    for (name, value) in facts.iter().filter(|f| !f.1.is_empty()) {
        let _ = write!(out, "<dt>{name}</dt><dd>{}</dd>", escaped(value));
    }
    out.push_str("</dl><p class=\"save\" id=\"data-save\" hidden></p></section>");
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
