//! Image names as Docker reads and shows them.
//!
//! Owns [`Reference`]: parsing, filling in what a person left out, and the short form shown to people. Pure. Invariant: a `Reference` is
//! complete (registry, repository, tag or digest) and within the grammar of the distribution project, so it holds no byte that a path, a
//! header or a terminal could take amiss.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The registry meant where none is named.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag meant where neither tag nor digest is named.
pub const DEFAULT_TAG: &str = "latest";
/// Longest repository with its registry: the distribution project's own limit.
pub const REPOSITORY_BYTES_MAX: usize = 255;
/// Longest tag: the distribution project's own limit.
pub const TAG_BYTES_MAX: usize = 128;

/// A complete image name: `registry/repository:tag` or `registry/repository@digest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image name.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// Upper-case letters in the repository: the commonest mistake, with its own words as Docker has.
    #[error("invalid reference format: repository name ({text}) must be lowercase")]
    Uppercase {
        /// The repository as given.
        text: String,
    },
    /// Anything else outside the grammar.
    #[error("invalid reference format")]
    Format,
    /// 64 hex digits as a repository would be taken for an image's id.
    #[error("invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId {
        /// The repository as given.
        text: String,
    },
    /// Longer than [`REPOSITORY_BYTES_MAX`].
    #[error(
        "invalid reference format: repository name must not be more than {REPOSITORY_BYTES_MAX} characters"
    )]
    TooLong,
    /// Names both or neither of a tag and a digest where one is needed.
    #[error("refusing to create a tag with a digest reference")]
    DigestForTag,
}

impl Reference {
    /// Parses what a person wrote (`busybox`, `ghcr.io/x/y:1`, `x@sha256:…`) and completes it: registry, `library/`, `:latest`.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if Digest::from_hex(text).is_some() {
            return Err(ReferenceError::LooksLikeId {
                text: text.to_owned(),
            });
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(Digest::parse(digest).map_err(|_| ReferenceError::Format)?),
            ),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            // A colon before a slash belongs to a registry's port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Format);
        }
        let (registry, repository) = split_registry(name);
        if repository.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ReferenceError::Uppercase {
                text: name.chars().take(REPOSITORY_BYTES_MAX).collect(),
            });
        }
        if !is_registry(&registry) || !repository.split('/').all(is_component) {
            return Err(ReferenceError::Format);
        }
        if registry.len() + 1 + repository.len() > REPOSITORY_BYTES_MAX {
            return Err(ReferenceError::TooLong);
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (None, Some(_)) => None,
        };
        Ok(Self {
            registry,
            repository,
            tag,
            digest,
        })
    }

    /// The complete names that a text may stand for, in order; one, unless it is short and there are registries to search.
    pub(crate) fn candidates(text: &str, search: &[String]) -> Result<Vec<Self>, ReferenceError> {
        let parsed = Self::parse(text)?;
        let is_short = !text
            .split_once('/')
            .is_some_and(|(first, _)| Self::names_registry(first));
        if !is_short || search.is_empty() {
            return Ok(vec![parsed]);
        }
        search
            .iter()
            .map(|registry| Self::parse(&format!("{registry}/{text}")))
            .collect()
    }

    /// Parses a name that a tag is to be made of: a digest is refused.
    pub fn parse_tag(text: &str) -> Result<Self, ReferenceError> {
        let parsed = Self::parse(text)?;
        if parsed.digest.is_some() {
            return Err(ReferenceError::DigestForTag);
        }
        Ok(parsed)
    }

    /// Whether the first part of a name is a registry by Docker's rule: it has a dot or a port, is `localhost` or has a capital letter.
    pub(crate) fn names_registry(first: &str) -> bool {
        first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
    }

    /// The same repository at a digest.
    pub(crate) fn at_digest(&self, digest: Digest) -> Self {
        Self {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            tag: None,
            digest: Some(digest),
        }
    }

    /// The registry's host, with its port where it has one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry, `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and repository as people see it: `busybox`, `someone/app`, `ghcr.io/x/y`.
    pub fn familiar_repository(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return format!("{}/{}", self.registry, self.repository);
        }
        match self.repository.strip_prefix("library/") {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.repository.clone(),
        }
    }

    /// The whole name as people see it: `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_repository())
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

/// The complete form, `docker.io/library/busybox:latest`: what is stored.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(format!("{}/{}", self.registry, self.repository)))
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        Self::parse(&text)
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

/// Splits off the registry ([`Reference::names_registry`]).
fn split_registry(name: &str) -> (String, String) {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if Reference::names_registry(first) => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = match registry {
        "index.docker.io" => DEFAULT_REGISTRY,
        other => other,
    };
    if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        return (registry.to_owned(), format!("library/{repository}"));
    }
    (registry.to_owned(), repository.to_owned())
}

/// `[\w][\w.-]{0,127}`
pub(crate) fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= TAG_BYTES_MAX
        && bytes.next().is_some_and(word)
        && bytes.all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// Lower-case letters and digits, separated by one dot, one or two underscores or any number of hyphens.
fn is_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_good = |b: Option<&u8>| b.copied().is_some_and(alphanumeric);
    if !ends_good(bytes.first()) || !ends_good(bytes.last()) {
        return false;
    }
    bytes.split(|b| alphanumeric(*b)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
    })
}

/// Host name, IPv4 address or bracketed IPv6 address, with an optional port.
pub(crate) fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let Some((address, after)) = rest.split_once(']') else {
                return false;
            };
            if !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') || address.is_empty() {
                return false;
            }
            match after.strip_prefix(':') {
                Some(port) => return is_port(port),
                None => return after.is_empty(),
            }
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    port.parse::<u16>().is_ok() && port.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_and_shown_short() {
        for (given, stored, shown) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            (
                "docker.io/busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            (
                "index.docker.io/library/busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            (
                "someone/app",
                "docker.io/someone/app:latest",
                "someone/app:latest",
            ),
            (
                "library/a/b",
                "docker.io/library/a/b:latest",
                "library/a/b:latest",
            ),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
            (
                "ghcr.io/a/b-c_d.e",
                "ghcr.io/a/b-c_d.e:latest",
                "ghcr.io/a/b-c_d.e:latest",
            ),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("UPPER/x", "UPPER/x:latest", "UPPER/x:latest"),
        ] {
            let parsed = Reference::parse(given).expect(given);
            assert_eq!(parsed.to_string(), stored);
            assert_eq!(parsed.familiar(), shown);
            assert_eq!(Reference::parse(stored).expect(stored), parsed);
        }
        let digest = Digest::of(b"");
        let pinned = Reference::parse(&format!("busybox@{digest}")).expect("pinned");
        assert_eq!((pinned.tag(), pinned.digest()), (None, Some(&digest)));
        assert_eq!(pinned.familiar(), format!("busybox@{digest}"));
        assert!(Reference::parse_tag(&format!("busybox@{digest}")).is_err());
    }

    #[test]
    fn what_is_outside_the_grammar_is_refused() {
        let long = "a".repeat(300);
        let long_tag = format!("x:{}", "a".repeat(129));
        for bad in [
            "",
            ":",
            "x:",
            "x:-a",
            "/x",
            "x/",
            "a//b",
            "../x",
            "a/../b",
            "x y",
            "x\n",
            "x\u{1b}[0m",
            "Busybox",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "x@sha256:aa",
            "x:t@",
            "localhost:99999/x",
            "localhost:/x",
            "-a.b/x",
            "x:ä",
            "x%00",
            &long,
            &long_tag,
            Digest::of(b"").hex(),
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }
}
