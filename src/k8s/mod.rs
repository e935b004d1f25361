//! A test pod that profiles an image in a Kubernetes cluster: its manifest, how it is run through `kubectl`, and how the profile
//! gets out of it.
//!
//! The pod is one image's workload under `esgz profile run`. An init container puts the binary into a shared folder; a second
//! container waits for the profile and prints it between two lines as text, so that it leaves the cluster the way logs do: no
//! shell in the image, no `kubectl exec`, no volume that outlives the pod. What is printed carries its digest, which is checked
//! where it arrives.

use std::io;

pub mod frame;
pub mod kubectl;
mod patch;
pub mod pod;
pub mod run;
pub mod state;
pub mod yaml;

pub use kubectl::Kubectl;
pub use patch::merge;
pub use pod::Spec;

/// Why there is no profile from a cluster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not there.
    #[error("kubectl is not on the PATH")]
    NoKubectl,
    /// It could not be started or talked to.
    #[error("kubectl: {what} failed")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It said no.
    #[error("kubectl could not {doing}: {said}")]
    Kubectl {
        /// What it was to do.
        doing: String,
        /// Its own words, cleaned and shortened.
        said: String,
    },
    /// It took too long.
    #[error("kubectl did not {doing} within {seconds} s")]
    Slow {
        /// What it was to do.
        doing: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The account lacks a right.
    #[error("not allowed to {doing}: {said}")]
    Forbidden {
        /// What it was to do.
        doing: String,
        /// The cluster's words.
        said: String,
    },
    /// The namespace's pod security level, or another rule of admission, refuses the pod.
    #[error("the cluster refuses the pod: {said}")]
    Refused {
        /// The cluster's words.
        said: String,
    },
    /// No node takes the pod.
    #[error("pod {pod} was given to no node within {seconds} s: {said}")]
    Unschedulable {
        /// The pod.
        pod: String,
        /// How long was waited.
        seconds: u64,
        /// The scheduler's words.
        said: String,
    },
    /// A container did not start.
    #[error("container {container} of pod {pod} does not start: {said}")]
    Start {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
        /// The kubelet's words.
        said: String,
    },
    /// The workload, or the pod around it, ended without a profile.
    #[error("pod {pod} ended without a profile: {said}{}{log}", if .log.is_empty() { "" } else { "; its log ends with:\n" })]
    Died {
        /// The pod.
        pod: String,
        /// How it ended.
        said: String,
        /// The last lines of the workload's log.
        log: String,
    },
    /// Nothing came for too long.
    #[error("pod {pod} has given no profile after {seconds} s: {said}")]
    Timeout {
        /// The pod.
        pod: String,
        /// How long was waited.
        seconds: u64,
        /// What it was doing.
        said: String,
    },
    /// The user gave up.
    #[error("interrupted")]
    Interrupted,
    /// The container that should print the profile did not print it, or not all of it.
    #[error("the profile did not arrive")]
    Frame(#[from] frame::Error),
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoKubectl => {
                "install kubectl (https://kubernetes.io/docs/tasks/tools), or apply the pod of --print by other means"
            }
            Self::Forbidden { .. } => {
                "the account needs create, get and delete on pods and get on pods/log; see `kubectl auth can-i --list`"
            }
            Self::Refused { .. } => {
                "try --variant restricted with --run-as-user, a namespace that allows privileged pods, or other amounts"
            }
            Self::Unschedulable { .. } => {
                "see --node-selector, --gpus, --cpu and --memory; --start-timeout waits longer"
            }
            Self::Start { .. } => "check the image's name, --image-pull-secret, --env-from-secret and --volume-pvc",
            Self::Died { .. } => "--keep leaves the pod for a look: kubectl describe pod",
            Self::Timeout { .. } => {
                "raise --timeout or --start-timeout, or look at what the workload waits for with --keep"
            }
            Self::Frame(frame::Error::TooLarge { .. }) => "record without --capture, or less of it",
            _ => return None,
        })
    }

    /// Whether a pod with fewer rights may be let in where this one was not.
    pub fn is_of_privilege(&self) -> bool {
        matches!(self, Self::Refused { said } if said.to_ascii_lowercase().contains("privileged"))
    }
}

/// A text of others on one line, shortened.
fn line(text: &str) -> String {
    const LONGEST: usize = 600;
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty());
    words.collect::<Vec<_>>().join(" ").chars().take(LONGEST).collect()
}
