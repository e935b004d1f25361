//! Stopping a recording from outside: a socket beside the profile that it will write. `esgz profile stop` in the same container, or in
//! another one that shares the folder, asks there and learns how it ended.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use super::Error;
use super::conditions::Mark;

/// What is asked, and how a good answer begins.
const STOP: &str = "stop";
const WRITTEN: &str = "written ";
/// Answers are short.
const LONGEST: u64 = 64 << 10;

/// The socket of a recording; it goes with this value.
pub(super) struct Control {
    path: PathBuf,
    waiting: std::sync::Arc<Mutex<Vec<UnixStream>>>,
}

/// Where the recording that writes `profile` listens.
fn socket_of(profile: &Path) -> PathBuf {
    let mut name = profile.as_os_str().to_owned();
    name.push(".sock");
    name.into()
}

impl Control {
    /// Listens. A folder that cannot hold a socket is no reason not to record: then the recording cannot be stopped from outside.
    pub(super) fn listen(profile: &Path, marks: Sender<Mark>) -> io::Result<Self> {
        let path = socket_of(profile);
        let listener = match UnixListener::bind(&path) {
            // Left behind by a recording that was killed: nobody answers there.
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && UnixStream::connect(&path).is_err() => {
                fs::remove_file(&path)?;
                UnixListener::bind(&path)?
            }
            other => other?,
        };
        // Who may write to the folder may stop the recording; in a shared pod that may be another user.
        let _as_the_mask_has_it = fs::set_permissions(&path, fs::Permissions::from_mode(0o666));
        let waiting = std::sync::Arc::new(Mutex::new(Vec::new()));
        let keep = std::sync::Arc::clone(&waiting);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let asked = stream.set_read_timeout(Some(Duration::from_secs(5))).and_then(|()| {
                    let mut line = String::new();
                    BufReader::new((&stream).take(LONGEST)).read_line(&mut line).map(|_| line)
                });
                if asked.is_ok_and(|line| line.trim_end() == STOP) {
                    if let Ok(mut all) = keep.lock() {
                        all.push(stream);
                    }
                    let _nobody_listens_any_more = marks.send(Mark::Stop(Instant::now()));
                }
            }
        });
        Ok(Self { path, waiting })
    }

    /// Answers whoever asked to stop: the profile's path, or why there is none.
    pub(super) fn answer(&self, result: Result<&Path, &str>) {
        let words = match result {
            Ok(path) => format!("{WRITTEN}{}\n", path.display()),
            Err(why) => format!("{why}\n"),
        };
        for mut stream in self.waiting.lock().map(|mut w| std::mem::take(&mut *w)).unwrap_or_default() {
            let _gone = stream.write_all(words.as_bytes());
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.answer(Err("the recording failed: its own output says why"));
        let _gone = fs::remove_file(&self.path);
    }
}

/// Asks the recording that writes `profile` to stop and waits until the profile is there.
pub fn stop(profile: &Path) -> Result<(), Error> {
    let path = socket_of(profile);
    let none = |source| Error::NoRecording { profile: profile.to_owned(), source };
    let mut stream = UnixStream::connect(&path).map_err(none)?;
    stream.write_all(format!("{STOP}\n").as_bytes()).map_err(none)?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer).map_err(none)?;
    if answer.starts_with(WRITTEN) {
        return Ok(());
    }
    Err(Error::Stopped { profile: profile.to_owned(), why: answer.trim_end().to_owned() })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_recording_is_told_to_stop_and_answers() {
        let dir = tempfile::tempdir().expect("folder");
        let profile = dir.path().join("p.json");
        assert!(matches!(stop(&profile), Err(Error::NoRecording { .. })), "nobody records");
        // As a killed one leaves it behind.
        drop(UnixListener::bind(socket_of(&profile)).expect("a socket"));
        for written in [true, false] {
            let (tell, marks) = channel();
            let control = Control::listen(&profile, tell).expect("a socket");
            let asked = profile.clone();
            let asker = thread::spawn(move || stop(&asked));
            assert!(matches!(marks.recv_timeout(Duration::from_secs(10)), Ok(Mark::Stop(_))));
            if written {
                control.answer(Ok(&profile));
            }
            drop(control);
            let answer = asker.join().expect("no panic");
            assert_eq!(answer.is_ok(), written, "{answer:?}");
            assert!(!socket_of(&profile).exists());
        }
    }
}
