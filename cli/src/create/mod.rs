//! From the flags of `run` and `create` to the body of `POST /containers/create`.
//!
//! Owns the flags and their translation. Refuses to decide what is permitted: that is the daemon's. Invariants: what is not asked for stays absent;
//! a wrong flag is refused before anything is made.

mod environment;
mod flags;
mod mounts;
pub mod networks;
mod policy;
mod ports;
mod secrets;
mod values;

use std::collections::BTreeMap;

use kakoi_api::container::{CreateBody, HealthConfig, HostConfig, LogConfig};
use kakoi_api::{Empty, Words};

pub use environment::{EnvironmentError, read_environment, read_labels};
pub use flags::{ContainerFlags, ImageAndCommand};
pub use mounts::MountError;
pub use networks::NetworkError;
pub use policy::{PolicyError, choose_policy, is_file_name, read_policy};
pub use ports::PortError;
pub use secrets::SecretError;
pub use values::{ValueError, health_test, parse_cpus, parse_limit, parse_restart};

use crate::text::{TextError, parse_duration, parse_size};

/// Why flags cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FlagError {
    /// A value of a flag.
    #[error("{flag}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// Why.
        #[source]
        cause: ValueError,
    },
    /// A size or a duration.
    #[error("{flag}")]
    Text {
        /// The flag.
        flag: &'static str,
        /// Why.
        #[source]
        cause: TextError,
    },
    /// The environment.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// Mounts.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Networks.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Ports.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Secrets.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Two flags that contradict each other.
    #[error("{one} and {other} cannot be used together")]
    Contradiction {
        /// One.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// A flag that is not supported, or not here.
    #[error("{flag} {words}")]
    Unsupported {
        /// The flag.
        flag: &'static str,
        /// Why not, and what to do.
        words: &'static str,
    },
}

/// Which streams the caller holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// Translates flags.
pub fn create_body(
    flags: &ContainerFlags,
    what: &ImageAndCommand,
    attached: Attached,
) -> Result<CreateBody, FlagError> {
    refuse_unsupported(flags)?;
    let (image, command) = what.parts();
    let mut body = CreateBody::default();
    let config = &mut body.config;
    config.image = image.to_owned();
    if !command.is_empty() {
        config.cmd = Some(Words(command.to_vec()));
    }
    config.entrypoint = flags.entrypoint.as_deref().map(values::entrypoint);
    config.hostname = flags.hostname.clone().unwrap_or_default();
    config.domainname = flags.domainname.clone().unwrap_or_default();
    config.user = flags.user.clone().unwrap_or_default();
    config.working_dir = flags.workdir.clone().unwrap_or_default();
    config.tty = flags.tty;
    config.open_stdin = flags.interactive;
    config.stdin_once = flags.interactive && attached.stdin;
    config.attach_stdin = attached.stdin;
    config.attach_stdout = attached.stdout;
    config.attach_stderr = attached.stderr;
    config.env = read_environment(&flags.env, &flags.env_file)?;
    environment::unset(&mut config.env, &flags.unsetenv)?;
    config.labels = environment::read_labels(&flags.label, &flags.label_file)?;
    config.stop_signal = flags.stop_signal.clone().unwrap_or_default();
    config.stop_timeout = flags.stop_timeout;
    config.healthcheck = health(flags)?;
    let (binds, anonymous) = mounts::binds(&flags.volume)?;
    config.volumes = anonymous.into_iter().map(|place| (place, Empty)).collect();
    body.host_config = host_config(flags, binds)?;
    ports::fill(&mut body, &flags.publish, &flags.expose)?;
    networks::fill(&mut body, flags)?;
    body.secrets = secrets::read(&flags.secret)?;
    // The other way to say it is Docker's, whose daemon would look for the file on the device.
    let option = flags
        .security_opt
        .iter()
        .find_map(|option| option.strip_prefix("kakoi="));
    let option = option.filter(|name| is_file_name(name));
    body.policy = flags
        .policy
        .as_deref()
        .or(option)
        .map(choose_policy)
        .transpose()?;
    Ok(body)
}

