//! Documents of hosts: every field is read, and what is not understood is refused at its place.

use kakoi_policy::host::lockdown::{Door, MountOption, Open, Radio, Section, Service, Usb};
use kakoi_policy::{Host, parse_host};

const HEAD: &str = "kakoi: 1\nkind: Host\n";

fn host(rest: &str) -> Host {
    parse_host("host.yaml", &format!("{HEAD}{rest}")).unwrap_or_else(|error| panic!("{rest}: {error}"))
}

/// Expects a refusal; `words` are in it.
fn refused(rest: &str, words: &[&str]) {
    let text = format!("{HEAD}{rest}");
    let error = parse_host("host.yaml", &text).expect_err(rest).to_string();
    for word in words {
        assert!(error.contains(word), "{rest}: {word} is not in {error}");
    }
}

#[test]
fn every_field_of_a_lockdown_is_read() {
    let host = host(
        "lockdown:\n  on_drift: report\n  report_only: [links, services]\n  check_every: 30s\n  \
         ports: [\"22/tcp\", \"5000-5010/udp on eth0\", \"8883/tcp from fe80::/10 on wlan0\"]\n  ping: true\n  \
         usb: [hub, \"0x03\", \"0403:6001\", \"0781:5581:A:B\"]\n  media: [/media/updates]\n  consoles: [ttyS0]\n  radios: [wifi]\n  \
         links: [eth0, \"wl*\"]\n  services: [ssh]\n  close_services: [acme-debug.service]\n  kernel: [user_namespaces]\n  \
         sysctl: {kernel.panic: \"10\", vm.swappiness: 1}\n  mounts: {/tmp: [exec]}\n",
    );
    let lockdown = host.lockdown.expect("it is written");
    assert!(!lockdown.corrects && lockdown.ping);
    assert_eq!(lockdown.report_only, [Section::Links, Section::Services]);
    assert_eq!(lockdown.check_every_ms, 30_000);
    let ports = lockdown.ports.only().expect("a list");
    assert_eq!((ports[1].first, ports[1].last), (5000, 5010));
    assert_eq!(ports[1].link.as_deref(), Some("eth0"));
    assert_eq!(ports[2].from, Some(("fe80::".parse().expect("an address"), 10)));
    let usb = lockdown.usb.only().expect("a list");
    assert_eq!((&usb[0], &usb[1]), (&Usb::Class(9), &Usb::Class(3)));
    let Usb::Device { vendor, serial, .. } = &usb[3] else {
        panic!("{:?}", usb[3])
    };
    assert_eq!((*vendor, serial.as_deref()), (0x0781, Some("A:B")));
    assert_eq!(lockdown.radios, Open::Only(vec![Radio::Wifi]));
    assert_eq!(lockdown.services, Open::Only(vec![Service::Ssh]));
    assert_eq!(lockdown.kernel, Open::Only(vec![Door::UserNamespaces]));
    assert_eq!(lockdown.sysctl["vm.swappiness"], "1");
    let mounts = lockdown.mounts.only().expect("a list");
    assert_eq!(mounts[0].allowed, [MountOption::Exec]);
}

/// Absent means closed; only a word opens a whole section; a document without the section closes nothing.
#[test]
fn what_is_not_written_is_closed() {
    assert_eq!(host("").lockdown, None);
    let closed = host("lockdown: {}\n").lockdown.expect("it is written");
    assert_eq!(closed.ports, Open::Only(Vec::new()));
    assert_eq!(closed.kernel, Open::Only(Vec::new()));
    assert!(closed.corrects && !closed.ping);
    let open = host("lockdown: {ports: any, usb: any, mounts: any}\n")
        .lockdown
        .expect("it is written");
    assert_eq!(
        (open.ports, open.usb, open.mounts),
        (Open::Any, Open::Any, Open::Any)
    );
    assert_eq!(open.radios, Open::Only(Vec::new()));
}

#[test]
fn what_is_not_understood_is_refused_at_its_place() {
    refused("lockdwn: {}\n", &["host.yaml:3:1", "`lockdown`"]);
    refused("lockdown: {port: []}\n", &["host.yaml:3:12", "`ports`"]);
    refused("lockdown: {kernel: [sysreq]}\n", &["host.yaml:3:21", "`sysrq`"]);
    refused("lockdown: {services: [shh]}\n", &["`ssh`"]);
    refused("lockdown: {radios: [wlan]}\n", &["unknown word `wlan`"]);
    refused("lockdown: {on_drift: fix}\n", &["unknown word `fix`"]);
    refused("lockdown: {check_every: 1s}\n", &["5s to 1h"]);
    refused("lockdown: {check_every: 2h}\n", &["5s to 1h"]);
    refused("lockdown: {ping: yes}\n", &["write `true`"]);
    refused("lockdown: {ports: all}\n", &["`any`"]);
    for bad in [
        "22",
        "0/tcp",
        "65536/tcp",
        "22/sctp",
        "9-8/tcp",
        "22/tcp on",
        "22/tcp on eth0 on eth1",
        "22/tcp on a/b",
        "22/tcp from 10.0.0.1/8",
        "22/tcp from 10.0.0.0/33",
        "22/tcp from fe80::1/10",
        "22/tcp via eth0",
        "022/tcp",
        "22/tcp on averyveryverylongname",
    ] {
        refused(
            &format!("lockdown: {{ports: [\"{bad}\"]}}\n"),
            &["host.yaml:3:20", "not a port that can be opened"],
        );
    }
    for bad in [
        "0403:600",
        "0403:60010",
        "04g3:6001",
        "0403:6001:",
        "0x8",
        "0x100",
        ":",
    ] {
        refused(
            &format!("lockdown: {{usb: [\"{bad}\"]}}\n"),
            &["not a USB device"],
        );
    }
    refused("lockdown: {usb: [stroage]}\n", &["`storage`"]);
    for bad in ["../sda", "sda", "tty/1", "tty"] {
        refused(
            &format!("lockdown: {{consoles: [\"{bad}\"]}}\n"),
            &["not a console"],
        );
    }
    for bad in ["sshd", "../x.service", "kakoid.service", "-x.service"] {
        refused(
            &format!("lockdown: {{close_services: [\"{bad}\"]}}\n"),
            &["not a unit"],
        );
    }
    for bad in ["kernel/panic", "kernel", "kernel..panic", "kernel.../x"] {
        refused(
            &format!("lockdown: {{sysctl: {{\"{bad}\": \"1\"}}}}\n"),
            &["not a kernel setting"],
        );
    }
    refused("lockdown: {sysctl: {kernel.panic: \"1\\n2\"}}\n", &["one line"]);
    refused("lockdown: {mounts: {/tmp: [noexec]}}\n", &["`exec`"]);
    refused("lockdown: {mounts: {tmp: [exec]}}\n", &["not a mount point"]);
    refused("lockdown: {media: [/media/../etc]}\n", &["not a mount point"]);
    refused("lockdown: {links: [\"*x\"]}\n", &["not an interface"]);
    let many = vec!["hub"; 200].join(", ");
    refused(&format!("lockdown: {{usb: [{many}]}}\n"), &["more than 128"]);
}
