//! Policies and confinements as text.
//!
//! Owns two forms: the canonical text of a composed policy, which is YAML again, means the same and is what its digest is taken over; and a
//! summary of a [`Confinement`] for people. Neither contains places or comments.

use std::fmt::Write;

use crate::capability::names_of;
use crate::compile::landlock::{READ, RUN};
use crate::compile::{MASKED_PATHS, READ_ONLY_PATHS, landlock, paths};
use crate::compose::Composed;
use crate::confinement::{
    Confinement, Destination, DeviceAccess, DeviceKind, Landlock, MountSource, NetworkMode, PortRange, Reach,
    Seccomp, UserNamespace,
};
use crate::constants::errno_name;
use crate::egress;
use crate::model::{
    CallRule, CallSubject, Condition, DeviceSubject, Enforce, LIMITS, Limit, Operator, PathEntry, Ports,
    Width,
};

/// The canonical text: the same for policies that mean the same rules, whatever documents they were spread over.
///
/// It is a policy without `extends` that parses and compiles to the same confinement.
pub fn canonical(policy: &Composed) -> String {
    let mut out = String::new();
    line(&mut out, 0, "kakoi: 1");
    line(&mut out, 0, &format!("name: {}", quote(&policy.name)));
    capabilities(&mut out, policy);
    calls(&mut out, policy);
    files(&mut out, policy);
    network(&mut out, policy);
    scope(&mut out, policy);
    devices(&mut out, policy);
    limits(&mut out, policy);
    process(&mut out, policy);
    mounts(&mut out, policy);
    let namespace = match policy.user_namespace() {
        UserNamespace::Host => "host",
        UserNamespace::Auto => "auto",
        UserNamespace::KeepId => "keep-id",
    };
    line(&mut out, 0, &format!("user_namespace: {namespace}"));
    out
}

fn line(out: &mut String, indent: usize, text: &str) {
    let _infallible: std::fmt::Result = writeln!(out, "{:indent$}{text}", "");
}

/// Text as a double-quoted scalar wherever a plain one could be read as something else.
fn quote(text: &str) -> String {
    let plain = !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.' | '-'))
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && !["y", "yes", "n", "no", "on", "off", "true", "false", "null"]
            .contains(&text.to_lowercase().as_str());
    if plain {
        return text.to_owned();
    }
    serde_json::to_string(text).expect("a string is valid JSON")
}

fn capabilities(out: &mut String, policy: &Composed) {
    let allow: Vec<&str> = policy.capabilities.keys().map(|c| c.name()).collect();
    line(out, 0, "capabilities:");
    line(out, 2, &format!("allow: [{}]", allow.join(", ")));
    let mut ambient: Vec<&str> = policy
        .rules
        .capabilities
        .ambient
        .iter()
        .filter(|ambient| policy.capabilities.contains_key(&ambient.value))
        .map(|ambient| ambient.value.name())
        .collect();
    ambient.sort_unstable();
    ambient.dedup();
    line(out, 2, &format!("ambient: [{}]", ambient.join(", ")));
}

fn calls(out: &mut String, policy: &Composed) {
    let calls = &policy.rules.calls;
    if calls.unconfined.is_some() {
        line(out, 0, "system_calls: unconfined");
        return;
    }
    line(out, 0, "system_calls:");
    for (name, rules) in [("allow", &calls.allow), ("deny", &calls.deny)] {
        if rules.is_empty() {
            line(out, 2, &format!("{name}: []"));
            continue;
        }
        line(out, 2, &format!("{name}:"));
        for rule in rules {
            line(out, 4, &format!("- {}", call_rule(rule)));
        }
    }
}

