//! The reader on the node (`esgz warm node`) for the time of one run: started before the pull, ended with SIGTERM behind the answer.
//! Hidden here: the process and where it leaves its word.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::{Child, Command};

use super::stack::Env;
use super::{Error, inject};

/// A reader that does not end in this time after SIGTERM is killed.
const GRACE: Duration = Duration::from_secs(10);

/// A running reader; killed when dropped.
pub(super) struct Reader {
    child: Child,
    report: PathBuf,
}

impl Reader {
    /// Starts it; what it says goes to `folder`.
    pub(super) fn start(binary: &Path, env: &Env, folder: &Path) -> Result<Self, Error> {
        let report = folder.join("warm-node.json");
        let said = folder.join("warm-node.log");
        let log = File::create(&said).map_err(Error::io(format!("making {}", said.display())))?;
        let spawn = |source| Error::Spawn { what: format!("`{} warm node`", binary.display()), source };
        let child = Command::new(binary)
            .args(["warm", "node", "--mounts"])
            .arg(&env.stargz_root)
            .arg("--content")
            .arg(&env.content_store)
            .arg("--json")
            .arg(&report)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(spawn)?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(spawn)?;
        Ok(Self { child, report })
    }

    /// Its process; `None` when it has ended and was seen to.
    pub(super) fn process(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends it. Gives what it says of itself, if it ended by itself or on SIGTERM and left a whole report.
    pub(super) async fn end(mut self) -> Result<Option<Value>, Error> {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // Already gone is as good.
            let _gone = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if tokio::time::timeout(GRACE, self.child.wait()).await.is_err() {
            self.child.kill().await.map_err(Error::io("killing the reader on the node"))?;
            return Ok(None);
        }
        Ok(inject::read(&self.report))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test is what it is for")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::bench::stack;

    fn reader(dir: &Path, script: &str) -> Reader {
        let binary = dir.join("esgz");
        std::fs::write(&binary, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
        Reader::start(&binary, &stack::tests::env(), dir).unwrap()
    }

    #[tokio::test]
    async fn it_is_told_where_to_look_and_ends_when_told() {
        let dir = tempfile::tempdir().unwrap();
        let report = dir.path().join("warm-node.json");
        let ended = "trap 'echo \"{\\\"args\\\":\\\"$*\\\"}\" >\"$8\"; exit 0' TERM";
        let running = reader(dir.path(), &format!("{ended}; touch \"$8.up\"; while :; do sleep 0.02; done"));
        assert!(running.process().is_some());
        while !dir.path().join("warm-node.json.up").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let said = running.end().await.unwrap().unwrap();
        let line = format!("warm node --mounts /z --content /c/x --json {}", report.display());
        assert_eq!(said["args"].as_str(), Some(line.as_str()));
    }

    #[tokio::test]
    async fn one_that_broke_down_has_nothing_to_say() {
        let dir = tempfile::tempdir().unwrap();
        let gone = reader(dir.path(), "echo no such mount; exit 1");
        assert_eq!(gone.end().await.unwrap(), None);
        // Written, unless the signal came first.
        assert!(dir.path().join("warm-node.log").exists());
        assert!(Reader::start(Path::new("/no/such"), &stack::tests::env(), dir.path()).is_err());
    }
}
