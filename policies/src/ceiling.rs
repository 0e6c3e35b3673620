//! The owner's ceiling: the most that any app on this device may have, whatever its policy or a command line asks for.
//!
//! Owns [`Ceiling`], its grammar (`/etc/kakoi/ceiling.yaml`), the built-in ceiling of a device without that file, and the comparison
//! [`bound`]. Knows nothing of kernels. Invariant: what [`bound`] returns asks for nothing beyond the ceiling; what is too much is an error with
//! a diff, and is taken away only where the owner wrote `on_excess: trim`.

mod limits;
mod neighbours;
mod network;
mod publish;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::capability::{Capability, CapabilityWord};
use crate::compile::landlock::covers;
use crate::compile::plan::{Action, plan};
use crate::compile::{MASKED_PATHS, READ_ONLY_PATHS, paths};
use crate::compose::Composed;
use crate::confinement::{Destination, DeviceKind, Loss, MountSource, NetworkMode};
use crate::decode::fields::{Fields, boolean, choice, list, path};
use crate::decode::{calls, capability_word, limit_set, network_mode, policy_name, version};
use crate::diagnostics::{Diagnostics, Origin, Report};
use crate::model::{CallRule, DeviceSubject, Limit, LimitSet, Sited};
use crate::request::HostNamespace;
use crate::yaml::{self, Kind, Node};

pub use limits::{Bounded, OwnLimits, bound_limits};
pub(crate) use limits::{above, above_one, wanted};
pub use neighbours::{ULIMITS, bound_neighbours};
pub use network::{NetworkExcess, bound_network};

/// The ceiling of a device whose owner wrote none. See its text for what it allows and why.
const BUILT_IN: &str = include_str!("../profiles/ceiling/built-in.yaml");

/// The fields of a ceiling; those of [`neighbours`] come after.
pub(crate) const KEYS: [&str; 17] = [
    "kakoi",
    "default_policy",
    "on_excess",
    "privileged",
    "unconfined",
    "new_privileges",
    "capabilities",
    "system_calls",
    "bind_mounts",
    "network",
    "egress",
    "publish",
    "networks",
    "host_namespaces",
    "devices",
    "limits",
    "cgroup_parents",
];

/// What happens to an app that asks for more than its ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExcess {
    /// It is refused, with a diff.
    Refuse,
    /// It gets less; what it lost stands in the receipt.
    Trim,
}

/// The most that any app may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// The document's name.
    pub file: String,
    /// The policy of containers that name none.
    pub default_policy: Option<String>,
    /// What happens to an app that asks for more.
    pub on_excess: OnExcess,
    privileged: Sited<bool>,
    unconfined: Sited<bool>,
    new_privileges: Sited<bool>,
    capabilities: Sited<BTreeSet<Capability>>,
    calls_denied: Vec<CallRule>,
    bind_mounts: Sited<Vec<BindSource>>,
    network: Sited<Vec<NetworkMode>>,
    /// Where packets of apps may go; `None` is whatever a bridge reaches, which the owner has to say (`any`).
    egress: Option<Sited<Vec<Destination>>>,
    publish: publish::Publish,
    networks: network::Networks,
    host_namespaces: Sited<BTreeSet<HostNamespace>>,
    devices: Sited<Vec<DeviceGrant>>,
    limits: LimitSet,
    neighbours: neighbours::Neighbours,
    /// Control groups below which apps may be put; none where the owner says nothing.
    cgroup_parents: Sited<Vec<String>>,
}

/// A folder of the host below which apps may mount.
#[derive(Clone, Debug, PartialEq, Eq)]
struct BindSource {
    path: String,
    read_only: bool,
}

/// A device that apps may be given.
#[derive(Clone, Debug, PartialEq, Eq)]
enum DeviceGrant {
    All,
    Path(String),
}

