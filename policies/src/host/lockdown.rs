//! `lockdown`: the interfaces of the device that are open. What is not written is closed.
//!
//! Owns the grammar and its limits. Refuses to know how anything is closed. Invariant: `any` is the only word that opens a whole section, and a
//! section that is absent opens nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::decode::fields::{Fields, boolean, choice, list, path, printable, scalar, word};
use crate::diagnostics::Report;
use crate::units;
use crate::yaml::{Kind, Node};

/// Entries of one section: no gateway has more interfaces of a kind.
const ENTRIES_MAX: usize = 128;
/// Between two looks at everything: more often wears the processor, more seldom is none.
const CHECK_EVERY_MS: std::ops::RangeInclusive<u64> = 5_000..=3_600_000;
const CHECK_EVERY_OTHERWISE_MS: u64 = 60_000;

const KEYS: [&str; 15] = [
    "on_drift",
    "report_only",
    "check_every",
    "ports",
    "ping",
    "usb",
    "media",
    "consoles",
    "radios",
    "links",
    "services",
    "close_services",
    "kernel",
    "sysctl",
    "mounts",
];

/// Sections by name, as `report_only` lists them and as the items of a status begin.
pub const SECTIONS: [(&str, Section); 9] = [
    ("ports", Section::Ports),
    ("usb", Section::Usb),
    ("media", Section::Media),
    ("consoles", Section::Consoles),
    ("radios", Section::Radios),
    ("links", Section::Links),
    ("services", Section::Services),
    ("kernel", Section::Kernel),
    ("mounts", Section::Mounts),
];

/// A part of the lockdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Section {
    /// Listening ports.
    Ports,
    /// USB devices.
    Usb,
    /// Removable media.
    Media,
    /// Consoles on which somebody can log in.
    Consoles,
    /// Radios.
    Radios,
    /// Network interfaces.
    Links,
    /// Services that listen or steer the device.
    Services,
    /// Doors of the kernel.
    Kernel,
    /// Options of mounts.
    Mounts,
    /// What only hardware decides.
    Hardware,
}

impl Section {
    /// Its name in the document.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            section => {
                let named = SECTIONS.iter().find(|(_, other)| *other == section);
                named.map_or("hardware", |(name, _)| name)
            }
        }
    }
}

/// What of a section is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Open<T> {
    /// Everything: the section is left as it is.
    Any,
    /// These.
    Only(Vec<T>),
}

impl<T> Open<T> {
    /// What is open where not everything is.
    pub fn only(&self) -> Option<&[T]> {
        match self {
            Self::Any => None,
            Self::Only(list) => Some(list),
        }
    }
}

/// Everything that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lockdown {
    /// Whether what somebody changed is changed back, or only told.
    pub corrects: bool,
    /// Sections in which drift is told and never corrected.
    pub report_only: Vec<Section>,
    /// Milliseconds between two looks at everything that tells nothing by itself.
    pub check_every_ms: u64,
    /// Ports that strangers reach.
    pub ports: Open<Port>,
    /// Whether echo requests are answered.
    pub ping: bool,
    /// USB devices that are let in.
    pub usb: Open<Usb>,
    /// Where removable media may be mounted.
    pub media: Open<String>,
    /// Terminals on which one may log in.
    pub consoles: Open<String>,
    /// Kinds of radios that may send.
    pub radios: Open<Radio>,
    /// Network interfaces that may be up; a `*` at the end stands for the rest.
    pub links: Open<String>,
    /// Services that may run.
    pub services: Open<Service>,
    /// Further units that are stopped and masked.
    pub close_services: Vec<String>,
    /// Doors of the kernel that stay as they are.
    pub kernel: Open<Door>,
    /// Further kernel settings, by name and exact value.
    pub sysctl: BTreeMap<String, String>,
    /// Options that a sensitive mount may lack.
    pub mounts: Open<MountAllowance>,
}

/// A port that strangers reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
    /// `tcp` or `udp`.
    pub protocol: Transport,
    /// Interface by which it is reached; every one where absent.
    pub link: Option<String>,
    /// Address and length of the prefix from where it is reached; everywhere where absent.
    pub from: Option<(IpAddr, u8)>,
}

/// A transport that has listening ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// USB devices that are let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Usb {
    /// All whose every interface is of this class, or of another that is listed.
    Class(u8),
    /// One kind of device, or one device.
    Device {
        /// Vendor.
        vendor: u16,
        /// Product.
        product: u16,
        /// Serial number, where it matters.
        serial: Option<String>,
    },
}

