//! `esgz inspect`.

mod report;

use comfy_table::{CellAlignment, Table, presets};

use super::Failure;
use super::output::Output;
use super::platform::{Platforms, platforms};
use crate::convert::startup;
use crate::image::Reference;
use crate::record;
use crate::store::index::{Child, Index};
use crate::store::{self, Images};
use report::{IndexReport, LayerReport, Report, TocReport, ours, report};

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
    use crate::digest::Digest;
    use crate::estargz::{Format, Level};
    use crate::image::names;
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
