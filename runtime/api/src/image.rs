//! Images.

use std::collections::BTreeMap;

use crate::container::ContainerConfig;

/// The header in which an answer that is an archive tells a person something about it, in one line.
pub const NOTE_HEADER: &str = "kakoi-note";

wire! { "PascalCase";
    /// A row of the list of images.
    pub struct ImageSummary {
        /// `sha256:` id.
        pub id: String,
        /// Id of the parent.
        pub parent_id: String,
        /// Names with tags.
        pub repo_tags: Vec<String>,
        /// Names with digests.
        pub repo_digests: Vec<String>,
        /// Seconds since 1970.
        pub created: i64,
        /// Bytes.
        pub size: i64,
        /// Bytes shared with other images; -1 when not computed.
        pub shared_size: i64,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// Containers that use it; -1 when not computed.
        pub containers: i64,
    }

    /// Everything about one image.
    pub struct ImageInspect {
        /// `sha256:` id.
        pub id: String,
        /// Names with tags.
        pub repo_tags: Vec<String>,
        /// Names with digests.
        pub repo_digests: Vec<String>,
        /// Id of the parent.
        pub parent: String,
        /// Comment.
        pub comment: String,
        /// When it was made.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub created: String,
        /// Version of the engine that made it.
        pub docker_version: String,
        /// Author.
        pub author: String,
        /// What containers inherit.
        pub config: ContainerConfig,
        /// Architecture.
        pub architecture: String,
        /// Variant of the architecture.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub variant: String,
        /// Operating system.
        pub os: String,
        /// Bytes.
        pub size: i64,
        /// The layers' places.
        pub graph_driver: crate::container::GraphDriver,
        /// The layers.
        #[serde(rename = "RootFS")]
        pub root_fs: RootFs,
        /// What only this engine knows.
        pub metadata: ImageMetadata,
    }

    /// The layers of an image.
    pub struct RootFs {
        /// `layers`.
        #[serde(rename = "Type")]
        pub kind: String,
        /// Digests of the unpacked layers, the lowest first.
        pub layers: Vec<String>,
    }

    /// What only this engine knows of an image.
    pub struct ImageMetadata {
        /// When it was last tagged.
        pub last_tag_time: String,
    }

    /// A step of an image's making, the newest first.
    pub struct HistoryEntry {
        /// Id, or `<missing>`.
        pub id: String,
        /// Seconds since 1970.
        pub created: i64,
        /// Command.
        pub created_by: String,
        /// Names with tags.
        pub tags: Option<Vec<String>>,
        /// Bytes.
        pub size: i64,
        /// Comment.
        pub comment: String,
    }

    /// One effect of removing an image.
    pub struct ImageDeleted {
        /// A name that is gone.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub untagged: String,
        /// An id that is gone.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub deleted: String,
    }

    /// The answer to prune.
    pub struct ImagesPruned {
        /// What was removed.
        pub images_deleted: Option<Vec<ImageDeleted>>,
        /// Bytes.
        pub space_reclaimed: i64,
    }
}

wire! { "camelCase";
    /// One line of a long operation (load, import, pull, push): only the fields that apply are present.
    pub struct Progress {
        /// A line for people.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub stream: String,
        /// What is being done.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub status: String,
        /// How far it is.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub progress_detail: Option<ProgressDetail>,
        /// What it is being done to.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub id: String,
        /// Why it failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub error_detail: Option<crate::ErrorBody>,
        /// What a program wants to know in the end.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub aux: Option<serde_json::Value>,
        /// Why it failed, in the older place.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub error: String,
    }

    /// How far a long operation is.
    pub struct ProgressDetail {
        /// Bytes done.
        pub current: i64,
        /// Bytes in all; 0 when unknown.
        #[serde(skip_serializing_if = "is_zero")]
        pub total: i64,
    }
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}
