//! Networks, and a container's place in them.

use std::collections::BTreeMap;

wire! { "PascalCase";
    /// The body of `POST /networks/create`.
    pub struct NetworkBody {
        /// Name.
        pub name: String,
        /// `bridge` or empty.
        pub driver: String,
        /// `local` or empty.
        pub scope: String,
        /// Whether it has IPv4; absent means yes.
        #[serde(rename = "EnableIPv4")]
        pub enable_ipv4: Option<bool>,
        /// Whether it has IPv6; absent means no.
        #[serde(rename = "EnableIPv6")]
        pub enable_ipv6: Option<bool>,
        /// Subnets and who gives out their addresses.
        #[serde(rename = "IPAM")]
        pub ipam: Option<Ipam>,
        /// Whether nothing outside is reached.
        pub internal: bool,
        /// Of swarms.
        pub attachable: bool,
        /// Of swarms.
        pub ingress: bool,
        /// Of swarms.
        pub config_only: bool,
        /// Of swarms.
        pub config_from: Option<ConfigFrom>,
        /// Options of the driver.
        pub options: BTreeMap<String, String>,
        /// Labels.
        pub labels: BTreeMap<String, String>,
    }

    /// The network whose configuration is taken over, in swarms.
    pub struct ConfigFrom {
        /// Its name.
        pub network: String,
    }

    /// Subnets and who gives out their addresses.
    pub struct Ipam {
        /// `default` or empty.
        pub driver: String,
        /// Options of that driver.
        pub options: Option<BTreeMap<String, String>>,
        /// Subnets.
        pub config: Vec<IpamConfig>,
    }

    /// A subnet.
    pub struct IpamConfig {
        /// `172.20.0.0/16`.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub subnet: String,
        /// The part of it that addresses are taken from.
        #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
        pub ip_range: String,
        /// The bridge's own address.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub gateway: String,
        /// Addresses that are never given out, by name.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub auxiliary_addresses: BTreeMap<String, String>,
    }

    /// The answer to create.
    pub struct NetworkCreated {
        /// Its id.
        pub id: String,
        /// What the user should know.
        pub warning: String,
    }

    /// A network.
    pub struct Network {
        /// Name.
        pub name: String,
        /// 64 hex digits.
        pub id: String,
        /// When it was made.
        pub created: String,
        /// `local`.
        pub scope: String,
        /// `bridge`, `host` or `null`.
        pub driver: String,
        /// Whether it has IPv4.
        #[serde(rename = "EnableIPv4")]
        pub enable_ipv4: bool,
        /// Whether it has IPv6.
        #[serde(rename = "EnableIPv6")]
        pub enable_ipv6: bool,
        /// Subnets.
        #[serde(rename = "IPAM")]
        pub ipam: Ipam,
        /// Whether nothing outside is reached.
        pub internal: bool,
        /// Of swarms.
        pub attachable: bool,
        /// Of swarms.
        pub ingress: bool,
        /// Of swarms.
        pub config_from: ConfigFrom,
        /// Of swarms.
        pub config_only: bool,
        /// Containers that are in it and run, by id; the list leaves it empty.
        pub containers: BTreeMap<String, NetworkMember>,
        /// Options of the driver.
        pub options: BTreeMap<String, String>,
        /// Labels.
        pub labels: BTreeMap<String, String>,
    }

    /// A container in a network.
    pub struct NetworkMember {
        /// Name.
        pub name: String,
        /// Id of its place in the network.
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        /// Hardware address.
        pub mac_address: String,
        /// Address with the length of its prefix.
        #[serde(rename = "IPv4Address")]
        pub ipv4_address: String,
        /// Address with the length of its prefix.
        #[serde(rename = "IPv6Address")]
        pub ipv6_address: String,
    }

    /// The body of connect.
    pub struct NetworkConnect {
        /// Name or id.
        pub container: String,
        /// How it is there.
        pub endpoint_config: Option<EndpointSettings>,
    }

    /// The body of disconnect.
    pub struct NetworkDisconnect {
        /// Name or id.
        pub container: String,
        /// Whether a container that is gone is no error.
        pub force: bool,
    }

    /// The answer to prune.
    pub struct NetworksPruned {
        /// Names of the removed networks.
        pub networks_deleted: Option<Vec<String>>,
    }

    /// A container's place in a network: what was asked for, and what it got.
    pub struct EndpointSettings {
        /// Addresses that were asked for.
        #[serde(rename = "IPAMConfig")]
        pub ipam_config: Option<EndpointIpam>,
        /// Links to other containers.
        pub links: Option<Vec<String>>,
        /// Names beside the container's.
        pub aliases: Option<Vec<String>>,
        /// Hardware address.
        pub mac_address: String,
        /// Options of the driver.
        pub driver_opts: Option<BTreeMap<String, String>>,
        /// Whose gateway is the default route: the highest.
        pub gw_priority: i64,
        /// Id of the network.
        #[serde(rename = "NetworkID")]
        pub network_id: String,
        /// Id of the place, while the container runs.
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        /// The bridge's address.
        pub gateway: String,
        /// Address.
        #[serde(rename = "IPAddress")]
        pub ip_address: String,
        /// Length of its prefix.
        #[serde(rename = "IPPrefixLen")]
        pub ip_prefix_len: u8,
        /// The bridge's address.
        #[serde(rename = "IPv6Gateway")]
        pub ipv6_gateway: String,
        /// Address.
        #[serde(rename = "GlobalIPv6Address")]
        pub global_ipv6_address: String,
        /// Length of its prefix.
        #[serde(rename = "GlobalIPv6PrefixLen")]
        pub global_ipv6_prefix_len: u8,
        /// Names that resolve to it.
        #[serde(rename = "DNSNames")]
        pub dns_names: Option<Vec<String>>,
    }

    /// Addresses that were asked for.
    pub struct EndpointIpam {
        /// IPv4.
        #[serde(rename = "IPv4Address", skip_serializing_if = "String::is_empty")]
        pub ipv4_address: String,
        /// IPv6.
        #[serde(rename = "IPv6Address", skip_serializing_if = "String::is_empty")]
        pub ipv6_address: String,
        /// Link-local addresses.
        #[serde(rename = "LinkLocalIPs", skip_serializing_if = "Vec::is_empty")]
        pub link_local_ips: Vec<String>,
    }
}
