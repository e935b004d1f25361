//! Drawing: shapes and text as SVG, with every text escaped; axes with round steps.

use std::fmt::Write;

use crate::html::escaped;

/// Rules for the classes that drawings use, with `var(--name)` for the colours that differ between light and dark.
pub(in crate::bench) const STYLE: &str = include_str!("picture.css");
/// The light colours, for a picture that stands alone.
const LIGHT: &[(&str, &str)] = &[
    ("var(--ink)", "#16191d"),
    ("var(--soft)", "#5c6570"),
    ("var(--line)", "#e1e5ea"),
    ("var(--card)", "#ffffff"),
    ("var(--quiet)", "#8d99a6"),
];
/// Letters of its own are nothing a picture can rely on: the usual ones of each system.
const FONT: &str = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";

/// Around a picture that stands alone.
const MARGIN: f64 = 20.0;

/// Where a text hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Something to draw on. Lengths are in pixels.
pub(super) struct Canvas {
    pub(super) width: f64,
    body: String,
}

/// A finished drawing.
#[derive(Debug, Clone)]
pub(in crate::bench) struct Drawing {
    width: f64,
    height: f64,
    label: String,
    body: String,
}

impl Canvas {
    pub(super) fn new(width: f64) -> Self {
        Self { width, body: String::new() }
    }

    /// A rectangle; `title` is shown to who points at it.
    pub(super) fn rect(&mut self, at: [f64; 4], class: &str, title: &str) {
        let [x, y, w, h] = at;
        let _ = write!(
            self.body,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{:.1}" height="{h:.1}" class="{class}""#,
            w.max(0.0)
        );
        if title.is_empty() {
            self.body.push_str("/>");
        } else {
            let _ = write!(self.body, "><title>{}</title></rect>", escaped(title));
        }
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let ((a, b), (c, d)) = (from, to);
        let _ = write!(self.body, r#"<line x1="{a:.1}" y1="{b:.1}" x2="{c:.1}" y2="{d:.1}" class="{class}"/>"#);
    }

    pub(super) fn text(&mut self, at: (f64, f64), anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => r#" text-anchor="middle""#,
            Anchor::End => r#" text-anchor="end""#,
        };
        let (x, y) = at;
        let _ = write!(self.body, r#"<text x="{x:.1}" y="{y:.1}"{anchor} class="{class}">{}</text>"#, escaped(text));
    }

    /// A path through points, closed down to `ground` where that is given.
    pub(super) fn path(&mut self, points: &[(f64, f64)], ground: Option<f64>, class: &str) {
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return };
        let _ = write!(self.body, r#"<path class="{class}" d=""#);
        for (i, (x, y)) in points.iter().enumerate() {
            let _ = write!(self.body, "{}{x:.1} {y:.1}", if i == 0 { "M" } else { "L" });
        }
        if let Some(y) = ground {
            let _ = write!(self.body, "L{:.1} {y:.1}L{:.1} {y:.1}Z", last.0, first.0);
        }
        self.body.push_str("\"/>");
    }

    pub(super) fn finish(self, height: f64, label: &str) -> Drawing {
        Drawing { width: self.width, height, label: label.into(), body: self.body }
    }
}

impl Drawing {
    /// For a page that has the rules already.
    pub(in crate::bench) fn inline(&self, class: &str) -> String {
        format!(
            r#"<svg class="{class}" viewBox="0 0 {:.0} {:.0}" role="img" aria-label="{}">{}</svg>"#,
            self.width,
            self.height,
            escaped(&self.label),
            self.body
        )
    }

    /// A file of its own: with rules, a light ground, its title and a line below that says where it comes from.
    pub(in crate::bench) fn alone(&self, title: &str, source: &str) -> String {
        let mut style = STYLE.to_owned();
        for (name, colour) in LIGHT {
            style = style.replace(name, colour);
        }
        let (width, height) = (self.width + 2.0 * MARGIN, self.height + 86.0);
        let room = self.width / 6.6;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             role=\"img\" aria-label=\"{}\"><style>svg {{ font-family: {FONT}; }}\n{style}</style>\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\
             <text x=\"{MARGIN}\" y=\"32\" class=\"title\">{}</text>\
             <g transform=\"translate({MARGIN} 48)\">{}</g>\
             <text x=\"{MARGIN}\" y=\"{:.0}\" class=\"tick\">{}</text></svg>\n",
            escaped(&self.label),
            escaped(&short(title, self.width / 9.5)),
            self.body,
            height - 14.0,
            escaped(&short(source, room)),
        )
    }
}

/// Room that a text takes, in letters of middling width: others than Latin, Greek and Cyrillic ones count twice.
pub(super) fn letters(text: &str) -> f64 {
    text.chars().map(|c| if c < '\u{1100}' { 1.0 } else { 2.0 }).sum()
}

/// A text that fits that many letters, on one line.
pub(super) fn short(text: &str, room: f64) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if letters(&text) <= room {
        return text;
    }
    let mut used = 1.0;
    let fits = |c: &char| {
        used += if *c < '\u{1100}' { 1.0 } else { 2.0 };
        used <= room
    };
    let mut out: String = text.chars().take_while(fits).collect();
    out.push('…');
    out
}

/// Round steps from 0 to at least `max`, at most `most` of them; never more than a few, whatever `max` is.
pub(super) fn ticks(max: f64, most: u32) -> Vec<f64> {
    if !max.is_finite() || max <= 0.0 {
        return vec![0.0];
    }
    let raw = max / f64::from(most.max(1));
    let power = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].iter().map(|f| f * power).find(|s| *s >= raw * 0.999_999).unwrap_or(10.0 * power);
    (0..=most + 1).map(|i| f64::from(i) * step).take_while(|v| *v <= max * 1.000_001).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(105.0, 6), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(0.9, 3), [0.0, 0.5]);
        assert_eq!(ticks(0.0, 3), [0.0]);
        assert_eq!(ticks(f64::NAN, 3), [0.0]);
        for max in [1e-9, 3.0, 1e19, f64::MAX] {
            let all = ticks(max, 6);
            assert!((2..=8).contains(&all.len()), "{max}: {all:?}");
        }
    }

    #[test]
    fn long_names_are_cut_and_stay_on_one_line() {
        assert_eq!(short("hot\nlayer", 20.0), "hot layer");
        assert_eq!(short("abcdefghij", 5.0), "abcd…");
        assert_eq!(short("層層層層", 5.0), "層層…");
    }

    #[test]
    fn texts_are_escaped_and_a_drawing_stands_alone() {
        let mut canvas = Canvas::new(100.0);
        canvas.text((1.0, 2.0), Anchor::End, "name", "</text><script>\u{1b}");
        canvas.rect([0.0, 0.0, -3.0, 1.0], "s0", "\"quoted\"");
        let drawing = canvas.finish(50.0, "a \"label\"");
        let alone = drawing.alone("</svg>", "&");
        assert!(!alone.contains("var(") && !alone.contains("<script") && !alone.contains('\u{1b}'), "{alone}");
        assert_eq!(alone.matches("</svg>").count(), 1);
        assert!(drawing.inline("wide").contains("aria-label=\"a &quot;label&quot;\""));
        assert!(alone.contains("width=\"0.0\""), "a width below nothing is none");
    }
}
