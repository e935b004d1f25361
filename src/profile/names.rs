//! Which files of several profiles are one file: those that share a name, hard links counted.

use std::collections::HashMap;

use super::{File, Profile};

/// A file as one of the profiles has it: position of the profile, file.
pub(super) type Seen<'a> = (usize, &'a File);

/// All names of a file.
pub(super) fn of(file: &File) -> impl Iterator<Item = &str> {
    std::iter::once(file.path.as_str()).chain(file.links.iter().map(String::as_str))
}

/// The files of all profiles, those that share a name together, in the order of the profiles and their files.
pub(super) fn groups<'a>(runs: &[&'a Profile]) -> Vec<Vec<Seen<'a>>> {
    let mut files: Vec<Seen<'a>> =
        runs.iter().enumerate().flat_map(|(run, p)| p.files.iter().map(move |f| (run, f))).collect();
    // A file with many names first: it brings those together that another run saw under one name each.
    files.sort_by_key(|(_, f)| std::cmp::Reverse(f.links.len()));
    let mut place: HashMap<&str, usize> = HashMap::new();
    let mut groups: Vec<Vec<Seen<'a>>> = Vec::new();
    for (run, file) in files {
        let at = of(file).find_map(|name| place.get(name).copied()).unwrap_or(groups.len());
        if at == groups.len() {
            groups.push(Vec::new());
        }
        groups[at].push((run, file));
        for name in of(file) {
            place.entry(name).or_insert(at);
        }
    }
    for group in &mut groups {
        group.sort_by_key(|(run, _)| *run);
    }
    groups
}
