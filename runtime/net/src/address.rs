//! Which subnets, addresses and hardware addresses are given out.
//!
//! Pure: what is taken comes in, a choice or a refusal in Docker's words goes out. Keeps nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sha2::{Digest, Sha256};

/// A hardware address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Docker's rule: `02:42` and the IPv4 address, so that an address is never seen with two MACs.
    pub fn of_ipv4(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// The link-local address that a link of this MAC has: modified EUI-64 (RFC 4291), what the kernel would choose.
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = AddressError;

    /// Six groups of two hexadecimal digits with colons or with hyphens between them. Multicast addresses and zero are refused.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let refused = || AddressError::Mac {
            text: text.to_owned(),
        };
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut groups = text.split(separator);
        for byte in &mut bytes {
            let group = groups
                .next()
                .filter(|group| group.len() == 2)
                .ok_or_else(refused)?;
            if !group.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(refused());
            }
            *byte = u8::from_str_radix(group, 16).map_err(|_| refused())?;
        }
        if groups.next().is_some() || bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(refused());
        }
        Ok(Self(bytes))
    }
}

/// Why no address or subnet is given. Texts are dockerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Not a MAC address.
    #[error("invalid MAC address: address {text}: invalid MAC address")]
    Mac {
        /// As given.
        text: String,
    },
    /// A subnet that overlaps one in use.
    #[error("invalid pool request: Pool overlaps with other one on this address space")]
    Overlaps,
    /// No default subnet is left.
    #[error("all predefined address pools have been fully subnetted")]
    NoSubnetLeft,
    /// No address is left in a range.
    #[error("no available addresses on this pool")]
    NoAddressLeft,
    /// A static address that another endpoint has.
    #[error("Address already in use")]
    InUse,
    /// A static address outside of its network.
    #[error("Invalid address {address}: It does not belong to any of this network's subnets")]
    Outside {
        /// As given.
        address: IpAddr,
    },
    /// A subnet with bits set behind its prefix.
    #[error("invalid subnet {subnet}: it should be {}", subnet.trunc())]
    Unmasked {
        /// As given.
        subnet: IpNet,
    },
    /// A gateway or an excluded address that is not the subnet's.
    #[error("invalid {what} {address}: {}", foreign(*subnet, *address, "this address"))]
    NotInSubnet {
        /// `gateway` or `auxiliary address`.
        what: &'static str,
        /// As given.
        address: IpAddr,
        /// Where it should be.
        subnet: IpNet,
    },
    /// A range that is not the subnet's.
    #[error("invalid ip-range {range}: {}", range_fault(*subnet, *range))]
    Range {
        /// As given.
        range: IpNet,
        /// Where it should be.
        subnet: IpNet,
    },
}

/// What is wrong with something that is not of a subnet.
fn foreign(subnet: IpNet, address: IpAddr, what: &str) -> String {
    match (subnet, address.is_ipv4()) {
        (IpNet::V4(_), false) => "parent subnet is an IPv4 block".to_owned(),
        (IpNet::V6(_), true) => "parent subnet is an IPv6 block".to_owned(),
        _ => format!("parent subnet {subnet} doesn't contain {what}"),
    }
}

fn range_fault(subnet: IpNet, range: IpNet) -> String {
    let is_of_family = subnet.addr().is_ipv4() == range.addr().is_ipv4();
    if is_of_family && range.prefix_len() < subnet.prefix_len() {
        return format!("CIDR block is bigger than its parent subnet {subnet}");
    }
    if is_of_family && range != range.trunc() {
        return format!("it should be {}", range.trunc());
    }
    foreign(subnet, range.addr(), "ip-range")
}

/// A subnet of a network and what of it may be given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The whole.
    pub subnet: IpNet,
    /// The part that automatic addresses come from (`--ip-range`); `None`: all of it.
    pub range: Option<IpNet>,
    /// The gateway; never given out.
    pub gateway: Option<IpAddr>,
    /// Addresses that others have (`--aux-address`); never given out.
    pub excluded: Vec<IpAddr>,
}

