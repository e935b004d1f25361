//! Lists of other tools as profiles. Such lists name whole files in an order; a profile from one says so, and is worth that much.

mod parse;

use std::collections::HashSet;

use super::tree::{Node, Tree};
use super::{File, Header, Kind, Origin, Profile, Range, Recorder, SCHEMA, glob, union};
use crate::digest::Digest;
use crate::tar::clean;

use parse::Entry;
pub use parse::{Error, Format};

/// Pages, to which ranges are aligned.
const PAGE: u64 = 4096;

/// What is known of the image beside the list.
#[derive(Debug, Clone, Default)]
pub struct Context<'a> {
    /// Its reference, to be noted.
    pub image: Option<String>,
    /// Its manifest digest, to be noted; else the one in the list.
    pub image_digest: Option<Digest>,
    /// `os/arch`.
    pub platform: String,
    /// Its files: sizes, symlinks, and what patterns and folders stand for.
    pub tree: Option<&'a Tree>,
}

/// The profile, and what of the list did not become part of it.
#[derive(Debug)]
pub struct Imported {
    /// The profile.
    pub profile: Profile,
    /// Paths and patterns that no file of the image goes with.
    pub missing: Vec<String>,
    /// Files whose size is not known, so that they have no ranges.
    pub unsized_files: u64,
}

/// Makes a profile of a list.
pub fn import(format: Format, bytes: &[u8], context: &Context<'_>) -> Result<Imported, Error> {
    let list = parse::parse(format, bytes)?;
    let mut out = Builder { files: Vec::new(), seen: HashSet::new(), missing: Vec::new() };
    let mut seen = HashSet::new();
    // What an entry stands for is looked for once.
    for entry in list.entries.iter().filter(|e| seen.insert(e.path.as_str())) {
        out.add(format, entry, context.tree)?;
    }
    let digests: HashSet<Digest> = list.entries.iter().filter_map(|e| e.digest).collect();
    let named = digests.iter().next().copied().filter(|_| digests.len() == 1);
    let mut files = out.files;
    files.sort_by_key(|f| f.first_touch_ms);
    let ranges = list.entries.iter().any(|e| e.ranges.is_some());
    let header = Header {
        image: context.image.clone(),
        image_digest: context.image_digest.or(named),
        platform: context.platform.clone(),
        recorder: Recorder {
            name: format!("import ({})", format.name()),
            version: env!("CARGO_PKG_VERSION").into(),
            inflation: match (ranges, list.timed) {
                (true, _) => "ranges as the list has them; times are positions in the list",
                (false, true) => "whole files: the list does not say which bytes were read",
                (false, false) => {
                    "whole files: the list does not say which bytes were read; times are positions in the list"
                }
            }
            .into(),
            blind: "whatever the tool that made the list did not see; writes".into(),
        },
        until: "end of the list".into(),
        events: list.entries.len() as u64,
        ..Header::default()
    };
    let unsized_files = files.iter().filter(|f| f.size == 0 && context.tree.is_none()).count() as u64;
    let profile = Profile { schema: SCHEMA.into(), header, files, writes: vec![] };
    Ok(Imported { profile, missing: out.missing, unsized_files })
}

struct Builder {
    files: Vec<File>,
    seen: HashSet<String>,
    missing: Vec<String>,
}

