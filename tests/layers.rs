//! Every reference between modules points down the list of `src/lib.rs`, and each heavy crate is named in one place only.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its own source should fail")]

use std::fs;
use std::path::{Path, PathBuf};

/// Crates and the only modules that may name them.
const CONFINED: &[(&str, &str)] = &[
    ("clap", "cli"),
    ("indicatif", "cli"),
    ("reqwest", "http"),
    ("rustls", "http"),
    ("sha2", "digest"),
    ("libdeflater", "estargz"),
];

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, out) } else { out.push(path) }
    }
}

fn sources() -> Vec<(String, PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&src, &mut all);
    all.into_iter()
        .map(|path| {
            let rel = path.strip_prefix(&src).unwrap().with_extension("");
            let module = rel.components().next().unwrap().as_os_str().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            (module, path, text)
        })
        .collect()
}

/// The modules in the order of `lib.rs`.
fn order() -> Vec<String> {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    lib.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';').map(Into::into)).collect()
}

/// Code without comments and with white space gone around `::` and braces, so that groups over several lines are seen.
fn squeeze(text: &str) -> String {
    let code: String = text.lines().map(|l| l.split("//").next().unwrap()).collect::<Vec<_>>().join(" ");
    code.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// First path segments behind every `crate::`, groups resolved.
fn crate_references(code: &str) -> Vec<String> {
    let ident = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut out = Vec::new();
    for (i, _) in code.match_indices("crate::") {
        // `$crate::` and `othercrate::` are not ours.
        if code[..i].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = code[i + 7..].trim_start();
        let Some(group) = rest.strip_prefix('{') else {
            out.push(ident(rest));
            continue;
        };
        let (mut depth, mut start) = (0usize, true);
        for (j, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && !c.is_whitespace() => {
                    out.push(ident(&group[j..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    out
}

#[test]
fn modules_only_look_down() {
    let order = order();
    assert!(order.len() > 5, "lib.rs lists its modules as `pub mod name;`");
    let rank = |m: &str| order.iter().position(|l| l == m);
    for (module, path, text) in sources() {
        let Some(mine) = rank(&module) else { continue };
        let code = squeeze(&text);
        for to in crate_references(&code) {
            if let Some(r) = rank(&to) {
                assert!(r <= mine, "{}: {module} looks up at {to}", path.display());
            }
        }
        // A module's root file has one level above it, a file inside one has two: more `super` would leave the module.
        let depth = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().components().count() - 2;
        let climbs = (0..9).take_while(|n| code.contains(&"super::".repeat(n + 1))).count();
        let test_module = usize::from(code.contains("mod tests"));
        assert!(climbs <= depth + test_module, "{}: super:: climbs out of {module}", path.display());
    }
}

#[test]
fn heavy_crates_stay_where_they_belong() {
    for (module, path, text) in sources() {
        let code = squeeze(&text);
        for (krate, home) in CONFINED {
            let named = code
                .match_indices(&format!("{krate}::"))
                .any(|(i, _)| !code[..i].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            assert!(!named || module == *home, "{}: {krate} belongs to {home}", path.display());
        }
    }
}

#[test]
fn the_check_itself_sees_groups_and_lines() {
    let code = squeeze("use crate::{\n  a::{x, y}, // crate::no\n  b,\n}; let _ = crate::c::f(); mycrate::d");
    assert_eq!(crate_references(&code), ["a", "b", "c"]);
}
