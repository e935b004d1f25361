//! A confined interpreter that takes one source after another and gives back what it made of it. Whatever it says is checked: it is the
//! image's, not ours.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::Error;
use crate::python::{HEADER, Header};
use crate::record::sandbox::{self, Limits};

const SCRIPT: &str = include_str!("compile.py");
/// A tag or the name of an exception is not longer.
const LONGEST_WORD: u32 = 256;
/// What is kept of what it says on stderr.
const SAID: usize = 4 << 10;
const LIMITS: Limits = Limits { memory: 4 << 30, cpu: 3600 };

/// It runs, and has said that it is the one for the tag.
pub(super) struct Interpreter {
    program: String,
    child: Arc<Mutex<Child>>,
    taken: Option<ChildStdin>,
    given: ChildStdout,
    said: Option<JoinHandle<String>>,
    /// Tells the watch that it may end.
    _over: Sender<()>,
    deadline: Instant,
}

/// What became of a source.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A compiled file that an interpreter would take for it.
    Compiled(Vec<u8>),
    /// The exception's name.
    Refused(String),
}

impl Interpreter {
    /// Starts a program of the root. Behind `deadline` it is killed.
    pub(super) fn start(root: &Path, program: &str, tag: &str, deadline: Instant) -> Result<Self, Error> {
        // The seed decides the order of constant sets.
        let environment = [("PYTHONHASHSEED", "0"), ("PYTHONDONTWRITEBYTECODE", "1")];
        let args = ["-S", "-s", "-X", "utf8", "-W", "ignore", "-c", SCRIPT];
        let started = sandbox::start(root, &format!("/{program}"), &args, &environment, LIMITS);
        let mut child = started.map_err(|source| {
            let (program, why) = (program.into(), source.to_string());
            // A broken link or a file for another machine is one interpreter's fault.
            match source.raw_os_error() {
                Some(libc::ENOENT | libc::EACCES | libc::ENOEXEC | libc::ELOOP) => Error::Interpreter { program, why },
                _ => Error::Start { program, source },
            }
        })?;
        let no_pipe = || Error::Start { program: program.into(), source: io::ErrorKind::BrokenPipe.into() };
        let (taken, given) = (child.stdin.take(), child.stdout.take().ok_or_else(no_pipe)?);
        let said = child.stderr.take().map(|err| std::thread::spawn(move || last_words(err)));
        let child = Arc::new(Mutex::new(child));
        let (over, ends) = channel();
        let watched = Arc::clone(&child);
        std::thread::spawn(move || {
            let left = deadline.saturating_duration_since(Instant::now());
            if ends.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
                let _has_ended = watched.lock().unwrap_or_else(PoisonError::into_inner).kill();
            }
        });
        let mut own = Self { program: program.into(), child, taken, given, said, _over: over, deadline };
        let found = own.number().and_then(|n| own.word(n));
        match found {
            Ok(found) if found == tag => Ok(own),
            Ok(found) => Err(own.failed(&format!("it makes files for {found:?}, expected {tag:?}"))),
            Err(e) => Err(own.failed(&e.to_string())),
        }
    }

    /// Compiles a source: its path in the image, the level of `-O`, its time in seconds and its text.
    pub(super) fn compile(&mut self, path: &str, optimize: i32, mtime: i64, source: &[u8]) -> Result<Outcome, Error> {
        let answer = self.ask(path, optimize, mtime, source).map_err(|e| self.failed(&e.to_string()))?;
        if let Outcome::Compiled(bytes) = &answer
            && !Header::parse(bytes).is_some_and(|h| h.is_of_time(mtime, source.len() as u64))
        {
            return Err(self.failed(&format!("what it made of {path:?} is no bytecode of that source")));
        }
        Ok(answer)
    }

    fn ask(&mut self, path: &str, optimize: i32, mtime: i64, source: &[u8]) -> io::Result<Outcome> {
        let path = format!("/{path}");
        let taken = self.taken.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        taken.write_all(&optimize.to_le_bytes())?;
        taken.write_all(&u32::try_from(path.len()).map_err(io::Error::other)?.to_le_bytes())?;
        taken.write_all(&mtime.to_le_bytes())?;
        taken.write_all(&(source.len() as u64).to_le_bytes())?;
        taken.write_all(path.as_bytes())?;
        taken.write_all(source)?;
        taken.flush()?;
        let (failed, length) = (self.number()?, self.number()?);
        if failed != 0 {
            return self.word(length).map(Outcome::Refused);
        }
        // Constants are written out, and each name once: far more than that is no bytecode.
        let most = HEADER as u64 + (1 << 20) + source.len() as u64 * 64;
        if u64::from(length) > most {
            return Err(io::Error::other(format!("it says {length} bytes for a source of {}", source.len())));
        }
        let mut bytes = Vec::new();
        (&mut self.given).take(length.into()).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != u64::from(length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Outcome::Compiled(bytes))
    }

    fn number(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.given.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn word(&mut self, length: u32) -> io::Result<String> {
        if length > LONGEST_WORD {
            return Err(io::Error::other(format!("it says a word of {length} bytes")));
        }
        let mut bytes = vec![0; length as usize];
        self.given.read_exact(&mut bytes)?;
        let text = String::from_utf8(bytes).map_err(io::Error::other)?;
        Ok(text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).collect())
    }

    /// Ends it and says why, with its own last words.
    fn failed(&mut self, why: &str) -> Error {
        let late = if Instant::now() >= self.deadline { ": it took too long" } else { "" };
        self.end();
        let said = self.said.take().and_then(|s| s.join().ok()).unwrap_or_default();
        let said = said.lines().next_back().unwrap_or_default();
        let said = if said.is_empty() { String::new() } else { format!(" ({})", said.escape_debug()) };
        Error::Interpreter { program: format!("/{}", self.program), why: format!("{why}{late}{said}") }
    }

    fn end(&mut self) {
        self.taken = None;
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _has_ended = child.kill();
        let _reaped = child.wait();
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads to the end, so that nobody waits for us, and keeps the beginning.
fn last_words(mut from: impl Read) -> String {
    let mut kept = Vec::new();
    let _as_far_as_it_goes = (&mut from).take(SAID as u64).read_to_end(&mut kept);
    let _the_rest = io::copy(&mut from, &mut io::sink());
    String::from_utf8_lossy(&kept).trim().to_owned()
}
