//! How a profile is taken: the command runs as our child (or is attached to), a recorder says which pages of which files its process
//! tree asks for, and walks of the file system before and after give inodes their paths and tell what was written. Hides perf
//! events, overlay devices, process supervision and probing; gives out a [`Profile`](crate::profile::Profile).
//!
//! Linux only.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

mod assemble;
mod attach;
mod cache;
mod capture;
mod child;
pub(crate) mod class;
mod conditions;
mod control;
mod engine;
mod fanotify;
mod format;
pub(crate) mod host;
pub(crate) mod incore;
mod mounts;
mod naming;
mod onlooker;
mod perf;
pub(crate) mod phases;
mod place;
mod probe;
mod redact;
mod residency;
mod run;
pub(crate) mod sandbox;
mod seccomp;
mod session;
mod sightings;
mod signals;
mod spans;
mod streams;
mod supervise;
mod table;
mod target;
mod touch;
mod tracefs;
mod tracer;
mod tree;
mod walk;

pub use attach::{Attach, attach};
pub use conditions::Until;
pub use control::stop;
pub use engine::Which;
pub use incore::in_memory;
pub use onlooker::{Cast, Onlooked, Onlooker, Seen};
pub use run::{Run, run};
pub(crate) use session::architecture;

/// Facts about this machine, as a profile's header has them: kernel, processors, memory, GPUs and their driver.
pub fn machine() -> BTreeMap<String, String> {
    host::facts()
}

/// What to record, and until when.
#[derive(Debug, Clone)]
pub struct Options {
    /// The profile to write.
    pub output: PathBuf,
    /// An archive to write of the files that start-up writes.
    pub capture: Option<PathBuf>,
    /// Image reference to note.
    pub image: Option<String>,
    /// What ends the recording.
    pub until: Until,
    /// Give up when the conditions have not come by then.
    pub timeout: Duration,
    /// Which recorder.
    pub recorder: Which,
    /// Ring buffer for each CPU, in bytes.
    pub ring: usize,
    /// Do not drop the page cache before the start, where the recorder can do without.
    pub keep_cache: bool,
    /// Digest files of any size, not only those up to 64 MiB.
    pub digest_all: bool,
    /// Write what there is when the conditions did not come.
    pub keep_failed: bool,
}

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command could not be started.
    #[error("cannot run {command:?}")]
    Exec {
        /// Its name.
        command: OsString,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The HTTP client that asks the command whether it is ready.
    #[error(transparent)]
    Http(crate::http::Error),
    /// A process that cannot be recorded.
    #[error("cannot record it: {why}")]
    NotAttached {
        /// The reason.
        why: String,
    },
    /// No recording to stop.
    #[error("no recording that writes {profile:?} answers")]
    NoRecording {
        /// The profile that it would write.
        profile: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A recording that was asked to stop has written nothing.
    #[error("{profile:?} was not written: {why}")]
    Stopped {
        /// The profile.
        profile: PathBuf,
        /// In the recording's words.
        why: String,
    },
    /// This machine allows none of the recorders.
    #[error("no recorder can be used here ({})", refusals.join("; "))]
    NoRecorder {
        /// Each one's reason.
        refusals: Vec<String>,
    },
    /// A recorder that cannot be used here.
    #[error("the recorder {recorder} cannot be used here: {why}")]
    Refused {
        /// Its name.
        recorder: &'static str,
        /// The reason.
        why: String,
    },
    /// The tracing file system is out of reach.
    #[error("cannot open the kernel's tracing file system")]
    Tracefs(#[source] io::Error),
    /// A tracepoint that this kernel does not have.
    #[error("this kernel does not have the tracepoint {event}")]
    NoTracepoint {
        /// Its name.
        event: &'static str,
    },
    /// A tracepoint that is laid out as we do not know it.
    #[error("cannot use the tracepoint {event}: {why}")]
    Format {
        /// Its name.
        event: String,
        /// What is missing.
        why: String,
    },
    /// `perf_event_open` was refused.
    #[error("cannot trace the command")]
    Perf(#[source] io::Error),
    /// The page cache could not be emptied.
    #[error("cannot drop the page cache, which the page-cache recorder needs")]
    DropCaches(#[source] io::Error),
    /// A path that cannot be used.
    #[error("{what} {path:?}")]
    Path {
        /// What was tried.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A URL that cannot be asked.
    #[error("cannot ask {url:?}: {why}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The command ended before the condition.
    #[error("the command {how} before {until}: no profile was written")]
    Ended {
        /// `ended with code 1`, `was ended by SIGKILL`.
        how: String,
        /// The condition.
        until: String,
    },
    /// The condition did not come.
    #[error("no {until} within {seconds} s: no profile was written")]
    Timeout {
        /// The condition.
        until: String,
        /// The limit.
        seconds: u64,
    },
    /// Anything else the system refuses.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The exit code for it: 127 not found, 126 not executable, 125 our own failure.
    pub fn code(&self) -> u8 {
        match self {
            Self::Exec { source, .. } if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => 127,
            Self::Exec { .. } => 126,
            _ => 125,
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Tracefs(_) | Self::Perf(_) => Some(
                "recording needs root with CAP_SYS_ADMIN: in Kubernetes a privileged pod (securityContext.privileged: true)",
            ),
            Self::NoTracepoint { .. } => {
                Some("--recorder page-cache works on older kernels; it reports read-ahead, too")
            }
            Self::NotAttached { .. } => Some(
                "run it as root where the process can be seen: on its node, or in an ephemeral container that targets its container",
            ),
            Self::NoRecording { .. } => Some(
                "name the file that `esgz profile run -o` was given, as it is seen in this container; give the container's user the right to it",
            ),
            Self::DropCaches(_) => Some("run as root where /proc/sys is writable: in Kubernetes a privileged pod"),
            Self::Ended { .. } => Some("--keep-failed writes what there is"),
            Self::Timeout { .. } => Some("--timeout waits longer, --keep-failed writes what there is"),
            _ => None,
        }
    }
}
