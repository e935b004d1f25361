//! Path cleaning, as the eStargz readers do it: `path.Clean("/" + name)` without the leading slash.

/// Drops empty and `.` components and resolves `..`; the result never leaves the root. Empty for the root.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// The folders above a cleaned path, outermost first, without the root: `a/b/c` gives `a`, `a/b`.
pub fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(i, _)| &path[..i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_gives_one_path() {
        for (dirty, want) in [
            ("./a/b/", "a/b"),
            ("/a//b", "a/b"),
            ("../a/../b", "b"),
            ("./", ""),
            ("/", ""),
            ("a/./b/..", "a"),
            ("...", "..."),
        ] {
            assert_eq!(clean(dirty), want, "{dirty}");
        }
    }

    #[test]
    fn parents_come_outermost_first() {
        assert_eq!(parents("a/b/c").collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!(parents("a").count(), 0);
    }
}
