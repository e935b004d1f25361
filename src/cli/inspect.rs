//! `esgz inspect`.

use std::collections::{BTreeMap, HashSet};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::Failure;
use super::output::{Output, megabytes};
use super::platform::{Platforms, platforms};
use crate::convert::startup;
use crate::digest::Digest;
use crate::estargz::{Layer, landmark};
use crate::image::{Descriptor, Image, Reference, names};
use crate::profile::{File, carried};
use crate::record;
use crate::store::index::{Child, Index};
use crate::store::{self, Blobs, Images};
use crate::tar::clean;
use crate::verify;

/// Show an image's layers, TOCs, landmarks and prefetch sizes
///
/// Reads the manifest, the config and, of every eStargz layer, the footer and the TOC.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The image
    image: Reference,
    /// Platform to pick from an index; all, or several with commas between, shows the index and these of its images
    #[arg(long, value_name = "OS/ARCH", default_value = "linux/amd64", value_parser = platforms)]
    platform: Platforms,
    /// Compare what compiled caches in the hot layer are bound to (GPU, driver, processor) with this machine
    #[arg(long)]
    host: bool,
    /// List the TOC of every layer in its order: layer, offset in the blob, size, path
    #[arg(long)]
    files: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    reference: String,
    digest: Digest,
    platform: String,
    /// Of the manifest, ours alone.
    annotations: BTreeMap<String, String>,
    layers: Vec<LayerReport>,
    /// Bytes of all layers as stored.
    compressed: u64,
    /// Bytes that the snapshotter prefetches.
    prefetch: u64,
    /// Bytes of the hot layer as stored.
    hot: u64,
    /// What its hot layer adds to the image, by class.
    #[serde(skip_serializing_if = "Option::is_none")]
    added: Option<String>,
    /// Facts about the machine that compiled caches among that were made on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    made_on: BTreeMap<String, String>,
    /// Where this machine is another one, if that was asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mismatches: Vec<startup::Mismatch>,
    /// What makes the image as a whole wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct IndexReport {
    reference: String,
    digest: Digest,
    /// Of the index, ours alone.
    annotations: BTreeMap<String, String>,
    /// In the order of the index.
    images: Vec<Report>,
}

#[derive(Debug, Serialize)]
struct LayerReport {
    index: usize,
    /// `estargz`, `zstd:chunked`, `hot`, or the compression of an ordinary layer.
    kind: &'static str,
    digest: Digest,
    size: u64,
    uncompressed_size: Option<u64>,
    #[serde(flatten)]
    toc: Option<TocReport>,
}

#[derive(Debug, Serialize)]
struct TocReport {
    toc_digest: Digest,
    /// Whether the layer's annotation names this TOC: mounted lazily only then.
    toc_annotated: bool,
    toc_offset: u64,
    /// Bytes of the TOC as stored.
    toc_size: u64,
    entries: usize,
    files: usize,
    chunks: usize,
    /// Compressed members that hold them; fewer where small files share some.
    members: usize,
    /// `prefetch`, `no-prefetch` or `none`.
    landmark: &'static str,
    /// Entries in front of the landmark.
    prioritized: usize,
    prefetch_size: Option<u64>,
    /// What the stock reader would trip over.
    problems: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    list: Vec<Listed>,
}

#[derive(Debug, Serialize)]
struct Listed {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    offset: u64,
    size: u64,
}

pub(super) fn run(args: &Args, out: &Output) -> Result<u8, Failure> {
    let failed = |e: store::Error| super::store_failure(&e, &args.image);
    let store = store::open(&args.image, false).map_err(failed)?;
    let one = |store: &dyn Images, platform: &str| -> Result<Report, Failure> {
        let mut report = report(&args.image, store, &store.image(platform).map_err(failed)?, args.files)?;
        if args.host {
            report.mismatches = startup::mismatch(&report.made_on, &record::machine());
        }
        Ok(report)
    };
    let shown = |report: &Report| {
        if args.json {
            out.json(report);
        } else {
            print(report, out);
        }
        code(report)
    };
    let list = match &args.platform {
        Platforms::One(platform) => return Ok(shown(&one(&*store, platform)?)),
        Platforms::Index(list) => list,
    };
    let Some(index) = Index::open(&*store).map_err(failed)? else { return Ok(shown(&one(&*store, "")?)) };
    let mut images = Vec::new();
    for part in index.select(list).map_err(failed)? {
        images.push(one(&Child::new(&*store, Some(part.descriptor.clone()), &part.platform), "")?);
    }
    let report = IndexReport {
        reference: args.image.to_string(),
        digest: index.descriptor.digest,
        annotations: ours(&index.raw),
        images,
    };
    if args.json {
        out.json(&report);
    } else {
        out.data(format_args!("{}\n{}\nindex", report.reference, report.digest));
        for (key, value) in &report.annotations {
            out.data(format_args!("{key}: {value}"));
        }
        for image in &report.images {
            out.data("");
            print(image, out);
        }
    }
    Ok(report.images.iter().map(code).max().unwrap_or(0))
}

