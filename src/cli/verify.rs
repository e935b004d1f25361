//! `esgz verify`.

use std::num::NonZeroUsize;

use super::Failure;
use super::output::Output;
use super::platform::{Platforms, platforms};
use crate::image::Reference;
use crate::store;
use crate::verify::{self, IndexReport, Options, Problem, Report, Verified};

/// Problems printed as text; `--json` has all of them.
const SHOWN: usize = 50;

/// Exit code for an image that is not what it should be.
const WRONG: u8 = 3;

/// Check a converted image against its source, file by file, and in itself
///
/// Reads every layer of both images whole: content, metadata, hard links and whiteouts of the two root file systems, then
/// TOC, chunk digests, landmarks and annotations of the converted one. With one reference only the latter. Exits with 3 and
/// a list when something is wrong.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The image that was converted; or, given alone, the converted image
    src: Reference,
    /// The converted image
    dst: Option<Reference>,
    /// Platform to pick from an index; all, or several with commas between, compares an index with an index
    #[arg(long, value_name = "OS/ARCH", default_value = "linux/amd64", value_parser = platforms)]
    platform: Platforms,
    /// Layers read at a time [default: one a core]
    #[arg(long, short)]
    jobs: Option<NonZeroUsize>,
    /// Print a JSON report with all problems
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, out: &Output) -> Result<u8, Failure> {
    let (platform, wanted) = match &args.platform {
        Platforms::One(platform) => (platform.clone(), None),
        Platforms::Index(list) => (String::new(), Some(list)),
    };
    let options = Options {
        platform,
        jobs: args.jobs.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN),
    };
    let open = |r: &Reference| store::open(r, false).map_err(|e| super::store_failure(&e, r));
    let (src, dst) = match &args.dst {
        Some(dst) => (Some(open(&args.src)?), open(dst)?),
        None => (None, open(&args.src)?),
    };
    let progress = out.progress();
    let verified = match wanted {
        None => Verified::Image(verify::verify(src.as_deref(), &*dst, &options, &*progress)?),
        Some(list) => verify::verify_index(src.as_deref(), &*dst, list, &options, &*progress)?,
    };
    let lines: Vec<String> = match &verified {
        Verified::Image(report) => report.problems.iter().map(line).collect(),
        Verified::Index(report) => index_lines(report),
    };
    if args.json {
        out.json(&verified);
    } else if lines.is_empty() {
        match &verified {
            Verified::Image(report) => out.data(summary(report)),
            Verified::Index(report) => {
                out.data(format_args!("{}: an index of {} images", report.digest, report.images.len()));
                report.images.iter().for_each(|i| out.data(format_args!("{}: {}", i.platform, summary(&i.report))));
            }
        }
    } else {
        lines.iter().take(SHOWN).for_each(|l| out.data(l));
        out.say(format_args!("{} problems", lines.len()));
        if let Some(more) = lines.len().checked_sub(SHOWN).filter(|n| *n > 0) {
            out.data(format_args!("and {more} more; --json lists them all"));
        }
    }
    Ok(if lines.is_empty() { 0 } else { WRONG })
}

fn index_lines(report: &IndexReport) -> Vec<String> {
    let images = report.images.iter();
    let images = images.flat_map(|i| i.report.problems.iter().map(|p| format!("{}: {}", i.platform, line(p))));
    report.problems.iter().map(line).chain(images).collect()
}

fn summary(report: &Report) -> String {
    let added = match report.added {
        0 => String::new(),
        n => {
            let classes: Vec<_> = report.added_classes.iter().map(|(class, n)| format!("{n} {class}")).collect();
            format!(" but for {n} paths that its hot layer adds ({})", classes.join(", "))
        }
    };
    format!(
        "{}: {}{added}, {} paths, {} files with {} bytes, {} layers, {} chunks checked",
        report.digest,
        if report.source.is_some() { "equal to its source" } else { "conforming" },
        report.paths,
        report.files,
        report.bytes,
        report.layers,
        report.chunks
    )
}

fn line(p: &Problem) -> String {
    let layer = p.layer.map(|l| format!("layer {l}: ")).unwrap_or_default();
    // A path may hold anything, a terminal's escape sequences too.
    let path = if p.path.is_empty() { String::new() } else { format!("{:?}: ", p.path) };
    format!("{layer}{path}{}", p.what)
}
