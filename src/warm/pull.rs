//! Whether containerd is downloading what a container has to wait for, and whether that will take a while.
//!
//! A blob that is coming is a folder `ingest/ID` of the content store, with `data`, which grows, `ref`, which ends in its digest,
//! and `total`, its size where that is known (containerd's `plugins/content/local`).

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::digest::Digest;

/// Before that nobody can tell how fast it comes.
const LEAST: Duration = Duration::from_millis(300);
/// A download that will be over sooner is not worth waiting for; it shares the link with our own reads when it is judged.
const LONG: Duration = Duration::from_secs(3);
/// Between the first lazy layers and this download lie some requests for the others: where they take longer than that, the link
/// is slow.
const COMING: Duration = Duration::from_millis(500);
/// What has not come by then was there before, and was thrown away when it was unpacked.
const NEVER: Duration = Duration::from_secs(6);

/// Blobs that are waited for.
#[derive(Debug)]
pub(super) struct Downloads {
    content: PathBuf,
    seen: HashMap<Digest, Seen>,
}

/// What is known of one.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// It has been waited for since.
    since: Instant,
    /// When its download was seen first, and how many bytes of it there were.
    first: Option<(Instant, u64)>,
    /// What was said of it last.
    long: bool,
}

impl Downloads {
    pub(super) fn new(content: &Path) -> Self {
        Self { content: content.to_owned(), seen: HashMap::new() }
    }

    /// Whether one of these blobs is still to come and takes long: then the link is what is short, for whatever reason.
    pub(super) fn take_long(&mut self, now: Instant, wanted: &[Digest]) -> bool {
        self.seen.retain(|blob, _| wanted.contains(blob));
        let missing = |d: &&Digest| !self.content.join("blobs/sha256").join(d.hex()).exists();
        let missing: Vec<Digest> = wanted.iter().filter(missing).copied().collect();
        let coming = if missing.is_empty() { HashMap::new() } else { self.coming() };
        let mut long = false;
        for blob in missing {
            let seen = self.seen.entry(blob).or_insert(Seen { since: now, first: None, long: false });
            let waited = now.duration_since(seen.since);
            seen.long = match (coming.get(&blob), seen.first) {
                (Some((came, total)), first) => {
                    let first = *seen.first.insert(first.unwrap_or((now, *came)));
                    let is_known = now.duration_since(first.0) >= LEAST;
                    if is_known { total.is_some_and(|total| is_long(first, (now, *came), total)) } else { seen.long }
                }
                (None, Some(_)) => false,
                (None, None) => waited >= COMING && waited < NEVER,
            };
            long |= seen.long;
        }
        long
    }

    /// What is being downloaded: how much of it has come, and how much there is, where that is known.
    fn coming(&self) -> HashMap<Digest, (u64, Option<u64>)> {
        let entries = fs::read_dir(self.content.join("ingest")).into_iter().flatten().flatten();
        let one = |folder: PathBuf| {
            let text = |file: &str| fs::read_to_string(folder.join(file)).ok();
            let digest = text("ref")?.rsplit('-').next()?.trim_end().parse().ok()?;
            let came = fs::metadata(folder.join("data")).ok()?.len();
            Some((digest, (came, text("total").and_then(|t| t.trim_end().parse().ok()))))
        };
        entries.filter_map(|e| one(e.path())).collect()
    }
}

/// Whether what is left of a download takes long, at the speed that it had from the first look to this one.
fn is_long(first: (Instant, u64), now: (Instant, u64), total: u64) -> bool {
    let time = now.0.duration_since(first.0);
    let (came, left) = (u128::from(now.1.saturating_sub(first.1)), u128::from(total.saturating_sub(now.1)));
    left > 0 && left * time.as_millis() > came * LONG.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_download_that_will_take_a_while_counts() {
        let start = Instant::now();
        let at = |ms, bytes| (start + Duration::from_millis(ms), bytes);
        let first = at(0, 1000);
        for (ms, bytes, want) in
            [(300, 1000, true), (1000, 25_999, true), (1000, 26_000, false), (9000, 101_000, false)]
        {
            assert_eq!(is_long(first, at(ms, bytes), 101_000), want, "{bytes} after {ms} ms");
        }
    }

    #[test]
    fn downloads_are_seen_in_the_content_store() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut downloads = Downloads::new(dir.path());
        let start = Instant::now();
        let blob = Digest::of(b"hot");
        let mut long = |ms| downloads.take_long(start + Duration::from_millis(ms), &[blob]);
        assert!(!long(0) && !long(499), "it may come at once");
        assert!(long(500), "it should be coming by now");
        let ingest = dir.path().join("ingest/0123");
        let write = |name: &str, bytes: &[u8]| fs::write(ingest.join(name), bytes).expect("written");
        fs::create_dir_all(&ingest).expect("made");
        for of_no_blob in ["", "x", "layer-sha256:12", &format!("layer-{}", Digest::of(b"other"))] {
            write("ref", of_no_blob.as_bytes());
            write("data", &[0; 10]);
            assert!(long(900), "{of_no_blob}");
        }
        write("ref", format!("k8s.io/3/layer-{blob}").as_bytes());
        write("data", &[0; 100]);
        assert!(long(1000) && long(1299), "as slow as what was before, until it is known better");
        assert!(!long(1300), "nobody knows how much is to come");
        write("total", b"1000");
        assert!(long(1400));
        write("data", &[0; 800]);
        assert!(!long(1800), "700 bytes in 800 ms, 200 are left");
        write("data", &[0; 100]);
        assert!(long(1900));
        fs::remove_dir_all(&ingest).expect("removed");
        assert!(!long(2000), "it was there");
    }

    #[test]
    fn what_is_there_or_never_comes_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut downloads = Downloads::new(dir.path());
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let (here, never) = (Digest::of(b"here"), Digest::of(b"never"));
        let blobs = dir.path().join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("made");
        fs::write(blobs.join(here.hex()), "here").expect("written");
        for ms in [0, 1000] {
            assert!(!downloads.take_long(at(ms), &[here]));
        }
        assert!(!downloads.take_long(at(1000), &[here, never]));
        assert!(downloads.take_long(at(6999), &[here, never]) && !downloads.take_long(at(7000), &[here, never]));
        assert!(!downloads.take_long(at(7000), &[]) && downloads.seen.is_empty());
    }
}
