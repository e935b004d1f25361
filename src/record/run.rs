//! One recording from beginning to end.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_child_subreaper;
use tempfile::NamedTempFile;

use super::assemble::{Assembled, Scale, assemble, digest};
use super::child::Gated;
use super::mounts::Mounts;
use super::perf;
use super::probe::{self, Ask, Met, Url};
use super::redact::redact;
use super::signals::Signals;
use super::supervise::{Command, Ended};
use super::table::Table;
use super::touch::Log;
use super::tracer::{Recording, Tracer};
use super::walk::{Limits, Snapshot, diff};
use super::{Error, Options, Until, host};
use crate::profile::{self, Header, Phase, Profile, Recorder, SCHEMA};
use crate::progress::Progress;

/// What a kept page cache does to the filemap recorder. Measured on 6.18: `filemap_map_pages` leaves before its tracepoint when a
/// 2 MiB folio could be mapped whole, and such folios are in the cache when a file was written lately.
const KEPT: &str = "mapped files that are cached in 2 MiB folios may be missing";

/// Larger files are digested only when asked for.
const DIGEST_LIMIT: u64 = 64 << 20;

/// Runs the command, records it and writes the profile, which `written` sees before the command is ended or waited for.
/// Gives the exit code to pass on. Call it before any thread is started.
pub fn run(options: &Options, progress: &dyn Progress, written: &mut dyn FnMut(&Profile)) -> Result<u8, Error> {
    let questions = questions(&options.until)?;
    let target = Target::new(&options.output)?;
    let root = options.root.clone().unwrap_or_else(|| "/".into());
    let root =
        fs::canonicalize(&root).map_err(|source| Error::Path { what: "cannot use the root", path: root, source })?;
    let mut tracer = Tracer::find(options.recorder)?;
    let mounts = read_mounts(&root)?;
    let limits = Limits { mounts: mounts.points().map(ToOwned::to_owned).collect(), own: target.inside(&root) };
    let before = Snapshot::take(&root, "/", &limits);
    let dropped = if tracer.misses_only() || !options.keep_cache {
        drop_caches()
    } else {
        Err(io::Error::other("not asked for"))
    };
    match &dropped {
        Err(_) if tracer.misses_only() => {
            return Err(Error::DropCaches(dropped.err().unwrap_or_else(|| io::Error::other("unknown"))));
        }
        Err(e) if !options.keep_cache => progress.warn(&format!("the page cache was not dropped ({e}): {KEPT}")),
        _ => {}
    }
    let (mut table, unknown) = Table::of_root(&root, &mounts, &before, &mut tracer)?;
    for words in &unknown {
        progress.warn(words);
    }

    let system = |what| move |e: nix::Error| Error::System { what, source: e.into() };
    let signals = Signals::block().map_err(system("block signals"))?;
    set_child_subreaper(true).map_err(system("become the reaper of the command's children"))?;
    let confined = options.root.as_ref().map(|_| root.as_path());
    let gated =
        Gated::start(&options.command, confined).map_err(|source| Error::System { what: "start a process", source })?;
    let (rings, granted) = tracer.open(gated.pid.as_raw(), options.ring)?;
    let tracer = Arc::new(tracer);
    let recording = Recording::start(Arc::clone(&tracer), rings);
    let started_at = jiff::Timestamp::now();
    let (start, started) = (perf::now(), Instant::now());
    let exec = |source| Error::Exec { command: options.command[0].clone(), source };
    let mut command = Command::new(gated.release().map_err(exec)?, signals);

    let (tell, met) = channel();
    if !questions.is_empty() {
        probe::ask(questions, tell).map_err(Error::Http)?;
    }
    let mut phases = Vec::new();
    let end = wait(&mut command, options, &met, started, &mut phases);
    let log = recording.stop();
    let until = describe(&options.until);
    let complete = match (&end, &options.until) {
        (End::Met, _) | (End::Exited(_), Until::Exit | Until::Period(_)) => true,
        (End::Exited(_) | End::TimedOut, _) => false,
    };
    if !complete && !options.keep_partial {
        if let End::Exited(ended) = end {
            return Err(Error::Ended { how: ended.to_string(), until });
        }
        return Err(Error::Timeout { until, seconds: options.timeout.as_secs() });
    }

    let after = Snapshot::take(&root, "/", &limits);
    let writes = diff(&before, &after);
    let own: HashSet<(u32, u64)> =
        after.entries.iter().filter(|e| before.get(&e.path).is_none()).filter_map(|e| table.key(e)).collect();
    if let Some(upper) = mounts.upper() {
        table.add_upper(&upper, &before);
    }
    let Log { events, lost, .. } = log;
    let scale = Scale { start, page: perf::page_size() as u64 };
    let assembled = assemble(&log.into_touches(), &mut table, &own, (&root, &mounts, &limits), scale);
    let Assembled { mut files, unmapped, own_writes } = assembled;
    let changed = writes.iter().map(|w| w.path.as_str()).collect();
    digest(&mut files, &root, &changed, if options.digest_all { u64::MAX } else { DIGEST_LIMIT });

    let mut host = host::facts();
    host.insert("root_filesystem".into(), mounts.root.kind.clone());
    host.insert(
        "page_cache".into(),
        if dropped.is_ok() { "dropped before the start".into() } else { format!("kept: {KEPT}") },
    );
    host.insert("ring_bytes_per_cpu".into(), granted.to_string());
    let args: Vec<String> = options.command.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    let profile = Profile {
        schema: SCHEMA.into(),
        header: Header {
            image: options.image.clone(),
            platform: format!("linux/{}", architecture()),
            command: redact(&args),
            host,
            recorder: Recorder {
                name: tracer.name.into(),
                version: env!("CARGO_PKG_VERSION").into(),
                inflation: tracer.inflation().into(),
                blind: String::new(),
            },
            started_at: format!("{started_at:.3}"),
            until: if complete { until } else { format!("incomplete: no {until}") },
            phases,
            events,
            lost_events: lost,
            own_writes,
            unmapped,
            ..Header::default()
        },
        files,
        writes,
    };
    target.write(&profile::write(&profile))?;
    written(&profile);
    match end {
        End::Exited(ended) => Ok(ended.code()),
        _ if options.keep_running => loop {
            if let Some(ended) = command.wait(Duration::from_mins(1)) {
                return Ok(ended.code());
            }
        },
        _ => Ok(if complete { 0 } else { 125 }),
    }
}

