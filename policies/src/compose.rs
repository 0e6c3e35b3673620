//! Several documents, made one: `extends`, and what the command line adds.
//!
//! Owns the rules of combination: grants are united, denials win over grants, a later single value overrides an earlier one. Knows nothing
//! of owners and kernels. Limits on depth and number of documents hold here, cycles are found here.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::capability::{Capability, CapabilityWord};
use crate::ceiling::{ExcessItem, OwnLimits, above, above_one, wanted};
use crate::confinement::{DeviceAccess, Loss, MountSource, NetworkMode, UserNamespace};
use crate::decode::parse;
use crate::diagnostics::{Diagnostic, Diagnostics, Origin, at_origin};
use crate::model::{
    DeviceEntry, DeviceSubject, Egress, Enforce, Limit, PathEntry, PathList, Policy, Ports, Rules, Sited,
};
use crate::request::{HostNamespace, MountRequest, NeighbourRequests, PortRequest, Requests};
use crate::shipped;

/// The most documents below each other.
const DEPTH_MAX: usize = 8;

/// The most documents in all, so that a fan of parents of parents stays bounded.
const DOCUMENTS_MAX: usize = 32;

/// Finds a policy that another extends.
pub trait Resolver {
    /// The document's name for messages and its text, or `None` where there is no such policy. Shipped profiles are found before this is
    /// asked, so that no file can take the place of one.
    fn resolve(&self, name: &str) -> Option<(String, String)>;
}

/// Finds nothing beside the shipped profiles.
pub struct ShippedOnly;

impl Resolver for ShippedOnly {
    fn resolve(&self, _: &str) -> Option<(String, String)> {
        None
    }
}

/// One document of a composed policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name, as it stands in origins.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A policy with its parents and requests taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composed {
    /// The policy's name.
    pub name: String,
    /// The documents it came from, parents first.
    pub sources: Vec<Source>,
    pub(crate) rules: Rules,
    pub(crate) capabilities: BTreeMap<Capability, Origin>,
    /// What was taken away by name, to tell why a capability is not there.
    pub(crate) capabilities_denied: BTreeMap<Capability, Origin>,
    pub(crate) privileged: Option<Origin>,
    pub(crate) host_namespaces: Vec<Sited<HostNamespace>>,
    /// A Docker seccomp profile that narrows the system calls further.
    pub(crate) seccomp_profile: Option<String>,
    pub(crate) mounts_asked: Vec<Sited<MountRequest>>,
    /// `--shm-size`.
    pub(crate) shm: Option<Sited<Option<u64>>>,
    pub(crate) neighbours: NeighbourRequests,
    pub(crate) published: Vec<PortRequest>,
    pub(crate) oom_score_adj: Option<Sited<i64>>,
    pub(crate) cgroup_parent: Option<Sited<String>>,
    /// Where the command line asks for more than the policy's own limits.
    pub(crate) above_own: Vec<ExcessItem>,
    /// What the ceiling took away, where it says `on_excess: trim`.
    pub(crate) trimmed: Vec<Loss>,
}

/// Composes a policy with everything it extends.
///
/// # Errors
/// A missing parent (with the nearest name), a cycle, too many documents, or the errors of a parent.
pub fn compose(policy: &Policy, resolver: &dyn Resolver) -> Result<Composed, Diagnostics> {
    let mut walk = Walk {
        resolver,
        sources: Vec::new(),
        path: Vec::new(),
    };
    let rules = walk.rules_of(policy)?;
    let mut composed = Composed {
        name: policy.name.clone(),
        sources: walk.sources,
        capabilities: BTreeMap::new(),
        capabilities_denied: BTreeMap::new(),
        privileged: None,
        host_namespaces: Vec::new(),
        seccomp_profile: None,
        mounts_asked: Vec::new(),
        shm: None,
        neighbours: NeighbourRequests::default(),
        published: Vec::new(),
        oom_score_adj: None,
        cgroup_parent: None,
        above_own: Vec::new(),
        trimmed: Vec::new(),
        rules,
    };
    composed.settle_capabilities();
    Ok(composed)
}

struct Walk<'a> {
    resolver: &'a dyn Resolver,
    sources: Vec<Source>,
    path: Vec<String>,
}