impl Ceiling {
    /// Reads an owner's ceiling. What it leaves out is not allowed: a ceiling file replaces the built-in one as a whole.
    ///
    /// # Errors
    /// Every error of the document that can be found at once.
    pub fn parse(name: &str, text: &str) -> Result<Self, Diagnostics> {
        let mut report = Report::new(name, text);
        let ceiling = yaml::read(text, &mut report).and_then(|node| decode(name, node, &mut report));
        match (ceiling, report.finish()) {
            (_, Some(diagnostics)) => Err(diagnostics),
            (Some(ceiling), None) => Ok(ceiling),
            (None, None) => unreachable!("a document that gives no ceiling gives a diagnostic"),
        }
    }

    /// The ceiling of a device whose owner wrote none.
    pub fn built_in() -> Self {
        Self::parse("<built-in ceiling>", BUILT_IN).expect("the built-in ceiling is tested")
    }

    /// The capabilities that any app may have under this ceiling, bit n being number n.
    pub fn capabilities(&self) -> u64 {
        if self.privileged.value {
            return Capability::all().fold(0, |bits, capability| bits | capability.bit());
        }
        self.capabilities
            .value
            .iter()
            .fold(0, |bits, capability| bits | capability.bit())
    }

    /// Whether some app may gain privileges by executing a set-user-ID program.
    pub fn allows_new_privileges(&self) -> bool {
        self.privileged.value || self.new_privileges.value
    }

    /// Whether apps may have a bridge and no packet may leave it: an owner who leaves `egress` out may not have meant that.
    pub fn closes_bridges(&self) -> bool {
        let is_nowhere = self.egress.as_ref().is_some_and(|list| list.value.is_empty());
        is_nowhere && self.network.value.contains(&NetworkMode::Bridge)
    }

    /// The built-in ceiling's text, as a start for the owner's own.
    pub fn built_in_text() -> &'static str {
        BUILT_IN
    }
}

fn decode(name: &str, node: Node, report: &mut Report<'_>) -> Option<Ceiling> {
    let whole = report.origin(node.span);
    let mut fields = Fields::open(
        node,
        "a ceiling",
        &[&KEYS[..], &neighbours::KEYS].concat(),
        report,
    )?;
    version(&mut fields, "a ceiling", report);
    let fields = &mut fields;
    let words = [("refuse", OnExcess::Refuse), ("trim", OnExcess::Trim)];
    let on_excess = fields
        .take("on_excess", report)
        .and_then(|node| choice(&node, "`on_excess`", &words, report));
    let capabilities = section(fields, "capabilities", &whole, report, |node, report| {
        capability_word(node, report).map(|word| word.value)
    });
    let namespaces = section(fields, "host_namespaces", &whole, report, |node, report| {
        choice(node, "a namespace", &HOST_NAMESPACES, report)
    });
    Some(Ceiling {
        file: name.to_owned(),
        default_policy: fields
            .take("default_policy", report)
            .and_then(|node| policy_name(&node, report)),
        on_excess: on_excess.unwrap_or(OnExcess::Refuse),
        privileged: flag(fields, "privileged", &whole, report),
        unconfined: flag(fields, "unconfined", &whole, report),
        new_privileges: flag(fields, "new_privileges", &whole, report),
        capabilities: Sited::new(
            capabilities
                .value
                .into_iter()
                .flat_map(CapabilityWord::expand)
                .collect(),
            capabilities.origin,
        ),
        calls_denied: fields
            .take("system_calls", report)
            .map(|node| denied(node, report))
            .unwrap_or_default(),
        bind_mounts: section(fields, "bind_mounts", &whole, report, bind_source),
        network: section(fields, "network", &whole, report, network_mode),
        egress: match fields.take("egress", report) {
            Some(node) => network::egress(node, report),
            None => Some(Sited::new(Vec::new(), whole.clone())),
        },
        publish: publish::decode(fields, &whole, report),
        networks: network::networks(fields, &whole, report),
        host_namespaces: Sited::new(namespaces.value.into_iter().collect(), namespaces.origin),
        devices: section(fields, "devices", &whole, report, device_grant),
        limits: fields
            .take("limits", report)
            .map_or_else(LimitSet::none, |node| limit_set(node, report)),
        neighbours: neighbours::decode(fields, &whole, report),
        cgroup_parents: section(fields, "cgroup_parents", &whole, report, |node, report| {
            path(node, "a control group", false, report)
        }),
    })
}

