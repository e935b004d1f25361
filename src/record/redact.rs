//! Taking secrets out of a command line before it is written down. Errs on the side of hiding: a profile is meant to be shared.

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

/// A line of words, its white space left as it is.
fn redact_line(line: &str) -> String {
    let words: Vec<String> = line.split_whitespace().map(ToOwned::to_owned).collect();
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    for (word, shown) in words.iter().zip(redact(&words)) {
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

/// Whether a known token stands anywhere in a text. Longer ones only than in a command line: a text may be anything.
pub(super) fn has_token(text: &str) -> bool {
    /// The shortest of the real ones has 20 characters.
    const REAL: usize = 20;
    let in_token = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    // `eyJ` begins any base64 of JSON.
    text.split(|c| !in_token(c))
        .any(|run| run.len() >= REAL && PREFIXES.iter().any(|p| *p != "eyJ" && run.starts_with(p)))
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
                "sh|-c|HF_TOKEN=<redacted> vllm --api-key <redacted> curl -H 'Authorization: Bearer <redacted>",
            ),
            ("sh|-c| a\n\t--api-key  b\n", "sh|-c| a\n\t--api-key  <redacted>\n"),
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
        ] {
            assert_eq!(line(given), given);
        }
    }
}
