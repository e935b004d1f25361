//! `esgz profile`, on real kernels' tracepoints.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use esgz::profile::{Kind, Origin, read};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::rig::{Rig, esgz, file, has_filemap, is_root, ranges};

const FILEMAP: &[&str] = &["--recorder", "filemap"];
const PAGE_CACHE: &[&str] = &["--recorder", "page-cache"];
/// For tests that look at no ranges: others may use the machine.
const KEEP: &[&str] = &["--keep-cache"];
const DD: &[&str] = &["dd", "if=/data/big", "of=/dev/null", "bs=4096", "skip=100", "count=3"];
/// Touches two bytes of a mapping, far apart, without read-ahead.
const MMAP: &str = "import mmap; f = open('/data/big', 'rb'); m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ); \
                    m.madvise(mmap.MADV_RANDOM); m[1000000]; m[3000000]";

fn rigs() -> Vec<Rig> {
    vec![Rig::plain(), Rig::overlay(true), Rig::overlay(false)]
}

#[test]
fn reads_are_exact_to_the_page_whatever_the_cache_holds() {
    if !is_root() || !has_filemap() {
        return;
    }
    for rig in rigs() {
        for cold_or_warm in [FILEMAP, &[FILEMAP, &["--keep-cache"]].concat()] {
            let p = rig.record(cold_or_warm, DD);
            assert_eq!(ranges(&p, "/data/big"), [(409_600, 12_288)]);
            let f = file(&p, "/data/big");
            assert_eq!((f.origin, f.size, f.kinds.as_slice()), (Origin::Image, 4 << 20, [Kind::Read].as_slice()));
            assert_eq!(f.digest, Some(esgz::digest::Digest::of(&super::rig::noise(4 << 20))));
            assert!(p.writes.is_empty(), "{:?}", p.writes);
            assert_eq!(file(&p, "/usr/bin/dd").origin, Origin::Volume, "/usr is mounted into the root");
            assert!(!p.files.iter().any(|f| f.path.contains("esgz")), "we are not part of it");
        }
    }
}

#[test]
fn faults_through_a_mapping_are_within_the_fault_around_window() {
    if !is_root() || !has_filemap() {
        return;
    }
    for rig in rigs() {
        let p = rig.record(FILEMAP, &["python3", "-c", MMAP]);
        let f = file(&p, "/data/big");
        assert!(f.kinds.contains(&Kind::Mmap), "{:?}", f.kinds);
        for at in [1_000_000_u64, 3_000_000] {
            assert!(f.ranges.iter().any(|r| r.0 <= at && at < r.0 + r.1), "{at} in {:?}", f.ranges);
        }
        for r in &f.ranges {
            // The window is aligned in memory, not in the file.
            let near = [1_000_000_u64, 3_000_000].into_iter().any(|at| r.0 + 65_536 > at && r.0 + r.1 <= at + 65_536);
            assert!(near, "{r:?} reaches further than 64 KiB from a touch");
        }
    }
}

#[test]
fn the_fallback_contains_what_was_read_and_says_what_it_adds() {
    if !is_root() {
        return;
    }
    for rig in rigs() {
        let p = rig.record(PAGE_CACHE, DD);
        let f = file(&p, "/data/big");
        assert!(f.ranges.iter().any(|r| r.0 <= 409_600 && r.0 + r.1 >= 421_888), "{:?}", f.ranges);
        assert_eq!(f.kinds, [Kind::Open]);
        assert!(p.header.recorder.inflation.contains("read-ahead"));
        assert_eq!(p.header.recorder.name, "page-cache");
        let p = rig.record(PAGE_CACHE, &["python3", "-c", MMAP]);
        let f = file(&p, "/data/big");
        assert!(
            [1_000_000_u64, 3_000_000].iter().all(|at| f.ranges.iter().any(|r| r.0 <= *at && *at < r.0 + r.1)),
            "{:?}",
            f.ranges
        );
    }
}

#[test]
fn children_are_seen_and_cut_at_the_size_and_hard_links_are_named_once() {
    if !is_root() || !has_filemap() {
        return;
    }
    let rig = Rig::overlay(false);
    let p = rig
        .record(FILEMAP, &["sh", "-c", "(cat /data/small > /dev/null &) ; cat /data/other-name >/dev/null; sleep 0.3"]);
    let f = file(&p, "/data/other-name");
    assert_eq!((f.links.as_slice(), f.size), (["/data/small".to_owned()].as_slice(), 10_000));
    assert_eq!(ranges(&p, "/data/other-name"), [(0, 10_000)]);
    assert!(!p.files.iter().any(|f| f.path == "/data/small"));
}

