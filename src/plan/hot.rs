//! The hot layer: which files are copied into one topmost, natively unpacked layer.
//!
//! On a lazy file system a small file costs a round trip and CPU, not bandwidth; served natively it costs neither. Large,
//! sparsely read files stay lazy below. Figures: `field/cold-start-experiments.md`, lesson 2.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use super::workload::Touched;
use super::{At, Contents};
use crate::profile::{File, Origin, Profile};
use crate::tar::{Kind, Merged, parents};

/// Every touched file up to this size is copied: 2,043 files with 293 MB of a vLLM start.
const SMALL: u64 = 16 << 20;
/// Files up to this size are copied when at least half of them is touched.
const DENSE: u64 = 64 << 20;

/// Which touched files go into the hot layer: small or densely read ones, but for those that a plan names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Files that go in all the same, by path, with the size that they were profiled with.
    pub also: BTreeMap<String, u64>,
    /// Files that stay out all the same.
    pub not: BTreeMap<String, u64>,
}

impl Rule {
    /// Whether it names no file.
    pub fn is_usual(&self) -> bool {
        self.also.is_empty() && self.not.is_empty()
    }

    /// Whether a touched file goes into the hot layer. `size`: that of the file in the image; what was planned for a file of
    /// another size means nothing.
    pub fn takes(&self, file: &File, size: u64) -> bool {
        self.takes_any(&file.path, size, file.touched_bytes())
    }

    /// The same of a file as a workload has it.
    pub fn takes_touched(&self, file: &Touched) -> bool {
        self.takes_any(&file.path, file.size, file.touched)
    }

    fn takes_any(&self, path: &str, size: u64, touched: u64) -> bool {
        let named = |list: &BTreeMap<String, u64>| list.get(path) == Some(&size);
        !named(&self.not) && (named(&self.also) || size <= SMALL || size <= DENSE && touched >= size / 2)
    }
}

/// Paths that may lead into the hot layer, as layers spell them; more than will be there, never less than needed but for
/// names that the recorder did not see.
pub(super) fn paths(profile: &Profile, rule: &Rule) -> HashSet<String> {
    let files =
        profile.files.iter().filter(|f| f.origin == Origin::Image && !f.is_looked_up_only() && rule.takes(f, f.size));
    files.flat_map(|f| [&f.path].into_iter().chain(&f.links)).map(|p| p.trim_start_matches('/').to_owned()).collect()
}

/// Entries in their order: first touch, parents and hard-link targets first. A hard-link set goes whole or not at all; a
/// file that a later layer changes is never copied from the earlier one, since only visible entries are.
pub(super) fn entries(contents: &Contents<'_>, merged: &Merged, found: &[(&File, At)], rule: &Rule) -> Vec<At> {
    let layers = contents.layers;
    let sets = link_sets(contents);
    let mut out = Vec::new();
    let mut placed = HashSet::new();
    for (file, content) in found {
        let entry = &layers[content.layer].entries[content.index];
        if !rule.takes(file, entry.size) {
            continue;
        }
        let mut set = vec![*content];
        set.extend(sets.get(content).into_iter().flatten());
        let path = |at: &At| layers[at.layer].entries[at.index].path.as_str();
        let whole = set.iter().all(|at| merged.get(path(at)) == Some(*at) && merged.odd_parent(path(at)).is_none());
        if !whole {
            continue;
        }
        for at in set {
            for above in [""].into_iter().chain(parents(path(&at))) {
                if let Some(dir) = merged.get(above)
                    && placed.insert(dir)
                {
                    out.push(dir);
                }
            }
            if placed.insert(at) {
                out.push(at);
            }
        }
    }
    out
}

/// The other names of each file that has any, in layer order.
fn link_sets(contents: &Contents<'_>) -> HashMap<At, Vec<At>> {
    let mut sets: HashMap<At, Vec<At>> = HashMap::new();
    for (layer, l) in contents.layers.iter().enumerate() {
        for (index, e) in l.entries.iter().enumerate() {
            let at = At { layer, index };
            if e.kind == Kind::Hardlink
                && let Some(content) = contents.of(at)
            {
                sets.entry(content).or_default().push(at);
            }
        }
    }
    sets
}
