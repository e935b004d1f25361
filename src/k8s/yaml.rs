//! JSON values as YAML in block style, for people to read and `kubectl` to apply.
//!
//! A string is written plain only where no YAML parser, of 1.1 or 1.2, could take it for something else; the others stand in
//! double quotes with escapes that JSON and YAML share.

use std::fmt::Write;

use serde_json::Value;

/// Writes a value as a document.
pub fn document(value: &Value) -> String {
    let mut out = String::new();
    block(&mut out, value, 0);
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// Writes a value whose first line has been indented already.
fn block(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (i, (key, value)) in map.iter().enumerate() {
                if i > 0 {
                    indent(out, depth);
                }
                string(out, key);
                out.push(':');
                match value {
                    Value::Object(m) if !m.is_empty() => {
                        out.push('\n');
                        indent(out, depth + 1);
                        block(out, value, depth + 1);
                    }
                    Value::Array(list) if !list.is_empty() => {
                        out.push('\n');
                        indent(out, depth);
                        block(out, value, depth);
                    }
                    _ => {
                        out.push(' ');
                        scalar(out, value);
                    }
                }
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (i, item) in list.iter().enumerate() {
                if i > 0 {
                    indent(out, depth);
                }
                out.push_str("- ");
                block(out, item, depth + 1);
            }
        }
        _ => scalar(out, value),
    }
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

/// Writes what stands on one line, and ends the line.
fn scalar(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => string(out, text),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            let _infallible = write!(out, "{value}");
        }
    }
    out.push('\n');
}

fn string(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        let _infallible = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            '\n' => write!(out, "\\n"),
            '\t' => write!(out, "\\t"),
            ' '..='~' => write!(out, "{c}"),
            c if u32::from(c) <= 0xffff => write!(out, "\\u{:04x}", u32::from(c)),
            c => write!(out, "\\U{:08x}", u32::from(c)),
        };
    }
    out.push('"');
}

/// Whether a string needs no quotes: it begins like a word or a path, has nothing in it that means something, and is none of the
/// words that YAML 1.1 takes for something else.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 10] = ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan"];
    let inside = |c: char| c.is_ascii_alphanumeric() || "._-/@:".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(inside)
        && !text.ends_with(':')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_reads_well() {
        let value = json!({
            "kind": "Pod", "count": 3, "empty": {}, "none": [],
            "list": ["/bin/sh", "-c", "a: b", {"name": "x", "args": ["yes", "1e3"]}, [1, [2]]],
            "o:": {"p": {"q": "line\nbreak\u{1b}\u{e9}\u{1f600}"}},
        });
        let expected = "kind: Pod\ncount: 3\nempty: {}\nnone: []\nlist:\n- /bin/sh\n- \"-c\"\n- \"a: b\"\n- name: x\n  args:\n  - \"yes\"\n  \
                        - \"1e3\"\n- - 1\n  - - 2\n\"o:\":\n  p:\n    q: \"line\\nbreak\\u001b\\u00e9\\U0001f600\"\n";
        assert_eq!(document(&value), expected);
    }

    /// What `PyYAML` (YAML 1.1, the stricter one about plain words) reads out of it; nothing where it is not installed.
    fn read_back(documents: &[String]) -> Option<Vec<Value>> {
        let script = "import json, sys, yaml\nfor d in json.load(sys.stdin): print(json.dumps(yaml.safe_load(d)))";
        let mut python = Command::new("python3");
        python.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = python.spawn().ok()?;
        let mut stdin = child.stdin.take().expect("piped");
        let text = serde_json::to_vec(documents).expect("strings");
        let writer = std::thread::spawn(move || stdin.write_all(&text));
        let out = child.wait_with_output().expect("ended");
        let _closed_early = writer.join().expect("a thread");
        let words = String::from_utf8_lossy(&out.stderr);
        if words.contains("No module named") {
            return None;
        }
        assert!(out.status.success(), "{words}");
        let lines = String::from_utf8(out.stdout).expect("UTF-8");
        Some(lines.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect())
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let word = prop_oneof![
            "[ -~]{0,12}",
            "\\PC{0,6}",
            "(?s).{0,6}",
            "[a-z0-9./:@#&*!|>'\"%{}\\[\\],?~=<-]{0,8}",
            proptest::sample::select(vec![
                "yes",
                "No",
                "ON",
                "null",
                "~",
                "1",
                "1.5",
                "0x1f",
                "1e3",
                ".inf",
                "2001-01-01",
                "12:30:45",
                "=",
                "<<",
                "- a",
                "a: b",
                "a #b",
                "---",
                "...",
                " a",
                "a ",
                "a:",
                ":a",
                "?",
                "NaN",
                "on:",
                "Y"
            ])
            .prop_map(ToOwned::to_owned),
        ];
        let leaf = prop_oneof![
            word.clone().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            Just(Value::Null),
        ];
        leaf.prop_recursive(4, 24, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec((word.clone(), inner), 0..5)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn another_parser_reads_the_same() {
        use proptest::strategy::ValueTree;
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let values: Vec<Value> =
            (0..400).map(|_| any_value().new_tree(&mut runner).expect("a value").current()).collect();
        let documents: Vec<String> = values.iter().map(document).collect();
        let Some(read) = read_back(&documents) else { return };
        assert_eq!(read.len(), values.len());
        for ((read, value), document) in read.iter().zip(&values).zip(&documents) {
            assert_eq!(read, value, "{document}");
        }
    }
}
