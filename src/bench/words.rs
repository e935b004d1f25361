//! What may be said in words: the headline, what each comparison shows, and what keeps it from showing more.

use super::figures::{median, megabytes, percent, seconds};
use super::result::{Outcome, Report};
use super::stats::pairs::{Comparison, FEWEST, Verdict};
use super::stats::{Analysis, Row, Spread, ranks};

/// The method.
const METHOD: &str =
    "ratios of totals within a round, their geometric mean, and Student's t interval (95 %) on their logarithms";

/// What a comparison shows.
pub(super) fn shown(c: &Comparison) -> String {
    let between = |low: f64, high: f64| format!("[{}-{}]", percent(low), percent(high));
    match (c.verdict, c.interval) {
        (Verdict::Faster, Some((low, high))) => {
            format!("{} % {} less time", percent(1.0 - c.ratio), between(1.0 - high, 1.0 - low))
        }
        (Verdict::Slower, Some((low, high))) => {
            format!("{} % {} more time", percent(c.ratio - 1.0), between(low - 1.0, high - 1.0))
        }
        (Verdict::NotAlone, _) => "not shown: chance, with so many comparisons".into(),
        (Verdict::TooFew, _) => format!("not shown: n too small, at least {FEWEST}"),
        (Verdict::NoSpread, _) => "not shown: the same ratio in every round".into(),
        (Verdict::Undecided | Verdict::Faster | Verdict::Slower, _) => "not shown: the interval includes 1".into(),
    }
}

fn is_claim(c: &Comparison) -> bool {
    matches!(c.verdict, Verdict::Faster | Verdict::Slower)
}

/// Every claim, one sentence each.
pub(super) fn claims(all: &Analysis) -> Vec<String> {
    let claim = |c: &Comparison| format!("{}: {} than {} (n = {})", c.row, shown(c), c.baseline, c.n);
    all.comparisons.iter().filter(|c| is_claim(c)).map(claim).collect()
}

/// What the figures allow to say first.
pub(super) struct Headline {
    /// Which row, and its time; or why nothing can be said.
    pub(super) what: String,
    /// It against each baseline.
    pub(super) against: Vec<String>,
}