/// Classes of USB devices by name. Source: usb.org, Defined Class Codes.
pub const USB_CLASSES: [(&str, u8); 13] = [
    ("audio", 0x01),
    ("cdc", 0x02),
    ("hid", 0x03),
    ("still_image", 0x06),
    ("printer", 0x07),
    ("storage", 0x08),
    ("hub", 0x09),
    ("cdc_data", 0x0a),
    ("smart_card", 0x0b),
    ("video", 0x0e),
    ("wireless", 0xe0),
    ("miscellaneous", 0xef),
    ("vendor", 0xff),
];

/// A kind of radio, as rfkill names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Radio {
    /// IEEE 802.11.
    Wifi,
    /// Bluetooth.
    Bluetooth,
    /// Mobile networks.
    Wwan,
    /// IEEE 802.16.
    Wimax,
    /// Ultra wide band.
    Uwb,
    /// Near field.
    Nfc,
    /// Satellite receivers.
    Gps,
    /// Broadcast receivers.
    Fm,
}

/// Radios: the word here, and `type` in `/sys/class/rfkill`.
pub const RADIOS: [(&str, &str, Radio); 8] = [
    ("wifi", "wlan", Radio::Wifi),
    ("bluetooth", "bluetooth", Radio::Bluetooth),
    ("wwan", "wwan", Radio::Wwan),
    ("wimax", "wimax", Radio::Wimax),
    ("uwb", "ultrawideband", Radio::Uwb),
    ("nfc", "nfc", Radio::Nfc),
    ("gps", "gps", Radio::Gps),
    ("fm", "fm", Radio::Fm),
];

/// A service by the name that people know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// Secure shell.
    Ssh,
    /// Multicast DNS.
    Mdns,
    /// Remote terminals without encryption.
    Telnet,
    /// File transfer.
    Ftp,
    /// Monitoring of networks.
    Snmp,
    /// Portmapper and NFS.
    Nfs,
    /// Windows' file sharing.
    Smb,
    /// Printing.
    Printing,
    /// Bluetooth's daemon.
    Bluetooth,
    /// Modems.
    Modem,
    /// Mounting of media by desktop services.
    Automount,
    /// Remote desktops and web consoles.
    RemoteDesktop,
    /// Super-servers.
    Inetd,
    /// Debuggers and their servers.
    Debug,
}

/// Services by name.
pub const SERVICES: [(&str, Service); 14] = [
    ("ssh", Service::Ssh),
    ("mdns", Service::Mdns),
    ("telnet", Service::Telnet),
    ("ftp", Service::Ftp),
    ("snmp", Service::Snmp),
    ("nfs", Service::Nfs),
    ("smb", Service::Smb),
    ("printing", Service::Printing),
    ("bluetooth", Service::Bluetooth),
    ("modem", Service::Modem),
    ("automount", Service::Automount),
    ("remote_desktop", Service::RemoteDesktop),
    ("inetd", Service::Inetd),
    ("debug", Service::Debug),
];

/// A door of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// Loading of modules.
    ModuleLoading,
    /// Magic system requests.
    Sysrq,
    /// Starting another kernel.
    Kexec,
    /// Looking into processes of the same user.
    Ptrace,
    /// Programs in the kernel from users.
    UnprivilegedBpf,
    /// User namespaces of users.
    UserNamespaces,
    /// Asynchronous rings.
    IoUring,
    /// Performance counters for users.
    Perf,
    /// The kernel's log for users, and its addresses.
    KernelLog,
    /// Writing to the running kernel.
    RawKernel,
    /// Memory images of programs that crash.
    CoreDumps,
    /// The kernel's debugging file system.
    Debugfs,
    /// Page faults handled by users.
    Userfaultfd,
    /// Line disciplines of terminals loaded by users.
    LineDisciplines,
    /// Links and files of others in folders for everybody.
    UnsafeLinks,
    /// A fixed layout of memory.
    FixedLayout,
    /// Redirects, source routes and the like from the network.
    NetworkTricks,
}

