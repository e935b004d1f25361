//! Recording what runs already: a process and its control group, from the node or from an ephemeral container.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::conditions::{Mark, Wait};
use super::engine::Subject;
use super::place::Place;
use super::session::{Began, Session, Targets, needs_streams};
use super::signals::Signals;
use super::supervise::{Ended, parent_of, processes};
use super::{Error, Options};
use crate::profile::Profile;
use crate::progress::Progress;

/// Whom to record.
#[derive(Debug, Clone)]
pub enum Attach {
    /// A process as we see it, with what it has started and will start.
    Pid(i32),
    /// A container by its id or the beginning of it.
    Container(String),
}

/// Records a process that runs already, until the conditions have come, it ends, or we are told to stop (SIGINT, SIGTERM, `esgz
/// profile stop`). Call it before any thread is started.
pub fn attach(
    options: &Options,
    whom: &Attach,
    progress: &dyn Progress,
    written: &mut dyn FnMut(&Profile),
) -> Result<(), Error> {
    options.until.questions()?;
    if needs_streams(options) {
        return Err(Error::NotAttached { why: "what it says on stdout and stderr cannot be read any more".into() });
    }
    let targets = Targets::new(options)?;
    let pid = match whom {
        Attach::Pid(pid) => *pid,
        Attach::Container(id) => of_container(id)?,
    };
    let gone = |source| Error::NotAttached { why: format!("process {pid} cannot be looked at: {source}") };
    let command = fs::read(format!("/proc/{pid}/cmdline")).map_err(gone)?;
    let command: Vec<_> = command.split(|b| *b == 0).filter(|a| !a.is_empty()).map(<[u8]>::to_vec).collect();
    let place = Place::of_process(pid, &targets.all())?;
    let mut session = Session::prepare(options, targets, place, true, progress)?;
    let signals = Signals::block().map_err(|e| Error::System { what: "block signals", source: e.into() })?;
    // Every thread takes some for each CPU.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _as_many_as_there_are = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
    let (subject, words) = subject(pid)?;
    session.start(&subject)?;
    session.engine.note("watched", words);
    let began = Began::now();
    // What is asked is asked where the process listens. Threads that are started from here on are there, too.
    if !options.until.questions()?.is_empty() {
        let network = File::open(format!("/proc/{pid}/ns/net")).map_err(gone)?;
        setns(&network, CloneFlags::CLONE_NEWNET)
            .map_err(|e| Error::System { what: "enter the network of the process", source: e.into() })?;
    }
    session.listen(progress)?;

    let mut wait = Wait::new(&options.until, began.instant, options.timeout);
    let tell = session.tell.clone();
    let end = wait.run(&session.marks, |moment| {
        if matches!(signals.wait(moment), Some(Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT)) {
            let _we_listen = tell.send(Mark::Stop(std::time::Instant::now()));
        }
        // Its code is its parent's to know.
        has_ended(pid).then_some(Ended::Code(0))
    });
    let complete = end.is_complete(&options.until);
    if !complete && !options.keep_failed {
        return Err(wait.failure(&end, |_| "ended".into()));
    }
    let command: Vec<_> = command.into_iter().map(std::ffi::OsString::from_vec).collect();
    let profile = session.conclude(began, wait, &command, complete, progress)?;
    written(&profile);
    Ok(())
}

/// Whether a process has gone, or is waited for by its parent only.
fn has_ended(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// The main process of a container: the one of its control group that no other of them has started.
fn of_container(id: &str) -> Result<i32, Error> {
    let refused = |why: String| Error::NotAttached { why };
    // Ids are 64 hexadecimal digits; runtimes print at least 12 of them.
    if id.len() < 8 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(refused(format!("{id:?} is no container id: expected at least 8 hexadecimal digits")));
    }
    let inside: BTreeSet<i32> = processes()
        .filter(|pid| {
            let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            // `…/<id>`, `…/cri-containerd-<id>.scope`
            group.lines().any(|l| l.rsplit(['/', '-', ':']).any(|part| part.starts_with(id)))
        })
        .collect();
    let first = inside.iter().find(|pid| !parent_of(**pid).is_some_and(|parent| inside.contains(&parent)));
    first.copied().ok_or_else(|| refused(format!("no process of a container {id:?} can be seen from here")))
}

/// The control group of the process where it is its own and can be reached, else its threads and those of its children.
fn subject(pid: i32) -> Result<(Subject, String), Error> {
    let group = |pid: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        text.lines().find_map(|l| l.strip_prefix("0::").map(ToOwned::to_owned))
    };
    let theirs = group(&pid.to_string());
    if let Some(path) = theirs.filter(|p| p != "/" && !p.contains("..") && Some(p) != group("self").as_ref())
        && let Some(dir) = unified().map(|mount| mount.join(path.trim_start_matches('/')))
        && holds(&dir, pid)
        && let Ok(dir) = File::open(&dir)
    {
        return Ok((Subject::Cgroup(dir.into(), Pid::from_raw(pid)), format!("control group {path}")));
    }
    let mut tree = BTreeSet::from([pid]);
    // A child has a larger number than its parent only mostly: until nothing is added.
    loop {
        let more: Vec<i32> =
            processes().filter(|p| !tree.contains(p) && parent_of(*p).is_some_and(|q| tree.contains(&q))).collect();
        if more.is_empty() {
            break;
        }
        tree.extend(more);
    }
    let threads: Vec<i32> = tree
        .iter()
        .flat_map(|p| fs::read_dir(format!("/proc/{p}/task")).into_iter().flatten().flatten())
        .filter_map(|d| d.file_name().to_str()?.parse().ok())
        .collect();
    if threads.is_empty() {
        return Err(Error::NotAttached { why: format!("process {pid} has ended") });
    }
    let words = format!("{} threads of {} processes and what they start", threads.len(), tree.len());
    Ok((Subject::Threads(threads, Pid::from_raw(pid)), words))
}

/// Where the unified hierarchy of control groups is mounted.
fn unified() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = text.lines().find(|l| l.contains(" - cgroup2 "))?;
    Some(PathBuf::from(line.split(' ').nth(4)?))
}

/// Whether the folder is really the process's group: inside a container's own view the paths are others.
fn holds(dir: &Path, pid: i32) -> bool {
    fs::read_to_string(dir.join("cgroup.procs")).is_ok_and(|t: String| t.lines().any(|l| l.parse() == Ok(pid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_container_is_refused_in_words() {
        for (id, part) in [("zz", "no container id"), ("0123456789abcdef00", "can be seen")] {
            let e = of_container(id).expect_err("no such container").to_string();
            assert!(e.contains(part), "{e}");
        }
    }

    #[test]
    fn our_own_threads_are_found() {
        let me = i32::try_from(std::process::id()).expect("a pid");
        match subject(me).expect("we run").0 {
            // Tests share one group with whoever started them, which is also `self`.
            Subject::Threads(all, _) => assert!(all.contains(&me)),
            other => panic!("{other:?}"),
        }
    }
}
