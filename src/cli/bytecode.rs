//! `esgz bytecode`.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use super::output::{Output, grouped, megabytes};
use super::platform::Platforms;
use super::profiled::{self, Profiled};
use super::{Failure, store_failure, whole};
use crate::bytecode::{self, Error, Options, Report};
use crate::image::Reference;
use crate::store;

/// Compile the Python bytecode that a start would write, without starting the workload
///
/// What the profile says was imported is compiled by the image's own interpreter, in a sandbox without a network, rights or anything of
/// this machine. The archive is one for `esgz convert --startup-layer`. Needs root or user namespaces.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Image to compile for
    image: Reference,
    /// Profile that says what is imported; may be given several times. from-image, from-image:NAME: the one beside IMAGE
    #[arg(long = "profile", value_name = "FILE", default_value = "from-image", value_parser = profiled::profiled)]
    profiles: Vec<Profiled>,
    /// Archive to write
    #[arg(long, short, value_name = "FILE.tar")]
    output: PathBuf,
    /// Platform to pick from an index; this machine must run it
    #[arg(long, value_name = "OS/ARCH", default_value = "linux/amd64")]
    platform: String,
    /// Give up on an interpreter after that many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86400))]
    timeout: u64,
    /// Folder for temporary data: the sources, and the image's interpreter with its libraries
    #[arg(long, value_name = "DIR", env = "TMPDIR", default_value = "/tmp")]
    temp_dir: PathBuf,
    /// Print a JSON report
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, out: &Output) -> Result<u8, Failure> {
    let profiles = profiled::read(&args.profiles, &args.image, &Platforms::One(args.platform.clone()))?;
    let profile = profiles.first().ok_or_else(|| Failure::new(2, "no profile"))?;
    let store = store::open(&args.image, false).map_err(|e| store_failure(&e, &args.image))?;
    let options = Options {
        platform: args.platform.clone(),
        temp_dir: args.temp_dir.clone(),
        timeout: Duration::from_secs(args.timeout),
    };
    let refused = |e: io::Error| Failure::new(1, format!("cannot write {}: {e}", args.output.display()));
    let mut temp = tempfile::NamedTempFile::new_in(whole::folder(&args.output)).map_err(refused)?;
    let mut to = BufWriter::new(&mut temp);
    let report =
        bytecode::compile(&*store, profile, &options, &mut to, &*out.progress()).map_err(|e| failure(e, args))?;
    to.flush().map_err(refused)?;
    drop(to);
    temp.as_file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(refused)?;
    temp.persist(&args.output).map_err(|e| refused(e.error))?;
    say(&report, out);
    if args.json {
        out.json(&report);
    }
    Ok(0)
}

fn say(report: &Report, out: &Output) {
    for (program, n) in &report.interpreters {
        out.say(format_args!("{program} compiled {} files", grouped(*n as u64)));
    }
    out.say(format_args!(
        "{} files, {}; left out: {} that the image has, {} without a source",
        grouped(report.files as u64),
        megabytes(report.bytes),
        grouped(report.taken as u64),
        grouped(report.no_source as u64)
    ));
    for (why, n) in &report.refused {
        out.say(format_args!("{} sources refused: {why}", grouped(*n as u64)));
    }
    for (tag, n) in &report.no_interpreter {
        out.say(format_args!(
            "warning: no interpreter {tag} in the image: {} files are not compiled",
            grouped(*n as u64)
        ));
    }
}

fn failure(error: Error, args: &Args) -> Failure {
    let hint = match &error {
        Error::Store(e) => return store_failure(e, &args.image),
        Error::Start { .. } => {
            "run it as root, or where users may make user namespaces (sysctl kernel.unprivileged_userns_clone)"
        }
        Error::Nothing => "record a profile of a start of this image, with `esgz profile`",
        Error::Foreign { .. } => "run it on a machine of that architecture",
        Error::Temp { .. } => "name another folder with --temp-dir",
        Error::Interpreter { .. } => "a longer --timeout may help if it is slow",
        _ => return Failure::from(error),
    };
    Failure::from(error).hint(hint)
}
