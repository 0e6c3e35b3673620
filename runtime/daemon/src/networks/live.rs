//! Running containers in their networks: addresses, ports, links and names, from before a start until after an end.
//!
//! What a running container got is written into `network.json` in its run-time folder, which goes with the run: a new daemon reads it and goes on.
//!
//! ```text
//! {"places":[{"network":"<id>","endpoint_id":"<id>","host_link":"kk0123456789a","interface":"eth0","mac":"02:42:ac:11:00:02",
//!   "addresses":["172.17.0.2/16"],"gateways":["172.17.0.1"],"names":["web"],"links":[],"link_local":[]}],
//!  "ports":[{"inside":80,"protocol":"tcp","host":"0.0.0.0:8080"}],"is_embedded":true,"upstreams":["192.0.2.1"],"hostname":"",
//!  "name":"web","reach":"networks"}
//! ```

mod handover;
mod published;

use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use kakoi_net::ports::{self as host_ports, Protocol, Proxy, Reservation};
use kakoi_net::{IpNet, names};
use kakoi_policy::confinement::Reach;
use serde::{Deserialize, Serialize};

pub(super) use self::published::target;
use self::published::{proxies, publish};
use super::ask;
use super::files::{ResolvConf, Resolving, resolving};
use super::kernel::on_thread;
use super::place::{self, Taken, Who};
use super::{NetworkRecord, Networks};
use crate::engine::Engine;
use crate::refusal::{Answer, Refusal, chain};
use crate::shim;
use crate::state::Record;

/// The port of name servers.
const DNS_PORT: u16 = 53;
/// Attempts at a port that is free for both families.
const PORT_ATTEMPTS: u32 = 64;
/// How long a shim may take to hand out a network: it does one thing after another.
const SHIM_WAIT: std::time::Duration = std::time::Duration::from_secs(10);
/// What is kept of a run, in its run-time folder.
const KEPT: &str = "network.json";
/// Stands beside it while a running container's links are changed: a daemon that finds it does not know how far that went.
const CHANGING: &str = "network.changing";

/// A container's place in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The network's id.
    pub network: String,
    /// The place's own id.
    pub endpoint_id: String,
    /// The link's end on the host.
    pub host_link: String,
    /// The link's end inside.
    pub interface: String,
    /// Hardware address.
    pub mac: String,
    /// Addresses with the lengths of their prefixes.
    pub addresses: Vec<IpNet>,
    /// Where its default routes lead.
    pub gateways: Vec<IpAddr>,
    /// Names that lead to it.
    pub names: Vec<String>,
    /// What this container alone calls others: the name here, and the other's name or id.
    pub links: Vec<(String, String)>,
    /// Link-local addresses beside the others, for which nobody has a name. A run that began before there were any has none.
    #[serde(default)]
    pub link_local: Vec<IpNet>,
}

impl Place {
    /// Its address of a family.
    pub fn address(&self, is_ipv6: bool) -> Option<IpNet> {
        let mut addresses = self.addresses.iter();
        addresses.find(|net| net.addr().is_ipv6() == is_ipv6).copied()
    }

    /// All its addresses, as the kernel is told them.
    pub fn all_addresses(&self) -> impl Iterator<Item = IpNet> {
        self.addresses.iter().chain(&self.link_local).copied()
    }
}

/// A port that is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The port inside.
    pub inside: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Address and port of the host.
    pub host: SocketAddr,
}

impl Port {
    /// The same as the host knows it.
    pub fn transport(&self) -> Protocol {
        match self.protocol.as_str() {
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => Protocol::Tcp,
        }
    }
}

