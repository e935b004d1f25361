//! What is best: for each touched file the hot layer or a lazy one, for the image a layout, chunk size and level of hot chunks.
//!
//! A file costs its unpacking in the hot layer, or what its reads on demand or ahead cost below. The layouts that come of it are
//! predicted, and the fastest is taken. What differs by less than [`MARGIN_US`] is no difference: the usual stays.

use serde::Serialize;

use super::arm::{Arm, Reader, Way};
use super::demand::{Codec, Cutting, at_speed, per_mb};
use super::model::Model;
use super::predict::{HOT_RATIO, Predicted, Prediction, Shape, predict};
use super::workload::{Touched, Workload, scaled};
use super::{Layout, Rule};

/// Microseconds by which a prediction has to be better than that of the usual layout to displace it.
pub const MARGIN_US: u64 = 250_000;
/// By how much a file's costs must differ for it to leave its usual place, as a ratio: the model is good to about 15 %.
const CLEARLY: (u64, u64) = (5, 4);
/// Milliseconds that the creation of a container may be kept waiting: the stock snapshotter then starts it all the same,
/// against a cold cache (`prefetch_timeout_sec`).
const CREATE_MS: u64 = 10_000;
/// Chunk sizes that are tried, the usual one first.
const CHUNK_SIZES: [u64; 3] = [4 << 20, 2 << 20, 1 << 20];
/// Another chunk size has to win by a twentieth: 1 MiB was predicted to be 1.5 s faster in docs/bench-vllm.md and was not.
const CHUNK_HANDICAP: u64 = 20;

/// What is settled before the choice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pinned {
    /// This layout.
    pub layout: Option<Layout>,
    /// Some layout that has a hot layer.
    pub needs_hot: bool,
    /// This chunk size.
    pub chunk_size: Option<u64>,
    /// Chunks fitted, or not.
    pub fitted: Option<bool>,
    /// Hot chunks stored, or not.
    pub stored: Option<bool>,
    /// Lazy files as zstd:chunked.
    pub zstd: bool,
}

/// The choice.
#[derive(Debug, Clone, Serialize)]
pub struct Choice {
    /// Layout.
    pub layout: Layout,
    /// Which files the hot layer takes.
    pub rule: Rule,
    /// Chunks of the lazy files.
    pub cutting: Cutting,
    /// Who was reckoned to read ahead.
    pub reader: Reader,
    /// What is predicted for it.
    pub predicted: Prediction,
    /// What else was predicted, best first; of each layout and place of the files the best chunks.
    pub considered: Vec<Considered>,
    /// Why, in words.
    pub reasons: Vec<String>,
}

/// A layout that was predicted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Considered {
    /// Layout.
    pub layout: Layout,
    /// Whether files are placed by their costs instead of by the usual rule.
    pub placed: bool,
    /// Chunks of the lazy files.
    pub cutting: Cutting,
    /// Its prediction.
    pub predicted: Predicted,
    /// Their sum in microseconds.
    pub total_us: u64,
    /// Why it cannot be taken, however fast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// A candidate with all that a choice has.
struct Candidate {
    seen: Considered,
    rule: Rule,
    prediction: Prediction,
}

impl Candidate {
    /// What it is compared by.
    fn rank(&self, pinned: &Pinned) -> u64 {
        let total = self.seen.total_us;
        let usual = pinned.chunk_size.unwrap_or(CHUNK_SIZES[0]);
        if self.seen.cutting.chunk_size == usual { total } else { total.saturating_add(total / CHUNK_HANDICAP) }
    }
}