impl Subnet {
    /// The subnet with its parts checked against it.
    pub fn new(
        subnet: IpNet,
        range: Option<IpNet>,
        gateway: Option<IpAddr>,
        excluded: Vec<IpAddr>,
    ) -> Result<Self, AddressError> {
        if subnet != subnet.trunc() {
            return Err(AddressError::Unmasked { subnet });
        }
        if let Some(range) = range.filter(|range| !subnet.contains(range) || *range != range.trunc()) {
            return Err(AddressError::Range { range, subnet });
        }
        let gateways = gateway.iter().map(|address| ("gateway", *address));
        let others = excluded.iter().map(|address| ("auxiliary address", *address));
        let foreign = gateways
            .chain(others)
            .find(|(_, address)| !subnet.contains(address));
        if let Some((what, address)) = foreign {
            return Err(AddressError::NotInSubnet {
                what,
                address,
                subnet,
            });
        }
        Ok(Self {
            subnet,
            range,
            gateway,
            excluded,
        })
    }

    /// The first address of the subnet (of the range, where there is one) that may be a gateway: what a network without `--gateway` uses.
    pub fn default_gateway(&self) -> Result<IpAddr, AddressError> {
        self.next_address(&BTreeSet::new(), None)
    }

    /// The next address to give out: the lowest free one after `last`, from the start again at the end, so that a freed address is not
    /// given to the next container at once. Never the subnet's first address and, for IPv4, its last; those that are of networks with a
    /// prefix of 31 or 32 are all given. Of an IPv6 subnet the first 65536 addresses are given out.
    pub fn next_address(
        &self,
        taken: &BTreeSet<IpAddr>,
        last: Option<IpAddr>,
    ) -> Result<IpAddr, AddressError> {
        let range = self.range.unwrap_or(self.subnet);
        let first = number(range.network());
        let end = number(range.broadcast()).min(first.saturating_add(AUTOMATIC_MAX - 1));
        let start = last
            .filter(|last| range.contains(last))
            .map_or(first, |last| number(last).saturating_add(1));
        let after = (start..=end).chain(first..start.min(end.saturating_add(1)));
        after
            .map(|number| self.address(number))
            .find(|address| self.is_usable(*address) && !self.is_kept(*address) && !taken.contains(address))
            .ok_or(AddressError::NoAddressLeft)
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.subnet {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(number as u32)),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }

    /// Neither the network's own address nor its broadcast address.
    fn is_usable(&self, address: IpAddr) -> bool {
        let is_point_to_point = self.subnet.max_prefix_len() - self.subnet.prefix_len() < 2;
        let is_broadcast = address.is_ipv4() && address == self.subnet.broadcast();
        is_point_to_point || (address != self.subnet.network() && !is_broadcast)
    }

    /// Whether it is the gateway's or somebody's outside of our care.
    fn is_kept(&self, address: IpAddr) -> bool {
        self.gateway == Some(address) || self.excluded.contains(&address)
    }

    /// Whether a static address may be given: inside the subnet, not its first or broadcast address, and nobody else's.
    pub fn check_static(&self, address: IpAddr, taken: &BTreeSet<IpAddr>) -> Result<(), AddressError> {
        if !self.subnet.contains(&address) {
            return Err(AddressError::Outside { address });
        }
        if taken.contains(&address) || self.is_kept(address) || !self.is_usable(address) {
            return Err(AddressError::InUse);
        }
        Ok(())
    }
}

/// Whether a subnet that somebody asks for is free. `taken` are those of other networks and, where wanted, of the host.
pub fn check_subnet(wanted: IpNet, taken: &[IpNet]) -> Result<(), AddressError> {
    if taken.iter().any(|taken| overlaps(wanted, *taken)) {
        return Err(AddressError::Overlaps);
    }
    Ok(())
}

