//! The flags that say which networks a container is in, and how.
//!
//! Owns the notations of `--network` and the flags that speak of one network. Refuses to know which networks there are: the daemon finds that out
//! when the container starts. Invariant: a flag that could have no effect is refused.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kakoi_api::container::{CreateBody, NetworkingConfig};
use kakoi_api::network::{EndpointIpam, EndpointSettings};

use super::{ContainerFlags, FlagError};

/// The network of containers that name none.
const BRIDGE: &str = "bridge";

/// Why networks cannot be used as they are asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// `--network` has another form.
    #[error("--network {text:?}: {words}")]
    Network {
        /// What was written.
        text: String,
        /// What is wrong.
        words: String,
    },
    /// A flag about a place in a network has another form.
    #[error("{flag} {text:?}: {words}")]
    Place {
        /// The flag.
        flag: &'static str,
        /// What was written.
        text: String,
        /// What is wrong.
        words: &'static str,
    },
    /// A flag that speaks of one network, where there are several or none.
    #[error("{flag} {words}")]
    Alone {
        /// The flag.
        flag: &'static str,
        /// Why not, and what to do.
        words: &'static str,
    },
}

/// Puts the networks into a request.
pub(super) fn fill(body: &mut CreateBody, flags: &ContainerFlags) -> Result<(), FlagError> {
    let mut asked: Vec<(String, EndpointSettings)> = Vec::new();
    for text in &flags.network {
        for one in read(text)? {
            if asked.iter().any(|(name, _)| *name == one.0) {
                return Err(wrong(text, format!("the network {:?} is named twice", one.0)).into());
            }
            asked.push(one);
        }
    }
    let publishes = !flags.publish.is_empty() || flags.publish_all;
    if let Some((mode, _)) = asked.iter().find(|(name, _)| is_mode(name)) {
        if asked.len() > 1 {
            return Err(wrong(mode, "it is no network, and cannot stand beside one".to_owned()).into());
        }
        if publishes && mode != "host" {
            return Err(FlagError::Contradiction {
                one: "--publish",
                other: if mode == "none" {
                    "--network none"
                } else {
                    "--network container:"
                },
            });
        }
    }
    single(flags, &mut asked)?;
    links(flags, &asked)?;
    body.host_config.links.clone_from(&flags.link);
    if asked.is_empty() && (publishes || flags.mac_address.is_some() || !flags.link.is_empty()) {
        asked.push((BRIDGE.to_owned(), EndpointSettings::default()));
    }
    if let Some((first, _)) = asked.first() {
        body.host_config.network_mode.clone_from(first);
    }
    let are_several = asked.len() > 1;
    asked.retain(|(name, settings)| {
        !is_mode(name) && (are_several || *settings != EndpointSettings::default())
    });
    body.networking_config = NetworkingConfig {
        endpoints_config: asked
            .into_iter()
            .map(|(name, settings)| (name, Some(settings)))
            .collect(),
    };
    Ok(())
}

/// Whether it is no network but a way to have none of one's own.
fn is_mode(name: &str) -> bool {
    matches!(name, "none" | "host") || name.starts_with("container:")
}

fn wrong(text: &str, words: String) -> NetworkError {
    NetworkError::Network {
        text: text.to_owned(),
        words,
    }
}

