//! Reading and writing the profile file, with every bound checked.

use std::collections::HashSet;

use super::{Origin, Profile, SCHEMA};

/// Profiles above this size are refused: a whole vLLM start is a few MB of JSON.
pub const MAX_BYTES: u64 = 256 << 20;

/// More phases than that no start has; each file is looked up in them.
const MAX_PHASES: usize = 10_000;

/// Why bytes are not a usable profile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, or not of this shape.
    #[error("not a profile of schema {SCHEMA:?}")]
    Json(#[source] serde_json::Error),
    /// Another schema.
    #[error("profile has schema {found:?}: expected {SCHEMA:?}")]
    Schema {
        /// The schema as found.
        found: String,
    },
    /// Phases that cannot be.
    #[error("profile has {found} phases: expected at most {MAX_PHASES}, in the order of time")]
    Phases {
        /// How many.
        found: usize,
    },
    /// A value that cannot be.
    #[error("profile entry {path:?}: {why}")]
    Entry {
        /// The file's path.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
}

/// Parses and checks a profile.
pub fn read(bytes: &[u8]) -> Result<Profile, Error> {
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(Error::Json)?;
    let found = value.get("schema").and_then(|s| s.as_str()).unwrap_or_default();
    if found != SCHEMA {
        return Err(Error::Schema { found: found.chars().take(100).collect() });
    }
    let profile: Profile = serde_json::from_value(value).map_err(Error::Json)?;
    let phases = &profile.header.phases;
    if phases.len() > MAX_PHASES || !phases.is_sorted_by_key(|p| p.at_ms) {
        return Err(Error::Phases { found: phases.len() });
    }
    let mut paths = HashSet::new();
    for file in &profile.files {
        let fail = |why| Error::Entry { path: file.path.clone(), why };
        if !is_clean(&file.path) {
            return Err(fail("path is not absolute and clean"));
        }
        // A file of a volume that is replaced during the recording is two files of one path.
        if file.origin == Origin::Image && !paths.insert(file.path.as_str()) {
            return Err(fail("the file of the image is there twice"));
        }
        if !file.links.iter().all(|l| is_clean(l) && *l != file.path) {
            return Err(fail("a hard link is not another absolute and clean path"));
        }
        let mut end = None;
        for r in &file.ranges {
            let stop =
                r.0.checked_add(r.1).filter(|&e| e <= file.size).ok_or_else(|| fail("a range ends behind the file"))?;
            if r.1 == 0 || end.is_some_and(|e| r.0 <= e) {
                return Err(fail("ranges are empty, overlapping or out of order"));
            }
            end = Some(stop);
        }
    }
    if let Some(w) = profile.writes.iter().find(|w| !is_clean(&w.path)) {
        return Err(Error::Entry { path: w.path.clone(), why: "path is not absolute and clean" });
    }
    Ok(profile)
}

/// Whether a path is absolute and has no empty, `.` or `..` part.
fn is_clean(path: &str) -> bool {
    path.starts_with('/') && !path.split('/').skip(1).any(|c| matches!(c, "" | "." | ".."))
}

/// Serialises a profile: one file a line, so that two profiles can be compared with ordinary tools.
pub fn write(profile: &Profile) -> Vec<u8> {
    let header = serde_json::to_string(&profile.header).unwrap_or_default();
    let files = lines(&profile.files);
    let writes = lines(&profile.writes);
    format!("{{\"schema\":{SCHEMA:?},\n\"header\":{header},\n\"files\":[{files}],\n\"writes\":[{writes}]}}\n")
        .into_bytes()
}

fn lines(items: &[impl serde::Serialize]) -> String {
    // These types hold nothing that JSON cannot: strings, numbers, lists.
    items.iter().map(|i| format!("\n{}", serde_json::to_string(i).unwrap_or_default())).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    fn sample() -> Profile {
        Profile {
            schema: SCHEMA.into(),
            header: Header { platform: "linux/amd64".into(), ..Header::default() },
            files: vec![File {
                path: "/a".into(),
                links: vec!["/b".into()],
                origin: Origin::Image,
                size: 10_000,
                digest: None,
                first_touch_ms: 1,
                kinds: vec![Kind::Read],
                ranges: vec![Range(0, 4096, 1), Range(8192, 1808, 2)],
            }],
            writes: vec![],
        }
    }

    #[test]
    fn a_profile_reads_back_as_it_was_written() {
        assert_eq!(read(&write(&sample())).expect("own output"), sample());
    }

    #[test]
    fn impossible_values_are_refused_by_path() {
        let breakers: [fn(&mut Profile); 8] = [
            |p| p.files.push(p.files[0].clone()),
            |p| p.files[0].path = "a".into(),
            |p| p.files[0].path = "/a/../b".into(),
            |p| p.files[0].links[0] = "/a".into(),
            |p| p.files[0].links[0] = "b".into(),
            |p| p.files[0].ranges[1].1 = 1809,
            |p| p.files[0].ranges[1].0 = 4096,
            |p| p.files[0].ranges[0] = Range(u64::MAX, 2, 0),
        ];
        for (i, f) in breakers.iter().enumerate() {
            let mut p = sample();
            f(&mut p);
            assert!(matches!(read(&write(&p)), Err(Error::Entry { .. })), "case {i}");
        }
    }

    #[test]
    fn a_volume_may_have_had_two_files_of_a_path() {
        let mut p = sample();
        p.files[0].origin = Origin::Volume;
        p.files.push(p.files[0].clone());
        assert_eq!(read(&write(&p)).expect("a replaced file"), p);
    }

    #[test]
    fn phases_are_few_and_in_order() {
        let with = |times: &[u64]| {
            let phases = times.iter().map(|&at_ms| Phase { name: "p".into(), at_ms }).collect();
            read(&write(&Profile { header: Header { phases, ..sample().header }, ..sample() })).map(drop)
        };
        assert!(with(&[1, 1, 2]).is_ok());
        assert!(matches!(with(&[2, 1]), Err(Error::Phases { found: 2 })));
        assert!(matches!(with(&vec![0; MAX_PHASES + 1]), Err(Error::Phases { .. })));
    }

    #[test]
    fn another_schema_is_named() {
        let e = read(br#"{"schema":"x/v9"}"#).expect_err("other schema");
        assert_eq!(e.to_string(), r#"profile has schema "x/v9": expected "esgz.profile/v1""#);
    }
}