/// What ended the waiting.
enum End {
    Met,
    Exited(Ended),
    TimedOut,
}

fn wait(
    command: &mut Command,
    options: &Options,
    met: &Receiver<Met>,
    started: Instant,
    phases: &mut Vec<Phase>,
) -> End {
    let ms = |at: Instant| u64::try_from(at.saturating_duration_since(started).as_millis()).unwrap_or(u64::MAX);
    loop {
        if let Some(ended) = command.wait(Duration::from_millis(20)) {
            phases.push(Phase { name: "exit".into(), at_ms: ms(Instant::now()) });
            return End::Exited(ended);
        }
        while let Ok(m) = met.try_recv() {
            phases.push(Phase { name: m.phase.into(), at_ms: ms(m.at) });
            if m.last {
                return End::Met;
            }
        }
        match options.until {
            Until::Period(period) if started.elapsed() >= period => return End::Met,
            Until::Answers { .. } if started.elapsed() >= options.timeout => return End::TimedOut,
            _ => {}
        }
    }
}

fn questions(until: &Until) -> Result<Vec<Ask>, Error> {
    let Until::Answers { http, chat, model } = until else { return Ok(vec![]) };
    let url = |text: &String| Url::parse(text).map_err(|why| Error::Url { url: text.clone(), why });
    let page = http.as_ref().map(url).transpose()?.map(Ask::Page);
    let chat = chat.as_ref().map(url).transpose()?.map(|u| Ask::Chat(u, model.clone()));
    Ok(page.into_iter().chain(chat).collect())
}

fn describe(until: &Until) -> String {
    match until {
        Until::Exit => "exit of the command".into(),
        Until::Period(p) => format!("{} s", p.as_secs_f64()),
        Until::Answers { http, chat, .. } => {
            let http = http.as_ref().map(|u| format!("2xx answer of {u}"));
            let chat = chat.as_ref().map(|u| format!("chat answer of {u}"));
            http.into_iter().chain(chat).collect::<Vec<_>>().join(", then ")
        }
    }
}

fn read_mounts(root: &Path) -> Result<Mounts, Error> {
    let refused = |source| Error::System { what: "read the mount table", source };
    let text = fs::read_to_string("/proc/self/mountinfo").map_err(refused)?;
    Mounts::parse(&text, root).ok_or_else(|| refused(io::Error::other("it has no root")))
}

fn drop_caches() -> io::Result<()> {
    nix::unistd::sync();
    fs::write("/proc/sys/vm/drop_caches", "3")
}

/// The architecture by its OCI name.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The profile file: made sure of before the start, whole or not there at the end.
struct Target {
    path: PathBuf,
    temp: NamedTempFile,
}

impl Target {
    fn new(output: &Path) -> Result<Self, Error> {
        let refused = |source| Error::Path { what: "cannot write the profile", path: output.to_owned(), source };
        let name = output.file_name().ok_or_else(|| refused(io::Error::other("no file name")))?;
        let dir = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let dir = fs::canonicalize(dir).map_err(refused)?;
        let temp = NamedTempFile::new_in(&dir).map_err(refused)?;
        Ok(Self { path: dir.join(name), temp })
    }

    /// Its paths as seen from a root, to be left out of the walks.
    fn inside(&self, root: &Path) -> HashSet<String> {
        let of = |p: &Path| p.strip_prefix(root).ok().map(|p| format!("/{}", p.display()));
        [of(&self.path), of(self.temp.path())].into_iter().flatten().collect()
    }

    fn write(self, bytes: &[u8]) -> Result<(), Error> {
        let Self { path, mut temp } = self;
        let written = temp.write_all(bytes).and_then(|()| {
            temp.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
            temp.as_file().sync_all()?;
            temp.persist(&path).map_err(|e| e.error).map(drop)
        });
        written.map_err(|source| Error::Path { what: "cannot write the profile", path, source })
    }
}
