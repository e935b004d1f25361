//! The new config and manifest: the originals with what changed replaced, unknown fields kept; the tag last.

use serde_json::{Value, json};

use super::{Error, LayerReport, Options};
use crate::digest::Digest;
use crate::estargz::{Format, frame};
use crate::image::{Descriptor, Image, names, wrapped};
use crate::plan;
use crate::progress::Progress;
use crate::store::Images;

/// Of the encoder; in the annotation, because another version may write other bytes.
const ENCODER: &str = concat!("esgz/", env!("CARGO_PKG_VERSION"));

pub(super) struct NewLayer {
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: Digest,
    pub(super) report: LayerReport,
}

/// Positions of the history entries that have a layer.
pub(super) fn layered(history: &[Value]) -> impl DoubleEndedIterator<Item = usize> + '_ {
    history
        .iter()
        .enumerate()
        .filter(|(_, h)| h.get("empty_layer").and_then(Value::as_bool) != Some(true))
        .map(|(i, _)| i)
}

/// Takes off the hot layer of an earlier conversion: its copies may be older than the layers below.
pub(super) fn strip_hot_layer(image: &mut Image, progress: &dyn Progress) {
    // One that holds what the layers below have not is a layer as any other.
    let Some(hot) = image.manifest.layers.last().filter(|l| l.is_copies()) else { return };
    let added = match hot.annotation(names::LAYER_ADDED) {
        Some(_) => ", with the start-up files that it added: give --startup-layer again to have them",
        None => "",
    };
    progress.warn(&format!("the source carries a hot layer of an earlier conversion; it is left out and made anew where the layout asks for it{added}"));
    wrapped::unwrap(&image.manifest.raw, &mut image.config.raw);
    let layers = image.manifest.layers.len();
    image.manifest.layers.pop();
    image.config.diff_ids.pop();
    if let Some(history) = image.config.raw.get_mut("history").and_then(Value::as_array_mut)
        && layered(history).count() == layers
    {
        let last = layered(history).next_back();
        if let Some(last) = last {
            history.remove(last);
        }
    }
}

fn put_json(dst: &dyn Images, media_type: &str, value: &Value) -> Result<Descriptor, Error> {
    let bytes = value.to_string().into_bytes();
    let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
    dst.put(&descriptor, &bytes)?;
    Ok(descriptor)
}

/// The encoder and those of its options that decide a layer's bytes.
pub(super) fn encoder(options: &Options) -> String {
    let adaptive = match options.format {
        Format::Estargz if options.adaptive => "source-or:",
        _ if options.adaptive => "auto:",
        _ => "",
    };
    let library = match options.format {
        Format::Estargz => "libdeflate/1.26.1".into(),
        Format::ZstdChunked => format!("{} zstd/{}", options.format.name(), frame::version()),
    };
    let (level, chunk) = (options.level.get(), options.chunk_size);
    let mut uniform = format!("{ENCODER} {library} level={adaptive}{level} chunk={chunk}");
    if options.min_chunk_size > 0 {
        uniform = format!("{uniform} min-chunk={}", options.min_chunk_size);
    }
    if options.fitted {
        format!("{uniform} hot-level={} hot-chunk={}", options.hot_level.get(), plan::HOT_CHUNK)
    } else {
        uniform
    }
}

/// Says in a manifest or index what it was made from and how.
pub(super) fn provenance(raw: &mut Value, source: &Digest, key: Option<&str>, options: &Options) {
    if !raw["annotations"].is_object() {
        raw["annotations"] = json!({});
    }
    let annotations = &mut raw["annotations"];
    annotations[names::ENCODER] = json!(encoder(options));
    if let Some(key) = key {
        annotations[names::KEY] = json!(key);
    }
    // What the image says of its own base stays.
    if annotations.get(names::BASE_DIGEST).is_none() {
        annotations[names::BASE_DIGEST] = json!(source);
    }
    annotations[names::LAYOUT] = json!(options.layout.to_string());
    annotations[names::SOURCE] = json!(source);
}

/// What an image says of its read-ahead.
pub(super) struct Warm {
    /// The packed list for a reader on the node.
    pub(super) list: Option<String>,
    /// Start the embedded program before the image's own entrypoint.
    pub(super) wrap: bool,
}

/// Stores config and manifest. `key`: see [`super::reuse::image_key`].
pub(super) fn publish(
    dst: &dyn Images,
    image: &Image,
    layers: &[NewLayer],
    warm: &Warm,
    key: &str,
    options: &Options,
) -> Result<Digest, Error> {
    let mut config = image.config.raw.clone();
    let diff_ids: Vec<String> = layers.iter().map(|l| l.diff_id.to_string()).collect();
    config["rootfs"]["diff_ids"] = json!(diff_ids);
    let created = config.get("created").cloned();
    if let Some(history) = config.get_mut("history").and_then(Value::as_array_mut)
        && layered(history).count() == image.manifest.layers.len()
    {
        for l in layers.iter().filter(|l| l.report.kind == "hot") {
            // The time is the image's own: the same input gives the same bytes on any day.
            let mut entry = json!({ "created_by": format!("esgz convert --layout {}", options.layout), "comment": format!("hot layer, {} entries", l.report.entries.unwrap_or_default()) });
            if let Some(created) = &created {
                entry["created"] = created.clone();
            }
            history.push(entry);
        }
    }
    let original = if warm.wrap { Some(wrapped::wrap(&mut config).ok_or(Error::NothingToWrap)?) } else { None };
    let config = put_json(dst, names::CONFIG, &config)?;

    let mut manifest = image.manifest.raw.clone();
    manifest["schemaVersion"] = json!(2);
    manifest["mediaType"] = json!(names::MANIFEST);
    manifest["config"] = config.to_json();
    manifest["layers"] = layers.iter().map(|l| l.descriptor.to_json()).collect();
    provenance(&mut manifest, &image.descriptor.digest, Some(key), options);
    for (key, value) in [(names::WARM, &warm.list), (names::ENTRYPOINT, &original)] {
        match (value, manifest["annotations"].as_object_mut()) {
            (Some(value), _) => manifest["annotations"][key] = json!(value),
            // Of an earlier conversion.
            (None, Some(annotations)) => drop(annotations.shift_remove(key)),
            (None, None) => {}
        }
    }
    Ok(dst.put_manifest(names::MANIFEST, manifest.to_string().as_bytes())?)
}