/// Judges flags of `run` and `create` without making anything; says what is wrong.
pub fn check_flags(words: &[String]) -> Result<(), String> {
    #[derive(clap::Parser)]
    #[command(no_binary_name = true, disable_help_flag = true)]
    struct Line {
        #[command(flatten)]
        flags: ContainerFlags,
        #[command(flatten)]
        what: ImageAndCommand,
    }
    let words = words.iter().map(String::as_str).chain(["image"]);
    let line = <Line as clap::Parser>::try_parse_from(words)
        .map_err(|error| crate::failure::usage_in_one_line(&error))?;
    let attached = Attached {
        stdin: false,
        stdout: true,
        stderr: true,
    };
    create_body(&line.flags, &line.what, attached)
        .map(drop)
        .map_err(|error| crate::failure::describe(&error))
}

/// Flags that people know from elsewhere and that are not supported, each with what to do instead.
fn refuse_unsupported(flags: &ContainerFlags) -> Result<(), FlagError> {
    let refused = |flag, words| Err(FlagError::Unsupported { flag, words });
    if !flags.link_local_ip.is_empty() {
        return refused(
            "--link-local-ip",
            "is not supported: name an address of the network's subnet with --ip or --ip6",
        );
    }
    if flags.pod.is_some() {
        return refused(
            "--pod",
            "is not supported: join another container with --network container:NAME",
        );
    }
    if flags.rootfs {
        return refused(
            "--rootfs",
            "is not supported: make an image of the folder with 'kakoi import'",
        );
    }
    Ok(())
}

fn host_config(flags: &ContainerFlags, binds: Vec<String>) -> Result<HostConfig, FlagError> {
    let cidfile = flags.cidfile.as_ref().map(|path| path.display().to_string());
    let mut config = HostConfig {
        binds,
        container_id_file: cidfile.unwrap_or_default(),
        auto_remove: flags.rm,
        cap_add: flags.cap_add.clone(),
        cap_drop: flags.cap_drop.clone(),
        group_add: flags.group_add.clone(),
        privileged: flags.privileged,
        readonly_rootfs: flags.read_only,
        ipc_mode: flags.ipc.clone().unwrap_or_default(),
        pid_mode: flags.pid.clone().unwrap_or_default(),
        uts_mode: flags.uts.clone().unwrap_or_default(),
        userns_mode: flags.userns.clone().unwrap_or_default(),
        device_cgroup_rules: flags.device_cgroup_rule.clone(),
        cgroupns_mode: flags.cgroupns.clone().unwrap_or_default(),
        cgroup_parent: flags.cgroup_parent.clone().unwrap_or_default(),
        volumes_from: flags.volumes_from.clone(),
        no_hosts: flags.no_hosts,
        publish_all_ports: flags.publish_all,
        init: flags.init.then_some(true),
        ..HostConfig::default()
    };
    limits(flags, &mut config)?;
    lists(flags, &mut config)?;
    security(flags, &mut config)?;
    let restart = flags.restart.as_deref().map(parse_restart).transpose();
    let restart = restart.map_err(|cause| FlagError::Value {
        flag: "--restart",
        cause,
    })?;
    config.restart_policy = restart.unwrap_or_default();
    if config.no_hosts && !config.extra_hosts.is_empty() {
        return Err(FlagError::Contradiction {
            one: "--no-hosts",
            other: "--add-host",
        });
    }
    if config.auto_remove && !matches!(config.restart_policy.name.as_str(), "" | "no") {
        return Err(FlagError::Contradiction {
            one: "--rm",
            other: "--restart",
        });
    }
    if flags.tty {
        config.console_size = crate::terminal::console_size();
    }
    Ok(config)
}

fn limits(flags: &ContainerFlags, config: &mut HostConfig) -> Result<(), FlagError> {
    let text = |flag| move |cause| FlagError::Text { flag, cause };
    let size =
        |flag, written: &Option<String>| written.as_deref().map_or(Ok(0), parse_size).map_err(text(flag));
    config.memory = size("--memory", &flags.memory)?;
    config.memory_reservation = size("--memory-reservation", &flags.memory_reservation)?;
    config.shm_size = size("--shm-size", &flags.shm_size)?;
    let swap = flags.memory_swap.as_deref().map_or(Ok(0), parse_limit);
    config.memory_swap = swap.map_err(text("--memory-swap"))?;
    let cpus = flags.cpus.as_deref().map_or(Ok(0), parse_cpus);
    config.nano_cpus = cpus.map_err(|cause| FlagError::Value {
        flag: "--cpus",
        cause,
    })?;
    config.cpu_shares = flags.cpu_shares.unwrap_or(0);
    config.cpu_period = flags.cpu_period.unwrap_or(0);
    config.cpu_quota = flags.cpu_quota.unwrap_or(0);
    if config.nano_cpus != 0 && (config.cpu_quota != 0 || config.cpu_period != 0) {
        return Err(FlagError::Contradiction {
            one: "--cpus",
            other: "--cpu-quota or --cpu-period",
        });
    }
    config.cpuset_cpus = flags.cpuset_cpus.clone().unwrap_or_default();
    config.cpuset_mems = flags.cpuset_mems.clone().unwrap_or_default();
    config.blkio_weight = flags.blkio_weight.unwrap_or(0);
    // On the wire, 0 is what Docker's client sends where nobody said anything.
    config.pids_limit = flags.pids_limit.map(|pids| if pids == 0 { -1 } else { pids });
    config.oom_score_adj = flags.oom_score_adj.unwrap_or(0);
    config.oom_kill_disable = flags.oom_kill_disable.then_some(true);
    Ok(())
}

