//! The engine itself: version, info, events, disk use.

use std::collections::BTreeMap;

use crate::container::ContainerSummary;
use crate::image::ImageSummary;
use crate::volume::Volume;

wire! { "PascalCase";
    /// The answer to `GET /version`.
    pub struct Version {
        /// Name of the platform.
        pub platform: PlatformName,
        /// Parts and their versions.
        pub components: Vec<Component>,
        /// Version of the engine.
        pub version: String,
        /// Newest API version.
        pub api_version: String,
        /// Oldest API version.
        #[serde(rename = "MinAPIVersion")]
        pub min_api_version: String,
        /// Commit the engine was built from.
        pub git_commit: String,
        /// Empty: there is no Go.
        pub go_version: String,
        /// Operating system.
        pub os: String,
        /// Architecture, in Go's words.
        pub arch: String,
        /// `uname -r`.
        pub kernel_version: String,
        /// When the engine was built.
        pub build_time: String,
    }

    /// Name of the platform.
    pub struct PlatformName {
        /// Name.
        pub name: String,
    }

    /// A part and its version.
    pub struct Component {
        /// Name.
        pub name: String,
        /// Version.
        pub version: String,
        /// More.
        pub details: BTreeMap<String, String>,
    }

    /// The answer to `GET /info`.
    pub struct Info {
        /// A stable id of this engine.
        #[serde(rename = "ID")]
        pub id: String,
        /// Containers.
        pub containers: i64,
        /// Of these running.
        pub containers_running: i64,
        /// Of these paused.
        pub containers_paused: i64,
        /// Of these not running.
        pub containers_stopped: i64,
        /// Images.
        pub images: i64,
        /// Storage driver.
        pub driver: String,
        /// More on it.
        pub driver_status: Vec<[String; 2]>,
        /// Folder of the durable state.
        pub docker_root_dir: String,
        /// Plug-ins by kind.
        pub plugins: BTreeMap<String, Vec<String>>,
        /// Whether the kernel has it.
        pub memory_limit: bool,
        /// Whether the kernel has it.
        pub swap_limit: bool,
        /// Whether the kernel has it.
        pub cpu_cfs_period: bool,
        /// Whether the kernel has it.
        pub cpu_cfs_quota: bool,
        /// Whether the kernel has it.
        #[serde(rename = "CPUShares")]
        pub cpu_shares: bool,
        /// Whether the kernel has it.
        #[serde(rename = "CPUSet")]
        pub cpu_set: bool,
        /// Whether the kernel has it.
        pub pids_limit: bool,
        /// Whether the kernel has it.
        pub oom_kill_disable: bool,
        /// Whether packets are forwarded.
        #[serde(rename = "IPv4Forwarding")]
        pub ipv4_forwarding: bool,
        /// Whether this is a debugging engine.
        pub debug: bool,
        /// Open descriptors of the daemon.
        #[serde(rename = "NFd")]
        pub n_fd: i64,
        /// Threads of the daemon.
        pub n_goroutines: i64,
        /// Now.
        pub system_time: String,
        /// Log driver.
        pub logging_driver: String,
        /// How control groups are managed.
        pub cgroup_driver: String,
        /// `1` or `2`.
        pub cgroup_version: String,
        /// Listening clients of events.
        pub n_events_listener: i64,
        /// `uname -r`.
        pub kernel_version: String,
        /// Name of the operating system.
        pub operating_system: String,
        /// Its version.
        #[serde(rename = "OSVersion")]
        pub os_version: String,
        /// `linux`.
        #[serde(rename = "OSType")]
        pub os_type: String,
        /// `uname -m`.
        pub architecture: String,
        /// Processors.
        #[serde(rename = "NCPU")]
        pub ncpu: i64,
        /// Bytes of memory.
        pub mem_total: i64,
        /// Address of the default registry.
        pub index_server_address: String,
        /// Host name.
        pub name: String,
        /// Labels of the engine.
        pub labels: Vec<String>,
        /// Whether experimental features are on.
        pub experimental_build: bool,
        /// Version of the engine.
        pub server_version: String,
        /// OCI runtimes.
        pub runtimes: BTreeMap<String, serde_json::Value>,
        /// The default one.
        pub default_runtime: String,
        /// Always inactive.
        pub swarm: SwarmInfo,
        /// Whether containers stay up without the daemon.
        pub live_restore_enabled: bool,
        /// Name of the init binary.
        pub init_binary: String,
        /// `name=…`.
        pub security_options: Vec<String>,
        /// What the user should know.
        pub warnings: Option<Vec<String>>,
        /// Parts of Docker's own; there are none here.
        pub containerd_commit: Commit,
        /// The same.
        pub runc_commit: Commit,
        /// The same.
        pub init_commit: Commit,
        /// Of swarms.
        pub generic_resources: Option<Vec<serde_json::Value>>,
        /// The proxy for registries over HTTP, without credentials.
        pub http_proxy: String,
        /// The same over HTTPS.
        pub https_proxy: String,
        /// Hosts that are asked without it.
        pub no_proxy: String,
        /// Of Windows.
        pub isolation: String,
        /// Gone from kernels.
        #[serde(rename = "KernelMemoryTCP")]
        pub kernel_memory_tcp: bool,
        /// Folders of device descriptions, which are not read here.
        #[serde(rename = "CDISpecDirs")]
        pub cdi_spec_dirs: Vec<String>,
        /// Who filters packets.
        pub firewall_backend: FirewallBackend,
        /// How registries are spoken to.
        pub registry_config: RegistryConfig,
    }

    /// The version of a part.
    pub struct Commit {
        /// `N/A`: it is not there.
        #[serde(rename = "ID")]
        pub id: String,
    }

    /// Who filters packets.
    pub struct FirewallBackend {
        /// `nftables`.
        pub driver: String,
    }

    /// How registries are spoken to.
    pub struct RegistryConfig {
        /// None by address: the owner names each.
        #[serde(rename = "InsecureRegistryCIDRs")]
        pub insecure_registry_cidrs: Vec<String>,
        /// By host and port.
        pub index_configs: BTreeMap<String, IndexConfig>,
        /// Mirrors of `docker.io`.
        pub mirrors: Vec<String>,
    }

    /// How one registry is spoken to.
    pub struct IndexConfig {
        /// Host and port.
        pub name: String,
        /// Places that are asked before it.
        pub mirrors: Vec<String>,
        /// Whether by HTTPS, its certificate verified.
        pub secure: bool,
        /// Whether it is `docker.io`.
        pub official: bool,
    }

    /// There is no swarm.
    pub struct SwarmInfo {
        /// `inactive`.
        pub local_node_state: String,
    }

    /// The answer to `GET /system/df`.
    pub struct DiskUsage {
        /// Bytes of all layers.
        pub layers_size: i64,
        /// Images.
        pub images: Vec<ImageSummary>,
        /// Containers, with sizes.
        pub containers: Vec<ContainerSummary>,
        /// Volumes, with use.
        pub volumes: Vec<Volume>,
        /// There is no build cache.
        pub build_cache: Vec<serde_json::Value>,
    }
}

/// Something that happened; one line of `GET /events`.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Event {
    /// The action, in the older place.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// The container or image, in the older place.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The container's image, in the older place.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// `container`, `image`, `volume`, `network` or `daemon`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// `create`, `start`, `die` …
    #[serde(rename = "Action")]
    pub action: String,
    /// What it happened to.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// `local`.
    pub scope: String,
    /// Seconds since 1970.
    pub time: i64,
    /// Nanoseconds since 1970.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// What an event happened to.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Actor {
    /// Id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name, image, labels, exit code …
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}
