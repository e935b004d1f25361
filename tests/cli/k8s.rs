//! `esgz profile k8s`, with a `kubectl` that plays a pod's life from files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::rig::esgz;

/// Answers `get` with get-1, get-2 and so on, the last for ever; a file `X.err` makes the next call of X fail with its text.
const KUBECTL: &str = r#"#!/bin/sh
echo "$*" >> "$FAKE/calls"
while :; do case $1 in --*) shift ;; *) break ;; esac; done
if [ -e "$FAKE/$1.err" ]; then
  cat "$FAKE/$1.err" >&2
  rm "$FAKE/$1.err"
  exit 1
fi
case $1 in
create) cat > "$FAKE/pod.yaml" ;;
get)
  n=$(($(cat "$FAKE/n" 2>/dev/null || echo 0) + 1))
  echo $n > "$FAKE/n"
  while [ $n -gt 1 ] && [ ! -e "$FAKE/get-$n" ]; do n=$((n - 1)); done
  cat "$FAKE/get-$n"
  ;;
logs) case "$*" in *"--container workload"*) cat "$FAKE/workload.log" ;; *) cat "$FAKE/collect.log" ;; esac ;;
delete) ;;
esac
"#;

struct Fake {
    dir: tempfile::TempDir,
}

impl Fake {
    fn new(timeline: &[Value]) -> Self {
        let fake = Self { dir: tempfile::tempdir().expect("a folder") };
        fs::create_dir(fake.at("bin")).expect("a folder");
        fs::write(fake.at("bin/kubectl"), KUBECTL).expect("a script");
        fs::set_permissions(fake.at("bin/kubectl"), fs::Permissions::from_mode(0o755)).expect("executable");
        for (i, state) in timeline.iter().enumerate() {
            fs::write(fake.at(&format!("get-{}", i + 1)), state.to_string()).expect("a state");
        }
        fake.write("workload.log", "loading\nup\n");
        fake
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).expect("a file");
    }

    /// Makes the log of the collecting container from what the workload left.
    fn collected(&self, files: &[(&str, &[u8])]) {
        let out = self.at("out");
        fs::create_dir_all(&out).expect("a folder");
        for (name, content) in files {
            fs::write(out.join(name), content).expect("a file");
        }
        let capture = if files.len() > 1 { &["--capture"][..] } else { &[] };
        let log = esgz().args(["profile", "k8s-collect"]).arg(&out).args(capture).output().expect("esgz runs");
        assert!(log.status.success(), "{}", String::from_utf8_lossy(&log.stderr));
        fs::write(self.at("collect.log"), log.stdout).expect("a log");
    }

    fn command(&self, options: &[&str]) -> Command {
        self.unnamed(&[&["--pod-name", "p1"], options].concat())
    }

    fn unnamed(&self, options: &[&str]) -> Command {
        let mut command = esgz();
        let path = format!("{}:{}", self.at("bin").display(), std::env::var("PATH").expect("a PATH"));
        command.env("PATH", path).env("FAKE", self.dir.path());
        command.args(["profile", "k8s", "h.io/a/b:t", "--esgz-image", "h.io/esgz:1", "--poll-ms", "20"]);
        command.arg("-o").arg(self.at("p.json")).args(options).args(["--", "serve", "$HOME", "a b"]);
        command
    }

    fn run(&self, options: &[&str]) -> (i32, String) {
        let out = self.command(options).output().expect("esgz runs");
        (out.status.code().expect("a code"), String::from_utf8_lossy(&out.stderr).into_owned())
    }

    fn calls(&self) -> Vec<String> {
        fs::read_to_string(self.at("calls")).unwrap_or_default().lines().map(Into::into).collect()
    }

    fn deletions(&self) -> usize {
        self.calls().iter().filter(|c| c.contains("delete pod p1")).count()
    }
}

