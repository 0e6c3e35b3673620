//! Secrets: what is told of them. Their values go in, and come out in containers alone.

use std::collections::BTreeMap;

wire! { "PascalCase";
    /// A secret as it is listed, and the answer to `POST /kakoi/v1/secrets/create`.
    pub struct Secret {
        /// 25 hex digits; another value is another secret.
        #[serde(rename = "ID")]
        pub id: String,
        /// Name.
        pub name: String,
        /// When it was made, RFC 3339.
        pub created_at: String,
        /// When its value was given, RFC 3339.
        pub updated_at: String,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// Containers that are given it, by name.
        pub used_by: Vec<String>,
    }

    /// A secret that a container is given: as a file in memory, or, with `Env`, in a variable.
    pub struct SecretUse {
        /// Its name.
        pub name: String,
        /// The variable; empty for a file.
        pub env: String,
        /// The file's path; empty for `/run/secrets/NAME`.
        pub target: String,
        /// The owner's id inside.
        #[serde(rename = "UID")]
        pub uid: u32,
        /// The group's id inside.
        #[serde(rename = "GID")]
        pub gid: u32,
        /// The file's mode; 0 for 0444.
        pub mode: u32,
    }
}
