//! What recording a command and recording a running process have in common: everything but the process.

use std::collections::HashSet;
use std::ffi::OsString;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use super::assemble::{Assembled, digest};
use super::class::Class;
use super::conditions::{Mark, Wait};
use super::control::Control;
use super::engine::{Engine, Raw, Seen, Subject};
use super::place::Place;
use super::redact::{redact, redact_text};
use super::target::Target;
use super::walk::{Entry, Snapshot, diff, new_links};
use super::{Error, Options, capture, class, host, perf, probe};
use crate::profile::{self, Header, Profile, SCHEMA, Write};
use crate::progress::{Progress, chain};
use crate::python::source_of;

/// Larger files are digested only when asked for.
const DIGEST_LIMIT: u64 = 64 << 20;

/// A recording that is prepared or under way.
pub(super) struct Session<'a> {
    options: &'a Options,
    pub(super) place: Place,
    pub(super) engine: Engine,
    before: Snapshot,
    target: Target,
    capture: Option<Target>,
    control: Option<Control>,
    raw: Option<Raw>,
    pub(super) marks: Receiver<Mark>,
    pub(super) tell: Sender<Mark>,
}

/// The files to write, made sure of before anything else.
pub(super) struct Targets {
    profile: Target,
    capture: Option<Target>,
}

/// When the command was let go, by the clocks of the events, of the waiting and of the file system.
#[derive(Debug, Clone, Copy)]
pub(super) struct Began {
    events: u64,
    pub instant: Instant,
    wall: jiff::Timestamp,
}

impl Began {
    /// Now.
    pub(super) fn now() -> Self {
        Self { events: perf::now(), instant: Instant::now(), wall: jiff::Timestamp::now() }
    }
}

impl Targets {
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        let profile = Target::new("cannot write the profile", &options.output)?;
        let capture = options.capture.as_ref().map(|p| Target::new("cannot write the archive of written files", p));
        Ok(Self { profile, capture: capture.transpose()? })
    }

    /// As a list.
    pub(super) fn all(&self) -> Vec<&Target> {
        [Some(&self.profile), self.capture.as_ref()].into_iter().flatten().collect()
    }
}

impl<'a> Session<'a> {
    /// Finds a recorder (`running`: of what runs already), walks the root and does what the recorder needs done before the start.
    pub(super) fn prepare(
        options: &'a Options,
        targets: Targets,
        place: Place,
        running: bool,
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let mut engine = Engine::find(options.recorder, running)?;
        let before = place.snapshot();
        engine.prepare(&place, &before, options.keep_cache, progress)?;
        let (tell, marks) = channel();
        let Targets { profile: target, capture } = targets;
        Ok(Self { options, place, engine, before, target, capture, control: None, raw: None, marks, tell })
    }

    /// Lets others stop the recording and asks what is to be asked. Starts threads.
    pub(super) fn listen(&mut self, progress: &dyn Progress) -> Result<(), Error> {
        match Control::listen(self.target.path(), self.tell.clone()) {
            Ok(control) => self.control = Some(control),
            Err(e) => {
                progress.warn(&format!(
                    "`esgz profile stop` will not reach this recording: no socket beside the profile ({e})"
                ));
            }
        }
        let questions = self.options.until.questions()?;
        if !questions.is_empty() {
            probe::ask(questions, &self.tell).map_err(Error::Http)?;
        }
        Ok(())
    }

    /// Begins to record.
    pub(super) fn start(&mut self, subject: &Subject) -> Result<(), Error> {
        self.engine.start(subject, &self.place, &self.before, self.options.ring)
    }

    /// Ends recording: what happens from here on is no part of it.
    pub(super) fn stop(&mut self) {
        self.raw = Some(self.engine.stop());
    }

