//! A made-up benchmark for tests: sizes as in docs/bench-vllm.md, invented runs. Nothing here was measured, and nothing of it is
//! shipped. `cargo test --lib -- --ignored write_the_sample_report` writes it where `ESGZ_SAMPLE` says.

use serde_json::json;

use super::report::tests::{failed, report, run};
use super::result::*;
use super::trace::Trace;
use crate::digest::Digest;
use crate::plan::Predicted;
use crate::profile::cover::{Cover, Missed};

/// Name; milliseconds of pull (0: from disk), create, ready; MB over the link during pull and start; lazy and all layers;
/// snapshotter CPU; a read-ahead.
type Made = (&'static str, [u64; 3], [u64; 2], (usize, usize), u64, bool);

const ROWS: &[Made] = &[
    ("original cold", [70_600, 230, 34_400], [4_518, 0], (0, 4), 0, false),
    ("original warm", [0, 230, 34_900], [0, 0], (0, 4), 0, false),
    ("tuned", [48_300, 240, 34_800], [4_518, 0], (0, 4), 0, false),
    ("bytecode-disk", [0, 240, 17_400], [0, 0], (0, 5), 0, false),
    ("plain", [610, 270, 78_500], [2, 806], (4, 4), 27_200, false),
    ("landmark", [2_820, 41_600, 42_600], [3, 3_237], (4, 4), 81_500, false),
    ("hot", [3_770, 260, 34_600], [140, 567], (5, 6), 12_000, false),
    ("auto", [3_900, 260, 20_900], [140, 580], (5, 6), 9_300, true),
];

/// Shares of the ready phase at which the phases of the workload's log begin.
const LOG: &[(&str, u64)] = &[
    ("first-log", 4),
    ("import", 5),
    ("engine-init", 48),
    ("load", 55),
    ("compile", 62),
    ("kv-cache", 88),
    ("api-start", 92),
];

/// Numbers that look like noise and are always the same.
struct Noise(u64);

impl Noise {
    /// `value`, up to `percent` less or more.
    fn around(&mut self, value: u64, percent: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        value * (100_000 + (self.0 >> 33) % (2_000 * percent + 1) - 1_000 * percent) / 100_000
    }
}

/// All arms in `rounds` rounds; one invalid and one failed run where there are more than three.
pub(super) fn sample(rounds: u32) -> Report {
    let mut noise = Noise(7);
    let mut runs = Vec::new();
    for round in 1..=rounds {
        let drift = noise.around(1000, 8);
        runs.extend(ROWS.iter().map(|row| made(row, round, drift, &mut noise)));
    }
    if rounds > 3 {
        let cold = "layer 2 of 4 (sha256:00c0ffee0123) was in the content store before the pull";
        mark(&mut runs[ROWS.len() + 4], cold);
        runs[2 * ROWS.len() + 5] = failed("landmark", 3);
    }
    let mut report = report(runs);
    for (i, arm) in report.arms.iter_mut().enumerate() {
        arm.manifest = Digest::of(&[1, u8::try_from(i).unwrap_or(0)]);
        arm.config = Digest::of(&[2, u8::try_from(i).unwrap_or(0)]);
        arm.layers = (0..4_u8)
            .map(|l| LayerFacts {
                digest: Digest::of(&[3, l]),
                size: 1_100_000_000 + u64::from(l),
                toc: arm.snapshotter == "stargz",
                kind: None,
                chain: Digest::of(&[4, l]),
            })
            .collect();
        let (options, predicted): (&[&str], _) = match arm.name.as_str() {
            "tuned" => (&["tuned"], None),
            "bytecode-disk" => (&["disk"], None),
            "plain" => (&[], Some(Predicted { pull_ms: 600, create_ms: 250, ready_ms: 81_000 })),
            "hot" => (&[], Some(Predicted { pull_ms: 3_500, create_ms: 250, ready_ms: 31_200 })),
            "auto" => (&["warm:profile.json"], Some(Predicted { pull_ms: 3_600, create_ms: 250, ready_ms: 21_600 })),
            _ => (&[], None),
        };
        arm.options = options.iter().map(|o| (*o).to_owned()).collect();
        arm.predicted = predicted;
        if matches!(arm.name.as_str(), "tuned" | "bytecode-disk") {
            arm.snapshotter = "overlayfs".into();
        }
    }
    let auto = report.runs.iter().rev().find(|r| r.arm == "auto").cloned();
    report.traced = auto.map(traced).into_iter().collect();
    report.rounds = rounds;
    report.machine.cpu_model = "SAMPLE CPU, made up".into();
    report.versions.extend([("runc".into(), "1.1.5".into()), ("stargz-snapshotter".into(), "v0.19.1".into())]);
    report
}

/// The same once more, with the recorder looking on.
fn traced(mut run: Run) -> Run {
    (run.round, run.traced) = (0, true);
    let missed = |path: &str, bytes, ranges| Missed { path: path.into(), bytes, ranges };
    if let Outcome::Measured(m) = &mut run.outcome {
        m.trace = Some(Trace {
            recorder: "filemap".into(),
            list: "profile profile.json".into(),
            events: 412_345,
            left_out_bytes: 6_100_000,
            reader_bytes: 298_000_000,
            cover: Cover {
                listed_bytes: 350_000_000,
                touched_bytes: 375_315_729,
                hit_bytes: 326_900_000,
                missed_bytes: 48_415_729,
                missed_ranges: 412,
                missed_files: 2,
                missed: vec![
                    missed("/opt/venv/lib/python3.12/site-packages/torch/lib/libtorch_cpu.so", 48_015_729, 400),
                    missed("/usr/lib/x86_64-linux-gnu/libc.so.6", 400_000, 12),
                ],
            },
            ..Trace::default()
        });
    }
    run
}

/// Speaks against a run.
pub(super) fn mark(run: &mut Run, why: &str) {
    if let Outcome::Measured(m) = &mut run.outcome {
        m.invalid.push(why.into());
        run.valid = false;
    }
}

fn made(row: &Made, round: u32, drift: u64, noise: &mut Noise) -> Run {
    let (name, [pull, create, ready], megabytes, (lazy, layers), snapshotter, ahead) = *row;
    let mut vary = |ms: u64| noise.around(ms * drift / 1000, 4);
    let (pull, create, ready, chat) = (vary(pull), vary(create), vary(ready), vary(290));
    let total = pull + create + ready + chat;
    let mut out = run(name, round, total, &[]);
    let warm = pull == 0;
    if warm {
        out.start = Start::Warm;
    }
    let Outcome::Measured(m) = &mut out.outcome else { return out };
    m.phases =
        Phases { pull_ms: (!warm).then_some(pull), create_ms: create, ready_ms: ready, chat_ms: chat, total_ms: total };
    let [in_pull, in_start] = megabytes.map(|mb| noise.around(mb * 1_000_000, 1));
    let requests = |bytes: u64| if bytes == 0 { 0 } else { 4 + bytes / 2_900_000 };
    m.link = Split {
        pull: Traffic { requests: requests(in_pull), bytes: in_pull },
        start: Traffic { requests: requests(in_start), bytes: in_start },
        chat: Traffic::default(),
    };
    m.cpu = Split {
        pull: CpuUse {
            snapshotter_ms: snapshotter / 10,
            containerd_ms: in_pull / 80_000,
            workload_ms: 0,
            bench_ms: 200,
            reader_ms: 0,
        },
        start: CpuUse {
            snapshotter_ms: snapshotter,
            containerd_ms: 300,
            workload_ms: ready * 95 / 100,
            bench_ms: 900,
            reader_ms: 0,
        },
        chat: CpuUse { workload_ms: 280, ..CpuUse::default() },
    };
    (m.lazy_layers, m.layers) = (lazy, layers);
    let created = pull + create;
    let at = |name: &str, at_ms: u64| Moment { name: name.into(), at_ms };
    m.timeline = vec![at("pulled", pull), at("created", created)];
    m.timeline.extend(LOG.iter().map(|(name, share)| at(name, created + ready * share / 100)));
    m.timeline.extend([at("ready", created + ready), at("first-token", total - chat / 3), at("answer", total)]);
    m.samples = (0..=total / 250)
        .map(|i| {
            let ms = i * 250;
            let part =
                |bytes: u64, from: u64, to: u64| bytes / 1000 * (ms.clamp(from, to) - from) * 1000 / (to - from).max(1);
            // Most of a start's bytes come early.
            let bytes = part(in_pull, 0, pull) + part(in_start, created, created + ready / 2);
            let cpu = CpuUse {
                snapshotter_ms: snapshotter * ms / total,
                workload_ms: ms.saturating_sub(created),
                ..CpuUse::default()
            };
            Sample { at_ms: ms, link: Traffic { requests: requests(bytes), bytes }, cpu }
        })
        .collect();
    if lazy > 0 {
        m.metrics =
            [("on_demand_remote_registry_fetch_count".into(), 1234.0), ("on_demand_bytes_fetched".into(), 5.6e8)]
                .into();
    }
    if ahead {
        m.warm = Some(json!({
            "schema": "esgz.warm/v1", "ended": "done", "bytes_planned": 357_000_000, "bytes_read": noise.around(298_000_000, 3),
            "bytes_resident": 41_000_000, "bytes_skipped": 6_100_000, "files_planned": 21, "files_missing": 0,
            "ms": noise.around(6_200, 5), "cpu_ms": 640,
        }));
    }
    out
}

#[test]
#[ignore = "writes a file for people to look at"]
fn write_the_sample_report() {
    let file = std::env::var("ESGZ_SAMPLE").expect("ESGZ_SAMPLE names the file");
    let rounds = std::env::var("ESGZ_SAMPLE_ROUNDS").map_or(5, |n| n.parse().expect("a number"));
    std::fs::write(file, serde_json::to_string_pretty(&sample(rounds)).expect("JSON")).expect("written");
}