impl Builder {
    fn add(&mut self, format: Format, entry: &Entry, tree: Option<&Tree>) -> Result<(), Error> {
        let literal = if format == Format::Paths { glob::literal(&entry.path) } else { Some(entry.path.clone()) };
        let found: Vec<(String, u64)> = match (tree, literal) {
            (None, None) => return Err(entry.needs_files("a path, as there are no files to find a pattern's in")),
            (None, Some(_)) if entry.ranges.is_some() => {
                return Err(
                    entry.needs_files("a whole file, as there are no files to tell the size that ranges lie in")
                );
            }
            // The root itself is no file.
            (None, Some(path)) => Some(clean(&path))
                .filter(|path| !path.is_empty())
                .map(|path| (format!("/{path}"), entry.size.unwrap_or(0)))
                .into_iter()
                .collect(),
            (Some(tree), Some(path)) => match tree.resolve(&path) {
                Some((path, Node::File { size })) => vec![(path, size)],
                Some((path, Node::Dir)) if format != Format::CtrRemote => tree.files_below(&path).collect(),
                _ => vec![],
            },
            (Some(tree), None) => {
                let pattern = if entry.path.starts_with('/') { entry.path.clone() } else { format!("/{}", entry.path) };
                let near = tree.files_with_prefix(glob::literal_prefix(&pattern));
                near.filter(|(path, _)| glob::matches(&pattern, path)).collect()
            }
        };
        if found.is_empty() {
            self.missing.push(entry.path.clone());
        }
        for (path, size) in found {
            if !self.seen.insert(path.clone()) {
                continue;
            }
            let at = entry.at_ms.unwrap_or(self.files.len() as u64);
            let ranges = match &entry.ranges {
                Some(ranges) => aligned(ranges, size, at),
                None if size > 0 => vec![Range(0, size, at)],
                None => vec![],
            };
            self.files.push(File {
                path,
                links: vec![],
                origin: Origin::Image,
                size,
                digest: None,
                first_touch_ms: at,
                kinds: vec![Kind::Open],
                ranges,
            });
        }
        Ok(())
    }
}

/// Ranges aligned outwards to pages, cut at the size; what lies behind the file is dropped.
fn aligned(ranges: &[(u64, u64)], size: u64, at: u64) -> Vec<Range> {
    let aligned = ranges.iter().filter(|r| r.0 < size && r.1 > 0).map(|r| {
        let start = r.0 / PAGE * PAGE;
        let end = r.0.saturating_add(r.1).checked_next_multiple_of(PAGE).unwrap_or(u64::MAX).min(size);
        Range(start, end - start, at)
    });
    union(aligned.collect())
}

#[cfg(test)]
mod tests {
    use super::super::export::{self, export};
    use super::super::sample::{file, profile};
    use super::super::tree::tests::tree;
    use super::super::{read, write};
    use super::*;

