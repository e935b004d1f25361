//! The command's stdout and stderr on their way through us: passed on byte by byte, and read line by line. A terminal stays a
//! terminal for the command (a pseudo terminal of ours), and streams that are one file stay one, so that their order does.
#![expect(unsafe_code, reason = "asking a terminal for its size and handing it on has no safe wrapper")]

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::stat::fstat;
use nix::unistd::pipe2;

use super::phases;

/// Longest line that is looked at; what follows counts as the next one.
const LINE: usize = 64 << 10;
/// How long the last words of the command are waited for when something it left behind keeps the stream open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Called with every line and the time of its arrival.
pub(super) type OnLine = Arc<dyn Fn(Instant, &str) + Send + Sync>;

/// Streams made, the command not started.
pub(super) struct Streams {
    /// For file descriptors 1 and 2.
    child: [Option<Arc<OwnedFd>>; 2],
    copies: Vec<Copy>,
}

/// What is read from the command and where it goes.
struct Copy {
    from: File,
    to: File,
}

/// Streams that flow.
pub(super) struct Flowing {
    done: Receiver<()>,
    count: usize,
}

impl Streams {
    /// The command inherits ours.
    pub(super) fn inherited() -> Self {
        Self { child: [None, None], copies: Vec::new() }
    }

    /// Goes between. A stream that is closed stays closed.
    pub(super) fn between() -> io::Result<Self> {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let mut out = Self::inherited();
        if is_open(stdout.as_fd()) {
            out.child[0] = Some(out.join(stdout.as_fd(), stdout.is_terminal())?);
        }
        if is_open(stderr.as_fd()) {
            out.child[1] = Some(if is_same(stdout.as_fd(), stderr.as_fd()) {
                out.child[0].clone().ok_or_else(|| io::Error::other("no stdout"))?
            } else {
                out.join(stderr.as_fd(), stderr.is_terminal())?
            });
        }
        Ok(out)
    }

    fn join(&mut self, ours: BorrowedFd<'_>, terminal: bool) -> io::Result<Arc<OwnedFd>> {
        let to = File::from(ours.try_clone_to_owned()?);
        let (from, child) = if terminal {
            let pty = openpty(size(ours).as_ref(), None)?;
            make_raw(&pty.slave)?;
            // The command has its end under its own number; the others would keep the terminal alive when we are gone.
            for end in [&pty.master, &pty.slave] {
                fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
            }
            (pty.master, pty.slave)
        } else {
            pipe2(OFlag::O_CLOEXEC)?
        };
        self.copies.push(Copy { from: from.into(), to });
        Ok(Arc::new(child))
    }

    /// What the command is to have for stdout and stderr; nothing where it inherits ours.
    pub(super) fn for_child(&self) -> [Option<RawFd>; 2] {
        [0, 1].map(|i| self.child[i].as_ref().map(AsRawFd::as_raw_fd))
    }

    /// Lets them flow, once the command has been started.
    pub(super) fn start(self, on_line: &OnLine) -> Flowing {
        drop(self.child);
        let (tell, done) = channel();
        let count = self.copies.len();
        for copy in self.copies {
            let (on_line, tell): (_, Sender<()>) = (Arc::clone(on_line), tell.clone());
            thread::spawn(move || {
                copy.run(&on_line);
                let _nobody_waits = tell.send(());
            });
        }
        Flowing { done, count }
    }
}

impl Flowing {
    /// Waits for the last words of a command that has ended.
    pub(super) fn finish(self) {
        let until = Instant::now() + LAST_WORDS;
        for _ in 0..self.count {
            if self.done.recv_timeout(until.saturating_duration_since(Instant::now())).is_err() {
                return;
            }
        }
    }
}

impl Copy {
    /// Until the command closes its end, or nobody takes what it says: then it is told by SIGPIPE, as it would be without us.
    fn run(mut self, on_line: &OnLine) {
        let mut buf = vec![0; 64 << 10];
        let mut line = Vec::new();
        loop {
            let n = match self.from.read(&mut buf) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                // A pseudo terminal whose other end is closed answers EIO.
                Ok(0) | Err(_) => break,
                Ok(n) => n,
            };
            let at = Instant::now();
            if pass(&mut self.to, &buf[..n]).is_err() {
                return;
            }
            for &b in &buf[..n] {
                // A progress bar's lines end with a carriage return.
                if matches!(b, b'\n' | b'\r') || line.len() == LINE {
                    if !line.is_empty() {
                        on_line(at, &phases::plain(&line));
                    }
                    line.clear();
                }
                if !matches!(b, b'\n' | b'\r') {
                    line.push(b);
                }
            }
        }
        if !line.is_empty() {
            on_line(Instant::now(), &phases::plain(&line));
        }
    }
}

/// Writes all of it; a stream that somebody has made non-blocking is waited for.
fn pass(to: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(to.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn is_open(fd: BorrowedFd<'_>) -> bool {
    fstat(fd).is_ok()
}

/// Whether two descriptors lead to one file, as after `2>&1`.
fn is_same(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
    matches!((fstat(a), fstat(b)), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino, a.st_rdev) == (b.st_dev, b.st_ino, b.st_rdev))
}

fn size(terminal: BorrowedFd<'_>) -> Option<Winsize> {
    let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open and `size` is what TIOCGWINSZ writes to.
    let answer = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (answer == 0).then_some(size)
}

/// Output goes through unchanged: the outer terminal does what is to be done with it.
fn make_raw(terminal: &OwnedFd) -> io::Result<()> {
    let mut settings = nix::sys::termios::tcgetattr(terminal)?;
    nix::sys::termios::cfmakeraw(&mut settings);
    Ok(nix::sys::termios::tcsetattr(terminal, nix::sys::termios::SetArg::TCSANOW, &settings)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn copied(said: &[u8]) -> (Vec<u8>, Vec<String>) {
        let (from, mut child) = io::pipe().expect("a pipe");
        let (mut read, to) = io::pipe().expect("a pipe");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&lines);
        let on_line: OnLine = Arc::new(move |_, line: &str| keep.lock().expect("lock").push(line.to_owned()));
        let copy = Copy { from: File::from(OwnedFd::from(from)), to: File::from(OwnedFd::from(to)) };
        let thread = thread::spawn(move || copy.run(&on_line));
        let said = said.to_vec();
        let writer = thread::spawn(move || child.write_all(&said).expect("written"));
        let mut out = Vec::new();
        read.read_to_end(&mut out).expect("read");
        writer.join().expect("writer");
        thread.join().expect("copier");
        let lines = lines.lock().expect("lock").clone();
        (out, lines)
    }

    #[test]
    fn bytes_pass_unchanged_and_lines_are_seen() {
        let said = b"one\ntwo\x1b[31m!\x1b[0m\r\n 10%|\r 20%|\r\n\n\xff\xfe last";
        let (out, lines) = copied(said);
        assert_eq!(out, said);
        assert_eq!(lines, ["one", "two!", " 10%|", " 20%|", "\u{fffd}\u{fffd} last"]);
    }

    #[test]
    fn a_line_without_end_is_cut_not_kept() {
        let said = vec![b'x'; LINE * 3 + 5];
        let (out, lines) = copied(&said);
        assert_eq!(out.len(), said.len());
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [LINE, LINE, LINE, 5]);
    }
}
