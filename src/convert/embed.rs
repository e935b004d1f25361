//! The read-ahead inside the image: program and profile go into the hot layer, and the entrypoint starts the program first, so that a
//! plain start of the image is warm.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::Error;
use crate::digest::Digest;
use crate::elf;
use crate::image::wrapped;
use crate::tar::{self, Entry, Kind, Merged, padding};

/// Larger programs are none of ours.
const MAX_PROGRAM: u64 = 256 << 20;

/// What the files that are embedded are called among those that a hot layer adds.
pub(super) const CLASS: &str = "warm";

/// A program that can be embedded.
pub(super) struct Program {
    path: PathBuf,
    bytes: Vec<u8>,
    /// As images spell it.
    arch: &'static str,
    pub(super) digest: Digest,
}

/// What goes into the hot layer.
pub(super) struct Embedded<'a> {
    entries: Vec<(Entry, Option<Digest>)>,
    payloads: Vec<&'a [u8]>,
}

impl Program {
    /// Reads a program and checks that it runs wherever it is put.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let fail = |why: String| Error::Program { path: path.into(), why };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(|e| fail(e.to_string()))?;
        file.take(MAX_PROGRAM + 1).read_to_end(&mut bytes).map_err(|e| fail(e.to_string()))?;
        if bytes.len() as u64 > MAX_PROGRAM {
            return Err(fail(format!("it is larger than {MAX_PROGRAM} bytes")));
        }
        let arch = arch(&bytes).map_err(fail)?;
        let digest = Digest::of(&bytes);
        Ok(Self { path: path.into(), bytes, arch, digest })
    }

    /// The entries for an image of this platform. `profile`: the written profile.
    pub(super) fn entries<'a>(
        &'a self,
        profile: &'a [u8],
        platform: &str,
        merged: &Merged,
    ) -> Result<Embedded<'a>, Error> {
        let fail = |why: String| Error::Program { path: self.path.clone(), why };
        let wanted = platform.split('/').nth(1).unwrap_or_default();
        if !wanted.is_empty() && wanted != self.arch {
            return Err(fail(format!("it is for {}: the image is for {platform}", self.arch)));
        }
        let folder = wrapped::FOLDER.trim_start_matches('/');
        if merged.get(folder).is_some() {
            return Err(fail(format!("the image has a {} of its own", wrapped::FOLDER)));
        }
        let entry = |path: String, kind, mode, size| {
            let entry = Entry { size, mode, ..Entry::bare(&path, kind) };
            let raw = tar::headers(&entry).and_then(|raw| raw.ok_or_else(|| io::ErrorKind::Unsupported.into()));
            let raw = raw.map_err(|e| fail(e.to_string()))?;
            // As those who verify it will see it.
            let read = tar::Reader::new(&raw[..]).next().ok().flatten();
            read.ok_or_else(|| fail("its header cannot be written".into()))
        };
        let file = |name: &str, mode, bytes: &[u8]| {
            entry(format!("{folder}/{name}"), Kind::File, mode, bytes.len() as u64)
                .map(|e| (e, Some(Digest::of(bytes))))
        };
        let entries = vec![
            (entry(folder.into(), Kind::Dir, 0o755, 0)?, None),
            file(wrapped::PROGRAM, 0o755, &self.bytes)?,
            file(wrapped::PROFILE, 0o644, profile)?,
        ];
        Ok(Embedded { entries, payloads: vec![&[], &self.bytes, profile] })
    }
}

impl Embedded<'_> {
    /// The entries with the digests of their contents.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Entry, Option<Digest>)> {
        self.entries.iter().map(|(entry, digest)| (entry, *digest))
    }

    /// Files among them.
    pub(super) fn files(&self) -> usize {
        self.entries.iter().filter(|(e, _)| e.kind == Kind::File).count()
    }

    /// Writes headers and payloads.
    pub(super) fn write(&self, tar: &mut impl Write) -> io::Result<()> {
        for ((entry, _), payload) in self.entries.iter().zip(&self.payloads) {
            tar.write_all(&entry.raw)?;
            tar.write_all(payload)?;
            tar.write_all(&vec![0; padding(entry.size)])?;
        }
        Ok(())
    }
}

/// The architecture of a static program, as images spell it.
fn arch(bytes: &[u8]) -> Result<&'static str, String> {
    let head = elf::head_of(bytes).map_err(|e| e.to_string())?;
    if head.interpreter.is_some() {
        return Err("it needs a dynamic linker, which an image may not have".into());
    }
    match head.machine {
        62 => Ok("amd64"),
        183 => Ok("arm64"),
        other => Err(format!("it is for ELF machine {other}: expected 62 (amd64) or 183 (arm64)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_static_programs_of_a_known_architecture_are_embedded() {
        assert_eq!(arch(&elf::sample(62, &[1, 2])), Ok("amd64"));
        assert_eq!(arch(&elf::sample(183, &[1])), Ok("arm64"));
        let why = |bytes: &[u8]| arch(bytes).expect_err("it is refused");
        assert!(why(&elf::sample(62, &[1, 3])).contains("dynamic linker"));
        assert!(why(&elf::sample(3, &[1])).contains("machine 3"));
        assert!(why(b"#!/bin/sh\n").contains("no 64-bit"));
        // What runs these tests is linked dynamically.
        let own = std::fs::read("/proc/self/exe").expect("ourselves");
        assert!(arch(&own).is_ok() || why(&own).contains("dynamic linker"));
    }
}
