//! The command line: flags, wording, progress, exit codes. The only module that prints; one file a subcommand.
//!
//! stdout is data (a digest, a table, JSON), stderr is words. Exit codes: 0 done, 1 failed, 2 usage, 3 verification or
//! gate failed; `profile` and `warm` pass on the command's own code, their own failures are 125, not executable 126, not found 127.

use std::error::Error as StdError;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::image::Reference;
use crate::progress::chain;
use crate::store;

pub mod bench;
mod bytecode;
mod convert;
mod inspect;
mod modelled;
pub mod output;
mod plan;
mod platform;
mod profile;
mod profiled;
mod verify;
mod warm;
mod whole;

/// Profile, convert, verify and benchmark container images for lazy pulling
#[derive(Debug, Parser)]
#[command(name = "esgz", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Say nothing but errors
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Convert(convert::Args),
    Plan(plan::Args),
    Verify(verify::Args),
    Inspect(inspect::Args),
    Profile(profile::Args),
    // Boxed for its size.
    Warm(Box<warm::Args>),
    Bytecode(bytecode::Args),
    Bench(bench::Command),
}

/// What a subcommand ends with: the error chain is printed once, then the hint.
#[derive(Debug)]
pub struct Failure {
    /// Process exit code.
    pub code: u8,
    /// What went wrong; its source chain is printed with it.
    pub error: Box<dyn StdError + Send + Sync>,
    /// What the user can do.
    pub hint: Option<String>,
}

impl<E: StdError + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { code: 1, error: Box::new(error), hint: None }
    }
}

impl Failure {
    /// A failure in words alone.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, error: message.into().into(), hint: None }
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Parses the command line, runs the subcommand and gives the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let out = output::Output::new(cli.quiet);
    let result: Result<u8, Failure> = match cli.command {
        Command::Convert(args) => convert::run(&args, &out),
        Command::Plan(args) => plan::run(&args, &out),
        Command::Verify(args) => verify::run(&args, &out),
        Command::Inspect(args) => inspect::run(&args, &out),
        Command::Profile(args) => profile::run(args, &out),
        Command::Warm(args) => warm::run(*args, &out),
        Command::Bytecode(args) => bytecode::run(&args, &out),
        Command::Bench(command) => bench::run(command, &out),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            out.failure(&failure);
            ExitCode::from(failure.code)
        }
    }
}

/// A store's failure with what to do about it.
fn store_failure(error: &store::Error, reference: &Reference) -> Failure {
    let mut failure = Failure::new(1, format!("{reference}: {}", chain(error)));
    failure.hint = store_hint(error.kind()).map(Into::into);
    failure
}

fn store_hint(kind: store::Kind) -> Option<&'static str> {
    Some(match kind {
        store::Kind::NotFound => "check the name and the tag",
        store::Kind::Denied => {
            "log in with `docker login`, `podman login`, or for Artifact Registry `gcloud auth configure-docker HOST`; the account \
             needs the right to read, for DST to write"
        }
        store::Kind::Corrupt => "fetch or build it again",
        store::Kind::Unsupported | store::Kind::Other => return None,
        store::Kind::Unreachable => "check the host, the network and HTTPS_PROXY; the same may work later",
        store::Kind::Untrusted => "name the certificate authority's file in SSL_CERT_FILE",
        store::Kind::Full => "make room there, or name another folder",
    })
}

/// Says what an interruption means and ends the process with 130. For commands that leave nothing half-written whenever
/// they end: their temporary files have no names, their tag comes last.
fn on_interrupt(out: &output::Output, message: &'static str) {
    let out = out.clone();
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            out.failure(&Failure::new(130, message));
            #[expect(clippy::exit, reason = "the workers hold nothing that has to be put in order")]
            std::process::exit(130);
        }
    });
}
