//! Who we are to a registry: challenges, credentials, tokens.
//!
//! Credentials are looked up when the registry asks for them, go to it and to the token server it names, and never over
//! plain HTTP to another machine.

use std::fmt::Write as _;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use serde_json::Value;

use crate::http::{self, Client, Response, Url, address};
use crate::store::Error;

/// How much of a token answer is read; real ones have a few KB.
const MAX_TOKEN_BYTES: u64 = 1 << 20;
/// What a token lasts that does not say so or says less (Docker token specification).
const SHORTEST_LIFE: Duration = Duration::from_mins(1);
/// A token is not used in the last moments of its life.
const MARGIN: Duration = Duration::from_secs(30);

/// One way to authenticate that a server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Challenge {
    /// In lower case.
    scheme: String,
    /// Names in lower case.
    params: Vec<(String, String)>,
}

impl Challenge {
    /// The same without the scopes of a repository.
    fn without(&self, repository: &str) -> Self {
        let prefix = format!("repository:{repository}:");
        let mut rest = self.clone();
        for (_, scopes) in rest.params.iter_mut().filter(|(name, _)| name == "scope") {
            let kept: Vec<&str> = scopes.split_whitespace().filter(|s| !s.starts_with(&prefix)).collect();
            *scopes = kept.join(" ");
        }
        rest
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }
}

/// Reads `WWW-Authenticate`: several challenges, parameters quoted or not, whatever spacing (RFC 9110, 11.6.1).
fn parse_challenges(header: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if rest.is_empty() {
            return found;
        }
        let is_param = !word.is_empty() && after.trim_start().starts_with('=') && !found.is_empty();
        if !is_param {
            if !word.is_empty() {
                found.push(Challenge { scheme: word.to_ascii_lowercase(), params: Vec::new() });
            }
            rest = after.strip_prefix('=').unwrap_or(after);
            continue;
        }
        let text = after.trim_start().strip_prefix('=').unwrap_or_default().trim_start();
        let (value, after) = if let Some(quoted) = text.strip_prefix('"') {
            unquote(quoted)
        } else {
            let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
            (text[..end].to_owned(), &text[end..])
        };
        if let Some(challenge) = found.last_mut() {
            challenge.params.push((word.to_ascii_lowercase(), value));
        }
        rest = after;
    }
}

/// The text up to the closing quote, without backslashes, and what follows.
fn unquote(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut escaped = false;
    for (i, c) in quoted.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return (value, &quoted[i + 1..]),
            c => {
                value.push(c);
                escaped = false;
            }
        }
    }
    (value, "")
}

/// A user as found on this machine.
#[derive(Debug, PartialEq)]
struct Found {
    credential: DockerCredential,
    /// The file it came from, or that names its helper.
    source: String,
}

/// Where credentials are looked for.
#[derive(Debug, Clone)]
pub(super) struct Files(Vec<PathBuf>);

impl Files {
    /// The docker config, then the places of podman.
    pub(super) fn of_user() -> Self {
        let dir = |variable: &str, below: &str| {
            std::env::var_os(variable).filter(|v| !v.is_empty()).map(|v| PathBuf::from(v).join(below))
        };
        let docker = dir("DOCKER_CONFIG", "config.json").or_else(|| dir("HOME", ".docker/config.json"));
        let podman = std::env::var_os("REGISTRY_AUTH_FILE").map(PathBuf::from);
        let runtime = || Some(format!("/run/containers/{}/auth.json", nix::unistd::getuid()).into());
        let podman = podman.or_else(|| dir("XDG_RUNTIME_DIR", "containers/auth.json")).or_else(runtime);
        Self([docker, podman, dir("HOME", ".config/containers/auth.json")].into_iter().flatten().collect())
    }

    #[cfg(test)]
    pub(super) fn only(path: PathBuf) -> Self {
        Self(vec![path])
    }

