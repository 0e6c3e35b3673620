//! Repositories and the scopes that cover them.
//!
//! Owns [`Repository`] and [`Scope`]: whole path components, so that `docker.io/library` covers `docker.io/library/x` and never
//! `docker.io/library-evil`. One registry has one spelling here, so that no scope is evaded by `GHCR.IO` or `ghcr.io:443`. Knows no tags: a tag is an opinion of whoever runs the registry.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest repository with its registry: the distribution project's own limit.
const NAME_BYTES_MAX: usize = 255;

/// Docker Hub's name in names of images.
const DOCKER_HUB: &str = "docker.io";

/// The port that a registry without one has.
const HTTPS_PORT: u16 = 443;

/// A complete repository, `docker.io/library/busybox`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository(String);

/// A registry, or a part of it: `docker.io`, `docker.io/library`, `docker.io/library/busybox`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope(String);

/// Why a text is neither.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The first part is no registry.
    #[error(
        "`{text}` does not begin with a registry; Docker Hub's images are `docker.io/library/…` or `docker.io/OWNER/…`"
    )]
    Registry {
        /// The text, shortened.
        text: String,
    },
    /// A scope that spells its registry in another way than is compared.
    #[error("`{text}` is written `{canonical}` here")]
    Spelling {
        /// The text, shortened.
        text: String,
        /// How to write it, shortened.
        canonical: String,
    },
    /// Outside the grammar of the distribution project.
    #[error("`{text}` is not `REGISTRY/PATH` in lower case, without tag, digest or trailing slash")]
    Grammar {
        /// The text, shortened.
        text: String,
    },
}

