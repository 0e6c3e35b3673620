//! The tables, which never change but in the elements of their sets.
//!
//! Pure constants. Each chain reads like nft(8); the drawing of a packet's way is in the module above.

use crate::nft::{Chain, Family, Field, Header, Hook, HookNumber, Load, Set, Step, Table};
use Field::{Group, Ipv4, Ipv6, Mac, Name, Port, Protocol};
use Step::{Accept, AnyOf, Dnat, Drop, Goto, In, Is, IsNot, Jump, Mark, Masquerade, NotIn, Reject, Return};

const IN_LINK: Load = Load::Meta(6, 16);
const OUT_LINK: Load = Load::Meta(7, 16);
const IN_GROUP: Load = Load::Meta(21, 4);
const FAMILY: Load = Load::Meta(15, 1);
const PROTOCOL: Load = Load::Meta(16, 1);
const FROM_MAC: Load = Load::Payload(Header::Link, 6, 6);
const FRAME_TYPE: Load = Load::Payload(Header::Link, 12, 2);
const FROM4: Load = Load::Payload(Header::Network, 12, 4);
const TO4: Load = Load::Payload(Header::Network, 16, 4);
const TO4_FIRST_OCTET: Load = Load::Payload(Header::Network, 16, 1);
const FROM4_FIRST_OCTET: Load = Load::Payload(Header::Network, 12, 1);
const FROM6: Load = Load::Payload(Header::Network, 8, 16);
const TO6: Load = Load::Payload(Header::Network, 24, 16);
const ARP_FROM_MAC: Load = Load::Payload(Header::Network, 8, 6);
const ARP_FROM4: Load = Load::Payload(Header::Network, 14, 4);
const TO_PORT: Load = Load::Payload(Header::Transport, 2, 2);
const ICMP_TYPE: Load = Load::Payload(Header::Transport, 0, 1);
/// Whose hardware address an advertisement tells (RFC 4861).
const ADVERTISED6: Load = Load::Payload(Header::Transport, 8, 16);
const STATE: Load = Load::Connection(0);
const STATUS: Load = Load::Connection(2);

const IS_IPV4: Step = Is(FAMILY, &[2]);
const IS_IPV6: Step = Is(FAMILY, &[10]);
const FRAME_IS_IPV4: Step = Is(FRAME_TYPE, &[0x08, 0x00]);
const FRAME_IS_ARP: Step = Is(FRAME_TYPE, &[0x08, 0x06]);
const FRAME_IS_IPV6: Step = Is(FRAME_TYPE, &[0x86, 0xdd]);
const IS_ICMPV6: Step = Is(PROTOCOL, &[58]);
const IS_ICMPV4: Step = Is(PROTOCOL, &[1]);
const IS_ECHO_REQUEST4: Step = Is(ICMP_TYPE, &[8]);
const IS_ECHO_REQUEST6: Step = Is(ICMP_TYPE, &[128]);
const IS_ROUTER_ADVERTISEMENT: Step = Is(ICMP_TYPE, &[134]);
const IS_NEIGHBOUR_SOLICITATION: Step = Is(ICMP_TYPE, &[135]);
const IS_NEIGHBOUR_ADVERTISEMENT: Step = Is(ICMP_TYPE, &[136]);
const IS_REDIRECT: Step = Is(ICMP_TYPE, &[137]);
const FROM_OURS: Step = In(&[IN_LINK], "bridges");
const TO_OURS: Step = In(&[OUT_LINK], "bridges");
/// Established or related.
const IS_ANSWER: Step = AnyOf(STATE, 2 | 4);
const IS_INVALID: Step = AnyOf(STATE, 1);
/// IPS_DST_NAT.
const WAS_REDIRECTED: Step = AnyOf(STATUS, 32);
const MARK: Load = Load::Meta(3, 4);
/// `kako`. Set on what was redirected to a neighbour: with br_netfilter such a packet never leaves the bridge, and the bridge's own rules have to
/// know it from what a neighbour sent of itself. A packet that crosses namespaces loses its mark, so that none inside can set it.
const REDIRECTED_TO_NEIGHBOUR: u32 = 0x6b61_6b6f;
const WAS_MARKED: Step = Is(MARK, &REDIRECTED_TO_NEIGHBOUR.to_ne_bytes());
/// RTN_LOCAL, in the machine's order.
const LOCAL: &[u8] = &2_u32.to_ne_bytes();
const TO_THE_HOST: Step = Is(Load::DestinationType, LOCAL);
const NOT_TO_THE_GATEWAY: Step = IsNot(Load::DestinationTypeHere, LOCAL);
/// What the host says to many on a bridge comes back to itself by that bridge.
const NOT_FROM_THE_HOST: Step = IsNot(Load::SourceType, LOCAL);
const FROM_NOBODY6: &[u8] = &[0; 16];
/// Of a link that the picture does not know: the other half stands in the bridges' table.
const STRANGERS4: &[Step] = &[
    FROM_OURS,
    IS_IPV4,
    NotIn(&[IN_LINK, FROM4], "members4"),
    NOT_FROM_THE_HOST,
    Drop,
];
/// Duplicate address detection and multicast listeners have no address yet.
const STRANGERS6: &[Step] = &[
    FROM_OURS,
    IS_IPV6,
    NotIn(&[IN_LINK, FROM6], "members6"),
    IsNot(FROM6, FROM_NOBODY6),
    NOT_FROM_THE_HOST,
    Drop,
];

