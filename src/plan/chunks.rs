//! Fitted chunks: boundaries that follow what a start really reads of a large file.
//!
//! With chunks of one size a hot range drags its cold neighbours along: 880 MB were inflated for 330 MB served in a vLLM start
//! with chunks of 4 MiB. Hot ranges therefore get chunks of their own; cold spans keep large ones. Figures:
//! `field/cold-start-experiments.md`, lessons 3 to 5, and `docs/bench-vllm.md`.

use std::collections::HashMap;
use std::ops::Range;

use super::Rule;
use crate::profile::{File, Origin, Profile};
use crate::tar::Entry;

/// Hot ranges are rounded out to this: what the kernel reads ahead on FUSE in one go.
const GRAIN: u64 = 128 << 10;
/// A cold gap up to this between two hot ranges is read with them: it is cheaper than a chunk more.
const GAP: u64 = 128 << 10;
/// Largest hot chunk: the snapshotter decompresses a whole chunk for the first byte of it.
pub const HOT_CHUNK: u64 = 2 << 20;

/// One chunk to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Bytes of payload.
    pub size: u64,
    /// Whether a start reads it.
    pub hot: bool,
}

/// How the payloads of an image's files are cut into chunks.
#[derive(Debug)]
pub struct Chunking {
    /// Bytes of a chunk where nothing is known.
    uniform: u64,
    /// By path: the size at which it was profiled, and the hot spans.
    fitted: HashMap<String, (u64, Vec<Range<u64>>)>,
    /// Hot spans by name and size, for files that have moved; what two of them share is nobody's.
    moved: HashMap<(String, u64), Option<Vec<Range<u64>>>>,
}

impl Chunking {
    /// Every file in chunks of one size.
    pub fn uniform(size: u64) -> Self {
        Self { uniform: size.max(1), fitted: HashMap::new(), moved: HashMap::new() }
    }

    /// Chunks fitted to the profile in the large files that the hot layer does not carry; others in chunks of `size`.
    pub fn fitted(profile: &Profile, size: u64, rule: &Rule) -> Self {
        let mut fitted = HashMap::new();
        let mut moved: HashMap<_, Option<Vec<_>>> = HashMap::new();
        for file in profile.files.iter().filter(|f| f.origin == Origin::Image && !rule.takes(f, f.size)) {
            let spans = spans(file.ranges.iter().map(|r| (r.0, r.1)), file.size);
            for path in [&file.path].into_iter().chain(&file.links) {
                fitted.insert(path.trim_start_matches('/').into(), (file.size, spans.clone()));
                let known = moved.entry((name(path).to_owned(), file.size)).or_insert_with(|| Some(spans.clone()));
                if known.as_ref().is_some_and(|k| *k != spans) {
                    *known = None;
                }
            }
        }
        Self { fitted, moved, ..Self::uniform(size) }
    }

    /// Files with chunks of their own.
    pub fn fitted_files(&self) -> usize {
        self.fitted.len()
    }

    /// The chunks of a file, in order; together they have its size. A file of another size than the profiled one is another
    /// file, whose ranges would mean nothing.
    pub fn of(&self, entry: &Entry) -> impl Iterator<Item = Cut> + use<> {
        let here = self.fitted.get(&entry.path).filter(|(size, _)| *size == entry.size).map(|(_, spans)| spans);
        // Its content is not known yet; a large file of the same name and size is taken for the same.
        let moved = || self.moved.get(&(name(&entry.path).to_owned(), entry.size))?.as_ref();
        let hot = here.or_else(moved).cloned().unwrap_or_default();
        cuts(hot, entry.size, self.uniform)
    }
}

/// The chunks that hold what is read of a file, were it fitted: ascending, disjoint.
pub fn hot_chunks(file: &File) -> Vec<Range<u64>> {
    let spans = spans(file.ranges.iter().map(|r| (r.0, r.1)), file.size);
    let cut = |span: Range<u64>| {
        let starts = (span.start..span.end).step_by(usize::try_from(HOT_CHUNK).unwrap_or(usize::MAX));
        starts.map(move |at| at..(at + HOT_CHUNK).min(span.end))
    };
    spans.into_iter().flat_map(cut).collect()
}

/// Cuts `size` bytes along their hot spans, the rest into chunks of `uniform`.
pub(super) fn cuts(hot: Vec<Range<u64>>, size: u64, uniform: u64) -> impl Iterator<Item = Cut> {
    let mut hot = hot.into_iter().peekable();
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == size {
            return None;
        }
        if hot.peek().is_some_and(|span| span.end <= at) {
            hot.next();
        }
        let (end, is_hot, most) = match hot.peek() {
            Some(span) if span.start <= at => (span.end, true, HOT_CHUNK),
            Some(span) => (span.start, false, uniform),
            None => (size, false, uniform),
        };
        let cut = Cut { size: most.min(end - at), hot: is_hot };
        at += cut.size;
        Some(cut)
    })
}