fn call_rule(rule: &CallRule) -> String {
    let mut fields = vec![match &rule.subject {
        CallSubject::Group(group) => format!("group: \"{group}\""),
        CallSubject::Names(names) => format!("names: [{}]", names.join(", ")),
    }];
    if !rule.when.is_empty() {
        let conditions: Vec<String> = rule.when.iter().map(condition).collect();
        fields.push(format!("when: [{}]", conditions.join(", ")));
    }
    if let Some(errno) = rule.errno {
        fields.push(format!("errno: {}", errno_name(errno)));
    }
    if !rule.log {
        fields.push("log: false".to_owned());
    }
    for (name, set) in [
        ("if_capability", &rule.if_capabilities),
        ("unless_capability", &rule.unless_capabilities),
    ] {
        if !set.is_empty() {
            let names: Vec<&str> = set.iter().map(|c| c.name()).collect();
            fields.push(format!("{name}: [{}]", names.join(", ")));
        }
    }
    fields.extend(best_effort(rule.enforce));
    format!("{{{}}}", fields.join(", "))
}

fn best_effort(enforce: Enforce) -> Option<String> {
    (enforce == Enforce::BestEffort).then(|| "enforce: best_effort".to_owned())
}

fn condition(condition: &Condition) -> String {
    let (word, mask) = match condition.operator {
        Operator::Eq => ("eq", None),
        Operator::Ne => ("ne", None),
        Operator::Lt => ("lt", None),
        Operator::Le => ("le", None),
        Operator::Gt => ("gt", None),
        Operator::Ge => ("ge", None),
        Operator::MaskedEq(mask) => ("masked_eq", Some(mask)),
    };
    let mask = mask.map(|mask| format!(", mask: {mask:#x}")).unwrap_or_default();
    let width = match condition.width {
        Width::Low32 => 32,
        Width::Full64 => 64,
    };
    let (argument, value) = (condition.argument, condition.value);
    format!("{{argument: {argument}, is: {word}, value: {value:#x}{mask}, width: {width}}}")
}

fn files(out: &mut String, policy: &Composed) {
    let files = &policy.rules.files;
    if files.unconfined.is_some() {
        line(out, 0, "files: unconfined");
        return;
    }
    line(out, 0, "files:");
    if let Some(min) = &files.abi_min {
        line(out, 2, &format!("landlock_abi: {}", min.value));
    }
    for (name, entries) in [
        ("read", &files.read),
        ("write", &files.write),
        ("execute", &files.execute),
    ] {
        let entries: Vec<String> = entries.iter().map(path_entry).collect();
        line(out, 2, &format!("{name}: [{}]", entries.join(", ")));
    }
}

fn path_entry(entry: &PathEntry) -> String {
    let mut fields = vec![format!("path: {}", quote(&entry.path))];
    if entry.optional {
        fields.push("optional: true".to_owned());
    }
    fields.extend(best_effort(entry.enforce));
    format!("{{{}}}", fields.join(", "))
}

fn network(out: &mut String, policy: &Composed) {
    let network = &policy.rules.network;
    line(out, 0, "network:");
    line(out, 2, &format!("mode: {}", mode_word(policy.network_mode())));
    line(out, 2, &format!("bind: {}", ports(&network.bind)));
    line(out, 2, &format!("connect: {}", ports(&network.connect)));
    let on = |flag: &Option<crate::model::Sited<bool>>| flag.as_ref().is_some_and(|flag| flag.value);
    line(out, 2, &format!("udp: {}", on(&network.udp)));
    line(out, 2, &format!("icmp: {}", on(&network.icmp)));
    let Some((entries, peers, _)) = egress::bounds(network) else {
        return;
    };
    let entries: Vec<String> = entries
        .iter()
        .map(|entry| destination(&entry.destination))
        .collect();
    line(out, 2, &format!("egress: [{}]", entries.join(", ")));
    line(out, 2, &format!("peers: [{}]", peers.join(", ")));
}

fn destination(destination: &Destination) -> String {
    let mut fields = vec![format!("to: {}", quote(&destination.to.to_string()))];
    fields.extend(
        destination
            .transport
            .map(|transport| format!("protocol: {transport}")),
    );
    if !destination.ports.is_empty() {
        let ports: Vec<String> = destination.ports.iter().map(PortRange::to_string).collect();
        fields.push(format!("ports: [{}]", ports.join(", ")));
    }
    format!("{{{}}}", fields.join(", "))
}

fn mode_word(mode: NetworkMode) -> &'static str {
    match mode {
        NetworkMode::None => "none",
        NetworkMode::Host => "host",
        NetworkMode::Bridge => "bridge",
    }
}

