//! What the kernel is told of networks.
//!
//! Owns the translation of records and places into bridges, links and the picture that the firewall is made to match. Everything here blocks.
//! Invariant: the picture is drawn while nobody else tells the kernel anything, so that the last one told is the last one drawn.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use kakoi_net::IpNet;
use kakoi_net::firewall::{self, Firewall, FirewallError, Published, Wanted};
use kakoi_net::link::{self, LinkError};

use super::live::{Kept, Live, Place, target};
use super::record::option;
use super::{NetworkRecord, Networks, State, reach};
use crate::engine::Engine;
use crate::refusal::{Answer, Refusal, chain};

/// A bridge's largest packet where its network says nothing.
const MTU: u32 = 1500;

/// The host's side, opened when it is first needed: a device without networks has no tables.
#[derive(Debug)]
pub(super) struct Kernel {
    host: link::Host,
    firewall: Arc<Firewall>,
}

#[derive(Debug, thiserror::Error)]
enum KernelError {
    #[error("links")]
    Link(#[from] LinkError),
    #[error("packet filter")]
    Firewall(#[from] FirewallError),
}

fn failed(error: KernelError) -> Refusal {
    Refusal::failed(
        format!("failed to set up container networking: {}", chain(&error)),
        error,
    )
}

impl Networks {
    /// The host's side, for one caller at a time.
    fn kernel(&self) -> Answer<MutexGuard<'_, Option<Kernel>>> {
        let mut kernel = self.kernel.lock().expect("no panic while locked");
        if kernel.is_none() {
            let open = || -> Result<Kernel, KernelError> {
                Ok(Kernel {
                    host: link::Host::open(&self.scope)?,
                    firewall: Arc::new(Firewall::open(&self.scope)?),
                })
            };
            *kernel = Some(open().map_err(failed)?);
        }
        Ok(kernel)
    }

    fn tell<T>(&self, work: impl FnOnce(&Kernel) -> Result<T, KernelError>) -> Answer<T> {
        let kernel = self.kernel()?;
        work(kernel.as_ref().expect("it was just opened")).map_err(failed)
    }

    /// Makes bridges and links for all places, and lets packets through.
    pub(super) fn connect_all(&self, kept: &Kept, network: &OwnedFd) -> Answer<()> {
        self.exchange(&Kept::default(), kept, Some(network))
    }

    /// Has nothing lead to ports any more that nobody publishes; [`Networks::end_rest`] has to follow.
    pub(super) fn withdraw(&self) -> Answer<()> {
        self.tell(|kernel| {
            let picture = wanted(&self.state());
            self.told(kernel.firewall.withdraw(&picture))
        })
    }

    /// Takes away the links of one that is down, and what the firewall says of them; [`Networks::end_rest`] has to follow.
    pub(super) fn disconnect_all(&self, links: &[String]) -> Answer<()> {
        let withdrawn = self.withdraw();
        self.tell(|kernel| {
            for link in links {
                kernel.host.release(link)?;
            }
            Ok(())
        })?;
        withdrawn
    }

    /// Tells the firewall that ports went from one container to another.
    pub(super) fn hand_over(&self) -> Answer<()> {
        self.tell(|kernel| {
            let picture = wanted(&self.state());
            self.told(kernel.firewall.hand_over(&picture))
        })
    }

    /// How many TCP connections to or from these addresses are open.
    pub(super) fn count_connections(&self, addresses: &[IpAddr]) -> Answer<usize> {
        self.tell(|kernel| Ok(kernel.firewall.connections(addresses)?))
    }

    /// Ends connections of who has left.
    pub(super) fn end_rest(&self) -> Answer<()> {
        self.tell(|kernel| Ok(kernel.firewall.end_rest()?))
    }

    /// Tells the firewall everything that is to hold. The state is not held meanwhile: names are answered and lists made from it.
    fn apply(&self, kernel: &Kernel) -> Result<(), KernelError> {
        let picture = wanted(&self.state());
        self.told(kernel.firewall.apply(&picture))
    }

    fn told(&self, done: Result<(), FirewallError>) -> Result<(), KernelError> {
        done?;
        self.is_told.send_replace(true);
        Ok(())
    }

    /// Whether what a container wants to reach can be told to the firewall at all: one that cannot be must not stand in the way of others.
    pub(super) fn check(&self, id: &str, kept: &Kept) -> Answer<()> {
        let alone = State {
            rows: self.state().rows.clone(),
            live: BTreeMap::from([(id.to_owned(), Live::of(kept.clone()))]),
            last: Default::default(),
        };
        Firewall::check(&wanted(&alone))
            .map_err(|error| Refusal::bad(format!("the policy's network.egress: {}", chain(&error))))
    }

    /// Tells the firewall anew, for what changed of containers rather than of their places.
    pub(super) fn retell(&self) -> Answer<()> {
        self.tell(|kernel| self.apply(kernel))
    }

    /// Makes the links of a namespace match `now`, `before` being what it has. A namespace that cannot be reached (`None`) can only lose links.
    pub(super) fn exchange(&self, before: &Kept, now: &Kept, network: Option<&OwnedFd>) -> Answer<()> {
        let known = |list: &Kept, place: &Place| {
            list.places
                .iter()
                .any(|other| other.endpoint_id == place.endpoint_id)
        };
        self.tell(|kernel| {
            for place in before.places.iter().filter(|place| !known(now, place)) {
                kernel.host.detach(&place.host_link)?;
            }
            let Some(network) = network else {
                return self.apply(kernel);
            };
            // A firewall that stands closes links that it does not know. So links come first: what reached one too early would be lost, and whoever sent
            // it would wait a second.
            let is_told = *self.is_told.borrow();
            if !is_told {
                self.apply(kernel)?;
            }
            // A default route is taken from one link before it is given to another.
            self.reroute(kernel, before, now, network, |old, new| {
                new.gateways.len() < old.gateways.len()
            })?;
            let mut attached = Vec::new();
            for place in now.places.iter().filter(|place| !known(before, place)) {
                let row = self.state().rows.get(&place.network).cloned();
                if let Some(row) = row {
                    kernel.host.ensure_bridge(&bridge(&row))?;
                    attached.push(kernel.host.attach(network.as_fd(), &endpoint(&row, place))?);
                }
            }
            if is_told {
                self.apply(kernel)?;
            }
            for link in &attached {
                link.announce()?;
            }
            self.reroute(kernel, before, now, network, |old, new| {
                new.gateways.len() > old.gateways.len()
            })
        })
    }

    /// Brings a namespace to what its places say whatever a change that was cut off did to it: links that are missing come back, and default routes
    /// are given anew.
    pub(super) fn mend<'a>(&self, now: &'a Kept, network: &OwnedFd) -> Answer<()> {
        let rows: Vec<(&Place, NetworkRecord)> = {
            let state = self.state();
            let row = |place: &'a Place| Some((place, state.rows.get(&place.network)?.clone()));
            now.places.iter().filter_map(row).collect()
        };
        self.tell(|kernel| {
            self.apply(kernel)?;
            kernel.firewall.restore()?;
            let links = kernel.host.own_links()?;
            let has = |name: &str| links.iter().any(|link| link.name == name);
            // A link whose bridge went leads nowhere.
            let is_there = |place: &Place, row: &NetworkRecord| has(&place.host_link) && has(&row.bridge);
            for (place, row) in rows.iter().filter(|(place, row)| is_there(place, row)) {
                let none = link::Endpoint {
                    gateways: Vec::new(),
                    ..endpoint(row, place)
                };
                let every = link::Endpoint {
                    gateways: row.subnets.iter().map(|subnet| subnet.gateway).collect(),
                    ..none.clone()
                };
                kernel.host.reroute(network.as_fd(), &every, &none)?;
            }
            for (place, row) in &rows {
                let whole = endpoint(row, place);
                if is_there(place, row) {
                    let none = link::Endpoint {
                        gateways: Vec::new(),
                        ..whole.clone()
                    };
                    kernel.host.reroute(network.as_fd(), &none, &whole)?;
                } else {
                    kernel.host.detach(&place.host_link)?;
                    kernel.host.ensure_bridge(&bridge(row))?;
                    kernel.host.attach(network.as_fd(), &whole)?.announce()?;
                }
            }
            Ok(())
        })
    }

