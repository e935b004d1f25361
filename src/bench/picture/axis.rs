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
            Self::Time => format!("{} s", value / 1000.0),
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
