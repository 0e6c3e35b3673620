//! Requests to nftables as bytes. Numbers are those of linux/netfilter/nf_tables.h; all integers of attributes are in network order.
//!
//! Pure. Owns each object's and each expression's encoding, once.
//!
//! ```text
//! every body   family u8 · 0 u8 · subsystem (0 but in a batch's first and last message) be16 · attributes
//! rule         table · chain · list of expressions (name · nested data)
//! registers    16 of 4 bytes, numbered from 8; 0 is the verdict
//! ```

use super::{Chain, Element, Family, Field, Load, Set, Step};
use crate::netlink::Message;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

pub(super) const NEW_TABLE: u16 = 0;
pub(super) const DELETE_TABLE: u16 = 2;
pub(super) const NEW_CHAIN: u16 = 3;
pub(super) const GET_CHAIN: u16 = 4;
pub(super) const DELETE_CHAIN: u16 = 5;
pub(super) const NEW_RULE: u16 = 6;
pub(super) const GET_RULE: u16 = 7;
pub(super) const DELETE_RULE: u16 = 8;
pub(super) const NEW_SET: u16 = 9;
pub(super) const DELETE_SET: u16 = 11;
pub(super) const NEW_ELEMENT: u16 = 12;
pub(super) const GET_ELEMENT: u16 = 13;
pub(super) const DELETE_ELEMENT: u16 = 14;

/// NFTA_LIST_ELEM: what a list's members are called.
const MEMBER: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

const SET_INTERVAL: u32 = 4;
const SET_MAP: u32 = 8;
const SET_TIMEOUT: u32 = 0x10;
const SET_CONCAT: u32 = 0x80;

const VERDICT_REGISTER: u32 = 0;
const FIRST_REGISTER: u32 = 8;

const FIB_SOURCE: u32 = 1;
const FIB_DESTINATION: u32 = 2;
const FIB_IN_LINK: u32 = 8;

const META_MARK: u32 = 3;

const VERDICT_DROP: i32 = 0;
const VERDICT_ACCEPT: i32 = 1;
const VERDICT_JUMP: i32 = -3;
const VERDICT_GOTO: i32 = -4;
const VERDICT_RETURN: i32 = -5;

/// A list of elements is an attribute and shorter than 64 KiB; one element has at most 200 bytes.
const LIST_BYTES_MAX: usize = 60_000;

pub(super) fn kind(message: u16) -> u16 {
    SUBSYSTEM << 8 | message
}

pub(super) fn begin() -> Message {
    batch(BATCH_BEGIN)
}

pub(super) fn end() -> Message {
    batch(BATCH_END)
}

fn batch(kind: u16) -> Message {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    Message::new(kind, 0, &[0, 0, high, low])
}

pub(super) fn request(message: u16, flags: i32, family: u8) -> Message {
    Message::new(kind(message), flags, &[family, 0, 0, 0])
}

fn create(message: u16, family: Family) -> Message {
    request(message, libc::NLM_F_CREATE | libc::NLM_F_EXCL, family as u8)
}

/// A table that may be there already, unless it is to be new.
pub(super) fn new_table(family: Family, name: &str, is_new: bool) -> Message {
    let exclusive = if is_new { libc::NLM_F_EXCL } else { 0 };
    let mut message = request(NEW_TABLE, libc::NLM_F_CREATE | exclusive, family as u8);
    message.put_str(1, name);
    message
}

pub(super) fn delete_table(family: Family, name: &str) -> Message {
    let mut message = request(DELETE_TABLE, 0, family as u8);
    message.put_str(1, name);
    message
}

pub(super) fn new_chain(family: Family, table: &str, chain: &Chain) -> Message {
    let mut message = create(NEW_CHAIN, family);
    message.put_str(1, table).put_str(3, chain.name);
    if let Some(hook) = chain.hook {
        message
            .nest(4, |place| {
                place
                    .put_be32(1, hook.number as u32)
                    .put_be32(2, hook.priority as u32);
            })
            .put_be32(5, VERDICT_ACCEPT as u32)
            .put_str(7, hook.kind);
    }
    message
}

/// Length of the fields side by side, and nft(8)'s number for their types, so that it lists them readably.
fn layout(fields: &[Field]) -> (u32, u32) {
    fields.iter().fold((0, 0), |(bytes, types), field| {
        let (len, kind) = field.layout();
        (bytes + len.next_multiple_of(4) as u32, types << 6 | kind)
    })
}

