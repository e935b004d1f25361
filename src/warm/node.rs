//! Reading ahead on the node, from the moment that an image's lower layers are mounted, while its hot layer is still being
//! fetched and unpacked. Nothing in the image, the pod or the runtime has to be changed for it.
//!
//! The stargz snapshotter mounts each lazy layer, and tells in a hidden folder of the mount which blob it is
//! (`.stargz-snapshotter/DIGEST.json`). containerd has stored the manifest before any layer; the one that lists the blob carries
//! what a start reads. Hidden here: how mounts are noticed, and how manifests are found.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use serde_json::Value;

use super::list::List;
use super::reader::{self, Budget, Counts, Ended, Readers};
use super::roots::Roots;
use crate::convert::startup;
use crate::digest::Digest;
use crate::image::names;
use crate::profile::carried;
use crate::record;

/// Schema of what the daemon leaves.
pub const SCHEMA: &str = "esgz.warm-node/v1";
/// Hidden folder at the top of a lazy mount.
const STATE: &str = ".stargz-snapshotter";
/// Larger blobs are no manifests.
const MAX_MANIFEST: u64 = 4 << 20;
/// How long a reader waits for the layers of an image that are not mounted yet before it begins with those that are; what
/// lies in the others it reads when they come.
const SETTLE: Duration = Duration::from_millis(300);
/// Longest sleep between two looks, where no mount is noticed.
const LOOK: Duration = Duration::from_secs(1);
/// While an image is waited for.
const SOON: Duration = Duration::from_millis(20);
/// Images that are read at the same time at most; each has a list in memory and a folder open for each layer.
const SIDE_BY_SIDE: usize = 8;

/// Where things are on the node.
#[derive(Debug, Clone)]
pub struct Node {
    /// The snapshotter's root, below which it mounts.
    pub mounts: PathBuf,
    /// containerd's content store, the folder that holds `blobs/sha256`.
    pub content: PathBuf,
    /// Most reads in flight, of all images together.
    pub threads: usize,
    /// For each image.
    pub budget: Budget,
}

/// What was done for one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Image {
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Lazy layers that were mounted when the reading began. An image of which a layer comes later is told twice or more often, each
    /// time with the files that were there.
    pub layers: usize,
    /// Why it ended.
    pub ended: Ended,
    /// What became of the list.
    #[serde(flatten)]
    pub counts: Counts,
    /// Milliseconds since the watch began.
    pub from_ms: u64,
    /// Milliseconds it took.
    pub ms: u64,
}

/// What was done on the node: every image, and their sum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Version of the writer.
    pub version: &'static str,
    /// All images together.
    #[serde(flatten)]
    pub counts: Counts,
    /// Milliseconds in which any of them was read.
    pub ms: u64,
    /// CPU milliseconds that the reader itself used, watching included.
    pub cpu_ms: u64,
    /// The images.
    pub images: Vec<Image>,
}

impl Report {
    /// Of these images.
    pub fn of(images: Vec<Image>) -> Self {
        let mut counts = Counts::default();
        for image in &images {
            counts.add(&image.counts);
        }
        let ms = busy(&images);
        Self { schema: SCHEMA, version: env!("CARGO_PKG_VERSION"), counts, ms, cpu_ms: super::cpu_ms(), images }
    }
}

/// Milliseconds in which any of the images was read.
fn busy(images: &[Image]) -> u64 {
    let mut spans: Vec<_> = images.iter().map(|i| (i.from_ms, i.from_ms.saturating_add(i.ms))).collect();
    spans.sort_unstable();
    let (mut sum, mut until) = (0, 0);
    for (from, to) in spans {
        sum += to.saturating_sub(from.max(until));
        until = until.max(to);
    }
    sum
}

/// Something worth a line.
#[derive(Debug)]
pub enum Event<'a> {
    /// An image was read ahead.
    Image(&'a Image),
    /// Something is not as it should be.
    Warning(String),
}

