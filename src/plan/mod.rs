//! From profiles and the entries of an image's layers to a plan: which entries stand in front of the landmark, which go
//! into the hot layer. A plan is plain data; `convert` only carries it out. What is best of it is chosen by prediction: a
//! [`Model`] of node and link, a [`Workload`] from the profile, [`predict()`] and [`choose()`]. Method and errors: `docs/plan.md`.

mod arm;
mod choose;
mod chunks;
mod demand;
mod hot;
mod model;
mod order;
mod predict;
mod workload;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::str::FromStr;

use serde::Serialize;

use crate::digest::Digest;
use crate::estargz::landmark;
use crate::profile::{File, Origin, Profile};
use crate::tar::{At, Entry, Kind, Merged};

pub use arm::{Arm, Reader, UnknownArm, Way};
pub use choose::{Choice, Considered, MARGIN_US, Pinned, choose};
pub use chunks::{Chunking, Cut, HOT_CHUNK, hot_chunks};
pub use demand::{Codec, Cutting, Demand, LazyFile, lazy_files};
pub use hot::Rule;
pub use model::{Error as ModelError, LINKS, Link, MODELS, Model, Node};
pub use order::{Order, order};
pub use predict::{Part, Predicted, Prediction, Shape, Step, predict};
pub use workload::{ReadyFrom, Touched, Workload};

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
    /// Touched bytes of image files in the profiles; what a start-up layer brings along is none of the image's.
    pub profiled_bytes: u64,
    /// Of these, in files whose path is there with the recorded content, or with the recorded size where no digest is.
    pub matched_bytes: u64,
    /// Files matched so.
    pub matched_files: u64,
    /// Files whose path is there with other content: used all the same.
    pub changed_files: u64,
    /// Files whose content is there under another path: used, and counted as matched.
    pub moved_files: u64,
    /// Files that are not there, nor brought along by a start-up layer.
    pub missing_files: u64,
}

/// A profiled file that is not in the image as it was profiled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// As profiled.
    pub path: String,
    /// Bytes that were touched of it.
    pub touched_bytes: u64,
    /// What has become of it.
    pub what: What,
}

/// What has become of a profiled file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Other content under the same path.
    Changed,
    /// The same content under this path.
    Moved(String),
    /// Neither.
    Missing,
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
    /// The profiled files that the hot layer does not hold, by their paths in the image: what a reader ahead has to read.
    pub lazy: Vec<File>,
    /// How well the profiles fit.
    pub fit: Match,
    /// What does not fit, most touched bytes first.
    pub mismatches: Vec<Mismatch>,
}

impl Plan {
    /// Files that a start-up layer brings along are not missing, and nothing that the image has to match.
    pub fn leave_to_startup(&mut self, brings: impl Fn(&str) -> bool) {
        let fit = &mut self.fit;
        self.mismatches.retain(|m| {
            let stays = m.what != What::Missing || !brings(&m.path);
            if !stays {
                fit.missing_files -= 1;
                fit.profiled_bytes = fit.profiled_bytes.saturating_sub(m.touched_bytes);
            }
            stays
        });
    }
}

/// Paths whose content the hot layer of a profile may need.
pub fn hot_paths(profile: &Profile, rule: &Rule) -> HashSet<String> {
    hot::paths(profile, rule)
}

