//! The workload: every way to touch a file, one file a case, and a report of the bytes that were touched.
#![expect(unsafe_code, reason = "mappings, sendfile and io_uring are what is to be tested")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde::{Deserialize, Serialize};

use crate::ranges::Bytes;

const MIB: u64 = 1 << 20;
/// Large against what any recorder may add around a touch, so that an answer of whole files fails.
const SIZE: u64 = 12 * MIB;
/// Touches lie in these parts only.
const PARTS: [u64; 2] = [MIB, 8 * MIB];
const BIG: u64 = 5_000_000_000;
const OPENS: u32 = 100_000;

/// What was touched of one file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Touched {
    pub(crate) case: String,
    /// As in the root, before the start.
    pub(crate) path: String,
    /// Before the start.
    pub(crate) size: u64,
    /// What was read, byte for byte.
    pub(crate) ranges: Vec<Bytes>,
}

/// All of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) touched: Vec<Touched>,
    /// Cases that the kernel refused, with its reason.
    pub(crate) skipped: BTreeMap<String, String>,
}

/// Whether the first argument calls for the workload and not for the test.
pub(crate) fn is_workload(first: &str) -> bool {
    matches!(first, "workload" | "read")
}

/// `workload DIR REPORT.json`, and `read FILE START LENGTH` for its child.
pub(crate) fn main(args: &[OsString]) -> ExitCode {
    let text = |n: usize| args.get(n).and_then(|a| a.to_str());
    let done = match (text(0), args.len()) {
        (Some("workload"), 3) => run(Path::new(&args[1]), Path::new(&args[2])),
        (Some("read"), 4) => text(2)
            .zip(text(3))
            .and_then(|(start, len)| Some((start.parse().ok()?, len.parse().ok()?)))
            .ok_or_else(|| io::Error::other("expected numbers"))
            .and_then(|(start, len)| File::open(&args[1]).and_then(|f| pread(&f, start, len))),
        _ => Err(io::Error::other("expected: workload DIR REPORT.json")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("the workload failed: {e}");
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn read_report(path: &Path) -> Result<Report, String> {
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    serde_json::from_slice(&bytes).map_err(|e| e.to_string())
}

/// Makes the files.
pub(crate) fn prepare(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let names = [
        "pread",
        "sequential",
        "odd-pieces",
        "truncated",
        "renamed",
        "deleted",
        "linked",
        "hard",
        "mapped",
        "mapped-ahead",
        "io_uring",
        "child",
        "thread",
        "sendfile",
        "opened",
        "stat",
        "untouched",
        "burst",
        "small",
    ];
    for (n, name) in (1_u8..).zip(names) {
        let size = if name == "small" { 5000 } else { SIZE };
        fs::write(dir.join(name), vec![n; usize::try_from(size).map_err(io::Error::other)?])?;
    }
    symlink("linked", dir.join("link"))?;
    fs::hard_link(dir.join("hard"), dir.join("hard-other"))?;
    let sparse = File::create(dir.join("sparse"))?;
    sparse.set_len(SIZE)?;
    sparse.write_all_at(&[9; 8192], PARTS[0])?;
    if big() {
        File::create(dir.join("big"))?.set_len(BIG)?;
    }
    Ok(())
}

fn big() -> bool {
    std::env::var_os("ESGZ_TRUTH_BIG").is_some()
}

/// Where `n` small touches of the two parts begin: some way apart, always the same.
fn places(n: u64) -> impl Iterator<Item = u64> {
    let mut x = 0x9e37_79b9_u64;
    (0..n).map(move |i| {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        PARTS[usize::from(i % 2 == 1)] + (x >> 33) % (MIB / 2)
    })
}

fn pread(file: &File, start: u64, len: u64) -> io::Result<()> {
    file.read_exact_at(&mut vec![0; usize::try_from(len).map_err(io::Error::other)?], start)
}

struct Workload {
    dir: PathBuf,
    report: Report,
    /// A deleted file's inode number must not go to another file, the report for one.
    open: Vec<File>,
}

impl Workload {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        File::open(self.path(name))
    }

    fn touched(&mut self, case: &str, name: &str, ranges: Vec<Bytes>) {
        let size = if name == "big" {
            BIG
        } else if name == "small" {
            5000
        } else {
            SIZE
        };
        let path = self.path(name).display().to_string();
        self.report.touched.push(Touched { case: case.to_owned(), path, size, ranges });
    }

    /// Reads two pieces of a file, with something done in between.
    fn two(&mut self, case: &str, between: impl FnOnce(&Self, &File) -> io::Result<()>) -> io::Result<()> {
        let file = self.open(case)?;
        pread(&file, PARTS[0], 9000)?;
        pread(&file, PARTS[1], 70_000)?;
        between(self, &file)?;
        let third = PARTS[0] + 300_000;
        let mut ranges = vec![(PARTS[0], PARTS[0] + 9000), (PARTS[1], PARTS[1] + 70_000)];
        if file.metadata()?.len() == SIZE {
            pread(&file, third, 5000)?;
            ranges.push((third, third + 5000));
        }
        self.touched(case, case, ranges);
        self.open.push(file);
        Ok(())
    }
}

fn run(dir: &Path, report: &Path) -> io::Result<()> {
    let mut w = Workload { dir: dir.to_owned(), report: Report::default(), open: Vec::new() };
    let file = w.open("pread")?;
    let ranges: Vec<Bytes> = (1..).zip(places(40)).map(|(i, at)| (at, at + i * 211)).collect();
    ranges.iter().try_for_each(|r| pread(&file, r.0, r.1 - r.0))?;
    w.touched("pread", "pread", ranges);

    // In pieces that end where the read-ahead's windows do, and in such that do not.
    for (name, piece) in [("sequential", 64 << 10), ("odd-pieces", 100_000)] {
        sequential(&w.path(name), 3 * MIB, piece)?;
        w.touched(name, name, vec![(0, 3 * MIB)]);
    }
    sequential(&w.path("small"), 5000, 64 << 10)?;
    w.touched("whole", "small", vec![(0, 5000)]);

    let file = w.open("sparse")?;
    pread(&file, PARTS[0] + 4096, 4096)?;
    pread(&file, PARTS[1], 10_000)?;
    w.touched("hole", "sparse", vec![(PARTS[0] + 4096, PARTS[0] + 8192), (PARTS[1], PARTS[1] + 10_000)]);

    w.two("truncated", |w, _| OpenOptions::new().write(true).open(w.path("truncated"))?.set_len(2 * MIB))?;
    w.two("renamed", |w, _| fs::rename(w.path("renamed"), w.path("renamed-to")))?;
    w.two("deleted", |w, _| fs::remove_file(w.path("deleted")))?;

    let ranges: Vec<Bytes> = places(6).map(|at| (at, at + 4096)).collect();
    for (case, by, name) in [("symlink", "link", "linked"), ("hard link", "hard-other", "hard")] {
        let file = w.open(by)?;
        ranges.iter().try_for_each(|r| pread(&file, r.0, r.1 - r.0))?;
        w.touched(case, name, ranges.clone());
    }
    for (case, advice) in [("mapped", libc::MADV_RANDOM), ("mapped-ahead", libc::MADV_NORMAL)] {
        let ranges = mapped(&w.open(case)?, advice)?;
        w.touched(case, case, ranges);
    }
    match ring(&w.open("io_uring")?, &ranges) {
        Ok(()) => w.touched("io_uring", "io_uring", ranges.clone()),
        Err(e) => drop(w.report.skipped.insert("io_uring".into(), e.to_string())),
    }
    for &(start, end) in &ranges {
        let mut child = Command::new("/proc/self/exe");
        if !Path::new("/proc/self/exe").exists() {
            child = Command::new("/truth");
        }
        let child = child.arg("read").arg(w.path("child")).args([start.to_string(), (end - start).to_string()]);
        if !child.status()?.success() {
            return Err(io::Error::other("the child failed"));
        }
    }
    w.touched("child", "child", ranges.clone());
    let file = w.open("thread")?;
    let of_thread = ranges.clone();
    std::thread::spawn(move || of_thread.iter().try_for_each(|r| pread(&file, r.0, r.1 - r.0)))
        .join()
        .map_err(|_| io::Error::other("the thread failed"))??;
    w.touched("thread", "thread", ranges.clone());
    let file = w.open("sendfile")?;
    ranges.iter().try_for_each(|&r| sendfile(&file, r))?;
    w.touched("sendfile", "sendfile", ranges);

    drop(w.open("opened")?);
    w.touched("only opened", "opened", vec![]);
    fs::metadata(w.path("stat"))?;
    w.touched("only stat", "stat", vec![]);
    w.touched("not touched", "untouched", vec![]);

    let path = w.path("burst");
    for _ in 1..OPENS {
        drop(File::open(&path)?);
    }
    pread(&File::open(&path)?, PARTS[1], 4096)?;
    w.touched("100,000 opens", "burst", vec![(PARTS[1], PARTS[1] + 4096)]);
    if big() {
        sequential(&w.path("big"), BIG, 1 << 20)?;
        w.touched("5 GB", "big", vec![(0, BIG)]);
    }
    let mut out = File::create(report)?;
    out.write_all(&serde_json::to_vec_pretty(&w.report)?)
}

fn sequential(path: &Path, mut left: u64, piece: usize) -> io::Result<()> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; piece];
    while left > 0 {
        let n = buffer.len().min(usize::try_from(left).map_err(io::Error::other)?);
        file.read_exact(&mut buffer[..n])?;
        left -= n as u64;
    }
    Ok(())
}