fn ports(ports: &Ports) -> String {
    if ports.any.is_some() {
        return "any".to_owned();
    }
    let entries: Vec<String> = ports
        .entries
        .iter()
        .map(|entry| {
            let range = if entry.first == entry.last {
                entry.first.to_string()
            } else {
                format!("{}-{}", entry.first, entry.last)
            };
            match best_effort(entry.enforce) {
                Some(best) => format!("{{port: {range}, {best}}}"),
                None => range,
            }
        })
        .collect();
    format!("[{}]", entries.join(", "))
}

fn scope(out: &mut String, policy: &Composed) {
    let scope = &policy.rules.scope;
    let mut enforce = Enforce::BestEffort;
    let mut lines = Vec::new();
    for (name, entry) in [
        ("signals", &scope.signals),
        ("abstract_sockets", &scope.abstract_sockets),
    ] {
        if entry
            .as_ref()
            .is_some_and(|entry| entry.enforce == Enforce::Required)
        {
            enforce = Enforce::Required;
        }
        let word = if landlock::confined(entry.as_ref()) {
            "confined"
        } else {
            "open"
        };
        lines.push(format!("{name}: {word}"));
    }
    line(out, 0, "scope:");
    if let Some(best) = best_effort(enforce) {
        line(out, 2, &best);
    }
    lines.iter().for_each(|text| line(out, 2, text));
}

fn devices(out: &mut String, policy: &Composed) {
    if policy.rules.devices.is_empty() {
        line(out, 0, "devices: []");
        return;
    }
    line(out, 0, "devices:");
    for entry in &policy.rules.devices {
        let access = access_word(entry.access);
        let text = match &entry.subject {
            DeviceSubject::Standard => "standard".to_owned(),
            DeviceSubject::All => "all".to_owned(),
            DeviceSubject::Path(path) => format!("{{path: {}, access: {access}}}", quote(path)),
            DeviceSubject::Numbers { kind, major, minor } => {
                let kind = match kind {
                    DeviceKind::All => "all",
                    DeviceKind::Char => "char",
                    DeviceKind::Block => "block",
                };
                let number = |n: &Option<u32>| n.map_or_else(|| "\"*\"".to_owned(), |n| n.to_string());
                let (major, minor) = (number(major), number(minor));
                format!("{{type: {kind}, major: {major}, minor: {minor}, access: {access}}}")
            }
        };
        line(out, 2, &format!("- {text}"));
    }
}

pub(crate) fn access_word(access: DeviceAccess) -> String {
    [(access.read, 'r'), (access.write, 'w'), (access.mknod, 'm')]
        .into_iter()
        .filter_map(|(set, letter)| set.then_some(letter))
        .collect()
}

fn limits(out: &mut String, policy: &Composed) {
    let mut lines = Vec::new();
    let mut io = Vec::new();
    for (limit, name) in LIMITS {
        let Some(sited) = policy.rules.limits.get(limit) else {
            continue;
        };
        let value = sited
            .value
            .map_or_else(|| "unlimited".to_owned(), |value| limit_text(limit, value));
        match name.strip_prefix("io.") {
            Some(direction) => io.push(format!("{direction}: {value}")),
            None => lines.push(format!("{name}: {value}")),
        }
    }
    if !io.is_empty() {
        lines.push(format!("io: {{{}}}", io.join(", ")));
    }
    if lines.is_empty() {
        line(out, 0, "limits: {}");
        return;
    }
    line(out, 0, "limits:");
    lines.iter().for_each(|text| line(out, 2, text));
}

fn limit_text(limit: Limit, value: u64) -> String {
    match limit {
        Limit::Cpu => format!("{value}m"),
        _ => value.to_string(),
    }
}

