//! Small files that share members (`innerOffset`).

use std::collections::BTreeMap;

use super::edit::{blob, foreign_shared, layer, open, replace, with_toc};
use super::*;
use crate::estargz::{ChunkInfo, Error, Layer, Member, Span, Stretch, Writer, codec, gzip, landmark};
use crate::tar::{Entry, Kind};

const MIN: u64 = 400;

fn grouping(layout: Layout) -> convert::Options {
    convert::Options { chunk_size: 4096, min_chunk_size: MIN, ..options(layout) }
}

/// Forty small files with folders, links and empty files among them; larger ones in two places.
fn items() -> Vec<Item> {
    let mut out = Vec::new();
    for n in 0..40_u8 {
        let dir = format!("d{}", n / 8);
        if n % 8 == 0 {
            out.push(Item::dir(&dir));
        }
        out.push(Item::file(&format!("{dir}/f{n}"), bytes(100 + usize::from(n), n % 7)));
        match n % 5 {
            0 => out.push(Item::symlink(&format!("{dir}/s{n}"), "f0")),
            1 => out.push(Item::file(&format!("{dir}/empty{n}"), "")),
            2 => out.push(Item::hardlink(&format!("{dir}/h{n}"), &format!("{dir}/f{n}"))),
            _ => {}
        }
        if n % 20 == 19 {
            out.push(Item::file(&format!("{dir}/chunked{n}"), bytes(9000, n)));
            out.push(Item::file(&format!("{dir}/large{n}"), bytes(3000, n)));
        }
    }
    out
}

const PROFILE: &[&str] = &["/d3/f30", "/d0/f3", "/d0/f4", "/d2/chunked19", "/d1/f9", "/d0/h2", "/d4/f39"];

fn grouped(src: &Memory, options: &convert::Options) -> (Memory, Digest) {
    let dst = Memory::default();
    let profile = (options.layout != Layout::Plain).then(|| profile(PROFILE));
    let report = convert(src, &dst, profile.as_ref(), options, &Silent).expect("converted");
    assert_eq!(check(Some(src), &dst).problems, []);
    assert_eq!(check(None, &dst).problems, []);
    (dst, report.digest)
}

/// The files of each member that holds payloads, in the order of the blob.
fn members(layer: &Layer) -> BTreeMap<u64, Vec<(String, Span)>> {
    let mut out: BTreeMap<u64, Vec<_>> = BTreeMap::new();
    for (path, _, spans) in layer.files().expect("sound") {
        for span in spans {
            out.entry(span.member).or_default().push((path.clone(), span));
        }
    }
    out
}

#[test]
fn small_files_share_members_and_larger_ones_do_not() {
    let src = image(&[&items()]);
    for layout in [Layout::Plain, Layout::Landmark, Layout::Hot] {
        let (dst, _) = grouped(&src, &grouping(layout));
        let together = blob(&dst, 0);
        let layer = open(&together).expect("eStargz");
        let members = members(&layer);
        let shared = members.values().filter(|m| m.len() > 1).count();
        assert!((6..25).contains(&shared), "{layout}: {shared} shared members");
        let landmark = layer.prefetch_size().expect("a landmark");
        for (begin, files) in &members {
            assert_eq!(files[0].1.inner, 0, "a member begins with a payload");
            let alone = |p: &str| p.contains("chunked") || p.contains("large") || landmark::is_ours(p);
            assert!(files.len() == 1 || !files.iter().any(|(p, _)| alone(p)), "{layout}: {files:?}");
            // Those in front of the landmark end there.
            assert!(*begin >= landmark || files.iter().all(|(_, s)| s.end <= landmark), "{layout}: {files:?}");
            let last = &files[files.len() - 1].1;
            assert!(last.inner + last.size <= 4096, "{layout}: no member holds more than a chunk");
        }
        // Fewer bytes than with a member for each.
        let (single, _) = grouped(&src, &convert::Options { min_chunk_size: 0, ..grouping(layout) });
        assert!(together.len() < blob(&single, 0).len(), "{layout}");
    }
}

#[test]
fn every_file_reads_back_by_its_inner_offset() {
    let (dst, _) = grouped(&image(&[&items()]), &grouping(Layout::Landmark));
    let blob = blob(&dst, 0);
    let layer = open(&blob).expect("eStargz");
    let at = |n: u64| usize::try_from(n).expect("small");
    let mut inside = 0;
    for (path, entry, spans) in layer.files().expect("sound") {
        let mut content = Vec::new();
        for span in &spans {
            let member = &blob[at(span.member)..at(span.end)];
            content.extend(layer.chunk(&path, span, member).expect("its content"));
            inside += u64::from(span.inner > 0);
        }
        assert_eq!(Some(Digest::of(&content)), entry.digest.or_else(|| Some(Digest::of(b""))), "{path}");
    }
    assert!(inside > 10, "{inside}");
}

