//! `esgz bench` against a made-up stack: a script for the stack, one for crictl, a small registry and workload in this process. No
//! containers, no root: what is tested is the order of things, the verdicts and what is printed.
//!
//! The "runtime" keeps its state in a folder: `images`, `content/blobs`, `started`. A cold start drops the real page cache only
//! in a real stack, so the warm run, which `bench` itself makes cold, needs root and is left to the end-to-end test.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use assert_cmd::Command;
use esgz::digest::Digest;
use predicates::prelude::*;
use serde_json::{Value, json};

const STACK: &str = r#"#!/bin/bash
set -eu
d=$(dirname "$0"); echo "$*" >>"$d/calls"
case $1 in
reset) rm -rf "$d/content" "$d/images" "$d/started"; mkdir -p "$d/content/blobs/sha256"; echo "$3" >"$d/snapshotter"; : >"$d/log"
  mode=${4:-}; mode=${mode#--}; echo "${mode:-default}" >"$d/mode" ;;
env) cat <<JSON
{"cri_socket":"$d/cri.sock","containerd_root":"$d","stargz_root":"$d/stargz","stargz_log":"$d/log","registry":"$(cat "$d/registry")",
 "crictl":"$d/crictl","content_store":"$d/content","containerd_pid":$$,"stargz_pid":null,"snapshotter":"$(cat "$d/snapshotter")",
 "mode":"$(cat "$d/mode")"}
JSON
;;
down) rm -f "$d/started" ;;
esac
"#;

/// `pull` fetches layers through the link with bash alone; `behave` holds what goes wrong.
const CRICTL: &str = r#"#!/bin/bash
set -eu
d=$(dirname "$0"); behave=$(cat "$d/behave"); shift 6
case $1 in
version) printf 'Version:  0.1.0\nRuntimeName:  containerd\nRuntimeVersion:  v2.4.2\n' ;;
pods) if [ -e "$d/started" ]; then echo pod1; fi ;;
rmp) kill "$(cat "$d/pid")" 2>/dev/null || true; rm -f "$d/started" ;;
images) echo "{\"images\":[{\"id\":\"p\",\"repoTags\":[\"registry.k8s.io/pause:3.10\"],\"repoDigests\":[]}$(cat "$d/images" 2>/dev/null)]}" ;;
pull)
  [ "$behave" != refuse ] || { echo "no such image" >&2; exit 1; }
  [ "$behave" != slow ] || sleep 60
  host=${2%%/*}
  while read -r name; do
    [ "$behave" != lazy ] || continue
    exec 3<>"/dev/tcp/${host%:*}/${host#*:}"
    printf 'GET /v2/m/blobs/sha256:%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' "$name" >&3
    cat <&3 >"$d/content/blobs/sha256/$name"; exec 3>&-
  done <"$d/layers"
  echo ",{\"id\":\"$(cat "$d/id")\",\"repoTags\":[\"$2\"],\"repoDigests\":[]}" >"$d/images" ;;
runp) echo pod1 ;;
create) echo c1
  out=$(sed -n 's/.*"container_path":"\/.esgz-warm-out","host_path":"\([^"]*\)".*/\1/p' "$3")
  if [ -n "$out" ] && [ "$behave" != silent ]; then echo '{"read":5}' >"$out/warm.json"; cp "$3" "$d/container"; fi ;;
start) sleep 300 >/dev/null 2>&1 & echo $! >"$d/pid"
  now=$(date -u +%Y-%m-%dT%H:%M:%S.%NZ)
  printf "$now stderr F one\nt stderr F Starting to load model m\n$now stderr F two\n" >"$(sed 's/.*"log_directory":"\([^"]*\)".*/\1/' "$d/pod" )/workload.log"
  if [ "$behave" = die ]; then kill $!; else touch "$d/started"; fi ;;
inspect) echo "{\"status\":{\"state\":\"CONTAINER_EXITED\",\"exitCode\":1,\"reason\":\"Error\"},\"info\":{\"pid\":$(cat "$d/pid")}}" ;;
esac
if [ "$1" = runp ]; then cp "$2" "$d/pod"; fi
"#;

/// Uses some time, and says on SIGTERM how it was called.
const READER: &str = r#"#!/bin/bash
trap 'echo "{\"args\":\"$*\"}" >"$8"; exit' TERM
while :; do :; done
"#;

struct Stack {
    dir: tempfile::TempDir,
    port: u16,
    registry: String,
}

/// Answers every request of a connection from `answer`, which gets method and path.
fn serve(listener: TcpListener, answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) {
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for peer in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || one(peer, &*answer));
        }
    });
}

