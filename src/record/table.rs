//! From the device and inode of an event to a path. Events carry the real file's device; `stat` on an overlay (or a btrfs
//! subvolume) shows another one, so every device that the walk met is calibrated: one of its files is read and the event
//! looked at. Nothing is guessed from names.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::stat::{major, minor};

use super::Error;
use super::mounts::{Mounts, device, device_name};
use super::perf::Watch;
use super::touch::{Log, Reckoning};
use super::tracer::Tracer;
use super::walk::{self, Entry, Limits, Snapshot};
use crate::profile::Origin;

/// A path that an inode was found under.
#[derive(Debug, Clone)]
pub(super) struct Named {
    /// The first of its paths.
    pub path: String,
    /// The other names of the same inode, sorted.
    pub links: Vec<String>,
    /// Size before the run.
    pub size: u64,
    /// Where it came from.
    pub origin: Origin,
}

/// Real device and inode to path.
#[derive(Debug, Default)]
pub(super) struct Table {
    named: HashMap<(u32, u64), Named>,
    /// `st_dev` (and the bits an overlay may put on top of the inode) to the real device.
    devices: BTreeMap<(u64, u64), Real>,
}

#[derive(Debug, Clone, Copy)]
struct Real {
    dev: u32,
    /// What to take off the inode.
    flip: u64,
}

/// Overlay's `xino` numbers its file systems in the uppermost bits of the inode.
const TOP: u64 = !0 << 48;
/// Files tried for one device before it is taken as it stands.
const TRIES: usize = 8;

/// `st_dev` as the kernel keeps it.
pub(super) fn kernel_device(st_dev: u64) -> u32 {
    device(major(st_dev), minor(st_dev)).unwrap_or(u32::MAX)
}

impl Table {
    /// Learns the devices of the walk and enters its files. Gives devices that could not be learned, in words.
    pub(super) fn of_root(
        root: &Path,
        mounts: &Mounts,
        snapshot: &Snapshot,
        tracer: &mut Tracer,
    ) -> Result<(Self, Vec<String>), Error> {
        let mut table = Self::default();
        let mut unknown = Vec::new();
        let mut groups: BTreeMap<(u64, u64), Vec<&Entry>> = BTreeMap::new();
        for e in &snapshot.entries {
            groups.entry((e.dev, e.ino & TOP)).or_default().push(e);
        }
        for (key, entries) in groups {
            let real = calibrate(root, &entries, tracer)?;
            if real.is_none() && entries.iter().any(|e| e.size > 0) {
                unknown.push(format!(
                    "no event of device {} ({} files, first {}) could be seen: its reads may stay unmapped",
                    device_name(kernel_device(key.0)),
                    entries.len(),
                    entries[0].path
                ));
            }
            // An overlay's own number is in no event; the mount table knows the number of a plain file system.
            let plain = if mounts.root.kind == "overlay" { kernel_device(key.0) } else { mounts.root.dev };
            table.devices.insert(key, real.unwrap_or(Real { dev: plain, flip: 0 }));
        }
        for e in &snapshot.entries {
            if let Some(key) = table.key(e) {
                table.enter(key, e, Origin::Image);
            }
        }
        Ok((table, unknown))
    }

    /// The real device and inode of a walked file.
    pub(super) fn key(&self, e: &Entry) -> Option<(u32, u64)> {
        self.devices.get(&(e.dev, e.ino & TOP)).map(|real| (real.dev, e.ino ^ real.flip))
    }

    /// Enters the files of all mounts on `dev`; the root's own files keep their place.
    pub(super) fn add_mounts(&mut self, root: &Path, mounts: &Mounts, dev: u32, limits: &Limits) {
        for mount in mounts.on(dev) {
            for e in Snapshot::take(root, &mount.point, limits).entries {
                self.enter((mount.dev, e.ino), &e, mount.origin());
            }
        }
    }

    /// Enters files that are known by their real inode, under the paths they have inside the root.
    pub(super) fn add_upper(&mut self, upper: &Path, before: &Snapshot) {
        for e in Snapshot::take(upper, "/", &Limits::default()).entries {
            if let Some(was) = before.get(&e.path) {
                self.named.entry((kernel_device(e.dev), e.ino)).or_insert_with(|| Named {
                    path: was.path.clone(),
                    links: Vec::new(),
                    size: was.size,
                    origin: Origin::Image,
                });
            }
        }
    }

    fn enter(&mut self, key: (u32, u64), e: &Entry, origin: Origin) {
        match self.named.get_mut(&key) {
            None => {
                let named = Named { path: e.path.clone(), links: Vec::new(), size: e.size, origin };
                self.named.insert(key, named);
            }
            Some(first) if first.origin == origin && first.path != e.path => first.links.push(e.path.clone()),
            Some(_) => {}
        }
    }

    /// Looks an event's file up.
    pub(super) fn find(&self, dev: u32, ino: u64) -> Option<&Named> {
        self.named.get(&(dev, ino))
    }
}

/// Reads the first page of a few files of one device and looks which device and inode the events carry.
fn calibrate(root: &Path, entries: &[&Entry], tracer: &mut Tracer) -> Result<Option<Real>, Error> {
    let (mut rings, _) = tracer.open(Watch::Myself, 64 << 10)?;
    // More than two pages first: they also tell whether this kernel counts one page too many.
    let (large, small): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().filter(|e| e.size > 0).partition(|e| e.size > 2 << 16);
    for e in large.into_iter().take(TRIES).chain(small.into_iter().take(TRIES)) {
        let Ok(file) = walk::open(root, &e.path) else { continue };
        if tracer.misses_only() {
            let _advice_only = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
        tracer.drain(&mut rings, &mut Log::default());
        if file.read_at(&mut [0; 512], 0).is_err() {
            continue;
        }
        let mut log = Log::new(if tracer.misses_only() { Reckoning::Misses } else { Reckoning::Windows });
        tracer.drain(&mut rings, &mut log);
        if tracer.misses_only() {
            let _advice_only = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
        let found = log.into_touches().into_iter().find(|t| t.start == 0 && (t.ino ^ e.ino) & !TOP == 0);
        if let Some(t) = found {
            if e.size > 2 << 16 && !tracer.misses_only() && t.end == 2 {
                tracer.off_by_one = true;
            }
            return Ok(Some(Real { dev: t.dev, flip: t.ino ^ e.ino }));
        }
    }
    Ok(None)
}
