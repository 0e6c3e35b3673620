//! The small files of `/etc` that are a container's own: hosts, hostname, resolv.conf.
//!
//! Owns their first content. Containers in networks of bridges get them anew at each start ([`crate::networks`]), with their addresses.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use kakoi_api::container::{ContainerConfig, CreateBody};
use kakoi_container::plan::{NamespaceSource, RunPlan};

use crate::plan::build;
use crate::plan::peers::Peers;
use crate::refusal::{Answer, Refusal};

/// The most that is taken over of a file of another container.
const IDENTITY_BYTES_MAX: u64 = 64 << 10;

/// The small files of `/etc` that are the container's own.
pub fn files(
    plan: &RunPlan,
    config: &ContainerConfig,
    body: &CreateBody,
    peers: &Peers,
) -> Answer<Vec<(&'static str, String)>> {
    if let Some(peer) = &peers.network {
        // Whoever shares a network shares its names.
        // The other app's files too: whatever it wrote there is taken up to a size.
        let theirs = |name: &'static str| {
            use std::io::Read as _;
            let mut bytes = Vec::new();
            fs::File::open(peer.state_dir.join(name))
                .and_then(|file| file.take(IDENTITY_BYTES_MAX).read_to_end(&mut bytes))
                .map(|_| (name, String::from_utf8_lossy(&bytes).into_owned()))
                .map_err(|cause| {
                    Refusal::failed(
                        format!("the names of container {} cannot be read", peer.id),
                        cause,
                    )
                })
        };
        return ["hosts", "hostname", "resolv.conf"]
            .into_iter()
            .map(theirs)
            .collect();
    }
    let is_own = plan.namespaces.network != NamespaceSource::Host;
    let of_host = if is_own {
        None
    } else {
        fs::read_to_string("/etc/resolv.conf").ok()
    };
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    // In networks of bridges, addresses are known at a start, which writes the file anew.
    let (own, gateway) = match (is_own, plan.awaits_network) {
        (_, true) => (vec![], Some(loopback)),
        (true, false) => (vec![loopback], None),
        (false, false) => (vec![], Some(loopback)),
    };
    Ok(vec![
        (
            "hosts",
            build::hosts(
                &plan.hostname,
                &config.domainname,
                &body.host_config.extra_hosts,
                &own,
                gateway,
            )?,
        ),
        ("hostname", format!("{}\n", plan.hostname)),
        (
            "resolv.conf",
            build::resolv_conf(&body.host_config, of_host.as_deref())?,
        ),
    ])
}
