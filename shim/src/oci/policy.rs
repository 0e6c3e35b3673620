//! A policy that an annotation names, bounding what the OCI document grants.
//!
//! Owns the annotation `io.kakoi.policy`: a shipped profile's name, a path, or the policy's text. Pure but for reading the file and looking at
//! the host's devices. Invariant: the result is the document ∩ the policy; what the policy demands and the document cannot give is an error,
//! never left out.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use kakoi_container::spec::numbered;
use kakoi_container::supervise::block_devices;
use kakoi_policy::confinement::{
    CapabilitySets, Confinement, DeviceKind, DeviceRule, Identity, Limits, NetworkMode, Reach, Seccomp,
    UserNamespace,
};
use kakoi_policy::{DOCUMENT_BYTES_MAX, ShippedOnly, compile, compose, parse, shipped};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Failed, confine};

/// The annotation's key.
const ANNOTATION: &str = "io.kakoi.policy";

/// The user that a policy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct User {
    pub uid: u32,
    /// The document's group stays where the policy names none.
    pub gid: Option<u32>,
}

/// What came of a document and the policy that it names.
pub(super) struct Bounded {
    pub confinement: Confinement,
    /// The user that the policy names, if it does: processes that are added run as that user too.
    pub user: Option<User>,
}

/// Bounds the document and its confinement by the policy that the document names, if it names one.
pub(super) fn apply(
    spec: &mut Value,
    mut confinement: Confinement,
    bundle: &Path,
) -> Result<Bounded, Failed> {
    let Some(value) = spec["annotations"][ANNOTATION].as_str().map(str::to_owned) else {
        return Ok(Bounded {
            confinement,
            user: None,
        });
    };
    let (name, text) = source(&value, bundle)?;
    let failed = |error: &dyn std::fmt::Display| Failed::new(format!("annotation {ANNOTATION}: {error}"));
    let policy = parse(&name, &text).map_err(|error| failed(&error))?;
    let policy = compose(&policy, &ShippedOnly).map_err(|error| failed(&error))?;
    let user = policy.user().map(user).transpose()?;
    if let Some(user) = user {
        confinement.identity = user.of(confinement.identity)?;
    }
    // What either takes away from the modes of new files stays away.
    confinement.identity.umask |= policy.umask();
    let facts =
        kakoi_confine::probe().map_err(|error| Failed::of("find out what the kernel can enforce", &error))?;
    let mut bounds = compile(&policy, &confinement.identity, &facts)
        .map_err(|error| Failed::of(&format!("annotation {ANNOTATION}"), &error))?;
    bounds.devices =
        numbered(&bounds.devices).map_err(|error| Failed::of(&format!("annotation {ANNOTATION}"), &error))?;
    demand(&bounds, &confinement)?;
    bound_document(spec, &bounds);
    Ok(Bounded {
        confinement: intersect(confinement, bounds),
        user,
    })
}

/// Reads `UID[:GID]`. Names stand in the image's own files, and looking them up there is the caller's work.
fn user(text: &str) -> Result<User, Failed> {
    let id = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits
            .then(|| text.parse::<u32>().ok())
            .flatten()
            .filter(|id| *id != u32::MAX)
    };
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (id(uid), Some(id(gid))),
        None => (id(text), None),
    };
    match (uid, gid) {
        (Some(uid), None) => Ok(User { uid, gid: None }),
        (Some(uid), Some(Some(gid))) => Ok(User { uid, gid: Some(gid) }),
        _ => Err(Failed::new(format!(
            "annotation {ANNOTATION}: the user {text:?} is a name, which the OCI command line does not look up: write UID or UID:GID"
        ))),
    }
}

impl User {
    /// The identity that a process gets under a policy that names this user. A process for which nobody chose a user has root; one for which
    /// somebody chose another cannot be what the policy says.
    pub(super) fn of(self, identity: Identity) -> Result<Identity, Failed> {
        let chosen = (identity.uid, identity.gid);
        if identity.uid != 0 && identity.uid != self.uid
            || self
                .gid
                .is_some_and(|gid| identity.gid != 0 && identity.gid != gid)
        {
            return Err(Failed::new(format!(
                "the policy's user is {}{}, and the process is to run as {}:{}",
                self.uid,
                self.gid.map(|gid| format!(":{gid}")).unwrap_or_default(),
                chosen.0,
                chosen.1
            )));
        }
        Ok(Identity {
            uid: self.uid,
            gid: self.gid.unwrap_or(identity.gid),
            ..identity
        })
    }
}