#[test]
fn every_layer_of_an_overlay_is_found_on_its_own_device() {
    if !is_root() || !has_filemap() {
        return;
    }
    let rig = Rig::two_file_systems();
    for recorder in [FILEMAP, PAGE_CACHE] {
        let p = rig.record(
            recorder,
            &["sh", "-c", "head -c 5000 /data/far >/dev/null; dd if=/data/big of=/dev/null bs=4096 skip=100 count=3"],
        );
        if recorder == FILEMAP {
            assert_eq!(ranges(&p, "/data/big"), [(409_600, 12_288)]);
            assert_eq!(file(&p, "/data/far").ranges[0].0, 0);
        }
        assert_eq!((file(&p, "/data/far").origin, file(&p, "/data/big").origin), (Origin::Image, Origin::Image));
    }
}

#[test]
fn what_start_up_writes_is_listed_and_is_not_taken_for_a_read_of_the_image() {
    if !is_root() || !has_filemap() {
        return;
    }
    let script = "echo more >> /data/text; cat /data/text >/dev/null; mkdir -p /app/__pycache__; \
                  head -c 9000 /data/big > /app/__pycache__/x.pyc; cat /app/__pycache__/x.pyc >/dev/null; chmod 600 /data/small";
    for (rig, visible) in [(Rig::plain(), true), (Rig::overlay(true), true), (Rig::overlay(false), false)] {
        let p = rig.record(FILEMAP, &["sh", "-c", script]);
        let writes: Vec<_> = p
            .writes
            .iter()
            .map(|w| (w.path.as_str(), w.size, w.mode.as_str(), w.change.as_str(), w.class.as_str()))
            .collect();
        for want in [
            ("/app/__pycache__/x.pyc", 9000, "0644", "new", "bytecode"),
            ("/data/small", 10_000, "0600", "changed", "other"),
            ("/data/text", 10, "0644", "changed", "other"),
        ] {
            assert!(writes.contains(&want), "{want:?} in {writes:?}");
        }
        assert!(!p.files.iter().any(|f| f.path.starts_with("/app")));
        assert!(p.header.own_writes > 0);
        if visible {
            // In the overlay the copied-up file has a new inode, which only its upper directory tells.
            let f = file(&p, "/data/text");
            assert_eq!((f.size, f.digest), (5, None), "the image's size; its content is not there any more");
            assert_eq!(ranges(&p, "/data/text"), [(0, 5)]);
        }
    }
}

#[test]
fn exit_codes_are_passed_on_and_ours_are_told_apart() {
    if !is_root() {
        return;
    }
    let rig = Rig::plain();
    fs::write(rig.root.join("data/plain"), "text").expect("file");
    for (command, code) in [
        (["sh", "-c", "exit 7"].as_slice(), 7),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["no-such-program"], 127),
        (&["/data/none/x"], 127),
        (&["/data/plain"], 126),
    ] {
        let out = rig.run(KEEP, command);
        assert_eq!(out.status.code(), Some(code), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(rig.profile_path().exists(), code == 7 || code == 137, "{command:?}");
        let _may_be_absent = fs::remove_file(rig.profile_path());
    }
    let out = esgz().args(["profile", "-o", "/none/p.json", "--", "true"]).output().expect("esgz runs");
    assert_eq!(out.status.code(), Some(125), "{}", String::from_utf8_lossy(&out.stderr));
    let out = rig.run(&["--until-http", "https://127.0.0.1/"], &["true"]);
    assert_eq!(out.status.code(), Some(125));
    assert_eq!(esgz().args(["profile", "--", "true"]).output().expect("esgz runs").status.code(), Some(2), "usage");
}

