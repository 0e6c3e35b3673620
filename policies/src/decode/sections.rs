//! The sections of a policy other than `system_calls`.
//!
//! Owns their grammar. Each function reads one section and reports every error in it.

use super::egress;
use super::fields::{
    Fields, boolean, choice, enforce, list, number, origin, path, printable, quoted, scalar, word,
};
use crate::capability::{Capability, CapabilityWord, NAMES, bare};
use crate::confinement::{DeviceAccess, DeviceKind, MountSource, NetworkMode, PortRange, UserNamespace};
use crate::diagnostics::Report;
use crate::model::{
    Capabilities, DeviceEntry, DeviceSubject, Enforce, Files, Limit, LimitSet, MountEntry, Network,
    PathEntry, PathList, PortEntry, Ports, Process, Rules, Scope, ScopeEntry, Sited,
};
use crate::units;
use crate::yaml::{Kind, Node};

/// The most TCP ports one policy may list: each becomes a landlock rule in kernel memory.
const PORTS_MAX: usize = 1024;

/// The newest landlock ABI of which this version of the language knows the rights.
const LANDLOCK_ABI_MAX: u64 = 6;

pub(super) fn take(fields: &mut Fields, rules: &mut Rules, report: &mut Report<'_>) {
    if let Some(node) = fields.take("capabilities", report) {
        rules.capabilities = capabilities(node, report);
    }
    if let Some(node) = fields.take("files", report) {
        rules.files = files(node, report);
    }
    if let Some(node) = fields.take("network", report) {
        network(node, &mut rules.network, report);
    }
    if let Some(node) = fields.take("scope", report) {
        scope(node, &mut rules.scope, report);
    }
    if let Some(node) = fields.take("devices", report) {
        rules.devices = list(node, "devices", report)
            .into_iter()
            .filter_map(|n| device(n, report))
            .collect();
    }
    if let Some(node) = fields.take("limits", report) {
        rules.limits = limit_set(node, report);
    }
    if let Some(node) = fields.take("process", report) {
        process(node, &mut rules.process, report);
    }
    if let Some(node) = fields.take("mounts", report) {
        rules.mounts = list(node, "mounts", report)
            .into_iter()
            .filter_map(|n| mount(n, report))
            .collect();
    }
    if let Some(node) = fields.take("user_namespace", report) {
        let at = origin(&node, report);
        rules.user_namespace =
            choice(&node, "`user_namespace`", &USER_NAMESPACES, report).map(|value| Sited::new(value, at));
    }
}

pub(crate) const USER_NAMESPACES: [(&str, UserNamespace); 3] = [
    ("host", UserNamespace::Host),
    ("auto", UserNamespace::Auto),
    ("keep-id", UserNamespace::KeepId),
];

pub(crate) fn capability_word(node: &Node, report: &mut Report<'_>) -> Option<Sited<CapabilityWord>> {
    let text = word(node, "a capability", report)?;
    match text.parse() {
        Ok(value) => Some(Sited::new(value, origin(node, report))),
        Err(_) => {
            report
                .error(node.span, format!("unknown capability `{}`", printable(&text)))
                .nearest(&bare(&text), NAMES.into_iter().chain(["ALL"]));
            None
        }
    }
}

pub(super) fn capability(node: &Node, report: &mut Report<'_>) -> Option<Capability> {
    match capability_word(node, report)?.value {
        CapabilityWord::One(capability) => Some(capability),
        CapabilityWord::All => {
            report.error(node.span, "`ALL` where one capability is expected");
            None
        }
    }
}

pub(crate) const CAPABILITIES_KEYS: [&str; 3] = ["allow", "deny", "ambient"];