/// What is kept of a running container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Its places.
    pub places: Vec<Place>,
    /// Its published ports.
    pub ports: Vec<Port>,
    /// Whether it has a name server of its own.
    pub is_embedded: bool,
    /// Whom that asks; empty for the host's own servers, as they are when a query comes.
    pub upstreams: Vec<IpAddr>,
    /// The host name that it asked for: whoever starts a container chooses it, so it makes nobody a peer.
    pub hostname: String,
    /// The container's name.
    pub name: String,
    /// What its policy lets it reach.
    pub reach: Reach,
    /// Whether it runs beside another, whose ports and names it is to take over: it has neither yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_beside: bool,
}

/// A container that runs, or is about to.
#[derive(Debug, Default)]
pub struct Live {
    /// What it got.
    pub kept: Kept,
    reservations: Vec<Reservation>,
    proxies: Vec<Proxy>,
    network: Option<OwnedFd>,
    server: Option<names::Server>,
}

impl Live {
    /// A container whose host's side is still to be taken.
    pub fn of(kept: Kept) -> Self {
        Self {
            kept,
            ..Self::default()
        }
    }
}

impl Networks {
    /// Takes places and ports for a container that is about to start, and writes its `/etc` files. [`Networks::leave`] gives them back.
    /// One that starts beside another publishes nothing before it takes over.
    pub async fn prepare(&self, engine: &Arc<Engine>, record: &Record, is_beside: bool) -> Answer<()> {
        let _turn = self.turn.lock().await;
        if record.networks.contains_key(super::BRIDGE) {
            let engine = engine.clone();
            on_thread(move || engine.networks.settle_bridge(&engine)).await?;
        }
        let (rows, mut kept) = self.choose(record)?;
        for (place, row) in std::iter::zip(&mut kept.places, &rows) {
            place.links = links(engine, record, &row.name)?;
        }
        let of_host = tokio::task::spawn_blocking(ResolvConf::of_host)
            .await
            .unwrap_or_default();
        // Names that a policy allows are let through as they are resolved: only the embedded server sees that.
        let has_names = record.reach != Reach::Networks || rows.iter().any(|row| row.name != super::BRIDGE);
        let resolving = resolving(&asked_resolver(record), of_host, has_names);
        let mut live = Live::of(kept);
        live.kept.is_embedded = resolving.is_embedded;
        live.kept.upstreams.clone_from(&resolving.upstreams);
        self.check(&record.id, &live.kept)?;
        if is_beside {
            live.kept.is_beside = true;
            handover::keep_own_names(&mut live.kept, &rows, record);
        } else {
            publish(&mut live, &mut [], &rows, record)?;
        }
        write_files(engine, record, &rows, &live.kept, &resolving).map_err(|cause| {
            Refusal::failed("writing the container's hosts and resolv.conf failed", cause)
        })?;
        self.state().live.insert(record.id.clone(), live);
        Ok(())
    }

    /// Chooses places, with the networks that they are in.
    fn choose(&self, record: &Record) -> Answer<(Vec<NetworkRecord>, Kept)> {
        let mut rows = Vec::new();
        for (name, settings) in &record.networks {
            let wanted = if settings.network_id.is_empty() {
                name
            } else {
                &settings.network_id
            };
            let row = self.find(wanted).map_err(|_| {
                Refusal::missing(format!(
                    "failed to set up container networking: network {name} not found"
                ))
            })?;
            rows.push((row, settings));
        }
        let who = Who {
            id: &record.id,
            name: &record.name,
            hostname: &record.config.hostname,
        };
        let mut state = self.state();
        let taken = Taken::by(&state.live);
        let mut places = Vec::new();
        for (number, (row, settings)) in rows.iter().enumerate() {
            places.push(
                place::choose(row, settings, who, number, &taken, &mut state.last).map_err(|refusal| {
                    Refusal {
                        message: format!("failed to set up container networking: {}", refusal.message),
                        ..refusal
                    }
                })?,
            );
        }
        place::route(&mut places, &record.networks, |id| state.rows.get(id).cloned());
        let rows = rows.into_iter().map(|(row, _)| row).collect();
        Ok((
            rows,
            Kept {
                places,
                name: record.name.clone(),
                hostname: record.config.hostname.clone(),
                reach: record.reach.clone(),
                ..Kept::default()
            },
        ))
    }

