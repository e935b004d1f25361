//! The text of a made-up report, and that JSON loses nothing of it. The builders serve the other tests too.

use super::*;
use crate::bench::evidence::Evidence;
use crate::bench::result::*;
use crate::digest::Digest;

pub(in crate::bench) fn report(runs: Vec<Run>) -> Report {
    let mut names: Vec<String> = Vec::new();
    for run in &runs {
        if !names.contains(&run.arm) {
            names.push(run.arm.clone());
        }
    }
    let digest = Digest::of(b"m");
    let arm = |name: &String| ArmFacts {
        name: name.clone(),
        reference: format!("127.0.0.1:5070/m:{name}"),
        snapshotter: if name == "original" { "overlayfs" } else { "stargz" }.into(),
        manifest: digest,
        config: digest,
        layers: vec![LayerFacts { digest, size: 9, toc: true, kind: None, chain: digest }],
        options: vec![],
        predicted: None,
    };
    Report {
        schema: SCHEMA.into(),
        esgz: "0.1.0".into(),
        started: "2026-11-25T05:00:00Z".into(),
        finished: "2026-11-25T05:09:00Z".into(),
        complete: true,
        machine: Machine {
            cpus: 2,
            cpu_model: "Some CPU".into(),
            memory_bytes: 24_683_000_000,
            kernel: "6.18.44".into(),
        },
        versions: [("containerd".into(), "v2.4.2".into())].into(),
        link: LinkShape {
            latency_ms: 30,
            bandwidth_mb: 400,
            listen: "127.0.0.1:5071".into(),
            upstream: "127.0.0.1:5070".into(),
            ..LinkShape::default()
        },
        workload: Workload {
            port: 8000,
            prompt: "Say hello.".into(),
            max_tokens: 8,
            env: vec!["K".into()],
            args: vec![],
        },
        rounds: 3,
        seed: 0,
        arms: names.iter().map(arm).collect(),
        runs,
    }
}

fn bare(row: &str, round: u32, outcome: Outcome) -> Run {
    let arm = row.split(' ').next().unwrap().to_owned();
    let valid = matches!(&outcome, Outcome::Measured(m) if m.invalid.is_empty());
    let start = if row.ends_with("warm") { Start::Warm } else { Start::Cold };
    Run {
        row: row.into(),
        arm,
        start,
        round,
        started: "2026-11-25T05:00:01Z".into(),
        load: "0.10".into(),
        valid,
        outcome,
    }
}

pub(in crate::bench) fn run(row: &str, round: u32, total_ms: u64, invalid: &[&str]) -> Run {
    let cold = !row.ends_with("warm");
    let pull_ms = cold.then_some(total_ms / 10);
    let ready_ms = total_ms - pull_ms.unwrap_or(0) - total_ms / 10;
    let lazy = !row.starts_with("original");
    let measured = Measured {
        phases: Phases {
            pull_ms,
            create_ms: total_ms / 20,
            ready_ms,
            chat_ms: total_ms / 10 - total_ms / 20,
            total_ms,
        },
        link: Split {
            pull: if cold { Traffic { requests: 12, bytes: 138_450_000 } } else { Traffic::default() },
            ..Split::default()
        },
        cpu: Split {
            start: CpuUse { snapshotter_ms: if lazy { 6_430 } else { 0 }, ..CpuUse::default() },
            ..Split::default()
        },
        answer: "Hello!".into(),
        lazy_layers: if lazy { 4 } else { 0 },
        layers: if lazy { 5 } else { 4 },
        invalid: invalid.iter().map(|s| (*s).to_owned()).collect(),
        evidence: Evidence::default(),
        timeline: vec![],
        samples: vec![],
        metrics: std::collections::BTreeMap::new(),
        warm: None,
    };
    bare(row, round, Outcome::Measured(Box::new(measured)))
}

pub(in crate::bench) fn failed(row: &str, round: u32) -> Run {
    let log = vec!["Traceback (most recent call last):".into(), "RuntimeError: no".into()];
    bare(row, round, Outcome::Failed { error: "the container ended: CONTAINER_EXITED, exit code 1".into(), log })
}

fn example() -> Report {
    report(vec![
        run("original cold", 1, 104_200, &[]),
        run("original warm", 1, 30_900, &[]),
        run("hot", 1, 27_000, &[]),
        run("plain", 1, 70_000, &["layer 2 of 5 (sha256:000000000000) was refused by the snapshotter"]),
        run("hot", 2, 9_100, &[]),
        failed("plain", 2),
        run("original cold", 2, 115_000, &[]),
        run("original warm", 2, 31_100, &[]),
    ])
}