impl Headline {
    /// As one sentence, without its full stop.
    pub(super) fn sentence(&self) -> String {
        std::iter::once(&self.what).chain(&self.against).map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// About the row that is fastest against the first baseline that anything is faster than.
pub(super) fn headline(report: &Report, all: &Analysis) -> Headline {
    let faster = |c: &&Comparison| c.verdict == Verdict::Faster && !all.baselines.contains(&c.row);
    let best = all.baselines.iter().find_map(|b| {
        let against = all.comparisons.iter().filter(|c| c.baseline == *b).filter(faster);
        against.min_by(|a, b| a.ratio.total_cmp(&b.ratio))
    });
    let Some(best) = best else { return Headline { what: nothing(report, all), against: Vec::new() } };
    let total = all.rows.iter().find(|r| r.name == best.row).and_then(|r| r.total);
    let each = |c: &Comparison| {
        if is_claim(c) {
            format!("{} than {}", shown(c), c.baseline)
        } else {
            format!("no claim against {}", c.baseline)
        }
    };
    Headline {
        what: format!("{}: {} s to the first answer", best.row, median(total)),
        against: all.comparisons.iter().filter(|c| c.row == best.row).map(each).collect(),
    }
}

fn nothing(report: &Report, all: &Analysis) -> String {
    let counted: Vec<&Row> = all.rows.iter().filter(|r| r.valid > 0).collect();
    let why = if report.runs.is_empty() {
        "no run was made".into()
    } else if counted.is_empty() {
        "no run counts".into()
    } else if counted.len() == 1 {
        format!("{} is the only row with runs that count", counted[0].name)
    } else if all.baselines.is_empty() {
        "no arm is a baseline (\"original\", or one with the option disk)".into()
    } else if all.comparisons.is_empty() {
        "no round has both an arm and a baseline that count".into()
    } else if all.comparisons.iter().all(|c| c.n < FEWEST) {
        let most = all.comparisons.iter().map(|c| c.n).max().unwrap_or(0);
        format!("{most} of at least {FEWEST} rounds")
    } else if all.comparisons.iter().any(is_claim) {
        "no arm is faster than a baseline".into()
    } else {
        "every interval includes 1, or would by chance with so many comparisons".into()
    };
    format!("No arm can be claimed to be faster: {why}")
}

/// What the comparisons rest on and cannot say.
pub(super) fn family(all: &Analysis) -> Vec<String> {
    let count = all.comparisons.len();
    if count == 0 {
        return Vec::new();
    }
    let tested = all.comparisons.iter().filter(|c| c.p.is_some()).count();
    let (least, most) = all.comparisons.iter().map(|c| c.n).fold((usize::MAX, 0), |(l, m), n| (l.min(n), m.max(n)));
    let n = if least == most { format!("n = {least}") } else { format!("n from {least} to {most}") };
    let comparisons = if count == 1 { "comparison" } else { "comparisons" };
    let mut notes = vec![format!("{count} {comparisons}, {n}: {METHOD}")];
    if tested > 0 {
        notes.push(format!(
            "p: of the t test, and of the exact signed-rank test of Wilcoxon beside it, both raised after Holm for {tested}; less or \
             more time is claimed only where the interval excludes 1 and the t test's raised p value is below 0.05"
        ));
    }
    if least < FEWEST {
        notes.push(format!("with fewer than {FEWEST} rounds there is no interval and no claim"));
    }
    // The rank test's own floor, and what it becomes when it is raised.
    if most >= FEWEST && ranks::least(most) >= 0.05 {
        let floor = ranks::least(most);
        notes.push(format!(
            "with {most} rounds the signed-rank test cannot go below p = {floor}, whatever the figures: it needs 6 to reach 5 %"
        ));
    }
    notes
}

/// What became of the runs that were traced, a sentence each.
pub(super) fn traced(report: &Report) -> Vec<String> {
    let mut all: Vec<String> = report.untraced.iter().map(|why| format!("no run was traced: {why}")).collect();
    for run in &report.traced {
        let m = match &run.outcome {
            Outcome::Failed { error, .. } => {
                all.push(format!("{}: the run failed: {error}", run.row));
                continue;
            }
            Outcome::Measured(m) => m,
        };
        let Some(t) = &m.trace else { continue };
        let against: Vec<&str> = m.invalid.iter().chain(&t.withheld).map(String::as_str).collect();
        let (c, mb) = (&t.cover, megabytes);
        let what = if against.is_empty() {
            format!(
                "{} of {} MB touched of lazily served files were on the list ({}) of {} MB, {} MB in {} ranges of {} files were not",
                mb(c.hit_bytes),
                mb(c.touched_bytes),
                t.list,
                mb(c.listed_bytes),
                mb(c.missed_bytes),
                c.missed_ranges,
                c.missed_files
            )
        } else {
            format!("no precision and no recall: {}", against.join("; "))
        };
        let left_out = match t.left_out_bytes {
            0 => String::new(),
            bytes => format!("; {} MB more on it are not served lazily", mb(bytes)),
        };
        all.push(format!(
            "{}: {what}{left_out}; seen with {}, {} events, {} lost, {} MB read by the reader; {} s, counted nowhere else",
            run.row,
            t.recorder,
            t.events,
            t.lost_events,
            mb(t.reader_bytes),
            seconds(m.phases.total_ms)
        ));
    }
    all
}

/// The link, in words.
pub(super) fn link(report: &Report) -> String {
    let bandwidth = match report.link.bandwidth_mb {
        0 => "no limit of bandwidth".into(),
        mb => format!("{mb} MB/s over all connections"),
    };
    let each = match report.link.connection_mb {
        0 => String::new(),
        mb => format!(", {mb} MB/s each"),
    };
    let preset = report.link.preset.as_ref().map(|p| format!(" ({p})")).unwrap_or_default();
    format!("{} ms per request, {bandwidth}{each}{preset}", report.link.latency_ms)
}

/// The machine, in words.
pub(super) fn machine(report: &Report) -> String {
    let m = &report.machine;
    let model = if m.cpu_model.is_empty() { "model unknown" } else { &m.cpu_model };
    let pace = Spread::of(report.runs.iter().filter_map(|r| r.counted().and(r.cpu_mb))).map_or_else(String::new, |s| {
        format!("; before the runs each CPU inflated and hashed {} MB/s [{}-{}]", s.median, s.min, s.max)
    });
    format!("{} CPUs ({model}), {} MB of memory, kernel {}{pace}", m.cpus, m.memory_bytes / 1_000_000, m.kernel)
}

/// How many rounds were asked for.
pub(super) fn rounds(report: &Report) -> String {
    format!("{} {}", report.rounds, if report.rounds == 1 { "round" } else { "rounds" })
}
