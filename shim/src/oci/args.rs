//! The words and flags.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// An OCI runtime that confines what it runs.
#[derive(Debug, Parser)]
#[command(name = "kakoi-oci", version, long_version = VERSION, disable_help_subcommand = true)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What engines look for in the version: the specification and what is compiled in.
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\nspec: 1.3.0\n+SECCOMP +CAP +LANDLOCK"
);

#[derive(Debug, Args)]
pub(super) struct Global {
    /// Folder for the state of containers
    #[arg(long, global = true)]
    pub root: Option<PathBuf>,
    /// File that errors are written to
    #[arg(long, global = true)]
    pub log: Option<PathBuf>,
    /// Form of the log
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Least level that is logged
    #[arg(long, global = true)]
    pub log_level: Option<String>,
    /// Log everything
    #[arg(long, global = true)]
    pub debug: bool,
    /// Refused: control groups are managed through their file system
    #[arg(long, global = true)]
    pub systemd_cgroup: bool,
    /// cgroupfs
    #[arg(long, global = true)]
    pub cgroup_manager: Option<String>,
    /// Accepted for compatibility; for `spec`, a configuration for a caller without privileges
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub rootless: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a container
    Create(Create),
    /// Make a container, start it and wait for it
    Run(Create),
    /// Start a container that was made
    Start { id: String },
    /// Print a container's state
    State { id: String },
    /// Send a signal
    Kill(Kill),
    /// Delete a container that has stopped
    Delete(Delete),
    /// Add a process to a container
    Exec(Exec),
    /// List the processes of a container
    Ps(Ps),
    /// List containers
    List(List),
    /// Stop all processes for a while
    Pause { id: String },
    /// Let paused processes go on
    Resume { id: String },
    /// Change limits
    Update(Update),
    /// Print what a container uses
    Events(Events),
    /// Print what this runtime can do
    Features,
    /// Write an example configuration
    Spec(Spec),
    /// Not supported
    Checkpoint {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Not supported
    Restore {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Folder of the bundle
    #[arg(short, long, default_value = ".")]
    pub bundle: PathBuf,
    /// Configuration within the bundle
    #[arg(short = 'f', long, default_value = "config.json")]
    pub config: PathBuf,
    /// Socket that gets the terminal's master
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// File that gets the process id
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// Descriptors from 3 on that the container keeps
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// Move the root instead of pivoting
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Accepted for compatibility
    #[arg(long)]
    pub no_subreaper: bool,
    /// Do not wait for the container (run)
    #[arg(short, long)]
    pub detach: bool,
    /// Keep the stopped container (run)
    #[arg(long)]
    pub keep: bool,
    pub id: String,
}

#[derive(Debug, Args)]
pub(super) struct Kill {
    /// Send it to every process
    #[arg(short, long)]
    pub all: bool,
    /// The name is a pattern
    #[arg(short, long)]
    pub regex: bool,
    pub id: String,
    #[arg(default_value = "SIGTERM", allow_hyphen_values = true)]
    pub signal: String,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Kill it first
    #[arg(short, long)]
    pub force: bool,
    /// The name is a pattern
    #[arg(short, long)]
    pub regex: bool,
    pub id: String,
}

#[derive(Debug, Args)]
pub(super) struct Exec {
    /// File with the process
    #[arg(short, long)]
    pub process: Option<PathBuf>,
    /// Working directory
    #[arg(long)]
    pub cwd: Option<String>,
    /// NAME=value
    #[arg(short, long)]
    pub env: Vec<String>,
    /// UID[:GID]
    #[arg(short, long)]
    pub user: Option<String>,
    /// Additional group
    #[arg(short = 'g', long)]
    pub additional_gids: Vec<u32>,
    /// With a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Do not wait for it
    #[arg(short, long)]
    pub detach: bool,
    /// Socket that gets the terminal's master
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// File that gets the process id
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// Descriptors from 3 on that it keeps
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// Another capability, within the container's bounds
    #[arg(short, long)]
    pub cap: Vec<String>,
    /// No privileges by execve
    #[arg(long)]
    pub no_new_privs: bool,
    /// AppArmor profile
    #[arg(long)]
    pub apparmor: Option<String>,
    /// SELinux label
    #[arg(long)]
    pub process_label: Option<String>,
    /// Group below the container's own
    #[arg(long)]
    pub cgroup: Option<String>,
    /// Accepted for compatibility
    #[arg(long)]
    pub no_subreaper: bool,
    /// Enter a paused container: refused
    #[arg(long)]
    pub ignore_paused: bool,
    pub id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Ps {
    /// table or json
    #[arg(short, long, default_value = "table")]
    pub format: String,
    pub id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// table or json
    #[arg(short, long, default_value = "table")]
    pub format: String,
    /// Only names
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct Update {
    /// File with OCI resources, `-` for standard input
    #[arg(short, long)]
    pub resources: Option<PathBuf>,
    #[arg(long)]
    pub blkio_weight: Option<u64>,
    #[arg(long)]
    pub cpu_period: Option<u64>,
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    #[arg(long)]
    pub cpu_burst: Option<u64>,
    #[arg(long)]
    pub cpu_idle: Option<i64>,
    #[arg(long, alias = "cpu-shares")]
    pub cpu_share: Option<u64>,
    #[arg(long)]
    pub cpu_rt_period: Option<u64>,
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub memory: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Accepted and ignored: kernels since 5.4 have no such limit
    #[arg(long)]
    pub kernel_memory: Option<String>,
    /// Accepted and ignored
    #[arg(long)]
    pub kernel_memory_tcp: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    #[arg(long)]
    pub l3_cache_schema: Option<String>,
    #[arg(long)]
    pub mem_bw_schema: Option<String>,
    pub id: String,
}

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Print once and end
    #[arg(long)]
    pub stats: bool,
    /// Seconds between lines
    #[arg(long, default_value = "5")]
    pub interval: String,
    pub id: String,
}

#[derive(Debug, Args)]
pub(super) struct Spec {
    /// Folder that it is written to
    #[arg(short, long, default_value = ".")]
    pub bundle: PathBuf,
}
