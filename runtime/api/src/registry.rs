//! Registries: who asks, and what is there.

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose};

/// The header that carries credentials, as Docker's clients send it.
pub const AUTH_HEADER: &str = "x-registry-auth";

/// Longest header: tokens of cloud registries have up to 12 KiB.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// Clients differ in alphabet and padding.
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
const STANDARD: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Credentials for one registry. Without `Debug`: they are secrets.
#[derive(Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct AuthConfig {
    /// User name.
    #[serde(deserialize_with = "crate::decode::nullable")]
    pub username: String,
    /// Password.
    #[serde(deserialize_with = "crate::decode::nullable")]
    pub password: String,
    /// `user:password` in base 64, where the two above are empty.
    #[serde(
        deserialize_with = "crate::decode::nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub auth: String,
    /// The registry that they are for.
    #[serde(deserialize_with = "crate::decode::nullable")]
    pub serveraddress: String,
    /// A refresh token in place of a password.
    #[serde(
        deserialize_with = "crate::decode::nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub identitytoken: String,
    /// A bearer token to be used as it is.
    #[serde(
        deserialize_with = "crate::decode::nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub registrytoken: String,
}

/// Credentials that cannot be read. Says nothing of what they are.
#[derive(Debug, PartialEq, Eq)]
pub struct AuthError;

impl std::fmt::Display for AuthError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("the credentials (X-Registry-Auth) cannot be read: they are JSON in base 64")
    }
}

impl std::error::Error for AuthError {}

impl AuthConfig {
    /// Reads the header; an empty one means nobody.
    ///
    /// # Errors
    /// It is not base 64 of a JSON object of this shape.
    pub fn from_header(header: &str) -> Result<Self, AuthError> {
        if header.is_empty() {
            return Ok(Self::default());
        }
        if header.len() > HEADER_BYTES_MAX {
            return Err(AuthError);
        }
        let bytes = decode(header).ok_or(AuthError)?;
        let mut read: Self = crate::decode(&bytes).map_err(|_| AuthError)?;
        if read.username.is_empty()
            && let Some((username, password)) = split_pair(&read.auth)
        {
            (read.username, read.password) = (username, password);
        }
        Ok(read)
    }

    /// The header as clients send it.
    pub fn to_header(&self) -> String {
        let bytes = serde_json::to_vec(self).expect("wire types are plain data");
        general_purpose::URL_SAFE.encode(bytes)
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE.decode(text).or_else(|_| STANDARD.decode(text)).ok()
}

/// Takes `user:password` out of base 64, as Docker's `config.json` has it.
pub fn split_pair(encoded: &str) -> Option<(String, String)> {
    let text = String::from_utf8(decode(encoded.trim())?).ok()?;
    let (username, password) = text.trim_end_matches('\0').split_once(':')?;
    Some((username.to_owned(), password.to_owned()))
}

/// Puts `user:password` into base 64.
pub fn join_pair(username: &str, password: &str) -> String {
    general_purpose::STANDARD.encode(format!("{username}:{password}"))
}

wire! { "PascalCase";
    /// The answer to `POST /auth`.
    pub struct AuthAnswer {
        /// `Login Succeeded`.
        pub status: String,
        /// A token to keep instead of the password; empty where there is none.
        pub identity_token: String,
    }

    /// The answer to `GET /distribution/{name}/json`.
    pub struct DistributionInspect {
        /// What the name leads to.
        pub descriptor: Descriptor,
        /// What it runs on.
        pub platforms: Vec<Platform>,
    }

    /// The answer to `GET /kakoi/v1/registry/tags`.
    pub struct Tags {
        /// Registry and repository.
        pub name: String,
        /// As the registry orders them.
        pub tags: Vec<String>,
    }

    /// The answer to `GET /kakoi/v1/registry/manifest`.
    pub struct Manifest {
        /// What the name leads to.
        pub descriptor: Descriptor,
        /// The document, byte for byte.
        pub document: String,
        /// Registry and repository, complete, where a short name led.
        pub repository: String,
    }

    /// The body of `POST /kakoi/v1/registry/attach`: something small that is attached to an image, all of it text.
    pub struct Attach {
        /// The tag of its manifest; none where it refers to the image.
        pub tag: String,
        /// The payloads that the manifest names.
        pub blobs: Vec<String>,
        /// The manifest.
        pub manifest: String,
    }
}

wire! { "camelCase";
    /// A document of a registry.
    pub struct Descriptor {
        /// What it is.
        pub media_type: String,
        /// Its digest.
        pub digest: String,
        /// Bytes.
        pub size: i64,
    }

    /// What an image runs on.
    pub struct Platform {
        /// `amd64` …
        pub architecture: String,
        /// `linux`.
        pub os: String,
        /// `v8` …
        #[serde(skip_serializing_if = "String::is_empty")]
        pub variant: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_travel() {
        let auth = AuthConfig {
            username: String::from("u"),
            password: String::from("p:>?"),
            serveraddress: String::from("r.example"),
            ..AuthConfig::default()
        };
        assert!(AuthConfig::from_header(&auth.to_header()) == Ok(auth));
        // {"auth":"dTpw" } with and without padding.
        for header in ["eyJhdXRoIjoiZFRwdyIgfQ==", "eyJhdXRoIjoiZFRwdyIgfQ"] {
            let read = AuthConfig::from_header(header).unwrap_or_default();
            assert!(read.username == "u" && read.password == "p", "{header}");
        }
        assert!(AuthConfig::from_header("") == Ok(AuthConfig::default()));
        for bad in ["%", "bm8=", "WzFd"] {
            assert!(AuthConfig::from_header(bad) == Err(AuthError), "{bad}");
        }
    }

    #[test]
    fn pairs_are_joined_and_split() {
        assert_eq!(
            split_pair(&join_pair("a", "b:c")),
            Some(("a".into(), "b:c".into()))
        );
        assert_eq!(split_pair("YQ=="), None);
    }
}