    /// Exchanges default routes of places that stay and for which `test` holds.
    fn reroute(
        &self,
        kernel: &Kernel,
        before: &Kept,
        now: &Kept,
        network: &OwnedFd,
        test: impl Fn(&Place, &Place) -> bool,
    ) -> Result<(), KernelError> {
        for new in &now.places {
            let old = before
                .places
                .iter()
                .find(|old| old.endpoint_id == new.endpoint_id);
            let row = self.state().rows.get(&new.network).cloned();
            if let (Some(old), Some(row)) = (old.filter(|old| test(old, new)), row) {
                kernel
                    .host
                    .reroute(network.as_fd(), &endpoint(&row, old), &endpoint(&row, new))?;
            }
        }
        Ok(())
    }

    /// Lets a container reach what a name of its policy was resolved to.
    pub(super) fn admit(&self, id: &str, name: &str, found: &[(IpAddr, Duration)]) -> Answer<()> {
        let Some(kept) = self.state().live.get(id).map(|live| live.kept.clone()) else {
            return Ok(());
        };
        let found: Vec<(IpAddr, Duration)> = found
            .iter()
            .filter(|(address, _)| self.is_elsewhere(*address))
            .copied()
            .collect();
        let admitted = reach::admitted(&kept.reach, name, &found);
        if admitted.is_empty() {
            return Ok(());
        }
        self.tell(|kernel| {
            for address in kept.places.iter().flat_map(Place::all_addresses) {
                kernel.firewall.admit(address.addr(), &admitted)?;
            }
            Ok(())
        })
    }

