//! A program out of an untrusted image, run where it can do nothing but compute: its own user, mount, process, network and IPC namespaces, a
//! read-only root without the host behind it, no rights, limits on memory, time and file sizes. What it takes and gives goes
//! through its stdin and stdout.
#![expect(unsafe_code, reason = "namespaces are entered between fork and exec")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::{set_no_new_privs, set_pdeathsig};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Gid, Uid, chdir, fork, getegid, geteuid, pivot_root, setgroups, setresgid, setresuid};

/// Who it is in there: nobody, so that `exec` leaves it no capability.
const NOBODY: u32 = 65534;

/// What it may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of address space.
    pub memory: u64,
    /// Seconds of processor time.
    pub cpu: u64,
}

/// All that the child needs to know, made before it is forked.
struct Plan {
    root: CString,
    /// For whom may not make namespaces otherwise: the maps of a user namespace.
    maps: Option<[CString; 2]>,
    limits: Limits,
}

/// Starts a program (a path inside `root`) with exactly this environment. Needs root, or a kernel that lets users make user
/// namespaces. Killing the child ends everything that it has started.
pub(crate) fn start(
    root: &Path,
    program: &str,
    args: &[&str],
    environment: &[(&str, &str)],
    limits: Limits,
) -> io::Result<Child> {
    let c = |text: String| CString::new(text).map_err(io::Error::other);
    let (user, group) = (geteuid(), getegid());
    let map = |id: u32| c(format!("{NOBODY} {id} 1\n"));
    let maps = if user.is_root() { None } else { Some([map(user.as_raw())?, map(group.as_raw())?]) };
    let plan = Plan { root: CString::new(root.as_os_str().as_bytes())?, maps, limits };
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(environment.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: `confine` makes system calls and allocates nothing: every string is in the plan already.
    unsafe { command.pre_exec(move || confine(&plan).map_err(Into::into)) };
    command.spawn()
}

/// Turns the process between fork and exec into the confined one.
fn confine(plan: &Plan) -> nix::Result<()> {
    const NOTHING: Option<&CStr> = None;
    let root = plan.root.as_c_str();
    if let Some([users, groups]) = &plan.maps {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        write(c"/proc/self/setgroups", c"deny")?;
        write(c"/proc/self/uid_map", users)?;
        write(c"/proc/self/gid_map", groups)?;
    }
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS,
    )?;
    mount(NOTHING, c"/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)?;
    mount(Some(root), root, NOTHING, MsFlags::MS_BIND, NOTHING)?;
    let read_only = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(NOTHING, root, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | read_only, NOTHING)?;
    // The old root is stacked below the new one and taken away: there is nothing to break out to.
    chdir(root)?;
    pivot_root(c".", c".")?;
    umount2(c".", MntFlags::MNT_DETACH)?;
    chdir(c"/")?;
    // A process namespace begins with the next child, which is its process 1: with it all others end.
    // SAFETY: as for the fork that we are in; the parent does nothing but wait.
    if let ForkResult::Parent { child } = unsafe { fork() }? {
        wait_and_exit(child.as_raw());
    }
    for (what, most) in [
        (Resource::RLIMIT_AS, plan.limits.memory),
        (Resource::RLIMIT_CPU, plan.limits.cpu),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_NOFILE, 256),
    ] {
        setrlimit(what, most, most)?;
    }
    if plan.maps.is_none() {
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        setgroups(&[])?;
        setresgid(group, group, group)?;
        setresuid(user, user, user)?;
    }
    set_no_new_privs()?;
    // A change of the user would take it back.
    set_pdeathsig(Signal::SIGKILL)
}

/// Writes a whole file of `/proc` with one call.
fn write(path: &CStr, text: &CStr) -> nix::Result<()> {
    // SAFETY: NUL-terminated path, plain flags.
    let fd = nix::errno::Errno::result(unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) })?;
    let bytes = text.to_bytes();
    // SAFETY: as many bytes as the string has, an open descriptor that is ours.
    let written = nix::errno::Errno::result(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) });
    // SAFETY: ours, and used no more.
    unsafe { libc::close(fd) };
    written.map(drop)
}

