//! The decompressor against flate2, and streams made of fragments against what they should hold.

use std::io::{self, Read, Write};

use flate2::write::GzEncoder;
use flate2::{Compression, FlushCompress};

use super::bits::BitWriter;
use super::fragment::append;
use super::*;

/// Content with everything in it: text, noise, runs, and copies from near and far.
fn content(size: usize) -> Vec<u8> {
    let mut seed = 1u64;
    let mut next = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    let mut out = Vec::new();
    while out.len() < size {
        let length = next() as usize % 3000 + 1;
        match next() % 6 {
            0 => out.extend((0..length).map(|_| next() as u8)),
            1 => out.extend(std::iter::repeat_n(next() as u8, length)),
            2 => out.extend((0..length).map(|_| b"etaoin shrdlu\n"[next() as usize % 14])),
            _ => {
                let distance = (next() as usize % 40_000 + 1).min(out.len().max(1));
                for _ in 0..length.min(400) {
                    out.push(if out.is_empty() { 0 } else { out[out.len() - distance] });
                }
            }
        }
    }
    out.truncate(size);
    out
}

fn gzip(raw: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(raw).expect("memory");
    encoder.finish().expect("memory")
}

/// As pigz has it: pieces that end at a byte, with an empty block behind each.
fn flushed(raw: &[u8], piece: usize) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let mut deflate = flate2::Compress::new(Compression::new(6), false);
    for piece in raw.chunks(piece) {
        out.reserve(piece.len() * 2 + 1000);
        deflate.compress_vec(piece, &mut out, FlushCompress::Sync).expect("room");
    }
    out.reserve(1000);
    deflate.compress_vec(&[], &mut out, FlushCompress::Finish).expect("room");
    let mut crc = flate2::Crc::new();
    crc.update(raw);
    out.extend(crc.sum().to_le_bytes());
    out.extend(crc.amount().to_le_bytes());
    out
}

/// Every kind of source of the same content.
fn sources(raw: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = (0..=9).map(|level| (format!("level {level}"), gzip(raw, level))).collect();
    all.push(("flushed".into(), flushed(raw, 100_000)));
    all.push(("flushed often".into(), flushed(raw, 999)));
    all.push(("members".into(), raw.chunks(70_001).flat_map(|part| gzip(part, 6)).collect()));
    all.push(("small members".into(), raw.chunks(3001).flat_map(|part| gzip(part, 6)).collect()));
    all.push(("fixed codes".into(), raw.chunks(97).flat_map(|part| gzip(part, 9)).collect()));
    all
}

fn raw_deflate(raw: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(raw).expect("memory");
    encoder.finish().expect("memory")
}

fn inflate(stream: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut decoder = flate2::bufread::DeflateDecoder::new(stream);
    decoder.read_to_end(&mut out).expect("a whole stream");
    assert_eq!(decoder.total_in(), stream.len() as u64, "bytes behind the last block");
    out
}

#[test]
fn content_is_what_flate2_makes_of_it() {
    for size in [0, 1, 100, 65_536, 600_000] {
        let raw = content(size);
        for (name, source) in sources(&raw) {
            let mut out = Vec::new();
            let mut reader = Gunzip::new(&source[..]);
            let read = reader.read_to_end(&mut out);
            // Without content there is not one member either.
            if source.is_empty() {
                read.expect_err("no gzip header");
                continue;
            }
            read.expect("a whole stream");
            assert!(out == raw, "{name}, {size} bytes");
        }
    }
}

#[test]
fn a_stream_made_of_a_fragment_holds_its_part() {
    let raw = content(1_300_000);
    let mut cuts = vec![0usize];
    for step in [1, 511, 40_000, 33_000, 70_000, 300_000, 16_385, 600_000, 200, 49_153, 100_000] {
        cuts.push(cuts.last().expect("one") + step);
    }
    cuts.push(raw.len());
    for (name, source) in sources(&raw) {
        let mut reader = Gunzip::new(&source[..]);
        let mut kept = 0;
        for cut in cuts.windows(2) {
            let mut part = vec![0; cut[1] - cut[0]];
            reader.hold(part.len() as u64);
            reader.read_exact(&mut part).expect("content");
            assert!(part == raw[cut[0]..cut[1]], "{name}: {cut:?}");
            let Some(fragment) = reader.fragment() else { continue };
            let mut anew = 0;
            let stream = fragment.stream(&part, Vec::new(), |head| {
                anew = head.len();
                raw_deflate(head)
            });
            let stream = stream.unwrap_or_else(|e| panic!("{name}: {cut:?}: {e}"));
            assert!(inflate(&stream) == part, "{name}: {cut:?}");
            assert!(anew <= WINDOW as usize + LONGEST, "{name}: {cut:?}: {anew} bytes were compressed anew");
            kept += part.len() - anew;
            let (range, bits) = fragment.sample(65_536).expect("a sample");
            assert!(bits > 0 && range.end <= part.len() && !range.is_empty(), "{name}: {cut:?}: {range:?}");
        }
        assert!(kept > 800_000, "{name}: {kept} bytes kept");
    }
}

