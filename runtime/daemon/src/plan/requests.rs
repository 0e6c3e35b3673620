//! What a request asks for in the policy language's words: what the owner's ceiling then judges.

use std::str::FromStr;

use kakoi_api::container::HostConfig;
use kakoi_policy::confinement::{DeviceKind, MountSource, NetworkMode, UserNamespace};
use kakoi_policy::{
    CapabilityWord, DeviceNumbersRequest, DeviceRequest, HostNamespace, MountRequest, Requests, device_access,
};

use super::limits;
use super::peers::{self, Peer, Peers};
use crate::names;
use crate::refusal::{Answer, Refusal};

/// The group of all containers that ask for no other.
const CGROUP_PARENT: &str = "/kakoi";

/// Where the network comes from, as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// Whatever the policy says.
    Policy,
    /// None.
    None,
    /// The host's.
    Host,
    /// Another container's.
    Container,
    /// One of its own, in networks of bridges.
    Bridge,
}

/// Reads `NetworkMode`.
pub fn network(host: &HostConfig) -> Answer<Network> {
    match host.network_mode.as_str() {
        "" | "default" => Ok(Network::Policy),
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        "container:" => Err(Refusal::bad(
            "Invalid network mode: invalid container format container:<name|id>",
        )),
        other if peers::named(other).is_some() => Ok(Network::Container),
        _ => Ok(Network::Bridge),
    }
}

/// Where another namespace comes from, as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// A new one.
    Own,
    /// The host's.
    Host,
    /// Another container's.
    Container,
}

/// Reads `PidMode`, `IpcMode`, `UTSMode` and `CgroupnsMode`.
pub fn sharing(kind: &str, mode: &str) -> Answer<Sharing> {
    match mode {
        "" | "private" => Ok(Sharing::Own),
        "shareable" | "none" if kind == "IPC" => Ok(Sharing::Own),
        "host" => Ok(Sharing::Host),
        other => match peers::named(other) {
            Some(_) if matches!(kind, "PID" | "IPC") => Ok(Sharing::Container),
            _ => Err(Refusal::bad(format!("invalid {kind} mode: {other}"))),
        },
    }
}

/// Reads `CgroupParent`: the group below which a container's own is made, as an absolute path.
pub fn cgroup_parent(text: &str) -> Answer<String> {
    let parent = text.trim_matches('/');
    if parent.is_empty() {
        return Ok(CGROUP_PARENT.into());
    }
    let is_word =
        |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(|byte| byte.is_ascii_graphic());
    if !parent.split('/').all(is_word) {
        return Err(Refusal::bad(format!("invalid cgroup parent {text:?}")));
    }
    // Whoever ends that container would end this one with it, and its limits would be this one's.
    if parent.split('/').any(names::is_id) {
        return Err(Refusal::forbidden(format!(
            "invalid cgroup parent {text:?}: it lies within the group of a container"
        )));
    }
    Ok(format!("/{parent}"))
}

