//! On a real disk, with real commands.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use super::*;
use crate::record::walk::Limits;

/// Not in `/tmp`, which may be a tmpfs: it evicts nothing.
fn tree(files: &[(&str, usize)]) -> TempDir {
    let dir = TempDir::new_in("/var/tmp").expect("a folder on a disk");
    for (name, len) in files {
        fs::write(dir.path().join(name), vec![1; *len]).expect("room");
    }
    dir
}

fn walk(dir: &Path) -> Snapshot {
    Snapshot::take(dir, "/", &Limits::default())
}

fn sh(dir: &Path, script: &str) {
    assert!(Command::new("sh").args(["-c", script]).current_dir(dir).status().expect("sh runs").success(), "{script}");
}

fn seen<'a>(all: &'a Sightings, walk: &Snapshot, path: &str) -> Option<&'a Sighting> {
    let e = walk.get(path).expect("in the walk");
    all.files.get(&(e.dev, e.ino))
}

#[test]
fn what_is_read_is_found_and_what_is_not_is_not() {
    let dir = tree(&[("a", 300_000), ("b", 9 << 20), ("c", 5000), ("never", 400_000), ("empty", 0)]);
    symlink("a", dir.path().join("link")).expect("link");
    let before = walk(dir.path());
    let mut r = Residency::prepare(dir.path(), &[&before]).expect("works here");
    r.start();
    sh(
        dir.path(),
        "cat link c empty >/dev/null; dd if=b of=/dev/null bs=4096 skip=2000 count=3 2>/dev/null; stat never >/dev/null",
    );
    let start = now();
    let all = r.stop(None);
    let paths: HashSet<&str> = all.files.values().filter_map(|f| f.path.as_deref()).collect();
    assert_eq!(paths, ["/a", "/b", "/c"].into());
    let a = seen(&all, &before, "/a").expect("seen");
    assert_eq!((a.kinds, a.size), (CACHED, 300_000));
    assert_eq!((a.runs.len(), a.runs[0].start, a.runs[0].end), (1, 0, 300_000), "cut at the size");
    assert!(a.first >= start, "small files have the time of the end");
    let b = seen(&all, &before, "/b").expect("seen");
    let bytes: u64 = b.runs.iter().map(|r| r.end - r.start).sum();
    assert!(b.runs.iter().any(|r| r.start <= 2000 * 4096 && r.end >= 2003 * 4096), "{:?}", b.runs);
    assert!(bytes <= 1 << 20, "{bytes} bytes: no whole file");
    assert!(all.notes.is_empty(), "{:?}", all.notes);
    assert_eq!((all.lost, all.events >= 3), (0, true));
}

#[test]
fn ranges_of_big_files_get_times_while_the_command_runs() {
    let dir = tree(&[("big", 8 << 20)]);
    let before = walk(dir.path());
    let mut r = Residency::prepare(dir.path(), &[&before]).expect("works here");
    r.start();
    sh(dir.path(), "dd if=big of=/dev/null bs=4096 count=1 2>/dev/null; sleep 1.2");
    let between = now();
    sh(dir.path(), "dd if=big of=/dev/null bs=4096 skip=1500 count=1 2>/dev/null");
    let all = r.stop(None);
    let runs = &seen(&all, &before, "/big").expect("seen").runs;
    assert!(runs.windows(2).all(|w| w[0].end <= w[1].start), "{runs:?}");
    assert!(runs[0].start == 0 && runs[0].at < between, "{runs:?}");
    assert!(runs.iter().any(|r| r.start <= 1500 * 4096 && r.end > 1500 * 4096 && r.at > between), "{runs:?}");
}

#[test]
fn what_others_map_is_unknown_and_not_touched() {
    let dir = tree(&[("mapped", 200_000), ("other", 10_000)]);
    let script = "import mmap,sys;f=open(sys.argv[1],'rb');m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ);m[:];print(1,flush=True);sys.stdin.read()";
    let Ok(mut holder) = Command::new("python3")
        .args(["-c", script])
        .arg(dir.path().join("mapped"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
    else {
        return;
    };
    io::Read::read_exact(holder.stdout.as_mut().expect("piped"), &mut [0; 2]).expect("it is mapped");
    let before = walk(dir.path());
    let r = Residency::prepare(dir.path(), &[&before]).expect("works here");
    sh(dir.path(), "cat other >/dev/null");
    let all = r.stop(None);
    drop(holder.stdin.take());
    holder.wait().expect("ended");
    assert!(seen(&all, &before, "/mapped").is_none() && seen(&all, &before, "/other").is_some());
    // The last page is not whole, but all of it is in memory.
    assert!(all.notes.iter().any(|n| n.starts_with("200704 bytes of 1 files stayed")), "{:?}", all.notes);
}

#[test]
fn replaced_and_changed_files_are_said_to_be_so() {
    let dir = tree(&[("gone", 10_000), ("replaced", 10_000), ("longer", 10_000), ("same", 10_000)]);
    let before = walk(dir.path());
    let r = Residency::prepare(dir.path(), &[&before]).expect("works here");
    sh(dir.path(), "cat * >/dev/null; rm gone; cp same new; mv new replaced; echo more >> longer");
    let all = r.stop(None);
    assert!(seen(&all, &before, "/replaced").is_none(), "the new file is not the old one");
    assert_eq!(seen(&all, &before, "/longer").expect("seen").runs[0].end, 10_000, "cut at the old size");
    let has = |start: &str| all.notes.iter().any(|n| n.starts_with(start));
    assert!(has("2 files were deleted or replaced") && has("1 files were changed"), "{:?}", all.notes);
}

#[test]
fn an_overlay_passes_eviction_and_looks_on_to_the_real_file() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let (dir, lower) = (tree(&[]), tree(&[("a", 9 << 20), ("written", 10_000), ("never", 10_000)]));
    // This thread's own, so that nothing is left behind.
    unshare(CloneFlags::CLONE_NEWNS).expect("mount namespace");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).expect("private");
    let [upper, work, root] = ["upper", "work", "root"].map(|name| dir.path().join(name));
    for folder in [&upper, &work, &root] {
        fs::create_dir(folder).expect("folder");
    }
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.path().display(), upper.display(), work.display());
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str())).expect("overlay");
    // All of it is cached when the recording begins.
    sh(&root, "cat * >/dev/null");
    let before = walk(&root);
    let r = Residency::prepare(&root, &[&before]).expect("works here");
    sh(&root, "dd if=a of=/dev/null bs=4096 skip=2000 count=3 2>/dev/null; echo more >> written");
    let all = r.stop(None);
    // Before the folder is removed: it would be emptied through the mount.
    umount2(&root, MntFlags::MNT_DETACH).expect("unmounted");
    let a = seen(&all, &before, "/a").expect("seen");
    let bytes: u64 = a.runs.iter().map(|r| r.end - r.start).sum();
    assert!(a.runs.iter().any(|r| r.start <= 2000 * 4096 && r.end >= 2003 * 4096) && bytes <= 1 << 20, "{:?}", a.runs);
    assert!(seen(&all, &before, "/never").is_none());
    assert_eq!(all.notes, ["1 files were changed meanwhile: their ranges may be writes"]);
}