    /// Furnishes the network namespace of a container that was prepared, before its app runs.
    pub async fn furnish(&self, engine: &Arc<Engine>, id: &str, network: OwnedFd) -> Answer<()> {
        let (kept, run_dir) = match self.state().live.get(id) {
            Some(live) => (live.kept.clone(), engine.paths.run_dir(id)),
            None => return Err(Refusal::broken("the container has no places in its networks")),
        };
        let (kernel, own) = (engine.clone(), id.to_owned());
        let (network, sockets) = on_thread(move || {
            keep(&run_dir, &kept)?;
            kernel.networks.connect_all(&kept, &network)?;
            let sockets = match kept.is_embedded {
                true => Some(names::Sockets::open(network.as_fd()).map_err(|cause| failed(&own, cause))?),
                false => None,
            };
            Ok((network, sockets))
        })
        .await?;
        let server = sockets
            .map(|sockets| self.serve_names(engine, id, sockets))
            .transpose()?;
        if let Some(live) = self.state().live.get_mut(id) {
            live.proxies = proxies(live)?;
            live.network = Some(network);
            live.server = server;
        }
        Ok(())
    }

    fn serve_names(&self, engine: &Arc<Engine>, id: &str, sockets: names::Sockets) -> Answer<names::Server> {
        let upstreams = match self.state().live.get(id) {
            Some(live) => live.kept.upstreams.clone(),
            None => Vec::new(),
        };
        let upstreams: Vec<SocketAddr> = upstreams
            .into_iter()
            .map(|address| SocketAddr::new(address, DNS_PORT))
            .collect();
        let seen = Arc::new(super::names::Seen::of(engine, id));
        match upstreams.is_empty() {
            true => names::Server::start_following_host(sockets, seen, Path::new("/")),
            false => names::Server::start(sockets, seen, upstreams),
        }
        .map_err(|cause| failed(id, cause))
    }

    /// Gives back all that a container has of networks, for one that is down or did not start. Failures are logged: it is down all the same.
    pub async fn leave(&self, engine: &Arc<Engine>, id: &str) {
        let _turn = self.turn.lock().await;
        let had_ports = {
            let mut state = self.state();
            let ports = state
                .live
                .get_mut(id)
                .map(|live| std::mem::take(&mut live.kept.ports));
            ports.is_some_and(|ports| !ports.is_empty())
        };
        // As long as ports lead to it, its namespace and link stand, and whoever connects is refused by it. Behind a link that is down, or closed by
        // the firewall, he would wait.
        if had_ports {
            let kernel = engine.clone();
            if let Err(refusal) = on_thread(move || kernel.networks.withdraw()).await {
                tracing::warn!(
                    container = id,
                    error = chain(&refusal),
                    "ignoring ports that stay until its links go"
                );
            }
        }
        let Some(live) = self.state().live.remove(id) else {
            return;
        };
        let links: Vec<String> = live
            .kept
            .places
            .iter()
            .map(|place| place.host_link.clone())
            .collect();
        drop(live);
        let (kernel, own) = (engine.clone(), id.to_owned());
        let left = on_thread(move || kernel.networks.disconnect_all(&links)).await;
        if let Err(refusal) = left {
            tracing::error!(container = %own, error = chain(&refusal), "its network was not taken away whole");
        }
        // Nobody waits for this: a container that comes next to its address does it itself if it is first.
        let kernel = engine.clone();
        tokio::spawn(async move {
            if let Err(refusal) = on_thread(move || kernel.networks.end_rest()).await {
                tracing::warn!(container = %own, error = chain(&refusal), "ignoring connections that it left: the next change ends them");
            }
        });
    }

