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
        anchor: None,
        arms: names.iter().map(arm).collect(),
        runs,
        traced: vec![],
        untraced: None,
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
        cpu_mb: Some(300),
        valid,
        traced: false,
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
        trace: None,
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
┌───────────────┬─────┬────────┬──────────┬─────────┬────────┬─────────────────────┬─────────────────┬─────────────────┐
│ arm           ┆ n   ┆ pull s ┆ create s ┆ ready s ┆ chat s ┆ total s [min-max]   ┆ x original cold ┆ x original warm │
╞═══════════════╪═════╪════════╪══════════╪═════════╪════════╪═════════════════════╪═════════════════╪═════════════════╡
│ original cold ┆ 2/2 ┆   11.0 ┆     5.48 ┆    87.7 ┆   5.48 ┆ 109.6 [104.2-115.0] ┆               1 ┆            3.53 │
│ original warm ┆ 2/2 ┆      - ┆     1.55 ┆    27.9 ┆   1.55 ┆    31.0 [30.9-31.1] ┆            0.28 ┆               1 │
│ hot           ┆ 2/2 ┆   1.81 ┆     0.90 ┆    14.4 ┆   0.90 ┆    18.1 [9.10-27.0] ┆            0.14 ┆            0.51 │
│ plain         ┆ 0/2 ┆      - ┆        - ┆       - ┆      - ┆                   - ┆               - ┆               - │
└───────────────┴─────┴────────┴──────────┴─────────┴────────┴─────────────────────┴─────────────────┴─────────────────┘
Costs:
┌───────────────┬──────────────┬──────────┬───────────────────┬────────────┬──────────┬────────┬─────────────┐
│ arm           ┆ MB over link ┆ requests ┆ snapshotter CPU-s ┆ containerd ┆ workload ┆ reader ┆ lazy layers │
╞═══════════════╪══════════════╪══════════╪═══════════════════╪════════════╪══════════╪════════╪═════════════╡
│ original cold ┆        138.5 ┆       12 ┆              0.00 ┆       0.00 ┆     0.00 ┆      - ┆         0/4 │
│ original warm ┆          0.0 ┆        0 ┆              0.00 ┆       0.00 ┆     0.00 ┆      - ┆         0/4 │
│ hot           ┆        138.5 ┆       12 ┆              6.43 ┆       0.00 ┆     0.00 ┆      - ┆         4/5 │
│ plain         ┆            - ┆        - ┆                 - ┆          - ┆        - ┆      - ┆           - │
└───────────────┴──────────────┴──────────┴───────────────────┴────────────┴──────────┴────────┴─────────────┘
Comparisons:
┌───────────────┬───────────────┬───┬────────────────────────────────────┬──────────────┬───────────────────────────┬─────┬──────┬────────┬──────┐
│ arm           ┆ against       ┆ n ┆ shown                              ┆ ratio [95 %] ┆ difference s [min to max] ┆ p t ┆ Holm ┆ p rank ┆ Holm │
╞═══════════════╪═══════════════╪═══╪════════════════════════════════════╪══════════════╪═══════════════════════════╪═════╪══════╪════════╪══════╡
│ original warm ┆ original cold ┆ 2 ┆ not shown: n too small, at least 3 ┆         0.28 ┆    -78.6 [-83.9 to -73.3] ┆   - ┆    - ┆      - ┆    - │
│ hot           ┆ original cold ┆ 2 ┆ not shown: n too small, at least 3 ┆         0.14 ┆   -91.5 [-105.9 to -77.2] ┆   - ┆    - ┆      - ┆    - │
│ hot           ┆ original warm ┆ 2 ┆ not shown: n too small, at least 3 ┆         0.51 ┆    -12.9 [-22.0 to -3.90] ┆   - ┆    - ┆      - ┆    - │
└───────────────┴───────────────┴───┴────────────────────────────────────┴──────────────┴───────────────────────────┴─────┴──────┴────────┴──────┘
No arm can be claimed to be faster: 2 of at least 3 rounds.
INVALID plain, round 1 (70.0 s, not counted): layer 2 of 5 (sha256:000000000000) was refused by the snapshotter
FAILED plain, round 2: the container ended: CONTAINER_EXITED, exit code 1
    | Traceback (most recent call last):
    | RuntimeError: no
