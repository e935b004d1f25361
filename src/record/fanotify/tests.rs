//! With real commands on a real disk, as root.

use std::ffi::OsString;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use tempfile::TempDir;

use super::*;
use crate::record::child::Gated;
use crate::record::touch::CACHED;
use crate::record::walk::{Limits, Snapshot};

fn can() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if root {
        assert_eq!(available(), Ok(()));
    }
    root
}

/// Not in `/tmp`, which may be a tmpfs: it evicts nothing.
fn tree() -> TempDir {
    let dir = TempDir::new_in("/var/tmp").expect("a folder on a disk");
    for (name, len) in
        [("a", 300_000), ("b", 9 << 20), ("c", 5000), ("opened", 5000), ("foreign", 5000), ("never", 5000)]
    {
        fs::write(dir.path().join(name), vec![1; len]).expect("room");
    }
    fs::copy(fs::canonicalize("/bin/true").expect("true"), dir.path().join("program")).expect("room");
    nix::unistd::sync();
    dir
}

fn mounts(root: &Path) -> Mounts {
    Mounts::parse(&fs::read_to_string("/proc/thread-self/mountinfo").expect("mounts"), root).expect("a root")
}

fn gated(script: &str) -> Gated {
    let command: Vec<OsString> = ["/bin/sh", "-c", script].map(Into::into).into();
    Gated::start(&command, None, [None, None], None).expect("a process")
}

fn finish(mut gated: Gated) {
    gated.open().expect("the gate");
    let pid = gated.wait().expect("sh runs");
    waitpid(pid, None).expect("ended");
}

fn record(root: &Path, script: &str) -> (Sightings, Snapshot) {
    let before = Snapshot::take(root, "/", &Limits::default());
    let residency = Residency::prepare(root, &[&before]).expect("works here");
    let gated = gated(&format!("cd {}; {script}", root.display()));
    let all = Fanotify::start(root, &mounts(root), gated.pid, residency).expect("root may");
    // We ourselves, and a process that is nobody's child, which lives long enough to be looked at.
    fs::read(root.join("never")).expect("readable");
    let foreign = format!("(sleep 0.2; read line < {}; sleep 1) &", root.join("foreign").display());
    assert!(Command::new("sh").args(["-c", &foreign]).status().expect("sh runs").success());
    finish(gated);
    (all.stop(), before)
}

fn check(root: &Path) {
    let script = "exec 3<c; exec 3<&-; cat a opened >/dev/null; : <opened; ./program; dd if=b of=/dev/null bs=4096 skip=2000 count=3 2>/dev/null; \
                  sleep 0.6; echo text > new; for i in 1 2 3 4 5 6 7 8 9; do cat a >/dev/null; done";
    let (all, before) = record(root, script);
    assert_eq!(all.lost, 0, "{:?}", all.notes);
    let get = |path: &str| {
        let e = before.get(path).expect("in the walk");
        all.files.get(&(e.dev, e.ino))
    };
    for not in ["/never", "/foreign"] {
        assert!(get(not).is_none(), "{not}: {all:?}");
    }
    let (a, b, c, program) =
        (get("/a").expect("a"), get("/b").expect("b"), get("/c").expect("c"), get("/program").expect("program"));
    assert_eq!(a.kinds, OPEN | READ | CACHED);
    assert_eq!((a.runs[0].start, a.runs[0].end, a.runs[0].at), (0, 300_000, a.first));
    assert_eq!((c.kinds, c.runs.len(), c.path.as_deref()), (OPEN, 0, Some("/c")), "only opened");
    assert!(program.kinds & (EXEC | OPEN) == EXEC | OPEN, "{program:?}");
    assert!(c.first < a.first && a.first < program.first && program.first < b.first, "in the order of time");
    let bytes: u64 = b.runs.iter().map(|r| r.end - r.start).sum();
    assert!(b.runs.iter().any(|r| r.start <= 2000 * 4096 && r.end >= 2003 * 4096) && bytes <= 1 << 20, "{:?}", b.runs);
    let after = Snapshot::take(root, "/new", &Limits::default());
    let new = &after.entries[0];
    assert_eq!(all.writers.get(&(new.dev, new.ino)).map(String::as_str), Some("sh"));
}

#[test]
fn a_plain_folder() {
    if can() {
        check(tree().path());
    }
}

#[test]
fn an_overlay_and_a_mount_namespace_below() {
    if !can() {
        return;
    }
    let dir = TempDir::new_in("/var/tmp").expect("a folder on a disk");
    let lower = tree();
    // This thread's own, so that nothing is left behind.
    unshare(CloneFlags::CLONE_NEWNS).expect("mount namespace");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).expect("private");
    let at = |name: &str| {
        let p = dir.path().join(name);
        fs::create_dir(&p).expect("folder");
        p
    };
    let (upper, work, root) = (at("upper"), at("work"), at("root"));
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.path().display(), upper.display(), work.display());
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str())).expect("overlay");
    check(&root);
    let (all, before) = record(&root, "unshare -m cat opened > /dev/null");
    let e = before.get("/opened").expect("in the walk");
    assert!(all.files.get(&(e.dev, e.ino)).is_some_and(|f| f.runs.len() == 1), "{all:?}");
    // Before the folder is removed: it would be emptied through the mount.
    nix::mount::umount2(&root, nix::mount::MntFlags::MNT_DETACH).expect("unmounted");
}

#[test]
fn writers_alone_and_a_hundred_thousand_opens() {
    if !can() {
        return;
    }
    let dir = tree();
    let gated = gated(&format!(
        "cd {}; exec python3 -c \"\nfor i in range(100000): open('c').close()\nopen('w','w').close(); import time; time.sleep(0.3)\"",
        dir.path().display()
    ));
    let mounts = mounts(dir.path());
    let before = Snapshot::take(dir.path(), "/", &Limits::default());
    let residency = Residency::prepare(dir.path(), &[&before]).expect("works here");
    let writers = Writers::start(dir.path(), &mounts, gated.pid).expect("root may");
    let all = Fanotify::start(dir.path(), &mounts, gated.pid, residency).expect("root may");
    finish(gated);
    let (writers, all) = (writers.stop(), all.stop());
    let new = Snapshot::take(dir.path(), "/w", &Limits::default());
    let Some(new) = new.entries.first() else { return };
    assert!(writers.get(&(new.dev, new.ino)).is_some_and(|n| n.starts_with("python")), "{writers:?}");
    assert_eq!(all.lost, 0);
    let c = before.get("/c").expect("in the walk");
    assert_eq!(all.files.get(&(c.dev, c.ino)).expect("seen").kinds, OPEN);
    assert!(all.events < 50_000, "{} events: what is known is not told again", all.events);
}