fn code(report: &Report) -> u8 {
    if report.problems.is_empty() { 0 } else { 3 }
}

fn print(report: &Report, out: &Output) {
    out.data(format_args!("{}\n{}\n{}", report.reference, report.digest, report.platform));
    for (key, value) in &report.annotations {
        out.data(format_args!("{key}: {value}"));
    }
    out.data(table(&report.layers));
    out.data(format_args!(
        "{} bytes compressed, {} prefetched, {} in the hot layer",
        report.compressed, report.prefetch, report.hot
    ));
    if let Some(added) = &report.added {
        out.data(format_args!("the hot layer adds {}", added.escape_debug()));
    }
    for (fact, value) in &report.made_on {
        out.data(format_args!("compile caches made with {}: {}", fact.escape_debug(), value.escape_debug()));
    }
    for mismatch in &report.mismatches {
        out.data(format_args!("warning: {}", mismatch.to_string().escape_debug()));
    }
    for problem in &report.problems {
        out.data(problem);
    }
    for layer in &report.layers {
        let Some(toc) = &layer.toc else { continue };
        for problem in &toc.problems {
            out.data(format_args!("layer {}: {problem}", layer.index));
        }
        for l in &toc.list {
            out.data(format_args!("{}\t{}\t{}\t{}\t{}", layer.index, l.kind, l.offset, l.size, l.path.escape_debug()));
        }
    }
}

/// Annotations that this program wrote, of a manifest or index.
fn ours(raw: &serde_json::Value) -> BTreeMap<String, String> {
    let annotations = raw.get("annotations").and_then(|a| a.as_object()).into_iter().flatten();
    annotations
        .filter(|(key, _)| key.starts_with("dev.esgz."))
        .map(|(k, v)| (k.clone(), v.as_str().map_or_else(|| v.to_string(), |text| shown(k, text))))
        .collect()
}

/// The value of an annotation; of the packed list for `esgz warm node` what is in it, and what the wrapped entrypoint means.
fn shown(key: &str, text: &str) -> String {
    match key {
        names::WARM => match carried::unpack(text) {
            Ok(list) => {
                let bytes: u64 = list.files.iter().map(File::touched_bytes).fold(0, u64::saturating_add);
                let ranges: usize = list.files.iter().map(|f| f.ranges.len()).sum();
                format!(
                    "{} of {} lazy files in {ranges} ranges, packed {} bytes",
                    megabytes(bytes),
                    list.files.len(),
                    text.len()
                )
            }
            Err(e) => format!("not usable: {e}"),
        },
        names::ENTRYPOINT => {
            let original = if text.is_empty() { "none" } else { text };
            format!("{original}, behind the embedded read-ahead; a pod's own command replaces both")
        }
        _ => text.into(),
    }
}

fn report(reference: &Reference, blobs: &dyn Blobs, image: &Image, files: bool) -> Result<Report, Failure> {
    let layers = image.manifest.layers.iter().enumerate();
    let layers: Vec<LayerReport> = layers.map(|(i, l)| layer(i, l, blobs, files)).collect::<Result<_, _>>()?;
    let top = image.manifest.layers.last().filter(|l| l.is_hot());
    let made_on = startup::facts(top.into_iter().flat_map(|l| &l.annotations).map(|(k, v)| (k.as_str(), v.as_str())));
    Ok(Report {
        reference: reference.to_string(),
        digest: image.descriptor.digest,
        platform: image.config.platform(),
        annotations: ours(&image.manifest.raw),
        compressed: layers.iter().map(|l| l.size).sum(),
        prefetch: layers.iter().filter_map(|l| l.toc.as_ref()?.prefetch_size).sum(),
        hot: layers.iter().filter(|l| l.kind == "hot").map(|l| l.size).sum(),
        layers,
        added: top.and_then(|l| l.annotation(names::LAYER_ADDED_CLASSES)).map(Into::into),
        made_on,
        mismatches: Vec::new(),
        problems: image
            .stale_hot_layer()
            .map(|(was, is)| {
                format!("the hot layer was made over other layers (then {was}, now {is}): it would bring back old files; convert the image again")
            })
            .into_iter()
            .collect(),
    })
}

