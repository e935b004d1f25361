//! How long pull, creation and start take, and of what that is made up.
//!
//! A start on a lazy root is the workload's own time and what it waits for: round trips and bytes of reads on demand, small
//! files' way through FUSE, a share of the daemons' CPU time. With a read-ahead it waits where it comes to a span before the
//! reader does. What cannot be known is in `docs/plan.md`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::arm::{Arm, Reader, Way};
use super::demand::{Cutting, Demand, LAYER_RATIO, REQUEST, at_speed, per_mb};
use super::model::{Model, at_rate, kb};
use super::workload::{Touched, Workload, scaled};
use super::{Layout, Rule};

/// What decides the bytes of an image, as far as a prediction depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    /// Compressed sizes of the original's layers; empty where it is not known, and then nothing is said of pulling the original.
    pub layers: &'a [u64],
    /// Which files the hot layer takes.
    pub rule: &'a Rule,
    /// Chunks of the lazy files.
    pub cutting: Cutting,
}

/// A step of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// From the start of the pull to its end.
    Pull,
    /// Pod sandbox, container creation, container start.
    Create,
    /// From there to ready.
    Ready,
}

/// A part of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Of which step.
    pub step: Step,
    /// What takes the time.
    pub what: &'static str,
    /// Microseconds.
    pub us: u64,
}

/// A prediction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Prediction {
    /// The arm's name.
    pub arm: String,
    /// What the steps are made up of, in order.
    pub parts: Vec<Part>,
    /// Bytes over the link.
    pub wire_bytes: u64,
    /// Requests on demand or ahead, without those of the pull.
    pub requests: u64,
    /// CPU microseconds of the node's daemons for lazy files.
    pub daemon_cpu_us: u64,
}

/// The figures that a benchmark measures, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predicted {
    /// The pull.
    pub pull_ms: u64,
    /// Pod sandbox, container creation, container start.
    pub create_ms: u64,
    /// From there to ready.
    pub ready_ms: u64,
}

impl Prediction {
    fn part(&mut self, step: Step, what: &'static str, us: u64) {
        if us > 0 {
            self.parts.push(Part { step, what, us });
        }
    }

    /// Microseconds of a step.
    pub fn step(&self, step: Step) -> u64 {
        self.parts.iter().filter(|p| p.step == step).map(|p| p.us).fold(0, u64::saturating_add)
    }

    /// Microseconds of all steps.
    pub fn total(&self) -> u64 {
        self.parts.iter().map(|p| p.us).fold(0, u64::saturating_add)
    }

    /// In milliseconds, to the nearest.
    pub fn millis(&self) -> Predicted {
        let ms = |step| self.step(step).saturating_add(500) / 1000;
        Predicted { pull_ms: ms(Step::Pull), create_ms: ms(Step::Create), ready_ms: ms(Step::Ready) }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pull => "pull",
            Self::Create => "create",
            Self::Ready => "ready",
        })
    }
}

/// Files per MB of an image's layers, decompressed: vLLM's 41,000 in 8,480 MB. A manifest does not tell.
const FILES_PER_MB: u64 = 5;
/// Compressed size of the hot layer, percent: 138 of 365 MB.
pub(super) const HOT_RATIO: u64 = 38;
/// Bytes of a request of a prefetch (`prefetch_chunk_size` of scripts/stack.d/stargz.toml).
const PREFETCH: u64 = 32 << 20;
/// CPUs that a prefetch keeps busy: 1.85 of the two there were; that it would use more was never seen.
const PREFETCH_CORES: u64 = 2;
/// Layers that containerd fetches at a time (`max_concurrent_downloads`).
const DOWNLOADS: usize = 3;
/// Requests of a pull before its layers, and more for each.
const PULL_REQUESTS: u64 = 7;
/// Threads that keep the node's CPUs busy while a layer is unpacked and the read-ahead runs: reader, snapshotter, registry or
/// TLS.
const READER_THREADS: u64 = 3;

/// Predicts an arm.
pub fn predict(arm: Arm, workload: &Workload, shape: &Shape<'_>, model: &Model) -> Prediction {
    let name = arm.to_string();
    let out = Prediction { arm: name, parts: Vec::new(), wire_bytes: 0, requests: 0, daemon_cpu_us: 0 };
    let mut sum = Sum { workload, shape, model, startup: arm.startup, out };
    match arm.way {
        Way::OriginalWarm => {
            sum.out.part(Step::Create, "container", model.node.create_ms.saturating_mul(1000));
            sum.out.part(Step::Ready, "workload", sum.own(false));
        }
        Way::OriginalCold => sum.original(),
        Way::Lazy(layout, reader) => sum.lazy(layout, reader),
    }
    sum.out
}

