//! What packets of this scope's bridges may do.
//!
//! Owns the scope's two nftables tables, and for the device's own ports a third (`device`), and touches no other. Takes what is wanted whole and works out what differs; the tables' chains never
//! change, one more container is a few elements of their sets. What is not to or from a bridge of the scope passes untouched.
//!
//! ```text
//! table inet                                                  table bridge
//!
//! prerouting   guard      nothing from a bridge to 127/8      prerouting  identity   own MAC and addresses only, no
//!              publish    published port → its target                                advertisements but of these;
//!              mark       redirected to a neighbour                                  no other link of the scope
//! input        to_host    no member's: drop;                  forward     between    icc off: marked only;
//!                         limited: allowed, named;                                  limited: peers only
//!                         internal: the gateway
//! forward      answers    accept
//!              ours       no member's: drop
//!   bridge → same bridge   limited: peers; icc; published
//!   internal               reject
//!   limited                allowed, named; else reject
//!   → one of ours          published targets; else reject or drop
//!   → elsewhere            accept
//! output       publish    as in prerouting, but not ::1
//! postrouting  source     masquerade: what leaves; from a bridge back into it; from 127/8
//! ```
//!
//! Where br_netfilter is on, which is another's decision, bridged packets pass the left side too, in the middle of the right one, and what is
//! redirected to a neighbour stays in the bridge. All rules hold either way.
//!
//! What the picture does not know is closed: a link of the scope's group, whatever hangs on a bridge beside the known links, and a source
//! address that is no member's.
//!
//! An endpoint with [`Egress`] is limited: it reaches what is listed and nothing else. Lists are elements of sets too, cut so that they do
//! not overlap (`boxes`). Names are admitted as they are resolved and run out with their answers. Taking an element out of a set of ranges costs
//! the kernel more than making both tables anew (20 ms against 5 with 300 elements, 300 against 40 with 4000), so that this is what is done then.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use kakoi_sys::Errno;
use nix::sys::socket::SockProtocol;
use tokio::net::UnixDatagram;

use crate::Scope;
use crate::address::Mac;
use crate::netlink::{Messages, NetlinkError, RECEIVE_BYTES, Socket};
use crate::nft::{Batch, Elements, events};
use crate::ports::Protocol;
use boxes::Box3;
use flows::Ended;

pub use device::{DeviceFilter, Input, OpenPorts};

mod boxes;
mod device;
mod elements;
mod flows;
mod standing;
mod tables;
#[cfg(test)]
pub(crate) mod tests;

/// Everything that is to hold at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// All networks.
    pub networks: Vec<Network>,
    /// All links into namespaces.
    pub endpoints: Vec<Endpoint>,
    /// All published ports.
    pub published: Vec<Published>,
}

/// A network as packets see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    /// Its bridge.
    pub bridge: String,
    /// Reaches nothing but itself, and nothing reaches it.
    pub internal: bool,
    /// Whether its endpoints may talk to each other without publishing.
    pub icc: bool,
    /// Whether what leaves the bridge for the outside bears the host's address.
    pub masquerade: bool,
}

/// One link into a namespace as packets see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The end on the host.
    pub host_link: String,
    /// The bridge it belongs to.
    pub bridge: String,
    /// The only hardware address it may send from.
    pub mac: Mac,
    /// The only addresses it may send from.
    pub addresses: Vec<IpAddr>,
    /// What it may reach; `None`: whatever its network may.
    pub egress: Option<Egress>,
}

/// What one endpoint may reach: nothing, but what is listed. What answers a connection from outside is not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Destinations outside of its bridge, the host's own addresses and ports included.
    pub allowed: Vec<Allowed>,
    /// Addresses of endpoints on the same bridge that it talks to. Both have to list each other; one without [`Egress`] lists everyone.
    pub peers: Vec<IpAddr>,
}

/// One destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Where. For names see [`Firewall::admit`].
    pub network: IpNet,
    /// Over what.
    pub service: Service,
}

/// Protocol and ports of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Every protocol and port.
    Any,
    /// These ports.
    Ports {
        /// Of this protocol.
        protocol: Protocol,
        /// First to last.
        ports: RangeInclusive<u16>,
    },
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The host's address; unspecified: every one of that family.
    pub host_address: IpAddr,
    /// The host's port.
    pub host_port: u16,
    /// Over what.
    pub protocol: Protocol,
    /// Where it leads: of the same family as `host_address`. Ports of the other family are a [`crate::ports::Proxy`]'s.
    pub target: SocketAddr,
    /// The target's bridge.
    pub bridge: String,
}

