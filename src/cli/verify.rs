//! `esgz verify`.

use std::num::NonZeroUsize;

use super::Failure;
use super::output::Output;
use crate::image::Reference;
use crate::store;
use crate::verify::{self, Options, Problem};

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
    /// Platform to pick from an index
    #[arg(long, value_name = "OS/ARCH", default_value = "linux/amd64")]
    platform: String,
    /// Layers read at a time [default: one a core]
    #[arg(long, short)]
    jobs: Option<NonZeroUsize>,
    /// Print a JSON report with all problems
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, out: &Output) -> Result<u8, Failure> {
    let options = Options {
        platform: args.platform.clone(),
        jobs: args.jobs.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN),
    };
    let open = |r: &Reference| store::open(r, false).map_err(|e| super::store_failure(&e, r));
    let (src, dst) = match &args.dst {
        Some(dst) => (Some(open(&args.src)?), open(dst)?),
        None => (None, open(&args.src)?),
    };
    let report = verify::verify(src.as_deref(), &*dst, &options, &*out.progress())?;
    let wrong = !report.problems.is_empty();
    if args.json {
        out.json(&report);
    } else if wrong {
        report.problems.iter().take(SHOWN).for_each(|p| out.data(line(p)));
        out.say(format_args!("{} problems", report.problems.len()));
        if let Some(more) = report.problems.len().checked_sub(SHOWN).filter(|n| *n > 0) {
            out.data(format_args!("and {more} more; --json lists them all"));
        }
    } else {
        let added = match report.added {
            0 => String::new(),
            n => format!(" but for {n} paths that its hot layer adds"),
        };
        out.data(format_args!(
            "{}: {}{added}, {} paths, {} files with {} bytes, {} layers, {} chunks checked",
            report.digest,
            if src.is_some() { "equal to its source" } else { "conforming" },
            report.paths,
            report.files,
            report.bytes,
            report.layers,
            report.chunks
        ));
    }
    Ok(if wrong { WRONG } else { 0 })
}

fn line(p: &Problem) -> String {
    let layer = p.layer.map(|l| format!("layer {l}: ")).unwrap_or_default();
    // A path may hold anything, a terminal's escape sequences too.
    let path = if p.path.is_empty() { String::new() } else { format!("{:?}: ", p.path) };
    format!("{layer}{path}{}", p.what)
}
