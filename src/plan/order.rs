//! The order of a layer's entries: prioritized ones first, with everything that must stand before them.

use std::collections::{BTreeSet, HashMap};

use crate::estargz::landmark;
use crate::tar::whiteout;
use crate::tar::{Entry, Kind, parents, survivors};

/// Positions in the source layer, in their final order.
#[derive(Debug, PartialEq, Eq)]
pub struct Order {
    /// In front of the landmark.
    pub front: Vec<usize>,
    /// Behind it, in source order.
    pub rest: Vec<usize>,
}

/// Orders a layer. In front come the prioritized entries as given, each behind its parent folders, its hard-link target
/// and every whiteout of itself or of a folder above it (an unpacker that met the file first would delete it again).
/// Dropped are those that another layer has instead (`moved`), entries that a later one of the same path replaces, and what
/// an earlier conversion put there.
pub fn order(entries: &[Entry], prioritized: &[usize], moved: &BTreeSet<usize>) -> Order {
    let stays = |i: &usize| !moved.contains(i) && !landmark::is_ours(&entries[*i].path);
    let kept: Vec<usize> = survivors(entries).into_iter().filter(stays).collect();
    let by_path: HashMap<&str, usize> = kept.iter().map(|&i| (entries[i].path.as_str(), i)).collect();
    let mut mover = Mover { entries, by_path, moved: vec![false; entries.len()], front: Vec::new() };
    for &i in prioritized {
        mover.bring(&entries[i].path);
    }
    let Mover { moved, front, .. } = mover;
    Order { front, rest: kept.into_iter().filter(|&i| !moved[i]).collect() }
}

struct Mover<'a> {
    entries: &'a [Entry],
    by_path: HashMap<&'a str, usize>,
    moved: Vec<bool>,
    front: Vec<usize>,
}

impl<'a> Mover<'a> {
    fn place(&mut self, path: &str) {
        if let Some(&i) = self.by_path.get(path)
            && !std::mem::replace(&mut self.moved[i], true)
        {
            self.front.push(i);
        }
    }

    /// Places an entry behind all that its chain of hard links leads to.
    fn bring(&mut self, path: &'a str) {
        let entries = self.entries;
        let (mut chain, mut next) = (Vec::new(), path);
        while let Some(&i) = self.by_path.get(next).filter(|i| !self.moved[**i]) {
            // Marked, so that a cycle ends.
            self.moved[i] = true;
            chain.push(i);
            if entries[i].kind != Kind::Hardlink {
                break;
            }
            next = &entries[i].link;
        }
        for i in chain.into_iter().rev() {
            self.moved[i] = false;
            self.bring_one(&entries[i].path);
        }
    }

    /// Places an entry behind its folders and the whiteouts that act on it.
    fn bring_one(&mut self, path: &'a str) {
        let above = || parents(path).chain([path]);
        self.place("");
        for step in above() {
            let (dir, name) = step.rsplit_once('/').unwrap_or(("", step));
            let slash = if dir.is_empty() { "" } else { "/" };
            self.place(&format!("{dir}{slash}{}{name}", whiteout::PREFIX));
            if step != path {
                self.place(step);
            }
        }
        self.place(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(specs: &[&str]) -> Vec<Entry> {
        specs
            .iter()
            .map(|s| {
                let (path, link) = s.split_once("=>").unwrap_or((s, ""));
                let kind = if !link.is_empty() {
                    Kind::Hardlink
                } else if path.ends_with('/') {
                    Kind::Dir
                } else {
                    Kind::File
                };
                Entry { link: link.into(), ..Entry::bare(path.trim_end_matches('/'), kind) }
            })
            .collect()
    }

    fn ordered(specs: &[&str], first: &[usize]) -> (Vec<String>, Vec<String>) {
        let e = entries(specs);
        let o = order(&e, first, &BTreeSet::new());
        let names = |v: Vec<usize>| v.into_iter().map(|i| e[i].path.clone()).collect();
        (names(o.front), names(o.rest))
    }

    #[test]
    fn parents_and_link_targets_come_first() {
        let (front, rest) = ordered(&["/", "a/", "a/b/", "a/b/c", "x", "y", "z=>y"], &[6, 3]);
        assert_eq!(front, ["", "y", "z", "a", "a/b", "a/b/c"]);
        assert_eq!(rest, ["x"]);
    }

    #[test]
    fn a_whiteout_stays_in_front_of_what_it_hides() {
        let (front, rest) = ordered(&[".wh.d", "d/", "d/.wh.f", "d/f", "e"], &[3]);
        assert_eq!(front, [".wh.d", "d", "d/.wh.f", "d/f"]);
        assert_eq!(rest, ["e"]);
    }

    #[test]
    fn duplicates_and_the_formats_own_files_are_dropped() {
        let (front, rest) = ordered(&["a", ".prefetch.landmark", "b", "a", "stargz.index.json"], &[]);
        assert_eq!(front, [""; 0]);
        assert_eq!(rest, ["b", "a"]);
    }

    #[test]
    fn what_is_moved_is_dropped() {
        let e = entries(&["a/", "a/b", "c=>a/b", "d"]);
        let o = order(&e, &[3], &BTreeSet::from([1, 2]));
        assert_eq!((o.front, o.rest), (vec![3], vec![0]));
    }

    #[test]
    fn link_chains_and_cycles_end() {
        assert_eq!(ordered(&["a", "b=>a", "c=>b"], &[2]).0, ["a", "b", "c"]);
        assert_eq!(ordered(&["b=>c", "c=>b"], &[0]).0.len(), 2);
        // Longer than any stack is deep.
        let chain: Vec<String> =
            std::iter::once("0".into()).chain((1..200_000).map(|n| format!("{n}=>{}", n - 1))).collect();
        let specs: Vec<&str> = chain.iter().map(String::as_str).collect();
        assert_eq!(ordered(&specs, &[199_999]).0.len(), 200_000);
    }
}