impl Repository {
    /// Parses a complete repository, without tag or digest. Its registry gets the spelling that scopes have: lower case, without the port of
    /// HTTPS, and `docker.io` for any of Docker Hub's hosts.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check(text)?;
        if !text.contains('/') {
            return Err(NameError::Grammar { text: shown(text) });
        }
        Ok(Self(canonical(text)))
    }

    /// Reads what signers write: with or without tag and digest, Docker Hub under any of its names.
    pub fn from_docker_reference(text: &str) -> Result<Self, NameError> {
        let name = text.split_once('@').map_or(text, |(name, _)| name);
        // A colon before a slash belongs to the registry's port.
        let name = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => name,
            _ => name,
        };
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if is_registry(first) => (first, path),
            _ => ("docker.io", name),
        };
        if canonical(registry) != DOCKER_HUB {
            return Self::parse(name);
        }
        let library = if path.contains('/') { "" } else { "library/" };
        Self::parse(&format!("docker.io/{library}{path}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The scope that a refusal proposes: what lies beside this repository, but never a whole registry.
    pub fn neighbourhood(&self) -> &str {
        match self.0.rsplit_once('/') {
            Some((parent, _)) if parent.contains('/') => parent,
            _ => &self.0,
        }
    }
}

impl Scope {
    /// Parses a scope, whose registry has to be spelled as repositories are compared: two spellings could say two things.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check(text)?;
        let canonical = canonical(text);
        if canonical != text {
            return Err(NameError::Spelling {
                text: shown(text),
                canonical: shown(&canonical),
            });
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether a repository lies in it.
    pub fn covers(&self, repository: &Repository) -> bool {
        repository
            .0
            .strip_prefix(&self.0)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(text: &str) -> Result<(), NameError> {
    let mut parts = text.split('/');
    if !parts.next().is_some_and(is_registry) {
        return Err(NameError::Registry { text: shown(text) });
    }
    if text.len() > NAME_BYTES_MAX || !parts.all(is_component) {
        return Err(NameError::Grammar { text: shown(text) });
    }
    Ok(())
}

/// The one spelling of a registry, with what follows it.
fn canonical(text: &str) -> String {
    let (registry, path) = match text.split_once('/') {
        Some((registry, path)) => (registry, Some(path)),
        None => (text, None),
    };
    let registry = registry.to_ascii_lowercase();
    let registry = match registry.rsplit_once(':') {
        // `:0443` is the same port.
        Some((host, port))
            if port.parse() == Ok(HTTPS_PORT) && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => &registry,
    };
    let registry = match registry {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => DOCKER_HUB,
        other => other,
    };
    match path {
        Some(path) => format!("{registry}/{path}"),
        None => registry.to_owned(),
    }
}

fn shown(text: &str) -> String {
    text.chars()
        .filter(|c| !crate::diagnostics::is_unprintable(*c))
        .take(100)
        .collect()
}

/// Docker's rule for what is a host: a dot, a port, or `localhost`.
fn is_registry(part: &str) -> bool {
    let known = part.contains(['.', ':']) || part == "localhost";
    let (host, port) = match part.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) if host.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') => (host, port),
            _ => return false,
        },
        None => {
            let at = part.find(':').unwrap_or(part.len());
            let (host, port) = part.split_at(at);
            let good = |label: &str| {
                label.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && !label.ends_with('-')
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            };
            if !host.split('.').all(good) {
                return false;
            }
            (host, port)
        }
    };
    let digits = port.strip_prefix(':').unwrap_or("0");
    known
        && !host.is_empty()
        && (port.is_empty() || port.starts_with(':'))
        && digits.parse::<u16>().is_ok()
        && digits.bytes().all(|b| b.is_ascii_digit())
}

/// Lower-case letters and digits, separated by one dot, one or two underscores or any number of hyphens.
fn is_component(part: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = |b: Option<&u8>| b.is_some_and(|b| word(*b));
    ends(part.as_bytes().first())
        && ends(part.as_bytes().last())
        && part
            .as_bytes()
            .split(|b| word(*b))
            .all(|gap| matches!(gap, b"" | b"." | b"_" | b"__") || gap.iter().all(|b| *b == b'-'))
}

macro_rules! as_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

as_text!(Repository);
as_text!(Scope);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_cover_whole_components() {
        let repository = Repository::parse("docker.io/library/x").expect("good");
        for (scope, covers) in [
            ("docker.io", true),
            ("docker.io/library", true),
            ("docker.io/library/x", true),
            ("docker.io/lib", false),
            ("docker.io/library/x/y", false),
            ("docker.io/library/xy", false),
            ("docker.io:5000", false),
        ] {
            assert_eq!(
                Scope::parse(scope).expect(scope).covers(&repository),
                covers,
                "{scope}"
            );
        }
        let library = Scope::parse("docker.io/library").expect("good");
        for evil in [
            "docker.io/library-evil/x",
            "docker.io/library-evil",
            "docker.io.evil.org/library/x",
        ] {
            assert!(!library.covers(&Repository::parse(evil).expect(evil)), "{evil}");
        }
    }

    #[test]
    fn no_spelling_of_a_registry_evades_a_scope() {
        for (scope, spelled) in [
            ("ghcr.io/acme", "GHCR.IO/acme/app"),
            ("ghcr.io/acme", "ghcr.io:443/acme/app"),
            ("ghcr.io/acme", "Ghcr.io:0443/acme/app"),
            ("docker.io/library", "index.docker.io/library/app"),
            ("docker.io/library", "registry-1.docker.io/library/app"),
            ("docker.io/library", "Registry-1.Docker.IO:443/library/app"),
            ("[::1]/a", "[::1]:443/a/b"),
        ] {
            let covers = Scope::parse(scope)
                .expect(scope)
                .covers(&Repository::parse(spelled).expect(spelled));
            assert!(covers, "{spelled}");
            let refused = Scope::parse(spelled).expect_err(spelled).to_string();
            assert!(refused.contains(scope), "{refused}");
        }
        for (scope, other) in [
            ("ghcr.io", "ghcr.io:5000/a"),
            ("[::1]", "[::443]/a"),
            ("ghcr.io", "ghcr.io:80/a"),
        ] {
            let other = Repository::parse(other).expect(other);
            assert!(!Scope::parse(scope).expect(scope).covers(&other), "{other}");
        }
    }

    #[test]
    fn names_outside_the_grammar_are_refused() {
        for bad in [
            "",
            "/",
            "library",
            "library/x",
            "docker.io/",
            "docker.io//x",
            "docker.io/X",
            "docker.io/x:1",
            "docker.io/../x",
            "docker.io/x@sha256:0",
            "docker.io/*",
            "docker.io:x/y",
            "docker.io:/y",
            "-a.b/x",
            "docker.io/x\n",
            "[::1/x",
            "[::1]x/x",
            ".",
            ":80",
        ] {
            assert!(Scope::parse(bad).is_err(), "{bad}");
        }
        for good in [
            "localhost/x",
            "127.0.0.1:5000/a/b",
            "[::1]:5000/a",
            "ghcr.io/a/b-c_d.e",
        ] {
            assert!(Repository::parse(good).is_ok(), "{good}");
        }
        assert!(Repository::parse("docker.io").is_err());
    }

    #[test]
    fn references_of_signers_are_completed() {
        for (given, name) in [
            ("busybox", "docker.io/library/busybox"),
            ("index.docker.io/library/busybox", "docker.io/library/busybox"),
            ("docker.io/acme/app:1", "docker.io/acme/app"),
            ("acme/app@sha256:00", "docker.io/acme/app"),
            ("127.0.0.1:5000/acme/app:1", "127.0.0.1:5000/acme/app"),
            ("127.0.0.1:5000/acme/app", "127.0.0.1:5000/acme/app"),
        ] {
            assert_eq!(
                Repository::from_docker_reference(given).expect(given).as_str(),
                name
            );
        }
        assert!(Repository::from_docker_reference("").is_err());
        assert!(Repository::from_docker_reference("a b").is_err());
    }
}