comparisons: 3 comparisons, n = 2: ratios of totals within a round, their geometric mean, and Student's t interval (95 %) on their logarithms
comparisons: with fewer than 3 rounds there is no interval and no claim
machine: 2 CPUs (Some CPU), 24683 MB of memory, kernel 6.18.44; before the runs each CPU inflated and hashed 300 MB/s [300-300]; registry, link, snapshotter and workload share it
link: 30 ms per request, 400 MB/s over all connections, in front of 127.0.0.1:5070 for every arm (setting up a connection is not charged)
versions: esgz 0.1.0, containerd v2.4.2
total: from the start of the pull (warm: of the pod) to a whole answer to "Say hello.", temperature 0, 8 tokens; pull: crictl pull; create: pod, container, start; ready: until /health says 200; chat: model list and answer
cold: wiped state, page cache dropped, image not there; warm: image on disk, page cache dropped. In a cold run the registry's own files are cold too.
n: runs that count, of those made; 3 rounds asked for, their order drawn anew for each; figures are medians over the runs that count (medians of phases need not add up)
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
    let mut traced = vec![run("hot", 0, 9_000, &[])];
    traced[0].traced = true;
    let marked = cross_check(&mut runs, &mut traced, "original");
    // All that were measured but the reference, whose own text is now the odd one out.
    assert_eq!(marked.len(), 6 + 1);
    assert!(!traced[0].valid && traced[0].cover().is_none());
    let hot = runs[0].measured().unwrap();
    assert_eq!(hot.invalid, ["the answer \"Bye.\" differs from \"Hello?\" of original cold, round 1"]);
    assert!(!runs[0].valid && runs[1].valid);
    assert_eq!(cross_check(&mut runs, &mut traced, "original"), []);
    assert!(runs[1].counted().is_some());
}

