//! `esgz warm`: reading ahead beside a workload, or on a node. Passes on the command's own exit code, since it becomes the command; its
//! own failures are 125, not executable 126, not found 127.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::output::Output;
use super::platform::{Platforms, platforms};
use super::profiled::{self, Profiled};
use super::{Failure, profile, whole};
use crate::http::address::is_loopback;
use crate::image::{Reference, wrapped};
use crate::profile::Profile;
use crate::record;
use crate::warm::launch::{Side, Watched, split};
use crate::warm::{self, Budget, node};

/// Set to `off` it leaves out the reading ahead.
const SWITCH: &str = "ESGZ_WARM";

/// Read what a profile says a start needs, ahead of the command that is started
///
/// Becomes COMMAND at once: same process, signals and exit code. A second process reads the profile's ranges in the order of their
/// first touch, many at a time, and never more than the profile says; whatever goes wrong with it, the command does not notice. With
/// `ESGZ_WARM=off` in the environment only the command is run. Without a subcommand this is `esgz warm run`.
#[derive(Debug, clap::Args)]
#[group(id = "warm-args")]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    // What clap calls a group cannot hold another one: the two parts of `RunArgs`.
    #[command(flatten)]
    own: Option<Own>,
    #[command(flatten)]
    common: Option<Common>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    // Boxed for its size.
    Run(Box<RunArgs>),
    Node(NodeArgs),
}

/// Read ahead beside a command
#[derive(Debug, clap::Args)]
struct RunArgs {
    #[command(flatten)]
    own: Own,
    #[command(flatten)]
    common: Common,
}

/// What only `run` has.
#[derive(Debug, clap::Args)]
#[group(id = "warm-run")]
struct Own {
    /// Profile to read by: a file; embedded, the one that `convert --embed-warm` put into the image; or from-image, the one that `esgz
    /// profile push` put beside the image of --image (where there are several, from-image:NAME) [default: embedded]
    #[arg(long, value_name = "FILE", value_parser = place)]
    profile: Option<Place>,
    /// Image that --profile from-image is about
    #[arg(long, value_name = "REF")]
    image: Option<Reference>,
    /// Its platform
    #[arg(long, value_name = "OS/ARCH", default_value = "linux/amd64", value_parser = platforms, requires = "image")]
    platform: Platforms,
    /// Files to read whole, beside the profile, such as model weights on a volume; `*`, `?` and `**` as in the shell. May be given
    /// more than once
    #[arg(long, value_name = "GLOB")]
    also: Vec<String>,
    /// When the list is done, fetch the rest of the image at idle pace, so that no registry is needed later
    #[arg(long)]
    then_rest: bool,
    /// Begin with the rest when URL gives a 2xx answer (plain HTTP to this machine)
    #[arg(long, value_name = "URL", requires = "then_rest", value_parser = local)]
    until_http: Option<String>,
    /// Most bytes of the rest a second
    #[arg(long, value_name = "BYTES", requires = "then_rest", default_value_t = warm::REST_RATE, value_parser = size)]
    rest_rate: u64,
    /// Folder that paths are looked for in
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Command to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Read ahead on a node: what an image carries of its profile is read as soon as its lazy layers are mounted, during the pull
///
/// Runs until it is told to stop (SIGTERM, Ctrl-C), and needs to see containerd's content store and the stargz snapshotter's mounts.
#[derive(Debug, clap::Args)]
struct NodeArgs {
    /// Folder that the stargz snapshotter mounts below
    #[arg(long, value_name = "DIR", default_value = "/var/lib/containerd-stargz-grpc")]
    mounts: PathBuf,
    /// containerd's content store, the folder that holds blobs/sha256
    #[arg(long, value_name = "DIR", default_value = "/var/lib/containerd/io.containerd.content.v1.content")]
    content: PathBuf,
    /// Read images that are mounted already, too
    #[arg(long)]
    existing: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
#[group(id = "warm-common")]
struct Common {
    /// Most reads in flight, on a node for all images together; fewer are made while the CPUs are busy
    #[arg(long, value_name = "N", default_value_t = warm::THREADS, value_parser = threads)]
    threads: usize,
    /// Where reading ends: an amount (500M, 2G) or a time (30s). May be given twice, one of each
    #[arg(long, value_name = "BYTES|TIME", value_parser = budget)]
    budget: Vec<Bound>,
    /// Write what was done here, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Default for Common {
    fn default() -> Self {
        Self { threads: warm::THREADS, budget: Vec::new(), json: None }
    }
}

/// Where a profile comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Embedded,
    Other(Profiled),
}

fn place(text: &str) -> Result<Place, String> {
    if text == "embedded" { Ok(Place::Embedded) } else { profiled::profiled(text).map(Place::Other) }
}

fn threads(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=256).contains(n)).ok_or_else(|| "expected a number from 1 to 256".into())
}

