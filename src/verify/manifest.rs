//! What manifest and config say, against each other, the source and the layers.

use serde_json::Value;

use super::stream::Totals;
use super::{Problem, Say, lazy_layers, source_layers};
use crate::estargz::{Format, Layer};
use crate::image::{Descriptor, Image, names, wrapped};

/// The image as a whole.
pub(super) fn check(image: &Image, source: Option<&Image>, out: &mut Vec<Problem>) {
    let mut say = Say { layer: None, out };
    for (what, found, want) in [
        ("manifest", &image.manifest.media_type, names::MANIFEST),
        ("config", &image.manifest.config.media_type, names::CONFIG),
    ] {
        if found != want {
            say.say("", format!("the {what} has media type {found:?}: expected {want:?}"));
        }
    }
    let layers = &image.manifest.layers;
    for (i, layer) in layers.iter().enumerate() {
        if layer.is_hot() && i + 1 != layers.len() {
            say.say("", format!("layer {i} of {} is a hot layer: expected it on top, at most once", layers.len()));
        }
    }
    if let Some((recorded, found)) = image.stale_hot_layer() {
        say.say("", format!("the hot layer was made over other layers: they were {recorded}, and are {found}"));
    }
    let Some(source) = source else { return };
    let (found, want) = (lazy_layers(image), source_layers(source));
    if found.len() > want.len() {
        say.say("", format!("{} layers without the hot one: the source has {}", found.len(), want.len()));
    }
    if let Some(recorded) = image.manifest.raw.get("annotations").and_then(|a| a.get(names::SOURCE)) {
        let want = source.descriptor.digest.to_string();
        if recorded.as_str() != Some(&want) {
            say.say("", format!("annotation {} is {recorded}: the source is {want}", names::SOURCE));
        }
    }
    for (i, (layer, from)) in found.iter().zip(align(found, want)).enumerate() {
        let Some(recorded) = layer.annotation(names::LAYER_SOURCE) else { continue };
        let want = from.map(|j| want[j].digest.to_string());
        if want.as_deref() != Some(recorded) {
            let want = want.map_or("the source has no such layer".into(), |d| format!("the source's layer is {d}"));
            let what = format!("annotation {} is {recorded}: {want}", names::LAYER_SOURCE);
            say.out.push(Problem { layer: Some(i), path: String::new(), what });
        }
    }
    // A wrapped entrypoint counts for the original, of either image.
    let original = |image: &Image| {
        let mut config = image.config.raw.clone();
        wrapped::unwrap(&image.manifest.raw, &mut config);
        config
    };
    config(&original(image), &original(source), &mut say);
}

/// For each layer of the converted image its place in the source, by what it says it was made from: the source may have
/// layers between them that changed nothing. Layers that say something else are taken in their order where both images have
/// as many, and have no place otherwise.
pub(super) fn align(found: &[Descriptor], want: &[Descriptor]) -> Vec<Option<usize>> {
    let mut next = 0;
    let by_source: Vec<Option<usize>> = found
        .iter()
        .map(|layer| {
            let from = layer.annotation(names::LAYER_SOURCE)?;
            let at = next + want.iter().skip(next).position(|w| w.digest.to_string() == from)?;
            next = at + 1;
            Some(at)
        })
        .collect();
    if by_source.contains(&None) && found.len() == want.len() {
        (0..found.len()).map(Some).collect()
    } else {
        by_source
    }
}

/// Everything but the layers is the source's.
fn config(found: &Value, want: &Value, say: &mut Say<'_>) {
    let (Some(found), Some(want)) = (found.as_object(), want.as_object()) else { return };
    let ours = |key: &str| matches!(key, "rootfs" | "history");
    for key in found.keys().chain(want.keys().filter(|k| !found.contains_key(*k))).filter(|k| !ours(k)) {
        let shown = |v: Option<&Value>| v.map_or("absent".into(), ToString::to_string);
        if found.get(key) != want.get(key) {
            say.say("", format!("config: {key} is {}: expected {}", shown(found.get(key)), shown(want.get(key))));
        }
    }
}

/// One layer against its descriptor and diffID.
pub(super) fn check_layer(image: &Image, i: usize, lazy: Option<&Layer>, totals: &Totals, say: &mut Say<'_>) {
    let descriptor = &image.manifest.layers[i];
    let mut differ = |what: &str, found: String, want: String| {
        if found != want {
            say.say("", format!("{what} {found}: expected {want}"));
        }
    };
    differ("digest", totals.digest.to_string(), descriptor.digest.to_string());
    differ("size", totals.size.to_string(), descriptor.size.to_string());
    differ("diffID", totals.diff_id.to_string(), image.config.diff_ids[i].to_string());
    let kind = descriptor.annotation(names::LAYER_KIND);
    let uncompressed = descriptor.annotation(names::UNCOMPRESSED_SIZE);
    if uncompressed.is_some() || kind.and_then(Format::from_name).is_some() {
        let found = uncompressed.unwrap_or("absent").to_owned();
        differ(&format!("annotation {}", names::UNCOMPRESSED_SIZE), found, totals.uncompressed.to_string());
    }
    let recorded = descriptor.annotation(names::TOC_DIGEST);
    match lazy {
        Some(layer) => {
            let found = recorded.unwrap_or("absent").to_owned();
            differ(&format!("annotation {}", names::TOC_DIGEST), found, layer.toc_digest.to_string());
            let chunked = layer.chunked.iter().flat_map(|c| {
                [(names::CHUNKED_CHECKSUM, c.checksum.to_string()), (names::CHUNKED_POSITION, c.position.clone())]
            });
            for (key, want) in chunked {
                differ(&format!("annotation {key}"), descriptor.annotation(key).unwrap_or("absent").into(), want);
            }
        }
        None if descriptor.is_hot() => {
            if let Some(found) = recorded {
                say.say("", format!("annotation {} is {found} on an ordinary layer", names::TOC_DIGEST));
            }
        }
        // The layer was refused already.
        None => {}
    }
}