    /// The first credential for a host, and what went wrong on the way: a helper that fails may be why access is denied.
    fn find(&self, host: &str) -> (Option<Found>, Vec<String>) {
        let mut troubles = Vec::new();
        for path in &self.0 {
            let Ok(file) = File::open(path) else { continue };
            match get_credential_from_reader(BufReader::new(file), host) {
                Ok(credential) => {
                    return (Some(Found { credential, source: path.display().to_string() }), troubles);
                }
                Err(CredentialRetrievalError::NoCredentialConfigured) => {}
                // How every helper says that it has none.
                Err(CredentialRetrievalError::HelperFailure { stdout, stderr, .. })
                    if [&stdout, &stderr].iter().any(|s| s.contains("credentials not found")) => {}
                Err(e) => {
                    let words: Vec<_> = e.to_string().split_whitespace().map(ToOwned::to_owned).collect();
                    troubles.push(format!("{}: {}", path.display(), words.join(" ")));
                }
            }
        }
        (None, troubles)
    }

    fn list(&self) -> String {
        self.0.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
    }
}

/// The header for one repository of one registry, shared by all threads that use it.
pub(super) struct Auth {
    client: Client,
    base: Url,
    /// As the user writes it: what credentials are stored under.
    host: String,
    repository: String,
    actions: &'static str,
    /// Another repository that blobs may be mounted from, until somebody refuses.
    other: Mutex<Option<String>>,
    files: Files,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Grows with every change of `header`, so that threads that failed with the same header ask for one new one.
    generation: u64,
    header: Option<String>,
    /// When `header` is to be renewed, and from which challenge.
    expires: Option<(Instant, Challenge)>,
}

impl Auth {
    pub(super) fn new(client: Client, base: Url, host: &str, repository: &str, write: bool, files: Files) -> Self {
        let actions = if write { "pull,push" } else { "pull" };
        let (host, repository, state) = (host.into(), repository.into(), Mutex::default());
        Self { client, base, host, repository, actions, other: Mutex::default(), files, state }
    }

    /// Asks, with every token from now on, for the right to read another repository too.
    pub(super) fn also_pull(&self, repository: &str) {
        *self.other.lock().unwrap_or_else(PoisonError::into_inner) = Some(repository.into());
    }

