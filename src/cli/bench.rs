//! `esgz bench`: measures start-up and shows what was measured.
//!
//! The table goes to stdout, progress to stderr. Exit codes: 0 all runs count, 1 something failed, 3 at least one run is
//! invalid, 130 interrupted (the stack is left down, but for its registry, and what was measured is shown as partial).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use super::output::Output;
use super::profile;
use super::{Failure, whole};
use crate::bench::local::Event;
use crate::bench::result::{Outcome, Report, Run};
use crate::bench::{Arm, Bench, Error, Options, Preset, flat, page, report};

/// Measure start-up from the pull to the first chat answer
#[derive(Debug, Args)]
pub struct Command {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
    Local(Box<Local>),
    Report(Show),
}

/// Benchmark on this machine: containerd, stargz snapshotter and a registry behind a slow link
///
/// Every run starts from wiped state and a dropped page cache, rounds are interleaved, and each run carries the evidence that
/// it was cold and that exactly the layers meant to be lazy were. Needs root.
#[derive(Debug, Args)]
struct Local {
    /// Shell words that run the stack script (reset, env, down)
    #[arg(long, value_name = "CMD")]
    stack: String,
    /// An arm; `original=REF` is the baseline (overlayfs, cold and warm), others run cold under stargz
    ///
    /// Options: `disk` (the image is pulled before the clock, then the page cache is dropped), `tuned` (overlayfs: containerd downloads
    /// and unpacks as fast as it can), `stock` (stargz with its default settings), `warm:FILE` (`esgz warm` with this profile in the
    /// container, without a change to the image), `node` (`esgz warm node` on the machine).
    #[arg(long = "arm", value_name = "NAME[@SNAPSHOTTER][,OPTION...]=REF", required = true)]
    arms: Vec<Arm>,
    /// Rounds: runs of each arm
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// What the order of the arms in each round is drawn from; another one each time unless given, and kept in the report
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
    /// Shape of the link: gke-ar, lan or slow; single figures below override it
    #[arg(long, value_name = "PRESET", value_parser = preset)]
    link: Option<Preset>,
    /// Latency of the link, added to each request [default: 30, or the preset's]
    #[arg(long, value_name = "MS")]
    latency_ms: Option<u64>,
    /// Bandwidth of the link, all connections together, in 10^6 bytes a second; 0 for no limit [default: 400, or the preset's]
    #[arg(long, value_name = "MB/S")]
    bandwidth_mb: Option<u64>,
    /// Bandwidth of each connection, in 10^6 bytes a second; 0 for no limit [default: 0, or the preset's]
    #[arg(long, value_name = "MB/S")]
    connection_mb: Option<u64>,
    /// A static esgz for arms that read ahead [default: this program]
    #[arg(long, value_name = "FILE")]
    warm_binary: Option<PathBuf>,
    /// Port of the workload on 127.0.0.1
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Where the link listens
    #[arg(long, default_value = "127.0.0.1:5071", value_name = "ADDRESS")]
    listen: String,
    /// Write the report here as JSON, renewed after each run; `-`: to stdout in place of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Go on after a failed run
    #[arg(long)]
    keep_going: bool,
    /// Behind the rounds, run each arm that reads ahead of lazy layers once more with the recorder on, for precision, recall and misses
    ///
    /// These runs are in no other figure. Needs a kernel with the filemap tracepoints (6.12 or so); without them it is said and left.
    #[arg(long)]
    trace: bool,
    /// Longest time for one phase of a run, and for one call of the stack script, in seconds
    #[arg(long, default_value_t = 600, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Environment of the container; the value is not recorded
    #[arg(long = "env", value_name = "K=V", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Profile of the original's start: what `plan` predicts from it for each arm stands beside what is measured
    #[arg(long, value_name = "FILE")]
    predict: Option<PathBuf>,
    /// Keep logs and evidence of each run in this folder (new or empty)
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
    /// Arguments of the container in place of the image's own
    #[arg(last = true)]
    args: Vec<String>,
}

/// Show a report again: tables, one line a run for other programs, statistics, or a page
///
/// Everything is made anew from the raw data in FILE.
#[derive(Debug, Args)]
struct Show {
    /// A file that `bench local --json` wrote
    file: PathBuf,
    /// How to show it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// File to write; - is stdout
    #[arg(long, short, default_value = "-", value_name = "FILE")]
    output: PathBuf,
    /// Write each picture into this folder as an SVG file of its own
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// Tables and words
    Table,
    /// A flat JSON object a run
    Jsonl,
    /// A line a run
    Csv,
    /// The statistics
    Json,
    /// One page for the browser, which needs nothing else
    Html,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((k, v)) if !k.is_empty() => Ok((k.into(), v.into())),
        _ => Err("expected K=V".into()),
    }
}

/// Runs the command.
pub fn run(command: Command, out: &Output) -> Result<u8, Failure> {
    match command.command {
        Sub::Local(args) => local(*args, out),
        Sub::Report(show) => {
            let text = std::fs::read_to_string(&show.file)
                .map_err(|e| Failure::new(1, format!("{}: {e}", show.file.display())))?;
            show_again(&show, &report::read(&text)?, out)
        }
    }
}

