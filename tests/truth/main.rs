//! The ground truth of recorders: a workload that touches known bytes of known files, run under every recorder on every kind of file
//! system that this machine has, and a table of what each recorder must see of it.
//!
//! `truth workload DIR REPORT.json` is the workload. Without arguments it is the test (root needed); arguments name the recorders to
//! be tested. `ESGZ_TRUTH_BIG=1` adds a sequential read of 5 GB. `ESGZ_TRUTH_TABLE=FILE` writes the table as markdown, too.
#![expect(clippy::print_stdout, reason = "a test of its own, without a harness")]

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use esgz::profile::{Profile, read};

mod contract;
mod judge;
mod ranges;
mod rig;
mod workload;

use judge::Verdict;
use rig::{Kind, Rig};

const RECORDERS: [&str; 5] = ["filemap", "page-cache", "fanotify", "residency", "seccomp"];
/// Without these the binary is not whole.
const REQUIRED: [&str; 5] = ["filemap", "page-cache", "fanotify", "residency", "seccomp"];

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(first) = args.first().and_then(|a| a.to_str())
        && workload::is_workload(first)
    {
        return workload::main(&args);
    }
    let wanted: Vec<&str> = args.iter().filter_map(|a| a.to_str()).filter(|a| !a.starts_with('-')).collect();
    let root = nix::unistd::geteuid().is_root();
    assert!(root || std::env::var_os("CI").is_none(), "the ground truth needs root; CI must give it to the test");
    if !root {
        println!("SKIPPED: the ground truth needs root (mounts, tracing)");
        return ExitCode::SUCCESS;
    }
    rig::own_mount_namespace();
    let mut all = Vec::new();
    let (mut passed, mut failed) = (0, 0);
    for recorder in RECORDERS.into_iter().filter(|r| wanted.is_empty() || wanted.contains(r)) {
        for kind in Kind::ALL {
            let verdicts = match undisturbed(recorder, kind) {
                Run::Judged(verdicts) => verdicts,
                Run::Skipped(why) => {
                    println!("SKIPPED: {recorder} on {kind}: {why}");
                    continue;
                }
                Run::NotBuilt if REQUIRED.contains(&recorder) => {
                    println!("FAILED: this esgz does not know the recorder {recorder}");
                    failed += 1;
                    break;
                }
                Run::NotBuilt => {
                    println!("NOT BUILT: this esgz does not know the recorder {recorder}");
                    break;
                }
                Run::Failed(why) => {
                    println!("FAILED: {recorder} on {kind}: {why}");
                    failed += 1;
                    continue;
                }
            };
            for v in &verdicts {
                passed += u32::from(v.wrong.is_none());
                failed += u32::from(v.wrong.is_some());
                println!("{recorder:<11} {kind:<8} {v}");
            }
            all.push((recorder, kind, verdicts));
        }
    }
    let table = markdown(&all);
    println!("\n{table}");
    if let Some(path) = std::env::var_os("ESGZ_TRUTH_TABLE") {
        std::fs::write(path, &table).expect("the table's file can be written");
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

enum Run {
    Judged(Vec<Verdict>),
    Skipped(String),
    NotBuilt,
    Failed(String),
}

/// One recorder on one kind of file system, again where something is wrong and somebody else took pages out of the page cache
/// meanwhile: then every recorder may miss something, and rightly so.
fn undisturbed(recorder: &str, kind: Kind) -> Run {
    for _ in 1..TRIES {
        let before = Cache::now();
        let run = one(recorder, kind);
        let wrong = matches!(&run, Run::Judged(verdicts) if verdicts.iter().any(|v| v.wrong.is_some()));
        let Some(who) = Cache::now().taken_since(&before).filter(|_| wrong) else { return run };
        println!("AGAIN: {who} while {recorder} ran on {kind}");
    }
    one(recorder, kind)
}

const TRIES: u32 = 4;

/// What has been taken out of this machine's page cache so far.
struct Cache {
    /// Times that it was dropped.
    drops: u64,
    /// Pages that were reclaimed.
    reclaimed: u64,
    /// Bytes that DAMON paged out because nobody seemed to need them.
    paged_out: u64,
}

impl Cache {
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
        let sum = |prefix: &str| {
            let counts = text.lines().filter_map(|l| l.strip_prefix(prefix)?.rsplit(' ').next()?.parse::<u64>().ok());
            counts.sum()
        };
        Self { drops: sum("drop_pagecache "), reclaimed: sum("pgsteal_"), paged_out: paged_out() }
    }

    /// Who took something since; a recorder's own drop is none.
    fn taken_since(&self, before: &Self) -> Option<&'static str> {
        const OURS: u64 = 1;
        if self.drops - before.drops > OURS {
            return Some("the page cache was dropped by another program");
        }
        if self.reclaimed > before.reclaimed {
            return Some("memory was reclaimed");
        }
        (self.paged_out > before.paged_out).then_some("DAMON paged out files")
    }
}