/// The flags beside `--network`: they speak of the one network that is named.
fn single(flags: &ContainerFlags, asked: &mut [(String, EndpointSettings)]) -> Result<(), NetworkError> {
    let alone = |flag, words| Err(NetworkError::Alone { flag, words });
    let given = [
        ("--ip", flags.ip.is_some()),
        ("--ip6", flags.ip6.is_some()),
        ("--mac-address", flags.mac_address.is_some()),
        ("--network-alias", !flags.network_alias.is_empty()),
    ];
    let Some((flag, _)) = given.into_iter().find(|(_, is_given)| *is_given) else {
        return Ok(());
    };
    if asked.iter().any(|(name, _)| is_mode(name)) {
        return alone(
            flag,
            "needs a network: name one with --network in place of none, host or container:",
        );
    }
    if asked.is_empty() && flag != "--mac-address" {
        return alone(
            flag,
            "needs a network of your own: make one with 'kakoi network create', and name it with --network",
        );
    }
    if asked.len() > 1 && flag != "--network-alias" {
        return alone(
            flag,
            "can mean one network only: with several write --network NAME:ip=ADDRESS,mac=ADDRESS",
        );
    }
    let (ip, ip6, mac) = (&flags.ip, &flags.ip6, &flags.mac_address);
    if asked.is_empty() {
        return mac
            .as_deref()
            .map_or(Ok(()), |text| check_mac("--mac-address", text));
    }
    for (_, settings) in asked.iter_mut() {
        for alias in &flags.network_alias {
            add_alias(settings, alias).map_err(|words| NetworkError::Place {
                flag: "--network-alias",
                text: alias.clone(),
                words,
            })?;
        }
    }
    let Some((_, settings)) = asked.first_mut() else {
        return Ok(());
    };
    for (flag, text, is_ipv6) in [("--ip", ip, false), ("--ip6", ip6, true)] {
        if let Some(text) = text {
            set_address(settings, text, is_ipv6).map_err(|words| NetworkError::Place {
                flag,
                text: text.clone(),
                words,
            })?;
        }
    }
    if let Some(text) = mac {
        check_mac("--mac-address", text)?;
        settings.mac_address.clone_from(text);
    }
    Ok(())
}

/// Links are names in the first network.
fn links(flags: &ContainerFlags, asked: &[(String, EndpointSettings)]) -> Result<(), NetworkError> {
    if !flags.link.is_empty() && asked.iter().any(|(name, _)| is_mode(name)) {
        return Err(NetworkError::Alone {
            flag: "--link",
            words: "needs a network: name one with --network in place of none, host or container:",
        });
    }
    for text in &flags.link {
        let (name, alias) = text.split_once(':').unwrap_or((text, text));
        let is_name =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !is_name(name) || !is_name(alias) || alias.contains(':') {
            return Err(NetworkError::Place {
                flag: "--link",
                text: text.clone(),
                words: "CONTAINER or CONTAINER:ALIAS was expected",
            });
        }
    }
    Ok(())
}

/// One value of `--network`: `NAME`, `NAME,NAME`, Podman's `NAME:ip=…,alias=…`, or Docker's `name=NAME,ip=…`.
fn read(text: &str) -> Result<Vec<(String, EndpointSettings)>, NetworkError> {
    if text.is_empty() {
        return Err(wrong(text, "the name is missing".to_owned()));
    }
    let word = text.split(':').next().unwrap_or_default();
    if matches!(word, "slirp4netns" | "pasta") || text.starts_with("ns:") {
        return Err(wrong(
            text,
            format!("{word} is not supported: use a network, none, host or container:NAME"),
        ));
    }
    if let Some(name) = text.strip_prefix("container:") {
        return match name {
            "" => Err(wrong(
                text,
                "it needs the container's name: write container:NAME".to_owned(),
            )),
            _ => Ok(vec![(text.to_owned(), EndpointSettings::default())]),
        };
    }
    let (name, options) = match (text.find(':'), text.find('=')) {
        (Some(colon), _) if text.find('=').is_none_or(|equals| colon < equals) => {
            (&text[..colon], &text[colon + 1..])
        }
        (_, Some(_)) => ("", text),
        _ => return plain(text),
    };
    let (own, settings) = options_of(text, options)?;
    let name = match (name, own) {
        ("", None) => return Err(wrong(text, "the name is missing: write name=NAME".to_owned())),
        ("", Some(own)) => own,
        (name, None) => name.to_owned(),
        (_, Some(_)) => return Err(wrong(text, "the network has two names".to_owned())),
    };
    if is_mode(&name) {
        return Err(wrong(text, format!("{name} takes no options")));
    }
    Ok(vec![(name, settings)])
}

