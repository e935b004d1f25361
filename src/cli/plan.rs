//! `esgz plan`.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::modelled::Modelled;
use super::output::Output;
use super::platform::Platforms;
use super::profiled::{self, Profiled};
use super::{Failure, store_failure};
use crate::digest::Digest;
use crate::image::Reference;
use crate::plan::{
    self, Arm, Choice, Codec, Cutting, LazyFile, Model, Pinned, Predicted, Prediction, ReadyFrom, Rule, Shape, Workload,
};
use crate::store;

/// Files of the lazy ones that are shown; --json has all.
const SHOWN: usize = 10;

/// Choose a layout by prediction, and say why
///
/// Reads the image's manifest and the profile, no layer: sizes and touched ranges of files are the profile's, where they stand in
/// the layers and how well each compresses is estimated. docs/plan.md has the method and its errors.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Image that would be converted
    src: Reference,
    /// Profile of its start; may be given several times, the runs are merged. from-image takes the one beside SRC; where
    /// there are several, from-image:NAME
    #[arg(long = "profile", value_name = "FILE", required = true, value_parser = profiled::profiled)]
    profiles: Vec<Profiled>,
    /// Platform to pick from an index
    #[arg(long, value_name = "OS/ARCH", default_value = "linux/amd64")]
    platform: String,
    /// Who will read the touched ranges of lazy files ahead: none, workload (a process that starts with it), node (a daemon that
    /// starts during the pull)
    #[arg(long, value_name = "WHO", default_value = "none")]
    read_ahead: ReadAhead,
    /// Choose for an image that holds the bytecode that its start would write (convert --startup-layer)
    #[arg(long)]
    startup: bool,
    /// The recording was made on a lazy root: take off what that cost by this model
    #[arg(long)]
    recorded_lazy: bool,
    /// Milliseconds that a warm start takes on the node, if known: the recording's own time is then not used
    #[arg(long, value_name = "N", conflicts_with = "recorded_lazy")]
    warm_ms: Option<u64>,
    /// Milliseconds that such a start takes where what it would write is in place, if known: for the arms with a start-up layer
    #[arg(long, value_name = "N")]
    startup_ms: Option<u64>,
    #[command(flatten)]
    model: Modelled,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ReadAhead {
    None,
    Workload,
    Node,
}

#[derive(Debug, Serialize)]
struct Report {
    reference: String,
    digest: Digest,
    /// Compressed bytes of the image's layers.
    layer_bytes: Vec<u64>,
    model: Model,
    workload: Start,
    choice: Choice,
    arms: Vec<ArmReport>,
    hot: HotFiles,
    lazy: Vec<LazyFile>,
}

#[derive(Debug, Serialize)]
struct Start {
    /// Of a warm start, the workload's own time.
    ready_ms: u64,
    ready_from: ReadyFrom,
    files: usize,
    touched_bytes: u64,
    bytecode_files: u64,
    bytecode_bytes: u64,
    /// Of a warm start that finds what it would write, where that was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    startup_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ArmReport {
    predicted: Predicted,
    total_ms: u64,
    #[serde(flatten)]
    prediction: Prediction,
}

#[derive(Debug, Serialize)]
struct HotFiles {
    files: usize,
    bytes: u64,
    touched_bytes: u64,
}

pub(super) fn run(args: &Args, out: &Output) -> Result<u8, Failure> {
    let model = args.model.read()?;
    let platform = Platforms::One(args.platform.clone());
    let profiles = profiled::read(&args.profiles, &args.src, &platform)?;
    let Some(profile) = profiles.first() else { return Err(Failure::new(2, "no profile: expected --profile FILE")) };
    let failed = |e: store::Error| store_failure(&e, &args.src);
    let image = store::open(&args.src, false).map_err(failed)?.image(&args.platform).map_err(failed)?;
    // Copies of an earlier conversion are made anew, and are no layer of the original.
    let layers: Vec<u64> = image.manifest.layers.iter().filter(|l| !l.is_copies()).map(|l| l.size).collect();

    let usual = Cutting { chunk_size: crate::estargz::CHUNK_SIZE, fitted: false, stored: false, codec: Codec::Gzip };
    let recorded = Workload::of(profile, 0);
    let mut workload = match args.warm_ms {
        Some(ms) => recorded.measured(ms.saturating_mul(1000)),
        None if args.recorded_lazy => {
            let shape = Shape { layers: &layers, rule: &Rule::default(), cutting: usual };
            let [lazy, warm] = ["plain", "original-warm"].map(str::parse::<Arm>);
            let ready = |arm| plan::predict(arm, &recorded, &shape, &model).step(plan::Step::Ready);
            let cost = ready(lazy?).saturating_sub(ready(warm?));
            Workload::of(profile, cost)
        }
        None => recorded,
    };
    if let Some(ms) = args.startup_ms {
        workload = workload.with_startup(ms.saturating_mul(1000));
    }
    let reader = match args.read_ahead {
        ReadAhead::None => plan::Reader::None,
        ReadAhead::Workload => plan::Reader::Workload,
        ReadAhead::Node => plan::Reader::Node,
    };
    let choice = plan::choose(&workload, &model, &Pinned::default(), reader, args.startup);
    let arms =
        Arm::all().into_iter().filter(|a| !a.startup || workload.bytecode_files > 0 || workload.startup_us.is_some());
    let arms = arms.map(|arm| {
        let chosen = matches!(arm.way, plan::Way::Lazy(layout, _) if layout.has_hot()) && choice.layout.has_hot();
        let (rule, cutting) = if chosen { (&choice.rule, choice.cutting) } else { (&Rule::default(), usual) };
        let prediction = plan::predict(arm, &workload, &Shape { layers: &layers, rule, cutting }, &model);
        ArmReport {
            predicted: prediction.millis(),
            total_ms: prediction.total().saturating_add(500) / 1000,
            prediction,
        }
    });
    let arms = arms.collect();
    let lazy =
        if choice.layout.has_hot() { plan::lazy_files(&workload, &choice.rule, &choice.cutting) } else { Vec::new() };
    let report = Report {
        reference: args.src.to_string(),
        digest: image.descriptor.digest,
        layer_bytes: layers,
        workload: Start {
            ready_ms: workload.ready_us / 1000,
            ready_from: workload.ready_from.clone(),
            files: workload.files.len(),
            touched_bytes: workload.touched(),
            bytecode_files: workload.bytecode_files,
            bytecode_bytes: workload.bytecode_bytes,
            startup_ms: args.startup_ms,
        },
        hot: hot_files(&workload, &choice),
        choice,
        arms,
        lazy,
        model,
    };
    if profile.header.lost_events > 0 {
        let lost = profile.header.lost_events;
        out.say(format_args!("warning: the profile is incomplete: its recorder lost {lost} events"));
    }
    if args.json {
        out.json(&report);
    } else {
        show(&report, out);
    }
    Ok(0)
}

