//! Ranges that do not overlap.
//!
//! Pure. nftables' sets of ranges refuse elements that overlap, and people's lists do: `10.0.0.0/8` for everything beside `10.1.0.0/16`
//! for port 443. Owns the cutting of such lists into disjoint boxes that cover the same.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Service;
use crate::ports::Protocol;

/// Destinations, protocols and ports, each from first to last. Addresses of both families as numbers; a list is of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Box3 {
    sides: [(u128, u128); 3],
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The numbers of IANA.
pub(super) fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

impl Box3 {
    pub fn new(network: IpNet, service: &Service) -> Self {
        let (protocols, ports) = match service {
            Service::Any => ((0, 255), (0, 65_535)),
            Service::Ports { protocol, ports } => {
                let protocol = u128::from(protocol_number(*protocol));
                let ports = (u128::from(*ports.start()), u128::from(*ports.end()));
                ((protocol, protocol), ports)
            }
        };
        let addresses = (number(network.network()), number(network.broadcast()));
        Self {
            sides: [addresses, protocols, ports],
        }
    }

    /// One address, over protocols and ports.
    pub fn of_one(address: IpAddr, protocols: (u8, u8), ports: (u16, u16)) -> Self {
        let address = number(address);
        Self {
            sides: [
                (address, address),
                (protocols.0.into(), protocols.1.into()),
                (ports.0.into(), ports.1.into()),
            ],
        }
    }

    pub fn addresses(self) -> (u128, u128) {
        self.sides[0]
    }

    pub fn protocols(self) -> (u8, u8) {
        (self.sides[1].0 as u8, self.sides[1].1 as u8)
    }

    pub fn ports(self) -> (u16, u16) {
        (self.sides[2].0 as u16, self.sides[2].1 as u16)
    }

    fn is_empty(self) -> bool {
        self.sides.iter().any(|(first, last)| first > last)
    }

    /// What of this lies outside of `other`: what is left and right of it on each side in turn, never more than six boxes.
    fn without(mut self, other: Self) -> Vec<Self> {
        let mut rest = Vec::new();
        for side in 0..3 {
            let (first, last) = self.sides[side];
            let (cut_first, cut_last) = other.sides[side];
            if last < cut_first || first > cut_last {
                // They do not meet: nothing was cut off.
                rest.push(self);
                return rest;
            }
            if first < cut_first {
                let mut left = self;
                left.sides[side] = (first, cut_first - 1);
                rest.push(left);
            }
            if last > cut_last {
                let mut right = self;
                right.sides[side] = (cut_last + 1, last);
                rest.push(right);
            }
            self.sides[side] = (first.max(cut_first), last.min(cut_last));
        }
        rest
    }
}

/// Disjoint boxes that cover what the given ones cover, each with the tag of the first of the given ones that covers it.
pub(super) fn disjoint<T: Copy>(boxes: impl IntoIterator<Item = (Box3, T)>) -> Vec<(Box3, T)> {
    let mut disjoint: Vec<(Box3, T)> = Vec::new();
    for (whole, tag) in boxes {
        let mut pieces = vec![whole];
        pieces.retain(|piece| !piece.is_empty());
        for (there, _) in &disjoint {
            pieces = pieces
                .into_iter()
                .flat_map(|piece| piece.without(*there))
                .collect();
        }
        disjoint.extend(pieces.into_iter().map(|piece| (piece, tag)));
    }
    disjoint
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(boxes: &[(Box3, u32)], point: [u128; 3]) -> Vec<u32> {
        let inside =
            |of: &Box3| (0..3).all(|side| (of.sides[side].0..=of.sides[side].1).contains(&point[side]));
        let found = boxes.iter().filter(|(of, _)| inside(of));
        found.map(|(_, tag)| *tag).collect()
    }

    /// Every point of a small space is covered exactly once afterwards if it was before, by the first that covered it; and not at all else.
    #[test]
    fn the_same_is_covered_once() {
        let mut state = 0x1234_5678_9abc_def1_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            u128::from(state % below)
        };
        for _ in 0..300 {
            let given: Vec<(Box3, u32)> = (0..6)
                .map(|tag| {
                    let mut side = || {
                        let (a, b) = (random(8), random(8));
                        (a.min(b), a.max(b))
                    };
                    let sides = [side(), side(), side()];
                    (Box3 { sides }, tag)
                })
                .collect();
            let cut = disjoint(given.iter().copied());
            for point in 0..512_u128 {
                let point = [point & 7, point >> 3 & 7, point >> 6];
                let expected: Vec<u32> = covers(&given, point).into_iter().take(1).collect();
                assert_eq!(covers(&cut, point), expected, "{given:?}");
            }
        }
    }

    #[test]
    fn a_range_upside_down_is_nothing() {
        let service = Service::Ports {
            protocol: Protocol::Tcp,
            ports: std::ops::RangeInclusive::new(9, 8),
        };
        let network = "10.0.0.0/8".parse().expect("a network");
        assert!(disjoint([(Box3::new(network, &service), ())]).is_empty());
    }
}