fn profile() -> Vec<u8> {
    let header = json!({
        "platform": "linux/amd64", "command": ["serve"], "recorder": {"name": "filemap", "version": "0", "inflation": ""},
        "started_at": "2026-01-01T00:00:00Z", "until": "exit", "events": 7, "lost_events": 0,
    });
    json!({ "schema": "esgz.profile/v1", "header": header, "files": [] }).to_string().into_bytes()
}

fn pending(reason: &str, message: &str) -> Value {
    json!({ "status": { "phase": "Pending", "conditions": [
        { "type": "PodScheduled", "status": "False", "reason": reason, "message": message },
    ] } })
}

/// A pod on a node; states of its two containers.
fn on_node(workload: &Value, collect: &Value) -> Value {
    json!({ "status": {
        "phase": "Running", "conditions": [{ "type": "PodScheduled", "status": "True" }],
        "initContainerStatuses": [{ "name": "esgz", "state": ended(0, "Completed") }],
        "containerStatuses": [{ "name": "collect", "state": collect }, { "name": "workload", "state": workload }],
    } })
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({ "waiting": { "reason": reason, "message": message } })
}

fn running() -> Value {
    json!({ "running": {} })
}

fn ended(code: i64, reason: &str) -> Value {
    json!({ "terminated": { "exitCode": code, "reason": reason } })
}