/// Watches until `alive` says no. Mounts that are there already count as seen, unless `existing`.
pub fn watch(
    node: &Node,
    existing: bool,
    mut alive: impl FnMut() -> bool,
    mut tell: impl FnMut(Event<'_>),
) -> io::Result<Vec<Image>> {
    let table = fs::File::open("/proc/self/mountinfo")?;
    let mut watch = Watch::new(node);
    let (mut first, mut changed, mut looked) = (true, true, Instant::now());
    while alive() {
        if changed || looked.elapsed() >= watch.patience() {
            watch.see(&lazy_mounts(&node.mounts)?, first && !existing);
            (first, looked) = (false, Instant::now());
        }
        watch.begin(&mut tell);
        watch.collect(&mut tell);
        let timeout = if watch.reading.is_empty() { watch.patience() } else { watch.patience().min(reader::TICK) };
        let mut fds = [PollFd::new(table.as_fd(), PollFlags::POLLPRI)];
        // Wakes when a mount comes or goes (proc_pid_mounts(5)); what is missed by an interruption is seen by the next look.
        changed = poll(&mut fds, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)).is_ok_and(|n| n > 0);
    }
    watch.readers.stop();
    while !watch.reading.is_empty() {
        watch.readers.wait(reader::TICK);
        watch.collect(&mut tell);
    }
    watch.give_up(&mut tell);
    Ok(watch.images)
}

/// What is known of the node, and what is being done.
struct Watch {
    began: Instant,
    budget: Budget,
    mounts: HashMap<PathBuf, Option<Digest>>,
    manifests: Manifests,
    /// Images that are to be read, since when.
    waiting: HashMap<Digest, Instant>,
    /// Images that are being read or were.
    done: HashSet<Digest>,
    /// What is left of those of which a layer is still missing.
    late: HashMap<Digest, Late>,
    readers: Readers,
    reading: Vec<Reading>,
    images: Vec<Image>,
}

/// Files that lie in layers which are not mounted yet.
struct Late {
    list: List,
    /// Layers that were mounted.
    layers: usize,
    /// What the files that were there leave of it.
    budget: Budget,
}

/// An image that is being read.
struct Reading {
    id: u64,
    manifest: Digest,
    layers: usize,
    from: Instant,
}

impl Watch {
    fn new(node: &Node) -> Self {
        Self {
            began: Instant::now(),
            budget: node.budget,
            mounts: HashMap::new(),
            manifests: Manifests::new(&node.content),
            waiting: HashMap::new(),
            done: HashSet::new(),
            late: HashMap::new(),
            readers: Readers::start(node.threads),
            reading: Vec::new(),
            images: Vec::new(),
        }
    }

    /// Looks at the lazy mounts that are there and at the manifests. `passed_over`: their images were started before we were.
    fn see(&mut self, now: &HashSet<PathBuf>, passed_over: bool) {
        self.mounts.retain(|point, _| now.contains(point));
        for point in now {
            // Of a mount that cannot tell yet it is asked again.
            let blob = self.mounts.entry(point.clone()).or_default();
            if blob.is_none() {
                *blob = blob_of(point);
            }
        }
        let here = self.here();
        // An image is gone when none of its layers is mounted; mounted again, it is read again.
        let (manifests, reading) = (&self.manifests, &self.reading);
        let is_here = |m: &Digest| manifests.layers(m).iter().any(|l| here.contains(l));
        self.done.retain(|m| is_here(m) || reading.iter().any(|r| r.manifest == *m));
        self.late.retain(|m, _| self.done.contains(m));
        self.manifests.look();
        for found in self.manifests.of(&here) {
            if passed_over {
                self.done.insert(found);
            } else if !self.done.contains(&found) {
                self.waiting.entry(found).or_insert_with(Instant::now);
            }
        }
    }

    /// Blobs that are mounted.
    fn here(&self) -> HashSet<Digest> {
        self.mounts.values().flatten().copied().collect()
    }

