//! Pages that load nothing: text of others goes in where no character of it can end the element that holds it, and a content
//! security policy lets only the page's own script run.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::digest::Digest;

/// JSON in which nothing can end the element that holds it.
pub fn inert(json: &str) -> String {
    replaced(json, |c| match c {
        '<' => Some("\\u003c"),
        '>' => Some("\\u003e"),
        '&' => Some("\\u0026"),
        '\u{2028}' => Some("\\u2028"),
        '\u{2029}' => Some("\\u2029"),
        _ => None,
    })
}

/// Text for an element or a quoted attribute of HTML or XML. What XML cannot hold at all becomes a replacement character.
pub fn escaped(text: &str) -> String {
    replaced(text, |c| match c {
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '&' => Some("&amp;"),
        '"' => Some("&quot;"),
        '\'' => Some("&#39;"),
        '\t' | '\n' | '\r' => None,
        '\0'..'\u{20}' | '\u{fffe}' | '\u{ffff}' => Some("\u{fffd}"),
        _ => None,
    })
}

fn replaced(text: &str, by: impl Fn(char) -> Option<&'static str>) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match by(c) {
            Some(other) => out.push_str(other),
            None => out.push(c),
        }
    }
    out
}

/// A script's name in a content security policy.
pub fn script_hash(script: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Digest::of(script.as_bytes()).bytes()))
}

/// Puts texts into a template, in the order of their places: what is put in is not searched, whatever it holds.
pub fn fill(template: &str, places: &[(&str, &str)]) -> String {
    let mut rest = template;
    let mut out = String::with_capacity(template.len() + places.iter().map(|(_, text)| text.len()).sum::<usize>());
    for (place, text) in places {
        let (before, after) = rest.split_once(place).unwrap_or((rest, ""));
        out.push_str(before);
        out.push_str(text);
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_could_end_an_element() {
        assert_eq!(escaped("<a b=\"c\">'&\u{1b}[\n\0"), "&lt;a b=&quot;c&quot;&gt;&#39;&amp;\u{fffd}[\n\u{fffd}");
        assert_eq!(inert("\"</script>&\u{2028}\u{2029}\""), "\"\\u003c/script\\u003e\\u0026\\u2028\\u2029\"");
    }

    #[test]
    fn what_is_put_in_is_not_searched() {
        assert_eq!(fill("x @A@ y @B@ z", &[("@A@", "@B@"), ("@B@", "b")]), "x @B@ y b z");
    }

    #[test]
    fn a_hash_is_that_of_the_browsers() {
        // printf "alert('Hello, world.');" | openssl dgst -sha256 -binary | base64, and MDN's example.
        assert_eq!(script_hash("alert('Hello, world.');"), "sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng=");
    }
}
