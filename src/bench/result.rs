//! The document a benchmark leaves: schema `esgz.bench/v1`. Plain data, written as JSON and rendered by `report`.
//!
//! Times are whole milliseconds between marks on one clock, so the phases of a run add up to its total exactly. Values of
//! environment variables are never part of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::evidence::Evidence;
use super::trace::Trace;
use crate::digest::Digest;
use crate::plan::Predicted;
use crate::profile::cover::Cover;

/// What `schema` says.
pub const SCHEMA: &str = "esgz.bench/v1";

/// One benchmark.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Version of the writer.
    pub esgz: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// When the last run was over.
    pub finished: String,
    /// False when it was interrupted or gave up: what is here was measured, the rest was not.
    pub complete: bool,
    /// The machine.
    pub machine: Machine,
    /// Versions of what took part, as they tell them themselves.
    pub versions: BTreeMap<String, String>,
    /// The link in front of the registry, the same for all arms.
    pub link: LinkShape,
    /// What was asked of the workload.
    pub workload: Workload,
    /// Runs asked for, per arm.
    pub rounds: u32,
    /// What the order of the arms in each round was drawn from.
    #[serde(default)]
    pub seed: u32,
    /// What the predictions take for the workload's own time, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Anchor>,
    /// The arms.
    pub arms: Vec<ArmFacts>,
    /// Every run in the order it was made, but for the traced ones.
    pub runs: Vec<Run>,
    /// Runs behind the rounds in which the recorder looked on, one for each arm that reads ahead of lazy layers: in no figure
    /// but precision, recall and misses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traced: Vec<Run>,
    /// Why no run was traced although it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untraced: Option<String>,
}

/// Facts about the machine.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Machine {
    /// CPUs this process may use.
    pub cpus: usize,
    /// Model name of the first one.
    pub cpu_model: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Kernel release.
    pub kernel: String,
}

/// The link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkShape {
    /// Added to each request.
    pub latency_ms: u64,
    /// All connections together, 10^6 bytes a second; 0: not limited.
    pub bandwidth_mb: u64,
    /// Each connection, 10^6 bytes a second; 0: not limited.
    #[serde(default)]
    pub connection_mb: u64,
    /// The preset that the numbers come from, where none was overridden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Where it listened.
    pub listen: String,
    /// The registry behind it.
    pub upstream: String,
}

/// The question and how it was put.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Workload {
    /// Port of the workload on 127.0.0.1.
    pub port: u16,
    /// The prompt.
    pub prompt: String,
    /// Tokens asked for.
    pub max_tokens: u32,
    /// Names of the environment variables given to the container.
    pub env: Vec<String>,
    /// Arguments given to the container in place of the image's own.
    pub args: Vec<String>,
}

/// An arm and the image behind it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ArmFacts {
    /// Its name.
    pub name: String,
    /// The reference in the registry.
    pub reference: String,
    /// Which snapshotter ran it.
    pub snapshotter: String,
    /// Digest the reference resolved to.
    pub manifest: Digest,
    /// Digest of the image config.
    pub config: Digest,
    /// Layers, lowest first.
    pub layers: Vec<LayerFacts>,
    /// What was done besides pulling and starting, as the arm's options spell it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// What `plan` predicted for it on this link, if it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Predicted>,
}

/// How long a warm start of the original takes, for predictions of everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// From the container's start to ready.
    pub ready_ms: u64,
    /// It is the median of this report's own warm runs of the original, and not the time in the profile.
    pub measured: bool,
    /// The same of a start that finds what it would write, as measured here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_ms: Option<u64>,
}

/// A layer of an arm's image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LayerFacts {
    /// Blob digest.
    pub digest: Digest,
    /// Blob size.
    pub size: u64,
    /// It carries the TOC digest annotation that lazy mounting needs.
    pub toc: bool,
    /// Our annotation of its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Chain ID: what containerd calls the snapshot of this layer on those below.
    pub chain: Digest,
}

/// How a run starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// Wiped state, page cache dropped, image not there.
    Cold,
    /// Image on disk, page cache dropped.
    Warm,
}

/// One run of one arm.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// Row of the table: the arm, and its start where an arm has both.
    pub row: String,
    /// The arm's name.
    pub arm: String,
    /// How it started.
    pub start: Start,
    /// Round, from 1; 0 behind the rounds.
    pub round: u32,
    /// When it began, RFC 3339.
    pub started: String,
    /// Load average of the last minute before it began.
    pub load: String,
    /// How fast the CPUs were before it began: MB (10^6 bytes) that each of them inflated and hashed in a
    /// second of its time while all did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_mb: Option<u64>,
    /// It was measured and nothing speaks against it: it counts, unless it was traced.
    pub valid: bool,
    /// The recorder looked on, which takes time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub traced: bool,
    /// Measured to the end.
    pub outcome: Outcome,
}

/// How a run ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "status")]
pub enum Outcome {
    /// It answered; whether it counts is in `invalid`.
    Measured(Box<Measured>),
    /// It did not get to an answer.
    Failed {
        /// Why.
        error: String,
        /// Last lines of the container.
        log: Vec<String>,
    },
}