impl Walk<'_> {
    fn rules_of(&mut self, policy: &Policy) -> Result<Rules, Diagnostics> {
        // A policy under the name of a shipped profile may extend that profile: the name then means the shipped one.
        let own = if shipped::find(&policy.name).is_some_and(|p| p.text != policy.text) {
            policy.file.clone()
        } else {
            policy.name.clone()
        };
        self.path.push(own);
        let mut rules = Rules::silent();
        for parent in &policy.extends {
            let found = self.find(policy, parent)?;
            let inherited = self.rules_of(&found)?;
            merge(&mut rules, inherited);
        }
        self.path.pop();
        merge(&mut rules, policy.rules.clone());
        if !self.sources.iter().any(|source| source.name == policy.file) {
            self.sources.push(Source {
                name: policy.file.clone(),
                text: policy.text.clone(),
            });
        }
        Ok(rules)
    }

    fn find(&self, policy: &Policy, parent: &Sited<String>) -> Result<Policy, Diagnostics> {
        let name = &parent.value;
        let refuse = |message: String, label: Option<String>, help: Option<String>| {
            let width = u32::try_from(name.chars().count()).unwrap_or(1);
            let found = at_origin(&parent.origin, &policy.text, width, message);
            Diagnostics::new(vec![Diagnostic { label, help, ..found }]).expect("there is one diagnostic")
        };
        if self.path.iter().any(|above| above == name) {
            let circle = self
                .path
                .iter()
                .chain([name])
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(" → ");
            return Err(refuse(
                format!("policy `{name}` extends itself"),
                None,
                Some(circle),
            ));
        }
        if self.path.len() >= DEPTH_MAX {
            return Err(refuse(
                format!("policies extend each other more than {DEPTH_MAX} deep"),
                None,
                None,
            ));
        }
        if self.sources.len() >= DOCUMENTS_MAX {
            return Err(refuse(
                format!("a policy made of more than {DOCUMENTS_MAX} documents"),
                None,
                None,
            ));
        }
        let found = match shipped::find(name) {
            Some(profile) => Some((profile.file(), profile.text.to_owned())),
            None => self.resolver.resolve(name),
        };
        match found {
            Some((file, text)) => {
                let mut found = parse(&file, &text)?;
                // What counts is the name it was found under; a `name` field cannot hide a cycle.
                found.name.clone_from(name);
                Ok(found)
            }
            None => {
                Err(Diagnostics::new(vec![unknown(parent, &policy.text)]).expect("there is one diagnostic"))
            }
        }
    }
}

/// Parents that nobody knows, of a text that may hold other errors: those hide none of these.
pub fn unknown_parents(file: &str, text: &str, resolver: &dyn Resolver) -> Vec<Diagnostic> {
    let parents = crate::decode::parents(file, text).into_iter();
    parents
        .filter(|parent| shipped::find(&parent.value).is_none() && resolver.resolve(&parent.value).is_none())
        .map(|parent| unknown(&parent, text))
        .collect()
}

fn unknown(parent: &Sited<String>, text: &str) -> Diagnostic {
    let name = &parent.value;
    let width = u32::try_from(name.chars().count()).unwrap_or(1);
    let shipped = shipped::SHIPPED.iter().map(|profile| profile.name);
    let near = crate::diagnostics::nearest(name, shipped.clone());
    let known: Vec<String> = shipped.map(|name| format!("`{name}`")).collect();
    Diagnostic {
        label: near.map(|near| format!("did you mean `{near}`?")),
        help: Some(format!(
            "shipped are {}; others are looked up in the policies folder",
            known.join(", ")
        )),
        ..at_origin(
            &parent.origin,
            text,
            width,
            format!("no policy is called `{name}`"),
        )
    }
}

/// Adds what is not there yet: a parent that is reached on two ways counts once.
fn unite<T: PartialEq>(into: &mut Vec<T>, from: Vec<T>) {
    for item in from {
        if !into.contains(&item) {
            into.push(item);
        }
    }
}

fn over<T>(into: &mut Option<T>, from: Option<T>) {
    if from.is_some() {
        *into = from;
    }
}