fn local(text: &str) -> Result<String, String> {
    let url: crate::http::Url = text.parse().map_err(|e| format!("{e}"))?;
    let here = url.scheme() == "http" && url.host_str().is_some_and(is_loopback);
    here.then(|| text.to_owned()).ok_or_else(|| "expected http:// to 127.0.0.1, localhost or [::1]".into())
}

/// One limit of the reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Bytes(u64),
    Time(Duration),
}

fn budget(text: &str) -> Result<Bound, String> {
    if let Some(seconds) = text.strip_suffix('s') {
        let seconds = seconds.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
        return seconds.map(Bound::Time).ok_or_else(|| "expected seconds, as 30s or 0.5s".into());
    }
    size(text).map(Bound::Bytes).map_err(|e| format!("{e}, or seconds as 30s"))
}

fn size(text: &str) -> Result<u64, String> {
    let units = [("K", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)];
    let (number, unit) = units.iter().find_map(|(s, n)| Some((text.strip_suffix(s)?, *n))).unwrap_or((text, 1));
    let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).filter(|n| *n > 0);
    bytes.ok_or_else(|| "expected bytes, as 500000, 500M or 2G".into())
}

impl Common {
    fn budget(&self) -> Result<Budget, Failure> {
        let mut out = Budget::default();
        for bound in &self.budget {
            let again = match *bound {
                Bound::Bytes(n) => out.bytes.replace(n).is_some(),
                Bound::Time(t) => out.time.replace(t).is_some(),
            };
            if again {
                return Err(Failure::new(2, "--budget is given twice for the same").hint("one amount and one time"));
            }
        }
        Ok(out)
    }

    fn save(&self, report: &impl serde::Serialize) -> io::Result<()> {
        self.json.as_ref().map_or(Ok(()), |path| whole::json(path, report))
    }
}

pub(super) fn run(args: Args, out: &Output) -> Result<u8, Failure> {
    match (args.command, args.own, args.common) {
        (Some(Command::Run(args)), ..) => beside(&args.own, &args.common, out),
        (Some(Command::Node(args)), ..) => on_node(args, out),
        // A part of which nothing was given is none to clap.
        (None, Some(own), common) => beside(&own, &common.unwrap_or_default(), out),
        (None, ..) => {
            Err(Failure::new(2, "nothing to do").hint("esgz warm -- COMMAND, or see what there is with --help"))
        }
    }
}

fn beside(args: &Own, common: &Common, out: &Output) -> Result<u8, Failure> {
    let options = warm::Options {
        threads: common.threads,
        budget: common.budget()?,
        also: args.also.clone(),
        rest: args.then_rest.then_some(args.rest_rate),
        ready: args.until_http.clone(),
    };
    if matches!(args.profile, Some(Place::Other(Profiled::Image(_)))) && args.image.is_none() {
        return Err(
            Failure::new(2, "--profile from-image needs --image REF").hint("the image that this container runs")
        );
    }
    let off = std::env::var_os(SWITCH).is_some_and(|v| v == "off");
    if !off {
        // What is watched is this process, which the workload becomes.
        let mut workload = Watched::this_process();
        match split() {
            Ok(Side::Workload) => {}
            Ok(Side::Reader) => return Ok(reader(args, common, &options, &mut workload, out)),
            Err(e) => out.say(format_args!("esgz warm: nothing is read ahead: {e}")),
        }
    }
    let Some((program, arguments)) = args.command.split_first() else {
        return Err(Failure::new(2, "no command"));
    };
    let failed = std::process::Command::new(program).args(arguments).exec();
    let code = match failed.kind() {
        io::ErrorKind::NotFound => 127,
        io::ErrorKind::PermissionDenied => 126,
        _ => 125,
    };
    Err(Failure::new(code, format!("cannot run {}: {failed}", program.display())))
}

