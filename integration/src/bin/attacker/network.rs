//! Attacks by sockets: families that only exploits use, and ways out past a list of ports.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use nix::errno::Errno;

use crate::raw::{Outcome, address, address_mut, call};
use crate::{Attack, attack};

const STREAM: usize = 1;
const DGRAM: usize = 2;
const RAW: usize = 3;
const SEQPACKET: usize = 5;
const IPPROTO_MPTCP: usize = 262;
const IPPROTO_SMC: usize = 256;
const IPPROTO_SCTP: usize = 132;
const MSG_OOB: usize = 1;
const MSG_FASTOPEN: usize = 0x2000_0000;

pub const ATTACKS: &[Attack] = &[
    attack("af-packet", "CVE-2020-14386, 2017-7308, 2025-38617", || {
        socket(17, RAW, 0x0300)
    }),
    attack("af-alg", "CVE-2026-31431 Copy Fail", || socket(38, SEQPACKET, 0)),
    attack("af-rxrpc", "CVE-2026-43500 Dirty Frag", || socket(33, DGRAM, 2)),
    attack("af-key", "CVE-2026-43284 Dirty Frag", || socket(15, RAW, 2)),
    attack("af-vsock", "CVE-2025-21756", || socket(40, STREAM, 0)),
    attack("af-can", "the vehicle's bus", || socket(29, RAW, 1)),
    attack("af-bluetooth", "the radio", || socket(31, RAW, 1)),
    attack("af-tipc", "CVE-2021-43267", || socket(30, SEQPACKET, 0)),
    attack("af-xdp", "packets past the stack", || socket(44, RAW, 0)),
    attack("raw-icmp", "forged packets", || socket(2, RAW, 1)),
    attack("netlink-xfrm", "CVE-2026-43284 Dirty Frag", || socket(16, RAW, 6)),
    attack("netlink-netfilter", "CVE-2023-32233, 2024-1086", || {
        socket(16, RAW, 12)
    }),
    attack("netlink-audit", "forged audit records", || socket(16, RAW, 9)),
    attack("mptcp", "landlock issue 54: past the ports", || {
        socket(2, STREAM, IPPROTO_MPTCP)
    }),
    attack("smc", "past the ports", || socket(2, STREAM, IPPROTO_SMC)),
    attack("sctp", "past the ports", || socket(2, STREAM, IPPROTO_SCTP)),
    attack("tcp-fastopen", "landlock issue 41: past the ports", fastopen),
    attack("msg-oob", "CVE-2025-38236", msg_oob),
];

/// Families that the kernel lacks answer for themselves, and so differently from a filter.
fn socket(family: usize, kind: usize, protocol: usize) -> Outcome {
    match call(libc::SYS_socket, &[family, kind, protocol]) {
        Ok(fd) => Outcome::Effective(format!("socket {fd}")),
        Err(errno @ (Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT)) => {
            Outcome::Absent(format!("{errno:?}"))
        }
        Err(errno) => Outcome::Refused(format!("{errno:?}")),
    }
}

/// A loopback address as `struct sockaddr_in`.
fn sockaddr(port: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = 2;
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    bytes[4..8].copy_from_slice(&[127, 0, 0, 1]);
    bytes
}

fn send_fastopen(port: u16) -> Result<usize, Errno> {
    let socket = call(libc::SYS_socket, &[2, STREAM, 0])?;
    let target = sockaddr(port);
    call(
        libc::SYS_sendto,
        &[
            socket,
            address(b"x"),
            1,
            MSG_FASTOPEN,
            address(&target),
            target.len(),
        ],
    )
}

fn fastopen() -> Outcome {
    let listener = match TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr().map(|at| (listener, at)))
    {
        Ok((_listener, at)) => send_fastopen(at.port()),
        // Nothing to connect to: a closed port still tells a filter (EPERM) from the network (ECONNREFUSED).
        Err(_) => send_fastopen(9),
    };
    match listener {
        Err(errno @ (Errno::ECONNREFUSED | Errno::ENETUNREACH | Errno::EINPROGRESS)) => {
            Outcome::Effective(format!("{errno:?}"))
        }
        result => result.into(),
    }
}

fn msg_oob() -> Outcome {
    let mut pair = [0_i32; 2];
    if let Err(errno) = call(libc::SYS_socketpair, &[1, STREAM, 0, address_mut(&mut pair)]) {
        return Outcome::Refused(format!("socketpair: {errno:?}"));
    }
    call(
        libc::SYS_sendto,
        &[pair[0] as usize, address(b"x"), 1, MSG_OOB, 0, 0],
    )
    .into()
}