    /// Reads what containers had when the daemon before ended: all of them, before anything is told to the kernel, which would otherwise forget those
    /// that come later.
    pub fn recall<'a>(&self, engine: &Engine, ids: impl Iterator<Item = &'a str>) {
        for id in ids {
            if let Some(kept) = read(&engine.paths.run_dir(id)) {
                self.state().live.insert(id.to_owned(), Live::of(kept));
            }
        }
    }

    /// Takes over the network of a container that runs and was recalled.
    pub async fn adopt(&self, engine: &Arc<Engine>, id: &str) {
        let run_dir = engine.paths.run_dir(id);
        let has_names = {
            let mut state = self.state();
            let Some(live) = state.live.get_mut(id) else {
                return;
            };
            let reservations = &mut live.reservations;
            let all = live.kept.ports.len();
            // One that is somebody else's now leads nowhere any more.
            live.kept.ports.retain(|port| {
                let range = port.host.port()..=port.host.port();
                match host_ports::reserve(port.host.ip(), range, port.transport()) {
                    Ok(reservation) => reservations.push(reservation),
                    Err(error) => {
                        tracing::error!(container = %id, error = chain(&error), "a published port was taken while no daemon ran");
                        return false;
                    }
                }
                true
            });
            // Where the daemon before was killed as one container took over from another, they are in the files of both: who is to have them is the
            // supervisor's to say.
            live.kept.is_beside |= live.kept.ports.len() < all;
            live.kept.is_embedded
        };
        let adopted = async {
            let network = tokio::time::timeout(SHIM_WAIT, shim::network(&run_dir))
                .await
                .map_err(|_| Refusal::broken("its shim does not hand out its network"))?
                .map_err(|cause| Refusal::failed("asking for the network namespace", cause))?;
            let (network, sockets) = on_thread(move || {
                let sockets = has_names.then(|| names::Sockets::open(network.as_fd()));
                Ok((network, sockets.transpose().map_err(|cause| failed("", cause))?))
            })
            .await?;
            let server = sockets
                .map(|sockets| self.serve_names(engine, id, sockets))
                .transpose()?;
            if let Some(live) = self.state().live.get_mut(id) {
                live.proxies = proxies(live)?;
                live.network = Some(network);
                live.server = server;
            }
            Ok::<(), Refusal>(())
        };
        if let Err(refusal) = adopted.await {
            tracing::error!(container = %id, error = chain(&refusal), "its names and connections cannot be served");
        }
        if let Err(refusal) = self.agree(engine, id).await {
            tracing::error!(container = %id, error = chain(&refusal), "its networks are not those of its record");
        }
    }

    /// Brings a container that was taken over into the networks that its record names, and out of all others: the daemon before may have ended between
    /// a change of the kernel and its record. The record is what a client was told.
    async fn agree(&self, engine: &Arc<Engine>, id: &str) -> Answer<()> {
        let record = engine.containers.find(id)?.shared().record.clone();
        self.mend_cut_off(engine, id).await?;
        let mut missing = Vec::new();
        let mut named = Vec::new();
        for (name, settings) in &record.networks {
            let is_known = !settings.network_id.is_empty();
            match self.find(if is_known { &settings.network_id } else { name }) {
                Ok(row) => {
                    missing.push((row.id.clone(), row.name));
                    named.push(row.id);
                }
                // Its record was damaged: who is in it stays there.
                Err(_) => named.push(settings.network_id.clone()),
            }
        }
        let extra: Vec<String> = {
            let state = self.state();
            let Some(live) = state.live.get(id) else {
                return Ok(());
            };
            let has: Vec<&String> = live.kept.places.iter().map(|place| &place.network).collect();
            missing.retain(|(network, _)| !has.contains(&network));
            has.into_iter()
                .filter(|network| !named.contains(network))
                .cloned()
                .collect()
        };
        for network in extra {
            tracing::warn!(container = %id, %network, "taken out of a network that its record does not name");
            self.part(engine, &record, &network).await?;
        }
        for (_, name) in missing {
            tracing::warn!(container = %id, network = %name, "put into a network that its record names");
            self.join(engine, &record, &name).await?;
        }
        Ok(())
    }

    /// What a running container has, and its network namespace; `None` for one without networks of ours.
    pub(super) fn held(&self, id: &str) -> Answer<Option<(Kept, OwnedFd)>> {
        let state = self.state();
        let live = state.live.get(id);
        let Some((kept, network)) = live.and_then(|live| Some((&live.kept, live.network.as_ref()?))) else {
            return Ok(None);
        };
        let network = network.try_clone();
        let network = network.map_err(|cause| Refusal::failed("holding the network namespace", cause))?;
        Ok(Some((kept.clone(), network)))
    }

    /// Mends what a change that was cut off left.
    async fn mend_cut_off(&self, engine: &Arc<Engine>, id: &str) -> Answer<()> {
        let mark = engine.paths.run_dir(id).join(CHANGING);
        if !mark.exists() {
            return Ok(());
        }
        let Some((kept, network)) = self.held(id)? else {
            return Ok(());
        };
        tracing::warn!(container = %id, "a change of its networks was cut off and is mended");
        let kernel = engine.clone();
        on_thread(move || {
            kernel.networks.mend(&kept, &network)?;
            fs::remove_file(mark).map_err(|cause| Refusal::failed("a mended change stays marked", cause))
        })
        .await
    }

    /// Puts a running container into one more network.
    pub(super) async fn join(&self, engine: &Arc<Engine>, record: &Record, name: &str) -> Answer<()> {
        let row = self.find(name)?;
        let settings = record.networks.get(&row.name).cloned().unwrap_or_default();
        let who = Who {
            id: &record.id,
            name: &record.name,
            hostname: &record.config.hostname,
        };
        let links = links(engine, record, &row.name)?;
        let before = {
            let mut guard = self.state();
            let state = &mut *guard;
            let taken = Taken::by(&state.live);
            let live = state.live.get_mut(&record.id);
            let live = live.ok_or_else(|| Refusal::conflict("the container is not running"))?;
            let before = live.kept.clone();
            let number = free_interface(&before);
            let mut place = place::choose(&row, &settings, who, number, &taken, &mut state.last)?;
            place.links = links;
            live.kept.places.push(place);
            place::route(&mut live.kept.places, &record.networks, |id| {
                state.rows.get(id).cloned()
            });
            before
        };
        let changed = self.change(engine, record, &before).await;
        if changed.is_err() {
            self.go_back(engine, record, before).await;
        }
        changed
    }

    /// Takes back a change that failed: no link may stand that the firewall does not know.
    async fn go_back(&self, engine: &Arc<Engine>, record: &Record, before: Kept) {
        let failed = {
            let mut state = self.state();
            let Some(live) = state.live.get_mut(&record.id) else {
                return;
            };
            std::mem::replace(&mut live.kept, before)
        };
        if let Err(refusal) = self.change(engine, record, &failed).await {
            tracing::error!(container = %record.id, error = chain(&refusal), "a change of its networks was not taken back whole");
        }
    }

    /// Takes a running container out of a network.
    pub(super) async fn part(&self, engine: &Arc<Engine>, record: &Record, network: &str) -> Answer<()> {
        let before = {
            let mut guard = self.state();
            let state = &mut *guard;
            let Some(live) = state.live.get_mut(&record.id) else {
                return Ok(());
            };
            let before = live.kept.clone();
            live.kept.places.retain(|place| place.network != network);
            place::route(&mut live.kept.places, &record.networks, |id| {
                state.rows.get(id).cloned()
            });
            before
        };
        self.change(engine, record, &before).await
    }

    /// Makes the kernel match what a running container has now, `before` being what it had.
    async fn change(&self, engine: &Arc<Engine>, record: &Record, before: &Kept) -> Answer<()> {
        let (now, network) = {
            let state = self.state();
            let live = state.live.get(&record.id);
            let live = live.ok_or_else(|| Refusal::conflict("the container is not running"))?;
            let network = live.network.as_ref().map(OwnedFd::try_clone).transpose();
            let network = network.map_err(|cause| Refusal::failed("holding the network namespace", cause))?;
            (live.kept.clone(), network)
        };
        let is_more = |place: &Place| {
            before
                .places
                .iter()
                .all(|old| old.endpoint_id != place.endpoint_id)
        };
        if network.is_none() && now.places.iter().any(is_more) {
            return Err(Refusal::conflict("the container's network cannot be reached"));
        }
        let (kernel, before, run_dir) = (engine.clone(), before.clone(), engine.paths.run_dir(&record.id));
        let state_dir = engine.paths.state_dir(&record.id);
        let (own, kept) = (record.clone(), now.clone());
        on_thread(move || {
            let mark = run_dir.join(CHANGING);
            crate::host::create_private_file(&mark)
                .map_err(|cause| Refusal::failed("marking a change of networks failed", cause))?;
            kernel.networks.exchange(&before, &kept, network.as_ref())?;
            keep(&run_dir, &kept)?;
            if let Err(cause) = fs::remove_file(&mark) {
                tracing::warn!(path = %mark.display(), %cause, "ignoring a mark that cannot be removed");
            }
            // The file is the app's too: what it did to it is its own affair.
            if let Err(cause) = write_hosts(&state_dir, &own, &kept, None) {
                tracing::warn!(container = %own.id, %cause, "ignoring a hosts file that cannot be written");
            }
            Ok(())
        })
        .await?;
        // What is carried by this process leads to where the container is now.
        if let Some(live) = self.state().live.get_mut(&record.id) {
            live.proxies.clear();
            live.proxies = proxies(live)?;
        }
        Ok(())
    }
}

