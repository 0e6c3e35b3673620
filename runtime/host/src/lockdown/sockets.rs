//! Listening ports, and whose they are.
//!
//! Reads `/proc/net/{tcp,tcp6,udp,udp6}` of the namespace that the caller is in; a socket's owner is the process that has its inode open. Source:
//! proc_pid_net(5). Invariant: a port that somebody listens on is told, also where nobody may say whose it is.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kakoi_policy::host::lockdown::{Lockdown, Port, Section, Transport};

use super::item::{Item, Knob, Undo, Verdict, same};
use super::place::Place;

/// TCP_LISTEN.
const LISTENS: &str = "0A";
/// TCP_CLOSE, which is what a UDP socket without a peer is in.
const HAS_NO_PEER: &str = "07";
/// Sockets of a table that are looked at. A gateway listens on some tens.
const SOCKETS_MAX: usize = 65_536;

/// A socket that strangers could reach, were there no filter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Listener {
    protocol: Transport,
    port: u16,
    address: IpAddr,
    inode: u64,
}

/// A port that an app published, as the device's own filter sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// Over what.
    pub protocol: Transport,
    /// The device's port.
    pub port: u16,
    /// Whose, for people.
    pub app: String,
}

/// What the packet filter before the ports is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// It stands, with exactly what is declared and published open.
    Stands,
    /// It does not, or not so.
    Missing,
    /// The kernel does not tell.
    Unknown(String),
}

fn address(hex: &str) -> Option<IpAddr> {
    let word = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(hex)?))),
        32 if hex.is_ascii() => {
            let mut octets = [0; 16];
            for (place, at) in octets.chunks_mut(4).zip((0..32).step_by(8)) {
                place.copy_from_slice(&word(&hex[at..at + 8])?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        _ => None,
    }
}

fn parse(line: &str, protocol: Transport) -> Option<Listener> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (local, port) = fields.get(1)?.split_once(':')?;
    let listens = match protocol {
        Transport::Tcp => LISTENS,
        Transport::Udp => HAS_NO_PEER,
    };
    (*fields.get(3)? == listens && port.len() == 4).then_some(())?;
    Some(Listener {
        protocol,
        port: u16::from_str_radix(port, 16).ok()?,
        address: address(local)?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

fn listeners(place: &Place) -> Result<Vec<Listener>, String> {
    let tables = [
        ("tcp", Transport::Tcp),
        ("tcp6", Transport::Tcp),
        ("udp", Transport::Udp),
        ("udp6", Transport::Udp),
    ];
    let mut all = Vec::new();
    for (name, protocol) in tables {
        // A kernel without IPv6 has two of them.
        match place.read(&format!("proc/net/{name}")) {
            Ok(None) if name.ends_with('6') => {}
            Ok(Some(text)) => {
                let lines = text.lines().skip(1).take(SOCKETS_MAX);
                all.extend(lines.filter_map(|line| parse(line, protocol)));
            }
            Ok(None) => return Err(format!("/proc/net/{name} is not there")),
            Err(error) => return Err(format!("/proc/net/{name} cannot be read: {error}")),
        }
    }
    all.sort();
    Ok(all)
}

/// `name (pid)` of whoever has each socket open.
fn owners(place: &Place, listeners: &[Listener]) -> BTreeMap<u64, String> {
    let mut wanted: Vec<u64> = listeners.iter().map(|listener| listener.inode).collect();
    wanted.sort_unstable();
    let mut owners = BTreeMap::new();
    if wanted.is_empty() {
        return owners;
    }
    for pid in super::processes::ids(place) {
        for fd in place.names(&format!("proc/{pid}/fd")) {
            let target = place.link(&format!("proc/{pid}/fd/{fd}")).unwrap_or_default();
            let inode = target
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']')?.parse().ok());
            let Some(inode) = inode.filter(|inode| wanted.binary_search(inode).is_ok()) else {
                continue;
            };
            owners
                .entry(inode)
                .or_insert_with(|| format!("{} ({pid})", super::processes::name(place, pid)));
        }
    }
    owners
}

fn spoken(port: &Port) -> String {
    let ports = match port.first == port.last {
        true => port.first.to_string(),
        false => format!("{}-{}", port.first, port.last),
    };
    let mut said = format!("{ports}/{}", port.protocol.word());
    if let Some(link) = &port.link {
        said.push_str(&format!(" on {link}"));
    }
    if let Some((address, length)) = port.from {
        said.push_str(&format!(" from {address}/{length}"));
    }
    said
}

/// Everything about ports.
pub(super) fn items(
    lockdown: &Lockdown,
    place: &Place,
    published: &[Published],
    filter: &Filter,
) -> Vec<Item> {
    let Some(declared) = lockdown.ports.only() else {
        return Vec::new();
    };
    let mut items = vec![filter_item(lockdown, declared, published, filter)];
    let listeners = match listeners(place) {
        Ok(listeners) => listeners,
        Err(why) => {
            items.push(Item::new(Section::Ports, "listeners").actual(why, Verdict::Unknown));
            return items;
        }
    };
    let owners = owners(place, &listeners);
    let mut by_port: BTreeMap<(Transport, u16), Vec<&Listener>> = BTreeMap::new();
    for listener in &listeners {
        by_port
            .entry((listener.protocol, listener.port))
            .or_default()
            .push(listener);
    }
    items.extend(by_port.iter().map(|((protocol, port), listeners)| {
        let declared = declared
            .iter()
            .find(|one| one.protocol == *protocol && (one.first..=one.last).contains(port));
        let published = published
            .iter()
            .find(|one| (one.protocol, one.port) == (*protocol, *port));
        port_item(*protocol, *port, listeners, declared, published, &owners)
    }));
    items
}

fn port_item(
    protocol: Transport,
    port: u16,
    listeners: &[&Listener],
    declared: Option<&Port>,
    published: Option<&Published>,
    owners: &BTreeMap<u64, String>,
) -> Item {
    let item = Item::new(Section::Ports, format!("{port}/{}", protocol.word()));
    let said = |listener: &&Listener| {
        let owner = owners
            .get(&listener.inode)
            .map_or("a process that is not told", String::as_str);
        format!("{owner} at {}", listener.address)
    };
    let mut who: Vec<String> = listeners.iter().map(said).collect();
    who.dedup();
    let who = who.join(", ");
    match (declared, published) {
        (Some(port), _) => item.declared(format!("open: {}", spoken(port))).actual(who, Verdict::Ok),
        (None, Some(published)) => item
            .declared(format!("open: published by {}", published.app))
            .actual(who, Verdict::Ok),
        (None, None) if listeners.iter().all(|listener| is_inside(listener.address)) => item
            .declared("closed")
            .actual(format!("{who}, which the device alone reaches"), Verdict::Ok),
        (None, None) => item
            .declared("closed")
            .actual(who, Verdict::Drift)
            .how("the packet filter keeps strangers away while it stands; the process is not touched: stop it, or declare its port")
            .breaks("whoever reaches it from outside"),
    }
}

fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => address.is_loopback(),
            None => address.is_loopback(),
        },
        IpAddr::V4(address) => address.is_loopback(),
    }
}

