//! What Kakoi says beyond Docker: policies, what was compiled from them, what the kernel accepted, what it can.

use serde_json::Value;

use crate::secret::SecretUse;

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
        /// The secrets that it is given, never their values.
        pub secrets: Vec<SecretUse>,
    }

    /// The answer to `GET /kakoi/v1/containers/{id}/denials`.
    pub struct Denials {
        /// Name of the container's policy.
        pub policy: String,
        /// Why no refusal is heard of; empty where they are.
        pub not_heard_because: String,
        /// One per kind of refusal, the latest first.
        pub denials: Vec<Denial>,
        /// Refusals whose process was gone before it could be looked up, of whichever container.
        pub unattributed: i64,
        /// How often the kernel dropped records.
        pub missed: i64,
    }

    /// One kind of refusal: a system call of a program.
    pub struct Denial {
        /// The system call's name.
        pub system_call: String,
        /// What the process called itself.
        pub program: String,
        /// `refused`, `killed`, `trapped` or `logged`.
        pub action: String,
        /// How often.
        pub count: i64,
        /// When it was heard first, RFC 3339.
        pub first: String,
        /// When it was heard last, RFC 3339.
        pub last: String,
        /// What decided it; empty where the policy's text is not kept.
        pub because: String,
        /// Where the deciding rule stands; empty where there is none.
        pub rule: String,
        /// A piece of policy that would allow it; empty where none would.
        pub remedy: String,
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

    /// The answer to `POST /kakoi/v1/system/check`.
    pub struct SystemCheck {
        /// Every piece of damage, and what became of it.
        pub findings: Vec<CheckFinding>,
        /// Images that must be fetched again.
        pub lost: Vec<LostImage>,
        /// Images looked at.
        pub images: i64,
        /// Blobs looked at.
        pub blobs: i64,
        /// Unpacked layers looked at.
        pub layers: i64,
        /// Containers looked at.
        pub containers: i64,
        /// Volumes looked at.
        pub volumes: i64,
        /// Whether content was read against its digests.
        pub hashed: bool,
        /// Whether everything is whole, or was made so.
        pub whole: bool,
    }

    /// The answer to `POST /kakoi/v1/system/gc`.
    pub struct RoomMade {
        /// What was removed.
        pub images_deleted: Vec<crate::image::ImageDeleted>,
        /// Bytes.
        pub space_reclaimed: i64,
        /// Bytes that are free now.
        pub free: i64,
        /// Bytes that were to be free.
        pub wanted: i64,
    }

    /// One piece of damage.
    pub struct CheckFinding {
        /// What kind (`blob-missing`).
        pub damage: String,
        /// Where: a path below the daemon's root, or a name.
        pub place: String,
        /// Names of the images, containers or volumes that have it.
        pub of: Vec<String>,
        /// `found`, `healed`, `kept` (it runs, but cannot be saved or pushed), `lost`, `in-use` or `failed`.
        pub outcome: String,
        /// Why, and what to do, where something is left to do.
        pub remedy: String,
    }

    /// An image that must be fetched again.
    pub struct LostImage {
        /// Its id.
        #[serde(rename = "ID")]
        pub id: String,
        /// Its names.
        pub names: Vec<String>,
        /// Containers that use it.
        pub containers: Vec<String>,
        /// The command that brings it back.
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