/// Makes the plan of an image. `layers` lowest first, `merged`: what a container sees of them.
pub fn plan(
    layout: Layout,
    hot_layer: HotLayer,
    rule: &Rule,
    layers: &[LayerIndex],
    merged: &Merged,
    profile: Option<&Profile>,
) -> Plan {
    let mut plan = Plan {
        layout,
        prioritized: vec![Vec::new(); layers.len()],
        hot: Vec::new(),
        moved: vec![BTreeSet::new(); layers.len()],
        lazy: Vec::new(),
        fit: Match::default(),
        mismatches: Vec::new(),
    };
    let Some(profile) = profile else { return plan };
    let contents = Contents::new(layers);
    let entry = |at: At| &layers[at.layer].entries[at.index];
    // Files in first-touch order with the entry that holds their content.
    let mut found = Vec::new();
    // Of a file that was only looked up nothing is read.
    let of_image = |f: &&File| f.origin == Origin::Image && !f.is_looked_up_only();
    let mut files: Vec<_> = profile.files.iter().filter(of_image).collect();
    let moved = moved(&files, merged, &contents);
    files.sort_by(|a, b| (a.first_touch_ms, &a.path).cmp(&(b.first_touch_ms, &b.path)));
    for file in files {
        plan.fit.profiled_bytes = plan.fit.profiled_bytes.saturating_add(file.touched_bytes());
        let path = file.path.trim_start_matches('/');
        let mut mismatch = |what| {
            plan.mismatches.push(Mismatch { path: file.path.clone(), touched_bytes: file.touched_bytes(), what });
        };
        let here = merged.get(path).and_then(|at| contents.of(at));
        let elsewhere = || moved.get(&Identity::of(file)?).and_then(|at| contents.of(*at));
        let Some(content) = here.or_else(elsewhere) else {
            mismatch(What::Missing);
            plan.fit.missing_files += 1;
            continue;
        };
        if here.is_none() {
            mismatch(What::Moved(format!("/{}", entry(content).path)));
            plan.fit.moved_files += 1;
        }
        let digest = layers[content.layer].digests[content.index];
        let same = match (file.digest, digest) {
            (Some(a), Some(b)) => a == b,
            _ => file.size == entry(content).size,
        };
        if same {
            plan.fit.matched_files += 1;
            plan.fit.matched_bytes = plan.fit.matched_bytes.saturating_add(file.touched_bytes());
        } else {
            mismatch(What::Changed);
            plan.fit.changed_files += 1;
        }
        found.push((file, content));
    }
    plan.mismatches.sort_by(|a, b| b.touched_bytes.cmp(&a.touched_bytes).then_with(|| a.path.cmp(&b.path)));
    if layout.has_hot() {
        plan.hot = hot::entries(&contents, merged, &found, rule);
    }
    let hot: HashSet<At> = plan.hot.iter().copied().collect();
    for (file, content) in found.iter().filter(|(file, at)| !hot.contains(at) && entry(*at).size == file.size) {
        // Under its own name where it has one, not that of a hard link's target.
        let here = merged.get(file.path.trim_start_matches('/')).filter(|at| contents.of(*at) == Some(*content));
        let path = format!("/{}", entry(here.unwrap_or(*content)).path);
        plan.lazy.push(File { path, ..(*file).clone() });
    }
    if layout.has_landmark() {
        for (file, content) in found.into_iter().filter(|(_, content)| !hot.contains(content)) {
            // Under its own name where it has one: a hard link brings its target along.
            let here = merged.get(file.path.trim_start_matches('/')).filter(|at| contents.of(*at) == Some(content));
            let at = here.unwrap_or(content);
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

/// The root file system that a container sees of these layers, without what is eStargz's own.
pub fn merged(layers: &[LayerIndex]) -> Merged {
    Merged::of(layers.iter().map(|l| l.entries.as_slice()), landmark::is_ours)
}

/// What a profiled file is known by under another path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Identity {
    /// Its content.
    Content(Digest),
    /// Its name and size, of a large file that was not digested.
    Large(String, u64),
}

/// Files from this size on are known by their names where no digest is: two of one name and size are hardly ever different.
const LARGE: u64 = 1 << 20;

impl Identity {
    fn of(file: &File) -> Option<Self> {
        let name = || file.path.rsplit('/').next().unwrap_or_default().to_owned();
        file.digest.map(Self::Content).or_else(|| (file.size >= LARGE).then(|| Self::Large(name(), file.size)))
    }
}

/// Where the content of profiled files is whose paths are not in the image, as after an update of the interpreter: the first
/// path that shows it, and of large files known by their names the only one.
fn moved(files: &[&File], merged: &Merged, contents: &Contents<'_>) -> HashMap<Identity, At> {
    let is_missing = |f: &&&File| merged.get(f.path.trim_start_matches('/')).and_then(|at| contents.of(at)).is_none();
    let wanted: HashSet<Identity> = files.iter().filter(is_missing).filter_map(|f| Identity::of(f)).collect();
    let mut out: HashMap<Identity, (&str, At)> = HashMap::new();
    let mut ambiguous = HashSet::new();
    if wanted.is_empty() {
        return HashMap::new();
    }
    for (path, at) in merged.iter() {
        let Some(content) = contents.of(at) else { continue };
        let layer = &contents.layers[content.layer];
        let name = path.rsplit('/').next().unwrap_or(path);
        let large = Identity::Large(name.to_owned(), layer.entries[content.index].size);
        for identity in layer.digests[content.index].map(Identity::Content).into_iter().chain([large]) {
            if !wanted.contains(&identity) {
                continue;
            }
            let first = out.entry(identity.clone()).or_insert((path, at));
            if first.0 != path && matches!(identity, Identity::Large(..)) {
                ambiguous.insert(identity);
            } else if path < first.0 {
                *first = (path, at);
            }
        }
    }
    out.into_iter().filter(|(identity, _)| !ambiguous.contains(identity)).map(|(i, (_, at))| (i, at)).collect()
}

/// Finds the entry that holds a file's content, hard links followed.
pub(crate) struct Contents<'a> {
    layers: &'a [LayerIndex],
    /// Position of each path's last entry, per layer.
    names: Vec<HashMap<&'a str, usize>>,
}

impl<'a> Contents<'a> {
    pub(crate) fn new(layers: &'a [LayerIndex]) -> Self {
        let names =
            layers.iter().map(|l| l.entries.iter().enumerate().map(|(i, e)| (e.path.as_str(), i)).collect()).collect();
        Self { layers, names }
    }

    /// The file itself, or the target of a hard link; `None` for what has no content.
    pub(crate) fn of(&self, at: At) -> Option<At> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Header, Kind as Touched, Range, SCHEMA};

    fn file(path: &str, content: &str, kinds: &[Touched]) -> File {
        let touched = kinds != [Touched::Stat];
        File {
            path: path.into(),
            links: vec![],
            origin: Origin::Image,
            size: 100,
            digest: Some(Digest::of(content.as_bytes())),
            first_touch_ms: 0,
            kinds: kinds.to_vec(),
            ranges: if touched { vec![Range(0, 100, 0)] } else { vec![] },
        }
    }

    /// An image of one layer whose files have these contents.
    fn image(files: &[(&str, &str)]) -> LayerIndex {
        let entry = |path: &str| Entry { size: 100, ..Entry::bare(path, Kind::File) };
        LayerIndex {
            entries: files.iter().map(|(path, _)| entry(path)).collect(),
            digests: files.iter().map(|(_, content)| Some(Digest::of(content.as_bytes()))).collect(),
        }
    }

    #[test]
    fn a_large_file_without_digest_is_known_by_its_name_and_size_if_it_is_the_only_one() {
        let large = |path: &str| File { size: LARGE, digest: None, ..file(path, "", &[Touched::Read]) };
        let files = vec![large("/py3.11/libbig.so"), large("/py3.11/libtwo.so")];
        let profile = Profile { schema: SCHEMA.into(), header: Header::default(), files, writes: vec![] };
        let mut layer = image(&[("py3.12/libbig.so", "b"), ("py3.12/libtwo.so", "c"), ("other/libtwo.so", "d")]);
        layer.entries.iter_mut().for_each(|e| e.size = LARGE);
        let layers = [layer];
        let plan = plan(Layout::Landmark, HotLayer::Copy, &Rule::default(), &layers, &merged(&layers), Some(&profile));
        assert_eq!(
            (plan.fit.moved_files, plan.fit.missing_files, plan.prioritized[0].as_slice()),
            (1, 1, [0].as_slice())
        );
    }

    #[test]
    fn a_rebuilt_image_is_matched_by_path_then_by_content_and_the_rest_is_named() {
        let read = &[Touched::Read];
        let files = vec![
            file("/same", "a", read),
            file("/old/moved", "b", read),
            file("/changed", "c", read),
            file("/gone", "d", read),
            file("/looked", "e", &[Touched::Stat]),
        ];
        let profile = Profile { schema: SCHEMA.into(), header: Header::default(), files, writes: vec![] };
        let layers = [image(&[("z/copy", "b"), ("same", "a"), ("new/moved", "b"), ("changed", "x"), ("looked", "e")])];
        let plan = plan(Layout::Hot, HotLayer::Copy, &Rule::default(), &layers, &merged(&layers), Some(&profile));
        let fit = plan.fit;
        assert_eq!((fit.matched_files, fit.moved_files, fit.changed_files, fit.missing_files), (2, 1, 1, 1));
        assert_eq!((fit.profiled_bytes, fit.matched_bytes), (400, 200));
        let hot: Vec<_> = plan.hot.iter().map(|at| layers[0].entries[at.index].path.as_str()).collect();
        assert_eq!(hot, ["changed", "new/moved", "same"], "what was only looked up is not copied");
        let what: Vec<_> = plan.mismatches.into_iter().map(|m| (m.path, m.what)).collect();
        let want = [
            ("/changed".to_owned(), What::Changed),
            ("/gone".to_owned(), What::Missing),
            ("/old/moved".to_owned(), What::Moved("/new/moved".into())),
        ];
        assert_eq!(what, want);
    }
}