pub(super) fn new_set(family: Family, table: &str, set: &Set, id: u32) -> Message {
    let flag = |wanted: bool, flag: u32| if wanted { flag } else { 0 };
    let is_concat = set.key.len() > 1;
    let flags = flag(set.ranges, SET_INTERVAL)
        | flag(!set.data.is_empty(), SET_MAP)
        | flag(set.timeouts, SET_TIMEOUT)
        | flag(is_concat, SET_CONCAT);
    let (bytes, types) = match set.key {
        // A lone field is not padded: its length is that of what is loaded.
        [lone] => (lone.layout().0 as u32, lone.layout().1),
        fields => layout(fields),
    };
    let mut message = create(NEW_SET, family);
    message
        .put_str(1, table)
        .put_str(2, set.name)
        .put_be32(3, flags)
        .put_be32(4, types)
        .put_be32(5, bytes)
        .put_be32(10, id);
    if !set.data.is_empty() {
        let (bytes, types) = layout(set.data);
        message.put_be32(6, types).put_be32(7, bytes);
    }
    if is_concat {
        message.nest(9, |description| {
            description.nest(2, |fields| {
                for field in set.key {
                    fields.nest(MEMBER, |member| {
                        member.put_be32(1, field.layout().0 as u32);
                    });
                }
            });
        });
    }
    message
}

pub(super) fn elements<'a>(
    family: Family,
    table: &str,
    set: &str,
    elements: impl IntoIterator<Item = &'a Element>,
    is_new: bool,
) -> Vec<Message> {
    let mut elements = elements.into_iter().peekable();
    let mut messages = Vec::new();
    while elements.peek().is_some() {
        let mut message = if is_new {
            create(NEW_ELEMENT, family)
        } else {
            request(DELETE_ELEMENT, 0, family as u8)
        };
        message.put_str(1, table).put_str(2, set).nest(3, |list| {
            while list.len() < LIST_BYTES_MAX
                && let Some(element) = elements.next()
            {
                list.nest(MEMBER, |member| put_element(member, element, is_new));
            }
        });
        messages.push(message);
    }
    messages
}

fn put_element(member: &mut Message, element: &Element, is_new: bool) {
    let value = |message: &mut Message, kind: u16, bytes: &[u8]| {
        message.nest(kind, |data| {
            data.put(DATA_VALUE, bytes);
        });
    };
    value(member, 1, &element.key);
    if let Some(end) = &element.key_end {
        value(member, 10, end);
    }
    if !is_new {
        return;
    }
    if let Some(data) = &element.data {
        value(member, 2, data);
    }
    if let Some(timeout) = element.timeout {
        member.put(4, &timeout.to_be_bytes());
    }
}

pub(super) fn new_rule(family: Family, table: &str, chain: &str, steps: &[Step]) -> Message {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_APPEND;
    let mut message = request(NEW_RULE, flags, family as u8);
    message.put_str(1, table).put_str(2, chain).nest(4, |list| {
        for step in steps {
            put_step(list, *step);
        }
    });
    message
}

fn expression(list: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    list.nest(MEMBER, |member| {
        member.put_str(1, name).nest(2, fill);
    });
}

fn put_step(list: &mut Message, step: Step) {
    match step {
        Step::In(loads, set) => put_lookup(list, loads, set, None, false),
        Step::NotIn(loads, set) => put_lookup(list, loads, set, None, true),
        Step::Is(load, bytes) => {
            put_load(list, load, FIRST_REGISTER);
            put_compare(list, 0, bytes);
        }
        Step::IsNot(load, bytes) => {
            put_load(list, load, FIRST_REGISTER);
            put_compare(list, 1, bytes);
        }
        Step::AnyOf(load, bits) => {
            put_load(list, load, FIRST_REGISTER);
            put_mask(list, bits);
            put_compare(list, 1, &[0; 4]);
        }
        Step::Accept => put_verdict(list, VERDICT_ACCEPT, None),
        Step::Drop => put_verdict(list, VERDICT_DROP, None),
        Step::Return => put_verdict(list, VERDICT_RETURN, None),
        Step::Jump(chain) => put_verdict(list, VERDICT_JUMP, Some(chain)),
        Step::Goto(chain) => put_verdict(list, VERDICT_GOTO, Some(chain)),
        Step::Reject => expression(list, "reject", |data| {
            // ICMPX_UNREACH with ADMIN_PROHIBITED: the kernel chooses the family's own code.
            data.put_be32(1, 2).put(2, &[3]);
        }),
        Step::Mark(mark) => {
            expression(list, "immediate", |data| {
                data.put_be32(1, FIRST_REGISTER).nest(2, |value| {
                    value.put(DATA_VALUE, &mark.to_ne_bytes());
                });
            });
            expression(list, "meta", |data| {
                data.put_be32(2, META_MARK).put_be32(3, FIRST_REGISTER);
            });
        }
        Step::Masquerade => expression(list, "masq", |_| {}),
        Step::Dnat(family, loads, map) => {
            put_lookup(list, loads, map, Some(FIRST_REGISTER), false);
            let words = if family == Family::Ipv6 { 4 } else { 1 };
            expression(list, "nat", |data| {
                data.put_be32(1, 1)
                    .put_be32(2, u32::from(family as u8))
                    .put_be32(3, FIRST_REGISTER)
                    .put_be32(5, FIRST_REGISTER + words);
            });
        }
    }
}

