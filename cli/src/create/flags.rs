//! The flags of `run` and `create`, in Podman's and Docker's words.
//!
//! Owns names, help texts and groups. Refuses to read any value: that is the translation's.

use std::path::PathBuf;

use clap::Args;

/// An image and what runs in it: everything from the image on belongs to the app, dashes and all.
#[derive(Args, Clone, Debug)]
pub struct ImageAndCommand {
    /// The image, then the program and its arguments in place of the image's own
    #[arg(value_name = "IMAGE [COMMAND] [ARG...]", required = true, num_args = 1.., trailing_var_arg = true)]
    words: Vec<String>,
}

impl ImageAndCommand {
    /// Image and command.
    pub fn parts(&self) -> (&str, &[String]) {
        match self.words.split_first() {
            Some((image, command)) => (image, command),
            None => ("", &[]),
        }
    }
}

/// What `run` and `create` share.
#[derive(Args, Clone, Debug, Default)]
pub struct ContainerFlags {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,

    /// Name of the container; one is made up where it is absent
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Remove a container of the same name first, also one that runs
    #[arg(long, requires = "name")]
    pub replace: bool,
    /// Keep standard input open, attached or not
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the app a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Remove the container when it ends
    #[arg(long)]
    pub rm: bool,
    /// Write the container's id to a new file
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// Write the first process's id on the host to a file, once it runs
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,
    /// Say nothing but the id
    #[arg(short, long)]
    pub quiet: bool,
    /// When the image is fetched from its registry
    #[arg(long, value_name = "WHEN", value_parser = ["always", "missing", "never"])]
    pub pull: Option<String>,
    /// The file with credentials for registries, in Docker's format
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true)]
    pub authfile: Option<PathBuf>,

    /// Set a variable; NAME alone takes over the caller's, NAME* all that begin so
    #[arg(short, long, value_name = "NAME[=VALUE]", help_heading = "Process")]
    pub env: Vec<String>,
    /// Read variables from a file of NAME=VALUE lines
    #[arg(long, value_name = "FILE", help_heading = "Process")]
    pub env_file: Vec<PathBuf>,
    /// Take a variable away that the image sets
    #[arg(long, value_name = "NAME", help_heading = "Process")]
    pub unsetenv: Vec<String>,
    /// Time zone, as in Europe/Berlin, or local for the host's
    #[arg(long, value_name = "ZONE", help_heading = "Process")]
    pub tz: Option<String>,
    /// Program in place of the image's entrypoint; a JSON list for one with arguments, "" for none
    #[arg(long, value_name = "PROGRAM", help_heading = "Process")]
    pub entrypoint: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR", help_heading = "Process")]
    pub workdir: Option<String>,
    /// User and group, names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]", help_heading = "Process")]
    pub user: Option<String>,
    /// Further group
    #[arg(long, value_name = "GROUP", help_heading = "Process")]
    pub group_add: Vec<String>,
    /// File mode creation mask, as in 0027
    #[arg(long, value_name = "MASK", help_heading = "Process")]
    pub umask: Option<String>,
    /// Make a small init process 1, which reaps and passes signals on
    #[arg(long, help_heading = "Process")]
    pub init: bool,
    /// Signal that asks the app to stop
    #[arg(long, value_name = "SIGNAL", help_heading = "Process")]
    pub stop_signal: Option<String>,
    /// Seconds between asking and killing
    #[arg(
        long,
        value_name = "SECONDS",
        allow_negative_numbers = true,
        help_heading = "Process"
    )]
    pub stop_timeout: Option<i64>,
    /// When to start again: no, on-failure[:ATTEMPTS], always, unless-stopped
    #[arg(long, value_name = "WHEN", help_heading = "Process")]
    pub restart: Option<String>,

    /// Policy that confines the container: a file, or the name of one the daemon knows (default: strict)
    #[arg(long, value_name = "FILE|NAME", help_heading = "Security")]
    pub policy: Option<String>,
    /// Add a capability, as far as the device's owner permits
    #[arg(long, value_name = "CAPABILITY", help_heading = "Security")]
    pub cap_add: Vec<String>,
    /// Take a capability away
    #[arg(long, value_name = "CAPABILITY", help_heading = "Security")]
    pub cap_drop: Vec<String>,
    /// Ask for everything, as far as the device's owner permits
    #[arg(long, help_heading = "Security")]
    pub privileged: bool,
    /// no-new-privileges, seccomp=FILE, seccomp=unconfined, systempaths=unconfined
    #[arg(long, value_name = "OPTION", help_heading = "Security")]
    pub security_opt: Vec<String>,
    /// User namespace: host, auto, keep-id
    #[arg(long, value_name = "MODE", help_heading = "Security")]
    pub userns: Option<String>,
    /// Give access to a device of the host
    #[arg(long, value_name = "HOST[:INSIDE][:rwm]", help_heading = "Security")]
    pub device: Vec<String>,
    /// Allow devices by number, as in 'c 188:* rwm'
    #[arg(long, value_name = "RULE", help_heading = "Security")]
    pub device_cgroup_rule: Vec<String>,
    /// Mount the root file system read-only
    #[arg(long, help_heading = "Security")]
    pub read_only: bool,

    /// Mount a host's folder or a named volume
    #[arg(
        short,
        long,
        value_name = "[SOURCE:]INSIDE[:OPTIONS]",
        help_heading = "Storage"
    )]
    pub volume: Vec<String>,
    /// A secret, as the file /run/secrets/NAME or as said: target=/PATH,uid=U,gid=G,mode=0400, or type=env,target=VARIABLE
    #[arg(long, value_name = "NAME[,OPTION=VALUE...]", help_heading = "Storage")]
    pub secret: Vec<String>,
    /// Mount in the long form, as in type=bind,source=/a,target=/b,readonly
    #[arg(long, value_name = "KEY=VALUE,...", help_heading = "Storage")]
    pub mount: Vec<String>,
    /// Mount memory
    #[arg(long, value_name = "INSIDE[:OPTIONS]", help_heading = "Storage")]
    pub tmpfs: Vec<String>,
    /// Mount what another container mounts, memory apart
    #[arg(long, value_name = "CONTAINER[:ro]", help_heading = "Storage")]
    pub volumes_from: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE", help_heading = "Storage")]
    pub shm_size: Option<String>,

    /// Network, with options as in app:ip=10.89.0.5,alias=db; or none, host, container:NAME to join another's
    #[arg(
        long,
        alias = "net",
        value_name = "NAME[:OPTION,...]",
        help_heading = "Network and names"
    )]
    pub network: Vec<String>,
    /// Further name in its networks
    #[arg(
        long,
        alias = "net-alias",
        value_name = "NAME",
        help_heading = "Network and names"
    )]
    pub network_alias: Vec<String>,
    /// Another container, and what it is called in this one; on a network of one's own names need no links
    #[arg(long, value_name = "CONTAINER[:ALIAS]", help_heading = "Network and names")]
    pub link: Vec<String>,
    /// IPv4 address in its network
    #[arg(long, value_name = "ADDRESS", help_heading = "Network and names")]
    pub ip: Option<String>,
    /// IPv6 address in its network
    #[arg(long, value_name = "ADDRESS", help_heading = "Network and names")]
    pub ip6: Option<String>,
    /// Hardware address in its network
    #[arg(long, value_name = "ADDRESS", help_heading = "Network and names")]
    pub mac_address: Option<String>,
    /// Publish a port, as in 8080:80, 127.0.0.1::53/udp or 8000-8009:8000-8009
    #[arg(
        short,
        long,
        value_name = "[[ADDRESS:]HOST:]PORT[/PROTOCOL]",
        help_heading = "Network and names"
    )]
    pub publish: Vec<String>,
    /// Publish every exposed port, each at a free port of the host
    #[arg(short = 'P', long, help_heading = "Network and names")]
    pub publish_all: bool,
    /// Name server in place of the host's
    #[arg(long, value_name = "ADDRESS", help_heading = "Network and names")]
    pub dns: Vec<String>,
    /// Domain in which short names are looked for; . for none
    #[arg(long, value_name = "DOMAIN", help_heading = "Network and names")]
    pub dns_search: Vec<String>,
    /// Option of the resolver, as in ndots:2
    #[arg(
        long,
        alias = "dns-opt",
        value_name = "OPTION",
        help_heading = "Network and names"
    )]
    pub dns_option: Vec<String>,
    /// Host name inside
    #[arg(short = 'h', long, value_name = "NAME", help_heading = "Network and names")]
    pub hostname: Option<String>,
    /// NIS domain name inside
    #[arg(long, value_name = "NAME", help_heading = "Network and names")]
    pub domainname: Option<String>,
    /// Add a line to /etc/hosts; the address host-gateway is the host's
    #[arg(long, value_name = "NAME[;NAME]:ADDRESS", help_heading = "Network and names")]
    pub add_host: Vec<String>,
    /// Leave the image's /etc/hosts as it is
    #[arg(long, help_heading = "Network and names")]
    pub no_hosts: bool,
    /// Note a port that the app serves; opens nothing but what --publish-all does
    #[arg(
        long,
        value_name = "PORT[-PORT][/PROTOCOL]",
        help_heading = "Network and names"
    )]
    pub expose: Vec<String>,
    /// Process namespace: host, or container:NAME to join another's
    #[arg(long, value_name = "MODE", help_heading = "Network and names")]
    pub pid: Option<String>,
    /// IPC namespace and /dev/shm: private, shareable, host, container:NAME (a shareable one)
    #[arg(long, value_name = "MODE", help_heading = "Network and names")]
    pub ipc: Option<String>,
    /// Host name namespace: host
    #[arg(long, value_name = "MODE", help_heading = "Network and names")]
    pub uts: Option<String>,
    /// Control group namespace: private, host
    #[arg(long, value_name = "MODE", help_heading = "Network and names")]
    pub cgroupns: Option<String>,
    /// Pods (not supported)
    #[arg(long, value_name = "POD", hide = true)]
    pub pod: Option<String>,
    /// Link-local addresses (not supported)
    #[arg(long, value_name = "ADDRESS", hide = true)]
    pub link_local_ip: Vec<String>,
    /// Unpacked root file system (not supported)
    #[arg(long, hide = true)]
    pub rootfs: bool,

    /// Parent of the container's control group
    #[arg(long, value_name = "PATH", help_heading = "Limits")]
    pub cgroup_parent: Option<String>,
    /// Memory limit, as in 512m
    #[arg(short, long, value_name = "SIZE", help_heading = "Limits")]
    pub memory: Option<String>,
    /// Limit of memory and swap together; -1 for unlimited swap
    #[arg(
        long,
        value_name = "SIZE",
        allow_negative_numbers = true,
        help_heading = "Limits"
    )]
    pub memory_swap: Option<String>,
    /// Memory that the kernel tries to leave
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    pub memory_reservation: Option<String>,
    /// Processors, as in 1.5
    #[arg(long, value_name = "NUMBER", help_heading = "Limits")]
    pub cpus: Option<String>,
    /// Relative processor weight
    #[arg(short = 'c', long, value_name = "WEIGHT", help_heading = "Limits")]
    pub cpu_shares: Option<i64>,
    /// Scheduling period in microseconds
    #[arg(long, value_name = "MICROSECONDS", help_heading = "Limits")]
    pub cpu_period: Option<i64>,
    /// Processor time in each period in microseconds
    #[arg(
        long,
        value_name = "MICROSECONDS",
        allow_negative_numbers = true,
        help_heading = "Limits"
    )]
    pub cpu_quota: Option<i64>,
    /// Processors by number, as in 0-1,3
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes by number
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    pub cpuset_mems: Option<String>,
    /// Relative weight of block I/O
    #[arg(long, value_name = "WEIGHT", help_heading = "Limits")]
    pub blkio_weight: Option<u16>,
    /// Processes and threads; -1 for no limit
    #[arg(
        long,
        value_name = "NUMBER",
        allow_negative_numbers = true,
        help_heading = "Limits"
    )]
    pub pids_limit: Option<i64>,
    /// Resource limit of the processes, as in nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]", help_heading = "Limits")]
    pub ulimit: Vec<String>,
    /// Inclination of the kernel to kill it first, -1000 to 1000
    #[arg(
        long,
        value_name = "NUMBER",
        allow_negative_numbers = true,
        help_heading = "Limits"
    )]
    pub oom_score_adj: Option<i64>,
    /// Let the app wait instead of killing it at the memory limit
    #[arg(long, help_heading = "Limits")]
    pub oom_kill_disable: bool,
    /// Namespaced kernel setting
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Limits")]
    pub sysctl: Vec<String>,

    /// Command that tests health; a JSON list for one without a shell, none for no test
    #[arg(long, value_name = "COMMAND", help_heading = "Health")]
    pub health_cmd: Option<String>,
    /// Time between two tests
    #[arg(long, value_name = "DURATION", help_heading = "Health")]
    pub health_interval: Option<String>,
    /// Time after which a test has failed
    #[arg(long, value_name = "DURATION", help_heading = "Health")]
    pub health_timeout: Option<String>,
    /// Failures in a row that make it unhealthy
    #[arg(long, value_name = "NUMBER", help_heading = "Health")]
    pub health_retries: Option<i64>,
    /// Time after the start in which failures do not count
    #[arg(long, value_name = "DURATION", help_heading = "Health")]
    pub health_start_period: Option<String>,
    /// Do not use the image's health test
    #[arg(long, help_heading = "Health")]
    pub no_healthcheck: bool,

    /// Label
    #[arg(short, long, value_name = "NAME[=VALUE]", help_heading = "Labels and log")]
    pub label: Vec<String>,
    /// Read labels from a file of NAME=VALUE lines
    #[arg(long, value_name = "FILE", help_heading = "Labels and log")]
    pub label_file: Vec<PathBuf>,
    /// Annotation for the OCI runtime
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Labels and log")]
    pub annotation: Vec<String>,
    /// Where output is kept: json-file, none
    #[arg(long, value_name = "DRIVER", help_heading = "Labels and log")]
    pub log_driver: Option<String>,
    /// Option of the log, as in max-size=10m or max-file=3
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Labels and log")]
    pub log_opt: Vec<String>,
}
