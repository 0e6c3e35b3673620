//! The plan itself, from what was decided before: pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use kakoi_api::container::{ContainerConfig, HostConfig};
use kakoi_container::plan::{
    IdMapping, IdMappings, MountPlan, NamespacePlan, NamespaceSource, PLAN_FORMAT, ProcessPlan, RootfsDriver,
    RootfsPlan, RunPlan, TerminalSize,
};
use kakoi_policy::confinement::{Confinement, NetworkMode, UserNamespace};

use super::limits;
use super::peers::{Peer, Peers};
use super::requests::{self, Network, Sharing};
use crate::config::Settings;
use crate::ids::RANGE_IDS;
use crate::networks::ask;
use crate::refusal::{Answer, Refusal};

/// Bytes of `/dev/shm` where nobody asks for another size. Docker's figure.
const SHM_BYTES: u64 = 64 << 20;
/// Digits of an id that become a host name.
const SHORT_ID_DIGITS: usize = 12;
/// Longest host name (gethostname(2)).
const HOSTNAME_BYTES_MAX: usize = 64;
/// Environment entries and arguments, in bytes: the kernel's own limit on one string is 128 KiB.
const STRING_BYTES_MAX: usize = 128 << 10;

/// What was decided before.
#[derive(Debug)]
pub struct Decided<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The request, completed from the image.
    pub config: &'a ContainerConfig,
    /// The request.
    pub host: &'a HostConfig,
    /// Program and arguments.
    pub args: Vec<String>,
    /// What confines it.
    pub confinement: Confinement,
    /// Home of its user.
    pub home: String,
    /// Unpacked layers, the topmost first.
    pub layers: Vec<PathBuf>,
    /// How they become one tree.
    pub driver: RootfsDriver,
    /// Mounts.
    pub mounts: Vec<MountPlan>,
    /// First host id of its range, where it has one.
    pub range_first: Option<u32>,
    /// Its durable folder.
    pub state_dir: &'a Path,
    /// Its run-time folder.
    pub run_dir: &'a Path,
    /// The daemon's settings.
    pub settings: &'a Settings,
    /// Containers whose namespaces it joins.
    pub peers: &'a Peers,
}

/// Builds the plan.
pub fn build(decided: Decided<'_>) -> Answer<RunPlan> {
    let (config, host) = (decided.config, decided.host);
    check_strings(&decided.args, &config.env)?;
    let namespaces = namespaces(host, &decided.confinement, decided.peers)?;
    let hostname = match &decided.peers.network {
        Some(peer) => peer.hostname.clone(),
        None => hostname(config, decided.id)?,
    };
    let process = ProcessPlan {
        env: environment(config, &hostname, &decided.home),
        cwd: working_dir(&config.working_dir)?,
        tty: config.tty,
        stdin_open: config.open_stdin,
        stdin_once: config.stdin_once,
        init: host.init.unwrap_or(false),
        terminal_size: terminal_size(host.console_size),
        oom_score_adj: i32::try_from(host.oom_score_adj)
            .map_err(|_| Refusal::bad("invalid oom score adj"))?,
        ulimits: limits::ulimits(host, &decided.confinement.limits)?,
        args: decided.args,
    };
    Ok(RunPlan {
        format: PLAN_FORMAT,
        id: decided.id.to_owned(),
        name: decided.name.to_owned(),
        is_ephemeral: host.auto_remove,
        state_dir: decided.state_dir.to_owned(),
        run_dir: decided.run_dir.to_owned(),
        rootfs: RootfsPlan {
            layers: decided.layers,
            driver: decided.driver,
        },
        process,
        hostname,
        domainname: (!config.domainname.is_empty()).then(|| config.domainname.clone()),
        mounts: decided.mounts,
        id_mappings: id_mappings(&decided.confinement, decided.range_first)?,
        cgroup: cgroup(&host.cgroup_parent, decided.id)?,
        resources: limits::resources(host, &decided.confinement.limits)?,
        secret_environment: None,
        awaits_network: ask::is_bridged(&host.network_mode),
        sysctls: sysctls(&host.sysctls, &namespaces)?,
        shm_bytes: shm_bytes(host, decided.confinement.limits.tmpfs_bytes),
        log: limits::log(&host.log_config, decided.settings)?,
        annotations: annotations(&host.annotations)?,
        namespaces,
        confinement: decided.confinement,
    })
}