/// Doors of the kernel by name.
pub const DOORS: [(&str, Door); 17] = [
    ("module_loading", Door::ModuleLoading),
    ("sysrq", Door::Sysrq),
    ("kexec", Door::Kexec),
    ("ptrace", Door::Ptrace),
    ("unprivileged_bpf", Door::UnprivilegedBpf),
    ("user_namespaces", Door::UserNamespaces),
    ("io_uring", Door::IoUring),
    ("perf", Door::Perf),
    ("kernel_log", Door::KernelLog),
    ("raw_kernel", Door::RawKernel),
    ("core_dumps", Door::CoreDumps),
    ("debugfs", Door::Debugfs),
    ("userfaultfd", Door::Userfaultfd),
    ("line_disciplines", Door::LineDisciplines),
    ("unsafe_links", Door::UnsafeLinks),
    ("fixed_layout", Door::FixedLayout),
    ("network_tricks", Door::NetworkTricks),
];

/// What a sensitive mount may lack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountAllowance {
    /// Where it is mounted.
    pub at: String,
    /// What is allowed there.
    pub allowed: Vec<MountOption>,
}

/// What a mount allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountOption {
    /// Programs.
    Exec,
    /// Set-user-ID bits.
    Suid,
    /// Device nodes.
    Dev,
}

/// Options by name; without it the mount bears `no` and the name.
pub const MOUNT_OPTIONS: [(&str, MountOption); 3] = [
    ("exec", MountOption::Exec),
    ("suid", MountOption::Suid),
    ("dev", MountOption::Dev),
];

pub(super) fn read(node: Node, report: &mut Report<'_>) -> Option<Lockdown> {
    let mut fields = Fields::open(node, "a lockdown", &KEYS, report)?;
    let on_drift = fields.take("on_drift", report);
    let corrects = on_drift.and_then(|node| {
        let words = [("correct", true), ("report", false)];
        choice(&node, "`on_drift`", &words, report)
    });
    let report_only = fields.take("report_only", report);
    let check_every = fields.take("check_every", report);
    let ping = fields.take("ping", report);
    let sysctl = fields.take("sysctl", report);
    let close_services = fields.take("close_services", report);
    Some(Lockdown {
        corrects: corrects.unwrap_or(true),
        report_only: rows(report_only, "sections", report, |node, report| {
            choice(node, "a section", &SECTIONS, report)
        }),
        check_every_ms: check_every
            .and_then(|node| period(&node, report))
            .unwrap_or(CHECK_EVERY_OTHERWISE_MS),
        ports: open(fields.take("ports", report), "ports", report, port),
        ping: ping
            .and_then(|node| boolean(&node, "`ping`", report))
            .unwrap_or(false),
        usb: open(fields.take("usb", report), "USB devices", report, usb),
        media: open(
            fields.take("media", report),
            "mount points",
            report,
            |node, report| path(node, "a mount point", false, report),
        ),
        consoles: open(fields.take("consoles", report), "consoles", report, console),
        radios: open(fields.take("radios", report), "radios", report, radio),
        links: open(fields.take("links", report), "interfaces", report, link_pattern),
        services: open(
            fields.take("services", report),
            "services",
            report,
            |node, report| choice(node, "a service", &SERVICES, report),
        ),
        close_services: rows(close_services, "units", report, unit),
        kernel: open(
            fields.take("kernel", report),
            "doors of the kernel",
            report,
            |node, report| choice(node, "a door of the kernel", &DOORS, report),
        ),
        sysctl: sysctl.map(|node| settings(node, report)).unwrap_or_default(),
        mounts: mounts(fields.take("mounts", report), report),
    })
}