/// Passes on how the child ends. Holds no pipe open meanwhile: who started us waits for the end of one.
fn wait_and_exit(child: libc::pid_t) -> ! {
    // SAFETY: descriptors are plain numbers; nothing of this process uses one any more.
    unsafe { libc::syscall(libc::SYS_close_range, 0_u32, u32::MAX, 0_u32) };
    let mut status = 0;
    loop {
        // SAFETY: writes to a local variable.
        let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
        if ended == child || nix::errno::Errno::last() != nix::errno::Errno::EINTR {
            break;
        }
    }
    let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    /// A program and its shared libraries.
    pub(crate) fn with_libraries(program: &str) -> Vec<String> {
        let listed = Command::new("ldd").arg(program).output().expect("ldd").stdout;
        let listed = String::from_utf8(listed).expect("text");
        listed.split_whitespace().filter(|w| w.starts_with('/')).chain([program]).map(Into::into).collect()
    }

    /// A root with some programs of this machine and their libraries.
    pub(crate) fn root(programs: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("mode");
        for program in programs {
            for path in with_libraries(program) {
                let inside = dir.path().join(&path[1..]);
                fs::create_dir_all(inside.parent().expect("a folder")).expect("folder");
                fs::copy(path, inside).expect("copied");
            }
        }
        dir
    }

    const LIMITS: Limits = Limits { memory: 1 << 30, cpu: 60 };

    #[test]
    fn it_computes_and_can_do_nothing_else() {
        let root = root(&["/bin/sh", "/usr/bin/id", "/bin/ls", "/bin/mount", "/usr/sbin/chroot"]);
        fs::create_dir(root.path().join("proc")).expect("folder");
        let run = |script| {
            let child = start(root.path(), "/bin/sh", &["-c", script], &[("A", "b"), ("PATH", "/bin")], LIMITS);
            let out = child.expect("root, or user namespaces").wait_with_output().expect("ended");
            (out.status.code(), String::from_utf8_lossy(&out.stdout).trim().to_owned())
        };
        assert_eq!(run("echo $A$HOME $$; exit 7"), (Some(7), "b 1".to_owned()), "its environment, process 1, its code");
        assert_eq!(run("/usr/bin/id -u"), (Some(0), NOBODY.to_string()));
        let shown = run("ls /").1;
        assert!(shown.contains("proc") && !shown.contains("home") && !shown.contains("root"), "{shown}");
        assert_ne!(run("echo x > /x").0, Some(0), "read-only");
        assert_ne!(run("mount -t proc none /proc").0, Some(0), "no rights");
        assert_ne!(run("/usr/sbin/chroot / /bin/sh").0, Some(0));
        assert_ne!(run("ulimit -v unlimited").0, Some(0), "limits stay");
    }

    #[test]
    fn killing_it_ends_all_that_it_started() {
        let root = root(&["/bin/sh", "/bin/sleep"]);
        let script = "/bin/sleep 600 & echo on; /bin/sleep 600";
        let child = start(root.path(), "/bin/sh", &["-c", script], &[], LIMITS);
        let mut child = child.expect("root, or user namespaces");
        let mut said = child.stdout.take().expect("a pipe");
        let mut on = [0; 3];
        io::Read::read_exact(&mut said, &mut on).expect("it has begun");
        child.kill().expect("killed");
        // The pipe ends when the last of them has gone.
        assert_eq!(io::Read::read_to_end(&mut said, &mut Vec::new()).expect("the end"), 0);
        child.wait().expect("ended");
    }

    #[test]
    fn what_cannot_be_started_is_an_error() {
        let root = root(&[]);
        assert_eq!(start(root.path(), "/none", &[], &[], LIMITS).expect_err("no such program").raw_os_error(), Some(2));
    }
}
