//! `esgz profile run`: record what a command really reads. Passes on the command's own exit code; its own failures are 125, not
//! executable 126, not found 127.

use std::ffi::OsString;
use std::path::PathBuf;

use super::super::Failure;
use super::super::output::Output;
use super::recording;
use crate::record::{self, Run};

/// Record which bytes of which files a command reads and what it writes, until it is ready
///
/// Runs COMMAND as a child and watches its process tree: byte ranges, mapped files included. What it can see depends on what it may
/// do; the profile says which recorder ran and what that one adds and misses. Passes signals and exit code on, and may be a
/// container's process 1.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) recording: recording::Args,
    #[command(flatten)]
    pub(super) own: Own,
}

/// What only `run` has.
#[derive(Debug, clap::Args)]
#[group(id = "run-own")]
pub(super) struct Own {
    /// Folder that the command takes for its root (chroot)
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Leave the command running once the profile is written, and pass on its exit code
    #[arg(long)]
    keep_running: bool,
    /// Let the command inherit stdout and stderr: no phases from its log
    #[arg(long, conflicts_with = "until_log")]
    inherit_streams: bool,
    /// Command to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs it.
pub(super) fn run(args: Args, out: &Output) -> Result<u8, Failure> {
    let what = Run {
        command: args.own.command,
        root: args.own.root,
        keep_running: args.own.keep_running,
        inherit_streams: args.own.inherit_streams,
    };
    record::run(&args.recording.options(), &what, &*out.progress(), &mut |p| recording::say(p, out))
        .map_err(recording::failure)
}