fn layer(index: usize, descriptor: &Descriptor, blobs: &dyn Blobs, files: bool) -> Result<LayerReport, Failure> {
    let ordinary = match descriptor.media_type.as_str() {
        _ if descriptor.is_hot() => "hot",
        names::LAYER_GZIP | names::DOCKER_LAYER_GZIP => "gzip",
        names::LAYER_ZSTD | names::DOCKER_LAYER_ZSTD => "zstd",
        names::LAYER_TAR | names::DOCKER_LAYER_TAR => "tar",
        _ => "other",
    };
    let claims = descriptor.annotation(names::TOC_DIGEST);
    let toc = match verify::open_toc(blobs, descriptor)? {
        Some(Ok(layer)) => Some(layer),
        // A layer that says of itself that it is eStargz is broken when it cannot be opened.
        Some(Err(e)) if claims.is_some() => {
            let why = format!("layer {index} ({}): {}", descriptor.digest, super::chain(&e));
            return Err(Failure::new(1, why).hint("`esgz verify` lists everything that is wrong with it"));
        }
        Some(Err(_)) | None => None,
    };
    Ok(LayerReport {
        index,
        kind: toc.as_ref().map_or(ordinary, |l| l.format.name()),
        digest: descriptor.digest,
        size: descriptor.size,
        uncompressed_size: descriptor.annotation(names::UNCOMPRESSED_SIZE).and_then(|s| s.parse().ok()),
        toc: toc.map(|l| toc_report(&l, claims, files)),
    })
}

fn toc_report(layer: &Layer, claims: Option<&str>, files: bool) -> TocReport {
    let entries: Vec<_> = layer.toc.entries.iter().filter(|e| e.kind != "chunk").collect();
    let find = |name: &str| entries.iter().position(|e| clean(&e.name) == name);
    let (landmark, prioritized) = match (find(landmark::NO_PREFETCH), find(landmark::PREFETCH)) {
        (Some(_), _) => ("no-prefetch", 0),
        (None, Some(at)) => ("prefetch", at),
        (None, None) => ("none", 0),
    };
    let chunks = layer.toc.entries.iter().filter(|e| e.offset > 0).count();
    let members = layer.toc.entries.iter().map(|e| e.offset).filter(|&o| o > 0).collect::<HashSet<_>>().len();
    let list = entries.iter().filter(|_| files).map(|e| Listed {
        path: e.name.clone(),
        kind: e.kind.clone(),
        offset: e.offset,
        size: e.size,
    });
    TocReport {
        toc_digest: layer.toc_digest,
        toc_annotated: claims == Some(layer.toc_digest.to_string().as_str()),
        toc_offset: layer.toc_offset,
        toc_size: layer.footer_offset() - layer.toc_offset,
        entries: entries.len(),
        files: entries.iter().filter(|e| e.kind == "reg").count(),
        chunks,
        members,
        landmark,
        prioritized,
        prefetch_size: layer.prefetch_size(),
        problems: layer
            .problems()
            .into_iter()
            .map(|p| if p.path.is_empty() { p.what } else { format!("{:?}: {}", p.path, p.what) })
            .collect(),
        list: list.collect(),
    }
}

