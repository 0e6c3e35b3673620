//! Containers: creating, listing, inspecting, waiting, updating.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kakoi::{ContainerKakoi, PolicyChoice};
use crate::network::EndpointSettings;
use crate::secret::SecretUse;
use crate::{Empty, Words};

/// The body of `POST /containers/create`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CreateBody {
    /// The portable part.
    #[serde(flatten)]
    pub config: ContainerConfig,
    /// The part that depends on the host.
    #[serde(rename = "HostConfig", default, deserialize_with = "crate::decode::nullable")]
    pub host_config: HostConfig,
    /// The networks.
    #[serde(
        rename = "NetworkingConfig",
        default,
        deserialize_with = "crate::decode::nullable"
    )]
    pub networking_config: NetworkingConfig,
    /// Kakoi's own: the policy, where it is neither in a label nor in `SecurityOpt`.
    #[serde(rename = "Policy", default, deserialize_with = "crate::decode::nullable")]
    pub policy: Option<PolicyChoice>,
    /// Kakoi's own: the secrets that it is given.
    #[serde(rename = "Secrets", default, deserialize_with = "crate::decode::nullable")]
    pub secrets: Vec<SecretUse>,
}

wire! { "PascalCase";
    /// The portable part of a container's configuration; images carry one too.
    pub struct ContainerConfig {
        /// Host name; empty means the short id.
        pub hostname: String,
        /// NIS domain name.
        pub domainname: String,
        /// `user[:group]`, names or numbers; empty means the image's.
        pub user: String,
        /// Whether the client attaches to standard input.
        pub attach_stdin: bool,
        /// Whether the client attaches to standard output.
        pub attach_stdout: bool,
        /// Whether the client attaches to standard error.
        pub attach_stderr: bool,
        /// Ports that the image says it serves (`80/tcp`).
        pub exposed_ports: BTreeMap<String, Empty>,
        /// Whether there is a terminal.
        pub tty: bool,
        /// Whether standard input stays open without a client.
        pub open_stdin: bool,
        /// Whether standard input is closed when the first client leaves.
        pub stdin_once: bool,
        /// `NAME=value`; a `NAME` alone removes the image's variable.
        pub env: Vec<String>,
        /// Arguments; `null` means the image's.
        pub cmd: Option<Words>,
        /// How health is tested.
        pub healthcheck: Option<HealthConfig>,
        /// Whether the command is escaped already (Windows).
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        pub args_escaped: bool,
        /// The image, as the user wrote it.
        pub image: String,
        /// Places of anonymous volumes.
        pub volumes: BTreeMap<String, Empty>,
        /// Working directory; empty means the image's.
        pub working_dir: String,
        /// Program; `null` means the image's, `[]` none.
        pub entrypoint: Option<Words>,
        /// Docker's way to say that the network is off; superseded by `NetworkMode`.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        pub network_disabled: bool,
        /// A fixed hardware address.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub mac_address: String,
        /// Build triggers of the image.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub on_build: Option<Vec<String>>,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// The signal of `stop` (`SIGTERM`, `15`).
        #[serde(skip_serializing_if = "String::is_empty")]
        pub stop_signal: String,
        /// Seconds of grace of `stop`; `null` means 10.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub stop_timeout: Option<i64>,
        /// The shell of the image's shell forms.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub shell: Option<Vec<String>>,
    }

    /// How health is tested; times in nanoseconds, 0 means inherited.
    pub struct HealthConfig {
        /// `[]` inherited, `["NONE"]` off, `["CMD", …]`, `["CMD-SHELL", line]`.
        pub test: Vec<String>,
        /// Time between two tests.
        pub interval: i64,
        /// Time after which a test has failed.
        pub timeout: i64,
        /// Time after the start in which failures do not count.
        pub start_period: i64,
        /// Time between two tests during the start period.
        pub start_interval: i64,
        /// Failures in a row that make a container unhealthy.
        pub retries: i64,
    }

    /// The part of a container's configuration that depends on the host. Lists that nobody gave are `null`, as a nil slice of Go's is.
    pub struct HostConfig {
        /// `source:target[:options]`, source being a path or a volume.
        #[serde(serialize_with = "crate::wire::null_if_empty")]
        pub binds: Vec<String>,
        /// A file that receives the id.
        #[serde(rename = "ContainerIDFile")]
        pub container_id_file: String,
        /// Where output is kept.
        pub log_config: LogConfig,
        /// `none`, `host`, `bridge`, `default`, `container:<id>` or a network.
        pub network_mode: String,
        /// Published ports.
        pub port_bindings: BTreeMap<String, Option<Vec<PortBinding>>>,
        /// When the container is started again.
        pub restart_policy: RestartPolicy,
        /// Whether the container is removed when it ends.
        pub auto_remove: bool,
        /// Volume driver of `Binds`.
        pub volume_driver: String,
        /// Containers whose volumes are taken over.
        #[serde(serialize_with = "crate::wire::null_if_empty")]
        pub volumes_from: Vec<String>,
        /// Rows and columns of the client's terminal.
        pub console_size: [u16; 2],
        /// Annotations for the OCI runtime.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub annotations: BTreeMap<String, String>,
        /// Capabilities added to the policy's.
        #[serde(serialize_with = "crate::wire::null_if_empty")]
        pub cap_add: Vec<String>,
        /// Capabilities taken from the policy's.
        #[serde(serialize_with = "crate::wire::null_if_empty")]
        pub cap_drop: Vec<String>,
        /// `private`, `host` or empty.
        pub cgroupns_mode: String,
        /// Name servers.
        pub dns: Vec<String>,
        /// Resolver options.
        pub dns_options: Vec<String>,
        /// Search domains.
        pub dns_search: Vec<String>,
        /// Lines of `/etc/hosts`, `name:address`.
        #[serde(serialize_with = "crate::wire::null_if_empty")]
        pub extra_hosts: Vec<String>,
        /// Whether the image's own `/etc/hosts` stays (Kakoi's own).
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        pub no_hosts: bool,
        /// Supplementary groups.
        #[serde(serialize_with = "crate::wire::null_if_empty")]
        pub group_add: Vec<String>,
        /// `private`, `host`, `shareable`, `container:<id>`, `none` or empty.
        pub ipc_mode: String,
        /// Superseded.
        pub cgroup: String,
        /// Links to other containers.
        #[serde(serialize_with = "crate::wire::null_if_empty")]
        pub links: Vec<String>,
        /// `-1000..=1000`.
        pub oom_score_adj: i64,
        /// `host`, `container:<id>` or empty.
        pub pid_mode: String,
        /// Whether everything is allowed: subject to the owner's permission.
        pub privileged: bool,
        /// Whether exposed ports are published.
        pub publish_all_ports: bool,
        /// Whether the root file system is read-only.
        pub readonly_rootfs: bool,
        /// `no-new-privileges`, `seccomp=…`, `kakoi=<policy>` …
        #[serde(serialize_with = "crate::wire::null_if_empty")]
        pub security_opt: Vec<String>,
        /// Storage options.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub storage_opt: BTreeMap<String, String>,
        /// Memory file systems: place to options.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub tmpfs: BTreeMap<String, String>,
        /// `host` or empty.
        #[serde(rename = "UTSMode")]
        pub uts_mode: String,
        /// `host`, `auto`, `keep-id` or empty.
        pub userns_mode: String,
        /// Bytes of `/dev/shm`; 0 means 64 MiB.
        pub shm_size: i64,
        /// Namespaced kernel settings.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub sysctls: BTreeMap<String, String>,
        /// Name of the OCI runtime.
        pub runtime: String,
        /// Windows.
        pub isolation: String,
        /// Relative processor weight.
        pub cpu_shares: i64,
        /// Bytes of memory; 0 means no limit.
        pub memory: i64,
        /// Thousandths of a millionth of a processor.
        pub nano_cpus: i64,
        /// Parent control group.
        pub cgroup_parent: String,
        /// Relative block I/O weight.
        pub blkio_weight: u16,
        /// Block I/O weight per device.
        #[serde(serialize_with = "crate::wire::null_if_empty")]
        pub blkio_weight_device: Vec<serde_json::Value>,
        /// Read rates per device.
        #[serde(serialize_with = "crate::wire::null_if_empty")]
        pub blkio_device_read_bps: Vec<ThrottleDevice>,
        /// Write rates per device.
        #[serde(serialize_with = "crate::wire::null_if_empty")]
        pub blkio_device_write_bps: Vec<ThrottleDevice>,
        /// Read operations per device.
        #[serde(rename = "BlkioDeviceReadIOps")]
        #[serde(serialize_with = "crate::wire::null_if_empty")]
        pub blkio_device_read_iops: Vec<ThrottleDevice>,
        /// Write operations per device.
        #[serde(rename = "BlkioDeviceWriteIOps")]
        #[serde(serialize_with = "crate::wire::null_if_empty")]
        pub blkio_device_write_iops: Vec<ThrottleDevice>,
        /// Microseconds of a scheduling period.
        pub cpu_period: i64,
        /// Microseconds of processor time in each period.
        pub cpu_quota: i64,
        /// Real-time period.
        pub cpu_realtime_period: i64,
        /// Real-time time.
        pub cpu_realtime_runtime: i64,
        /// Processors (`0-1,3`).
        pub cpuset_cpus: String,
        /// Memory nodes.
        pub cpuset_mems: String,
        /// Devices.
        #[serde(serialize_with = "crate::wire::null_if_empty")]
        pub devices: Vec<DeviceMapping>,
        /// Device rules (`c 188:* rmw`).
        #[serde(serialize_with = "crate::wire::null_if_empty")]
        pub device_cgroup_rules: Vec<String>,
        /// Requests to device drivers (GPUs).
        #[serde(serialize_with = "crate::wire::null_if_empty")]
        pub device_requests: Vec<serde_json::Value>,
        /// Superseded.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub kernel_memory: Option<i64>,
        /// Bytes of memory that the kernel tries to leave.
        pub memory_reservation: i64,
        /// Memory and swap; -1 means unlimited swap.
        pub memory_swap: i64,
        /// 0 to 100.
        pub memory_swappiness: Option<i64>,
        /// Whether the kernel must not kill at the memory limit.
        pub oom_kill_disable: Option<bool>,
        /// Processes; 0 and -1 mean no limit.
        pub pids_limit: Option<i64>,
        /// Resource limits.
        #[serde(serialize_with = "crate::wire::null_if_empty")]
        pub ulimits: Vec<Ulimit>,
        /// Windows.
        pub cpu_count: i64,
        /// Windows.
        pub cpu_percent: i64,
        /// Mounts in the long form.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub mounts: Vec<Mount>,
        /// Paths that are hidden; `null` means the policy's.
        pub masked_paths: Option<Vec<String>>,
        /// Paths that are read-only; `null` means the policy's.
        pub readonly_paths: Option<Vec<String>>,
        /// Whether a small init is process 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub init: Option<bool>,
    }

    /// Where output is kept.
    pub struct LogConfig {
        /// `json-file`, `none` or empty for the daemon's default.
        #[serde(rename = "Type")]
        pub kind: String,
        /// `max-size`, `max-file`.
        pub config: BTreeMap<String, String>,
    }

    /// Where a port is published.
    pub struct PortBinding {
        /// Address of the host.
        pub host_ip: String,
        /// Port of the host; empty or `0` means any.
        pub host_port: String,
    }

    /// When a container is started again.
    pub struct RestartPolicy {
        /// `no`, `always`, `unless-stopped`, `on-failure` or empty.
        pub name: String,
        /// With `on-failure`: attempts, 0 for no limit.
        pub maximum_retry_count: i64,
    }

    /// A rate for one device.
    pub struct ThrottleDevice {
        /// Path of the device.
        pub path: String,
        /// Bytes or operations per second.
        pub rate: u64,
    }

    /// A device of the host.
    pub struct DeviceMapping {
        /// Path on the host.
        pub path_on_host: String,
        /// Path in the container.
        pub path_in_container: String,
        /// Some of `r`, `w`, `m`.
        pub cgroup_permissions: String,
    }

    /// A resource limit.
    pub struct Ulimit {
        /// Name without prefix (`nofile`).
        pub name: String,
        /// How far it can be raised; -1 means unlimited.
        pub hard: i64,
        /// The limit in force; -1 means unlimited.
        pub soft: i64,
    }

    /// A mount in the long form.
    pub struct Mount {
        /// `bind`, `volume` or `tmpfs`.
        #[serde(rename = "Type")]
        pub kind: String,
        /// Path of the host, or name of the volume.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub source: String,
        /// Path in the container.
        pub target: String,
        /// Whether it is read-only.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        pub read_only: bool,
        /// macOS.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub consistency: String,
        /// For `bind`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub bind_options: Option<BindOptions>,
        /// For `volume`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub volume_options: Option<VolumeOptions>,
        /// For `tmpfs`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub tmpfs_options: Option<TmpfsOptions>,
    }

    /// Options of a bind mount.
    pub struct BindOptions {
        /// `rprivate`, `rslave` …
        #[serde(skip_serializing_if = "String::is_empty")]
        pub propagation: String,
        /// Whether mounts below the source stay out.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        pub non_recursive: bool,
        /// Whether a missing source is made.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        pub create_mountpoint: bool,
        /// Whether read-only covers only the top mount.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        pub read_only_non_recursive: bool,
        /// Whether read-only must cover every mount below.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        pub read_only_force_recursive: bool,
    }

    /// Options of a volume mount.
    pub struct VolumeOptions {
        /// Whether an empty volume stays empty.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        pub no_copy: bool,
        /// Labels of a volume that is made.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub labels: BTreeMap<String, String>,
        /// Driver of a volume that is made.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub driver_config: Option<serde_json::Value>,
        /// A folder within the volume.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub subpath: String,
    }

    /// Options of a memory mount.
    pub struct TmpfsOptions {
        /// Bytes.
        pub size_bytes: i64,
        /// Mode of its top folder.
        pub mode: u32,
        /// Further options.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub options: Vec<Vec<String>>,
    }

    /// The networks of a new container.
    pub struct NetworkingConfig {
        /// Network to settings.
        pub endpoints_config: BTreeMap<String, Option<EndpointSettings>>,
    }

    /// The answer to create.
    pub struct CreateAnswer {
        /// The new container's id.
        pub id: String,
        /// What the user should know.
        pub warnings: Vec<String>,
    }

    /// A row of the list of containers.
    pub struct ContainerSummary {
        /// Id.
        pub id: String,
        /// Names, each with a leading `/`.
        pub names: Vec<String>,
        /// Image, as the user wrote it.
        pub image: String,
        /// Id of the image.
        #[serde(rename = "ImageID")]
        pub image_id: String,
        /// Program and arguments in one line.
        pub command: String,
        /// Seconds since 1970.
        pub created: i64,
        /// Published and exposed ports.
        pub ports: Vec<Port>,
        /// Bytes of the writable layer, where `size=1` asked for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub size_rw: Option<i64>,
        /// Bytes of the whole root file system, where `size=1` asked for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub size_root_fs: Option<i64>,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// One of Docker's status words (`running`).
        pub state: String,
        /// The same for people (`Up 3 minutes (healthy)`).
        pub status: String,
        /// Excerpt of the host configuration.
        pub host_config: SummaryHostConfig,
        /// Excerpt of the network settings.
        pub network_settings: SummaryNetworks,
        /// Mounts.
        pub mounts: Vec<MountPoint>,
        /// Kakoi's own: name of the policy.
        pub policy: String,
    }

    /// Excerpt of the host configuration.
    pub struct SummaryHostConfig {
        /// Network mode.
        pub network_mode: String,
    }

    /// Excerpt of the network settings.
    pub struct SummaryNetworks {
        /// Network to endpoint.
        pub networks: BTreeMap<String, EndpointSettings>,
    }

    /// A port of a container.
    pub struct Port {
        /// Address of the host.
        #[serde(rename = "IP", skip_serializing_if = "String::is_empty")]
        pub ip: String,
        /// Port inside.
        pub private_port: u16,
        /// Port of the host.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub public_port: Option<u16>,
        /// `tcp`, `udp` or `sctp`.
        #[serde(rename = "Type")]
        pub kind: String,
    }

    /// A mount of a container, as it is.
    pub struct MountPoint {
        /// `bind`, `volume` or `tmpfs`.
        #[serde(rename = "Type")]
        pub kind: String,
        /// Name of the volume.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub name: String,
        /// Path of the host.
        pub source: String,
        /// Path in the container.
        pub destination: String,
        /// Driver of the volume.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub driver: String,
        /// Options.
        pub mode: String,
        /// Whether it is writable.
        #[serde(rename = "RW")]
        pub rw: bool,
        /// Propagation.
        pub propagation: String,
    }

    /// Everything about one container.
    pub struct ContainerInspect {
        /// Id.
        pub id: String,
        /// When it was created.
        pub created: String,
        /// Program.
        pub path: String,
        /// Arguments.
        pub args: Vec<String>,
        /// Where it stands.
        pub state: ContainerState,
        /// Id of the image.
        pub image: String,
        /// Path of its resolv.conf.
        pub resolv_conf_path: String,
        /// Path of its hostname file.
        pub hostname_path: String,
        /// Path of its hosts file.
        pub hosts_path: String,
        /// Path of its log.
        pub log_path: String,
        /// Name, with a leading `/`.
        pub name: String,
        /// How often it was started again by its restart policy.
        pub restart_count: i64,
        /// Storage driver.
        pub driver: String,
        /// Operating system.
        pub platform: String,
        /// SELinux.
        pub mount_label: String,
        /// SELinux.
        pub process_label: String,
        /// AppArmor.
        pub app_armor_profile: String,
        /// Running exec instances.
        #[serde(rename = "ExecIDs")]
        pub exec_ids: Option<Vec<String>>,
        /// The part that depends on the host.
        pub host_config: HostConfig,
        /// The writable layer's places.
        pub graph_driver: GraphDriver,
        /// Bytes of the writable layer, where `size=1` asked for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub size_rw: Option<i64>,
        /// Bytes of the whole root file system, where `size=1` asked for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub size_root_fs: Option<i64>,
        /// Mounts, as they are.
        pub mounts: Vec<MountPoint>,
        /// The portable part.
        pub config: ContainerConfig,
        /// Networks.
        pub network_settings: NetworkSettings,
        /// Kakoi's own: what confines it.
        pub kakoi: ContainerKakoi,
    }

    /// The writable layer's places.
    pub struct GraphDriver {
        /// Driver to path.
        pub data: BTreeMap<String, String>,
        /// Driver.
        pub name: String,
    }

    /// Networks of a container.
    pub struct NetworkSettings {
        /// Superseded.
        pub bridge: String,
        /// Id of the network namespace.
        #[serde(rename = "SandboxID")]
        pub sandbox_id: String,
        /// Path of the network namespace.
        pub sandbox_key: String,
        /// Superseded.
        pub hairpin_mode: bool,
        /// Superseded.
        #[serde(rename = "LinkLocalIPv6Address")]
        pub link_local_ipv6_address: String,
        /// Superseded.
        #[serde(rename = "LinkLocalIPv6PrefixLen")]
        pub link_local_ipv6_prefix_len: u8,
        /// Superseded.
        #[serde(rename = "SecondaryIPAddresses")]
        pub secondary_ip_addresses: Option<Vec<serde_json::Value>>,
        /// Superseded.
        #[serde(rename = "SecondaryIPv6Addresses")]
        pub secondary_ipv6_addresses: Option<Vec<serde_json::Value>>,
        /// Published ports.
        pub ports: BTreeMap<String, Option<Vec<PortBinding>>>,
        /// The place in the default bridge network, once more; superseded.
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        /// Superseded.
        pub gateway: String,
        /// Superseded.
        #[serde(rename = "IPAddress")]
        pub ip_address: String,
        /// Superseded.
        #[serde(rename = "IPPrefixLen")]
        pub ip_prefix_len: u8,
        /// Superseded.
        #[serde(rename = "IPv6Gateway")]
        pub ipv6_gateway: String,
        /// Superseded.
        #[serde(rename = "GlobalIPv6Address")]
        pub global_ipv6_address: String,
        /// Superseded.
        #[serde(rename = "GlobalIPv6PrefixLen")]
        pub global_ipv6_prefix_len: u8,
        /// Superseded.
        pub mac_address: String,
        /// Network to endpoint.
        pub networks: BTreeMap<String, EndpointSettings>,
    }

    /// Where a container stands.
    pub struct ContainerState {
        /// One of `created running paused restarting removing exited dead`.
        pub status: String,
        /// Whether its first process runs, frozen or not.
        pub running: bool,
        /// Whether it is frozen.
        pub paused: bool,
        /// Whether it waits to be started again.
        pub restarting: bool,
        /// Whether the kernel killed a process at the memory limit.
        #[serde(rename = "OOMKilled")]
        pub oom_killed: bool,
        /// Whether removing it failed.
        pub dead: bool,
        /// Its first process's id on the host; 0 when it does not run.
        pub pid: i64,
        /// Exit code of the last run.
        pub exit_code: i64,
        /// Why the last start or run failed.
        pub error: String,
        /// When it was started.
        pub started_at: String,
        /// When it ended.
        pub finished_at: String,
        /// Health, where it is tested.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub health: Option<Health>,
    }

    /// Health of a container.
    pub struct Health {
        /// `starting`, `healthy`, `unhealthy` or `none`.
        pub status: String,
        /// Failures in a row.
        pub failing_streak: i64,
        /// The last five tests, the oldest first.
        pub log: Vec<HealthResult>,
    }

    /// One test of health.
    pub struct HealthResult {
        /// When it began.
        pub start: String,
        /// When it ended.
        pub end: String,
        /// 0 healthy, -1 timed out.
        pub exit_code: i64,
        /// The beginning of its output.
        pub output: String,
    }

    /// The answer to wait.
    pub struct WaitAnswer {
        /// Exit code.
        pub status_code: i64,
        /// Why waiting or removing failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub error: Option<WaitError>,
    }

    /// Why waiting failed.
    pub struct WaitError {
        /// In one sentence.
        pub message: String,
    }

    /// The answer to top.
    pub struct TopAnswer {
        /// Titles of the columns.
        pub titles: Vec<String>,
        /// One row per process.
        pub processes: Vec<Vec<String>>,
    }

    /// The body of update: limits of the host configuration and the restart policy.
    pub struct UpdateBody {
        /// Relative block I/O weight.
        pub blkio_weight: u16,
        /// Relative processor weight.
        pub cpu_shares: i64,
        /// Microseconds of a scheduling period.
        pub cpu_period: i64,
        /// Microseconds of processor time in each period.
        pub cpu_quota: i64,
        /// Processors.
        pub cpuset_cpus: String,
        /// Memory nodes.
        pub cpuset_mems: String,
        /// Bytes of memory.
        pub memory: i64,
        /// Bytes of memory that the kernel tries to leave.
        pub memory_reservation: i64,
        /// Memory and swap.
        pub memory_swap: i64,
        /// Thousandths of a millionth of a processor.
        pub nano_cpus: i64,
        /// Processes.
        pub pids_limit: Option<i64>,
        /// When the container is started again.
        pub restart_policy: Option<RestartPolicy>,
    }

    /// The answer to update.
    pub struct UpdateAnswer {
        /// What the user should know.
        pub warnings: Option<Vec<String>>,
    }

    /// The answer to prune.
    pub struct ContainersPruned {
        /// Ids of the removed containers.
        pub containers_deleted: Option<Vec<String>>,
        /// Bytes.
        pub space_reclaimed: i64,
    }

    /// A path whose content differs from the image's.
    pub struct Change {
        /// Path.
        pub path: String,
        /// 0 changed, 1 added, 2 deleted.
        pub kind: u8,
    }
}
