//! One line for each run, for other programs: the same columns as JSON lines and as CSV (RFC 4180). docs/bench.md says which
//! columns of other benchmarks they cover.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::result::{ArmFacts, CpuUse, Measured, Outcome, Report, Run, Start};
use super::spans;
use super::stats::{cpu, reader_ms, told, traffic};
use crate::profile::cover::Cover;

/// Phases of the workload that have a column of their own: its name and theirs.
const PHASES: &[(&str, &str)] = &[
    ("boot_ms", spans::BOOT),
    ("import_ms", spans::IMPORT),
    ("engine_init_ms", "engine-init"),
    ("load_ms", "load"),
    ("compile_ms", "compile"),
    ("warm_up_ms", "warm-up"),
    ("kv_cache_ms", "kv-cache"),
    ("graph_capture_ms", "graph-capture"),
    ("api_start_ms", "api-start"),
    ("first_token_ms", spans::FIRST_TOKEN),
];

/// JSON lines.
pub fn jsonl(report: &Report) -> String {
    let mut out = String::new();
    for run in runs(report) {
        let _ = writeln!(out, "{}", Value::Object(record(report, run)));
    }
    out
}

/// All runs, those that were traced behind the others.
pub(super) fn runs(report: &Report) -> impl Iterator<Item = &Run> {
    report.runs.iter().chain(&report.traced)
}