fn table(layers: &[LayerReport]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "LAYER",
        "KIND",
        "SIZE",
        "UNCOMPRESSED",
        "ENTRIES",
        "FILES",
        "CHUNKS",
        "TOC",
        "TOC AT",
        "LANDMARK",
        "FIRST",
        "PREFETCH",
        "DIGEST",
    ]);
    for l in layers {
        let number = |f: fn(&TocReport) -> u64| l.toc.as_ref().map_or("-".into(), |t| f(t).to_string());
        let count = |f: fn(&TocReport) -> usize| l.toc.as_ref().map_or("-".into(), |t| f(t).to_string());
        table.add_row([
            l.index.to_string(),
            l.kind.into(),
            l.size.to_string(),
            l.uncompressed_size.map_or("-".into(), |n| n.to_string()),
            count(|t| t.entries),
            count(|t| t.files),
            count(|t| t.chunks),
            number(|t| t.toc_size),
            number(|t| t.toc_offset),
            l.toc.as_ref().map_or("-", |t| t.landmark).into(),
            count(|t| t.prioritized),
            number(|t| t.prefetch_size.unwrap_or_default()),
            l.digest.to_string(),
        ]);
    }
    for (i, column) in table.column_iter_mut().enumerate() {
        if !matches!(i, 1 | 9 | 12) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::{self, convert};
    use crate::estargz::{Format, Level};
    use crate::plan::{HotLayer, Layout};
    use crate::progress::Silent;
    use crate::store::memory::Memory;
    use crate::tar::build::{Item, archive};

    fn converted() -> Memory {
        let items = [Item::dir("d"), Item::file("d/a", [7; 2500]), Item::file("d/empty", "")];
        let dst = Memory::default();
        let options = convert::Options {
            layout: Layout::Plain,
            rule: crate::plan::Rule::default(),
            hot_layer: HotLayer::Copy,
            hot_codec: convert::HotCodec::Zstd,
            startup: None,
            startup_classes: startup::Classes::default(),
            embed: None,
            format: Format::Estargz,
            chunk_size: 1000,
            min_chunk_size: 0,
            level: Level::DEFAULT,
            adaptive: false,
            platform: String::new(),
            force_profile: false,
            jobs: std::num::NonZeroUsize::MIN,
            memory: None,
            temp_dir: std::env::temp_dir(),
            fitted: false,
            hot_level: Level::STORED,
            keep_layers: false,
            reuse: false,
            journal: None,
        };
        convert(&Memory::of(&[archive(&items)]), &dst, None, &options, &Silent).expect("converted");
        dst
    }

    fn inspect(store: &Memory) -> Result<Report, Failure> {
        let reference = "oci:x".parse().expect("a reference");
        report(&reference, store, &store.image("").expect("an image"), true)
    }

    #[test]
    fn an_estargz_layer_is_counted() {
        let report = inspect(&converted()).expect("right");
        assert_eq!((report.prefetch, report.hot, report.platform.as_str()), (0, 0, "linux/amd64"));
        assert_eq!(report.annotations["dev.esgz.layout"], "plain");
        let [layer] = report.layers.as_slice() else { panic!("one layer") };
        assert_eq!((layer.kind, layer.size), ("estargz", report.compressed));
        let toc = layer.toc.as_ref().expect("a TOC");
        assert_eq!((toc.entries, toc.files, toc.chunks, toc.landmark, toc.prioritized), (4, 3, 4, "no-prefetch", 0));
        assert_eq!(toc.members, 4);
        assert!(toc.toc_annotated && toc.problems.is_empty() && toc.toc_offset + toc.toc_size + 51 == layer.size);
        let list: Vec<_> = toc.list.iter().map(|l| (l.path.as_str(), l.size)).collect();
        assert_eq!(list, [(".no.prefetch.landmark", 1), ("d/", 0), ("d/a", 2500), ("d/empty", 0)]);
        let shown = table(&report.layers).to_string();
        assert!(shown.contains("estargz") && shown.contains("no-prefetch"), "{shown}");
    }

    #[test]
    fn a_hot_layer_over_other_layers_is_a_problem() {
        let tar = archive(&[Item::file("a", "x")]);
        let store = Memory::of(&[tar.clone(), tar]);
        let below = crate::image::manifest::stack_digest(&store.image("").expect("an image").config.diff_ids[..1]);
        for (value, problems) in [(below.to_string(), 0), (Digest::of(b"").to_string(), 1)] {
            store.edit_manifest(|m| {
                m["layers"][1]["annotations"] =
                    serde_json::json!({ names::LAYER_KIND: "hot", names::LAYER_BELOW: value });
            });
            assert_eq!(inspect(&store).expect("right").problems.len(), problems);
        }
    }

    #[test]
    fn other_layers_are_named_by_their_compression() {
        let tar = archive(&[Item::file("a", "x")]);
        let layers = [names::LAYER_TAR, names::LAYER_ZSTD, names::LAYER_GZIP].map(|t| (t, tar.clone(), tar.clone()));
        let report = inspect(&Memory::image_of(&layers)).expect("nothing is read of them");
        assert_eq!(report.layers.iter().map(|l| l.kind).collect::<Vec<_>>(), ["tar", "zstd", "gzip"]);
        assert!(report.layers.iter().all(|l| l.toc.is_none()));
    }

    #[test]
    fn a_broken_estargz_layer_is_an_error_that_names_it() {
        let store = converted();
        let digest = store.image("").expect("an image").manifest.layers[0].digest;
        let good = store.bytes(&digest);
        for bad in [&good[..good.len() - 1], &good[..good.len() / 2], &[]] {
            store.damage(&digest, bad.into());
            let failure = inspect(&store).map(|_| ()).expect_err("broken");
            let text = failure.error.to_string();
            assert!(text.starts_with(&format!("layer 0 ({digest}): not an eStargz layer")), "{text}");
        }
    }
}