    fn with(tree: Option<&Tree>) -> Context<'_> {
        Context { platform: "linux/amd64".into(), tree, ..Context::default() }
    }

    fn shown(i: &Imported) -> Vec<(&str, u64, u64, usize)> {
        let read_back = read(&write(&i.profile)).expect("a valid profile");
        assert_eq!(read_back, i.profile);
        i.profile.files.iter().map(|f| (f.path.as_str(), f.size, f.first_touch_ms, f.ranges.len())).collect()
    }

    #[test]
    fn ctr_remote_records_become_whole_files_in_their_order() {
        let d = Digest::of(b"m");
        let text = format!(
            "{{\"path\":\"usr/bin/x\",\"manifestDigest\":\"{d}\",\"layerIndex\":3}}\n{{\"path\":\"etc/a\"}}\n\n{{\"path\":\"usr/bin/x\"}}\n"
        );
        let i = import(Format::CtrRemote, text.as_bytes(), &with(None)).expect("records");
        assert_eq!(shown(&i), [("/usr/bin/x", 0, 0, 0), ("/etc/a", 0, 1, 0)]);
        assert_eq!((i.unsized_files, i.profile.header.image_digest), (2, Some(d)));
        assert_eq!(i.profile.header.recorder.name, "import (ctr-remote)");
        let t = tree(&["usr/bin/x=>y", "usr/bin/y", "etc/"]);
        let i = import(Format::CtrRemote, text.as_bytes(), &with(Some(&t))).expect("records");
        assert_eq!((shown(&i), i.missing.clone()), (vec![("/usr/bin/y", 9, 0, 1)], vec!["etc/a".to_owned()]));
    }

    #[test]
    fn patterns_and_folders_stand_for_files() {
        let t = tree(&["lib/b.so", "lib/a.so", "lib/sub/c.so", "etc/x", "l=>etc"]);
        let list = b"# a comment\n\n/lib/*.so\n/l\nlib/**/c.*\n/none/*\n";
        let i = import(Format::Paths, list, &with(Some(&t))).expect("paths");
        let paths: Vec<_> = shown(&i).into_iter().map(|s| s.0.to_owned()).collect();
        assert_eq!(
            (paths.as_slice(), i.missing),
            (
                ["/lib/a.so", "/lib/b.so", "/etc/x", "/lib/sub/c.so"].map(String::from).as_slice(),
                vec!["/none/*".to_owned()]
            )
        );
        let e = import(Format::Paths, list, &with(None)).map(drop).expect_err("no files").to_string();
        assert_eq!(e, "line 3: found \"/lib/*.so\", expected a path, as there are no files to find a pattern's in");
    }

    #[test]
    fn nydus_lists_come_in_three_forms() {
        let i = import(Format::Nydus, b"/b\n/a*\n", &with(None)).expect("lines");
        assert_eq!(shown(&i), [("/b", 0, 0, 0), ("/a*", 0, 1, 0)]);
        let csv = b"path,size,elapsed\n/b,10,5000\n\"/a,\"\"x\",7 B,1.500 ms\n/c,1.5 KiB,2.0 s\n";
        let i = import(Format::Nydus, csv, &with(None)).expect("CSV");
        assert_eq!(shown(&i), [("/a,\"x", 7, 1, 1), ("/b", 10, 5, 1), ("/c", 0, 2000, 0)]);
        let t = tree(&["a"]);
        let json = br#"{"version":"v1","files":[{"path":"/a","ranges":[[0,1],[9,9]]},{"path":"/z"}]}"#;
        let i = import(Format::Nydus, json, &with(Some(&t))).expect("JSON");
        assert_eq!((shown(&i), i.missing.len()), (vec![("/a", 1, 0, 1)], 1));
        assert!(import(Format::Nydus, json, &with(None)).is_err(), "ranges without sizes");
    }

    #[test]
    fn ranges_are_aligned_and_end_with_the_file() {
        let r = aligned(&[(5000, 10), (0, 1), (19_999, 100), (20_000, 5), (8191, 2), (1, u64::MAX)], 20_000, 7);
        assert_eq!(r, [Range(0, 20_000, 7)]);
        assert_eq!(aligned(&[(5000, 10), (19_999, 100)], 20_000, 7), [Range(4096, 4096, 7), Range(16_384, 3616, 7)]);
    }

    #[test]
    fn what_is_exported_is_imported_again() {
        let mut p = profile();
        p.files = vec![
            file("/b/*?\\", 9, &[Range(0, 9, 0)]),
            file("/a", 100_000, &[Range(0, 4096, 1), Range(8192, 4096, 1)]),
        ];
        let mut t = Tree::default();
        for f in &p.files {
            t.add(&f.path, Node::File { size: f.size });
        }
        for (to, from, whole) in [
            (export::Format::CtrRemote, Format::CtrRemote, true),
            (export::Format::Nydus, Format::Nydus, true),
            (export::Format::Paths, Format::Paths, true),
            (export::Format::NydusRanges, Format::Nydus, false),
        ] {
            let i = import(from, export(&p, to).text.as_bytes(), &with(Some(&t))).expect("own list");
            assert!(i.missing.is_empty());
            let want: Vec<(&str, u64)> =
                p.files.iter().map(|f| (f.path.as_str(), if whole { f.size } else { f.touched_bytes() })).collect();
            let got: Vec<_> = i.profile.files.iter().map(|f| (f.path.as_str(), f.touched_bytes())).collect();
            assert_eq!(got, want, "{to:?}");
        }
    }
}
