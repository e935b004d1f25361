use std::fs;

use super::*;
use crate::profile::{Header, Profile, Range as Touched, SCHEMA, sample};
use crate::warm::list::List;

const MIB: u64 = 1 << 20;

/// A folder on a disk (a tmpfs evicts nothing) with files that are not in memory.
fn folder(files: &[(&str, u64)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/var/tmp").expect("a folder");
    for (name, size) in files {
        let path = dir.path().join(name);
        fs::write(&path, vec![7; usize::try_from(*size).expect("small")]).expect("room");
        let file = File::open(&path).expect("there");
        file.sync_all().expect("synced");
        let _advice_only = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
    dir
}

fn list(files: &[(&str, u64, &[Touched])]) -> List {
    let files = files.iter().map(|(path, size, ranges)| sample::file(path, *size, ranges)).collect();
    List::of(&Profile { schema: SCHEMA.into(), header: Header::default(), files, writes: vec![] })
}

fn run(dir: &tempfile::TempDir, list: &List, budget: Budget) -> (Counts, Ended) {
    let roots = Roots::open_all([dir.path()]).expect("opened");
    read(list.clone(), list.units.len(), roots, 8, budget, || true)
}

fn absent(dir: &tempfile::TempDir, name: &str, size: u64) -> u64 {
    let file = File::open(dir.path().join(name)).expect("there");
    let absent = incore::absent(&file, size, 0..size).expect("we own it");
    absent.iter().map(|r| r.end - r.start).sum()
}

#[test]
fn exactly_the_ranges_are_read_and_what_is_there_is_not_read_again() {
    let size = 40 * MIB;
    let dir = folder(&[("big", size)]);
    let ranges: &[Touched] = &[Touched(MIB, 8192, 5), Touched(20 * MIB, 3 * MIB, 1), Touched(size - 4096, 4096, 2)];
    let list = list(&[("/big", size, ranges)]);
    let total = 8192 + 3 * MIB + 4096;
    let (counts, ended) = run(&dir, &list, Budget::default());
    assert_eq!((counts.bytes_read, counts.bytes_resident, counts.bytes_skipped, ended), (total, 0, 0, Ended::Done));
    assert_eq!(absent(&dir, "big", size), size - total, "no read-ahead of the kernel beside them");
    let (again, _) = run(&dir, &list, Budget::default());
    assert_eq!((again.bytes_read, again.bytes_resident), (0, total));
}

#[test]
fn what_cannot_be_read_is_counted_and_passed_over() {
    let dir = folder(&[("good", 10_000), ("other", 5000)]);
    fs::create_dir(dir.path().join("folder")).expect("made");
    let whole = |size| [Touched(0, size, 0)];
    let list = list(&[
        ("/none", 100, &whole(100)),
        ("/good/below", 100, &whole(100)),
        ("/other", 5001, &whole(5001)),
        ("/folder", 50, &whole(50)),
        ("/good", 10_000, &whole(10_000)),
    ]);
    let (counts, ended) = run(&dir, &list, Budget::default());
    assert_eq!((counts.files_missing, counts.files_changed, counts.files_failed), (2, 2, 0));
    assert_eq!((counts.bytes_read, counts.bytes_skipped, ended), (10_000, 100 + 100 + 5001 + 50, Ended::Done));
}

#[test]
fn a_link_in_the_place_of_a_file_is_a_failure_of_that_file_only() {
    let dir = folder(&[("good", 10_000)]);
    std::os::unix::fs::symlink("good", dir.path().join("link")).expect("linked");
    let list = list(&[("/link", 10_000, &[Touched(0, 4096, 0)]), ("/good", 10_000, &[Touched(4096, 4096, 1)])]);
    let (counts, _) = run(&dir, &list, Budget::default());
    assert_eq!((counts.files_failed, counts.bytes_read, counts.bytes_skipped), (1, 4096, 4096));
}

#[test]
fn the_budget_and_the_end_of_the_workload_stop_it() {
    let size = 64 * MIB;
    let dir = folder(&[("big", size)]);
    let ranges: Vec<Touched> = (0..32).map(|i| Touched(i * 2 * MIB, MIB, i)).collect();
    let list = list(&[("/big", size, &ranges)]);
    let (counts, ended) = run(&dir, &list, Budget { bytes: Some(4 * MIB), time: None });
    assert_eq!(ended, Ended::Budget);
    // Each thread may finish the call that it is in.
    assert!((4 * MIB..4 * MIB + 8 * BUFFER as u64).contains(&counts.bytes_read), "{counts:?}");
    let (_, ended) = run(&dir, &list, Budget { bytes: None, time: None });
    assert_eq!(ended, Ended::Done);
    let readers = |budget| {
        let mut readers = Readers::start(2);
        readers.allow(0);
        let roots = Roots::open_all([dir.path()]).expect("opened");
        let id = readers.add(list.clone(), list.units.len(), roots, budget);
        (readers, id)
    };
    // Nothing may be read before the end comes.
    let (mut late, id) = readers(Budget { bytes: None, time: Some(Duration::ZERO) });
    late.look();
    let done = late.finished(id).expect("no unit is on its way");
    assert_eq!((done.ended, done.counts.bytes_skipped), (Ended::Budget, list.bytes()));
    let (stopped, id) = readers(Budget::default());
    assert!(stopped.finished(id).is_none());
    stopped.stop();
    assert_eq!(stopped.finished(id).expect("no unit is on its way").ended, Ended::Stopped);
}

#[test]
fn whole_files_are_read_beside_the_list() {
    let dir = folder(&[("a", 5 * MIB), ("w", 20 * MIB)]);
    let mut list = list(&[("/a", 5 * MIB, &[Touched(0, 5 * MIB, 0)])]);
    let whole_from = list.units.len();
    list.add_whole("/w".into(), 20 * MIB);
    for threads in [1, 4, 16] {
        // A machine that is short of memory may drop a page before it is counted: then once more.
        let all = (0..5).any(|_| {
            for name in ["a", "w"] {
                let file = File::open(dir.path().join(name)).expect("there");
                let _advice_only = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
            }
            let roots = Roots::open_all([dir.path()]).expect("opened");
            let (counts, ended) = read(list.clone(), whole_from, roots, threads, Budget::default(), || true);
            assert_eq!((counts.bytes_read + counts.bytes_resident, ended), (25 * MIB, Ended::Done));
            absent(&dir, "w", 20 * MIB) + absent(&dir, "a", 5 * MIB) == 0
        });
        assert!(all, "{threads} threads leave something out");
    }
}

#[test]
fn lists_are_read_in_turn_and_a_short_one_ends_before_a_long_one() {
    let dir = folder(&[("long", 64 * MIB), ("short", 64 * MIB)]);
    let ranges = |n: u64| (0..n).map(|i| Touched(i * 2 * MIB, 4096, i)).collect::<Vec<_>>();
    let lists = [list(&[("/long", 64 * MIB, &ranges(30))]), list(&[("/short", 64 * MIB, &ranges(3))])];
    let mut readers = Readers::start(1);
    readers.allow(0);
    let ids = lists.map(|list| {
        let (units, roots) = (list.units.len(), Roots::open_all([dir.path()]).expect("opened"));
        readers.add(list, units, roots, Budget::default())
    });
    readers.allow(1);
    let mut done = [None, None];
    while done.iter().any(Option::is_none) {
        readers.wait(TICK);
        for (done, id) in done.iter_mut().zip(ids) {
            *done = done.take().or_else(|| readers.finished(id));
        }
    }
    let [long, short] = done.map(|d| d.expect("both ended"));
    assert!(short.at < long.at);
    assert_eq!((long.counts.bytes_skipped, short.counts.bytes_skipped), (0, 0));
}

#[test]
fn reads_in_flight_and_open_files_are_bounded_for_all_lists_together() {
    let dir = folder(&[("big", 64 * MIB)]);
    let ranges: Vec<Touched> = (0..32).map(|i| Touched(i * 2 * MIB, MIB, i)).collect();
    let list = list(&[("/big", 64 * MIB, &ranges)]);
    let mut readers = Readers::start(8);
    readers.allow(2);
    let add = |readers: &mut Readers| {
        let roots = Roots::open_all([dir.path()]).expect("opened");
        readers.add(list.clone(), list.units.len(), roots, Budget::default())
    };
    let mut open: Vec<u64> = (0..5).map(|_| add(&mut readers)).collect();
    while !open.is_empty() {
        let now: usize = readers.shared.turns().lists.iter().map(|t| t.in_flight).sum();
        let files = readers.shared.open.load(Relaxed);
        assert!(now <= 2 && files <= open.len(), "{now} reads, {files} files");
        open.retain(|id| readers.finished(*id).is_none());
    }
    assert_eq!(readers.shared.open.load(Relaxed), 0);
}

#[test]
fn ranges_are_cut_with_what_is_absent() {
    let cut = |a: &[Range<u64>], b: &[Range<u64>]| intersection(a, b);
    assert_eq!(cut(&[0..10, 20..30], &[5..25]), [5..10, 20..25]);
    assert_eq!(cut(&[0..10, 20..30], &[10..20, 30..40]), []);
    assert_eq!(cut(&[0..100], &[1..2, 3..4, 99..200]), [1..2, 3..4, 99..100]);
    assert_eq!(cut(&[], &[0..1]), []);
}
