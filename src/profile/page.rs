//! A profile as one page for the browser: no network, no fonts, no scripts but its own.
//!
//! Paths and everything else in a profile are not to be trusted: they go into the page as JSON in which no character can end the
//! element, the script writes them as text only, and a content security policy lets no other script run.

use serde::Serialize;

use super::summary::{Layers, Summary};
use super::{File, Profile};
use crate::html::{escaped, fill, inert, script_hash};

const HTML: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// Files that get a heat map: those with most touched bytes.
const HEAT_FILES: usize = 40;
/// Cells of a heat map.
const CELLS: u64 = 240;
/// Points of the timeline: more than a wide screen has room for.
const POINTS: usize = 1000;

/// What the script draws.
#[derive(Serialize)]
struct Data<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    /// Last touch or phase, ms.
    end_ms: u64,
    /// `[ms, bytes touched until then]`.
    timeline: Vec<(u64, u64)>,
    heat: Vec<Heat<'a>>,
    files: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Heat<'a> {
    path: &'a str,
    size: u64,
    touched: u64,
    /// `[first cell, cells, ms, percent touched]`: neighbours that are alike are one.
    cells: Vec<(u64, u64, u64, u64)>,
}

/// Path, size, bytes touched, first touch, ranges, origin, layer.
type Row<'a> = (&'a str, u64, u64, u64, usize, &'static str, Option<usize>);

/// Makes the page.
pub fn page(profile: &Profile, summary: &Summary, layers: Option<&Layers>) -> String {
    let touches = || profile.files.iter().flat_map(|f| &f.ranges).map(|r| r.2);
    let first = profile.files.iter().map(|f| f.first_touch_ms);
    let phases = profile.header.phases.iter().map(|p| p.at_ms);
    let mut hottest: Vec<&File> = profile.files.iter().filter(|f| !f.ranges.is_empty()).collect();
    hottest.sort_by(|a, b| (b.touched_bytes(), &a.path).cmp(&(a.touched_bytes(), &b.path)));
    let data = Data {
        summary,
        end_ms: touches().chain(first).chain(phases).max().unwrap_or(0),
        timeline: timeline(profile),
        heat: hottest.into_iter().take(HEAT_FILES).map(heat).collect(),
        files: profile.files.iter().map(|f| row(f, layers)).collect(),
    };
    // Strings, numbers and lists: nothing that JSON cannot hold.
    let data = inert(&serde_json::to_string(&data).unwrap_or_default());
    let title = profile.header.image.clone().unwrap_or_else(|| profile.header.command.join(" "));
    // The data last: it may hold a text that looks like one of the places.
    let places = [
        ("@HASH@", script_hash(SCRIPT)),
        ("@TITLE@", escaped(&title)),
        ("@STYLE@", STYLE.into()),
        ("@SCRIPT@", SCRIPT.into()),
        ("@DATA@", data),
    ];
    fill(HTML, &places.each_ref().map(|(place, text)| (*place, text.as_str())))
}

fn row<'a>(f: &'a File, layers: Option<&Layers>) -> Row<'a> {
    let layer = layers.and_then(|l| l.find(f));
    (&f.path, f.size, f.touched_bytes(), f.first_touch_ms, f.ranges.len(), f.origin.name(), layer)
}

/// Bytes touched over time, thinned to what can be seen; the last point is the total.
fn timeline(profile: &Profile) -> Vec<(u64, u64)> {
    let mut touches: Vec<(u64, u64)> = profile.files.iter().flat_map(|f| &f.ranges).map(|r| (r.2, r.1)).collect();
    touches.sort_unstable();
    let mut sums: Vec<(u64, u64)> = vec![(0, 0)];
    let mut sum = 0_u64;
    for (at, bytes) in touches {
        sum = sum.saturating_add(bytes);
        match sums.last_mut() {
            Some(last) if last.0 == at => last.1 = sum,
            _ => sums.push((at, sum)),
        }
    }
    let step = sums.len().div_ceil(POINTS).max(1);
    let last = sums.len() - 1;
    sums.into_iter().enumerate().filter(|(i, _)| i % step == 0 || *i == last).map(|(_, p)| p).collect()
}