type Read<T> = fn(&Node, &mut Report<'_>) -> Option<T>;

fn rows<T>(node: Option<Node>, what: &str, report: &mut Report<'_>, read: Read<T>) -> Vec<T> {
    let Some(node) = node else {
        return Vec::new();
    };
    let span = node.span;
    let nodes = list(node, what, report);
    if nodes.len() > ENTRIES_MAX {
        report.error(span, format!("more than {ENTRIES_MAX} {what}"));
        return Vec::new();
    }
    nodes.iter().filter_map(|node| read(node, report)).collect()
}

fn is_any(node: &Node) -> bool {
    matches!(&node.kind, Kind::Scalar { text, .. } if text == "any")
}

/// A list, or `any`. Absent opens nothing.
fn open<T>(node: Option<Node>, what: &str, report: &mut Report<'_>, read: Read<T>) -> Open<T> {
    match node {
        Some(node) if is_any(&node) => Open::Any,
        Some(node) if matches!(node.kind, Kind::Scalar { .. }) => {
            let text = scalar(&node, what, report).unwrap_or_default();
            report
                .error(
                    node.span,
                    format!("`{}` where a list of {what} is expected", printable(&text)),
                )
                .help("write `[a, b]`, or `any` to leave all of it open");
            Open::Only(Vec::new())
        }
        node => Open::Only(rows(node, what, report, read)),
    }
}

fn refuse(node: &Node, text: &str, what: &str, help: &str, report: &mut Report<'_>) {
    report
        .error(node.span, format!("`{}` is not {what}", printable(text)))
        .help(help);
}

fn period(node: &Node, report: &mut Report<'_>) -> Option<u64> {
    let text = word(node, "`check_every`", report)?;
    let found = units::duration_ms(&text).filter(|value| CHECK_EVERY_MS.contains(value));
    if found.is_none() {
        refuse(node, &text, "a time between two looks", "write 5s to 1h", report);
    }
    found
}

const PORT_HELP: &str = "write \"22/tcp\", \"5000-5010/udp\", and behind it where it matters \"on eth0\" and \"from 192.0.2.0/24\"";

fn port(node: &Node, report: &mut Report<'_>) -> Option<Port> {
    let text = word(node, "a port", report)?;
    let found = read_port(&text);
    if found.is_none() {
        refuse(node, &text, "a port that can be opened", PORT_HELP, report);
    }
    found
}

fn read_port(text: &str) -> Option<Port> {
    let mut words = text.split_ascii_whitespace();
    let (ports, protocol) = words.next()?.split_once('/')?;
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |text: &str| {
        let value = units::integer(text).and_then(|value| u16::try_from(value).ok());
        value.filter(|port| *port > 0)
    };
    let mut port = Port {
        first: number(first)?,
        last: number(last)?,
        protocol: match protocol {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            _ => return None,
        },
        link: None,
        from: None,
    };
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word {
            "on" if port.link.is_none() && is_link(value) => port.link = Some(value.to_owned()),
            "from" if port.from.is_none() => port.from = Some(network(value)?),
            _ => return None,
        }
    }
    (port.first <= port.last).then_some(port)
}

/// Address and length of the prefix; bits behind it must be zero, or a slip would open more than is seen.
fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let (bits, value) = match address {
        IpAddr::V4(address) => (32, u128::from(u32::from(address)) << 96),
        IpAddr::V6(address) => (128, u128::from(address)),
    };
    let length = match length {
        None => bits,
        Some(text) => u8::try_from(units::integer(text)?)
            .ok()
            .filter(|length| *length <= bits)?,
    };
    let rest = if length == 128 { 0 } else { value << length };
    (rest == 0).then_some((address, length))
}

fn is_link(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 15
        && text != "."
        && text != ".."
        && text
            .chars()
            .all(|c| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '*'))
}

fn link_pattern(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = word(node, "an interface", report)?;
    if !is_link(text.strip_suffix('*').unwrap_or(&text)) {
        let help = "write eth0, or wl* for all whose names begin so; `any` in place of the list for all";
        refuse(node, &text, "an interface's name", help, report);
        return None;
    }
    Some(text)
}

fn usb(node: &Node, report: &mut Report<'_>) -> Option<Usb> {
    let text = word(node, "a USB device", report)?;
    if !text.contains(':') && !text.starts_with("0x") {
        return choice(node, "a class of USB devices", &USB_CLASSES, report).map(Usb::Class);
    }
    let found = read_usb(&text);
    if found.is_none() {
        let help = "write a class (hub, hid, storage, 0x08), \"0403:6001\" for vendor and product, or \"0403:6001:SERIAL\"";
        refuse(node, &text, "a USB device", help, report);
    }
    found
}

fn hex(text: &str, digits: usize) -> Option<u16> {
    let is_good = text.len() == digits && text.chars().all(|c| c.is_ascii_hexdigit());
    is_good.then(|| u16::from_str_radix(text, 16).ok()).flatten()
}

