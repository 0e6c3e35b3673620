//! A network of a test's own: a namespace in which links, routes and packet filters may change without the machine's being touched.
//!
//! Owns the namespace of the test's thread, which everything that the test starts lives in, others that are joined to it by a cable, and a picture of
//! what such a namespace holds. Speaks netlink itself: the programs that do may be missing. Invariant: nothing outlives the processes of the test.

use std::cell::Cell;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use crate::wait;

const REQUEST_ACK: u16 = 0x5;
const DUMP: u16 = 0x300;
const CREATE_EXCL: u16 = 0x600;
const NESTED: u16 = 0x8000;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The subsystem of nftables, in the upper half of a message's kind.
const NFTABLES: u16 = 10 << 8;
/// What a dump hands out at once at most.
const RECEIVE_BYTES: usize = 1 << 17;

thread_local! {
    static IS_OWN: Cell<bool> = const { Cell::new(false) };
}

/// Moves the calling thread, and with it whatever it starts from now on, into a network namespace of its own; does so once.
pub fn own() {
    if IS_OWN.replace(true) {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
    set_up("lo");
}

/// A netlink message's body in the making.
#[derive(Clone, Default)]
struct Body(Vec<u8>);

impl Body {
    fn fixed(bytes: &[&[u8]]) -> Self {
        Self(bytes.concat())
    }

    fn put(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).expect("a short value");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn text(self, kind: u16, text: &str) -> Self {
        self.put(kind, format!("{text}\0").as_bytes())
    }
}

/// `struct ifinfomsg`.
fn link_head(index: i32, flags: u32) -> Vec<u8> {
    let up = 1u32;
    [
        &[0u8; 4][..],
        &index.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &up.to_ne_bytes(),
    ]
    .concat()
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).expect("a short message");
    [
        &length.to_ne_bytes()[..],
        &kind.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &[0; 8],
        body,
    ]
    .concat()
}

/// Sends messages and reads what comes back, until the kernel has acknowledged or ended its list. The error is the kernel's number.
fn exchange(protocol: SockProtocol, messages: &[u8]) -> Result<Vec<(u16, Vec<u8>)>, i32> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        protocol,
    )
    .expect("a netlink socket");
    let sent = sendto(
        socket.as_raw_fd(),
        messages,
        &NetlinkAddr::new(0, 0),
        MsgFlags::empty(),
    );
    assert_eq!(sent, Ok(messages.len()), "the kernel takes a whole message");
    let mut found = Vec::new();
    let mut buffer = vec![0; RECEIVE_BYTES];
    loop {
        let count = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("an answer");
        let mut rest = &buffer[..count];
        while rest.len() >= 16 {
            let length = u32::from_ne_bytes(rest[..4].try_into().expect("four bytes")) as usize;
            let kind = u16::from_ne_bytes(rest[4..6].try_into().expect("two bytes"));
            let body = &rest[16..length];
            match kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => {
                    let code = i32::from_ne_bytes(body[..4].try_into().expect("four bytes"));
                    return if code == 0 { Ok(found) } else { Err(-code) };
                }
                _ => found.push((kind, body.to_vec())),
            }
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
    }
}

#[track_caller]
fn route(kind: u16, flags: u16, body: &Body) {
    let done = exchange(
        SockProtocol::NetlinkRoute,
        &message(kind, REQUEST_ACK | flags, &body.0),
    );
    assert!(done.is_ok(), "the kernel refused message {kind}: {done:?}");
}

/// The attributes of a body whose fixed part is so long.
fn attributes(body: &[u8], fixed: usize) -> Vec<(u16, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = body.get(fixed..).unwrap_or_default();
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        if length < 4 || length > rest.len() {
            break;
        }
        let kind = u16::from_ne_bytes([rest[2], rest[3]]) & 0x3fff;
        found.push((kind, rest[4..length].to_vec()));
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    found
}

fn dump(protocol: SockProtocol, kind: u16, head: &[u8]) -> Vec<Vec<u8>> {
    let found = exchange(protocol, &message(kind, 1 | DUMP, head)).expect("a list");
    found.into_iter().map(|(_, body)| body).collect()
}

/// Names and numbers of the links of the calling thread's namespace.
pub fn links() -> Vec<(String, i32)> {
    let rows = dump(SockProtocol::NetlinkRoute, 18, &link_head(0, 0));
    let row = |body: &Vec<u8>| {
        let index = i32::from_ne_bytes(body[4..8].try_into().expect("four bytes"));
        let name = attributes(body, 16).into_iter().find(|(kind, _)| *kind == 3);
        let name = name.map(|(_, value)| String::from_utf8_lossy(&value).trim_end_matches('\0').to_owned());
        (name.unwrap_or_default(), index)
    };
    rows.iter().map(row).collect()
}

