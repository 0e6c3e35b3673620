//! Which ports of the host apps may publish, and which networks clients may make: the owner's `publish` and `networks`.

use std::net::IpAddr;

use kakoi_policy::confinement::{NetworkMode, PortRange};
use kakoi_policy::{Ceiling, NetworkRequest, PortProtocol, PortRequest, Requests, bound, bound_network};

use super::given::composed;

fn ceiling(text: &str) -> Ceiling {
    let text = format!("kakoi: 1\nprivileged: true\nnetwork: [bridge, host]\negress: any\n{text}\n");
    Ceiling::parse("ceiling.yaml", &text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// `8080/tcp`, `127.0.0.1 80-90/udp`, `any/tcp`.
fn port(text: &str) -> PortRequest {
    let (address, rest) = match text.split_once(' ') {
        Some((address, rest)) => (Some(address.parse().expect("an address")), rest),
        None => (None, text),
    };
    let (ports, protocol) = rest.split_once('/').expect("a protocol");
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    PortRequest {
        address,
        ports: (ports != "any").then(|| PortRange {
            first: first.parse().expect("a port"),
            last: last.parse().expect("a port"),
        }),
        protocol: match protocol {
            "tcp" => PortProtocol::Tcp,
            "udp" => PortProtocol::Udp,
            _ => PortProtocol::Sctp,
        },
    }
}

fn judged(ceiling: &Ceiling, ports: &[&str], mode: NetworkMode) -> Result<(), String> {
    let asked = Requests {
        publish: ports.iter().map(|text| port(text)).collect(),
        network: Some(mode),
        ..Requests::none()
    };
    let app = composed("kakoi: 1\nname: app\nextends: [docker-default]\n").request(&asked);
    bound(&app, ceiling)
        .map(drop)
        .map_err(|excess| excess.to_string())
}

#[test]
fn ports_lie_within_the_owners_or_are_refused() {
    let local = "{ports: [80, 8000-8010], address: 127.0.0.0/8}";
    for (publish, right, wrong) in [
        (
            "8000-8999",
            vec!["8000/tcp", "8990-8999/tcp", "127.0.0.1 8500/tcp", "::1 8500/tcp"],
            vec!["7999/tcp", "8990-9000/tcp", "8000/udp", "8000/sctp", "any/tcp"],
        ),
        (
            local,
            vec![
                "127.0.0.1 80/tcp",
                "127.1.2.3 8000-8010/tcp",
                "::ffff:127.0.0.1 80/tcp",
            ],
            vec![
                "80/tcp",
                "0.0.0.0 80/tcp",
                "192.0.2.1 80/tcp",
                "::1 80/tcp",
                "127.0.0.1 81/tcp",
                "127.0.0.1 80/udp",
                "127.0.0.1 any/tcp",
            ],
        ),
        (
            "{address: 0.0.0.0/0}",
            vec!["0.0.0.0 80/udp", "192.0.2.1 any/sctp"],
            vec!["80/tcp", ":: 80/tcp", "::1 80/tcp"],
        ),
        (
            "{address: 0.0.0.0/0}, {address: \"::/0\"}",
            vec!["80/tcp", "any/udp", ":: 1-65535/tcp"],
            vec![],
        ),
        (
            "{address: \"::/0\"}",
            vec!["::1 80/tcp"],
            vec!["::ffff:192.0.2.1 80/tcp"],
        ),
        ("{protocol: udp}", vec!["any/udp", "53/udp"], vec!["53/tcp"]),
        (
            "{ports: [1-65535], protocol: sctp}",
            vec!["any/sctp"],
            vec!["any/tcp"],
        ),
        // Two entries are no one: whichever port of a range is free is bound.
        ("8000-8010, 8011-8020", vec!["8010/tcp"], vec!["8010-8011/tcp"]),
    ] {
        let owner = ceiling(&format!("publish: [{publish}]"));
        for asked in right {
            judged(&owner, &[asked], NetworkMode::Bridge)
                .unwrap_or_else(|why| panic!("{publish}: {asked}: {why}"));
        }
        for asked in wrong {
            let shown = judged(&owner, &[asked], NetworkMode::Bridge).expect_err(asked);
            for says in ["(--publish)", "(ceiling.yaml:5:", "adds it to `publish`"] {
                assert!(shown.contains(says), "{publish}: {asked}: no {says:?} in {shown}");
            }
            // Where nothing is published nothing is judged.
            judged(&owner, &[asked], NetworkMode::Host).expect(asked);
        }
    }
}

#[test]
fn an_owner_who_says_nothing_of_ports_publishes_none() {
    let silent = ceiling("");
    judged(&silent, &[], NetworkMode::Bridge).expect("nothing is asked for");
    let shown =
        judged(&silent, &["127.0.0.1 8080/tcp", "any/udp"], NetworkMode::Bridge).expect_err("asked for");
    for says in [
        "- asked:   port 8080 tcp at 127.0.0.1 (--publish)",
        "- asked:   any free port udp at every address of the host (--publish)",
        "+ allowed: no ports (ceiling.yaml:1:1)",
    ] {
        assert!(shown.contains(says), "no {says:?} in {shown}");
    }
    for open in [ceiling("publish: any"), Ceiling::built_in()] {
        judged(&open, &["any/tcp", "22/tcp"], NetworkMode::Bridge).expect("any");
    }
    // What nobody reaches is no service: never trimmed.
    let trims = ceiling("publish: [80]\non_excess: trim");
    judged(&trims, &["81/tcp"], NetworkMode::Bridge).expect_err("refused");
}

fn network(ceiling: &Ceiling, subnets: &[(&str, u8)]) -> Result<(), String> {
    let subnet = |(address, prefix): &(&str, u8)| (address.parse::<IpAddr>().expect("an address"), *prefix);
    let asked = NetworkRequest {
        name: "app".to_owned(),
        subnets: subnets.iter().map(subnet).collect(),
    };
    bound_network(&asked, ceiling).map_err(|excess| excess.to_string())
}

#[test]
fn networks_are_those_that_the_owner_allows() {
    let silent = network(&ceiling(""), &[]).expect_err("none");
    assert!(
        silent.contains("network `app` is more than this device allows"),
        "{silent}"
    );
    assert!(
        silent.contains("(ceiling.yaml:1:1)") && silent.contains("`networks: {}`"),
        "{silent}"
    );
    let chosen = ceiling("networks: {}");
    network(&chosen, &[]).expect("the device chooses");
    let refused = network(&chosen, &[("10.89.0.0", 24)]).expect_err("named");
    assert!(
        refused.contains("- asked:   subnet 10.89.0.0/24 (--subnet)"),
        "{refused}"
    );
    assert!(
        refused.contains("a subnet that the device chooses (ceiling.yaml:5:"),
        "{refused}"
    );
    let listed = ceiling("networks: {subnets: [10.89.0.0/16, \"fd00:89::/32\"]}");
    for (subnets, is_right) in [
        (vec![], true),
        (vec![("10.89.7.0", 24)], true),
        (vec![("10.89.0.0", 16), ("fd00:89:7::", 64)], true),
        (vec![("10.88.0.0", 15)], false),
        (vec![("10.90.0.0", 24)], false),
        (vec![("10.89.7.0", 24), ("fd01::", 64)], false),
    ] {
        assert_eq!(network(&listed, &subnets).is_ok(), is_right, "{subnets:?}");
    }
    for open in [
        ceiling("networks: any"),
        ceiling("networks: {subnets: any}"),
        Ceiling::built_in(),
    ] {
        network(&open, &[("198.51.100.0", 24)]).expect("any");
    }
}

#[test]
fn nonsense_is_refused_with_its_line() {
    for text in [
        "publish: 80",
        "publish: all",
        "publish: [http]",
        "publish: [90-80]",
        "publish: [{ports: []}]",
        "publish: [{ports: [70000]}]",
        "publish: [{port: [80]}]",
        "publish: [{protocol: icmp}]",
        "publish: [{address: localhost}]",
        "publish: [{address: a.example.com}]",
        "publish: [{address: 10.0.0.1/8}]",
        "networks: all",
        "networks: [10.0.0.0/8]",
        "networks: {subnet: any}",
        "networks: {subnets: [10.0.0.1/8]}",
        "networks: {subnets: [a.example.com]}",
    ] {
        let error = Ceiling::parse("c.yaml", &format!("kakoi: 1\n{text}\n")).expect_err(text);
        assert!(error.to_string().contains("c.yaml:2:"), "{text}: {error}");
    }
    let many = "1,".repeat(300);
    assert!(Ceiling::parse("c.yaml", &format!("kakoi: 1\npublish: [{many}]\n")).is_err());
}
