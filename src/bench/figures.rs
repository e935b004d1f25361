//! How figures are written, in tables, words and pictures alike.

use std::time::Duration;

use super::stats::{Spread, real};

/// Nothing there.
pub(super) const NONE: &str = "-";

/// Seconds: two decimals below ten, one above.
pub(super) fn seconds(ms: u64) -> String {
    let s = Duration::from_millis(ms).as_secs_f64();
    if ms < 9_995 { format!("{s:.2}") } else { format!("{s:.1}") }
}

/// Seconds of a difference, with its sign.
pub(super) fn signed_seconds(ms: f64) -> String {
    let s = ms / 1000.0;
    if s.abs() < 9.995 { format!("{s:+.2}") } else { format!("{s:+.1}") }
}

/// 10^6 bytes with one decimal.
pub(super) fn megabytes(bytes: u64) -> String {
    let tenths = bytes / 100_000 + u64::from(bytes % 100_000 >= 50_000);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Bytes in the unit that suits them.
pub(super) fn bytes(n: u64) -> String {
    let mut value = real(n);
    let mut units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for next in units {
        if value < 999.5 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    if unit == "B" || value >= 99.95 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// A ratio: two decimals, or two digits where it is small.
pub(super) fn ratio(r: f64) -> String {
    if r < 0.095 { format!("{r:.3}") } else { format!("{r:.2}") }
}

/// A ratio with its interval, if it has one.
pub(super) fn ratio_between(ratio_is: f64, interval: Option<(f64, f64)>) -> String {
    match interval {
        Some((low, high)) => format!("{} [{}-{}]", ratio(ratio_is), ratio(low), ratio(high)),
        None => ratio(ratio_is),
    }
}

/// A p value.
pub(super) fn p(value: Option<f64>) -> String {
    match value {
        None => NONE.into(),
        Some(p) if p < 0.0001 => "<0.0001".into(),
        // Rounding must not carry it over the line that it is held against.
        Some(p) if p < 0.05 => format!("{:.4}", p.min(0.0499)),
        Some(p) => format!("{:.3}", p.max(0.05)),
    }
}

/// Percent of a share; whole from ten on.
pub(super) fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent.abs() < 9.95 { format!("{percent:.1}") } else { format!("{percent:.0}") }
}

/// Percent of a number of thousandths.
pub(super) fn thousandths(n: u64) -> String {
    format!("{}.{}", n / 10, n % 10)
}

/// The median in seconds.
pub(super) fn median(s: Option<Spread>) -> String {
    s.map_or(NONE.into(), |s| seconds(s.median))
}

/// Median and range in seconds.
pub(super) fn median_range(s: Option<Spread>) -> String {
    s.map_or(NONE.into(), |s| format!("{} [{}-{}]", seconds(s.median), seconds(s.min), seconds(s.max)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_not_cut() {
        assert_eq!([0, 4, 5, 9_994, 9_995, 104_250].map(seconds), ["0.00", "0.00", "0.01", "9.99", "10.0", "104.2"]);
        assert_eq!([0, 49_999, 50_000, 138_450_000].map(megabytes), ["0.0", "0.0", "0.1", "138.5"]);
        assert_eq!(megabytes(u64::MAX), "18446744073709.6");
        assert_eq!(
            [0, 999, 1_000, 999_499, 999_500, 99_949_999, 4_518_900_000].map(bytes),
            ["0 B", "999 B", "1.0 kB", "999 kB", "1.0 MB", "99.9 MB", "4.5 GB"]
        );
        assert_eq!(bytes(u64::MAX), "18.4 EB");
        assert_eq!([0.0123, 0.0949, 0.0951, 1.0, 12.345].map(ratio), ["0.012", "0.095", "0.10", "1.00", "12.35"]);
        assert_eq!([-7_600.0, 400.0, 12_000.0].map(signed_seconds), ["-7.60", "+0.40", "+12.0"]);
        assert_eq!([0.0949, 0.1, -0.456].map(percent), ["9.5", "10", "-46"]);
        assert_eq!(thousandths(913), "91.3");
    }

    #[test]
    fn a_p_value_stays_on_its_side_of_the_line() {
        let all = [None, Some(0.0), Some(0.000_1), Some(0.049_999), Some(0.05), Some(0.050_01), Some(1.0)].map(p);
        assert_eq!(all, ["-", "<0.0001", "0.0001", "0.0499", "0.050", "0.050", "1.000"]);
    }
}
