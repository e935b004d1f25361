//! Where an image is: `host/repository[:tag][@digest]` in a registry, `oci:DIR[:TAG]` in an OCI layout
//! folder, `oci-archive:FILE[:TAG]` or `docker-archive:FILE[:NAME]` in a tar file.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::Error;
use crate::digest::Digest;

/// A place an image can be read from or written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A repository of a registry.
    Registry(RegistryReference),
    /// An OCI image layout folder.
    Layout {
        /// The folder that holds `oci-layout`.
        dir: PathBuf,
        /// `org.opencontainers.image.ref.name` of the image; the only image of the folder when absent.
        tag: Option<String>,
    },
    /// A tar file of an OCI image layout.
    OciArchive {
        /// The file.
        file: PathBuf,
        /// Tag inside; the only image when absent.
        tag: Option<String>,
    },
    /// What `docker save` writes.
    DockerArchive {
        /// The file.
        file: PathBuf,
        /// `repository:tag` inside; the only image when absent.
        name: Option<String>,
    },
}

/// A repository of a registry, with the tag or digest of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryReference {
    /// Host and optional port.
    pub host: String,
    /// Repository path.
    pub repository: String,
    /// Tag; `latest` when neither tag nor digest was given.
    pub tag: Option<String>,
    /// Digest, which wins over the tag when reading.
    pub digest: Option<Digest>,
}

impl RegistryReference {
    /// What stands behind `/manifests/` when reading.
    pub fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(d), _) => d.to_string(),
            (None, Some(t)) => t.clone(),
            (None, None) => "latest".into(),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let fail = |why| Error::Reference { found: s.chars().take(200).collect(), why };
        // A tag cannot hold a slash, so a colon inside a file name is told apart from the tag's.
        let place_and_tag = |rest: &str, none| {
            let (place, tag) = match rest.rsplit_once(':') {
                Some((place, tag)) if !tag.contains('/') => (place, Some(tag)),
                _ => (rest, None),
            };
            if place.is_empty() {
                return Err(fail(none));
            }
            if tag.is_some_and(|t| !is_tag(t)) {
                return Err(fail("the tag is not [A-Za-z0-9_][A-Za-z0-9._-]{0,127}"));
            }
            Ok((place.into(), tag.map(Into::into)))
        };
        if let Some(rest) = s.strip_prefix("oci:") {
            let (dir, tag) = place_and_tag(rest, "no folder after \"oci:\"")?;
            return Ok(Self::Layout { dir, tag });
        }
        if let Some(rest) = s.strip_prefix("oci-archive:") {
            let (file, tag) = place_and_tag(rest, "no file after \"oci-archive:\"")?;
            return Ok(Self::OciArchive { file, tag });
        }
        if let Some(rest) = s.strip_prefix("docker-archive:") {
            // A name may hold slashes and a port: everything behind the first colon is the name.
            let (file, name) = rest.split_once(':').map_or((rest, None), |(file, name)| (file, Some(name)));
            if file.is_empty() || name.is_some_and(str::is_empty) {
                return Err(fail("expected docker-archive:FILE or docker-archive:FILE:repository:tag"));
            }
            return Ok(Self::DockerArchive { file: file.into(), name: name.map(Into::into) });
        }
        for scheme in ["http://", "https://"] {
            if s.starts_with(scheme) {
                return Err(fail("write it without the scheme: host/repository:tag"));
            }
        }
        for later in ["docker-daemon:", "docker://", "dir:"] {
            if s.starts_with(later) {
                return Err(fail("this transport is not supported: use host/repository:tag or oci:DIR:TAG"));
            }
        }
        let (name, digest) = match s.split_once('@') {
            Some((n, d)) => (n, Some(d.parse().map_err(|_| fail("the digest is not sha256:<64 hex digits>"))?)),
            None => (s, None),
        };
        let (host, path) = name.split_once('/').ok_or_else(|| fail("expected host/repository:tag or oci:DIR:TAG"))?;
        if !(host.contains('.') || host.contains(':') || host == "localhost") {
            return Err(fail(
                "no registry host in front of the repository (for Docker Hub write docker.io/library/NAME)",
            ));
        }
        if !host.bytes().all(|c| c.is_ascii_alphanumeric() || b".-:[]".contains(&c)) {
            return Err(fail("the registry host has characters that no host has"));
        }
        let (repository, tag) = match path.rsplit_once(':') {
            Some((r, t)) => (r, Some(t)),
            None => (path, None),
        };
        let component = |c: &str| {
            !c.is_empty()
                && c.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
                && c.starts_with(|b: char| b.is_ascii_alphanumeric())
        };
        if repository.is_empty() || !repository.split('/').all(component) {
            return Err(fail("the repository is not lower-case letters, digits and [._-] between slashes"));
        }
        if tag.is_some_and(|t| !is_tag(t)) {
            return Err(fail("the tag is not [A-Za-z0-9_][A-Za-z0-9._-]{0,127}"));
        }
        Ok(Self::Registry(RegistryReference {
            host: host.into(),
            repository: repository.into(),
            tag: tag.map(Into::into).or_else(|| digest.is_none().then(|| "latest".into())),
            digest,
        }))
    }
}

fn is_tag(t: &str) -> bool {
    (1..=128).contains(&t.len())
        && t.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c))
        && t.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
}

impl fmt::Display for RegistryReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(t) = &self.tag {
            write!(f, ":{t}")?;
        }
        if let Some(d) = &self.digest {
            write!(f, "@{d}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(r) => fmt::Display::fmt(r, f),
            Self::Layout { dir, tag: Some(t) } => write!(f, "oci:{}:{t}", dir.display()),
            Self::Layout { dir, tag: None } => write!(f, "oci:{}", dir.display()),
            Self::OciArchive { file, tag: Some(t) } => write!(f, "oci-archive:{}:{t}", file.display()),
            Self::OciArchive { file, tag: None } => write!(f, "oci-archive:{}", file.display()),
            Self::DockerArchive { file, name: Some(n) } => write!(f, "docker-archive:{}:{n}", file.display()),
            Self::DockerArchive { file, name: None } => write!(f, "docker-archive:{}", file.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_parsed_prints_the_same() {
        let digest = Digest::of(b"x");
        for s in [
            "oci:dir".to_owned(),
            "oci:/a/b:c/d".into(),
            "oci:dir:v1.0".into(),
            "oci-archive:/a/b.tar".into(),
            "oci-archive:b.tar:v1".into(),
            "docker-archive:/a/b.tar".into(),
            "docker-archive:b.tar:h.io:5000/a/b:v1".into(),
            "127.0.0.1:5000/a/b:t".into(),
            "europe-west1-docker.pkg.dev/p/r/i:latest".into(),
            format!("localhost/a@{digest}"),
            format!("h.io/a:t@{digest}"),
        ] {
            assert_eq!(s.parse::<Reference>().unwrap_or_else(|e| panic!("{e}")).to_string(), s);
        }
    }

    #[test]
    fn a_reference_without_tag_means_latest() {
        assert_eq!("h.io/a".parse::<Reference>().expect("valid").to_string(), "h.io/a:latest");
    }

    #[test]
    fn wrong_references_say_why() {
        for s in [
            "",
            "oci:",
            "vllm",
            "vllm/vllm-openai:v1",
            "https://h.io/a",
            "h.io/A",
            "h.io/a:",
            "h.io/a@sha256:0",
            "docker://h.io/a",
            "oci:x:",
            "oci-archive:",
            "docker-archive:x:",
            "h.io/../a",
            "h.io//a",
        ] {
            assert!(s.parse::<Reference>().is_err(), "{s}");
        }
    }
}