/// What was asked for, else Docker's figure; no more than what bounds every tmpfs.
fn shm_bytes(host: &HostConfig, most: Option<u64>) -> u64 {
    let asked = u64::try_from(host.shm_size).ok().filter(|bytes| *bytes > 0);
    asked.unwrap_or(SHM_BYTES).min(most.unwrap_or(u64::MAX))
}

fn check_strings(args: &[String], env: &[String]) -> Answer<()> {
    for text in args.iter().chain(env) {
        if text.contains('\0') {
            return Err(Refusal::bad("arguments and environment cannot hold NUL bytes"));
        }
        if text.len() >= STRING_BYTES_MAX {
            return Err(Refusal::bad(format!(
                "an argument or variable is longer than {STRING_BYTES_MAX} bytes"
            )));
        }
    }
    if let Some(bad) = env.iter().find(|entry| entry.starts_with('=')) {
        return Err(Refusal::bad(format!("invalid environment variable: {bad}")));
    }
    Ok(())
}

fn namespaces(host: &HostConfig, confinement: &Confinement, peers: &Peers) -> Answer<NamespacePlan> {
    let of = |sharing, peer: &Option<Peer>| match sharing {
        Sharing::Own => NamespaceSource::New,
        Sharing::Host => NamespaceSource::Host,
        Sharing::Container => peer.as_ref().map_or(NamespaceSource::New, Peer::source),
    };
    let network = match (requests::network(host)?, confinement.network) {
        (Network::Container, _) => peers.network.as_ref().map_or(NamespaceSource::New, Peer::source),
        (_, NetworkMode::None | NetworkMode::Bridge) => NamespaceSource::New,
        (_, NetworkMode::Host) => NamespaceSource::Host,
    };
    Ok(NamespacePlan {
        pid: of(requests::sharing("PID", &host.pid_mode)?, &peers.pid),
        network,
        ipc: of(requests::sharing("IPC", &host.ipc_mode)?, &peers.ipc),
        uts: of(requests::sharing("UTS", &host.uts_mode)?, &None),
        cgroup: of(requests::sharing("cgroup namespace", &host.cgroupns_mode)?, &None),
    })
}

/// The host name that was asked for, else the short id.
pub fn hostname(config: &ContainerConfig, id: &str) -> Answer<String> {
    let name = if config.hostname.is_empty() {
        &id[..SHORT_ID_DIGITS.min(id.len())]
    } else {
        config.hostname.as_str()
    };
    let is_valid = name.len() <= HOSTNAME_BYTES_MAX
        && !name.starts_with(['-', '.'])
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    if is_valid {
        Ok(name.to_owned())
    } else {
        Err(Refusal::bad(format!("invalid hostname format: {name}")))
    }
}

fn environment(config: &ContainerConfig, hostname: &str, home: &str) -> Vec<String> {
    // A name alone takes a variable away, the image's or one of these.
    let mut env = config.env.clone();
    env.retain(|entry| entry.contains('='));
    let is_named = |name: &str| {
        config
            .env
            .iter()
            .any(|entry| entry.split('=').next() == Some(name))
    };
    if !is_named("HOSTNAME") {
        env.push(format!("HOSTNAME={hostname}"));
    }
    if config.tty && !is_named("TERM") {
        env.push("TERM=xterm".into());
    }
    if !is_named("HOME") {
        env.push(format!("HOME={home}"));
    }
    env
}

fn working_dir(text: &str) -> Answer<String> {
    if text.is_empty() {
        return Ok("/".into());
    }
    if !text.starts_with('/') || text.contains('\0') || text.split('/').any(|part| part == "..") {
        return Err(Refusal::bad(format!(
            "the working directory '{text}' is invalid, it needs to be an absolute path"
        )));
    }
    Ok(text.to_owned())
}

/// From rows and columns; zero means that the client does not know.
pub fn terminal_size([height, width]: [u16; 2]) -> Option<TerminalSize> {
    (height > 0 && width > 0).then_some(TerminalSize { width, height })
}