/// What a container calls others in a network.
fn links(engine: &Engine, record: &Record, network: &str) -> Answer<Vec<(String, String)>> {
    let asked = record
        .networks
        .get(network)
        .and_then(|settings| settings.links.as_ref());
    let mut found = Vec::new();
    for text in asked.into_iter().flatten() {
        let (name, alias) =
            ask::link(text).ok_or_else(|| Refusal::bad(format!("bad format for links: {text}")))?;
        // In user-defined networks any name will do, and it may come into being later.
        if network == super::BRIDGE {
            let other = engine.containers.find(name);
            let other = other.map_err(|_| Refusal::bad(format!("could not get container for {name}")))?;
            if !other.shared().phase.is_up() {
                return Err(Refusal::bad(format!(
                    "Cannot link to a non running container: /{name} AS /{}/{alias}",
                    record.name
                )));
            }
        }
        found.push((alias.to_owned(), name.to_owned()));
    }
    Ok(found)
}

impl Networks {
    /// In the network `bridge` nobody answers for names: what a container calls others stands in its hosts file, as of its start.
    fn add_links(&self, state_dir: &Path, kept: &Kept) -> std::io::Result<()> {
        let bridge = self.find(super::BRIDGE).map(|row| row.id).unwrap_or_default();
        let mut lines = String::new();
        {
            let state = self.state();
            for place in kept.places.iter().filter(|place| place.network == bridge) {
                for (alias, other) in &place.links {
                    for address in state.addresses_in(&bridge, other) {
                        lines.push_str(&format!("{address}\t{alias} {other}\n"));
                    }
                }
            }
        }
        if lines.is_empty() {
            return Ok(());
        }
        let mut file = fs::File::options().append(true).open(state_dir.join("hosts"))?;
        file.write_all(lines.as_bytes())
    }
}

