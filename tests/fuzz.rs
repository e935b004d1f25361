//! The fuzz targets on stable: every file of `testdata/fuzz`, and some hundred mutants of each. Which mutants is decided by
//! the file's name alone, so that a failure comes back.
#![expect(clippy::unwrap_used, reason = "a failed test is what it is for")]

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets are programs of their own")]
mod targets;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

/// Mutants of each file.
const MUTANTS: u64 = 400;

/// What a parser may stumble over: limits, signs, ends of text.
const WORDS: &[&[u8]] = &[
    b"18446744073709551615",
    b"9223372036854775807",
    b"4294967296",
    b"-1",
    b"1e400",
    b"null",
    b"[]",
    b"{}",
    b"\"\"",
    b"../",
    b"//",
    b"\0",
    b"\n",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
];

/// Xorshift64*: the same numbers everywhere.
struct Dice(u64);

impl Dice {
    fn of(text: &str, n: u64) -> Self {
        // FNV-1a; never zero, which xorshift would stay at.
        let hash =
            text.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        Self(hash.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1)
    }

    /// A number below `end`; 0 if that is 0.
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let roll = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16;
        usize::try_from(roll % (end.max(1) as u64)).unwrap()
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let from = self.below(length);
        from..from + self.below((length - from).min(64) + 1)
    }
}

/// One to four changes; `others` are the files of the same target.
fn mutant(bytes: &[u8], others: &[(String, Vec<u8>)], dice: &mut Dice) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(out.len());
        match dice.below(8) {
            0 | 1 => {
                if let Some(b) = out.get_mut(at) {
                    *b ^= 1 << dice.below(8);
                }
            }
            2 => {
                if let Some(b) = out.get_mut(at) {
                    *b = dice.below(256).try_into().unwrap();
                }
            }
            3 => out.truncate(at),
            4 => drop(out.drain(dice.range(out.len()))),
            5 => {
                let again = out[dice.range(out.len())].to_vec();
                out.splice(at..at, again);
            }
            6 => {
                let word = WORDS[dice.below(WORDS.len())];
                let end = if dice.below(2) == 0 { at } else { (at + word.len()).min(out.len()) };
                out.splice(at..end, word.iter().copied());
            }
            _ => {
                let other = &others[dice.below(others.len())].1;
                let from = dice.below(other.len());
                out.truncate(at);
                out.extend_from_slice(&other[from..]);
            }
        }
    }
    out
}

/// Runs a target on its corpus.
fn run(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz").join(target);
    let mut corpus: Vec<(String, Vec<u8>)> = fs::read_dir(&folder)
        .unwrap()
        .map(|f| f.unwrap())
        .map(|f| (f.file_name().into_string().unwrap(), fs::read(f.path()).unwrap()))
        .collect();
    corpus.sort();
    assert!(corpus.len() >= 5, "{} files in {}", corpus.len(), folder.display());
    for (name, bytes) in &corpus {
        let attempt = |what: &str, bytes: &[u8]| {
            assert!(catch_unwind(|| body(bytes)).is_ok(), "{target}/{name}, {what}: {}", bytes.escape_ascii());
        };
        attempt("as it is", bytes);
        for n in 0..MUTANTS {
            attempt(&format!("mutant {n}"), &mutant(bytes, &corpus, &mut Dice::of(&format!("{target}/{name}"), n)));
        }
    }
}

#[test]
fn gzip() {
    run("gzip", targets::gzip);
}

#[test]
fn tar() {
    run("tar", targets::tar);
}

#[test]
fn toc() {
    run("toc", targets::toc);
}

#[test]
fn footer() {
    run("footer", targets::footer);
}

#[test]
fn manifest() {
    run("manifest", targets::manifest);
}

#[test]
fn profile() {
    run("profile", targets::profile);
}

#[test]
fn list() {
    run("list", targets::list);
}

/// A target that panics would be seen.
#[test]
#[should_panic(expected = "footer/")]
fn a_panic_is_told_with_its_input() {
    run("footer", |bytes| assert!(bytes.len() % 7 != 3));
}
