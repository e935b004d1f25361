//! Recording a command of ours from its first instruction on.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::prctl::set_child_subreaper;

use super::child::Gated;
use super::conditions::Wait;
use super::engine::Subject;
use super::place::Place;
use super::session::{Began, Session, Targets};
use super::signals::Signals;
use super::streams::{Flowing, Streams};
use super::supervise::{Command, Ended};
use super::{Error, Options};
use crate::profile::Profile;
use crate::progress::Progress;

/// The command to record.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// The command and its arguments.
    pub command: Vec<OsString>,
    /// A folder that the command takes for `/`.
    pub root: Option<PathBuf>,
    /// Leave the command running after the profile is written, and pass on its code.
    pub keep_running: bool,
    /// Let it inherit stdout and stderr: nothing it says is looked at.
    pub inherit_streams: bool,
}

/// Runs the command, records it and writes the profile, which `written` sees before the command is ended or waited for.
/// Gives the exit code to pass on. Call it before any thread is started.
pub fn run(
    options: &Options,
    run: &Run,
    progress: &dyn Progress,
    written: &mut dyn FnMut(&Profile),
) -> Result<u8, Error> {
    // Refused before anything is done.
    options.until.questions()?;
    let targets = Targets::new(options)?;
    let place = Place::here(run.root.as_deref(), &targets.all())?;
    let mut session = Session::prepare(options, targets, place, false, progress)?;

    let system = |what| move |e: nix::Error| Error::System { what, source: e.into() };
    let signals = Signals::block().map_err(system("block signals"))?;
    set_child_subreaper(true).map_err(system("become the reaper of the command's children"))?;
    let confined = run.root.as_ref().map(|_| session.place.root.as_path());
    let streams = if run.inherit_streams { Ok(Streams::inherited()) } else { Streams::between() };
    let streams =
        streams.map_err(|source| Error::System { what: "stand between the command and its output", source })?;
    let mut gated = Gated::start(&run.command, confined, streams.for_child(), session.engine.filter())
        .map_err(|source| Error::System { what: "start a process", source })?;
    let pid = gated.pid;
    // From here on it is not left behind, whatever goes wrong.
    let mut command = Command::new(pid, signals);
    session.start(&Subject::Child(pid))?;
    let began = Began::now();
    let exec = |source| Error::Exec { command: run.command[0].clone(), source };
    gated.open().map_err(exec)?;
    session.engine.released(pid)?;
    gated.wait().map_err(exec)?;
    let flowing = streams.start(&options.until.on_line(session.tell.clone()));
    session.listen(progress)?;

    let mut wait = Wait::new(&options.until, began.instant, options.timeout);
    let mut flowing = Some(flowing);
    let end = wait.run(&session.marks, |moment| {
        let ended = command.wait(moment);
        // Its last words may be what is waited for.
        if ended.is_some()
            && let Some(flowing) = flowing.take()
        {
            flowing.finish();
        }
        ended
    });
    session.stop();
    let ended = command.ended();
    let complete = end.is_complete(&options.until);
    if !complete && !options.keep_failed {
        command.end();
        flowing.into_iter().for_each(Flowing::finish);
        return Err(wait.failure(&end, Ended::to_string));
    }
    // What it has written stands still then.
    if !run.keep_running {
        command.end();
        flowing.take().into_iter().for_each(Flowing::finish);
    }
    let profile = session.conclude(began, wait, &run.command, complete, progress)?;
    written(&profile);
    Ok(match ended {
        // The command's own end, whatever we waited for.
        Some(ended) => ended.code(),
        None if run.keep_running => {
            let ended = until_end(&mut command);
            flowing.into_iter().for_each(Flowing::finish);
            ended.code()
        }
        None if complete => 0,
        None => 125,
    })
}

fn until_end(command: &mut Command) -> Ended {
    loop {
        if let Some(ended) = command.wait(Duration::from_mins(1)) {
            return ended;
        }
    }
}