fn cgroup(parent: &str, id: &str) -> Answer<String> {
    Ok(format!("{}/{id}", requests::cgroup_parent(parent)?))
}

/// Only settings of the container's own namespaces: any other would be the host's.
fn sysctls(asked: &BTreeMap<String, String>, namespaces: &NamespacePlan) -> Answer<BTreeMap<String, String>> {
    const IPC: [&str; 9] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "fs.mqueue.",
    ];
    for (name, value) in asked {
        let is_plain = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/'));
        let refused = |why: &str| Err(Refusal::bad(format!("sysctl '{name}' {why}")));
        if !is_plain || name.contains("..") || value.contains('\0') {
            return refused("is malformed");
        }
        let dotted = name.replace('/', ".");
        if dotted.starts_with("net.") {
            if namespaces.network != NamespaceSource::New {
                return refused("is not allowed in the host's network");
            }
        } else if IPC
            .iter()
            .any(|own| dotted == *own || (own.ends_with('.') && dotted.starts_with(own)))
        {
            if namespaces.ipc != NamespaceSource::New {
                return refused("is not allowed in the host's ipc namespace");
            }
        } else {
            return refused("is not whitelisted: it is not a setting of the container's own namespaces");
        }
    }
    Ok(asked.clone())
}

fn annotations(asked: &BTreeMap<String, String>) -> Answer<BTreeMap<String, String>> {
    // Kakoi's own are how a policy reaches the OCI command line: here it is chosen otherwise.
    match asked
        .keys()
        .find(|name| name.is_empty() || name.starts_with("io.kakoi."))
    {
        Some(name) => Err(Refusal::bad(format!("annotation {name:?} cannot be set"))),
        None => Ok(asked.clone()),
    }
}

/// Root is never the host's: as a user it is refused under `keep-id`, and as a group, which a user without one of its own has, it is mapped
/// into the range.
fn id_mappings(confinement: &Confinement, range_first: Option<u32>) -> Answer<IdMappings> {
    let Some(first) = range_first else {
        return Ok(IdMappings {
            uids: vec![],
            gids: vec![],
        });
    };
    let whole = || {
        vec![IdMapping {
            inside: 0,
            outside: first,
            count: RANGE_IDS,
        }]
    };
    let identity = &confinement.identity;
    Ok(match confinement.user_namespace {
        UserNamespace::Host => IdMappings {
            uids: vec![],
            gids: vec![],
        },
        UserNamespace::Auto => IdMappings {
            uids: whole(),
            gids: whole(),
        },
        UserNamespace::KeepId if identity.uid == 0 => {
            return Err(Refusal::forbidden(
                "keep-id keeps the id of the container's user, which is root: it would be root of the host; use --userns auto, or another --user",
            ));
        }
        UserNamespace::KeepId => IdMappings {
            uids: keeping(identity.uid, first),
            gids: if identity.gid == 0 {
                whole()
            } else {
                keeping(identity.gid, first)
            },
        },
    })
}

/// A range in which one id is the same inside and outside.
fn keeping(id: u32, first: u32) -> Vec<IdMapping> {
    if id >= RANGE_IDS {
        let whole = IdMapping {
            inside: 0,
            outside: first,
            count: RANGE_IDS,
        };
        return vec![
            whole,
            IdMapping {
                inside: id,
                outside: id,
                count: 1,
            },
        ];
    }
    [
        IdMapping {
            inside: 0,
            outside: first,
            count: id,
        },
        IdMapping {
            inside: id,
            outside: id,
            count: 1,
        },
        IdMapping {
            inside: id + 1,
            outside: first + id + 1,
            count: RANGE_IDS - id - 1,
        },
    ]
    .into_iter()
    .filter(|mapping| mapping.count > 0)
    .collect()
}

/// The address in `extra` that stands for the host itself.
const HOST_GATEWAY: &str = "host-gateway";

