//! Networks: their records, who is in them, and what the host is told of it.
//!
//! Owns the subnets and addresses of this daemon's networks, the places of running containers, and the one picture of all of them
//! that the firewall is made to match. Refuses to know netlink, nftables and DNS: that is [`kakoi_net`]'s. Invariants: an address belongs to one
//! container; what a client sees of a container's network is what the kernel was told; a start that fails gives back all that it took; where
//! the kernel forgot, it is told anew.

pub mod ask;
pub mod files;
mod kernel;
mod live;
mod make;
mod members;
mod names;
mod place;
pub mod ports;
mod reach;
mod record;
mod view;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use kakoi_net::Scope;
use tokio::sync::watch;

pub use kernel::guard;
pub use record::NetworkRecord;

use crate::refusal::{Answer, Refusal};

/// The network of containers that name none.
pub const BRIDGE: &str = "bridge";

/// Networks that are always there and are no bridges: name, driver.
pub const FIXED: [(&str, &str); 2] = [("host", "host"), ("none", "null")];

/// Networks that one daemon takes.
const NETWORKS_MAX: usize = 256;

#[derive(Debug, Default)]
struct State {
    /// By id.
    rows: BTreeMap<String, NetworkRecord>,
    /// By container.
    live: BTreeMap<String, live::Live>,
    /// What was given out last.
    last: place::Last,
}

/// All networks.
#[derive(Debug)]
pub struct Networks {
    state: Mutex<State>,
    /// Serialises what makes and removes networks, and what joins and leaves them.
    turn: tokio::sync::Mutex<()>,
    scope: Scope,
    kernel: Mutex<Option<kernel::Kernel>>,
    /// Whether the firewall was told anything: only then is there something to watch.
    is_told: watch::Sender<bool>,
}

impl Networks {
    /// No networks yet, of the daemon of a run-time folder.
    fn new(run_dir: &Path) -> Self {
        Self {
            state: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            scope: Scope::of_run_folder(run_dir),
            kernel: Mutex::default(),
            is_told: watch::Sender::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while locked")
    }

    /// What sets this daemon's links and tables apart.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Ports of the host that running containers publish, and whose they are.
    pub fn published(&self) -> Vec<(kakoi_net::ports::Protocol, u16, String)> {
        let state = self.state();
        let all = state.live.values().flat_map(|live| {
            let ports = live.kept.ports.iter();
            ports.map(|port| (port.transport(), port.host.port(), live.kept.name.clone()))
        });
        all.collect()
    }

    /// All, in the order of their names.
    pub fn all(&self) -> Vec<NetworkRecord> {
        let mut all: Vec<NetworkRecord> = self.state().rows.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Finds by full id, exact name, or unambiguous beginning of an id, in this order.
    pub fn find(&self, wanted: &str) -> Answer<NetworkRecord> {
        let state = self.state();
        if let Some(found) = state.rows.get(wanted) {
            return Ok(found.clone());
        }
        if let Some(found) = state.rows.values().find(|row| row.name == wanted) {
            return Ok(found.clone());
        }
        let mut fitting = state
            .rows
            .values()
            .filter(|row| !wanted.is_empty() && row.id.starts_with(wanted));
        match (fitting.next(), fitting.next()) {
            (Some(found), None) => Ok(found.clone()),
            (Some(_), Some(_)) => Err(Refusal::bad(format!(
                "network {wanted} is ambiguous: more than one id begins with it"
            ))),
            _ => Err(Refusal::missing(format!("network {wanted} not found"))),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::record::Subnet;
    use super::*;

    /// A network with one subnet, whose first address is the bridge's.
    pub(crate) fn record(name: &str, subnet: &str) -> NetworkRecord {
        let net: kakoi_net::IpNet = subnet.parse().expect("a subnet");
        NetworkRecord {
            id: crate::names::new_id().expect("random bytes"),
            name: name.into(),
            created: "2026-11-30T00:00:00Z".into(),
            bridge: format!("br-{name}"),
            subnets: vec![Subnet {
                gateway: net.hosts().next().expect("it has addresses"),
                net,
                range: None,
                auxiliary: BTreeMap::new(),
            }],
            is_subnet_asked: false,
            internal: false,
            attachable: false,
            options: BTreeMap::new(),
            ipam_options: None,
            labels: BTreeMap::new(),
        }
    }

    /// These networks, with nobody in them.
    pub(crate) fn networks(rows: Vec<NetworkRecord>) -> Networks {
        let networks = Networks::new(Path::new("/run/none"));
        networks.state().rows = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
        networks
    }

    #[test]
    fn networks_are_found_as_docker_finds_them() {
        let rows = vec![record("bridge", "172.17.0.0/16"), record("app", "172.20.0.0/16")];
        let id = rows[1].id.clone();
        let networks = networks(rows);
        for wanted in ["app", id.as_str(), &id[..20]] {
            assert_eq!(networks.find(wanted).expect("there").name, "app", "{wanted}");
        }
        for missing in ["", "ap", "none of these"] {
            assert_eq!(
                networks.find(missing).expect_err("absent").status.as_u16(),
                404,
                "{missing}"
            );
        }
    }
}
