//! Real workloads under the filter. They return early where the kernel or a container forbids it.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};

use super::super::touch::{EXEC, MMAP, OPEN, READ};
use super::rig::{Job, MIB, Rig, holds, python, record};
use super::*;

#[test]
fn reads_are_exact_to_the_byte_and_cut_at_the_end() {
    let Some(rig) = Rig::new() else { return };
    let seen = python(
        &rig,
        "
f = os.open('big', os.O_RDONLY)
os.read(f, 10)
os.lseek(f, 1000, 0); os.read(f, 5); os.read(f, 5)
os.pread(f, 7, 5000)
os.readv(f, [bytearray(3), bytearray(4)])
os.preadv(f, [bytearray(100), bytearray(50)], 20000)
os.preadv(f, [bytearray(9)], 25000, os.RWF_HIPRI)
r, w = os.pipe()
os.sendfile(w, f, 30000, 11); os.read(r, 11)
os.lseek(f, 40000, 0); os.sendfile(w, f, None, 12); os.read(r, 12)
os.splice(f, w, 13, offset_src=50000); os.read(r, 13)
os.copy_file_range(f, os.open('copy', os.O_CREAT | os.O_WRONLY), 14, offset_src=60000)
os.pread(f, 1 << 20, (4 << 20) - 100)
os.pread(f, 100, 5 << 20)
",
    );
    let end = 4 * MIB as u64;
    let want = [
        (0, 10),
        (1000, 1017),
        (5000, 5007),
        (20_000, 20_150),
        (25_000, 25_009),
        (30_000, 30_011),
        (40_000, 40_012),
        (50_000, 50_013),
        (60_000, 60_014),
        (end - 100, end),
    ];
    assert_eq!(rig.ranges(&seen, "big"), want);
    let big = rig.sighting(&seen, "big");
    assert_eq!((big.kinds, big.size), (OPEN | READ, end));
    assert_eq!(big.path, Some(rig.text("big")));
    assert!(big.runs.windows(2).take(7).all(|w| w[0].at < w[1].at) && big.first <= big.runs[0].at);
    assert_eq!(seen.writers.get(&rig.key("copy")).map(String::as_str), Some("python3"));
    assert!(!seen.writers.contains_key(&rig.key("big")));
}

#[test]
fn the_first_and_last_byte_of_standard_input_count_too() {
    let Some(rig) = Rig::new() else { return };
    let line = format!("exec head -c 3 <{} >/dev/null", rig.text("big"));
    let seen = record(&["/bin/sh", "-c", &line]);
    assert_eq!(rig.ranges(&seen, "big")[0].0, 0);
    assert_eq!(rig.ranges(&seen, "big").len(), 1);
}

#[test]
fn children_threads_and_what_they_execute_are_followed() {
    let Some(rig) = Rig::new() else { return };
    fs::write(
        rig.path().join("script"),
        format!("#!/bin/sh\ndd if={} bs=1 skip=9 count=2 of=/dev/null 2>/dev/null", rig.text("big")),
    )
    .expect("a file");
    let seen = python(
        &rig,
        "
os.chmod('script', 0o755)
t = threading.Thread(target=lambda: os.pread(os.open('big', os.O_RDONLY), 3, 100)); t.start(); t.join()
pid = os.fork()
if pid == 0:
    os.pread(os.open('big', os.O_RDONLY), 4, 200)
    os.execv('./script', ['x'])
assert os.waitpid(pid, 0)[1] == 0
",
    );
    let ranges = rig.ranges(&seen, "big");
    assert_eq!(ranges, [(9, 11), (100, 103), (200, 204)]);
    let script = rig.sighting(&seen, "script");
    assert!(script.kinds & EXEC != 0 && holds(&script.runs, 0), "{script:?}");
    let meta = fs::metadata("/bin/sh").expect("every system has it");
    let shell = &seen.files[&(meta.dev(), meta.ino())];
    assert_eq!(shell.kinds & (EXEC | MMAP), EXEC | MMAP, "executed, and its pages were seen before it ended");
    let loader =
        seen.files.values().any(|f| f.kinds & EXEC != 0 && f.path.as_deref().is_some_and(|p| p.contains("/ld-")));
    assert!(loader, "the interpreter in PT_INTERP");
    let us = fs::metadata("/proc/self/exe").expect("we run");
    assert!(!seen.files.contains_key(&(us.dev(), us.ino())), "we are not part of it");
}