/// The text of `/etc/hosts`. `own` are the container's addresses; `gateway` is the host's, where the container reaches it.
pub fn hosts(
    hostname: &str,
    domainname: &str,
    extra: &[String],
    own: &[IpAddr],
    gateway: Option<IpAddr>,
) -> Answer<String> {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for entry in extra {
        let invalid = || Refusal::bad(format!("invalid add-host: \"{entry}\""));
        let (name, address) = entry.split_once(['=', ':']).ok_or_else(invalid)?;
        let address = address.trim_start_matches('[').trim_end_matches(']');
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        let address = match (address, gateway) {
            (HOST_GATEWAY, Some(gateway)) => gateway,
            (HOST_GATEWAY, None) => {
                return Err(Refusal::bad(format!(
                    "invalid add-host: \"{entry}\": without a bridge network there is no way to the host"
                )));
            }
            (text, _) => text.parse().map_err(|_| invalid())?,
        };
        if !is_name {
            return Err(invalid());
        }
        text.push_str(&format!("{address}\t{name}\n"));
    }
    let full = if domainname.is_empty() {
        hostname.to_owned()
    } else {
        format!("{hostname}.{domainname} {hostname}")
    };
    for address in own {
        text.push_str(&format!("{address}\t{full}\n"));
    }
    Ok(text)
}

