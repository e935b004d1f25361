//! Profiles as lists for other tools. All are of whole files but one; files that are none of the image are left out, and those of
//! which nothing but the metadata was read.

use serde::Serialize;

use super::{File, Origin, Profile, glob};
use crate::digest::Digest;

/// Which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON lines, as `ctr-remote optimize --record-out` of the stargz snapshotter writes them and its `convert
    /// --estargz-record-in` reads them (its package `recorder`).
    CtrRemote,
    /// A path a line, as nydus' optimizer writes them (nydus-snapshotter's package `fanotify`).
    Nydus,
    /// JSON with byte ranges, as `nydus-image optimize --prefetch-files` reads it (nydus' `builder/src/optimize_prefetch.rs`).
    NydusRanges,
    /// A path a line, special characters of patterns escaped: what our own import reads.
    Paths,
}

/// A list, and how many files it does not have.
#[derive(Debug, PartialEq, Eq)]
pub struct Exported {
    /// The list.
    pub text: String,
    /// Files in it.
    pub files: u64,
    /// Files that are none of the image.
    pub foreign: u64,
    /// Files whose path has a line break in it, which a list of lines cannot carry.
    pub unprintable: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest_digest: Option<Digest>,
}

#[derive(Serialize)]
struct Prefetch<'a> {
    version: &'a str,
    files: Vec<Whole<'a>>,
}

#[derive(Serialize)]
struct Whole<'a> {
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ranges: Option<Vec<(u64, u64)>>,
}

/// Writes a list, in the order of first touch.
pub fn export(profile: &Profile, format: Format) -> Exported {
    let mut files: Vec<&File> = profile.files.iter().filter(|f| f.origin == Origin::Image).collect();
    let foreign = profile.files.len() - files.len();
    // Where ranges count, a file without any was opened and no more. An import that knows no sizes says 0 for them.
    let only_opened = |f: &File| format == Format::NydusRanges && f.ranges.is_empty() && f.size > 0;
    files.retain(|f| !(f.is_looked_up_only() || only_opened(f)));
    files.sort_by(|a, b| (a.first_touch_ms, &a.path).cmp(&(b.first_touch_ms, &b.path)));
    let own = files.len();
    if matches!(format, Format::Nydus | Format::Paths) {
        files.retain(|f| !f.path.contains(['\n', '\r']));
    }
    let line = |f: &&File| match format {
        Format::CtrRemote => {
            json(&Record { path: f.path.trim_start_matches('/'), manifest_digest: profile.header.image_digest })
        }
        Format::Paths => glob::escape(&f.path),
        Format::Nydus | Format::NydusRanges => f.path.clone(),
    };
    let text = if format == Format::NydusRanges {
        let files = files.iter().map(|f| prefetched(f)).collect();
        json(&Prefetch { version: "v1", files }) + "\n"
    } else {
        files.iter().map(|f| line(f) + "\n").collect()
    };
    Exported { text, files: files.len() as u64, foreign: foreign as u64, unprintable: (own - files.len()) as u64 }
}

/// Without ranges the whole file is meant.
fn prefetched(file: &File) -> Whole<'_> {
    let some = !file.ranges.is_empty() && file.touched_bytes() < file.size;
    Whole { path: &file.path, ranges: some.then(|| file.ranges.iter().map(|r| (r.0, r.1)).collect()) }
}

fn json(value: &impl Serialize) -> String {
    // Strings and numbers: nothing that JSON cannot hold.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::sample::{file, profile};
    use super::super::{Kind, Range};
    use super::*;

    fn exported(format: Format) -> Exported {
        let mut p = profile();
        p.header.image_digest = Some(Digest::of(b"m"));
        p.files = vec![
            file("/late\nline", 9, &[Range(0, 9, 5)]),
            file("/b/*\"", 9, &[Range(0, 9, 2)]),
            file("/a", 10_000, &[Range(0, 4096, 1), Range(8192, 1808, 3)]),
            File { origin: Origin::Driver, ..file("/driver", 9, &[Range(0, 9, 0)]) },
        ];
        export(&p, format)
    }

    #[test]
    fn what_was_not_read_is_not_fetched_ahead() {
        let mut p = profile();
        p.files = vec![
            file("/opened", 9, &[]),
            file("/unsized", 0, &[]),
            File { kinds: vec![Kind::Stat], ..file("/looked-up", 9, &[]) },
        ];
        assert_eq!(export(&p, Format::Nydus).text, "/opened\n/unsized\n");
        let json = "{\"version\":\"v1\",\"files\":[{\"path\":\"/unsized\"}]}\n";
        assert_eq!(export(&p, Format::NydusRanges).text, json);
    }

    #[test]
    fn lists_are_in_the_order_of_first_touch_and_of_the_image_alone() {
        let of = |text: &str, files, unprintable| Exported { text: text.into(), files, foreign: 1, unprintable };
        assert_eq!(exported(Format::Nydus), of("/a\n/b/*\"\n", 2, 1));
        assert_eq!(exported(Format::Paths), of("/a\n/b/\\*\"\n", 2, 1));
        let digest = Digest::of(b"m");
        let line = |path: &str| format!("{{\"path\":\"{path}\",\"manifestDigest\":\"{digest}\"}}\n");
        let lines = [line("a"), line("b/*\\\""), line("late\\nline")].concat();
        assert_eq!(exported(Format::CtrRemote), of(&lines, 3, 0));
        let json = r#"{"version":"v1","files":[{"path":"/a","ranges":[[0,4096],[8192,1808]]},{"path":"/b/*\""},{"path":"/late\nline"}]}"#;
        assert_eq!(exported(Format::NydusRanges), of(&format!("{json}\n"), 3, 0));
    }
}
