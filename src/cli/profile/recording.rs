//! What `run` and `attach` have in common: options of a recording, and its figures in words.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValue;
use regex::Regex;

use super::super::Failure;
use super::super::output::{Output, grouped, megabytes};
use crate::profile::Profile;
use crate::record::{self, Options, Until, Which};

/// Options of a recording.
#[derive(Debug, clap::Args)]
#[group(id = "recording-args")]
pub(super) struct Args {
    /// Profile to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Keep what start-up writes, too: a tar archive of new and changed files, without secrets, logs and what lies in /tmp, /run
    /// or a volume
    #[arg(long, value_name = "FILE.tar")]
    capture: Option<PathBuf>,
    /// Stop when URL gives a 2xx answer (plain HTTP to this machine)
    #[arg(long, value_name = "URL", help_heading = UNTIL)]
    until_http: Option<String>,
    /// Status that --until-http waits for, instead of any 2xx
    #[arg(long, value_name = "STATUS", requires = "until_http", help_heading = UNTIL, value_parser = clap::value_parser!(u16).range(100..=599))]
    http_status: Option<u16>,
    /// Stop when URL (…/v1/chat/completions) has given a whole chat answer with text in it
    #[arg(long, value_name = "URL", help_heading = UNTIL)]
    until_chat: Option<String>,
    /// Model to ask with --until-chat [default: the first one served]
    #[arg(long, requires = "until_chat", help_heading = UNTIL)]
    model: Option<String>,
    /// Stop when a line on stdout or stderr matches the regular expression; may be given more than once
    #[arg(long, value_name = "REGEX", help_heading = UNTIL)]
    until_log: Vec<Regex>,
    /// Stop after that many seconds
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds, help_heading = UNTIL)]
    period: Option<Duration>,
    /// Stop when the command ends: the default when nothing else is said
    #[arg(long, help_heading = UNTIL, conflicts_with_all = ["until_http", "until_chat", "until_log", "period"])]
    until_exit: bool,
    /// Of several conditions the first one stops the recording, not the last
    #[arg(long, help_heading = UNTIL)]
    any: bool,
    /// Record on for that many seconds after the conditions have come
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds, help_heading = UNTIL)]
    grace: Duration,
    /// Give up when the conditions have not come after that many seconds
    #[arg(long, value_name = "SECONDS", default_value = "1800", value_parser = seconds, help_heading = UNTIL)]
    timeout: Duration,
    /// Write what there is even if the conditions did not come
    #[arg(long, alias = "keep-partial", help_heading = UNTIL)]
    keep_failed: bool,
    /// How to record
    #[arg(long, value_enum, default_value_t = Which::Auto)]
    recorder: Which,
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
}

const UNTIL: &str = "What ends the recording (all that are given have to come)";

impl clap::ValueEnum for Which {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::EVERY
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Auto => "The first of the others that this machine allows",
            Self::Filemap => "What is asked for, byte ranges exact to the page (kernel 6.12 or so, root)",
            Self::PageCache => "Cache misses with their read-ahead, after dropping the page cache (any kernel, root)",
            Self::Fanotify => "What is opened, and of that what comes into the page cache (root with `CAP_SYS_ADMIN`)",
            Self::Seccomp => "Every call that opens, reads or maps; slower, but without any privilege (kernel 5.6)",
            Self::Residency => "What comes into the page cache, whoever brings it there; without any privilege",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let n = text.parse::<f64>().map_err(|e| e.to_string())?;
    Duration::try_from_secs_f64(n).map_err(|e| e.to_string())
}

impl Args {
    /// As the library wants them.
    pub(super) fn options(self) -> Options {
        Options {
            output: self.output,
            capture: self.capture,
            image: self.image,
            until: Until {
                http: self.until_http.map(|url| (url, self.http_status)),
                chat: self.until_chat,
                model: self.model,
                log: self.until_log,
                period: self.period,
                any: self.any,
                grace: self.grace,
            },
            timeout: self.timeout,
            recorder: self.recorder,
            ring: usize::from(self.ring_mib) << 20,
            keep_cache: self.keep_cache,
            digest_all: self.digest_all,
            keep_failed: self.keep_failed,
        }
    }
}

/// A recording's failure with its own exit code and hint.
pub(super) fn failure(error: record::Error) -> Failure {
    let hint = error.hint().map(ToOwned::to_owned);
    Failure { code: error.code(), hint, error: Box::new(error) }
}

/// The figures of a profile, in words.
pub(super) fn say(profile: &Profile, out: &Output) {
    let header = &profile.header;
    let lost = if header.lost_events == 0 { "none lost".into() } else { format!("{} LOST", header.lost_events) };
    let touched = profile.files.iter().map(crate::profile::File::touched_bytes).fold(0, u64::saturating_add);
    let size = profile.files.iter().map(|f| f.size).fold(0, u64::saturating_add);
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
    let mut classes: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for w in &profile.writes {
        let (n, bytes) = classes.entry(&w.class).or_default();
        (*n, *bytes) = (*n + 1, bytes.saturating_add(w.size));
    }
    for (class, (n, bytes)) in classes {
        out.say(format_args!("{class} written: {} files, {}", grouped(n), megabytes(bytes)));
    }
    if let Some(c) = &header.capture {
        let left: Vec<_> = c.left_out.iter().map(|(class, n)| format!("{} {class}", grouped(*n))).collect();
        let left = if left.is_empty() { String::new() } else { format!("; left out: {}", left.join(", ")) };
        out.say(format_args!("captured {} files, {}{left}", grouped(c.files), megabytes(c.bytes)));
    }
    for note in &header.notes {
        out.say(format_args!("note: {note}"));
    }
    if header.lost_events > 0 {
        out.say("warning: the profile is incomplete; record again with a larger --ring-mib");
    }
    let total = header.unmapped.values().copied().fold(0, u64::saturating_add);
    if total > 0 {
        let list: Vec<String> = header.unmapped.iter().map(|(dev, n)| format!("{} on {dev}", grouped(*n))).collect();
        out.say(format_args!("{} events belong to no file that could be found: {}", grouped(total), list.join(", ")));
    }
    if header.host.get("root_filesystem").is_some_and(|kind| kind != "overlay") && !profile.writes.is_empty() {
        out.say("note: the root is not a container's overlay, so the writes may be those of other programs");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{File, Header, Origin, Write};

    #[test]
    fn figures_that_no_run_has_do_not_overflow() {
        let file = |path: &str| File {
            path: path.into(),
            links: vec![],
            origin: Origin::Image,
            size: u64::MAX,
            digest: None,
            first_touch_ms: 0,
            kinds: vec![],
            ranges: vec![crate::profile::Range(0, u64::MAX, 0)],
        };
        let write = Write {
            path: "/w".into(),
            size: u64::MAX,
            mode: "644".into(),
            change: "new".into(),
            class: "other".into(),
            at_ms: None,
            writer: None,
        };
        let unmapped = [("8:1".to_owned(), u64::MAX), ("8:2".to_owned(), u64::MAX)].into();
        let profile = Profile {
            schema: crate::profile::SCHEMA.into(),
            header: Header { unmapped, ..Header::default() },
            files: vec![file("/a"), file("/b")],
            writes: vec![write.clone(), write],
        };
        say(&profile, &Output::new(false));
    }
}
