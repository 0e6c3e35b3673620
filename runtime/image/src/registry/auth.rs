//! Who asks: credentials, challenges, tokens.
//!
//! Owns the reading of `WWW-Authenticate` (RFC 7235) and the token protocol of the distribution project. Refuses to send anything: the client
//! does. Invariant: secrets have no `Debug` and appear in no error.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

/// Most challenges of one answer that are looked at.
const CHALLENGES_MAX: usize = 8;

/// What a person, or a helper program, gave for one registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// User name; empty where there is only a token.
    pub username: String,
    /// Password.
    pub password: String,
    /// A refresh token, given out instead of a password.
    pub identity_token: String,
    /// A bearer token, used as it is.
    pub registry_token: String,
}

impl Credentials {
    /// Whether there is nothing in them.
    pub fn is_empty(&self) -> bool {
        self.username.is_empty() && self.identity_token.is_empty() && self.registry_token.is_empty()
    }

    pub(crate) fn basic(&self) -> String {
        let pair = format!("{}:{}", self.username, self.password);
        format!("Basic {}", BASE64_STANDARD.encode(pair))
    }
}

/// What a registry wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: String },
}

/// Chooses among the challenges of an answer: a token where one can be had.
pub(crate) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let found: Vec<Challenge> = headers.flat_map(parse).take(CHALLENGES_MAX).collect();
    let is_bearer = |challenge: &&Challenge| matches!(challenge, Challenge::Bearer { .. });
    found.iter().find(is_bearer).or(found.first()).cloned()
}

/// Reads one header, which may hold several challenges.
fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',', '\t']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        match after.strip_prefix('=') {
            Some(value) => {
                let (value, after) = value_of(value);
                if let Some((_, parameters)) = challenges.last_mut() {
                    parameters.push((word.to_ascii_lowercase(), value));
                }
                rest = after;
            }
            None if word.is_empty() => {}
            None => challenges.push((word.to_ascii_lowercase(), Vec::new())),
        }
        if rest.len() == after.len() + word.len() {
            rest = after;
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    challenges
        .into_iter()
        .filter_map(|(scheme, parameters)| {
            let get = |name: &str| {
                let found = parameters.iter().find(|(key, _)| key == name);
                found.map(|(_, value)| value.clone())
            };
            match scheme.as_str() {
                "basic" => Some(Challenge::Basic),
                "bearer" => Some(Challenge::Bearer {
                    realm: get("realm")?,
                    service: get("service").unwrap_or_default(),
                }),
                _ => None,
            }
        })
        .collect()
}

/// A token or quoted string, and what follows it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// The answer of a token service.
#[derive(Deserialize)]
pub(crate) struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl TokenAnswer {
    /// The `Authorization` header to send; `None` where there is no token in the answer.
    pub(crate) fn header(self) -> Option<String> {
        let token = match self.token.is_empty() {
            true => self.access_token,
            false => self.token,
        };
        let is_plain = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        is_plain.then(|| format!("Bearer {token}"))
    }
}

/// A value within a query or a form.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.to_owned(),
        })
    }

    #[test]
    fn challenges_are_read_as_servers_write_them() {
        for (headers, wanted) in [
            (
                &[r#"Bearer realm="https://a/token",service="s",scope="repository:x/y:pull,push""#][..],
                bearer("https://a/token", "s"),
            ),
            (&["Basic realm=\"x\""], Some(Challenge::Basic)),
            (&["basic"], Some(Challenge::Basic)),
            (
                &[r#"Basic realm="a, b=c", bearer realm=https://t , service="q\"q""#],
                bearer("https://t", "q\"q"),
            ),
            (
                &["Basic realm=\"x\"", "Bearer realm=\"https://a\""],
                bearer("https://a", ""),
            ),
            (&["Negotiate", "Digest realm=\"x\""], None),
            (&["Bearer service=\"s\""], None),
            (
                &["", "=", "==,=", "Bearer realm=\"unclosed"],
                bearer("unclosed", ""),
            ),
            (&[], None),
        ] {
            assert_eq!(choose(headers.iter().copied()), wanted, "{headers:?}");
        }
    }

    #[test]
    fn only_a_plain_token_becomes_a_header() {
        let header = |text: &str| serde_json::from_str::<TokenAnswer>(text).expect("json").header();
        assert_eq!(
            header(r#"{"token":"a.b-c","expires_in":60}"#),
            Some("Bearer a.b-c".into())
        );
        assert_eq!(header(r#"{"access_token":"x"}"#), Some("Bearer x".into()));
        for bad in ["{}", r#"{"token":"a\r\nHost: x"}"#, r#"{"token":"a b"}"#] {
            assert_eq!(header(bad), None);
        }
    }

    #[test]
    fn values_are_encoded() {
        assert_eq!(
            encode("repository:a/b_c:pull,push ~"),
            "repository%3Aa%2Fb_c%3Apull%2Cpush%20~"
        );
    }
}