/// One byte of each of a few pages, far apart.
fn mapped(file: &File, advice: libc::c_int) -> io::Result<Vec<Bytes>> {
    let len = usize::try_from(SIZE).map_err(io::Error::other)?;
    // SAFETY: a fresh mapping at an address of the kernel's choice; the result is checked.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the whole mapping.
    if unsafe { libc::madvise(base, len, advice) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut ranges = Vec::new();
    for at in places(6) {
        let offset = usize::try_from(at).map_err(io::Error::other)?;
        // SAFETY: `at` lies inside the mapping, whose file nobody makes shorter.
        let _byte = unsafe { std::ptr::read_volatile(base.cast::<u8>().add(offset)) };
        ranges.push((at, at + 1));
    }
    // SAFETY: mapped above, used by nobody any more.
    unsafe { libc::munmap(base, len) };
    Ok(ranges)
}

fn sendfile(file: &File, (start, end): Bytes) -> io::Result<()> {
    let (_reader, writer) = nix::unistd::pipe()?;
    let mut offset = libc::off_t::try_from(start).map_err(io::Error::other)?;
    let len = usize::try_from(end - start).map_err(io::Error::other)?;
    // SAFETY: both descriptors are open and the offset is a local variable; a pipe holds more than the few KiB asked for.
    let sent = unsafe { libc::sendfile(writer.as_raw_fd(), file.as_raw_fd(), &raw mut offset, len) };
    if usize::try_from(sent) == Ok(len) { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn ring(file: &File, ranges: &[Bytes]) -> io::Result<()> {
    let mut ring = io_uring::IoUring::new(4)?;
    for &(start, end) in ranges {
        let mut buffer = vec![0_u8; usize::try_from(end - start).map_err(io::Error::other)?];
        let len = u32::try_from(buffer.len()).map_err(io::Error::other)?;
        let read = io_uring::opcode::Read::new(io_uring::types::Fd(file.as_raw_fd()), buffer.as_mut_ptr(), len);
        // SAFETY: buffer and file live until the completion, which is waited for before either goes.
        unsafe { ring.submission().push(&read.offset(start).build()) }.map_err(io::Error::other)?;
        ring.submit_and_wait(1)?;
        let done = ring.completion().next().map_or(0, |c| c.result());
        if u32::try_from(done) != Ok(len) {
            return Err(io::Error::from_raw_os_error(-done.min(0)));
        }
    }
    Ok(())
}
