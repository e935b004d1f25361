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
/// How long a reader waits for the layers of an image that are not mounted yet before it begins with those that are.
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
    /// Lazy layers that were mounted when the reading began.
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
    readers: Readers,
    reading: Vec<Reading>,
    images: Vec<Image>,
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
            if let Err(why) = self.read(manifest) {
                tell(Event::Warning(format!("manifest {manifest}: {why}")));
            }
        }
    }

    fn read(&mut self, manifest: Digest) -> Result<(), String> {
        let list = self.manifests.list(&manifest)?;
        let points = order(self.manifests.layers(&manifest), &self.mounts);
        let (layers, units, from) = (points.len(), list.units.len(), Instant::now());
        // Unmounted meanwhile.
        let roots = Roots::open_all(points).map_err(|e| format!("its layers cannot be read: {e}"))?;
        let id = self.readers.add(list, units, roots, self.budget);
        self.reading.push(Reading { id, manifest, layers, from });
        Ok(())
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
mod tests {
    use super::*;
    use crate::profile::{Range, sample};

    #[test]
    fn only_lazy_mounts_below_the_folder_count() {
        let text = "36 35 0:40 / /z/snapshotter/snapshots/1/fs rw,nodev shared:1 - fuse.rawBridge stargz rw,user_id=0\n\
                    37 35 0:41 / /y/snapshots/2/fs rw - fuse.rawBridge stargz rw\n\
                    38 35 0:42 / /z/a rw - overlay stargz rw\n39 35 0:43 / /zz/a rw - fuse stargz rw\nodd line\n\
                    40 35 0:44 / /z/b rw - fuse.sshfs other rw\n41 35 0:45 / /z/snapshots/2/fs rw - fuse.rawBridge stargz rw\n";
        let points = HashSet::from(["/z/snapshotter/snapshots/1/fs".into(), "/z/snapshots/2/fs".into()]);
        for below in ["/z", "/z/"] {
            assert_eq!(parse(text, Path::new(below)), points);
        }
        assert_eq!(parse(text, Path::new("/x")), HashSet::new());
    }

    /// A lazy mount, as far as it is looked at, of a layer with a file of which the given ranges are to be read; and the manifest.
    fn lay(dir: &Path, name: &str, ranges: &[Range]) -> (PathBuf, Digest) {
        let (point, layer) = (dir.join(name), Digest::of(name.as_bytes()));
        fs::create_dir_all(point.join(STATE)).expect("made");
        fs::write(point.join(STATE).join(format!("{layer}.json")), "{}").expect("written");
        let size = 64 << 20;
        fs::File::create(point.join(name)).and_then(|f| f.set_len(size)).expect("room for a hole");
        let carried = carried::of("linux/amd64", &[sample::file(&format!("/{name}"), size, ranges)]);
        let manifest = serde_json::json!({
            "layers": [{ "digest": layer, "annotations": { names::TOC_DIGEST: layer } }],
            "annotations": { names::WARM: carried::pack(&carried) },
        });
        let manifest = manifest.to_string();
        let digest = Digest::of(manifest.as_bytes());
        let blobs = dir.join("content/blobs/sha256");
        fs::create_dir_all(&blobs).expect("made");
        fs::write(blobs.join(digest.hex()), manifest).expect("written");
        (point, digest)
    }

    fn node(dir: &Path) -> Node {
        Node { mounts: dir.into(), content: dir.join("content"), threads: 1, budget: Budget::default() }
    }

    /// Goes on until nothing is left to read; the images in the order in which they were told.
    fn finish(mut watch: Watch) -> Vec<Image> {
        watch.readers.allow(1);
        let mut told = Vec::new();
        let mut tell = |event: Event<'_>| match event {
            Event::Image(image) => told.push(image.clone()),
            Event::Warning(text) => panic!("{text}"),
        };
        while !watch.reading.is_empty() || !watch.waiting.is_empty() {
            watch.readers.wait(reader::TICK);
            watch.collect(&mut tell);
            watch.begin(&mut tell);
        }
        assert_eq!(told, watch.images);
        told
    }

    /// One unit each.
    fn pages(n: u64) -> Vec<Range> {
        (0..n).map(|i| Range(i * (2 << 20), 4096, i)).collect()
    }

    #[test]
    fn a_new_image_does_not_wait_for_an_old_one_that_takes_long() {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let (old, long) = lay(dir.path(), "old", &pages(30));
        let mut watch = Watch::new(&node(dir.path()));
        watch.readers.allow(0);
        watch.see(&HashSet::from([old.clone()]), false);
        watch.begin(&mut |event| panic!("{event:?}"));
        let (new, short) = lay(dir.path(), "new", &pages(3));
        watch.see(&HashSet::from([old, new]), false);
        watch.begin(&mut |event| panic!("{event:?}"));
        assert_eq!(watch.reading.iter().map(|r| r.manifest).collect::<Vec<_>>(), [long, short]);
        let images = finish(watch);
        let told: Vec<_> = images.iter().map(|i| (i.manifest, i.ended, i.layers)).collect();
        assert_eq!(told, [(short, Ended::Done, 1), (long, Ended::Done, 1)]);
        let bytes = |i: &Image| i.counts.bytes_read + i.counts.bytes_resident;
        assert_eq!(images.iter().map(bytes).collect::<Vec<_>>(), [3 * 4096, 30 * 4096]);
    }

    #[test]
    fn more_images_than_are_read_at_once_wait_for_room() {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let laid: Vec<_> = (0..SIDE_BY_SIDE + 2).map(|i| lay(dir.path(), &format!("image-{i}"), &pages(2))).collect();
        let mut watch = Watch::new(&node(dir.path()));
        watch.readers.allow(0);
        watch.see(&laid.iter().map(|(point, _)| point.clone()).collect(), false);
        watch.begin(&mut |event| panic!("{event:?}"));
        assert_eq!((watch.reading.len(), watch.waiting.len()), (SIDE_BY_SIDE, 2));
        let told: HashSet<Digest> = finish(watch).iter().map(|i| i.manifest).collect();
        assert_eq!(told, laid.iter().map(|(_, manifest)| *manifest).collect());
    }

    #[test]
    fn images_that_were_there_before_are_passed_over_until_they_come_again() {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let (point, manifest) = lay(dir.path(), "image", &pages(2));
        let mut watch = Watch::new(&node(dir.path()));
        let there = HashSet::from([point]);
        watch.see(&there, true);
        watch.see(&there, false);
        assert!(watch.waiting.is_empty());
        watch.see(&HashSet::new(), false);
        watch.see(&there, false);
        watch.begin(&mut |event| panic!("{event:?}"));
        let told: Vec<_> = finish(watch).iter().map(|i| i.manifest).collect();
        assert_eq!(told, [manifest]);
    }

    #[test]
    fn time_in_which_two_images_are_read_counts_once() {
        let image = |from_ms, ms| Image {
            manifest: Digest::of(b""),
            layers: 1,
            ended: Ended::Done,
            counts: Counts { bytes_read: 5, ..Counts::default() },
            from_ms,
            ms,
        };
        let report = Report::of(vec![image(100, 50), image(0, 30), image(20, 90), image(30, 5)]);
        assert_eq!((report.ms, report.counts.bytes_read), (150, 20));
    }

    /// A content store with a manifest that carries a list, one that does not, and rubbish.
    fn store() -> (tempfile::TempDir, Digest, [Digest; 2]) {
        let dir = tempfile::tempdir().expect("a folder");
        let blobs = dir.path().join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("made");
        let put = |bytes: &[u8]| {
            let digest = Digest::of(bytes);
            fs::write(blobs.join(digest.hex()), bytes).expect("written");
            digest
        };
        let layers = [Digest::of(b"a"), Digest::of(b"b")];
        let layer = |d: &Digest| serde_json::json!({ "digest": d, "annotations": { names::TOC_DIGEST: d } });
        let gpus = format!("{}gpus", names::LAYER_HOST);
        let hot = serde_json::json!({ "digest": Digest::of(b"hot"), "annotations": { names::LAYER_KIND: "hot", gpus: "NVIDIA L4" } });
        let carried = carried::of("linux/amd64", &[sample::file("/x/big", 30 << 20, &[Range(0, 8192, 1)])]);
        let mut manifest = serde_json::json!({
            "layers": [layer(&layers[0]), layer(&layers[1]), hot],
            "annotations": { names::WARM: carried::pack(&carried) },
        });
        let with = put(manifest.to_string().as_bytes());
        manifest["annotations"] = serde_json::json!({});
        put(manifest.to_string().as_bytes());
        put(b"rubbish");
        fs::write(blobs.join(Digest::of(b"other").hex()), manifest.to_string()).expect("written");
        (dir, with, layers)
    }

    #[test]
    fn the_manifest_that_lists_a_mounted_layer_and_carries_a_list_is_found() {
        let (dir, manifest, layers) = store();
        let mut manifests = Manifests::new(dir.path());
        manifests.look();
        assert_eq!(manifests.layers(&manifest), layers, "the hot layer is not lazy");
        assert_eq!(manifests.of(&HashSet::from([layers[1]])), [manifest]);
        assert!(manifests.of(&HashSet::from([Digest::of(b"hot")])).is_empty());
        let list = manifests.list(&manifest).expect("it carries one");
        assert_eq!((list.targets[0].path.as_str(), list.bytes()), ("/x/big", 8192));
        fs::remove_file(dir.path().join("blobs/sha256").join(manifest.hex())).expect("removed");
        manifests.look();
        assert!(manifests.of(&layers.into()).is_empty(), "an image that was removed is forgotten");
    }

    #[test]
    fn a_machine_that_its_compiled_caches_were_not_made_on_is_told_once() {
        let (dir, manifest, _) = store();
        let here = |card: &str| BTreeMap::from([("gpus".to_owned(), card.to_owned())]);
        let mut manifests = Manifests::new(dir.path());
        manifests.look();
        let told = manifests.foreign(&manifest, || here("NVIDIA T4")).expect("another card");
        assert!(told.ends_with("gpus NVIDIA L4, here NVIDIA T4"), "{told}");
        assert_eq!(manifests.foreign(&manifest, || here("NVIDIA T4")), None, "once");
        let mut manifests = Manifests::new(dir.path());
        manifests.look();
        assert_eq!(manifests.foreign(&manifest, || here("NVIDIA L4")), None, "the same card");
        // Of layers that are no hot layer such notes mean nothing.
        let layer =
            |kind| serde_json::json!({ names::LAYER_KIND: kind, format!("{}gpus", names::LAYER_HOST): "NVIDIA L4" });
        let manifest = |kind| serde_json::json!({ "annotations": { names::WARM: "x" }, "layers": [{ "annotations": layer(kind) }] });
        let facts = |kind| carrying(manifest(kind).to_string().as_bytes()).expect("a list").made_on.len();
        assert_eq!((facts("hot"), facts("estargz")), (1, 0));
    }

    #[test]
    fn a_manifest_with_another_content_than_its_name_says_is_not_used() {
        let (dir, manifest, layers) = store();
        let path = dir.path().join("blobs/sha256").join(manifest.hex());
        let mut bytes = fs::read(&path).expect("there");
        bytes.push(b' ');
        fs::write(&path, bytes).expect("written");
        let mut manifests = Manifests::new(dir.path());
        manifests.look();
        assert!(manifests.of(&layers.into()).is_empty());
    }

    #[test]
    fn layers_are_looked_through_from_the_top() {
        let [a, b] = [Digest::of(b"a"), Digest::of(b"b")];
        let mounts = HashMap::from([
            (PathBuf::from("/2"), Some(b)),
            (PathBuf::from("/1"), Some(a)),
            (PathBuf::from("/0"), Some(b)),
            (PathBuf::from("/3"), None),
        ]);
        assert_eq!(order(&[a, b], &mounts), [Path::new("/0"), Path::new("/1")]);
    }
}