#[test]
fn a_condition_that_does_not_come_is_an_error_without_a_profile() {
    if !is_root() {
        return;
    }
    let rig = Rig::plain();
    let until = ["--keep-cache", "--until-http", "http://127.0.0.1:1/"];
    let out = rig.run(&until, &["sh", "-c", "exit 3"]);
    let words = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(125));
    assert!(words.contains("ended with code 3 before"), "{words}");

    let begun = Instant::now();
    let out = rig.run(&[&until[..], &["--timeout", "1"]].concat(), &["sleep", "60"]);
    assert_eq!(out.status.code(), Some(125));
    assert!(begun.elapsed() < Duration::from_secs(30), "the command was ended");
    assert!(!rig.profile_path().exists());

    let out = rig.run(&[&until[..], &["--timeout", "1", "--keep-failed"]].concat(), &["sleep", "60"]);
    assert_eq!(out.status.code(), Some(125));
    let p = read(&fs::read(rig.profile_path()).expect("a partial profile")).expect("valid");
    assert!(p.header.until.starts_with("incomplete"), "{}", p.header.until);
}

#[test]
fn a_period_ends_the_recording_and_the_whole_tree() {
    if !is_root() {
        return;
    }
    let rig = Rig::plain();
    let begun = Instant::now();
    // One that ignores the polite signal's group: only its parent's reaper finds it.
    let p = rig.record(&["--keep-cache", "--for", "0.5"], &["sh", "-c", "setsid sh -c 'sleep 61.25' & sleep 61.25"]);
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(p.header.until, "0.5 s");
    let left = fs::read_dir("/proc").expect("proc").flatten().filter_map(|d| fs::read(d.path().join("cmdline")).ok());
    assert_eq!(left.filter(|c| c.starts_with(b"sleep\x0061.25")).count(), 0);
}

#[test]
fn signals_reach_the_command() {
    if !is_root() {
        return;
    }
    let rig = Rig::plain();
    let mut esgz = rig
        .command(KEEP, &["sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("esgz runs");
    let mut up = [0; 3];
    std::io::Read::read_exact(esgz.stdout.as_mut().expect("piped"), &mut up).expect("the command is up");
    kill(Pid::from_raw(esgz.id().try_into().expect("a pid")), Signal::SIGTERM).expect("signal");
    assert_eq!(esgz.wait().expect("ended").code(), Some(9));
    assert!(rig.profile_path().exists());
}

/// A server that is up after a while and answers one chat like the real one.
const SERVER: &str = r"
import sys, time, json
from http.server import BaseHTTPRequestHandler, HTTPServer
class H(BaseHTTPRequestHandler):
    def reply(self, value):
        body = json.dumps(value).encode()
        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)
    def do_GET(self):
        self.reply({'data': [{'id': 'm'}]}) if self.path in ('/v1/models', '/health') else self.send_error(404)
    def do_POST(self):
        ask = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        open('/data/big', 'rb').read(5000)
        self.reply({'choices': [{'message': {'content': ask['model']}}]} if ask['max_tokens'] == 8 else {'choices': []})
    def log_message(self, *a): pass
time.sleep(0.3)
HTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()
";

#[test]
fn a_chat_answer_ends_the_recording_and_the_server() {
    if !is_root() {
        return;
    }
    let rig = Rig::overlay(false);
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port().to_string();
    let base = format!("http://127.0.0.1:{port}");
    let options = [
        "--until-http",
        &format!("{base}/health"),
        "--until-chat",
        &format!("{base}/v1/chat/completions"),
        "--timeout",
        "120",
    ];
    let p = rig.record(&options, &["python3", "-B", "-c", SERVER, &port, "--api-key", "very-secret"]);
    let phases: Vec<_> = p.header.phases.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(phases, ["start", "ready", "first-token", "first-chat"]);
    assert!(
        p.header.phases[1].at_ms >= 300 && p.header.phases[1].at_ms <= p.header.phases[3].at_ms,
        "{:?}",
        p.header.phases
    );
    assert_eq!(file(&p, "/data/big").ranges[0].0, 0, "read while answering");
    assert!(!fs::read_to_string(rig.profile_path()).expect("profile").contains("very-secret"));
    assert!(std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err(), "the server was ended");
}

/// Says something on both streams, then goes on.
const TALK: &str = "echo out; echo 'INFO Starting to load model m...' >&2; sleep 0.1; dd if=/data/big of=/dev/null bs=4096 count=1 2>/dev/null; \
                    sleep 0.1; echo up: 1 >&2; sleep 0.2; dd if=/data/big of=/dev/null bs=4096 skip=100 count=1 2>/dev/null; echo late; \
                    sleep 60";

#[test]
fn a_log_line_ends_it_what_is_said_passes_through_and_a_grace_goes_on() {
    if !is_root() || !has_filemap() {
        return;
    }
    let rig = Rig::overlay(false);
    for (grace, late) in [("0", false), ("1", true)] {
        let out =
            rig.run(&["--until-log", "^up: \\d+$", "--grace", grace, "--recorder", "filemap"], &["sh", "-c", TALK]);
        assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
        // What it says while the profile is put together passes through, too.
        assert!(matches!(out.stdout.as_slice(), b"out\nlate\n" | b"out\n"), "{}", String::from_utf8_lossy(&out.stdout));
        assert!(String::from_utf8_lossy(&out.stderr).starts_with("INFO Starting to load model m...\nup: 1\n"));
        let p = read(&fs::read(rig.profile_path()).expect("a profile")).expect("valid");
        let phases: Vec<_> = p.header.phases.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(phases, ["import", "load", "log-line"]);
        assert_eq!(ranges(&p, "/data/big").contains(&(409_600, 4096)), late, "{:?}", ranges(&p, "/data/big"));
        assert_eq!(p.phase_at(file(&p, "/data/big").first_touch_ms), "load");
        assert!(p.header.until.starts_with("log line"), "{}", p.header.until);
    }
}

#[test]
fn conditions_combine() {
    if !is_root() {
        return;
    }
    let rig = Rig::plain();
    let quick = ["--keep-cache", "--until-log", "up", "--for", "0.8"];
    let begun = Instant::now();
    rig.record(&quick, &["sh", "-c", TALK]);
    assert!(begun.elapsed() > Duration::from_millis(800), "both have to come");
    let begun = Instant::now();
    rig.record(&[&quick[..3], &["--for", "50", "--any"]].concat(), &["sh", "-c", TALK]);
    assert!(begun.elapsed() < Duration::from_secs(30), "the first one is enough");
    let out =
        rig.run(&["--keep-cache", "--until-log", "never", "--any", "--for", "60"], &["sh", "-c", "echo up; exit 4"]);
    let words = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(125) && words.contains("before log line \"never\" or 60 s"), "{words}");
    assert!(!rig.profile_path().exists() || fs::remove_file(rig.profile_path()).is_ok());
    let out = rig.run(&["--until-log", "("], &["true"]);
    assert_eq!(out.status.code(), Some(2), "a pattern that is none is a usage error");
}