fn say(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => {
            println!("connected");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("refused {why}");
            ExitCode::from(1)
        }
    }
}

/// `attacker connect ADDRESS`: a plain TCP connection.
pub fn connect(target: &str) -> ExitCode {
    say(TcpStream::connect(target)
        .map(drop)
        .map_err(|error| error.to_string()))
}

/// `attacker serve tcp|udp PORT`: answers everybody who asks with the address that the question seems to come from.
pub fn serve(protocol: &str, port: &str) -> ExitCode {
    let Ok(port) = port.parse::<u16>() else {
        eprintln!("attacker: {port} is no port");
        return ExitCode::from(2);
    };
    let every = (std::net::Ipv6Addr::UNSPECIFIED, port);
    say(match protocol {
        "udp" => UdpSocket::bind(every).and_then(|socket| answer_udp(&socket)),
        _ => TcpListener::bind(every).and_then(|listener| answer_tcp(&listener)),
    }
    .map_err(|error| error.to_string()))
}

fn answer_tcp(listener: &TcpListener) -> std::io::Result<()> {
    loop {
        let (mut stream, from) = listener.accept()?;
        // Who leaves before the answer has had one.
        drop(stream.write_all(from.ip().to_canonical().to_string().as_bytes()));
    }
}

fn answer_udp(socket: &UdpSocket) -> std::io::Result<()> {
    loop {
        let (_, from) = socket.recv_from(&mut [0; 64])?;
        socket.send_to(from.ip().to_canonical().to_string().as_bytes(), from)?;
    }
}

/// `attacker ask HOST:PORT`: prints what a server says over TCP.
pub fn ask(target: &str) -> ExitCode {
    use std::io::Read;
    use std::net::ToSocketAddrs;
    let limit = std::time::Duration::from_secs(2);
    let asked = || -> std::io::Result<String> {
        let address = target
            .to_socket_addrs()?
            .next()
            .ok_or(std::io::ErrorKind::NotFound)?;
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    match asked() {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("refused {why}");
            ExitCode::from(1)
        }
    }
}

/// `attacker egress PORT`: every way to reach a loopback port that a list of TCP ports does not name; one line each.
pub fn egress(port: &str) -> ExitCode {
    let Ok(port) = port.parse::<u16>() else {
        eprintln!("attacker: {port} is no port");
        return ExitCode::from(2);
    };
    let plain = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).map(drop);
    let mapped: SocketAddr = format!("[::ffff:127.0.0.1]:{port}").parse().expect("an address");
    let mapped = TcpStream::connect(mapped).and_then(|mut stream| stream.write_all(b"x"));
    let udp =
        UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"x", ("127.0.0.1", port)).map(drop));
    let listen = implicit_bind().map_err(std::io::Error::from);
    let ways = [
        ("tcp", plain.map_err(|error| error.to_string())),
        ("tcp-v4-mapped", mapped.map_err(|error| error.to_string())),
        ("mptcp", mptcp(port).map_err(|errno| format!("{errno:?}"))),
        (
            "fastopen",
            send_fastopen(port)
                .map(drop)
                .map_err(|errno| format!("{errno:?}")),
        ),
        ("udp", udp.map_err(|error| error.to_string())),
        ("listen-without-bind", listen.map_err(|error| error.to_string())),
    ];
    for (way, result) in ways {
        match result {
            Ok(()) => println!("{way} effective"),
            Err(why) => println!("{way} refused {why}"),
        }
    }
    ExitCode::SUCCESS
}

fn mptcp(port: u16) -> Result<(), Errno> {
    let socket = call(libc::SYS_socket, &[2, STREAM, IPPROTO_MPTCP])?;
    let target = sockaddr(port);
    call(libc::SYS_connect, &[socket, address(&target), target.len()]).map(drop)
}

/// listen(2) binds to a free port by itself.
fn implicit_bind() -> Result<(), Errno> {
    let socket = call(libc::SYS_socket, &[2, STREAM, 0])?;
    call(libc::SYS_listen, &[socket, 1]).map(drop)
}

/// `attacker abstract NAME`: connects to an abstract socket (CVE-2020-15257).
pub fn connect_abstract(name: &str) -> ExitCode {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    let attempt = || -> Result<(), Errno> {
        let target = UnixAddr::new_abstract(name.as_bytes())?;
        let socket = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        connect(socket.as_raw_fd(), &target)
    };
    say(attempt().map_err(|errno| format!("{errno:?}")))
}
