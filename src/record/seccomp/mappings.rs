//! Which files a process has mapped, from its `maps`, and which of their pages it has touched.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;

use super::caller::{Caller, is_moot, stat_path};
use super::notebook::{Fact, Stat};
use super::pages::Pagemap;
use crate::record::touch::MMAP;

/// Mappings of one process that are looked at; the kernel's own limit is 65,530 by default.
const MAPS_BYTES: u64 = 32 << 20;

/// One line of `maps` that maps a file.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    addresses: Range<u64>,
    offset: u64,
    inode: u64,
    /// As shown to us, with ` (deleted)` where it is.
    path: Vec<u8>,
}

/// What is known of files mapped under a path, from when they were.
pub(super) trait Known {
    /// The files, the last one last.
    fn mapped(&self, path: &[u8]) -> Vec<Stat>;
}

/// The pages of mapped files that process `pid` has in its page tables, inside an address range.
pub(super) fn sample(pid: u32, within: &Range<u64>, known: &impl Known) -> io::Result<Vec<Fact>> {
    let mut text = Vec::new();
    File::open(format!("/proc/{pid}/maps"))?.take(MAPS_BYTES).read_to_end(&mut text)?;
    let mut facts = Vec::new();
    let mut pagemap = None;
    let mut last: Option<(Mapping, Option<Stat>)> = None;
    for line in text.split(|&b| b == b'\n') {
        let Some(mapping) = parse(line).filter(|m| m.addresses.start < within.end && within.start < m.addresses.end)
        else {
            continue;
        };
        let same = last.take().filter(|(m, _)| (m.inode, &m.path) == (mapping.inode, &mapping.path));
        let stat = if let Some((_, stat)) = same {
            stat
        } else {
            let found = identify(pid, &mapping, known);
            // Shared memory has no file.
            if found.is_none() && is_of_a_file(&mapping.path) {
                facts.push(Fact::Missed);
            }
            found.filter(Stat::is_regular)
        };
        if let Some(stat) = stat {
            let map = match &mut pagemap {
                Some(map) => map,
                none => none.insert(Pagemap::open(pid)?),
            };
            let asked = mapping.addresses.start.max(within.start)..mapping.addresses.end.min(within.end);
            let file = |address: u64| (address - mapping.addresses.start).saturating_add(mapping.offset);
            let there = map.there(asked)?;
            facts.extend(there.into_iter().map(|r| Fact::Touched {
                stat,
                kinds: MMAP,
                start: file(r.start),
                end: file(r.end),
            }));
        }
        last = Some((mapping, stat));
    }
    Ok(facts)
}

/// `7f00-7f10 r--p 00002000 fe:00 1234      /usr/lib/x.so`.
fn parse(line: &[u8]) -> Option<Mapping> {
    let slash = line.iter().position(|&b| b == b'/')?;
    let mut words = std::str::from_utf8(&line[..slash]).ok()?.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let addresses = hex(start)?..hex(end)?;
    let offset = hex(words.nth(1)?)?;
    let inode: u64 = words.nth(1)?.parse().ok()?;
    // `anon_inode:/…` is no path.
    (words.next().is_none() && inode != 0 && addresses.start < addresses.end).then(|| Mapping {
        addresses,
        offset,
        inode,
        path: unescape(&line[slash..]),
    })
}

/// The kernel writes a line end in a path as `\012`, and nothing else.
fn unescape(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, behind)) = rest.split_first() {
        if let Some(behind) = rest.strip_prefix(br"\012") {
            out.push(b'\n');
            rest = behind;
        } else {
            out.push(first);
            rest = behind;
        }
    }
    out
}

const DELETED: &[u8] = b" (deleted)";

fn is_of_a_file(path: &[u8]) -> bool {
    ![b"/memfd:".as_slice(), b"/SYSV", b"/dev/", b"/i915", b"/drm "].iter().any(|p| path.starts_with(p))
}

/// Which file it is, as `stat` names it. The inode in `maps` is the same on most file systems, but not on an overlay before 6.8,
/// and its device often is another one.
fn identify(pid: u32, mapping: &Mapping, known: &impl Known) -> Option<Stat> {
    let same = |s: &Stat| s.key.1 == mapping.inode;
    let name = mapping.path.strip_suffix(DELETED);
    if name.is_none() {
        // As we see it, and as a process with other mounts does.
        let ours = stat_path(&mapping.path).ok();
        if let Some(stat) = ours.filter(same) {
            return Some(stat);
        }
        let theirs = Caller::new(pid).find(&mapping.path).ok().map(|f| f.stat);
        if let Some(stat) = theirs.filter(same) {
            return Some(stat);
        }
        let noted = known.mapped(&mapping.path);
        return noted.iter().rev().find(|s| same(s)).or(noted.last()).copied().or(ours).or(theirs);
    }
    let mut noted = known.mapped(&mapping.path);
    noted.extend(name.map(|name| known.mapped(name)).unwrap_or_default());
    match noted.iter().rev().find(|s| same(s)) {
        Some(stat) => Some(*stat),
        None if noted.len() == 1 => noted.first().copied(),
        None => None,
    }
}

/// Whether a failed [`sample`] lost something.
pub(super) fn is_loss(e: &io::Error) -> bool {
    !is_moot(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_with_files_are_mappings() {
        let line = b"7f00000000-7f00002000 r--p 00003000 fe:00 1234                       /a b\\012c (deleted)";
        let want = Mapping {
            addresses: 0x7f_0000_0000..0x7f_0000_2000,
            offset: 0x3000,
            inode: 1234,
            path: b"/a b\nc (deleted)".to_vec(),
        };
        assert_eq!(parse(line), Some(want));
        for other in [
            "7f00000000-7f00002000 rw-p 00000000 00:00 0 ",
            "7f00000000-7f00002000 rw-p 00000000 00:00 0                              [heap]",
            "7f00000000-7f00002000 rw-p 00000000 00:0e 1035                           anon_inode:/x",
            "7f00002000-7f00000000 rw-p 00000000 fe:00 12                             /x",
            "/",
            "",
        ] {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
    }
}
