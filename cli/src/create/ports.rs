//! The notations of `--publish` and `--expose`.
//!
//! Owns the splitting into single ports, as the daemon reads them (`runtime/daemon/src/networks/ports.rs`). Refuses to know whether a port is free.
//! Invariant: what is accepted here the daemon can read; one flag makes no more ports than one container may publish.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use kakoi_api::Empty;
use kakoi_api::container::{CreateBody, PortBinding};

/// Ports that one container publishes at most: the daemon's limit, since each is held by a socket.
const PORTS_MAX: usize = 1024;

/// Why a port cannot be published or exposed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flag} {text:?}: {words}")]
pub struct PortError {
    flag: &'static str,
    text: String,
    words: String,
}

/// A port inside, as `80/tcp`, and where it is published.
type Published = (String, PortBinding);

/// Puts the ports that are exposed and published into a request.
pub(super) fn fill(body: &mut CreateBody, publish: &[String], expose: &[String]) -> Result<(), PortError> {
    let exposed = &mut body.config.exposed_ports;
    for text in expose {
        exposed.extend(expose_one(text)?.into_iter().map(|port| (port, Empty)));
    }
    let bindings: &mut BTreeMap<String, Option<Vec<PortBinding>>> = &mut body.host_config.port_bindings;
    let mut count = 0;
    for text in publish {
        for (port, binding) in publish_one(text)? {
            exposed.insert(port.clone(), Empty);
            let list = bindings.entry(port).or_default().get_or_insert_default();
            // Said twice it is still one port, unless any free one will do.
            let is_fixed = binding.host_port.parse::<u16>().is_ok_and(|port| port > 0);
            if is_fixed && list.contains(&binding) {
                continue;
            }
            list.push(binding);
            count += 1;
        }
        if count > PORTS_MAX {
            return Err(PortError {
                flag: "--publish",
                text: text.clone(),
                words: format!(
                    "a container publishes at most {PORTS_MAX} ports: name fewer, or use --network host"
                ),
            });
        }
    }
    Ok(())
}

/// `[[ADDRESS:][HOST PORT]:]PORT[/PROTOCOL]`, ports as numbers or ranges; also Docker's `target=80,published=8080`.
fn publish_one(text: &str) -> Result<Vec<Published>, PortError> {
    let wrong = |words: String| PortError {
        flag: "--publish",
        text: text.to_owned(),
        words,
    };
    let (address, host, inside) = if text.contains('=') {
        let (host, inside) = long(text).map_err(wrong)?;
        (String::new(), host, inside)
    } else {
        split(text).map_err(wrong)?
    };
    let (inside, protocol) = with_protocol(&inside).map_err(wrong)?;
    let insides = range(inside, "the container's port").map_err(wrong)?;
    if matches!(host.as_str(), "" | "0") {
        let binding = PortBinding {
            host_ip: address,
            host_port: host,
        };
        return Ok(insides
            .map(|port| (format!("{port}/{protocol}"), binding.clone()))
            .collect());
    }
    let hosts = range(&host, "the host's port").map_err(wrong)?;
    let binding = |host_port: String| PortBinding {
        host_ip: address.clone(),
        host_port,
    };
    if insides.len() == 1 {
        // The first free one of the range is taken.
        let host = match hosts.len() {
            1 => hosts.start().to_string(),
            _ => format!("{}-{}", hosts.start(), hosts.end()),
        };
        return Ok(vec![(format!("{}/{protocol}", insides.start()), binding(host))]);
    }
    if insides.len() != hosts.len() {
        return Err(wrong(format!(
            "{} ports of the host cannot be {} ports of the container: make both ranges as long as each other",
            hosts.len(),
            insides.len()
        )));
    }
    Ok(insides
        .zip(hosts)
        .map(|(port, host)| (format!("{port}/{protocol}"), binding(host.to_string())))
        .collect())
}

/// Address, the host's ports and the container's ports with their protocol.
fn split(text: &str) -> Result<(String, String, String), String> {
    let Some((rest, inside)) = text.rsplit_once(':') else {
        return Ok((String::new(), String::new(), text.to_owned()));
    };
    let (address, host) = match rest.rsplit_once(':') {
        None if rest.parse::<std::net::Ipv4Addr>().is_ok() => {
            return Err(format!(
                "after an address comes the host's port, or nothing: write {rest}::{inside}"
            ));
        }
        None => return Ok((String::new(), rest.to_owned(), inside.to_owned())),
        Some(_) if rest.ends_with(']') => {
            return Err(format!(
                "after an address comes the host's port, or nothing: write {rest}::{inside}"
            ));
        }
        Some(parts) => parts,
    };
    let bare = match address.strip_prefix('[') {
        Some(inner) => inner
            .strip_suffix(']')
            .ok_or("a bracket has no end: write [ADDRESS]:HOST PORT:PORT")?,
        None => address,
    };
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(format!("{bare:?} is not an address of the host"));
    }
    Ok((bare.to_owned(), host.to_owned(), inside.to_owned()))
}

/// Docker's long form: the host's port, and the container's with its protocol.
fn long(text: &str) -> Result<(String, String), String> {
    let (mut target, mut published, mut protocol) = ("", "", "tcp");
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("{field:?} is not KEY=VALUE"))?;
        match key {
            "target" => target = value,
            "published" => published = value,
            "protocol" => protocol = value,
            "mode" if matches!(value, "host" | "ingress") => {}
            _ => {
                return Err(format!(
                    "{field:?} is not one of target=PORT, published=PORT, protocol=PROTOCOL"
                ));
            }
        }
    }
    if target.is_empty() {
        return Err("it needs target=PORT, the port inside".to_owned());
    }
    Ok((published.to_owned(), format!("{target}/{protocol}")))
}