/// Whether two subnets share an address.
pub fn overlaps(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Docker's default pools: each network, and the prefix of the subnets that it is cut into.
const POOLS: [([u8; 4], u8, u8); 6] = [
    ([172, 17, 0, 0], 16, 16),
    ([172, 18, 0, 0], 16, 16),
    ([172, 19, 0, 0], 16, 16),
    ([172, 20, 0, 0], 14, 16),
    ([172, 24, 0, 0], 13, 16),
    ([192, 168, 0, 0], 16, 20),
];

/// Automatic addresses of one subnet: a bridge has 1024 ports, and looking for the next one must end.
const AUTOMATIC_MAX: u128 = 65_536;

/// Subnets that are tried before a network goes without IPv6: a hash that meets an existing one is tried again with another number.
const ULA_ATTEMPTS: u32 = 64;

/// The next IPv4 subnet of Docker's default pools that overlaps nothing of `taken`: 172.17 to 172.31 with a prefix of 16, then 192.168 with 20.
pub fn free_ipv4_subnet(taken: &[IpNet]) -> Result<IpNet, AddressError> {
    let subnets = POOLS.into_iter().flat_map(|(octets, prefix, size)| {
        let pool = Ipv4Net::new_assert(Ipv4Addr::from(octets), prefix);
        pool.subnets(size).into_iter().flatten()
    });
    subnets
        .map(IpNet::V4)
        .find(|subnet| check_subnet(*subnet, taken).is_ok())
        .ok_or(AddressError::NoSubnetLeft)
}

/// A unique local IPv6 subnet (RFC 4193) with a prefix of 64 that overlaps nothing of `taken`: a global id of 40 bits that `seed` (the machine's
/// id) gives, and 16 bits that set `network` apart. The same twice for the same machine and network.
pub fn free_ipv6_subnet(seed: &[u8], network: &str, taken: &[IpNet]) -> Result<Ipv6Net, AddressError> {
    let device = Sha256::digest(seed);
    (0..ULA_ATTEMPTS)
        .map(|attempt| {
            let mut hash = Sha256::new();
            hash.update(seed);
            hash.update(network.as_bytes());
            hash.update(attempt.to_be_bytes());
            let own = hash.finalize();
            let mut octets = [0; 16];
            octets[0] = 0xfd;
            octets[1..6].copy_from_slice(&device[..5]);
            octets[6..8].copy_from_slice(&own[..2]);
            Ipv6Net::new_assert(Ipv6Addr::from(octets), 64)
        })
        .find(|subnet| check_subnet(IpNet::V6(*subnet), taken).is_ok())
        .ok_or(AddressError::NoSubnetLeft)
}

/// An address as a number, for counting.
fn number(address: impl Into<IpAddr>) -> u128 {
    match address.into() {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_address_is_the_kernels() {
        let mac = Mac::of_ipv4(Ipv4Addr::new(10, 9, 0, 2));
        assert_eq!(mac.link_local().to_string(), "fe80::42:aff:fe09:2");
    }

    fn subnet(
        subnet: &str,
        range: Option<&str>,
        gateway: Option<&str>,
        excluded: &[&str],
    ) -> Result<Subnet, AddressError> {
        let network = |text: &str| text.parse::<IpNet>().expect("a network");
        Subnet::new(
            network(subnet),
            range.map(network),
            gateway.map(ip),
            excluded.iter().map(|text| ip(text)).collect(),
        )
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn addresses_go_round() {
        type Row<'a> = (
            Result<Subnet, AddressError>,
            &'a [&'a str],
            Option<&'a str>,
            Option<&'a str>,
        );
        let rows: [Row<'_>; 14] = [
            (
                subnet("10.0.0.0/24", None, Some("10.0.0.1"), &[]),
                &[],
                None,
                Some("10.0.0.2"),
            ),
            (
                subnet("10.0.0.0/24", None, None, &[]),
                &[],
                None,
                Some("10.0.0.1"),
            ),
            (
                subnet("10.0.0.0/24", None, Some("10.0.0.1"), &["10.0.0.2"]),
                &["10.0.0.3"],
                None,
                Some("10.0.0.4"),
            ),
            (
                subnet("10.0.0.0/24", None, Some("10.0.0.1"), &[]),
                &["10.0.0.2"],
                Some("10.0.0.7"),
                Some("10.0.0.8"),
            ),
            (
                subnet("10.0.0.0/24", None, Some("10.0.0.1"), &[]),
                &["10.0.0.2"],
                Some("10.0.0.254"),
                Some("10.0.0.3"),
            ),
            (
                subnet("10.0.0.0/30", None, Some("10.0.0.1"), &[]),
                &["10.0.0.2"],
                None,
                None,
            ),
            (
                subnet("10.0.0.0/24", Some("10.0.0.128/31"), Some("10.0.0.1"), &[]),
                &[],
                None,
                Some("10.0.0.128"),
            ),
            (
                subnet("10.0.0.0/24", Some("10.0.0.128/31"), Some("10.0.0.1"), &[]),
                &["10.0.0.128"],
                Some("10.0.0.5"),
                Some("10.0.0.129"),
            ),
            (
                subnet("10.0.0.0/24", Some("10.0.0.128/31"), None, &[]),
                &["10.0.0.128", "10.0.0.129"],
                None,
                None,
            ),
            (
                subnet("10.0.0.0/31", None, Some("10.0.0.0"), &[]),
                &[],
                None,
                Some("10.0.0.1"),
            ),
            (
                subnet("10.0.0.7/32", None, None, &[]),
                &[],
                None,
                Some("10.0.0.7"),
            ),
            (
                subnet("fd00::/64", None, Some("fd00::1"), &[]),
                &[],
                None,
                Some("fd00::2"),
            ),
            (
                subnet("fd00::/64", None, Some("fd00::1"), &[]),
                &[],
                Some("fd00::ffff"),
                Some("fd00::2"),
            ),
            (
                subnet("255.255.255.252/30", None, None, &[]),
                &[],
                Some("255.255.255.254"),
                Some("255.255.255.253"),
            ),
        ];
        for (subnet, taken, last, expected) in rows {
            let subnet = subnet.expect("parts lie inside");
            let taken = taken.iter().map(|text| ip(text)).collect();
            let found = subnet.next_address(&taken, last.map(ip));
            let wanted = expected.map(ip).ok_or(AddressError::NoAddressLeft);
            assert_eq!(found, wanted, "{subnet:?} {taken:?} {last:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_in_dockers_words() {
        let given = subnet("10.0.0.0/24", None, Some("10.0.0.1"), &["10.0.0.9"]).expect("parts lie inside");
        let taken: BTreeSet<_> = [ip("10.0.0.2")].into();
        for (address, said) in [
            ("10.0.0.3", None),
            ("10.0.0.2", Some("Address already in use")),
            ("10.0.0.1", Some("Address already in use")),
            ("10.0.0.9", Some("Address already in use")),
            ("10.0.0.0", Some("Address already in use")),
            ("10.0.0.255", Some("Address already in use")),
            (
                "10.0.1.3",
                Some("Invalid address 10.0.1.3: It does not belong to any of this network's subnets"),
            ),
            (
                "fd00::1",
                Some("Invalid address fd00::1: It does not belong to any of this network's subnets"),
            ),
        ] {
            let refused = given.check_static(ip(address), &taken).err();
            assert_eq!(
                refused.map(|error| error.to_string()).as_deref(),
                said,
                "{address}"
            );
        }
        let refusals = [
            (
                subnet("10.0.0.5/24", None, None, &[]),
                "invalid subnet 10.0.0.5/24: it should be 10.0.0.0/24",
            ),
            (
                subnet("10.0.0.0/24", Some("10.0.1.0/25"), None, &[]),
                "invalid ip-range 10.0.1.0/25: parent subnet 10.0.0.0/24 doesn't contain ip-range",
            ),
            (
                subnet("10.0.0.0/24", Some("10.0.0.0/16"), None, &[]),
                "invalid ip-range 10.0.0.0/16: CIDR block is bigger than its parent subnet 10.0.0.0/24",
            ),
            (
                subnet("10.0.0.0/24", Some("10.0.0.9/25"), None, &[]),
                "invalid ip-range 10.0.0.9/25: it should be 10.0.0.0/25",
            ),
            (
                subnet("10.0.0.0/24", Some("fd00::/80"), None, &[]),
                "invalid ip-range fd00::/80: parent subnet is an IPv4 block",
            ),
            (
                subnet("10.0.0.0/24", None, Some("10.0.1.1"), &[]),
                "invalid gateway 10.0.1.1: parent subnet 10.0.0.0/24 doesn't contain this address",
            ),
            (
                subnet("fd00::/64", None, Some("10.0.1.1"), &[]),
                "invalid gateway 10.0.1.1: parent subnet is an IPv6 block",
            ),
            (
                subnet("10.0.0.0/24", None, None, &["10.0.1.1"]),
                "invalid auxiliary address 10.0.1.1: parent subnet 10.0.0.0/24 doesn't contain this address",
            ),
        ];
        for (refused, said) in refusals {
            assert_eq!(refused.expect_err(said).to_string(), said);
        }
        for text in [
            "",
            "02:42:0a:00:00",
            "02:42:0a:00:00:02:03",
            "2:42:a:0:0:2",
            "02:42:0a:00:00:0g",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "02-42:0a:00:00:02",
            "+2:42:0a:00:00:02",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
        for text in ["02:42:0a:00:00:02", "02-42-0A-00-00-02"] {
            assert_eq!(text.parse::<Mac>().expect(text).to_string(), "02:42:0a:00:00:02");
        }
    }

    #[test]
    fn subnets_come_in_dockers_order_and_overlap_nothing() {
        let mut taken = Vec::new();
        let mut given = Vec::new();
        while let Ok(subnet) = free_ipv4_subnet(&taken) {
            assert!(check_subnet(subnet, &taken).is_ok());
            taken.push(subnet);
            given.push(subnet.to_string());
        }
        assert_eq!(given.len(), 15 + 16);
        assert_eq!(given[..2], ["172.17.0.0/16", "172.18.0.0/16"]);
        assert_eq!(given[14..16], ["172.31.0.0/16", "192.168.0.0/20"]);

        let host: Vec<IpNet> = ["172.16.0.0/12", "192.168.1.0/24", "10.0.0.0/8"]
            .iter()
            .map(|text| text.parse().expect("a network"))
            .collect();
        assert_eq!(
            free_ipv4_subnet(&host).map(|subnet| subnet.to_string()),
            Ok("192.168.16.0/20".to_owned())
        );
        for (wanted, is_free) in [
            ("10.1.0.0/16", false),
            ("8.0.0.0/6", false),
            ("11.0.0.0/8", true),
            ("fd00::/8", true),
        ] {
            assert_eq!(
                check_subnet(wanted.parse().expect("a network"), &host).is_ok(),
                is_free,
                "{wanted}"
            );
        }

        let first = free_ipv6_subnet(b"machine", "web", &[]).expect("all is free");
        assert_eq!(
            first,
            free_ipv6_subnet(b"machine", "web", &[]).expect("all is free")
        );
        assert_eq!(first.addr().octets()[0], 0xfd);
        let second = free_ipv6_subnet(b"machine", "web", &[IpNet::V6(first)]).expect("one is taken");
        assert_ne!(first, second);
        assert_eq!(first.addr().octets()[..6], second.addr().octets()[..6]);
        let all = ["fd00::/8".parse().expect("a network")];
        assert_eq!(
            free_ipv6_subnet(b"machine", "web", &all),
            Err(AddressError::NoSubnetLeft)
        );
    }
}
