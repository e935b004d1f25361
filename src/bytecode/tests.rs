//! An image made of this machine's own Python is compiled for; programs that are no interpreter are told from one.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::interpreter::{Interpreter, Outcome};
use super::*;
use crate::profile::{self, File, Write};
use crate::progress::Silent;
use crate::python::Header;
use crate::record::sandbox::tests::{root, with_libraries};
use crate::store::memory::Memory;
use crate::tar::build::{Item, archive};

const PYTHON: &str = "/usr/bin/python3";
const SOURCE: &str = "import os\nNAMES = {'a', 'b', 'c'}\ndef f(x: int = 3):\n    \"\"\"doc\"\"\"\n    assert x in {'p', 'q', 'r'}\n    return [x, NAMES]\n";

fn python(script: &str, args: &[&str]) -> String {
    let out = Command::new(PYTHON)
        .env("PYTHONHASHSEED", "0")
        .args(["-S", "-s", "-X", "utf8", "-c", script])
        .args(args)
        .output()
        .expect("python");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text").trim_end().to_owned()
}

/// The real path of the interpreter, its tag, and everything that it needs to start.
fn interpreter() -> (String, String, Vec<String>) {
    let said = python(
        "import os, struct, sys, importlib._bootstrap_external\n\
         print(os.path.realpath(sys.executable), sys.implementation.cache_tag)\n\
         for m in list(sys.modules.values()):\n    f = getattr(m, '__file__', None)\n    f and print(f)",
        &[],
    );
    let (first, files) = said.split_once('\n').expect("files");
    let (program, tag) = first.split_once(' ').expect("two words");
    let mut all = with_libraries(program);
    all.extend(files.lines().map(Into::into));
    (program.into(), tag.into(), all)
}

/// An image with that interpreter and a program of two modules.
fn image(files: &[String]) -> Memory {
    let mut items = Vec::new();
    for path in files {
        items.push(Item::file(&path[1..], fs::read(path).expect("read")).mode(0o755));
    }
    let app = [
        Item::dir("app"),
        Item::file("app/m.py", SOURCE).mtime(1_700_000_001).mode(0o600).owner(7, 8, "", ""),
        Item::hardlink("app/n.py", "app/m.py"),
        Item::file("app/bad.py", "def"),
        Item::file("app/there.py", "x = 1"),
        Item::dir("app/__pycache__"),
    ];
    Memory::of(&[archive(&items), archive(&app)])
}

fn profile(program: &str, tag: &str) -> Profile {
    let sample = profile::sample::profile();
    let file = |(path, kind)| File { kinds: vec![kind], ..profile::sample::file(path, 9, &[]) };
    let read = ["/app/there.py"].map(|p| (p, profile::Kind::Read));
    let write = |path: String| Write { path, ..sample.writes[0].clone() };
    Profile {
        files: [(program, profile::Kind::Mmap)].into_iter().chain(read).map(file).collect(),
        writes: vec![
            write(format!("/app/__pycache__/n.{tag}.opt-1.pyc")),
            write(format!("/app/__pycache__/m.{tag}.pyc")),
            write(format!("/app/__pycache__/bad.{tag}.pyc")),
            write(format!("/app/__pycache__/gone.{tag}.pyc")),
            write("/app/__pycache__/m.cpython-399.pyc".into()),
            write("/app/__pycache__/m.pypy39.pyc".into()),
        ],
        ..sample.clone()
    }
}

fn options() -> Options {
    Options { platform: "linux/amd64".into(), temp_dir: std::env::temp_dir(), timeout: Duration::from_mins(1) }
}

fn entries(tar: &[u8]) -> BTreeMap<String, (Entry, Vec<u8>)> {
    let mut reader = tar::Reader::new(tar);
    let mut out = BTreeMap::new();
    while let Some(entry) = reader.next().expect("an archive") {
        let mut bytes = Vec::new();
        (&mut reader).take(entry.size).read_to_end(&mut bytes).expect("payload");
        out.insert(entry.path.clone(), (entry, bytes));
    }
    out
}

