//! Folders that look like mounts, and a content store.

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
    let size = 256 << 20;
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
    (0..n).map(|i| Range(i * (8 << 20), 4096, i)).collect()
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
fn what_lies_in_a_layer_that_comes_later_is_read_then() {
    let dir = tempfile::tempdir_in("/var/tmp").expect("a folder");
    // The upper layer has another version of the lower one's file.
    let (lower, _) = lay(dir.path(), "lower", &[]);
    let (upper, _) = lay(dir.path(), "upper", &[]);
    fs::write(lower.join("both"), vec![1; 4096]).expect("written");
    fs::write(upper.join("both"), vec![2; 8192]).expect("written");
    let size = 256 << 20;
    let files = [
        sample::file("/both", 8192, &[Range(0, 8192, 0)]),
        sample::file("/lower", size, &pages(3)),
        sample::file("/upper", size, &pages(2)),
        sample::file("/none", size, &pages(1)),
    ];
    let layer = |name: &str| {
        let digest = Digest::of(name.as_bytes());
        serde_json::json!({ "digest": digest, "annotations": { names::TOC_DIGEST: digest } })
    };
    let carried = carried::pack(&carried::of("linux/amd64", &files));
    let text = serde_json::json!({
        "layers": [layer("lower"), layer("upper")], "annotations": { names::WARM: carried },
    });
    let manifest = Digest::of(text.to_string().as_bytes());
    fs::write(dir.path().join("content/blobs/sha256").join(manifest.hex()), text.to_string()).expect("written");

    let mut watch = Watch::new(&node(dir.path()));
    let mut told = Vec::new();
    let mut tell = |event: Event<'_>| {
        if let Event::Image(i) = event {
            told.push((i.layers, i.ended, i.counts.bytes_read + i.counts.bytes_resident, i.counts.files_missing));
        }
    };
    let ready = |watch: &mut Watch| {
        for since in watch.waiting.values_mut() {
            *since -= SETTLE;
        }
        watch.done.extend(watch.manifests.found.keys().filter(|m| **m != manifest));
        watch.waiting.retain(|m, _| *m == manifest);
    };
    watch.see(&HashSet::from([lower.clone()]), false);
    ready(&mut watch);
    let work = |watch: &mut Watch, tell: &mut dyn FnMut(Event<'_>)| {
        watch.readers.allow(1);
        let mut tell = |event: Event<'_>| tell(event);
        watch.begin(&mut tell);
        while !watch.reading.is_empty() {
            watch.readers.wait(reader::TICK);
            watch.collect(&mut tell);
        }
    };
    work(&mut watch, &mut tell);
    work(&mut watch, &mut tell);
    assert_eq!((watch.late.len(), watch.patience()), (1, LOOK), "a layer may never come");
    watch.see(&HashSet::from([lower, upper]), false);
    watch.waiting.clear();
    work(&mut watch, &mut tell);
    watch.give_up(&mut tell);
    assert_eq!(told, [(1, Ended::Done, 3 * 4096, 0), (2, Ended::Done, 8192 + 2 * 4096, 1)]);
    assert_eq!(Report::of(watch.images).counts.files_planned, 4);
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
    let manifest =
        |kind| serde_json::json!({ "annotations": { names::WARM: "x" }, "layers": [{ "annotations": layer(kind) }] });
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
