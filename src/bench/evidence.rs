//! The rules that decide whether a run counts: was it cold, and were exactly the layers lazy that are meant to be.
//!
//! Pure: [`Evidence`] is what `observe` saw, [`judge`] turns it into reasons against the run. One layer may be refused by the
//! lazy snapshotter, the hot layer on top; everything else that is fetched whole marks the run invalid, and so does everything
//! that cannot be seen (a log without events proves nothing). What a rule cannot prove is not claimed: before a cold run the page
//! cache rule looks at the machine's total, not at the image's files, which do not exist yet; before a start from disk at both.

use serde::{Deserialize, Serialize};

use super::residency::Residency;
use super::result::{ArmFacts, LayerFacts, Split, Start, Traffic};
use super::stack::Mode;
use crate::digest::Digest;

/// Page cache that may be left after it was dropped, what cannot be dropped not counted: what others on the machine read in the
/// meantime. A quarter of what a vLLM start touches.
pub const CACHE_LEFT_KB: u64 = 128 << 10;
/// Name of the lazy snapshotter.
pub const LAZY: &str = "stargz";

/// What was seen before and after a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// Right before the first mark.
    pub before: Before,
    /// Right after the last mark, container still running.
    pub after: After,
}

/// The state a run starts from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Before {
    /// Snapshotter the stack says it runs.
    pub snapshotter: String,
    /// Settings the stack says its daemons have.
    #[serde(default)]
    pub mode: String,
    /// What the arm's reference resolves to now.
    #[serde(default)]
    pub resolved: Option<Digest>,
    /// The runtime lists the image, so it was there before the first mark.
    #[serde(default)]
    pub image_listed: bool,
    /// Known files of the image in the page cache after it was dropped; only before a start from disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residency: Option<Residency>,
    /// Names of the images that the runtime lists.
    pub images: Vec<String>,
    /// Layers of the arm's image in the content store.
    pub blobs: Vec<Digest>,
    /// Mounts of the lazy snapshotter.
    pub mounts: usize,
    /// Files in the lazy snapshotter's caches.
    pub cache_files: u64,
    /// Page cache that can be dropped, in KiB, before it was.
    pub page_cache_before_kb: u64,
    /// And after.
    pub page_cache_after_kb: u64,
}

/// The state a run ends with.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct After {
    /// The runtime lists the image under the digest that the reference resolved to.
    pub image_listed: bool,
    /// Layers of the arm's image in the content store.
    pub blobs: Vec<Digest>,
    /// Mounts of the lazy snapshotter.
    pub mounts: usize,
    /// What the lazy snapshotter logged since the first mark, or since the pull before it.
    pub log: Vec<Prepared>,
    /// The read-ahead left its word.
    #[serde(default)]
    pub reader: bool,
}

/// One answer of the lazy snapshotter to "can you mount this layer?".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// Chain ID of the layer, where the log tells it.
    pub chain: Option<Digest>,
    /// Yes or no.
    pub remote: bool,
}

/// What [`judge`] found.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Layers that were lazy.
    pub lazy_layers: usize,
    /// Reasons against the run; none: it counts.
    pub invalid: Vec<String>,
}