fn life() -> Vec<Value> {
    vec![
        json!({ "status": { "phase": "Pending" } }),
        pending("Unschedulable", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
        on_node(&waiting("ContainerCreating", ""), &running()),
        on_node(&running(), &running()),
        on_node(&running(), &running()),
        on_node(&ended(0, "Completed"), &running()),
        on_node(&ended(0, "Completed"), &ended(0, "Completed")),
    ]
}

#[test]
fn a_pod_gives_its_profile_and_is_deleted() {
    let fake = Fake::new(&life());
    fake.collected(&[("profile.json", &profile()), ("capture.tar", b"an archive")]);
    let capture = fake.at("c.tar").display().to_string();
    let (code, words) = fake.run(&["--capture", &capture, "--namespace", "n", "--context", "c"]);
    assert_eq!(code, 0, "{words}");
    assert_eq!(fs::read(fake.at("p.json")).expect("a profile"), profile());
    assert_eq!(fs::read(&capture).expect("an archive"), b"an archive");
    for part in ["Insufficient nvidia.com/gpu", "| loading\n| up\n", "recorded 7 events with filemap", "pod p1 deleted"]
    {
        assert!(words.contains(part), "{words}: no {part}");
    }
    let calls = fake.calls();
    assert!(calls.iter().all(|c| c.starts_with("--context=c --namespace=n ")), "{calls:?}");
    assert_eq!(fake.deletions(), 1);
    let yaml = fs::read_to_string(fake.at("pod.yaml")).expect("a pod");
    assert!(
        yaml.contains("namespace: \"n\"") && yaml.contains("privileged: true") && yaml.contains("- \"$$HOME\""),
        "{yaml}"
    );
}

#[test]
fn what_goes_wrong_is_said_and_nothing_is_left() {
    let on = |workload: Value| on_node(&workload, &running());
    let killed =
        json!({ "status": { "phase": "Failed", "reason": "Evicted", "message": "The node was low on memory." } });
    let failed_collect = on_node(&ended(0, "Completed"), &ended(1, "Error"));
    for (last, options, expected) in [
        (
            on(waiting("ImagePullBackOff", "Back-off pulling image \"h.io/a/b:t\"")),
            &[][..],
            "container workload of pod p1 does not start: ImagePullBackOff: Back-off",
        ),
        (on(waiting("CreateContainerConfigError", "secret \"x\" not found")), &[], "secret \"x\" not found"),
        (
            on(ended(137, "OOMKilled")),
            &["--settle", "0"],
            "exit code is 137 (OOMKilled); its log ends with:\nloading\nup",
        ),
        (killed, &[], "Evicted: The node was low on memory."),
        (failed_collect, &[], "container collect ended with exit code 1 (Error): profile.json has too many bytes"),
        (
            pending("Unschedulable", "0/1 nodes are available"),
            &["--start-timeout", "1"],
            "was given to no node within 1 s: Unschedulable: 0/1",
        ),
        (
            on(waiting("ContainerCreating", "")),
            &["--start-timeout", "1"],
            "no profile after 1 s: it is starting: ContainerCreating",
        ),
    ] {
        let fake = Fake::new(&[json!({}), last]);
        fake.write("collect.log", "profile.json has too many bytes\n");
        let (code, words) = fake.run(options);
        assert_eq!(code, 1, "{words}");
        assert!(words.contains(expected) && words.contains("\nhint: "), "{words}: no {expected}");
        assert_eq!(fake.deletions(), 1, "{words}");
        assert!(!fake.at("p.json").exists());
    }
}

#[test]
fn a_log_that_is_not_whole_is_no_profile() {
    let fake = Fake::new(&life());
    fake.collected(&[("profile.json", &profile())]);
    let log = fs::read_to_string(fake.at("collect.log")).expect("a log");
    for (damaged, expected) in [
        (String::new(), "its first line is not there"),
        (log[..log.rfind("-----END").expect("an end")].to_owned(), "no whole profile.json"),
        (log.replacen("sha256:", "sha256:0", 1), "not understood"),
    ] {
        fake.write("collect.log", &damaged);
        fake.write("n", "0");
        let (code, words) = fake.run(&[]);
        assert_eq!(code, 1, "{words}");
        assert!(words.contains(expected), "{words}: no {expected}");
        assert!(!fake.at("p.json").exists());
    }
    assert_eq!(fake.deletions(), 3);
}

#[test]
fn refusals_say_what_to_do() {
    for (error, expected, deletions) in [
        (
            "Error from server (Forbidden): pods is forbidden: User \"u\" cannot create resource \"pods\"",
            "not allowed to create the pod",
            0,
        ),
        (
            "Error from server (AlreadyExists): error when creating \"STDIN\": pods \"p1\" already exists",
            "already exists",
            0,
        ),
        ("error: unexpected EOF", "may have been created", 0),
    ] {
        let fake = Fake::new(&life());
        fake.write("create.err", error);
        let (code, words) = fake.run(&[]);
        assert_eq!(code, 1, "{words}");
        assert!(words.contains(expected), "{words}");
        assert_eq!(fake.deletions(), deletions, "what we did not create is not ours to delete");
    }
    let fake = Fake::new(&life());
    fake.write("create.err", "error: unexpected EOF");
    assert_eq!(fake.unnamed(&[]).output().expect("esgz runs").status.code(), Some(1));
    let calls = fake.calls();
    assert!(calls.iter().any(|c| c.contains("delete pod esgz-profile-")), "{calls:?}");

    let fake = Fake::new(&life());
    let out = fake.command(&[]).env("PATH", "/nonexistent").output().expect("esgz runs");
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        out.status.code() == Some(1) && words.contains("kubectl is not on the PATH") && words.contains("hint: install"),
        "{words}"
    );
}

#[test]
fn without_the_right_to_privileges_auto_does_without_them() {
    let refused = "Error from server (Forbidden): error when creating \"STDIN\": pods \"p1\" is forbidden: violates PodSecurity \
                   \"restricted:latest\": privileged (container \"workload\" must not set securityContext.privileged=true)";
    let fake = Fake::new(&life());
    fake.collected(&[("profile.json", &profile())]);
    fake.write("create.err", refused);
    let (code, words) = fake.run(&["--run-as-user", "1000"]);
    assert_eq!(code, 0, "{words}");
    let yaml = fs::read_to_string(fake.at("pod.yaml")).expect("a pod");
    assert!(!yaml.contains("privileged: true") && yaml.contains("runAsUser: 1000"), "{yaml}");

    fake.write("create.err", refused);
    let (code, words) = fake.run(&["--variant", "privileged"]);
    assert!(
        code == 1 && words.contains("the cluster refuses the pod") && words.contains("--variant restricted"),
        "{words}"
    );
}

