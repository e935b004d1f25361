//! From sightings, which name files as `stat` does, to the entries of a profile: the walk before the start knows each inode's
//! path, whatever has become of it since; mounts are known by their paths.

use std::collections::{BTreeMap, HashMap};

use super::assemble::{Assembled, Scale, kinds_of};
use super::mounts::{Mount, is_pseudo};
use super::place::Place;
use super::sightings::{Run, Sighting, Sightings};
use super::walk::{Entry, Snapshot};
use crate::profile::{File, Kind, Origin, Range};

/// Names what was seen. Gives the entries and what is to be said of paths that were only looked up.
pub(super) fn assemble(seen: &Sightings, place: &Place, before: &Snapshot, scale: Scale) -> (Assembled, Vec<String>) {
    // Sorted by path: the first name of an inode is its name, the others are its links.
    let mut inodes: HashMap<(u64, u64), Vec<&Entry>> = HashMap::new();
    for e in &before.entries {
        inodes.entry((e.dev, e.ino)).or_default().push(e);
    }
    let mut out = Assembled::default();
    let mut files: Vec<(u64, File)> = Vec::new();
    let mut volumes: HashMap<&str, HashMap<(u64, u64), String>> = HashMap::new();
    for (key, sighting) in &seen.files {
        let size = sighting.size;
        let file = match inodes.get(key) {
            Some(names) => {
                let links = names[1..].iter().map(|e| e.path.clone()).collect();
                entry(sighting, names[0].path.clone(), links, Origin::Image, names[0].size, scale)
            }
            None => match sighting.path.as_deref().map(|path| (path, origin(place, path))) {
                // Nothing that a start reads from a disk.
                Some((_, Whose::Pseudo)) => continue,
                // The hint may be a link's name; what has gone since keeps it.
                Some((path, Whose::Mount(mount))) => {
                    let volume = volumes.entry(&mount.point).or_insert_with(|| {
                        let walk = Snapshot::take(&place.root, &mount.point, &place.limits);
                        walk.entries.into_iter().map(|e| ((e.dev, e.ino), e.path)).rev().collect()
                    });
                    let path = volume.get(key).cloned().unwrap_or_else(|| path.to_owned());
                    entry(sighting, path, vec![], mount.origin(), size, scale)
                }
                // Not there before: start-up has written it.
                Some((_, Whose::Root)) => {
                    out.own_writes += 1;
                    continue;
                }
                None => {
                    *out.unmapped.entry("no path".into()).or_default() += 1;
                    continue;
                }
            },
        };
        files.push((sighting.first, file));
    }
    let notes = lookups(seen, &mut files, before, scale);
    files.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.path.cmp(&b.1.path)));
    out.files = files.into_iter().map(|(_, f)| f).collect();
    (out, notes)
}

/// Adds the files that were only looked up, and counts the names that led nowhere.
fn lookups(seen: &Sightings, files: &mut Vec<(u64, File)>, before: &Snapshot, scale: Scale) -> Vec<String> {
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for (i, (_, f)) in files.iter().enumerate() {
        for name in [&f.path].into_iter().chain(&f.links) {
            known.insert(name.clone(), i);
        }
    }
    let mut nowhere = 0_u64;
    for (path, at) in &seen.lookups {
        if let Some(&i) = known.get(path) {
            let kinds = &mut files[i].1.kinds;
            if !kinds.contains(&Kind::Stat) {
                kinds.push(Kind::Stat);
                kinds.sort_unstable();
            }
        } else if let Some(e) = before.get(path) {
            let looked = Sighting { first: *at, size: e.size, ..Sighting::default() };
            let mut file = entry(&looked, path.clone(), vec![], Origin::Image, e.size, scale);
            file.kinds = vec![Kind::Stat];
            known.insert(path.clone(), files.len());
            files.push((*at, file));
        } else {
            // Folders and links among them; the rest are guesses along search paths.
            nowhere += 1;
        }
    }
    if nowhere == 0 { vec![] } else { vec![format!("{nowhere} names were looked up that are no file of the image")] }
}

