//! The lists of other tools, line by line.

use serde::Deserialize;

use super::super::tree::MAX_PATH;
use crate::digest::Digest;

/// Whose list it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON lines of the stargz snapshotter (package `recorder`): `{"path":"usr/bin/x","manifestDigest":…,"layerIndex":N}`.
    CtrRemote,
    /// Of nydus: a path a line, the CSV beside it with `path,size,elapsed` (both nydus-snapshotter, package `fanotify`), or the JSON
    /// with ranges of its builder (`optimize_prefetch.rs`).
    Nydus,
    /// A path or pattern a line; lines that begin with `#` are comments.
    Paths,
}

impl Format {
    /// As it is spelled on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::CtrRemote => "ctr-remote",
            Self::Nydus => "nydus",
            Self::Paths => "paths",
        }
    }
}

/// What is wrong with a list.
#[derive(Debug, thiserror::Error)]
#[error("{place}: found {found:?}, expected {expected}")]
pub struct Error {
    /// Which line or file of the list.
    pub place: String,
    /// What is there, shortened to 100 characters.
    pub found: String,
    /// What should be.
    pub expected: String,
}

fn error(place: impl Into<String>, found: &str, expected: impl Into<String>) -> Error {
    Error { place: place.into(), found: found.chars().take(100).collect(), expected: expected.into() }
}

/// A list.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) entries: Vec<Entry>,
    /// Whether its times are ones.
    pub(super) timed: bool,
}

/// A line of a list.
#[derive(Debug, Default)]
pub(super) struct Entry {
    place: String,
    pub(super) path: String,
    pub(super) size: Option<u64>,
    pub(super) at_ms: Option<u64>,
    pub(super) digest: Option<Digest>,
    pub(super) ranges: Option<Vec<(u64, u64)>>,
}

impl Entry {
    pub(super) fn needs_files(&self, expected: &str) -> Error {
        error(&self.place, &self.path, expected)
    }
}

/// Reads a list.
pub(super) fn parse(format: Format, bytes: &[u8]) -> Result<List, Error> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = bytes[..e.valid_up_to()].split(|b| *b == b'\n').count();
        let from = bytes[e.valid_up_to()..].iter().take(20).copied().collect::<Vec<_>>();
        error(format!("line {line}"), &from.escape_ascii().to_string(), "UTF-8")
    })?;
    match format {
        Format::CtrRemote => entries(text, record),
        Format::Paths => entries(text, |line| Ok((!line.starts_with('#')).then(|| plain(line)))),
        Format::Nydus if text.trim_start().starts_with('{') => prefetch(text),
        Format::Nydus => match text.split_once('\n').map(|(first, rest)| (first.trim_end_matches('\r'), rest)) {
            Some((CSV, _)) => {
                let mut header = true;
                let list =
                    entries(text, |line| if std::mem::take(&mut header) { Ok(None) } else { row(line).map(Some) })?;
                Ok(List { timed: true, ..list })
            }
            _ => entries(text, |line| {
                if line.starts_with('/') { Ok(Some(plain(line))) } else { Err("an absolute path".into()) }
            }),
        },
    }
}

/// First line of nydus' CSV.
const CSV: &str = "path,size,elapsed";

fn plain(path: &str) -> Entry {
    Entry { path: path.into(), ..Entry::default() }
}

/// A longer path is none, and would take long to be looked up.
fn checked(entry: Entry) -> Result<Entry, Error> {
    if entry.path.len() > MAX_PATH {
        return Err(error(entry.place, &entry.path, format!("a path of at most {MAX_PATH} bytes")));
    }
    Ok(entry)
}

/// One entry a line; empty lines count for nothing. An error is what was expected.
fn entries(text: &str, mut one: impl FnMut(&str) -> Result<Option<Entry>, String>) -> Result<List, Error> {
    let mut list = List::default();
    for (i, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.trim().is_empty() {
            continue;
        }
        let place = format!("line {}", i + 1);
        if let Some(entry) = one(line).map_err(|expected| error(place.as_str(), line, expected))? {
            list.entries.push(checked(Entry { place, ..entry })?);
        }
    }
    Ok(list)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    path: String,
    #[serde(default)]
    manifest_digest: Option<Digest>,
    /// Read so that a wrong one is an error; paths are looked up in the whole image.
    #[serde(default, rename = "layerIndex")]
    _layer: Option<u64>,
}

fn record(line: &str) -> Result<Option<Entry>, String> {
    let record: Record = serde_json::from_str(line)
        .map_err(|e| format!("a JSON object with \"path\" and perhaps \"manifestDigest\" and \"layerIndex\" ({e})"))?;
    if record.path.is_empty() {
        return Err("a path that is not empty".into());
    }
    Ok(Some(Entry { digest: record.manifest_digest, ..plain(&record.path) }))
}

#[derive(Deserialize)]
struct Prefetch {
    version: String,
    files: Vec<Whole>,
}

#[derive(Deserialize)]
struct Whole {
    path: String,
    #[serde(default)]
    ranges: Option<Vec<(u64, u64)>>,
}

fn prefetch(text: &str) -> Result<List, Error> {
    let list: Prefetch = serde_json::from_str(text).map_err(|e| {
        let line = text.lines().nth(e.line().saturating_sub(1)).unwrap_or_default();
        error(format!("line {}", e.line()), line, format!("nydus' JSON with \"version\" and \"files\" ({e})"))
    })?;
    if list.version != "v1" {
        return Err(error("version", &list.version, "\"v1\""));
    }
    let mut out = List::default();
    for (i, file) in list.files.into_iter().enumerate() {
        let place = format!("file {}", i + 1);
        if !file.path.starts_with('/') {
            return Err(error(place, &file.path, "an absolute path"));
        }
        out.entries.push(checked(Entry { place, ranges: file.ranges, ..plain(&file.path) })?);
    }
    Ok(out)
}

