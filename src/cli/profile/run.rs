//! `esgz profile run`: record what a command really reads. Passes on the command's own exit code; its own failures are 125, not
//! executable 126, not found 127.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::super::Failure;
use super::super::output::{Output, grouped, megabytes};
use crate::profile::Profile;
use crate::record::{self, Options, Until, Which};

/// Record which bytes of which files a command reads and what it writes, until it is ready.
///
/// Runs COMMAND as a child and watches its process tree through the kernel's page-cache tracepoints: byte ranges, mapped
/// files included. Needs root; in Kubernetes a privileged pod whose root is the image.
#[derive(Debug, clap::Args)]
#[group(id = "run-args")]
pub(super) struct Args {
    /// Profile to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Stop when URL gives a 2xx answer (plain HTTP to this machine)
    #[arg(long, value_name = "URL")]
    until_http: Option<String>,
    /// Stop when URL (…/v1/chat/completions) has given a whole chat answer
    #[arg(long, value_name = "URL")]
    until_chat: Option<String>,
    /// Model to ask with --until-chat [default: the first one served]
    #[arg(long, requires = "until_chat")]
    model: Option<String>,
    /// Stop when the command ends: the default when nothing else is said
    #[arg(long, conflicts_with_all = ["until_http", "until_chat", "period"])]
    until_exit: bool,
    /// Stop after that many seconds
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds, conflicts_with_all = ["until_http", "until_chat"])]
    period: Option<Duration>,
    /// Give up when the condition has not come after that many seconds
    #[arg(long, value_name = "SECONDS", default_value = "1800", value_parser = seconds)]
    timeout: Duration,
    /// How to record
    #[arg(long, value_enum, default_value_t = RecorderArg::Auto)]
    recorder: RecorderArg,
    /// Folder that the command takes for its root (chroot)
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Image reference to note in the profile
    #[arg(long, value_name = "REF")]
    image: Option<String>,
    /// Ring buffer for each CPU in MiB; less is taken where the kernel refuses
    #[arg(long, value_name = "MIB", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    ring_mib: u16,
    /// Do not drop the page cache before the start: mapped files that are cached in huge folios may then be missed
    #[arg(long)]
    keep_cache: bool,
    /// Digest touched files of any size, not only those up to 64 MiB
    #[arg(long)]
    digest_all: bool,
    /// Leave the command running once the profile is written, and pass on its exit code
    #[arg(long)]
    keep_running: bool,
    /// Write what there is even if the condition did not come
    #[arg(long)]
    keep_partial: bool,
    /// Command to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum RecorderArg {
    /// filemap where the kernel has it, else page-cache
    Auto,
    /// What is asked for, byte ranges exact to the page (kernel 6.12 or so)
    Filemap,
    /// Cache misses with their read-ahead, after dropping the page cache (any kernel)
    PageCache,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let n = text.parse::<f64>().map_err(|e| e.to_string())?;
    Duration::try_from_secs_f64(n).map_err(|e| e.to_string())
}

/// Runs it.
pub(super) fn run(args: Args, out: &Output) -> Result<u8, Failure> {
    let until = match (args.until_http, args.until_chat, args.period) {
        (None, None, None) => Until::Exit,
        (None, None, Some(period)) => Until::Period(period),
        (http, chat, _) => Until::Answers { http, chat, model: args.model },
    };
    let options = Options {
        command: args.command,
        output: args.output,
        root: args.root,
        image: args.image,
        until,
        timeout: args.timeout,
        recorder: match args.recorder {
            RecorderArg::Auto => Which::Auto,
            RecorderArg::Filemap => Which::Filemap,
            RecorderArg::PageCache => Which::PageCache,
        },
        ring: usize::from(args.ring_mib) << 20,
        keep_cache: args.keep_cache,
        digest_all: args.digest_all,
        keep_running: args.keep_running,
        keep_partial: args.keep_partial,
    };
    record::run(&options, &*out.progress(), &mut |profile| say(profile, out)).map_err(|e| {
        let hint = e.hint().map(ToOwned::to_owned);
        Failure { code: e.code(), hint, error: Box::new(e) }
    })
}

/// The figures of a profile, in words.
fn say(profile: &Profile, out: &Output) {
    let header = &profile.header;
    let lost = if header.lost_events == 0 { "none lost".into() } else { format!("{} LOST", header.lost_events) };
    let touched = profile.files.iter().map(crate::profile::File::touched_bytes).sum();
    let size = profile.files.iter().map(|f| f.size).sum();
    out.say(format_args!(
        "recorded {} events with {}, {lost}; {} files, {} touched of {}",
        grouped(header.events),
        header.recorder.name,
        grouped(profile.files.len() as u64),
        megabytes(touched),
        megabytes(size),
    ));
    for phase in &header.phases {
        out.say(format_args!("{} after {}.{:03} s", phase.name, phase.at_ms / 1000, phase.at_ms % 1000));
    }
    let of = |class: &str| {
        profile.writes.iter().filter(|w| w.class == class).fold((0, 0), |(n, bytes), w| (n + 1, bytes + w.size))
    };
    for class in ["bytecode", "cache", "log", "temporary", "other"] {
        let (n, bytes) = of(class);
        if n > 0 {
            out.say(format_args!("{class} written: {} files, {}", grouped(n), megabytes(bytes)));
        }
    }
    if header.lost_events > 0 {
        out.say("warning: the profile is incomplete; record again with a larger --ring-mib");
    }
    let total: u64 = header.unmapped.values().sum();
    if total > 0 {
        let list: Vec<String> = header.unmapped.iter().map(|(dev, n)| format!("{} on {dev}", grouped(*n))).collect();
        out.say(format_args!("{} events belong to no file that could be found: {}", grouped(total), list.join(", ")));
    }
    if header.host.get("root_filesystem").is_some_and(|kind| kind != "overlay") && !profile.writes.is_empty() {
        out.say("note: the root is not a container's overlay, so the writes may be those of other programs");
    }
}
