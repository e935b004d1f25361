//! Profiles for tests.

use super::{File, Header, Kind, Origin, Phase, Profile, Range, Recorder, SCHEMA, Write};

/// A read file of the image.
pub(crate) fn file(path: &str, size: u64, ranges: &[Range]) -> File {
    File {
        path: path.into(),
        links: vec![],
        origin: Origin::Image,
        size,
        digest: None,
        first_touch_ms: ranges.iter().map(|r| r.2).min().unwrap_or(0),
        kinds: vec![Kind::Read],
        ranges: ranges.to_vec(),
    }
}

fn write(path: &str, size: u64, class: &str, at_ms: u64) -> Write {
    Write {
        path: path.into(),
        size,
        mode: "0644".into(),
        change: "new".into(),
        class: class.into(),
        at_ms: Some(at_ms),
        writer: Some("python3".into()),
    }
}

/// A start with two phases, files of all sizes and origins, and a path that would break a page that trusts it.
pub(crate) fn profile() -> Profile {
    let mib = 1 << 20;
    let mut driver = file("/usr/lib/libcuda.so.1", 30 * mib, &[Range(0, mib, 700)]);
    driver.origin = Origin::Driver;
    driver.kinds = vec![Kind::Read, Kind::Mmap];
    Profile {
        schema: SCHEMA.into(),
        header: Header {
            image: Some("registry.example/app:1".into()),
            platform: "linux/amd64".into(),
            command: vec!["python3".into(), "-m".into(), "app".into()],
            host: [("kernel".to_owned(), "6.18".to_owned())].into(),
            recorder: Recorder {
                name: "filemap".into(),
                version: "0.1.0".into(),
                inflation: "fault-around of mapped files".into(),
                blind: String::new(),
            },
            started_at: "2026-11-26T06:40:03.000Z".into(),
            until: "a chat answer".into(),
            phases: vec![Phase { name: "ready".into(), at_ms: 1000 }, Phase { name: "first-chat".into(), at_ms: 3000 }],
            events: 12_345,
            ..Header::default()
        },
        files: vec![
            file("/usr/bin/python3", 50_000, &[Range(0, 8192, 0), Range(16_384, 4096, 1200)]),
            driver,
            file("/opt/app/torch.so", 200 * mib, &[Range(mib, 2 * mib, 500), Range(100 * mib, 4 * mib, 3500)]),
            file("/opt/app/</script><b>&.txt", 5 * mib, &[Range(0, 5 * mib, 3100)]),
        ],
        writes: vec![
            write("/opt/app/__pycache__/a.pyc", 9000, "bytecode", 800),
            write("/tmp/x", 100, "temporary", 3200),
        ],
    }
}
