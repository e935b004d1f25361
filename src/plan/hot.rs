//! The hot layer: which files are copied into one topmost, natively unpacked layer.
//!
//! On a lazy file system a small file costs a round trip and CPU, not bandwidth; served natively it costs neither. Large,
//! sparsely read files stay lazy below. Figures: `field/cold-start-experiments.md`, lesson 2.

use std::collections::{HashMap, HashSet};

use super::{At, Contents};
use crate::profile::{File, Origin, Profile};
use crate::tar::{Kind, Merged, parents};

/// Every touched file up to this size is copied: 2,043 files with 293 MB of a vLLM start.
const SMALL: u64 = 16 << 20;
/// Files up to this size are copied when at least half of them is touched.
const DENSE: u64 = 64 << 20;

/// Whether a touched file of this size goes into the hot layer.
pub(super) fn belongs(file: &File, size: u64) -> bool {
    size <= SMALL || size <= DENSE && file.touched_bytes() >= size / 2
}

/// Paths that may lead into the hot layer, as layers spell them; more than will be there, never less than needed but for
/// names that the recorder did not see.
pub(super) fn paths(profile: &Profile) -> HashSet<String> {
    let files =
        profile.files.iter().filter(|f| f.origin == Origin::Image && !f.is_looked_up_only() && belongs(f, f.size));
    files.flat_map(|f| [&f.path].into_iter().chain(&f.links)).map(|p| p.trim_start_matches('/').to_owned()).collect()
}

/// Entries in their order: first touch, parents and hard-link targets first. A hard-link set goes whole or not at all; a
/// file that a later layer changes is never copied from the earlier one, since only visible entries are.
pub(super) fn entries(contents: &Contents<'_>, merged: &Merged, found: &[(&File, At)]) -> Vec<At> {
    let layers = contents.layers;
    let sets = link_sets(contents);
    let mut out = Vec::new();
    let mut placed = HashSet::new();
    for (file, content) in found {
        let entry = &layers[content.layer].entries[content.index];
        if !belongs(file, entry.size) {
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
