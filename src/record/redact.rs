//! Taking secrets out of a command line before it is written down. Errs on the side of hiding: a profile is meant to be shared.

use std::sync::LazyLock;

use regex::Regex;

const HIDDEN: &str = "<redacted>";
/// Beginnings of well-known tokens of hubs, clouds and code hosts, and of web tokens.
const PREFIXES: [&str; 14] = [
    "hf_",
    "sk-",
    "ya29.",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "AKIA",
    "ASIA",
    "AIza",
    "eyJ",
    "xoxb-",
    "nvapi-",
];
/// Shorter than any token, longer than most words that begin alike.
const SHORTEST: usize = 12;

/// The arguments with everything hidden that looks like a secret.
pub(super) fn redact(args: &[String]) -> Vec<String> {
    by_words(args).iter().map(|arg| by_names(arg)).collect()
}

/// Hides what stands behind a telling name inside one argument: members of JSON, headers, the queries of URLs.
fn by_names(arg: &str) -> String {
    // A name, perhaps quoted, a colon or equals sign, and the value: quoted, or up to what ends one.
    static PAIR: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r#"([A-Za-z][A-Za-z0-9_.-]*)(\\?["']?\s*[:=]\s*)("(?:[^"\\]|\\.)*"|'[^']*'|[^\s,;&"'}\]\\]+)"#).ok()
    });
    /// A header's name after which everything to the end of the value is the secret.
    const WHOLE: &str = "authorization";
    let Some(pair) = &*PAIR else { return HIDDEN.into() };
    let mut out = String::with_capacity(arg.len());
    let mut at = 0;
    while let Some(found) = pair.captures_at(arg, at) {
        let (Some(name), Some(value)) = (found.get(1), found.get(3)) else { break };
        let plain = value.as_str().trim_matches(['"', '\'']);
        let is_whole = name.as_str().to_ascii_lowercase().ends_with(WHOLE);
        if !is_secret(name.as_str(), Some(plain)) || plain.starts_with("//") || plain == HIDDEN {
            // The value may hold a pair of its own.
            out.push_str(&arg[at..value.start()]);
            at = value.start();
            continue;
        }
        out.push_str(&arg[at..value.start()]);
        out.push_str(HIDDEN);
        at = if is_whole {
            value.start() + arg[value.start()..].find(['"', '\'', '\n']).unwrap_or(arg.len() - value.start())
        } else {
            value.end()
        };
    }
    out.push_str(&arg[at..]);
    out
}

/// The arguments, each word of them looked at for itself and the one before it.
fn by_words(args: &[String]) -> Vec<String> {
    let mut out = Vec::with_capacity(args.len());
    let mut hide_next = false;
    for arg in args {
        if std::mem::take(&mut hide_next) && !arg.starts_with("--") {
            out.push(HIDDEN.to_owned());
            continue;
        }
        // A whole shell line as one argument.
        if arg.contains(char::is_whitespace) {
            out.push(redact_line(arg));
            continue;
        }
        let bearer = matches!(arg.to_ascii_lowercase().trim_start_matches(['\'', '"']), "bearer" | "basic");
        match arg.split_once('=') {
            Some((name, value)) if is_secret(name, Some(value)) => out.push(format!("{name}={HIDDEN}")),
            Some((name, value)) => out.push(format!("{name}={}", tokens(value))),
            None => {
                hide_next = bearer || (arg.starts_with('-') && is_secret(arg, None));
                out.push(tokens(arg));
            }
        }
    }
    out
}

/// A line or a description, with everything hidden that looks like a secret.
pub(super) fn redact_text(line: &str) -> String {
    by_names(&redact_line(line))
}

