//! Findings about ports and devices.
//!
//! Owns which entry lies within another.

use super::Lints;
use crate::ceiling::glob_covers;
use crate::compile::STANDARD_DEVICES;
use crate::confinement::{DeviceAccess, DeviceKind, NetworkMode};
use crate::diagnostics::Origin;
use crate::model::{DeviceEntry, DeviceSubject, PortEntry, Ports};

impl Lints<'_> {
    pub(super) fn network(&mut self) {
        let own = &self.policy.rules.network;
        let all = &self.composed.rules.network;
        let mut findings: Vec<(Origin, String)> = Vec::new();
        for (verb, own, all) in [
            ("bind", &own.bind, &all.bind),
            ("connect", &own.connect, &all.connect),
        ] {
            for (at, entry) in own.entries.iter().enumerate() {
                if let Some(known) = self.port_granted(entry, &own.entries[..at], all) {
                    findings.push((
                        entry.origin.clone(),
                        format!("{verb} {} is granted already ({known})", ports(entry)),
                    ));
                }
            }
        }
        for (origin, message) in findings {
            self.warn(&origin, message, "remove it: it changes nothing".to_owned());
        }
        // A flag may still choose another network, so only a document that says `none` itself contradicts itself.
        let has_none = own
            .mode
            .as_ref()
            .is_some_and(|mode| mode.value == NetworkMode::None);
        let first = [&own.bind, &own.connect].into_iter().find_map(|ports| {
            ports
                .any
                .as_ref()
                .or(ports.entries.first().map(|entry| &entry.origin))
        });
        if has_none && let Some(origin) = first.cloned() {
            self.warn(
                &origin,
                "ports without a network: `network.mode` is `none`".to_owned(),
                "remove the ports, or `mode: none`".to_owned(),
            );
        }
    }

    fn port_granted(&self, entry: &PortEntry, before: &[PortEntry], all: &Ports) -> Option<Origin> {
        if let Some(any) = &all.any {
            return Some(any.clone());
        }
        let parents = all.entries.iter().filter(|other| !self.is_own(&other.origin));
        let mut known = before.iter().chain(parents);
        let known = known.find(|other| {
            other.first <= entry.first && entry.last <= other.last && other.enforce == entry.enforce
        })?;
        Some(known.origin.clone())
    }

    pub(super) fn devices(&mut self) {
        let own = &self.policy.rules.devices;
        let mut findings: Vec<(Origin, String, String)> = Vec::new();
        for (at, entry) in own.iter().enumerate() {
            let parents = self
                .composed
                .rules
                .devices
                .iter()
                .filter(|other| !self.is_own(&other.origin));
            let others = own.iter().enumerate().filter(|(n, _)| *n != at);
            let covering = others
                // Of two that are the same the later one is the one too many.
                .filter(|(n, other)| *n < at || other.subject != entry.subject)
                .map(|(_, other)| other)
                .chain(parents)
                .find(|other| lies_within(&entry.subject, &other.subject) && !other.access_is_only_mknod());
            let Some(other) = covering else { continue };
            let (message, help) = if grants(other.access, entry.access) {
                (
                    format!("this device is granted already ({})", other.origin),
                    "remove it: it changes nothing".to_owned(),
                )
            } else {
                (
                    format!(
                        "this device overlaps with another rule ({}): both grants add up",
                        other.origin
                    ),
                    "write one rule with the access that is meant".to_owned(),
                )
            };
            findings.push((entry.origin.clone(), message, help));
        }
        for (origin, message, help) in findings {
            self.warn(&origin, message, help);
        }
    }
}

impl DeviceEntry {
    /// Making nodes opens none of them.
    fn access_is_only_mknod(&self) -> bool {
        !self.access.read && !self.access.write
    }
}

fn ports(entry: &PortEntry) -> String {
    if entry.first == entry.last {
        entry.first.to_string()
    } else {
        format!("{}-{}", entry.first, entry.last)
    }
}

fn grants(wide: DeviceAccess, narrow: DeviceAccess) -> bool {
    (wide.read || !narrow.read) && (wide.write || !narrow.write) && (wide.mknod || !narrow.mknod)
}

fn lies_within(narrow: &DeviceSubject, wide: &DeviceSubject) -> bool {
    match (narrow, wide) {
        (_, DeviceSubject::All) => true,
        (DeviceSubject::Path(narrow), DeviceSubject::Path(wide)) => glob_covers(wide, narrow),
        (DeviceSubject::Path(path), DeviceSubject::Standard) => crate::explain::is_standard_device(path),
        (
            DeviceSubject::Numbers { kind, major, minor },
            DeviceSubject::Numbers {
                kind: wide_kind,
                major: wide_major,
                minor: wide_minor,
            },
        ) => {
            let within = |narrow: &Option<u32>, wide: &Option<u32>| wide.is_none() || narrow == wide;
            (wide_kind == kind || *wide_kind == DeviceKind::All)
                && within(major, wide_major)
                && within(minor, wide_minor)
        }
        (
            DeviceSubject::Numbers {
                kind,
                major: Some(major),
                minor,
            },
            DeviceSubject::Standard,
        ) => {
            *kind == DeviceKind::Char
                && STANDARD_DEVICES
                    .iter()
                    .any(|(m, n)| m == major && (n.is_none() || n == minor))
        }
        (DeviceSubject::Standard, DeviceSubject::Standard) => true,
        _ => false,
    }
}
