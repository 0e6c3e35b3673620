//! From the flags of `kakoi network create` to its request.
//!
//! Owns which gateway, range and address belong to which subnet. Refuses to know what is free: that is the daemon's. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kakoi_api::network::{Ipam, IpamConfig, NetworkBody};

use crate::create::{EnvironmentError, read_labels};

/// What Podman calls an option that Docker has a longer word for.
const SHORT_OPTIONS: [(&str, &str); 1] = [("mtu", "com.docker.network.driver.mtu")];
/// What a bridge's interface is called.
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";

/// The arguments of `kakoi network create`.
#[derive(clap::Args, Debug)]
pub struct CreateArguments {
    /// Driver: bridge
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
    driver: String,
    /// Subnet, as in 10.89.0.0/24 or fd00:89::/64; at most one of IPv4 and one of IPv6; a free one where it is absent
    #[arg(long, value_name = "SUBNET")]
    subnet: Vec<String>,
    /// The bridge's own address: the subnet's first where it is absent
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<String>,
    /// The part of the subnet that addresses are taken from
    #[arg(long, value_name = "SUBNET")]
    ip_range: Vec<String>,
    /// Address that is never given out
    #[arg(long, value_name = "NAME=ADDRESS")]
    aux_address: Vec<String>,
    /// IPv4: true or false
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    ipv4: bool,
    /// IPv6 too; a subnet of IPv6 says the same
    #[arg(long)]
    ipv6: bool,
    /// Nothing outside is reached, and nothing outside reaches in
    #[arg(long)]
    internal: bool,
    /// Label
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Option, as in mtu=1400 or com.docker.network.bridge.enable_icc=false
    #[arg(short, long, value_name = "NAME=VALUE")]
    opt: Vec<String>,
    /// What the bridge's interface is called
    #[arg(long, value_name = "NAME")]
    interface_name: Option<String>,
    /// Keep a network of this name that is there already
    #[arg(long)]
    pub ignore: bool,
    /// Of swarms: taken and kept, without effect
    #[arg(long, hide = true)]
    attachable: bool,
    /// Who gives out addresses: default
    #[arg(long, value_name = "DRIVER", default_value = "default", hide = true)]
    ipam_driver: String,
    /// No names (not supported)
    #[arg(long, hide = true)]
    disable_dns: bool,
    /// Name server (not supported)
    #[arg(long, value_name = "ADDRESS", hide = true)]
    dns: Vec<String>,
    /// Route (not supported)
    #[arg(long, value_name = "ROUTE", hide = true)]
    route: Vec<String>,
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
}

/// Why a network cannot be asked for.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// A value of a flag.
    #[error("{flag} {text:?}: {words}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// What was written.
        text: String,
        /// What is wrong.
        words: String,
    },
    /// A flag that is not supported.
    #[error("{flag} is not supported: {words}")]
    Unsupported {
        /// The flag.
        flag: &'static str,
        /// What to do.
        words: &'static str,
    },
    /// Labels or options.
    #[error(transparent)]
    Pairs(#[from] EnvironmentError),
}

/// Translates flags.
pub fn network_body(arguments: CreateArguments) -> Result<NetworkBody, BodyError> {
    refuse_unsupported(&arguments)?;
    let config = ipam(&arguments)?;
    let has_v6 = config.iter().any(|subnet| subnet.subnet.contains(':'));
    let mut options = BTreeMap::new();
    if let Some(text) = arguments
        .opt
        .iter()
        .find(|text| text.is_empty() || text.starts_with('='))
    {
        return Err(BodyError::Value {
            flag: "--opt",
            text: text.clone(),
            words: "there is no name before the =".to_owned(),
        });
    }
    for (name, value) in read_labels(&arguments.opt, &[])? {
        let long = SHORT_OPTIONS.iter().find(|(short, _)| *short == name);
        options.insert(long.map_or(name, |(_, long)| (*long).to_owned()), value);
    }
    options.extend(
        arguments
            .interface_name
            .map(|name| (BRIDGE_NAME.to_owned(), name)),
    );
    Ok(NetworkBody {
        name: arguments.name,
        driver: arguments.driver,
        enable_ipv4: (!arguments.ipv4).then_some(false),
        enable_ipv6: (arguments.ipv6 || has_v6).then_some(true),
        ipam: (!config.is_empty()).then(|| Ipam {
            driver: "default".to_owned(),
            options: None,
            config,
        }),
        internal: arguments.internal,
        attachable: arguments.attachable,
        options,
        labels: read_labels(&arguments.label, &[])?,
        ..NetworkBody::default()
    })
}