const fn set(name: &'static str, key: &'static [Field]) -> Set {
    Set {
        name,
        key,
        data: &[],
        ranges: false,
        timeouts: false,
    }
}

const fn map(name: &'static str, key: &'static [Field], data: &'static [Field]) -> Set {
    Set {
        data,
        ..set(name, key)
    }
}

const fn ranges(name: &'static str, key: &'static [Field], timeouts: bool) -> Set {
    Set {
        ranges: true,
        timeouts,
        ..set(name, key)
    }
}

const fn hook(kind: &'static str, number: HookNumber, priority: i32) -> Option<Hook> {
    Some(Hook {
        kind,
        number,
        priority,
    })
}

/// Routed packets.
pub(super) const ROUTED: Table = Table {
    family: Family::Inet,
    sets: &[
        set("bridges", &[Name]),
        set("internal", &[Name]),
        set("masquerade", &[Name]),
        set("icc", &[Name]),
        set("same", &[Name, Name]),
        set("members4", &[Name, Ipv4]),
        set("members6", &[Name, Ipv6]),
        set("limited4", &[Ipv4]),
        set("limited6", &[Ipv6]),
        set("peers4", &[Ipv4, Ipv4]),
        set("peers6", &[Ipv6, Ipv6]),
        ranges("allowed4", &[Ipv4, Ipv4, Protocol, Port], false),
        ranges("allowed6", &[Ipv6, Ipv6, Protocol, Port], false),
        ranges("named4", &[Ipv4, Ipv4, Protocol, Port], true),
        ranges("named6", &[Ipv6, Ipv6, Protocol, Port], true),
        set("targets4", &[Name, Ipv4, Protocol, Port]),
        set("targets6", &[Name, Ipv6, Protocol, Port]),
        map("at4", &[Ipv4, Protocol, Port], &[Ipv4, Port]),
        map("at6", &[Ipv6, Protocol, Port], &[Ipv6, Port]),
        map("any4", &[Protocol, Port], &[Ipv4, Port]),
        map("any6", &[Protocol, Port], &[Ipv6, Port]),
    ],
    chains: &[
        // `route_localnet` would let a container reach what listens on the host's 127.0.0.1 only (CVE-2020-8558 in another guise).
        Chain {
            name: "guard",
            hook: hook("filter", HookNumber::Prerouting, -300),
            rules: &[&[FROM_OURS, IS_IPV4, Is(TO4_FIRST_OCTET, &[127]), Drop]],
        },
        Chain {
            name: "publish",
            hook: hook("nat", HookNumber::Prerouting, -100),
            rules: &[&[TO_THE_HOST, Jump("redirect")]],
        },
        Chain {
            name: "publish_local",
            hook: hook("nat", HookNumber::Output, -100),
            // IPv6 has no route_localnet: the proxy carries what is sent to ::1.
            rules: &[
                &[
                    IS_IPV6,
                    Is(TO6, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
                    Return,
                ],
                &[TO_THE_HOST, Jump("redirect")],
            ],
        },
        Chain {
            name: "mark",
            hook: hook("filter", HookNumber::Prerouting, -90),
            rules: &[
                &[
                    IS_IPV4,
                    In(&[IN_LINK, TO4], "members4"),
                    WAS_REDIRECTED,
                    Mark(REDIRECTED_TO_NEIGHBOUR),
                ],
                &[
                    IS_IPV6,
                    In(&[IN_LINK, TO6], "members6"),
                    WAS_REDIRECTED,
                    Mark(REDIRECTED_TO_NEIGHBOUR),
                ],
            ],
        },
        Chain {
            name: "redirect",
            hook: None,
            rules: &[
                &[IS_IPV4, Dnat(Family::Ipv4, &[TO4, PROTOCOL, TO_PORT], "at4")],
                &[IS_IPV4, Dnat(Family::Ipv4, &[PROTOCOL, TO_PORT], "any4")],
                &[IS_IPV6, Dnat(Family::Ipv6, &[TO6, PROTOCOL, TO_PORT], "at6")],
                &[IS_IPV6, Dnat(Family::Ipv6, &[PROTOCOL, TO_PORT], "any6")],
            ],
        },
        Chain {
            name: "source",
            hook: hook("nat", HookNumber::Postrouting, 100),
            rules: &[
                &[
                    In(&[IN_LINK], "masquerade"),
                    NotIn(&[OUT_LINK], "bridges"),
                    Masquerade,
                ],
                // From a bridge back into it: the answer has to come by the host, or it would come from an address that nobody asked.
                // Known by its source: with br_netfilter it comes by no link here.
                &[
                    IS_IPV4,
                    In(&[OUT_LINK, FROM4], "members4"),
                    WAS_REDIRECTED,
                    Masquerade,
                ],
                &[
                    IS_IPV6,
                    In(&[OUT_LINK, FROM6], "members6"),
                    WAS_REDIRECTED,
                    Masquerade,
                ],
                &[TO_OURS, IS_IPV4, Is(FROM4_FIRST_OCTET, &[127]), Masquerade],
            ],
        },
        Chain {
            name: "forward",
            hook: hook("filter", HookNumber::Forward, 0),
            // Answers are the most, and let through first: what is not ours passes this chain anyway.
            rules: &[
                &[IS_ANSWER, Accept],
                &[FROM_OURS, Goto("ours")],
                &[TO_OURS, Goto("ours")],
            ],
        },
        Chain {
            name: "ours",
            hook: None,
            rules: &[
                &[IS_INVALID, Drop],
                STRANGERS4,
                STRANGERS6,
                &[In(&[IN_LINK, OUT_LINK], "same"), Goto("inside")],
                &[In(&[IN_LINK], "internal"), Reject],
                &[In(&[OUT_LINK], "internal"), Goto("refused")],
                &[FROM_OURS, IS_IPV4, In(&[FROM4], "limited4"), Jump("egress")],
                &[FROM_OURS, IS_IPV6, In(&[FROM6], "limited6"), Jump("egress")],
                &[TO_OURS, Goto("inbound")],
                &[Accept],
            ],
        },
        Chain {
            name: "egress",
            hook: None,
            rules: &[
                &[IS_IPV4, In(&[FROM4, TO4, PROTOCOL, TO_PORT], "allowed4"), Return],
                &[IS_IPV4, In(&[FROM4, TO4, PROTOCOL, TO_PORT], "named4"), Return],
                &[IS_IPV6, In(&[FROM6, TO6, PROTOCOL, TO_PORT], "allowed6"), Return],
                &[IS_IPV6, In(&[FROM6, TO6, PROTOCOL, TO_PORT], "named6"), Return],
                &[Reject],
            ],
        },
        Chain {
            name: "inbound",
            hook: None,
            rules: &[
                &[
                    IS_IPV4,
                    WAS_REDIRECTED,
                    In(&[OUT_LINK, TO4, PROTOCOL, TO_PORT], "targets4"),
                    Accept,
                ],
                &[
                    IS_IPV6,
                    WAS_REDIRECTED,
                    In(&[OUT_LINK, TO6, PROTOCOL, TO_PORT], "targets6"),
                    Accept,
                ],
                &[Goto("refused")],
            ],
        },
        // One of ours is told at once; a stranger learns nothing.
        Chain {
            name: "refused",
            hook: None,
            rules: &[&[FROM_OURS, Reject], &[Drop]],
        },
        Chain {
            name: "inside",
            hook: None,
            rules: &[
                &[IS_IPV4, In(&[FROM4], "limited4"), Goto("peers")],
                &[IS_IPV4, In(&[TO4], "limited4"), Goto("peers")],
                &[IS_IPV6, In(&[FROM6], "limited6"), Goto("peers")],
                &[IS_IPV6, In(&[TO6], "limited6"), Goto("peers")],
                &[In(&[IN_LINK], "icc"), Accept],
                &[Goto("inbound")],
            ],
        },
        Chain {
            name: "peers",
            hook: None,
            rules: &[
                &[IS_IPV4, In(&[FROM4, TO4], "peers4"), Accept],
                &[IS_IPV6, In(&[FROM6, TO6], "peers6"), Accept],
                // With br_netfilter bridged packets come here too.
                &[IS_IPV6, IS_ICMPV6, IS_NEIGHBOUR_SOLICITATION, Accept],
                &[IS_IPV6, IS_ICMPV6, IS_NEIGHBOUR_ADVERTISEMENT, Accept],
                &[Reject],
            ],
        },
        Chain {
            name: "to_host",
            hook: hook("filter", HookNumber::Input, 0),
            rules: &[
                &[FROM_OURS, IS_ANSWER, Accept],
                STRANGERS4,
                STRANGERS6,
                &[FROM_OURS, IS_IPV6, IS_ICMPV6, IS_NEIGHBOUR_SOLICITATION, Accept],
                &[FROM_OURS, IS_IPV6, IS_ICMPV6, IS_NEIGHBOUR_ADVERTISEMENT, Accept],
                // The host's other addresses are outside.
                &[In(&[IN_LINK], "internal"), NOT_TO_THE_GATEWAY, Reject],
                &[FROM_OURS, IS_IPV4, In(&[FROM4], "limited4"), Jump("egress")],
                &[FROM_OURS, IS_IPV6, In(&[FROM6], "limited6"), Jump("egress")],
            ],
        },
    ],
};

/// Frames between the ports of a bridge, and from them to the host. Without connections: many kernels track none here, and none is needed,
/// since what may be said may be answered.
pub(super) const BRIDGED: Table = Table {
    family: Family::Bridge,
    sets: &[
        set("groups", &[Group]),
        set("ports", &[Name]),
        set("quiet", &[Name]),
        set("loops", &[Name, Name]),
        set("limited", &[Name]),
        set("macs", &[Name, Mac]),
        set("own4", &[Name, Ipv4]),
        set("own6", &[Name, Ipv6]),
        set("peers4", &[Ipv4, Ipv4]),
        set("peers6", &[Ipv6, Ipv6]),
    ],
    chains: &[
        Chain {
            name: "entry",
            hook: hook("filter", HookNumber::Prerouting, -300),
            // A link of this scope that the picture does not know is closed. (Bridges could be named, by NFT_BRIDGE_META that many kernels lack.)
            rules: &[
                &[In(&[IN_LINK], "ports"), Goto("identity")],
                &[In(&[IN_GROUP], "groups"), Drop],
            ],
        },
        // Each link sends from its own addresses, and nothing but IP. Router advertisements and redirects would change its neighbours' routes.
        Chain {
            name: "identity",
            hook: None,
            rules: &[
                &[NotIn(&[IN_LINK, FROM_MAC], "macs"), Drop],
                &[FRAME_IS_IPV4, In(&[IN_LINK, FROM4], "own4"), Accept],
                &[FRAME_IS_ARP, NotIn(&[IN_LINK, ARP_FROM_MAC], "macs"), Drop],
                &[FRAME_IS_ARP, In(&[IN_LINK, ARP_FROM4], "own4"), Accept],
                // A probe for an address before it is used (RFC 5227).
                &[FRAME_IS_ARP, Is(ARP_FROM4, &[0; 4]), Accept],
                &[FRAME_IS_IPV6, IS_ICMPV6, IS_ROUTER_ADVERTISEMENT, Drop],
                &[FRAME_IS_IPV6, IS_ICMPV6, IS_REDIRECT, Drop],
                // Who advertises tells where an address is, as who sends ARP does.
                &[
                    FRAME_IS_IPV6,
                    IS_ICMPV6,
                    IS_NEIGHBOUR_ADVERTISEMENT,
                    In(&[IN_LINK, ADVERTISED6], "own6"),
                    In(&[IN_LINK, FROM6], "own6"),
                    Accept,
                ],
                &[FRAME_IS_IPV6, IS_ICMPV6, IS_NEIGHBOUR_ADVERTISEMENT, Drop],
                &[FRAME_IS_IPV6, In(&[IN_LINK, FROM6], "own6"), Accept],
                // Duplicate address detection and multicast listeners (RFC 4862, RFC 3810).
                &[FRAME_IS_IPV6, IS_ICMPV6, Is(FROM6, FROM_NOBODY6), Accept],
                &[Drop],
            ],
        },
        Chain {
            name: "forward",
            hook: hook("filter", HookNumber::Forward, 0),
            rules: &[
                &[In(&[IN_LINK], "ports"), In(&[OUT_LINK], "ports"), Goto("between")],
                // Whatever else hangs on the same bridge.
                &[In(&[IN_LINK], "ports"), Drop],
                &[In(&[OUT_LINK], "ports"), Drop],
            ],
        },
        Chain {
            name: "between",
            hook: None,
            rules: &[
                // Back to where it came from: a port published by whoever asks for it, with br_netfilter. Ports reflect for its sake alone.
                &[In(&[IN_LINK, OUT_LINK], "loops"), Goto("reflected")],
                &[In(&[IN_LINK], "quiet"), WAS_MARKED, Accept],
                &[In(&[IN_LINK], "quiet"), Drop],
                &[In(&[IN_LINK], "limited"), Goto("peers")],
                &[In(&[OUT_LINK], "limited"), Goto("peers")],
                &[Accept],
            ],
        },
        Chain {
            name: "reflected",
            hook: None,
            rules: &[
                &[FRAME_IS_IPV4, WAS_MARKED, In(&[OUT_LINK, TO4], "own4"), Accept],
                &[FRAME_IS_IPV6, WAS_MARKED, In(&[OUT_LINK, TO6], "own6"), Accept],
                &[Drop],
            ],
        },
        Chain {
            name: "peers",
            hook: None,
            rules: &[
                &[FRAME_IS_ARP, Accept],
                &[FRAME_IS_IPV6, IS_ICMPV6, IS_NEIGHBOUR_SOLICITATION, Accept],
                &[FRAME_IS_IPV6, IS_ICMPV6, IS_NEIGHBOUR_ADVERTISEMENT, Accept],
                &[FRAME_IS_IPV4, In(&[FROM4, TO4], "peers4"), Accept],
                &[FRAME_IS_IPV6, In(&[FROM6, TO6], "peers6"), Accept],
                &[Drop],
            ],
        },
    ],
};

/// Packets for the device itself; see `device`.
pub(super) const DEVICE: Table = Table {
    family: Family::Inet,
    sets: &[
        set("echo", &[Protocol]),
        ranges("open4", &[Ipv4, Protocol, Port], false),
        ranges("open6", &[Ipv6, Protocol, Port], false),
        ranges("open_on4", &[Name, Ipv4, Protocol, Port], false),
        ranges("open_on6", &[Name, Ipv6, Protocol, Port], false),
    ],
    chains: &[
        Chain {
            name: "input",
            // Behind the scope's own `to_host`, which knows members and strangers.
            hook: hook("filter", HookNumber::Input, 10),
            rules: &[
                &[Is(IN_LINK, b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), Accept],
                &[IS_ANSWER, Accept],
                &[IS_INVALID, Drop],
                &[IS_IPV6, IS_ICMPV6, Goto("icmp6")],
                &[
                    IS_IPV4,
                    IS_ICMPV4,
                    IS_ECHO_REQUEST4,
                    In(&[PROTOCOL], "echo"),
                    Accept,
                ],
                &[IS_IPV4, In(&[FROM4, PROTOCOL, TO_PORT], "open4"), Accept],
                &[IS_IPV6, In(&[FROM6, PROTOCOL, TO_PORT], "open6"), Accept],
                &[
                    IS_IPV4,
                    In(&[IN_LINK, FROM4, PROTOCOL, TO_PORT], "open_on4"),
                    Accept,
                ],
                &[
                    IS_IPV6,
                    In(&[IN_LINK, FROM6, PROTOCOL, TO_PORT], "open_on6"),
                    Accept,
                ],
                &[Drop],
            ],
        },
        // Without these there is no IPv6 (RFC 4890, section 4.4); errors belong to what stands, and were let through.
        Chain {
            name: "icmp6",
            hook: None,
            rules: &[
                &[IS_ROUTER_ADVERTISEMENT, Accept],
                &[IS_NEIGHBOUR_SOLICITATION, Accept],
                &[IS_NEIGHBOUR_ADVERTISEMENT, Accept],
                &[Is(ICMP_TYPE, &[130]), Accept],
                &[IS_ECHO_REQUEST6, In(&[PROTOCOL], "echo"), Accept],
                &[Drop],
            ],
        },
    ],
};

/// Both.
pub(super) const TABLES: [Table; 2] = [ROUTED, BRIDGED];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_what_is_there() {
        for table in [ROUTED, BRIDGED, DEVICE] {
            let findings = crate::nft::check_table(&table);
            assert!(findings.is_empty(), "{:?}: {findings:#?}", table.family);
        }
    }
}