/// The policy's name for messages, and its text.
fn source(value: &str, bundle: &Path) -> Result<(String, String), Failed> {
    if let Some(profile) = shipped::find(value) {
        return Ok((profile.file(), profile.text.to_owned()));
    }
    if value.contains('\n') || value.contains(": ") {
        return Ok((ANNOTATION.to_owned(), value.to_owned()));
    }
    let path = bundle.join(value);
    let failed = |error: std::io::Error| Failed::of(&format!("read the policy {}", path.display()), &error);
    // The file's owner decides what the app may do: no link may lend another file that power.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(&path)
        .map_err(failed)?;
    let mut text = String::new();
    file.take(DOCUMENT_BYTES_MAX as u64 + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok((path.display().to_string(), text))
}

/// What a policy wants and only the document could give.
fn demand(policy: &Confinement, document: &Confinement) -> Result<(), Failed> {
    let refuse = |what: &str| Err(Failed::new(format!("policy {}: {what}", policy.policy.name)));
    if policy.network != NetworkMode::Host && document.network == NetworkMode::Host {
        return refuse(
            "the container must have a network namespace, and the configuration gives it the host's network",
        );
    }
    if policy.user_namespace != UserNamespace::Host && document.user_namespace == UserNamespace::Host {
        return refuse("the container must have a user namespace, and the configuration gives it none");
    }
    if let Reach::Only { .. } = policy.reach {
        return refuse(
            "it bounds where packets go (network.egress, network.peers), which the OCI command line leaves to its caller",
        );
    }
    if let Some(mount) = policy.filesystem.mounts.first() {
        return refuse(&format!(
            "{} mounts {}, which the OCI command line leaves to its caller",
            mount.rule, mount.target
        ));
    }
    Ok(())
}

/// Keeps open files within a limit, and sets it where nothing is said.
pub(super) fn bound_files(rlimits: &mut Vec<Value>, limit: Option<u64>) {
    let Some(limit) = limit else { return };
    let is_files = |entry: &Value| entry["type"].as_str() == Some("RLIMIT_NOFILE");
    if !rlimits.iter().any(is_files) {
        rlimits.push(json!({"type": "RLIMIT_NOFILE", "soft": limit, "hard": limit}));
    }
    for entry in rlimits.iter_mut().filter(|entry| is_files(entry)) {
        for field in ["soft", "hard"] {
            if entry[field].as_u64().is_some_and(|given| given > limit) {
                entry[field] = json!(limit);
            }
        }
    }
}

fn intersect(document: Confinement, policy: Confinement) -> Confinement {
    let (a, b) = (document.capabilities, policy.capabilities);
    let seccomp = match (document.seccomp, policy.seccomp) {
        (Seccomp::Unconfined, other) | (other, Seccomp::Unconfined) => other,
        // Stacked: the kernel takes the strictest answer. The policy's come last, so that they cannot refuse the loading of the others.
        (Seccomp::Filters(mut first), Seccomp::Filters(second)) => {
            first.extend(second);
            Seccomp::Filters(first)
        }
    };
    Confinement {
        policy: policy.policy,
        no_new_privileges: document.no_new_privileges || policy.no_new_privileges,
        capabilities: CapabilitySets {
            bounding: a.bounding & b.bounding,
            permitted: a.permitted & b.permitted,
            effective: a.effective & b.effective,
            inheritable: a.inheritable & b.inheritable,
            ambient: a.ambient & b.ambient,
        },
        seccomp,
        landlock: policy.landlock,
        devices: policy.devices,
        limits: policy.limits,
        losses: policy.losses,
        ..document
    }
}

/// Writes the policy's bounds into what libcontainer reads.
fn bound_document(spec: &mut Value, policy: &Confinement) {
    // `exec` takes over the user from here.
    let Identity { uid, gid, umask, .. } = policy.identity;
    for (field, number) in [("uid", uid), ("gid", gid), ("umask", umask)] {
        spec["process"]["user"][field] = json!(number);
    }
    if policy.filesystem.read_only_root {
        spec["root"]["readonly"] = json!(true);
    }
    for (field, paths) in [
        ("maskedPaths", &policy.filesystem.masked_paths),
        ("readonlyPaths", &policy.filesystem.read_only_paths),
    ] {
        let mut all = confine::strings(spec["linux"].get(field));
        all.extend(
            paths
                .iter()
                .filter(|path| !all.contains(path))
                .cloned()
                .collect::<Vec<_>>(),
        );
        spec["linux"][field] = json!(all);
    }
    let devices = spec["linux"]["resources"]["devices"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    spec["linux"]["resources"]["devices"] = Value::Array(bound_devices(&devices, &policy.devices));
    bound_limits(spec, &policy.limits);
}

fn bound_limits(spec: &mut Value, limits: &Limits) {
    least(spec, "memory", "limit", limits.memory_bytes);
    least(spec, "pids", "limit", limits.pids);
    // The document counts memory and swap in one number.
    let memory = spec["linux"]["resources"]["memory"]["limit"]
        .as_u64()
        .filter(|n| *n > 0);
    if let (Some(memory), Some(swap)) = (memory, limits.swap_bytes) {
        least(spec, "memory", "swap", Some(memory.saturating_add(swap)));
    }
    if let Some(millis) = limits.cpu_millis {
        let period = spec["linux"]["resources"]["cpu"]["period"]
            .as_u64()
            .filter(|n| *n > 0)
            .unwrap_or(100_000);
        spec["linux"]["resources"]["cpu"]["period"] = json!(period);
        least(spec, "cpu", "quota", Some(period.saturating_mul(millis) / 1000));
    }
    let mut rlimits = spec["process"]["rlimits"].as_array().cloned().unwrap_or_default();
    bound_files(&mut rlimits, limits.open_files);
    if !rlimits.is_empty() {
        spec["process"]["rlimits"] = Value::Array(rlimits);
    }
    for (field, rate) in [
        ("throttleReadBpsDevice", limits.io_read_bytes_per_second),
        ("throttleWriteBpsDevice", limits.io_write_bytes_per_second),
    ] {
        throttle(spec, field, rate);
    }
    if let Some(bytes) = limits.tmpfs_bytes {
        size_memory_disks(spec, bytes);
    }
}

/// The rate of every disk of the host, and of those that the document names.
fn throttle(spec: &mut Value, field: &str, rate: Option<u64>) {
    let Some(rate) = rate else { return };
    let place = &mut spec["linux"]["resources"]["blockIO"][field];
    let mut entries = place.as_array().cloned().unwrap_or_default();
    for entry in &mut entries {
        let given = entry["rate"].as_u64().filter(|n| *n > 0);
        entry["rate"] = json!(given.map_or(rate, |given| given.min(rate)));
    }
    for (major, minor) in block_devices() {
        let is_there = |entry: &Value| entry["major"] == json!(major) && entry["minor"] == json!(minor);
        if !entries.iter().any(is_there) {
            entries.push(json!({"major": major, "minor": minor, "rate": rate}));
        }
    }
    *place = Value::Array(entries);
}

/// A tmpfs that does not say its own size gets the policy's.
fn size_memory_disks(spec: &mut Value, bytes: u64) {
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        let mut options = confine::strings(mount.get("options"));
        if mount["type"].as_str() == Some("tmpfs")
            && !options.iter().any(|option| option.starts_with("size="))
        {
            options.push(format!("size={bytes}"));
            mount["options"] = json!(options);
        }
    }
}

/// The smaller of the document's limit and the policy's; 0 and less mean none.
fn least(spec: &mut Value, section: &str, field: &str, limit: Option<u64>) {
    let Some(limit) = limit else { return };
    let place = &mut spec["linux"]["resources"][section][field];
    let given = place
        .as_i64()
        .and_then(|n| u64::try_from(n).ok())
        .filter(|n| *n > 0);
    *place = json!(given.map_or(limit, |given| given.min(limit)));
}

/// Each allowing rule is cut to what some rule of the policy allows too; refusing rules stay where they stand.
fn bound_devices(document: &[Value], policy: &[DeviceRule]) -> Vec<Value> {
    let mut bounded = Vec::new();
    for rule in document {
        if rule["allow"].as_bool() == Some(true) {
            bounded.extend(policy.iter().flat_map(|bound| cut(rule, bound)));
        } else {
            bounded.push(rule.clone());
        }
    }
    bounded
}

/// A rule of the policy that still names a path was not resolved and bounds nothing: it allows nothing.
fn cut(rule: &Value, bound: &DeviceRule) -> Vec<Value> {
    if bound.path.is_some() {
        return Vec::new();
    }
    // Never `a`: version 1 takes that for everything, whatever stands beside it.
    let kinds: &[&str] = match (rule["type"].as_str().unwrap_or("a"), bound.kind) {
        ("a" | "", DeviceKind::All) => &["c", "b"],
        ("a" | "" | "c" | "u", DeviceKind::Char) | ("c" | "u", DeviceKind::All) => &["c"],
        ("a" | "" | "b", DeviceKind::Block) | ("b", DeviceKind::All) => &["b"],
        _ => &[],
    };
    kinds
        .iter()
        .filter_map(|kind| cut_kind(kind, rule, bound))
        .collect()
}

fn cut_kind(kind: &str, rule: &Value, bound: &DeviceRule) -> Option<Value> {
    let number = |field: &str, bound: Option<u32>| match (rule[field].as_i64().filter(|n| *n >= 0), bound) {
        (Some(given), Some(bound)) => (given == i64::from(bound)).then_some(Some(given)),
        (given, bound) => Some(given.or(bound.map(i64::from))),
    };
    let (major, minor) = (number("major", bound.major)?, number("minor", bound.minor)?);
    let wanted = rule["access"]
        .as_str()
        .filter(|access| !access.is_empty())
        .unwrap_or("rwm");
    let access: String = [
        ('r', bound.access.read),
        ('w', bound.access.write),
        ('m', bound.access.mknod),
    ]
    .into_iter()
    .filter(|(letter, allowed)| *allowed && wanted.contains(*letter))
    .map(|(letter, _)| letter)
    .collect();
    if access.is_empty() {
        return None;
    }
    let mut cut = json!({"allow": true, "type": kind, "access": access});
    if let Some(major) = major {
        cut["major"] = json!(major);
    }
    if let Some(minor) = minor {
        cut["minor"] = json!(minor);
    }
    Some(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(policy: &str) -> Value {
        json!({
            "annotations": {ANNOTATION: policy},
            "process": {"args": ["x"], "capabilities": {"bounding": ["CAP_SYS_ADMIN", "CAP_CHOWN"]}},
            "linux": {
                "namespaces": [{"type": "network"}],
                "resources": {"devices": [{"allow": true, "access": "rwm"}]},
            },
        })
    }

    fn bounded(policy: &str) -> Result<(Value, Confinement), Failed> {
        let mut spec = spec(policy);
        let confinement = confine::from_spec(&spec, Path::new("/"))?;
        let bounded = apply(&mut spec, confinement, Path::new("/"))?;
        Ok((spec, bounded.confinement))
    }

    #[test]
    fn a_policy_bounds_the_document() {
        let (spec, confinement) = bounded("docker-default").expect("bounded");
        let admin = kakoi_container::capability::bit("SYS_ADMIN").expect("known");
        let chown = kakoi_container::capability::bit("CHOWN").expect("known");
        assert_eq!(confinement.capabilities.bounding & (admin | chown), chown);
        assert!(matches!(confinement.seccomp, Seccomp::Filters(_)));
        let devices = spec["linux"]["resources"]["devices"].as_array().expect("a list");
        assert!(
            devices
                .iter()
                .all(|rule| rule["major"].is_number() || rule["access"] == "m"),
            "{devices:?}"
        );
    }

    /// A path is its node's numbers, not every number.
    #[test]
    fn devices_by_path_are_those_devices() {
        let strict = |paths: &str| format!("kakoi: 1\nname: x\nextends: [strict]\ndevices: {paths}\n");
        let (spec, confinement) =
            bounded(&strict("[/dev/ptmx, /dev/null, \"/dev/nothing*\"]")).expect("bounded");
        let list = spec["linux"]["resources"]["devices"].as_array().expect("a list");
        for (major, minor) in [(5, 2), (1, 3)] {
            let rule = json!({"allow": true, "type": "c", "access": "rw", "major": major, "minor": minor});
            assert!(list.contains(&rule), "{list:?}");
        }
        assert!(
            list.iter()
                .all(|rule| rule["type"] == "c" && rule["major"].is_number()),
            "{list:?}"
        );
        assert!(
            confinement
                .devices
                .iter()
                .all(|rule| rule.path.is_none() && rule.major.is_some())
        );
        assert!(bounded(&strict("[/dev/no-such-device]")).is_err());
        // The neighbour: a policy that allows all bounds nothing.
        let (spec, _) = bounded(&strict("[{type: all}]")).expect("bounded");
        let list = spec["linux"]["resources"]["devices"].as_array().expect("a list");
        for kind in ["c", "b"] {
            let rule = json!({"allow": true, "type": kind, "access": "rw"});
            assert!(list.contains(&rule), "{list:?}");
        }
        assert!(list.iter().all(|rule| rule["type"] != "a"), "{list:?}");
    }

    #[test]
    fn who_runs_is_what_the_policy_says() {
        let policy =
            "kakoi: 1\nname: x\nextends: [docker-default]\nprocess: {user: \"1000:50\", umask: \"0077\"}\n";
        let (spec, confinement) = bounded(policy).expect("bounded");
        assert_eq!((confinement.identity.uid, confinement.identity.gid), (1000, 50));
        assert_eq!(confinement.identity.umask, 0o077);
        assert_eq!(confinement.capabilities.permitted, 0, "not root, no capabilities");
        assert_eq!(
            spec["process"]["user"],
            json!({"uid": 1000, "gid": 50, "umask": 0o077})
        );
        assert!(bounded(&policy.replace("1000:50", "mosquitto")).is_err());
        let mut other = spec.clone();
        other["process"]["user"]["uid"] = json!(2000);
        let confinement = confine::from_spec(&other, Path::new("/")).expect("made");
        assert!(apply(&mut other, confinement, Path::new("/")).is_err());
    }

    #[test]
    fn limits_of_files_disks_and_memory_disks_are_bounds() {
        let policy = "kakoi: 1\nname: x\nextends: [docker-default]\n\
            limits: {files: 77, tmpfs: 1MiB, io: {read: 2MiB}}\n";
        let mut given = spec(policy);
        given["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 20000}]);
        given["mounts"] = json!([
            {"destination": "/tmp", "type": "tmpfs", "options": ["nosuid"]},
            {"destination": "/own", "type": "tmpfs", "options": ["size=64k"]},
        ]);
        given["linux"]["resources"]["blockIO"] =
            json!({"throttleReadBpsDevice": [{"major": 8, "minor": 250, "rate": 5 << 20}]});
        let confinement = confine::from_spec(&given, Path::new("/")).expect("made");
        apply(&mut given, confinement, Path::new("/")).expect("bounded");
        assert_eq!(
            given["process"]["rlimits"],
            json!([{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 77}])
        );
        assert_eq!(given["mounts"][0]["options"], json!(["nosuid", "size=1048576"]));
        assert_eq!(given["mounts"][1]["options"], json!(["size=64k"]));
        let rates = &given["linux"]["resources"]["blockIO"]["throttleReadBpsDevice"];
        assert_eq!(rates[0], json!({"major": 8, "minor": 250, "rate": 2 << 20}));
        assert_eq!(rates.as_array().expect("a list").len(), 1 + block_devices().len());
        assert!(given["linux"]["resources"]["blockIO"]["throttleWriteBpsDevice"].is_null());
        let (spec, _) = bounded(policy).expect("bounded");
        assert_eq!(
            spec["process"]["rlimits"],
            json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 77}])
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(bounded("kakoi: 1\nname: x\nnonsense: true\n").is_err());
        assert!(bounded("/nowhere/policy.yaml").is_err());
        let mut shared = spec("strict");
        shared["linux"]["namespaces"] = json!([]);
        let confinement = confine::from_spec(&shared, Path::new("/")).expect("made");
        assert!(apply(&mut shared, confinement, Path::new("/")).is_err());
    }
}