    /// Begins with images that wait, the longest first, as far as there is room.
    fn begin(&mut self, tell: &mut impl FnMut(Event<'_>)) {
        let here = self.here();
        let is_ready = |(m, since): &(&Digest, &Instant)| {
            self.manifests.layers(m).iter().all(|l| here.contains(l)) || since.elapsed() >= SETTLE
        };
        let mut ready: Vec<_> = self.waiting.iter().filter(is_ready).map(|(m, since)| (*since, *m)).collect();
        ready.sort_unstable();
        ready.truncate(SIDE_BY_SIDE.saturating_sub(self.reading.len()));
        for (_, manifest) in ready {
            self.waiting.remove(&manifest);
            self.done.insert(manifest);
            if let Some(foreign) = self.manifests.foreign(&manifest, record::machine) {
                tell(Event::Warning(format!("manifest {manifest}: {foreign}")));
            }
            let list = self.manifests.list(&manifest);
            if let Err(why) = list.and_then(|list| self.read(manifest, list, self.budget)) {
                tell(Event::Warning(format!("manifest {manifest}: {why}")));
            }
        }
        let more = |(m, late): (&Digest, &Late)| {
            let layers = order(self.manifests.layers(m), &self.mounts).len();
            (layers > late.layers && late.budget.bytes != Some(0)).then_some(*m)
        };
        let mut more: Vec<Digest> = self.late.iter().filter_map(more).collect();
        more.sort_unstable();
        more.truncate(SIDE_BY_SIDE.saturating_sub(self.reading.len()));
        for manifest in more {
            if let Some(late) = self.late.remove(&manifest)
                && let Err(why) = self.read(manifest, late.list, late.budget)
            {
                tell(Event::Warning(format!("manifest {manifest}: {why}")));
            }
        }
    }

    /// Begins with what is there of a list; the rest waits for further layers, if any are missing.
    fn read(&mut self, manifest: Digest, list: List, budget: Budget) -> Result<(), String> {
        let all = self.manifests.layers(&manifest);
        let points = order(all, &self.mounts);
        let (layers, from) = (points.len(), Instant::now());
        let incomplete = layers < all.len();
        // Unmounted meanwhile.
        let roots = Roots::open_all(points).map_err(|e| format!("its layers cannot be read: {e}"))?;
        let (list, rest) = list.split(|file| !incomplete || roots.has(&file.path, file.size));
        if !rest.targets.is_empty() {
            let left = Budget { bytes: budget.bytes.map(|b| b.saturating_sub(list.bytes())), ..budget };
            self.late.insert(manifest, Late { list: rest, layers, budget: left });
        }
        if !list.targets.is_empty() {
            let units = list.units.len();
            let id = self.readers.add(list, units, roots, budget);
            self.reading.push(Reading { id, manifest, layers, from });
        }
        Ok(())
    }

    /// What is left of images of which a layer never came: told as what it is, not read.
    fn give_up(&mut self, tell: &mut impl FnMut(Event<'_>)) {
        let mut late: Vec<_> = self.late.drain().collect();
        late.sort_unstable_by_key(|(manifest, _)| *manifest);
        for (manifest, Late { list, layers, .. }) in late {
            let (bytes, files) = (list.bytes(), list.targets.len() as u64);
            let counts = Counts {
                bytes_planned: bytes,
                bytes_skipped: bytes,
                files_planned: files,
                files_missing: files,
                ..Counts::default()
            };
            let from_ms = super::millis(self.began.elapsed());
            let image = Image { manifest, layers, ended: Ended::Stopped, counts, from_ms, ms: 0 };
            tell(Event::Image(&image));
            self.images.push(image);
        }
    }

    /// Tells of images that are finished, the first first, and looks after the others.
    fn collect(&mut self, tell: &mut impl FnMut(Event<'_>)) {
        let mut finished = Vec::new();
        self.reading.retain(|r| {
            let Some(done) = self.readers.finished(r.id) else { return true };
            let Reading { manifest, layers, from, .. } = *r;
            let (from_ms, ms) = (from.duration_since(self.began), done.at.duration_since(from));
            let (from_ms, ms) = (super::millis(from_ms), super::millis(ms));
            finished.push((done.at, Image { manifest, layers, ended: done.ended, counts: done.counts, from_ms, ms }));
            false
        });
        finished.sort_by_key(|(at, _)| *at);
        for (_, image) in finished {
            tell(Event::Image(&image));
            self.images.push(image);
        }
        if !self.reading.is_empty() {
            self.readers.look();
        }
    }

    /// How long the mounts need not be looked at where no change is noticed.
    fn patience(&self) -> Duration {
        // A late layer shows in the mount table, which wakes us; it may never come.
        if self.waiting.is_empty() || self.reading.len() >= SIDE_BY_SIDE { LOOK } else { SOON }
    }
}

/// The mounts of these layers, the topmost first.
fn order<'a>(layers: &[Digest], mounts: &'a HashMap<PathBuf, Option<Digest>>) -> Vec<&'a Path> {
    // Of a layer that several images share there is one mount for each chain below it; any of them shows the same.
    let point =
        |layer: &Digest| mounts.iter().filter(|(_, d)| d.as_ref() == Some(layer)).map(|(p, _)| p.as_path()).min();
    layers.iter().rev().filter_map(point).collect()
}

/// Mount points of the lazy snapshotter below a folder.
pub fn lazy_mounts(below: &Path) -> io::Result<HashSet<PathBuf>> {
    Ok(parse(&fs::read_to_string("/proc/self/mountinfo")?, below))
}

/// `ID PARENT MAJ:MIN ROOT POINT OPTIONS [FIELDS] - TYPE SOURCE SUPER` (`proc_pid_mountinfo(5)`).
fn parse(text: &str, below: &Path) -> HashSet<PathBuf> {
    let point = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let lazy = right.next()?.starts_with("fuse") && right.next()? == "stargz";
        // Octal escapes stand for spaces and the like, which a snapshotter's paths below a sane root have not.
        let point = Path::new(left.split(' ').nth(4)?);
        (lazy && point.starts_with(below)).then(|| point.to_owned())
    };
    text.lines().filter_map(point).collect()
}