#[track_caller]
fn index(name: &str) -> i32 {
    let all = links();
    let found = all.iter().find(|(known, _)| known == name);
    found
        .unwrap_or_else(|| panic!("there is no link {name} among {all:?}"))
        .1
}

/// Whether the kernel takes a link for one that carries packets (`IF_OPER_UP`).
fn is_working(name: &str) -> bool {
    let named = format!("{name}\0").into_bytes();
    let rows = dump(SockProtocol::NetlinkRoute, 18, &link_head(0, 0));
    rows.iter().any(|body| {
        let all = attributes(body, 16);
        all.contains(&(3, named.clone())) && all.contains(&(16, vec![6]))
    })
}

fn set_up(name: &str) {
    route(16, 0, &Body(link_head(index(name), 1)));
}

/// Takes a link away behind its owner's back.
#[track_caller]
pub fn remove_link(name: &str) {
    route(17, 0, &Body(link_head(index(name), 0)));
}

/// Keeps the kernel from giving a link addresses by itself, which would come a second later.
fn without_ipv6(name: &str) {
    let setting = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    if std::path::Path::new(&setting).exists() {
        std::fs::write(setting, "1").expect("the namespace is the test's");
    }
}

fn add_address(name: &str, address: Ipv4Addr, prefix: u8) {
    let head = [2, prefix, 0, 0];
    let body = Body::fixed(&[&head, &index(name).to_ne_bytes()])
        .put(2, &address.octets())
        .put(1, &address.octets());
    route(20, CREATE_EXCL, &body);
}

/// What a namespace holds: links, addresses, routes, rules, and the packet filter's tables, chains, rules and sets; without what counts packets.
pub fn picture() -> Vec<String> {
    const COUNTING_LINK: [u16; 6] = [7, 23, 26, 35, 47, 48];
    const FILTER_HEAD: usize = 4;
    const LINK_INFO: u16 = 18;
    let mut lines = Vec::new();
    let mut add = |what: &str, rows: Vec<Vec<u8>>, fixed: usize, without: &[u16]| {
        for mut body in rows {
            if fixed == FILTER_HEAD {
                // The kernel counts changes of the whole packet filter here.
                body[2..4].fill(0);
            }
            let kept: Vec<String> = attributes(&body, fixed)
                .into_iter()
                .filter(|(kind, _)| !without.contains(kind))
                .map(|(kind, value)| match (what, kind) {
                    // A bridge's timers run in what follows the kind.
                    ("link", LINK_INFO) => {
                        let of = attributes(&value, 0).into_iter().next();
                        format!("{kind}={}", readable(&of.unwrap_or_default().1))
                    }
                    _ => format!("{kind}={}", readable(&value)),
                })
                .collect();
            lines.push(format!(
                "{what} {} {}",
                readable(&body[..fixed.min(body.len())]),
                kept.join(" ")
            ));
        }
    };
    let family = [0u8; 4];
    let of_route = SockProtocol::NetlinkRoute;
    add("link", dump(of_route, 18, &link_head(0, 0)), 16, &COUNTING_LINK);
    add("address", dump(of_route, 22, &[0; 8]), 8, &[6]);
    add("route", dump(of_route, 26, &[0; 12]), 12, &[12]);
    add("rule", dump(of_route, 34, &[0; 12]), 12, &[]);
    for (what, kind) in [("table", 1), ("chain", 4), ("nft rule", 7), ("set", 10)] {
        let rows = dump(SockProtocol::NetlinkNetFilter, NFTABLES | kind, &family);
        add(what, rows, FILTER_HEAD, &[]);
    }
    lines.sort();
    lines
}

/// The settings of a namespace that decide over packets, with their values: forwarding, what a link takes, which ports are given out.
pub fn settings() -> Vec<String> {
    let root = Path::new("/proc/sys/net");
    let mut files: Vec<PathBuf> = ["ip_forward", "ip_local_port_range", "ip_unprivileged_port_start"]
        .map(|name| root.join("ipv4").join(name))
        .to_vec();
    for family in ["ipv4", "ipv6"] {
        let links = std::fs::read_dir(root.join(family).join("conf"))
            .into_iter()
            .flatten()
            .flatten();
        let of_link = links.flat_map(|link| std::fs::read_dir(link.path()).into_iter().flatten().flatten());
        files.extend(of_link.map(|file| file.path()));
    }
    files.sort();
    // One that is set only, such as a secret, cannot be read.
    let line = |path: &PathBuf| {
        let value = std::fs::read_to_string(path).ok()?;
        Some(format!("setting {} {}", path.display(), value.trim_end()))
    };
    files.iter().filter_map(line).collect()
}