#[test]
fn a_recording_is_stopped_from_outside_and_the_command_goes_on() {
    if !is_root() {
        return;
    }
    let rig = Rig::overlay(false);
    let stop = || esgz().args(["profile", "stop", "-o"]).arg(rig.profile_path()).output().expect("esgz runs");
    let early = stop();
    assert_eq!(early.status.code(), Some(125));
    assert!(
        String::from_utf8_lossy(&early.stderr).contains("no recording"),
        "{}",
        String::from_utf8_lossy(&early.stderr)
    );
    let mut esgz = rig
        .command(&["--keep-cache", "--keep-running"], &["sh", "-c", "echo up; sleep 1.5; echo done; exit 5"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("esgz runs");
    let mut stdout = esgz.stdout.take().expect("piped");
    std::io::Read::read_exact(&mut stdout, &mut [0; 3]).expect("the command is up");
    let out = stop();
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    let p = read(&fs::read(rig.profile_path()).expect("written when stop returns")).expect("valid");
    assert_eq!(p.header.phases.last().map(|p| p.name.as_str()), Some("stopped"));
    assert!(!p.files.iter().any(|f| f.path.contains(".sock")) && p.writes.is_empty(), "{:?}", p.writes);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).expect("the rest");
    assert_eq!((esgz.wait().expect("ended").code(), rest.as_str()), (Some(5), "done\n"));
}

#[test]
fn what_is_written_is_captured_but_for_what_must_stay() {
    if !is_root() {
        return;
    }
    let rig = Rig::overlay(false);
    let tar = rig.dir.path().join("w.tar");
    let script = "mkdir -p /app/__pycache__ /tmp /root/.cache/vllm; echo code > /app/__pycache__/x.cpython-312.pyc; echo k > /root/.cache/vllm/k; \
                  echo t > /tmp/t; echo s > /root/.netrc; ln -s x /app/link; sleep 0.2";
    let p = rig.record(&["--keep-cache", "--capture", tar.to_str().expect("text")], &["sh", "-c", script]);
    let captured = p.header.capture.as_ref().expect("captured");
    assert_eq!(
        (captured.files, captured.left_out.get("secret"), captured.left_out.get("temporary")),
        (3, Some(&1), Some(&1))
    );
    assert_eq!(captured.digest, esgz::digest::Digest::of(&fs::read(&tar).expect("an archive")));
    let list = std::process::Command::new("tar").arg("tf").arg(&tar).output().expect("tar runs");
    let want = "app/\napp/__pycache__/\napp/__pycache__/x.cpython-312.pyc\napp/link\nroot/\nroot/.cache/\nroot/.cache/vllm/\nroot/.cache/vllm/k\n";
    assert_eq!(String::from_utf8_lossy(&list.stdout), want);
    let written = |path: &str| p.writes.iter().find(|w| w.path == path).expect("listed");
    assert_eq!(written("/root/.netrc").class, "secret");
    assert!(written("/tmp/t").at_ms.is_some_and(|ms| ms < 10_000), "{:?}", written("/tmp/t"));
    let out = rig.run(&["--capture", "/none/w.tar"], &["true"]);
    assert!(
        out.status.code() == Some(125) && String::from_utf8_lossy(&out.stderr).contains("archive of written files")
    );
}

#[test]
fn a_running_process_is_attached_to() {
    if !is_root() || !has_filemap() {
        return;
    }
    let rig = Rig::overlay(false);
    let go = rig.root.join("data/go");
    let mut sh = std::process::Command::new("chroot")
        .arg(&rig.root)
        .args(["sh", "-c", "while [ ! -e /data/go ]; do sleep 0.05; done; (dd if=/data/big of=/dev/null bs=4096 skip=100 count=3 2>/dev/null); exec sleep 60"])
        .spawn()
        .expect("a process");
    let link = format!("/proc/{}/root", sh.id());
    let limit = Instant::now() + Duration::from_mins(1);
    while fs::read_link(&link).ok().as_ref() != Some(&rig.root) && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(10));
    }
    let attached = esgz()
        .args(["profile", "attach", "--for", "2", "--recorder", "filemap", "--pid", &sh.id().to_string(), "-o"])
        .arg(rig.profile_path())
        .stderr(Stdio::piped())
        .spawn()
        .expect("esgz runs");
    // The walk and the preparations are over when the socket is there.
    let socket = rig.dir.path().join("p.json.sock");
    let limit = Instant::now() + Duration::from_mins(1);
    while !socket.exists() && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::write(&go, "").expect("a file");
    let out = attached.wait_with_output().expect("ended");
    let alive = sh.try_wait().expect("a child").is_none();
    sh.kill().expect("killed");
    sh.wait().expect("reaped");
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(alive, "it is only looked at");
    let p = read(&fs::read(rig.profile_path()).expect("a profile")).expect("valid");
    assert_eq!(ranges(&p, "/data/big"), [(409_600, 12_288)]);
    assert!(p.header.host["watched"].contains("threads") || p.header.host["watched"].contains("control group"));
    for (args, part) in [
        (["--pid", "999999999"], "cannot be looked at"),
        (["--container", "0123456789abcdef"], "can be seen from here"),
    ] {
        let out =
            esgz().args(["profile", "attach", "-o"]).arg(rig.profile_path()).args(args).output().expect("esgz runs");
        let words = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(125) && words.contains(part) && words.contains("hint:"), "{words}");
    }
}

#[test]
fn last_words_count_and_a_terminal_stays_one() {
    if !is_root() {
        return;
    }
    let rig = Rig::plain();
    for _ in 0..5 {
        rig.record(&["--keep-cache", "--until-log", "^last$"], &["sh", "-c", "echo last"]);
    }
    // `script` gives us a terminal: the command has one, too, in the foreground, and its width.
    let inner = rig.command(
        &["--keep-cache"],
        &["sh", "-c", "test -t 1 && test -t 0 && stty size <&1; read line; echo got $line"],
    );
    let words: Vec<_> = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(|w| format!("'{}'", w.to_string_lossy()))
        .collect();
    let mut script = std::process::Command::new("timeout")
        .args(["60", "script", "-qec", &format!("stty rows 33 cols 77; {}", words.join(" ")), "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script runs");
    let mut stdin = script.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, b"hello\n").expect("typed");
    let out = script.wait_with_output().expect("ended");
    let shown = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && shown.contains("33 77") && shown.contains("got hello"), "{shown}");
}
