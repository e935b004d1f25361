//! Reading and writing profile files, `-` for stdin and stdout.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use super::super::output::Output;
use super::super::{Failure, whole};
use crate::profile::{self, Profile};

/// Whether a path means stdin or stdout.
pub(super) fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Reads a whole file, or stdin, up to the size of the largest profile.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    let named = |e: io::Error| Failure::new(1, format!("cannot read {}: {e}", path.display()));
    let source: Box<dyn Read> =
        if is_dash(path) { Box::new(io::stdin().lock()) } else { Box::new(File::open(path).map_err(named)?) };
    let mut all = Vec::new();
    // One byte more than allowed tells a file that is too large, also where its size cannot be asked for.
    source.take(profile::MAX_BYTES + 1).read_to_end(&mut all).map_err(named)?;
    if all.len() as u64 > profile::MAX_BYTES {
        return Err(Failure::new(1, format!("{}: at most {} bytes are read", path.display(), profile::MAX_BYTES)));
    }
    Ok(all)
}

/// Reads a profile.
pub(in super::super) fn read(path: &Path) -> Result<Profile, Failure> {
    read_with_bytes(path).map(|(_, profile)| profile)
}

/// Reads a profile and what it is written as.
pub(super) fn read_with_bytes(path: &Path) -> Result<(Vec<u8>, Profile), Failure> {
    let bytes = bytes(path)?;
    let profile = profile::read(&bytes).map_err(|e| {
        Failure::new(1, format!("profile {}: {}", path.display(), super::super::chain(&e)))
            .hint("a profile is written by `esgz profile`; lists of other tools become one with `esgz profile import`")
    })?;
    Ok((bytes, profile))
}

/// Reads several profiles.
pub(super) fn read_all<'a>(paths: impl IntoIterator<Item = &'a Path> + Clone) -> Result<Vec<Profile>, Failure> {
    if paths.clone().into_iter().filter(|p| is_dash(p)).count() > 1 {
        return Err(Failure::new(2, "- is given twice: expected one profile from stdin"));
    }
    paths.into_iter().map(read).collect()
}

/// Whether a file can be written, before much is done for what goes into it.
pub(super) fn check(path: &Path) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::new(1, format!("cannot write {}: {e}", path.display()));
    match fs::metadata(path) {
        _ if is_dash(path) => Ok(()),
        Ok(m) if m.is_dir() => Err(failed(io::ErrorKind::IsADirectory.into())),
        Ok(m) if !m.is_file() => Ok(()),
        _ => NamedTempFile::new_in(whole::folder(path)).map(drop).map_err(failed),
    }
}

/// Writes a file whole or not at all, or to stdout.
pub(super) fn write(path: &Path, bytes: &[u8], out: &Output) -> Result<(), Failure> {
    let written = || {
        if is_dash(path) {
            return out.bytes(bytes);
        }
        whole::write(path, |file| file.write_all(bytes))
    };
    written().map_err(|e| Failure::new(1, format!("cannot write {}: {e}", path.display())))
}

/// Says loudly what makes a profile incomplete.
pub(super) fn warn(profile: &Profile, out: &Output) {
    let header = &profile.header;
    if header.lost_events > 0 {
        let lost = super::super::output::grouped(header.lost_events);
        out.say(format_args!("warning: the profile is incomplete: its recorder lost {lost} events"));
    }
    if header.until.contains("incomplete") {
        out.say(format_args!("warning: the recording did not reach its end: {}", header.until));
    }
}
