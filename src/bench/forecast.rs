//! What `plan` predicts for the arms of a benchmark, so that it stands beside what is measured. Hidden here: which of `plan`'s arms
//! a benchmark's arm is, by its options and by what its image says of itself.
//!
//! How fast the machine runs the workload is no part of what is predicted: as soon as the report has a warm start of the
//! original, that is where the workload's own time is taken from; the own time of a start that finds its start-up writes in
//! place from an arm that starts the original with one more layer from disk.

use super::arm::{Arm, ORIGINAL};
use super::evidence::LAZY;
use super::option::ArmOption;
use super::result::{Anchor, ArmFacts, LinkShape, Report, Start};
use super::stats::Spread;
use crate::image::{Manifest, names};
use crate::plan::{self, Codec, Cutting, Layout, Model, Reader, Rule, Shape, Way, Workload};
use crate::profile::Profile;

/// Predictions in the making.
pub(super) struct Forecast {
    workload: Workload,
    model: Model,
    /// Compressed bytes of the original's layers; empty where no arm is the original.
    layers: Vec<u64>,
    /// One for each arm; `None`: nothing is predicted for it.
    arms: Vec<Option<(plan::Arm, Cutting)>>,
}

impl Forecast {
    /// From a profile of the original's start, for a machine with these CPUs; `rig` is what everything else of the node is like.
    pub(super) fn new(profile: &Profile, link: &LinkShape, cpus: usize) -> Result<Self, plan::ModelError> {
        let mut model = Model::preset("rig")?.behind(link.latency_ms, link.bandwidth_mb, link.connection_mb);
        model.node.cores = cpus as u64;
        Ok(Self { workload: Workload::of(profile, 0), model, layers: Vec::new(), arms: Vec::new() })
    }

    /// Adds an arm and its image.
    pub(super) fn add(&mut self, arm: &Arm, manifest: &Manifest) {
        if arm.name == ORIGINAL {
            self.layers = manifest.layers.iter().map(|l| l.size).collect();
        }
        self.arms.push(known(arm, manifest));
    }

    /// Enters the predictions into the report, with what its runs say of the machine so far.
    pub(super) fn enter(&self, report: &mut Report) {
        let warm = |arm: &str| {
            let runs = report.runs.iter().filter(|r| r.arm == arm && r.start == Start::Warm);
            Some(Spread::of(runs.filter_map(|r| Some(r.counted()?.phases.ready_ms)))?.median)
        };
        let (measured, startup_ms) = (warm(ORIGINAL), written(&report.arms).and_then(warm));
        let mut workload = self.workload.clone();
        if let Some(ms) = measured {
            workload = workload.measured(ms.saturating_mul(1000));
        }
        if let Some(ms) = startup_ms {
            workload = workload.with_startup(ms.saturating_mul(1000));
        }
        let ready_ms = workload.ready_us / 1000;
        report.anchor = Some(Anchor { ready_ms, measured: measured.is_some(), startup_ms });
        let rule = Rule::default();
        for (facts, arm) in report.arms.iter_mut().zip(&self.arms) {
            facts.predicted = arm.map(|(arm, cutting)| {
                let shape = Shape { layers: &self.layers, rule: &rule, cutting };
                plan::predict(arm, &workload, &shape, &self.model).millis()
            });
        }
    }
}

/// The arm whose image is the original with more on top, started from disk: what a start would write is there already.
fn written(arms: &[ArmFacts]) -> Option<&str> {
    let blobs = |arm: &ArmFacts| arm.layers.iter().map(|l| l.digest).collect::<Vec<_>>();
    let original = blobs(arms.iter().find(|a| a.name == ORIGINAL)?);
    let disk = ArmOption::Disk.to_string();
    let more = |a: &&ArmFacts| {
        let all = blobs(a);
        a.options.contains(&disk) && all.len() > original.len() && all.starts_with(&original)
    };
    arms.iter().find(more).map(|a| a.name.as_str())
}

