//! Other containers whose namespaces a container joins.
//!
//! Owns finding them, what contradicts joining, and what their namespaces mean to the owner's ceiling: whoever joins a container that has the
//! host's network, processes or IPC asks for the host's. Refuses user namespaces on either side: the kernel gives power over a namespace only to
//! the user namespace that made it, and no two containers share one. Which process is behind a name is settled when the container starts, by
//! its shim.

use std::path::PathBuf;
use std::sync::Arc;

use kakoi_api::container::{ContainerConfig, HostConfig};
use kakoi_container::plan::{NamespaceSource, RunPlan};
use kakoi_policy::confinement::{Confinement, NetworkMode, Reach, UserNamespace};

use crate::engine::Engine;
use crate::life::container::Container;
use crate::refusal::{Answer, Refusal};

/// The word before a container's name or id.
const PREFIX: &str = "container:";

/// A container whose namespace is joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub id: String,
    /// Whether its namespace is the host's own.
    pub is_host: bool,
    /// Its host name.
    pub hostname: String,
    has_user_namespace: bool,
    /// Its durable folder, in which its `/etc` files lie.
    pub state_dir: PathBuf,
    /// Its run-time folder, in which its shim listens.
    pub run_dir: PathBuf,
}

impl Peer {
    fn of(plan: RunPlan, kind: fn(&RunPlan) -> &NamespaceSource) -> Self {
        Self {
            is_host: *kind(&plan) == NamespaceSource::Host,
            has_user_namespace: !plan.id_mappings.uids.is_empty(),
            id: plan.id,
            hostname: plan.hostname,
            state_dir: plan.state_dir,
            run_dir: plan.run_dir,
        }
    }

    /// What the namespace comes from.
    pub fn source(&self) -> NamespaceSource {
        if self.is_host {
            return NamespaceSource::Host;
        }
        NamespaceSource::Container {
            id: self.id.clone(),
            run_dir: self.run_dir.clone(),
        }
    }

    /// What its network means to a policy.
    pub fn network_mode(&self) -> NetworkMode {
        if self.is_host {
            NetworkMode::Host
        } else {
            NetworkMode::None
        }
    }
}

/// All that are joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Whose network.
    pub network: Option<Peer>,
    /// Whose processes.
    pub pid: Option<Peer>,
    /// Whose semaphores, message queues and shared memory.
    pub ipc: Option<Peer>,
}

/// The container that a mode names.
pub fn named(mode: &str) -> Option<&str> {
    mode.strip_prefix(PREFIX).filter(|name| !name.is_empty())
}

/// A container that a request names beside its image. Its absence is the request's mistake (400): clients take a 404 of a creation for a missing
/// image, and fetch it.
pub fn other(engine: &Engine, name: &str) -> Answer<Arc<Container>> {
    engine
        .containers
        .find(name)
        .map_err(|refusal| Refusal::bad(refusal.message))
}

impl Peers {
    /// Finds the containers that a request names and writes their ids in the place of their names, which may change.
    pub fn find(engine: &Engine, config: &ContainerConfig, host: &mut HostConfig) -> Answer<Self> {
        check_conflicts(config, host)?;
        let find = |mode: &mut String, kind: fn(&RunPlan) -> &NamespaceSource| -> Answer<Option<Peer>> {
            let Some(name) = named(mode) else { return Ok(None) };
            let container = other(engine, name)?;
            *mode = format!("{PREFIX}{}", container.id);
            let plan = super::read(&engine.paths.state_dir(&container.id))?;
            Ok(Some(Peer::of(plan, kind)))
        };
        Ok(Self {
            network: find(&mut host.network_mode, |plan| &plan.namespaces.network)?,
            pid: find(&mut host.pid_mode, |plan| &plan.namespaces.pid)?,
            ipc: match named(&host.ipc_mode) {
                Some(name) => {
                    check_shareable(other(engine, name)?.as_ref())?;
                    find(&mut host.ipc_mode, |plan| &plan.namespaces.ipc)?
                }
                None => None,
            },
        })
    }

    /// Refuses another container's network to a policy that bounds where packets go: they would go where the other's may.
    pub fn check_reach(&self, confinement: &Confinement) -> Answer<()> {
        match (&self.network, &confinement.reach) {
            (Some(peer), Reach::Only { .. }) => Err(Refusal::forbidden(format!(
                "policy {:?} bounds where packets go (`network.egress` or `network.peers`), which cannot hold in the network of container {}; use a bridge network",
                confinement.policy.name, peer.id
            ))),
            _ => Ok(()),
        }
    }

    /// Refuses to join across user namespaces.
    pub fn check_user_namespaces(&self, confinement: &Confinement) -> Answer<()> {
        for peer in [&self.network, &self.pid, &self.ipc].into_iter().flatten() {
            if peer.has_user_namespace || confinement.user_namespace != UserNamespace::Host {
                return Err(Refusal::bad(format!(
                    "the namespaces of container {} cannot be joined: both containers must be in the same user namespace, and {} has one of its own; use --userns host for both",
                    peer.id,
                    if peer.has_user_namespace {
                        "it"
                    } else {
                        "the new one"
                    },
                )));
            }
        }
        Ok(())
    }
}

/// Refuses the IPC namespace of a container that was not made to share it: dockerd's refusal in its words.
fn check_shareable(container: &Container) -> Answer<()> {
    let mode = container.shared().record.host_config.ipc_mode.clone();
    if mode == "shareable" || mode == "host" || named(&mode).is_some() {
        return Ok(());
    }
    Err(Refusal::bad(format!(
        "container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
        container.id
    )))
}

