//! Which sources are to be compiled, for which interpreters and to which paths: what a profile says was imported.

use std::collections::{BTreeMap, BTreeSet};

use crate::profile::{Kind, Origin, Profile};
use crate::python::{source_of, tag_of};

/// More bytecode than that no start imports.
const MOST: usize = 1 << 18;

/// What one compiled file is made from. Paths as layers spell them, without a leading `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Job {
    pub(super) source: String,
    /// The interpreter's tag, such as `cpython-312`.
    pub(super) tag: String,
    /// As `-O` was given; -1 for not.
    pub(super) optimize: i32,
}

/// What a profile asks for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// By the path of the compiled file.
    pub(super) jobs: BTreeMap<String, Job>,
    /// Files that were executed or mapped, such as interpreters.
    pub(super) run: BTreeSet<String>,
}

impl Wanted {
    /// `Err` with their number when it asks for too many.
    pub(super) fn of(profile: &Profile) -> Result<Self, usize> {
        let inside = |path: &str| path.trim_start_matches('/').to_owned();
        let files = || profile.files.iter().filter(|f| f.origin == Origin::Image);
        let mut wanted = Self::default();
        let compiled = profile.writes.iter().map(|w| &w.path).chain(files().map(|f| &f.path));
        for path in compiled.map(|p| inside(p)) {
            if let Some((source, tag)) = source_of(&path).zip(tag_of(&path)) {
                let Some(optimize) = optimization(&path) else { continue };
                wanted.jobs.insert(path.clone(), Job { source, tag: tag.into(), optimize });
            }
        }
        // A start that wrote any wrote all that it imported; other sources are read as text, 1,400 of them by a vLLM start.
        let wrote = profile.writes.iter().any(|w| source_of(&w.path).is_some());
        let run = files().filter(|f| f.kinds.iter().any(|k| matches!(k, Kind::Exec | Kind::Mmap)));
        wanted.run = run.map(|f| inside(&f.path)).collect();
        let named: BTreeSet<String> = wanted.jobs.values().map(|j| j.tag.clone()).collect();
        let tags = if named.is_empty() { wanted.run.iter().filter_map(|p| tag_of_program(p)).collect() } else { named };
        let read = files().filter(|f| !wrote && !f.is_looked_up_only()).map(|f| inside(&f.path));
        for source in read {
            let Some((folder, module)) = module(&source) else { continue };
            // A folder that names its version belongs to that interpreter; others may be read by each of them.
            let own = tags.iter().find(|t| version(t).is_some_and(|v| source.contains(&format!("/python{v}/"))));
            for tag in own.map_or_else(|| tags.iter().collect::<Vec<_>>(), |own| vec![own]) {
                let job = Job { source: source.clone(), tag: tag.clone(), optimize: -1 };
                wanted.jobs.entry(format!("{folder}__pycache__/{module}.{tag}.pyc")).or_insert(job);
            }
        }
        if wanted.jobs.len() > MOST { Err(wanted.jobs.len()) } else { Ok(wanted) }
    }

    /// The interpreters that are needed.
    pub(super) fn tags(&self) -> BTreeSet<&str> {
        self.jobs.values().map(|j| j.tag.as_str()).collect()
    }
}

/// The level in `x.cpython-312.opt-1.pyc`; `None` for a name that no interpreter gives.
fn optimization(path: &str) -> Option<i32> {
    let name = path.rsplit('/').next()?;
    match name.split('.').collect::<Vec<_>>().as_slice() {
        [_, _, "pyc"] => Some(-1),
        [_, _, "opt-1", "pyc"] => Some(1),
        [_, _, "opt-2", "pyc"] => Some(2),
        _ => None,
    }
}

/// Folder with its `/` and module of a source that can be imported.
fn module(source: &str) -> Option<(&str, &str)> {
    let at = source.rfind('/').map_or(0, |i| i + 1);
    let module = source[at..].strip_suffix(".py")?;
    (!module.is_empty() && !module.contains('.')).then_some((&source[..at], module))
}