fn merge(into: &mut Rules, from: Rules) {
    unite(&mut into.capabilities.allow, from.capabilities.allow);
    unite(&mut into.capabilities.deny, from.capabilities.deny);
    unite(&mut into.capabilities.ambient, from.capabilities.ambient);
    over(&mut into.calls.unconfined, from.calls.unconfined);
    unite(&mut into.calls.allow, from.calls.allow);
    unite(&mut into.calls.deny, from.calls.deny);
    over(&mut into.files.unconfined, from.files.unconfined);
    over(&mut into.files.abi_min, from.files.abi_min);
    unite(&mut into.files.read, from.files.read);
    unite(&mut into.files.write, from.files.write);
    unite(&mut into.files.execute, from.files.execute);
    over(&mut into.network.mode, from.network.mode);
    merge_ports(&mut into.network.bind, from.network.bind);
    merge_ports(&mut into.network.connect, from.network.connect);
    over(&mut into.network.udp, from.network.udp);
    over(&mut into.network.icmp, from.network.icmp);
    merge_egress(&mut into.network.egress, from.network.egress);
    match (&mut into.network.peers, from.network.peers) {
        (Some(known), Some(more)) => unite(&mut known.value, more.value),
        (known, more) => over(known, more),
    }
    over(&mut into.scope.signals, from.scope.signals);
    over(&mut into.scope.abstract_sockets, from.scope.abstract_sockets);
    unite(&mut into.devices, from.devices);
    for (slot, limit) in into.limits.0.iter_mut().zip(from.limits.0) {
        over(slot, limit);
    }
    over(&mut into.process.user, from.process.user);
    over(
        &mut into.process.no_new_privileges,
        from.process.no_new_privileges,
    );
    over(&mut into.process.read_only_root, from.process.read_only_root);
    over(&mut into.process.umask, from.process.umask);
    merge_paths(&mut into.process.masked_paths, from.process.masked_paths);
    merge_paths(&mut into.process.read_only_paths, from.process.read_only_paths);
    for mount in from.mounts {
        into.mounts.retain(|known| known.target != mount.target);
        into.mounts.push(mount);
    }
    over(&mut into.user_namespace, from.user_namespace);
}

fn merge_ports(into: &mut Ports, from: Ports) {
    over(&mut into.any, from.any);
    unite(&mut into.entries, from.entries);
}

fn merge_egress(into: &mut Option<Egress>, from: Option<Egress>) {
    match (into.as_mut(), from) {
        (Some(known), Some(more)) => {
            over(&mut known.any, more.any);
            unite(&mut known.entries, more.entries);
            known.origin = more.origin;
        }
        (_, more) => over(into, more),
    }
}

fn merge_paths(into: &mut Option<PathList>, from: Option<PathList>) {
    match (into.as_mut(), from) {
        (Some(PathList::These(known)), Some(PathList::These(more))) => {
            for path in more {
                if !known.iter().any(|k| k.value == path.value) {
                    known.push(path);
                }
            }
        }
        (_, Some(list)) => *into = Some(list),
        (_, None) => {}
    }
}

impl Composed {
    /// Works out which capabilities are held: what is allowed less what is denied.
    fn settle_capabilities(&mut self) {
        let section = &self.rules.capabilities;
        for word in &section.allow {
            for capability in word.value.expand() {
                self.capabilities.insert(capability, word.origin.clone());
            }
        }
        for ambient in &section.ambient {
            self.capabilities
                .entry(ambient.value)
                .or_insert_with(|| ambient.origin.clone());
        }
        for word in &section.deny {
            for capability in word.value.expand() {
                self.capabilities.remove(&capability);
                self.capabilities_denied.insert(capability, word.origin.clone());
            }
        }
    }

    /// Gives every bind mount of the policy itself the source that `settle` makes of its source and target, before an owner's ceiling looks
    /// at it: which path of the host a text leads to, only who can look at the host knows.
    ///
    /// # Errors
    /// The first that `settle` returns.
    pub fn settle_binds<E>(
        &mut self,
        mut settle: impl FnMut(&str, &str) -> Result<String, E>,
    ) -> Result<(), E> {
        for mount in &mut self.rules.mounts {
            if let MountSource::Bind(path) = &mut mount.source {
                *path = settle(path, &mount.target)?;
            }
        }
        Ok(())
    }

