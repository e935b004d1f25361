//! Converts images in memory and verifies the result; damages it and expects to be told.

mod chunked;
mod conformance;
mod corpus;
mod damage;
mod differences;
mod early;
mod edit;
mod embed;
mod grouped;
mod hot;
mod images;
mod index;
mod kept;
mod random;
mod reuse;
mod shape;
mod startup;
mod toc;
mod traps;

use std::num::NonZeroUsize;

use super::{Options, Report, verify};
use crate::convert::{self, convert};
use crate::digest::Digest;
use crate::estargz::{Format, Level};
use crate::plan::{HotLayer, Layout};
use crate::profile::{self, Kind, Origin, Profile, Range};
use crate::progress::Silent;
use crate::store::memory::Memory;
use crate::tar::build::{Item, archive};

const LAYOUTS: [Layout; 4] = [Layout::Plain, Layout::Landmark, Layout::Hot, Layout::HotLandmark];

/// Options with chunks of 1000 bytes, so that small files have several.
fn options(layout: Layout) -> convert::Options {
    convert::Options {
        layout,
        rule: crate::plan::Rule::default(),
        hot_layer: HotLayer::Copy,
        hot_codec: convert::HotCodec::Zstd,
        startup: None,
        startup_classes: convert::startup::Classes::default(),
        embed: None,
        format: Format::Estargz,
        chunk_size: 1000,
        min_chunk_size: 0,
        level: Level::DEFAULT,
        adaptive: true,
        fitted: layout.has_hot(),
        hot_level: Level::FAST,
        platform: "linux/amd64".into(),
        force_profile: true,
        jobs: NonZeroUsize::new(2).expect("two"),
        memory: None,
        temp_dir: std::env::temp_dir(),
        keep_layers: false,
        reuse: true,
        journal: None,
    }
}

/// A profile of files that were read whole, in this order.
fn profile(paths: &[&str]) -> Profile {
    let file = |(i, path): (usize, &&str)| profile::File {
        path: (*path).into(),
        origin: Origin::Image,
        size: 100,
        digest: None,
        first_touch_ms: i as u64,
        kinds: vec![Kind::Open, Kind::Read],
        ranges: vec![Range(0, 100, i as u64)],
        links: Vec::new(),
    };
    Profile {
        schema: profile::SCHEMA.into(),
        header: profile::Header::default(),
        files: paths.iter().enumerate().map(file).collect(),
        writes: Vec::new(),
    }
}

fn image(layers: &[&[Item]]) -> Memory {
    Memory::of(&layers.iter().map(|l| archive(l)).collect::<Vec<_>>())
}

fn check(src: Option<&Memory>, dst: &Memory) -> Report {
    let options = Options { platform: "linux/amd64".into(), jobs: NonZeroUsize::new(2).expect("two") };
    verify(src.map(|s| s as &dyn crate::store::Images), dst, &options, &Silent).expect("both can be read")
}

/// Converts and asserts that nothing is wrong with the result.
fn converted(src: &Memory, layout: Layout, paths: &[&str]) -> (Memory, convert::Report) {
    converted_with(src, &options(layout), paths)
}

fn converted_with(src: &Memory, options: &convert::Options, paths: &[&str]) -> (Memory, convert::Report) {
    let (dst, layout) = (Memory::default(), options.layout);
    let profile = layout.needs_profile().then(|| profile(paths));
    let report = convert(src, &dst, profile.as_ref(), options, &Silent).expect("converted");
    let verified = check(Some(src), &dst);
    assert_eq!(verified.problems, [], "{layout}");
    (dst, report)
}

/// Bytes that do not compress to nothing and differ everywhere.
fn bytes(n: usize, seed: u8) -> Vec<u8> {
    let mut x = u32::from(seed) + 1;
    (0..n)
        .map(|_| {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            u8::try_from(x >> 28).expect("four bits") + seed
        })
        .collect()
}

/// What a message of one of the problems says.
fn said(report: &Report, what: &str) -> bool {
    report.problems.iter().any(|p| p.what.contains(what))
}

fn digest_of(dst: &Memory) -> Digest {
    crate::store::Images::image(dst, "").expect("an image").descriptor.digest
}
