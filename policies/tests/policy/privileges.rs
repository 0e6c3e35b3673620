//! What an upgrade gains: each kind of privilege is told when it is gained, told as lost the other way round, and nothing is told of what stays.

use kakoi_policy::confinement::{Confinement, Landlock, MountSource, Seccomp, UserNamespace};
use kakoi_policy::kernel::Arch;
use kakoi_policy::privileges::{HeldMount, HeldPort, Privileges, difference};
use kakoi_policy::{SHIPPED, compile};

use crate::given::{compiled, composed, kernel, shipped, user, with_landlock};

fn of(confinement: Confinement) -> Privileges {
    Privileges {
        confinement,
        mounts: Vec::new(),
        ports: Vec::new(),
        networks: Vec::new(),
        shared_namespaces: Vec::new(),
        secrets: Vec::new(),
    }
}

/// `strict` with further lines.
fn strict(lines: &str) -> Privileges {
    let text = format!("kakoi: 1\nname: app\nextends: [strict]\n{lines}\n");
    of(compiled(&composed(&text)))
}

fn gains(before: &Privileges, after: &Privileges) -> Vec<String> {
    let rows = difference(before, after).into_iter().filter(|row| row.gains);
    rows.map(|row| format!("{}: {}", row.area, row.words)).collect()
}

/// The second gains the rows over the first, and on the way back as many are lost and nothing is gained.
fn check(about: &str, before: &Privileges, after: &Privileges, rows: &[&str]) {
    assert_eq!(gains(before, after), rows, "{about}");
    let back = difference(after, before);
    assert!(back.iter().all(|row| !row.gains), "{about}: {back:#?}");
    assert_eq!(back.len(), rows.len(), "{about}: {back:#?}");
    assert_ne!(rows.is_empty(), before.sha256() != after.sha256(), "{about}");
}

#[test]
fn each_rule_that_is_added_is_told() {
    const TCP: &str = "system calls: socket (with AF_INET SOCK_STREAM, or AF_INET6 SOCK_STREAM)";
    let base = strict("");
    for (lines, rows) in [
        ("", &[][..]),
        (
            "capabilities: [NET_ADMIN, SYS_TIME]",
            &["capabilities: NET_ADMIN, SYS_TIME"],
        ),
        (
            "system_calls: {allow: [mount, umount2]}",
            &["system calls: mount, umount2"],
        ),
        (
            "system_calls: {allow: [{name: socket, when: {argument: 0, value: AF_CAN, width: 32}}]}",
            &["system calls: socket (with AF_CAN)"],
        ),
        (
            "files: {write: [/data, /data/deep]}",
            &["files: write below /data"],
        ),
        (
            "network: {mode: host, bind: [80, 81, 443]}",
            &[
                TCP,
                "network: listen on TCP port 80-81, 443",
                "network: the device's own (before: none)",
            ],
        ),
        (
            "network: {mode: bridge, connect: any}",
            &[
                TCP,
                "network: connect to any TCP port",
                "network: a bridge (before: none)",
                "network: packets to whatever its networks reach",
            ],
        ),
        (
            "network: {mode: bridge, egress: [{to: 10.0.0.0/8, protocol: tcp, ports: [443]}], peers: [db]}",
            &[
                "network: a bridge (before: none)",
                "network: packets to 10.0.0.0/8 tcp 443",
                "network: packets to the container db",
            ],
        ),
        (
            "devices: [{path: /dev/ttyUSB0, access: rw}]",
            &["files: write below /dev/ttyUSB0", "devices: /dev/ttyUSB0 (rw)"],
        ),
        (
            "limits: {pids: 8192}",
            &["limits: processes up to 8192 (before: 4096)"],
        ),
        (
            "process: {no_new_privileges: false}",
            &["privileges: programs that raise them (set-user-ID, file capabilities)"],
        ),
        (
            "process: {read_only_paths: none}",
            // /proc/sysrq-trigger is hidden, and so not written.
            &["kernel files: write /proc/bus, /proc/fs, /proc/irq, /proc/sys"],
        ),
    ] {
        check(lines, &base, &strict(lines), rows);
    }
    check(
        "a root that can be written",
        &strict("process: {read_only_root: true}"),
        &strict("process: {read_only_root: false}"),
        &["files: write anywhere in its own root, which is not read-only"],
    );
}

