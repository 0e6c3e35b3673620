//! Whom the host asks for names.
//!
//! Owns the reading of `resolv.conf`, and when it is read again. Refuses systemd-resolved's stub, which only the host may ask.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::{SERVER, UPSTREAMS_MAX};

/// `resolv.conf` beyond this is not one.
const RESOLV_CONF_BYTES_MAX: u64 = 64 << 10;

/// How long what was read is believed: shorter than a person takes to wonder, longer than a page's burst of queries.
const BELIEVED: Duration = Duration::from_secs(2);

/// The servers that are asked.
pub(super) enum Upstreams {
    /// These.
    Given(Vec<SocketAddr>),
    /// The host's, and when they were read.
    OfHost {
        root: PathBuf,
        read: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
    },
}

impl Upstreams {
    pub fn of_host(root: &Path) -> Self {
        Self::OfHost {
            root: root.to_owned(),
            read: Mutex::new(None),
        }
    }

    /// The servers as they are now.
    pub async fn now(&self) -> Vec<SocketAddr> {
        let (root, read) = match self {
            Self::Given(servers) => return servers.clone(),
            Self::OfHost { root, read } => (root, read),
        };
        let mut read = read.lock().await;
        if let Some((at, servers)) = &*read
            && at.elapsed() < BELIEVED
        {
            return servers.clone();
        }
        let root = root.clone();
        let servers = tokio::task::spawn_blocking(move || host_upstreams(&root))
            .await
            .unwrap_or_default();
        *read = Some((Instant::now(), servers.clone()));
        servers
    }
}

/// The host's upstream servers: those of `/etc/resolv.conf`, or, where that names systemd-resolved's stub, those it asks itself
/// (`/run/systemd/resolve/resolv.conf`). Never resolved's own addresses, nor [`SERVER`]. `root` is `/` but in tests.
pub fn host_upstreams(root: &Path) -> Vec<SocketAddr> {
    let servers = read_servers(&root.join("etc/resolv.conf"));
    let is_stub = |address: &IpAddr| {
        [[127, 0, 0, 53], [127, 0, 0, 54]]
            .map(IpAddr::from)
            .contains(address)
    };
    let servers = if servers.iter().any(is_stub) {
        read_servers(&root.join("run/systemd/resolve/resolv.conf"))
    } else {
        servers
    };
    servers
        .into_iter()
        .filter(|address| !is_stub(address) && *address != SERVER)
        .take(UPSTREAMS_MAX)
        .map(|address| SocketAddr::new(address, 53))
        .collect()
}

/// Servers of one file; one that cannot be read has none. Link-local ones with a zone are left out: the zone is an interface's name.
fn read_servers(path: &Path) -> Vec<IpAddr> {
    use std::io::Read;
    let mut text = String::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(RESOLV_CONF_BYTES_MAX).read_to_string(&mut text));
    if let Err(error) = read {
        tracing::debug!(path = %path.display(), %error, "ignoring a list of name servers that cannot be read");
    }
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse().ok())?
    });
    servers.collect()
}