#[test]
fn a_member_that_is_a_part_keeps_its_bits() {
    let raw = content(200_000);
    let members: Vec<Vec<u8>> = raw.chunks(50_000).map(|part| gzip(part, 6)).collect();
    let source = members.concat();
    let mut reader = Gunzip::new(&source[..]);
    for (part, member) in raw.chunks(50_000).zip(&members) {
        let mut read = vec![0; part.len()];
        reader.hold(part.len() as u64);
        reader.read_exact(&mut read).expect("content");
        let fragment = reader.fragment().expect("a member");
        let stream = fragment.stream(part, Vec::new(), |_| panic!("nothing reaches in front of it")).expect("a stream");
        assert!(stream == member[10..member.len() - 8]);
    }
}

#[test]
fn a_match_across_the_end_is_cut() {
    // One run: its matches have 258 bytes each, and every part ends within one.
    let raw = vec![7; 30_000];
    for end in 20_000..20_260usize {
        let source = gzip(&raw, 6);
        let mut reader = Gunzip::new(&source[..]);
        let mut part = vec![0; end];
        reader.hold(end as u64);
        reader.read_exact(&mut part).expect("content");
        let stream = reader.fragment().expect("kept").stream(&part, Vec::new(), raw_deflate).expect("a stream");
        assert!(inflate(&stream) == part, "{end}");
    }
}

#[test]
fn every_match_has_its_code() {
    let raw = content(32_768);
    let start = raw_deflate(&raw);
    for length in (3..=20).chain((21..=258).step_by(3)).chain([257, 258]) {
        for distance in [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 192, 193, 255, 256, 257, 4096, 4097, 24_577, 32_767, 32_768]
        {
            let mut out = BitWriter::default();
            append(&mut out, &start).expect("a stream");
            out.put(0b011, 3);
            fragment::fixed_match(&mut out, length, distance);
            out.put(0, 7);
            let mut want = raw.clone();
            (0..length).for_each(|_| want.push(want[want.len() - distance as usize]));
            assert!(inflate(&out.finish()) == want, "{length} bytes from {distance}");
        }
    }
}

#[test]
fn damage_is_an_error_and_never_other_content() {
    let raw = content(70_000);
    let source = gzip(&raw, 6);
    let read = |source: &[u8]| {
        let mut out = Vec::new();
        Gunzip::new(source).read_to_end(&mut out).map(|_| out)
    };
    for end in (0..source.len()).step_by(353).chain(source.len() - 9..source.len()) {
        let error = read(&source[..end]).expect_err("cut off");
        assert!(matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData), "{end}: {error}");
    }
    for bit in (0..source.len() * 8).step_by(511) {
        let mut source = source.clone();
        source[bit / 8] ^= 1 << (bit % 8);
        if let Ok(out) = read(&source) {
            assert!(out == raw, "bit {bit}");
        }
    }
    for (bytes, why) in [
        (&b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x07"[..], "a block of a kind that does not exist"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x01\x01\0\0\0", "a stored block and its check differ"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x4b\x04\x42\0", "in front of the data"),
        (b"hello", "no gzip header"),
        (b"", "unexpected end of file"),
    ] {
        let error = read(bytes).expect_err(why).to_string();
        assert!(error.contains(why), "{error}: expected {why}");
    }
    // What follows the last member is not skipped over.
    read(&[&source[..], b"x"].concat()).expect_err("no gzip header");
}

#[test]
fn headers_have_their_optional_parts() {
    let plain = gzip(b"text", 6);
    for flags in 0..32u8 {
        let mut source = plain[..10].to_vec();
        source[3] = flags;
        for (flag, part) in [(4, &b"\x03\0abc"[..]), (8, b"name\0"), (16, b"comment\0"), (2, b"\0\0")] {
            if flags & flag != 0 {
                source.extend(part);
            }
        }
        source.extend(&plain[10..]);
        let mut out = Vec::new();
        Gunzip::new(&source[..]).read_to_end(&mut out).expect("a header");
        assert_eq!(out, b"text", "{flags}");
    }
}

#[test]
fn fragments_of_arbitrary_streams_panic_nowhere() {
    let raw = content(1_300_000);
    let mut seed = 7usize;
    let mut fragments = 0;
    for source in [gzip(&raw, 6), gzip(&raw, 0), flushed(&raw, 5000)] {
        for round in 0..20 {
            let mut source = source.clone();
            for _ in 0..=round % 3 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = 10 + (seed >> 16) % (source.len() - 10);
                source[at] ^= (seed >> 8) as u8;
            }
            let mut reader = Gunzip::new(&source[..]);
            loop {
                let mut part = vec![0; 20_000];
                reader.hold(20_000);
                if reader.read_exact(&mut part).is_err() {
                    break;
                }
                let Some(fragment) = reader.fragment() else { continue };
                // The decoder went through these blocks: what it made of them is what a stream of them holds.
                let stream = fragment.stream(&part, Vec::new(), raw_deflate).expect("blocks that were read");
                assert!(inflate(&stream) == part);
                fragment.sample(4000).expect("blocks that were read");
                fragments += 1;
            }
        }
    }
    assert!(fragments > 40, "{fragments}");
}