#[test]
fn the_text_of_a_report() {
    insta::assert_snapshot!(render(&example()), @r#"
┌───────────────┬───┬────────┬──────────┬─────────┬────────┬─────────────────────┬────────┬────────┬──────────────┬──────────┬───────────────────┬─────────────┬───────┐
│ arm           ┆ n ┆ pull s ┆ create s ┆ ready s ┆ chat s ┆ total s [min-max]   ┆ x cold ┆ x warm ┆ MB over link ┆ requests ┆ snapshotter CPU-s ┆ lazy layers ┆ valid │
╞═══════════════╪═══╪════════╪══════════╪═════════╪════════╪═════════════════════╪════════╪════════╪══════════════╪══════════╪═══════════════════╪═════════════╪═══════╡
│ original cold ┆ 2 ┆   11.0 ┆     5.48 ┆    87.7 ┆   5.48 ┆ 109.6 [104.2-115.0] ┆   1.00 ┆   3.53 ┆        138.5 ┆       12 ┆              0.00 ┆         0/4 ┆   2/2 │
│ original warm ┆ 2 ┆      - ┆     1.55 ┆    27.9 ┆   1.55 ┆    31.0 [30.9-31.1] ┆   0.28 ┆   1.00 ┆          0.0 ┆        0 ┆              0.00 ┆         0/4 ┆   2/2 │
│ hot           ┆ 2 ┆   1.81 ┆     0.90 ┆    14.4 ┆   0.90 ┆    18.1 [9.10-27.0] ┆   0.17 ┆   0.58 ┆        138.5 ┆       12 ┆              6.43 ┆         4/5 ┆   2/2 │
│ plain         ┆ 0 ┆      - ┆        - ┆       - ┆      - ┆                   - ┆      - ┆      - ┆            - ┆        - ┆                 - ┆           - ┆   0/2 │
└───────────────┴───┴────────┴──────────┴─────────┴────────┴─────────────────────┴────────┴────────┴──────────────┴──────────┴───────────────────┴─────────────┴───────┘
INVALID plain, round 1 (70.0 s, not counted): layer 2 of 5 (sha256:000000000000) was refused by the snapshotter
FAILED plain, round 2: the container ended: CONTAINER_EXITED, exit code 1
    | Traceback (most recent call last):
    | RuntimeError: no
machine: 2 CPUs (Some CPU), 24683 MB of memory, kernel 6.18.44; registry, link, snapshotter and workload share it
link: 30 ms per request, 400 MB/s over all connections, in front of 127.0.0.1:5070 for every arm (setting up a connection is not charged)
versions: esgz 0.1.0, containerd v2.4.2
total: from the start of the pull (warm: of the pod) to a whole answer to "Say hello.", temperature 0, 8 tokens; pull: crictl pull; create: pod, container, start; ready: until /health says 200; chat: model list and answer
cold: wiped state, page cache dropped, image not there; warm: image on disk, page cache dropped. In a cold run the registry's own files are cold too.
n: runs that count, of 3 asked for, rounds interleaved and rotated; figures are medians over them (medians of phases need not add up), x cold and x warm medians of per-round ratios to "original"; so few runs show sizes, not significance.
started 2026-11-25T05:00:00Z
"#);
}

#[test]
fn a_report_read_back_says_the_same() {
    let mut report = example();
    report.complete = false;
    let text = serde_json::to_string_pretty(&report).unwrap();
    let back = read(&text).unwrap();
    assert_eq!(serde_json::to_string_pretty(&back).unwrap(), text);
    assert_eq!(render(&back), render(&report));
    assert!(render(&back).starts_with("PARTIAL"));
    assert!(read(&text.replace("esgz.bench/v1", "esgz.bench/v9")).is_err());
}

#[test]
fn a_report_without_runs_is_still_a_text() {
    assert!(render(&report(vec![])).contains("lazy layers"));
}

#[test]
fn another_answer_is_marked_with_both_texts() {
    let mut runs = example().runs;
    for (i, text) in [(0, "Hello?"), (2, "Bye.")] {
        if let Outcome::Measured(m) = &mut runs[i].outcome {
            m.answer = text.into();
        }
    }
    // The original's first run is the reference, even if others came before.
    let hot = runs.remove(2);
    runs.insert(0, hot);
    let marked = cross_check(&mut runs, "original");
    // All that were measured but the reference, whose own text is now the odd one out.
    assert_eq!(marked.len(), 6);
    let hot = runs[0].measured().unwrap();
    assert_eq!(hot.invalid, ["the answer \"Bye.\" differs from \"Hello?\" of original cold, round 1"]);
    assert!(!runs[0].valid && runs[1].valid);
    assert_eq!(cross_check(&mut runs, "original"), []);
    assert!(runs[1].counted().is_some());
}

#[test]
fn numbers_are_rounded_not_cut() {
    assert_eq!([0, 4, 5, 9_994, 9_995, 104_250].map(seconds), ["0.00", "0.00", "0.01", "9.99", "10.0", "104.2"]);
    assert_eq!([0, 49_999, 50_000, 138_450_000].map(megabytes), ["0.0", "0.0", "0.1", "138.5"]);
}
