//! What stands in the kernel.
//!
//! Reads only. Owns the comparison with what ought to stand: every rule of the two tables, counted, since they never change, and every element.

use std::collections::BTreeMap;

use super::{elements, tables};
use crate::netlink::{Result, Socket};
use crate::nft::{Elements, Table, events};

/// The elements of all sets but those that names feed; nothing where a chain or a rule is missing, or there is one more.
pub(super) fn read(socket: &Socket, table: &str) -> Result<Option<Elements>> {
    let mut standing = Elements::new();
    for of in &tables::TABLES {
        match read_table(socket, table, of)? {
            Some(elements) => standing.extend(elements),
            None => return Ok(None),
        }
    }
    Ok(Some(standing))
}

/// The same of one table.
pub(super) fn read_table(socket: &Socket, table: &str, of: &Table) -> Result<Option<Elements>> {
    let chains = of.chains.iter();
    let expected: BTreeMap<_, _> = chains
        .map(|chain| (chain.name.to_owned(), chain.rules.len()))
        .collect();
    if events::rules(socket, table, of.family)? != expected {
        return Ok(None);
    }
    let mut standing = Elements::new();
    let sets = of.sets.iter().map(|set| (of.family, set.name));
    for set in sets.filter(|set| !elements::NAMED.contains(set)) {
        let there = events::elements(socket, table, set)?;
        standing.insert(set, there.into_iter().collect());
    }
    Ok(Some(standing))
}

/// Whether the same is in both, a set without elements being as good as none.
pub(super) fn is_same(standing: &Elements, wanted: &Elements) -> bool {
    let filled = |elements: &'_ Elements| {
        let filled = elements.iter().filter(|(_, elements)| !elements.is_empty());
        filled
            .map(|(set, elements)| (*set, elements.clone()))
            .collect::<Elements>()
    };
    filled(standing) == filled(wanted)
}