/// Which of `plan`'s arms it is; none for a start from disk, for other settings of the daemons, and for an image that does not say how
/// it was made.
fn known(arm: &Arm, manifest: &Manifest) -> Option<(plan::Arm, Cutting)> {
    let uniform = Cutting { chunk_size: crate::estargz::CHUNK_SIZE, fitted: false, stored: false, codec: Codec::Gzip };
    if arm.name == ORIGINAL {
        return Some((plan::Arm { way: Way::OriginalCold, startup: false }, uniform));
    }
    let odd = |o: &ArmOption| matches!(o, ArmOption::Disk | ArmOption::Tuned | ArmOption::Stock);
    if arm.snapshotter != LAZY || arm.options.iter().any(odd) {
        return None;
    }
    let layout: Layout = manifest.annotation(names::LAYOUT)?.parse().ok()?;
    let cutting = Cutting::of_encoder(manifest.annotation(names::ENCODER)?)?;
    let reader = if arm.has(&ArmOption::Node) {
        Reader::Node
    } else if arm.injected().is_some() || manifest.annotation(names::ENTRYPOINT).is_some() {
        Reader::Workload
    } else {
        Reader::None
    };
    let bytecode = |classes: &str| classes.split(',').any(|c| c.starts_with("bytecode="));
    let top = manifest.layers.last();
    let startup = top.and_then(|l| l.annotation(names::LAYER_ADDED_CLASSES)).is_some_and(bytecode);
    Some((plan::Arm { way: Way::Lazy(layout, reader), startup }, cutting))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test is what it is for")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::bench::report::tests::{report, run};
    use crate::bench::result::{LayerFacts, Run};
    use crate::digest::Digest;
    use crate::profile::sample;

    const ENCODER: &str = "esgz/0.1.0 libdeflate/1.26.1 level=source-or:6 chunk=4194304 hot-level=1 hot-chunk=2097152";

    fn manifest(annotations: &Value, top: &Value) -> Manifest {
        let layer = |annotations: &Value| json!({"mediaType": names::LAYER_GZIP, "digest": Digest::of(b"l"), "size": 90_000_000, "annotations": annotations});
        let raw = json!({
            "schemaVersion": 2,
            "config": {"mediaType": names::CONFIG, "digest": Digest::of(b"c"), "size": 2},
            "layers": [layer(&json!({})), layer(top)],
            "annotations": annotations,
        });
        Manifest::parse(raw.to_string().as_bytes(), "m").unwrap()
    }

    fn warm(total: u64) -> Run {
        Run { row: "original warm".into(), start: Start::Warm, ..run("original", 1, total, &[]) }
    }

    #[test]
    fn an_arm_is_known_by_its_options_and_by_what_its_image_says() {
        let (layout, encoder, added) = (names::LAYOUT, names::ENCODER, names::LAYER_ADDED_CLASSES);
        let hot = json!({layout: "hot", encoder: ENCODER});
        let embedded = json!({layout: "hot", encoder: ENCODER, names::ENTRYPOINT: "[]"});
        let none = json!({});
        let cases = [
            ("original=localhost/m", &none, &none, Some("original-cold")),
            ("x=localhost/m", &hot, &none, Some("hot")),
            ("x=localhost/m", &hot, &json!({added: "bytecode=4957"}), Some("hot+startup")),
            ("x=localhost/m", &hot, &json!({added: "compile-cache=1"}), Some("hot")),
            ("x,node=localhost/m", &hot, &json!({added: "bytecode=1,x=2"}), Some("hot+warm-node+startup")),
            ("x,warm:p=localhost/m", &json!({layout: "plain", encoder: ENCODER}), &none, Some("plain+warm")),
            ("x=localhost/m", &embedded, &none, Some("hot+warm")),
            ("x=localhost/m", &none, &none, None),
            ("x=localhost/m", &json!({layout: "hot", encoder: "other/1"}), &none, None),
            ("x=localhost/m", &json!({layout: "odd", encoder: ENCODER}), &none, None),
            ("x,stock=localhost/m", &hot, &none, None),
            ("x,disk=localhost/m", &hot, &none, None),
            ("x@overlayfs=localhost/m", &hot, &none, None),
            ("x@overlayfs,tuned=localhost/m", &none, &none, None),
        ];
        for (arm, says, top, expected) in cases {
            let found = known(&arm.parse().unwrap(), &manifest(says, top));
            assert_eq!(found.map(|(arm, _)| arm.to_string()).as_deref(), expected, "{arm} {says} {top}");
        }
    }

    #[test]
    fn it_starts_from_the_machines_own_warm_starts_as_soon_as_there_are_any() {
        let link = LinkShape { latency_ms: 30, bandwidth_mb: 400, ..LinkShape::default() };
        let mut forecast = Forecast::new(&sample::profile(), &link, 2).unwrap();
        let says = json!({names::LAYOUT: "hot", names::ENCODER: ENCODER});
        for (arm, says) in [("original=localhost/m", &json!({})), ("hot=localhost/m", &says)] {
            forecast.add(&arm.parse().unwrap(), &manifest(says, &json!({})));
        }
        let mut report = report(vec![run("original", 1, 50_000, &[]), run("hot", 1, 9000, &[])]);
        forecast.enter(&mut report);
        let profiled = report.anchor.unwrap();
        assert!(!profiled.measured, "a cold run is none");
        let before = report.arms[1].predicted.unwrap();
        report.runs.extend([warm(60_000), warm(30_000), warm(40_000), warm(600_000)]);
        if let crate::bench::result::Outcome::Measured(m) = &mut report.runs[5].outcome {
            m.invalid.push("not from disk".into());
        }
        let middle = report.runs[4].counted().unwrap().phases.ready_ms;
        forecast.enter(&mut report);
        let anchor = report.anchor.unwrap();
        assert_eq!(anchor, Anchor { ready_ms: middle, measured: true, startup_ms: None });
        let after = report.arms[1].predicted.unwrap();
        assert_eq!((after.pull_ms, after.create_ms), (before.pull_ms, before.create_ms));
        assert_eq!(after.ready_ms > before.ready_ms, anchor.ready_ms > profiled.ready_ms);
        assert_ne!(after.ready_ms, before.ready_ms);
    }

    #[test]
    fn a_start_with_its_writes_in_place_is_taken_from_the_arm_that_shows_one() {
        let link = LinkShape { latency_ms: 30, bandwidth_mb: 400, ..LinkShape::default() };
        let mut forecast = Forecast::new(&sample::profile(), &link, 2).unwrap();
        let hot = json!({names::LAYOUT: "hot", names::ENCODER: ENCODER});
        let added = json!({names::LAYER_ADDED_CLASSES: "bytecode=4957"});
        for (arm, says, top) in [
            ("original=localhost/m", &json!({}), &json!({})),
            ("limit@overlayfs,disk=localhost/m", &json!({}), &json!({})),
            ("hot=localhost/m", &hot, &added),
            ("bare=localhost/m", &hot, &json!({})),
        ] {
            forecast.add(&arm.parse().unwrap(), &manifest(says, top));
        }
        let from_disk = Run { row: "limit".into(), ..run("limit warm", 1, 20_000, &[]) };
        let mut report = report(vec![
            run("original", 1, 90_000, &[]),
            warm(40_000),
            from_disk,
            run("hot", 1, 9000, &[]),
            run("bare", 1, 9000, &[]),
        ]);
        let own = report.runs[2].counted().unwrap().phases.ready_ms;
        let ready = |report: &Report, arm: usize| report.arms[arm].predicted.unwrap().ready_ms;
        forecast.enter(&mut report);
        assert_eq!(report.anchor.unwrap().startup_ms, None, "its image is not the original with more");
        let before = [2, 3].map(|arm| ready(&report, arm));
        let more = LayerFacts { digest: Digest::of(b"more"), ..report.arms[1].layers[0].clone() };
        report.arms[1].layers.push(more);
        report.arms[1].options.push("disk".into());
        forecast.enter(&mut report);
        assert_eq!(report.anchor.unwrap().startup_ms, Some(own));
        assert_eq!(ready(&report, 3), before[1], "an image without them starts as before");
        let after = ready(&report, 2);
        assert!(after.abs_diff(own) < 2000 && after != before[0], "{after}, {own}");
    }
}