/// Weighs the evidence of a run.
pub fn judge(arm: &ArmFacts, start: Start, seen: &Evidence, link: &Split<Traffic>) -> Verdict {
    let mut invalid = Vec::new();
    let lazy = arm.snapshotter == LAZY;
    if seen.before.snapshotter != arm.snapshotter {
        invalid
            .push(format!("the stack runs snapshotter {:?}: expected {:?}", seen.before.snapshotter, arm.snapshotter));
    }
    let mode = expected_mode(arm).name();
    // A stack that has no modes does not tell one.
    if seen.before.mode != mode && !(seen.before.mode.is_empty() && mode == Mode::Default.name()) {
        invalid.push(format!("the stack's settings are {:?}: expected {mode:?}", seen.before.mode));
    }
    match seen.before.resolved {
        Some(now) if now != arm.manifest => {
            invalid.push(format!("wrong digest: {} was {} at the start and is {now} now", arm.reference, arm.manifest));
        }
        Some(_) => {}
        None => invalid.push(format!("{} was not resolved again before the run", arm.reference)),
    }
    if reads_ahead(arm) && !seen.after.reader {
        invalid.push("the read-ahead left no report: it did not run, or not to its end".into());
    }
    if seen.before.page_cache_after_kb > CACHE_LEFT_KB {
        invalid.push(format!(
            "{} MiB of page cache were left after dropping it ({} MiB before): expected at most {}",
            seen.before.page_cache_after_kb >> 10,
            seen.before.page_cache_before_kb >> 10,
            CACHE_LEFT_KB >> 10
        ));
    }
    match start {
        Start::Cold => cold(arm, &seen.before, &mut invalid),
        Start::Warm => on_disk(arm, lazy, &seen.before, link, &mut invalid),
    }
    if !seen.after.image_listed {
        invalid.push(format!("the runtime does not list the image as {}", arm.manifest));
    }
    if lazy {
        let lazy_layers = partly_lazy(arm, &seen.after, &mut invalid);
        return Verdict { lazy_layers, invalid };
    }
    if seen.after.mounts > 0 {
        invalid.push(format!("{} lazy mounts under {}: expected none", seen.after.mounts, arm.snapshotter));
    }
    if start == Start::Cold {
        let mut unique: Vec<_> = arm.layers.iter().map(|l| (l.digest, l.size)).collect();
        unique.sort_unstable();
        unique.dedup();
        let expected: u64 = unique.iter().map(|(_, size)| size).sum();
        if link.pull.bytes < expected {
            invalid.push(format!(
                "the pull fetched {} bytes: expected at least the {expected} of its layers",
                link.pull.bytes
            ));
        }
    }
    Verdict { lazy_layers: 0, invalid }
}

fn cold(arm: &ArmFacts, before: &Before, invalid: &mut Vec<String>) {
    let others: Vec<_> = before.images.iter().filter(|i| !is_pause(i)).map(String::as_str).collect();
    if !others.is_empty() {
        invalid.push(format!("images were there before the pull: {}", others.join(", ")));
    }
    for (i, layer) in arm.layers.iter().enumerate() {
        if before.blobs.contains(&layer.digest) {
            invalid.push(format!("{} was in the content store before the pull", name(i, arm)));
        }
    }
    if before.mounts > 0 {
        invalid.push(format!("{} lazy mounts were left from before", before.mounts));
    }
    if before.cache_files > 0 {
        invalid.push(format!("the lazy snapshotter's caches held {} files before the pull", before.cache_files));
    }
}

/// The image was there, whole or mounted, and nothing of it in memory.
fn on_disk(arm: &ArmFacts, lazy: bool, before: &Before, link: &Split<Traffic>, invalid: &mut Vec<String>) {
    if !before.image_listed {
        invalid.push(format!("the image was not there before the start: expected {}", arm.manifest));
    }
    if lazy {
        let expected = arm.layers.iter().filter(|l| l.toc).count();
        if before.mounts != expected {
            invalid.push(format!("{} lazy mounts before the start: expected {expected}", before.mounts));
        }
    } else {
        for (i, layer) in arm.layers.iter().enumerate() {
            if !before.blobs.contains(&layer.digest) {
                invalid.push(format!("{} was not in the content store before the start", name(i, arm)));
            }
        }
        let t = link.total();
        if t.bytes > 0 || t.requests > 0 {
            invalid.push(format!("a warm start fetched {} bytes in {} requests: expected none", t.bytes, t.requests));
        }
    }
    match before.residency {
        // A lazy image that nothing was fetched of has no file here.
        Some(seen) if seen.bytes == 0 && !lazy => invalid.push("no file of the image was found on disk".into()),
        Some(seen) if seen.resident.saturating_mul(100) > seen.bytes => invalid.push(format!(
            "{} of {} bytes in the image's {} largest files were in the page cache after it was dropped: expected at most 1 %",
            seen.resident, seen.bytes, seen.files
        )),
        Some(_) => {}
        None => invalid.push("no file of the image was looked for in the page cache".into()),
    }
}

fn has(arm: &ArmFacts, option: &str) -> bool {
    arm.options.iter().any(|o| o == option)
}

