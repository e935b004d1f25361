//! What a gzip source compressed well stays compressed as it is.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use super::edit::blob;
use super::*;
use crate::estargz::gzip;
use crate::image::names;

fn compressed(tar: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(tar).expect("memory");
    encoder.finish().expect("memory")
}

/// Text-like content that levels differ on, of a size that makes several chunks.
fn tree() -> Vec<u8> {
    let words: Vec<Vec<u8>> = (0..200u8).map(|n| bytes(3 + usize::from(n % 9), n)).collect();
    let mut seed = 1u32;
    let text: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        words[(seed >> 16) as usize % words.len()].clone()
    })
    .take(60_000)
    .flatten()
    .collect();
    archive(&[
        Item::dir("d/"),
        Item::file("d/large", &text[..300_000]),
        Item::file("d/small", &text[1000..5000]),
        Item::file("d/last", &text[100_000..250_000]),
    ])
}

fn large_chunks(jobs: usize) -> convert::Options {
    convert::Options { chunk_size: 100_000, jobs: NonZeroUsize::new(jobs).expect("not zero"), ..options(Layout::Plain) }
}

fn layer(source: Vec<u8>, media_type: &str, options: &convert::Options) -> Vec<u8> {
    let src = Memory::image_of(&[(media_type, source, tree())]);
    blob(&converted_with(&src, options, &[]).0, 0)
}

#[test]
fn blocks_of_a_good_source_are_kept_and_of_a_bad_one_are_not() {
    let options = large_chunks(2);
    let anew = layer(tree(), names::LAYER_TAR, &options);
    let fixed = convert::Options { adaptive: false, ..options.clone() };
    for level in [1, 6, 9] {
        let source = compressed(&tree(), level);
        let kept = layer(source.clone(), names::LAYER_GZIP, &options);
        assert_eq!(kept != anew, level > 1, "level {level}");
        // Nobody pays much for it.
        assert!(kept.len() * 100 < anew.len() * 108, "level {level}: {} bytes, {} anew", kept.len(), anew.len());
        assert!(layer(source, names::LAYER_GZIP, &fixed) == anew, "an explicit level compresses everything anew");
    }
}

#[test]
fn the_blob_is_pinned() {
    // The library that makes this source is pinned itself.
    let source = gzip::Encoder::new(Level::DEFAULT).member(&tree());
    let blob = layer(source, names::LAYER_GZIP, &large_chunks(2));
    assert_eq!(
        Digest::of(&blob).to_string(),
        "sha256:fa97fae150dc5b009213b3c8c6620b73724a498a095b557b849dc26131cb28f2"
    );
}

#[test]
fn the_threads_do_not_matter() {
    let source = compressed(&tree(), 6);
    let one = layer(source.clone(), names::LAYER_GZIP, &large_chunks(1));
    assert!(one == layer(source, names::LAYER_GZIP, &large_chunks(7)));
}

#[test]
fn what_we_wrote_is_written_again_bit_by_bit() {
    for source_level in [1, 6] {
        let src = Memory::image_of(&[(names::LAYER_GZIP, compressed(&tree(), source_level), tree())]);
        let (first, _) = converted_with(&src, &large_chunks(2), &[]);
        let (second, _) = converted_with(&first, &large_chunks(2), &[]);
        assert!(blob(&first, 0) == blob(&second, 0));
    }
}

#[test]
fn damage_of_the_source_is_an_error_that_names_the_layer() {
    let source = compressed(&tree(), 6);
    for at in [source.len() / 2, source.len() - 6] {
        let mut damaged = source.clone();
        damaged[at] ^= 0x10;
        let src = Memory::image_of(&[(names::LAYER_GZIP, damaged, tree())]);
        let error = convert(&src, &Memory::default(), None, &large_chunks(2), &Silent).expect_err("damaged");
        assert!(matches!(error, convert::Error::Layer { layer: 0, .. }), "{error:?}");
    }
}
