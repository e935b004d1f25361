//! One profile of several runs: what any, some or all of them touched.
//!
//! [`Profile::merge`] is the plain union that `convert` makes of several profiles; this one also counts in how many runs a byte was
//! touched, never mixes ranges of different content, and says in the header what it was made of.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::str::FromStr;

use super::names::{self, Seen};
use super::ranges::{When, at_least};
use super::{File, Header, Origin, Phase, Profile, Range, Recorder, SCHEMA, Source, Write, union};
use crate::digest::Digest;

/// How many of the runs must have touched something.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// One.
    Union,
    /// All.
    Intersection,
    /// That share of them, above 0 and at most 1, rounded up.
    Quantile(f64),
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "union" => return Ok(Self::Union),
            "intersection" => return Ok(Self::Intersection),
            _ => {}
        }
        let share =
            text.strip_prefix("quantile=").and_then(|q| q.parse::<f64>().ok()).filter(|q| *q > 0.0 && *q <= 1.0);
        let expected = "expected union, intersection or quantile=Q with Q above 0 and at most 1";
        share.map(Self::Quantile).ok_or_else(|| expected.into())
    }
}

impl Mode {
    /// Runs that must have touched something, of `n`.
    pub fn need(self, n: usize) -> usize {
        match self {
            Self::Union => 1,
            Self::Intersection => n.max(1),
            // The smallest whole number that is not below q * n, without asking floating point to be one.
            Self::Quantile(q) => (1..n).find(|&k| count(k) >= q * count(n) - 1e-9).unwrap_or(n.max(1)),
        }
    }

