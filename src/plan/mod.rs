//! From profiles and the entries of an image's layers to a plan: which entries stand in front of the landmark, which go
//! into the hot layer. A plan is plain data; `convert` only carries it out.

mod chunks;
mod hot;
mod order;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::str::FromStr;

use serde::Serialize;

use crate::digest::Digest;
use crate::estargz::landmark;
use crate::profile::{Origin, Profile};
use crate::tar::{At, Entry, Kind, Merged};

pub use chunks::{Chunking, Cut, HOT_CHUNK};
pub use order::{Order, order};

/// How a converted image is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// No profile: every layer in its own order, nothing prefetched.
    Plain,
    /// Profiled files in front of the landmark of the layer that provides them.
    Landmark,
    /// Copies of small or densely read files in one topmost, ordinary layer; nothing prefetched below.
    Hot,
    /// Both: the profiled files that the hot layer does not hold stand in front of the landmark.
    #[serde(rename = "hot+landmark")]
    HotLandmark,
}

impl Layout {
    /// Whether it is made from a profile.
    pub fn needs_profile(self) -> bool {
        self != Self::Plain
    }

    /// Whether files of it stand in front of a landmark.
    pub fn has_landmark(self) -> bool {
        matches!(self, Self::Landmark | Self::HotLandmark)
    }

    /// Whether it has a hot layer.
    pub fn has_hot(self) -> bool {
        matches!(self, Self::Hot | Self::HotLandmark)
    }
}

/// What becomes of the files of the hot layer in the layers that had them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HotLayer {
    /// They stay: lower layers do not depend on the profile and are shared with other images.
    Copy,
    /// They are taken out: a smaller image that shares nothing.
    Move,
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "plain" => Ok(Self::Plain),
            "landmark" => Ok(Self::Landmark),
            "hot" => Ok(Self::Hot),
            "hot+landmark" => Ok(Self::HotLandmark),
            _ => Err(format!("unknown layout {s:?}: expected plain, landmark, hot, hot+landmark")),
        }
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Landmark => "landmark",
            Self::Hot => "hot",
            Self::HotLandmark => "hot+landmark",
        })
    }
}

/// What is known of a layer's content.
#[derive(Debug, Default)]
pub struct LayerIndex {
    /// Entries in the order of the source layer.
    pub entries: Vec<Entry>,
    /// Digest of each file's content, `None` for what has none.
    pub digests: Vec<Option<Digest>>,
}

/// How well the profiles fit the image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Match {
    /// Touched bytes of image files in the profiles.
    pub profiled_bytes: u64,
    /// Of these, in files whose path is there with the recorded content, or with the recorded size where no digest is.
    pub matched_bytes: u64,
    /// Files matched so.
    pub matched_files: u64,
    /// Files whose path is there with other content: used all the same.
    pub changed_files: u64,
    /// Files that are not there.
    pub missing_files: u64,
}

impl Match {
    /// Whether this is a profile of another image: less than half of the profiled bytes matched.
    pub fn is_foreign(&self) -> bool {
        self.matched_bytes < self.profiled_bytes.div_ceil(2) || self.matched_files == 0
    }
}

/// The plan.
#[derive(Debug)]
pub struct Plan {
    /// The layout.
    pub layout: Layout,
    /// For each layer the positions of its prioritized entries in first-touch order.
    pub prioritized: Vec<Vec<usize>>,
    /// Entries of the hot layer in their order, parents and hard-link targets first.
    pub hot: Vec<At>,
    /// For each layer the positions of the entries that the hot layer has instead of it.
    pub moved: Vec<BTreeSet<usize>>,
    /// How well the profiles fit.
    pub fit: Match,
}

/// Paths whose content the hot layer of a profile may need.
pub fn hot_paths(profile: &Profile) -> HashSet<String> {
    hot::paths(profile)
}

/// Makes the plan of an image. `layers` lowest first.
pub fn plan(layout: Layout, hot_layer: HotLayer, layers: &[LayerIndex], profile: Option<&Profile>) -> Plan {
    let mut plan = Plan {
        layout,
        prioritized: vec![Vec::new(); layers.len()],
        hot: Vec::new(),
        moved: vec![BTreeSet::new(); layers.len()],
        fit: Match::default(),
    };
    let Some(profile) = profile else { return plan };
    let merged = Merged::of(layers.iter().map(|l| l.entries.as_slice()), landmark::is_ours);
    let contents = Contents::new(layers);
    let entry = |at: At| &layers[at.layer].entries[at.index];
    // Files in first-touch order with the entry that holds their content.
    let mut found = Vec::new();
    let mut files: Vec<_> = profile.files.iter().filter(|f| f.origin == Origin::Image).collect();
    files.sort_by(|a, b| (a.first_touch_ms, &a.path).cmp(&(b.first_touch_ms, &b.path)));
    for file in files {
        plan.fit.profiled_bytes = plan.fit.profiled_bytes.saturating_add(file.touched_bytes());
        let path = file.path.trim_start_matches('/');
        let content = merged.get(path).and_then(|at| contents.of(at));
        let Some(content) = content else {
            plan.fit.missing_files += 1;
            continue;
        };
        let digest = layers[content.layer].digests[content.index];
        let same = match (file.digest, digest) {
            (Some(a), Some(b)) => a == b,
            _ => file.size == entry(content).size,
        };
        if same {
            plan.fit.matched_files += 1;
            plan.fit.matched_bytes = plan.fit.matched_bytes.saturating_add(file.touched_bytes());
        } else {
            plan.fit.changed_files += 1;
        }
        found.push((file, content));
    }
    if layout.has_hot() {
        plan.hot = hot::entries(&contents, &merged, &found);
    }
    if layout.has_landmark() {
        let hot: HashSet<At> = plan.hot.iter().copied().collect();
        for (file, content) in found.into_iter().filter(|(_, content)| !hot.contains(content)) {
            let at = merged.get(file.path.trim_start_matches('/')).unwrap_or(content);
            plan.prioritized[at.layer].push(at.index);
        }
    }
    if hot_layer == HotLayer::Move {
        for at in plan.hot.iter().filter(|at| entry(**at).kind != Kind::Dir) {
            plan.moved[at.layer].insert(at.index);
        }
    }
    plan
}

/// Finds the entry that holds a file's content, hard links followed.
struct Contents<'a> {
    layers: &'a [LayerIndex],
    /// Position of each path's last entry, per layer.
    names: Vec<HashMap<&'a str, usize>>,
}

impl<'a> Contents<'a> {
    fn new(layers: &'a [LayerIndex]) -> Self {
        let names =
            layers.iter().map(|l| l.entries.iter().enumerate().map(|(i, e)| (e.path.as_str(), i)).collect()).collect();
        Self { layers, names }
    }

    /// The file itself, or the target of a hard link; `None` for what has no content.
    fn of(&self, at: At) -> Option<At> {
        let entries = &self.layers[at.layer].entries;
        let mut index = at.index;
        // A chain of links is legal; a cycle is not, and ends here.
        for _ in 0..=entries.len() {
            let e = &entries[index];
            match e.kind {
                Kind::File => return Some(At { layer: at.layer, index }),
                Kind::Hardlink => index = *self.names[at.layer].get(e.link.as_str())?,
                _ => return None,
            }
        }
        None
    }
}
