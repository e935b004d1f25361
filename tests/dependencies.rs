//! The dependency budget: how many packages are locked, and under which licences.
#![expect(clippy::unwrap_used, reason = "a test that cannot ask cargo should fail")]

use std::process::Command;

use serde_json::Value;

/// Locked packages, all platforms and dev-dependencies included. Raise it in the commit that adds a dependency, with the
/// reason in its message.
const MOST_PACKAGES: usize = 300;

const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

fn metadata() -> Vec<Value> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let all: Value = serde_json::from_slice(&out.stdout).unwrap();
    all["packages"].as_array().unwrap().clone()
}

/// Whether a licence expression can be met: a choice needs one allowed side, a conjunction all.
fn is_allowed(expression: &str) -> bool {
    let e = expression.trim();
    let mut depth = 0;
    for word in [" OR ", "/", " AND "] {
        for (i, c) in e.char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ if depth == 0 && e[i..].starts_with(word) => {
                    let (a, b) = (&e[..i], &e[i + word.len()..]);
                    return if word == " AND " {
                        is_allowed(a) && is_allowed(b)
                    } else {
                        is_allowed(a) || is_allowed(b)
                    };
                }
                _ => {}
            }
        }
    }
    match e.strip_prefix('(').and_then(|e| e.strip_suffix(')')) {
        Some(inner) => is_allowed(inner),
        None => ALLOWED.contains(&e),
    }
}

#[test]
fn the_number_of_locked_packages_stays_in_its_budget() {
    let n = metadata().len();
    assert!(n <= MOST_PACKAGES, "{n} packages: at most {MOST_PACKAGES}");
}

#[test]
fn every_licence_is_one_we_may_ship() {
    let bad: Vec<String> = metadata()
        .iter()
        .filter(|p| !p["license"].as_str().is_some_and(is_allowed))
        .map(|p| format!("{} {}: {}", p["name"], p["version"], p["license"]))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn one_tls_stack_only() {
    let names: Vec<_> = metadata().iter().map(|p| p["name"].as_str().unwrap().to_owned()).collect();
    for unwanted in ["openssl", "openssl-sys", "native-tls", "aws-lc-sys", "webpki-roots"] {
        assert!(!names.iter().any(|n| n == unwanted), "{unwanted} came in");
    }
}

#[test]
fn the_licence_check_understands_expressions() {
    assert!(is_allowed("MIT OR GPL-3.0") && is_allowed("(MIT OR GPL-3.0) AND ISC") && is_allowed("MIT/Apache-2.0"));
    assert!(!is_allowed("GPL-3.0") && !is_allowed("MIT AND GPL-3.0") && !is_allowed(""));
}