/// The lowest number that no interface inside bears.
fn free_interface(kept: &Kept) -> usize {
    let number = |place: &Place| {
        let prefix = place.interface.trim_end_matches(|c: char| c.is_ascii_digit());
        place.interface[prefix.len()..].parse::<usize>().ok()
    };
    let is_free = |wanted: &usize| kept.places.iter().all(|place| number(place) != Some(*wanted));
    (0..).find(is_free).expect("there are fewer places than numbers")
}

fn failed(id: &str, cause: impl std::error::Error + Send + Sync + 'static) -> Refusal {
    tracing::debug!(container = %id, error = chain(&cause), "network set-up failed");
    Refusal::failed(
        format!("failed to set up container networking: {}", chain(&cause)),
        cause,
    )
}

pub(super) fn keep(run_dir: &Path, kept: &Kept) -> Answer<()> {
    let bytes = serde_json::to_vec(kept).expect("places are plain data");
    // Not synced: it is of this run only. Moved into place, since a daemon may be killed while it writes.
    let aside = run_dir.join("network.json.new");
    crate::host::create_private_file(&aside)
        .and_then(|mut file| file.write_all(&bytes))
        .and_then(|()| fs::rename(&aside, run_dir.join(KEPT)))
        .map_err(|cause| Refusal::failed("keeping the container's addresses failed", cause))
}

