//! Where an app's packets may go: `network.egress`, `network.peers`, and the owner's `egress`.

use kakoi_policy::confinement::{NetworkMode, Reach};
use kakoi_policy::kernel::Arch;
use kakoi_policy::{Ceiling, Requests, bound, compile};

use super::given::{compiled, composed, kernel, user};

fn reached(policy: &str) -> Reach {
    compiled(&composed(policy)).reach
}

fn of(network: &str) -> String {
    format!("kakoi: 1\nname: app\nextends: [network-client]\nnetwork: {network}\n")
}

#[test]
fn what_nobody_bounds_is_what_the_networks_reach() {
    for network in ["{}", "{mode: bridge}", "{egress: any}"] {
        assert_eq!(reached(&of(network)), Reach::Networks, "{network}");
    }
}

#[test]
fn destinations_and_peers_bound_each_other_in() {
    let Reach::Only { destinations, peers } = reached(&of(
        "{egress: [192.0.2.0/24, {to: \"*.example.com\", ports: [443, 8000-8010]}, {to: \"::1\", protocol: udp}]}",
    )) else {
        panic!("it is bounded")
    };
    let shown: Vec<String> = destinations.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        ["192.0.2.0/24", "*.example.com tcp 443,8000-8010", "::1/128 udp"]
    );
    assert!(
        destinations[0].rule.starts_with("app.yaml:4:"),
        "{}",
        destinations[0].rule
    );
    assert!(peers.is_empty(), "who says where says nothing of others");
    // Nothing at all is a bound too.
    let nowhere = reached(&of("{egress: []}"));
    assert!(
        matches!(nowhere, Reach::Only { destinations, peers } if destinations.is_empty() && peers.is_empty())
    );
    let Reach::Only { destinations, peers } = reached(&of("{peers: [broker]}")) else {
        panic!("it is bounded")
    };
    assert_eq!((destinations.len(), peers), (2, vec!["broker".to_owned()]));
}

#[test]
fn parents_and_children_unite_and_any_lifts() {
    struct Parent;
    impl kakoi_policy::Resolver for Parent {
        fn resolve(&self, name: &str) -> Option<(String, String)> {
            let text = "kakoi: 1\nname: parent\nextends: [network-client]\nnetwork: {egress: [192.0.2.1], peers: [a]}\n";
            (name == "parent").then(|| ("parent.yaml".to_owned(), text.to_owned()))
        }
    }
    let child = |network: &str| {
        let text = format!("kakoi: 1\nname: app\nextends: [parent]\nnetwork: {network}\n");
        let policy = kakoi_policy::parse("app.yaml", &text).expect("right");
        let composed = kakoi_policy::compose(&policy, &Parent).expect("right");
        compiled(&composed).reach
    };
    let Reach::Only { destinations, peers } = child("{egress: [192.0.2.2], peers: [a, b]}") else {
        panic!("bounded")
    };
    assert_eq!((destinations.len(), peers.len()), (2, 2));
    assert!(matches!(child("{}"), Reach::Only { destinations, .. } if destinations.len() == 1));
    // The parent's peers still hold.
    assert!(matches!(child("{egress: any}"), Reach::Only { peers, .. } if peers == ["a"]));
}

#[test]
fn the_hosts_network_cannot_be_bounded() {
    let policy = composed(&of("{egress: [192.0.2.1]}"));
    for (mode, is_right) in [
        (NetworkMode::Bridge, true),
        (NetworkMode::None, true),
        (NetworkMode::Host, false),
    ] {
        let asked = Requests {
            network: Some(mode),
            ..Requests::none()
        };
        let compiled = compile(&policy.clone().request(&asked), &user(0), &kernel(Arch::X86_64));
        assert_eq!(compiled.is_ok(), is_right, "{mode:?}");
        if let Err(error) = compiled {
            assert!(error.to_string().contains("network.egress"), "{error}");
            assert!(error.to_string().contains("use a bridge network"), "{error}");
        }
    }
}

