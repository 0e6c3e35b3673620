//! Request targets: path segments and query parameters, encoded.
//!
//! Owns percent-encoding. Refuses to know any endpoint. Invariant: what a person typed cannot add a segment or a parameter.

use std::fmt::Write as _;

/// The prefix of Kakoi's API.
const PREFIX: &str = "/kakoi/v1";

/// A request target under construction.
/// Without `Debug`: it may hold a secret.
#[derive(Clone)]
pub struct Target {
    text: String,
    has_query: bool,
    credentials: Option<String>,
}

impl Target {
    /// Starts from a fixed path of the API (`/containers/json`).
    pub fn new(path: &'static str) -> Self {
        Self {
            text: format!("{PREFIX}{path}"),
            has_query: false,
            credentials: None,
        }
    }

    /// Sends credentials for a registry along, in a header.
    pub fn credentials(self, credentials: Option<String>) -> Self {
        Self { credentials, ..self }
    }

    /// The credentials that go along.
    pub fn registry_auth(&self) -> Option<&str> {
        self.credentials.as_deref()
    }

    /// Appends one path segment. Image names keep their slashes, as Docker's clients send them.
    pub fn segment(mut self, segment: &str) -> Self {
        self.text.push('/');
        encode(&mut self.text, segment, |byte| matches!(byte, b'/' | b':' | b'@'));
        self
    }

    /// Appends a query parameter.
    pub fn query(mut self, name: &'static str, value: &str) -> Self {
        self.text.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        self.text.push_str(name);
        self.text.push('=');
        encode(&mut self.text, value, |_| false);
        self
    }

    /// Appends `name=1` where a flag is set.
    pub fn flag(self, name: &'static str, is_set: bool) -> Self {
        if is_set { self.query(name, "1") } else { self }
    }

    /// Appends a parameter that may be absent.
    pub fn maybe(self, name: &'static str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// The target as it goes into the request line.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn encode(text: &mut String, part: &str, is_allowed: impl Fn(u8) -> bool) {
    // A part of dots would be taken as a step in the tree by whatever normalises paths on the way.
    let has_steps = part.split('/').any(|step| matches!(step, "." | ".."));
    for byte in part.bytes() {
        let plain =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') || is_allowed(byte);
        if plain && !(has_steps && matches!(byte, b'.' | b'/')) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("writing to a string succeeds");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(segment: &str, value: &str, expected: &str) {
        let target = Target::new("/x").segment(segment).query("q", value);
        assert_eq!(target.as_str(), format!("/kakoi/v1/x/{expected}"));
    }

    #[test]
    fn what_was_typed_stays_in_its_place() {
        check("web", "1", "web?q=1");
        check("a/b:c@d", "x", "a/b:c@d?q=x");
        check("a?b#c d", "a&b=c", "a%3Fb%23c%20d?q=a%26b%3Dc");
        check("..", "", "%2E%2E?q=");
        check("a/../b", "..", "a%2F%2E%2E%2Fb?q=%2E%2E");
        check("é", "{\"a\":1}", "%C3%A9?q=%7B%22a%22%3A1%7D");
    }
}