#[test]
fn files_are_told_by_what_they_are_not_by_their_names() {
    let Some(rig) = Rig::new() else { return };
    for name in ["renamed", "deleted", "private", "linked", "pointed"] {
        fs::write(rig.path().join(name), vec![1; 100_000]).expect("a file");
    }
    fs::hard_link(rig.path().join("linked"), rig.path().join("other")).expect("a link");
    symlink("pointed", rig.path().join("pointer")).expect("a link");
    let (gone, private) = (rig.key("deleted"), rig.key("private"));
    let seen = python(
        &rig,
        "
r = os.open('renamed', os.O_RDONLY); os.rename('renamed', 'anew'); os.pread(r, 5, 10)
d = os.open('deleted', os.O_RDONLY); m = mmap.mmap(d, 0, access=mmap.ACCESS_READ); os.unlink('deleted')
os.pread(d, 5, 20); m[70000]
e = mmap.mmap(d, 0, access=mmap.ACCESS_READ); e[99999]
p = mmap.mmap(os.open('private', os.O_RDONLY), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ); os.unlink('private'); p[50000]
os.pread(os.open('other', os.O_RDONLY), 5, 30)
os.pread(os.open('linked', os.O_RDONLY), 5, 40)
os.pread(os.open('pointer', os.O_RDONLY), 5, 50)
",
    );
    assert_eq!(rig.ranges(&seen, "anew"), [(10, 15)]);
    let deleted = &seen.files[&gone];
    assert!([20, 70_000, 99_999].iter().all(|&at| holds(&deleted.runs, at)), "{deleted:?}");
    assert_eq!(deleted.kinds, OPEN | READ | MMAP);
    assert!(holds(&seen.files[&private].runs, 50_000), "deleted between the mapping and the touch");
    assert_eq!(rig.ranges(&seen, "linked"), [(30, 35), (40, 45)]);
    assert_eq!(rig.ranges(&seen, "pointed"), [(50, 55)]);
}

#[test]
fn touched_pages_of_mappings_are_seen_within_the_fault_around_window() {
    let Some(rig) = Rig::new() else { return };
    let touched = [300_000_u64, 1_500_000, 4_000_000];
    for (how, after) in [("at the end", ""), ("at munmap", "m.close()"), ("at exec", "os.execv('/bin/true', ['true'])")]
    {
        let program = format!(
            "
f = os.open('big', os.O_RDWR)
os.fsync(f); os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED) # a file just written is cached in huge pages
m = mmap.mmap(f, 0, access=mmap.ACCESS_READ)
m.madvise(mmap.MADV_RANDOM)
for at in {touched:?}: m[at]
{after}
"
        );
        let seen = python(&rig, &program);
        let big = rig.sighting(&seen, "big");
        assert_eq!(big.kinds, OPEN | MMAP, "{how}");
        assert!(touched.iter().all(|&at| holds(&big.runs, at)), "{how}: {:?}", big.runs);
        for r in &big.runs {
            let near = touched.iter().any(|&at| r.start + 65_536 > at && r.end <= at + 65_536);
            assert!(near, "{how}: {r:?} reaches further than 64 KiB from a touch");
        }
    }
}

#[test]
fn a_process_that_is_killed_was_sampled_before() {
    let Some(rig) = Rig::new() else { return };
    let program = format!(
        "import mmap, os, time; m = mmap.mmap(os.open({:?}, os.O_RDONLY), 0, access=mmap.ACCESS_READ); m[2000000]; \
         time.sleep(60)",
        rig.text("big")
    );
    let mut job = Job::start(&["/usr/bin/python3", "-c", &program]);
    let started = Instant::now();
    let has_it = |job: &Job| {
        let notebook = lock(&job.supervisor.shared.notebook);
        notebook.as_ref().is_some_and(|n| n.touched(rig.key("big"), 2_000_000))
    };
    while !has_it(&job) && started.elapsed() < Duration::from_secs(30) {
        thread::sleep(Duration::from_millis(20));
    }
    kill(job.pid, Signal::SIGKILL).expect("it sleeps");
    assert_eq!(job.wait(), 128 + 9);
    let seen = job.supervisor.stop();
    assert!(holds(&rig.sighting(&seen, "big").runs, 2_000_000));
}