/// Whether a group is the daemon's own to give.
fn is_ours(parent: &str) -> bool {
    parent
        .strip_prefix(CGROUP_PARENT)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Everything a request asks for. `mounts` have their real paths.
pub fn of(host: &HostConfig, user: &str, mounts: Vec<MountRequest>, peers: &Peers) -> Answer<Requests> {
    let mut requests = Requests {
        capabilities_add: capabilities("cap-add", &host.cap_add)?,
        capabilities_drop: capabilities("cap-drop", &host.cap_drop)?,
        privileged: host.privileged,
        user: (!user.is_empty()).then(|| user.to_owned()),
        read_only_root: host.readonly_rootfs.then_some(true),
        network: match network(host)? {
            Network::Policy => None,
            Network::None => Some(NetworkMode::None),
            Network::Host => Some(NetworkMode::Host),
            Network::Bridge => Some(NetworkMode::Bridge),
            Network::Container => peers.network.as_ref().map(Peer::network_mode),
        },
        user_namespace: user_namespace(&host.userns_mode)?,
        mounts,
        limits: limits::asked(host)?,
        oom_score_adj: (host.oom_score_adj != 0).then_some(host.oom_score_adj),
        cgroup_parent: Some(cgroup_parent(&host.cgroup_parent)?).filter(|parent| !is_ours(parent)),
        ..Requests::none()
    };
    for device in &host.devices {
        requests.devices.push(self::device(device)?);
    }
    for rule in &host.device_cgroup_rules {
        requests.device_rules.push(device_rule(rule)?);
    }
    if !host.device_requests.is_empty() {
        return Err(Refusal::unsupported(
            "requests to device drivers (--gpus) are not supported; name devices with --device",
        ));
    }
    for (kind, mode, namespace) in [
        ("PID", &host.pid_mode, HostNamespace::Pid),
        ("IPC", &host.ipc_mode, HostNamespace::Ipc),
        ("UTS", &host.uts_mode, HostNamespace::Uts),
        ("cgroup namespace", &host.cgroupns_mode, HostNamespace::Cgroup),
    ] {
        if sharing(kind, mode)? == Sharing::Host {
            requests.host_namespaces.push(namespace);
        }
    }
    for (peer, namespace) in [(&peers.pid, HostNamespace::Pid), (&peers.ipc, HostNamespace::Ipc)] {
        if peer.as_ref().is_some_and(|peer| peer.is_host) {
            requests.host_namespaces.push(namespace);
        }
    }
    for option in &host.security_opt {
        security_option(option, &mut requests)?;
    }
    if host.masked_paths.as_ref().is_some_and(Vec::is_empty)
        && host.readonly_paths.as_ref().is_some_and(Vec::is_empty)
    {
        requests.system_paths_unconfined = true;
    }
    Ok(requests)
}

fn capabilities(flag: &str, words: &[String]) -> Answer<Vec<CapabilityWord>> {
    words
        .iter()
        .map(|word| {
            CapabilityWord::from_str(word).map_err(|unknown| {
                let hint = unknown
                    .nearest
                    .map(|nearest| format!("; did you mean {nearest}?"))
                    .unwrap_or_default();
                Refusal::bad(format!("invalid {flag}: unknown capability: \"{word}\"{hint}"))
            })
        })
        .collect()
}

fn user_namespace(mode: &str) -> Answer<Option<UserNamespace>> {
    match mode {
        "" => Ok(None),
        "host" => Ok(Some(UserNamespace::Host)),
        "auto" | "private" => Ok(Some(UserNamespace::Auto)),
        "keep-id" => Ok(Some(UserNamespace::KeepId)),
        other => Err(Refusal::bad(format!(
            "invalid userns mode: {other}; use host, auto or keep-id"
        ))),
    }
}

fn device(wire: &kakoi_api::container::DeviceMapping) -> Answer<DeviceRequest> {
    let inside = &wire.path_in_container;
    if !inside.is_empty() && *inside != wire.path_on_host {
        return Err(Refusal::unsupported(format!(
            "device {}: a device keeps its path inside ({inside} was asked for)",
            wire.path_on_host
        )));
    }
    let text = if wire.cgroup_permissions.is_empty() {
        "rwm"
    } else {
        &wire.cgroup_permissions
    };
    let access = device_access(text).ok_or_else(|| Refusal::bad(format!("invalid device mode: {text}")))?;
    Ok(DeviceRequest {
        path: wire.path_on_host.clone(),
        access,
    })
}

/// `c 188:* rwm`
fn device_rule(text: &str) -> Answer<DeviceNumbersRequest> {
    let invalid = || Refusal::bad(format!("invalid device cgroup rule format: '{text}'"));
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [kind, numbers, access] = fields[..] else {
        return Err(invalid());
    };
    let kind = match kind {
        "a" => DeviceKind::All,
        "b" => DeviceKind::Block,
        "c" => DeviceKind::Char,
        _ => return Err(invalid()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        digits => digits.parse::<u32>().map(Some).map_err(|_| invalid()),
    };
    Ok(DeviceNumbersRequest {
        kind,
        major: number(major)?,
        minor: number(minor)?,
        access: device_access(access).ok_or_else(invalid)?,
    })
}

fn security_option(text: &str, requests: &mut Requests) -> Answer<()> {
    let (name, value) = text.split_once(['=', ':']).unwrap_or((text, ""));
    match (name, value) {
        ("no-new-privileges", "" | "true") => requests.no_new_privileges = Some(true),
        ("no-new-privileges", "false") => requests.no_new_privileges = Some(false),
        ("seccomp", "unconfined") => requests.seccomp_unconfined = true,
        ("seccomp", "builtin") | ("apparmor" | "label", "disable" | "unconfined") => {}
        // The client sends the profile itself, as Docker's does.
        ("seccomp", document) if document.trim_start().starts_with('{') => {
            requests.seccomp_profile = Some(document.to_owned());
        }
        ("seccomp", _) => {
            return Err(Refusal::bad(
                "--security-opt seccomp: give unconfined, builtin or the text of a Docker seccomp profile",
            ));
        }
        ("systempaths", "unconfined") => requests.system_paths_unconfined = true,
        // Which policy; read where the policy is chosen.
        ("kakoi", _) => {}
        ("umask", octal) => {
            let umask = u32::from_str_radix(octal, 8).ok().filter(|mask| *mask <= 0o777);
            requests.umask = Some(umask.ok_or_else(|| Refusal::bad(format!("invalid umask {octal:?}")))?);
        }
        ("apparmor" | "label", _) => {
            return Err(Refusal::unsupported(format!(
                "--security-opt {name}: Kakoi confines with landlock and seccomp"
            )));
        }
        _ => return Err(Refusal::bad(format!("invalid --security-opt: {text:?}"))),
    }
    Ok(())
}

/// A mount in the policy language's words.
pub fn mount(source: MountSource, target: &str, read_only: bool) -> MountRequest {
    MountRequest {
        source,
        target: target.to_owned(),
        read_only,
    }
}

#[cfg(test)]
mod tests {
    use kakoi_policy::Amount;

    use super::*;

    fn asked(change: impl FnOnce(&mut HostConfig)) -> Answer<Requests> {
        let mut host = HostConfig::default();
        change(&mut host);
        of(&host, "", Vec::new(), &Peers::default())
    }

    #[test]
    fn nothing_asked_is_nothing_requested() {
        assert_eq!(asked(|_| {}).expect("valid"), Requests::none());
    }

    #[test]
    fn every_grant_is_carried_over() {
        let requests = asked(|host| {
            host.privileged = true;
            host.cap_add = vec!["NET_ADMIN".into()];
            host.cap_drop = vec!["all".into()];
            host.pid_mode = "host".into();
            host.security_opt = vec!["seccomp=unconfined".into(), "no-new-privileges:false".into()];
            host.network_mode = "host".into();
            host.userns_mode = "keep-id".into();
            host.device_cgroup_rules = vec!["c 188:* rw".into()];
        })
        .expect("valid");
        assert!(requests.privileged && requests.seccomp_unconfined);
        assert_eq!(requests.no_new_privileges, Some(false));
        assert_eq!(requests.capabilities_drop, [CapabilityWord::All]);
        assert_eq!(requests.host_namespaces, [HostNamespace::Pid]);
        assert_eq!(requests.network, Some(NetworkMode::Host));
        assert_eq!(requests.user_namespace, Some(UserNamespace::KeepId));
        assert_eq!(
            (requests.device_rules[0].major, requests.device_rules[0].minor),
            (Some(188), None)
        );
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(
            asked(|host| host.cap_add = vec!["NET_ADMN".into()])
                .expect_err("typo")
                .message
                .contains("NET_ADMIN")
        );
        for bridged in ["bridge", "app"] {
            let requests = asked(|host| host.network_mode = bridged.into()).expect("well-formed");
            assert_eq!(requests.network, Some(NetworkMode::Bridge), "{bridged}");
        }
        assert!(asked(|host| host.network_mode = "container:".into()).is_err());
        assert!(asked(|host| host.network_mode = "container:x".into()).is_ok());
        assert!(asked(|host| host.pid_mode = "container:".into()).is_err());
        assert!(asked(|host| host.ipc_mode = "container:".into()).is_err());
        assert!(asked(|host| host.ipc_mode = "container:x".into()).is_ok());
        assert!(asked(|host| host.pid_mode = "hots".into()).is_err());
        assert!(asked(|host| host.uts_mode = "container:x".into()).is_err());
        assert!(asked(|host| host.userns_mode = "x".into()).is_err());
        assert!(asked(|host| host.security_opt = vec!["seccomp=/profile.json".into()]).is_err());
        assert!(asked(|host| host.security_opt = vec!["nonsense".into()]).is_err());
        for rule in ["", "c 1:2", "x 1:2 r", "c 1 r", "c 1:x r", "c 1:2 q"] {
            assert!(
                asked(|host| host.device_cgroup_rules = vec![rule.into()]).is_err(),
                "{rule}"
            );
        }
    }

    #[test]
    fn a_group_elsewhere_is_the_owners_to_give_and_one_of_another_container_nobodys() {
        let other = "0a".repeat(32);
        let parent = |text: &str| asked(|host| host.cgroup_parent = text.into());
        for own in ["", "/", "/kakoi", "kakoi/apps/", "/kakoi/apps"] {
            assert_eq!(parent(own).expect("ours").cgroup_parent, None, "{own}");
        }
        for theirs in ["system.slice", "/kakoix", "/docker/x"] {
            let asked = parent(theirs).expect("valid").cgroup_parent.expect("judged");
            assert_eq!(asked.trim_start_matches('/'), theirs.trim_start_matches('/'));
        }
        for path in [
            format!("/kakoi/{other}"),
            format!("/kakoi/apps/{other}/x"),
            format!("/docker/{other}"),
        ] {
            assert_eq!(
                parent(&path).expect_err("another's").status.as_u16(),
                403,
                "{path}"
            );
        }
        for bad in ["/kakoi/../x", "a//b", "a b", "./x"] {
            assert_eq!(parent(bad).expect_err("nonsense").status.as_u16(), 400, "{bad}");
        }
    }

    #[test]
    fn what_reaches_the_neighbours_is_carried_over() {
        let requests = asked(|host| {
            host.oom_score_adj = -500;
            host.shm_size = 10 << 30;
            host.memory_swap = -1;
        })
        .expect("valid");
        assert_eq!(requests.oom_score_adj, Some(-500));
        assert_eq!(requests.limits.shm, Some(Amount::At(10 << 30)));
        assert_eq!(requests.limits.swap, Some(Amount::Unlimited));
    }
}