/// An address that a name was resolved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Where.
    pub address: IpAddr,
    /// Over what.
    pub service: Service,
    /// For how long; raised to a minute, since programs keep an answer past its time, and cut to a day. It may last half as long again, so that
    /// an answer that is asked for over and over changes the tables now and then only.
    pub lifetime: Duration,
}

/// A name's address stays admitted at least this long: resolvers and programs keep an answer a little past its time.
const ADMITTED_MIN: Duration = Duration::from_secs(60);
/// And at most this long, so that a resolver cannot open a hole for ever.
const ADMITTED_MAX: Duration = Duration::from_secs(86_400);

/// Addresses that names were resolved to and that live at one time, of all endpoints together: some 200 bytes of the kernel's each.
const ADMITTED_COUNT_MAX: usize = 4096;
/// And of one endpoint, so that it takes no others' room. A browser keeps some tens.
const ADMITTED_OF_ONE_MAX: usize = 256;
/// Where there is no more room, the soonest to run out make some for this many, since each time makes the tables anew.
const ADMITTED_EVICTED: usize = 64;

/// What could not be done to the firewall.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FirewallError {
    /// The kernel refused.
    #[error("could not {what}")]
    Netlink {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: NetlinkError,
    },
    /// The kernel does not know a part of what the tables are made of.
    #[error(
        "the kernel lacks a part of its packet filter; it needs NF_TABLES with INET and BRIDGE, NFT_CT, NFT_NAT, NFT_MASQ, NFT_FIB_INET and NFT_REJECT_INET"
    )]
    Lacking(#[source] NetlinkError),
    /// A name that is no interface's.
    #[error("{name:?} is no interface name")]
    Name {
        /// As given.
        name: String,
    },
    /// A published port whose two sides are of different families.
    #[error("port {port} of {host} cannot lead to {target}: the families differ")]
    Families {
        /// The host's address.
        host: IpAddr,
        /// The host's port.
        port: u16,
        /// Where it was to lead.
        target: SocketAddr,
    },
    /// Lists that overlap in too many ways.
    #[error(
        "the destinations of {host_link} make {pieces} rules, and {most} is the most: shorten or order the list"
    )]
    TooManyAllowed {
        /// The endpoint's end on the host.
        host_link: String,
        /// After cutting.
        pieces: usize,
        /// At most.
        most: usize,
    },
    /// Too many addresses of names.
    #[error("{ADMITTED_COUNT_MAX} addresses of names are admitted already")]
    TooManyAdmitted,
    /// Too many addresses at once.
    #[error("{count} addresses of names are to be admitted at once, and {ADMITTED_OF_ONE_MAX} is the most")]
    TooManyAtOnce {
        /// As given.
        count: usize,
    },
    /// The watch could not be set up.
    #[error("could not wait for notifications")]
    Watch(#[source] std::io::Error),
}

type Result<T> = std::result::Result<T, FirewallError>;

fn named(what: &'static str) -> impl FnOnce(NetlinkError) -> FirewallError {
    move |source| FirewallError::Netlink { what, source }
}

/// Until when an endpoint may reach an address, over what.
type AdmittedUntil = BTreeMap<(IpAddr, IpAddr), Vec<Life>>;

/// How long something may be reached.
#[derive(Clone, Copy, Debug)]
struct Life {
    whole: Box3,
    until: Instant,
    /// Until when the kernel holds it. It hears of a later end when the tables are made anew for whatever reason.
    told: Instant,
}

/// What is in force.
#[derive(Debug, Default)]
struct Applied {
    /// `None`: not known to be there.
    elements: Option<Elements>,
    /// What was wanted last.
    wanted: Elements,
    admitted: AdmittedUntil,
    /// Whether anything was wanted yet.
    is_told: bool,
    /// Whether packets may have passed that no rule judged.
    was_open: bool,
    /// What has to end still.
    ended: Ended,
}

/// The scope's tables. Calls take turns.
#[derive(Debug)]
pub struct Firewall {
    scope: Scope,
    socket: Socket,
    applied: Mutex<Applied>,
}