fn capabilities(node: Node, report: &mut Report<'_>) -> Capabilities {
    let mut section = Capabilities {
        allow: Vec::new(),
        deny: Vec::new(),
        ambient: Vec::new(),
    };
    if matches!(node.kind, Kind::List(_)) {
        section.allow = capability_list(node, report);
        return section;
    }
    let Some(mut fields) = Fields::open(node, "`capabilities`", &CAPABILITIES_KEYS, report) else {
        return section;
    };
    if let Some(node) = fields.take("allow", report) {
        section.allow = capability_list(node, report);
    }
    if let Some(node) = fields.take("deny", report) {
        section.deny = capability_list(node, report);
    }
    if let Some(node) = fields.take("ambient", report) {
        section.ambient = list(node, "capabilities", report)
            .iter()
            .filter_map(|node| Some(Sited::new(capability(node, report)?, origin(node, report))))
            .collect();
    }
    section
}

fn capability_list(node: Node, report: &mut Report<'_>) -> Vec<Sited<CapabilityWord>> {
    list(node, "capabilities", report)
        .iter()
        .filter_map(|node| capability_word(node, report))
        .collect()
}

pub(crate) const FILES_KEYS: [&str; 5] = ["read", "write", "execute", "landlock_abi", "enforce"];

fn files(node: Node, report: &mut Report<'_>) -> Files {
    let mut section = Files {
        unconfined: None,
        abi_min: None,
        read: Vec::new(),
        write: Vec::new(),
        execute: Vec::new(),
    };
    if let Kind::Scalar { text, .. } = &node.kind {
        if text == "unconfined" {
            section.unconfined = Some(origin(&node, report));
        } else {
            report
                .error(
                    node.span,
                    format!("unknown word `{}` for `files`", printable(text)),
                )
                .nearest(text, ["unconfined"]);
        }
        return section;
    }
    let Some(mut fields) = Fields::open(node, "`files`", &FILES_KEYS, report) else {
        return section;
    };
    let otherwise = enforce(&mut fields, Enforce::Required, report);
    if let Some(node) = fields.take("landlock_abi", report) {
        let at = origin(&node, report);
        section.abi_min = number(&node, "`landlock_abi`", LANDLOCK_ABI_MAX, report)
            .map(|abi| Sited::new(u32::try_from(abi).unwrap_or(u32::MAX), at));
    }
    for (name, into) in [
        ("read", &mut section.read),
        ("write", &mut section.write),
        ("execute", &mut section.execute),
    ] {
        if let Some(node) = fields.take(name, report) {
            *into = list(node, "paths", report)
                .into_iter()
                .filter_map(|node| path_entry(node, otherwise, report))
                .collect();
        }
    }
    section
}

pub(crate) const PATH_KEYS: [&str; 3] = ["path", "optional", "enforce"];

fn path_entry(node: Node, otherwise: Enforce, report: &mut Report<'_>) -> Option<PathEntry> {
    let at = origin(&node, report);
    if matches!(node.kind, Kind::Scalar { .. }) {
        let path = path(&node, "a path", false, report)?;
        return Some(PathEntry {
            path,
            optional: false,
            enforce: otherwise,
            origin: at,
        });
    }
    let mut fields = Fields::open(node, "a path rule", &PATH_KEYS, report)?;
    let path = fields
        .need("path", "a path rule", report)
        .and_then(|n| path(&n, "a path", false, report));
    let optional = fields
        .take("optional", report)
        .and_then(|n| boolean(&n, "`optional`", report));
    let enforce = enforce(&mut fields, otherwise, report);
    Some(PathEntry {
        path: path?,
        optional: optional.unwrap_or(false),
        enforce,
        origin: at,
    })
}

pub(crate) const NETWORK_KEYS: [&str; 8] = [
    "mode", "bind", "connect", "udp", "icmp", "egress", "peers", "enforce",
];

pub(crate) const NETWORK_MODES: [(&str, NetworkMode); 3] = [
    ("none", NetworkMode::None),
    ("host", NetworkMode::Host),
    ("bridge", NetworkMode::Bridge),
];

pub(crate) fn network_mode(node: &Node, report: &mut Report<'_>) -> Option<NetworkMode> {
    choice(node, "a network mode", &NETWORK_MODES, report)
}

