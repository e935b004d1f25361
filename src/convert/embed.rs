//! The read-ahead inside the image: program and profile go into the hot layer, and the entrypoint starts the program first, so that a
//! plain start of the image is warm.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::Error;
use crate::digest::Digest;
use crate::image::wrapped;
use crate::tar::{self, Entry, Kind, Merged, Time, padding};

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
            let entry = Entry { kind, size, mode, ..blank(path) };
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

/// Of root, without a time.
fn blank(path: String) -> Entry {
    Entry {
        raw: Vec::new(),
        path,
        kind: Kind::File,
        size: 0,
        mode: 0,
        uid: 0,
        gid: 0,
        uname: String::new(),
        gname: String::new(),
        mtime: Time::default(),
        link: String::new(),
        device: (0, 0),
        xattrs: Vec::new(),
    }
}

/// The architecture of a static ELF program of 64 bits (ELF-64 Object File Format, "ELF Header", "Program Header").
fn arch(bytes: &[u8]) -> Result<&'static str, String> {
    const INTERPRETER: u32 = 3;
    let u16_at = |at: usize| bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes);
    let u32_at = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    let u64_at = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return Err("it is no 64-bit little-endian ELF program".into());
    }
    let broken = || String::from("its ELF header is cut off");
    let arch = match u16_at(18).ok_or_else(broken)? {
        62 => "amd64",
        183 => "arm64",
        other => return Err(format!("it is for ELF machine {other}: expected 62 (amd64) or 183 (arm64)")),
    };
    let from = u64_at(32).and_then(|n| usize::try_from(n).ok()).ok_or_else(broken)?;
    let (size, count) = (usize::from(u16_at(54).ok_or_else(broken)?), usize::from(u16_at(56).ok_or_else(broken)?));
    for i in 0..count {
        let at = from.checked_add(i * size).ok_or_else(broken)?;
        if at.checked_add(4).and_then(|_| u32_at(at)).ok_or_else(broken)? == INTERPRETER {
            return Err("it needs a dynamic linker, which an image may not have".into());
        }
    }
    Ok(arch)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with these program headers.
    fn elf(machine: u16, kinds: &[u32]) -> Vec<u8> {
        let mut out = b"\x7fELF\x02\x01".to_vec();
        out.resize(64, 0);
        out[18..20].copy_from_slice(&machine.to_le_bytes());
        out[32..40].copy_from_slice(&64u64.to_le_bytes());
        out[54..56].copy_from_slice(&56u16.to_le_bytes());
        out[56..58].copy_from_slice(&u16::try_from(kinds.len()).expect("few").to_le_bytes());
        for kind in kinds {
            let at = out.len();
            out.resize(at + 56, 0);
            out[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        }
        out
    }

    #[test]
    fn only_static_programs_of_a_known_architecture_are_embedded() {
        assert_eq!(arch(&elf(62, &[1, 2])), Ok("amd64"));
        assert_eq!(arch(&elf(183, &[1])), Ok("arm64"));
        let why = |bytes: &[u8]| arch(bytes).expect_err("it is refused");
        assert!(why(&elf(62, &[1, 3])).contains("dynamic linker"));
        assert!(why(&elf(3, &[])).contains("machine 3"));
        assert!(why(b"#!/bin/sh\n").contains("no 64-bit"));
        let whole = elf(62, &[1, 1, 1]);
        for cut in 0..whole.len() - 52 {
            assert!(arch(&whole[..cut]).is_err(), "{cut}");
        }
        let mut far = elf(62, &[1]);
        far[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(arch(&far).is_err());
        // What runs these tests is linked dynamically.
        let own = std::fs::read("/proc/self/exe").expect("ourselves");
        assert!(arch(&own).is_ok() || why(&own).contains("dynamic linker"));
    }
}
