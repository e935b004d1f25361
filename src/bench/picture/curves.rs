//! Bytes over time, a line for each row.

use super::super::result::Sample;
use super::super::stats::real;
use super::axis::{Axis, Unit};
use super::bars::legend;
use super::svg::{Anchor, Canvas, Drawing, ticks};

/// Points of a line: more than can be seen.
const POINTS: usize = 400;
const HEIGHT: f64 = 300.0;

/// A line.
pub(super) struct Curve<'a> {
    /// What it is.
    pub(super) name: String,
    /// Class of its colour and dashes.
    pub(super) class: String,
    /// Running totals.
    pub(super) samples: &'a [Sample],
    /// When the run's clock began on theirs.
    pub(super) begin: u64,
    /// And how long it ran.
    pub(super) end: u64,
}

/// Time and bytes of each sample within the run, thinned; the first and the last stay.
pub(super) fn points(samples: &[Sample], begin: u64, end: u64) -> Vec<(f64, f64)> {
    let step = samples.len().div_ceil(POINTS).max(1);
    let last = samples.len().saturating_sub(1);
    let kept = samples.iter().enumerate().filter(|(i, _)| i % step == 0 || *i == last).map(|(_, s)| s);
    kept.filter(|s| s.at_ms >= begin && s.at_ms - begin <= end)
        .map(|s| (real(s.at_ms - begin), real(s.link.bytes)))
        .collect()
}

/// Draws them.
pub(super) fn curves(width: f64, all: &[Curve<'_>], label: &str) -> Drawing {
    let mut canvas = Canvas::new(width);
    let kinds: Vec<(&str, &str)> = all.iter().map(|c| (c.name.as_str(), c.class.as_str())).collect();
    let top = legend(&mut canvas, &kinds) + 10.0;
    let bottom = top + HEIGHT;
    let lines: Vec<Vec<(f64, f64)>> = all.iter().map(|c| points(c.samples, c.begin, c.end)).collect();
    let most = lines.iter().flatten().map(|p| p.1).fold(0.0, f64::max);
    let end = all.iter().map(|c| c.end).max().unwrap_or(0);
    let axis = Axis { left: 58.0, right: width - 1.0, max: real(end), unit: Unit::Time };
    axis.grid(&mut canvas, top, bottom);
    let y = |bytes: f64| if most > 0.0 { bottom - HEIGHT * bytes / most } else { bottom };
    for value in ticks(most, 5) {
        canvas.line((axis.left, y(value)), (axis.right, y(value)), "grid");
        canvas.text((axis.left - 8.0, y(value) + 4.0), Anchor::End, "tick", &Unit::Bytes.tick(value));
    }
    for (line, curve) in lines.iter().zip(all) {
        let line: Vec<(f64, f64)> = line.iter().map(|(ms, bytes)| (axis.at(*ms), y(*bytes))).collect();
        canvas.path(&line, None, &curve.class);
    }
    canvas.finish(bottom + 24.0, label)
}

#[cfg(test)]
mod tests {
    use super::super::super::result::Traffic;
    use super::*;

    #[test]
    fn lines_are_thinned_and_stay_within_the_run() {
        let sample = |at_ms| Sample { at_ms, link: Traffic { requests: 1, bytes: at_ms * 2 }, ..Sample::default() };
        let many: Vec<Sample> = (0..5000).map(sample).collect();
        let line = points(&many, 0, 5000);
        assert!((300..=POINTS + 1).contains(&line.len()), "{}", line.len());
        assert_eq!(line.last(), Some(&(4999.0, 9998.0)));
        let inside = points(&[sample(5), sample(20), sample(99)], 10, 50);
        assert_eq!(inside, [(10.0, 40.0)]);
        assert_eq!(points(&[], 0, 9), []);
    }
}
