//! Every rule has a state that breaks it, and it alone.

use super::*;

fn digest(n: u8) -> Digest {
    Digest::of(&[n])
}

fn layer(n: u8, toc: bool, kind: Option<&str>) -> LayerFacts {
    LayerFacts { digest: digest(n), size: 100, toc, kind: kind.map(Into::into), chain: digest(n + 100) }
}

fn arm(snapshotter: &str, layers: Vec<LayerFacts>) -> ArmFacts {
    ArmFacts {
        name: "a".into(),
        reference: "h:1/a:b".into(),
        snapshotter: snapshotter.into(),
        manifest: digest(250),
        config: digest(251),
        layers,
        options: vec![],
        predicted: None,
    }
}

fn hot_arm() -> ArmFacts {
    arm("stargz", vec![layer(0, true, Some("estargz")), layer(1, true, None), layer(2, false, Some("hot"))])
}

fn plain_arm() -> ArmFacts {
    arm("overlayfs", vec![layer(0, false, None), layer(1, false, None), layer(1, false, None)])
}

fn yes(n: u8) -> Prepared {
    Prepared { chain: Some(digest(n + 100)), remote: true }
}

fn no(n: u8) -> Prepared {
    Prepared { remote: false, ..yes(n) }
}

fn before(snapshotter: &str) -> Before {
    Before {
        snapshotter: snapshotter.into(),
        mode: "default".into(),
        resolved: Some(digest(250)),
        images: vec!["registry.k8s.io/pause:3.10".into()],
        page_cache_before_kb: 9 << 20,
        page_cache_after_kb: 100 << 10,
        ..Before::default()
    }
}

fn hot_seen() -> Evidence {
    let after = After {
        image_listed: true,
        blobs: vec![digest(2)],
        mounts: 2,
        log: vec![yes(0), yes(1), no(2)],
        reader: false,
    };
    Evidence { before: before("stargz"), after }
}

fn plain_seen() -> Evidence {
    let after = After { image_listed: true, blobs: vec![digest(0), digest(1)], mounts: 0, log: vec![], reader: false };
    Evidence { before: before("overlayfs"), after }
}

/// The image lies on disk, and nothing of it is in memory.
fn on_disk(seen: &mut Evidence) {
    seen.before.image_listed = true;
    seen.before.images.push("h:1/a:b".into());
    seen.before.residency = Some(Residency { files: 8, bytes: 1 << 30, resident: 0 });
}

fn disk_seen() -> Evidence {
    let mut seen = plain_seen();
    on_disk(&mut seen);
    seen.before.blobs = seen.after.blobs.clone();
    seen
}

fn disk(change: impl FnOnce(&mut Evidence)) -> Vec<String> {
    let mut seen = disk_seen();
    change(&mut seen);
    judge(&plain_arm(), Start::Warm, &seen, &Split::default()).invalid
}

fn bytes(n: u64) -> Split<Traffic> {
    Split { pull: Traffic { requests: 3, bytes: n }, ..Split::default() }
}

fn hot(change: impl FnOnce(&mut ArmFacts, &mut Evidence)) -> Vec<String> {
    let (mut arm, mut seen) = (hot_arm(), hot_seen());
    change(&mut arm, &mut seen);
    judge(&arm, Start::Cold, &seen, &bytes(50)).invalid
}

fn short(n: u8) -> String {
    digest(n).to_string()[..19].to_owned()
}

#[test]
fn what_is_as_it_should_be_is_valid() {
    assert_eq!(judge(&hot_arm(), Start::Cold, &hot_seen(), &bytes(50)), Verdict { lazy_layers: 2, invalid: vec![] });
    // A layer that occurs twice is fetched once.
    assert_eq!(
        judge(&plain_arm(), Start::Cold, &plain_seen(), &bytes(200)),
        Verdict { lazy_layers: 0, invalid: vec![] }
    );
    assert_eq!(
        judge(&plain_arm(), Start::Warm, &disk_seen(), &Split::default()),
        Verdict { lazy_layers: 0, invalid: vec![] }
    );
    let all_lazy = hot(|arm, seen| {
        arm.layers.pop();
        seen.after.log.pop();
        seen.after.blobs.clear();
    });
    assert_eq!(all_lazy, Vec::<String>::new());
}

#[test]
fn a_log_without_chain_ids_is_counted() {
    let blind = |seen: &mut Evidence| seen.after.log.iter_mut().for_each(|p| p.chain = None);
    assert_eq!(hot(|_, seen| blind(seen)), Vec::<String>::new());
    let reasons = hot(|_, seen| {
        seen.after.log[1].remote = false;
        blind(seen);
    });
    assert_eq!(
        reasons,
        ["the snapshotter prepared 1 layers: expected 2", "the snapshotter refused 2 layers: expected 1"]
    );
}

