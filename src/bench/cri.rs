//! The container runtime through `crictl`, as a kubelet would drive it.
//!
//! Each step is one process, so its start-up (tens of milliseconds) is part of what is measured, for every arm. The pod
//! shares the host's network and the workload answers on the loopback. Hidden here: crictl's flags and JSON.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::inject::Injection;
use super::stack::Env;
use super::{Error, command};
use crate::digest::Digest;

/// Name of the container's log below the pod's log folder.
const LOG: &str = "workload.log";

/// A runtime.
#[derive(Debug, Clone)]
pub struct Cri {
    crictl: String,
    endpoint: String,
    limit: Duration,
}

/// What a container is made of.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The image.
    pub image: &'a str,
    /// Environment besides the image's own.
    pub env: &'a [(String, String)],
    /// Arguments in place of the image's own; empty: the image's.
    pub args: &'a [String],
    /// The read-ahead that is put before the workload.
    pub injected: Option<&'a Injection>,
}

/// A pod with its container, not yet started.
#[derive(Debug, Clone)]
pub struct Container {
    /// Container id.
    pub id: String,
}

impl Cri {
    /// The stack's runtime; `limit` holds for each call.
    pub fn new(env: &Env, limit: Duration) -> Self {
        let socket = env.cri_socket.as_str();
        let endpoint = if socket.contains("://") { socket.into() } else { format!("unix://{socket}") };
        Self { crictl: env.crictl.clone(), endpoint, limit }
    }

    async fn call(&self, args: &[&str]) -> Result<String, Error> {
        // The CRI's own limit is the same as ours: its default of 2 s ends a container that waits for a prefetch.
        let limit = format!("{}s", self.limit.as_secs().max(1));
        let mut all =
            vec!["--runtime-endpoint", &self.endpoint, "--image-endpoint", &self.endpoint, "--timeout", &limit];
        all.extend(args);
        command::run(&format!("`crictl {}`", args.join(" ")), &self.crictl, &all, self.limit).await
    }

    async fn json(&self, args: &[&str]) -> Result<Value, Error> {
        let text = self.call(args).await?;
        let what = || format!("the output of `crictl {}`", args.join(" "));
        serde_json::from_str(&text).map_err(|source| Error::Json { what: what(), source })
    }

    /// Pulls an image.
    pub async fn pull(&self, image: &str) -> Result<(), Error> {
        self.call(&["pull", image]).await.map(|_| ())
    }

    /// Makes the pod and the container in it and starts it. `files` takes the requests' JSON, `logs` the container's log.
    pub async fn start(&self, request: Request<'_>, files: &Path, logs: &Path) -> Result<Container, Error> {
        let (pod, container) = (files.join("pod.json"), files.join("container.json"));
        let write = |path: &Path, value: Value| {
            fs::write(path, value.to_string()).map_err(Error::io(format!("writing {}", path.display())))
        };
        write(&pod, sandbox(logs))?;
        write(&container, workload(request))?;
        let (pod, container) = (pod.to_string_lossy(), container.to_string_lossy());
        let sandbox = self.call(&["runp", &pod]).await?;
        let id = self.call(&["create", sandbox.trim(), &container, &pod]).await?.trim().to_owned();
        self.call(&["start", &id]).await?;
        Ok(Container { id })
    }

    /// The process of a started container.
    pub async fn process(&self, container: &Container) -> Result<u32, Error> {
        let value = self.json(&["inspect", "--output", "json", &container.id]).await?;
        let pid = value["info"]["pid"].as_u64().and_then(|p| u32::try_from(p).ok()).filter(|p| *p > 0);
        pid.ok_or_else(|| Error::Ended(ended(&value)))
    }

    /// How a container ended, in words.
    pub async fn ended(&self, container: &Container) -> Result<String, Error> {
        Ok(ended(&self.json(&["inspect", "--output", "json", &container.id]).await?))
    }

    /// Images: each one's name and id.
    pub async fn images(&self) -> Result<Vec<Listed>, Error> {
        Ok(images(&self.json(&["images", "--output", "json"]).await?))
    }

    /// Stops and removes every pod: the stack is ours alone.
    pub async fn clear(&self) -> Result<(), Error> {
        let all = self.call(&["pods", "--quiet"]).await?;
        for pod in all.split_whitespace() {
            self.call(&["rmp", "--force", pod]).await?;
        }
        Ok(())
    }

    /// `name version` of the runtime.
    pub async fn version(&self) -> Result<(String, String), Error> {
        let text = self.call(&["version"]).await?;
        let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned());
        field("RuntimeName:").zip(field("RuntimeVersion:")).ok_or_else(|| Error::Unexpected {
            what: "the output of `crictl version`".into(),
            why: "it has no RuntimeName and RuntimeVersion".into(),
        })
    }
}

/// An image as the runtime lists it.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed {
    /// Tags, else digests, else the id.
    pub name: String,
    /// Its id: the digest of its config.
    pub id: Option<Digest>,
}

fn images(value: &Value) -> Vec<Listed> {
    let strings = |v: &Value| -> Vec<String> {
        v.as_array().into_iter().flatten().filter_map(|s| s.as_str().map(Into::into)).collect()
    };
    let listed = |image: &Value| {
        let (tags, digests) = (strings(&image["repoTags"]), strings(&image["repoDigests"]));
        let id = image["id"].as_str().unwrap_or("?").to_owned();
        Listed { id: id.parse().ok(), name: tags.first().or(digests.first()).cloned().unwrap_or(id) }
    };
    value["images"].as_array().into_iter().flatten().map(listed).collect()
}

