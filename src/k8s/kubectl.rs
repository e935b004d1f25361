//! The cluster, by way of `kubectl`: it knows every way of logging in (kubeconfig, exec plugins, cloud accounts) and is kept in
//! step with the API by those who make it, which a client of ours would not be.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::{Error, line};

/// Longest a call may take; the log is followed for as long as it lasts.
const PATIENCE: Duration = Duration::from_mins(1);
/// More than a pod's JSON or an error's words ever have.
const MAX_WORDS: u64 = 4 << 20;

/// The program and what every call of it is told.
#[derive(Debug, Clone)]
pub struct Kubectl {
    options: Vec<String>,
}

impl Kubectl {
    /// `options` stand in front of every subcommand: `--context`, `--namespace` and the like.
    pub fn new(options: Vec<String>) -> Self {
        Self { options }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.args(&self.options).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A Ctrl-C is for us: what is being deleted is deleted.
        command.process_group(0);
        command
    }

    /// Runs a subcommand to its end and gives its output, of at most `most` bytes. `doing` says in errors what it was for.
    pub fn call(&self, doing: &str, arguments: &[&str], input: Option<&str>, most: u64) -> Result<Vec<u8>, Error> {
        let mut command = self.command(arguments);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = start(&mut command)?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        std::thread::scope(|scope| {
            let _writer = stdin.zip(input).map(|(mut stdin, text)| {
                // Whoever does not read to the end says why on stderr.
                scope.spawn(move || stdin.write_all(text.as_bytes()))
            });
            let out = stdout.map(|s| scope.spawn(move || read(s, most + 1)));
            let words = stderr.map(|s| scope.spawn(move || read(s, MAX_WORDS)));
            let ended = wait(&mut child, doing, PATIENCE);
            let joined = |t: Option<std::thread::ScopedJoinHandle<'_, io::Result<Vec<u8>>>>| {
                t.and_then(|t| t.join().ok()).transpose().map(Option::unwrap_or_default)
            };
            let (out, words) = (joined(out), joined(words));
            let failed = |source| Error::Io { what: "reading its answer", source };
            let (status, out, words) = (ended?, out.map_err(failed)?, words.map_err(failed)?);
            if !status.success() {
                return Err(refused(doing, &String::from_utf8_lossy(&words)));
            }
            if out.len() as u64 > most {
                let said = format!("it answered more than {most} bytes");
                return Err(Error::Kubectl { doing: doing.into(), said });
            }
            Ok(out)
        })
    }

    /// As [`Kubectl::call`], for a text of ordinary length.
    pub fn text(&self, doing: &str, arguments: &[&str], input: Option<&str>) -> Result<String, Error> {
        let out = self.call(doing, arguments, input, MAX_WORDS)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    /// Follows the log of a container.
    pub fn follow(&self, pod: &str, container: &str) -> Result<(Follower, ChildStdout), Error> {
        let mut command = self.command(&["logs", "--follow", pod, "--container", container]);
        let mut child = start(command.stdin(Stdio::null()).stderr(Stdio::null()))?;
        let missing = || Error::Io { what: "following a log", source: io::ErrorKind::BrokenPipe.into() };
        let stdout = child.stdout.take().ok_or_else(missing)?;
        Ok((Follower(child), stdout))
    }
}

/// A `kubectl logs --follow`, which ends with the value.
pub struct Follower(Child);

impl Follower {
    /// Waits until the log is at its end, but not for ever.
    pub fn finish(&mut self, patience: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < patience && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

/// Ends a child and all that it has started: a credential plugin that hangs would hold its pipes open.
fn end(child: &mut Child) {
    // Once it is reaped its number may be another's.
    if !matches!(child.try_wait(), Ok(Some(_))) {
        let _gone = i32::try_from(child.id()).map(|id| killpg(Pid::from_raw(id), Signal::SIGKILL));
        let _gone = child.kill();
        let _reaped = child.wait();
    }
}

fn start(command: &mut Command) -> Result<Child, Error> {
    command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::NoKubectl,
        _ => Error::Io { what: "starting it", source },
    })
}

/// Reads what is kept and lets the rest go, so that the writer is not stopped.
fn read(mut from: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    (&mut from).take(most).read_to_end(&mut kept)?;
    io::copy(&mut from, &mut io::sink())?;
    Ok(kept)
}

fn wait(child: &mut Child, doing: &str, patience: Duration) -> Result<ExitStatus, Error> {
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if begun.elapsed() < patience => std::thread::sleep(Duration::from_millis(20)),
            other => {
                end(child);
                return Err(match other {
                    Err(source) => Error::Io { what: "waiting for it", source },
                    Ok(_) => Error::Slow { doing: doing.into(), seconds: patience.as_secs() },
                });
            }
        }
    }
}

/// What its words mean.
fn refused(doing: &str, words: &str) -> Error {
    let said = line(words);
    let lower = said.to_ascii_lowercase();
    // Admission answers "forbidden" too, but to the pod and not to the account.
    if lower.contains("podsecurity") || lower.contains("admission webhook") || lower.contains("exceeded quota") {
        Error::Refused { said }
    } else if lower.contains("forbidden") || lower.contains("unauthorized") || lower.contains("must be logged in") {
        Error::Forbidden { doing: doing.into(), said }
    } else {
        Error::Kubectl { doing: doing.into(), said }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_slow_call_has_started_ends_with_it() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 100 & wait"]).stdout(Stdio::piped()).process_group(0);
        let begun = Instant::now();
        let mut child = command.spawn().expect("a shell");
        let stdout = child.stdout.take().expect("piped");
        let slow = wait(&mut child, "x", Duration::from_millis(200)).expect_err("it waits");
        assert!(matches!(slow, Error::Slow { .. }), "{slow}");
        assert_eq!(read(stdout, 1).expect("the pipe is closed"), b"");
        assert!(begun.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn refusals_are_told_apart() {
        let level = "Error from server (Forbidden): error when creating \"STDIN\": pods \"p\" is forbidden: violates PodSecurity \
                     \"restricted:latest\": privileged (container \"workload\" must not set securityContext.privileged=true)";
        assert!(matches!(refused("x", level), Error::Refused { .. }));
        let right = "Error from server (Forbidden): pods is forbidden: User \"u\" cannot create resource \"pods\" in API group \"\"";
        assert!(matches!(refused("x", right), Error::Forbidden { .. }));
        assert!(matches!(
            refused("x", "error: You must be logged in to the server (Unauthorized)"),
            Error::Forbidden { .. }
        ));
        let other = refused("create the pod", "Unable to connect\n to the server: dial tcp: lookup x").to_string();
        assert_eq!(other, "kubectl could not create the pod: Unable to connect to the server: dial tcp: lookup x");
    }
}