/// Which blob a lazy mount shows.
fn blob_of(point: &Path) -> Option<Digest> {
    let entries = fs::read_dir(point.join(STATE)).ok()?;
    let mut names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
    names.find_map(|n| n.strip_suffix(".json")?.parse().ok())
}

/// Manifests in the content store that carry what a start reads.
struct Manifests {
    folder: PathBuf,
    seen: HashSet<std::ffi::OsString>,
    found: HashMap<Digest, Found>,
}

/// What a manifest carries.
struct Found {
    /// Its lazy layers, lowest first.
    layers: Vec<Digest>,
    /// The packed list.
    packed: String,
    /// Facts about the machine that compiled caches in its hot layer were made on; nothing once they were told.
    made_on: BTreeMap<String, String>,
}

impl Manifests {
    fn new(content: &Path) -> Self {
        Self { folder: content.join("blobs/sha256"), seen: HashSet::new(), found: HashMap::new() }
    }

    /// Looks at blobs that are new. One that is being written has another name until it is whole.
    fn look(&mut self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut there = HashSet::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            there.insert(name.clone());
            if !self.seen.insert(name.clone()) {
                continue;
            }
            let digest = name.to_str().and_then(|n| format!("sha256:{n}").parse::<Digest>().ok());
            let small = entry.metadata().is_ok_and(|m| m.is_file() && m.len() <= MAX_MANIFEST);
            if let (Some(digest), true) = (digest, small)
                && let Some(bytes) = object(&entry.path())
                && Digest::of(&bytes) == digest
                && let Some(found) = carrying(&bytes)
            {
                self.found.insert(digest, found);
            }
        }
        self.seen.retain(|n| there.contains(n));
        self.found.retain(|m, _| there.contains(std::ffi::OsStr::new(&m.hex())));
    }

    fn layers(&self, manifest: &Digest) -> &[Digest] {
        self.found.get(manifest).map_or(&[], |f| &f.layers)
    }

    /// Manifests of which a layer is mounted, in an order that does not change.
    fn of(&self, here: &HashSet<Digest>) -> Vec<Digest> {
        let mut all: Vec<Digest> =
            self.found.iter().filter(|(_, f)| f.layers.iter().any(|l| here.contains(l))).map(|(m, _)| *m).collect();
        all.sort_unstable();
        all
    }

    fn list(&self, manifest: &Digest) -> Result<List, String> {
        let Some(found) = self.found.get(manifest) else { return Err("it is gone".into()) };
        let profile = carried::unpack(&found.packed).map_err(|e| format!("annotation {}: {e}", names::WARM))?;
        Ok(List::of(&profile))
    }

    /// What is to be said, once, where this machine is another one than the image's compiled caches were made on.
    fn foreign(&mut self, manifest: &Digest, here: impl FnOnce() -> BTreeMap<String, String>) -> Option<String> {
        let made_on = std::mem::take(&mut self.found.get_mut(manifest)?.made_on);
        if made_on.is_empty() { None } else { super::foreign(&made_on, &here()) }
    }
}

/// What a file holds, if it may be a JSON object: of a small layer no more than its first byte is read.
fn object(path: &Path) -> Option<Vec<u8>> {
    let mut file = fs::File::open(path).ok()?;
    let mut bytes = vec![0];
    file.read_exact(&mut bytes).ok()?;
    if bytes != b"{" {
        return None;
    }
    file.take(MAX_MANIFEST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// What a manifest carries, if it has a list.
fn carrying(bytes: &[u8]) -> Option<Found> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let packed = value.get("annotations")?.get(names::WARM)?.as_str()?;
    let layers = value.get("layers")?.as_array()?;
    let lazy = |l: &Value| l.get("annotations").is_some_and(|a| a.get(names::TOC_DIGEST).is_some());
    let digests = layers.iter().filter(|l| lazy(l)).map(|l| l.get("digest")?.as_str()?.parse().ok());
    let top = layers.last().and_then(|l| l.get("annotations")?.as_object());
    let hot = top.filter(|a| a.get(names::LAYER_KIND).is_some_and(|kind| kind == "hot"));
    let annotations = hot.into_iter().flatten().filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)));
    let made_on = startup::facts(annotations);
    Some(Found { layers: digests.collect::<Option<_>>()?, packed: packed.to_owned(), made_on })
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
