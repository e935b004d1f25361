//! The lazy snapshotter's own counters, from its Prometheus page: what they grew by during a run. Hidden here: the text format, of which
//! only what the snapshotter writes is understood, and the sum over layers.

use std::collections::BTreeMap;

use super::probe;
use crate::http::Client;

/// Largest page that is read, bytes.
pub(super) const LIMIT: u64 = 16 << 20;
/// What the snapshotter's own metrics begin with; the rest is about its Go runtime.
const OURS: &str = "stargz_";

/// Values by name, summed over everything but the type of operation: `stargz_fs_operation_count{operation_type="x"}`.
pub(super) type Values = BTreeMap<String, f64>;

/// The page now; nothing when there is none: it is no part of what is measured.
pub(super) async fn read(client: &Client, url: &str) -> Values {
    if url.is_empty() {
        return Values::new();
    }
    probe::page(client, url, LIMIT).await.map_or_else(|_| Values::new(), |page| parse(&page))
}

/// What grew. Gauges are taken along: bytes served and fetched are gauges there, and what the snapshotter exports only grows in a run.
pub(super) fn grown(before: &Values, after: &Values) -> Values {
    let by = |(name, value): (&String, &f64)| (name.clone(), value - before.get(name).copied().unwrap_or(0.0));
    after.iter().map(by).filter(|(_, v)| *v > 0.0).collect()
}

/// `NAME[{LABEL="VALUE",...}] NUMBER [STAMP]`, comments behind `#`. Buckets of histograms are left out, their sums and counts stay.
fn parse(page: &str) -> Values {
    let mut all = Values::new();
    for line in page.lines().filter(|l| l.starts_with(OURS)) {
        let (name, labels, rest) = match line.split_once('{') {
            Some((name, rest)) => match rest.rsplit_once('}') {
                Some((labels, rest)) => (name, labels, rest),
                None => continue,
            },
            None => match line.split_once(' ') {
                Some((name, rest)) => (name, "", rest),
                None => continue,
            },
        };
        let value: Option<f64> = rest.split_whitespace().next().and_then(|v| v.parse().ok());
        let Some(value) = value.filter(|v| v.is_finite()) else { continue };
        if name.ends_with("_bucket") {
            continue;
        }
        // No value of ours has a comma or a quote in it: types are words, layers digests.
        let kind = labels.split(',').find(|l| l.starts_with("operation_type="));
        let key = kind.map_or_else(|| name.to_owned(), |kind| format!("{name}{{{kind}}}"));
        *all.entry(key).or_default() += value;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# HELP go_goroutines Number of goroutines that currently exist.
go_goroutines 61
# TYPE stargz_fs_bytes_served gauge
stargz_fs_bytes_served{layer=\"sha256:aa\",operation_type=\"on_demand_bytes_served\"} 1.048576e+06
stargz_fs_bytes_served{layer=\"sha256:bb\",operation_type=\"on_demand_bytes_served\"} 24
stargz_fs_bytes_served{layer=\"sha256:bb\",operation_type=\"prefetch_size\"} 7
# TYPE stargz_fs_operation_duration_milliseconds histogram
stargz_fs_operation_duration_milliseconds_bucket{layer=\"sha256:aa\",operation_type=\"mount\",le=\"1\"} 3
stargz_fs_operation_duration_milliseconds_sum{layer=\"sha256:aa\",operation_type=\"mount\"} 12.5
stargz_fs_operation_duration_milliseconds_count{layer=\"sha256:aa\",operation_type=\"mount\"} 1 1764150000000
stargz_odd NaN
stargz_plain 3
stargz_cut{layer=\"x\"
";

    #[test]
    fn layers_are_summed_and_types_kept() {
        let all = parse(PAGE);
        let got: Vec<_> = all.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        let want = [
            ("stargz_fs_bytes_served{operation_type=\"on_demand_bytes_served\"}", 1_048_600.0),
            ("stargz_fs_bytes_served{operation_type=\"prefetch_size\"}", 7.0),
            ("stargz_fs_operation_duration_milliseconds_count{operation_type=\"mount\"}", 1.0),
            ("stargz_fs_operation_duration_milliseconds_sum{operation_type=\"mount\"}", 12.5),
            ("stargz_plain", 3.0),
        ];
        assert_eq!(got, want);
    }

    #[test]
    fn only_what_grew_is_kept() {
        let before = parse("stargz_a 1\nstargz_b 5\n");
        let after = parse("stargz_a 4\nstargz_b 5\nstargz_c 2\n");
        let got: Vec<_> = grown(&before, &after).into_iter().collect();
        assert_eq!(got, [("stargz_a".to_owned(), 3.0), ("stargz_c".to_owned(), 2.0)]);
    }
}
