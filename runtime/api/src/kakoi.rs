//! What Kakoi says beyond Docker: policies, what was compiled from them, what the kernel accepted, what it can.

use serde_json::Value;

wire! { "PascalCase";
    /// A container's policy: `Source`, a whole policy, or `Name`, one that the daemon knows.
    pub struct PolicyChoice {
        /// Name; of a policy the daemon knows where there is no source.
        pub name: String,
        /// The policy's text.
        pub source: Option<String>,
    }

    /// What confines a container, in the answer to inspect.
    pub struct ContainerKakoi {
        /// Name of the policy.
        pub policy: String,
        /// SHA-256 over the composed policy.
        pub policy_sha256: String,
        /// What was compiled.
        pub confinement: Value,
        /// What the kernel accepted when it was started last; `null` before.
        pub receipt: Value,
    }

    /// The answer to `GET /kakoi/v1/doctor`.
    pub struct Doctor {
        /// One per thing that was looked at.
        pub findings: Vec<Finding>,
        /// What the kernel can enforce, as data.
        pub facts: Value,
    }

    /// One thing that was looked at.
    pub struct Finding {
        /// What (`landlock`).
        pub name: String,
        /// `ok`, `degraded`, `missing` or `unknown`.
        pub status: String,
        /// What was found.
        pub found: String,
        /// What it costs, where something is missing.
        pub cost: String,
        /// What to do about it.
        pub remedy: String,
    }

    /// A row of `GET /kakoi/v1/policies`.
    pub struct PolicySummary {
        /// Name.
        pub name: String,
        /// `shipped` or `local`.
        pub origin: String,
        /// Its first line of description.
        pub description: String,
        /// Why it cannot be used; empty where it can.
        pub error: String,
    }

    /// The answer to `GET /kakoi/v1/policies/{name}`.
    pub struct PolicyText {
        /// Name.
        pub name: String,
        /// `shipped` or `local`.
        pub origin: String,
        /// The text.
        pub source: String,
    }
}