fn network(node: Node, section: &mut Network, report: &mut Report<'_>) {
    let Some(mut fields) = Fields::open(node, "`network`", &NETWORK_KEYS, report) else {
        return;
    };
    let otherwise = enforce(&mut fields, Enforce::Required, report);
    if let Some(node) = fields.take("mode", report) {
        let at = origin(&node, report);
        section.mode = network_mode(&node, report).map(|mode| Sited::new(mode, at));
    }
    if let Some(node) = fields.take("bind", report) {
        section.bind = ports(node, otherwise, report);
    }
    if let Some(node) = fields.take("connect", report) {
        section.connect = ports(node, otherwise, report);
    }
    section.udp = flag(&mut fields, "udp", report);
    section.icmp = flag(&mut fields, "icmp", report);
    section.egress = fields
        .take("egress", report)
        .map(|node| egress::decode(node, report));
    section.peers = fields
        .take("peers", report)
        .map(|node| egress::peers(node, report));
}

fn flag(fields: &mut Fields, name: &str, report: &mut Report<'_>) -> Option<Sited<bool>> {
    let node = fields.take(name, report)?;
    let at = origin(&node, report);
    boolean(&node, &format!("`{name}`"), report).map(|value| Sited::new(value, at))
}

pub(crate) fn port_ranges(node: Node, report: &mut Report<'_>) -> Vec<PortRange> {
    list(node, "ports", report)
        .iter()
        .filter_map(|node| port_range(node, report))
        .map(|(first, last)| PortRange { first, last })
        .collect()
}

fn ports(node: Node, otherwise: Enforce, report: &mut Report<'_>) -> Ports {
    let mut ports = Ports {
        any: None,
        entries: Vec::new(),
    };
    if let Kind::Scalar { text, .. } = &node.kind
        && text == "any"
    {
        ports.any = Some(origin(&node, report));
        return ports;
    }
    let span = node.span;
    ports.entries = list(node, "ports", report)
        .into_iter()
        .filter_map(|node| port(node, otherwise, report))
        .collect();
    let count: usize = ports
        .entries
        .iter()
        .map(|entry| usize::from(entry.last - entry.first) + 1)
        .sum();
    if count > PORTS_MAX {
        report
            .error(span, format!("{count} ports, which is more than {PORTS_MAX}"))
            .help("write `any`, or fewer");
    }
    ports
}

pub(crate) const PORT_KEYS: [&str; 2] = ["port", "enforce"];

fn port(node: Node, otherwise: Enforce, report: &mut Report<'_>) -> Option<PortEntry> {
    let at = origin(&node, report);
    let (first, last, enforce) = if matches!(node.kind, Kind::Scalar { .. }) {
        let (first, last) = port_range(&node, report)?;
        (first, last, otherwise)
    } else {
        let mut fields = Fields::open(node, "a port rule", &PORT_KEYS, report)?;
        let range = fields
            .need("port", "a port rule", report)
            .and_then(|node| port_range(&node, report));
        let enforce = enforce(&mut fields, otherwise, report);
        let (first, last) = range?;
        (first, last, enforce)
    };
    Some(PortEntry {
        first,
        last,
        enforce,
        origin: at,
    })
}

/// `1883` or `8000-8010`. Port 0 is allowed: to bind it is to let the kernel choose.
pub(crate) fn port_range(node: &Node, report: &mut Report<'_>) -> Option<(u16, u16)> {
    let text = scalar(node, "a port", report)?;
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    let read = |part: &str| units::integer(part).and_then(|n| u16::try_from(n).ok());
    match (read(first), read(last)) {
        (Some(first), Some(last)) if first <= last => Some((first, last)),
        _ => {
            report
                .error(node.span, format!("`{}` is not a TCP port", printable(&text)))
                .help("write a number up to 65535, or a range such as `8000-8010`");
            None
        }
    }
}

pub(crate) const SCOPE_KEYS: [&str; 3] = ["signals", "abstract_sockets", "enforce"];