fn lists(flags: &ContainerFlags, config: &mut HostConfig) -> Result<(), FlagError> {
    let value = |flag| move |cause| FlagError::Value { flag, cause };
    let hosts = values::each(&flags.add_host, values::extra_hosts).map_err(value("--add-host"))?;
    config.extra_hosts = hosts.concat();
    config.dns = values::each(&flags.dns, values::name_server).map_err(value("--dns"))?;
    config.dns_search = values::each(&flags.dns_search, values::domain).map_err(value("--dns-search"))?;
    config.dns_options = values::each(&flags.dns_option, values::word).map_err(value("--dns-option"))?;
    config.devices = values::each(&flags.device, values::device).map_err(value("--device"))?;
    config.ulimits = values::each(&flags.ulimit, values::ulimit).map_err(value("--ulimit"))?;
    config.sysctls = values::pairs(&flags.sysctl).map_err(value("--sysctl"))?;
    config.annotations = values::pairs(&flags.annotation).map_err(value("--annotation"))?;
    config.log_config = LogConfig {
        kind: flags.log_driver.clone().unwrap_or_default(),
        config: values::pairs(&flags.log_opt).map_err(value("--log-opt"))?,
    };
    config.tmpfs = mounts::tmpfs(&flags.tmpfs)?;
    config.mounts = mounts::long(&flags.mount)?;
    config
        .mounts
        .extend(flags.tz.as_deref().map(mounts::time_zone).transpose()?);
    Ok(())
}

fn security(flags: &ContainerFlags, config: &mut HostConfig) -> Result<(), FlagError> {
    for option in &flags.security_opt {
        if option == "systempaths=unconfined" || option == "unmask=all" || option == "unmask=ALL" {
            config.masked_paths = Some(Vec::new());
            config.readonly_paths = Some(Vec::new());
            continue;
        }
        let option = values::security_option(option).map_err(|cause| FlagError::Value {
            flag: "--security-opt",
            cause,
        })?;
        config.security_opt.push(option);
    }
    // Docker's body has no place for a mask; the daemon takes it among these options.
    config
        .security_opt
        .extend(flags.umask.iter().map(|mask| format!("umask={mask}")));
    Ok(())
}

fn health(flags: &ContainerFlags) -> Result<Option<HealthConfig>, FlagError> {
    let time = |flag, written: &Option<String>| {
        written
            .as_deref()
            .map_or(Ok(0), parse_duration)
            .map_err(|cause| FlagError::Text { flag, cause })
    };
    let asks = flags.health_cmd.is_some()
        || flags.health_interval.is_some()
        || flags.health_timeout.is_some()
        || flags.health_start_period.is_some()
        || flags.health_retries.is_some();
    if flags.no_healthcheck {
        if asks {
            return Err(FlagError::Contradiction {
                one: "--no-healthcheck",
                other: "--health-*",
            });
        }
        return Ok(Some(HealthConfig {
            test: vec!["NONE".to_owned()],
            ..HealthConfig::default()
        }));
    }
    if !asks {
        return Ok(None);
    }
    Ok(Some(HealthConfig {
        test: flags.health_cmd.as_deref().map(health_test).unwrap_or_default(),
        interval: time("--health-interval", &flags.health_interval)?,
        timeout: time("--health-timeout", &flags.health_timeout)?,
        start_period: time("--health-start-period", &flags.health_start_period)?,
        retries: flags.health_retries.unwrap_or(0),
        ..HealthConfig::default()
    }))
}

/// Pairs as a map.
type Pairs = BTreeMap<String, String>;

#[cfg(test)]
mod tests;