fn ended(value: &Value) -> String {
    let status = &value["status"];
    let text = |k: &str| status[k].as_str().filter(|s| !s.is_empty());
    let mut said = format!("{}, exit code {}", text("state").unwrap_or("in an unknown state"), status["exitCode"]);
    for more in [text("reason"), text("message")].into_iter().flatten() {
        said.push_str(", ");
        said.push_str(more);
    }
    said
}

/// Enumerations are numbers in the CRI's JSON: network namespace 2 is the node's.
fn sandbox(logs: &Path) -> Value {
    json!({
        "metadata": { "name": "esgz-bench", "namespace": "default", "uid": "esgz-bench", "attempt": 1 },
        "log_directory": logs,
        "linux": { "security_context": { "namespace_options": { "network": 2 } } },
    })
}

fn workload(request: Request<'_>) -> Value {
    let envs: Vec<_> = request.env.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
    let mut value = json!({
        "metadata": { "name": "workload", "attempt": 1 },
        "image": { "image": request.image },
        "envs": envs,
        "args": request.args,
        "log_path": LOG,
        "linux": {},
    });
    if let Some(injection) = request.injected {
        let (command, args) = injection.words();
        value["command"] = json!(command);
        value["args"] = json!(args);
        value["mounts"] = injection.mounts();
    }
    value
}

/// The log of the container in its pod's log folder.
pub(super) fn log(logs: &Path) -> PathBuf {
    logs.join(LOG)
}

/// The last lines of a container's log, without the CRI's stamps.
pub fn tail(logs: &Path, lines: usize) -> Vec<String> {
    let Ok(bytes) = fs::read(logs.join(LOG)) else { return Vec::new() };
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().map(said).collect();
    all[all.len().saturating_sub(lines)..].iter().map(|s| (*s).to_owned()).collect()
}

/// `<time> stdout|stderr F|P <what was said>`
fn said(line: &str) -> &str {
    let mut parts = line.splitn(4, ' ');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some("stdout" | "stderr"), Some(_), Some(rest)) => rest,
        (Some(_), Some("stdout" | "stderr"), Some(_), None) => "",
        _ => line,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test is what it is for")]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_by_tag_and_known_by_their_config() {
        let digest = Digest::of(b"m");
        let value = json!({ "images": [
            { "id": digest.to_string(), "repoTags": ["h:1/a:b"], "repoDigests": [format!("h:1/a@{digest}")], "size": "5" },
            { "id": "sha256:2", "repoTags": [], "repoDigests": ["h:1/c@sha512:00"] },
            { "id": "sha256:3" },
        ] });
        let all = images(&value);
        let names: Vec<_> = all.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names, ["h:1/a:b", "h:1/c@sha512:00", "sha256:3"]);
        assert_eq!((all[0].id, all[1].id), (Some(digest), None));
        assert_eq!(images(&json!({ "images": null })), []);
    }

    #[test]
    fn an_ended_container_says_how() {
        let value =
            json!({ "status": { "state": "CONTAINER_EXITED", "exitCode": 1, "reason": "Error", "message": "" } });
        assert_eq!(ended(&value), "CONTAINER_EXITED, exit code 1, Error");
    }

    #[test]
    fn log_lines_lose_their_stamps() {
        assert_eq!(said("2026-11-25T04:00:00.1Z stderr F INFO: a  b"), "INFO: a  b");
        assert_eq!(said("2026-11-25T04:00:00.1Z stdout F"), "");
        assert_eq!(said("no stamp here at all"), "no stamp here at all");
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(tail(dir.path(), 2), Vec::<String>::new());
        fs::write(dir.path().join(LOG), "t stdout F a\nt stdout F b\nt stdout F c\n").unwrap();
        assert_eq!(tail(dir.path(), 2), ["b", "c"]);
    }

    #[test]
    fn requests_carry_what_was_asked() {
        let (env, args) = ([("K".into(), "V".into())], ["--x".into()]);
        let request = Request { image: "h:1/a:b", env: &env, args: &args, injected: None };
        let value = workload(request);
        assert!(value.get("mounts").is_none() && value.get("command").is_none());
        assert_eq!(value["envs"][0], json!({ "key": "K", "value": "V" }));
        assert_eq!((value["image"]["image"].as_str(), value["args"][0].as_str()), (Some("h:1/a:b"), Some("--x")));
        let injection = Injection {
            binary: "/b/esgz".into(),
            profile: "/p.json".into(),
            out: "/out".into(),
            command: vec!["serve".into(), "--x".into()],
        };
        let value = workload(Request { injected: Some(&injection), ..request });
        assert_eq!(value["command"], json!(["/.esgz-warm/esgz"]));
        let args: Vec<_> = value["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!((args[0], &args[5..]), ("warm", &["--", "serve", "--x"][..]));
        let out = json!({ "container_path": "/.esgz-warm-out", "host_path": "/out", "readonly": false });
        assert_eq!((&value["mounts"][2], value["mounts"][0]["host_path"].as_str()), (&out, Some("/b/esgz")));
        assert_eq!(sandbox(Path::new("/l"))["linux"]["security_context"]["namespace_options"]["network"], 2);
    }
}
