//! A horizontal axis from zero, for times or bytes.

use super::super::figures;
use super::svg::{Anchor, Canvas, ticks};

/// What is along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Milliseconds, written as seconds.
    Time,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// A value with its unit.
    pub(super) fn text(self, value: u64) -> String {
        match self {
            Self::Time => format!("{} s", figures::seconds(value)),
            Self::Bytes => figures::bytes(value),
        }
    }

    /// A value at a tick; round, so without needless decimals.
    pub(super) fn tick(self, value: f64) -> String {
        match self {
            // Rounded where a sum of steps is not: 0.3, not 0.30000000000000004.
            Self::Time => format!("{} s", (value * 1000.0).round() / 1_000_000.0),
            // Ticks are between 0 and the largest value, which was a u64.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
            Self::Bytes => figures::bytes(value.max(0.0) as u64).replace(".0 ", " "),
        }
    }
}

/// The axis: pixels from `left` to `right` for values from 0 to `max`.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) max: f64,
    pub(super) unit: Unit,
}

impl Axis {
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = if self.max > 0.0 { (value / self.max).clamp(0.0, 1.0) } else { 0.0 };
        self.left + (self.right - self.left) * share
    }

    /// Lines from top to bottom, with their values below.
    pub(super) fn grid(&self, canvas: &mut Canvas, top: f64, bottom: f64) {
        let most = if canvas.width < 600.0 { 4 } else { 8 };
        for value in ticks(self.max, most) {
            let x = self.at(value);
            canvas.line((x, top), (x, bottom), "grid");
            let anchor = if value == 0.0 {
                Anchor::Start
            } else if x > self.right - 24.0 {
                Anchor::End
            } else {
                Anchor::Middle
            };
            canvas.text((x, bottom + 17.0), anchor, "tick", &self.unit.tick(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_short() {
        assert_eq!([0.0, 500.0, 3.0 * 0.2, 20_000.0].map(|v| Unit::Time.tick(v)), ["0 s", "0.5 s", "0.0006 s", "20 s"]);
        assert_eq!([0.0, 5e6, 1.5e9, 1e30].map(|v| Unit::Bytes.tick(v)), ["0 B", "5 MB", "1.5 GB", "18.4 EB"]);
    }

    #[test]
    fn values_stay_on_the_axis() {
        let axis = Axis { left: 10.0, right: 110.0, max: 50.0, unit: Unit::Time };
        for (value, want) in [(-5.0, 10.0), (0.0, 10.0), (25.0, 60.0), (50.0, 110.0), (1e300, 110.0)] {
            assert!((axis.at(value) - want).abs() < 1e-9, "{value}");
        }
        assert!((Axis { max: 0.0, ..axis }.at(3.0) - 10.0).abs() < 1e-9);
    }
}
