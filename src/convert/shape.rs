//! Layers that change nothing are left out: those without entries, and of several with one diffID those that the others make
//! superfluous. GKE image streaming takes no image with empty or duplicate layers, and each costs a lazy mount.

use std::collections::HashMap;

use super::publish::layered;
use crate::digest::Digest;
use crate::estargz::landmark;
use crate::image::Image;
use crate::plan::LayerIndex;
use crate::tar::Merged;

/// What every path shows, as (diffID, position): layers of one diffID have the same entries.
fn view<'a>(indexes: &'a [LayerIndex], ids: &[Digest], kept: &[bool]) -> Vec<(&'a str, Digest, usize)> {
    let layers: Vec<usize> = (0..indexes.len()).filter(|&i| kept[i]).collect();
    let merged = Merged::of(layers.iter().map(|&i| indexes[i].entries.as_slice()), landmark::is_ours);
    let show = |at: crate::tar::At| {
        (indexes[layers[at.layer]].entries[at.index].path.as_str(), ids[layers[at.layer]], at.index)
    };
    merged.iter().map(|(_, at)| show(at)).collect()
}

/// Which layers stay. The root file system that they make is the same as that of all.
pub(super) fn kept(indexes: &[LayerIndex], ids: &[Digest]) -> Vec<bool> {
    let empty = |i: &LayerIndex| i.entries.iter().all(|e| landmark::is_ours(&e.path));
    let mut kept: Vec<bool> = indexes.iter().map(|i| !empty(i)).collect();
    let mut same: HashMap<Digest, Vec<usize>> = HashMap::new();
    for (i, id) in ids.iter().enumerate().filter(|(i, _)| kept[*i]) {
        same.entry(*id).or_default().push(i);
    }
    same.retain(|_, layers| layers.len() > 1);
    if !same.is_empty() {
        let all = view(indexes, ids, &kept);
        // From the lowest: the uppermost of a kind hides what the others show, unless layers between them take it away.
        let mut several: Vec<usize> = same.values().flatten().copied().collect();
        several.sort_unstable();
        for i in several {
            let others = same[&ids[i]].iter().filter(|&&other| other != i && kept[other]).count();
            kept[i] = others == 0;
            if !kept[i] && view(indexes, ids, &kept) != all {
                kept[i] = true;
            }
        }
    }
    // An image has at least one layer.
    if !kept.contains(&true)
        && let Some(last) = kept.last_mut()
    {
        *last = true;
    }
    kept
}

/// Takes the layers that do not stay out of manifest and config; in the history they become entries without layer.
pub(super) fn drop_layers(image: &mut Image, kept: &[bool]) {
    if let Some(history) = image.config.raw.get_mut("history").and_then(serde_json::Value::as_array_mut) {
        let positions: Vec<usize> = layered(history).collect();
        if positions.len() == kept.len() {
            for (at, _) in positions.into_iter().zip(kept).filter(|(_, stays)| !**stays) {
                history[at]["empty_layer"] = true.into();
            }
        }
    }
    retain(&mut image.manifest.layers, kept);
    retain(&mut image.config.diff_ids, kept);
}

/// Keeps the items whose flag is set.
pub(super) fn retain<T>(items: &mut Vec<T>, kept: &[bool]) {
    let mut stays = kept.iter();
    items.retain(|_| *stays.next().unwrap_or(&true));
}