#[test]
fn nonsense_is_refused_with_its_place() {
    for (network, says) in [
        ("{egress: 5}", "destinations"),
        ("{egress: [localhost]}", "neither an address"),
        ("{egress: [10.0.0.1/8]}", "write `10.0.0.0/8`"),
        ("{egress: [{ports: [80]}]}", "`to`"),
        ("{egress: [{to: 10.0.0.1, protocol: icmp}]}", "protocol"),
        ("{egress: [{to: 10.0.0.1, ports: [99999]}]}", "port"),
        ("{egress: [{to: 10.0.0.1, prots: [80]}]}", "ports"),
        ("{peers: [a b]}", "name of a container"),
        ("{peers: any}", "names of containers"),
    ] {
        let errors = kakoi_policy::parse("app.yaml", &of(network))
            .expect_err(network)
            .to_string();
        assert!(errors.contains(says), "{network}: {errors}");
        assert!(errors.contains("app.yaml:4:"), "{network}: {errors}");
    }
    let many = format!("{{egress: [{}]}}", "192.0.2.1, ".repeat(300));
    assert!(kakoi_policy::parse("app.yaml", &of(&many)).is_err());
}

#[test]
fn the_owner_bounds_where_packets_go() {
    let ceiling = |egress: &str| {
        let text = format!("kakoi: 1\ncapabilities: [ALL]\nnetwork: [bridge]\n{egress}");
        Ceiling::parse("ceiling.yaml", &text).unwrap_or_else(|errors| panic!("{errors}"))
    };
    let listed = ceiling("egress: [192.0.2.0/24, {to: \"*.example.com\", ports: [443]}]\n");
    for (network, is_right) in [
        ("{egress: [192.0.2.7]}", true),
        ("{egress: [{to: 192.0.2.7, ports: [80]}]}", true),
        ("{egress: [{to: a.example.com, ports: [443]}]}", true),
        ("{egress: []}", true),
        ("{egress: [{to: a.example.com, ports: [80]}]}", false),
        ("{egress: [a.example.com]}", false),
        ("{egress: [198.51.100.1]}", false),
        ("{egress: [0.0.0.0/0]}", false),
        ("{egress: any}", false),
        ("{}", false),
        ("{peers: [a]}", false),
        ("{mode: none}", true),
    ] {
        let judged = bound(&composed(&of(network)), &listed);
        assert_eq!(judged.is_ok(), is_right, "{network}");
        if let Err(excess) = judged {
            let shown = excess.to_string();
            assert!(
                shown.contains("packets to") && shown.contains("ceiling.yaml:4:"),
                "{shown}"
            );
        }
        assert!(
            bound(&composed(&of(network)), &ceiling("egress: any\n")).is_ok(),
            "{network}"
        );
        // Who says nothing of it lets nothing out; what goes nowhere anyway may have its bridge.
        let goes_nowhere = matches!(network, "{egress: []}" | "{mode: none}");
        assert_eq!(
            bound(&composed(&of(network)), &ceiling("")).is_ok(),
            goes_nowhere,
            "{network}"
        );
    }
    assert!(ceiling("").closes_bridges() && !listed.closes_bridges());
    // An owner who trims takes no app's server away unseen.
    let trims = ceiling("egress: []\non_excess: trim\n");
    assert!(bound(&composed(&of("{egress: [192.0.2.7]}")), &trims).is_err());
}

#[test]
fn the_canonical_text_means_the_same() {
    for network in [
        "{egress: [192.0.2.0/24, {to: a.example.com, ports: [443, 1-2]}], peers: [a]}",
        "{egress: []}",
        "{peers: [b]}",
    ] {
        let policy = composed(&of(network));
        let text = kakoi_policy::render::canonical(&policy);
        let again = composed(&text);
        assert_eq!(kakoi_policy::render::canonical(&again), text, "{network}");
        let strip = |reach: Reach| match reach {
            Reach::Only { destinations, peers } => (
                destinations.iter().map(ToString::to_string).collect::<Vec<_>>(),
                peers,
            ),
            Reach::Networks => panic!("{network}"),
        };
        assert_eq!(strip(reached(&text)), strip(reached(&of(network))), "{network}");
    }
}