impl Firewall {
    /// Opens a netlink socket in the caller's network namespace; changes nothing. What an earlier daemon admitted and still lives is taken
    /// over, since programs keep the addresses of names: it stays with endpoints that are limited in the first [`Firewall::apply`]. Where its
    /// tables stand whole, that apply ends no connection but of those that they allowed and it does not.
    pub fn open(scope: &Scope) -> Result<Self> {
        let socket = Socket::open(SockProtocol::NetlinkNetFilter, 0).map_err(named("open netlink"))?;
        let mut admitted = AdmittedUntil::new();
        for set in elements::NAMED {
            let there = events::elements(&socket, scope.table(), set)
                .map_err(named("read what names were resolved to"))?;
            elements::take_over(&mut admitted, &there, Instant::now());
        }
        let standing = standing::read(&socket, scope.table()).map_err(named("read the rules that stand"))?;
        Ok(Self {
            scope: scope.clone(),
            socket,
            applied: Mutex::new(Applied {
                admitted,
                was_open: standing.is_none(),
                wanted: standing.unwrap_or_default(),
                ..Applied::default()
            }),
        })
    }

    /// Makes everything wanted hold, in one transaction: all of it or nothing. Sends what differs from the last call; the first call, and
    /// one after the tables were taken away, replaces the tables. Connections that were let through and would not be now are ended; if only
    /// that fails, what is wanted holds nevertheless.
    pub fn apply(&self, wanted: &Wanted) -> Result<()> {
        let mut applied = self.lock();
        self.put(&mut applied, wanted)?;
        self.end_flows(&mut applied)
    }

    /// Makes everything wanted hold where that is less than before by endpoints that are gone. Whoever calls this calls
    /// [`Firewall::end_rest`] soon: connections of what is gone lead nowhere, and to find them the kernel visits its whole table of connections,
    /// which takes milliseconds where that is large. Every other change ends them before it returns, so that no endpoint that comes inherits one.
    pub fn withdraw(&self, wanted: &Wanted) -> Result<()> {
        self.put(&mut self.lock(), wanted)
    }

    /// Makes everything wanted hold where published ports went from one endpoint to another. Connections that came by them before go on to the endpoint
    /// that had them, for as long as it is there; every later one goes to the other, and none finds nobody in between.
    pub fn hand_over(&self, wanted: &Wanted) -> Result<()> {
        let mut applied = self.lock();
        let others = std::mem::take(&mut applied.ended);
        let put = self.put(&mut applied, wanted);
        applied.ended.keep_published();
        applied.ended.add(others);
        put?;
        self.end_flows(&mut applied)
    }

    /// How many TCP connections to or from these addresses are open.
    pub fn connections(&self, addresses: &[IpAddr]) -> Result<usize> {
        let _turn = self.lock();
        flows::open(&self.socket, addresses).map_err(named("count connections"))
    }

    /// Ends the connections that [`Firewall::withdraw`] left.
    pub fn end_rest(&self) -> Result<()> {
        self.end_flows(&mut self.lock())
    }

    fn put(&self, applied: &mut Applied, wanted: &Wanted) -> Result<()> {
        let wanted = elements::of(wanted, self.scope.group())?;
        let ended = Ended::between(&applied.wanted, &wanted);
        applied.ended.add(ended);
        applied.wanted = wanted;
        applied.is_told = true;
        let before = applied.admitted.len();
        let Applied { wanted, admitted, .. } = applied;
        admitted.retain(|(from, _), _| elements::is_limited(wanted, *from));
        if applied.admitted.len() < before {
            // What is gone has to leave the kernel as well.
            applied.elements = None;
        }
        self.enforce(applied)
    }

    /// Ends what has to; what fails is tried again by the next call.
    fn end_flows(&self, applied: &mut Applied) -> Result<()> {
        if applied.was_open {
            applied.ended.add(Ended::unjudged(&applied.wanted));
        }
        match flows::end(&self.socket, &applied.ended) {
            // What the kernel answers for a part of netfilter that it lacks.
            Err(error) if matches!(error.errno(), Some(Errno::EINVAL | Errno::EOPNOTSUPP)) => {
                tracing::warn!(
                    "ignoring connections that are no longer allowed: the kernel lacks NF_CT_NETLINK to end them by"
                );
            }
            done => done.map_err(named("end connections that are no longer allowed"))?,
        }
        applied.was_open = false;
        applied.ended = Ended::default();
        Ok(())
    }

    fn enforce(&self, applied: &mut Applied) -> Result<()> {
        if let Some(there) = &applied.elements
            && !elements::takes_ranges(there, &applied.wanted)
        {
            match self.change(there, &applied.wanted) {
                Ok(()) => {
                    applied.elements = Some(applied.wanted.clone());
                    return Ok(());
                }
                Err(error) => {
                    applied.elements = None;
                    applied.was_open = true;
                    tracing::warn!(%error, "the firewall was changed by others: it is made anew");
                }
            }
        }
        self.replace(applied)
    }