    /// The user the policy names (`user[:group]`), to be looked up in the image.
    pub fn user(&self) -> Option<&str> {
        self.rules.process.user.as_ref().map(|user| user.value.as_str())
    }

    /// The file mode creation mask, 0022 where nothing says otherwise.
    pub fn umask(&self) -> u32 {
        self.rules.process.umask.as_ref().map_or(0o022, |mask| mask.value)
    }

    /// The network asked for; none where nothing says otherwise.
    pub fn network_mode(&self) -> NetworkMode {
        self.rules
            .network
            .mode
            .as_ref()
            .map_or(NetworkMode::None, |mode| mode.value)
    }

    /// The user namespace asked for; the host's where nothing says otherwise.
    pub fn user_namespace(&self) -> UserNamespace {
        self.rules
            .user_namespace
            .as_ref()
            .map_or(UserNamespace::Host, |mode| mode.value)
    }

    /// Applies the flags of a command line. Flags come after the documents and override them; drops come before additions, as with Docker
    /// (`--cap-drop ALL --cap-add CHOWN` leaves CHOWN).
    #[must_use]
    pub fn request(mut self, asked: &Requests) -> Self {
        if asked.privileged {
            self.make_privileged(Origin::flag("--privileged"));
        }
        for word in &asked.capabilities_drop {
            for capability in word.expand() {
                if self.capabilities.remove(&capability).is_some() {
                    self.capabilities_denied
                        .insert(capability, Origin::flag("--cap-drop"));
                }
                self.rules
                    .capabilities
                    .ambient
                    .retain(|ambient| ambient.value != capability);
            }
        }
        for word in &asked.capabilities_add {
            for capability in word.expand() {
                let named_drop = asked.capabilities_drop.contains(&CapabilityWord::One(capability));
                if *word == CapabilityWord::All && named_drop {
                    continue;
                }
                self.capabilities
                    .entry(capability)
                    .or_insert_with(|| Origin::flag("--cap-add"));
                self.capabilities_denied.remove(&capability);
            }
        }
        if asked.seccomp_unconfined {
            self.rules.calls.unconfined = Some(Origin::flag("--security-opt seccomp=unconfined"));
        }
        if asked.seccomp_profile.is_some() {
            self.seccomp_profile.clone_from(&asked.seccomp_profile);
        }
        if asked.system_paths_unconfined {
            let origin = Origin::flag("--security-opt systempaths=unconfined");
            self.rules.process.masked_paths = Some(PathList::None(origin.clone()));
            self.rules.process.read_only_paths = Some(PathList::None(origin));
        }
        self.request_devices(asked);
        self.request_process(asked);
        self.request_limits(asked);
        self
    }

    fn make_privileged(&mut self, origin: Origin) {
        self.capabilities = Capability::all()
            .map(|capability| (capability, origin.clone()))
            .collect();
        self.capabilities_denied.clear();
        self.rules.calls.unconfined = Some(origin.clone());
        self.rules.files.unconfined = Some(origin.clone());
        self.rules.network.bind.any = Some(origin.clone());
        self.rules.network.connect.any = Some(origin.clone());
        let open = crate::model::ScopeEntry {
            confined: false,
            enforce: crate::model::Enforce::Required,
            origin: origin.clone(),
        };
        self.rules.scope.signals = Some(open.clone());
        self.rules.scope.abstract_sockets = Some(open);
        let access = DeviceAccess {
            read: true,
            write: true,
            mknod: true,
        };
        self.rules.devices.push(DeviceEntry {
            subject: DeviceSubject::All,
            access,
            origin: origin.clone(),
        });
        self.rules.process.no_new_privileges = Some(Sited::new(false, origin.clone()));
        self.rules.process.masked_paths = Some(PathList::None(origin.clone()));
        self.rules.process.read_only_paths = Some(PathList::None(origin.clone()));
        self.privileged = Some(origin);
    }

    fn request_devices(&mut self, asked: &Requests) {
        for device in &asked.devices {
            self.rules.devices.push(DeviceEntry {
                subject: DeviceSubject::Path(device.path.clone()),
                access: device.access,
                origin: Origin::flag("--device"),
            });
        }
        for rule in &asked.device_rules {
            self.rules.devices.push(DeviceEntry {
                subject: DeviceSubject::Numbers {
                    kind: rule.kind,
                    major: rule.major,
                    minor: rule.minor,
                },
                access: rule.access,
                origin: Origin::flag("--device-cgroup-rule"),
            });
        }
    }

