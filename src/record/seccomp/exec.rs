//! What the kernel reads of a program before it runs: the beginning of the file, and of the interpreters that it names.

use std::io;

use super::caller::{Caller, Found, is_moot};
use super::notebook::Fact;
use crate::elf;
use crate::record::touch::EXEC;

/// What is looked at, and reported, of each file: the kernel reads its first page.
const HEAD: usize = 4096;
/// The kernel reads a script's first line up to here (`BINPRM_BUF_SIZE`).
const LINE: usize = 256;
/// Scripts may name scripts that often.
const DEPTH: usize = 5;

/// The file and its interpreters, by a path inside the caller's root.
pub(super) fn executed(caller: &Caller, base: &[u8], inside: Vec<u8>) -> io::Result<Vec<Fact>> {
    let mut facts = Vec::new();
    let mut next = Some(inside);
    for _ in 0..=DEPTH {
        let Some(inside) = next.take() else { break };
        let path = caller.contained(base, &inside)?;
        match caller.find(&inside) {
            Ok(found) if found.stat.is_regular() => {
                next = program(&found, &mut facts);
                facts.push(Fact::Named { key: found.stat.key, path });
            }
            Ok(_) => facts.push(Fact::LookedUp(path)),
            Err(e) if is_moot(&e) => facts.push(Fact::LookedUp(path)),
            Err(e) => return Err(e),
        }
        next = match next {
            Some(path) => Some(caller.absolute(libc::AT_FDCWD, &path)?),
            None => None,
        };
    }
    Ok(facts)
}

/// One file; gives the path of its interpreter.
fn program(found: &Found, facts: &mut Vec<Fact>) -> Option<Vec<u8>> {
    let stat = found.stat;
    facts.push(Fact::Touched { stat, kinds: EXEC, start: 0, end: HEAD as u64 });
    facts.extend(found.path().ok().map(|path| Fact::Mapped { stat, path }));
    // A file that may be executed but not read keeps its interpreter to itself; its mappings show later.
    let head = found.read(0, HEAD).ok()?;
    if head.starts_with(b"#!") {
        return script(&head);
    }
    // Where the program headers do not lie in the first page, nothing is said.
    let (offset, length) = elf::head_of(&head).ok()?.interpreter?;
    let name = found.read(offset, usize::try_from(length).ok()?.min(HEAD)).ok()?;
    let name = name.split(|&b| b == 0).next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The interpreter in a `#!` line.
fn script(head: &[u8]) -> Option<Vec<u8>> {
    let line = head.get(2..head.len().min(LINE))?.split(|&b| b == b'\n').next()?;
    let name = line.trim_ascii_start().split(|&b| b == b' ' || b == b'\t' || b == 0).next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_found_in_scripts_and_programs() {
        assert_eq!(script(b"#! /usr/bin/env python3\nx"), Some(b"/usr/bin/env".to_vec()));
        assert_eq!(script(b"#!/bin/sh"), Some(b"/bin/sh".to_vec()));
        assert_eq!(script(b"#!\n/bin/sh"), None);
        let me = std::fs::read("/bin/sh").expect("every system has it");
        let (offset, length) = elf::head_of(&me[..4096]).expect("a program").interpreter.expect("linked dynamically");
        let (offset, length) = (usize::try_from(offset).expect("small"), usize::try_from(length).expect("small"));
        assert!(me[offset..offset + length].windows(3).any(|w| w == b"ld-"), "{:?}", &me[offset..offset + length]);
    }
}
