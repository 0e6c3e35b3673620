//! Named volumes.

use std::collections::BTreeMap;

wire! { "PascalCase";
    /// The body of `POST /volumes/create`.
    pub struct VolumeBody {
        /// Name; empty for one that is made up.
        pub name: String,
        /// `local` or empty.
        pub driver: String,
        /// Options of the driver.
        pub driver_opts: BTreeMap<String, String>,
        /// Labels.
        pub labels: BTreeMap<String, String>,
    }

    /// A volume.
    pub struct Volume {
        /// When it was made.
        pub created_at: String,
        /// `local`.
        pub driver: String,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// Its folder.
        pub mountpoint: String,
        /// Name.
        pub name: String,
        /// Options of the driver.
        pub options: Option<BTreeMap<String, String>>,
        /// `local`.
        pub scope: String,
        /// Use, where system df asked for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub usage_data: Option<UsageData>,
    }

    /// Use of a volume.
    pub struct UsageData {
        /// Bytes.
        pub size: i64,
        /// Containers that use it.
        pub ref_count: i64,
    }

    /// The list of volumes.
    pub struct VolumeList {
        /// Volumes.
        pub volumes: Vec<Volume>,
        /// What the user should know.
        pub warnings: Option<Vec<String>>,
    }

    /// The answer to prune.
    pub struct VolumesPruned {
        /// Names of the removed volumes.
        pub volumes_deleted: Option<Vec<String>>,
        /// Bytes.
        pub space_reclaimed: i64,
    }
}