    /// Whether an address is beyond this device. Whoever answers for a name must not choose a part of the device for it: those are listed as
    /// networks, or not reached.
    fn is_elsewhere(&self, address: IpAddr) -> bool {
        let is_ours = self
            .state()
            .rows
            .values()
            .any(|row| row.subnets.iter().any(|subnet| subnet.net.contains(&address)));
        // Only an address of the host's own can be bound.
        !is_ours && !is_special(address) && std::net::UdpSocket::bind((address, 0)).is_err()
    }

    /// Makes a network's bridge.
    pub(super) async fn make_bridge(self: &Arc<Self>, row: NetworkRecord) -> Answer<()> {
        let networks = self.clone();
        on_thread(move || networks.tell(|kernel| Ok(kernel.host.ensure_bridge(&bridge(&row))?))).await
    }

    /// Takes a bridge away; a failure is only logged, since nobody is in the network any more.
    pub(super) async fn take_bridge(self: &Arc<Self>, name: String) {
        let networks = self.clone();
        let taken = on_thread(move || {
            networks.tell(|kernel| {
                kernel.host.remove_link(&name)?;
                networks.apply(kernel)
            })
        })
        .await;
        if let Err(refusal) = taken {
            tracing::warn!(
                error = chain(&refusal),
                "ignoring a bridge that cannot be removed"
            );
        }
    }

    /// Brings the host to what is true after a start of the daemon: links of containers that are no more go, and the firewall is told anew. Where
    /// there is nothing, nothing is opened.
    pub fn settle(&self) -> Answer<()> {
        self.tell(|kernel| {
            let state = self.state();
            let places = state.live.values().flat_map(|live| &live.kept.places);
            let mut known: BTreeSet<String> = places.map(|place| place.host_link.clone()).collect();
            known.extend(state.rows.values().map(|row| row.bridge.clone()));
            let (picture, is_idle) = (wanted(&state), state.live.is_empty());
            drop(state);
            let links = kernel.host.own_links()?;
            for link in links.iter().filter(|link| !known.contains(&link.name)) {
                kernel.host.remove_link(&link.name)?;
            }
            if is_idle {
                return Ok(kernel.firewall.remove()?);
            }
            kernel.firewall.apply(&picture)?;
            self.is_told.send_replace(true);
            Ok(())
        })
    }

    /// Takes everything of ours from the host when the daemon stops and nothing runs in its networks: the next container brings it back.
    pub fn put_away(&self) {
        // Nothing of it stands where this daemon never spoke to the kernel.
        let is_open = self.kernel.lock().expect("no panic while locked").is_some();
        if !is_open || !self.state().live.is_empty() {
            return;
        }
        self.is_told.send_replace(false);
        let away = self.tell(|kernel| {
            for link in kernel.host.own_links()? {
                kernel.host.remove_link(&link.name)?;
            }
            Ok(kernel.firewall.remove()?)
        });
        if let Err(refusal) = away {
            tracing::warn!(error = chain(&refusal), "ignoring bridges and rules that stay");
        }
    }

    /// Whether a link of ours is there; one that cannot be looked for is not.
    pub(super) fn has_link(&self, name: &str) -> bool {
        let links = self.tell(|kernel| Ok(kernel.host.own_links()?));
        links.is_ok_and(|links| links.iter().any(|link| link.name == name))
    }

    /// Subnets that the host itself uses; none where it cannot be asked.
    pub(super) fn taken_subnets(&self) -> Vec<IpNet> {
        self.tell(|kernel| Ok(kernel.host.taken_subnets()?))
            .unwrap_or_else(|refusal| {
                tracing::warn!(
                    error = chain(&refusal),
                    "ignoring the host's own subnets, which cannot be read"
                );
                Vec::new()
            })
    }
}

/// Loopback, link-local and multicast addresses, and none.
fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_unspecified()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            let mapped = v6.to_ipv4_mapped().is_some_and(|v4| is_special(v4.into()));
            mapped
                || v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
        }
    }
}

/// The stack of a thread that talks to the kernel.
const STACK_BYTES: usize = 256 << 10;