/// The text of `/etc/resolv.conf`: what was asked for, else the host's where its network is shared.
pub fn resolv_conf(host: &HostConfig, of_host: Option<&str>) -> Answer<String> {
    let mut text = String::new();
    for server in &host.dns {
        let address: std::net::IpAddr = server
            .parse()
            .map_err(|_| Refusal::bad(format!("{server} is not an ip address")))?;
        text.push_str(&format!("nameserver {address}\n"));
    }
    for (keyword, words) in [("search", &host.dns_search), ("options", &host.dns_options)] {
        if words
            .iter()
            .any(|word| word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(Refusal::bad(format!("invalid dns {keyword}: {words:?}")));
        }
        if !words.is_empty() {
            text.push_str(&format!("{keyword} {}\n", words.join(" ")));
        }
    }
    Ok(if text.is_empty() {
        of_host.unwrap_or_default().to_owned()
    } else {
        text
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn one_id_is_kept_and_no_two_overlap() {
        for id in [0, 1, 1000, RANGE_IDS - 1, RANGE_IDS, 2_000_000] {
            let mappings = keeping(id, 0x2000_0000);
            let total: u32 = mappings.iter().map(|mapping| mapping.count).sum();
            assert_eq!(total, if id < RANGE_IDS { RANGE_IDS } else { RANGE_IDS + 1 });
            let kept = mappings
                .iter()
                .find(|mapping| mapping.inside == id && mapping.count == 1)
                .expect("it is kept");
            assert_eq!(kept.outside, id);
            for pair in mappings.windows(2) {
                assert!(pair[0].inside + pair[0].count <= pair[1].inside, "{mappings:?}");
            }
        }
    }

    #[test]
    fn root_of_the_host_is_mapped_to_nobody() {
        let of = |mode, uid, gid| {
            let confinement = confined(mode, uid, gid);
            id_mappings(&confinement, Some(0x2000_0000))
        };
        let refusal = of(UserNamespace::KeepId, 0, 0).expect_err("root of the host");
        assert_eq!(refusal.status.as_u16(), 403);
        for (mode, uid, gid) in [
            (UserNamespace::Auto, 0, 0),
            (UserNamespace::KeepId, 1000, 0),
            (UserNamespace::KeepId, 1000, 1000),
        ] {
            let mappings = of(mode, uid, gid).expect("allowed");
            for mapping in mappings.uids.iter().chain(&mappings.gids) {
                assert_ne!(mapping.outside, 0, "{mode:?} {uid}:{gid}");
            }
        }
    }

    /// A kernel that lacks nothing.
    pub(crate) fn facts() -> kakoi_policy::kernel::KernelFacts {
        use kakoi_policy::kernel::{Arch, CgroupMode, KernelFacts};
        KernelFacts {
            release: "6.18.0".into(),
            arch: Arch::X86_64,
            landlock_abi: 7,
            seccomp_filter: true,
            seccomp_log: true,
            cgroup_mode: CgroupMode::V2,
            cgroup_controllers: Default::default(),
            capability_last: 40,
            capabilities_held: u64::MAX >> 23,
            user_namespaces: true,
            overlayfs: true,
            security_modules: vec![],
        }
    }

    /// A confinement of a user.
    fn confined(mode: UserNamespace, uid: u32, gid: u32) -> Confinement {
        use kakoi_policy::{Requests, ShippedOnly, compile, compose, parse};
        let identity = kakoi_policy::confinement::Identity {
            uid,
            gid,
            groups: vec![],
            umask: 0o022,
        };
        let policy = parse("p.yaml", "kakoi: 1\nextends: [strict]\n").expect("a policy");
        let composed = compose(&policy, &ShippedOnly)
            .expect("composed")
            .request(&Requests {
                user_namespace: Some(mode),
                ..Requests::none()
            });
        compile(&composed, &identity, &facts()).expect("enforceable")
    }

    #[test]
    fn only_own_settings_can_be_changed() {
        let namespaces = |network| NamespacePlan {
            pid: NamespaceSource::New,
            network,
            ipc: NamespaceSource::New,
            uts: NamespaceSource::New,
            cgroup: NamespaceSource::New,
        };
        let set = |name: &str| BTreeMap::from([(name.to_owned(), "1".to_owned())]);
        let own = namespaces(NamespaceSource::New);
        for good in [
            "net.ipv4.ip_forward",
            "kernel.shmmax",
            "fs.mqueue.msg_max",
            "net/ipv4/ip_forward",
        ] {
            assert!(sysctls(&set(good), &own).is_ok(), "{good}");
        }
        for bad in [
            "kernel.core_pattern",
            "vm.swappiness",
            "net/../kernel",
            "kernel.shm",
            "a b",
        ] {
            assert!(sysctls(&set(bad), &own).is_err(), "{bad}");
        }
        assert!(sysctls(&set("net.ipv4.ip_forward"), &namespaces(NamespaceSource::Host)).is_err());
    }

    #[test]
    fn host_names_and_folders_are_judged() {
        let named = |name: &str| {
            hostname(
                &ContainerConfig {
                    hostname: name.into(),
                    ..Default::default()
                },
                "0123456789abcdef",
            )
        };
        assert_eq!(named("").expect("the short id"), "0123456789ab");
        assert!(named("web-1.example").is_ok());
        for bad in ["-x", "a b", "a\nb", &"a".repeat(65)] {
            assert!(named(bad).is_err(), "{bad:?}");
        }
        assert_eq!(working_dir("").expect("the root"), "/");
        for bad in ["srv", "/a/../b"] {
            assert!(working_dir(bad).is_err(), "{bad}");
        }
        assert_eq!(cgroup("", "x").expect("ours"), "/kakoi/x");
        assert_eq!(cgroup("/a/b/", "x").expect("theirs"), "/a/b/x");
    }

    #[test]
    fn hosts_and_resolvers_take_only_addresses() {
        let own = [IpAddr::from([127, 0, 0, 1])];
        let text = hosts(
            "web",
            "",
            &["db:10.0.0.2".into(), "six=[::2]".into(), "up:host-gateway".into()],
            &own,
            own.first().copied(),
        )
        .expect("valid");
        assert!(
            text.contains("10.0.0.2\tdb\n")
                && text.contains("::2\tsix\n")
                && text.ends_with("127.0.0.1\tweb\n")
        );
        for bad in ["db", "db:x", ":1.2.3.4", "a\nb:1.2.3.4"] {
            assert!(hosts("web", "", &[bad.into()], &own, None).is_err(), "{bad:?}");
        }
        let dns = HostConfig {
            dns: vec!["9.9.9.9".into()],
            dns_search: vec!["lan".into()],
            ..Default::default()
        };
        assert_eq!(
            resolv_conf(&dns, Some("nameserver 1.1.1.1\n")).expect("valid"),
            "nameserver 9.9.9.9\nsearch lan\n"
        );
        assert_eq!(
            resolv_conf(&HostConfig::default(), Some("nameserver 1.1.1.1\n")).expect("valid"),
            "nameserver 1.1.1.1\n"
        );
        assert!(
            resolv_conf(
                &HostConfig {
                    dns: vec!["x".into()],
                    ..Default::default()
                },
                None
            )
            .is_err()
        );
    }
}
