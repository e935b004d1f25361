//! `esgz warm`: what becomes the command, and what reads beside it.

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use esgz::profile::{File, Header, Kind, Origin, Profile, Range, SCHEMA};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::rig::{Rig, esgz, is_root};

const MIB: u64 = 1 << 20;

/// A root with a large file of which two ranges are profiled, and a file that is another version.
struct Root {
    dir: tempfile::TempDir,
}

impl Root {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::write(dir.path().join("big"), vec![1; usize::try_from(16 * MIB).unwrap()]).unwrap();
        fs::write(dir.path().join("changed"), b"new").unwrap();
        let file = |path: &str, size, ranges: &[Range]| File {
            path: path.into(),
            links: vec![],
            origin: Origin::Image,
            size,
            digest: None,
            first_touch_ms: 0,
            kinds: vec![Kind::Read],
            ranges: ranges.to_vec(),
        };
        let files = vec![
            file("/big", 16 * MIB, &[Range(0, 4096, 3), Range(8 * MIB, MIB, 1)]),
            file("/changed", 4, &[Range(0, 4, 2)]),
            file("/gone", 10, &[Range(0, 10, 4)]),
        ];
        let profile = Profile { schema: SCHEMA.into(), header: Header::default(), files, writes: vec![] };
        fs::write(dir.path().join("profile.json"), esgz::profile::write(&profile)).unwrap();
        let root = Self { dir };
        root.evict();
        root
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn evict(&self) {
        let file = fs::File::open(self.path("big")).unwrap();
        file.sync_all().unwrap();
        nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    }

    /// `esgz warm` with this root and profile.
    fn warm(&self, more: &[&str], command: &[&str]) -> Command {
        let mut esgz = esgz();
        esgz.args(["warm", "--root", &self.path(""), "--profile", &self.path("profile.json")]);
        esgz.args(["--json", &self.path("warm.json")]).args(more).arg("--").args(command);
        esgz
    }

    fn report(&self) -> Value {
        let path = self.path("warm.json");
        let began = Instant::now();
        while !Path::new(&path).exists() {
            assert!(began.elapsed() < Duration::from_mins(1), "no report");
            std::thread::sleep(Duration::from_millis(20));
        }
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }
}

#[test]
fn the_command_has_our_process_id_and_code_and_no_child() {
    let root = Root::new();
    // Its own id, the number of its children, and then an exit code of its own.
    let script = "echo $$; cat /proc/$$/task/$$/children; exit 37";
    let child = root.warm(&[], &["sh", "-c", script]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let id = child.id();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let (first, children) = said.split_once('\n').unwrap();
    assert_eq!((first.parse(), output.status.code()), (Ok(id), Some(37)));
    // `cat` itself is the only one.
    assert_eq!(children.split_whitespace().count(), 1, "{children:?}");
}

#[test]
fn the_ranges_are_read_and_the_rest_is_counted() {
    let root = Root::new();
    let status = root.warm(&[], &["sleep", "5"]).stderr(Stdio::null()).spawn().unwrap();
    let report = root.report();
    let number = |key: &str| report[key].as_u64().unwrap();
    assert_eq!(number("bytes_read") + number("bytes_resident"), MIB + 4096);
    assert_eq!(number("bytes_planned"), MIB + 4096 + 4 + 10);
    assert_eq!((number("bytes_skipped"), number("files_missing"), number("files_changed")), (14, 1, 1));
    assert_eq!((report["ended"].as_str(), report["schema"].as_str()), (Some("done"), Some("esgz.warm/v1")));
    let mut status = status;
    status.kill().unwrap();
    status.wait().unwrap();
}

#[test]
fn a_signal_ends_the_command_as_without_us_and_the_reader_with_it() {
    let root = Root::new();
    // The rest is slow enough to be still on its way.
    let mut child =
        root.warm(&["--then-rest", "--rest-rate", "1000"], &["sleep", "600"]).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
    // The reader holds the other end of stderr, and lets go of it.
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("esgz warm: read"), "{said}");
}

#[test]
fn the_commands_input_and_output_are_its_own() {
    let root = Root::new();
    let mut child =
        root.warm(&[], &["cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"through\n").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"through\n");
}

#[test]
fn whatever_is_wrong_with_the_profile_the_command_runs() {
    let root = Root::new();
    fs::write(root.path("bad.json"), "{}").unwrap();
    for profile in ["bad.json", "none.json"] {
        let mut esgz = esgz();
        esgz.args(["warm", "--profile", &root.path(profile), "--", "sh", "-c", "exit 5"]);
        let output = esgz.output().unwrap();
        assert_eq!(output.status.code(), Some(5));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("nothing is read ahead by a profile") && said.contains(profile), "{said}");
    }
}

#[test]
fn it_can_be_switched_off() {
    let root = Root::new();
    let output = root.warm(&[], &["sh", "-c", "exit 6"]).env("ESGZ_WARM", "off").output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(6), b"".as_slice()));
    assert!(!Path::new(&root.path("warm.json")).exists());
}

