//! One run on its time axis: a step for each phase, and below it the bytes that had come over the link.

use super::super::result::Sample;
use super::super::spans::Span;
use super::super::stats::real;
use super::axis::{Axis, Unit};
use super::curves::points;
use super::phase_class;
use super::svg::{Anchor, Canvas, Drawing, letters};

const STEP: f64 = 22.0;
const THICK: f64 = 15.0;
const CURVE: f64 = 84.0;

/// Draws it. `begin`: when the run's clock began on that of the samples.
pub(super) fn waterfall(width: f64, spans: &[Span], samples: &[Sample], begin: u64, label: &str) -> Drawing {
    let mut canvas = Canvas::new(width);
    let end = spans.last().map_or(0, |s| s.to);
    let axis = Axis { left: 0.5, right: width - 1.0, max: real(end), unit: Unit::Time };
    let steps = STEP * real(spans.len() as u64);
    let line = points(samples, begin, end);
    let most = line.iter().map(|p| p.1).fold(0.0, f64::max);
    let bottom = steps + if most > 0.0 { 26.0 + CURVE } else { 4.0 };
    axis.grid(&mut canvas, 0.0, bottom);
    for (i, span) in spans.iter().enumerate() {
        let y = STEP * real(i as u64);
        let (a, b) = (axis.at(real(span.from)), axis.at(real(span.to)));
        let text = format!("{} {}", span.name, Unit::Time.text(span.ms()));
        let (from, to) = (Unit::Time.text(span.from), Unit::Time.text(span.to));
        let class = format!("part {}", phase_class(&span.name));
        canvas.rect([a, y + 3.0, (b - a).max(1.5), THICK], &class, &format!("{text}, from {from} to {to}"));
        // Beside the bar where there is room, else on it.
        let room = 7.0 * letters(&text);
        let y = y + 15.0;
        if b + 6.0 + room <= axis.right {
            canvas.text((b + 6.0, y), Anchor::Start, "value", &text);
        } else if a - 6.0 - room >= axis.left {
            canvas.text((a - 6.0, y), Anchor::End, "value", &text);
        } else {
            canvas.text((a + 6.0, y), Anchor::Start, "inside", &text);
        }
    }
    if most > 0.0 {
        let ground = bottom;
        let at = |(ms, bytes): &(f64, f64)| (axis.at(*ms), ground - CURVE * bytes / most);
        let line: Vec<(f64, f64)> = line.iter().map(at).collect();
        canvas.path(&line, Some(ground), "area");
        canvas.path(&line, None, "curve");
        let total = samples.last().map_or(0, |s| s.link.bytes);
        canvas.text(
            (4.0, ground - CURVE - 5.0),
            Anchor::Start,
            "tick",
            &format!("over the link: {}", Unit::Bytes.text(total)),
        );
    }
    canvas.finish(bottom + 24.0, label)
}