fn filter_item(lockdown: &Lockdown, declared: &[Port], published: &[Published], filter: &Filter) -> Item {
    let mut open: Vec<String> = declared.iter().map(spoken).collect();
    open.extend(
        published
            .iter()
            .map(|one| format!("{}/{} ({})", one.port, one.protocol.word(), one.app)),
    );
    let ping = match lockdown.ping {
        true => "; echo requests are answered",
        false => "",
    };
    let open = match open.is_empty() {
        true => "none".to_owned(),
        false => open.join(", "),
    };
    let item = Item::new(Section::Ports, "filter")
        .declared(format!("closed but: {open}{ping}"))
        .how("an nftables table of Kakoi's own before everything that is for the device itself")
        .breaks("what begins from outside at every other port, pings where they are not declared, and protocols beside TCP and UDP");
    match filter {
        Filter::Unknown(why) => item.actual(why.as_str(), Verdict::Unknown),
        filter => {
            let stands = *filter == Filter::Stands;
            let actual = if stands {
                "closed"
            } else {
                "open, or not as declared"
            };
            let from = if stands { "closed" } else { "open" };
            item.actual(actual, same(stands))
                .turn(Knob::Ports, from, "closed", Undo::Now)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_tables() {
        let line = "   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1686 1 00 100 0 0 10 0";
        let found = parse(line, Transport::Tcp).expect("it listens");
        // The kernel writes the address as a number of the machine's order.
        let loopback = match cfg!(target_endian = "little") {
            true => Ipv4Addr::LOCALHOST,
            false => Ipv4Addr::new(1, 0, 0, 127),
        };
        assert_eq!(
            (found.port, found.address, found.inode),
            (22, loopback.into(), 1686)
        );
        assert_eq!(
            parse(&line.replace(" 0A ", " 01 "), Transport::Tcp),
            None,
            "connected"
        );
        assert_eq!(parse(line, Transport::Udp), None);
        for bad in [
            "",
            "0: x 0 0A",
            "0: 0100007F:00166 0:0 0A 0 0 0 0 0 9",
            "0: é:1 0:0 0A 0 0 0 0 0 1",
        ] {
            assert_eq!(parse(bad, Transport::Tcp), None, "{bad}");
        }
    }
}
