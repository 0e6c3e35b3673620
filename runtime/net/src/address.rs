//! Which subnets, addresses and hardware addresses are given out.
//!
//! Pure: what is taken comes in, a choice or a refusal in Docker's words goes out. Keeps nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv6Net};

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
    /// A gateway outside of the subnet.
    #[error("no matching subnet for gateway {address}")]
    Gateway {
        /// As given.
        address: IpAddr,
    },
    /// A range outside of the subnet.
    #[error("no matching subnet for range {range}")]
    Range {
        /// As given.
        range: IpNet,
    },
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
        if let Some(range) = range.filter(|range| !subnet.contains(range)) {
            return Err(AddressError::Range { range });
        }
        if let Some(address) = gateway.filter(|address| !subnet.contains(address)) {
            return Err(AddressError::Gateway { address });
        }
        Ok(Self {
            subnet: subnet.trunc(),
            range: range.map(|range| range.trunc()),
            gateway,
            excluded,
        })
    }

    /// The first address of the subnet (of the range, where there is one) that may be a gateway: what a network without `--gateway` uses.
    pub fn default_gateway(&self) -> Result<IpAddr, AddressError> {
        self.next_address(&BTreeSet::new(), None)
    }

    /// The next address to give out: the lowest free one after `last`, from the start again at the end, so that a freed address is not
    /// given to the next container at once. Never the subnet's first and, for IPv4, last address.
    pub fn next_address(
        &self,
        _taken: &BTreeSet<IpAddr>,
        _last: Option<IpAddr>,
    ) -> Result<IpAddr, AddressError> {
        Err(AddressError::NoAddressLeft)
    }

    /// Whether a static address may be given: inside the subnet, not its first or broadcast address, and nobody else's.
    pub fn check_static(&self, address: IpAddr, taken: &BTreeSet<IpAddr>) -> Result<(), AddressError> {
        if !self.subnet.contains(&address) {
            return Err(AddressError::Outside { address });
        }
        if taken.contains(&address) || self.gateway == Some(address) {
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

/// The next IPv4 subnet of Docker's default pools that overlaps nothing of `taken`: 172.17 to 172.31 with a prefix of 16, then 192.168 with 20.
pub fn free_ipv4_subnet(_taken: &[IpNet]) -> Result<IpNet, AddressError> {
    Err(AddressError::NoSubnetLeft)
}

/// A unique local IPv6 subnet (RFC 4193) with a prefix of 64 that overlaps nothing of `taken`. `seed` is what the device's global id is
/// derived from (machine id); `network` sets apart its networks.
pub fn free_ipv6_subnet(_seed: &[u8], _network: &str, _taken: &[IpNet]) -> Result<Ipv6Net, AddressError> {
    Err(AddressError::NoSubnetLeft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_address_is_the_kernels() {
        let mac = Mac::of_ipv4(Ipv4Addr::new(10, 9, 0, 2));
        assert_eq!(mac.link_local().to_string(), "fe80::42:aff:fe09:2");
    }
}
