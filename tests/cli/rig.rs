//! A root to profile in: a folder or an overlay with a few files, the machine's `/usr` mounted into it, in a mount namespace of the
//! test's own thread, so that nothing is left behind.

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use esgz::profile::{File, Profile, read};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// A root and the folder that holds it.
pub(crate) struct Rig {
    pub(crate) dir: TempDir,
    pub(crate) root: PathBuf,
}

/// Whether the test can run here. Without root it cannot; CI must have root.
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    assert!(
        root || std::env::var_os("CI").is_none(),
        "the profile tests need root (CAP_SYS_ADMIN); CI must give it to them"
    );
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// Whether this kernel has the filemap tracepoints. Their absence is all that is forgiven.
pub(crate) fn has_filemap() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    let has = *HAS.get_or_init(|| {
        let dir = tempfile::tempdir().expect("folder");
        let mut command = esgz();
        command
            .args(["profile", "--recorder", "filemap", "--root"])
            .arg(dir.path())
            .arg("-o")
            .arg(dir.path().join("p"));
        let out = command.args(["--", "/none"]).output().expect("esgz runs");
        !String::from_utf8_lossy(&out.stderr).contains("does not have the tracepoint")
    });
    if !has {
        println!("skipped: this kernel does not have the filemap tracepoints");
    }
    has
}

pub(crate) fn esgz() -> Command {
    Command::new(env!("CARGO_BIN_EXE_esgz"))
}

fn bind(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("mount point");
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>).expect("bind mount");
}

/// Bytes that no file system stores as a hole.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_u32;
    std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x.to_le_bytes()[0]
    })
    .take(len)
    .collect()
}

/// The mounts go before the folder does: a recursive removal that walked into them would empty the machine's own.
impl Drop for Rig {
    fn drop(&mut self) {
        for point in ["usr", "dev/null"] {
            if umount2(&self.root.join(point), MntFlags::MNT_DETACH).is_err() {
                // Rather a folder left over than a step into a mount.
                self.dir.disable_cleanup(true);
            }
        }
    }
}

impl Rig {
    fn folder() -> TempDir {
        unshare(CloneFlags::CLONE_NEWNS).expect("mount namespace");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .expect("private mounts");
        // Not /tmp, which may be a tmpfs: its reads pass the page cache's tracepoints by.
        TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("folder")
    }

    fn furnish(dir: TempDir, root: PathBuf) -> Self {
        for (link, to) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
            std::os::unix::fs::symlink(to, root.join(link)).expect("link");
        }
        bind(Path::new("/usr"), &root.join("usr"));
        // Nothing of the machine's may be reached for writing: the folder is deleted recursively in the end.
        let options = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, &root.join("usr"), None::<&str>, options, None::<&str>).expect("read-only /usr");
        fs::create_dir_all(root.join("dev")).expect("folder");
        fs::write(root.join("dev/null"), "").expect("mount point");
        let null = root.join("dev/null");
        mount(Some("/dev/null"), &null, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("bind mount");
        Self { dir, root }
    }

    fn fill(root: &Path) {
        let data = root.join("data");
        fs::create_dir_all(&data).expect("folder");
        fs::write(data.join("big"), noise(4 << 20)).expect("file");
        fs::write(data.join("small"), noise(10_000)).expect("file");
        fs::write(data.join("text"), "once\n").expect("file");
        fs::hard_link(data.join("small"), data.join("other-name")).expect("hard link");
    }

    /// A plain folder.
    pub(crate) fn plain() -> Self {
        let dir = Self::folder();
        let root = dir.path().join("root");
        Self::fill(&root);
        Self::furnish(dir, root)
    }

    /// An overlay; `visible` tells whether its upper directory can be found by its path.
    pub(crate) fn overlay(visible: bool) -> Self {
        let dir = Self::folder();
        let at = |name: &str| {
            let p = dir.path().join(name);
            fs::create_dir_all(&p).expect("folder");
            p
        };
        let (lower, upper, work, root) = (at("lower"), at("layers/upper"), at("layers/work"), at("root"));
        Self::fill(&lower);
        let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str())).expect("overlay");
        if !visible {
            mount(Some("hidden"), &dir.path().join("layers"), Some("tmpfs"), MsFlags::empty(), None::<&str>)
                .expect("tmpfs");
        }
        Self::furnish(dir, root)
    }

    /// An overlay over two file systems, as lazily mounted layers are: the inode numbers may be equal, the devices are not.
    pub(crate) fn two_file_systems() -> Self {
        let dir = Self::folder();
        let at = |name: &str| {
            let p = dir.path().join(name);
            fs::create_dir_all(&p).expect("folder");
            p
        };
        let (lower, disk, upper, work, root) = (at("lower"), at("disk"), at("upper"), at("work"), at("root"));
        let image = dir.path().join("disk.img");
        fs::File::create(&image).and_then(|f| f.set_len(32 << 20)).expect("disk image");
        let run = |program: &str, args: &[&str]| {
            let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
            assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
        };
        let (image, point) = (image.to_string_lossy().into_owned(), disk.to_string_lossy().into_owned());
        run("mkfs.ext4", &["-q", "-F", &image]);
        run("mount", &["-o", "loop", &image, &point]);
        Self::fill(&lower);
        fs::create_dir_all(disk.join("data")).expect("folder");
        fs::write(disk.join("data/far"), noise(1 << 20)).expect("file");
        let options =
            format!("lowerdir={point}:{},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str())).expect("overlay");
        Self::furnish(dir, root)
    }

    pub(crate) fn profile_path(&self) -> PathBuf {
        self.dir.path().join("p.json")
    }

    /// `esgz profile` in this root, ready to be run.
    pub(crate) fn command(&self, options: &[&str], command: &[&str]) -> Command {
        let mut c = esgz();
        c.args(["profile", "--root"])
            .arg(&self.root)
            .arg("-o")
            .arg(self.profile_path())
            .args(options)
            .arg("--")
            .args(command);
        c.env("PATH", "/usr/bin:/bin").env_remove("PYTHONDONTWRITEBYTECODE");
        c
    }

    pub(crate) fn run(&self, options: &[&str], command: &[&str]) -> Output {
        self.command(options, command).output().expect("esgz runs")
    }

    /// Runs to a profile.
    pub(crate) fn record(&self, options: &[&str], command: &[&str]) -> Profile {
        let out = self.run(options, command);
        let words = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(0), "{words}");
        let profile = read(&fs::read(self.profile_path()).expect("a profile")).expect("a valid profile");
        assert_eq!(profile.header.lost_events, 0, "{words}");
        profile
    }
}

/// The entry of a path.
pub(crate) fn file<'a>(profile: &'a Profile, path: &str) -> &'a File {
    let names = || profile.files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>();
    profile
        .files
        .iter()
        .find(|f| f.path == path)
        .unwrap_or_else(|| panic!("{path} not in {:?}, unmapped {:?}", names(), profile.header.unmapped))
}

/// Its ranges without their times.
pub(crate) fn ranges(profile: &Profile, path: &str) -> Vec<(u64, u64)> {
    file(profile, path).ranges.iter().map(|r| (r.0, r.1)).collect()
}