#[test]
fn what_lies_within_what_was_held_is_no_gain() {
    let wide = strict(
        "files: {write: [/data]}\nnetwork: {mode: bridge, bind: [80, 81], connect: any, egress: [{to: 10.0.0.0/8, protocol: tcp, ports: [443]}, {to: 10.0.0.0/8, protocol: tcp, ports: [80]}]}\n\
         devices: [all]\nlimits: {memory: 64MiB}",
    );
    let narrow = strict(
        "files: {write: [/data/a]}\nnetwork: {mode: bridge, bind: [81], connect: [1], egress: [{to: 10.1.0.0/16, protocol: tcp, ports: [80, 443]}]}\n\
         devices: [{path: /dev/kmsg, access: r}]\nlimits: {memory: 32MiB}",
    );
    assert_eq!(gains(&wide, &narrow), Vec::<String>::new());
    assert!(gains(&narrow, &wide).len() >= 6);
    // Another way of writing the same is the same.
    let one = strict("system_calls: {allow: [mount]}");
    let other = strict("system_calls: {allow: [{name: mount}]}\nfiles: {read: [/etc]}");
    assert_eq!(difference(&one, &other), vec![]);
    // A filter that is missing is told in a row, and fewer calls in none.
    let mut open = strict("");
    open.confinement.seccomp = Seccomp::Unconfined;
    open.confinement.landlock = Landlock::Unconfined;
    assert_eq!(
        gains(&strict(""), &open),
        [
            "system calls: all of them, unfiltered",
            "files: write everywhere",
            "network: listen on any TCP port",
            "network: connect to any TCP port"
        ]
    );
    assert_eq!(gains(&open, &strict("")), Vec::<String>::new());
    // On a kernel that holds less, less can be gained over it.
    let old = composed("kakoi: 1\nname: app\nextends: [strict]\n");
    let old = of(compile(&old, &user(0), &with_landlock(3)).expect("best effort"));
    assert_eq!(
        gains(&old, &strict("network: {connect: any}")).len(),
        1,
        "the socket alone"
    );
}

#[test]
fn what_does_not_come_from_a_policy_is_told_too() {
    let base = strict("network: {mode: bridge}");
    let with = |change: fn(&mut Privileges)| {
        let mut after = base.clone();
        change(&mut after);
        after
    };
    let port = |address: &str, first| HeldPort {
        address: address.parse().ok(),
        first,
        last: first,
        protocol: "tcp".into(),
    };
    let bind = |path: &str, read_only| HeldMount {
        source: MountSource::Bind(path.into()),
        read_only,
    };
    let mut before = base.clone();
    before.ports = vec![port("", 80), port("127.0.0.1", 81)];
    before.mounts = vec![bind("/srv/site", true), bind("/srv/data", false)];
    let mut after = before.clone();
    after.ports = vec![port("10.0.0.1", 80), port("", 81), port("", 0)];
    after.mounts = vec![
        bind("/srv/site/x", true),
        bind("/srv/site", false),
        bind("/srv/data/deep", false),
        bind("/srv", true),
        HeldMount {
            source: MountSource::Volume("db".into()),
            read_only: false,
        },
    ];
    assert_eq!(
        gains(&before, &after),
        [
            "published ports: port 81/tcp on every address of the device",
            "published ports: a port that the device chooses/tcp on every address of the device",
            "mounts: write the device's /srv/site",
            "mounts: read the device's /srv",
            "mounts: read and write the volume db",
        ]
    );
    for (after, row) in [
        (with(|it| it.secrets.push("key".into())), "secrets: key"),
        (
            with(|it| it.networks.push("site".into())),
            "network: the network site",
        ),
        (
            with(|it| it.shared_namespaces.push("pid of the device".into())),
            "namespaces: pid of the device",
        ),
    ] {
        check(row, &base, &after, &[row]);
    }
    let identity = |uid, gid, groups: &[u32]| {
        let mut it = base.clone();
        it.confinement.identity = user(uid);
        it.confinement.identity.gid = gid;
        it.confinement.identity.groups = groups.to_vec();
        it.confinement.user_namespace = UserNamespace::Auto;
        it
    };
    let plain = identity(1000, 1000, &[]);
    for (after, row) in [
        (identity(0, 1000, &[]), "user: user 0 (root) (before: user 1000)"),
        (identity(1001, 1000, &[]), "user: user 1001 (before: user 1000)"),
        (identity(1000, 1000, &[20]), "user: group 20"),
    ] {
        assert_eq!(gains(&plain, &after), [row]);
    }
    assert_eq!(gains(&identity(0, 0, &[]), &plain), Vec::<String>::new());
    let mut outside = plain.clone();
    outside.confinement.user_namespace = UserNamespace::Host;
    let row = "user namespace: the device's own ids (before: ids of its own)";
    check("ids", &plain, &outside, &[row]);
}

#[test]
fn shipped_policies_are_compared_on_every_architecture_within_a_moment() {
    for arch in [Arch::X86_64, Arch::Aarch64] {
        for one in SHIPPED {
            for other in SHIPPED {
                let compiled = |name: &str| {
                    of(compile(&shipped(name), &user(0), &kernel(arch))
                        .unwrap_or_else(|error| panic!("{error}")))
                };
                let gained = gains(&compiled(one.name), &compiled(other.name));
                let about = format!("{} {} {gained:?}", one.name, other.name);
                assert!(!gained.iter().any(|row| row.contains("too many")), "{about}");
                if one.name == other.name || one.name == "privileged" {
                    assert!(gained.is_empty(), "{about}");
                } else if other.name == "privileged" {
                    assert!(gained.len() > 3, "{about}");
                }
            }
        }
    }
}
