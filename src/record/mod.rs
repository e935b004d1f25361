//! How a profile is taken: the command runs as our child, the kernel's tracepoints of the page cache say which pages of which
//! inodes its process tree asks for, and a walk of the file system before the start gives the inodes their paths. Hides
//! perf events, overlay devices, process supervision and probing; gives out a [`Profile`](crate::profile::Profile).
//!
//! Linux only, and as root: the page cache's tracepoints are the machine's, not a container's.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

mod assemble;
mod child;
mod format;
mod host;
mod mounts;
mod perf;
mod probe;
mod redact;
mod run;
mod signals;
mod supervise;
mod table;
mod touch;
mod tracefs;
mod tracer;
mod walk;

pub use run::run;
pub use tracer::Which;

/// What to record, and until when.
#[derive(Debug, Clone)]
pub struct Options {
    /// The command and its arguments.
    pub command: Vec<OsString>,
    /// The profile to write.
    pub output: PathBuf,
    /// A folder that the command takes for `/`.
    pub root: Option<PathBuf>,
    /// Image reference to note.
    pub image: Option<String>,
    /// What ends the recording.
    pub until: Until,
    /// Give up when the condition has not come by then.
    pub timeout: Duration,
    /// Which recorder.
    pub recorder: Which,
    /// Ring buffer for each CPU, in bytes.
    pub ring: usize,
    /// Do not drop the page cache before the start (the filemap recorder only).
    pub keep_cache: bool,
    /// Digest files of any size, not only those up to 64 MiB.
    pub digest_all: bool,
    /// Leave the command running after the profile is written, and pass on its code.
    pub keep_running: bool,
    /// Write what there is when the condition did not come.
    pub keep_partial: bool,
}

/// What ends the recording.
#[derive(Debug, Clone, Default)]
pub enum Until {
    /// The command's end.
    #[default]
    Exit,
    /// That much time.
    Period(Duration),
    /// Answers of the command, in this order.
    Answers {
        /// A page with any 2xx answer.
        http: Option<String>,
        /// A chat completion with at least one choice.
        chat: Option<String>,
        /// The model to ask; the first one served when absent.
        model: Option<String>,
    },
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
            Self::DropCaches(_) => Some("run as root where /proc/sys is writable: in Kubernetes a privileged pod"),
            Self::Timeout { .. } => Some("--timeout waits longer, --keep-partial writes what there is"),
            _ => None,
        }
    }
}
