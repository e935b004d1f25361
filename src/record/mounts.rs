//! The mount table as seen below the profiled root: what is the root file system, what is mounted into it, by whom.

use std::path::{Path, PathBuf};

use crate::profile::Origin;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Device as the kernel keeps it: `major << 20 | minor`.
    pub dev: u32,
    /// Mount point inside the profiled root (`/` for the root itself).
    pub point: String,
    /// File system type.
    pub kind: String,
    /// The file system's own options: an overlay's `upperdir` stands here.
    pub options: String,
}

/// All mounts that matter below a root.
#[derive(Debug)]
pub(super) struct Mounts {
    /// The file system that holds the root.
    pub root: Mount,
    /// What is mounted below it, pseudo file systems included.
    pub below: Vec<Mount>,
}

/// `major << 20 | minor` from the two numbers.
pub(super) fn device(major: u64, minor: u64) -> Option<u32> {
    u32::try_from(major << 20 | minor).ok()
}

/// `major:minor`, as `mountinfo` writes it.
pub(super) fn device_name(dev: u32) -> String {
    format!("{}:{}", dev >> 20, dev & 0xf_ffff)
}

impl Mounts {
    /// Parses `mountinfo` for the root `root` (a host path without symbolic links, `/` for the ordinary one).
    pub(super) fn parse(mountinfo: &str, root: &Path) -> Option<Self> {
        let mut holder: Option<Mount> = None;
        let mut below = Vec::new();
        for mut mount in mountinfo.lines().filter_map(parse_line) {
            if let Ok(inside) = Path::new(&mount.point).strip_prefix(root) {
                if !inside.as_os_str().is_empty() {
                    mount.point = format!("/{}", inside.display());
                    below.push(mount);
                    continue;
                }
            } else if !root.starts_with(&mount.point) {
                continue;
            }
            // Of the mounts above the root the deepest one holds it; of several at one point the last one.
            if holder.as_ref().is_none_or(|h| h.point.len() <= mount.point.len()) {
                holder = Some(mount);
            }
        }
        let mut root = holder?;
        root.point = "/".into();
        Some(Self { root, below })
    }

    /// Mount points below the root.
    pub(super) fn points(&self) -> impl Iterator<Item = &str> {
        self.below.iter().map(|m| m.point.as_str())
    }

    /// The mounts with files worth profiling that live on a device.
    pub(super) fn on(&self, dev: u32) -> impl Iterator<Item = &Mount> {
        self.below.iter().filter(move |m| m.dev == dev && !is_pseudo(&m.kind))
    }

    /// The upper directory of an overlay root, if its path can be seen from here.
    pub(super) fn upper(&self) -> Option<PathBuf> {
        if self.root.kind != "overlay" {
            return None;
        }
        let find = |key| self.root.options.split(',').find_map(|o| o.strip_prefix(key)).map(PathBuf::from);
        // The work directory lies beside it: a path of the same name inside a container is not taken for it.
        let (upper, work) = (find("upperdir=")?, find("workdir=")?);
        (upper.is_dir() && work.is_dir()).then_some(upper)
    }
}

impl Mount {
    /// Whether the container runtime put it there for a GPU driver, or the user for data.
    pub(super) fn origin(&self) -> Origin {
        let p = self.point.as_str();
        let name = p.rsplit('/').next().unwrap_or(p);
        let dirs = [
            "/usr/local/nvidia",
            "/run/nvidia",
            "/usr/lib/firmware/nvidia",
            "/lib/firmware/nvidia",
            "/usr/share/nvidia",
        ];
        let names = [
            "libnvidia",
            "libcuda.so",
            "libcudadebugger",
            "libnvcuvid",
            "libnvoptix",
            "libvdpau_nvidia",
            "libGLX_nvidia",
            "libEGL_nvidia",
            "nvidia-",
        ];
        if dirs.iter().any(|d| p.starts_with(d)) || names.iter().any(|n| name.starts_with(n)) {
            Origin::Driver
        } else {
            Origin::Volume
        }
    }
}

/// File systems without files that a start reads from a disk.
pub(super) fn is_pseudo(kind: &str) -> bool {
    [
        "proc",
        "sysfs",
        "devtmpfs",
        "devpts",
        "tmpfs",
        "cgroup",
        "cgroup2",
        "mqueue",
        "debugfs",
        "tracefs",
        "securityfs",
        "pstore",
        "bpf",
        "hugetlbfs",
        "configfs",
        "binfmt_misc",
        "nsfs",
        "ramfs",
        "autofs",
    ]
    .contains(&kind)
}

fn parse_line(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let (major, minor) = left.nth(2)?.split_once(':')?;
    let point = unescape(left.nth(1)?);
    let mut right = right.split(' ');
    let kind = right.next()?.to_owned();
    Some(Mount {
        dev: device(major.parse().ok()?, minor.parse().ok()?)?,
        point,
        kind,
        options: unescape(right.nth(1)?),
    })
}

/// `\040` and its like.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|o| u8::from_str_radix(o, 8).ok()) {
            Some(byte) if byte.is_ascii() => {
                out.push(char::from(byte));
                out.push_str(&part[3..]);
            }
            _ => {
                out.push('\\');
                out.push_str(part);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 27 0:40 / /c/merged rw - overlay overlay rw,lowerdir=/c/l,upperdir=/nowhere/u,workdir=/nowhere/w
31 30 254:0 /vol /c/merged/data\\040dir rw shared:1 - ext4 /dev/vda rw
32 30 254:0 /l/libcuda.so.580 /c/merged/usr/lib/libcuda.so.580 ro - ext4 /dev/vda rw
33 30 0:21 / /c/merged/proc rw - proc proc rw
34 27 0:50 / /other rw - tmpfs tmpfs rw
";

    #[test]
    fn the_root_is_the_deepest_mount_above_and_the_rest_is_seen_from_inside() {
        let m = Mounts::parse(TABLE, Path::new("/c/merged")).expect("a root");
        assert_eq!((m.root.kind.as_str(), m.root.dev, m.root.point.as_str()), ("overlay", 40, "/"));
        assert_eq!(m.points().collect::<Vec<_>>(), ["/data dir", "/usr/lib/libcuda.so.580", "/proc"]);
        let on: Vec<_> = m.on(254 << 20).map(|m| (m.point.as_str(), m.origin())).collect();
        assert_eq!(on, [("/data dir", Origin::Volume), ("/usr/lib/libcuda.so.580", Origin::Driver)]);
        assert_eq!(m.on(21).count(), 0, "/proc holds no files");
        assert_eq!(m.upper(), None, "its path is not visible");
    }

    #[test]
    fn a_plain_folder_belongs_to_the_file_system_around_it() {
        let m = Mounts::parse(TABLE, Path::new("/srv/root")).expect("a root");
        assert_eq!((m.root.kind.as_str(), m.below.len()), ("ext4", 0));
        assert!(Mounts::parse("", Path::new("/")).is_none());
    }

    #[test]
    fn devices_print_as_the_kernel_prints_them() {
        assert_eq!(device_name(device(254, 3).expect("small")), "254:3");
    }
}