#[test]
fn what_a_start_would_write_is_made_without_one() {
    let (program, tag, files) = interpreter();
    let (image, profile) = (image(&files), profile(&program, &tag));
    let run = || {
        let mut tar = Vec::new();
        let report = compile(&image, &profile, &options(), &mut tar, &Silent).expect("compiled");
        (report, tar)
    };
    let (report, tar) = run();
    let made = entries(&tar);
    let (plain, optimized) = (format!("app/__pycache__/m.{tag}.pyc"), format!("app/__pycache__/n.{tag}.opt-1.pyc"));
    assert_eq!(made.keys().collect::<Vec<_>>(), ["app", "app/__pycache__", plain.as_str(), optimized.as_str()]);
    let (entry, bytes) = &made[&plain];
    assert_eq!((entry.mode, entry.uid, entry.gid, entry.mtime.seconds), (0o600, 7, 8, 1_700_000_001));
    for (path, source, optimize) in [(&plain, "/app/m.py", "-1"), (&optimized, "/app/n.py", "1")] {
        assert!(Header::parse(&made[path].1).expect("a header").is_of_time(1_700_000_001, SOURCE.len() as u64));
        let want = python(
            "import sys, hashlib, importlib._bootstrap_external as b\n\
             c = compile(sys.argv[2].encode(), sys.argv[1], 'exec', dont_inherit=True, optimize=int(sys.argv[3]))\n\
             print(hashlib.sha256(b._code_to_timestamp_pyc(c, 1700000001, len(sys.argv[2]))).hexdigest())",
            &[source, SOURCE, optimize],
        );
        assert_eq!(Digest::of(&made[path].1).hex(), want, "the same as by an interpreter that is not confined");
    }
    let want = Report {
        files: 2,
        bytes: (bytes.len() + made[&optimized].1.len()) as u64,
        interpreters: [(program, 2)].into(),
        no_source: 1,
        refused: [("SyntaxError".to_owned(), 1)].into(),
        no_interpreter: [("cpython-399".to_owned(), 1), ("pypy39".to_owned(), 1)].into(),
        ..Report::default()
    };
    assert_eq!(report, want);
    assert_eq!(run().1, tar, "the same bytes again");
}

#[test]
fn what_is_asked_for_in_vain_is_said() {
    let (program, tag, _) = interpreter();
    let none = Profile { files: Vec::new(), writes: Vec::new(), ..profile(&program, &tag) };
    let e = compile(&image(&[]), &none, &options(), &mut Vec::new(), &Silent).expect_err("nothing to do");
    assert!(e.to_string().contains("names no Python source"), "{e}");
    let report = compile(&image(&[]), &profile(&program, &tag), &options(), &mut Vec::new(), &Silent);
    let report = report.expect("there is nothing to compile with");
    assert_eq!((report.files, report.no_interpreter.len()), (0, 3));
}

fn start(root: &Path, limit: Duration) -> Result<Interpreter, Error> {
    Interpreter::start(root, "usr/bin/python3.12", "cpython-312", Instant::now() + limit)
}

/// A shell script in an interpreter's place.
fn script(text: &str) -> tempfile::TempDir {
    let dir = root(&["/bin/sh", "/bin/cat"]);
    let program = dir.path().join("usr/bin/python3.12");
    fs::create_dir_all(program.parent().expect("a folder")).expect("folder");
    fs::write(&program, format!("#!/bin/sh\n{text}\n")).expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("mode");
    dir
}

#[test]
fn a_program_that_is_no_interpreter_is_told_from_one() {
    for (text, why) in [
        ("echo broken >&2; exit 3", "(broken)"),
        ("echo 'far too long a word'", "a word of"),
        (r"printf '\013\0\0\0cpython-311'", r#"it makes files for "cpython-311", expected "cpython-312""#),
        ("while :; do :; done", "it took too long"),
    ] {
        let dir = script(text);
        let e = start(dir.path(), Duration::from_millis(700)).map(drop).expect_err(text);
        assert!(e.to_string().contains(why), "{text}: {e}");
    }
}

#[test]
fn what_is_no_bytecode_of_the_source_is_not_taken() {
    let tag = r"printf '\013\0\0\0cpython-312'; ";
    let all = Duration::from_secs(20);
    for (text, why) in [
        (r"printf '\0\0\0\0\024\0\0\0xxxxxxxxxxxxxxxxxxxx'; /bin/cat >&2", "no bytecode of that source"),
        // The header of a file of another time.
        (r"printf '\0\0\0\0\020\0\0\0\313\r\r\n\0\0\0\0\1\0\0\0\3\0\0\0'; /bin/cat >&2", "no bytecode of that source"),
        (r"printf '\0\0\0\0\377\377\377\377'; /bin/cat >&2", "it says 4294967295 bytes"),
        (r"printf '\0\0\0\0\024\0\0\0x'", "" /* it has gone */),
    ] {
        let dir = script(&format!("{tag}{text}"));
        let mut interpreter = start(dir.path(), all).unwrap_or_else(|e| panic!("{text}: {e}"));
        let e = interpreter.compile("m.py", -1, 5, b"x=1").expect_err(text);
        assert!(matches!(e, Error::Interpreter { .. }) && e.to_string().contains(why), "{text}: {e}");
    }
    let dir = script(&format!(r"{tag}printf '\1\0\0\0\3\0\0\0E\033x'; /bin/cat >&2"));
    let mut interpreter = start(dir.path(), all).expect("it says the tag");
    let refused = interpreter.compile("m.py", -1, 5, b"x=1").expect("an answer");
    assert_eq!(refused, Outcome::Refused("Ex".into()), "no control characters");
}