    /// That other repository.
    pub(super) fn other(&self) -> Option<String> {
        self.other.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does without it.
    pub(super) fn forget_other(&self) {
        *self.other.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The header to send now, if any, with its generation.
    pub(super) fn header(&self) -> Result<(u64, Option<String>), Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, challenge)) = state.expires.clone()
            && Instant::now() >= at
        {
            self.fetch(&mut state, &challenge)?;
        }
        Ok((state.generation, state.header.clone()))
    }

    /// Answers a 401 to a request that was sent with the header of `generation`.
    pub(super) fn answer(&self, generation: u64, response: &Response) -> Result<(), Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.generation != generation {
            return Ok(());
        }
        let offered: Vec<_> = response.headers("www-authenticate").flat_map(parse_challenges).collect();
        let bearer = offered.iter().find(|c| c.scheme == "bearer" && c.get("realm").is_some());
        if let Some(challenge) = bearer {
            return self.fetch(&mut state, challenge);
        }
        if !offered.iter().any(|c| c.scheme == "basic") {
            let schemes: Vec<_> = offered.iter().map(|c| c.scheme.as_str()).collect();
            let why =
                format!("it answers 401 and offers {:?}: expected Basic, or Bearer with a realm", schemes.join(", "));
            return Err(Error::Unsupported { what: format!("the authentication of {}", self.host), why });
        }
        let (found, troubles) = self.files.find(&self.host);
        match found {
            Some(found) if state.header.is_some() => {
                Err(self.denied(&format!("{} does not accept the credentials found in {}", self.host, found.source)))
            }
            Some(Found { credential: DockerCredential::UsernamePassword(user, password), .. }) => {
                self.may_send(&self.base)?;
                state.generation += 1;
                state.header = Some(basic(&user, &password));
                Ok(())
            }
            Some(Found { source, .. }) => {
                let why = format!("{} asks for a user and password, {source} has an identity token", self.host);
                Err(self.denied(&why))
            }
            None => Err(self.denied(&self.nobody(&troubles))),
        }
    }

    /// Lets the token be at its end.
    #[cfg(test)]
    pub(super) fn expire(&self) {
        if let Some((at, _)) = &mut self.state.lock().expect("state").expires {
            *at = Instant::now();
        }
    }

    /// What a 401 or 403 means after everything was tried.
    pub(super) fn refused(&self, error: &http::Error) -> Error {
        let (found, troubles) = self.files.find(&self.host);
        self.denied(&match found {
            Some(found) if error.status() == Some(401) => {
                format!("{} does not accept the credentials found in {}: {error}", self.host, found.source)
            }
            Some(found) => format!("{error} (with the credentials found in {})", found.source),
            None => format!("{error} ({})", self.nobody(&troubles)),
        })
    }

    fn nobody(&self, troubles: &[String]) -> String {
        let mut text = format!("no credentials for {} in {}", self.host, self.files.list());
        for trouble in troubles {
            let _infallible = write!(text, "; {trouble}");
        }
        text
    }

    fn denied(&self, why: &str) -> Error {
        let action = if self.actions == "pull" { "reading" } else { "writing" };
        Error::Denied { place: format!("{}/{} for {action}", self.host, self.repository), why: why.into() }
    }

    fn may_send(&self, url: &Url) -> Result<(), Error> {
        if address::is_private(url) {
            return Ok(());
        }
        Err(self.denied(&format!("credentials are not sent to {}, which is not encrypted", address::redacted(url))))
    }

    /// Gets a token and puts it into the header; one for our repository alone where none is given for both.
    fn fetch(&self, state: &mut State, challenge: &Challenge) -> Result<(), Error> {
        match self.fetch_for(state, challenge, self.other().as_deref()) {
            Err(Error::Denied { .. }) if let Some(other) = self.other() => {
                self.forget_other();
                self.fetch_for(state, &challenge.without(&other), None)
            }
            result => result,
        }
    }

    fn fetch_for(&self, state: &mut State, challenge: &Challenge, other: Option<&str>) -> Result<(), Error> {
        let unsupported =
            |why: String| Error::Unsupported { what: format!("the authentication of {}", self.host), why };
        let realm = challenge.get("realm").unwrap_or_default();
        let mut url = self.base.join(realm).map_err(|_| unsupported(format!("its realm {realm:?} is not a URL")))?;
        // A registry elsewhere has no business with servers on this machine.
        let local = |u: &Url| address::is_loopback(u.host_str().unwrap_or_default());
        if !matches!(url.scheme(), "http" | "https")
            || !address::is_private(&url)
            || (local(&url) && !local(&self.base))
        {
            return Err(unsupported(format!("its realm {} is not trusted: expected https", address::redacted(&url))));
        }
        let service = challenge.get("service").unwrap_or(self.base.host_str().unwrap_or_default()).to_owned();
        let own = format!("repository:{}:", self.repository);
        let other = other.map(|o| format!("repository:{o}:"));
        let mut scopes = vec![format!("{own}{}", self.actions)];
        scopes.extend(other.iter().map(|o| format!("{o}pull")));
        scopes.extend(
            challenge
                .get("scope")
                .into_iter()
                .flat_map(str::split_whitespace)
                .filter(|s| !s.starts_with(&own) && !other.as_ref().is_some_and(|o| s.starts_with(o)))
                .map(Into::into),
        );
        let (found, troubles) = self.files.find(&self.host);
        let what = || format!("get a token for {}", self.host);
        let response = match &found {
            Some(Found { credential: DockerCredential::IdentityToken(token), .. }) => {
                let scope = scopes.join(" ");
                let form = form(&[
                    ("grant_type", "refresh_token"),
                    ("service", &service),
                    ("client_id", "esgz"),
                    ("scope", &scope),
                    ("refresh_token", token),
                ]);
                let request =
                    self.client.post(url.as_str()).header("content-type", "application/x-www-form-urlencoded");
                request.body(form).send()
            }
            other => {
                let mut pairs = vec![("service", service.as_str())];
                pairs.extend(scopes.iter().map(|s| ("scope", s.as_str())));
                url.query_pairs_mut().extend_pairs(pairs);
                let mut request = self.client.get(url.as_str());
                if let Some(Found { credential: DockerCredential::UsernamePassword(user, password), .. }) = other {
                    request = request.header("authorization", &basic(user, password));
                }
                request.send()
            }
        };
        let response = response.and_then(Response::ok).map_err(|e| match (e.status(), &found) {
            (Some(400 | 401 | 403), Some(found)) => {
                self.denied(&format!("{e} (with the credentials found in {})", found.source))
            }
            (Some(401 | 403), None) => self.denied(&format!("{e} ({})", self.nobody(&troubles))),
            _ => Error::Http { what: what(), source: e },
        })?;
        let bytes = response.bytes(MAX_TOKEN_BYTES).map_err(|source| Error::Http { what: what(), source })?;
        let answer: Value = serde_json::from_slice(&bytes).map_err(|_| unsupported("its token is not JSON".into()))?;
        let token = ["token", "access_token"].iter().find_map(|k| answer.get(k)?.as_str().filter(|t| !t.is_empty()));
        let token = token.ok_or_else(|| unsupported("its token answer has no token".into()))?;
        let life = answer.get("expires_in").and_then(Value::as_u64).map_or(SHORTEST_LIFE, Duration::from_secs);
        state.generation += 1;
        state.header = Some(format!("Bearer {token}"));
        // A far date overflows on some systems; such a token is simply not renewed before it fails.
        let at = Instant::now().checked_add(life.max(SHORTEST_LIFE).saturating_sub(MARGIN));
        state.expires = at.map(|at| (at, challenge.clone()));
        Ok(())
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// `application/x-www-form-urlencoded`.
fn form(pairs: &[(&str, &str)]) -> String {
    let mut url: Url = match "form:".parse() {
        Ok(url) => url,
        Err(_) => return String::new(),
    };
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_however_they_are_written() {
        for (header, expected) in [
            (r#"Basic realm="a b, c""#, "basic realm=a b, c"),
            ("Basic", "basic"),
            (
                r#"Bearer realm="https://h/t",service="s",scope="repository:a:pull,push""#,
                "bearer realm=https://h/t service=s scope=repository:a:pull,push",
            ),
            (r#"BEARER  Realm = "https://h/t" ,  Service=s"#, "bearer realm=https://h/t service=s"),
            ("Bearer realm=https://h/t?a=b", "bearer realm=https://h/t?a=b"),
            (r#"Negotiate, Basic realm="x", Bearer realm="y""#, "negotiate; basic realm=x; bearer realm=y"),
            (r#"Negotiate dG9rZW4=, Basic realm="x""#, "negotiate dg9rzw4=; basic realm=x"),
            (r#"Bearer realm="a\"b\\c",error="insufficient_scope""#, r#"bearer realm=a"b\c error=insufficient_scope"#),
            (r#"Bearer realm="open"#, "bearer realm=open"),
            ("", ""),
            (",, =", ""),
            ("=x", "x"),
        ] {
            let parsed = parse_challenges(header);
            let found = parsed.iter().map(|c| {
                let params = c.params.iter().map(|(n, v)| format!("{n}={v}"));
                [c.scheme.clone()].into_iter().chain(params).collect::<Vec<_>>().join(" ")
            });
            assert_eq!(found.collect::<Vec<_>>().join("; "), expected, "{header}");
        }
    }

    #[test]
    fn credentials_are_found_by_host_in_the_first_file_that_has_them() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let docker = write(
            "config.json",
            r#"{"auths":{"https://a.io":{"auth":"dTpw"},"t.io":{"identitytoken":"id"}},"credHelpers":{"h.io":"esgz-none"}}"#,
        );
        let podman =
            write("auth.json", r#"{"auths":{"a.io":{"auth":"eDp5"},"b.io":{"auth":"eDp5"},"h.io":{"auth":"eDp5"}}}"#);
        let files = Files(vec![docker.clone(), dir.path().join("absent"), podman.clone()]);
        let user = |u: &str, p: &str| DockerCredential::UsernamePassword(u.into(), p.into());
        for (host, expected, troubles) in [
            ("a.io", Some((user("u", "p"), &docker)), 0),
            ("b.io", Some((user("x", "y"), &podman)), 0),
            ("t.io", Some((DockerCredential::IdentityToken("id".into()), &docker)), 0),
            ("h.io", Some((user("x", "y"), &podman)), 1),
            ("a.io.evil.com", None, 0),
            ("io", None, 0),
        ] {
            let (found, trouble) = files.find(host);
            assert_eq!(
                found,
                expected.map(|(credential, p)| Found { credential, source: p.display().to_string() }),
                "{host}"
            );
            assert_eq!(trouble.len(), troubles, "{trouble:?}");
        }
    }

    #[test]
    fn form_values_are_escaped() {
        assert_eq!(
            form(&[("scope", "repository:a/b:pull,push"), ("t", "1&2=3")]),
            "scope=repository%3Aa%2Fb%3Apull%2Cpush&t=1%262%3D3"
        );
    }
}
