//! Patterns for paths: `*` and `?` within one part of a path, `**` as a whole part for any number of parts, `\` in front of a
//! character that is meant as it stands.

/// The one path that a pattern without `*` and `?` means; none of others.
pub fn literal(pattern: &str) -> Option<String> {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' => return None,
            // At the end it stands for itself.
            '\\' => out.push(chars.next().unwrap_or('\\')),
            c => out.push(c),
        }
    }
    Some(out)
}

/// The plain text in front of the first special character: no path without it matches.
pub fn literal_prefix(pattern: &str) -> &str {
    &pattern[..pattern.find(['*', '?', '\\']).unwrap_or(pattern.len())]
}

/// Puts `\` in front of what would be special in a pattern.
pub fn escape(path: &str) -> String {
    path.chars().flat_map(|c| matches!(c, '*' | '?' | '\\').then_some('\\').into_iter().chain([c])).collect()
}

/// Whether a path matches. Takes time in proportion to the product of both lengths at worst, whatever the pattern.
pub fn matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    wild(&pattern, &path, |p| *p == "**", |p, part| part_matches(p, part))
}

fn part_matches(pattern: &str, part: &str) -> bool {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Any,
            '?' => Token::One,
            // At the end it stands for itself.
            '\\' => Token::Just(chars.next().unwrap_or('\\')),
            c => Token::Just(c),
        });
    }
    let part: Vec<char> = part.chars().collect();
    wild(
        &tokens,
        &part,
        |t| matches!(t, Token::Any),
        |t, c| match t {
            Token::Just(want) => want == c,
            Token::One | Token::Any => true,
        },
    )
}

enum Token {
    Just(char),
    One,
    Any,
}

/// Matches a list of tokens of which some stand for any number of items. Only the last of these has to be tried again: what an
/// earlier one took was the least, and more of it helps nothing behind.
fn wild<T, I>(tokens: &[T], items: &[I], any: impl Fn(&T) -> bool, one: impl Fn(&T, &I) -> bool) -> bool {
    let (mut t, mut i) = (0, 0);
    let mut again: Option<(usize, usize)> = None;
    while i < items.len() {
        if tokens.get(t).is_some_and(&any) {
            again = Some((t, i));
            t += 1;
        } else if tokens.get(t).is_some_and(|token| one(token, &items[i])) {
            t += 1;
            i += 1;
        } else if let Some((from, taken)) = again {
            again = Some((from, taken + 1));
            (t, i) = (from + 1, taken + 1);
        } else {
            return false;
        }
    }
    tokens[t..].iter().all(any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, path, want) in [
            ("/usr/bin/python3", "/usr/bin/python3", true),
            ("/usr/bin/python?", "/usr/bin/python3", true),
            ("/usr/bin/python?", "/usr/bin/python", false),
            ("/usr/*/python3", "/usr/bin/python3", true),
            ("/usr/*", "/usr/bin/python3", false),
            ("/usr/**", "/usr/bin/python3", true),
            ("/usr/**/python3", "/usr/python3", true),
            ("/usr/**/lib/**/*.py", "/usr/a/lib/b/lib/c.py", true),
            ("/usr/**/lib/**/*.py", "/usr/a/b/c.py", false),
            ("**/*.so", "/a/b.so", true),
            ("/a/*.so.*", "/a/lib.so.so.1", true),
            ("/a**b/c", "/axxb/c", true),
            ("/a\\*b", "/a*b", true),
            ("/a\\*b", "/axb", false),
            ("/a\\", "/a\\", true),
            ("/é?", "/éü", true),
        ] {
            assert_eq!(matches(pattern, path), want, "{pattern} {path}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends() {
        let (stars, path) = ("*a".repeat(2000), "a".repeat(4000) + "b");
        assert!(!matches(&stars, &path));
        assert!(!matches(&"**/a/".repeat(500), &("a/".repeat(1000) + "b")));
    }

    /// The obvious way, which takes too long for long ones.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|n| !text[..n].contains(&'/') && naive(rest, &text[n..])),
            Some(('?', rest)) => text.first().is_some_and(|c| *c != '/') && naive(rest, &text[1..]),
            Some((c, rest)) => text.first() == Some(c) && naive(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn one_star_takes_anything_but_a_slash(pattern in "[ab*?/]{0,8}", text in "[ab/]{0,8}") {
            prop_assume!(!pattern.contains("**"));
            let chars = |s: &str| s.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &text), naive(&chars(&pattern), &chars(&text)));
        }

        #[test]
        fn an_escaped_path_matches_itself_alone(path in "/[ab*?\\\\]{1,6}", other in "/[ab*?\\\\]{1,6}") {
            prop_assert!(matches(&escape(&path), &path));
            prop_assert_eq!(matches(&escape(&path), &other), path == other);
            prop_assert_eq!(literal(&escape(&path)), Some(path.clone()));
            prop_assert!(path.starts_with(literal_prefix(&escape(&path))));
        }
    }
}