fn plain(text: &str) -> Result<Vec<(String, EndpointSettings)>, NetworkError> {
    let one = |name: &str| match name {
        "" => Err(wrong(text, "a name is missing beside the comma".to_owned())),
        // Docker's word for the network of containers that name none, which is the policy's where one says so.
        name => Ok((name.to_owned(), EndpointSettings::default())),
    };
    text.split(',').map(one).collect()
}

/// The name, where it is among the options, and what they ask for.
fn options_of(text: &str, options: &str) -> Result<(Option<String>, EndpointSettings), NetworkError> {
    let mut name = None;
    let mut settings = EndpointSettings::default();
    for field in options.split(',') {
        let Some((key, value)) = field.split_once('=').filter(|(_, value)| !value.is_empty()) else {
            return Err(wrong(text, format!("{field:?} is not KEY=VALUE")));
        };
        let put = match key {
            "name" => {
                name = Some(value.to_owned());
                Ok(())
            }
            "ip" => set_address(&mut settings, value, false),
            "ip6" => set_address(&mut settings, value, true),
            "mac" | "mac-address" => mac(value).map(|()| settings.mac_address = value.to_owned()),
            "alias" => add_alias(&mut settings, value),
            "gw-priority" => value
                .parse()
                .map(|priority| settings.gw_priority = priority)
                .map_err(|_| "a number was expected"),
            "driver-opt" => match value.split_once('=') {
                Some((option, value)) => {
                    let options: &mut BTreeMap<_, _> = settings.driver_opts.get_or_insert_default();
                    options.insert(option.to_owned(), value.to_owned());
                    Ok(())
                }
                None => Err("NAME=VALUE was expected"),
            },
            "interface_name" | "host_interface_name" => Err(
                "interfaces are not named one by one: see the option com.docker.network.container_iface_prefix of 'kakoi network create'",
            ),
            _ => Err("there is no such option: use ip, ip6, mac, alias or gw-priority"),
        };
        put.map_err(|words| wrong(text, format!("{field:?}: {words}")))?;
    }
    Ok((name, settings))
}

/// Asks for an address.
pub fn set_address(settings: &mut EndpointSettings, text: &str, is_ipv6: bool) -> Result<(), &'static str> {
    let ipam: &mut EndpointIpam = settings.ipam_config.get_or_insert_default();
    let place = if is_ipv6 {
        text.parse::<Ipv6Addr>().map_err(|_| "not an IPv6 address")?;
        &mut ipam.ipv6_address
    } else {
        text.parse::<Ipv4Addr>()
            .map_err(|_| match text.parse::<IpAddr>() {
                Ok(_) => "an IPv4 address was expected: the other kind is ip6's",
                Err(_) => "not an IPv4 address",
            })?;
        &mut ipam.ipv4_address
    };
    text.clone_into(place);
    Ok(())
}

/// Asks for a further name.
pub fn add_alias(settings: &mut EndpointSettings, text: &str) -> Result<(), &'static str> {
    let is_name = |c: char| c.is_ascii_graphic() && c != '#' && c != ',';
    if text.is_empty() || !text.chars().all(is_name) {
        return Err("a name has no white space, comma or number sign");
    }
    let aliases = settings.aliases.get_or_insert_default();
    if !aliases.iter().any(|alias| alias == text) {
        aliases.push(text.to_owned());
    }
    Ok(())
}

/// Judges a hardware address, as a value of a flag.
pub fn check_mac(flag: &'static str, text: &str) -> Result<(), NetworkError> {
    mac(text).map_err(|words| NetworkError::Place {
        flag,
        text: text.to_owned(),
        words,
    })
}