/// A field that is `true` or `false`; absent is `false`, for which the whole document stands as the place.
fn flag(fields: &mut Fields, name: &str, whole: &Origin, report: &mut Report<'_>) -> Sited<bool> {
    match fields.take(name, report) {
        Some(node) => {
            let origin = report.origin(node.span);
            Sited::new(
                boolean(&node, &format!("`{name}`"), report).unwrap_or(false),
                origin,
            )
        }
        None => Sited::new(false, whole.clone()),
    }
}

/// A field that is a list; absent is empty.
fn section<T>(
    fields: &mut Fields,
    name: &str,
    whole: &Origin,
    report: &mut Report<'_>,
    mut read: impl FnMut(&Node, &mut Report<'_>) -> Option<T>,
) -> Sited<Vec<T>> {
    match fields.take(name, report) {
        Some(node) => {
            let origin = report.origin(node.span);
            let nodes = list(node, "entries", report);
            Sited::new(
                nodes.iter().filter_map(|node| read(node, report)).collect(),
                origin,
            )
        }
        None => Sited::new(Vec::new(), whole.clone()),
    }
}

/// `system_calls: {deny: […]}`: calls that no app may make, with the grammar of a policy's denials. Conditions would leave part of a call
/// open, which is the policy's business, and are refused.
fn denied(node: Node, report: &mut Report<'_>) -> Vec<CallRule> {
    let span = node.span;
    let calls = calls::decode(node, report);
    if calls.unconfined.is_some() || !calls.allow.is_empty() {
        report
            .error(span, "a ceiling allows no system calls, it denies some")
            .help("write `system_calls: {deny: [\"@module\"]}`");
    }
    if calls.deny.iter().any(|rule| {
        !rule.when.is_empty() || !rule.if_capabilities.is_empty() || !rule.unless_capabilities.is_empty()
    }) {
        report
            .error(span, "a ceiling denies whole system calls")
            .help("remove `when` and the capabilities");
    }
    calls.deny
}

/// The namespaces' words.
pub(crate) const HOST_NAMESPACES: [(&str, HostNamespace); 4] = [
    ("pid", HostNamespace::Pid),
    ("ipc", HostNamespace::Ipc),
    ("uts", HostNamespace::Uts),
    ("cgroup", HostNamespace::Cgroup),
];

fn bind_source(node: &Node, report: &mut Report<'_>) -> Option<BindSource> {
    if matches!(node.kind, Kind::Scalar { .. }) {
        return path(node, "a path of the host", false, report).map(|path| BindSource {
            path,
            read_only: false,
        });
    }
    let mut fields = Fields::open(node.clone(), "a bind mount rule", &["path", "read_only"], report)?;
    let found = fields
        .need("path", "a bind mount rule", report)
        .and_then(|node| path(&node, "a path of the host", false, report));
    let read_only = fields
        .take("read_only", report)
        .and_then(|n| boolean(&n, "`read_only`", report));
    Some(BindSource {
        path: found?,
        read_only: read_only.unwrap_or(false),
    })
}

fn device_grant(node: &Node, report: &mut Report<'_>) -> Option<DeviceGrant> {
    if matches!(&node.kind, Kind::Scalar { text, .. } if text == "all") {
        return Some(DeviceGrant::All);
    }
    path(node, "a device's path", true, report).map(DeviceGrant::Path)
}

/// Whose word an excess goes against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Authority {
    /// The owner's ceiling.
    Owner,
    /// The policy itself, which a command line may only narrow.
    Policy,
}