    /// With a union a time is the earliest, as prefetching for any of the runs needs it; else the median.
    fn when(self) -> When {
        if self == Self::Union { When::Earliest } else { When::Median }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number of profiles")]
fn count(n: usize) -> f64 {
    n as f64
}

/// Why profiles cannot be one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// There are none.
    #[error("no profiles: expected at least one")]
    Empty,
    /// Binaries of one platform say nothing about those of another.
    #[error("the profiles are of several platforms ({}): expected one", found.join(", "))]
    Platforms {
        /// The platforms.
        found: Vec<String>,
    },
}

/// The one profile, and what is to be known about how it came to be.
#[derive(Debug)]
pub struct Combined {
    /// The profile.
    pub profile: Profile,
    /// Paths of files that had several contents (another size, digest or origin): of these only the runs with the content that most
    /// runs have count, with equal numbers that of the profile named first.
    pub conflicts: Vec<String>,
    /// Images that the profiles are of, when they are several.
    pub images: Vec<String>,
    /// Recorders that took them, when they are several.
    pub recorders: Vec<String>,
}

/// Makes one profile of several.
pub fn combine(profiles: &[Profile], mode: Mode) -> Result<Combined, Error> {
    let platforms = distinct(profiles.iter().map(|p| p.header.platform.as_str()));
    match platforms.len() {
        0 => return Err(Error::Empty),
        1 => {}
        _ => return Err(Error::Platforms { found: platforms }),
    }
    let need = mode.need(profiles.len());
    let refs: Vec<&Profile> = profiles.iter().collect();
    let mut conflicts = Vec::new();
    let mut files: Vec<File> = names::groups(&refs)
        .into_iter()
        .filter_map(|group| {
            let (kept, others) = majority(group);
            conflicts.extend(kept.first().filter(|_| others).map(|(_, f)| f.path.clone()));
            file(&kept, need, mode.when())
        })
        .collect();
    files.sort_by(|a, b| (a.first_touch_ms, &a.path).cmp(&(b.first_touch_ms, &b.path)));
    conflicts.sort();
    let images = distinct(profiles.iter().filter_map(|p| p.header.image.as_deref()));
    let recorders = distinct(profiles.iter().map(|p| p.header.recorder.name.as_str()));
    Ok(Combined {
        profile: Profile {
            schema: SCHEMA.into(),
            header: header(profiles, need),
            files,
            writes: writes(profiles, need, mode.when()),
        },
        conflicts,
        images: if images.len() > 1 { images } else { Vec::new() },
        recorders: if recorders.len() > 1 { recorders } else { Vec::new() },
    })
}

/// Of one file's appearances those with the content that most runs have, and whether there are others. A file without a digest has
/// the content of the one digest that its size goes with, or its own.
fn majority(group: Vec<Seen<'_>>) -> (Vec<Seen<'_>>, bool) {
    let mut digests: BTreeMap<(u64, Origin), BTreeSet<Digest>> = BTreeMap::new();
    for (_, f) in &group {
        digests.entry((f.size, f.origin)).or_default().extend(f.digest);
    }
    let content = |f: &File| {
        let known = digests.get(&(f.size, f.origin)).filter(|d| d.len() == 1).and_then(|d| d.first().copied());
        (f.size, f.origin, f.digest.or(known))
    };
    // For each content its runs, and where it comes first.
    let mut contents: BTreeMap<_, (BTreeSet<usize>, Reverse<usize>)> = BTreeMap::new();
    for (i, (run, f)) in group.iter().enumerate() {
        contents.entry(content(f)).or_insert((BTreeSet::new(), Reverse(i))).0.insert(*run);
    }
    let best = contents.iter().max_by_key(|(_, (runs, first))| (runs.len(), *first)).map(|(c, _)| *c);
    let others = contents.len() > 1;
    (group.into_iter().filter(|(_, f)| Some(content(f)) == best).collect(), others)
}

/// One file of its appearances, all of one content; none when too few runs have it, or when none of its bytes was touched by enough.
fn file(seen: &[Seen<'_>], need: usize, when: When) -> Option<File> {
    // A profile may have a file twice that another knows as hard links.
    let mut runs: BTreeMap<usize, (u64, Vec<Range>)> = BTreeMap::new();
    for (run, f) in seen {
        let mine = runs.entry(*run).or_insert((u64::MAX, Vec::new()));
        mine.0 = mine.0.min(f.first_touch_ms);
        mine.1 = union(mine.1.iter().chain(&f.ranges).copied().collect());
    }
    if runs.len() < need {
        return None;
    }
    let lists: Vec<&[Range]> = runs.values().map(|(_, r)| r.as_slice()).collect();
    let ranges = at_least(&lists, need, when);
    if ranges.is_empty() && lists.iter().any(|l| !l.is_empty()) {
        return None;
    }
    let first = seen.first()?.1;
    let links: BTreeSet<&str> = seen.iter().flat_map(|(_, f)| names::of(f)).filter(|n| *n != first.path).collect();
    let kinds: BTreeSet<_> = seen.iter().flat_map(|(_, f)| f.kinds.iter().copied()).collect();
    Some(File {
        path: first.path.clone(),
        links: links.into_iter().map(Into::into).collect(),
        origin: first.origin,
        size: first.size,
        digest: seen.iter().find_map(|(_, f)| f.digest),
        first_touch_ms: when.pick(runs.values().map(|(at, _)| *at).collect()),
        kinds: kinds.into_iter().collect(),
        ranges,
    })
}

/// Files that enough runs wrote, as the first of them wrote it.
fn writes(profiles: &[Profile], need: usize, when: When) -> Vec<Write> {
    let mut by_path: BTreeMap<&str, BTreeMap<usize, &Write>> = BTreeMap::new();
    for (run, write) in profiles.iter().enumerate().flat_map(|(run, p)| p.writes.iter().map(move |w| (run, w))) {
        by_path.entry(&write.path).or_default().entry(run).or_insert(write);
    }
    let enough = by_path.into_values().filter(|w| w.len() >= need);
    enough
        .filter_map(|w| {
            let times: Vec<u64> = w.values().filter_map(|w| w.at_ms).collect();
            let at_ms = (!times.is_empty()).then(|| when.pick(times));
            let first = w.into_values().next()?;
            Some(Write { at_ms, ..first.clone() })
        })
        .collect()
}

fn header(profiles: &[Profile], need: usize) -> Header {
    let headers = || profiles.iter().map(|p| &p.header);
    let joined = |field: fn(&Header) -> &str, by: &str| {
        let values = distinct(headers().map(field).filter(|v| !v.is_empty()));
        values.join(by)
    };
    let sum = |field: fn(&Header) -> u64| headers().map(field).fold(0, u64::saturating_add);
    let mut unmapped = BTreeMap::<String, u64>::new();
    for (device, n) in headers().flat_map(|h| &h.unmapped) {
        let all = unmapped.entry(device.clone()).or_default();
        *all = all.saturating_add(*n);
    }
    let keys: BTreeSet<&String> = headers().flat_map(|h| h.host.keys()).collect();
    let host = keys.into_iter().map(|k| {
        let values = distinct(headers().map(|h| h.host.get(k).map_or("unknown", String::as_str)));
        (k.clone(), values.join(" | "))
    });
    Header {
        image: same(headers().map(|h| h.image.as_ref())),
        image_digest: same(headers().map(|h| h.image_digest.as_ref())),
        config_digest: same(headers().map(|h| h.config_digest.as_ref())),
        platform: joined(|h| &h.platform, ", "),
        command: same(headers().map(|h| Some(&h.command))).unwrap_or_default(),
        host: host.collect(),
        recorder: Recorder {
            name: joined(|h| &h.recorder.name, " + "),
            version: joined(|h| &h.recorder.version, ", "),
            inflation: joined(|h| &h.recorder.inflation, "; "),
            blind: joined(|h| &h.recorder.blind, "; "),
        },
        // Imported lists have none.
        started_at: headers().map(|h| h.started_at.as_str()).filter(|t| !t.is_empty()).min().unwrap_or_default().into(),
        until: joined(|h| &h.until, " | "),
        phases: phases(profiles, need),
        events: sum(|h| h.events),
        lost_events: sum(|h| h.lost_events),
        own_writes: sum(|h| h.own_writes),
        unmapped,
        merged: headers().flat_map(sources).collect(),
        notes: distinct(headers().flat_map(|h| &h.notes).map(String::as_str)),
        // An archive belongs to one run.
        capture: same(headers().map(|h| h.capture.as_ref())),
    }
}

/// Phases that enough runs have, at the median of their times: what is touched then is to fall into the phase that it mostly does.
fn phases(profiles: &[Profile], need: usize) -> Vec<Phase> {
    let mut times: BTreeMap<&str, BTreeMap<usize, u64>> = BTreeMap::new();
    for (run, phase) in profiles.iter().enumerate().flat_map(|(run, p)| p.header.phases.iter().map(move |p| (run, p))) {
        times.entry(&phase.name).or_default().entry(run).or_insert(phase.at_ms);
    }
    let enough = times.into_iter().filter(|(_, t)| t.len() >= need);
    let mut out: Vec<Phase> = enough
        .map(|(name, t)| Phase { name: name.into(), at_ms: When::Median.pick(t.into_values().collect()) })
        .collect();
    out.sort_by(|a, b| (a.at_ms, &a.name).cmp(&(b.at_ms, &b.name)));
    out
}

/// What a profile was made of: itself, unless it is a merged one.
fn sources(header: &Header) -> Vec<Source> {
    if !header.merged.is_empty() {
        return header.merged.clone();
    }
    vec![Source {
        image: header.image.clone(),
        image_digest: header.image_digest,
        command: header.command.clone(),
        started_at: header.started_at.clone(),
        recorder: header.recorder.name.clone(),
        gpus: header.host.get("gpus").cloned(),
    }]
}

/// The value that all have, if they have one.
fn same<'a, T: PartialEq + Clone + 'a>(mut values: impl Iterator<Item = Option<&'a T>>) -> Option<T> {
    let first = values.next()??;
    values.all(|v| v == Some(first)).then(|| first.clone())
}

/// Different values in the order in which they come.
fn distinct<'a>(values: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut seen = HashSet::new();
    values.filter(|v| seen.insert(*v)).map(Into::into).collect()
}

#[cfg(test)]
mod tests {
    use super::super::ranges::tests::{model, run};
    use super::super::sample::{file, profile};
    use super::*;
    use proptest::prelude::*;

