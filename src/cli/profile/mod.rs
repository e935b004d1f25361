//! `esgz profile`: taking profiles and working with them. One file a subcommand; without one it is `run`.

use super::Failure;
use super::output::Output;

mod run;

/// Record what a container really reads and writes until it is ready, and work with such profiles
///
/// Without a subcommand this is `esgz profile run`.
#[derive(Debug, clap::Args)]
#[group(id = "profile-args")]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Option<run::Args>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Run(run::Args),
}

/// Runs it.
pub(super) fn run(args: Args, out: &Output) -> Result<u8, Failure> {
    match (args.command, args.run) {
        (Some(Command::Run(args)), _) | (None, Some(args)) => run::run(args, out),
        (None, None) => Err(Failure::new(2, "nothing to do").hint("esgz profile --help lists what there is")),
    }
}