fn hot_files(workload: &Workload, choice: &Choice) -> HotFiles {
    let hot = workload.files.iter().filter(|f| choice.layout.has_hot() && choice.rule.takes_touched(f));
    hot.fold(HotFiles { files: 0, bytes: 0, touched_bytes: 0 }, |sum, f| HotFiles {
        files: sum.files + 1,
        bytes: sum.bytes.saturating_add(f.size),
        touched_bytes: sum.touched_bytes.saturating_add(f.touched),
    })
}

/// Seconds with two digits, of milliseconds.
fn seconds(ms: u64) -> String {
    let hundredths = ms.saturating_add(5) / 10;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// MB with one digit.
fn mb(bytes: u64) -> String {
    let tenths = bytes.saturating_add(50_000) / 100_000;
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header.iter().copied());
    table
}

/// All columns but the first are numbers.
fn right(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn show(report: &Report, out: &Output) {
    let Report { choice, workload, hot, .. } = report;
    let cutting = choice.cutting;
    let chunks = match (cutting.fitted, cutting.stored) {
        (false, _) => "uniform".to_owned(),
        (true, true) => "fitted, hot ones stored".to_owned(),
        (true, false) => "fitted, hot ones at level 1".to_owned(),
    };
    let kib = cutting.chunk_size >> 10;
    out.data(format_args!("layout {}, chunks of {kib} KiB, {chunks}", choice.layout));
    for reason in &choice.reasons {
        out.data(format_args!("- {reason}"));
    }
    let from = match &workload.ready_from {
        ReadyFrom::Phase(name) => format!("phase {name} of the profile"),
        ReadyFrom::LastTouch => "last touch in the profile, which has no phase that ends it".into(),
        ReadyFrom::Measured => "given".into(),
    };
    out.data(format_args!("\nwarm start: {} s to ready ({from})", seconds(workload.ready_ms)));

    let mut arms = table(&["arm", "pull s", "create s", "ready s", "sum s", "MB over link", "requests at start"]);
    for arm in &report.arms {
        let Predicted { pull_ms, create_ms, ready_ms } = arm.predicted;
        let mut row = vec![arm.prediction.arm.clone()];
        row.extend([pull_ms, create_ms, ready_ms, arm.total_ms].map(seconds));
        row.extend([mb(arm.prediction.wire_bytes), arm.prediction.requests.to_string()]);
        arms.add_row(row);
    }
    right(&mut arms, 1);
    out.data(&arms);

    out.data("\nwhat the choice is made up of");
    let mut parts = table(&["step", "what", "s"]);
    for part in &choice.predicted.parts {
        parts.add_row([part.step.to_string(), part.what.to_owned(), seconds(part.us / 1000)]);
    }
    right(&mut parts, 2);
    out.data(&parts);
    out.data(format_args!(
        "\nhot layer: {} files, {} MB, {} MB of them touched; lazy: {} files",
        hot.files,
        mb(hot.bytes),
        mb(hot.touched_bytes),
        report.lazy.len()
    ));
    if !report.lazy.is_empty() {
        let mut lazy = table(&["lazy file", "MB", "touched MB", "ranges", "chunks", "MB over link"]);
        for file in report.lazy.iter().take(SHOWN) {
            let numbers = [mb(file.size), mb(file.touched), file.ranges.to_string(), file.demand.chunks.to_string()];
            let mut row = vec![file.path.clone()];
            row.extend(numbers.into_iter().chain([mb(file.demand.wire)]));
            lazy.add_row(row);
        }
        right(&mut lazy, 1);
        out.data(&lazy);
    }
}