/// Judges flags without making anything; says what is wrong.
pub fn check_flags(words: &[String]) -> Result<(), String> {
    #[derive(clap::Parser)]
    #[command(no_binary_name = true)]
    struct Line {
        #[command(flatten)]
        arguments: CreateArguments,
    }
    let words = words.iter().map(String::as_str).chain(["name"]);
    let line = <Line as clap::Parser>::try_parse_from(words)
        .map_err(|error| crate::failure::usage_in_one_line(&error))?;
    network_body(line.arguments)
        .map(drop)
        .map_err(|error| crate::failure::describe(&error))
}

fn refuse_unsupported(arguments: &CreateArguments) -> Result<(), BodyError> {
    let refused = |flag, words| Err(BodyError::Unsupported { flag, words });
    if arguments.disable_dns {
        return refused(
            "--disable-dns",
            "a container that is to ask other servers says so with --dns; on the network 'bridge' there are no names",
        );
    }
    if !arguments.dns.is_empty() {
        return refused("--dns", "say it for each container, with 'kakoi run --dns'");
    }
    if !arguments.route.is_empty() {
        return refused(
            "--route",
            "containers reach everything by the bridge's own address",
        );
    }
    let value = |flag, text: &str, words: &str| {
        Err(BodyError::Value {
            flag,
            text: text.to_owned(),
            words: words.to_owned(),
        })
    };
    if !matches!(arguments.driver.as_str(), "bridge" | "default") {
        return value(
            "--driver",
            &arguments.driver,
            "there is no such driver: networks are bridges; a container that needs the host's interfaces takes --network host",
        );
    }
    if arguments.ipam_driver != "default" {
        return value(
            "--ipam-driver",
            &arguments.ipam_driver,
            "there is no such driver: the daemon itself gives out addresses",
        );
    }
    Ok(())
}

/// A subnet, as far as it must be understood here.
#[derive(Clone, Copy)]
struct Net {
    bits: u128,
    prefix: u32,
    is_ipv6: bool,
}

impl Net {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= width(address))?;
        Some(Self {
            bits: number(address),
            prefix,
            is_ipv6: address.is_ipv6(),
        })
    }

    /// Its first address.
    fn first(self) -> Option<IpAddr> {
        match self.is_ipv6 {
            true => Some(std::net::Ipv6Addr::from(self.bits).into()),
            false => u32::try_from(self.bits)
                .ok()
                .map(|bits| std::net::Ipv4Addr::from(bits).into()),
        }
    }

    fn contains(self, address: IpAddr) -> bool {
        let rest = width(address).saturating_sub(self.prefix);
        // All bits of an IPv6 address are more than a shift can take away.
        let cut = |bits: u128| bits.checked_shr(rest).unwrap_or(0);
        address.is_ipv6() == self.is_ipv6 && cut(number(address)) == cut(self.bits)
    }
}

