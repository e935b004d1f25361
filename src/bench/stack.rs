//! The stack under test, through a script that owns it. The contract, `CMD` being the words given as `--stack`:
//!
//! - `CMD reset --snapshotter overlayfs|stargz [--stock|--tuned]`: stops containerd and snapshotter, unmounts and wipes both roots,
//!   starts them with that snapshotter as the CRI's (`--stock`: the lazy one with its own default settings; `--tuned`: containerd as fast
//!   as its settings allow), provides the sandbox ("pause") image without going through the registry and unpacked for that
//!   snapshotter (left to the first pod, the lazy snapshotter first looks for it in a registry: 1.4 s in the measured time, and a
//!   refusal that the evidence takes against the run), then `sync` and drops the page cache. It ends when the CRI answers. The
//!   registry keeps running.
//! - `CMD env`: one JSON object, see [`Env`]; process ids are those of now.
//! - `CMD down [--keep-registry]`: stops everything (but the registry).
//!
//! Exit status 0 is success; what it says on standard error is shown otherwise. Hidden here: how the script is called.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{Error, command};

/// What `CMD env` prints. Unknown keys are ignored.
#[derive(Debug, Clone, Deserialize)]
pub struct Env {
    /// Socket of the CRI, with or without `unix://`.
    pub cri_socket: String,
    /// containerd's root.
    pub containerd_root: PathBuf,
    /// The lazy snapshotter's root.
    pub stargz_root: PathBuf,
    /// Its log, JSON lines at level debug.
    pub stargz_log: PathBuf,
    /// Host and port of the registry.
    pub registry: String,
    /// Path of crictl.
    pub crictl: String,
    /// containerd's content store: the folder that holds `blobs/sha256`.
    pub content_store: PathBuf,
    /// containerd's process id; 0 when down.
    #[serde(default, deserialize_with = "pid")]
    pub containerd_pid: u32,
    /// The lazy snapshotter's process id; 0 when it does not run.
    #[serde(default, deserialize_with = "pid")]
    pub stargz_pid: u32,
    /// The CRI's snapshotter.
    #[serde(default)]
    pub snapshotter: String,
    /// Settings of the daemons: `default`, `stock` or `tuned`.
    #[serde(default)]
    pub mode: String,
    /// Where the lazy snapshotter's Prometheus metrics are; empty: nowhere.
    #[serde(default)]
    pub metrics: String,
    /// Versions worth keeping, by name.
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
}

fn pid<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    Option::<u32>::deserialize(d).map(Option::unwrap_or_default)
}

/// Settings of the daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The stack's own.
    Default,
    /// The lazy snapshotter's defaults.
    Stock,
    /// containerd as fast as its settings allow.
    Tuned,
}

impl Mode {
    /// As `CMD env` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Stock => "stock",
            Self::Tuned => "tuned",
        }
    }
}

/// The script.
#[derive(Debug, Clone)]
pub struct Stack {
    command: String,
    limit: Duration,
}

impl Stack {
    /// `command` is shell words; `limit` holds for each call.
    pub fn new(command: &str, limit: Duration) -> Self {
        Self { command: command.into(), limit }
    }

    async fn call(&self, args: &[&str]) -> Result<String, Error> {
        let script = format!("exec {} \"$@\"", self.command);
        let mut all = vec!["-c", &script, "sh"];
        all.extend(args);
        command::run(&format!("`{} {}`", self.command, args.join(" ")), "sh", &all, self.limit).await
    }

    /// Wiped and cold.
    pub async fn reset(&self, snapshotter: &str, mode: Mode) -> Result<(), Error> {
        let mut args = vec!["reset", "--snapshotter", snapshotter];
        match mode {
            Mode::Default => {}
            Mode::Stock => args.push("--stock"),
            Mode::Tuned => args.push("--tuned"),
        }
        self.call(&args).await.map(|_| ())
    }

    /// Where everything is.
    pub async fn env(&self) -> Result<Env, Error> {
        let text = self.call(&["env"]).await?;
        parse(&text).map_err(|source| Error::Json { what: format!("the output of `{} env`", self.command), source })
    }

    /// Stopped, but for the registry.
    pub async fn down(&self) -> Result<(), Error> {
        self.call(&["down", "--keep-registry"]).await.map(|_| ())
    }
}

fn parse(text: &str) -> Result<Env, serde_json::Error> {
    serde_json::from_str(text)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test is what it is for")]
pub(super) mod tests {
    use super::*;

    const ENV: &str = r#"{"cri_socket":"/s","containerd_root":"/c","stargz_root":"/z","stargz_log":"/l","registry":"127.0.0.1:5070",
        "crictl":"/b/crictl","content_store":"/c/x","containerd_pid":7,"stargz_pid":null,"snapshotter":"overlayfs","mode":"tuned","more":[1]}"#;

    pub(in crate::bench) fn env() -> Env {
        parse(ENV).unwrap()
    }

    #[test]
    fn a_snapshotter_that_does_not_run_has_no_pid() {
        let env = parse(ENV).unwrap();
        assert_eq!((env.containerd_pid, env.stargz_pid, env.registry.as_str()), (7, 0, "127.0.0.1:5070"));
        assert_eq!((env.mode.as_str(), env.metrics.as_str()), (Mode::Tuned.name(), ""));
        assert!(parse("{}").unwrap_err().to_string().contains("missing field `cri_socket`"));
    }

    #[tokio::test]
    async fn a_mode_is_a_flag_of_the_reset() {
        let said = tempfile::NamedTempFile::new().unwrap();
        let stack = Stack::new(&format!("sh -c 'echo \"$@\" >>{}' sh", said.path().display()), Duration::from_secs(5));
        for (snapshotter, mode) in [("stargz", Mode::Default), ("stargz", Mode::Stock), ("overlayfs", Mode::Tuned)] {
            stack.reset(snapshotter, mode).await.unwrap();
        }
        let calls =
            "reset --snapshotter stargz\nreset --snapshotter stargz --stock\nreset --snapshotter overlayfs --tuned\n";
        assert_eq!(std::fs::read_to_string(said.path()).unwrap(), calls);
    }

    #[tokio::test]
    async fn the_command_is_shell_words() {
        let stack = Stack::new("printf '%s.' 'a b'", Duration::from_secs(5));
        assert_eq!(stack.call(&["c d"]).await.unwrap(), "a b.c d.");
        let e = Stack::new("sh -c 'echo no registry >&2; exit 3'", Duration::from_secs(5)).env().await.unwrap_err();
        assert_eq!(e.to_string(), "`sh -c 'echo no registry >&2; exit 3' env` failed with exit status: 3: no registry");
    }
}