#[test]
fn the_bytes_do_not_depend_on_the_threads_or_on_what_was_there() {
    let src = image(&[&items(), &[Item::file("other", bytes(90, 3)), Item::file("another", bytes(80, 4))]]);
    for layout in [Layout::Plain, Layout::Landmark, Layout::Hot] {
        let of = |jobs, memory| {
            let jobs = NonZeroUsize::new(jobs).expect("some");
            grouped(&src, &convert::Options { jobs, memory, ..grouping(layout) })
        };
        let (dst, digest) = of(1, None);
        assert!([of(2, None), of(8, Some(1))].iter().all(|(_, d)| *d == digest), "{layout}");
        // Other options take nothing over; the same take over all.
        for (min_chunk_size, reused) in [(MIN, true), (MIN + 1, false), (0, false)] {
            let options = convert::Options { min_chunk_size, ..grouping(layout) };
            let profile = (layout != Layout::Plain).then(|| profile(PROFILE));
            let again = convert(&src, &dst, profile.as_ref(), &options, &Silent).expect("converted");
            let lazy: Vec<_> = again.layers.iter().filter(|l| l.kind != "hot").map(|l| l.reused).collect();
            assert_eq!(lazy, [reused, reused], "{layout} {min_chunk_size}");
        }
    }
}

#[test]
fn every_damage_of_a_shared_member_is_told() {
    let src = image(&[&items()]);
    let (dst, _) = grouped(&src, &grouping(Layout::Landmark));
    let (digest, good) = (layer(&dst, 0).digest, blob(&dst, 0));
    let parsed = open(&good).expect("eStargz");
    let members = members(&parsed);
    let (begin, files) = members.iter().find(|(_, files)| files.len() > 2).expect("a shared member");
    let (begin, end) = (*begin, files[0].1.end);
    let at = |n: u64| usize::try_from(n).expect("small");
    for byte in at(begin)..at(end) {
        let mut bad = good.clone();
        bad[byte] ^= 0x10;
        dst.damage(&digest, bad.clone());
        assert_ne!(check(None, &dst).problems, [], "byte {byte}");
        // The reader alone: what it gives is right or nothing.
        for (path, span) in files {
            if let Ok(content) = parsed.chunk(path, span, &bad[at(begin)..at(end)]) {
                assert_eq!(Some(Digest::of(&content)), span.digest);
            }
        }
    }
    for (what, edit) in [
        ("moved", (|e: &mut u64| *e += 1) as fn(&mut u64)),
        ("lost", |e| *e = 0),
        ("far", |e| *e = 1 << 40),
        ("endless", |e| *e = u64::MAX),
    ] {
        let (dst, _) = grouped(&src, &grouping(Layout::Landmark));
        replace(
            &dst,
            0,
            with_toc(&good, |t| {
                edit(&mut t.entries.iter_mut().find(|e| e.inner_offset > 0).expect("shared").inner_offset);
            }),
        );
        assert_ne!(check(Some(&src), &dst).problems, [], "inner offset {what}");
    }
}

#[test]
fn what_another_writer_grouped_is_read() {
    let mark = Item::file(".no.prefetch.landmark", b"\x0f");
    let small = |n: usize| Item::file(&format!("f{n}"), bytes(50 + n, 2));
    let items = [vec![mark], (0..10).map(small).collect(), vec![Item::dir("d")]].concat();
    let (dst, _) = converted(&image(&[&[]]), Layout::Plain, &[]);
    for files in [1, 2, 3, 20] {
        replace(&dst, 0, foreign_shared(&items, files));
        let report = check(None, &dst);
        assert_eq!((report.problems.as_slice(), report.chunks), ([].as_slice(), 11), "{files} to a member");
    }
    // A landmark inside a member cuts the end off what should be prefetched.
    let items = [small(1), Item::file(".prefetch.landmark", b"\x0f"), small(2)];
    replace(&dst, 0, foreign_shared(&items, 3));
    assert!(said(&check(None, &dst), "it shares its member with what stands in front of it"));
}

#[test]
fn the_writer_refuses_a_shared_member_that_is_not_its_files() {
    let entry = |path: &str, size| Entry { raw: vec![7; 512], size, ..Entry::bare(path, Kind::File) };
    let write = |header: u8, second: &[u8], more: &[u8]| -> Result<(), Error> {
        let mut stretch = Stretch::default();
        stretch.add(&[0; 512], b"one");
        stretch.add(&[header; 512], second);
        let raw = [&stretch.finish(), more].concat();
        let member = gzip::Encoder::new(Level::DEFAULT).member(&raw);
        let info =
            ChunkInfo { size: raw.len() as u64, digest: Digest::of(&raw), compressed: member.len() as u64, place: 0 };
        let member = Member::open("one", 0, &info, member, &mut codec::Decoder::default()).expect("just made");
        let mut writer = Writer::create(Format::Estargz, Level::DEFAULT, Vec::new());
        writer.landmark(false)?;
        let digest = |bytes: &[u8]| Some(Digest::of(bytes));
        writer.shared(&[(&entry("one", 3), digest(b"one")), (&entry("two", 3), digest(b"two"))], &member)
    };
    write(7, b"two", b"").expect("what it says");
    for (found, why) in [
        (write(8, b"two", b""), "another header"),
        (write(7, b"tow", b""), "another content"),
        (write(7, b"tw", b""), "another content"),
        (write(7, b"two", b"x"), "does not end there"),
    ] {
        let found = found.expect_err(why).to_string();
        assert!(found.contains(why), "{found}");
    }
}
