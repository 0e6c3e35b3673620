//! The stored form of networks: one JSON document, `networks.json` in the root folder.
//!
//! It is small and changes seldom, so it is written as a whole: aside, synced, moved into place. The network `bridge` is in it like any other, so
//! that its subnet outlives a restart; `host` and `none` are not, they are always there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use kakoi_net::IpNet;
use serde::{Deserialize, Serialize};

/// The version of the stored form.
const NETWORKS_FORMAT: u32 = 1;

/// Largest `networks.json`: all networks that there may be, with their labels.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRecord {
    /// 64 lower-case hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// The bridge's name on the host.
    pub bridge: String,
    /// Subnets, at most one of each family.
    pub subnets: Vec<Subnet>,
    /// Whether subnets were asked for: only then may a container ask for an address.
    pub is_subnet_asked: bool,
    /// Whether nothing outside is reached.
    pub internal: bool,
    /// Kept as it came.
    pub attachable: bool,
    /// Options of the driver, kept as they came.
    pub options: BTreeMap<String, String>,
    /// Options of who gives out addresses, kept as they came.
    pub ipam_options: Option<BTreeMap<String, String>>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A subnet of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// The subnet, without host bits.
    pub net: IpNet,
    /// The part of it that addresses are taken from.
    pub range: Option<IpNet>,
    /// The bridge's own address.
    pub gateway: IpAddr,
    /// Addresses that are never given out, by name.
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// What an option of the bridge driver says.
pub mod option {
    /// The bridge's name.
    pub const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
    /// Whether containers of the network reach each other.
    pub const ICC: &str = "com.docker.network.bridge.enable_icc";
    /// Whether what leaves bears the host's address.
    pub const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
    /// Where ports are published that name no address.
    pub const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
    /// Largest packet in bytes.
    pub const MTU: &str = "com.docker.network.driver.mtu";
    /// What the interface inside is called, without its number.
    pub const INTERFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";
    /// How the host stands between a network and what is outside; `nat` alone is there.
    pub const GATEWAY_MODE_IPV4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
    /// The same of IPv6.
    pub const GATEWAY_MODE_IPV6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
    /// All that are understood.
    pub const ALL: [&str; 8] = [
        BRIDGE_NAME,
        ICC,
        MASQUERADE,
        HOST_BINDING,
        MTU,
        INTERFACE_PREFIX,
        GATEWAY_MODE_IPV4,
        GATEWAY_MODE_IPV6,
    ];
}

impl NetworkRecord {
    /// Whether an option of the driver is on; absent ones are.
    pub fn is_on(&self, option: &str) -> bool {
        self.options
            .get(option)
            .is_none_or(|value| !matches!(value.as_str(), "false" | "0" | "f" | "F" | "FALSE" | "False"))
    }

    /// The subnet of a family.
    pub fn subnet(&self, is_ipv6: bool) -> Option<&Subnet> {
        self.subnets
            .iter()
            .find(|subnet| subnet.gateway.is_ipv6() == is_ipv6)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    networks: Vec<NetworkRecord>,
}

fn path(root: &Path) -> PathBuf {
    root.join("networks.json")
}

/// Reads the networks; none where there is no file.
pub fn read(root: &Path) -> io::Result<Vec<NetworkRecord>> {
    let mut bytes = Vec::new();
    match File::open(path(root)) {
        Ok(file) => file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(cause),
    };
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let document: Document = serde_json::from_slice(&bytes).map_err(|cause| invalid(cause.to_string()))?;
    if document.format != NETWORKS_FORMAT {
        return Err(invalid(format!(
            "format {}; this version reads format {NETWORKS_FORMAT}",
            document.format
        )));
    }
    Ok(document.networks)
}

/// Writes the networks, durably.
pub fn write(root: &Path, networks: Vec<NetworkRecord>) -> io::Result<()> {
    let document = Document {
        format: NETWORKS_FORMAT,
        networks,
    };
    let bytes = serde_json::to_vec(&document).expect("networks are plain data");
    let aside = root.join("networks.json.new");
    let mut file = crate::host::create_private_file(&aside)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&aside, path(root))?;
    File::open(root)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> NetworkRecord {
        NetworkRecord {
            id: "ab".repeat(32),
            name: name.into(),
            created: "2026-11-30T00:00:00Z".into(),
            bridge: "br-abababababab".into(),
            subnets: vec![Subnet {
                net: "172.20.0.0/16".parse().expect("a subnet"),
                range: None,
                gateway: "172.20.0.1".parse().expect("an address"),
                auxiliary: BTreeMap::new(),
            }],
            is_subnet_asked: false,
            internal: false,
            attachable: false,
            options: BTreeMap::from([(option::ICC.into(), "false".into())]),
            ipam_options: None,
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn networks_are_kept_and_damage_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(read(folder.path()).expect("none yet"), []);
        write(folder.path(), vec![record("a"), record("b")]).expect("written");
        assert_eq!(read(folder.path()).expect("kept").len(), 2);
        for damaged in [
            "",
            "{",
            r#"{"format":2,"networks":[]}"#,
            r#"{"format":1,"networks":[{}]}"#,
        ] {
            fs::write(path(folder.path()), damaged).expect("a file");
            assert!(read(folder.path()).is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn options_are_on_unless_they_say_otherwise() {
        let record = record("a");
        assert!(!record.is_on(option::ICC));
        assert!(record.is_on(option::MASQUERADE));
        assert!(record.subnet(false).is_some() && record.subnet(true).is_none());
    }
}
