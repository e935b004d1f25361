//! Roots to run the workload in: a plain folder, an overlay, an overlay over a FUSE file system as lazily mounted layers are. With the
//! machine's `/usr` and this program mounted into them, in a mount namespace of our own.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{major, minor};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use tempfile::TempDir;

use crate::workload;

/// What the disk reads ahead; the kernel's default, and that of FUSE.
pub(crate) const READ_AHEAD_KIB: u64 = 128;

/// A kind of root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Overlay,
    Fuse,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Plain, Self::Overlay, Self::Fuse];

    pub(crate) fn is_overlay(self) -> bool {
        self != Self::Plain
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plain => "plain",
            Self::Overlay => "overlay",
            Self::Fuse => "FUSE",
        })
    }
}

/// So that nothing is left behind on the machine, whatever happens.
pub(crate) fn own_mount_namespace() {
    unshare(CloneFlags::CLONE_NEWNS).expect("mount namespace");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .expect("private mounts");
}

/// A root, filled.
pub(crate) struct Rig {
    dir: TempDir,
    root: PathBuf,
    /// In the order of mounting.
    points: Vec<PathBuf>,
}

impl Rig {
    /// Makes one, or says what this machine lacks for it.
    pub(crate) fn new(kind: Kind) -> Result<Self, String> {
        // A tmpfs has no page cache that could be emptied.
        let home = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let tmpfs = statfs(home).is_ok_and(|s| s.filesystem_type() == TMPFS_MAGIC);
        let dir = TempDir::new_in(if tmpfs { Path::new("/var/tmp") } else { home }).expect("a folder");
        let (disk, root) = (dir.path().join("disk"), dir.path().join("disk/root"));
        let io = |e: io::Error| e.to_string();
        fs::create_dir(&disk).map_err(io)?;
        own_disk(&dir.path().join("disk.img"), &disk)?;
        let mut rig = Self { dir, root, points: vec![disk.clone()] };
        let at = |name: &str| {
            let path = disk.join(name);
            fs::create_dir(&path).map(|()| path)
        };
        fs::create_dir(&rig.root).map_err(io)?;
        if kind == Kind::Plain {
            workload::prepare(&rig.root.join("data")).map_err(io)?;
        } else {
            let (source, upper, work) = (at("source").map_err(io)?, at("upper").map_err(io)?, at("work").map_err(io)?);
            workload::prepare(&source.join("data")).map_err(io)?;
            let lower = if kind == Kind::Fuse {
                let lower = at("lower").map_err(io)?;
                squashfuse(&source, &disk.join("image.squashfs"), &lower)?;
                rig.points.push(lower.clone());
                lower
            } else {
                source
            };
            let show = |p: &Path| p.display().to_string();
            let options = format!("lowerdir={},upperdir={},workdir={}", show(&lower), show(&upper), show(&work));
            mount(Some("overlay"), &rig.root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
                .map_err(|e| format!("no overlay: {e}"))?;
            rig.points.push(rig.root.clone());
        }
        rig.furnish().map_err(io)?;
        nix::unistd::sync();
        Ok(rig)
    }

    fn furnish(&mut self) -> io::Result<()> {
        for (link, to) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
            std::os::unix::fs::symlink(to, self.root.join(link))?;
        }
        fs::create_dir(self.root.join("out"))?;
        fs::create_dir(self.root.join("usr"))?;
        fs::write(self.root.join("truth"), "")?;
        for (from, to) in [(PathBuf::from("/usr"), "usr"), (std::env::current_exe()?, "truth")] {
            let point = self.root.join(to);
            mount(Some(&from), &point, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            self.points.push(point.clone());
            // Nothing of the machine's may be reached for writing: the folder is deleted recursively in the end.
            let options = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(None::<&str>, &point, None::<&str>, options, None::<&str>)?;
        }
        Ok(())
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}

/// The mounts go before the folder does.
impl Drop for Rig {
    fn drop(&mut self) {
        for point in self.points.iter().rev() {
            if umount2(point, MntFlags::MNT_DETACH).is_err() {
                // Rather a folder left over than a step into a mount.
                self.dir.disable_cleanup(true);
            }
        }
    }
}

fn run(program: &str, args: &[&Path], options: &[&str]) -> Result<(), String> {
    let out = Command::new(program).args(options).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    let words = || format!("{program}: {}", String::from_utf8_lossy(&out.stderr));
    if out.status.success() { Ok(()) } else { Err(words()) }
}

/// A disk whose read-ahead is known: that of the machine's own may be larger than our files.
fn own_disk(image: &Path, point: &Path) -> Result<(), String> {
    fs::File::create(image).and_then(|f| f.set_len(2 << 30)).map_err(|e| e.to_string())?;
    run("mkfs.ext4", &[image], &["-q", "-F", "-m", "0"])?;
    run("mount", &[image, point], &["-o", "loop"])?;
    let dev = fs::metadata(point).map_err(|e| e.to_string())?.dev();
    let knob = format!("/sys/class/bdi/{}:{}/read_ahead_kb", major(dev), minor(dev));
    fs::write(&knob, READ_AHEAD_KIB.to_string()).map_err(|e| format!("{knob}: {e}"))
}

/// The low-level one, whose inode numbers are those of the image: the other one gives new numbers when the kernel forgets an inode.
fn squashfuse(source: &Path, image: &Path, point: &Path) -> Result<(), String> {
    run(
        "mksquashfs",
        &[],
        &[&source.to_string_lossy(), &image.to_string_lossy(), "-quiet", "-no-progress", "-comp", "lz4"],
    )?;
    run("squashfuse_ll", &[image, point], &[])
}