fn put_load(list: &mut Message, load: Load, register: u32) {
    match load {
        Load::Meta(key, _) => expression(list, "meta", |data| {
            data.put_be32(2, key).put_be32(1, register);
        }),
        Load::Payload(header, offset, len) => expression(list, "payload", |data| {
            data.put_be32(1, register)
                .put_be32(2, header as u32)
                .put_be32(3, offset)
                .put_be32(4, len as u32);
        }),
        Load::Connection(key) => expression(list, "ct", |data| {
            data.put_be32(2, key).put_be32(1, register);
        }),
        Load::DestinationType => put_route_type(list, register, FIB_DESTINATION),
        Load::DestinationTypeHere => {
            put_route_type(list, register, FIB_DESTINATION | FIB_IN_LINK);
        }
        Load::SourceType => put_route_type(list, register, FIB_SOURCE),
    }
}

fn put_route_type(list: &mut Message, register: u32, flags: u32) {
    expression(list, "fib", |data| {
        data.put_be32(1, register).put_be32(2, 3).put_be32(3, flags);
    });
}

fn put_lookup(list: &mut Message, loads: &[Load], set: &str, into: Option<u32>, inverted: bool) {
    let mut register = FIRST_REGISTER;
    for load in loads {
        put_load(list, *load, register);
        register += load.len().div_ceil(4) as u32;
    }
    expression(list, "lookup", |data| {
        data.put_str(1, set).put_be32(2, FIRST_REGISTER);
        if let Some(into) = into {
            data.put_be32(3, into);
        }
        if inverted {
            data.put_be32(5, 1);
        }
    });
}

fn put_compare(list: &mut Message, operation: u32, bytes: &[u8]) {
    expression(list, "cmp", |data| {
        data.put_be32(1, FIRST_REGISTER)
            .put_be32(2, operation)
            .nest(3, |value| {
                value.put(DATA_VALUE, bytes);
            });
    });
}

/// Keeps the given bits of the first register, which holds a number in the machine's order.
fn put_mask(list: &mut Message, bits: u32) {
    expression(list, "bitwise", |data| {
        data.put_be32(1, FIRST_REGISTER)
            .put_be32(2, FIRST_REGISTER)
            .put_be32(3, 4)
            .nest(4, |mask| {
                mask.put(DATA_VALUE, &bits.to_ne_bytes());
            })
            .nest(5, |xor| {
                xor.put(DATA_VALUE, &[0; 4]);
            });
    });
}

fn put_verdict(list: &mut Message, code: i32, chain: Option<&str>) {
    expression(list, "immediate", |data| {
        data.put_be32(1, VERDICT_REGISTER).nest(2, |value| {
            value.nest(DATA_VERDICT, |verdict| {
                verdict.put_be32(1, code as u32);
                if let Some(chain) = chain {
                    verdict.put_str(2, chain);
                }
            });
        });
    });
}

/// Whether rules name only what their table has, and keys have the length of what is looked up. For tests of tables that are constants.
#[cfg(test)]
pub(crate) fn check_table(table: &super::Table) -> Vec<String> {
    let mut findings = Vec::new();
    let chains: Vec<_> = table.chains.iter().map(|chain| chain.name).collect();
    for chain in table.chains {
        for step in chain.rules.iter().flat_map(|rule| rule.iter()) {
            match step {
                Step::Jump(name) | Step::Goto(name) if !chains.contains(name) => {
                    findings.push(format!("{}: no chain {name}", chain.name));
                }
                Step::In(loads, name) | Step::NotIn(loads, name) | Step::Dnat(_, loads, name) => {
                    let set = table.sets.iter().find(|set| set.name == *name);
                    let fields = set.map(|set| set.key.iter().map(|field| field.layout().0));
                    let fields: Option<Vec<_>> = fields.map(Iterator::collect);
                    let loads: Vec<_> = loads.iter().map(|load| load.len()).collect();
                    if fields.as_ref() != Some(&loads) {
                        findings.push(format!("{}: {name} is {fields:?}, not {loads:?}", chain.name));
                    }
                }
                _ => {}
            }
        }
    }
    findings
}