fn entry(seen: &Sighting, path: String, links: Vec<String>, origin: Origin, size: u64, scale: Scale) -> File {
    let range = |r: &Run| {
        // As the other recorders: whole pages, cut at the size.
        let start = r.start / scale.page * scale.page;
        let end = r.end.div_ceil(scale.page).saturating_mul(scale.page).min(size);
        (start < end).then(|| Range(start, end - start, scale.ms(r.at)))
    };
    File {
        path,
        links,
        origin,
        size,
        digest: None,
        first_touch_ms: scale.ms(seen.first),
        kinds: kinds_of(seen.kinds),
        ranges: crate::profile::union(seen.runs.iter().filter_map(range).collect()),
    }
}

/// Whose a path is that the walk does not know.
enum Whose<'a> {
    Root,
    Mount(&'a Mount),
    Pseudo,
}

fn origin<'a>(place: &'a Place, path: &str) -> Whose<'a> {
    let above = |point: &str| path.strip_prefix(point).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let mount = place.mounts.below.iter().filter(|m| above(&m.point)).max_by_key(|m| m.point.len());
    match mount {
        None => Whose::Root,
        Some(m) if is_pseudo(&m.kind) => Whose::Pseudo,
        Some(m) => Whose::Mount(m),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sightings::Run;
    use super::super::touch::{MMAP, READ};
    use super::*;

    const SCALE: Scale = Scale { start: 5_000_000, page: 4096 };

    fn sighting(kinds: u8, first: u64, path: Option<&str>, runs: &[(u64, u64)]) -> Sighting {
        let runs = runs.iter().map(|&(start, end)| Run { start, end, at: first }).collect();
        Sighting { kinds, first, size: 10_000, path: path.map(ToOwned::to_owned), runs }
    }

    #[test]
    fn inodes_get_the_names_they_had_before_and_mounts_theirs() {
        let dir = tempfile::tempdir().expect("folder");
        let place = Place::here(Some(dir.path()), &[]).expect("a root");
        std::fs::write(dir.path().join("a"), vec![1; 10_000]).expect("file");
        std::fs::hard_link(dir.path().join("a"), dir.path().join("b")).expect("link");
        std::fs::write(dir.path().join("looked"), "x").expect("file");
        let before = place.snapshot();
        let a = before.get("/a").expect("walked");
        let mut seen = Sightings::default();
        // Renamed since.
        seen.files
            .insert((a.dev, a.ino), sighting(READ | MMAP, 9_000_000, Some("/z"), &[(5000, 5001), (9000, 20_000)]));
        seen.files.insert((0, 1), sighting(READ, 6_000_000, Some("/new"), &[(0, 5)]));
        seen.files.insert((0, 2), sighting(READ, 6_000_000, None, &[(0, 5)]));
        for path in ["/looked", "/b", "/none"] {
            seen.lookups.insert(path.into(), 7_000_000);
        }
        let (out, notes) = assemble(&seen, &place, &before, SCALE);
        assert_eq!((out.own_writes, out.unmapped.values().sum::<u64>(), out.files.len()), (1, 1, 2));
        assert_eq!(notes.len(), 1, "{notes:?}");
        let looked = &out.files[0];
        assert_eq!(
            (looked.path.as_str(), looked.kinds.as_slice(), looked.first_touch_ms),
            ("/looked", [Kind::Stat].as_slice(), 2)
        );
        let f = &out.files[1];
        assert_eq!((f.path.as_str(), f.links.as_slice()), ("/a", ["/b".to_owned()].as_slice()));
        assert_eq!(f.kinds, [Kind::Read, Kind::Mmap, Kind::Stat]);
        assert_eq!(f.ranges, [Range(4096, 5904, 4)]);
    }
}
