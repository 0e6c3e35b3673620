//! A policy that an annotation names, bounding what the OCI document grants.
//!
//! Owns the annotation `io.kakoi.policy`: a shipped profile's name, a path, or the policy's text. Pure but for reading the file. Invariant: the
//! result is the document ∩ the policy; what the policy demands and the document cannot give is an error, never left out.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use kakoi_policy::confinement::{
    CapabilitySets, Confinement, DeviceKind, DeviceRule, NetworkMode, Seccomp, UserNamespace,
};
use kakoi_policy::{DOCUMENT_BYTES_MAX, ShippedOnly, compile, compose, parse, shipped};
use serde_json::{Value, json};

use super::{Failed, confine};

/// The annotation's key.
const ANNOTATION: &str = "io.kakoi.policy";

/// Bounds the document and its confinement by the policy that the document names, if it names one.
pub(super) fn apply(
    spec: &mut Value,
    confinement: Confinement,
    bundle: &Path,
) -> Result<Confinement, Failed> {
    let Some(value) = spec["annotations"][ANNOTATION].as_str().map(str::to_owned) else {
        return Ok(confinement);
    };
    let (name, text) = source(&value, bundle)?;
    let failed = |error: &dyn std::fmt::Display| Failed::new(format!("annotation {ANNOTATION}: {error}"));
    let policy = parse(&name, &text).map_err(|error| failed(&error))?;
    let policy = compose(&policy, &ShippedOnly).map_err(|error| failed(&error))?;
    let facts =
        kakoi_confine::probe().map_err(|error| Failed::of("find out what the kernel can enforce", &error))?;
    let bounds = compile(&policy, &confinement.identity, &facts)
        .map_err(|error| Failed::of(&format!("annotation {ANNOTATION}"), &error))?;
    demand(&bounds, &confinement)?;
    bound_document(spec, &bounds);
    Ok(intersect(confinement, bounds))
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
    if let Some(mount) = policy.filesystem.mounts.first() {
        return refuse(&format!(
            "{} mounts {}, which the OCI command line leaves to its caller",
            mount.rule, mount.target
        ));
    }
    Ok(())
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
    let limits = &policy.limits;
    least(spec, "memory", "limit", limits.memory_bytes);
    least(spec, "pids", "limit", limits.pids);
    if let Some(memory) = limits.memory_bytes {
        least(
            spec,
            "memory",
            "swap",
            limits.swap_bytes.map(|swap| memory.saturating_add(swap)),
        );
    }
    if let Some(millis) = limits.cpu_millis {
        let period = spec["linux"]["resources"]["cpu"]["period"]
            .as_u64()
            .filter(|n| *n > 0)
            .unwrap_or(100_000);
        spec["linux"]["resources"]["cpu"]["period"] = json!(period);
        least(spec, "cpu", "quota", Some(period.saturating_mul(millis) / 1000));
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
            bounded.extend(policy.iter().filter_map(|bound| cut(rule, bound)));
        } else {
            bounded.push(rule.clone());
        }
    }
    bounded
}

fn cut(rule: &Value, bound: &DeviceRule) -> Option<Value> {
    let kind = match (rule["type"].as_str().unwrap_or("a"), bound.kind) {
        ("a" | "", DeviceKind::All) => "a",
        ("a" | "" | "c" | "u", DeviceKind::Char) | ("c" | "u", DeviceKind::All) => "c",
        ("a" | "" | "b", DeviceKind::Block) | ("b", DeviceKind::All) => "b",
        _ => return None,
    };
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
        let confinement = apply(&mut spec, confinement, Path::new("/"))?;
        Ok((spec, confinement))
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