#[test]
fn five_rounds_of_everything() {
    insta::assert_snapshot!(render(&crate::bench::sample::sample(5)), @r#"
┌───────────────┬─────┬────────┬──────────┬─────────┬────────┬─────────────────────┬──────────────────┬──────────────────┬──────────────────┐
│ arm           ┆ n   ┆ pull s ┆ create s ┆ ready s ┆ chat s ┆ total s [min-max]   ┆ x original cold  ┆ x original warm  ┆ x bytecode-disk  │
╞═══════════════╪═════╪════════╪══════════╪═════════╪════════╪═════════════════════╪══════════════════╪══════════════════╪══════════════════╡
│ original cold ┆ 5/5 ┆   73.5 ┆     0.23 ┆    35.2 ┆   0.29 ┆ 109.5 [104.2-111.4] ┆                1 ┆ 2.95 [2.83-3.07] ┆ 5.90 [5.67-6.14] │
│ original warm ┆ 5/5 ┆      - ┆     0.24 ┆    36.5 ┆   0.30 ┆    37.1 [34.6-38.2] ┆ 0.34 [0.33-0.35] ┆                1 ┆ 2.00 [1.89-2.13] │
│ tuned         ┆ 5/5 ┆   49.8 ┆     0.25 ┆    35.7 ┆   0.29 ┆    85.4 [83.4-86.9] ┆ 0.79 [0.76-0.82] ┆ 2.32 [2.24-2.41] ┆ 4.65 [4.51-4.79] │
│ bytecode-disk ┆ 5/5 ┆      - ┆     0.24 ┆    17.9 ┆   0.29 ┆    18.4 [18.1-18.6] ┆ 0.17 [0.16-0.18] ┆ 0.50 [0.47-0.53] ┆                1 │
│ plain         ┆ 4/5 ┆   0.63 ┆     0.27 ┆    80.8 ┆   0.30 ┆    82.0 [77.5-86.5] ┆ 0.76 [0.71-0.81] ┆ 2.22 [2.00-2.47] ┆ 4.46 [4.12-4.84] │
│ landmark      ┆ 4/5 ┆   2.86 ┆     42.1 ┆    43.7 ┆   0.29 ┆    88.8 [87.6-90.9] ┆ 0.83 [0.78-0.87] ┆ 2.44 [2.29-2.61] ┆ 4.83 [4.66-5.00] │
│ hot           ┆ 5/5 ┆   3.90 ┆     0.26 ┆    35.7 ┆   0.30 ┆    40.2 [38.5-40.8] ┆ 0.37 [0.36-0.38] ┆ 1.08 [1.03-1.14] ┆ 2.17 [2.11-2.23] │
│ auto          ┆ 5/5 ┆   4.00 ┆     0.26 ┆    21.6 ┆   0.29 ┆    26.1 [25.6-26.9] ┆ 0.24 [0.23-0.25] ┆ 0.71 [0.68-0.74] ┆ 1.42 [1.38-1.47] │
└───────────────┴─────┴────────┴──────────┴─────────┴────────┴─────────────────────┴──────────────────┴──────────────────┴──────────────────┘
Costs:
┌───────────────┬──────────────┬──────────┬───────────────────┬────────────┬──────────┬────────┬─────────────┐
│ arm           ┆ MB over link ┆ requests ┆ snapshotter CPU-s ┆ containerd ┆ workload ┆ reader ┆ lazy layers │
╞═══════════════╪══════════════╪══════════╪═══════════════════╪════════════╪══════════╪════════╪═════════════╡
│ original cold ┆       4533.7 ┆     1567 ┆              0.00 ┆       57.0 ┆     33.7 ┆      - ┆         0/4 │
│ original warm ┆          0.0 ┆        0 ┆              0.00 ┆       0.30 ┆     35.0 ┆      - ┆         0/4 │
│ tuned         ┆       4516.0 ┆     1561 ┆              0.00 ┆       56.8 ┆     34.2 ┆      - ┆         0/4 │
│ bytecode-disk ┆          0.0 ┆        0 ┆              0.00 ┆       0.30 ┆     17.3 ┆      - ┆         0/5 │
│ plain         ┆        806.7 ┆      285 ┆              29.9 ┆       0.33 ┆     77.1 ┆      - ┆         4/4 │
│ landmark      ┆       3229.9 ┆     1121 ┆              89.7 ┆       0.34 ┆     41.8 ┆      - ┆         4/4 │
│ hot           ┆        705.9 ┆      251 ┆              13.2 ┆       2.05 ┆     34.2 ┆      - ┆         5/6 │
│ auto          ┆        718.6 ┆      255 ┆              10.2 ┆       2.05 ┆     20.8 ┆   0.64 ┆         5/6 │
└───────────────┴──────────────┴──────────┴───────────────────┴────────────┴──────────┴────────┴─────────────┘
Comparisons:
┌───────────────┬───────────────┬───┬───────────────────────────┬──────────────────┬───────────────────────────┬─────────┬─────────┬────────┬───────┐
│ arm           ┆ against       ┆ n ┆ shown                     ┆ ratio [95 %]     ┆ difference s [min to max] ┆ p t     ┆ Holm    ┆ p rank ┆ Holm  │
╞═══════════════╪═══════════════╪═══╪═══════════════════════════╪══════════════════╪═══════════════════════════╪═════════╪═════════╪════════╪═══════╡
│ original warm ┆ original cold ┆ 5 ┆    66 % [65-67] less time ┆ 0.34 [0.33-0.35] ┆    -73.0 [-73.5 to -67.1] ┆ <0.0001 ┆ <0.0001 ┆  0.062 ┆ 1.000 │
│ tuned         ┆ original cold ┆ 5 ┆    21 % [18-24] less time ┆ 0.79 [0.76-0.82] ┆    -24.5 [-26.0 to -18.7] ┆ <0.0001 ┆  0.0002 ┆  0.062 ┆ 1.000 │
│ bytecode-disk ┆ original cold ┆ 5 ┆    83 % [82-84] less time ┆ 0.17 [0.16-0.18] ┆    -91.0 [-93.3 to -86.0] ┆ <0.0001 ┆ <0.0001 ┆  0.062 ┆ 1.000 │
│ plain         ┆ original cold ┆ 4 ┆    24 % [19-29] less time ┆ 0.76 [0.71-0.81] ┆    -25.8 [-31.1 to -22.1] ┆  0.0010 ┆  0.0029 ┆  0.125 ┆ 1.000 │
│ landmark      ┆ original cold ┆ 4 ┆    17 % [13-22] less time ┆ 0.83 [0.78-0.87] ┆    -18.1 [-23.6 to -15.1] ┆  0.0016 ┆  0.0032 ┆  0.125 ┆ 1.000 │
│ hot           ┆ original cold ┆ 5 ┆    63 % [62-64] less time ┆ 0.37 [0.36-0.38] ┆    -70.0 [-70.8 to -65.7] ┆ <0.0001 ┆ <0.0001 ┆  0.062 ┆ 1.000 │
│ auto          ┆ original cold ┆ 5 ┆    76 % [75-77] less time ┆ 0.24 [0.23-0.25] ┆    -83.9 [-85.1 to -77.9] ┆ <0.0001 ┆ <0.0001 ┆  0.062 ┆ 1.000 │
│ tuned         ┆ original warm ┆ 5 ┆ 132 % [124-141] more time ┆ 2.32 [2.24-2.41] ┆    +48.7 [+46.9 to +50.1] ┆ <0.0001 ┆ <0.0001 ┆  0.062 ┆ 1.000 │
│ bytecode-disk ┆ original warm ┆ 5 ┆    50 % [47-53] less time ┆ 0.50 [0.47-0.53] ┆    -18.9 [-20.1 to -16.0] ┆ <0.0001 ┆ <0.0001 ┆  0.062 ┆ 1.000 │
│ plain         ┆ original warm ┆ 4 ┆ 122 % [100-147] more time ┆ 2.22 [2.00-2.47] ┆    +45.3 [+40.4 to +49.4] ┆  0.0002 ┆  0.0007 ┆  0.125 ┆ 1.000 │
│ landmark      ┆ original warm ┆ 4 ┆ 144 % [129-161] more time ┆ 2.44 [2.29-2.61] ┆    +53.0 [+49.9 to +54.4] ┆ <0.0001 ┆  0.0002 ┆  0.125 ┆ 1.000 │
│ hot           ┆ original warm ┆ 5 ┆  8.5 % [2.9-14] more time ┆ 1.08 [1.03-1.14] ┆    +2.99 [+1.42 to +5.59] ┆  0.0124 ┆  0.0124 ┆  0.062 ┆ 1.000 │
│ auto          ┆ original warm ┆ 5 ┆    29 % [26-32] less time ┆ 0.71 [0.68-0.74] ┆    -10.9 [-11.5 to -8.49] ┆ <0.0001 ┆  0.0002 ┆  0.062 ┆ 1.000 │
│ tuned         ┆ bytecode-disk ┆ 5 ┆ 365 % [351-379] more time ┆ 4.65 [4.51-4.79] ┆    +67.3 [+65.0 to +68.8] ┆ <0.0001 ┆ <0.0001 ┆  0.062 ┆ 1.000 │
│ plain         ┆ bytecode-disk ┆ 4 ┆ 346 % [312-384] more time ┆ 4.46 [4.12-4.84] ┆    +63.4 [+59.4 to +68.4] ┆ <0.0001 ┆ <0.0001 ┆  0.125 ┆ 1.000 │
│ landmark      ┆ bytecode-disk ┆ 4 ┆ 383 % [366-400] more time ┆ 4.83 [4.66-5.00] ┆    +70.4 [+69.0 to +72.4] ┆ <0.0001 ┆ <0.0001 ┆  0.125 ┆ 1.000 │
│ hot           ┆ bytecode-disk ┆ 5 ┆ 117 % [111-123] more time ┆ 2.17 [2.11-2.23] ┆    +21.6 [+20.4 to +22.5] ┆ <0.0001 ┆ <0.0001 ┆  0.062 ┆ 1.000 │
│ auto          ┆ bytecode-disk ┆ 5 ┆    42 % [38-47] more time ┆ 1.42 [1.38-1.47] ┆    +7.57 [+7.12 to +8.76] ┆ <0.0001 ┆ <0.0001 ┆  0.062 ┆ 1.000 │
└───────────────┴───────────────┴───┴───────────────────────────┴──────────────────┴───────────────────────────┴─────────┴─────────┴────────┴───────┘
Predicted and measured, s:
┌───────┬──────┬──────────┬────────┬──────────┬───────┬──────────┬──────┬──────────┬──────────────────┐
│ arm   ┆ pull ┆ measured ┆ create ┆ measured ┆ ready ┆ measured ┆ sum  ┆ measured ┆ error of the sum │
╞═══════╪══════╪══════════╪════════╪══════════╪═══════╪══════════╪══════╪══════════╪══════════════════╡
│ plain ┆ 0.60 ┆     0.63 ┆   0.25 ┆     0.27 ┆  81.0 ┆     80.8 ┆ 81.8 ┆     81.7 ┆           +0.2 % │
│ hot   ┆ 3.50 ┆     3.90 ┆   0.25 ┆     0.26 ┆  31.2 ┆     35.7 ┆ 35.0 ┆     39.9 ┆            -12 % │
│ auto  ┆ 3.60 ┆     4.00 ┆   0.25 ┆     0.26 ┆  21.6 ┆     21.6 ┆ 25.4 ┆     25.8 ┆           -1.5 % │
└───────┴──────┴──────────┴────────┴──────────┴───────┴──────────┴──────┴──────────┴──────────────────┘
Read-ahead:
┌──────┬────────────┬─────────┬──────────────────┬────────────────┬────────┬─────────────┬──────────┬───────────┬────────┐
│ arm  ┆ planned MB ┆ read MB ┆ there already MB ┆ passed over MB ┆ took s ┆ precision % ┆ recall % ┆ missed MB ┆ ranges │
╞══════╪════════════╪═════════╪══════════════════╪════════════════╪════════╪═════════════╪══════════╪═══════════╪════════╡
│ auto ┆      357.0 ┆   299.8 ┆             41.0 ┆            6.1 ┆   6.32 ┆        93.4 ┆     87.1 ┆      48.4 ┆    412 │
└──────┴────────────┴─────────┴──────────────────┴────────────────┴────────┴─────────────┴──────────┴───────────┴────────┘
Files that the read-ahead missed most of:
┌──────┬──────────────────────────────────────────────────────────────────┬───────────┬────────┐
│ arm  ┆ file                                                             ┆ missed MB ┆ ranges │
╞══════╪══════════════════════════════════════════════════════════════════╪═══════════╪════════╡
│ auto ┆ /opt/venv/lib/python3.12/site-packages/torch/lib/libtorch_cpu.so ┆      48.0 ┆    400 │
│ auto ┆ /usr/lib/x86_64-linux-gnu/libc.so.6                              ┆       0.4 ┆     12 │
└──────┴──────────────────────────────────────────────────────────────────┴───────────┴────────┘
auto: 26.1 s to the first answer, 76 % [75-77] less time than original cold, 29 % [26-32] less time than original warm, 42 % [38-47] more time than bytecode-disk.
INVALID plain, round 2 (82.5 s, not counted): layer 2 of 4 (sha256:00c0ffee0123) was in the content store before the pull
FAILED landmark, round 3: the container ended: CONTAINER_EXITED, exit code 1
    | Traceback (most recent call last):
    | RuntimeError: no
traced: auto: 326.9 of 375.3 MB touched of lazily served files were on the list (profile profile.json) of 350.0 MB, 48.4 MB in 412 ranges of 2 files were not; 6.1 MB more on it are not served lazily; seen with filemap, 412345 events, 0 lost, 298.0 MB read by the reader; 26.1 s, counted nowhere else
comparisons: 18 comparisons, n from 4 to 5: ratios of totals within a round, their geometric mean, and Student's t interval (95 %) on their logarithms
comparisons: p: of the t test, and of the exact signed-rank test of Wilcoxon beside it, both raised after Holm for 18; less or more time is claimed only where the interval excludes 1 and the t test's raised p value is below 0.05
comparisons: with 5 rounds the signed-rank test cannot go below p = 0.0625, whatever the figures: it needs 6 to reach 5 %
machine: 2 CPUs (SAMPLE CPU, made up), 24683 MB of memory, kernel 6.18.44; before the runs each CPU inflated and hashed 300 MB/s [300-300]; registry, link, snapshotter and workload share it
link: 30 ms per request, 400 MB/s over all connections, in front of 127.0.0.1:5070 for every arm (setting up a connection is not charged)
versions: esgz 0.1.0, containerd v2.4.2, runc 1.1.5, stargz-snapshotter v0.19.1
total: from the start of the pull (warm: of the pod) to a whole answer to "Say hello.", temperature 0, 8 tokens; pull: crictl pull; create: pod, container, start; ready: until /health says 200; chat: model list and answer
cold: wiped state, page cache dropped, image not there; warm: image on disk, page cache dropped. In a cold run the registry's own files are cold too.
n: runs that count, of those made; 5 rounds asked for, their order drawn anew for each; figures are medians over the runs that count (medians of phases need not add up)
started 2026-11-25T05:00:00Z
"#);
}

#[test]
fn one_round_claims_nothing() {
    let text = render(&crate::bench::sample::sample(1));
    assert!(text.contains("No arm can be claimed to be faster: 1 of at least 3 rounds."), "{text}");
    assert_eq!(text.matches("not shown: n too small").count(), 18);
}

#[test]
fn a_summary_holds_the_claims_and_what_they_rest_on() {
    let all = serde_json::to_value(Summary::of(&crate::bench::sample::sample(5))).unwrap();
    let claims = all["claims"].as_array().unwrap();
    assert_eq!((claims.len(), all["comparisons"].as_array().unwrap().len()), (18, 18));
    assert_eq!(claims[0], "original warm: 66 % [65-67] less time than original cold (n = 5)");
    assert!(all["headline"].as_str().unwrap().starts_with("auto: 26.1 s to the first answer, 76 % [75-77] less time"));
    assert_eq!(
        (&all["comparisons"][0]["verdict"], &all["rows"][7]["ahead"]["recall"]["median"]),
        (&"faster".into(), &871.into())
    );
    assert_eq!(all["misses"][1]["path"], "/usr/lib/x86_64-linux-gnu/libc.so.6");
    assert!(all["traced"][0].as_str().unwrap().starts_with("auto: 326.9 of 375.3 MB touched"), "{}", all["traced"]);
    let none = Summary::of(&report(vec![failed("hot", 1)]));
    assert_eq!((none.headline.as_str(), none.claims.len()), ("No arm can be claimed to be faster: no run counts", 0));
    let one = Summary::of(&report(vec![run("hot", 1, 10, &[]), failed("original cold", 1)]));
    assert_eq!(one.headline, "No arm can be claimed to be faster: hot is the only row with runs that count");
}

#[test]
fn a_report_says_why_nothing_was_traced() {
    let mut all = crate::bench::sample::sample(1);
    let lines = |report: &Report| {
        let text = render(report);
        text.lines().filter(|l| l.starts_with("traced: ")).map(Into::into).collect::<Vec<String>>()
    };
    let m = |report: &mut Report, change: &dyn Fn(&mut Measured)| {
        if let Outcome::Measured(m) = &mut report.traced[0].outcome {
            change(m);
        }
    };
    m(&mut all, &|m| m.trace.as_mut().unwrap().withheld = vec!["3 events were lost".into()]);
    m(&mut all, &|m| m.invalid.push("it was warm".into()));
    let said = lines(&all);
    assert!(
        said[0].starts_with("traced: auto: no precision and no recall: it was warm; 3 events were lost; "),
        "{said:?}"
    );
    let mut broken = failed("auto", 0);
    broken.traced = true;
    all.traced = vec![broken];
    assert_eq!(lines(&all), ["traced: auto: the run failed: the container ended: CONTAINER_EXITED, exit code 1"]);
    all.traced.clear();
    all.untraced = Some("this kernel does not have the tracepoint filemap/mm_filemap_get_pages".into());
    let why = "traced: no run was traced: this kernel does not have the tracepoint filemap/mm_filemap_get_pages";
    assert_eq!(lines(&all), [why]);
}

#[test]
fn only_slower_arms_are_no_headline() {
    let runs = (1..=5)
        .flat_map(|n| [run("original cold", n, 1000 + u64::from(n), &[]), run("hot", n, 2000 + 7 * u64::from(n), &[])]);
    let all = Summary::of(&report(runs.collect()));
    assert_eq!(all.headline, "No arm can be claimed to be faster: no arm is faster than a baseline");
    assert!(all.claims[0].starts_with("hot: 101 % [101-102] more time than original cold"), "{:?}", all.claims);
}

#[test]
fn a_report_of_the_first_version_is_still_read() {
    let mut old = serde_json::to_value(example()).unwrap();
    // What the first writer of this schema did not know is left out when it is empty.
    let text = old.to_string();
    for late in ["timeline", "samples", "metrics", "\"warm\":{", "options", "predicted", "trace"] {
        assert!(!text.contains(late), "{late}");
    }
    old["something-new"] = 7.into();
    assert_eq!(render(&read(&old.to_string()).unwrap()), render(&example()));
}
