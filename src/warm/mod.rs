//! Reading ahead: the ranges that a profile names are read while the workload starts, in parallel and in the order in which it will
//! want them, through whatever file system is underneath: a lazy snapshotter's, a cold disk, a volume with weights.
//!
//! The reader never reads more than its list says and never fails the workload: what is missing, another version or not to be
//! read is counted and passed over. Hidden here: how the reader gets out of the workload's way ([`launch`]), which parts of a
//! profile are one piece of work ([`list`]), and how many are worked on at once (`pace`).
//!
//! Linux only.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::Serialize;

use crate::convert::startup::mismatch;
use crate::http::{Client, openai};
use crate::profile::{Profile, glob};

pub mod launch;
pub mod list;
pub mod node;
mod pace;
mod reader;
mod rest;
mod roots;

pub use list::List;
pub use reader::{Budget, Counts, Ended};
pub use rest::Rest;

/// Schema of the report.
pub const SCHEMA: &str = "esgz.warm/v1";
/// Most reads in flight unless said otherwise.
pub const THREADS: usize = 16;
/// Bytes a second at which the rest is fetched unless said otherwise.
pub const REST_RATE: u64 = 50_000_000;
/// Entries that are looked at for `--also`: a volume may be anything.
const MOST_ENTRIES: usize = 1_000_000;

/// What to read, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Most reads in flight.
    pub threads: usize,
    /// Where it ends.
    pub budget: Budget,
    /// Patterns of files that are read whole, beside the profile.
    pub also: Vec<String>,
    /// Fetch the rest of the image afterwards, at that many bytes a second.
    pub rest: Option<u64>,
    /// Wait with that until this page answers 2xx.
    pub ready: Option<String>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Version of the writer.
    pub version: &'static str,
    /// Why it ended.
    pub ended: Ended,
    /// What became of the list.
    #[serde(flatten)]
    pub counts: Counts,
    /// Milliseconds from the reader's start to the end of the list.
    pub ms: u64,
    /// CPU milliseconds that the reader itself used for it; the file system's are elsewhere.
    pub cpu_ms: u64,
    /// The rest of the image, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rest: Option<Rest>,
}

impl Report {
    /// One line for people.
    pub fn summary(&self) -> String {
        let c = &self.counts;
        let mb = |bytes: u64| format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10);
        let mut text = format!(
            "read {} ahead in {}.{:02} s, {} were there already, {} passed over",
            mb(c.bytes_read),
            self.ms / 1000,
            self.ms % 1000 / 10,
            mb(c.bytes_resident),
            mb(c.bytes_skipped)
        );
        let files = [
            (c.files_missing, "missing"),
            (c.files_changed, "of another version"),
            (c.files_denied, "not readable"),
            (c.files_failed, "failed"),
        ];
        for (count, what) in files.into_iter().filter(|(count, _)| *count > 0) {
            let _infallible = write!(text, ", {count} files {what}");
        }
        match self.ended {
            Ended::Done => {}
            Ended::Budget => text.push_str("; the budget was used up"),
            Ended::Stopped => text.push_str("; stopped with the workload"),
        }
        if let Some(rest) = &self.rest {
            let ended = if rest.complete { "the rest is complete" } else { "the rest is incomplete" };
            let _infallible = write!(text, "; {ended}: {} in {} files", mb(rest.bytes), rest.files);
        }
        text
    }
}

/// One line where this machine is another one than the compiled caches of an image were made on. `made_on`: what the image says of that;
/// nothing, where it brings none along.
pub fn foreign(made_on: &BTreeMap<String, String>, here: &BTreeMap<String, String>) -> Option<String> {
    let found = mismatch(made_on, here);
    let facts = found.iter().map(|m| {
        let [fact, made] = [&m.fact, &m.made].map(|text| text.escape_debug());
        format!("{fact} {made}, here {}", m.here.as_deref().unwrap_or("none").escape_debug())
    });
    let facts = facts.collect::<Vec<_>>().join("; ");
    (!found.is_empty())
        .then(|| format!("the image's compile caches were made on another machine and may be of no use here: {facts}"))
}

/// Reads ahead below `root`. `alive`: whether the workload still runs.
pub fn run(
    profile: Option<&Profile>,
    root: &Path,
    options: &Options,
    mut alive: impl FnMut() -> bool,
) -> io::Result<Report> {
    let began = Instant::now();
    let mut list = profile.map(List::of).unwrap_or_default();
    let whole_from = list.units.len();
    for (path, size) in matching(root, &options.also) {
        list.add_whole(path, size);
    }
    let roots = roots::Roots::open_all([root])?;
    let (counts, ended) = reader::read(list, whole_from, roots, options.threads, options.budget, &mut alive);
    let (ms, cpu_ms) = (millis(began.elapsed()), cpu_ms());
    let rest = match options.rest {
        Some(rate) if ended != Ended::Stopped && wait_ready(options.ready.as_deref(), &mut alive) => {
            Some(rest::fetch(root, rate, &mut alive))
        }
        _ => None,
    };
    Ok(Report { schema: SCHEMA, version: env!("CARGO_PKG_VERSION"), ended, counts, ms, cpu_ms, rest })
}