/// Names of the packet filter's tables.
pub fn tables() -> Vec<String> {
    let rows = dump(SockProtocol::NetlinkNetFilter, NFTABLES | 1, &[0; 4]);
    let name = |body: &Vec<u8>| {
        let name = attributes(body, 4).into_iter().find(|(kind, _)| *kind == 1);
        name.map(|(_, value)| String::from_utf8_lossy(&value).trim_end_matches('\0').to_owned())
    };
    rows.iter().filter_map(name).collect()
}

/// Makes a table of somebody else's, of family `inet`.
pub fn foreign_table(name: &str) {
    filter(0, name);
}

/// Takes a table away behind its owner's back.
pub fn flush_table(name: &str) {
    filter(2, name);
}

fn filter(kind: u16, name: &str) {
    let head = |family: u8, resource: u16| [&[family, 0][..], &resource.to_be_bytes()].concat();
    let flags = if kind == 0 {
        REQUEST_ACK | 0x400
    } else {
        REQUEST_ACK
    };
    let body = Body::fixed(&[&head(1, 0)]).text(1, name);
    let whole = [
        message(16, 1, &head(0, 10)),
        message(NFTABLES | kind, flags, &body.0),
        message(17, 1, &head(0, 10)),
    ]
    .concat();
    let done = exchange(SockProtocol::NetlinkNetFilter, &whole);
    assert!(done.is_ok(), "the kernel refused the table {name}: {done:?}");
}

/// Text where it is text.
fn readable(bytes: &[u8]) -> String {
    let text = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    if text.len() > 2 && text.iter().all(u8::is_ascii_graphic) {
        return String::from_utf8_lossy(text).into_owned();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is done on another thread.
type Job = Box<dyn FnOnce() + Send>;

/// Another machine: a namespace on a thread of its own, joined to the test's by a cable. Packets for elsewhere go to the test's side.
pub struct Neighbour {
    jobs: mpsc::Sender<Job>,
    /// The address of the test's side.
    pub gateway: IpAddr,
    /// Its own address.
    pub address: IpAddr,
}

impl Neighbour {
    /// Joins a new namespace to the calling thread's, with 192.0.2.1 here and 192.0.2.2 there.
    pub fn new() -> Self {
        own();
        let (jobs, queue) = mpsc::channel::<Job>();
        let (told, namespace) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
            let file = File::open("/proc/thread-self/ns/net").expect("a thread has a namespace");
            told.send(OwnedFd::from(file)).expect("the test waits");
            for job in queue {
                job();
            }
        });
        let namespace = namespace.recv().expect("the thread tells");
        let (here, there) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let descriptor = u32::try_from(namespace.as_raw_fd()).expect("a descriptor");
        let other = Body(link_head(0, 0))
            .text(3, "cable")
            .put(28, &descriptor.to_ne_bytes());
        let data = Body::default().put(NESTED | 1, &other.0);
        let info = Body::default().put(1, b"veth").put(NESTED | 2, &data.0);
        let body = Body(link_head(0, 0)).text(3, "cable").put(NESTED | 18, &info.0);
        route(16, CREATE_EXCL, &body);
        without_ipv6("cable");
        add_address("cable", here, 30);
        set_up("cable");
        let neighbour = Self {
            jobs,
            gateway: here.into(),
            address: there.into(),
        };
        neighbour.run(move || {
            set_up("lo");
            without_ipv6("cable");
            add_address("cable", there, 30);
            set_up("cable");
            // struct rtmsg: the main table, static, everywhere, unicast.
            let head = [2, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
            route(24, CREATE_EXCL, &Body::fixed(&[&head]).put(5, &here.octets()));
        });
        // The kernel notes a while later that both ends are there.
        wait::until("the cable works", || is_working("cable"));
        neighbour
    }

    /// Does something there, and says what it came to.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (told, result) = mpsc::channel();
        let job: Job = Box::new(move || drop(told.send(job())));
        self.jobs.send(job).expect("the thread lives");
        result.recv().expect("the job ends")
    }
}

impl Default for Neighbour {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_changes_is_in_the_picture() {
        if crate::lacks_root(module_path!()) {
            return;
        }
        own();
        let look = || [picture(), settings()].concat();
        let before = look();
        // Compared, not shown: a picture is some hundred lines.
        assert!(look() == before, "looking changes nothing");
        foreign_table("somebody");
        assert!(look() != before, "a table");
        flush_table("somebody");
        assert!(look() == before, "and none");
        add_address("lo", Ipv4Addr::new(192, 0, 2, 9), 32);
        let before = look();
        assert!(
            before
                .iter()
                .any(|line| line.starts_with("address") && line.contains("c0000209"))
        );
        let forwarding = "/proc/sys/net/ipv4/conf/lo/forwarding";
        let is_on = std::fs::read_to_string(forwarding)
            .expect("lo has settings")
            .trim()
            == "1";
        std::fs::write(forwarding, if is_on { "0" } else { "1" }).expect("the namespace is the test's");
        assert!(look() != before, "a setting");
    }
}