/// A row of nydus' CSV. Its writer can be told to round sizes for readers: such a size is not known.
fn row(line: &str) -> Result<Entry, String> {
    let fields = fields(line).ok_or("a row of CSV on one line")?;
    let [path, size, elapsed] = fields.as_slice() else { return Err("three fields: path, size, elapsed".into()) };
    if !path.starts_with('/') {
        return Err("an absolute path".into());
    }
    let size = match size.split_once(' ') {
        None | Some((_, "B")) => {
            let n = size.trim_end_matches(" B").parse();
            Some(n.map_err(|_| "a size in bytes, or one with a unit")?)
        }
        Some((n, unit)) if n.parse::<f64>().is_ok() && unit.len() == 3 && unit.ends_with("iB") => None,
        Some(_) => return Err("a size in bytes, or one with a unit".into()),
    };
    let at_ms = elapsed_ms(elapsed).ok_or("a time in microseconds, or one in us, ms or s")?;
    Ok(Entry { size, at_ms: Some(at_ms), ..plain(path) })
}

/// Microseconds, or a number with its unit.
fn elapsed_ms(text: &str) -> Option<u64> {
    let (number, unit) = text.split_once(' ').unwrap_or((text, "us"));
    match unit {
        "us" => Some(number.parse::<u64>().ok()? / 1000),
        "ms" => whole(number),
        // `1.5` seconds are `1500` ms: three digits behind the point.
        "s" => {
            let (seconds, rest) = number.split_once('.').unwrap_or((number, ""));
            let rest: u64 = format!("{rest:0<3}").get(..3)?.parse().ok()?;
            seconds.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(rest)
        }
        _ => None,
    }
}

/// The part in front of the point.
fn whole(number: &str) -> Option<u64> {
    let (whole, rest) = number.split_once('.').unwrap_or((number, "0"));
    rest.parse::<u64>().ok()?;
    whole.parse().ok()
}

/// Fields of a row of CSV (RFC 4180); none where a quote is left open.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut rest = line;
    loop {
        let mut field = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let (text, behind) = quoted.split_once('"')?;
                field.push_str(text);
                rest = behind;
                let Some(more) = behind.strip_prefix('"') else { break };
                field.push('"');
                quoted = more;
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            field.push_str(&rest[..end]);
            rest = &rest[end..];
        }
        out.push(field);
        if rest.is_empty() {
            return Some(out);
        }
        rest = rest.strip_prefix(',')?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        let long = [b"/", "x".repeat(MAX_PATH).as_bytes()].concat();
        let found = parse(Format::Paths, &long).map(drop).expect_err("too long").to_string();
        assert!(found.len() < 200 && found.ends_with("expected a path of at most 4096 bytes"), "{found}");
        let cases: [(Format, &[u8], &str); 9] = [
            (Format::CtrRemote, b"{\"path\":\"a\"}\n\nusr/bin\n", "line 3: found \"usr/bin\", expected a JSON object"),
            (Format::CtrRemote, b"{\"path\":\"\"}", "line 1: found \"{\\\"path\\\":\\\"\\\"}\", expected a path"),
            (Format::CtrRemote, b"{\"path\":\"a\",\"layerIndex\":-1}", "line 1: "),
            (Format::Nydus, b"/a\nb\n", "line 2: found \"b\", expected an absolute path"),
            (Format::Nydus, b"path,size,elapsed\n/a,1\n", "line 2: found \"/a,1\", expected three fields"),
            (Format::Nydus, b"path,size,elapsed\n/a,x,1\n", "line 2: found \"/a,x,1\", expected a size"),
            (Format::Nydus, b"path,size,elapsed\n\"/a,1,1\n", "line 2: found \"\\\"/a,1,1\", expected a row"),
            (Format::Nydus, b"{\"version\":\"v2\",\"files\":[]}", "version: found \"v2\", expected \"v1\""),
            (Format::Paths, b"/a\n/\xff", "line 2: found \"\\\\xff\", expected UTF-8"),
        ];
        for (format, bytes, want) in cases {
            let found = parse(format, bytes).map(|l| l.entries.len()).expect_err(want).to_string();
            assert!(found.starts_with(want), "{found}");
        }
    }

    #[test]
    fn times_have_units() {
        let cases = ["5000", "900 us", "1.500 ms", "2.050 s", "3 s", "x", "1 h", "1.x s"];
        assert_eq!(cases.map(elapsed_ms), [Some(5), Some(0), Some(1), Some(2050), Some(3000), None, None, None]);
    }

    proptest! {
        #[test]
        fn quoted_fields_come_back(list in proptest::collection::vec("[a,\" /]{0,5}", 1..4)) {
            let row: Vec<String> = list.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect();
            prop_assert_eq!(fields(&row.join(",")), Some(list));
        }

        #[test]
        fn nothing_breaks_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200), csv in any::<bool>()) {
            let bytes = if csv { [b"path,size,elapsed\n", bytes.as_slice()].concat() } else { bytes };
            for format in [Format::CtrRemote, Format::Nydus, Format::Paths] {
                let lines = bytes.split(|b| *b == b'\n').count();
                if let Ok(list) = parse(format, &bytes) {
                    prop_assert!(list.entries.len() <= lines.max(bytes.len()));
                }
            }
        }
    }
}