fn heat(file: &File) -> Heat<'_> {
    let cell = file.size.div_ceil(CELLS).max(1);
    let mut cells: Vec<(u64, u64, u64, u64)> = Vec::new();
    // For the cell in hand: which, earliest touch, bytes.
    let mut open: Option<(u64, u64, u64)> = None;
    let mut close = |(at, time, bytes): (u64, u64, u64)| {
        // The last cell is shorter.
        let whole = cell.min(file.size.saturating_sub(at.saturating_mul(cell))).max(1);
        let percent = u64::try_from((u128::from(bytes) * 100).div_ceil(u128::from(whole))).unwrap_or(100).min(100);
        match cells.last_mut() {
            Some(last) if last.0 + last.1 == at && (last.2, last.3) == (time, percent) => last.1 += 1,
            _ => cells.push((at, 1, time, percent)),
        }
    };
    for r in &file.ranges {
        let end = r.0.saturating_add(r.1).min(file.size);
        for at in r.0 / cell..end.div_ceil(cell) {
            let bytes = end.min((at + 1).saturating_mul(cell)) - r.0.max(at * cell);
            open = Some(match open {
                Some((same, time, sum)) if same == at => (at, time.min(r.2), sum + bytes),
                other => {
                    other.into_iter().for_each(&mut close);
                    (at, r.2, bytes)
                }
            });
        }
    }
    if let Some(cell) = open {
        close(cell);
    }
    Heat { path: &file.path, size: file.size, touched: file.touched_bytes(), cells }
}

#[cfg(test)]
mod tests {
    use super::super::Range;
    use super::super::sample::{file, profile};
    use super::*;

    #[test]
    fn nothing_in_a_profile_leaves_its_element() {
        let mut p = profile();
        p.header.image = Some("</title><script>alert(1)</script>".into());
        p.header.command = vec!["@SCRIPT@".into(), "\u{2028}&<!--".into()];
        let html = page(&p, &Summary::of(&p, None), None);
        assert_eq!(html.matches("<script").count(), 2, "the data and our own");
        assert_eq!(html.matches("</script").count(), 2);
        let (_, rest) = html.split_once(r#"<script type="application/json" id="data">"#).expect("the data");
        let (data, _) = rest.split_once("</script>").expect("its end");
        assert!(!data.contains(['<', '>', '&', '\u{2028}']));
        let value: serde_json::Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(value["files"][3][0], "/opt/app/</script><b>&.txt");
        assert_eq!(value["header"]["command"][1], "\u{2028}&<!--");
    }

    #[test]
    fn the_page_loads_nothing_and_is_always_the_same() {
        let p = profile();
        let html = page(&p, &Summary::of(&p, None), None);
        assert_eq!(html, page(&p, &Summary::of(&p, None), None));
        for outside in ["http:", "https:", "src=", "url(", "@import", "innerHTML", "eval(", "@DATA@", "@STYLE@"] {
            // The name of the SVG namespace is an address, and none that is asked.
            let text = html.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains(outside), "{outside}");
        }
    }

    #[test]
    fn the_timeline_ends_with_all_touched_bytes() {
        let p = profile();
        let line = timeline(&p);
        assert_eq!(line.last().map(|p| p.1), Some(Summary::of(&p, None).total.touched));
        assert!(line.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1), "{line:?}");
        let many = (0..5000).map(|i| Range(i * 8192, 4096, i)).collect::<Vec<_>>();
        let p = Profile { files: vec![file("/f", 5000 * 8192, &many)], ..p };
        let line = timeline(&p);
        assert!(line.len() <= POINTS + 1 && line.last() == Some(&(4999, 5000 * 4096)), "{}", line.len());
    }

    #[test]
    fn a_heat_map_says_where_and_when() {
        let f = file("/f", 2400, &[Range(0, 20, 5), Range(25, 10, 9), Range(2395, 5, 1)]);
        assert_eq!(heat(&f).cells, [(0, 2, 5, 100), (2, 2, 9, 50), (239, 1, 1, 50)]);
        assert_eq!(heat(&file("/e", 3, &[Range(0, 3, 4)])).cells, [(0, 3, 4, 100)]);
        assert_eq!(heat(&file("/large", u64::MAX, &[Range(u64::MAX - 10, 10, 4)])).cells, [(239, 1, 4, 1)]);
    }
}