/// The same, of a run that may have ended meanwhile: the shim takes the folder away before the daemon takes its links.
pub(super) fn keep_while_it_runs(run_dir: &Path, kept: &Kept) -> Answer<()> {
    match keep(run_dir, kept) {
        Err(_) if !run_dir.exists() => Ok(()),
        kept => kept,
    }
}

fn read(run_dir: &Path) -> Option<Kept> {
    let bytes = fs::read(run_dir.join(KEPT)).ok()?;
    let kept = serde_json::from_slice(&bytes);
    if let Err(cause) = &kept {
        tracing::error!(path = %run_dir.join(KEPT).display(), %cause, "a container's addresses cannot be read");
    }
    kept.ok()
}

/// What a container itself says of resolving names.
fn asked_resolver(record: &Record) -> ResolvConf {
    let host = &record.host_config;
    ResolvConf {
        servers: host.dns.iter().filter_map(|text| text.parse().ok()).collect(),
        search: host.dns_search.clone(),
        options: host.dns_options.clone(),
    }
}

fn write_files(
    engine: &Engine,
    record: &Record,
    rows: &[NetworkRecord],
    kept: &Kept,
    resolving: &Resolving,
) -> std::io::Result<()> {
    let state_dir = engine.paths.state_dir(&record.id);
    let gateway = rows
        .iter()
        .find_map(|row| row.subnet(false).or(row.subnet(true)))
        .map(|subnet| subnet.gateway);
    write_hosts(&state_dir, record, kept, gateway)?;
    engine.networks.add_links(&state_dir, kept)?;
    rewrite(&state_dir.join("resolv.conf"), &resolving.text)
}

fn write_hosts(
    state_dir: &Path,
    record: &Record,
    kept: &Kept,
    gateway: Option<IpAddr>,
) -> std::io::Result<()> {
    if record.host_config.no_hosts {
        return Ok(());
    }
    let own: Vec<IpAddr> = kept
        .places
        .iter()
        .flat_map(|place| place.addresses.iter().map(IpNet::addr))
        .collect();
    let gateway = gateway.or_else(|| {
        kept.places
            .iter()
            .find_map(|place| place.gateways.first().copied())
    });
    let hostname = crate::plan::build::hostname(&record.config, &record.id).map_err(std::io::Error::other)?;
    let text = crate::plan::build::hosts(
        &hostname,
        &record.config.domainname,
        &record.host_config.extra_hosts,
        &own,
        gateway,
    )
    .map_err(std::io::Error::other)?;
    rewrite(&state_dir.join("hosts"), &text)
}

/// Writes a file in place: the container has it mounted.
fn rewrite(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = fs::File::options().write(true).truncate(true).open(path)?;
    file.write_all(text.as_bytes())
}