#[test]
fn a_look_that_fails_is_repeated_and_a_pod_that_is_gone_is_not_waited_for() {
    let fake = Fake::new(&life());
    fake.collected(&[("profile.json", &profile())]);
    fake.write("get.err", "Unable to connect to the server: net/http: TLS handshake timeout");
    fake.write("delete.err", "Unable to connect to the server: net/http: TLS handshake timeout");
    assert_eq!(fake.run(&[]).0, 0);
    assert_eq!(fake.deletions(), 2);
    fake.write("get.err", "Error from server (NotFound): pods \"p1\" not found");
    let (code, words) = fake.run(&[]);
    assert!(code == 1 && words.contains("deleted by somebody else"), "{words}");
}

#[test]
fn a_profile_comes_also_where_the_capture_does_not() {
    let failed = on_node(&ended(0, "Completed"), &ended(1, "Error"));
    for timeline in [vec![failed], life()] {
        let fake = Fake::new(&timeline);
        fake.collected(&[("profile.json", &profile())]);
        let capture = fake.at("c.tar");
        let (code, words) = fake.run(&["--capture", &capture.display().to_string()]);
        assert_eq!(code, 1, "{words}");
        assert!(words.contains("the profile is there, but the capture did not arrive: "), "{words}");
        assert_eq!(fs::read(fake.at("p.json")).expect("a profile"), profile());
        assert!(!capture.exists() && fake.deletions() == 1, "{words}");
    }
}

#[test]
fn no_pod_is_made_for_what_cannot_be_written() {
    let fake = Fake::new(&life());
    let (code, words) = fake.run(&["--capture", "/nonexistent/c.tar"]);
    assert!(code == 1 && words.contains("cannot write /nonexistent/c.tar"), "{words}");
    assert!(fake.calls().is_empty());
}

#[test]
fn keep_leaves_the_pod() {
    let fake = Fake::new(&life());
    fake.collected(&[("profile.json", &profile())]);
    let (code, words) = fake.run(&["--keep"]);
    assert!(code == 0 && words.contains("pod p1 is kept"), "{words}");
    assert_eq!(fake.deletions(), 0);
}

/// Whether this process, and so what it starts, ignores a signal.
fn ignores(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let mask = status.lines().find_map(|l| u64::from_str_radix(l.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.expect("a mask") & (1 << (signal as u32 - 1)) != 0
}

#[test]
fn an_interruption_deletes_the_pod() {
    // Whoever runs the tests with nohup wants it ignored, and so it is.
    let hangup = (!ignores(Signal::SIGHUP)).then_some(Signal::SIGHUP);
    for signal in [Signal::SIGINT, Signal::SIGTERM].into_iter().chain(hangup) {
        let fake = Fake::new(&[on_node(&running(), &running())]);
        let child = fake.command(&[]).stderr(Stdio::piped()).spawn().expect("esgz runs");
        let begun = Instant::now();
        while !fake.calls().iter().any(|c| c.contains("logs --follow")) {
            assert!(begun.elapsed() < Duration::from_mins(1), "it never ran");
            std::thread::sleep(Duration::from_millis(20));
        }
        kill(Pid::from_raw(child.id().try_into().expect("a pid")), signal).expect("signal");
        let out = child.wait_with_output().expect("ended");
        let words = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(130), "{words}");
        assert!(words.contains("pod p1 deleted"), "{words}");
        assert_eq!(fake.deletions(), 1);
    }
}

/// What `PyYAML` reads; nothing where it is not installed, which in CI it has to be.
fn parsed(yaml: &[u8]) -> Option<Value> {
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))";
    let mut python = Command::new("python3");
    python.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let in_ci = std::env::var_os("CI").is_some();
    let Ok(mut child) = python.spawn() else {
        assert!(!in_ci, "no python3");
        return None;
    };
    // Without the module it ends before it reads: its words say more than the pipe.
    let _closed = std::io::Write::write_all(child.stdin.as_mut().expect("piped"), yaml);
    let out = child.wait_with_output().expect("ended");
    let words = String::from_utf8_lossy(&out.stderr);
    if !in_ci && words.contains("No module named") {
        return None;
    }
    assert!(out.status.success(), "{words}\n{}", String::from_utf8_lossy(yaml));
    Some(serde_json::from_slice(&out.stdout).expect("JSON"))
}

