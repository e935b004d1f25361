//! Running the pod: create, watch, collect, delete, whatever happens.

use std::io::{BufRead, BufReader, Read};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::kubectl::{Follower, Kubectl};
use super::pod::{CAPTURE, COLLECT, MAX_CAPTURE, PROFILE, WORKLOAD};
use super::state::{self, State};
use super::{Error, frame, line, yaml};
use crate::profile;
use crate::progress::chain;

/// The log with the files in it, and what else may stand there.
const MAX_LOG: u64 = 2 * frame::MAX_TEXT as u64;
/// A line of the workload's log that is passed on in one piece.
const LONGEST_LINE: u64 = 64 << 10;
/// How long the rest of a log may take to arrive when its container has ended.
const LOG_REST: Duration = Duration::from_secs(5);

/// How long a cluster that does not answer, or with errors, is asked again.
const PATIENCE: Duration = Duration::from_mins(2);

/// How to go about it.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Collect what start-up wrote, too.
    pub capture: bool,
    /// Leave the pod there.
    pub keep: bool,
    /// The user chose the pod's name, so that one of that name may be another's.
    pub named: bool,
    /// How long to wait for what.
    pub limits: Limits,
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the creation until the workload runs: finding a node, pulling the image.
    pub start: Duration,
    /// From there until the profile is there.
    pub run: Duration,
    /// From the workload's end until the profile is printed.
    pub settle: Duration,
    /// Between two looks at the pod.
    pub poll: Duration,
}

/// Who is told how it goes.
pub trait Watcher: Sync {
    /// Something happened.
    fn say(&self, words: &str);
    /// A line of the workload's log, without its end.
    fn log(&self, line: &str);
    /// Whether the user gave up.
    fn interrupted(&self) -> bool;
}

/// What came out of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// The profile file, complete; not yet read.
    pub profile: Vec<u8>,
    /// What start-up wrote, where it was asked for.
    pub capture: Option<Vec<u8>>,
    /// Why there is not all that was asked for.
    pub failed: Option<String>,
}

/// Creates a pod of [`super::Spec`] and waits for its profile. Whatever happens, the pod is deleted at the end unless it is to be
/// kept.
pub fn run(kubectl: &Kubectl, pod: &Value, options: &Options, watcher: &dyn Watcher) -> Result<Collected, Error> {
    let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let created = kubectl.text("create the pod", &["create", "--filename", "-"], Some(&yaml::document(pod)));
    if let Err(e) = created {
        if may_be_there(&e) {
            if options.named {
                watcher.say(&format!("warning: pod {name} may have been created, see `kubectl get pod {name}`"));
            } else {
                delete(kubectl, name, Duration::ZERO, watcher);
            }
        }
        return Err(e);
    }
    watcher.say(&format!("pod {name} created"));
    let session = Session { kubectl, name, limits: &options.limits, watcher };
    let watched = thread::scope(|scope| session.watch(scope));
    let collected = watched.and_then(|failed| session.collect(options.capture, failed));
    if options.keep {
        watcher.say(&format!("pod {name} is kept"));
    } else {
        delete(kubectl, name, PATIENCE, watcher);
    }
    collected
}

/// Whether a creation that failed may have made the pod: the answer was lost. One that was there before is none of ours.
fn may_be_there(error: &Error) -> bool {
    match error {
        Error::NoKubectl | Error::Forbidden { .. } | Error::Refused { .. } => false,
        Error::Kubectl { said, .. } => !said.contains("AlreadyExists"),
        _ => true,
    }
}

/// Asks until there is an answer, as long as there is patience.
fn insist(
    patience: Duration,
    pause: Duration,
    give_up: impl Fn(&Error) -> bool,
    ask: impl Fn() -> Result<String, Error>,
) -> Result<String, Error> {
    let begun = Instant::now();
    loop {
        match ask() {
            Err(e @ (Error::Kubectl { .. } | Error::Slow { .. })) if begun.elapsed() < patience && !give_up(&e) => {}
            other => return other,
        }
        thread::sleep(pause);
    }
}

fn delete(kubectl: &Kubectl, name: &str, patience: Duration, watcher: &dyn Watcher) {
    let arguments = ["delete", "pod", name, "--ignore-not-found", "--wait=false", "--grace-period=5"];
    let ask = || kubectl.text("delete the pod", &arguments, None);
    match insist(patience, Duration::from_secs(1), |_| false, ask) {
        Ok(_) => watcher.say(&format!("pod {name} deleted")),
        Err(e) => {
            watcher.say(&format!("warning: pod {name} may be left, delete it with `kubectl delete pod {name}`: {e}"));
        }
    }
}

struct Session<'a> {
    kubectl: &'a Kubectl,
    name: &'a str,
    limits: &'a Limits,
    watcher: &'a dyn Watcher,
}

