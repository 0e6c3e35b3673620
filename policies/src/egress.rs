//! What an app may reach through its networks: `network.egress` and `network.peers`.
//!
//! Owns the reading of destinations, and which one lies within another. Neither landlock nor the system call filter sees addresses: the packet filter of
//! the container's links does this, and the name server, which lets through what the names of a policy lead to.

use std::net::IpAddr;
use std::str::FromStr;

use crate::confinement::{Destination, PortRange, Reach, Target, Transport};
use crate::diagnostics::Origin;
use crate::model::{EgressEntry, Network};

/// Longest name that DNS knows, and its longest part.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Addresses as people write them: one, or a network with the length of its prefix.
impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            let prefix = if address.is_ipv6() { 128 } else { 32 };
            return Ok(Self::Network { address, prefix });
        }
        if let Some((address, prefix)) = text.split_once('/') {
            let wrong = || format!("`{text}` is not a network");
            let address: IpAddr = address.parse().map_err(|_| wrong())?;
            let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
            if prefix > if address.is_ipv6() { 128 } else { 32 } {
                return Err(wrong());
            }
            let start = masked(address, prefix);
            if start != address {
                return Err(format!(
                    "`{text}` has bits behind its prefix: write `{start}/{prefix}`"
                ));
            }
            return Ok(Self::Network { address, prefix });
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let labels = name.strip_prefix("*.").unwrap_or(&name);
        let is_label = |label: &str| {
            (1..=LABEL_BYTES_MAX).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        let last = labels.rsplit('.').next().unwrap_or_default();
        // `10.0.0` or `1.2.3.4.5` is a slip of somebody who means an address.
        let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
        if name.len() > NAME_BYTES_MAX
            || !labels.contains('.')
            || is_number
            || !labels.split('.').all(is_label)
        {
            return Err(format!(
                "`{text}` is neither an address, a network, nor a name with a dot"
            ));
        }
        Ok(Self::Name(name))
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network { address, prefix } => write!(formatter, "{address}/{prefix}"),
            Self::Name(name) => formatter.write_str(name),
        }
    }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

impl Target {
    /// Whether a name that was resolved is this one, or lies below it.
    pub fn covers_name(&self, asked: &str) -> bool {
        let Self::Name(name) = self else { return false };
        match name.strip_prefix('*') {
            Some(below) => asked.len() > below.len() && asked.to_ascii_lowercase().ends_with(below),
            None => asked.eq_ignore_ascii_case(name),
        }
    }

    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Network { address, prefix },
                Self::Network {
                    address: inner,
                    prefix: longer,
                },
            ) => {
                address.is_ipv6() == inner.is_ipv6()
                    && prefix <= longer
                    && masked(*inner, *prefix) == *address
            }
            (Self::Name(_), Self::Name(inner)) => self == other || self.covers_name(inner),
            _ => false,
        }
    }
}

impl Destination {
    /// Whether everything of `other` lies within this one.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let has_transport = self.transport.is_none() || self.transport == other.transport;
        let within = |inner: &PortRange| {
            let mut ports = self.ports.iter();
            ports.any(|range| range.first <= inner.first && inner.last <= range.last)
        };
        let has_ports = self.ports.is_empty() || (!other.ports.is_empty() && other.ports.iter().all(within));
        self.to.covers(&other.to) && has_transport && has_ports
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.to)?;
        let ports: Vec<String> = self.ports.iter().map(PortRange::to_string).collect();
        match (self.transport, ports.is_empty()) {
            (None, _) => Ok(()),
            (Some(transport), true) => write!(formatter, " {transport}"),
            (Some(transport), false) => write!(formatter, " {transport} {}", ports.join(",")),
        }
    }
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.first == self.last {
            return write!(formatter, "{}", self.first);
        }
        write!(formatter, "{}-{}", self.first, self.last)
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Every address: what an app reaches that names its peers and says nothing of destinations.
fn everywhere() -> Vec<EgressEntry> {
    let all = |text: &str| EgressEntry {
        destination: Destination {
            to: text.parse().expect("it is a network"),
            transport: None,
            ports: Vec::new(),
            rule: String::new(),
        },
        origin: Origin::flag("network.peers"),
    };
    vec![all("0.0.0.0/0"), all("::/0")]
}

