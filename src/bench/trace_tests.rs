//! Which list an arm's reader has, what of it is served lazily, and when nothing is concluded.

use std::io::BufRead;
use std::process::Stdio;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use super::*;
use crate::digest::Digest;
use crate::image::{Config, Descriptor, Manifest};
use crate::profile::{Header, Profile, Range, SCHEMA, sample};
use crate::record::sandbox::tests as sandbox;

fn file(path: &str, size: u64, ranges: &[(u64, u64)]) -> File {
    let ranges: Vec<Range> = ranges.iter().map(|&(at, len)| Range(at, len, 0)).collect();
    sample::file(path, size, &ranges)
}

fn seen(workload: Vec<File>, reader: Vec<File>) -> Seen {
    Seen { workload, reader, events: 7, ..Seen::default() }
}

#[test]
fn the_workloads_touches_are_held_against_the_list() {
    let list = vec![file("/a", 1 << 20, &[(0, 8192), (40_960, 4096)])];
    let workload = vec![file("/a", 1 << 20, &[(0, 4096)]), file("/b", 100, &[(0, 100)])];
    let reader = vec![file("/a", 1 << 20, &[(0, 8192), (40_960, 4096)])];
    let trace = weigh("a list".into(), Ok((list, 77)), seen(workload, reader), Some(12_288));
    assert_eq!((trace.events, trace.left_out_bytes, trace.reader_bytes), (7, 77, 12_288));
    let cover = trace.cover().unwrap();
    assert_eq!((cover.listed_bytes, cover.hit_bytes, cover.missed_bytes), (12_288, 4096, 100));
    assert_eq!((cover.precision_permille(), cover.recall_permille()), (Some(333), Some(976)));
}

#[test]
fn nothing_is_concluded_from_what_was_not_seen() {
    let list = || Ok((vec![file("/a", 100, &[(0, 100)])], 0));
    let touched = || vec![file("/a", 100, &[(0, 100)])];
    let why = |list: Result<(Vec<File>, u64), String>, seen: Seen, said: Option<u64>| {
        let trace = weigh("x".into(), list, seen, said);
        assert_eq!(trace.cover().is_none(), !trace.withheld.is_empty());
        trace.withheld.join("; ")
    };
    assert_eq!(why(list(), seen(touched(), touched()), Some(100)), "");
    // A reader that had nothing to read proves nothing, and needs not to.
    assert_eq!(why(list(), seen(touched(), vec![]), Some(0)), "");
    let no_reader = "no read of the reader was seen, so that it cannot be told from the workload";
    assert_eq!(why(list(), seen(touched(), vec![]), Some(100)), no_reader);
    assert_eq!(why(list(), seen(touched(), vec![]), None), no_reader);
    assert_eq!(why(list(), seen(vec![], touched()), None), "no touch of a lazily served file was seen");
    let lossy = Seen { lost: 3, ..seen(touched(), touched()) };
    assert_eq!(why(list(), lossy, None), "3 events were lost");
    assert_eq!(why(Ok((vec![], 9)), seen(touched(), touched()), None), "nothing on the list is served lazily");
    assert_eq!(why(Err("it is gone".into()), seen(touched(), touched()), None), "it is gone");
}

#[test]
fn touches_without_a_file_are_misses() {
    let list = vec![file("/a", 4096, &[(0, 4096)])];
    let all = Seen { unmapped_bytes: 8192, ..seen(list.clone(), list.clone()) };
    let trace = weigh("x".into(), Ok((list, 0)), all, None);
    let cover = trace.cover().unwrap();
    assert_eq!((cover.touched_bytes, cover.hit_bytes, cover.missed_bytes), (12_288, 4096, 8192));
    assert_eq!(cover.recall_permille(), Some(333));
}

#[test]
fn only_what_an_overlay_shows_of_a_lazy_mount_is_lazy() {
    let lazy = Facts { dev: 60, ino: 0x0001_0000_0007, size: 9000 };
    let shown = Facts { dev: 71, ..lazy };
    let is = |shown| is_lazy(70, shown, [Facts { ino: 3, ..lazy }, lazy].into_iter());
    assert!(is(shown));
    assert!(!is(Facts { dev: 70, ..shown }), "the writable layer's or the hot layer's");
    assert!(!is(Facts { ino: 524_301, ..shown }), "mounted from elsewhere");
    assert!(!is(Facts { size: 9001, ..shown }));
    assert!(!is_lazy(70, shown, std::iter::empty()));
}

