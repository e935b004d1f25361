//! `esgz bytecode`: the Python bytecode that a start would write, made without running the workload. What a profile says was imported is
//! compiled by the image's own interpreter, which runs confined (`record::sandbox`), and becomes an archive for `convert --startup-layer`.

mod interpreter;
mod unpack;
mod wanted;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::digest::Digest;
use crate::profile::Profile;
use crate::progress::Progress;
use crate::store::{self, Images};
use crate::tar::{self, Entry, Kind, Time, padding, parents};

use interpreter::{Interpreter, Outcome};
use unpack::Unpacked;
use wanted::{Job, Wanted};

/// How it is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// `os/arch[/variant]` picked from an index; this machine must be able to run it.
    pub platform: String,
    /// Where the image's interpreter is unpacked.
    pub temp_dir: PathBuf,
    /// An interpreter that takes longer over all its sources is ended.
    pub timeout: Duration,
}

/// What was compiled, and what was not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Files in the archive.
    pub files: usize,
    /// Bytes in them.
    pub bytes: u64,
    /// The same by the interpreter that made them, as its path in the image.
    pub interpreters: BTreeMap<String, usize>,
    /// Files that the image has already, or cannot have.
    pub taken: usize,
    /// Files whose source the image has not as a file of at most 64 MiB.
    pub no_source: usize,
    /// Sources that the interpreter refused, by its exception.
    pub refused: BTreeMap<String, usize>,
    /// Interpreters that were asked for and not found or of no use, with the files that need them.
    pub no_interpreter: BTreeMap<String, usize>,
}