fn scope(node: Node, section: &mut Scope, report: &mut Report<'_>) {
    let Some(mut fields) = Fields::open(node, "`scope`", &SCOPE_KEYS, report) else {
        return;
    };
    let otherwise = enforce(&mut fields, Enforce::Required, report);
    let signals = fields.take("signals", report);
    section.signals = signals.and_then(|node| scope_entry(&node, otherwise, report));
    let sockets = fields.take("abstract_sockets", report);
    section.abstract_sockets = sockets.and_then(|node| scope_entry(&node, otherwise, report));
}

fn scope_entry(node: &Node, enforce: Enforce, report: &mut Report<'_>) -> Option<ScopeEntry> {
    let confined = choice(node, "a scope", &[("confined", true), ("open", false)], report)?;
    Some(ScopeEntry {
        confined,
        enforce,
        origin: origin(node, report),
    })
}

pub(crate) const DEVICE_KEYS: [&str; 5] = ["path", "type", "major", "minor", "access"];

pub(crate) const DEVICE_KINDS: [(&str, DeviceKind); 3] = [
    ("char", DeviceKind::Char),
    ("block", DeviceKind::Block),
    ("all", DeviceKind::All),
];

fn device(node: Node, report: &mut Report<'_>) -> Option<DeviceEntry> {
    let at = origin(&node, report);
    if let Kind::Scalar { text, .. } = &node.kind {
        let subject = match text.as_str() {
            "standard" => DeviceSubject::Standard,
            "all" => DeviceSubject::All,
            _ => DeviceSubject::Path(device_path(&node, report)?),
        };
        let mknod = subject == DeviceSubject::All;
        return Some(DeviceEntry {
            subject,
            access: DeviceAccess {
                read: true,
                write: true,
                mknod,
            },
            origin: at,
        });
    }
    let span = node.span;
    let mut fields = Fields::open(node, "a device rule", &DEVICE_KEYS, report)?;
    let granted = match fields.take("access", report) {
        Some(node) => access(&node, report)?,
        None => DeviceAccess {
            read: true,
            write: true,
            mknod: false,
        },
    };
    let path = fields.take("path", report);
    let kind = fields.take("type", report);
    let major = fields.take("major", report);
    let minor = fields.take("minor", report);
    let subject = match (path, kind) {
        (Some(path), None) if major.is_none() && minor.is_none() => {
            DeviceSubject::Path(device_path(&path, report)?)
        }
        (None, Some(kind)) => {
            let kind = choice(&kind, "a device type", &DEVICE_KINDS, report);
            let major = device_number(major, "`major`", report);
            let minor = device_number(minor, "`minor`", report);
            DeviceSubject::Numbers {
                kind: kind?,
                major: major?,
                minor: minor?,
            }
        }
        _ => {
            report
                .error(span, "a device rule names its devices in exactly one way")
                .help("give `path`, or `type` with `major` and `minor`");
            return None;
        }
    };
    Some(DeviceEntry {
        subject,
        access: granted,
        origin: at,
    })
}

fn device_path(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let path = path(node, "a device's path", true, report)?;
    if !path.starts_with("/dev/") {
        report
            .error(
                node.span,
                format!("`{}` is not a device's path", printable(&path)),
            )
            .help(
                "device paths start with `/dev/`; the words `standard` and `all` may stand instead of a path",
            );
        return None;
    }
    Some(path)
}

/// A number, or `*` (also when absent) for every one; the outer `None` is an error.
fn device_number(node: Option<Node>, what: &str, report: &mut Report<'_>) -> Option<Option<u32>> {
    let Some(node) = node else { return Some(None) };
    if matches!(&node.kind, Kind::Scalar { text, .. } if text == "*") {
        return Some(None);
    }
    number(&node, what, u64::from(u32::MAX), report).map(|n| u32::try_from(n).ok())
}

