//! What ends a recording: conditions that can be combined, the marks that tell that one has come, and the reckoning of both.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use regex::Regex;

use super::phases::{self, Told};
use super::probe::{Ask, Url};
use super::streams::OnLine;
use super::{Error, supervise::Ended};
use crate::profile::Phase;

/// What ends the recording; without any condition the command's end does.
#[derive(Debug, Clone, Default)]
pub struct Until {
    /// A page that answers with the status, or with any 2xx.
    pub http: Option<(String, Option<u16>)>,
    /// A chat completion that has text.
    pub chat: Option<String>,
    /// The model to ask; the first one served when absent.
    pub model: Option<String>,
    /// A line on stdout or stderr.
    pub log: Vec<Regex>,
    /// That much time since the start.
    pub period: Option<Duration>,
    /// The first condition that comes ends it, not the last.
    pub any: bool,
    /// Record on for that long behind the conditions.
    pub grace: Duration,
}

/// One of the conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Condition {
    Http,
    Chat,
    /// Position in [`Until::log`].
    Log(usize),
    Period,
}

/// Something that happened while recording.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mark {
    /// A phase began.
    Phase(&'static str, Instant),
    /// A log line told something.
    Told(Told, Instant),
    /// A condition came.
    Met(Condition, Instant),
    /// Somebody asked to stop.
    Stop(Instant),
}

impl Until {
    /// All conditions.
    fn conditions(&self) -> BTreeSet<Condition> {
        let http = self.http.as_ref().map(|_| Condition::Http);
        let chat = self.chat.as_ref().map(|_| Condition::Chat);
        let period = self.period.map(|_| Condition::Period);
        let log = (0..self.log.len()).map(Condition::Log);
        [http, chat, period].into_iter().flatten().chain(log).collect()
    }

    /// Whether only the command's end, or somebody from outside, ends the recording.
    pub fn is_exit(&self) -> bool {
        self.conditions().is_empty()
    }

    /// Whether only time ends it: then an earlier end is as good.
    pub(super) fn is_period_only(&self) -> bool {
        self.conditions().into_iter().eq([Condition::Period])
    }

    /// What has to be asked of the command.
    pub(super) fn questions(&self) -> Result<Vec<Ask>, Error> {
        let url = |text: &String| Url::parse(text).map_err(|why| Error::Url { url: text.clone(), why });
        let page = self.http.as_ref().map(|(u, status)| Ok(Ask::Page(url(u)?, *status))).transpose()?;
        let chat = self.chat.as_ref().map(|u| Ok(Ask::Chat(url(u)?, self.model.clone()))).transpose()?;
        Ok(page.into_iter().chain(chat).collect())
    }

    /// What is to be done with every line that the command says.
    pub(super) fn on_line(&self, marks: Sender<Mark>) -> OnLine {
        let log = self.log.clone();
        Arc::new(move |at, line| {
            let send = |mark| {
                let _nobody_listens_any_more = marks.send(mark);
            };
            if let Some(told) = phases::read(line) {
                send(Mark::Told(told, at));
            }
            for (i, pattern) in log.iter().enumerate() {
                if pattern.is_match(line) {
                    send(Mark::Met(Condition::Log(i), at));
                }
            }
        })
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if let Some((url, status)) = &self.http {
            let status = status.map_or_else(|| "2xx".into(), |s| s.to_string());
            words.push(format!("{status} answer of {url}"));
        }
        words.extend(self.chat.as_ref().map(|url| format!("chat answer of {url}")));
        words.extend(self.log.iter().map(|r| format!("log line {:?}", r.as_str())));
        words.extend(self.period.map(|p| format!("{} s", p.as_secs_f64())));
        if words.is_empty() {
            words.push("exit of the command".into());
        }
        f.write_str(&words.join(if self.any { " or " } else { " and " }))?;
        if self.grace.is_zero() { Ok(()) } else { write!(f, ", and {} s more", self.grace.as_secs_f64()) }
    }
}

/// What ended the waiting.
#[derive(Debug)]
pub(super) enum End {
    /// The conditions came, and their grace is over.
    Met,
    /// Somebody asked.
    Stopped,
    /// The command ended.
    Exited(Ended),
    /// It took too long.
    TimedOut,
}

impl End {
    /// Whether all that was to be recorded has been: an exit that nobody waited for is no such end.
    pub(super) fn is_complete(&self, until: &Until) -> bool {
        match self {
            Self::Met | Self::Stopped => true,
            Self::Exited(_) => until.is_exit() || until.is_period_only(),
            Self::TimedOut => false,
        }
    }
}

/// The reckoning.
pub(super) struct Wait<'a> {
    until: &'a Until,
    left: BTreeSet<Condition>,
    all: usize,
    started: Instant,
    timeout: Duration,
    /// Since when nothing more is waited for but the grace.
    met: Option<Instant>,
    /// Named points in time so far.
    pub phases: Vec<Phase>,
}

impl<'a> Wait<'a> {
    pub(super) fn new(until: &'a Until, started: Instant, timeout: Duration) -> Self {
        let left = until.conditions();
        let phases = vec![Phase { name: phases::START.into(), at_ms: 0 }];
        // A time that was asked for is no time-out.
        let timeout = timeout.max(until.period.unwrap_or_default());
        Self { all: left.len(), left, until, started, timeout, met: None, phases }
    }

    fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits for the end. `step` waits for a moment and tells how the command ended once it has.
    pub(super) fn run(&mut self, marks: &Receiver<Mark>, mut step: impl FnMut(Duration) -> Option<Ended>) -> End {
        loop {
            let ended = step(Duration::from_millis(20));
            // What it said and did before its end counts.
            for mark in marks.try_iter() {
                if let Some(end) = self.take(mark) {
                    return end;
                }
            }
            if let Some(ended) = ended {
                let at = self.ms(Instant::now());
                phases::begin(&mut self.phases, "exit", at);
                // Met and ended within the grace: what there is is whole.
                return if self.met.is_some() { End::Met } else { End::Exited(ended) };
            }
            let now = Instant::now();
            if self.until.period.is_some_and(|p| now >= self.started + p) {
                self.meet(Condition::Period, now);
            }
            if self.met.is_some_and(|at| now >= at + self.until.grace) {
                return End::Met;
            }
            if self.met.is_none()
                && self.all > 0
                && self.started.elapsed() >= self.timeout
                && !self.until.is_period_only()
            {
                return End::TimedOut;
            }
        }
    }

    /// Why a recording that is not complete is none. `how` tells how the command ended.
    pub(super) fn failure(&self, end: &End, how: impl FnOnce(&Ended) -> String) -> Error {
        match end {
            End::Exited(ended) => Error::Ended { how: how(ended), until: self.missing() },
            _ => Error::Timeout { until: self.missing(), seconds: self.timeout.as_secs() },
        }
    }

    fn take(&mut self, mark: Mark) -> Option<End> {
        match mark {
            Mark::Phase(name, at) => {
                let at = self.ms(at);
                phases::begin(&mut self.phases, name, at);
            }
            Mark::Told(told, at) => {
                let at = self.ms(at);
                phases::enter(&mut self.phases, told, at);
            }
            Mark::Met(condition, at) => self.meet(condition, at),
            Mark::Stop(at) => {
                let at = self.ms(at);
                phases::begin(&mut self.phases, "stopped", at);
                return Some(End::Stopped);
            }
        }
        None
    }

    fn meet(&mut self, condition: Condition, at: Instant) {
        if !self.left.remove(&condition) {
            return;
        }
        let ms = self.ms(at);
        match condition {
            Condition::Log(0) => phases::begin(&mut self.phases, "log-line", ms),
            // A name for each: patterns are the user's own words.
            Condition::Log(i) => self.phases.push(Phase { name: format!("log-line-{}", i + 1), at_ms: ms }),
            Condition::Http | Condition::Chat | Condition::Period => {}
        }
        if self.met.is_none() && (self.until.any || self.left.is_empty()) {
            self.met = Some(at);
        }
    }

    /// The phases in the order of time.
    pub(super) fn into_phases(mut self) -> Vec<Phase> {
        self.phases.sort_by_key(|p| p.at_ms);
        self.phases
    }

    /// The conditions that have not come, in words.
    pub(super) fn missing(&self) -> String {
        let mut left = self.until.clone();
        if self.left.len() < self.all {
            let has = |c| self.left.contains(&c);
            left.http = left.http.filter(|_| has(Condition::Http));
            left.chat = left.chat.filter(|_| has(Condition::Chat));
            left.period = left.period.filter(|_| has(Condition::Period));
            left.log = self
                .until
                .log
                .iter()
                .enumerate()
                .filter(|(i, _)| has(Condition::Log(*i)))
                .map(|(_, r)| r.clone())
                .collect();
        }
        left.grace = Duration::ZERO;
        left.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn log(patterns: &[&str], any: bool) -> Until {
        Until { log: patterns.iter().map(|p| Regex::new(p).expect("a pattern")).collect(), any, ..Until::default() }
    }

    /// Plays lines; the command ends behind them with code 0.
    fn play(until: &Until, lines: &[&str]) -> (String, Vec<String>, String) {
        let (tell, marks) = channel();
        let on_line = until.on_line(tell);
        let mut wait = Wait::new(until, Instant::now(), Duration::from_mins(1));
        let mut lines = lines.iter();
        let end = wait.run(&marks, |_| match lines.next() {
            Some(line) => {
                on_line(Instant::now(), line);
                None
            }
            None => Some(Ended::Code(0)),
        });
        let missing = wait.missing();
        (format!("{end:?}"), wait.into_phases().into_iter().map(|p| p.name).collect(), missing)
    }

    #[test]
    fn all_or_any_of_several_conditions_end_it() {
        let lines = ["one", "Starting to load model m", "two", "three"];
        let names = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (end, phases, _) = play(&log(&["^two$", "one"], false), &lines);
        assert_eq!((end.as_str(), phases), ("Met", names(&["import", "log-line-2", "load", "log-line"])));
        let (end, phases, _) = play(&log(&["^two$", "one"], true), &lines);
        assert_eq!((end.as_str(), phases), ("Met", names(&["start", "log-line-2"])));
        let (end, phases, missing) = play(&log(&["one", "four"], false), &lines);
        assert_eq!((end.as_str(), phases), ("Exited(Code(0))", names(&["import", "log-line", "load", "exit"])));
        assert_eq!(missing, "log line \"four\"");
    }

    #[test]
    fn a_grace_goes_on_and_an_end_within_it_is_no_failure() {
        let mut until = log(&["one"], false);
        until.grace = Duration::from_mins(1);
        let (end, phases, _) = play(&until, &["one", "Starting to load model m"]);
        assert_eq!(end, "Met");
        assert_eq!(phases.last().map(String::as_str), Some("exit"));
        assert_eq!(phases.len(), 4, "what comes in the grace is recorded");
    }

    #[test]
    fn words_name_what_is_waited_for() {
        let mut until = log(&["up"], true);
        until.http = Some(("http://127.0.0.1/h".into(), Some(204)));
        until.period = Some(Duration::from_millis(1500));
        until.grace = Duration::from_secs(2);
        assert_eq!(until.to_string(), "204 answer of http://127.0.0.1/h or log line \"up\" or 1.5 s, and 2 s more");
        assert_eq!(Until::default().to_string(), "exit of the command");
    }
}