#[test]
fn what_cannot_be_run_has_the_shells_codes() {
    let root = Root::new();
    for (command, code) in [("no-such-command-here", 127), ("/etc/passwd", 126)] {
        let output = root.warm(&[], &[command]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{command}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(command));
    }
    let usage = esgz().args(["warm", "--threads", "0", "--", "true"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

/// As process 1 of its own namespace, as in a container: the reader is a child there that no wait sees.
#[test]
fn process_one_is_not_bothered_by_the_reader() {
    if !is_root() {
        return;
    }
    let root = Root::new();
    // Python's wait for any child finds none, while one that it starts itself is found.
    let script = "import os, time\n\
                  time.sleep(1)\n\
                  try:\n    os.waitpid(-1, 0)\n    print('reaped')\n\
                  except ChildProcessError:\n    print('none', os.getpid())\n\
                  p = os.fork()\n\
                  if p == 0: os._exit(9)\n\
                  print(os.waitpid(-1, 0) == (p, 9 << 8))\n";
    let inner = root.warm(&[], &["python3", "-c", script]);
    let mut outer = Command::new("unshare");
    outer.args(["--pid", "--fork", "--mount-proc"]).arg(inner.get_program()).args(inner.get_args());
    let output = outer.output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "none 1\nTrue\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(root.report()["ended"], "done");
}

/// An image that carries its read-ahead, as its container sees it: no `/proc`, and so no card.
#[test]
fn another_machine_than_the_images_caches_were_made_on_is_a_warning() {
    if !is_root() {
        return;
    }
    let rig = Rig::plain();
    let folder = rig.root.join(".esgz");
    fs::create_dir(&folder).unwrap();
    fs::hard_link(env!("CARGO_BIN_EXE_esgz"), folder.join("esgz")).unwrap();
    let mut list = Profile { schema: SCHEMA.into(), header: Header::default(), files: vec![], writes: vec![] };
    let run = |list: &Profile| {
        fs::write(folder.join("profile.json"), esgz::profile::write(list)).unwrap();
        let mut chroot = Command::new("chroot");
        chroot.arg(&rig.root).args(["/.esgz/esgz", "warm", "--", "sh", "-c", "sleep 1; echo said; exit 4"]);
        let output = chroot.output().unwrap();
        assert_eq!((output.stdout.as_slice(), output.status.code()), (b"said\n".as_slice(), Some(4)));
        String::from_utf8(output.stderr).unwrap()
    };
    let said = run(&list);
    assert!(said.contains("esgz warm: read") && !said.contains("warning"), "{said}");
    list.header.host.insert("gpus".into(), "NVIDIA L4".into());
    let said = run(&list);
    assert_eq!(said.matches("warning").count(), 1, "{said}");
    assert!(
        said.contains("esgz warm: warning: the image's compile caches") && said.contains("gpus NVIDIA L4, here none"),
        "{said}"
    );
    assert!(said.contains("esgz warm: read"), "it reads ahead all the same: {said}");
}

#[test]
fn a_node_runs_until_it_is_told_to_stop_and_leaves_its_report() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(path("mounts")).unwrap();
    fs::create_dir_all(path("content/blobs/sha256")).unwrap();
    let mut node = esgz();
    node.args(["warm", "node", "--mounts", &path("mounts"), "--content", &path("content"), "--json", &path("report")]);
    let mut node = node.spawn().unwrap();
    // Signals that it catches, as a mask: SIGTERM is the fifteenth.
    let began = Instant::now();
    let catches = |status: &str| {
        let mask = status.lines().find_map(|l| l.strip_prefix("SigCgt:")).unwrap().trim();
        u64::from_str_radix(mask, 16).unwrap() >> 14 & 1 == 1
    };
    while !catches(&fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap()) {
        assert!(began.elapsed() < Duration::from_mins(1), "it does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(node.try_wait().unwrap(), None, "it goes on");
    kill(Pid::from_raw(i32::try_from(node.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(node.wait().unwrap().code(), Some(0));
    let report: Value = serde_json::from_slice(&fs::read(path("report")).unwrap()).unwrap();
    assert_eq!((&report["schema"], &report["images"]), (&"esgz.warm-node/v1".into(), &serde_json::json!([])));
}

#[test]
fn a_node_without_its_folders_says_what_is_missing() {
    let output = esgz().args(["warm", "node", "--mounts", "/no/such", "--content", "/tmp"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("--mounts /no/such") && said.contains("hint"), "{said}");
}
