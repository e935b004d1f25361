//! Running a program to its end with a time limit, output captured.
//!
//! Output goes to files, not pipes: a daemon started by the program may keep a pipe open for ever. The program gets a process
//! group of its own, so that a Ctrl-C in the terminal reaches this process alone, which then cleans up in order.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::Error;

/// Longest output kept.
const KEPT: u64 = 16 << 20;

/// Runs and gives the standard output. Killed when the future is dropped.
pub(super) async fn run(what: &str, program: &str, args: &[&str], limit: Duration) -> Result<String, Error> {
    let spawn = |source| Error::Spawn { what: what.into(), source };
    let mut out = tempfile::tempfile().map_err(spawn)?;
    let mut err = tempfile::tempfile().map_err(spawn)?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(out.try_clone().map_err(spawn)?)
        .stderr(err.try_clone().map_err(spawn)?)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(spawn)?;
    let Ok(status) = tokio::time::timeout(limit, child.wait()).await else {
        return Err(Error::Timeout { what: what.into(), seconds: limit.as_secs() });
    };
    let status = status.map_err(spawn)?;
    if status.success() {
        return text(&mut out).map_err(spawn);
    }
    let said = text(&mut err).map_err(spawn)?;
    let lines: Vec<_> = said.lines().filter(|l| !l.trim().is_empty()).collect();
    let said = lines[lines.len().saturating_sub(5)..].join(" | ");
    Err(Error::Command { what: what.into(), status: status.to_string(), said })
}

fn text(file: &mut File) -> std::io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(KEPT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test is what it is for")]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    async fn sh(script: &str, limit: Duration) -> Result<String, Error> {
        run("the script", "sh", &["-c", script], limit).await
    }

    #[tokio::test]
    async fn a_daemon_left_behind_does_not_hold_us() {
        // It outlives the limit, so that waiting for it would be an error.
        assert_eq!(sh("sleep 15 & echo done", LIMIT).await.unwrap(), "done\n");
    }

    #[tokio::test]
    async fn failures_say_what_was_said() {
        let e = sh("echo why >&2; exit 7", LIMIT).await.unwrap_err();
        assert_eq!(e.to_string(), "the script failed with exit status: 7: why");
        let e = sh("sleep 30", Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(e.to_string(), "the script took more than 0 s");
        assert!(matches!(run("x", "/no/such", &[], LIMIT).await, Err(Error::Spawn { .. })));
    }
}
