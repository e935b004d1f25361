//! Benchmarks of start-up: the same workload from several images, measured from the pull to the first chat answer, with the evidence
//! for each run that it was cold and that exactly the layers meant to be lazy were.
//!
//! `local` runs on one machine against a stack of containerd, stargz snapshotter and registry that a script owns (the
//! contract is in [`stack`]); the registry stands behind a slow [`link`] that is the same for every arm. Numbers that do not
//! hold are worse than none: a run that breaks a rule of [`evidence`] is shown with the reason and left out of every figure.
//!
//! Definitions. *pull*: `crictl pull`, process start to end. *create*: pod sandbox, container, start. *ready*: from there to the first
//! `200` of `/health`, asked every 25 ms. *chat*: from there to the end of a whole `/v1/chat/completions` answer (the model's name is
//! asked for first; the answer is streamed). *total*: pull start to answer, the sum of the four. A warm run has no pull.

use std::path::PathBuf;
use std::time::Duration;

use crate::profile::Profile;

pub mod arm;
mod command;
pub mod cri;
pub mod evidence;
mod figures;
pub mod flat;
mod forecast;
pub mod inject;
pub mod link;
pub mod local;
mod marks;
mod measure;
mod metrics;
pub mod observe;
pub mod option;
pub mod order;
mod pace;
pub mod page;
mod picture;
pub mod probe;
mod reader;
pub mod report;
pub mod residency;
pub mod result;
#[cfg(test)]
mod sample;
mod sampler;
mod spans;
pub mod stack;
pub mod stats;
mod table;
mod timeline;
pub mod trace;
mod words;

pub use arm::Arm;
pub use link::Preset;
pub use local::Bench;

/// What to measure and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Shell words that run the stack script.
    pub stack: String,
    /// The arms, in the order of the report.
    pub arms: Vec<Arm>,
    /// Rounds.
    pub rounds: u32,
    /// What the order of the arms in each round is drawn from.
    pub seed: u32,
    /// The preset that the link's figures come from, where none was overridden.
    pub preset: Option<Preset>,
    /// Latency of the link.
    pub latency: Duration,
    /// Bandwidth of the link in 10^6 bytes a second; 0: not limited.
    pub bandwidth_mb: u64,
    /// Bandwidth of each connection in 10^6 bytes a second; 0: not limited.
    pub connection_mb: u64,
    /// A static `esgz` for arms that read ahead; this very program when absent.
    pub warm_binary: Option<PathBuf>,
    /// Port of the workload on 127.0.0.1.
    pub port: u16,
    /// Where the link listens.
    pub listen: String,
    /// Longest time for one phase of a run, and for one call of the stack.
    pub timeout: Duration,
    /// Go on after a failed run.
    pub keep_going: bool,
    /// Behind the rounds, run each arm that reads ahead of lazy layers once more with the recorder on.
    pub trace: bool,
    /// Environment of the container.
    pub env: Vec<(String, String)>,
    /// Arguments of the container in place of the image's own; empty: the image's.
    pub args: Vec<String>,
    /// Profile of the original's start, to predict the arms from.
    pub predict: Option<Profile>,
    /// Folder for logs and evidence; a temporary one when absent.
    pub evidence: Option<PathBuf>,
}

/// Why a benchmark, or one of its runs, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An arm that cannot be understood.
    #[error("invalid arm {found:?}: {why}")]
    Arm {
        /// As given.
        found: String,
        /// What is wrong.
        why: String,
    },
    /// Arms or numbers that do not go together.
    #[error("{0}")]
    Options(String),
    /// The HTTP client.
    #[error(transparent)]
    Http(#[from] crate::http::Error),
    /// The recorder that looks on in a traced run.
    #[error(transparent)]
    Trace(#[from] crate::record::Error),
    /// A program that could not be started.
    #[error("{what} cannot be run")]
    Spawn {
        /// Which.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program that failed.
    #[error("{what} failed with {status}: {said}")]
    Command {
        /// Which.
        what: String,
        /// Exit status.
        status: String,
        /// End of its standard error.
        said: String,
    },
    /// Something took too long.
    #[error("{what} took more than {seconds} s")]
    Timeout {
        /// What.
        what: String,
        /// The limit.
        seconds: u64,
    },
    /// JSON of a tool that is not what its contract says.
    #[error("{what} is not what was expected")]
    Json {
        /// Whose output.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Output of a tool that is not what its contract says.
    #[error("{what}: {why}")]
    Unexpected {
        /// Whose.
        what: String,
        /// Expected and found.
        why: String,
    },
    /// A file or socket.
    #[error("{what}")]
    Io {
        /// Doing what.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An image that cannot be read from the registry.
    #[error("{reference} cannot be read from the registry")]
    Image {
        /// Which.
        reference: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A program that would need the image's own linker.
    #[error("{} is dynamically linked: expected a static program, which runs in any image", .0.display())]
    Dynamic(PathBuf),
    /// A container that ended before it answered.
    #[error("the container ended: {0}")]
    Ended(String),
}

impl Error {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// The error and its sources in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(e) = source {
            text.push_str(": ");
            text.push_str(&e.to_string());
            source = e.source();
        }
        text
    }
}