#[test]
fn a_list_loses_what_is_not_there_in_its_version() {
    // On one file system nothing is shown from another one.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "123").unwrap();
    let list = vec![file("/a", 3, &[(0, 3)]), file("/gone", 50, &[(0, 10), (20, 10)])];
    let (lazy, left_out) = served(list.clone(), dir.path(), &[dir.path().into()]);
    assert_eq!((lazy.len(), left_out), (0, 23));
    assert_eq!(served(list, Path::new("/no/such/root"), &[]).1, 23);
    assert_eq!(facts(dir.path(), "/a").map(|f| f.size), Some(3));
    assert_eq!(facts(dir.path(), "/"), None, "a folder");
}

fn image(annotations: &serde_json::Value, entrypoint: &serde_json::Value) -> Image {
    let digest = Digest::of(b"x");
    Image {
        descriptor: Descriptor::new("m", digest, 1),
        manifest: Manifest {
            raw: json!({ "annotations": annotations }),
            media_type: "m".into(),
            config: Descriptor::new("c", digest, 1),
            layers: vec![],
        },
        config: Config { raw: json!({ "config": { "Entrypoint": entrypoint } }), diff_ids: vec![] },
        attestations: Vec::new(),
        index: None,
    }
}

#[test]
fn each_kind_of_arm_has_its_list() {
    let source = |arm: &str, image: &Image| Source::of(&format!("{arm}=h:1/a:b").parse().unwrap(), image);
    let plain = image(&json!({ "dev.esgz.warm": "packed" }), &json!(["serve"]));
    assert_eq!(source("a", &plain), None);
    assert_eq!(source("a,warm:/p.json", &plain), Some(Source::File("/p.json".into())));
    assert_eq!(source("a@overlayfs,warm:/p.json", &plain), None, "nothing is lazy");
    assert_eq!(source("a,node", &plain), Some(Source::Annotation(Some("packed".into()))));
    let bare = image(&json!({}), &json!(["serve"]));
    assert_eq!(source("a,node", &bare), Some(Source::Annotation(None)));
    assert_eq!(source("a", &bare), None);
    let embedded =
        image(&json!({ "dev.esgz.entrypoint": "[\"serve\"]" }), &json!(["/.esgz/esgz", "warm", "--", "serve"]));
    assert_eq!(source("a", &embedded), Some(Source::Embedded));
    assert_eq!(source("a@overlayfs", &embedded), None);
}

#[test]
fn lists_are_read_from_where_they_are() {
    let root = tempfile::tempdir().unwrap();
    let files = vec![file("/a", 10, &[(0, 10)]), file("/looked-up", 10, &[])];
    let profile = Profile { schema: SCHEMA.into(), header: Header::default(), files: files.clone(), writes: vec![] };
    let paths =
        |source: &Source| source.files(root.path()).map(|l| l.iter().map(|f| f.path.clone()).collect::<Vec<_>>());
    let packed = carried::pack(&carried::of("linux/amd64", &files)).unwrap();
    assert_eq!(paths(&Source::Annotation(Some(packed))), Ok(vec!["/a".to_owned()]));
    assert!(paths(&Source::Annotation(None)).unwrap_err().contains("dev.esgz.warm"));
    assert!(paths(&Source::Embedded).unwrap_err().contains("/.esgz/profile.json"));
    fs::create_dir(root.path().join(".esgz")).unwrap();
    fs::write(root.path().join(".esgz/profile.json"), profile::write(&profile)).unwrap();
    assert_eq!(paths(&Source::Embedded), Ok(vec!["/a".to_owned()]));
    assert_eq!(paths(&Source::File(root.path().join(".esgz/profile.json"))), Ok(vec!["/a".to_owned()]));
    assert!(paths(&Source::File("/no/such".into())).unwrap_err().contains("/no/such"));
}

/// A lazy layer (squashfuse) with a hot layer above it, as a container sees them.
struct Lab {
    dir: tempfile::TempDir,
    mounted: Vec<PathBuf>,
}