#[test]
#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn a_file_system_that_forgets_is_left_out() {
    let dir = tree(&[("a", 100_000), ("b", 10_000)]);
    let root = TempDir::new_in("/var/tmp").expect("a folder");
    let mounted = Command::new("bindfs").arg(dir.path()).arg(root.path()).status();
    if !mounted.is_ok_and(|s| s.success()) {
        println!("skipped: bindfs cannot mount here");
        return;
    }
    let before = walk(root.path());
    let refused = Residency::prepare(root.path(), &[&before]).err();
    assert!(Command::new("umount").arg("-l").arg(root.path()).status().expect("umount runs").success());
    assert_eq!(before.entries.len(), 2);
    let source = refused.as_ref().and_then(std::error::Error::source).map(ToString::to_string).unwrap_or_default();
    assert!(source.starts_with("2 files were left out: their file system does not cache"), "{refused:?}");
}

#[test]
fn a_look_can_be_kept_to_some_files() {
    let dir = tree(&[("a", 10_000), ("b", 10_000)]);
    let before = walk(dir.path());
    let r = Residency::prepare(dir.path(), &[&before]).expect("works here");
    sh(dir.path(), "cat a b >/dev/null");
    let e = before.get("/a").expect("in the walk");
    let all = r.stop(Some(&[(e.dev, e.ino)].into()));
    assert!(all.files.len() == 1 && seen(&all, &before, "/a").is_some());
}

#[test]
fn it_is_available_here() {
    let words = available().expect("mincore works");
    assert_eq!(words.is_none(), nix::unistd::geteuid().is_root(), "{words:?}");
}

/// `cargo test --lib -- --ignored --nocapture a_walk_of_50000` for the figures.
#[test]
#[ignore = "takes a while; prints figures"]
#[expect(clippy::print_stdout, reason = "a measurement")]
fn a_walk_of_50000_files() {
    let dir = TempDir::new_in("/var/tmp").expect("a folder on a disk");
    for folder in 0..500 {
        let folder = dir.path().join(format!("d{folder}"));
        fs::create_dir(&folder).expect("folder");
        (0..100).for_each(|n| fs::write(folder.join(format!("f{n}")), vec![1; 8000]).expect("room"));
    }
    nix::unistd::sync();
    let timed = |what: &str, begun: Instant| println!("{what}: {:.2} s", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let before = walk(dir.path());
    timed("walk", begun);
    let begun = Instant::now();
    let r = Residency::prepare(dir.path(), &[&before]).expect("works here");
    timed("evict and look, all cached", begun);
    sh(dir.path(), "cat d1*/* > /dev/null");
    let begun = Instant::now();
    let all = r.stop(None);
    timed("last look", begun);
    assert_eq!(before.entries.len(), 50_000);
    assert_eq!(all.files.len(), 11_100);
}

/// `cargo test --lib -- --ignored --nocapture what_the_sampler_costs` for the figures.
#[test]
#[ignore = "takes a while; prints figures"]
#[expect(clippy::print_stdout, reason = "a measurement")]
fn what_the_sampler_costs() {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike;
    let dir = TempDir::new_in("/var/tmp").expect("a folder on a disk");
    for n in 0..24 {
        let file = File::create(dir.path().join(format!("big{n}"))).expect("room");
        file.set_len(256 << 20).expect("a hole");
    }
    let before = walk(dir.path());
    let begun = Instant::now();
    let mut r = Residency::prepare(dir.path(), &[&before]).expect("works here");
    println!("prepare, 24 files of 256 MiB: {:.3} s", begun.elapsed().as_secs_f64());
    let cpu = || {
        let usage = getrusage(UsageWho::RUSAGE_SELF).expect("usage");
        (usage.user_time() + usage.system_time()).num_microseconds()
    };
    let begun = cpu();
    r.start();
    sh(dir.path(), "for i in $(seq 30); do head -c ${i}00000 big3 | tail -c 1 >/dev/null; sleep 1; done");
    let spent = cpu() - begun;
    println!("sampler, 30 s: {spent} us of CPU, {:.2} %", f64::from(i32::try_from(spent).expect("small")) / 30e4);
    let begun = Instant::now();
    r.stop(None);
    println!("last look: {:.3} s", begun.elapsed().as_secs_f64());
}