    fn request_process(&mut self, asked: &Requests) {
        let flag = Origin::flag;
        if let Some(user) = &asked.user {
            self.rules.process.user = Some(Sited::new(user.clone(), flag("--user")));
        }
        if let Some(read_only) = asked.read_only_root {
            self.rules.process.read_only_root = Some(Sited::new(read_only, flag("--read-only")));
        }
        if let Some(set) = asked.no_new_privileges {
            let origin = flag("--security-opt no-new-privileges");
            self.rules.process.no_new_privileges = Some(Sited::new(set, origin));
        }
        if let Some(umask) = asked.umask {
            self.rules.process.umask = Some(Sited::new(umask, flag("--umask")));
        }
        if let Some(mode) = asked.network {
            self.rules.network.mode = Some(Sited::new(mode, flag("--network")));
        }
        if let Some(mode) = asked.user_namespace {
            self.rules.user_namespace = Some(Sited::new(mode, flag("--userns")));
        }
        for namespace in &asked.host_namespaces {
            let origin = flag(&format!("--{} host", namespace.name()));
            self.host_namespaces.push(Sited::new(*namespace, origin));
        }
        for mount in &asked.mounts {
            self.mounts_asked
                .push(Sited::new(mount.clone(), flag("--volume")));
            self.grant_mount(mount);
        }
    }

    /// A mount that a person asks for may be used as it was asked for: without the rights below it, `-v data:/data` would give a folder that
    /// nothing can be written to. The root is never granted in this way, and where files are unconfined there is nothing to grant.
    fn grant_mount(&mut self, mount: &MountRequest) {
        let files = &mut self.rules.files;
        if files.unconfined.is_some() || mount.target == "/" {
            return;
        }
        let entry = PathEntry {
            path: mount.target.clone(),
            optional: false,
            // Whether a kernel without landlock will do is the policy's own say, in its own entries.
            enforce: Enforce::BestEffort,
            origin: Origin::flag("--volume"),
        };
        if !mount.read_only {
            files.write.push(entry.clone());
        }
        files.read.push(entry);
    }

    /// A command line lowers the policy's own limits. What would raise one is kept for the judge, and never silently lowered.
    fn request_limits(&mut self, asked: &Requests) {
        let own = &self.rules.limits;
        let wanted = wanted(&asked.limits);
        let mut excess = above(own, &wanted);
        self.shm = asked
            .limits
            .shm
            .map(|shm| Sited::new(shm.value(), Origin::flag("--shm-size")));
        if let Some(shm) = &self.shm {
            excess.extend(above_one(own, Limit::Tmpfs, shm, "/dev/shm of"));
        }
        for mount in &asked.mounts {
            if let MountSource::Tmpfs(Some(bytes)) = mount.source {
                let size = Sited::new(Some(bytes), Origin::flag("--tmpfs"));
                let says = format!("tmpfs at {} of", mount.target);
                excess.extend(above_one(own, Limit::Tmpfs, &size, &says));
            }
        }
        self.above_own.extend(excess);
        for (slot, limit) in self.rules.limits.0.iter_mut().zip(wanted.0) {
            over(slot, limit);
        }
        self.neighbours = asked.neighbours.clone();
        self.published.clone_from(&asked.publish);
        self.oom_score_adj = asked
            .oom_score_adj
            .map(|value| Sited::new(value, Origin::flag("--oom-score-adj")));
        self.cgroup_parent = asked
            .cgroup_parent
            .clone()
            .map(|parent| Sited::new(parent, Origin::flag("--cgroup-parent")));
    }

    /// What the policy itself says of limits: to be taken before a command line's are.
    pub fn own_limits(&self) -> OwnLimits {
        OwnLimits::of(&self.rules.limits)
    }

    /// SHA-256 over the composed rules in their canonical text, so that comments, order of fields and the way to a rule do not count.
    pub fn sha256(&self) -> String {
        let mut text = crate::render::canonical(self);
        text.extend(self.seccomp_profile.as_deref());
        let digest = Sha256::digest(text.as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
