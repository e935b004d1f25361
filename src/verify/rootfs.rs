//! Two root file systems, path by path.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::content::Content;
use crate::convert::{added_class, additions_digest};
use crate::digest::Digest;
use crate::estargz::landmark;
use crate::tar::{At, Entry, Kind, Merged, Time, parents, survivors, whiteout};

/// The root file system of stacked layers.
pub(super) struct RootFs<'a> {
    layers: Vec<&'a Content>,
    merged: Merged,
    /// For each content the first path, in byte order, that shows it, and how many do.
    names: HashMap<At, (String, usize)>,
}

/// What a path shows.
struct Node<'a> {
    entry: &'a Entry,
    /// The entry at the end of its hard links, itself without any.
    shown: &'a Entry,
    kind: &'static str,
    size: u64,
    digest: Option<Digest>,
    /// First of the names that share its content.
    first: Option<&'a str>,
    /// How many names share it.
    names: usize,
}

impl<'a> RootFs<'a> {
    pub(super) fn of(layers: impl IntoIterator<Item = &'a Content>) -> Self {
        let layers: Vec<&Content> = layers.into_iter().collect();
        let merged = Merged::of(layers.iter().map(|l| l.entries.as_slice()), landmark::is_ours);
        let mut names: HashMap<At, (String, usize)> = HashMap::new();
        for (path, at) in merged.iter() {
            if let Some(index) = layers[at.layer].contents[at.index] {
                let content = At { layer: at.layer, index };
                names.entry(content).or_insert_with(|| (path.into(), 0)).1 += 1;
            }
        }
        Self { layers, merged, names }
    }

    /// Visible files and their bytes, names that share one counted once.
    pub(super) fn totals(&self) -> (usize, u64) {
        let shown = self.names.keys().map(|at| &self.layers[at.layer].entries[at.index]);
        let files: Vec<u64> = shown.filter(|e| e.kind == Kind::File).map(|e| e.size).collect();
        (files.len(), files.iter().sum())
    }

    /// Visible paths.
    pub(super) fn paths(&self) -> usize {
        self.merged.iter().count()
    }

    fn node(&self, path: &str) -> Option<(At, Node<'_>)> {
        let at = self.merged.get(path)?;
        let layer = self.layers[at.layer];
        let entry = &layer.entries[at.index];
        let content = layer.contents[at.index];
        let shared = content.and_then(|index| self.names.get(&At { layer: at.layer, index }));
        let shown = content.map_or(entry, |i| &layer.entries[i]);
        let node = Node {
            entry,
            shown,
            kind: match shown.kind {
                Kind::Dir => "folder",
                Kind::File => "file",
                Kind::Hardlink => "hard link without target",
                Kind::Symlink => "symlink",
                Kind::Char => "character device",
                Kind::Block => "block device",
                Kind::Fifo => "pipe",
            },
            size: shown.size,
            digest: content.and_then(|i| layer.digests[i]),
            first: shared.map(|(p, _)| p.as_str()),
            names: shared.map_or(0, |(_, n)| *n),
        };
        Some((at, node))
    }

    /// The paths that a layer has and `expected` has not, and a digest over what they show.
    pub(super) fn additions(&self, layer: usize, expected: &RootFs<'_>) -> (BTreeSet<&str>, Digest) {
        let paths: BTreeSet<&str> = self
            .merged
            .iter()
            .filter(|(p, at)| at.layer == layer && expected.merged.get(p).is_none())
            .map(|(p, _)| p)
            .collect();
        let content = self.layers[layer];
        let entries = paths.iter().filter_map(|p| self.merged.get(p)).map(|at| at.index);
        let digest = additions_digest(entries.map(|i| (&content.entries[i], content.digests[i])));
        (paths, digest)
    }