/// What a reader on the node has had before the container starts.
#[derive(Debug, Clone, Copy, Default)]
struct HeadStart {
    /// CPU microseconds.
    cpu_us: u64,
    /// Microseconds of the link.
    link_us: u64,
}

/// A prediction in the making.
struct Sum<'a> {
    workload: &'a Workload,
    shape: &'a Shape<'a>,
    model: &'a Model,
    startup: bool,
    out: Prediction,
}

impl Sum<'_> {
    /// The workload's own time. `cached`: its files come out of the page cache, as after an unpacking, or through FUSE; otherwise
    /// from the disk.
    fn own(&self, cached: bool) -> u64 {
        let w = self.workload;
        let disk = at_speed(w.touched(), self.model.node.disk_mb);
        let mut own = w.ready_us.saturating_add(if w.from_disk { 0 } else { disk });
        if self.startup {
            let compile = scaled(per_mb(w.bytecode_bytes, self.model.node.bytecode_mb_us), w.pace.0, w.pace.1);
            own = w.startup_us.unwrap_or_else(|| own.saturating_sub(compile));
        }
        if cached {
            own = own.saturating_sub(disk);
        }
        // However wrong the figures taken off are, a start takes time.
        own.max(w.ready_us / 5)
    }

    fn latency(&self, requests: u64) -> u64 {
        self.model.link.latency_ms.saturating_mul(1000).saturating_mul(requests)
    }

    /// Unpacking natively, without the compression.
    fn unpack(&self, files: u64, bytes: u64) -> u64 {
        let node = &self.model.node;
        files.saturating_mul(node.unpack_file_us).saturating_add(per_mb(bytes, node.unpack_mb_us))
    }

    fn original(&mut self) {
        let node = &self.model.node;
        let packed = self.shape.layers.iter().copied().fold(0, u64::saturating_add);
        let bytes = scaled(packed, 100, LAYER_RATIO);
        let files = scaled(bytes, FILES_PER_MB, 1_000_000);
        let more = if self.startup { (self.workload.bytecode_files, self.workload.bytecode_bytes) } else { (0, 0) };
        let files = files.saturating_add(more.0);
        let bytes = bytes.saturating_add(more.1);
        let unpack = self.unpack(files, bytes);
        let gunzip = at_speed(bytes, node.gunzip_mb);
        self.out.part(Step::Pull, "requests", self.latency(3));
        self.out.part(Step::Pull, "unpacking", unpack);
        self.out.part(Step::Pull, "gunzip", gunzip);
        // A layer is unpacked when all of it and those below are there.
        let whole = unpack.saturating_add(gunzip);
        let mut there = 0u64;
        for (size, at) in self.shape.layers.iter().zip(self.side_by_side()) {
            there = there.max(at).saturating_add(scaled(whole, *size, packed));
        }
        self.out.part(Step::Pull, "waiting for bytes", there.saturating_sub(whole));
        self.out.wire_bytes = packed;
        self.out.part(Step::Create, "container", node.create_ms.saturating_mul(1000));
        self.out.part(Step::Ready, "workload", self.own(true));
    }

    /// When each of the original's layers is fetched, some at a time in their order.
    fn side_by_side(&self) -> Vec<u64> {
        let (link, layers) = (&self.model.link, self.shape.layers);
        let mut ends = vec![0; layers.len()];
        let mut waiting = layers.iter().copied().enumerate();
        let mut active: Vec<(usize, u64)> = waiting.by_ref().take(DOWNLOADS).collect();
        let mut now = 0u64;
        while let Some(least) = active.iter().map(|(_, left)| *left).min() {
            let many = active.len() as u64;
            let rate = link.each_kb(many).min((kb(self.model.node.store_mb) / many.max(1)).max(1));
            now = now.saturating_add(at_rate(least, rate));
            active.retain_mut(|(layer, left)| {
                *left -= least;
                ends[*layer] = now;
                *left > 0
            });
            let free = DOWNLOADS - active.len();
            active.extend(waiting.by_ref().take(free));
        }
        ends
    }

    fn lazy(&mut self, layout: Layout, reader: Reader) {
        let (node, rule) = (&self.model.node, self.shape.rule);
        let (hot, lazy): (Vec<&Touched>, Vec<&Touched>) =
            self.workload.files.iter().partition(|f| layout.has_hot() && rule.takes_touched(f));
        let layers = self.shape.layers.len() as u64;
        self.out.part(Step::Pull, "lazy layers", node.pull_ms.saturating_mul(1000));
        self.out.part(Step::Pull, "requests", self.latency(PULL_REQUESTS.saturating_add(layers)));
        let head_start = self.hot_layer(layout, &hot, &lazy, reader);
        self.out.part(Step::Create, "container", node.create_ms.saturating_mul(1000));
        let own = self.own(true);
        self.out.part(Step::Ready, "workload", own);
        if layout.has_landmark() {
            self.prefetched(&lazy);
        } else if reader == Reader::None {
            let demand = self.demand(&lazy, false);
            self.on_demand(&demand, (1, 1));
        } else {
            self.read_ahead(&lazy, own, head_start);
        }
    }

    /// Fetches and unpacks the hot layer. Gives what a reader on the node has had until it is there.
    fn hot_layer(&mut self, layout: Layout, hot: &[&Touched], lazy: &[&Touched], reader: Reader) -> HeadStart {
        let (mut files, mut bytes) = hot.iter().fold((0u64, 0u64), |(n, sum), f| (n + 1, sum.saturating_add(f.size)));
        if self.startup {
            // Without a hot layer the bytecode is in a lazy one; the workload reads it instead of as many sources.
            files = files.saturating_add(self.workload.bytecode_files);
            bytes = bytes.saturating_add(self.workload.bytecode_bytes);
        }
        if !layout.has_hot() || files == 0 {
            return HeadStart::default();
        }
        let node = &self.model.node;
        let packed = scaled(bytes, HOT_RATIO, 100);
        let alone = self.model.link.alone_us(packed);
        let unpack = self.unpack(files, bytes).saturating_add(at_speed(bytes, node.zstd_mb));
        self.out.wire_bytes = self.out.wire_bytes.saturating_add(packed);
        // The snapshotter asks twice before it refuses the layer; then it is fetched.
        self.out.part(Step::Pull, "hot layer: handling", node.hot_layer_ms.saturating_mul(1000));
        self.out.part(Step::Pull, "hot layer: requests", self.latency(3));
        self.out.part(Step::Pull, "hot layer: bytes", alone);
        self.out.part(Step::Pull, "hot layer: unpacking", unpack);
        if reader != Reader::Node {
            return HeadStart::default();
        }
        let (fetch, busy) = self.beside_the_reader(packed, lazy);
        let fetch = fetch.max(alone);
        self.out.part(Step::Pull, "hot layer: sharing the link with the read-ahead", fetch - alone);
        // One thread unpacks, and gets its share of the CPUs as long as the reader needs them.
        let slowed = scaled(unpack, (1 + READER_THREADS).max(node.cores), node.cores);
        let slowed = slowed.min(unpack.saturating_add(busy.saturating_sub(fetch)));
        self.out.part(Step::Pull, "hot layer: sharing CPUs with the read-ahead", slowed - unpack);
        let all = fetch.saturating_add(slowed);
        HeadStart {
            cpu_us: node.cores.saturating_mul(all).saturating_sub(unpack),
            link_us: all.saturating_sub(at_speed(packed, self.model.link.bandwidth_mb)),
        }
    }

    /// Microseconds until the hot layer is there whose bytes come beside those of a reader on the node, and until that one has
    /// everything. The reader's connections and the layer's one get the same share of the link; what the reader cannot use, since
    /// its CPU time keeps it from more, is the layer's.
    fn beside_the_reader(&self, packed: u64, lazy: &[&Touched]) -> (u64, u64) {
        let (node, link) = (&self.model.node, &self.model.link);
        let demand = self.demand(lazy, true);
        let all = kb(link.bandwidth_mb);
        let by_cpu = (demand.cpu(node, self.shape.cutting.codec) / node.cores.max(1)).max(1);
        // What the reader would take.
        let wanted = scaled(demand.wire, 1000, by_cpu).min(all);
        let one = link.each_kb(1);
        let share = all.saturating_sub(wanted).max(link.each_kb(link.connections.saturating_add(1))).min(one);
        let busy = at_rate(demand.wire, wanted.min(all.saturating_sub(share)).max(1)).max(by_cpu);
        let shared = at_rate(packed, share);
        if shared <= busy {
            return (shared, busy);
        }
        let rest = packed.saturating_sub(scaled(busy, share, 1000));
        (busy.saturating_add(at_rate(rest, one)), busy)
    }

    fn demand(&self, files: &[&Touched], exact: bool) -> Demand {
        files.iter().fold(Demand::default(), |mut sum, f| {
            sum.add(&self.shape.cutting.demand(f, exact));
            sum
        })
    }

    /// Reads as they come; `share` of them where some are there already.
    fn on_demand(&mut self, demand: &Demand, share: (u64, u64)) {
        let node = &self.model.node;
        let cpu = scaled(demand.cpu(node, self.shape.cutting.codec), share.0, share.1);
        let wire = scaled(demand.wire, share.0, share.1);
        let trips = scaled(demand.round_trips(self.model), share.0, share.1);
        self.out.wire_bytes = self.out.wire_bytes.saturating_add(wire);
        self.out.requests = self.out.requests.saturating_add(scaled(demand.requests(), share.0, share.1));
        self.out.daemon_cpu_us = self.out.daemon_cpu_us.saturating_add(cpu);
        self.out.part(Step::Ready, "round trips", trips);
        self.out.part(Step::Ready, "bytes", self.model.link.alone_us(wire));
        self.out.part(Step::Ready, "small files through FUSE", demand.files.saturating_mul(node.fuse_file_us));
        let first = demand.files.saturating_mul(node.fuse_first_us);
        self.out.part(Step::Ready, "small files' first reads", scaled(first, share.0, share.1));
        self.out.part(Step::Ready, "waiting for daemons' CPU", scaled(cpu, node.wait_percent, 100));
    }

    /// Whole files in front of a landmark: creating the container waits for them, as long as the snapshotter lets it.
    fn prefetched(&mut self, lazy: &[&Touched]) {
        let node = &self.model.node;
        let whole = lazy.iter().fold(Demand::default(), |mut sum, f| {
            sum.add(&self.shape.cutting.whole(f));
            sum
        });
        let cpu = whole.cpu(node, self.shape.cutting.codec);
        let trips = scaled(self.latency(1), whole.wire, PREFETCH.saturating_mul(self.model.link.connections));
        let fetch =
            at_speed(whole.wire, self.model.link.bandwidth_mb).saturating_add(trips).saturating_add(self.latency(1));
        let whole_us = (cpu / node.cores.min(PREFETCH_CORES)).max(fetch).max(1);
        let waits = whole_us.min(node.prefetch_wait_ms.saturating_mul(1000));
        self.out.part(Step::Create, "prefetch to the landmark", waits);
        let (wire, there) = (whole.wire, (waits, whole_us));
        self.out.wire_bytes = self.out.wire_bytes.saturating_add(scaled(wire, there.0, there.1));
        self.out.daemon_cpu_us = self.out.daemon_cpu_us.saturating_add(scaled(cpu, there.0, there.1));
        // What it gave up waiting for is read as it comes.
        let demand = self.demand(lazy, false);
        self.on_demand(&demand, (whole_us - waits, whole_us));
    }

    /// Spans in the order of their first touch, by a reader that has the CPUs but the workload's one, or half a CPU. The
    /// workload waits where it is further than the reader.
    fn read_ahead(&mut self, lazy: &[&Touched], own: u64, head_start: HeadStart) {
        let (node, link, cutting) = (&self.model.node, &self.model.link, self.shape.cutting);
        let mut spans: Vec<(u64, u64, usize)> = Vec::new();
        let mut costs = Vec::new();
        let mut all = Demand::default();
        for (i, file) in lazy.iter().enumerate() {
            let demand = cutting.demand(file, true);
            all.add(&demand);
            costs.push((demand.cpu(node, cutting.codec), demand.wire, demand.served.max(1)));
            spans.extend(file.spans.iter().map(|(span, at)| (*at, span.end - span.start, i)));
        }
        spans.sort_unstable();
        // Nanoseconds, so that small spans count; a file's costs are spread over its spans by their bytes.
        let (mut cpu, mut wire, mut waits) = (0u64, 0u64, 0u64);
        let halves = (2 * (node.cores - 1)).max(1);
        let requests = |wire: u64| scaled(self.latency(1), wire, link.connections.saturating_mul(REQUEST));
        for (touched, bytes, file) in spans {
            let (file_cpu, file_wire, served) = costs[file];
            cpu = cpu.saturating_add(scaled(file_cpu.saturating_mul(1000), bytes, served));
            wire = wire.saturating_add(scaled(file_wire, bytes, served));
            let by_cpu = scaled((cpu / 1000).saturating_sub(head_start.cpu_us), 2, halves);
            let by_link = at_speed(wire, link.bandwidth_mb).saturating_add(requests(wire));
            let by_link = by_link.saturating_sub(head_start.link_us);
            let there = by_cpu.max(by_link).saturating_add(if head_start.cpu_us > 0 { 0 } else { self.latency(1) });
            // The workload of this arm may be faster than the recorded one.
            let asked = scaled(touched, own, self.workload.ready_us.max(1));
            waits = waits.max(there.saturating_sub(asked));
        }
        self.out.wire_bytes = self.out.wire_bytes.saturating_add(all.wire);
        self.out.requests = all.requests();
        self.out.daemon_cpu_us = all.cpu(node, cutting.codec);
        self.out.part(Step::Ready, "waiting for the read-ahead", waits);
        self.out.part(Step::Ready, "small files through FUSE", all.files.saturating_mul(node.fuse_file_us));
    }
}

#[cfg(test)]
#[path = "predict_tests.rs"]
mod tests;
