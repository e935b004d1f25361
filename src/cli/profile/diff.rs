//! `esgz profile diff`.

use std::path::PathBuf;

use comfy_table::{CellAlignment, Table, presets};

use super::super::Failure;
use super::super::output::{Output, grouped, megabytes};
use super::files;
use crate::profile::diff::{Change, Diff, FileDiff, Totals, diff};

/// Compare two profiles, of two releases or of two runs
///
/// Tells which files are new, gone, moved or changed, how many bytes only one of the profiles touched, and which share of what NEW
/// touched OLD has: between two runs of one image that is how well the profile of one predicts the other.
#[derive(Debug, clap::Args)]
#[group(id = "diff-args")]
pub(super) struct Args {
    /// Profile to compare with; - is stdin
    old: PathBuf,
    /// Profile to compare; - is stdin
    new: PathBuf,
    /// Print JSON, with every file
    #[arg(long)]
    json: bool,
    /// End with exit code 3 when more than that share of the bytes that NEW touched is not in OLD
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    fail_above: Option<f64>,
    /// Files to list
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

fn percent(text: &str) -> Result<f64, String> {
    let n = text.trim_end_matches('%').parse::<f64>().ok().filter(|n| (0.0..=100.0).contains(n));
    n.ok_or_else(|| "expected a number from 0 to 100".into())
}

/// Runs it.
pub(super) fn run(args: &Args, out: &Output) -> Result<u8, Failure> {
    let profiles = files::read_all([args.old.as_path(), args.new.as_path()])?;
    let [old, new] = profiles.as_slice() else { return Err(Failure::new(2, "expected two profiles")) };
    for (profile, path) in [(old, &args.old), (new, &args.new)] {
        if profile.header.lost_events > 0 || profile.header.until.contains("incomplete") {
            out.say(format_args!("{}:", path.display()));
            files::warn(profile, out);
        }
    }
    let (of, with) = (&old.header, &new.header);
    if of.platform != with.platform {
        out.say(format_args!("warning: the profiles are of two platforms, {} and {}", of.platform, with.platform));
    }
    if of.recorder.name != with.recorder.name {
        out.say(format_args!(
            "warning: two recorders, which over-report differently: {} and {}",
            of.recorder.name, with.recorder.name
        ));
    }
    let diff = diff(old, new);
    if args.json {
        out.json(&diff);
    } else {
        print(&diff, args.limit, out);
    }
    match args.fail_above {
        Some(limit) if exceeds(&diff.total, limit) => {
            let (only_new, new) = (float(diff.total.only_new), float(diff.total.new));
            let why = format!(
                "{:.2} % of the bytes that NEW touched are not in OLD: expected at most {limit} %",
                only_new * 100.0 / new
            );
            Err(Failure::new(3, why).hint("record a new profile and convert the image with it"))
        }
        _ => Ok(0),
    }
}

/// Whether more than that many percent of what NEW touched is its alone. Without a division, so that the boundary itself is none.
fn exceeds(total: &Totals, percent: f64) -> bool {
    float(total.only_new) * 100.0 > percent * float(total.new)
}

#[expect(clippy::cast_precision_loss, reason = "bytes of an image are below 2^53")]
fn float(n: u64) -> f64 {
    n as f64
}

fn print(diff: &Diff, limit: usize, out: &Output) {
    let c = &diff.counts;
    out.data(format_args!(
        "{} files in both, {} new, {} gone, {} moved, {} changed",
        grouped(c.kept),
        grouped(c.new),
        grouped(c.gone),
        grouped(c.moved),
        grouped(c.changed)
    ));
    if c.assumed > 0 {
        out.data(format_args!(
            "{} of them have no digest in one of the profiles: taken for the same, as their size is",
            grouped(c.assumed)
        ));
    }
    let mut totals = table(&["", "OLD", "NEW", "ONLY OLD", "ONLY NEW", "BOTH", "RECALL", "PRECISION"], 1..8);
    totals.add_row(total_row("all", &diff.total));
    if diff.origins.len() > 1 {
        for (origin, t) in &diff.origins {
            totals.add_row(total_row(origin.name(), t));
        }
    }
    out.data(format_args!("\n{totals}"));
    let apart: Vec<&FileDiff> =
        diff.files.iter().filter(|f| f.change != Change::Kept || f.only_old > 0 || f.only_new > 0).collect();
    if !apart.is_empty() && limit > 0 {
        let mut files = table(&["CHANGE", "ONLY OLD", "ONLY NEW", "BOTH", "PATH"], 1..4);
        for f in apart.iter().take(limit) {
            let path = match &f.old_path {
                Some(old) => format!("{} <- {}", f.path.escape_debug(), old.escape_debug()),
                None => f.path.escape_debug().to_string(),
            };
            files.add_row([f.change.name().into(), grouped(f.only_old), grouped(f.only_new), grouped(f.both), path]);
        }
        out.data(format_args!("\n{files}"));
    }
    if apart.len() > limit {
        out.data(format_args!("… and {} more files (--limit, --json)", grouped((apart.len() - limit) as u64)));
    }
    if diff.new_writes.len() + diff.gone_writes.len() > 0 {
        out.data(format_args!(
            "\nwritten: {} files that OLD did not write, {} that NEW does not write",
            grouped(diff.new_writes.len() as u64),
            grouped(diff.gone_writes.len() as u64)
        ));
    }
    out.data(format_args!(
        "\nOLD has {:.2} % of the {} that NEW touched",
        diff.total.recall * 100.0,
        megabytes(diff.total.new)
    ));
}

fn total_row(name: &str, t: &Totals) -> [String; 8] {
    let percent = |share: f64| format!("{:.2} %", share * 100.0);
    [
        name.into(),
        grouped(t.old),
        grouped(t.new),
        grouped(t.only_old),
        grouped(t.only_new),
        grouped(t.both),
        percent(t.recall),
        percent(t.precision),
    ]
}

/// A table without lines; columns in `right` hold numbers.
pub(super) fn table(header: &[&str], right: std::ops::Range<usize>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    for (i, column) in table.column_iter_mut().enumerate() {
        if right.contains(&i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_at_the_limit_is_not_above_it() {
        for percent in 0..=100_u32 {
            let total = Totals { new: 100_000, only_new: u64::from(percent) * 1000, ..Totals::default() };
            assert!(!exceeds(&total, percent.into()), "{percent}");
            let more = Totals { only_new: total.only_new + 1, ..total };
            assert!(exceeds(&more, percent.into()), "{percent}");
        }
        assert!(!exceeds(&Totals::default(), 0.0));
    }
}