impl Session<'_> {
    /// Looks at the pod until everything is printed, or until the container that prints it failed; how.
    fn watch<'s>(&'s self, scope: &'s thread::Scope<'s, '_>) -> Result<Option<String>, Error> {
        let created = Instant::now();
        let (mut running, mut ended): (Option<Instant>, Option<Instant>) = (None, None);
        let mut log: Option<Follower> = None;
        let mut said = String::new();
        loop {
            if self.watcher.interrupted() {
                return Err(Error::Interrupted);
            }
            let state = self.state()?;
            let words = match &state {
                State::Unscheduled(words) => format!("pod {}: waiting for a node: {words}", self.name),
                State::Starting(words) => format!("pod {}: starting: {words}", self.name),
                State::Running => format!("pod {}: running", self.name),
                _ => String::new(),
            };
            if !words.is_empty() && words != said {
                self.watcher.say(words.trim_end_matches(": "));
                said = words;
            }
            if log.is_none() && matches!(state, State::Running | State::WorkloadEnded(_) | State::Collected) {
                let (follower, output) = self.kubectl.follow(self.name, WORKLOAD)?;
                let watcher = self.watcher;
                scope.spawn(move || pass_on(output, watcher));
                log = Some(follower);
            }
            match state {
                State::Collected | State::WorkloadEnded(_) if ended.is_none() => {
                    if let Some(log) = &mut log {
                        log.finish(LOG_REST);
                    }
                    ended = Some(Instant::now());
                    if state == State::Collected {
                        return Ok(None);
                    }
                }
                State::Collected => return Ok(None),
                State::CollectFailed(how) => {
                    let text = self.tail(COLLECT);
                    return Ok(Some(format!("container {COLLECT} ended with {how}: {}", line(&text))));
                }
                State::Killed(how) => return Err(self.died(how, true)),
                State::Broken { container, said } => {
                    return Err(Error::Start { pod: self.name.into(), container: container.into(), said });
                }
                State::WorkloadEnded(how) if ended.is_some_and(|at| at.elapsed() > self.limits.settle) => {
                    return Err(self.died(how, true));
                }
                State::WorkloadEnded(_) => {}
                State::Running => {
                    let since = running.get_or_insert_with(Instant::now);
                    if since.elapsed() > self.limits.run {
                        return Err(self.timeout(self.limits.run, "the workload runs"));
                    }
                }
                State::Unscheduled(said) if created.elapsed() > self.limits.start => {
                    let seconds = self.limits.start.as_secs();
                    return Err(Error::Unschedulable { pod: self.name.into(), seconds, said });
                }
                State::Starting(said) if created.elapsed() > self.limits.start => {
                    return Err(self.timeout(self.limits.start, &format!("it is starting: {said}")));
                }
                State::Unscheduled(_) | State::Starting(_) => {}
            }
            thread::sleep(self.limits.poll);
        }
    }

    fn died(&self, said: String, with_log: bool) -> Error {
        let log = if with_log { self.tail(WORKLOAD) } else { String::new() };
        Error::Died { pod: self.name.into(), said, log }
    }

    fn timeout(&self, after: Duration, said: &str) -> Error {
        Error::Timeout { pod: self.name.into(), seconds: after.as_secs(), said: said.into() }
    }

    fn state(&self) -> Result<State, Error> {
        let doing = "read the pod";
        let gone = |e: &Error| matches!(e, Error::Kubectl { said, .. } if said.contains("NotFound"));
        // A lost look is no reason to give up a pod that has been at work for minutes.
        let text = insist(
            PATIENCE,
            self.limits.poll,
            |e| gone(e) || self.watcher.interrupted(),
            || self.kubectl.text(doing, &["get", "pod", self.name, "--output", "json"], None),
        );
        let text =
            text.map_err(|e| if gone(&e) { self.died("it was deleted by somebody else".into(), false) } else { e })?;
        let pod = serde_json::from_str::<Value>(&text);
        pod.map(|p| state::of(&p))
            .map_err(|e| Error::Kubectl { doing: doing.into(), said: format!("its answer is no JSON: {e}") })
    }

    /// The end of a container's log, as far as it can be had.
    fn tail(&self, container: &str) -> String {
        let arguments = ["logs", self.name, "--container", container, "--tail", "20"];
        let text = self.kubectl.text("read the log", &arguments, None).unwrap_or_default();
        let clean = |l: &str| l.chars().filter(|c| !c.is_control()).take(400).collect::<String>();
        text.lines().map(clean).collect::<Vec<_>>().join("\n")
    }

    /// Takes the files out of the log. A profile that is whole is worth having, also where what comes after it `failed`.
    fn collect(&self, capture: bool, failed: Option<String>) -> Result<Collected, Error> {
        let log = self.kubectl.call("read the profile", &["logs", self.name, "--container", COLLECT], None, MAX_LOG);
        let profile = log.and_then(|log| Ok((frame::read(&log[..], PROFILE, profile::MAX_BYTES)?, log)));
        let (profile, log) = match (profile, failed.clone()) {
            (Ok(read), _) => read,
            (Err(_), Some(how)) => return Err(self.died(how, false)),
            (Err(e), None) => return Err(e),
        };
        if !capture || failed.is_some() {
            return Ok(Collected { profile, capture: None, failed });
        }
        Ok(match frame::read(&log[..], CAPTURE, MAX_CAPTURE) {
            Ok(bytes) => Collected { profile, capture: Some(bytes), failed: None },
            Err(e) => Collected { profile, capture: None, failed: Some(chain(&e)) },
        })
    }
}

/// Passes the workload's log on, line by line, until it ends.
fn pass_on(from: impl Read, watcher: &dyn Watcher) {
    let mut from = BufReader::new(from);
    let mut text = Vec::new();
    while let Ok(1..) = (&mut from).take(LONGEST_LINE).read_until(b'\n', &mut text) {
        watcher.log(String::from_utf8_lossy(&text).trim_end_matches(['\n', '\r']));
        text.clear();
    }
}
