//! Published ports as they are asked for.
//!
//! Owns the reading of `PortBindings` and `ExposedPorts`. Refuses to know whether a port is free: that is found out when a container starts.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use kakoi_api::Empty;
use kakoi_api::container::{HostConfig, PortBinding};
use kakoi_net::ports::Protocol;
use kakoi_policy::confinement::PortRange;
use kakoi_policy::{PortProtocol, PortRequest};

use crate::refusal::{Answer, Refusal};

/// Ports that one container publishes at most: each is held by a socket.
const PORTS_MAX: usize = 1024;

/// A port inside a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Inside {
    /// Its number.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

impl std::fmt::Display for Inside {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.port, self.protocol)
    }
}

/// One port to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The port inside.
    pub inside: Inside,
    /// The address of the host; `None` for every one.
    pub host: Option<IpAddr>,
    /// Ports of the host, the first free one of which is taken; `None` for any.
    pub ports: Option<RangeInclusive<u16>>,
}

impl Wanted {
    /// The addresses at which it is published: of both families where none is named.
    pub fn hosts(&self, otherwise: Option<IpAddr>) -> Vec<IpAddr> {
        match self.host.or(otherwise) {
            Some(address) => vec![address],
            None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        }
    }
}

/// Reads `80/tcp`; without a protocol it is TCP.
pub fn inside(text: &str) -> Answer<Inside> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" | "" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(Refusal::bad(format!("invalid proto: {protocol}"))),
    };
    match number.parse() {
        Ok(port) if port > 0 => Ok(Inside { port, protocol }),
        _ => Err(Refusal::bad(format!("invalid port: {text:?}"))),
    }
}

/// All that a container publishes: what was asked for, and with `PublishAllPorts` the exposed ports that nobody named.
pub fn wanted(host: &HostConfig, exposed: &BTreeMap<String, Empty>) -> Answer<Vec<Wanted>> {
    let mut all = Vec::new();
    for (text, bindings) in &host.port_bindings {
        let inside = inside(text)?;
        let bindings = bindings.as_deref().unwrap_or_default();
        if bindings.is_empty() && !host.publish_all_ports {
            all.push(Wanted {
                inside,
                host: None,
                ports: None,
            });
        }
        for binding in bindings {
            all.push(one(inside, binding)?);
        }
    }
    if host.publish_all_ports {
        for text in exposed.keys() {
            let inside = inside(text)?;
            if !all.iter().any(|wanted| wanted.inside == inside) {
                all.push(Wanted {
                    inside,
                    host: None,
                    ports: None,
                });
            }
        }
    }
    if all.len() > PORTS_MAX {
        return Err(Refusal::bad(format!(
            "a container publishes at most {PORTS_MAX} ports, not {}; use --network host",
            all.len()
        )));
    }
    all.sort_by_key(|wanted| wanted.inside);
    Ok(all)
}

/// The same for the owner's ceiling to judge. An address that a network's own option gives is judged as every one: it may be another when it starts.
pub fn requests(host: &HostConfig, exposed: &BTreeMap<String, Empty>) -> Answer<Vec<PortRequest>> {
    let request = |wanted: Wanted| PortRequest {
        address: wanted.host,
        ports: wanted.ports.map(|ports| PortRange {
            first: *ports.start(),
            last: *ports.end(),
        }),
        protocol: match wanted.inside.protocol {
            Protocol::Tcp => PortProtocol::Tcp,
            Protocol::Udp => PortProtocol::Udp,
            Protocol::Sctp => PortProtocol::Sctp,
        },
    };
    Ok(wanted(host, exposed)?.into_iter().map(request).collect())
}

fn one(inside: Inside, binding: &PortBinding) -> Answer<Wanted> {
    let host = match binding.host_ip.trim_start_matches('[').trim_end_matches(']') {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|_| Refusal::bad(format!("invalid host IP address: {:?}", binding.host_ip)))?,
        ),
    };
    let text = binding.host_port.as_str();
    let invalid = || Refusal::bad(format!("invalid host port: {text:?}"));
    let number = |text: &str| text.parse::<u16>().map_err(|_| invalid());
    let ports = match text.split_once('-') {
        _ if matches!(text, "" | "0") => None,
        None => {
            let port = number(text)?;
            Some(port..=port)
        }
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            if first == 0 || last < first {
                return Err(invalid());
            }
            Some(first..=last)
        }
    };
    Ok(Wanted { inside, host, ports })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(port: &str, ip: &str, host_port: &str) -> Answer<Vec<Wanted>> {
        let binding = PortBinding {
            host_ip: ip.into(),
            host_port: host_port.into(),
        };
        let host = HostConfig {
            port_bindings: BTreeMap::from([(port.into(), Some(vec![binding]))]),
            ..HostConfig::default()
        };
        wanted(&host, &BTreeMap::new())
    }

    #[test]
    fn bindings_are_read_as_docker_reads_them() {
        let one = |port, ip, host_port| asked(port, ip, host_port).expect("well-formed").remove(0);
        let web = one("80/tcp", "", "8080");
        assert_eq!(
            (web.inside.to_string().as_str(), web.ports.clone()),
            ("80/tcp", Some(8080..=8080))
        );
        assert_eq!(web.hosts(None).len(), 2);
        assert_eq!(
            web.hosts(Some(Ipv4Addr::LOCALHOST.into())),
            [IpAddr::from(Ipv4Addr::LOCALHOST)]
        );
        for any in ["", "0"] {
            assert_eq!(one("53/udp", "127.0.0.1", any).ports, None);
        }
        assert_eq!(one("80", "[::1]", "1-3").ports, Some(1..=3));
        for (port, ip, host_port) in [
            ("0", "", "1"),
            ("x", "", "1"),
            ("80/icmp", "", "1"),
            ("80", "nowhere", "1"),
            ("80", "", "x"),
            ("80", "", "3-1"),
            ("80", "", "0-9"),
            ("80", "", "65536"),
            ("80", "", "1-2-3"),
        ] {
            let refusal = asked(port, ip, host_port).expect_err("malformed");
            assert_eq!(refusal.status.as_u16(), 400, "{port} {ip} {host_port}");
        }
    }

    #[test]
    fn all_exposed_ports_are_published_once() {
        let exposed = BTreeMap::from([("80/tcp".into(), Empty), ("53/udp".into(), Empty)]);
        let host = HostConfig {
            publish_all_ports: true,
            port_bindings: BTreeMap::from([(
                "80/tcp".into(),
                Some(vec![PortBinding {
                    host_ip: String::new(),
                    host_port: "8080".into(),
                }]),
            )]),
            ..HostConfig::default()
        };
        let all = wanted(&host, &exposed).expect("well-formed");
        assert_eq!(all.len(), 2);
        assert_eq!(all.iter().filter(|wanted| wanted.ports.is_none()).count(), 1);
        let nothing = wanted(&HostConfig::default(), &exposed).expect("well-formed");
        assert!(nothing.is_empty(), "exposing is not publishing");
    }
}