/// Something that was asked for and is more than the ceiling, or the policy's own limit, allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExcessItem {
    /// What was asked for (`capability SYS_ADMIN`).
    pub asked: String,
    /// Who asked.
    pub asked_by: Origin,
    /// What is allowed instead.
    pub allowed: String,
    /// The ceiling's line, or the policy's.
    pub ceiling: Origin,
    /// What to change, for whom.
    pub remedy: String,
    /// Whose line that is.
    pub authority: Authority,
}

/// A policy or command line asks for more than the owner's ceiling allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Excess {
    /// The policy's name.
    pub policy: String,
    /// Everything that is too much.
    pub items: Vec<ExcessItem>,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_of = |authority| self.items.iter().any(|item| item.authority == authority);
        let policy = &self.policy;
        match (is_of(Authority::Policy), is_of(Authority::Owner)) {
            (true, true) => write!(
                f,
                "more is asked for than policy `{policy}` and this device allow"
            ),
            (true, false) => write!(f, "the command line asks for more than policy `{policy}` allows"),
            _ => write!(f, "policy `{policy}` asks for more than this device allows"),
        }?;
        self.items.iter().try_for_each(|item| item.fmt(f))
    }
}

impl fmt::Display for ExcessItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n  - asked:   {} ({})", self.asked, self.asked_by)?;
        write!(f, "\n  + allowed: {} ({})", self.allowed, self.ceiling)?;
        write!(f, "\n    remedy:  {}", self.remedy)
    }
}

/// Compares a policy with the owner's ceiling.
///
/// # Errors
/// Everything that is too much, unless the ceiling says `on_excess: trim`: then it is taken away, and stands among the losses.
pub fn bound(policy: &Composed, ceiling: &Ceiling) -> Result<Composed, Excess> {
    let mut bounded = policy.clone();
    let mut judge = Judge::new(ceiling, policy.above_own.clone());
    if policy.privileged.is_some() || !ceiling.privileged.value {
        judge.privileged(policy);
    }
    if !ceiling.privileged.value {
        judge.unconfined(&mut bounded);
        judge.capabilities(&mut bounded);
        judge.devices(&mut bounded);
        judge.calls(&mut bounded);
    }
    judge.network(policy);
    judge.egress(policy);
    judge.publish(policy);
    judge.namespaces(&mut bounded);
    judge.mounts(&mut bounded);
    judge.limits(&mut bounded.rules.limits);
    judge.fill(&mut bounded.rules.limits);
    judge.memory_files(&mut bounded);
    judge.neighbours(&policy.neighbours);
    policy
        .oom_score_adj
        .iter()
        .for_each(|asked| judge.oom_score_adj(asked));
    judge.cgroup_parent(policy);
    if judge.is_refusal() {
        return Err(judge.refusal(&policy.name));
    }
    bounded.trimmed.extend(judge.items.into_iter().map(loss));
    Ok(bounded)
}

fn loss(item: ExcessItem) -> Loss {
    Loss {
        rule: format!("{} ({})", item.asked, item.asked_by),
        fact: format!("the owner's ceiling allows {} ({})", item.allowed, item.ceiling),
    }
}

struct Judge<'a> {
    ceiling: &'a Ceiling,
    items: Vec<ExcessItem>,
    /// Whether something cannot be taken away without changing what the app is.
    fatal: bool,
}

impl<'a> Judge<'a> {
    fn new(ceiling: &'a Ceiling, items: Vec<ExcessItem>) -> Self {
        Self {
            ceiling,
            items,
            fatal: false,
        }
    }
}