/// Bytes that DAMON's schemes have worked on, if one runs here: a daemon of the kernel that pages out what was not used for a while, by
/// regions of memory, so that a page that was just read may be among it.
fn paged_out() -> u64 {
    let entries = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    let mut sum = 0;
    for daemon in entries(Path::new("/sys/kernel/mm/damon/admin/kdamonds")) {
        // Its figures are as of the last time that somebody asked for them.
        let _asked = std::fs::write(daemon.join("state"), "update_schemes_stats");
        for scheme in entries(&daemon.join("contexts")).flat_map(|c| entries(&c.join("schemes")).collect::<Vec<_>>()) {
            let text = std::fs::read_to_string(scheme.join("stats/sz_applied")).unwrap_or_default();
            sum += text.trim().parse::<u64>().unwrap_or_default();
        }
    }
    sum
}

/// One recorder on one kind of file system.
fn one(recorder: &str, kind: Kind) -> Run {
    let rig = match Rig::new(kind) {
        Ok(rig) => rig,
        Err(why) => return Run::Skipped(why),
    };
    let output = rig.dir().join("profile.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_esgz"));
    command.args(["profile", "run", "--recorder", recorder, "--root"]).arg(rig.root()).arg("-o").arg(&output);
    let out = command.args(["--", "/truth", "workload", "/data", "/out/report.json"]).output().expect("esgz runs");
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    match out.status.code() {
        Some(0) => {}
        Some(2) if words.contains("--recorder") => return Run::NotBuilt,
        // Its own refusal: the kernel or the host lacks something.
        Some(125) => return Run::Skipped(words.trim().replace('\n', " ")),
        _ => return Run::Failed(format!("{}: {words}", out.status)),
    }
    let profile = std::fs::read(&output).map_err(|e| e.to_string()).and_then(|b| read(&b).map_err(|e| e.to_string()));
    let report = workload::read_report(&rig.root().join("out/report.json"));
    match (profile, report) {
        (Ok(profile), Ok(report)) => Run::Judged(judged(recorder, kind, &profile, &report, &output)),
        (Err(why), _) => Run::Failed(format!("no profile: {why}")),
        (_, Err(why)) => Run::Failed(format!("no report: {why}")),
    }
}

fn judged(recorder: &str, kind: Kind, profile: &Profile, report: &workload::Report, output: &Path) -> Vec<Verdict> {
    for (case, why) in &report.skipped {
        println!("SKIPPED: {case}: {why}");
    }
    let mut verdicts: Vec<Verdict> =
        report.touched.iter().map(|t| judge::judge(t, profile, contract::of(recorder, &t.case, kind))).collect();
    verdicts.push(judge::lost(profile));
    // Kept for whoever looks into a failure.
    if verdicts.iter().any(|v| v.wrong.is_some())
        && let Some(keep) = std::env::var_os("ESGZ_TRUTH_KEEP")
    {
        let to = Path::new(&keep).join(format!("{recorder}-{kind}.json"));
        std::fs::copy(output, to).expect("the profile can be kept");
    }
    verdicts
}

/// A row a case, a column a recorder and file system: recall and precision in per cent.
fn markdown(all: &[(&str, Kind, Vec<Verdict>)]) -> String {
    let mut cases: Vec<&str> = Vec::new();
    for v in all.iter().flat_map(|(_, _, verdicts)| verdicts) {
        if !cases.contains(&v.case.as_str()) {
            cases.push(&v.case);
        }
    }
    let mut out = String::from("| recall / precision, % |");
    for (recorder, kind, _) in all {
        let _infallible = write!(out, " {recorder}, {kind} |");
    }
    out.push_str("\n|---|");
    out.push_str(&"---|".repeat(all.len()));
    for case in cases {
        let _infallible = write!(out, "\n| {case} |");
        for (_, _, verdicts) in all {
            let cell = verdicts.iter().find(|v| v.case == case).map_or_else(String::new, Verdict::cell);
            let _infallible = write!(out, " {cell} |");
        }
    }
    out.push('\n');
    out
}