fn with_protocol(text: &str) -> Result<(&str, String), String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match protocol.to_ascii_lowercase().as_str() {
        known @ ("tcp" | "udp" | "sctp") => Ok((ports, known.to_owned())),
        _ => Err(format!("{protocol:?} is not a protocol: write tcp, udp or sctp")),
    }
}

fn range(text: &str, what: &str) -> Result<RangeInclusive<u16>, String> {
    if text.is_empty() {
        return Err(format!("{what} is missing"));
    }
    let number = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
        _ => Err(format!("{what} {text:?} is not a number from 1 to 65535")),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(format!("{what} {text:?} goes backwards: write {last}-{first}"));
    }
    Ok(first..=last)
}

/// `PORT[-PORT][/PROTOCOL]`, as one name for each port.
fn expose_one(text: &str) -> Result<Vec<String>, PortError> {
    let wrong = |words: String| PortError {
        flag: "--expose",
        text: text.to_owned(),
        words,
    };
    let (ports, protocol) = with_protocol(text).map_err(wrong)?;
    if ports.contains(':') {
        return Err(wrong(
            "an exposed port has no place on the host: use --publish for that".to_owned(),
        ));
    }
    let ports = range(ports, "the port").map_err(wrong)?;
    Ok(ports.map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(text: &str) -> Vec<String> {
        publish_one(text)
            .unwrap_or_else(|error| panic!("{error}"))
            .into_iter()
            .map(|(port, binding)| format!("{}|{}|{port}", binding.host_ip, binding.host_port))
            .collect()
    }

    #[test]
    fn every_notation_is_read() {
        for (text, expected) in [
            ("80", &["||80/tcp"][..]),
            ("80/udp", &["||80/udp"]),
            ("80/SCTP", &["||80/sctp"]),
            (":80", &["||80/tcp"]),
            ("0:80", &["|0|80/tcp"]),
            ("8080:80", &["|8080|80/tcp"]),
            ("8080:80/udp", &["|8080|80/udp"]),
            ("127.0.0.1:8080:80", &["127.0.0.1|8080|80/tcp"]),
            ("127.0.0.1::80", &["127.0.0.1||80/tcp"]),
            ("[::1]:8080:80", &["::1|8080|80/tcp"]),
            ("[::]::80/udp", &["::||80/udp"]),
            ("fe80::1:8080:80", &["fe80::1|8080|80/tcp"]),
            ("8000-8001:80-81", &["|8000|80/tcp", "|8001|81/tcp"]),
            ("80-81", &["||80/tcp", "||81/tcp"]),
            ("8000-8010:80", &["|8000-8010|80/tcp"]),
            ("target=80,published=8080,protocol=udp", &["|8080|80/udp"]),
            ("target=80", &["||80/tcp"]),
        ] {
            assert_eq!(published(text), expected, "{text}");
        }
    }

    #[test]
    fn wrong_ports_are_refused_with_their_reason() {
        for (text, reason) in [
            ("", "the container's port is missing"),
            ("8080:", "the container's port is missing"),
            ("x", "\"x\" is not a number"),
            ("0", "\"0\" is not a number from 1"),
            ("80:0", "the container's port \"0\""),
            ("65536:80", "the host's port \"65536\""),
            ("+80:80", "the host's port \"+80\""),
            ("80/icmp", "\"icmp\" is not a protocol"),
            ("80/", "\"\" is not a protocol"),
            ("81-80", "goes backwards: write 80-81"),
            ("82-80:80-82", "the host's port"),
            ("8000-8001:80-82", "2 ports of the host"),
            ("8000:80-82", "1 ports of the host"),
            ("127.0.0.1:80", "write 127.0.0.1::80"),
            ("[::1]:80", "write [::1]::80"),
            ("[::1:8080:80", "a bracket has no end"),
            ("gateway:8080:80", "\"gateway\" is not an address"),
            ("1.2.3:8080:80", "\"1.2.3\" is not an address"),
            ("1-2-3:80", "\"2-3\" is not a number"),
            ("target=80,name=x", "\"name=x\" is not one of"),
            ("published=80", "it needs target"),
            ("target=80,published", "\"published\" is not KEY=VALUE"),
        ] {
            let error = publish_one(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    fn filled(publish: &[&str], expose: &[&str]) -> Result<CreateBody, PortError> {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let mut body = CreateBody::default();
        fill(&mut body, &words(publish), &words(expose)).map(|()| body)
    }

    #[test]
    fn published_ports_are_exposed_and_said_twice_are_one() {
        let body = filled(&["80:80", "80:80", "81:80", "53", "53"], &["90", "9000-9001/udp"]).expect("right");
        let count = |port: &str| body.host_config.port_bindings[port].as_ref().map_or(0, Vec::len);
        assert_eq!((count("80/tcp"), count("53/tcp")), (2, 2));
        let exposed: Vec<&str> = body.config.exposed_ports.keys().map(String::as_str).collect();
        assert_eq!(exposed, ["53/tcp", "80/tcp", "90/tcp", "9000/udp", "9001/udp"]);
    }

    #[test]
    fn more_than_a_container_may_publish_is_refused() {
        assert!(filled(&["1-1024:1-1024"], &[]).is_ok());
        let error = filled(&["1-1024:1-1024", "2000:2000"], &[]).expect_err("too many");
        assert!(error.to_string().contains("at most 1024"), "{error}");
        for (text, reason) in [
            ("0", "not a number"),
            ("90-80", "goes backwards"),
            ("80/icmp", "not a protocol"),
            ("80:80", "use --publish"),
        ] {
            let error = filled(&[], &[text]).expect_err(text).to_string();
            assert!(
                error.contains(reason) && error.starts_with("--expose"),
                "{text}: {error}"
            );
        }
    }
}
