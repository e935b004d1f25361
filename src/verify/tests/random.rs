//! Arbitrary bytes panic nowhere; random trees come out equal.

use proptest::prelude::*;

use super::edit::{self, open};
use super::*;
use crate::estargz::{footer, toc};
use crate::image::{Config, Manifest, Reference};
use crate::tar::Reader;

fn read_tar(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    while let Ok(Some(_)) = reader.next() {}
}

/// Names from a small set, so that entries meet; with every way to spell them.
fn name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[abc]",
        1 => Just(".wh.a".to_owned()),
        1 => Just(".wh..wh..opq".to_owned()),
        1 => Just("ünï".to_owned()),
        1 => Just("n".repeat(120)),
    ];
    (prop_oneof![Just(""), Just("./"), Just("/")], prop::collection::vec(part, 1..4))
        .prop_map(|(prefix, parts)| format!("{prefix}{}", parts.join("/")))
}

fn item() -> impl Strategy<Value = Item> {
    let kind = prop_oneof![
        4 => (0..5000usize, any::<u8>()).prop_map(|(n, seed)| Item::file("", bytes(n, seed & 15))),
        3 => Just(Item::dir("")),
        1 => name().prop_map(|to| Item::symlink("", &to)),
        1 => name().prop_map(|to| Item::hardlink("", &to)),
        1 => (0..9u32).prop_map(|n| Item::special("", b'3', (n, 1))),
        1 => Just(Item::special("", b'6', (0, 0))),
    ];
    (
        name(),
        kind,
        0..0o10000u32,
        any::<u32>(),
        any::<bool>(),
        prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
    )
        .prop_map(|(name, item, mode, time, gnu, xattr)| {
            let item = item.named(&name).mode(mode).mtime(u64::from(time)).owner(u64::from(mode), 1, "u", "");
            let item = if gnu { item.gnu() } else { item };
            match xattr {
                Some(v) => item.pax("SCHILY.xattr.user.v", v),
                None => item,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_panic_nowhere(bytes in prop::collection::vec(any::<u8>(), 0..2000), text in ".{0,200}") {
        read_tar(&bytes);
        let _ = toc::parse(&bytes);
        let _ = open(&bytes);
        let _ = Manifest::parse(&bytes, "x");
        let _ = Manifest::parse(text.as_bytes(), "x");
        let _ = Config::parse(&bytes, "x");
        let _ = profile::read(&bytes);
        let _ = text.parse::<Reference>();
        if let Some(Ok(tail)) = bytes.get(..footer::SIZE).map(TryInto::try_into) {
            let _ = footer::parse(tail);
        }
    }

    #[test]
    fn an_arbitrary_footer_field_is_an_offset_or_an_error(field in prop::array::uniform16(any::<u8>())) {
        let mut bytes = footer::write(0);
        bytes[16..32].copy_from_slice(&field);
        let _ = footer::parse(&bytes);
        let mut hex = bytes;
        hex[16..32].copy_from_slice(&field.map(|b| b"0123456789abcdef"[usize::from(b & 15)]));
        let _ = footer::parse(&hex);
    }

    #[test]
    fn an_arbitrary_header_with_a_right_checksum_panics_nowhere(mut block in prop::collection::vec(any::<u8>(), 512..1600)) {
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block[..512].iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        read_tar(&block);
        for kind in *b"0127xgLKS" {
            let old = std::mem::replace(&mut block[156], kind);
            let sum = sum - u32::from(old) + u32::from(kind);
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            block[124..136].copy_from_slice(b"00000000100\0");
            read_tar(&block);
            block[156] = old;
        }
    }

    #[test]
    fn an_arbitrary_toc_panics_nowhere(
        entries in prop::collection::vec(
            ("[ab]{0,2}/?", prop_oneof![Just("reg"), Just("chunk"), Just("dir"), Just("hardlink"), Just("")],
             any::<[u64; 5]>(), any::<bool>()), 0..6),
        small in any::<bool>(),
    ) {
        let entries = entries.into_iter().map(|(name, kind, n, digest)| {
            let n = n.map(|n| if small { n % 3000 } else { n });
            toc::TocEntry {
                name, kind: kind.into(), size: n[0], offset: n[1], inner_offset: n[2] % 3, chunk_offset: n[3],
                chunk_size: n[4], chunk_digest: digest.then(|| Digest::of(b"")), ..toc::TocEntry::default()
            }
        }).collect();
        let blob = edit::foreign(&[Item::file(".no.prefetch.landmark", b"\x0f"), Item::file("a", bytes(2000, 1))]);
        let blob = edit::with_toc(&blob, |t| t.entries = entries);
        let layer = open(&blob).expect("a TOC");
        let _ = (layer.problems(), layer.prefetch_size());
        let (dst, _) = converted(&image(&[&[]]), Layout::Plain, &[]);
        edit::replace(&dst, 0, blob);
        prop_assert!(!check(None, &dst).problems.is_empty());
    }
}

/// The archive of every layer up to the TOC.
fn tars(dst: &Memory) -> Vec<Vec<u8>> {
    let layers = crate::store::Images::image(dst, "").expect("an image").manifest.layers;
    let tar = |layer: &crate::image::Descriptor| {
        let (blob, mut tar) = (dst.bytes(&layer.digest), Vec::new());
        if layer.is_hot() {
            return zstd::decode_all(&blob[..]).expect("zstd");
        }
        std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&blob[..]), &mut tar).expect("gzip");
        let mut reader = Reader::new(&tar[..]);
        while reader.next().expect("an archive").expect("a TOC").path != "stargz.index.json" {}
        let end = usize::try_from(reader.position()).expect("small") - crate::tar::BLOCK;
        tar.truncate(end);
        tar
    };
    layers.iter().map(tar).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Refused by name, or equal; and what is converted over it reuses what it may, and is no other image for that.
    #[test]
    fn random_trees_come_out_equal(
        layers in prop::collection::vec(prop::collection::vec(item(), 0..10), 0..4),
        next in prop::collection::vec(item(), 0..4),
        touched in prop::collection::vec(name(), 0..6),
        chunk_size in prop_oneof![Just(1), Just(7), Just(500), Just(4096)],
        level in prop_oneof![Just(0), Just(1), Just(6), Just(9)],
        (jobs, keep_layers, fitted, moves) in (1_usize..4, any::<bool>(), any::<bool>(), any::<bool>()),
        min_chunk_size in prop_oneof![2 => Just(0), 1 => Just(20), 1 => Just(600)],
    ) {
        let touched: Vec<String> = touched.iter().map(|t| format!("/{}", crate::tar::clean(t))).collect();
        let p = profile(&touched.iter().map(String::as_str).collect::<Vec<_>>());
        let mut changed = layers.clone();
        changed.pop();
        changed.push(next);
        for layout in LAYOUTS {
            let options = convert::Options {
                chunk_size,
                min_chunk_size,
                level: Level::new(level).expect("a level"),
                jobs: NonZeroUsize::new(jobs).expect("some"),
                keep_layers,
                hot_layer: if moves { HotLayer::Move } else { HotLayer::Copy },
                fitted: fitted && layout.needs_profile(),
                ..options(layout)
            };
            let profile = layout.needs_profile().then_some(&p);
            let dst = Memory::default();
            for layers in [&layers, &changed] {
                let src = image(&layers.iter().map(Vec::as_slice).collect::<Vec<_>>());
                match convert(&src, &dst, profile, &options, &Silent) {
                    Ok(report) => {
                        prop_assert_eq!(check(Some(&src), &dst).problems, []);
                        let fresh = convert(&src, &Memory::default(), profile, &options, &Silent);
                        prop_assert_eq!(report.digest, fresh.expect("as before").digest);
                        // Chunks, levels and threads decide how it is compressed, not what it holds in which order.
                        let other = convert::Options { keep_layers, hot_layer: options.hot_layer, ..super::options(layout) };
                        let baseline = Memory::default();
                        convert(&src, &baseline, profile, &other, &Silent).expect("as before");
                        prop_assert!(tars(&dst) == tars(&baseline), "{}", layout);
                    }
                    Err(convert::Error::Layer { source, .. })
                        if matches!(*source, convert::LayerError::Link { .. } | convert::LayerError::NoFolder { .. }) => {}
                    Err(e) => return Err(TestCaseError::fail(format!("{e:?}"))),
                }
            }
        }
    }
}
