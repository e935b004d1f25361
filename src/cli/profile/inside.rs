//! What the pod of `esgz profile k8s` calls, and what reads its log where somebody applied the pod by hand.
//!
//! These run in an image that has nothing but the binary, so that copying and encoding cannot be left to other programs.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::Failure;
use super::super::output::Output;
use super::{files, recording};
use crate::k8s::frame;
use crate::k8s::pod::{CAPTURE, MAX_CAPTURE, PROFILE};
use crate::profile;

/// Between two looks for a file.
const POLL: Duration = Duration::from_millis(250);
/// A file that grew no more for that long is taken for complete, where nothing else says so.
const STILL: Duration = Duration::from_secs(2);

/// Copy this program into a folder
#[derive(Debug, clap::Args)]
pub(super) struct Copy {
    dir: PathBuf,
}

/// Wait for a profile in a folder and print it as text
#[derive(Debug, clap::Args)]
pub(super) struct Collect {
    dir: PathBuf,
    /// Give up after that many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    timeout: u64,
    /// Print what start-up wrote too
    #[arg(long)]
    capture: bool,
}

/// Read a profile out of the log of a pod of `esgz profile k8s --print`
#[derive(Debug, clap::Args)]
pub(super) struct Receive {
    /// Log of the container named collect [default: standard input]
    log: Option<PathBuf>,
    /// Profile to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Archive to write, where the pod was made with --capture
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
}

pub(super) fn copy(args: &Copy) -> Result<u8, Failure> {
    let to = args.dir.join("esgz");
    let copied =
        fs::copy("/proc/self/exe", &to).and_then(|_| fs::set_permissions(&to, fs::Permissions::from_mode(0o755)));
    copied.map_err(|e| Failure::new(1, format!("copying this program to {}: {e}", to.display())))?;
    Ok(0)
}

pub(super) fn collect(args: &Collect) -> Result<u8, Failure> {
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let mut room = frame::MAX_TEXT;
    let stdout = &mut io::stdout();
    // The recorder gives the profile its name when it is whole.
    room = print(stdout, &args.dir, PROFILE, profile::MAX_BYTES, deadline, Duration::ZERO, room)?;
    if args.capture {
        print(stdout, &args.dir, CAPTURE, MAX_CAPTURE, deadline, STILL, room)?;
    }
    Ok(0)
}

/// Waits for a file, prints it, and gives the room that is left.
fn print(
    out: &mut impl io::Write,
    dir: &Path,
    name: &str,
    most: u64,
    deadline: Instant,
    still: Duration,
    room: usize,
) -> Result<usize, Failure> {
    let path = dir.join(name);
    let failed = |e: io::Error| Failure::new(1, format!("{}: {e}", path.display()));
    let (mut size, mut since) = (None, Instant::now());
    let file = loop {
        let file = open(&path).map_err(failed)?;
        let now = file.as_ref().map(|f| f.metadata().map(|m| m.len())).transpose().map_err(failed)?;
        if now != size {
            (size, since) = (now, Instant::now());
        }
        if let Some(file) = file
            && since.elapsed() >= still
        {
            break file;
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(1, format!("{} did not come in time", path.display())));
        }
        std::thread::sleep(POLL);
    };
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > most {
        return Err(Failure::new(1, format!("{} has more than {most} bytes", path.display())));
    }
    Ok(frame::write(out, name, &content, room)?)
}

/// Opens a file that a workload left. It may have left anything there: no link is followed, and nothing is waited for.
fn open(path: &Path) -> io::Result<Option<File>> {
    let opened = fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if file.metadata()?.is_file() { Ok(Some(file)) } else { Err(io::Error::other("it is no file")) }
}

pub(super) fn receive(args: &Receive, out: &Output) -> Result<u8, Failure> {
    for path in std::iter::once(&args.output).chain(&args.capture) {
        files::check(path)?;
    }
    // As much as is looked at anyway.
    let most = 2 * frame::MAX_TEXT as u64;
    let mut log = Vec::new();
    let read = match &args.log {
        Some(path) => File::open(path).and_then(|f| f.take(most).read_to_end(&mut log)),
        None => io::stdin().take(most).read_to_end(&mut log),
    };
    let name = args.log.as_ref().map_or_else(|| "standard input".into(), |p| p.display().to_string());
    read.map_err(|e| Failure::new(1, format!("{name}: {e}")))?;
    let bytes = frame::read(&log[..], PROFILE, profile::MAX_BYTES)?;
    let profile = profile::read(&bytes)?;
    files::write(&args.output, &bytes, out)?;
    recording::say(&profile, out);
    if let Some(path) = &args.capture {
        files::write(path, &frame::read(&log[..], CAPTURE, MAX_CAPTURE)?, out)?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_file_is_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        assert!(open(&at("none")).expect("not there").is_none());
        fs::write(at("file"), "x").expect("a file");
        assert!(open(&at("file")).expect("there").is_some());
        std::os::unix::fs::symlink(at("file"), at("link")).expect("a link");
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        fs::create_dir(at("folder")).expect("a folder");
        for name in ["link", "pipe", "folder"] {
            open(&at(name)).expect_err(name);
        }
    }
}