impl Judge<'_> {
    fn refusal(self, policy: &str) -> Excess {
        Excess {
            policy: policy.to_owned(),
            items: self.items,
        }
    }

    fn excess(&mut self, asked: String, by: &Origin, allowed: String, line: &Origin, remedy: String) {
        self.items.push(ExcessItem {
            asked,
            asked_by: by.clone(),
            allowed,
            ceiling: line.clone(),
            remedy,
            authority: Authority::Owner,
        });
    }

    fn privileged(&mut self, policy: &Composed) {
        let Some(by) = &policy.privileged else { return };
        if self.ceiling.privileged.value {
            return;
        }
        self.fatal = true;
        self.excess(
            "a privileged container".to_owned(),
            by,
            "none".to_owned(),
            &self.ceiling.privileged.origin.clone(),
            "ask for the capabilities and devices it needs; or the owner writes `privileged: true`"
                .to_owned(),
        );
    }

    fn unconfined(&mut self, policy: &mut Composed) {
        if policy.privileged.is_some() {
            return;
        }
        let line = self.ceiling.unconfined.origin.clone();
        if !self.ceiling.unconfined.value {
            let process = &policy.rules.process;
            let calls = policy
                .rules
                .calls
                .unconfined
                .clone()
                .map(|o| (o, "system calls without a filter"));
            let masked = paths(process.masked_paths.as_ref(), &MASKED_PATHS);
            let read_only = paths(process.read_only_paths.as_ref(), &READ_ONLY_PATHS);
            let shows = |list: &Option<crate::model::PathList>, kept: &[String], standard: &[&str], says| {
                let origin = match list {
                    Some(crate::model::PathList::None(origin)) => Some(origin.clone()),
                    Some(crate::model::PathList::These(list)) => Some(
                        list.first()
                            .map_or_else(|| Origin::flag(&policy.name), |path| path.origin.clone()),
                    ),
                    None => None,
                };
                let lacks = standard.iter().any(|path| !kept.iter().any(|k| k == path));
                origin.filter(|_| lacks).map(|origin| (origin, says))
            };
            let hidden = shows(
                &process.masked_paths,
                &masked,
                &MASKED_PATHS,
                "kernel paths that are hidden",
            );
            let fixed = shows(
                &process.read_only_paths,
                &read_only,
                &READ_ONLY_PATHS,
                "kernel settings writable",
            );
            for (by, says) in [calls, hidden, fixed].into_iter().flatten() {
                self.fatal = true;
                let remedy = "leave it out; or the owner writes `unconfined: true`".to_owned();
                self.excess(says.to_owned(), &by, "confined".to_owned(), &line, remedy);
            }
        }
        if let Some(set) = policy.rules.process.no_new_privileges.clone()
            && !set.value
            && !self.ceiling.new_privileges.value
        {
            let line = self.ceiling.new_privileges.origin.clone();
            policy.rules.process.no_new_privileges = Some(Sited::new(true, line.clone()));
            self.excess(
                "programs that raise privileges (`no_new_privileges: false`)".to_owned(),
                &set.origin,
                "`no_new_privileges: true`".to_owned(),
                &line,
                "run without set-user-ID programs; or the owner writes `new_privileges: true`".to_owned(),
            );
        }
    }

    fn capabilities(&mut self, policy: &mut Composed) {
        if policy.privileged.is_some() {
            return;
        }
        let allowed = &self.ceiling.capabilities.value;
        let line = self.ceiling.capabilities.origin.clone();
        let too_many: BTreeMap<Capability, Origin> = policy
            .capabilities
            .iter()
            .filter(|(capability, _)| !allowed.contains(capability))
            .map(|(capability, origin)| (*capability, origin.clone()))
            .collect();
        let list = allowed.iter().map(|c| c.name()).collect::<Vec<_>>().join(", ");
        let list = if list.is_empty() {
            "no capabilities".to_owned()
        } else {
            list
        };
        for (capability, by) in too_many {
            policy.capabilities.remove(&capability);
            policy.capabilities_denied.insert(capability, line.clone());
            policy
                .rules
                .capabilities
                .ambient
                .retain(|ambient| ambient.value != capability);
            let remedy = format!("do without; or the owner adds `{capability}` to `capabilities`");
            self.excess(
                format!("capability {capability}"),
                &by,
                list.clone(),
                &line,
                remedy,
            );
        }
    }

    /// After the capabilities, because some calls are allowed only to who holds one.
    fn calls(&mut self, policy: &mut Composed) {
        if policy.rules.calls.unconfined.is_some() {
            return;
        }
        let plan = plan(policy);
        for denied in self.ceiling.calls_denied.clone() {
            let opened = plan
                .0
                .iter()
                .filter(|(call, _)| denied.subject.is_about(call))
                .find_map(|(call, lines)| {
                    lines
                        .iter()
                        .find(|line| line.action == Action::Allow)
                        .map(|line| (call, line))
                });
            if let Some((call, line)) = opened {
                let remedy = "do without; or the owner takes it out of `system_calls.deny`".to_owned();
                let allowed = format!("all but {}", denied.subject);
                self.excess(
                    format!("system call {call}"),
                    &line.origin,
                    allowed,
                    &denied.origin,
                    remedy,
                );
                policy.rules.calls.deny.push(denied);
            }
        }
    }

    fn devices(&mut self, policy: &mut Composed) {
        if policy.privileged.is_some() {
            return;
        }
        let grants = &self.ceiling.devices.value;
        let all = grants.contains(&DeviceGrant::All);
        let line = self.ceiling.devices.origin.clone();
        let shown = grants
            .iter()
            .map(|grant| match grant {
                DeviceGrant::All => "all",
                DeviceGrant::Path(path) => path,
            })
            .collect::<Vec<_>>()
            .join(", ");
        let shown = if shown.is_empty() {
            "standard devices only".to_owned()
        } else {
            shown
        };
        let mut excess = Vec::new();
        policy.rules.devices.retain(|entry| {
            let opens = entry.access.read || entry.access.write;
            let (granted, asked) = match &entry.subject {
                DeviceSubject::Standard => (true, String::new()),
                DeviceSubject::All => (all || !opens, "all devices".to_owned()),
                DeviceSubject::Path(path) => {
                    let fits = |grant: &DeviceGrant| match grant {
                        DeviceGrant::All => true,
                        DeviceGrant::Path(pattern) => glob_covers(pattern, path),
                    };
                    (
                        is_plain(path) && grants.iter().any(fits),
                        format!("device {path}"),
                    )
                }
                DeviceSubject::Numbers { kind, major, minor } => (
                    all || !opens,
                    format!("device {}", numbers(*kind, *major, *minor)),
                ),
            };
            if !granted {
                excess.push((asked, entry.origin.clone()));
            }
            granted
        });
        for (asked, by) in excess {
            let remedy = "do without; or the owner adds its path to `devices`".to_owned();
            self.excess(asked, &by, shown.clone(), &line, remedy);
        }
    }

    fn namespaces(&mut self, policy: &mut Composed) {
        let line = self.ceiling.host_namespaces.origin.clone();
        for asked in policy.host_namespaces.clone() {
            if self.ceiling.host_namespaces.value.contains(&asked.value) {
                continue;
            }
            self.fatal = true;
            let name = asked.value.name();
            let remedy = format!("leave the flag out; or the owner adds `{name}` to `host_namespaces`");
            let says = format!("the host's {name} namespace");
            self.excess(says, &asked.origin, "its own".to_owned(), &line, remedy);
        }
    }

    fn mounts(&mut self, policy: &mut Composed) {
        let of_policy = policy
            .rules
            .mounts
            .iter()
            .map(|m| (&m.source, m.read_only, &m.origin));
        let of_flags = policy
            .mounts_asked
            .iter()
            .map(|m| (&m.value.source, m.value.read_only, &m.origin));
        let mut found = Vec::new();
        for (source, read_only, by) in of_policy.chain(of_flags) {
            let MountSource::Bind(path) = source else { continue };
            let allowed = self
                .ceiling
                .bind_mounts
                .value
                .iter()
                .filter(|allowed| is_plain(path) && covers(&allowed.path, path));
            // A folder that is only allowed read-only inside one that may be written is the owner's exception, and the longest rule wins.
            let best = allowed.max_by_key(|allowed| allowed.path.len());
            match best {
                Some(best) if read_only || !best.read_only => {}
                Some(best) => found.push((path.clone(), by.clone(), format!("{} read-only", best.path))),
                None => {
                    let list: Vec<&str> = self
                        .ceiling
                        .bind_mounts
                        .value
                        .iter()
                        .map(|allowed| allowed.path.as_str())
                        .collect();
                    let list = if list.is_empty() {
                        "no bind mounts".to_owned()
                    } else {
                        list.join(", ")
                    };
                    found.push((path.clone(), by.clone(), list));
                }
            }
        }
        let line = self.ceiling.bind_mounts.origin.clone();
        for (path, by, allowed) in found {
            self.fatal = true;
            let remedy = "use a named volume; or the owner adds the folder to `bind_mounts`".to_owned();
            self.excess(format!("bind mount of {path}"), &by, allowed, &line, remedy);
        }
    }
}