#[test]
fn paths_that_are_only_looked_up_are_told_apart() {
    let Some(rig) = Rig::new() else { return };
    fs::write(rig.path().join("seen"), "x").expect("a file");
    symlink("big", rig.path().join("pointer")).expect("a link");
    let seen = python(
        &rig,
        "
os.stat('seen'); os.access('./x/../absent', os.R_OK); os.readlink('pointer'); os.stat('big')
d = os.open('.', os.O_RDONLY); os.stat('below', dir_fd=d) if os.path.exists('below') else None
try: os.stat('at', dir_fd=d)
except OSError: pass
try: open('missing')
except OSError: pass
os.open(f'/dev/fd/{d}', os.O_RDONLY)
os.read(os.open('big', os.O_RDONLY), 1)
",
    );
    for name in ["seen", "absent", "pointer", "below", "at", "missing", "."] {
        let path = if name == "." { rig.path().to_str().expect("UTF-8").to_owned() } else { rig.text(name) };
        assert!(seen.lookups.contains_key(&path), "{path}");
    }
    assert!(!seen.lookups.contains_key(&rig.text("big")), "it was read");
    assert!(!seen.files.contains_key(&rig.key("seen")), "it was not");
}

#[test]
fn a_burst_of_opens_misses_none() {
    let Some(rig) = Rig::new() else { return };
    let seen = python(
        &rig,
        "
os.mkdir('many')
for i in range(1000): open(f'many/{i}', 'wb').write(b'x' * 10)
def work(part):
    for n in range(25):
        for i in range(1000):
            f = os.open(f'many/{i}', os.O_RDONLY); os.pread(f, 1, n % 5 * 2); os.close(f)
threads = [threading.Thread(target=work, args=(p,)) for p in range(4)]
for t in threads: t.start()
for t in threads: t.join()
",
    );
    assert!(seen.events >= 200_000, "{}", seen.events);
    for i in 0..1000 {
        assert_eq!(rig.ranges(&seen, &format!("many/{i}")), [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)], "{i}");
        assert!(seen.writers.contains_key(&rig.key(&format!("many/{i}"))));
    }
}

#[test]
fn a_file_that_is_made_under_another_name_has_its_writer() {
    let Some(rig) = Rig::new() else { return };
    let seen = python(
        &rig,
        "
f = os.open('new.tmp', os.O_CREAT | os.O_EXCL | os.O_WRONLY); os.write(f, b'x'); os.close(f); os.rename('new.tmp', 'new')
def last():
    open('last', 'w')
    os._exit(0)
threading.Thread(target=last).start(); time.sleep(60)
",
    );
    for name in ["new", "last"] {
        assert_eq!(seen.writers.get(&rig.key(name)).map(String::as_str), Some("python3"), "{name}");
    }
}

#[test]
fn the_exit_code_and_what_runs_after_the_end_are_untouched() {
    let Some(rig) = Rig::new() else { return };
    assert_eq!(Job::start(&["/bin/sh", "-c", "exit 37"]).wait(), 37);
    assert_eq!(Job::start(&["/no/such/program"]).wait(), 127);
    let program = format!(
        "import os, time; os.chdir({:?}); os.read(os.open('big', os.O_RDONLY), 1); \
         os.path.exists('go'); open('ready', 'w').close()\n\
         while not os.path.exists('go'): time.sleep(0.01)\n\
         assert len(open('big', 'rb').read()) == 4 << 20; os._exit(5)",
        rig.path()
    );
    let mut job = Job::start(&["/usr/bin/python3", "-c", &program]);
    while !rig.path().join("ready").exists() {
        thread::sleep(Duration::from_millis(10));
    }
    let seen = job.supervisor.stop();
    fs::write(rig.path().join("go"), "").expect("a file");
    assert_eq!(job.wait(), 5);
    assert_eq!(rig.ranges(&seen, "big"), [(0, 1)]);
    assert!(seen.lookups.contains_key(&rig.text("go")));
}