/// The settings that an arm's options ask the stack for.
fn expected_mode(arm: &ArmFacts) -> Mode {
    match (has(arm, "tuned"), has(arm, "stock")) {
        (true, _) => Mode::Tuned,
        (_, true) => Mode::Stock,
        _ => Mode::Default,
    }
}

fn reads_ahead(arm: &ArmFacts) -> bool {
    has(arm, "node") || arm.options.iter().any(|o| o.starts_with("warm:"))
}

/// The sandbox image, which the stack provides.
pub fn is_pause(image: &str) -> bool {
    let path = image.split(['@']).next().unwrap_or(image);
    let last = path.rsplit('/').next().unwrap_or(path);
    last.split(':').next() == Some("pause")
}

fn name(i: usize, arm: &ArmFacts) -> String {
    format!("layer {} of {} ({})", i + 1, arm.layers.len(), &arm.layers[i].digest.to_string()[..19])
}

fn is_hot(layer: &LayerFacts) -> bool {
    layer.kind.as_deref() == Some("hot")
}

fn partly_lazy(arm: &ArmFacts, after: &After, invalid: &mut Vec<String>) -> usize {
    let top = arm.layers.len().saturating_sub(1);
    for (i, layer) in arm.layers.iter().enumerate() {
        if is_hot(layer) && layer.toc {
            invalid.push(format!("{} is a hot layer with a TOC: it would be mounted lazily", name(i, arm)));
        } else if is_hot(layer) && i != top {
            invalid.push(format!("{} is a hot layer below others: it makes them all be fetched", name(i, arm)));
        } else if !is_hot(layer) && !layer.toc {
            invalid.push(format!("{} has no TOC digest: it cannot be lazy", name(i, arm)));
        }
    }
    if after.log.is_empty() {
        invalid.push("the snapshotter's log tells of no layer: is its log level debug?".into());
    }
    let answers =
        |chain: Digest, remote| after.log.iter().filter(|p| p.chain == Some(chain) && p.remote == remote).count();
    let told = !after.log.is_empty() && after.log.iter().all(|p| p.chain.is_some());
    let mut lazy_layers = 0;
    for (i, layer) in arm.layers.iter().enumerate() {
        let stored = after.blobs.contains(&layer.digest);
        let (yes, no) = (answers(layer.chain, true), answers(layer.chain, false));
        if !stored && (!told || (yes > 0 && no == 0)) {
            lazy_layers += 1;
        }
        if layer.toc && stored {
            invalid.push(format!("{} was fetched whole into the content store: expected it lazy", name(i, arm)));
        }
        if !layer.toc && !stored {
            invalid.push(format!("{} is not in the content store: expected it fetched and unpacked", name(i, arm)));
        }
        if !told {
            continue;
        }
        if layer.toc && no > 0 {
            invalid.push(format!("{} was refused by the snapshotter", name(i, arm)));
        } else if layer.toc && yes == 0 {
            invalid.push(format!("{} was never prepared by the snapshotter", name(i, arm)));
        } else if !layer.toc && yes > 0 {
            invalid.push(format!("{} was mounted lazily: expected it native", name(i, arm)));
        } else if !layer.toc && no != 1 {
            invalid.push(format!("{} was refused {no} times: expected once", name(i, arm)));
        }
    }
    for p in &after.log {
        if let Some(chain) = p.chain.filter(|c| arm.layers.iter().all(|l| l.chain != *c)) {
            let said = if p.remote { "prepared" } else { "refused" };
            invalid.push(format!(
                "the snapshotter {said} {chain}, which is no layer of this image: was the sandbox image unpacked before?"
            ));
        }
    }
    let expected = arm.layers.iter().filter(|l| l.toc).count();
    let (yes, no) = (after.log.iter().filter(|p| p.remote).count(), after.log.iter().filter(|p| !p.remote).count());
    for (found, meant, what) in [(yes, expected, "prepared"), (no, arm.layers.len() - expected, "refused")] {
        if found != meant && !after.log.is_empty() {
            invalid.push(format!("the snapshotter {what} {found} layers: expected {meant}"));
        }
    }
    if after.mounts != expected {
        invalid.push(format!("{} lazy mounts: expected {expected}", after.mounts));
    }
    lazy_layers.min(after.mounts)
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
