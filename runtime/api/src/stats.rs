//! Resource use of a container.

use std::collections::BTreeMap;

wire! { "snake_case";
    /// One sample; `precpu_stats` is the sample before it.
    pub struct Stats {
        /// Name, with a leading `/`.
        pub name: String,
        /// Id.
        pub id: String,
        /// When it was taken.
        pub read: String,
        /// When the one before was taken.
        pub preread: String,
        /// Processes.
        pub pids_stats: PidsStats,
        /// Block I/O.
        pub blkio_stats: BlkioStats,
        /// Processors there are (Windows).
        pub num_procs: u32,
        /// Windows.
        pub storage_stats: BTreeMap<String, u64>,
        /// Processor time.
        pub cpu_stats: CpuStats,
        /// Processor time of the sample before.
        pub precpu_stats: CpuStats,
        /// Memory.
        pub memory_stats: MemoryStats,
        /// Interface to counters; absent without interfaces.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub networks: BTreeMap<String, NetworkStats>,
    }

    /// Processes.
    pub struct PidsStats {
        /// Now.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub current: Option<u64>,
        /// At most.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub limit: Option<u64>,
    }

    /// Block I/O; lists that the kernel does not give are `null`.
    pub struct BlkioStats {
        /// Bytes by device and operation.
        pub io_service_bytes_recursive: Option<Vec<BlkioEntry>>,
        /// Operations by device and operation.
        pub io_serviced_recursive: Option<Vec<BlkioEntry>>,
        /// Queued operations.
        pub io_queue_recursive: Option<Vec<BlkioEntry>>,
        /// Time in service.
        pub io_service_time_recursive: Option<Vec<BlkioEntry>>,
        /// Time waiting.
        pub io_wait_time_recursive: Option<Vec<BlkioEntry>>,
        /// Merged operations.
        pub io_merged_recursive: Option<Vec<BlkioEntry>>,
        /// Time in all.
        pub io_time_recursive: Option<Vec<BlkioEntry>>,
        /// Sectors.
        pub sectors_recursive: Option<Vec<BlkioEntry>>,
    }

    /// A counter of block I/O.
    pub struct BlkioEntry {
        /// Device's major number.
        pub major: u64,
        /// Device's minor number.
        pub minor: u64,
        /// `read`, `write` …
        pub op: String,
        /// Count.
        pub value: u64,
    }

    /// Processor time.
    pub struct CpuStats {
        /// Of the container.
        pub cpu_usage: CpuUsage,
        /// Of the whole host, nanoseconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub system_cpu_usage: Option<u64>,
        /// Processors.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub online_cpus: Option<u32>,
        /// How often the quota was hit.
        pub throttling_data: Throttling,
    }

    /// Processor time of a container in nanoseconds.
    pub struct CpuUsage {
        /// In all.
        pub total_usage: u64,
        /// Per processor; only control groups version 1 tell it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub percpu_usage: Option<Vec<u64>>,
        /// In the kernel.
        pub usage_in_kernelmode: u64,
        /// In programs.
        pub usage_in_usermode: u64,
    }

    /// How often the quota was hit.
    pub struct Throttling {
        /// Periods.
        pub periods: u64,
        /// Of these throttled.
        pub throttled_periods: u64,
        /// Nanoseconds.
        pub throttled_time: u64,
    }

    /// Memory in bytes.
    pub struct MemoryStats {
        /// Now.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub usage: Option<u64>,
        /// The most there was; only control groups version 1 tell it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub max_usage: Option<u64>,
        /// The kernel's counters.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub stats: BTreeMap<String, u64>,
        /// How often the limit was hit.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub failcnt: Option<u64>,
        /// At most.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub limit: Option<u64>,
    }

    /// Counters of a network interface.
    pub struct NetworkStats {
        /// Bytes in.
        pub rx_bytes: u64,
        /// Packets in.
        pub rx_packets: u64,
        /// Errors in.
        pub rx_errors: u64,
        /// Dropped in.
        pub rx_dropped: u64,
        /// Bytes out.
        pub tx_bytes: u64,
        /// Packets out.
        pub tx_packets: u64,
        /// Errors out.
        pub tx_errors: u64,
        /// Dropped out.
        pub tx_dropped: u64,
    }
}
