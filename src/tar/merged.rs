//! The merged root file system of stacked layers: which layer's entry a path resolves to (OCI image spec, "Applying
//! Changesets").

use std::collections::{BTreeMap, HashMap};

use super::whiteout::{self, Hides};
use super::{Entry, Kind, parents};

/// An entry by layer (lowest is 0) and position in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// Layer.
    pub layer: usize,
    /// Position in the layer.
    pub index: usize,
}

/// Path to entry, for every path that a container sees.
#[derive(Debug, Default)]
pub struct Merged {
    paths: BTreeMap<String, (At, Kind)>,
    layers: usize,
}

/// Positions of the entries that count in one layer: of several with one path the last, as every unpacker has it.
pub fn survivors(entries: &[Entry]) -> Vec<usize> {
    let mut last = HashMap::new();
    for (i, e) in entries.iter().enumerate() {
        last.insert(e.path.as_str(), i);
    }
    let mut out: Vec<usize> = last.into_values().collect();
    out.sort_unstable();
    out
}

impl Merged {
    /// Merges layers, lowest first; `skip` leaves out paths that belong to no image.
    pub fn of<'a>(layers: impl IntoIterator<Item = &'a [Entry]>, skip: impl Fn(&str) -> bool) -> Self {
        let mut merged = Self::default();
        for entries in layers {
            merged.add(entries, &skip);
        }
        merged
    }

    /// Puts a layer on top.
    pub fn add(&mut self, entries: &[Entry], skip: impl Fn(&str) -> bool) {
        let layer = self.layers;
        self.layers += 1;
        let kept: Vec<usize> = survivors(entries).into_iter().filter(|&i| !skip(&entries[i].path)).collect();
        // Whiteouts act on lower layers only, wherever they stand in their own.
        for &i in &kept {
            match whiteout::parse(&entries[i].path) {
                Some(Hides::Path(path)) => {
                    self.paths.remove(&path);
                    self.remove_below(&path, layer);
                }
                Some(Hides::Below(dir)) => self.remove_below(&dir, layer),
                None => {}
            }
        }
        for &i in &kept {
            let e = &entries[i];
            if whiteout::parse(&e.path).is_some() {
                continue;
            }
            // What was a folder, listed or not, takes what lower layers had in it along.
            if e.kind != Kind::Dir && !e.path.is_empty() {
                self.remove_below(&e.path, layer);
            }
            self.paths.insert(e.path.clone(), (At { layer, index: i }, e.kind));
        }
    }

    /// Removes what layers under `layer` have in a folder.
    fn remove_below(&mut self, dir: &str, layer: usize) {
        if dir.is_empty() {
            self.paths.retain(|_, (at, _)| at.layer >= layer);
            return;
        }
        // '0' is the character behind '/'.
        let range = format!("{dir}/")..format!("{dir}0");
        let gone: Vec<String> =
            self.paths.range(range).filter(|(_, (at, _))| at.layer < layer).map(|(p, _)| p.clone()).collect();
        for path in gone {
            self.paths.remove(&path);
        }
    }

    /// The entry that a cleaned path resolves to. Symlinks are not followed.
    pub fn get(&self, path: &str) -> Option<At> {
        self.paths.get(path).map(|(at, _)| *at)
    }

    /// All paths in byte order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, At)> {
        self.paths.iter().map(|(p, (at, _))| (p.as_str(), *at))
    }

    /// The first folder above a path that is no folder, such as a symlink: an ordinary unpack follows it, a lazy mount
    /// cannot.
    pub fn odd_parent<'a>(&self, path: &'a str) -> Option<&'a str> {
        parents(path).find(|p| self.paths.get(*p).is_some_and(|(_, k)| *k != Kind::Dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(paths: &[&str]) -> Vec<Entry> {
        let kind = |p: &str| if p.ends_with('/') { Kind::Dir } else { Kind::File };
        paths.iter().map(|p| Entry::bare(p.trim_end_matches('/'), kind(p))).collect()
    }

    fn merged(layers: &[&[&str]]) -> Vec<String> {
        let layers: Vec<_> = layers.iter().map(|l| layer(l)).collect();
        let m = Merged::of(layers.iter().map(Vec::as_slice), |p| p == "skipped");
        m.iter().map(|(p, at)| format!("{p}@{}", at.layer)).collect()
    }

    #[test]
    fn upper_layers_win_and_whiteouts_hide_only_what_is_below_them() {
        let cases: [(&[&[&str]], &[&str]); 8] = [
            (&[&["a", "b"], &["a", "skipped"]], &["a@1", "b@0"]),
            (&[&["d/", "d/x", "d0"], &[".wh.d"]], &["d0@0"]),
            (&[&["d/", "d/x"], &["d/", "d/y", "d/.wh..wh..opq"]], &["d@1", "d/y@1"]),
            (&[&["d/", "d/x"], &["d"]], &["d@1"]),
            (&[&["d/x"], &["d"]], &["d@1"]),
            (&[&["a"], &["a", ".wh.a"]], &["a@1"]),
            (&[&["d/", "d/x"], &["d/"]], &["d@1", "d/x@0"]),
            (&[&["a", "b/", "b/c"], &[".wh..wh..opq", "z"]], &["z@1"]),
        ];
        for (layers, want) in cases {
            assert_eq!(merged(layers), want, "{layers:?}");
        }
    }

    #[test]
    fn of_two_entries_with_one_path_the_last_counts() {
        let l = layer(&["a", "b", "a"]);
        assert_eq!(survivors(&l), [1, 2]);
    }
}