#[test]
fn a_debugger_among_the_workload_works() {
    let Some(rig) = Rig::new() else { return };
    if !Path::new("/usr/bin/strace").exists() {
        return;
    }
    let (trace, big) = (rig.text("trace"), rig.text("big"));
    let seen =
        record(&["/usr/bin/strace", "-f", "-o", &trace, "/bin/sh", "-c", &format!("exec head -c 9 {big} >/dev/null")]);
    let text = fs::read_to_string(&trace).expect("it was written");
    assert!(text.contains(&big) && text.contains("exited with 0"), "{text}");
    assert_eq!(rig.ranges(&seen, "big")[0].0, 0);
}

#[test]
fn io_uring_is_stated_as_a_blind_spot() {
    let Some(rig) = Rig::new() else { return };
    let program = format!(
        "import ctypes; ctypes.CDLL(None).syscall({}, 1, ctypes.create_string_buffer(256))",
        libc::SYS_io_uring_setup
    );
    let mut job = Job::start(&["/usr/bin/python3", "-c", &program]);
    assert_eq!(job.wait(), 0);
    let seen = job.supervisor.stop();
    assert!(seen.lost > 0 && seen.notes.iter().any(|n| n.contains("python3 set up io_uring")), "{:?}", seen.notes);
    drop(rig);
}

#[test]
fn signals_during_calls_are_survived() {
    let Some(rig) = Rig::new() else { return };
    let seen = python(
        &rig,
        "
import signal
n = 0
def tick(*_):
    global n; n += 1
signal.signal(signal.SIGALRM, tick); signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
f = os.open('big', os.O_RDONLY)
for i in range(4000): assert len(os.pread(f, 1, i * 2)) == 1
assert n > 10
signal.setitimer(signal.ITIMER_REAL, 0)
",
    );
    assert_eq!(rig.ranges(&seen, "big"), (0..4000).map(|i| (i * 2, i * 2 + 1)).collect::<Vec<_>>());
}

#[test]
fn what_is_wrong_with_the_arguments_fails_as_without_us() {
    let Some(rig) = Rig::new() else { return };
    let program = format!(
        "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n\
         for a in [({0}, -100, 8, 0), ({1}, 99, 0, 5), ({2}, 0, 8, 5000), ({3}, 8, 8, 8), ({4}, 77, 1 << 40, 8)]:\n\
         \x20   assert c.syscall(*[ctypes.c_long(x) for x in a]) == -1 and ctypes.get_errno() in ({5}, {6}, {7}), a",
        libc::SYS_openat,
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_execve,
        libc::SYS_io_submit,
        Errno::EFAULT as i32,
        Errno::EBADF as i32,
        Errno::EINVAL as i32,
    );
    let seen = record(&["/usr/bin/python3", "-c", &program]);
    assert!(seen.events > 100);
    drop(rig);
}

