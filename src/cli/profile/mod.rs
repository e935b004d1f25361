//! `esgz profile`: taking profiles and working with them. One file a subcommand; without one it is `run`.

use super::Failure;
use super::output::Output;
use crate::store::profiles;

mod attach;
mod diff;
mod export;
mod files;
mod image;
mod import;
mod inside;
mod k8s;
mod merge;
mod pull;
mod push;
mod recording;
mod run;
mod show;
mod stop;

pub(super) use files::read;

/// Record what a container really reads and writes until it is ready, and work with such profiles
///
/// Without a subcommand this is `esgz profile run`.
#[derive(Debug, clap::Args)]
#[group(id = "profile-args")]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    // What clap calls a group cannot hold another one: the two parts of `run::Args`.
    #[command(flatten)]
    recording: Option<recording::Args>,
    #[command(flatten)]
    own: Option<run::Own>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Run(run::Args),
    Attach(attach::Args),
    Stop(stop::Args),
    Show(show::Args),
    Merge(merge::Args),
    Diff(diff::Args),
    Import(import::Args),
    Export(export::Args),
    Push(push::Args),
    Pull(pull::Args),
    // Boxed for its size.
    K8s(Box<k8s::Args>),
    #[command(hide = true)]
    K8sCopy(inside::Copy),
    #[command(hide = true)]
    K8sCollect(inside::Collect),
    K8sReceive(inside::Receive),
}

/// Runs it.
pub(super) fn run(args: Args, out: &Output) -> Result<u8, Failure> {
    match args.command {
        Some(Command::Run(args)) => run::run(args, out),
        Some(Command::Attach(args)) => attach::run(args, out),
        Some(Command::Stop(args)) => stop::run(&args, out),
        Some(Command::Show(args)) => show::run(&args, out),
        Some(Command::Merge(args)) => merge::run(&args, out),
        Some(Command::Diff(args)) => diff::run(&args, out),
        Some(Command::Import(args)) => import::run(&args, out),
        Some(Command::Export(args)) => export::run(&args, out),
        Some(Command::Push(args)) => push::run(&args, out),
        Some(Command::Pull(args)) => pull::run(&args, out),
        Some(Command::K8s(args)) => k8s::run(&args, out),
        Some(Command::K8sCopy(args)) => inside::copy(&args),
        Some(Command::K8sCollect(args)) => inside::collect(&args),
        Some(Command::K8sReceive(args)) => inside::receive(&args, out),
        None => match (args.recording, args.own) {
            (Some(recording), Some(own)) => run::run(run::Args { recording, own }, out),
            _ => Err(Failure::new(2, "nothing to do").hint("esgz profile --help lists what there is")),
        },
    }
}

/// Reads the name of a profile.
fn name(text: &str) -> Result<String, String> {
    if profiles::is_name(text) {
        Ok(text.into())
    } else {
        Err("expected 1 to 128 printable characters without spaces".into())
    }
}