fn print(dir: &Path, more: &[&str]) -> Output {
    let mut command = esgz();
    command.env("PATH", dir).args(["profile", "k8s", "--print", "--esgz-image", "h.io/esgz:1", "--pod-name", "p1"]);
    command.args(more).output().expect("esgz runs")
}

#[test]
fn print_needs_no_cluster_and_takes_the_command_from_the_image() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = [
        "h.io/a:t",
        "--until-http",
        "http://127.0.0.1:8000/health",
        "--until-log",
        "started: .*",
        "--for",
        "2.5",
        "--",
        "serve",
    ];
    assert_eq!(print(dir.path(), &options).status.code(), Some(2), "--for is another condition");
    let options = [
        "h.io/a:t",
        "--until-log",
        "started: .*",
        "--grace",
        "9",
        "--recorder",
        "page-cache",
        "--",
        "serve",
        "yes",
        "1",
    ];
    let out = print(dir.path(), &options);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).expect("text");
    assert!(text.starts_with("# kubectl apply -f FILE"), "{text}");
    let Some(pod) = parsed(text.as_bytes()) else { return };
    let workload = &pod["spec"]["containers"][0];
    let command = [
        "/esgz-bin/esgz",
        "profile",
        "run",
        "-o",
        "/esgz-out/profile.json",
        "--image=h.io/a:t",
        "--timeout=1800",
        "--until-log=started: .*",
        "--grace=9",
        "--recorder=page-cache",
        "--",
        "serve",
        "yes",
        "1",
    ];
    assert_eq!(workload["command"], json!(command));
    // Nothing listens there: the image's own command cannot be read.
    let out = print(dir.path(), &["127.0.0.1:1/a:t"]);
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(1) && words.contains("behind --"), "{words}");

    fs::write(dir.path().join("patch"), r#"{"spec": {"priorityClassName": "low", "volumes": null}}"#).expect("a patch");
    let patch = dir.path().join("patch").display().to_string();
    let out = print(dir.path(), &["h.io/a:t", "--patch", &patch, "--", "x"]);
    let Some(pod) = parsed(&out.stdout) else { return };
    assert_eq!(pod["spec"]["priorityClassName"], "low");
    assert!(pod["spec"].get("volumes").is_none() && pod["spec"]["containers"][1]["name"] == "collect");
}

#[test]
fn a_pod_applied_by_hand_gives_its_profile_too() {
    let fake = Fake::new(&[]);
    fake.collected(&[("profile.json", &profile())]);
    let out = fake.at("p.json");
    let log = fs::File::open(fake.at("collect.log")).expect("a log");
    let ran = esgz().args(["profile", "k8s-receive", "-o"]).arg(&out).stdin(log).output().expect("esgz runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(fs::read(&out).expect("a profile"), profile());

    let copied = esgz().args(["profile", "k8s-copy"]).arg(fake.dir.path()).output().expect("esgz runs");
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let version = Command::new(fake.at("esgz")).arg("--version").output().expect("the copy runs");
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("esgz "));

    let begun = Instant::now();
    fs::create_dir(fake.at("empty")).expect("a folder");
    let none =
        esgz().args(["profile", "k8s-collect", "--timeout", "1"]).arg(fake.at("empty")).output().expect("esgz runs");
    assert_eq!(none.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&none.stderr).contains("did not come in time")
            && begun.elapsed() < Duration::from_secs(30)
    );
}
