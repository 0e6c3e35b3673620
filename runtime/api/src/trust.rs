//! Who is trusted, and why an image is or is not: Kakoi's own, under `/kakoi/v1/trust`. Nothing here widens what runs.

use std::collections::BTreeMap;

wire! { "PascalCase";
    /// The answer to `GET /kakoi/v1/trust`.
    pub struct Trusting {
        /// What happens where no scope covers a repository: `reject` or `audit`.
        pub default: String,
        /// The scopes.
        pub scopes: Vec<TrustScope>,
        /// The keys.
        pub keys: Vec<TrustKey>,
        /// The versions below which releases do not run.
        pub floors: Vec<TrustFloor>,
        /// By the name of a release, the version that may run below its floor.
        pub downgrades: BTreeMap<String, String>,
        /// Version of the list of revoked keys; 0 where none was taken.
        pub revocations: i64,
    }

    /// What one scope demands.
    pub struct TrustScope {
        /// The registry, or the part of it.
        pub scope: String,
        /// `require`, `audit` or `reject`.
        pub mode: String,
        /// Names of the keys that count.
        pub keys: Vec<String>,
        /// How many distinct ones must have signed.
        pub threshold: i64,
        /// Annotations that a signature must carry.
        pub annotations: BTreeMap<String, String>,
        /// Whether a signed release document is demanded.
        pub release: bool,
    }

    /// A key.
    pub struct TrustKey {
        /// Its name.
        pub name: String,
        /// What it signs with.
        pub algorithm: String,
        /// SHA-256 of its SubjectPublicKeyInfo.
        pub fingerprint: String,
        /// Not valid before this time; empty where it always was.
        pub not_before: String,
        /// Not valid from this time on; empty where there is none.
        pub not_after: String,
        /// Why it does not count now; empty where it does.
        pub fault: String,
    }

    /// The floor of one name.
    pub struct TrustFloor {
        /// What is released.
        pub name: String,
        /// The version that was committed.
        pub version: String,
        /// As which image.
        pub digest: String,
    }

    /// The answer to `GET /kakoi/v1/trust/check`.
    pub struct TrustVerdict {
        /// What was asked about.
        pub image: String,
        /// `store` or `registry`: where it was looked at.
        pub place: String,
        /// The repository under whose name it was judged.
        pub repository: String,
        /// The digests that were judged.
        pub digests: Vec<String>,
        /// The scope that covers it; empty where none does.
        pub scope: String,
        /// The mode that holds.
        pub mode: String,
        /// Whether it runs.
        pub runs: bool,
        /// Whether it is trusted, and does not run only because its scope is audited.
        pub trusted: bool,
        /// Why it is not trusted; empty where it is.
        pub complaint: String,
        /// What would allow it; empty where it runs.
        pub remedy: String,
        /// The release that it was shown to be; empty where none was demanded or shown.
        pub release: String,
        /// The policy that it brings, by its file's name; empty where it brings none that enough keys signed.
        pub policy: String,
        /// When it was let in, RFC 3339.
        pub decided: String,
        /// What was found about each signature.
        pub signatures: Vec<TrustFinding>,
    }

    /// What was found about one signature.
    pub struct TrustFinding {
        /// Digest of the signed payload.
        pub payload: String,
        /// Name of the key that made it; empty where no key of the scope did.
        pub key: String,
        /// The key's fingerprint.
        pub fingerprint: String,
        /// Why it does not count; empty where it does.
        pub fault: String,
    }

    /// The answer to `POST /kakoi/v1/trust/commit`.
    pub struct TrustCommitted {
        /// What is released.
        pub name: String,
        /// Its version.
        pub version: String,
        /// Whether the floor rose.
        pub raised: bool,
    }

    /// The answer to `POST /kakoi/v1/trust/revocations`.
    pub struct TrustRevoked {
        /// Version of the list in force.
        pub version: i64,
        /// Fingerprints of the keys that it revokes.
        pub keys: Vec<String>,
    }
}