    /// Puts everything applied last, and what was admitted since and still lives, into force again: after [`Watch::lost`]. Ends
    /// what may have been let through in between and would not be now: the connections of endpoints with a list or in an internal network, and
    /// those to endpoints by no published port; what is allowed of it goes on. After a failure it can be called again.
    pub fn restore(&self) -> Result<()> {
        let mut applied = self.lock();
        applied.was_open = true;
        self.replace(&mut applied)?;
        self.end_flows(&mut applied)
    }

    /// Whether everything applied last stands in the kernel, rule by rule in number and element by element, names left out. True before the
    /// first [`Firewall::apply`] and after [`Firewall::remove`].
    pub fn is_whole(&self) -> Result<bool> {
        let applied = self.lock();
        if !applied.is_told {
            return Ok(true);
        }
        let standing = standing::read(&self.socket, self.scope.table());
        let standing = standing.map_err(named("read the rules that stand"))?;
        Ok(standing.is_some_and(|standing| standing::is_same(&standing, &applied.wanted)))
    }

    /// Whether this could be applied, however the kernel stands: lists that are cut into too many pieces could not.
    pub fn check(wanted: &Wanted) -> Result<()> {
        // No list depends on the group.
        elements::of(wanted, 0).map(drop)
    }

    fn change(&self, there: &Elements, wanted: &Elements) -> std::result::Result<(), NetlinkError> {
        let mut batch = Batch::new(self.scope.table());
        let nothing = Default::default();
        // What goes comes first: a map's element may come again with other data.
        for (set, elements) in there {
            batch.remove(*set, elements.difference(wanted.get(set).unwrap_or(&nothing)));
        }
        for (set, elements) in wanted {
            batch.add(*set, elements.difference(there.get(set).unwrap_or(&nothing)));
        }
        batch.send(&self.socket)
    }

    /// Makes both tables anew. Where they are not known to be there, it is first tried to make them without removing them: a removal has the
    /// kernel wait some fifteen milliseconds for its readers.
    fn replace(&self, applied: &mut Applied) -> Result<()> {
        let are_known = applied.elements.take().is_some();
        let now = Instant::now();
        elements::forget_old(&mut applied.admitted, now);
        let named_elements = elements::named(&applied.admitted, now);
        let make = |anew: bool| {
            let mut batch = Batch::new(self.scope.table());
            for table in &tables::TABLES {
                if anew {
                    batch.remove_table(table.family);
                }
                batch.make_table(table);
            }
            for (set, elements) in applied.wanted.iter().chain(&named_elements) {
                batch.add(*set, elements);
            }
            batch.send(&self.socket)
        };
        let made = match make(are_known) {
            Err(error) if !are_known && error.errno() == Some(Errno::EEXIST) => make(true),
            made => made,
        };
        made.map_err(|source| match source.errno() {
            Some(Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT) => {
                FirewallError::Lacking(source)
            }
            _ => named("put the firewall into force")(source),
        })?;
        applied.elements = Some(applied.wanted.clone());
        for life in applied.admitted.values_mut().flatten() {
            life.told = life.until;
        }
        Ok(())
    }

    /// Lets an endpoint, by its address, reach what a name was resolved to, for a time. Returns when it holds. Addresses of the other
    /// family than the endpoint's are left out. An endpoint has 256 at a time: the soonest of its own to run out make room.
    pub fn admit(&self, endpoint: IpAddr, admitted: &[Admitted]) -> Result<()> {
        let mut applied = self.lock();
        let now = Instant::now();
        elements::forget_old(&mut applied.admitted, now);
        let mut fresh = AdmittedUntil::new();
        let mut overlaps = false;
        let of_family = |one: &&Admitted| endpoint.is_ipv4() == one.address.is_ipv4();
        for one in admitted.iter().filter(of_family) {
            let lifetime = one.lifetime.clamp(ADMITTED_MIN, ADMITTED_MAX);
            let until = now + lifetime + lifetime / 2;
            let pair = (endpoint, one.address);
            let whole = Box3::new(IpNet::from(one.address), &one.service);
            let there = applied.admitted.entry(pair).or_default();
            match there.iter_mut().find(|life| life.whole == whole) {
                Some(known) if known.told >= now + lifetime => known.until = known.until.max(until),
                _ => {
                    overlaps |= there.iter().any(|life| life.told > now);
                    let told = until;
                    fresh.entry(pair).or_default().push(Life { whole, until, told });
                }
            }
        }
        let added: usize = fresh.values().map(Vec::len).sum();
        if added == 0 {
            return Ok(());
        }
        overlaps |= elements::make_room(&mut applied.admitted, endpoint, added)?;
        let elements = elements::named(&fresh, now);
        for (pair, lives) in fresh {
            let there = applied.admitted.entry(pair).or_default();
            there.retain(|there| !lives.iter().any(|fresh| fresh.whole == there.whole));
            there.extend(lives);
        }
        if applied.elements.is_none() {
            return Ok(());
        }
        let mut batch = Batch::new(self.scope.table());
        for (set, elements) in &elements {
            batch.add(*set, elements);
        }
        // What the kernel has not yet forgotten is in the way as well as what lives.
        if overlaps || batch.send(&self.socket).is_err() {
            return self.replace(&mut applied);
        }
        Ok(())
    }