/// The last part of a path.
fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Ranges rounded out and joined: ascending, disjoint, inside the file.
pub(super) fn spans(ranges: impl Iterator<Item = (u64, u64)>, size: u64) -> Vec<Range<u64>> {
    let mut out: Vec<Range<u64>> = Vec::new();
    for (offset, length) in ranges {
        let start = offset / GRAIN * GRAIN;
        let end = offset.saturating_add(length).div_ceil(GRAIN).saturating_mul(GRAIN).min(size);
        match out.last_mut() {
            Some(last) if start <= last.end.saturating_add(GAP) => last.end = last.end.max(end),
            _ => out.push(start..end),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::profile::{Header, Range as Touched, SCHEMA};
    use crate::tar::Kind;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn entry(path: &str, size: u64) -> Entry {
        Entry { size, ..Entry::bare(path, Kind::File) }
    }

    fn profile(size: u64, ranges: &[(u64, u64)]) -> Profile {
        let file = File {
            path: "/big.so".into(),
            links: vec!["/other.so".into()],
            origin: Origin::Image,
            size,
            digest: Some(Digest::of(b"")),
            first_touch_ms: 0,
            kinds: vec![],
            ranges: ranges.iter().map(|r| Touched(r.0, r.1, 0)).collect(),
        };
        Profile { schema: SCHEMA.into(), header: Header::default(), files: vec![file], writes: vec![] }
    }

    fn cuts(chunking: &Chunking, path: &str, size: u64) -> Vec<(u64, bool)> {
        chunking.of(&entry(path, size)).map(|c| (c.size, c.hot)).collect()
    }

    #[test]
    fn a_file_that_has_moved_is_known_by_name_and_size() {
        let p = profile(40 * MIB, &[(0, 4096)]);
        let chunking = Chunking::fitted(&p, 4 * MIB, &Rule::default());
        let hot = |path, size| chunking.of(&entry(path, size)).filter(|c| c.hot).count();
        assert_eq!((hot("big.so", 40 * MIB), hot("opt/new/big.so", 40 * MIB)), (1, 1));
        assert_eq!((hot("big.so", 41 * MIB), hot("opt/new/small.so", 40 * MIB)), (0, 0));
    }

    #[test]
    fn without_a_profile_chunks_have_one_size() {
        let c = Chunking::uniform(4 * MIB);
        assert_eq!(cuts(&c, "a", 9 * MIB), [(4 * MIB, false), (4 * MIB, false), (MIB, false)]);
        assert_eq!(cuts(&c, "a", 0), []);
    }

    #[test]
    fn hot_ranges_get_chunks_of_their_own() {
        let size = 100 * MIB;
        // Read: 5 KiB at 10 MiB; 3 MiB from 20 MiB; a page 100 KiB behind that; the very end.
        let c = Chunking::fitted(
            &profile(size, &[(10 * MIB + 5000, 5000), (20 * MIB, 3 * MIB), (23 * MIB + 102_400, 4096), (size - 1, 1)]),
            4 * MIB,
            &Rule::default(),
        );
        let found = cuts(&c, "big.so", size);
        let hot: Vec<_> = {
            let mut at = 0;
            found
                .iter()
                .filter_map(|&(n, hot)| {
                    at += n;
                    hot.then_some((at - n, n))
                })
                .collect()
        };
        assert_eq!(hot, [(10 * MIB, GRAIN), (20 * MIB, 2 * MIB), (22 * MIB, MIB + GRAIN), (size - GRAIN, GRAIN)]);
        assert_eq!(found.iter().map(|c| c.0).sum::<u64>(), size);
        assert!(found.iter().all(|&(n, hot)| n <= if hot { HOT_CHUNK } else { 4 * MIB }));
        assert_eq!(cuts(&c, "other.so", size), found, "a hard link is the same file");
    }

    #[test]
    fn small_files_and_files_of_another_size_are_left_alone() {
        let c = Chunking::fitted(&profile(100 * MIB, &[(0, 4096)]), 4 * MIB, &Rule::default());
        assert!(cuts(&c, "big.so", 100 * MIB + 1).iter().all(|c| !c.1));
        // This one goes into the hot layer.
        let c = Chunking::fitted(&profile(MIB, &[(0, 4096)]), 4 * MIB, &Rule::default());
        assert_eq!((c.fitted_files(), cuts(&c, "big.so", MIB)), (0, vec![(MIB, false)]));
    }

    proptest! {
        #[test]
        fn chunks_cover_the_file_and_every_touched_byte_is_in_a_hot_one(
            size in 65 * MIB..200 * MIB,
            picks in proptest::collection::btree_map(0u64..50_000, 1u64..200_000, 0..40),
        ) {
            let mut ranges: Vec<(u64, u64)> = Vec::new();
            for (page, length) in picks {
                let at = page * 4096;
                if at < size && ranges.last().is_none_or(|r| r.0 + r.1 < at) {
                    ranges.push((at, length.min(size - at)));
                }
            }
            let c = Chunking::fitted(&profile(size, &ranges), 4 * MIB, &Rule::default());
            let found = cuts(&c, "big.so", size);
            prop_assert_eq!(found.iter().map(|c| c.0).sum::<u64>(), size);
            let bounded = |&(n, hot): &(u64, bool)| n > 0 && n <= if hot { HOT_CHUNK } else { 4 * MIB };
            prop_assert!(found.iter().all(bounded));
            for (offset, length) in ranges {
                let mut at = 0;
                for &(n, hot) in &found {
                    let touched = offset < at + n && at < offset + length;
                    prop_assert!(hot || !touched, "{offset}+{length} is in the cold chunk at {at}");
                    at += n;
                }
            }
        }
    }
}