#[test]
fn a_run_that_was_not_cold_is_invalid() {
    assert_eq!(
        hot(|_, s| s.before.snapshotter = "overlayfs".into()),
        ["the stack runs snapshotter \"overlayfs\": expected \"stargz\""]
    );
    assert_eq!(
        hot(|_, s| s.before.page_cache_after_kb = 200 << 10),
        ["200 MiB of page cache were left after dropping it (9216 MiB before): expected at most 128"]
    );
    assert_eq!(hot(|_, s| s.before.images.push("h:1/a:b".into())), ["images were there before the pull: h:1/a:b"]);
    assert_eq!(
        hot(|_, s| s.before.blobs.push(digest(1))),
        [format!("layer 2 of 3 ({}) was in the content store before the pull", short(1))]
    );
    assert_eq!(hot(|_, s| s.before.mounts = 1), ["1 lazy mounts were left from before"]);
    assert_eq!(hot(|_, s| s.before.cache_files = 7), ["the lazy snapshotter's caches held 7 files before the pull"]);
}

#[test]
fn an_image_of_the_wrong_shape_is_invalid() {
    let has = |reasons: Vec<String>, what: String| assert!(reasons.contains(&what), "{what} is not in {reasons:?}");
    has(
        hot(|a, _| a.layers.swap(1, 2)),
        format!("layer 2 of 3 ({}) is a hot layer below others: it makes them all be fetched", short(2)),
    );
    has(
        hot(|a, _| a.layers[2].toc = true),
        format!("layer 3 of 3 ({}) is a hot layer with a TOC: it would be mounted lazily", short(2)),
    );
    has(
        hot(|a, _| a.layers[0].toc = false),
        format!("layer 1 of 3 ({}) has no TOC digest: it cannot be lazy", short(0)),
    );
    // Two hot layers: the lower one is the wrong one.
    let two = hot(|a, _| a.layers[1] = layer(1, false, Some("hot")));
    has(two, format!("layer 2 of 3 ({}) is a hot layer below others: it makes them all be fetched", short(1)));
    // An original under the lazy snapshotter: nothing of it can be lazy.
    let original = arm("stargz", vec![layer(0, false, None)]);
    let seen = Evidence {
        before: before("stargz"),
        after: After { image_listed: true, blobs: vec![digest(0)], mounts: 0, log: vec![no(0)], reader: false },
    };
    let verdict = judge(&original, Start::Cold, &seen, &bytes(100));
    assert_eq!(verdict.invalid, [format!("layer 1 of 1 ({}) has no TOC digest: it cannot be lazy", short(0))]);
    assert_eq!(verdict.lazy_layers, 0);
}

#[test]
fn a_layer_that_was_not_lazy_is_named() {
    assert_eq!(
        hot(|_, s| s.after.blobs.push(digest(1))),
        [format!("layer 2 of 3 ({}) was fetched whole into the content store: expected it lazy", short(1))]
    );
    assert_eq!(
        hot(|_, s| s.after.blobs.clear()),
        [format!("layer 3 of 3 ({}) is not in the content store: expected it fetched and unpacked", short(2))]
    );
    assert_eq!(
        hot(|_, s| s.after.log[1] = no(1)),
        [
            format!("layer 2 of 3 ({}) was refused by the snapshotter", short(1)),
            "the snapshotter prepared 1 layers: expected 2".into(),
            "the snapshotter refused 2 layers: expected 1".into()
        ]
    );
    assert_eq!(
        hot(|_, s| _ = s.after.log.remove(0)),
        [
            format!("layer 1 of 3 ({}) was never prepared by the snapshotter", short(0)),
            "the snapshotter prepared 1 layers: expected 2".into()
        ]
    );
    assert_eq!(
        hot(|_, s| s.after.log[2] = yes(2)),
        [
            format!("layer 3 of 3 ({}) was mounted lazily: expected it native", short(2)),
            "the snapshotter prepared 3 layers: expected 2".into(),
            "the snapshotter refused 0 layers: expected 1".into()
        ]
    );
    assert_eq!(
        hot(|_, s| s.after.log.push(no(2))),
        [
            format!("layer 3 of 3 ({}) was refused 2 times: expected once", short(2)),
            "the snapshotter refused 2 layers: expected 1".into()
        ]
    );
    // The sandbox image, unpacked within the run: it costs the lazy arms seconds that are not theirs.
    assert_eq!(
        hot(|_, s| s.after.log.push(no(77))),
        [
            format!(
                "the snapshotter refused {}, which is no layer of this image: was the sandbox image unpacked before?",
                digest(177)
            ),
            "the snapshotter refused 2 layers: expected 1".into()
        ]
    );
    assert_eq!(hot(|_, s| s.after.mounts = 1), ["1 lazy mounts: expected 2"]);
    assert_eq!(hot(|_, s| s.after.log.clear()), ["the snapshotter's log tells of no layer: is its log level debug?"]);
    assert_eq!(
        hot(|_, s| s.after.image_listed = false),
        [format!("the runtime does not list the image as {}", digest(250))]
    );
}