/// Letters of `rwm`, each once.
pub(crate) fn access(node: &Node, report: &mut Report<'_>) -> Option<DeviceAccess> {
    let text = scalar(node, "an access", report)?;
    let granted = crate::request::device_access(&text);
    if granted.is_none() {
        report
            .error(node.span, format!("`{}` is not an access", printable(&text)))
            .help("write some of `r` (read), `w` (write) and `m` (make the node)");
    }
    granted
}

pub(crate) const LIMIT_KEYS: [&str; 7] = ["memory", "swap", "cpu", "pids", "files", "io", "tmpfs"];

pub(crate) fn limit_set(node: Node, report: &mut Report<'_>) -> LimitSet {
    let mut limits = LimitSet::none();
    let Some(mut fields) = Fields::open(node, "`limits`", &LIMIT_KEYS, report) else {
        return limits;
    };
    let plain = [
        (
            Limit::Memory,
            "memory",
            "a size such as `64MiB`",
            units::bytes as fn(&str) -> Option<u64>,
        ),
        (Limit::Swap, "swap", "a size such as `64MiB`", units::bytes),
        (
            Limit::Cpu,
            "cpu",
            "processors such as `0.5` or `500m`",
            units::cpu_millis,
        ),
        (Limit::Pids, "pids", "a number", units::integer),
        (Limit::Files, "files", "a number", units::integer),
        (Limit::Tmpfs, "tmpfs", "a size such as `16MiB`", units::bytes),
    ];
    for (limit, name, what, read) in plain {
        if let Some(node) = fields.take(name, report) {
            take_limit(&mut limits, limit, &node, what, read, report);
        }
    }
    if let Some(mut io) = fields
        .take("io", report)
        .and_then(|node| Fields::open(node, "`io`", &["read", "write"], report))
    {
        for (limit, name) in [(Limit::IoRead, "read"), (Limit::IoWrite, "write")] {
            if let Some(node) = io.take(name, report) {
                take_limit(
                    &mut limits,
                    limit,
                    &node,
                    "bytes per second such as `1MiB`",
                    units::bytes,
                    report,
                );
            }
        }
    }
    limits
}

/// The least memory a container can start in; below it the kernel kills the starting process and the cause is hard to see.
const MEMORY_MIN: u64 = 6 << 20;

fn take_limit(
    limits: &mut LimitSet,
    limit: Limit,
    node: &Node,
    what: &str,
    read: fn(&str) -> Option<u64>,
    report: &mut Report<'_>,
) {
    let Some(text) = scalar(node, what, report) else {
        return;
    };
    let at = origin(node, report);
    if text == "unlimited" {
        limits.set(limit, Sited::new(None, at));
        return;
    }
    match read(&text) {
        Some(value) if limit == Limit::Memory && value < MEMORY_MIN => {
            report
                .error(
                    node.span,
                    format!("`{}` is too little memory to start anything", printable(&text)),
                )
                .help("the least is 6MiB, as with Docker");
        }
        Some(0) if matches!(limit, Limit::Pids | Limit::Files | Limit::IoRead | Limit::IoWrite) => {
            report
                .error(node.span, "0 would stop the container from starting")
                .help("leave the limit out instead");
        }
        Some(value) => limits.set(limit, Sited::new(Some(value), at)),
        None => {
            report
                .error(node.span, format!("`{}` is not a quantity", printable(&text)))
                .help(format!("write {what}, or `unlimited`"));
        }
    }
}

pub(crate) const PROCESS_KEYS: [&str; 6] = [
    "user",
    "no_new_privileges",
    "read_only_root",
    "umask",
    "masked_paths",
    "read_only_paths",
];