fn read_usb(text: &str) -> Option<Usb> {
    if let Some(class) = text.strip_prefix("0x") {
        return hex(class, 2)
            .and_then(|class| u8::try_from(class).ok())
            .map(Usb::Class);
    }
    let mut parts = text.splitn(3, ':');
    let (vendor, product) = (hex(parts.next()?, 4)?, hex(parts.next()?, 4)?);
    let serial = parts.next().map(str::to_owned);
    let is_good = |serial: &String| {
        !serial.is_empty() && serial.len() <= 126 && serial.chars().all(|c| !c.is_control())
    };
    match serial {
        Some(serial) if !is_good(&serial) => None,
        serial => Some(Usb::Device {
            vendor,
            product,
            serial,
        }),
    }
}

/// `ttyS0`, `tty1`: a file name in `/dev`.
fn console(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = word(node, "a console", report)?;
    let is_good = text.len() <= 32
        && text.len() > 3
        && text.starts_with("tty")
        && text.chars().all(|c| c.is_ascii_alphanumeric());
    if !is_good {
        let help = "write the name of its file in /dev: tty1, ttyS0, ttyAMA0";
        refuse(node, &text, "a console", help, report);
        return None;
    }
    Some(text)
}

fn radio(node: &Node, report: &mut Report<'_>) -> Option<Radio> {
    let words: Vec<(&str, Radio)> = RADIOS.iter().map(|(word, _, radio)| (*word, *radio)).collect();
    choice(node, "a radio", &words, report)
}

fn unit(node: &Node, report: &mut Report<'_>) -> Option<String> {
    const KINDS: [&str; 4] = [".service", ".socket", ".timer", ".path"];
    let text = word(node, "a unit", report)?;
    let is_good = text.len() <= 255
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '\\'))
        && KINDS.iter().any(|kind| text.ends_with(kind))
        && !text.starts_with("kakoi");
    if !is_good {
        let help = "write a unit with its kind: name.service, name.socket, name.timer or name.path; none of Kakoi's own";
        refuse(node, &text, "a unit that can be closed", help, report);
        return None;
    }
    Some(text)
}

fn settings(node: Node, report: &mut Report<'_>) -> BTreeMap<String, String> {
    let span = node.span;
    let Kind::Map(entries) = node.kind else {
        let noun = node.kind.noun();
        report
            .error(span, format!("{noun} where kernel settings are expected"))
            .help("write `sysctl: {kernel.panic: \"10\"}`, or one `name: value` a line");
        return BTreeMap::new();
    };
    if entries.len() > ENTRIES_MAX {
        report.error(span, format!("more than {ENTRIES_MAX} kernel settings"));
        return BTreeMap::new();
    }
    let mut all = BTreeMap::new();
    for (key, node) in entries {
        let is_good = key.text.len() <= 128
            && key.text.contains('.')
            && key.text.split('.').all(|part| {
                !part.is_empty()
                    && part
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
            });
        if !is_good {
            let message = format!("`{}` is not a kernel setting", printable(&key.text));
            report
                .error(key.span, message)
                .help("write it as sysctl(8) does: kernel.panic");
            continue;
        }
        let Some(text) = scalar(&node, "a kernel setting's value", report) else {
            continue;
        };
        if text.is_empty() || text.len() > 256 || text.chars().any(char::is_control) {
            refuse(
                &node,
                &text,
                "a kernel setting's value",
                "write one line, at most 256 characters",
                report,
            );
            continue;
        }
        all.insert(key.text, text);
    }
    all
}

fn mounts(node: Option<Node>, report: &mut Report<'_>) -> Open<MountAllowance> {
    let node = match node {
        None => return Open::Only(Vec::new()),
        Some(node) if is_any(&node) => return Open::Any,
        Some(node) => node,
    };
    let span = node.span;
    let Kind::Map(entries) = node.kind else {
        let noun = node.kind.noun();
        report
            .error(span, format!("{noun} where mounts are expected"))
            .help("write `mounts: {/tmp: [exec]}`, or `any` to leave all of it open");
        return Open::Only(Vec::new());
    };
    let mut all = Vec::new();
    for (key, node) in entries {
        let is_path = key.text.starts_with('/') && !key.text.split('/').any(|part| part == "..");
        if !is_path {
            let message = format!("`{}` is not a mount point", printable(&key.text));
            report.error(key.span, message).help("write an absolute path");
            continue;
        }
        let allowed = rows(Some(node), "options", report, |node, report| {
            choice(node, "what a mount allows", &MOUNT_OPTIONS, report)
        });
        all.push(MountAllowance {
            at: key.text,
            allowed,
        });
    }
    Open::Only(all)
}