/// CSV with a header.
pub fn csv(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = String>| {
        let cells: Vec<String> = cells.map(|c| quoted(&c)).collect();
        // The standard's line end.
        let _ = write!(out, "{}\r\n", cells.join(","));
    };
    line(&mut columns().into_iter());
    for run in runs(report) {
        line(&mut record(report, run).into_iter().map(|(_, v)| match v {
            Value::Null => String::new(),
            Value::String(s) => s,
            other => other.to_string(),
        }));
    }
    out
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

/// Names of the columns: those of any run, since they do not depend on it.
fn columns() -> Vec<String> {
    let nothing = Outcome::Failed { error: String::new(), log: Vec::new() };
    let run = Run {
        row: String::new(),
        arm: String::new(),
        start: Start::Cold,
        round: 0,
        started: String::new(),
        load: String::new(),
        cpu_mb: None,
        valid: false,
        traced: false,
        outcome: nothing,
    };
    fill(&Facts::default(), None, &run).into_iter().map(|(k, _)| k).collect()
}

/// What all runs of a report have in common.
#[derive(Default)]
struct Facts {
    esgz: String,
    started: String,
    latency_ms: u64,
    bandwidth_mb: u64,
    cpus: usize,
    cpu_model: String,
    memory_bytes: u64,
    kernel: String,
    versions: String,
}

/// One run as names and values.
pub(super) fn record(report: &Report, run: &Run) -> Map<String, Value> {
    let facts = Facts {
        esgz: report.esgz.clone(),
        started: report.started.clone(),
        latency_ms: report.link.latency_ms,
        bandwidth_mb: report.link.bandwidth_mb,
        cpus: report.machine.cpus,
        cpu_model: report.machine.cpu_model.clone(),
        memory_bytes: report.machine.memory_bytes,
        kernel: report.machine.kernel.clone(),
        versions: joined(report.versions.iter().map(|(k, v)| format!("{k}={v}"))),
    };
    fill(&facts, report.arms.iter().find(|a| a.name == run.arm), run)
}

fn joined(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join("; ")
}

fn fill(facts: &Facts, arm: Option<&ArmFacts>, run: &Run) -> Map<String, Value> {
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| {
        out.insert(key.into(), value);
    };
    let m = run.measured();
    let (status, error) = match &run.outcome {
        Outcome::Failed { error, .. } => ("failed", Some(error.as_str())),
        Outcome::Measured(m) if !m.invalid.is_empty() => ("invalid", None),
        Outcome::Measured(_) => (if run.traced { "traced" } else { "valid" }, None),
    };
    // Times and costs of a traced run hold the recorder's: nobody is to add them to the others.
    let own = m.filter(|_| !run.traced);
    put("run_id", format!("{}/{}/{}", facts.started, run.round, run.row).into());
    put("benchmark_started", facts.started.as_str().into());
    put("row", run.row.as_str().into());
    put("arm", run.arm.as_str().into());
    put("start", if run.start == Start::Cold { "cold" } else { "warm" }.into());
    put("round", run.round.into());
    put("status", status.into());
    put("invalid", joined(m.iter().flat_map(|m| m.invalid.iter().cloned())).into());
    put("error", error.into());
    put("started", run.started.as_str().into());
    put("load_average", run.load.as_str().into());
    put("cpu_mb_per_s", run.cpu_mb.into());
    put("image_ref", arm.map(|a| a.reference.as_str()).into());
    put("manifest_digest", arm.map(|a| a.manifest.to_string()).into());
    put("config_digest", arm.map(|a| a.config.to_string()).into());
    put("snapshotter", arm.map(|a| a.snapshotter.as_str()).into());
    put("options", joined(arm.iter().flat_map(|a| a.options.iter().cloned())).into());
    let state = m.map(|m| if m.phases.pull_ms.is_some() { "pulled" } else { "already_present" });
    put("image_pull_state", state.unwrap_or("unknown").into());
    put("layers", m.map(|m| m.layers).into());
    put("lazy_layers", m.map(|m| m.lazy_layers).into());
    times(run, own, &mut put);
    if let Some(p) = arm.and_then(|a| a.predicted).filter(|_| run.start == Start::Cold && !run.traced) {
        put("predicted_pull_ms", p.pull_ms.into());
        put("predicted_create_ms", p.create_ms.into());
        put("predicted_ready_ms", p.ready_ms.into());
    } else {
        for key in ["predicted_pull_ms", "predicted_create_ms", "predicted_ready_ms"] {
            put(key, Value::Null);
        }
    }
    costs(own, &mut put);
    ahead(run, m, &mut put);
    put("page_cache_left_kb", m.map(|m| m.evidence.before.page_cache_after_kb).into());
    put("answer", m.map(|m| m.answer.as_str()).into());
    put("timeline", own.map(|m| joined(m.timeline.iter().map(|t| format!("{}={}", t.name, t.at_ms)))).into());
    put("metrics", own.map(|m| joined(m.metrics.iter().map(|(k, v)| format!("{k}={v}")))).into());
    put("link_latency_ms", facts.latency_ms.into());
    put("link_bandwidth_mb", facts.bandwidth_mb.into());
    put("cpus", facts.cpus.into());
    put("cpu_model", facts.cpu_model.as_str().into());
    put("memory_bytes", facts.memory_bytes.into());
    put("kernel", facts.kernel.as_str().into());
    put("esgz", facts.esgz.as_str().into());
    put("versions", facts.versions.as_str().into());
    out
}

fn times(run: &Run, m: Option<&Measured>, put: &mut impl FnMut(&str, Value)) {
    let cut = m.map(|m| spans::spans(run, m)).unwrap_or_default();
    put("pull_ms", m.and_then(|m| m.phases.pull_ms).into());
    put("create_ms", m.map(|m| m.phases.create_ms).into());
    put("ready_ms", m.map(|m| m.phases.ready_ms).into());
    put("chat_ms", m.map(|m| m.phases.chat_ms).into());
    put("total_ms", m.map(|m| m.phases.total_ms).into());
    let created = m.map(|m| m.phases.pull_ms.unwrap_or(0).saturating_add(m.phases.create_ms));
    let ready = m.and_then(|m| Some(created?.saturating_add(m.phases.ready_ms)));
    let first_token = spans::length(&cut, spans::FIRST_TOKEN);
    put("created_at_ms", created.into());
    put("ready_at_ms", ready.into());
    put("first_log_at_ms", m.and_then(|m| spans::moment(run, m, "first-log")).into());
    put("first_token_at_ms", ready.zip(first_token).map(|(r, f)| r.saturating_add(f)).into());
    for (key, phase) in PHASES {
        put(key, spans::length(&cut, phase).into());
    }
}

fn costs(m: Option<&Measured>, put: &mut impl FnMut(&str, Value)) {
    let all = m.map(|m| traffic(&m.link));
    put("link_bytes", all.map(|t| t.bytes).into());
    put("link_requests", all.map(|t| t.requests).into());
    put("pull_bytes", m.map(|m| m.link.pull.bytes).into());
    put("pull_requests", m.map(|m| m.link.pull.requests).into());
    put("start_bytes", m.map(|m| m.link.start.bytes).into());
    put("start_requests", m.map(|m| m.link.start.requests).into());
    put("chat_bytes", m.map(|m| m.link.chat.bytes).into());
    put("chat_requests", m.map(|m| m.link.chat.requests).into());
    let used = |f: fn(&CpuUse) -> u64| Value::from(m.map(|m| cpu(&m.cpu, f)));
    put("cpu_snapshotter_ms", used(|c| c.snapshotter_ms));
    put("cpu_containerd_ms", used(|c| c.containerd_ms));
    put("cpu_workload_ms", used(|c| c.workload_ms));
    put("cpu_bench_ms", used(|c| c.bench_ms));
    put("cpu_reader_ms", m.and_then(reader_ms).into());
}

fn ahead(run: &Run, m: Option<&Measured>, put: &mut impl FnMut(&str, Value)) {
    for (key, theirs) in [
        ("ahead_planned_bytes", "bytes_planned"),
        ("ahead_read_bytes", "bytes_read"),
        ("ahead_resident_bytes", "bytes_resident"),
        ("ahead_skipped_bytes", "bytes_skipped"),
    ] {
        put(key, m.and_then(|m| told(m, theirs)).into());
    }
    put("ahead_ms", m.filter(|_| !run.traced).and_then(|m| told(m, "ms")).into());
    let cover = run.cover();
    put("ahead_precision_permille", cover.and_then(Cover::precision_permille).into());
    put("ahead_recall_permille", cover.and_then(Cover::recall_permille).into());
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{failed, report, run};
    use super::super::sample::sample;
    use super::*;

    /// Reads CSV as RFC 4180 has it.
    fn read(text: &str) -> Vec<Vec<String>> {
        let (mut rows, mut row, mut cell) = (Vec::new(), Vec::new(), String::new());
        let mut chars = text.chars().peekable();
        let mut inside = false;
        while let Some(c) = chars.next() {
            match (c, inside) {
                ('"', true) if chars.next_if_eq(&'"').is_some() => cell.push('"'),
                ('"', _) => inside = !inside,
                (',', false) => row.push(std::mem::take(&mut cell)),
                ('\r', false) => {}
                ('\n', false) => {
                    row.push(std::mem::take(&mut cell));
                    rows.push(std::mem::take(&mut row));
                }
                (c, _) => cell.push(c),
            }
        }
        rows
    }

    #[test]
    fn a_line_of_each_kind() {
        let mut all = report(vec![
            run("original cold", 1, 1000, &[]),
            run("hot", 1, 400, &["it was \"warm\", really"]),
            failed("hot", 2),
        ]);
        all.runs[2].started = "a\nb".into();
        insta::assert_snapshot!(csv(&all).replace("\r\n", "\n"), @r#"
run_id,benchmark_started,row,arm,start,round,status,invalid,error,started,load_average,cpu_mb_per_s,image_ref,manifest_digest,config_digest,snapshotter,options,image_pull_state,layers,lazy_layers,pull_ms,create_ms,ready_ms,chat_ms,total_ms,created_at_ms,ready_at_ms,first_log_at_ms,first_token_at_ms,boot_ms,import_ms,engine_init_ms,load_ms,compile_ms,warm_up_ms,kv_cache_ms,graph_capture_ms,api_start_ms,first_token_ms,predicted_pull_ms,predicted_create_ms,predicted_ready_ms,link_bytes,link_requests,pull_bytes,pull_requests,start_bytes,start_requests,chat_bytes,chat_requests,cpu_snapshotter_ms,cpu_containerd_ms,cpu_workload_ms,cpu_bench_ms,cpu_reader_ms,ahead_planned_bytes,ahead_read_bytes,ahead_resident_bytes,ahead_skipped_bytes,ahead_ms,ahead_precision_permille,ahead_recall_permille,page_cache_left_kb,answer,timeline,metrics,link_latency_ms,link_bandwidth_mb,cpus,cpu_model,memory_bytes,kernel,esgz,versions
2026-11-25T05:00:00Z/1/original cold,2026-11-25T05:00:00Z,original cold,original,cold,1,valid,,,2026-11-25T05:00:01Z,0.10,300,127.0.0.1:5070/m:original,sha256:62c66a7a5dd70c3146618063c344e531e6d4b59e379808443ce962b3abd63c5a,sha256:62c66a7a5dd70c3146618063c344e531e6d4b59e379808443ce962b3abd63c5a,overlayfs,,pulled,4,0,100,50,800,50,1000,150,950,,,,,,,,,,,,,,,,138450000,12,138450000,12,0,0,0,0,0,0,0,0,,,,,,,,,0,Hello!,,,30,400,2,Some CPU,24683000000,6.18.44,0.1.0,containerd=v2.4.2
2026-11-25T05:00:00Z/1/hot,2026-11-25T05:00:00Z,hot,hot,cold,1,invalid,"it was ""warm"", really",,2026-11-25T05:00:01Z,0.10,300,127.0.0.1:5070/m:hot,sha256:62c66a7a5dd70c3146618063c344e531e6d4b59e379808443ce962b3abd63c5a,sha256:62c66a7a5dd70c3146618063c344e531e6d4b59e379808443ce962b3abd63c5a,stargz,,pulled,5,4,40,20,320,20,400,60,380,,,,,,,,,,,,,,,,138450000,12,138450000,12,0,0,0,0,6430,0,0,0,,,,,,,,,0,Hello!,,,30,400,2,Some CPU,24683000000,6.18.44,0.1.0,containerd=v2.4.2
2026-11-25T05:00:00Z/2/hot,2026-11-25T05:00:00Z,hot,hot,cold,2,failed,,"the container ended: CONTAINER_EXITED, exit code 1","a
b",0.10,300,127.0.0.1:5070/m:hot,sha256:62c66a7a5dd70c3146618063c344e531e6d4b59e379808443ce962b3abd63c5a,sha256:62c66a7a5dd70c3146618063c344e531e6d4b59e379808443ce962b3abd63c5a,stargz,,unknown,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,30,400,2,Some CPU,24683000000,6.18.44,0.1.0,containerd=v2.4.2
"#);
        let text = jsonl(&sample(1));
        let [.., counted, traced] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        insta::assert_snapshot!(counted, @r#"
{"run_id":"2026-11-25T05:00:00Z/1/auto","benchmark_started":"2026-11-25T05:00:00Z","row":"auto","arm":"auto","start":"cold","round":1,"status":"valid","invalid":"","error":null,"started":"2026-11-25T05:00:01Z","load_average":"0.10","cpu_mb_per_s":300,"image_ref":"127.0.0.1:5070/m:auto","manifest_digest":"sha256:44602a999abbebedf7de0ae1318e4f57e3cb1d67e482a65f9657f7541f3fe4bb","config_digest":"sha256:e4c4dc8820db4972223043f69514cd223b23ace6817c14a6dfc6118dd7c15d75","snapshotter":"stargz","options":"warm:profile.json","image_pull_state":"pulled","layers":6,"lazy_layers":5,"pull_ms":3973,"create_ms":262,"ready_ms":21576,"chat_ms":306,"total_ms":26117,"created_at_ms":4235,"ready_at_ms":25811,"first_log_at_ms":5098,"first_token_at_ms":26015,"boot_ms":863,"import_ms":9493,"engine_init_ms":1510,"load_ms":1511,"compile_ms":5609,"warm_up_ms":null,"kv_cache_ms":863,"graph_capture_ms":null,"api_start_ms":1727,"first_token_ms":204,"predicted_pull_ms":3600,"predicted_create_ms":250,"predicted_ready_ms":21600,"link_bytes":720504600,"link_requests":256,"pull_bytes":139959400,"pull_requests":52,"start_bytes":580545200,"start_requests":204,"chat_bytes":0,"chat_requests":0,"cpu_snapshotter_ms":10230,"cpu_containerd_ms":2049,"cpu_workload_ms":20777,"cpu_bench_ms":1100,"cpu_reader_ms":640,"ahead_planned_bytes":357000000,"ahead_read_bytes":298321840,"ahead_resident_bytes":41000000,"ahead_skipped_bytes":6100000,"ahead_ms":6427,"ahead_precision_permille":null,"ahead_recall_permille":null,"page_cache_left_kb":0,"answer":"Hello!","timeline":"pulled=3973; created=4235; first-log=5098; import=5313; engine-init=14591; load=16101; compile=17612; kv-cache=23221; api-start=24084; ready=25811; first-token=26015; answer=26117","metrics":"on_demand_bytes_fetched=560000000; on_demand_remote_registry_fetch_count=1234","link_latency_ms":30,"link_bandwidth_mb":400,"cpus":2,"cpu_model":"SAMPLE CPU, made up","memory_bytes":24683000000,"kernel":"6.18.44","esgz":"0.1.0","versions":"containerd=v2.4.2; runc=1.1.5; stargz-snapshotter=v0.19.1"}
"#);
        insta::assert_snapshot!(traced, @r#"
{"run_id":"2026-11-25T05:00:00Z/0/auto","benchmark_started":"2026-11-25T05:00:00Z","row":"auto","arm":"auto","start":"cold","round":0,"status":"traced","invalid":"","error":null,"started":"2026-11-25T05:00:01Z","load_average":"0.10","cpu_mb_per_s":300,"image_ref":"127.0.0.1:5070/m:auto","manifest_digest":"sha256:44602a999abbebedf7de0ae1318e4f57e3cb1d67e482a65f9657f7541f3fe4bb","config_digest":"sha256:e4c4dc8820db4972223043f69514cd223b23ace6817c14a6dfc6118dd7c15d75","snapshotter":"stargz","options":"warm:profile.json","image_pull_state":"pulled","layers":6,"lazy_layers":5,"pull_ms":null,"create_ms":null,"ready_ms":null,"chat_ms":null,"total_ms":null,"created_at_ms":null,"ready_at_ms":null,"first_log_at_ms":null,"first_token_at_ms":null,"boot_ms":null,"import_ms":null,"engine_init_ms":null,"load_ms":null,"compile_ms":null,"warm_up_ms":null,"kv_cache_ms":null,"graph_capture_ms":null,"api_start_ms":null,"first_token_ms":null,"predicted_pull_ms":null,"predicted_create_ms":null,"predicted_ready_ms":null,"link_bytes":null,"link_requests":null,"pull_bytes":null,"pull_requests":null,"start_bytes":null,"start_requests":null,"chat_bytes":null,"chat_requests":null,"cpu_snapshotter_ms":null,"cpu_containerd_ms":null,"cpu_workload_ms":null,"cpu_bench_ms":null,"cpu_reader_ms":null,"ahead_planned_bytes":357000000,"ahead_read_bytes":298321840,"ahead_resident_bytes":41000000,"ahead_skipped_bytes":6100000,"ahead_ms":null,"ahead_precision_permille":934,"ahead_recall_permille":871,"page_cache_left_kb":0,"answer":"Hello!","timeline":null,"metrics":null,"link_latency_ms":30,"link_bandwidth_mb":400,"cpus":2,"cpu_model":"SAMPLE CPU, made up","memory_bytes":24683000000,"kernel":"6.18.44","esgz":"0.1.0","versions":"containerd=v2.4.2; runc=1.1.5; stargz-snapshotter=v0.19.1"}
"#);
    }

    #[test]
    fn csv_gives_back_what_went_in() {
        let nasty = "a \"quoted\", name\r\nwith </script> lines";
        let mut all = report(vec![run("hot", 1, 400, &[nasty]), failed("hot", 2)]);
        all.runs[0].row = nasty.into();
        let rows = read(&csv(&all));
        assert_eq!(rows.len(), 3);
        assert!(rows.iter().all(|r| r.len() == rows[0].len()));
        let column = |name: &str| rows[0].iter().position(|c| c == name).unwrap_or(usize::MAX);
        // The reader above drops a carriage return only outside quotes.
        assert_eq!((rows[1][column("row")].as_str(), rows[1][column("invalid")].as_str()), (nasty, nasty));
        assert_eq!((rows[2][column("status")].as_str(), rows[2][column("total_ms")].as_str()), ("failed", ""));
    }

    #[test]
    fn json_lines_and_csv_have_the_same_columns() {
        let all = sample(5);
        let text = jsonl(&all);
        assert_eq!(text.lines().count(), all.runs.len() + all.traced.len());
        for line in text.lines() {
            let value: Map<String, Value> = serde_json::from_str(line).expect("JSON");
            assert_eq!(value.keys().cloned().collect::<Vec<_>>(), columns());
            assert!(value.values().all(|v| !v.is_object() && !v.is_array()), "{line}");
        }
    }
}