/// What makes no sense beside another container's network: dockerd's refusals in its words.
fn check_conflicts(config: &ContainerConfig, host: &HostConfig) -> Answer<()> {
    if !config.hostname.is_empty() && host.uts_mode == "host" {
        return Err(Refusal::bad("conflicting options: hostname and the UTS mode"));
    }
    if !host.network_mode.starts_with(PREFIX) {
        return Ok(());
    }
    for (what, is_asked) in [
        ("hostname and the network mode", !config.hostname.is_empty()),
        ("dns and the network mode", !host.dns.is_empty()),
        (
            "custom host-to-IP mapping and the network mode",
            !host.extra_hosts.is_empty(),
        ),
        (
            "port publishing and the container type network mode",
            !host.port_bindings.is_empty() || host.publish_all_ports,
        ),
        (
            "port exposing and the container type network mode",
            !config.exposed_ports.is_empty(),
        ),
    ] {
        if is_asked {
            return Err(Refusal::bad(format!("conflicting options: {what}")));
        }
    }
    Ok(())
}

/// Refuses a start beside a container that does not run, before anything is made for it.
pub fn check_running(engine: &Engine, host: &HostConfig) -> Answer<()> {
    for (what, mode) in [
        ("network", &host.network_mode),
        ("PID namespace", &host.pid_mode),
        ("IPC namespace", &host.ipc_mode),
    ] {
        let Some(id) = named(mode) else { continue };
        let container = engine.containers.find(id)?;
        if !container.shared().phase.is_up() {
            return Err(Refusal::conflict(format!(
                "cannot join {what} of a non running container: {id}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(change: impl FnOnce(&mut ContainerConfig, &mut HostConfig)) -> Option<String> {
        let (mut config, mut host) = (ContainerConfig::default(), HostConfig::default());
        host.network_mode = "container:x".into();
        change(&mut config, &mut host);
        check_conflicts(&config, &host)
            .err()
            .map(|refusal| refusal.message)
    }

    #[test]
    fn what_makes_no_sense_beside_another_s_network_is_refused() {
        assert_eq!(conflict(|_, _| {}), None);
        for (row, message) in [
            (conflict(|config, _| config.hostname = "a".into()), "hostname and"),
            (conflict(|_, host| host.dns = vec!["1.1.1.1".into()]), "dns and"),
            (
                conflict(|_, host| host.extra_hosts = vec!["a:1.1.1.1".into()]),
                "custom host",
            ),
            (
                conflict(|_, host| host.publish_all_ports = true),
                "port publishing",
            ),
        ] {
            assert!(
                row.as_deref().is_some_and(|text| text.contains(message)),
                "{row:?}"
            );
        }
        // The same is fine beside a network of one's own.
        let own = conflict(|config, host| {
            host.network_mode = "none".into();
            config.hostname = "a".into();
        });
        assert_eq!(own, None);
        let both = conflict(|config, host| {
            host.network_mode.clear();
            (config.hostname, host.uts_mode) = ("a".into(), "host".into());
        });
        assert!(both.is_some_and(|text| text.contains("UTS mode")));
    }

    #[test]
    fn user_namespaces_are_not_crossed() {
        let peer = |has_user_namespace| Peer {
            id: "x".into(),
            is_host: false,
            hostname: "x".into(),
            has_user_namespace,
            state_dir: "/s".into(),
            run_dir: "/r".into(),
        };
        let policy = kakoi_policy::parse("a.yaml", "kakoi: 1\nextends: [docker-default]\n").expect("right");
        let composed = kakoi_policy::compose(&policy, &kakoi_policy::ShippedOnly).expect("right");
        let identity = kakoi_policy::confinement::Identity {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            umask: 0o022,
        };
        let facts = kakoi_confine::probe().expect("this kernel");
        let mut confinement = kakoi_policy::compile(&composed, &identity, &facts).expect("it compiles");
        let joins = |has_user_namespace| Peers {
            network: Some(peer(has_user_namespace)),
            ..Peers::default()
        };
        assert!(joins(false).check_user_namespaces(&confinement).is_ok());
        assert!(joins(true).check_user_namespaces(&confinement).is_err());
        confinement.user_namespace = UserNamespace::Auto;
        assert!(joins(false).check_user_namespaces(&confinement).is_err());
        assert!(Peers::default().check_user_namespaces(&confinement).is_ok());
        assert!(joins(false).check_reach(&confinement).is_ok());
        confinement.reach = Reach::default();
        assert!(joins(false).check_reach(&confinement).is_err());
        assert!(Peers::default().check_reach(&confinement).is_ok());
    }

    #[test]
    fn only_shareable_ipc_is_joined() {
        for (mode, is_shared) in [
            ("shareable", true),
            ("host", true),
            ("container:00ff", true),
            ("", false),
            ("private", false),
            ("none", false),
            ("container:", false),
        ] {
            let mut record = crate::life::start::tests::record("00ff");
            record.host_config.ipc_mode = mode.into();
            let container = Container::new(record, crate::life::container::Phase::Running);
            assert_eq!(check_shareable(&container).is_ok(), is_shared, "{mode:?}");
        }
    }

    #[test]
    fn who_joins_the_host_s_asks_for_the_host_s() {
        let peer = |is_host| Peer {
            id: "x".into(),
            is_host,
            hostname: "x".into(),
            has_user_namespace: false,
            state_dir: "/s".into(),
            run_dir: "/r".into(),
        };
        assert_eq!(peer(true).source(), NamespaceSource::Host);
        assert_eq!(peer(true).network_mode(), NetworkMode::Host);
        assert!(matches!(peer(false).source(), NamespaceSource::Container { .. }));
        assert_eq!(peer(false).network_mode(), NetworkMode::None);
    }
}