/// Does blocking work on a thread of its own. Not on one of the runtime's for such work: pulls and copies may hold them all, and starts and ends would
/// wait for them.
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Answer<T> + Send + 'static,
) -> Answer<T> {
    let (sender, done) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("networks".into())
        .stack_size(STACK_BYTES)
        // Whoever asked may have been cut off.
        .spawn(move || drop(sender.send(work())))
        .map_err(|cause| Refusal::failed("no thread for networks", cause))?;
    done.await
        .unwrap_or_else(|_| Err(Refusal::broken("setting up a network broke off")))
}

fn mtu(row: &NetworkRecord) -> u32 {
    let asked = row.options.get(option::MTU).and_then(|text| text.parse().ok());
    asked.unwrap_or(MTU)
}

fn bridge(row: &NetworkRecord) -> link::Bridge {
    let address = |subnet: &super::record::Subnet| {
        IpNet::new(subnet.gateway, subnet.net.prefix_len()).expect("the prefix is of the same family")
    };
    link::Bridge {
        name: row.bridge.clone(),
        addresses: row.subnets.iter().map(address).collect(),
        mtu: mtu(row),
        forwards: !row.internal,
    }
}

fn endpoint(row: &NetworkRecord, place: &Place) -> link::Endpoint {
    link::Endpoint {
        host_link: place.host_link.clone(),
        bridge: row.bridge.clone(),
        name: place.interface.clone(),
        mac: place.mac.parse().expect("it was a MAC when it was chosen"),
        addresses: place.all_addresses().collect(),
        gateways: place.gateways.clone(),
        mtu: mtu(row),
    }
}

/// The whole picture.
fn wanted(state: &State) -> Wanted {
    let networks = state.rows.values().map(|row| firewall::Network {
        bridge: row.bridge.clone(),
        internal: row.internal,
        icc: row.is_on(option::ICC),
        masquerade: row.is_on(option::MASQUERADE) && !row.internal,
    });
    let mut picture = Wanted {
        networks: networks.collect(),
        ..Wanted::default()
    };
    for live in state.live.values() {
        for place in &live.kept.places {
            let Some(row) = state.rows.get(&place.network) else {
                continue;
            };
            picture.endpoints.push(firewall::Endpoint {
                host_link: place.host_link.clone(),
                bridge: row.bridge.clone(),
                mac: place.mac.parse().expect("it was a MAC when it was chosen"),
                addresses: place.all_addresses().map(|net| net.addr()).collect(),
                egress: reach::egress(state, &live.kept),
            });
        }
        for port in &live.kept.ports {
            let Some(target) = target(&live.kept, port) else {
                continue;
            };
            let holder = live.kept.places.iter().find(|place| has(place, target.ip()));
            let row = holder.and_then(|place| state.rows.get(&place.network));
            let is_one_family = target.is_ipv6() == port.host.is_ipv6();
            if let Some(row) = row.filter(|_| is_one_family) {
                picture.published.push(Published {
                    host_address: port.host.ip(),
                    host_port: port.host.port(),
                    protocol: port.transport(),
                    target,
                    bridge: row.bridge.clone(),
                });
            }
        }
    }
    picture
}

fn has(place: &Place, address: IpAddr) -> bool {
    place.addresses.iter().any(|net| net.addr() == address)
}

/// How long until the packet filter is looked at again after that failed.
const WATCH_AGAIN: Duration = Duration::from_secs(5);

/// Tells the firewall anew whenever somebody flushed it, for as long as the daemon lives.
pub fn guard(engine: &Arc<Engine>) {
    let networks = engine.networks.clone();
    tokio::spawn(async move {
        loop {
            let mut told = networks.is_told.subscribe();
            if told.wait_for(|is_told| *is_told).await.is_err() {
                return;
            }
            if let Err(error) = watch(&networks).await {
                tracing::error!(
                    error = chain(&error),
                    "the packet filter cannot be watched; trying again"
                );
                tokio::time::sleep(WATCH_AGAIN).await;
                let networks = networks.clone();
                // Whatever was taken away meanwhile.
                on_thread(move || networks.tell(|kernel| Ok(kernel.firewall.restore()?)))
                    .await
                    .ok();
            }
        }
    });
}

async fn watch(networks: &Arc<Networks>) -> Result<(), Refusal> {
    let opening = networks.clone();
    let firewall = on_thread(move || opening.tell(|kernel| Ok(kernel.firewall.clone()))).await?;
    let mut watch = firewall.watch().map_err(|error| failed(error.into()))?;
    loop {
        watch.lost().await.map_err(|error| failed(error.into()))?;
        tracing::warn!("somebody took rules of the packet filter away; they are put back");
        let firewall = firewall.clone();
        on_thread(move || firewall.restore().map_err(|error| failed(error.into()))).await?;
    }
}