/// `3.12` of `cpython-312`.
pub(super) fn version(tag: &str) -> Option<String> {
    let digits = tag.strip_prefix("cpython-").filter(|d| d.len() > 1 && d.bytes().all(|b| b.is_ascii_digit()))?;
    let (major, minor) = digits.split_at(1);
    Some(format!("{major}.{minor}"))
}

/// `cpython-312` of `usr/bin/python3.12`.
fn tag_of_program(path: &str) -> Option<String> {
    let (major, minor) = path.rsplit('/').next()?.strip_prefix("python")?.split_once('.')?;
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    (digits(major) && digits(minor)).then(|| format!("cpython-{major}{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{File, Write};

    fn profile(files: &[(&str, Kind)], writes: &[&str]) -> Profile {
        let sample = crate::profile::sample::profile();
        let file =
            |(path, kind): &(&str, Kind)| File { kinds: vec![*kind], ..crate::profile::sample::file(path, 9, &[]) };
        let write = |path: &&str| Write { path: (*path).into(), ..sample.writes[0].clone() };
        Profile {
            files: files.iter().map(file).collect(),
            writes: writes.iter().map(write).collect(),
            ..sample.clone()
        }
    }

    fn jobs(profile: &Profile) -> Vec<(String, String, i32)> {
        let jobs = Wanted::of(profile).expect("few").jobs;
        jobs.into_iter().map(|(path, j)| (path, format!("{} {}", j.source, j.tag), j.optimize)).collect()
    }

    #[test]
    fn what_was_written_or_else_read_is_wanted() {
        let files = [
            ("/usr/bin/python3.11", Kind::Mmap),
            ("/l/python3.11/a.py", Kind::Read),
            ("/l/python3.12/a.py", Kind::Read),
            ("/l/python3.11/stat.py", Kind::Stat),
            ("/l/__pycache__/there.cpython-311.pyc", Kind::Read),
            ("/l/__pycache__/there.cpython-312.pyc", Kind::Read),
            ("/l/odd.name.py", Kind::Read),
        ];
        let p = profile(
            &files,
            &[
                "/l/python3.11/__pycache__/b.cpython-311.opt-1.pyc",
                "/root/.cache/x",
                "/l/__pycache__/c.cpython-311.opt-x.pyc",
            ],
        );
        let job = |path: &str, from: &str, optimize| (path.to_owned(), from.to_owned(), optimize);
        assert_eq!(
            jobs(&p),
            [
                job("l/__pycache__/there.cpython-311.pyc", "l/there.py cpython-311", -1),
                job("l/__pycache__/there.cpython-312.pyc", "l/there.py cpython-312", -1),
                job("l/python3.11/__pycache__/b.cpython-311.opt-1.pyc", "l/python3.11/b.py cpython-311", 1),
            ]
        );
        // A start that could not write.
        assert_eq!(
            jobs(&profile(&files, &["/root/.cache/x"])),
            [
                job("l/__pycache__/there.cpython-311.pyc", "l/there.py cpython-311", -1),
                job("l/__pycache__/there.cpython-312.pyc", "l/there.py cpython-312", -1),
                job("l/python3.11/__pycache__/a.cpython-311.pyc", "l/python3.11/a.py cpython-311", -1),
                job("l/python3.12/__pycache__/a.cpython-312.pyc", "l/python3.12/a.py cpython-312", -1),
            ]
        );
        // Of a list of paths, which knows no writes, the interpreter tells the tag.
        let p = profile(&[("/usr/bin/python3.9", Kind::Exec), ("/a.py", Kind::Open)], &[]);
        assert_eq!(jobs(&p), [job("__pycache__/a.cpython-39.pyc", "a.py cpython-39", -1)]);
        assert_eq!(jobs(&profile(&[("/usr/bin/python3", Kind::Exec), ("/a.py", Kind::Open)], &[])), []);
    }

    #[test]
    fn versions_are_those_of_cpython() {
        let all = ["cpython-312", "cpython-39", "pypy39", "cpython-3", "cpython-3x"].map(version);
        assert_eq!(all, [Some("3.12".to_owned()), Some("3.9".to_owned()), None, None, None]);
    }
}
