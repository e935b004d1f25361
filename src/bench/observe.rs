//! What the machine shows: mounts, logs, content store, page cache, CPU time. Reads `/proc` and files; parsing is apart, for tests.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::Error;
use super::evidence::Prepared;
use super::result::{CpuUse, Machine};
use super::stack::Env;
use crate::digest::Digest;
use crate::warm::node;

/// Length of the kernel's `USER_HZ` tick, which is part of its interface.
const TICK_MS: u64 = 10;

/// Mounts of the lazy snapshotter below its root.
pub fn lazy_mounts(root: &Path) -> Result<usize, Error> {
    node::lazy_mounts(root).map(|mounts| mounts.len()).map_err(Error::io("reading /proc/self/mountinfo"))
}

/// Which of these blobs are in the content store.
pub fn stored(store: &Path, blobs: impl IntoIterator<Item = Digest>) -> Vec<Digest> {
    let mut all: Vec<_> = blobs.into_iter().filter(|d| store.join("blobs/sha256").join(d.hex()).exists()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Files in the lazy snapshotter's caches: everything below its root but the snapshots themselves.
pub fn cache_files(root: &Path) -> u64 {
    fn count(dir: &Path) -> u64 {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|e| if e.file_type().is_ok_and(|t| t.is_dir()) { count(&e.path()) } else { 1 }).sum()
    }
    ["httpcache", "fscache"].iter().map(|cache| count(&root.join("stargz").join(cache))).sum()
}

/// Length of a log now; 0 when it is not there.
pub fn log_length(log: &Path) -> u64 {
    fs::metadata(log).map_or(0, |m| m.len())
}

/// What was added to a log since.
pub fn log_since(log: &Path, from: u64) -> Result<String, Error> {
    let read = || {
        let mut file = fs::File::open(log)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().map_err(Error::io(format!("reading {}", log.display())))
}

/// The snapshotter's answers in its log: JSON lines with `remote-snapshot-prepared`; the layer's chain ID is the last word of `key`
/// (`k8s.io/7/extract-123-abc sha256:…`).
pub fn prepared(log: &str) -> Vec<Prepared> {
    let answer = |line: &str| {
        let value: Value = serde_json::from_str(line).ok()?;
        let remote = match value.get("remote-snapshot-prepared")? {
            Value::String(s) => s == "true",
            other => other.as_bool()?,
        };
        let key = value.get("key").and_then(Value::as_str).unwrap_or_default();
        Some(Prepared { chain: key.rsplit(' ').next().and_then(|w| w.parse().ok()), remote })
    };
    log.lines().filter_map(answer).collect()
}

/// Page cache that could be dropped now, in KiB.
pub fn page_cache_kb() -> Result<u64, Error> {
    let text = fs::read_to_string("/proc/meminfo").map_err(Error::io("reading /proc/meminfo"))?;
    Ok(droppable(&text))
}

/// What processes have mapped or not yet written back stays when the cache is dropped, whoever they are. No file of an image is
/// mapped when nothing runs from it, so what is left of the rest is what a start could profit from.
fn droppable(text: &str) -> u64 {
    let stays: u64 = ["Shmem", "Mapped", "Dirty", "Writeback"].iter().map(|key| meminfo(text, key)).sum();
    meminfo(text, "Cached").saturating_sub(stays)
}

fn meminfo(text: &str, key: &str) -> u64 {
    let value = |l: &str| l.strip_prefix(key)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

/// Writes everything back and drops the page cache.
pub fn drop_caches() -> Result<(), Error> {
    nix::unistd::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").map_err(Error::io("dropping the page cache (needs root)"))
}

/// Load average of the last minute.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// The machine.
pub fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model =
        model.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':').map(|(_, v)| v.trim().to_owned()));
    Machine {
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        cpu_model: model.unwrap_or_default(),
        memory_bytes: meminfo(&read("/proc/meminfo"), "MemTotal") << 10,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
    }
}

/// Whose CPU time is counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Who {
    /// The lazy snapshotter; 0: there is none.
    pub snapshotter: u32,
    /// containerd; 0: there is none.
    pub containerd: u32,
    /// The reader on the node.
    pub reader: Option<u32>,
    /// First process of the container.
    pub workload: Option<u32>,
}

impl Who {
    /// The stack's daemons and the reader.
    pub fn new(env: &Env, reader: Option<u32>) -> Self {
        Self { snapshotter: env.stargz_pid, containerd: env.containerd_pid, reader, workload: None }
    }
}

/// CPU time used so far by everyone who takes part.
pub fn cpu(who: Who) -> CpuUse {
    let stats = processes();
    let of = |pid: u32| if pid == 0 { 0 } else { stats.iter().find(|s| s.pid == pid).map_or(0, |s| s.ticks * TICK_MS) };
    let tree = |root: Option<u32>| root.map_or(0, |root| tree(&stats, root) * TICK_MS);
    CpuUse {
        snapshotter_ms: of(who.snapshotter),
        containerd_ms: of(who.containerd),
        workload_ms: tree(who.workload),
        reader_ms: tree(who.reader),
        bench_ms: of(std::process::id()),
    }
}

