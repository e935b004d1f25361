//! `esgz profile attach`: record what runs already.

use super::super::Failure;
use super::super::output::Output;
use super::recording;
use crate::record::{self, Attach};

/// Record a process or container that runs already, from the node or from an ephemeral container
///
/// Sees what is touched from now on: pages that are mapped already are not touched again. Ctrl-C ends the recording and writes the
/// profile.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    whom: Whom,
    #[command(flatten)]
    recording: recording::Args,
}

#[derive(Debug, clap::Args)]
#[group(id = "whom", required = true, multiple = false)]
struct Whom {
    /// Process to record, with its control group or its children
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// Container to record, by its id or the beginning of it
    #[arg(long, value_name = "ID")]
    container: Option<String>,
}

/// Runs it.
pub(super) fn run(args: Args, out: &Output) -> Result<u8, Failure> {
    let whom = match (args.whom.pid, args.whom.container) {
        (Some(pid), _) => Attach::Pid(pid),
        (None, id) => Attach::Container(id.unwrap_or_default()),
    };
    record::attach(&args.recording.options(), &whom, &*out.progress(), &mut |p| recording::say(p, out))
        .map(|()| 0)
        .map_err(recording::failure)
}