/// Six pairs of hexadecimal digits; one for many receivers is nobody's.
fn mac(text: &str) -> Result<(), &'static str> {
    const FORM: &str = "six pairs of hexadecimal digits were expected, as in 02:42:ac:11:00:02";
    let separator = if text.contains('-') { '-' } else { ':' };
    let mut bytes = Vec::new();
    for group in text.split(separator) {
        let is_pair = group.len() == 2 && group.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !is_pair || bytes.len() == 6 {
            return Err(FORM);
        }
        bytes.extend(u8::from_str_radix(group, 16));
    }
    if bytes.len() != 6 {
        return Err(FORM);
    }
    if bytes[0] & 1 == 1 {
        return Err("this is an address of many receivers: the first pair must be even, as in 02");
    }
    if bytes == [0; 6] {
        return Err("an address of zeros is nobody's");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> (String, EndpointSettings) {
        let mut all = read(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(all.len(), 1, "{text}");
        all.remove(0)
    }

    #[test]
    fn every_notation_of_a_network_is_read() {
        for name in ["app", "host", "none", "container:web", "with space", "default"] {
            assert_eq!(one(name), (name.to_owned(), EndpointSettings::default()));
        }
        for text in [
            "app:ip=10.0.0.2,ip6=fd00::2,mac=02:42:ac:11:00:02,alias=db,alias=store",
            "name=app,ip=10.0.0.2,ip6=fd00::2,mac-address=02:42:ac:11:00:02,alias=db,alias=store",
            "alias=db,alias=store,mac-address=02:42:ac:11:00:02,ip6=fd00::2,ip=10.0.0.2,name=app",
        ] {
            let (name, settings) = one(text);
            assert_eq!(name, "app", "{text}");
            let ipam = settings.ipam_config.expect("addresses");
            assert_eq!(
                (ipam.ipv4_address.as_str(), ipam.ipv6_address.as_str()),
                ("10.0.0.2", "fd00::2")
            );
            assert_eq!(settings.mac_address, "02:42:ac:11:00:02");
            assert_eq!(settings.aliases.expect("names"), ["db", "store"]);
        }
        let (_, settings) = one("name=app,gw-priority=3,driver-opt=a=b");
        assert_eq!(
            (
                settings.gw_priority,
                settings.driver_opts.expect("one")["a"].as_str()
            ),
            (3, "b")
        );
        let names: Vec<String> = read("a,b")
            .expect("two")
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn wrong_networks_are_refused_with_their_reason() {
        for (text, reason) in [
            ("", "the name is missing"),
            (":ip=10.0.0.2", "the name is missing"),
            ("ip=10.0.0.2", "write name=NAME"),
            ("a,,b", "a name is missing"),
            ("container:", "the container's name"),
            ("app:name=b", "two names"),
            ("app:ip", "\"ip\" is not KEY=VALUE"),
            ("app:ip=", "\"ip=\" is not KEY=VALUE"),
            ("app:", "\"\" is not KEY=VALUE"),
            ("app:ip=x", "not an IPv4 address"),
            ("app:ip=fd00::2", "the other kind is ip6's"),
            ("app:ip6=10.0.0.2", "not an IPv6 address"),
            ("app:mac=02:42", "six pairs"),
            ("app:mac=01:00:5e:00:00:01", "many receivers"),
            ("app:mac=00:00:00:00:00:00", "nobody's"),
            ("app:mac=02:42:ac:11:00:02:03", "six pairs"),
            ("app:alias=a b", "no white space"),
            ("app:interface_name=eth7", "not named one by one"),
            ("app:mtu=1400", "there is no such option"),
            ("name=app,gw-priority=high", "a number"),
            ("host:ip=10.0.0.2", "host takes no options"),
            ("name=none,alias=x", "none takes no options"),
            ("pasta:-t,80", "pasta is not supported"),
            ("slirp4netns", "slirp4netns is not supported"),
            ("ns:/run/netns/x", "ns is not supported"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
