//! The page holds whatever a report holds, and nothing of it gets out of its element.

use super::*;
use crate::bench::report::tests::{failed, report, run};
use crate::bench::result::Run;
use crate::bench::sample::{mark, sample};
use crate::bench::trace::Trace;
use crate::profile::cover::{Cover, Missed};

const NASTY: [&str; 4] = [
    "</script><script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "a\nb 'c' &amp; \u{2028}\u{1b}",
    "@DATA@",
];

fn data(html: &str) -> Value {
    let (_, rest) = html.split_once(r#"<script type="application/json" id="data">"#).expect("the data");
    let (data, _) = rest.split_once("</script>").expect("its end");
    assert!(!data.contains(['<', '>', '&', '\u{2028}']));
    serde_json::from_str(data).expect("JSON")
}

#[test]
fn nothing_in_a_report_leaves_its_element() {
    let mut runs: Vec<Run> = Vec::new();
    for (i, name) in NASTY.iter().map(|n| (*n).to_owned()).chain(["x".repeat(200)]).enumerate() {
        let mut good = run("hot", 1, 1000 + i as u64, &[]);
        (good.row, good.arm) = (name.clone(), name.clone());
        let mut bad = good.clone();
        bad.round = 2;
        mark(&mut bad, &name);
        let mut broken = failed("hot", 3);
        (broken.row, broken.arm) = (name.clone(), name.clone());
        broken.outcome = Outcome::Failed { error: name.clone(), log: vec![name.clone()] };
        runs.extend([good, bad, broken]);
    }
    let mut all = report(runs);
    let mut traced = run("hot", 0, 1000, &[]);
    (traced.row, traced.arm, traced.traced) = (NASTY[0].into(), NASTY[0].into(), true);
    if let Outcome::Measured(m) = &mut traced.outcome {
        let missed = Missed { path: NASTY[1].into(), bytes: 7, ranges: 1 };
        let cover = Cover { listed_bytes: 9, touched_bytes: 9, hit_bytes: 2, missed: vec![missed], ..Cover::default() };
        m.trace = Some(Trace { list: NASTY[0].into(), recorder: NASTY[1].into(), cover, ..Trace::default() });
    }
    all.traced = vec![traced];
    all.untraced = Some(NASTY[1].into());
    all.started = NASTY[0].into();
    all.machine.cpu_model = NASTY[1].into();
    all.workload.args = vec![NASTY[0].into()];
    all.versions.insert(NASTY[0].into(), NASTY[1].into());
    for (arm, nasty) in all.arms.iter_mut().zip(NASTY) {
        (arm.reference, arm.snapshotter, arm.options) = (nasty.into(), nasty.into(), vec![nasty.into()]);
        arm.layers[0].kind = Some(nasty.into());
    }
    let html = page(&all);
    assert_eq!(html.matches("<script").count(), 2, "the data and our own");
    assert_eq!(html.matches("</script").count(), 2);
    assert!(!html.contains("<img") && !html.contains('\u{1b}'));
    let data = data(&html);
    assert_eq!(data["runs"][0]["row"], NASTY[0]);
    assert_eq!(data["runs"].as_array().map(Vec::len), Some(15 + 1));
    assert_eq!(data["summary"]["misses"][0]["path"], NASTY[1]);
    for (name, svg) in files(&all) {
        assert!(!svg.contains("<script") && !svg.contains("<img") && !svg.contains('\u{1b}'), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c)), "{name}");
    }
}

#[test]
fn the_page_loads_nothing_and_is_always_the_same() {
    let all = sample(5);
    let html = page(&all);
    assert_eq!(html, page(&all));
    for outside in ["http:", "https:", "src=", "url(", "@import", "innerHTML", "eval(", "@DATA@", "@STYLE@", "@BODY@"] {
        // The name of the SVG namespace is an address, and none that is asked.
        let text = html.replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains(outside), "{outside}");
    }
}

#[test]
fn the_page_says_what_the_table_says() {
    let all = sample(5);
    let html = page(&all);
    let summary = Summary::of(&all);
    assert!(html.contains("<h1>auto: 26.1 s to the first answer</h1>"));
    assert!(html.contains("<li>29 % [26-32] less time than original warm</li>"));
    for text in [
        "layer 2 of 4 (sha256:00c0ffee0123)",
        "RuntimeError: no",
        "2 of 40 runs do not count",
        "0.71 [0.68-0.74]",
        "<h2>Files that the read-ahead missed most of</h2>",
        "<th scope=\"col\">missed MB</th>",
        "<td>48.4</td><td>412</td>",
        "<td class=\"text\">/usr/lib/x86_64-linux-gnu/libc.so.6</td><td>0.4</td><td>12</td>",
        "auto: 326.9 of 375.3 MB touched of lazily served files were on the list",
        "on_demand_bytes_fetched",
    ] {
        assert!(html.contains(text), "{text}");
    }
    for arm in &all.arms {
        assert!(html.contains(&arm.manifest.to_string()) && html.contains(&arm.config.to_string()), "{}", arm.name);
    }
    let data = data(&html);
    assert_eq!(data["summary"]["headline"], summary.headline.as_str());
    for p in html.split("data-picture=\"").skip(1).filter_map(|p| p.split('"').next()) {
        assert!(data["pictures"][p].as_str().is_some_and(|svg| svg.starts_with("<svg xmlns=")), "{p}");
    }
}

#[test]
fn every_tag_that_opens_closes() {
    let html = page(&sample(5));
    let (_, main) = html.split_once("<main>").expect("main");
    let (main, _) = main.split_once("</main>").expect("its end");
    for tag in [
        "section", "details", "summary", "table", "tr", "td", "th", "ul", "li", "dl", "dd", "dt", "svg", "p", "h2",
        "text", "title",
    ] {
        let opened = main.matches(&format!("<{tag}>")).count() + main.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, main.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn few_and_many_arms_are_pages_too() {
    let none = page(&report(vec![]));
    assert!(none.contains("No arm can be claimed to be faster: no run was made") && !none.contains("<svg class"));
    let invalid = page(&report(vec![run("hot", 1, 100, &["it was warm"]), failed("hot", 2)]));
    assert!(invalid.contains("no run counts") && invalid.contains("it was warm") && !invalid.contains("<svg class"));
    let one = page(&report(vec![run("hot", 1, 100, &[])]));
    assert!(one.contains("hot is the only row with runs that count") && one.contains("tell no phases"));
    let many = (0..30)
        .flat_map(|i| (1..=3).map(move |round| run(&format!("arm{i}"), round, 1000 + 10 * i + u64::from(round), &[])));
    let many = report(many.collect());
    assert_eq!(page(&many).matches("<svg class=\"picture wide\"").count(), 32);
    assert_eq!(files(&many).len(), 32);
}