fn one(mut peer: TcpStream, answer: &dyn Fn(&str) -> Option<Vec<u8>>) -> Option<()> {
    let mut reader = BufReader::new(peer.try_clone().ok()?);
    let mut lines = reader.by_ref().lines().map_while(Result::ok).take_while(|l| !l.is_empty());
    let first = lines.next()?;
    let length = |l: String| l.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok();
    let length: u64 = lines.filter_map(length).last().unwrap_or(0);
    // A body left unread would reset the connection and take the answer with it.
    std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()?;
    let (status, body) = answer(&first).map_or(("404 Not Found", Vec::new()), |b| ("200 OK", b));
    write!(peer, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len()).ok()?;
    peer.write_all(&body).ok()
}

fn stack(behave: &str) -> Stack {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    for (name, text) in [("stack", STACK), ("crictl", CRICTL)] {
        write(name, text);
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let layers = [vec![1_u8; 200_000], vec![2_u8; 100_000]];
    let config = json!({ "os": "linux", "architecture": "amd64", "config": { "Entrypoint": ["/bin/m"], "Cmd": ["run"] }, "rootfs": { "type": "layers", "diff_ids": [Digest::of(b"1"), Digest::of(b"2")] } });
    let config = config.to_string().into_bytes();
    let blob = |kind: &str, b: &[u8]| json!({ "mediaType": kind, "digest": Digest::of(b), "size": b.len() });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("application/vnd.oci.image.config.v1+json", &config),
        "layers": layers.each_ref().map(|l| blob("application/vnd.oci.image.layer.v1.tar", l)),
    });
    let manifest = manifest.to_string().into_bytes();
    write("behave", behave);
    write("id", &Digest::of(&config).to_string());
    write("layers", &layers.each_ref().map(|l| Digest::of(l).hex() + "\n").concat());
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = registry.local_addr().unwrap().to_string();
    write("registry", &address);
    let mut blobs: Vec<Vec<u8>> = layers.to_vec();
    blobs.push(config);
    let (calls, moves) = (dir.path().join("calls"), behave == "moved");
    serve(registry, move |line| {
        if line.contains("/v2/m/manifests/t ") {
            let resets = fs::read_to_string(&calls).unwrap_or_default().matches("reset").count();
            // The tag moves behind the reset of the first run.
            let moved = [manifest.clone(), b" ".to_vec()].concat();
            return Some(if moves && resets > 1 { moved } else { manifest.clone() });
        }
        blobs.iter().find(|b| line.contains(&format!("/v2/m/blobs/{} ", Digest::of(b)))).cloned()
    });
    // The workload listens while the "container" runs.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (started, odd) = (dir.path().join("started"), behave == "odd");
    std::thread::spawn(move || workload(port, &started, odd));
    Stack { dir, port, registry: address }
}

