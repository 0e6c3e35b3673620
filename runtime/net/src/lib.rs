//! Links, addresses, packet filters, published ports and names: what stands between a network namespace and the world.
//!
//! A crate of its own for its **dependencies** (netlink, nftables, DNS), which nothing else needs, and because frames, packets and queries of
//! hostile containers arrive here. Takes plain data and keeps no records: it knows neither containers nor Docker's words, and starts no program.
//!
//! | to | call | thread |
//! |---|---|---|
//! | make bridges, put a link into a namespace | [`link::Host`] | blocking |
//! | say what packets may do | [`firewall::Firewall`] | blocking; [`firewall::Watch`] is async |
//! | reserve a published port, carry what DNAT cannot | [`ports`] | blocking; [`ports::Proxy`] is async |
//! | answer names at 127.0.0.11 | [`names`] | [`names::Sockets::open`] blocking, [`names::Server`] async |
//! | ask an app on its own loopback whether it answers | [`probe`] | blocking |
//! | choose subnets, addresses, MACs | [`address`] | pure |
//!
//! Everything on the host that this crate makes bears a [`Scope`]: an nftables table's name and a link group. What bears none is another's
//! and is neither changed nor removed. Needs CAP_NET_ADMIN over the namespace that it works in, and CAP_SYS_ADMIN to reach into a
//! container's. Linux 5.10 and later.
#![forbid(unsafe_code)]

pub mod address;
pub mod firewall;
pub mod link;
pub mod names;
mod netlink;
mod nft;
pub mod ports;
pub mod probe;
mod scope;
#[cfg(test)]
mod testing;

pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
pub use netlink::NetlinkError;
pub use scope::Scope;

#[cfg(test)]
#[path = "../../../integration/src/required.rs"]
mod required;