const fn width(address: IpAddr) -> u32 {
    if address.is_ipv6() { 128 } else { 32 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// Subnets, each with the gateway, the range and the addresses that lie in it.
fn ipam(arguments: &CreateArguments) -> Result<Vec<IpamConfig>, BodyError> {
    let wrong = |flag, text: &str, words: &str| BodyError::Value {
        flag,
        text: text.to_owned(),
        words: words.to_owned(),
    };
    let mut subnets: Vec<(Net, IpamConfig)> = Vec::new();
    for text in &arguments.subnet {
        let net = Net::parse(text)
            .ok_or_else(|| wrong("--subnet", text, "not a subnet: write it as in 10.89.0.0/24"))?;
        let config = IpamConfig {
            subnet: text.clone(),
            ..IpamConfig::default()
        };
        subnets.push((net, config));
    }
    let nets: Vec<Net> = subnets.iter().map(|(net, _)| *net).collect();
    let holder = |flag, text: &str, address: IpAddr| {
        let found = nets.iter().position(|net| net.contains(address));
        found.ok_or_else(|| match nets.is_empty() {
            true => wrong(flag, text, "it needs the --subnet that it lies in"),
            false => wrong(flag, text, "it lies in no --subnet"),
        })
    };
    for text in &arguments.gateway {
        let address = text
            .parse()
            .map_err(|_| wrong("--gateway", text, "not an address"))?;
        let (_, config) = &mut subnets[holder("--gateway", text, address)?];
        if !config.gateway.is_empty() {
            return Err(wrong("--gateway", text, "its subnet has a gateway already"));
        }
        config.gateway.clone_from(text);
    }
    for text in &arguments.ip_range {
        let first = Net::parse(text).and_then(Net::first).ok_or_else(|| {
            wrong(
                "--ip-range",
                text,
                "not a part of a subnet: write it as in 10.89.0.128/25",
            )
        })?;
        let (_, config) = &mut subnets[holder("--ip-range", text, first)?];
        if !config.ip_range.is_empty() {
            return Err(wrong("--ip-range", text, "its subnet has a range already"));
        }
        config.ip_range.clone_from(text);
    }
    for text in &arguments.aux_address {
        let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
        let pair = pair.and_then(|(name, address)| Some((name, address.parse::<IpAddr>().ok()?)));
        let (name, address) =
            pair.ok_or_else(|| wrong("--aux-address", text, "not NAME=ADDRESS, as in router=10.89.0.2"))?;
        let (_, config) = &mut subnets[holder("--aux-address", text, address)?];
        config
            .auxiliary_addresses
            .insert(name.to_owned(), address.to_string());
    }
    Ok(subnets.into_iter().map(|(_, config)| config).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: CreateArguments,
    }

    fn translate(words: &str) -> Result<NetworkBody, String> {
        let words = std::iter::once("create").chain(words.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        network_body(line.arguments).map_err(|error| crate::failure::describe(&error))
    }

    #[test]
    fn what_is_not_asked_for_stays_open() {
        let body = translate("app").expect("right");
        assert_eq!(
            body,
            NetworkBody {
                name: "app".into(),
                driver: "bridge".into(),
                ..NetworkBody::default()
            }
        );
        let body = translate("--ipv4=false --ipv6 --internal app").expect("right");
        assert_eq!(
            (body.enable_ipv4, body.enable_ipv6, body.internal),
            (Some(false), Some(true), true)
        );
    }

    #[test]
    fn each_address_goes_to_its_subnet() {
        let body = translate(
            "--subnet fd00:89::/64 --subnet 10.89.0.0/24 --gateway 10.89.0.254 --gateway fd00:89::9 \
             --ip-range 10.89.0.128/25 --aux-address router=10.89.0.2 --aux-address nas=10.89.0.3 \
             -o mtu=1400 -o com.docker.network.bridge.enable_icc=false --interface-name br7 \
             --label a=b --label c app",
        )
        .expect("right");
        assert_eq!(body.enable_ipv6, Some(true), "its subnet says so");
        let config = body.ipam.expect("some").config;
        assert_eq!(
            (config[0].subnet.as_str(), config[0].gateway.as_str()),
            ("fd00:89::/64", "fd00:89::9")
        );
        assert_eq!(config[0].ip_range, "");
        assert_eq!(
            (config[1].gateway.as_str(), config[1].ip_range.as_str()),
            ("10.89.0.254", "10.89.0.128/25")
        );
        assert_eq!(config[1].auxiliary_addresses["nas"], "10.89.0.3");
        let options: Vec<(&str, &str)> = body
            .options
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            options,
            [
                ("com.docker.network.bridge.enable_icc", "false"),
                ("com.docker.network.bridge.name", "br7"),
                ("com.docker.network.driver.mtu", "1400"),
            ]
        );
        assert_eq!((body.labels["a"].as_str(), body.labels["c"].as_str()), ("b", ""));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_flag() {
        for (words, reason) in [
            ("--subnet 10.89.0.0 app", "--subnet \"10.89.0.0\": not a subnet"),
            ("--subnet 10.89.0.0/33 app", "--subnet"),
            ("--subnet fd00::/129 app", "--subnet"),
            ("--subnet x/24 app", "--subnet"),
            ("--gateway 10.89.0.1 app", "it needs the --subnet"),
            (
                "--subnet 10.89.0.0/24 --gateway 10.90.0.1 app",
                "it lies in no --subnet",
            ),
            (
                "--subnet 10.89.0.0/24 --gateway fd00::1 app",
                "it lies in no --subnet",
            ),
            (
                "--subnet 10.89.0.0/24 --gateway x app",
                "--gateway \"x\": not an address",
            ),
            (
                "--subnet 10.89.0.0/24 --gateway 10.89.0.1 --gateway 10.89.0.2 app",
                "a gateway already",
            ),
            ("--subnet 10.89.0.0/24 --ip-range 10.89.0.5 app", "--ip-range"),
            (
                "--subnet 10.89.0.0/24 --ip-range 10.90.0.0/25 app",
                "it lies in no --subnet",
            ),
            (
                "--subnet 10.89.0.0/24 --aux-address 10.89.0.5 app",
                "not NAME=ADDRESS",
            ),
            (
                "--subnet 10.89.0.0/24 --aux-address =10.89.0.5 app",
                "not NAME=ADDRESS",
            ),
            ("--aux-address a=10.89.0.5 app", "it needs the --subnet"),
            (
                "--driver macvlan app",
                "--driver \"macvlan\": there is no such driver",
            ),
            ("--ipam-driver dhcp app", "--ipam-driver \"dhcp\""),
            ("--disable-dns app", "--disable-dns is not supported"),
            ("--dns 192.0.2.1 app", "--dns is not supported"),
            ("--route 10.0.0.0/8,10.89.0.1 app", "--route is not supported"),
            ("--opt =x app", "no name"),
            ("--ipv4=perhaps app", "--ipv4"),
            ("", "NAME"),
        ] {
            let error = translate(words).expect_err(words);
            assert!(error.contains(reason), "{words}: {error}");
        }
    }
}
