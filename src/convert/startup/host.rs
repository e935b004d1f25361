//! What compiled caches are bound to: the machine and the packages that they were made with. On another one they are not wrong, since
//! whoever reads them looks at their keys, but of no use: that is said, never guessed.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::image::names;
use crate::record::host::{HARDWARE, PACKAGES};

/// A fact that is another here than where the compiled caches of an image were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// As a profile's header names it, such as `gpus` or `torch`.
    pub fact: String,
    /// What it was there.
    pub made: String,
    /// What it is here; `None` where there is none, such as a GPU.
    pub here: Option<String>,
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { fact, made, here } = self;
        write!(f, "the compile caches were made with {fact} {made}, here is {}", here.as_deref().unwrap_or("none"))
    }
}

/// Facts of a profile's header that compiled caches are bound to.
pub(super) fn bound(host: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let known = |key: &&String| HARDWARE.iter().chain(&PACKAGES).any(|k| k == key);
    host.iter().filter(|(key, _)| known(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Which of the facts that matter a header does not have, in words.
pub(super) fn missing(host: &BTreeMap<String, String>) -> Option<&'static str> {
    let has = |keys: &[&str]| keys.iter().any(|k| host.contains_key(*k));
    match (has(&HARDWARE), has(&PACKAGES)) {
        (true, true) => None,
        (true, false) => Some("which packages"),
        (false, true) => Some("which GPU or processor"),
        (false, false) => Some("which hardware and packages"),
    }
}

/// The facts that a layer's annotations carry.
pub fn facts<'a>(annotations: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
    let own = annotations.into_iter().filter_map(|(k, v)| Some((k.strip_prefix(names::LAYER_HOST)?.into(), v.into())));
    own.collect()
}

/// How a machine differs from the one whose facts are given first. Packages that the second says nothing of are not compared: they are
/// in the image, not on the machine. Hardware that it says nothing of is not there.
pub fn mismatch(made: &BTreeMap<String, String>, here: &BTreeMap<String, String>) -> Vec<Mismatch> {
    // Two cards of a model are no other card than one.
    let set = |fact: &str, text: &str| match fact {
        "gpus" => text.split(", ").map(ToOwned::to_owned).collect::<BTreeSet<_>>(),
        _ => [text.to_owned()].into(),
    };
    let differs = |(fact, was): &(&String, &String)| match here.get(*fact) {
        Some(is) => set(fact, is) != set(fact, was),
        None => HARDWARE.contains(&fact.as_str()),
    };
    let found = made.iter().filter(differs);
    found.map(|(fact, was)| Mismatch { fact: fact.clone(), made: was.clone(), here: here.get(fact).cloned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(facts: &[(&str, &str)]) -> BTreeMap<String, String> {
        facts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn another_card_driver_or_version_is_named_and_nothing_else() {
        let made = of(&[("gpus", "NVIDIA L4"), ("nvidia_driver", "580.1"), ("torch", "2.10.0"), ("vllm", "0.18.0")]);
        assert_eq!(mismatch(&made, &made), []);
        let more = of(&[("gpus", "NVIDIA L4, NVIDIA L4"), ("nvidia_driver", "580.1"), ("kernel", "6")]);
        assert_eq!(mismatch(&made, &more), [], "packages are the image's");
        let other = of(&[("gpus", "NVIDIA L4, NVIDIA T4"), ("torch", "2.11.0"), ("vllm", "0.18.0")]);
        let words: Vec<String> = mismatch(&made, &other).iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "the compile caches were made with gpus NVIDIA L4, here is NVIDIA L4, NVIDIA T4",
                "the compile caches were made with nvidia_driver 580.1, here is none",
                "the compile caches were made with torch 2.10.0, here is 2.11.0",
            ]
        );
    }

    #[test]
    fn facts_go_through_annotations_and_others_do_not() {
        let host = of(&[("gpus", "L4"), ("kernel", "6.18"), ("cpus", "8"), ("torch", "2")]);
        let bound = bound(&host);
        assert_eq!(bound, of(&[("gpus", "L4"), ("torch", "2")]));
        let annotations: Vec<_> = bound.iter().map(|(k, v)| (format!("{}{k}", names::LAYER_HOST), v)).collect();
        let pairs = annotations.iter().map(|(k, v)| (k.as_str(), v.as_str())).chain([(names::LAYER_KIND, "hot")]);
        assert_eq!(facts(pairs), bound);
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (host, want) in [
            (of(&[("kernel", "6")]), Some("which hardware and packages")),
            (of(&[("gpus", "L4")]), Some("which packages")),
            (of(&[("triton", "3")]), Some("which GPU or processor")),
            (of(&[("cpu_model", "x"), ("vllm", "0")]), None),
        ] {
            assert_eq!(missing(&host), want);
        }
    }
}