/// Whether a path is absolute and every component of it is a name. Sources are resolved before they are judged; this holds where one was not.
fn is_plain(path: &str) -> bool {
    path == "/"
        || path
            .strip_prefix('/')
            .is_some_and(|p| p.split('/').all(|part| !matches!(part, "" | "." | "..")))
}

fn show(limit: Limit, value: u64) -> String {
    match limit {
        Limit::Cpu => format!("{value}m"),
        Limit::Pids | Limit::Files => value.to_string(),
        _ => crate::units::show_bytes(value),
    }
}

pub(crate) fn numbers(kind: DeviceKind, major: Option<u32>, minor: Option<u32>) -> String {
    let kind = match kind {
        DeviceKind::All => "a",
        DeviceKind::Char => "c",
        DeviceKind::Block => "b",
    };
    let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
    format!("{kind} {}:{}", number(major), number(minor))
}

/// Whether everything that a path or glob can mean lies within an owner's glob. `*` stands for any characters but a slash. Where a glob is
/// asked for, it must be the same text as the owner's, or its wildcards must fall where the owner has `*`.
pub(crate) fn glob_covers(pattern: &str, asked: &str) -> bool {
    // Character classes are compared as text only, because a class may stand for anything.
    pattern == asked
        || (!asked.contains('[') && !pattern.contains('[') && within(pattern.as_bytes(), asked.as_bytes()))
}

/// Matching in one pass over a row of states, so that wildcards cost a factor and not an exponent.
fn within(pattern: &[u8], text: &[u8]) -> bool {
    // reached[p]: the first p bytes of the pattern match the text so far.
    let mut reached = vec![false; pattern.len() + 1];
    reached[0] = true;
    let skip_stars = |reached: &mut Vec<bool>| {
        for (p, byte) in pattern.iter().enumerate() {
            if *byte == b'*' && reached[p] {
                reached[p + 1] = true;
            }
        }
    };
    skip_stars(&mut reached);
    for c in text {
        let mut next = vec![false; pattern.len() + 1];
        for (p, byte) in pattern.iter().enumerate().filter(|(p, _)| reached[*p]) {
            match byte {
                b'*' if *c != b'/' => next[p] = true,
                // A `?` asked for stands for any character, and a `*` for any number: only the owner's wildcards cover them.
                b'?' if *c != b'/' && *c != b'*' => next[p + 1] = true,
                byte if byte == c && !matches!(c, b'*' | b'?') => next[p + 1] = true,
                _ => {}
            }
        }
        skip_stars(&mut next);
        reached = next;
    }
    reached[pattern.len()]
}
