//! What nftables tells: who took something of a table away, and which chains of others drop what is forwarded.
//!
//! Reads only.

use super::encode::{
    DELETE_CHAIN, DELETE_ELEMENT, DELETE_RULE, DELETE_SET, DELETE_TABLE, GET_CHAIN, NEW_CHAIN, kind, request,
};
use super::{Family, HookNumber};
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
