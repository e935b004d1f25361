//! What a layer needs of those below it to look the same when it is mounted by itself: folders that it has entries in and
//! does not list. What cannot be made to look the same is refused by name.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::LayerError;
use super::ingest::Content;
use crate::estargz::landmark;
use crate::plan::LayerIndex;
use crate::tar::{Entry, Kind, Merged, parents, survivors};

/// Completes all layers, lowest first. An error comes with its layer.
///
/// A lazy mount shows a folder that its layer does not list as 0755, root and no time, over whatever lower layers say; an
/// ordinary unpack keeps their folder (in containerd it is copied up). The lower layer's entry is therefore repeated.
pub(super) fn complete(indexes: &mut [LayerIndex], contents: &mut [Content]) -> Result<(), (usize, LayerError)> {
    let mut merged = Merged::default();
    let mut added: Vec<usize> = Vec::new();
    for layer in 0..indexes.len() {
        let entries = &indexes[layer].entries;
        links(entries).map_err(|e| (layer, e))?;
        merged.add(entries, landmark::is_ours);
        through_links(entries, &merged).map_err(|e| (layer, e))?;
        let own: HashSet<&str> = entries.iter().map(|e| e.path.as_str()).collect();
        let missing: BTreeSet<&str> =
            entries.iter().flat_map(|e| parents(&e.path)).filter(|p| !own.contains(p)).collect();
        let folders: Vec<Entry> = missing
            .into_iter()
            .filter_map(|path| merged.get(path))
            .filter(|at| at.layer < layer)
            // Positions in the merged root are those before the layer was completed.
            .map(|at| indexes[at.layer].entries[at.index + added[at.layer]].clone())
            .collect();
        added.push(folders.len());
        indexes[layer].digests.splice(0..0, folders.iter().map(|_| None));
        contents[layer].chunks.splice(0..0, folders.iter().map(|_| Vec::new()));
        indexes[layer].entries.splice(0..0, folders);
    }
    Ok(())
}

/// Every hard link leads to an entry in front of it that is still the same when the layer is complete.
fn links(entries: &[Entry]) -> Result<(), LayerError> {
    let kept = survivors(entries);
    let last: HashMap<&str, usize> = kept.iter().map(|&i| (entries[i].path.as_str(), i)).collect();
    for &i in kept.iter().filter(|&&i| entries[i].kind == Kind::Hardlink) {
        let e = &entries[i];
        let why = match last.get(e.link.as_str()) {
            None => "it is not in this layer, and a lazy mount sees no other",
            Some(&at) if at == i => "that is itself",
            Some(&at) if at > i => "it stands behind the link, or is replaced there by another file",
            Some(&at) if entries[at].kind == Kind::Dir => "a folder has no second name",
            Some(_) if landmark::is_ours(&e.link) && !landmark::is_ours(&e.path) => {
                "a file of that name is eStargz's own, and made anew with another content"
            }
            Some(_) => continue,
        };
        return Err(LayerError::Link { path: e.path.clone(), target: e.link.clone(), why });
    }
    Ok(())
}

/// No entry lies below something that is no folder, or is none any more when landmark and TOC are in their place.
fn through_links(entries: &[Entry], merged: &Merged) -> Result<(), LayerError> {
    let odd = |path| merged.odd_parent(path).or_else(|| parents(path).find(|p| landmark::is_ours(p)));
    match entries.iter().find_map(|e| odd(&e.path).map(|odd| (e, odd))) {
        Some((e, odd)) => Err(LayerError::NoFolder { path: e.path.clone(), parent: odd.into() }),
        None => Ok(()),
    }
}