/// Why nothing could be compiled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A layer cannot be read.
    #[error("layer {layer} ({digest})")]
    Layer {
        /// Position, lowest is 0.
        layer: usize,
        /// Its digest.
        digest: Digest,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The interpreter and its libraries are too much.
    #[error("the image's interpreters and libraries have more than {most} bytes")]
    TooLarge {
        /// The limit.
        most: u64,
    },
    /// A profile of too many files.
    #[error("the profile names {found} files of bytecode: that is no start of a program")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// A profile without any Python.
    #[error("the profile names no Python source or bytecode of the image, or no interpreter that it is for")]
    Nothing,
    /// Another processor.
    #[error("the image is for {found}: its interpreter cannot run on this machine ({expected})")]
    Foreign {
        /// The image's platform.
        found: String,
        /// This machine's.
        expected: String,
    },
    /// The temporary folder cannot be used.
    #[error("writing temporary files in {dir}")]
    Temp {
        /// The folder.
        dir: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The interpreter cannot be confined or started.
    #[error("cannot start {program} of the image in a sandbox")]
    Start {
        /// Its path in the image.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The interpreter did something else than compile.
    #[error("{program} of the image: {why}")]
    Interpreter {
        /// Its path in the image.
        program: String,
        /// What it did, and the last it said.
        why: String,
    },
    /// The archive cannot be written.
    #[error("writing the archive")]
    Write(#[source] io::Error),
}

/// Compiles what the profile says is imported and writes the archive.
pub fn compile(
    store: &dyn Images,
    profile: &Profile,
    options: &Options,
    out: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<Report, Error> {
    let wanted = Wanted::of(profile).map_err(|found| Error::TooMany { found })?;
    if wanted.jobs.is_empty() {
        return Err(Error::Nothing);
    }
    let image = store.image(&options.platform)?;
    let (found, expected) = (image.config.platform(), format!("linux/{}", crate::record::architecture()));
    if found != expected && !found.starts_with(&format!("{expected}/")) {
        return Err(Error::Foreign { found, expected });
    }
    let temp = |source| Error::Temp { dir: options.temp_dir.clone(), source };
    let sources: HashSet<&str> = wanted.jobs.values().map(|j| j.source.as_str()).collect();
    let unpacked = Unpacked::read(store, &image, &sources, &options.temp_dir, progress)?;
    // Whom the sandbox makes of its program may enter only what is open to all; the folder around it is ours alone.
    let dir = tempfile::Builder::new().prefix("esgz-bytecode-").tempdir_in(&options.temp_dir).map_err(temp)?;
    let root = dir.path().join("root");
    std::fs::create_dir(&root).map_err(temp)?;
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).map_err(temp)?;
    unpacked.write_runtime(&root).map_err(temp)?;
    let mut work = Work { unpacked: &unpacked, root: &root, options, report: Report::default(), done: BTreeMap::new() };
    for tag in wanted.tags() {
        work.with(tag, &wanted, progress)?;
    }
    let Work { mut report, done, .. } = work;
    (report.files, report.bytes) = (done.len(), done.values().map(|(e, _)| e.size).sum());
    write(&unpacked, &done, out).map_err(Error::Write)?;
    Ok(report)
}

struct Work<'a> {
    unpacked: &'a Unpacked,
    root: &'a Path,
    options: &'a Options,
    report: Report,
    /// By path.
    done: BTreeMap<String, (Entry, Vec<u8>)>,
}

impl Work<'_> {
    /// Compiles what one interpreter is wanted for.
    fn with(&mut self, tag: &str, wanted: &Wanted, progress: &dyn Progress) -> Result<(), Error> {
        let merged = &self.unpacked.merged;
        let mut jobs: Vec<(&String, &Job)> = wanted.jobs.iter().filter(|(_, j)| j.tag == tag).collect();
        let all = jobs.len();
        jobs.retain(|(path, _)| merged.get(path).is_none() && merged.odd_parent(path).is_none());
        self.report.taken += all - jobs.len();
        if jobs.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + self.options.timeout;
        let mut last = None;
        for program in candidates(self.unpacked, tag, &wanted.run) {
            match Interpreter::start(self.root, &program, tag, deadline) {
                Ok(interpreter) => return self.jobs(interpreter, &program, &jobs, progress),
                // What cannot be confined at all is no interpreter's fault.
                Err(e @ Error::Start { .. }) => return Err(e),
                Err(e) => last = Some(e),
            }
        }
        if let Some(e) = last {
            progress.warn(&crate::progress::chain(&e));
        }
        self.report.no_interpreter.insert(tag.into(), jobs.len());
        Ok(())
    }

    fn jobs(
        &mut self,
        mut interpreter: Interpreter,
        program: &str,
        jobs: &[(&String, &Job)],
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let contents = self.unpacked.contents();
        let task = progress.start(&format!("compiling with /{program}"), 0);
        for (path, job) in jobs {
            let at = self.unpacked.merged.get(&job.source).and_then(|at| contents.of(at));
            let temp = |source| Error::Temp { dir: self.options.temp_dir.clone(), source };
            let content = at.map(|at| self.unpacked.content(at)).transpose().map_err(temp)?.flatten();
            let (Some(at), Some(content)) = (at, content) else {
                self.report.no_source += 1;
                continue;
            };
            let source = self.unpacked.at(at);
            progress.advance(task, source.size);
            match interpreter.compile(&job.source, job.optimize, source.mtime.seconds, &content)? {
                Outcome::Compiled(bytes) => {
                    *self.report.interpreters.entry(format!("/{program}")).or_default() += 1;
                    self.done.insert((*path).clone(), (file(path, source, bytes.len() as u64), bytes));
                }
                Outcome::Refused(why) => *self.report.refused.entry(why).or_default() += 1,
            }
        }
        progress.done(task);
        Ok(())
    }
}

/// The compiled file of a source: as readable as that, and its owner's.
fn file(path: &str, source: &Entry, size: u64) -> Entry {
    let mtime = Time { nanos: 0, ..source.mtime };
    let mode = (source.mode | 0o200) & 0o666 & !0o022;
    Entry { path: path.into(), kind: Kind::File, size, mode, mtime, link: String::new(), ..source.clone() }
}

/// Where an interpreter may be: what the profile saw running first.
fn candidates(unpacked: &Unpacked, tag: &str, run: &BTreeSet<String>) -> Vec<String> {
    let Some(version) = wanted::version(tag) else { return Vec::new() };
    let name = format!("python{version}");
    let is_it = |path: &&str| path.rsplit_once('/').is_some_and(|(dir, n)| n == name && dir.ends_with("bin"));
    let seen = run.iter().map(String::as_str).filter(is_it).filter(|p| unpacked.merged.get(p).is_some());
    let others = unpacked.merged.iter().map(|(p, _)| p).filter(is_it);
    let mut known = HashSet::new();
    seen.chain(others).filter(|p| known.insert(*p)).map(Into::into).collect()
}

/// Writes the archive: files in the order of their paths, each behind the folders that it lies in.
fn write(unpacked: &Unpacked, done: &BTreeMap<String, (Entry, Vec<u8>)>, out: &mut dyn Write) -> io::Result<()> {
    let mut made = BTreeSet::new();
    let mut put = |entry: &Entry, payload: &[u8]| {
        out.write_all(&tar::headers(entry)?.ok_or(io::ErrorKind::Unsupported)?)?;
        out.write_all(payload)?;
        out.write_all(&vec![0; padding(payload.len() as u64)])
    };
    for (path, (entry, bytes)) in done {
        let mut above_mode = (0o755, entry.mtime);
        for above in parents(path) {
            let there = unpacked.entry(above);
            above_mode = there.map_or(above_mode, |e| (e.mode, e.mtime));
            if made.insert(above) {
                let (mode, mtime) = if there.is_some() { above_mode } else { (0o755, above_mode.1) };
                let owner = there.unwrap_or(entry);
                let folder = Entry { path: above.into(), kind: Kind::Dir, size: 0, mode, mtime, ..owner.clone() };
                put(&folder, &[])?;
            }
        }
        put(entry, bytes)?;
    }
    out.write_all(&tar::END)
}