    /// Takes back everything that was admitted for an endpoint: when its list of names changes. With an endpoint that is gone its names go anyway.
    pub fn forget(&self, endpoint: IpAddr) -> Result<()> {
        let mut applied = self.lock();
        let before = applied.admitted.len();
        applied.admitted.retain(|(from, _), _| *from != endpoint);
        if applied.elements.is_none() || applied.admitted.len() == before {
            return Ok(());
        }
        self.replace(&mut applied)
    }

    /// Removes the scope's tables; that there are none is no error.
    pub fn remove(&self) -> Result<()> {
        let mut applied = self.lock();
        *applied = Applied {
            was_open: true,
            ..Applied::default()
        };
        let mut batch = Batch::new(self.scope.table());
        for table in &tables::TABLES {
            batch.remove_table(table.family);
        }
        batch.send(&self.socket).map_err(named("remove the firewall"))
    }

    /// Watches over the tables from now on. What is missing already is told by the first [`Watch::lost`], so that nothing goes unseen between an
    /// apply, or a watch that failed, and this one. Needs a tokio runtime.
    pub fn watch(&self) -> Result<Watch> {
        let socket = Socket::open(SockProtocol::NetlinkNetFilter, events::GROUP)
            .map_err(named("watch the firewall"))?;
        let datagrams = std::os::unix::net::UnixDatagram::from(socket.into_fd());
        datagrams.set_nonblocking(true).map_err(FirewallError::Watch)?;
        // Looked at once changes are told of: none falls in between.
        let is_lost = !self.is_whole()?;
        Ok(Watch {
            is_lost,
            table: self.scope.table().to_owned(),
            own_port: self.socket.port(),
            socket: UnixDatagram::from_std(datagrams).map_err(FirewallError::Watch)?,
        })
    }

    /// Base chains of other tables (iptables-nft's too) that drop by their policy what is forwarded: they drop our packets too, whatever our
    /// tables say. Named as `family table chain`, for a warning. Those of the old iptables are not seen: the kernel tells nothing of them.
    pub fn foreign_drops(&self) -> Result<Vec<String>> {
        events::foreign_drops(&self.socket, self.scope.table()).map_err(named("list chains"))
    }

    fn lock(&self) -> MutexGuard<'_, Applied> {
        self.applied.lock().unwrap_or_else(|held| held.into_inner())
    }
}

/// Notices when somebody else takes the scope's tables, or a part of them, away.
#[derive(Debug)]
pub struct Watch {
    /// Whether something was missing from the start.
    is_lost: bool,
    table: String,
    own_port: u32,
    /// A netlink socket: it is waited for and read like any socket of datagrams, and tokio has a safe type for these.
    socket: UnixDatagram,
}

impl Watch {
    /// Ends when something is missing. Restore, and call it again. Cancelled between, it loses nothing. After a failure, of this or of the
    /// restore, open another by [`Firewall::watch`]: that one tells at once of what is missing then.
    pub async fn lost(&mut self) -> Result<()> {
        if std::mem::take(&mut self.is_lost) {
            return Ok(());
        }
        let mut bytes = vec![0; RECEIVE_BYTES];
        loop {
            let count = match self.socket.recv(&mut bytes).await {
                Ok(count) => count,
                // More happened than the socket holds: what was missed may have been ours.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                Err(error) => return Err(FirewallError::Watch(error)),
            };
            let mut messages = Messages(&bytes[..count]).flatten();
            if messages.any(|received| events::is_loss(received, &self.table, self.own_port)) {
                return Ok(());
            }
        }
    }
}