/// What was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// Times.
    pub phases: Phases,
    /// Requests and bytes over the link.
    pub link: Split<Traffic>,
    /// CPU time used.
    pub cpu: Split<CpuUse>,
    /// The answer's text.
    pub answer: String,
    /// Lazy layers, as observed.
    pub lazy_layers: usize,
    /// All layers.
    pub layers: usize,
    /// Why this run does not count; empty when it does.
    pub invalid: Vec<String>,
    /// What the verdict rests on.
    pub evidence: Evidence,
    /// Named moments in order: `pulled`, `created`, `first-log`, the phases of the workload's log lines, `ready`, `first-token`, `answer`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<Moment>,
    /// Running totals, taken a few times a second.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    /// The snapshotter's own counters: what they grew by during the run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// What the read-ahead says of itself (`esgz warm --json`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<serde_json::Value>,
    /// What the recorder saw, in a traced run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
}

/// A named moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Its name; it begins the phase of that name.
    pub name: String,
    /// Milliseconds since the first mark of the run.
    pub at_ms: u64,
}

/// Totals since the first mark of the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Milliseconds since the first mark.
    pub at_ms: u64,
    /// Requests and bytes over the link.
    pub link: Traffic,
    /// CPU time used.
    pub cpu: CpuUse,
}

/// Milliseconds of each phase; they add up to `total_ms`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    /// `crictl pull`, from process start to its end; absent in a warm run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_ms: Option<u64>,
    /// Pod sandbox, container creation, container start.
    pub create_ms: u64,
    /// From there to the first `200` of `/health`.
    pub ready_ms: u64,
    /// From there to the end of a whole chat answer.
    pub chat_ms: u64,
    /// First mark to last.
    pub total_ms: u64,
}

/// One value a phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split<T> {
    /// During the pull.
    pub pull: T,
    /// From the end of the pull until ready.
    pub start: T,
    /// From ready to the answer.
    pub chat: T,
}

/// What went over the link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Requests.
    pub requests: u64,
    /// Bytes from the registry, headers included.
    pub bytes: u64,
}

/// CPU milliseconds, in the kernel's 10 ms ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuUse {
    /// The lazy snapshotter.
    pub snapshotter_ms: u64,
    /// containerd.
    pub containerd_ms: u64,
    /// The container's processes, a read-ahead among them included.
    pub workload_ms: u64,
    /// The reader on the node.
    #[serde(default)]
    pub reader_ms: u64,
    /// This process: the link and the probes, which share the machine with what they measure.
    pub bench_ms: u64,
}

impl Split<Traffic> {
    /// All phases together.
    pub fn total(&self) -> Traffic {
        let all = [self.pull, self.start, self.chat];
        Traffic { requests: all.iter().map(|t| t.requests).sum(), bytes: all.iter().map(|t| t.bytes).sum() }
    }
}

impl Split<CpuUse> {
    /// The snapshotter's share of the whole run.
    pub fn snapshotter_ms(&self) -> u64 {
        self.pull.snapshotter_ms + self.start.snapshotter_ms + self.chat.snapshotter_ms
    }
}

impl Run {
    /// The measurement, if there is one.
    pub fn measured(&self) -> Option<&Measured> {
        match &self.outcome {
            Outcome::Measured(m) => Some(m),
            Outcome::Failed { .. } => None,
        }
    }

    /// The measurement, if it counts. Asks the reasons themselves, whatever the flag says.
    pub fn counted(&self) -> Option<&Measured> {
        self.measured().filter(|m| !self.traced && m.invalid.is_empty())
    }

    /// What a traced run tells of its read-ahead, where nothing speaks against it.
    pub fn cover(&self) -> Option<&Cover> {
        self.measured().filter(|m| self.traced && m.invalid.is_empty())?.trace.as_ref()?.cover()
    }
}

/// Marks every measured run, traced ones too, whose answer is not the one of the first measured run of `reference` (of any arm, when
/// that one has none): temperature is 0, so another text means another program ran. Gives the rows and rounds newly marked.
pub fn cross_check(runs: &mut [Run], traced: &mut [Run], reference: &str) -> Vec<(String, u32)> {
    let first = runs.iter().filter(|r| r.arm == reference).find_map(|r| r.measured().map(|m| (r, m)));
    let Some((from, m)) = first.or_else(|| runs.iter().find_map(|r| r.measured().map(|m| (r, m)))) else {
        return Vec::new();
    };
    let (row, round, expected) = (from.row.clone(), from.round, m.answer.clone());
    let mut marked = Vec::new();
    for run in runs.iter_mut().chain(traced) {
        let (this_row, this_round) = (run.row.clone(), run.round);
        if let Outcome::Measured(m) = &mut run.outcome
            && m.answer != expected
        {
            let why = format!("the answer {:?} differs from {expected:?} of {row}, round {round}", m.answer);
            if !m.invalid.contains(&why) {
                m.invalid.push(why);
                run.valid = false;
                marked.push((this_row, this_round));
            }
        }
    }
    marked
}