fn workload(port: u16, started: &Path, odd: bool) {
    let mut runs = 0;
    loop {
        while !started.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        runs += 1;
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let text = if odd && runs > 1 { "Bye." } else { "Hello!" };
        while started.exists() {
            let Ok((peer, _)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            peer.set_nonblocking(false).unwrap();
            one(peer, &|line| {
                let body = match line.split(' ').nth(1)? {
                    "/health" => json!({}),
                    "/v1/models" => json!({ "data": [{ "id": "m" }] }),
                    "/v1/chat/completions" => json!({ "choices": [{ "message": { "content": text } }] }),
                    _ => return None,
                };
                Some(body.to_string().into_bytes())
            });
        }
    }
}

impl Stack {
    fn bench(&self, arms: &[&str]) -> Command {
        let mut command = Command::cargo_bin("esgz").unwrap();
        command.args(["bench", "local", "--listen", "127.0.0.1:0", "--latency-ms", "5", "--timeout", "20"]);
        command.args(["--stack", &self.path("stack"), "--port", &self.port.to_string(), "--json", &self.path("json")]);
        for arm in arms {
            command.args(["--arm", &format!("{arm}={}/m:t", self.registry)]);
        }
        command.timeout(Duration::from_mins(1));
        command
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("json")).unwrap()).unwrap()
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.path("calls")).unwrap()
    }
}

/// The page cache of the machine that runs the tests is not ours to drop: its rule alone may speak against a run here.
fn reasons(run: &Value) -> Vec<&str> {
    let all = run["outcome"]["invalid"].as_array().unwrap().iter().filter_map(Value::as_str);
    all.filter(|r| !r.contains("page cache")).collect()
}

