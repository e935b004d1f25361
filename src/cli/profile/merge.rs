//! `esgz profile merge`.

use std::path::PathBuf;

use super::super::Failure;
use super::super::output::{Output, grouped, megabytes};
use super::files;
use crate::profile::combine::{Combined, Error, Mode, combine};
use crate::profile::{File, write};

/// Make one profile of several runs, models or GPU types
///
/// Files are brought together by path, and never mixed when their size, digest or origin differs: then only the runs with the
/// content that most runs have count. The result names the recordings it was made of; phases stand at the median of their times.
#[derive(Debug, clap::Args)]
#[group(id = "merge-args")]
pub(super) struct Args {
    /// Profiles to merge; - is stdin
    #[arg(required = true, value_name = "FILE")]
    profiles: Vec<PathBuf>,
    /// Profile to write; - is stdout
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Bytes to keep: union (touched in any run, at the earliest time), intersection (in every run) or quantile=Q (in at least
    /// the share Q of the runs, rounded up), both at the median time
    #[arg(long, value_name = "MODE", default_value = "union", value_parser = str::parse::<Mode>)]
    mode: Mode,
}

/// Runs it.
pub(super) fn run(args: &Args, out: &Output) -> Result<u8, Failure> {
    let profiles = files::read_all(args.profiles.iter().map(PathBuf::as_path))?;
    let combined = combine(&profiles, args.mode).map_err(|e| {
        let failure = Failure::from(e);
        let platforms = failure.error.downcast_ref::<Error>().is_some_and(|e| matches!(e, Error::Platforms { .. }));
        if platforms { failure.hint("merge the profiles of each platform into a file of their own") } else { failure }
    })?;
    say(&combined, args.mode.need(profiles.len()), profiles.len(), out);
    files::write(&args.output, &write(&combined.profile), out)?;
    Ok(0)
}

fn say(combined: &Combined, need: usize, runs: usize, out: &Output) {
    let profile = &combined.profile;
    out.say(format_args!(
        "{runs} profiles, touched in at least {need}: {} files, {}",
        grouped(profile.files.len() as u64),
        megabytes(profile.files.iter().map(File::touched_bytes).fold(0, u64::saturating_add)),
    ));
    if let [first, ..] = combined.conflicts.as_slice() {
        out.say(format_args!(
            "warning: {} files differ between the runs, such as {first:?}: only the content that most runs have was counted",
            grouped(combined.conflicts.len() as u64)
        ));
    }
    if !combined.images.is_empty() {
        out.say(format_args!("warning: the profiles are of several images: {}", combined.images.join(", ")));
    }
    if !combined.recorders.is_empty() {
        out.say(format_args!(
            "warning: several recorders were used, which over-report differently: {}",
            combined.recorders.join(", ")
        ));
    }
    files::warn(profile, out);
}