/// The other process. Nothing of it concerns the workload.
fn reader(args: &Own, common: &Common, options: &warm::Options, workload: &mut Watched, out: &Output) -> u8 {
    detach();
    let profile = match profile_of(args, out) {
        Ok(profile) => profile,
        Err(e) => {
            out.say(format_args!("esgz warm: nothing is read ahead by a profile: {}", super::chain(&*e.error)));
            None
        }
    };
    let done = warm::run(profile.as_ref(), &args.root, options, || workload.is_alive());
    let report = match done {
        Ok(report) => report,
        Err(e) => {
            out.say(format_args!("esgz warm: nothing is read ahead: {}: {e}", args.root.display()));
            return 1;
        }
    };
    out.say(format_args!("esgz warm: {}", report.summary()));
    if let Err(e) = common.save(&report) {
        out.say(format_args!("esgz warm: the report is not written: {e}"));
    }
    0
}

/// Takes nothing from the workload: not its input, not its output, and where memory is short the reader goes first.
fn detach() {
    if let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _best_effort = nix::unistd::dup2_stdin(&null).and_then(|()| nix::unistd::dup2_stdout(&null));
    }
    let _best_effort = std::fs::write("/proc/self/oom_score_adj", "1000");
}

fn profile_of(args: &Own, out: &Output) -> Result<Option<Profile>, Failure> {
    let embedded = Path::new(wrapped::FOLDER).join(wrapped::PROFILE);
    let profile = match &args.profile {
        None if !embedded.exists() && !args.also.is_empty() => None,
        None | Some(Place::Embedded) => {
            let profile = profile::read(&embedded)?;
            // Of the image, unlike a profile's own: the machine that its compiled caches were made on.
            if let Some(foreign) = warm::foreign(&profile.header.host, &record::machine()) {
                out.say(format_args!("esgz warm: warning: {foreign}"));
            }
            Some(profile)
        }
        Some(Place::Other(other)) => {
            // Only `from-image` asks for it.
            let none = Reference::Layout { dir: PathBuf::new(), tag: None };
            let image = args.image.as_ref().unwrap_or(&none);
            profiled::read(std::slice::from_ref(other), image, &args.platform)?.into_iter().next()
        }
    };
    if let Some(lost) = profile.as_ref().map(|p| p.header.lost_events).filter(|n| *n > 0) {
        out.say(format_args!("esgz warm: the profile is incomplete: its recorder lost {lost} events"));
    }
    Ok(profile)
}

fn on_node(args: NodeArgs, out: &Output) -> Result<u8, Failure> {
    for (flag, dir) in [("--mounts", &args.mounts), ("--content", &args.content)] {
        if !dir.is_dir() {
            return Err(Failure::new(1, format!("{flag} {} is no folder", dir.display()))
                .hint("in a DaemonSet the node's folder must be mounted, with mountPropagation HostToContainer"));
        }
    }
    let budget = args.common.budget()?;
    let runs = Arc::new(AtomicBool::new(true));
    let stop = Arc::clone(&runs);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut terminated = runtime.block_on(async { signal(SignalKind::terminate()) })?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        });
        stop.store(false, Ordering::Relaxed);
    });
    let node = node::Node { mounts: args.mounts, content: args.content, threads: args.common.threads, budget };
    let images = node::watch(
        &node,
        args.existing,
        || runs.load(Ordering::Relaxed),
        |event| match event {
            node::Event::Image(i) => out.say(format_args!(
                "{}: read {} bytes ahead in {} ms ({} were there, {} passed over), {} lazy layers",
                i.manifest, i.counts.bytes_read, i.ms, i.counts.bytes_resident, i.counts.bytes_skipped, i.layers
            )),
            node::Event::Warning(text) => out.say(format_args!("warning: {text}")),
        },
    )?;
    args.common.save(&node::Report::of(images))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_an_amount_or_a_time() {
        assert_eq!(budget("500M"), Ok(Bound::Bytes(500_000_000)));
        assert_eq!(budget("7"), Ok(Bound::Bytes(7)));
        assert_eq!(budget("0.5s"), Ok(Bound::Time(Duration::from_millis(500))));
        for bad in ["", "s", "-1s", "1e99s", "0", "12Q", "99999999999G"] {
            assert!(budget(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_this_machine_is_asked() {
        assert!(local("http://127.0.0.1:8000/health").is_ok() && local("http://[::1]/x").is_ok());
        for bad in ["http://10.0.0.1/", "https://localhost/", "file:///x", "x"] {
            assert!(local(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_profile_is_a_file_unless_it_says_otherwise() {
        assert_eq!(place("embedded"), Ok(Place::Embedded));
        assert_eq!(place("./embedded"), Ok(Place::Other(Profiled::File("./embedded".into()))));
        assert_eq!(place("from-image:a"), Ok(Place::Other(Profiled::Image(Some("a".into())))));
    }
}