/// What the rules come to, with the place of what bounds it; `None` where nothing does.
pub(crate) fn bounds(network: &Network) -> Option<(Vec<EgressEntry>, Vec<String>, Origin)> {
    let egress = network.egress.as_ref().filter(|egress| egress.any.is_none());
    let origin = match (egress, &network.peers) {
        (Some(egress), _) => &egress.origin,
        (None, Some(peers)) => &peers.origin,
        (None, None) => return None,
    };
    let entries = egress.map_or_else(everywhere, |egress| egress.entries.clone());
    let peers = network.peers.as_ref().map(|peers| peers.value.clone());
    Some((entries, peers.unwrap_or_default(), origin.clone()))
}

/// What the rules come to, as data.
pub(crate) fn reach(network: &Network) -> Reach {
    let Some((entries, peers, _)) = bounds(network) else {
        return Reach::Networks;
    };
    let destinations = entries
        .into_iter()
        .map(|entry| Destination {
            rule: entry.origin.to_string(),
            ..entry.destination
        })
        .collect();
    Reach::Only { destinations, peers }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(text: &str) -> Target {
        text.parse().unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    #[test]
    fn destinations_are_addresses_networks_and_names() {
        for (text, shown) in [
            ("192.0.2.1", "192.0.2.1/32"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("Broker.Example.com.", "broker.example.com"),
            ("*.example.com", "*.example.com"),
        ] {
            assert_eq!(to(text).to_string(), shown);
        }
        for bad in [
            "",
            ".",
            "localhost",
            "*",
            "*.com.*",
            "a..b",
            "192.0.2.1/24",
            "192.0.2.0/33",
            "10.0.0",
            "1.2.3.4.5",
            "ex ample.com",
            "exam*ple.com",
            "http://example.com",
            "example.com:80",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_lies_within_what() {
        for (outer, inner, is_within) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "10.0.0.0/8", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.0.0/16", "10.0.0.0/8", false),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::/32", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "*.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "badexample.com", false),
            ("a.example.com", "a.example.com", true),
            ("a.example.com", "*.example.com", false),
            ("0.0.0.0/0", "a.example.com", false),
        ] {
            assert_eq!(to(outer).covers(&to(inner)), is_within, "{outer} {inner}");
        }
        assert!(to("*.example.com").covers_name("A.Example.COM"));
        assert!(!to("*.example.com").covers_name("evil-example.com"));
        assert!(!to("10.0.0.0/8").covers_name("10.0.0.1"));
    }

    #[test]
    fn ports_lie_within_ports_of_the_same_protocol() {
        let at = |transport, ports: &[(u16, u16)]| Destination {
            to: to("10.0.0.0/8"),
            transport,
            ports: ports
                .iter()
                .map(|(first, last)| PortRange {
                    first: *first,
                    last: *last,
                })
                .collect(),
            rule: String::new(),
        };
        let tcp = Some(Transport::Tcp);
        let web = at(tcp, &[(80, 90), (443, 443)]);
        assert!(web.covers(&at(tcp, &[(443, 443), (81, 82)])));
        assert!(!web.covers(&at(tcp, &[(443, 444)])));
        assert!(!web.covers(&at(tcp, &[])), "every port is more");
        assert!(!web.covers(&at(None, &[])));
        assert!(!web.covers(&at(Some(Transport::Udp), &[(443, 443)])));
        assert!(at(None, &[]).covers(&web));
        assert_eq!(web.to_string(), "10.0.0.0/8 tcp 80-90,443");
    }
}
