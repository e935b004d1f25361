//! Phases out of what a server logs while it starts: vLLM's own lines, matched loosely, since their tails change between versions.

/// What a log line tells: that a phase begins, or that the one that has begun is really another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// The phase of that name begins.
    Begins(&'static str),
    /// What had begun under the first name is the second.
    Was(&'static str, &'static str),
}

/// The first phase of every recording.
pub(crate) const START: &str = "start";

/// A part of a line of vLLM 0.8 to 0.18 and what it tells. Several processes log the same line: the first one counts.
const LINES: &[(&str, Told)] = &[
    ("Initializing a V1 LLM engine", Told::Begins("engine-init")),
    ("Initializing a V0 LLM engine", Told::Begins("engine-init")),
    ("Starting to load model", Told::Begins("load")),
    // Behind the weights comes a profiling run; with torch.compile its lines tell so.
    ("Model loading took", Told::Begins("warm-up")),
    ("Dynamo bytecode transform time", Told::Was("warm-up", "compile")),
    ("torch.compile took", Told::Was("warm-up", "compile")),
    ("Directly load AOT compilation", Told::Was("warm-up", "compile")),
    ("Directly load the compiled graph", Told::Was("warm-up", "compile")),
    ("Compiling a graph", Told::Was("warm-up", "compile")),
    ("KV cache size", Told::Begins("kv-cache")),
    ("Capturing CUDA graphs", Told::Begins("graph-capture")),
    ("Capturing cudagraphs", Told::Begins("graph-capture")),
    ("init engine (profile", Told::Begins("api-start")),
];

/// Lines that only vLLM writes: from the start to them it imported.
const IMPORT: (&str, &str) = (START, "import");

/// What a line tells, if anything.
pub(crate) fn read(line: &str) -> Option<Told> {
    LINES.iter().find(|(part, _)| line.contains(part)).map(|(_, told)| *told)
}

/// Enters what a line told into the phases so far; `at` is in milliseconds since the start.
pub(crate) fn enter(phases: &mut Vec<crate::profile::Phase>, told: Told, at_ms: u64) {
    match told {
        Told::Begins(name) => begin(phases, name, at_ms),
        Told::Was(from, to) => rename(phases, from, to),
    }
    rename(phases, IMPORT.0, IMPORT.1);
}

/// Begins a phase unless it has begun already.
pub(crate) fn begin(phases: &mut Vec<crate::profile::Phase>, name: &str, at_ms: u64) {
    if phases.iter().all(|p| p.name != name) {
        phases.push(crate::profile::Phase { name: name.into(), at_ms });
    }
}

fn rename(phases: &mut [crate::profile::Phase], from: &str, to: &str) {
    if phases.iter().all(|p| p.name != to)
        && let Some(p) = phases.iter_mut().find(|p| p.name == from)
    {
        to.clone_into(&mut p.name);
    }
}

/// A line without the colours that a terminal program puts in.
pub(crate) fn plain(line: &[u8]) -> String {
    let mut out = Vec::with_capacity(line.len());
    let mut rest = line.iter().copied().peekable();
    while let Some(b) = rest.next() {
        if b != 0x1b {
            out.push(b);
        } else if rest.next_if_eq(&b'[').is_some() {
            // A control sequence ends with the first byte from `@` to `~`.
            while rest.next().is_some_and(|b| !(b'@'..=b'~').contains(&b)) {}
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Phase;

    /// A start of vLLM 0.18, its own words.
    const LOG: &str = "\
(APIServer pid=1) INFO 11-24 09:00:01 [utils.py:233] non-default args: {'model': 'm'}
(EngineCore pid=9) INFO 11-24 09:00:09 [core.py:103] Initializing a V1 LLM engine (v0.18.0) with config: model='m'
(EngineCore pid=9) INFO 11-24 09:00:11 [gpu_model_runner.py:4281] Starting to load model m...
(Worker pid=10) INFO 11-24 09:00:11 [gpu_model_runner.py:4281] Starting to load model m...
(EngineCore pid=9) INFO 11-24 09:00:12 [default_loader.py:293] Loading weights took 0.52 seconds
(EngineCore pid=9) INFO 11-24 09:00:13 [gpu_model_runner.py:4364] Model loading took 0.25 GiB memory and 1.104912 seconds
(EngineCore pid=9) INFO 11-24 09:00:20 [backends.py:988] Dynamo bytecode transform time: 5.03 s
(EngineCore pid=9) INFO 11-24 09:00:29 [monitor.py:48] torch.compile took 14.20 s in total
(EngineCore pid=9) INFO 11-24 09:00:30 [kv_cache_utils.py:1314] GPU KV cache size: 1,092,448 tokens
\u{1b}[36m(EngineCore pid=9)\u{1b}[0;0m Capturing CUDA graphs (decode, FULL):  10%|#  | 1/10
(EngineCore pid=9) INFO 11-24 09:00:35 [core.py:282] init engine (profile, create kv cache, warmup model) took 22.31 seconds
";

    #[test]
    fn a_real_log_gives_its_phases_once_each() {
        let mut phases = vec![Phase { name: START.into(), at_ms: 0 }];
        for (i, line) in LOG.lines().enumerate() {
            if let Some(told) = read(&plain(line.as_bytes())) {
                enter(&mut phases, told, i as u64 * 1000);
            }
        }
        let got: Vec<_> = phases.iter().map(|p| (p.name.as_str(), p.at_ms / 1000)).collect();
        let want = [
            ("import", 0),
            ("engine-init", 1),
            ("load", 2),
            ("compile", 5),
            ("kv-cache", 8),
            ("graph-capture", 9),
            ("api-start", 10),
        ];
        assert_eq!(got, want);
    }

    #[test]
    fn other_programs_have_a_start_only() {
        assert_eq!(read("Uvicorn running on http://0.0.0.0:8000"), None);
        assert_eq!(plain(b"\x1b[1;31mred\x1b[0m \x1bcx"), "red cx");
        assert_eq!(plain(b"cut \x1b[3"), "cut ");
    }
}