    /// Writes what there is. `command` is what ran, `complete` whether the conditions came.
    pub(super) fn conclude(
        mut self,
        began: Began,
        wait: Wait<'_>,
        command: &[OsString],
        complete: bool,
        progress: &dyn Progress,
    ) -> Result<Profile, Error> {
        let raw = self.raw.take().unwrap_or_else(|| self.engine.stop());
        let missing = wait.missing();
        let after = self.place.snapshot();
        let recorder = self.engine.describe();
        let mut host = host::facts();
        host.extend(host::versions(self.before.entries.iter().map(|e| e.path.as_str())));
        host.insert("root_filesystem".into(), self.place.mounts.root.kind.clone());
        host.extend(self.engine.facts().clone());
        let seen = self.engine.assemble(raw, &self.place, &self.before, &after, began.events);
        let Seen { assembled: Assembled { mut files, unmapped, own_writes }, events, lost, writers, notes } = seen;
        let changes = diff(&self.before, &after);
        let changed: HashSet<&str> = changes.iter().map(|(e, _)| e.path.as_str()).collect();
        let limit = if self.options.digest_all { u64::MAX } else { DIGEST_LIMIT };
        digest(&mut files, &self.place.root, &changed, limit);
        let writes = changes.iter().map(|(e, change)| {
            let since = e.written_at() - began.wall.as_nanosecond();
            Write {
                path: e.path.clone(),
                size: e.size,
                mode: format!("{:04o}", e.mode & 0o7777),
                change: change.name().into(),
                class: class::of(&e.path).name.into(),
                at_ms: u64::try_from(since / 1_000_000).ok(),
                writer: writers.get(&(e.dev, e.ino)).cloned(),
            }
        });
        let mut profile = Profile {
            schema: SCHEMA.into(),
            header: Header {
                image: self.options.image.clone(),
                platform: format!("linux/{}", architecture()),
                command: redact(&command.iter().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>()),
                host,
                recorder,
                started_at: format!("{:.3}", began.wall),
                until: if complete {
                    redact_text(&self.options.until.to_string())
                } else {
                    redact_text(&format!("incomplete: no {missing}"))
                },
                phases: wait.into_phases(),
                events,
                lost_events: lost,
                own_writes,
                unmapped,
                notes,
                ..Header::default()
            },
            files,
            writes: writes.collect(),
        };
        if let Some(target) = self.capture {
            let links = new_links(&self.before, &after);
            // Bytecode of a source that start-up wrote itself may hold what that holds.
            let is_of_image = |e: &Entry| {
                source_of(&e.path).is_some_and(|s| self.before.get(&s).is_some() && !changed.contains(s.as_str()))
            };
            let judge = |e: &Entry| match class::of(&e.path) {
                c if c == class::BYTECODE && !is_of_image(e) => Class { trusted: false, ..c },
                c => c,
            };
            let entries = changes.iter().map(|(e, _)| *e).chain(links).map(|e| (e, judge(e)));
            let mut captured = None;
            let written = target.write(|out| {
                captured = Some(capture::write(&self.place.root, entries, out)?);
                Ok(())
            });
            // The recording is worth more than the archive.
            if let Err(e) = written {
                let note = format!("what was written could not be captured: {}", chain(&e));
                progress.warn(&note);
                profile.header.notes.push(note);
                captured = None;
            }
            if captured.as_ref().is_some_and(|c| c.files == 0)
                && let Some(why) = capture::why_nothing(&self.place.root)
            {
                let note = format!("nothing was captured: {why}");
                progress.warn(&note);
                profile.header.notes.push(note);
            }
            profile.header.capture = captured;
        }
        let path = self.target.path().to_owned();
        self.target.write(|out| out.write_all(&profile::write(&profile)))?;
        if let Some(control) = &self.control {
            control.answer(Ok(&path));
        }
        Ok(profile)
    }
}

/// Whether a condition that only the command's own streams can meet is among them.
pub(super) fn needs_streams(options: &Options) -> bool {
    !options.until.log.is_empty()
}

/// The architecture by its OCI name.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