impl Lab {
    /// Makes it, or says what this machine does not allow. `fill` gets the folders of the lazy and of the hot layer.
    fn new(fill: impl FnOnce(&Path, &Path)) -> Result<Self, String> {
        let mut lab = Self { dir: tempfile::tempdir().unwrap(), mounted: Vec::new() };
        let at = |name: &str| lab.dir.path().join(name);
        for name in ["hot", "upper", "work", "lazy", "merged"] {
            fs::create_dir(at(name)).unwrap();
        }
        let source = sandbox::root(&["/bin/sh", "/bin/cat"]);
        fill(source.path(), &at("hot"));
        let (lazy, merged, image) = (at("lazy"), at("merged"), at("image"));
        let run = |program: &str, args: &[&std::ffi::OsStr]| {
            let out = std::process::Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
            out.status.success().then_some(()).ok_or_else(|| format!("{program}: {}", out.status))
        };
        run("mksquashfs", &[source.path().as_os_str(), image.as_os_str(), "-quiet".as_ref(), "-no-progress".as_ref()])?;
        run("squashfuse_ll", &[image.as_os_str(), lazy.as_os_str()])?;
        let options = format!(
            "lowerdir={}:{},upperdir={},workdir={}",
            at("hot").display(),
            lazy.display(),
            at("upper").display(),
            at("work").display()
        );
        lab.mounted.push(lazy);
        mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .map_err(|e| format!("overlay: {e}"))?;
        lab.mounted.push(merged);
        Ok(lab)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for point in self.mounted.iter().rev() {
            let _gone = umount2(point, MntFlags::MNT_DETACH);
        }
    }
}

#[test]
fn a_start_from_lazy_layers_is_told_from_its_reader() {
    let page = |n: usize| vec![b'x'; n * 4096];
    let lab = Lab::new(|lazy, hot| {
        for (name, pages) in [("hit", 2), ("vain", 1), ("missed", 3), ("both", 1)] {
            fs::write(lazy.join(name), page(pages)).unwrap();
        }
        fs::write(hot.join("both"), page(1)).unwrap();
        fs::copy("/bin/sh", hot.join("esgz")).unwrap();
    });
    let started = lab.and_then(|lab| Onlooker::start().map(|o| (lab, o)).map_err(|e| e.to_string()));
    let (lab, onlooker) = match started {
        Ok(both) => both,
        // Only where the machine has what it takes: root, FUSE, overlayfs and the tracepoints.
        Err(why) => {
            let known = ["mksquashfs", "squashfuse_ll", "overlay", "trac"];
            return assert!(known.iter().any(|what| why.contains(what)), "{why}");
        }
    };
    let (lazy, merged) = (lab.mounted[0].clone(), lab.mounted[1].clone());
    // As `esgz warm` does it: a fork reads ahead, the program becomes the workload, which stays until its input ends.
    let read = |path: &str| format!("while read -r x; do :; done <{path};");
    let script =
        format!("({} {}); exec sh -c 'cat /hit /missed /both; echo up; read -r end'", read("/hit"), read("/vain"));
    let mut program = std::process::Command::new("/usr/sbin/chroot");
    program.arg(&merged).args(["/esgz", "-c", &script]).env("PATH", "/bin");
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    std::io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
    let onlooked = onlooker.stop();
    let listed = root_list(lab.dir.path());
    let stage = Stage {
        source: Source::File(listed),
        mounts: vec![lazy],
        container: child.id(),
        reader: None,
        reader_said: None,
    };
    let trace = stage.conclude(onlooked);
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(said.len(), 6 * 4096 + 3);
    assert_eq!((trace.withheld.as_slice(), trace.lost_events, trace.unmapped_bytes), ([].as_slice(), 0, 0));
    assert_eq!(trace.left_out_bytes, 4096 + 50, "what the hot layer has and what is not there");
    // It maps the C library too.
    assert!(trace.reader_bytes >= 3 * 4096, "{}", trace.reader_bytes);
    let cover = trace.cover().unwrap();
    assert_eq!((cover.listed_bytes, cover.hit_bytes), (3 * 4096, 2 * 4096));
    assert_eq!(cover.precision_permille(), Some(667));
    let missed = |path: &str| cover.missed.iter().find(|m| m.path == path).map(|m| (m.bytes, m.ranges));
    assert_eq!(missed("/missed"), Some((3 * 4096, 1)));
    assert_eq!((missed("/both"), missed("/vain"), missed("/hit")), (None, None, None));
    assert!(cover.missed.iter().any(|m| m.path.ends_with("/cat")), "{:?}", cover.missed);
}

/// A profile on the disk: two files of the lazy layer, one that the hot layer has, and one that is not there.
fn root_list(dir: &Path) -> PathBuf {
    let files = vec![
        file("/hit", 2 * 4096, &[(0, 2 * 4096)]),
        file("/vain", 4096, &[(0, 4096)]),
        file("/both", 4096, &[(0, 4096)]),
        file("/gone", 50, &[(0, 50)]),
    ];
    let profile = Profile { schema: SCHEMA.into(), header: Header::default(), files, writes: vec![] };
    let path = dir.join("profile.json");
    fs::write(&path, profile::write(&profile)).unwrap();
    path
}
