//! Bars stacked from parts, one for each row: the name above, the sum at the right end, long parts with their value inside.

use super::super::stats::real;
use super::axis::{Axis, Unit};
use super::svg::{Anchor, Canvas, Drawing, letters, short};

/// A part of a bar.
pub(super) struct Part {
    /// What it is; parts of one name have one colour.
    pub(super) name: String,
    /// Its length.
    pub(super) value: u64,
    /// Class of its colour.
    pub(super) class: &'static str,
}

/// A bar.
pub(super) struct Bar {
    /// The row.
    pub(super) name: String,
    /// From the left.
    pub(super) parts: Vec<Part>,
    /// Least and largest sum over all runs.
    pub(super) range: Option<(u64, u64)>,
    /// What stands beside the sum.
    pub(super) note: String,
}

impl Bar {
    fn sum(&self) -> u64 {
        self.parts.iter().map(|p| p.value).fold(0, u64::saturating_add)
    }
}

const ROW: f64 = 46.0;
const THICK: f64 = 20.0;

/// Draws them.
pub(super) fn stacked(width: f64, bars: &[Bar], unit: Unit, label: &str) -> Drawing {
    let mut canvas = Canvas::new(width);
    let parts = bars.iter().flat_map(|b| &b.parts).filter(|p| p.value > 0);
    let mut kinds: Vec<(&str, &str)> = Vec::new();
    for part in parts {
        if kinds.iter().all(|(name, _)| *name != part.name) {
            kinds.push((&part.name, part.class));
        }
    }
    let top = legend(&mut canvas, &kinds) + 6.0;
    let longest = bars.iter().map(|b| b.sum().max(b.range.map_or(0, |r| r.1))).max().unwrap_or(0);
    let bottom = top + ROW * real(bars.len() as u64);
    let axis = Axis { left: 0.5, right: width - 1.0, max: real(longest), unit };
    axis.grid(&mut canvas, top, bottom);
    let mut y = top;
    for bar in bars {
        draw(&mut canvas, &axis, bar, y);
        y += ROW;
    }
    canvas.finish(bottom + 24.0, label)
}

fn draw(canvas: &mut Canvas, axis: &Axis, bar: &Bar, y: f64) {
    // Bold letters are up to this wide, but for a few.
    let room = |value: &str| (canvas.width - 7.4 * letters(value) - 12.0) / 8.8;
    let sum = axis.unit.text(bar.sum());
    let noted = format!("{sum} · {}", bar.note);
    // The name comes before the note; the table has it, too.
    let value = if bar.note.is_empty() || room(&noted) < letters(&bar.name).min(40.0) { sum } else { noted };
    let name = short(&bar.name, room(&value));
    canvas.text((canvas.width - 1.0, y + 14.0), Anchor::End, "value", &value);
    canvas.text((0.0, y + 14.0), Anchor::Start, "name", &name);
    let top = y + 20.0;
    let mut from = 0_u64;
    for part in bar.parts.iter().filter(|p| p.value > 0) {
        let to = from.saturating_add(part.value);
        let (a, b) = (axis.at(real(from)), axis.at(real(to)));
        let text = axis.unit.text(part.value);
        // The gap between parts would swallow the thinnest.
        let class = if b - a > 3.0 { format!("part {}", part.class) } else { part.class.to_owned() };
        canvas.rect([a, top, (b - a).max(1.0), THICK], &class, &format!("{}: {}, {text}", bar.name, part.name));
        if b - a > 7.5 * letters(&text) {
            canvas.text((f64::midpoint(a, b), top + 14.5), Anchor::Middle, "inside", &text);
        }
        from = to;
    }
    if let Some((least, most)) = bar.range.filter(|(least, most)| least < most) {
        let (a, b, middle) = (axis.at(real(least)), axis.at(real(most)), top + THICK / 2.0);
        canvas.line((a, middle), (b, middle), "whisker");
        for x in [a, b] {
            canvas.line((x, middle - 5.0), (x, middle + 5.0), "whisker");
        }
    }
}

/// Squares with their names, as many lines as it takes. Gives where it ends.
pub(super) fn legend(canvas: &mut Canvas, kinds: &[(&str, &str)]) -> f64 {
    let (mut x, mut y) = (0.0, 0.0);
    for (name, class) in kinds {
        let name = short(name, (canvas.width - 30.0) / 7.0);
        let room = 18.0 + 6.8 * letters(&name) + 16.0;
        if x > 0.0 && x + room - 16.0 > canvas.width {
            (x, y) = (0.0, y + 20.0);
        }
        if class.starts_with('l') {
            canvas.line((x, y + 8.5), (x + 14.0, y + 8.5), class);
        } else {
            canvas.rect([x, y + 3.0, 12.0, 12.0], class, "");
        }
        canvas.text((x + 18.0, y + 13.0), Anchor::Start, "tick", &name);
        x += room;
    }
    if kinds.is_empty() { 0.0 } else { y + 24.0 }
}