#[test]
fn other_roots_and_mounts_are_seen_as_their_processes_do() {
    let Some(rig) = Rig::new() else { return };
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    symlink("/big", rig.path().join("absolute")).expect("a link");
    fs::create_dir(rig.path().join("mnt")).expect("a folder");
    let program = "
import ctypes
c = ctypes.CDLL(None, use_errno=True)
def must(code): assert code == 0, os.strerror(ctypes.get_errno())
must(c.unshare(0x20000)); must(c.mount(None, b'/', None, 0x44000, None)); must(c.mount(b'x', b'mnt', b'tmpfs', 0, None))
open('mnt/other', 'wb').write(bytes(100000))
other = os.stat('mnt/other'); open('key', 'w').write(f'{other.st_dev} {other.st_ino}')
f = os.open('mnt/other', os.O_RDONLY); os.pread(f, 3, 10)
m = mmap.mmap(f, 0, access=mmap.ACCESS_READ); m[90000]; m.close()
os.chroot('.'); os.chdir('/')
os.pread(os.open('/absolute', os.O_RDONLY), 4, 20)
os.access('/nothing', 0); os.access('none', 0)
os._exit(0)
";
    let seen = python(&rig, program);
    assert_eq!(rig.ranges(&seen, "big"), [(20, 24)]);
    assert!(rig.sighting(&seen, "big").kinds & OPEN != 0, "the link was followed inside the other root");
    assert!(seen.lookups.contains_key(&rig.text("nothing")) && seen.lookups.contains_key(&rig.text("none")));
    let key = fs::read_to_string(rig.path().join("key")).expect("it was written");
    let (dev, ino) = key.split_once(' ').expect("two numbers");
    let other = &seen.files[&(dev.parse().expect("a number"), ino.parse().expect("a number"))];
    assert!(holds(&other.runs, 11) && holds(&other.runs, 90_000), "{other:?}");
    assert_eq!(other.kinds, OPEN | READ | MMAP);
}

/// The path lies in memory that only the workload itself can bring in, and that it brings in after another told call: without
/// the watch all of our threads would wait for the workload, and it for them.
#[test]
fn a_workload_that_must_go_on_for_us_to_see_it_goes_on() {
    let Some(rig) = Rig::new() else { return };
    let program = format!(
        "import ctypes, fcntl, mmap, os, struct, sys, threading, time
c = ctypes.CDLL(None)
u = c.syscall({}, os.O_CLOEXEC)
if u < 0: sys.exit(42)
fcntl.ioctl(u, 0xc018aa3f, struct.pack('QQQ', 0xaa, 0, 0))
m = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
at = ctypes.addressof(ctypes.c_char.from_buffer(m))
fcntl.ioctl(u, 0xc020aa00, struct.pack('QQQQ', at, 4096, 1, 0))
name = ctypes.create_string_buffer(b'/dev/null', 4096)
opened = []
work = lambda: opened.append(c.syscall({}, -100, ctypes.c_void_p(at), 0))
threads = [threading.Thread(target=work) for _ in range(6)]
for t in threads: t.start()
time.sleep(0.3)
os.stat('/')
fcntl.ioctl(u, 0xc028aa03, struct.pack('QQQQQ', at, ctypes.addressof(name), 4096, 0, 0))
for t in threads: t.join()
sys.exit(0 if min(opened) >= 0 else 1)",
        libc::SYS_userfaultfd,
        libc::SYS_openat
    );
    let mut job = Job::start(&["/usr/bin/python3", "-c", &program]);
    let code = job.wait();
    // The kernel may keep such memory from users without privileges.
    if code != 42 {
        let seen = job.supervisor.stop();
        assert_eq!(code, 0);
        assert!(seen.lost > 0, "and it is said that something was missed");
    }
    drop(rig);
}

/// The tests below return early where it does not work: here it must.
#[test]
fn it_is_available_on_a_kernel_that_has_it() {
    let said = available();
    if fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").is_ok_and(|a| a.contains("user_notif")) {
        assert_eq!(said, Ok(()));
    } else {
        assert!(said.is_err_and(|why| why.contains("seccomp")));
    }
}

/// All of this file again, as a user without any capability.
#[test]
fn nothing_needs_a_privilege() {
    if !nix::unistd::geteuid().is_root() || available().is_err() {
        return;
    }
    // Built under a folder that others may not enter, it could not be run.
    let dir = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().expect("a folder");
    let program = dir.path().join("tests");
    fs::copy(std::env::current_exe().expect("we run"), &program).expect("a copy");
    let out = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set=-all", "--no-new-privs"])
        .arg(&program)
        .args(["record::seccomp::", "--skip", "nothing_needs_a_privilege"])
        .env("TMPDIR", "/tmp")
        .current_dir("/")
        .output();
    let Ok(out) = out else { return };
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("signals_during_calls_are_survived ... ok"), "{text}");
}