/// Until the page answers; false when the workload ended before.
fn wait_ready(url: Option<&str>, alive: &mut impl FnMut() -> bool) -> bool {
    let Some(url) = url else { return alive() };
    // Without a client nothing can be known of the workload but that it runs.
    let Ok(client) = Client::new() else { return alive() };
    while alive() {
        if openai::answers(&client, url, Duration::from_secs(2)) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    false
}

/// Files below the root that match one of the patterns, with their sizes, sorted; links to files are followed, as model caches
/// are full of them.
fn matching(root: &Path, patterns: &[String]) -> Vec<(String, u64)> {
    let mut found = BTreeMap::new();
    let mut seen = 0;
    for pattern in patterns {
        let prefix = glob::literal_prefix(pattern);
        let start = &prefix[..prefix.rfind('/').map_or(0, |i| i + 1)];
        let mut open = vec![start.trim_end_matches('/').to_owned()];
        while let Some(dir) = open.pop() {
            let Ok(entries) = std::fs::read_dir(root.join(dir.trim_start_matches('/'))) else { continue };
            for entry in entries.flatten() {
                seen += 1;
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
                if seen > MOST_ENTRIES {
                    break;
                }
                let path = format!("{dir}/{name}");
                let kind = entry.file_type();
                if kind.as_ref().is_ok_and(std::fs::FileType::is_dir) {
                    open.push(path);
                } else if glob::matches(pattern, &path)
                    && let Some((real, size)) = regular(root, &path)
                {
                    found.insert(real, size);
                }
            }
        }
    }
    found.into_iter().collect()
}

/// Where a file really is, inside the root, and its size.
fn regular(root: &Path, path: &str) -> Option<(String, u64)> {
    let real = root.join(path.trim_start_matches('/')).canonicalize().ok()?;
    let meta = real.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let inside = real.strip_prefix(root.canonicalize().ok()?).ok()?.to_str()?;
    Some((format!("/{inside}"), meta.len()))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// CPU time of this process.
fn cpu_ms() -> u64 {
    let of = |t: TimeVal| u64::try_from(t.tv_sec() * 1000 + t.tv_usec() / 1000).unwrap_or(0);
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |u| of(u.user_time()) + of(u.system_time()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_find_files_below_the_root_through_links_but_not_outside() {
        let dir = tempfile::tempdir().expect("a folder");
        let make = |path: &str, len: usize| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, vec![0; len]).expect("written");
        };
        make("models/a/blobs/x", 7);
        make("models/a/w-1.safetensors", 5);
        make("models/b/config.json", 3);
        std::os::unix::fs::symlink("blobs/x", dir.path().join("models/a/w-2.safetensors")).expect("linked");
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("models/a/w-3.safetensors")).expect("linked");
        let found = matching(dir.path(), &["/models/**/*.safetensors".into()]);
        assert_eq!(found, [("/models/a/blobs/x".to_owned(), 7), ("/models/a/w-1.safetensors".to_owned(), 5)]);
        assert_eq!(matching(dir.path(), &["/models/b/config.json".into()]), [("/models/b/config.json".to_owned(), 3)]);
        assert_eq!(matching(dir.path(), &["/none/*".into(), "relative".into()]), []);
    }

    #[test]
    fn another_machine_than_the_compiled_caches_were_made_on_is_one_line() {
        let of = |facts: &[(&str, &str)]| -> BTreeMap<String, String> {
            facts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let made = of(&[("gpus", "NVIDIA L4"), ("nvidia_driver", "580.1\n"), ("torch", "2.10.0")]);
        assert_eq!(foreign(&made, &made), None);
        assert_eq!(foreign(&of(&[]), &made), None, "an image without such caches fits everywhere");
        assert_eq!(
            foreign(&made, &of(&[("gpus", "NVIDIA T4"), ("kernel", "6")])).as_deref(),
            Some(
                "the image's compile caches were made on another machine and may be of no use here: \
                 gpus NVIDIA L4, here NVIDIA T4; nvidia_driver 580.1\\n, here none"
            )
        );
    }

    #[test]
    fn the_summary_says_what_was_passed_over() {
        let counts = Counts { bytes_planned: 9_900_000, bytes_read: 5_250_000, files_missing: 2, ..Counts::default() };
        let report = Report {
            schema: SCHEMA,
            version: "0",
            ended: Ended::Budget,
            counts,
            ms: 1234,
            cpu_ms: 5,
            rest: Some(Rest { complete: true, files: 3, bytes: 4_000_000, ..Rest::default() }),
        };
        assert_eq!(
            report.summary(),
            "read 5.2 MB ahead in 1.23 s, 0.0 MB were there already, 0.0 MB passed over, 2 files missing; the budget was used up; \
             the rest is complete: 4.0 MB in 3 files"
        );
        let json = serde_json::to_value(&report).expect("plain data");
        assert_eq!((&json["bytes_read"], &json["ended"]), (&5_250_000.into(), &"budget".into()));
    }
}