#[test]
fn an_original_that_was_not_fetched_whole_is_invalid() {
    let judged = |start, seen: &Evidence, link: Split<Traffic>| judge(&plain_arm(), start, seen, &link).invalid;
    assert_eq!(
        judged(Start::Cold, &plain_seen(), bytes(199)),
        ["the pull fetched 199 bytes: expected at least the 200 of its layers"]
    );
    let mut mounted = plain_seen();
    mounted.after.mounts = 2;
    assert_eq!(judged(Start::Cold, &mounted, bytes(200)), ["2 lazy mounts under overlayfs: expected none"]);
    assert_eq!(
        judged(Start::Warm, &disk_seen(), bytes(9)),
        ["a warm start fetched 9 bytes in 3 requests: expected none"]
    );
}

#[test]
fn only_the_sandbox_image_is_a_pause_image() {
    for yes in ["registry.k8s.io/pause:3.10", "pause", "h:5/x/pause@sha256:00", "localhost/pause:esgz"] {
        assert!(is_pause(yes), "{yes}");
    }
    for no in ["h:5/pause/vllm:1", "h:5/pauses:1", "sha256:00"] {
        assert!(!is_pause(no), "{no}");
    }
}

#[test]
fn a_start_from_disk_has_the_image_there_and_none_of_it_in_memory() {
    assert_eq!(
        disk(|s| s.before.image_listed = false),
        [format!("the image was not there before the start: expected {}", digest(250))]
    );
    assert_eq!(
        disk(|s| _ = s.before.blobs.remove(0)),
        [format!("layer 1 of 3 ({}) was not in the content store before the start", short(0))]
    );
    let seen = |bytes, resident| Some(Residency { files: 8, bytes, resident });
    assert_eq!(
        disk(|s| s.before.residency = seen(1000, 11)),
        [
            "11 of 1000 bytes in the image's 8 largest files were in the page cache after it was dropped: expected at most 1 %"
        ]
    );
    assert_eq!(disk(|s| s.before.residency = seen(1000, 10)), Vec::<String>::new());
    assert_eq!(disk(|s| s.before.residency = seen(0, 0)), ["no file of the image was found on disk"]);
    assert_eq!(disk(|s| s.before.residency = None), ["no file of the image was looked for in the page cache"]);

    // A lazy one is mounted, and may fetch.
    let lazy = |change: fn(&mut Evidence)| {
        let (mut arm, mut seen) = (hot_arm(), hot_seen());
        arm.options = vec!["disk".into()];
        on_disk(&mut seen);
        seen.before.mounts = 2;
        change(&mut seen);
        judge(&arm, Start::Warm, &seen, &bytes(50)).invalid
    };
    assert_eq!(lazy(|_| {}), Vec::<String>::new());
    assert_eq!(lazy(|s| s.before.residency = Some(Residency::default())), Vec::<String>::new());
    assert_eq!(lazy(|s| s.before.mounts = 1), ["1 lazy mounts before the start: expected 2"]);
    assert_eq!(lazy(|s| s.after.log.clear()), ["the snapshotter's log tells of no layer: is its log level debug?"]);
}

#[test]
fn a_stack_with_other_settings_is_invalid() {
    let with = |option: &str, mode: &str| {
        hot(|arm, seen| {
            arm.options.extend((!option.is_empty()).then(|| option.to_owned()));
            seen.before.mode = mode.into();
        })
    };
    assert_eq!(with("stock", "stock"), Vec::<String>::new());
    assert_eq!(with("", ""), Vec::<String>::new(), "an older stack");
    assert_eq!(with("", "stock"), ["the stack's settings are \"stock\": expected \"default\""]);
    assert_eq!(with("stock", "default"), ["the stack's settings are \"default\": expected \"stock\""]);
    assert_eq!(with("stock", ""), ["the stack's settings are \"\": expected \"stock\""]);
    let mut tuned = plain_arm();
    tuned.options = vec!["tuned".into()];
    let found = judge(&tuned, Start::Cold, &plain_seen(), &bytes(200)).invalid;
    assert_eq!(found, ["the stack's settings are \"default\": expected \"tuned\""]);
}

#[test]
fn a_reference_that_moved_is_invalid() {
    let moved = hot(|_, s| s.before.resolved = Some(digest(9)));
    assert_eq!(moved, [format!("wrong digest: h:1/a:b was {} at the start and is {} now", digest(250), digest(9))]);
    assert_eq!(hot(|_, s| s.before.resolved = None), ["h:1/a:b was not resolved again before the run"]);
}

#[test]
fn a_read_ahead_that_says_nothing_is_invalid() {
    let silent = ["the read-ahead left no report: it did not run, or not to its end"];
    for option in ["node", "warm:/p/profile.json"] {
        assert_eq!(hot(|arm, _| arm.options = vec![option.into()]), silent, "{option}");
        let told = hot(|arm, seen| {
            arm.options = vec![option.into()];
            seen.after.reader = true;
        });
        assert_eq!(told, Vec::<String>::new(), "{option}");
    }
}