fn process(out: &mut String, policy: &Composed) {
    let process = &policy.rules.process;
    line(out, 0, "process:");
    if let Some(user) = &process.user {
        line(out, 2, &format!("user: {}", quote(&user.value)));
    }
    let raises = process.no_new_privileges.as_ref().is_none_or(|set| set.value);
    line(out, 2, &format!("no_new_privileges: {raises}"));
    let read_only = process.read_only_root.as_ref().is_some_and(|set| set.value);
    line(out, 2, &format!("read_only_root: {read_only}"));
    line(out, 2, &format!("umask: \"{:04o}\"", policy.umask()));
    for (name, list, standard) in [
        ("masked_paths", &process.masked_paths, MASKED_PATHS.as_slice()),
        (
            "read_only_paths",
            &process.read_only_paths,
            READ_ONLY_PATHS.as_slice(),
        ),
    ] {
        let paths: Vec<String> = paths(list.as_ref(), standard)
            .iter()
            .map(|path| quote(path))
            .collect();
        line(out, 2, &format!("{name}: [{}]", paths.join(", ")));
    }
}

fn mounts(out: &mut String, policy: &Composed) {
    if policy.rules.mounts.is_empty() {
        line(out, 0, "mounts: []");
        return;
    }
    line(out, 0, "mounts:");
    for mount in &policy.rules.mounts {
        let source = match &mount.source {
            MountSource::Bind(path) => format!("bind: {}", quote(path)),
            MountSource::Volume(name) => format!("volume: {}", quote(name)),
            MountSource::Tmpfs(size) => {
                format!(
                    "tmpfs: {}",
                    size.map_or_else(|| "default".to_owned(), |size| size.to_string())
                )
            }
        };
        let target = quote(&mount.target);
        line(
            out,
            2,
            &format!("- {{{source}, target: {target}, read_only: {}}}", mount.read_only),
        );
    }
}

/// A summary of what is applied, one fact a line, for `kakoi policy show` and `kakoi inspect`.
pub fn summary(confinement: &Confinement) -> String {
    let mut out = String::new();
    let mut say = |text: String| line(&mut out, 0, &text);
    let c = confinement;
    say(format!(
        "policy            {} ({})",
        c.policy.name,
        c.policy.sha256.get(..12).unwrap_or_default()
    ));
    say(format!("user              {}:{}", c.identity.uid, c.identity.gid));
    say(format!("no new privileges {}", c.no_new_privileges));
    say(format!(
        "capabilities      {}",
        or_none(&names_of(c.capabilities.bounding))
    ));
    if c.capabilities.effective != c.capabilities.bounding {
        say(format!(
            "  in effect       {}",
            or_none(&names_of(c.capabilities.effective))
        ));
    }
    match &c.seccomp {
        Seccomp::Unconfined => say("system calls      unconfined".to_owned()),
        Seccomp::Filters(filters) => {
            for filter in filters {
                let logged = if filter.log { ", refusals logged" } else { "" };
                let length = filter.program.len();
                say(format!(
                    "system calls      filter `{}`, {length} instructions{logged}",
                    filter.purpose
                ));
            }
        }
    }
    match &c.landlock {
        Landlock::Unconfined => say("files             unconfined by landlock".to_owned()),
        Landlock::Ruleset(ruleset) => {
            say(format!("landlock          ABI {}", ruleset.abi));
            for rule in &ruleset.paths {
                say(format!("  {:<15} {}", rights_word(rule.access), rule.path));
            }
            for rule in &ruleset.ports {
                let word = if rule.access & 1 != 0 { "bind" } else { "connect" };
                say(format!("  {word:<15} TCP port {}", rule.port));
            }
        }
    }
    say(format!("network           {}", mode_word(c.network)));
    if let Reach::Only { destinations, peers } = &c.reach {
        for destination in destinations {
            say(format!("reaches           {destination}"));
        }
        let peers = if peers.is_empty() {
            "no container".to_owned()
        } else {
            peers.join(", ")
        };
        say(format!("talks to          {peers}"));
    }
    say(format!("devices           {} rules", c.devices.len()));
    for loss in &c.losses {
        say(format!("not enforced      {}: {}", loss.rule, loss.fact));
    }
    out
}

pub(crate) fn rights_word(access: u64) -> String {
    let mut words = Vec::new();
    if access & READ != 0 {
        words.push("read");
    }
    if access & landlock::WRITE_FILE != 0 {
        words.push("write");
    }
    if access & RUN & landlock::EXECUTE != 0 {
        words.push("execute");
    }
    words.join(" ")
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(" ")
    }
}
