//! What one eStargz layer must be in itself: its TOC and its archive say the same, payloads lie where the TOC says, there
//! is one landmark in its place.

use std::collections::{BTreeMap, HashMap};

use super::content::Content;
use crate::digest::Digest;
use crate::estargz::toc::{self, TocEntry};
use crate::estargz::{Format, Layer, Span, landmark};
use crate::tar::{Kind, clean, whiteout};

/// Names every way in which the layer is wrong. Chunk digests were checked while it was read.
pub(super) fn check(layer: &Layer, content: &Content, say: &mut dyn FnMut(&str, String)) {
    for p in layer.problems() {
        say(&p.path, p.what);
    }
    metadata(layer, content, say);
    places(layer, content, say);
    landmarks(content, say);
    for (i, e) in content.entries.iter().enumerate() {
        if e.kind == Kind::Hardlink && content.contents[i].is_none() {
            say(
                &e.path,
                format!(
                    "a hard link to {:?}, which is nothing in front of it in this layer that can have two names",
                    e.link
                ),
            );
        }
    }
}

/// The TOC lists the archive's entries, every one but itself, in their order and with their metadata.
fn metadata(layer: &Layer, content: &Content, say: &mut dyn FnMut(&str, String)) {
    let listed: Vec<(String, &TocEntry)> =
        layer.toc.entries.iter().filter(|e| e.kind != "chunk").map(|e| (clean(&e.name), e)).collect();
    let by_path: HashMap<&str, &TocEntry> = listed.iter().map(|(p, e)| (p.as_str(), *e)).collect();
    let archived: Vec<_> = content.entries.iter().filter(|e| e.path != toc::NAME).collect();
    let mut names = Names::default();
    for entry in &archived {
        let Some(found) = by_path.get(entry.path.as_str()) else {
            say(&entry.path, "it is in the archive and not in the TOC".into());
            continue;
        };
        compare(&entry.path, found, &TocEntry::of(entry), &mut names, say);
    }
    let mut in_archive: HashMap<&str, usize> = HashMap::new();
    for e in &archived {
        *in_archive.entry(e.path.as_str()).or_default() += 1;
    }
    for (path, _) in &listed {
        if !in_archive.contains_key(path.as_str()) {
            say(path, "it is in the TOC and not in the archive".into());
        }
    }
    for (path, n) in in_archive.into_iter().filter(|(_, n)| *n > 1).collect::<BTreeMap<_, _>>() {
        say(path, format!("it is in the archive {n} times"));
    }
    if let Some((entry, (path, _))) = archived.iter().zip(&listed).find(|(a, (p, _))| a.path != *p)
        && archived.len() == listed.len()
    {
        say(path, format!("the TOC lists it where the archive has {:?}", entry.path));
    }
}

/// Writers give the name of an id only where it changes.
#[derive(Default)]
struct Names {
    users: HashMap<u64, String>,
    groups: HashMap<u64, String>,
}

fn compare(path: &str, found: &TocEntry, want: &TocEntry, names: &mut Names, say: &mut dyn FnMut(&str, String)) {
    let mut differ = |what: &str, found: String, want: String| {
        if found != want {
            say(path, format!("the TOC says {what} {found}: the archive {want}"));
        }
    };
    differ("type", found.kind.clone(), want.kind.clone());
    differ("size", found.size.to_string(), want.size.to_string());
    differ("mode", format!("{:o}", found.mode & 0o7777), format!("{:o}", want.mode));
    differ("uid", found.uid.to_string(), want.uid.to_string());
    differ("gid", found.gid.to_string(), want.gid.to_string());
    differ("mtime", time(&found.mod_time), time(&want.mod_time));
    let link = |e: &TocEntry| if e.kind == "hardlink" { clean(&e.link_name) } else { e.link_name.clone() };
    differ("link target", format!("{:?}", link(found)), format!("{:?}", link(want)));
    let device = |e: &TocEntry| format!("{}:{}", e.dev_major, e.dev_minor);
    differ("device", device(found), device(want));
    differ("extended attributes", format!("{:?}", found.xattrs), format!("{:?}", want.xattrs));
    let mut owner = |what: &str, known: &mut HashMap<u64, String>, id: u64, found: &str, want: &str| {
        let known_as = known.get(&id).map_or("", String::as_str);
        let filled = if found.is_empty() && !want.is_empty() { known_as } else { found };
        differ(what, format!("{filled:?}"), format!("{want:?}"));
        known.insert(id, want.into());
    };
    owner("owner name", &mut names.users, want.uid, &found.user_name, &want.user_name);
    owner("group name", &mut names.groups, want.gid, &found.group_name, &want.group_name);
}