fn show_again(show: &Show, report: &Report, out: &Output) -> Result<u8, Failure> {
    let text = match show.format {
        Format::Table => report::render(report),
        Format::Jsonl => flat::jsonl(report),
        Format::Csv => flat::csv(report),
        Format::Json => serde_json::to_string_pretty(&report::Summary::of(report))? + "\n",
        Format::Html => page::page(report),
    };
    let failed = |path: &Path, e| Failure::new(1, format!("cannot write {}: {e}", path.display()));
    if let Some(folder) = &show.svg {
        std::fs::create_dir_all(folder).map_err(|e| failed(folder, e))?;
        let files = page::files(report);
        for (name, svg) in &files {
            let path = folder.join(name);
            whole::write(&path, |file| file.write_all(svg.as_bytes())).map_err(|e| failed(&path, e))?;
        }
        out.say(format_args!("{} pictures in {}", files.len(), folder.display()));
    }
    if show.output != Path::new("-") {
        whole::write(&show.output, |file| file.write_all(text.as_bytes())).map_err(|e| failed(&show.output, e))?;
    } else if matches!(show.format, Format::Table) {
        // For a terminal: what it would obey is taken out.
        out.data(text.trim_end());
    } else {
        out.bytes(text.as_bytes())?;
    }
    Ok(0)
}

fn local(args: Local, out: &Output) -> Result<u8, Failure> {
    let json = args.json;
    let (latency, all, each) = args.link.map_or((30, 400, 0), Preset::figures);
    let own = args.latency_ms.is_some() || args.bandwidth_mb.is_some() || args.connection_mb.is_some();
    let predict = args.predict.as_deref().map(profile::read).transpose()?;
    let options = Options {
        stack: args.stack,
        arms: args.arms,
        rounds: args.runs,
        seed: args.seed.unwrap_or_else(seed),
        preset: args.link.filter(|_| !own),
        latency: Duration::from_millis(args.latency_ms.unwrap_or(latency)),
        bandwidth_mb: args.bandwidth_mb.unwrap_or(all),
        connection_mb: args.connection_mb.unwrap_or(each),
        warm_binary: args.warm_binary,
        port: args.port,
        listen: args.listen,
        timeout: Duration::from_secs(args.timeout),
        keep_going: args.keep_going,
        trace: args.trace,
        env: args.env,
        args: args.args,
        predict,
        evidence: args.evidence,
    };
    let file = json.as_deref().filter(|f| *f != Path::new("-"));
    let keep = |report: &Report| match file {
        Some(file) => whole::json(file, report),
        None => Ok(()),
    };
    let watch = |report: &Report, event: Event<'_>| match event {
        Event::Step(what) => out.say(what),
        Event::Run(run) => {
            out.say(line(run));
            if let Err(e) = keep(report) {
                out.say(format_args!("warning: the report is not saved: {e}"));
            }
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut bench = Bench::new(options, &watch).map_err(unusable)?;
    // None: interrupted.
    let ended = runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            ended = bench.run() => Ok::<_, std::io::Error>(Some(ended)),
            _ = tokio::signal::ctrl_c() => Ok(None),
            _ = terminated.recv() => Ok(None),
        }
    })?;
    if ended.is_none() {
        out.say("interrupted: stopping the containers and the stack");
    }
    let cleaned = runtime.block_on(bench.clean_up());
    let report = bench.report();
    let saved = keep(report);
    if json.is_some() && file.is_none() {
        out.data(serde_json::to_string_pretty(report)?);
    } else {
        out.data(report::render(report).trim_end());
    }
    match (ended, cleaned) {
        (None, cleaned) => {
            if let Err(e) = cleaned {
                out.failure(&Failure::from(e).hint("the stack may still run: call its `down`"));
            }
            return Ok(130);
        }
        (Some(Err(e)), _) => return Err(e.into()),
        (Some(Ok(())), Err(e)) => return Err(Failure::from(e).hint("the figures stand; the stack may still run")),
        (Some(Ok(())), Ok(())) => {}
    }
    saved?;
    Ok(code(report))
}

fn preset(name: &str) -> Result<Preset, String> {
    let known = || Preset::ALL.map(Preset::name).join(", ");
    Preset::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| format!("expected one of {}", known()))
}

/// Another one each time.
fn seed() -> u32 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_nanos())
}

fn unusable(error: Error) -> Failure {
    let hint = matches!(error, Error::Dynamic(_)).then_some("scripts/static builds one; name it with --warm-binary");
    let failure = Failure { code: 2, ..Failure::from(error) };
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// 3 when a run is invalid; 1 when an arm has nothing but failed runs, or a traced run failed.
fn code(report: &Report) -> u8 {
    let measured = |row: &str| report.runs.iter().any(|r| r.row == row && r.measured().is_some());
    if report.runs.iter().any(|r| !measured(&r.row)) || report.traced.iter().any(|r| r.measured().is_none()) {
        1
    } else if report.runs.iter().chain(&report.traced).any(|r| r.measured().is_some_and(|m| !m.invalid.is_empty())) {
        3
    } else {
        0
    }
}

fn line(run: &Run) -> String {
    match &run.outcome {
        Outcome::Failed { error, .. } => format!("  failed: {error}"),
        Outcome::Measured(m) => {
            let s = |ms: u64| Duration::from_millis(ms).as_secs_f64();
            let p = m.phases;
            let pull = p.pull_ms.map_or(String::new(), |ms| format!("pull {:.2} + ", s(ms)));
            let valid = match (m.invalid.is_empty(), run.traced) {
                (false, _) => " INVALID",
                (true, true) => " (traced, not counted)",
                (true, false) => "",
            };
            format!(
                "  {pull}create {:.2} + ready {:.2} + chat {:.2} = {:.2} s{valid}",
                s(p.create_ms),
                s(p.ready_ms),
                s(p.chat_ms),
                s(p.total_ms)
            )
        }
    }
}
