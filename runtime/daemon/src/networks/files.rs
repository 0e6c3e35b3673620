//! `/etc/hosts` and `/etc/resolv.conf` of containers that have a network.
//!
//! Owns their texts and who is asked for names. Both are written before a start, in place: they are mounted, and a renamed file would not be.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Name servers kept at most, as resolvers do.
const SERVERS_MAX: usize = 3;

/// Largest resolv.conf read.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What a resolver's configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Name servers, in their order.
    pub servers: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

impl ResolvConf {
    /// Reads the text; what is not understood is passed over, as resolvers do. Source: resolv.conf(5).
    pub fn parse(text: &str) -> Self {
        let mut read = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") if read.servers.len() < SERVERS_MAX => {
                    read.servers
                        .extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()));
                }
                Some("search") => read.search = words.map(str::to_owned).collect(),
                Some("domain") => read.search = words.take(1).map(str::to_owned).collect(),
                Some("options") => read.options = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        read
    }

    /// The host's, with the servers that it really asks.
    pub fn of_host() -> Self {
        use std::io::Read;
        let mut text = String::new();
        let read = std::fs::File::open("/etc/resolv.conf")
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
        if let Err(cause) = read {
            tracing::debug!(%cause, "the host's resolv.conf cannot be read, ignoring");
        }
        let servers = kakoi_net::names::host_upstreams(Path::new("/"));
        Self {
            servers: servers.iter().map(SocketAddr::ip).collect(),
            ..Self::parse(&text)
        }
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for server in &self.servers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.search.is_empty() {
            text.push_str(&format!("search {}\n", self.search.join(" ")));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }
}

/// How a container's names are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolving {
    /// The text of its resolv.conf.
    pub text: String,
    /// Whether the embedded server answers it.
    pub is_embedded: bool,
    /// Whom the embedded server asks for names that it does not know; empty for the host's own servers.
    pub upstreams: Vec<IpAddr>,
}

/// Decides how names are resolved. `asked` is what the container itself asked for; the embedded server answers where networks have names
/// (`needs_names`), and wherever the host's own servers are out of the container's reach.
pub fn resolving(asked: &ResolvConf, of_host: ResolvConf, needs_names: bool) -> Resolving {
    let servers = if asked.servers.is_empty() {
        of_host.servers.clone()
    } else {
        asked.servers.clone()
    };
    let search = if asked.search.is_empty() {
        of_host.search
    } else {
        // Docker's word for none.
        asked.search.iter().filter(|word| *word != ".").cloned().collect()
    };
    // A host without any may get some while the container runs.
    let is_out_of_reach = asked.servers.is_empty() && servers.iter().all(IpAddr::is_loopback);
    let is_embedded = needs_names || is_out_of_reach;
    let mut options = if asked.options.is_empty() && !is_embedded {
        of_host.options
    } else {
        asked.options.clone()
    };
    if is_embedded && !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    let shown = if is_embedded {
        vec![kakoi_net::names::SERVER]
    } else {
        servers.clone()
    };
    Resolving {
        text: ResolvConf {
            servers: shown,
            search,
            options,
        }
        .text(),
        is_embedded,
        upstreams: asked.servers.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolvers_file_is_read_and_written() {
        let read = ResolvConf::parse(
            "# c\nnameserver 192.0.2.1 # first\nnameserver nowhere\nnameserver 2001:db8::1\ndomain old\nsearch a b\noptions ndots:2\nfoo\n",
        );
        assert_eq!(
            read.text(),
            "nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch a b\noptions ndots:2\n"
        );
        let many = ResolvConf::parse(&"nameserver 192.0.2.1\n".repeat(9));
        assert_eq!(many.servers.len(), SERVERS_MAX);
    }

    #[test]
    fn names_are_asked_for_where_somebody_answers() {
        let host = ResolvConf::parse("nameserver 192.0.2.1\nsearch lan\noptions edns0\n");
        let local = ResolvConf::parse("nameserver 127.0.0.1\n");
        let none = ResolvConf::default();
        let asked = ResolvConf::parse("nameserver 192.0.2.9\nsearch .\n");
        let bridge = resolving(&none, host.clone(), false);
        assert_eq!(bridge.text, host.text());
        let named = resolving(&none, host.clone(), true);
        assert_eq!(named.text, "nameserver 127.0.0.11\nsearch lan\noptions ndots:0\n");
        assert!(named.is_embedded && named.upstreams.is_empty());
        // The host's own loopback is not the container's.
        let reached = resolving(&none, local.clone(), false);
        assert!(reached.is_embedded && reached.text.starts_with("nameserver 127.0.0.11\n"));
        assert!(reached.upstreams.is_empty());
        let offline = resolving(&none, none.clone(), false);
        assert!(offline.is_embedded && offline.text.starts_with("nameserver 127.0.0.11\n"));
        let own = resolving(&asked, local, false);
        assert_eq!(own.text, "nameserver 192.0.2.9\n");
        let both = resolving(&asked, host, true);
        assert_eq!((both.upstreams, both.is_embedded), (asked.servers, true));
    }
}