/// The difference of two samples; a process that ended in between counts nothing.
pub fn used(from: CpuUse, to: CpuUse) -> CpuUse {
    CpuUse {
        snapshotter_ms: to.snapshotter_ms.saturating_sub(from.snapshotter_ms),
        containerd_ms: to.containerd_ms.saturating_sub(from.containerd_ms),
        workload_ms: to.workload_ms.saturating_sub(from.workload_ms),
        reader_ms: to.reader_ms.saturating_sub(from.reader_ms),
        bench_ms: to.bench_ms.saturating_sub(from.bench_ms),
    }
}

/// Whether a process is there and not a zombie.
pub fn alive(pid: u32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat(&text).is_some_and(|s| !s.zombie)
}

struct Process {
    pid: u32,
    parent: u32,
    zombie: bool,
    /// Its own and those of the children it waited for.
    ticks: u64,
}

fn processes() -> Vec<Process> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter(|e| e.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()));
    // One read of a line that is never longer than this: there are many of them, several times a second.
    let mut line = [0; 1024];
    let mut read = |e: fs::DirEntry| {
        let n = fs::File::open(e.path().join("stat")).ok()?.read(&mut line).ok()?;
        stat(&String::from_utf8_lossy(&line[..n]))
    };
    pids.filter_map(&mut read).collect()
}

/// `proc_pid_stat(5)`; the name in parentheses may hold anything.
fn stat(text: &str) -> Option<Process> {
    let pid = text.split(' ').next()?.parse().ok()?;
    let rest: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |i: usize| rest.get(i)?.parse::<u64>().ok();
    let ticks = (11..=14).map(number).sum::<Option<u64>>()?;
    Some(Process { pid, parent: rest.get(1)?.parse().ok()?, zombie: matches!(*rest.first()?, "Z" | "X"), ticks })
}

fn tree(all: &[Process], root: u32) -> u64 {
    let own = all.iter().filter(|p| p.pid == root).map(|p| p.ticks).sum::<u64>();
    let below = all.iter().filter(|p| p.parent == root && p.pid != root).map(|p| tree(all, p.pid)).sum::<u64>();
    own + below
}

/// Sleeps between two looks at the workload.
pub const POLL: Duration = Duration::from_millis(25);

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test is what it is for")]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_from_the_log() {
        let chain = Digest::of(b"c");
        let log = format!(
            "{{\"key\":\"k8s.io/7/extract-1-a {chain}\",\"level\":\"debug\",\"msg\":\"prepared remote snapshot\",\"remote-snapshot-prepared\":\"true\"}}\n\
             not json\n{{\"msg\":\"other\"}}\n\
             {{\"key\":\"k\",\"level\":\"warning\",\"remote-snapshot-prepared\":\"false\",\"error\":\"no TOC\"}}\n"
        );
        assert_eq!(
            prepared(&log),
            [Prepared { chain: Some(chain), remote: true }, Prepared { chain: None, remote: false }]
        );
    }

    #[test]
    fn stat_lines_with_odd_names() {
        let p = stat("42 (a) b (c) S 7 42 42 0 -1 4194304 100 0 0 0 11 22 3 4 20 0 1 0 100 200 300").unwrap();
        assert_eq!((p.pid, p.parent, p.zombie, p.ticks), (42, 7, false, 40));
        assert!(stat("").is_none());
        assert!(alive(std::process::id()));
    }

    #[test]
    fn a_tree_is_summed_with_everything_below() {
        let p = |pid, parent, ticks| Process { pid, parent, zombie: false, ticks };
        assert_eq!(tree(&[p(1, 0, 1), p(2, 1, 10), p(3, 2, 100), p(4, 1, 1000), p(9, 8, 5)], 1), 1111);
    }

    #[test]
    fn memory_keys_are_whole_words() {
        let text = "MemTotal: 100 kB\nSwapCached: 7 kB\nCached:  42 kB\nShmem: 2 kB\n";
        assert_eq!(
            droppable("Cached: 100 kB\nShmem: 1 kB\nMapped: 20 kB\nDirty: 3 kB\nWriteback: 4 kB\nWritebackTmp: 9 kB\n"),
            72
        );
        assert_eq!((meminfo(text, "Cached"), meminfo(text, "Shmem"), meminfo(text, "None")), (42, 2, 0));
    }

    #[test]
    fn stored_blobs_and_cached_files_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::write(dir.path().join("blobs/sha256").join(a.hex()), "a").unwrap();
        assert_eq!(stored(dir.path(), [a, b, a]), [a]);
        assert_eq!(cache_files(dir.path()), 0);
        fs::create_dir_all(dir.path().join("stargz/httpcache/ab")).unwrap();
        fs::write(dir.path().join("stargz/httpcache/ab/cd"), "x").unwrap();
        assert_eq!(cache_files(dir.path()), 1);
        let log = dir.path().join("log");
        assert_eq!(log_length(&log), 0);
        fs::write(&log, "before\nafter\n").unwrap();
        assert_eq!(log_since(&log, 7).unwrap(), "after\n");
    }
}