/// One spelling for each point in time.
fn time(text: &str) -> String {
    match text.parse::<jiff::Timestamp>() {
        Ok(t) => t.to_string(),
        Err(_) if text.is_empty() => jiff::Timestamp::UNIX_EPOCH.to_string(),
        Err(_) => format!("{text:?}"),
    }
}

/// Members decompress to what the archive has at their place.
fn places(layer: &Layer, content: &Content, say: &mut dyn FnMut(&str, String)) {
    let marks: HashMap<u64, u64> = content.totals.marks.iter().copied().collect();
    let payloads: HashMap<&str, u64> =
        content.entries.iter().zip(&content.places).map(|(e, (_, at))| (e.path.as_str(), *at)).collect();
    for (path, _, spans) in layer.files().unwrap_or_default() {
        let Some(begin) = payloads.get(path.as_str()) else { continue };
        for span in spans {
            if let Some(why) = misplaced(&span, begin + span.offset, &marks) {
                say(&path, format!("chunk at {}: {why}", span.offset));
            }
        }
    }
    let tocs: Vec<usize> = (0..content.entries.len()).filter(|&i| content.entries[i].path == toc::NAME).collect();
    match (layer.format, tocs.as_slice()) {
        (Format::ZstdChunked, []) => {}
        (Format::ZstdChunked, _) => say(toc::NAME, "it is in the archive of a zstd:chunked layer".into()),
        (Format::Estargz, [only]) if *only + 1 == content.entries.len() => {
            if marks.get(&layer.toc_offset) != Some(&content.places[*only].0) {
                say(toc::NAME, "its member does not begin with its tar header".into());
            }
        }
        (Format::Estargz, _) => {
            say(toc::NAME, format!("{} entries of that name: expected one, the last of the archive", tocs.len()));
        }
    }
}

fn misplaced(span: &Span, want: u64, marks: &HashMap<u64, u64>) -> Option<String> {
    // The inner offset is any number that somebody wrote.
    let found = marks.get(&span.member)?.saturating_add(span.inner);
    if found != want {
        return Some(format!(
            "its member at {} leads to byte {found} of the archive: the payload is at {want}",
            span.member
        ));
    }
    let end = marks.get(&span.end)?;
    (want + span.size > *end).then(|| format!("its member at {} ends before the payload does", span.member))
}

fn landmarks(content: &Content, say: &mut dyn FnMut(&str, String)) {
    let is_mark = |path: &str| path == landmark::PREFETCH || path == landmark::NO_PREFETCH;
    let marks: Vec<usize> = (0..content.entries.len()).filter(|&i| is_mark(&content.entries[i].path)).collect();
    let [at] = marks[..] else {
        say("", format!("{} landmarks: expected one", marks.len()));
        return;
    };
    let entry = &content.entries[at];
    let digest = Digest::of(&[landmark::CONTENT]);
    if entry.kind != Kind::File || content.digests[at] != Some(digest) {
        say(&entry.path, format!("its content is not the one byte {:#04x}", landmark::CONTENT));
    }
    if entry.path == landmark::NO_PREFETCH && at != 0 {
        say(&entry.path, format!("it is entry {at}: expected the first one"));
    }
    if entry.path == landmark::PREFETCH && at == 0 {
        say(&entry.path, "it is the first entry: nothing stands in front of it".into());
    }
}

/// Where a whiteout stands behind what it hides although the source has it in front: an ordinary unpack then deletes what
/// was just unpacked.
pub(super) fn moved_whiteouts(source: &Content, converted: &Content, say: &mut dyn FnMut(&str, String)) {
    let place = |c: &Content| -> HashMap<String, usize> {
        c.entries.iter().enumerate().map(|(i, e)| (e.path.clone(), i)).collect()
    };
    let (before, after) = (place(source), place(converted));
    for (path, &now) in &after {
        let Some(whiteout::Hides::Path(hidden)) = whiteout::parse(path) else { continue };
        let (Some(was), Some(file_was), Some(&file_now)) = (before.get(path), before.get(&hidden), after.get(&hidden))
        else {
            continue;
        };
        if was < file_was && file_now < now {
            say(&hidden, format!("it stands before {path:?}, and behind it in the source"));
        }
    }
}