    fn with(files: Vec<File>) -> Profile {
        Profile { files, ..profile() }
    }

    fn paths(c: &Combined) -> Vec<&str> {
        c.profile.files.iter().map(|f| f.path.as_str()).collect()
    }

    #[test]
    fn a_share_of_the_runs_is_rounded_up() {
        let q = |q, n| Mode::Quantile(q).need(n);
        assert_eq!(
            [q(0.5, 1), q(0.5, 2), q(0.5, 3), q(0.01, 3), q(1.0, 3), q(0.7, 10), q(0.1, 10)],
            [1, 1, 2, 1, 3, 7, 1]
        );
        assert_eq!([Mode::Union.need(5), Mode::Intersection.need(5)], [1, 5]);
        assert_eq!("quantile=0.25".parse(), Ok(Mode::Quantile(0.25)));
        for wrong in ["", "quantile", "quantile=0", "quantile=1.1", "quantile=NaN", "most"] {
            assert!(wrong.parse::<Mode>().is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn a_union_is_what_convert_makes_of_several_profiles(a in run(), b in run(), c in run()) {
            let runs = [a, b, c].map(|r| with(vec![file("/f", 64, &r)]));
            let mut merged = runs[0].clone();
            merged.merge(runs[1].clone());
            merged.merge(runs[2].clone());
            let combined = combine(&runs, Mode::Union).expect("one platform");
            prop_assert_eq!(combined.profile.files, merged.files);
        }

        #[test]
        fn an_intersection_has_the_bytes_of_every_run(a in run(), b in run()) {
            let runs = [&a, &b].map(|r| with(vec![file("/f", 64, r)]));
            let combined = combine(&runs, Mode::Intersection).expect("one platform");
            let got = combined.profile.files.first().map_or(vec![], |f| f.ranges.clone());
            let want: Vec<bool> = model(&a).iter().zip(model(&b)).map(|(a, b)| a.is_some() && b.is_some()).collect();
            prop_assert_eq!(model(&got).iter().map(Option::is_some).collect::<Vec<_>>(), want);
            let read_back = super::super::read(&super::super::write(&with(combined.profile.files.clone())));
            prop_assert_eq!(read_back.map(|p| p.files).map_err(|e| e.to_string()), Ok(combined.profile.files));
        }
    }

    #[test]
    fn a_file_counts_where_enough_runs_touched_the_same_of_it() {
        let runs = [
            with(vec![
                file("/all", 100, &[Range(0, 10, 5)]),
                file("/one", 9, &[Range(0, 9, 1)]),
                file("/apart", 20, &[Range(0, 5, 1)]),
            ]),
            with(vec![
                file("/all", 100, &[Range(5, 10, 7)]),
                file("/empty", 3, &[]),
                file("/apart", 20, &[Range(5, 5, 1)]),
            ]),
            with(vec![file("/all", 100, &[Range(0, 20, 90)]), file("/empty", 3, &[])]),
        ];
        let all = combine(&runs, Mode::Intersection).expect("one platform");
        assert_eq!(paths(&all), ["/all"]);
        assert_eq!(all.profile.files[0].ranges, [Range(5, 5, 7)], "the time is the median");
        let half = combine(&runs, Mode::Quantile(0.5)).expect("one platform");
        assert_eq!(
            paths(&half),
            ["/empty", "/all"],
            "a file without ranges counts by itself, one without common bytes does not"
        );
        let any = combine(&runs, Mode::Union).expect("one platform");
        assert_eq!(paths(&any), ["/empty", "/apart", "/one", "/all"]);
    }

    #[test]
    fn ranges_of_different_contents_are_never_mixed() {
        let of = |text: &[u8], at| File { digest: Some(Digest::of(text)), ..file("/f", 100, &[Range(at, 10, at)]) };
        let unknown = file("/f", 100, &[Range(50, 10, 1)]);
        let c = combine(&[with(vec![of(b"a", 0)]), with(vec![of(b"b", 20)])], Mode::Union).expect("one platform");
        assert_eq!(
            (c.conflicts.as_slice(), &c.profile.files[0]),
            (["/f".to_owned()].as_slice(), &of(b"a", 0)),
            "the first"
        );
        let most =
            [with(vec![of(b"a", 0)]), with(vec![of(b"b", 20)]), with(vec![of(b"b", 30)]), with(vec![unknown.clone()])];
        let c = combine(&most, Mode::Union).expect("one platform");
        assert_eq!(c.profile.files[0].ranges, [Range(20, 20, 20)], "what has no digest belongs to neither");
        let c = combine(&[with(vec![unknown]), with(vec![of(b"b", 20)])], Mode::Union).expect("one platform");
        assert_eq!((c.conflicts.len(), c.profile.files[0].digest), (0, Some(Digest::of(b"b"))), "or to the only one");
        assert_eq!(c.profile.files[0].ranges, [Range(20, 10, 20), Range(50, 10, 1)]);
    }

    #[test]
    fn hard_links_are_one_file_under_whichever_name_a_run_saw_it() {
        let linked = File { links: vec!["/b".into()], ..file("/a", 10, &[Range(0, 4, 1)]) };
        let apart = with(vec![file("/b", 10, &[Range(0, 4, 3)]), file("/a", 10, &[Range(6, 4, 2)])]);
        let c =
            combine(&[with(vec![file("/b", 10, &[Range(0, 4, 3)])]), apart, with(vec![linked])], Mode::Intersection);
        let c = c.expect("one platform");
        let [f] = c.profile.files.as_slice() else { panic!("one file: {:?}", c.profile.files) };
        assert_eq!((f.path.as_str(), f.links.as_slice()), ("/b", ["/a".to_owned()].as_slice()));
        assert_eq!(f.ranges, [Range(0, 4, 3)]);
    }

    #[test]
    fn the_header_says_what_it_was_made_of() {
        let mut other = profile();
        other.header.image = Some("app:2".into());
        other.header.recorder.name = "page-cache".into();
        other.header.host.insert("gpus".into(), "L4".into());
        other.header.lost_events = 3;
        other.header.phases[0].at_ms = 900;
        let c = combine(&[profile(), other.clone()], Mode::Union).expect("one platform");
        let h = &c.profile.header;
        assert_eq!((c.images.len(), c.recorders.len(), h.image.as_ref()), (2, 2, None));
        assert_eq!((h.recorder.name.as_str(), h.lost_events), ("filemap + page-cache", 3));
        assert_eq!((h.host["kernel"].as_str(), h.host["gpus"].as_str()), ("6.18", "unknown | L4"));
        assert_eq!(h.phases[0].at_ms, profile().header.phases[0].at_ms.min(900));
        assert_eq!(h.merged.iter().map(|s| s.gpus.as_deref()).collect::<Vec<_>>(), [None, Some("L4")]);
        let again = combine(&[c.profile.clone(), profile()], Mode::Union).expect("one platform");
        assert_eq!(again.profile.header.merged.len(), 3, "the recordings, not the merged profile");
        assert_eq!(super::super::read(&super::super::write(&again.profile)).expect("own output"), again.profile);
        other.header.platform = "linux/arm64".into();
        let error = combine(&[profile(), other], Mode::Union).map(drop).expect_err("two platforms");
        assert_eq!(error.to_string(), "the profiles are of several platforms (linux/amd64, linux/arm64): expected one");
    }

    #[test]
    fn writes_follow_the_mode() {
        let mut other = profile();
        other.writes.retain(|w| w.class == "bytecode");
        let n = |mode| combine(&[profile(), other.clone()], mode).expect("one platform").profile.writes.len();
        assert_eq!((n(Mode::Union), n(Mode::Intersection)), (profile().writes.len(), other.writes.len()));
    }
}