#[test]
fn rounds_are_measured_and_shown_again_the_same() {
    let s = stack("well");
    let done = s.bench(&["a@overlayfs", "b@overlayfs"]).args(["--runs", "2", "--seed", "1"]).assert();
    let out = String::from_utf8(done.get_output().stdout.clone()).unwrap();
    let json = s.json();
    assert_eq!((json["schema"].as_str(), json["complete"].as_bool()), (Some("esgz.bench/v1"), Some(true)));
    let runs = json["runs"].as_array().unwrap();
    let order: Vec<_> = runs.iter().map(|r| (r["round"].as_u64().unwrap(), r["row"].as_str().unwrap())).collect();
    assert_eq!(order, [(1, "a"), (1, "b"), (2, "b"), (2, "a")]);
    assert_eq!(json["seed"], 1);
    for run in runs {
        assert_eq!(reasons(run), Vec::<&str>::new());
        let (p, link) = (&run["outcome"]["phases"], &run["outcome"]["link"]);
        let ms = |k: &str| p[k].as_u64().unwrap();
        assert_eq!(ms("pull_ms") + ms("create_ms") + ms("ready_ms") + ms("chat_ms"), ms("total_ms"));
        assert_eq!(link["pull"]["requests"], 2);
        assert!((300_000..301_000).contains(&link["pull"]["bytes"].as_u64().unwrap()), "{link}");
        assert_eq!(run["outcome"]["answer"], "Hello!");
        let timeline = run["outcome"]["timeline"].as_array().unwrap();
        let mut names: Vec<_> = timeline.iter().map(|m| m["name"].as_str().unwrap()).collect();
        assert!(timeline.is_sorted_by_key(|m| m["at_ms"].as_u64()), "{timeline:?}");
        assert_eq!(timeline.last().unwrap()["at_ms"], p["total_ms"]);
        // The line comes while crictl starts the container, or a little later.
        names.retain(|n| *n != "first-log");
        assert_eq!((names.len(), timeline.len()), (5, 6), "{timeline:?}");
        assert_eq!(names, ["pulled", "created", "ready", "first-token", "answer"]);
    }
    assert_eq!(s.calls().lines().last(), Some("down --keep-registry"));
    let again = Command::cargo_bin("esgz").unwrap().args(["bench", "report", &s.path("json")]).assert().success();
    assert_eq!(String::from_utf8(again.get_output().stdout.clone()).unwrap(), out);
    let report = |args: &[&str]| {
        let done = Command::cargo_bin("esgz")
            .unwrap()
            .args(["bench", "report", &s.path("json")])
            .args(args)
            .assert()
            .success();
        String::from_utf8(done.get_output().stdout.clone()).unwrap()
    };
    let csv = report(&["--format", "csv"]);
    assert_eq!((csv.lines().count(), csv.starts_with("run_id,")), (5, true));
    let lines: Vec<Value> = report(&["--format", "jsonl"]).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.iter().map(|l| l["row"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b", "b", "a"]);
    let summary: Value = serde_json::from_str(&report(&["--format", "json"])).unwrap();
    assert_eq!(
        (summary["schema"].as_str(), summary["rows"][1]["name"].as_str()),
        (Some("esgz.bench-summary/v1"), Some("b"))
    );
    assert_eq!(report(&["--format", "html", "-o", &s.path("page"), "--svg", &s.path("svg")]), "");
    let page = fs::read_to_string(s.path("page")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>"));
    // The page cache of this machine decides whether the runs count, and so whether there is something to draw.
    assert_eq!(fs::read_dir(s.path("svg")).unwrap().count(), page.matches("data-picture=").count());
}

#[test]
fn another_answer_and_layers_not_fetched_are_invalid() {
    let s = stack("odd");
    s.bench(&["a@overlayfs"])
        .args(["--runs", "2"])
        .assert()
        .code(3)
        .stdout(predicate::str::contains("INVALID a, round 2"));
    assert_eq!(reasons(&s.json()["runs"][1]), ["the answer \"Bye.\" differs from \"Hello!\" of a, round 1"]);
    let s = stack("lazy");
    s.bench(&["a"]).args(["--runs", "1"]).assert().code(3).stdout(predicate::str::contains("has no TOC digest"));
    let s = stack("lazy");
    s.bench(&["a@overlayfs"])
        .args(["--runs", "1"])
        .assert()
        .code(3)
        .stdout(predicate::str::contains("expected at least the 300000 of its layers"));
}

#[test]
fn a_tag_that_moves_while_it_is_measured_is_found_out() {
    let s = stack("moved");
    s.bench(&["a@overlayfs"]).args(["--runs", "2"]).assert().code(3).stdout(predicate::str::contains("wrong digest"));
    let json = s.json();
    assert_eq!(reasons(&json["runs"][0]), Vec::<&str>::new());
    let found = reasons(&json["runs"][1]);
    assert!(found.len() == 1 && found[0].starts_with("wrong digest: "), "{found:?}");
}

#[test]
fn options_reach_the_stack_and_the_container() {
    let s = stack("well");
    let (profile, binary) = (s.path("profile.json"), s.path("static-esgz"));
    fs::write(&profile, "{}").unwrap();
    // A 64-bit ELF header with one loadable segment: nobody runs it.
    let mut elf = vec![0; 120];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    (elf[32], elf[54], elf[56], elf[64]) = (64, 56, 1, 1);
    fs::write(&binary, elf).unwrap();
    let warm = format!("warmed@overlayfs,warm:{profile}");
    s.bench(&["fast@overlayfs,tuned", &warm])
        .args(["--runs", "1", "--warm-binary", &binary, "--link", "slow", "--", "--port", "1"])
        .assert()
        .stderr(predicate::str::contains("PRESET").not());
    let json = s.json();
    assert_eq!((&json["link"]["latency_ms"], &json["link"]["connection_mb"]), (&json!(5), &json!(15)));
    assert_eq!(json["link"].get("preset"), None, "its latency was overridden");
    assert_eq!(json["arms"][0]["options"], json!(["tuned"]));
    assert_eq!(json["arms"][1]["options"], json!([format!("warm:{profile}")]));
    for run in json["runs"].as_array().unwrap() {
        assert_eq!(reasons(run), Vec::<&str>::new());
        let warm = run["outcome"].get("warm");
        assert_eq!(warm, (run["row"] == "warmed").then(|| json!({ "read": 5 })).as_ref());
    }
    assert!(s.calls().contains("reset --snapshotter overlayfs --tuned\n"), "{}", s.calls());
    let container: Value = serde_json::from_slice(&fs::read(s.path("container")).unwrap()).unwrap();
    assert_eq!(container["command"], json!(["/.esgz-warm/esgz"]));
    assert!(container["args"].to_string().ends_with(r#""--","/bin/m","--port","1"]"#), "{container}");

    // Without a word from the read-ahead the run does not count.
    fs::write(s.path("behave"), "silent").unwrap();
    s.bench(&[&warm]).args(["--runs", "1", "--warm-binary", &binary]).assert().code(3);
    let found = s.json();
    assert_eq!(reasons(&found["runs"][0]), ["the read-ahead left no report: it did not run, or not to its end"]);

    // This very program is dynamically linked, unless the tests are not.
    fs::write(&binary, fs::read(assert_cmd::cargo::cargo_bin("esgz")).unwrap()).unwrap();
    let refused = s.bench(&[&warm]).args(["--warm-binary", &binary]).assert();
    if cfg!(not(target_feature = "crt-static")) {
        refused
            .code(2)
            .stderr(predicate::str::contains("dynamically linked").and(predicate::str::contains("scripts/static")));
    }
    s.bench(&["a@overlayfs,warm:/no/such"]).args(["--warm-binary", "/no/such"]).assert().code(2);
}

#[test]
fn a_reader_on_the_node_runs_along() {
    let s = stack("lazy");
    let reader = s.path("reader");
    fs::write(&reader, READER).unwrap();
    fs::set_permissions(&reader, fs::Permissions::from_mode(0o755)).unwrap();
    s.bench(&["a,node"]).args(["--runs", "1", "--warm-binary", &reader]).assert().code(3);
    let json = s.json();
    let outcome = &json["runs"][0]["outcome"];
    let args = outcome["warm"]["args"].as_str().unwrap();
    assert!(
        args.starts_with(&format!("warm node --mounts {} --content {} --json ", s.path("stargz"), s.path("content"))),
        "{args}"
    );
    assert!(reasons(&json["runs"][0]).iter().all(|r| !r.contains("read-ahead")));
    let ms: u64 = ["pull", "start", "chat"].iter().map(|p| outcome["cpu"][p]["reader_ms"].as_u64().unwrap()).sum();
    assert!(ms > 0, "{}", outcome["cpu"]);
}

#[test]
fn what_reads_ahead_of_lazy_layers_is_traced_behind_the_rounds() {
    let s = stack("lazy");
    let reader = s.path("reader");
    fs::write(&reader, READER).unwrap();
    fs::set_permissions(&reader, fs::Permissions::from_mode(0o755)).unwrap();
    let args = ["--runs", "2", "--trace", "--warm-binary", &reader, "--evidence", &s.path("evidence")];
    let done = s.bench(&["a,node", "b", "c@overlayfs"]).args(args).assert().code(3);
    let out = String::from_utf8(done.get_output().stdout.clone()).unwrap();
    let json = s.json();
    let runs = json["runs"].as_array().unwrap();
    assert_eq!((runs.len(), &json["complete"]), (6, &json!(true)));
    assert!(runs.iter().all(|r| r.get("traced").is_none() && r["outcome"].get("trace").is_none()));
    let resets = s.calls().matches("reset").count();
    let report = |format| {
        let done =
            Command::cargo_bin("esgz").unwrap().args(["bench", "report", &s.path("json"), "--format", format]).assert();
        String::from_utf8(done.success().get_output().stdout.clone()).unwrap()
    };
    assert_eq!(report("table"), out);
    if let Some(why) = json["untraced"].as_str() {
        // Without root or the tracepoints.
        assert!(why.contains("trac") && json.get("traced").is_none() && resets == 1 + 6, "{why}");
        assert!(out.contains("traced: no run was traced: "), "{out}");
        return;
    }
    let [traced] = json["traced"].as_array().unwrap().as_slice() else { panic!("{}", json["traced"]) };
    assert_eq!((&traced["row"], &traced["round"], &traced["traced"]), (&json!("a"), &json!(0), &json!(true)));
    assert_eq!(resets, 1 + 6 + 1);
    // Nothing is mounted here, and the manifest carries no list: what is not known is not told.
    let trace = &traced["outcome"]["trace"];
    let withheld: Vec<_> = trace["withheld"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(
        withheld[..2],
        ["annotation dev.esgz.warm: the manifest has none", "no touch of a lazily served file was seen"]
    );
    assert!(out.contains("traced: a: no precision and no recall: "), "{out}");
    let lines: Vec<Value> = report("jsonl").lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((lines.len(), &lines[6]["round"], &lines[6]["total_ms"]), (7, &json!(0), &Value::Null));
    assert!(lines[5]["total_ms"].is_u64());
    assert!(Path::new(&s.path("evidence")).join("traced-a/run.json").exists());

    let none = stack("well");
    let done = none.bench(&["a@overlayfs"]).args(["--runs", "1", "--trace"]).assert();
    done.stdout(predicate::str::contains("traced: no run was traced: no arm reads ahead of lazy layers"));
    assert_eq!(none.json()["untraced"], "no arm reads ahead of lazy layers");
}

#[test]
fn a_run_that_fails_ends_it_or_is_passed_over() {
    let s = stack("die");
    let end = "the container ended: CONTAINER_EXITED, exit code 1, Error";
    let failed = s.bench(&["a@overlayfs", "b@overlayfs"]).assert().code(1);
    failed
        .stderr(predicate::str::contains(end))
        .stdout(predicate::str::contains("    | two").and(predicate::str::contains("PARTIAL")));
    assert_eq!(s.json()["runs"].as_array().unwrap().len(), 1);
    s.bench(&["a@overlayfs", "b@overlayfs"]).args(["--keep-going", "--runs", "1"]).assert().code(1);
    assert_eq!(s.json()["runs"].as_array().unwrap().len(), 2);
    let s = stack("refuse");
    s.bench(&["a@overlayfs"]).assert().code(1).stderr(predicate::str::contains("no such image"));
}

#[test]
fn interrupted_it_cleans_up_and_shows_what_there_is() {
    let s = stack("slow");
    let child = std::process::Command::new(assert_cmd::cargo::cargo_bin("esgz"))
        .args(s.bench(&["a@overlayfs"]).get_args())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // The second reset is the first run's.
    while !s.dir.path().join("calls").exists() || s.calls().matches("env").count() < 2 {
        std::thread::sleep(Duration::from_millis(20));
    }
    // Not by the kill program: a minimal Debian has none.
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&out.stdout).starts_with("PARTIAL"));
    assert_eq!(s.calls().lines().last(), Some("down --keep-registry"));
    assert_eq!(s.json()["complete"], false);
}

#[test]
fn wrong_arguments_are_usage_errors() {
    let esgz = |args: &[&str]| Command::cargo_bin("esgz").unwrap().arg("bench").args(args).assert();
    esgz(&["local", "--stack", "x"]).code(2);
    esgz(&["local", "--stack", "x", "--arm", "a=vllm"])
        .code(2)
        .stderr(predicate::str::contains("expected host/repository:tag"));
    let twice = ["local", "--stack", "x", "--arm", "a=localhost/m", "--arm", "a=localhost/n"];
    esgz(&twice).code(2).stderr(predicate::str::contains("two arms are called \"a\""));
    esgz(&["local", "--stack", "exit 9;", "--arm", "a=localhost/m"]).code(1).stderr(predicate::str::contains("failed"));
    esgz(&["report", "x", "--format", "pdf"]).code(2);
    let link = ["local", "--stack", "x", "--arm", "a=localhost/m", "--link", "fast"];
    esgz(&link).code(2).stderr(predicate::str::contains("expected one of gke-ar, lan, slow"));
    esgz(&["local", "--stack", "x", "--arm", "a,tuned=localhost/m"])
        .code(2)
        .stderr(predicate::str::contains("expected NAME@overlayfs,tuned"));
    esgz(&["report", "/no/such"]).code(1).stderr(predicate::str::contains("/no/such"));
}