/// Chooses. `startup`: the image will hold the bytecode that its start would write. The choice depends on profile, model and
/// what is pinned alone, and so is the same for every image that the profile fits.
pub fn choose(workload: &Workload, model: &Model, pinned: &Pinned, reader: Reader, startup: bool) -> Choice {
    let mut all = candidates(workload, model, pinned, reader, startup);
    // The usual comes first; what is not clearly better does not displace it.
    let usual = all[0].rank(pinned).saturating_sub(MARGIN_US);
    let mut best = 0;
    for (i, c) in all.iter().enumerate().skip(1).filter(|(_, c)| c.seen.refused.is_none()) {
        let least = if best == 0 { usual } else { all[best].rank(pinned) };
        if c.rank(pinned) < least || all[best].seen.refused.is_some() {
            best = i;
        }
    }
    let chosen = all.swap_remove(best);
    let mut considered: Vec<Considered> = Vec::new();
    all.sort_by_key(|c| c.rank(pinned));
    for c in all {
        let same = |o: &Considered| o.layout == c.seen.layout && o.placed == c.seen.placed;
        if !same(&chosen.seen) && !considered.iter().any(same) {
            considered.push(c.seen);
        }
    }
    let reasons = reasons(&chosen, &considered, workload, model, reader, startup);
    Choice {
        layout: chosen.seen.layout,
        rule: chosen.rule,
        cutting: chosen.seen.cutting,
        reader,
        predicted: chosen.prediction,
        considered,
        reasons,
    }
}

fn candidates(workload: &Workload, model: &Model, pinned: &Pinned, reader: Reader, startup: bool) -> Vec<Candidate> {
    let layouts = [Layout::Hot, Layout::HotLandmark, Layout::Landmark, Layout::Plain];
    let layouts =
        layouts.into_iter().filter(|l| pinned.layout.is_none_or(|p| p == *l) && (l.has_hot() || !pinned.needs_hot));
    let sizes = pinned.chunk_size.as_ref().map_or(&CHUNK_SIZES[..], std::slice::from_ref);
    let mut out = Vec::new();
    for layout in layouts {
        // As `convert` does it where nobody says otherwise: fitted with a hot layer. Stored is tried where chunks are fitted.
        let fitted = pinned.fitted.unwrap_or(layout.has_hot());
        for &chunk_size in sizes {
            for stored in [false, true] {
                if pinned.stored.map_or(stored && !fitted, |p| p != stored) || stored && pinned.zstd {
                    continue;
                }
                let codec = if pinned.zstd { Codec::Zstd } else { Codec::Gzip };
                let cutting = Cutting { chunk_size, fitted, stored, codec };
                let usual = Rule::default();
                let placed = place(workload, model, &cutting, reader);
                let differs = layout == Layout::Hot && !placed.is_usual();
                for rule in std::iter::once(usual).chain(differs.then_some(placed)) {
                    out.push(candidate(layout, reader, startup, workload, model, cutting, rule));
                }
            }
        }
    }
    out
}

fn candidate(
    layout: Layout,
    reader: Reader,
    startup: bool,
    workload: &Workload,
    model: &Model,
    cutting: Cutting,
    rule: Rule,
) -> Candidate {
    // What stands in front of a landmark is not read ahead a second time, and a reader is reckoned with a hot layer only.
    let reader = if layout == Layout::Hot { reader } else { Reader::None };
    let shape = Shape { layers: &[], rule: &rule, cutting };
    let prediction = predict(Arm { way: Way::Lazy(layout, reader), startup }, workload, &shape, model);
    let predicted = prediction.millis();
    let refused = (layout.has_landmark() && predicted.create_ms > CREATE_MS).then(|| {
        format!(
            "creating the container would wait {} ms for the prefetch, expected at most {CREATE_MS}",
            predicted.create_ms
        )
    });
    let total_us = prediction.total();
    let seen = Considered { layout, placed: !rule.is_usual(), cutting, predicted, total_us, refused };
    Candidate { seen, rule, prediction }
}

/// Where each file is cheaper, written as what leaves its usual place.
fn place(workload: &Workload, model: &Model, cutting: &Cutting, reader: Reader) -> Rule {
    let mut rule = Rule::default();
    let clearly = |less: u64, more: u64| scaled(less, CLEARLY.0, CLEARLY.1) < more;
    for file in &workload.files {
        let usual = Rule::default().takes_touched(file);
        let (native, mut lazy) = (native_us(file, model), lazy_us(file, model, cutting, reader));
        if usual {
            // Its place in the hot layer does not depend on a reader that may not run or come late.
            lazy = lazy.max(lazy_us(file, model, cutting, Reader::None));
        }
        if !usual && clearly(native, lazy) {
            rule.also.insert(file.path.clone(), file.size);
        } else if usual && clearly(lazy, native) {
            rule.not.insert(file.path.clone(), file.size);
        }
    }
    rule
}

