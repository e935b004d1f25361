//! `esgz profile stop`: end a recording from outside.

use std::path::PathBuf;

use super::super::Failure;
use super::super::output::Output;
use super::recording;
use crate::record;

/// End a recording and wait until its profile is written
#[derive(Debug, clap::Args)]
#[group(id = "stop-args")]
pub(super) struct Args {
    /// Profile that the recording writes, as this container sees it
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

/// Runs it.
pub(super) fn run(args: &Args, out: &Output) -> Result<u8, Failure> {
    record::stop(&args.output).map_err(recording::failure)?;
    out.say(format_args!("profile written to {}", args.output.display()));
    Ok(0)
}