    /// How many of these paths, which a hot layer adds, are of which class; `say(path, what)` takes those that none may add.
    pub(super) fn classes(
        &self,
        added: &BTreeSet<&str>,
        mut say: impl FnMut(&str, String),
    ) -> BTreeMap<&'static str, usize> {
        let mut classes = BTreeMap::new();
        for path in added {
            let Some((_, node)) = self.node(path) else { continue };
            let (class, may) = added_class(path, node.size, node.shown.kind);
            *classes.entry(class).or_default() += 1;
            if !may {
                say(path, format!("a file of class {class}, which no hot layer may add"));
            }
        }
        classes
    }

    /// Compares with what is `expected` besides the paths in `added`; `say(layer, path, what)` takes every difference, with the
    /// layer of `self` that shows the path.
    pub(super) fn compare(
        &self,
        expected: &RootFs<'_>,
        added: &BTreeSet<&str>,
        mut say: impl FnMut(Option<usize>, &str, String),
    ) {
        let all: BTreeSet<&str> = self.merged.iter().chain(expected.merged.iter()).map(|(p, _)| p).collect();
        for path in all {
            match (self.node(path), expected.node(path)) {
                (Some((at, found)), Some((_, want))) => {
                    for what in differences(&found, &want) {
                        say(Some(at.layer), path, what);
                    }
                }
                (Some(_), None) if added.contains(path) => {}
                (Some((at, found)), None) => {
                    say(Some(at.layer), path, format!("a {} that is not in the source", found.kind));
                }
                (None, Some((_, want))) => say(None, path, format!("missing: expected a {}", want.kind)),
                (None, None) => {}
            }
        }
    }

    /// Where a lazy mount shows something else than an ordinary unpack.
    pub(super) fn lazy_traps(&self, lazy: impl Fn(usize) -> bool, mut say: impl FnMut(usize, &str, String)) {
        for (path, at) in self.merged.iter().filter(|(_, at)| lazy(at.layer)) {
            // Landmarks and TOCs are not in the merged root.
            let ours = || parents(path).find(|p| landmark::is_ours(p));
            if let Some(odd) = self.merged.odd_parent(path).or_else(ours) {
                say(
                    at.layer,
                    path,
                    format!("{odd:?} above it is no folder: an ordinary unpack goes through it, a lazy mount cannot"),
                );
            }
        }
        for (i, layer) in self.layers.iter().enumerate().filter(|(i, _)| lazy(*i)) {
            let own: HashSet<&str> = layer.entries.iter().map(|e| e.path.as_str()).collect();
            let missing: BTreeSet<&str> =
                layer.entries.iter().flat_map(|e| parents(&e.path)).filter(|p| !own.contains(p)).collect();
            for path in missing {
                // Visible from below although this layer has things in it.
                if self.merged.get(path).is_some_and(|at| at.layer < i) {
                    say(i, path, "the layer has entries below this folder and none for it: a lazy mount shows 0755, root and no time instead of what lower layers have".into());
                }
            }
        }
    }
}

fn differences(found: &Node<'_>, want: &Node<'_>) -> Vec<String> {
    let mut out = Vec::new();
    if found.kind != want.kind {
        return vec![format!("a {}: expected a {}", found.kind, want.kind)];
    }
    let mut differ = |what: &str, found: String, want: String| {
        if found != want {
            out.push(format!("{what} {found}: expected {want}"));
        }
    };
    let (f, w) = (found.entry, want.entry);
    let digest = |d: Option<Digest>| d.map_or("none".into(), |d| d.to_string());
    differ("size", found.size.to_string(), want.size.to_string());
    differ("content", digest(found.digest), digest(want.digest));
    differ("mode", format!("{:04o}", f.mode), format!("{:04o}", w.mode));
    differ("uid", f.uid.to_string(), w.uid.to_string());
    differ("gid", f.gid.to_string(), w.gid.to_string());
    differ("owner name", format!("{:?}", f.uname), format!("{:?}", w.uname));
    differ("group name", format!("{:?}", f.gname), format!("{:?}", w.gname));
    differ("mtime", time(f.mtime), time(w.mtime));
    differ("link", format!("{:?}", found.shown.link), format!("{:?}", want.shown.link));
    differ("device", format!("{:?}", found.shown.device), format!("{:?}", want.shown.device));
    let first = |n: &Node<'_>| format!("{:?}", n.first.unwrap_or_default());
    differ("shares its content with", first(found), first(want));
    differ("number of names", found.names.to_string(), want.names.to_string());
    let sorted = |e: &Entry| e.xattrs.iter().cloned().collect::<BTreeMap<_, _>>();
    let (f, w) = (sorted(f), sorted(w));
    for key in f.keys().chain(w.keys()).collect::<BTreeSet<_>>() {
        let value = |m: &BTreeMap<String, Vec<u8>>| m.get(key).map_or("none".into(), |v| v.escape_ascii().to_string());
        differ(&format!("extended attribute {key}"), value(&f), value(&w));
    }
    out
}

fn time(t: Time) -> String {
    format!("{}.{:09}", t.seconds, t.nanos)
}

/// The whiteouts of a layer pair are the same.
pub(super) fn compare_whiteouts(found: &Content, want: &Content, mut say: impl FnMut(&str, String)) {
    let list = |c: &Content| -> BTreeSet<String> {
        survivors(&c.entries)
            .into_iter()
            .map(|i| c.entries[i].path.clone())
            .filter(|p| whiteout::parse(p).is_some())
            .collect()
    };
    let (found, want) = (list(found), list(want));
    for path in want.difference(&found) {
        say(path, "this whiteout of the source is missing".into());
    }
    for path in found.difference(&want) {
        say(path, "this whiteout is not in the source".into());
    }
}
