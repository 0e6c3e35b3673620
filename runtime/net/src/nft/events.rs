//! What nftables tells: who took something of a table away, which chains of others drop what is forwarded, and what is in a set.
//!
//! Reads only.

use std::collections::BTreeMap;

use super::encode::{
    DELETE_CHAIN, DELETE_ELEMENT, DELETE_RULE, DELETE_SET, DELETE_TABLE, GET_CHAIN, GET_ELEMENT, GET_RULE,
    NEW_CHAIN, kind, request,
};
use super::{Element, Family, HookNumber};
use kakoi_sys::Errno;

use crate::netlink::{Attributes, Received, Result, Socket, u32_at};

/// NFNLGRP_NFTABLES as a mask.
pub(crate) const GROUP: u32 = 1 << 6;

const GENERIC_HEADER_BYTES: usize = 4;

/// The table's name is the first attribute of every object's message.
const TABLE: u16 = 1;

/// Whether somebody else than `own_port` removed a table of this name, or something in it. Elements that run out are not told of.
pub(crate) fn is_loss(received: Received<'_>, table: &str, own_port: u32) -> bool {
    let removals = [
        DELETE_TABLE,
        DELETE_CHAIN,
        DELETE_RULE,
        DELETE_SET,
        DELETE_ELEMENT,
    ];
    let attributes = Attributes(received.body.get(GENERIC_HEADER_BYTES..).unwrap_or_default());
    removals.into_iter().any(|removal| received.kind == kind(removal))
        && received.port != own_port
        && attributes.find_str(TABLE) == Some(table)
}

/// Base chains of other tables whose policy drops what is forwarded, as `family table chain`.
pub(crate) fn foreign_drops(socket: &Socket, own: &str) -> Result<Vec<String>> {
    let mut drops = Vec::new();
    let question = request(GET_CHAIN, libc::NLM_F_DUMP, 0);
    socket.ask(question, |received| {
        drops.extend(drop_of_forwarded(received).filter(|(table, _)| table != own));
    })?;
    Ok(drops.into_iter().map(|(_, described)| described).collect())
}

/// How many rules each chain of a table has; chains without rules are left out.
pub(crate) fn rules(socket: &Socket, table: &str, family: Family) -> Result<BTreeMap<String, usize>> {
    let mut rules = BTreeMap::new();
    let mut question = request(GET_RULE, libc::NLM_F_DUMP, family as u8);
    question.put_str(TABLE, table);
    socket.ask(question, |received| {
        let attributes = Attributes(received.body.get(GENERIC_HEADER_BYTES..).unwrap_or_default());
        // Kernels that know no such question tell of all tables.
        let is_ours = attributes.find_str(TABLE) == Some(table);
        if let Some(chain) = attributes.find_str(2).filter(|_| is_ours) {
            *rules.entry(chain.to_owned()).or_default() += 1;
        }
    })?;
    Ok(rules)
}

/// Table and description of a chain that drops what is forwarded.
fn drop_of_forwarded(received: Received<'_>) -> Option<(String, String)> {
    let family = match *received.body.first()? {
        family if family == Family::Inet as u8 => "inet",
        family if family == Family::Ipv4 as u8 => "ip",
        family if family == Family::Ipv6 as u8 => "ip6",
        _ => return None,
    };
    let attributes = Attributes(received.body.get(GENERIC_HEADER_BYTES..)?);
    let number = |bytes: &[u8]| u32_at(bytes, 0).map(u32::from_be);
    let hook = Attributes(attributes.find(4)?).find(1).and_then(number)?;
    let policy = attributes.find(5).and_then(number)?;
    if received.kind != kind(NEW_CHAIN) || hook != HookNumber::Forward as u32 || policy != 0 {
        return None;
    }
    let table = attributes.find_str(1)?.to_owned();
    let described = format!("{family} {table} {}", attributes.find_str(3)?);
    Some((table, described))
}

/// The elements of a set, with what is left of their time; none where there is no such set.
pub(crate) fn elements(socket: &Socket, table: &str, set: (Family, &str)) -> Result<Vec<Element>> {
    let mut question = request(GET_ELEMENT, libc::NLM_F_DUMP, set.0 as u8);
    question.put_str(1, table).put_str(2, set.1);
    let mut elements = Vec::new();
    let asked = socket.ask(question, |received| {
        let attributes = Attributes(received.body.get(GENERIC_HEADER_BYTES..).unwrap_or_default());
        let list = attributes.find(3).map(Attributes).into_iter().flatten();
        elements.extend(list.filter_map(|(_, member)| element(Attributes(member))));
    });
    match asked {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(Vec::new()),
        done => done.map(|()| elements),
    }
}

fn element(attributes: Attributes<'_>) -> Option<Element> {
    let value = |kind: u16| Attributes(attributes.find(kind)?).find(1).map(<[u8]>::to_vec);
    let left = attributes
        .find(5)
        .and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    Some(Element {
        key: value(1)?,
        key_end: value(10),
        data: value(2),
        timeout: left.map(u64::from_be_bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Message, Messages};

    /// Whatever the kernel tells, reading it does not panic.
    #[test]
    fn noise_is_survived() {
        let mut state = 0x6a09_e667_f3bc_c908_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut losses = 0;
        for round in 0..20_000_u32 {
            let removal = [DELETE_TABLE, DELETE_ELEMENT, NEW_CHAIN][(random() % 3) as usize];
            let mut message = Message::new(kind(removal), 0, &[Family::Inet as u8, 0, 0, 0]);
            message.put_str(1, "kakoi").put_str(3, "forward");
            message.nest(4, |hook| {
                hook.put_be32(1, HookNumber::Forward as u32);
            });
            message.put_be32(5, 0);
            let mut bytes = message.finish(round, 7);
            for _ in 0..random() % 4 {
                let at = (random() % bytes.len() as u64) as usize;
                bytes[at] = random() as u8;
            }
            for received in Messages(&bytes).map_while(Result::ok) {
                losses += usize::from(is_loss(received, "kakoi", 8));
                drop(drop_of_forwarded(received));
                drop(element(Attributes(received.body)));
            }
        }
        assert!(losses > 5000, "{losses} of the unharmed are seen");
    }
}