/// Microseconds that a file in the hot layer takes of the pull.
pub(super) fn native_us(file: &Touched, model: &Model) -> u64 {
    let (node, link) = (&model.node, &model.link);
    let fetch = link.alone_us(scaled(file.size, HOT_RATIO, 100));
    let unpack = per_mb(file.size, node.unpack_mb_us).saturating_add(at_speed(file.size, node.zstd_mb));
    node.unpack_file_us.saturating_add(unpack).saturating_add(fetch)
}

/// Microseconds that a lazy file takes of the start: read on demand, or its share of the read-ahead.
pub(super) fn lazy_us(file: &Touched, model: &Model, cutting: &Cutting, reader: Reader) -> u64 {
    let (node, link) = (&model.node, &model.link);
    let demand = cutting.demand(file, reader != Reader::None);
    let (cpu, trips) = (demand.cpu(node, cutting.codec), demand.round_trips(model));
    let sum = if reader == Reader::None {
        [trips, link.alone_us(demand.wire), node.fuse_first_us, scaled(cpu, node.wait_percent, 100)]
    } else {
        let by_cpu = scaled(cpu, 2, (2 * (node.cores - 1)).max(1));
        [by_cpu.max(at_speed(demand.wire, link.bandwidth_mb)).max(trips / link.connections), 0, 0, 0]
    };
    sum.into_iter().fold(node.fuse_file_us, u64::saturating_add)
}

fn seconds(us: u64) -> String {
    let tenths = us.saturating_add(50_000) / 100_000;
    format!("{}.{} s", tenths / 10, tenths % 10)
}

fn reasons(
    chosen: &Candidate,
    considered: &[Considered],
    workload: &Workload,
    model: &Model,
    reader: Reader,
    startup: bool,
) -> Vec<String> {
    let mut out = Vec::new();
    let Considered { layout, cutting, total_us, .. } = chosen.seen;
    for other in considered.iter().filter(|c| c.layout != layout || c.placed != chosen.seen.placed) {
        let places = match (other.placed, chosen.seen.placed && other.layout == layout) {
            (true, _) => " with files placed by their costs",
            (false, true) => " with files in their usual places",
            (false, false) => "",
        };
        let name = format!("{}{places}", other.layout);
        out.push(match &other.refused {
            Some(why) => format!("not {name}: {why}"),
            None if other.total_us >= total_us => format!("not {name}: {} slower", seconds(other.total_us - total_us)),
            None => format!("not {name}: {} faster, which is no difference", seconds(total_us - other.total_us)),
        });
    }
    let size = |list: &std::collections::BTreeMap<String, u64>| {
        list.values().copied().fold(0, u64::saturating_add) / 1_000_000
    };
    for (list, what) in
        [(&chosen.rule.also, "in the hot layer though large"), (&chosen.rule.not, "lazy though small or dense")]
    {
        if !list.is_empty() {
            out.push(format!(
                "{what}, because cheaper by a quarter or more: {} files of {} MB",
                list.len(),
                size(list)
            ));
        }
    }
    if layout == Layout::Hot {
        let other = |cutting: Cutting, rule: &Rule| {
            candidate(layout, reader, startup, workload, model, cutting, rule.clone()).seen.total_us
        };
        let mut compare = |what: &str, cutting: Cutting| {
            let us = other(cutting, &chosen.rule);
            let (by, word) = if us >= total_us { (us - total_us, "slower") } else { (total_us - us, "faster") };
            out.push(format!("{what}: {} {word}", seconds(by)));
        };
        if cutting.fitted && cutting.codec == Codec::Gzip {
            let word = if cutting.stored { "hot chunks at level 1" } else { "hot chunks stored" };
            compare(word, Cutting { stored: !cutting.stored, ..cutting });
        }
        let codec = if cutting.codec == Codec::Gzip { Codec::Zstd } else { Codec::Gzip };
        let name = if codec == Codec::Zstd { "zstd:chunked (estimate)" } else { "estargz" };
        compare(name, Cutting { codec, stored: false, ..cutting });
    }
    out
}
