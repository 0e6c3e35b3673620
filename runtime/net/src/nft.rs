//! nftables: tables as values, and the requests that put them into force.
//!
//! Owns the encoding of what Kakoi's tables are made of and nothing else of nftables; knows no bridge and no container. Pure but for [`send`].
//!
//! A rule is a list of [`Step`]s, read like a line of nft(8): each step either lets the packet on to the next or leaves the rule, and the
//! last one decides. A step that looks at several things at once loads them into registers side by side, each padded to four bytes, which
//! is also how a set's keys are laid out.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::netlink::{Message, Result, Socket};

mod encode;
pub(crate) mod events;

#[cfg(test)]
pub(crate) use encode::check_table;

/// Families of tables (NFPROTO_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    /// IPv4.
    Ipv4 = 2,
    /// Frames of bridges.
    Bridge = 7,
    /// IPv6.
    Ipv6 = 10,
}

/// One table, as it always is: only elements of its sets change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub family: Family,
    pub sets: &'static [Set],
    pub chains: &'static [Chain],
}

/// A chain; with a hook it is where packets come in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub name: &'static str,
    pub hook: Option<Hook>,
    pub rules: &'static [&'static [Step]],
}

/// Where a base chain stands. Its policy is accept: what is not ours passes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    pub number: HookNumber,
    pub priority: i32,
}

/// Places in a packet's way (NF_INET_*, and the same numbers NF_BR_*).
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum HookNumber {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// A set, or with `data` a map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Set {
    pub name: &'static str,
    pub key: &'static [Field],
    pub data: &'static [Field],
    /// Keys are ranges, field by field. Ranges of two elements must not overlap.
    pub ranges: bool,
    /// Elements may have an end.
    pub timeouts: bool,
}

/// What a field of a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Name,
    /// Of links, in the machine's order.
    Group,
    Mac,
    Ipv4,
    Ipv6,
    Protocol,
    Port,
}

impl Field {
    /// Length without padding, and what nft(8) calls the type by.
    const fn layout(self) -> (usize, u32) {
        match self {
            Self::Name => (16, 41),
            Self::Group => (4, 35),
            Self::Mac => (6, 9),
            Self::Ipv4 => (4, 7),
            Self::Ipv6 => (16, 8),
            Self::Protocol => (1, 12),
            Self::Port => (2, 13),
        }
    }
}

/// Something of a packet that is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// Of the packet's circumstances: key, length.
    Meta(u32, usize),
    /// Of its bytes: header, offset, length.
    Payload(Header, u32, usize),
    /// Of its connection: key, in the machine's byte order.
    Connection(u32),
    /// The type of the route to its destination, in the machine's byte order.
    DestinationType,
    /// The same, where only addresses of the link that it came by are the host's own.
    DestinationTypeHere,
    /// The type of a route to its source, in the machine's byte order.
    SourceType,
}

impl Load {
    const fn len(self) -> usize {
        match self {
            Self::Meta(_, len) | Self::Payload(_, _, len) => len,
            Self::Connection(_) | Self::DestinationType | Self::DestinationTypeHere | Self::SourceType => 4,
        }
    }
}

/// Headers of a packet.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Header {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// One step of a rule.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// On, if these are an element of the set.
    In(&'static [Load], &'static str),
    /// On, if they are none.
    NotIn(&'static [Load], &'static str),
    /// On, if it equals these bytes.
    Is(Load, &'static [u8]),
    /// On, if it does not.
    IsNot(Load, &'static [u8]),
    /// On, if any of these bits is set.
    AnyOf(Load, u32),
    Accept,
    Drop,
    /// Drops, and tells the sender that it is prohibited.
    Reject,
    Return,
    Jump(&'static str),
    Goto(&'static str),
    /// Marks this one packet, for as long as it is in this namespace.
    Mark(u32),
    /// From now on the packets of this connection bear the address of the link they leave by.
    Masquerade,
    /// From now on the packets of this connection go to what the map says for these.
    Dnat(Family, &'static [Load], &'static str),
}

/// An element of a set, keys and data in the layout of their fields.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    pub key: Vec<u8>,
    /// The end of a range, included.
    pub key_end: Option<Vec<u8>>,
    pub data: Option<Vec<u8>>,
    /// In milliseconds from now.
    pub timeout: Option<u64>,
}

impl Element {
    /// An element that is a key and nothing else.
    pub fn of(key: Vec<u8>) -> Self {
        Self {
            key,
            key_end: None,
            data: None,
            timeout: None,
        }
    }
}

/// Puts fields side by side as registers are.
pub(crate) fn concat(fields: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::new();
    for field in fields {
        key.extend_from_slice(field);
        key.resize(key.len().next_multiple_of(4), 0);
    }
    key
}

/// The elements of a set, by family and name.
pub(crate) type Elements = BTreeMap<(Family, &'static str), BTreeSet<Element>>;

/// The requests of one transaction.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    table: &'a str,
    messages: Vec<Message>,
}

impl<'a> Batch<'a> {
    /// An empty one for tables of this name.
    pub fn new(table: &'a str) -> Self {
        Self {
            table,
            messages: vec![encode::begin()],
        }
    }

    /// Removes a table, whether it is there or not.
    pub fn remove_table(&mut self, family: Family) {
        self.messages.push(encode::new_table(family, self.table, false));
        self.messages.push(encode::delete_table(family, self.table));
    }

    /// Makes a table that is not there, with empty sets.
    pub fn make_table(&mut self, table: &Table) {
        let (family, name) = (table.family, self.table);
        self.messages.push(encode::new_table(family, name, true));
        for (id, set) in (1..).zip(table.sets) {
            self.messages.push(encode::new_set(family, name, set, id));
        }
        // A rule may lead to any chain, so that all of them come first.
        for chain in table.chains {
            self.messages.push(encode::new_chain(family, name, chain));
        }
        for chain in table.chains {
            for rule in chain.rules {
                self.messages
                    .push(encode::new_rule(family, name, chain.name, rule));
            }
        }
    }

    /// Adds elements.
    pub fn add<'e>(&mut self, set: (Family, &str), elements: impl IntoIterator<Item = &'e Element>) {
        let new = encode::elements(set.0, self.table, set.1, elements, true);
        self.messages.extend(new);
    }

    /// Removes elements, each of which must be there.
    pub fn remove<'e>(&mut self, set: (Family, &str), elements: impl IntoIterator<Item = &'e Element>) {
        let old = encode::elements(set.0, self.table, set.1, elements, false);
        self.messages.extend(old);
    }

    /// Does all of it or nothing. Takes a socket of NETLINK_NETFILTER.
    pub fn send(mut self, socket: &Socket) -> Result<()> {
        if self.messages.len() == 1 {
            return Ok(());
        }
        self.messages.push(encode::end());
        socket.transact(self.messages)
    }
}