/// A line of words, its white space left as it is.
fn redact_line(line: &str) -> String {
    let words: Vec<String> = line.split_whitespace().map(ToOwned::to_owned).collect();
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    for (word, shown) in words.iter().zip(by_words(&words)) {
        let (space, behind) = rest.split_once(word.as_str()).unwrap_or((rest, ""));
        out.push_str(space);
        out.push_str(&shown);
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// Whether an option or variable of this name holds a secret. `--tokenizer` and `--max-num-batched-tokens 8192` do not.
fn is_secret(name: &str, value: Option<&str>) -> bool {
    let name = name.to_ascii_lowercase();
    let whole = ["password", "passwd", "passphrase", "secret", "apikey", "credential", "accesskey", "privatekey"];
    if whole.iter().any(|w| name.contains(w)) {
        return true;
    }
    name.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| match word {
        "token" | "key" | "keys" | "pwd" | "pat" | "bearer" | "authorization" => true,
        "tokens" => value.is_some_and(|v| v.parse::<f64>().is_err()),
        _ => false,
    })
}

/// Hides known tokens and the password of a URL wherever they stand in a word.
fn tokens(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    let in_token = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let mut rest = word;
    while !rest.is_empty() {
        let end = rest.find(|c| !in_token(c)).unwrap_or(rest.len());
        let (run, tail) = rest.split_at(end);
        let hidden = run.len() >= SHORTEST && PREFIXES.iter().any(|p| run.starts_with(p));
        out.push_str(if hidden { HIDDEN } else { run });
        let next = tail.chars().next().map_or(0, char::len_utf8);
        out.push_str(&tail[..next]);
        rest = &tail[next..];
    }
    if let Some((scheme, rest)) = out.split_once("://") {
        let authority = rest.split('/').next().unwrap_or(rest);
        if let Some((user, _)) = authority.rsplit_once('@') {
            return format!("{scheme}://{HIDDEN}@{}", &rest[user.len() + 1..]);
        }
    }
    out
}

/// Whether a known token stands anywhere in a text, whatever it is glued to: strings of other formats have their lengths in front.
pub(super) fn has_token(text: &str) -> bool {
    /// Beginnings that no word has, and the letters and digits that follow in the real ones.
    const TELLING: [(&str, usize); 12] = [
        ("hf_", 30),
        ("ghp_", 30),
        ("gho_", 30),
        ("ghs_", 30),
        ("github_pat_", 20),
        ("glpat-", 20),
        ("nvapi-", 30),
        ("ya29.", 30),
        ("xoxb-", 10),
        ("AIza", 30),
        ("AKIA", 16),
        ("ASIA", 16),
    ];
    let follows = |rest: &str| rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
    let telling = |(prefix, least): &(&str, usize)| {
        text.match_indices(prefix).any(|(at, _)| follows(&text[at + prefix.len()..]) >= *least)
    };
    let of_word = |word: &str| word.strip_prefix("sk-").is_some_and(|rest| follows(rest) >= 20);
    TELLING.iter().any(telling) || text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').any(of_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &str) -> String {
        redact(&words.split('|').map(ToOwned::to_owned).collect::<Vec<_>>()).join("|")
    }

    #[test]
    fn secrets_are_hidden_however_they_are_written() {
        for (given, want) in [
            ("vllm|serve|--api-key|abc", "vllm|serve|--api-key|<redacted>"),
            ("vllm|--hf-token=x", "vllm|--hf-token=<redacted>"),
            ("vllm|--api-key|--port|80", "vllm|--api-key|--port|80"),
            ("env|HF_TOKEN=abc|x", "env|HF_TOKEN=<redacted>|x"),
            ("x|--db-Password|p|--client_secret=q", "x|--db-Password|<redacted>|--client_secret=<redacted>"),
            ("x|hf_0123456789abcdef", "x|<redacted>"),
            ("x|--foo=sk-0123456789abcdef,b", "x|--foo=<redacted>,b"),
            ("x|ya29.a0ABCDEFGH-_x", "x|<redacted>"),
            (
                "sh|-c|HF_TOKEN=a vllm --api-key b; curl -H 'Authorization: Bearer c'",
                "sh|-c|HF_TOKEN=<redacted> vllm --api-key <redacted> curl -H 'Authorization: <redacted>",
            ),
            ("sh|-c| a\n\t--api-key  b\n", "sh|-c| a\n\t--api-key  <redacted>\n"),
            (r#"x|--config|{"api_key": "abc", "n": 1}"#, r#"x|--config|{"api_key": <redacted>, "n": 1}"#),
            (r#"x|{"a":{"token":"t1"},"secret":"s"}"#, r#"x|{"a":{"token":<redacted>},"secret":<redacted>}"#),
            ("x|-H|X-Api-Key: abc", "x|-H|X-Api-Key: <redacted>"),
            ("x|-H|Authorization: token abc", "x|-H|Authorization: <redacted>"),
            ("x|http://h/?a=1&api_key=abc&b=2", "x|http://h/?a=1&api_key=<redacted>&b=2"),
            ("x|https://me:pw@host/a@b", "x|https://<redacted>@host/a@b"),
        ] {
            assert_eq!(line(given), want, "{given}");
        }
    }

    #[test]
    fn ordinary_arguments_stay() {
        for given in [
            "vllm|serve|facebook/opt-125m|--tokenizer|t|--max-num-batched-tokens|8192|--port=8000",
            "vllm|--max-num-batched-tokens=8192|--tokenizer-mode=auto",
            "python3|-c|import torch; print(1)",
            "x|hf_short|sk-learn|eyJ",
            "x|http://127.0.0.1:8000/v1",
            r#"x|{"model": "m", "max_tokens": 8, "tokenizer": "t"}"#,
            "x|http://127.0.0.1:8000/v1?count=3",
        ] {
            assert_eq!(line(given), given);
        }
    }
}