fn process(node: Node, section: &mut Process, report: &mut Report<'_>) {
    let Some(mut fields) = Fields::open(node, "`process`", &PROCESS_KEYS, report) else {
        return;
    };
    section.user = fields.take("user", report).and_then(|node| user(&node, report));
    section.no_new_privileges = flag(&mut fields, "no_new_privileges", report);
    section.read_only_root = flag(&mut fields, "read_only_root", report);
    if let Some(node) = fields.take("umask", report) {
        let at = origin(&node, report);
        if let Some(text) = scalar(&node, "a umask", report) {
            match units::octal(&text) {
                Some(mask) => section.umask = Some(Sited::new(mask, at)),
                None => {
                    report
                        .error(node.span, format!("`{}` is not a umask", printable(&text)))
                        .help("write up to four octal digits, such as `0022`");
                }
            }
        }
    }
    section.masked_paths = fields
        .take("masked_paths", report)
        .and_then(|node| path_list(node, report));
    section.read_only_paths = fields
        .take("read_only_paths", report)
        .and_then(|node| path_list(node, report));
}

/// `user[:group]`, each a name or a number; the image's files say which numbers names are.
fn user(node: &Node, report: &mut Report<'_>) -> Option<Sited<String>> {
    let text = word(node, "a user", report)?;
    let well_formed = |part: &str| {
        !part.is_empty()
            && part.len() <= 64
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '$'))
            && !part.starts_with('-')
    };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text.as_str(), None),
    };
    if !well_formed(user) || !group.is_none_or(well_formed) {
        report
            .error(node.span, format!("`{}` is not a user", printable(&text)))
            .help("write `user`, `user:group`, `1000` or `1000:1000`");
        return None;
    }
    Some(Sited::new(text, origin(node, report)))
}

fn path_list(node: Node, report: &mut Report<'_>) -> Option<PathList> {
    if let Kind::Scalar { text, .. } = &node.kind {
        if text == "none" {
            return Some(PathList::None(origin(&node, report)));
        }
        report
            .error(
                node.span,
                format!("unknown word `{}` for a list of paths", printable(text)),
            )
            .help("write a list of paths, which may hold the word `standard`, or `none`");
        return None;
    }
    let mut paths = Vec::new();
    for node in list(node, "paths", report) {
        let standard = matches!(&node.kind, Kind::Scalar { text, .. } if text == "standard");
        let text = if standard {
            Some("standard".to_owned())
        } else {
            path(&node, "a path", false, report)
        };
        paths.extend(text.map(|text| Sited::new(text, origin(&node, report))));
    }
    Some(PathList::These(paths))
}

pub(crate) const MOUNT_KEYS: [&str; 5] = ["bind", "volume", "tmpfs", "target", "read_only"];

fn mount(node: Node, report: &mut Report<'_>) -> Option<MountEntry> {
    let at = origin(&node, report);
    let span = node.span;
    let mut fields = Fields::open(node, "a mount", &MOUNT_KEYS, report)?;
    let target = fields
        .need("target", "a mount", report)
        .and_then(|n| path(&n, "a path", false, report));
    let read_only = fields
        .take("read_only", report)
        .and_then(|n| boolean(&n, "`read_only`", report));
    let bind = fields.take("bind", report);
    let volume = fields.take("volume", report);
    let tmpfs = fields.take("tmpfs", report);
    let source = match (bind, volume, tmpfs) {
        (Some(node), None, None) => MountSource::Bind(path(&node, "a path of the host", false, report)?),
        (None, Some(node), None) => MountSource::Volume(super::policy_name(&node, report)?),
        (None, None, Some(node)) => {
            let text = scalar(&node, "a size", report)?;
            let size = units::bytes(&text).filter(|size| *size > 0);
            if size.is_none() && text != "default" {
                report
                    .error(node.span, format!("`{}` is not a size", printable(&text)))
                    .help("write a size such as `16MiB`, or `default` for `limits.tmpfs`");
                return None;
            }
            MountSource::Tmpfs(size)
        }
        _ => {
            report
                .error(span, "a mount has exactly one source")
                .help(format!("give one of {}", quoted(&["bind", "volume", "tmpfs"])));
            return None;
        }
    };
    let target = target?;
    if target == "/" {
        report
            .error(span, "a mount over the root")
            .help("choose a folder below `/`");
        return None;
    }
    Some(MountEntry {
        source,
        target,
        read_only: read_only.unwrap_or(false),
        origin: at,
    })
}
