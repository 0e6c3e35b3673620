//! Findings about files: what is hidden, what is writable and executable at once, what is granted already.
//!
//! Owns the comparison of paths as text, by whole components; links of an image are unknown here.

use super::Lints;
use crate::compile::landlock::covers;
use crate::compile::rest::{MASKED_PATHS, READ_ONLY_PATHS};
use crate::diagnostics::Origin;
use crate::model::{Enforce, PathEntry, PathList};

/// Where a runtime mounts something writable over a read-only root.
const WRITABLE_MOUNTS: [&str; 4] = ["/dev", "/proc", "/run", "/tmp"];

impl Lints<'_> {
    pub(super) fn files(&mut self) {
        let own = &self.policy.rules.files;
        let all = &self.composed.rules.files;
        let lists = [
            ("read", &own.read, &all.read),
            ("write", &own.write, &all.write),
            ("execute", &own.execute, &all.execute),
        ];
        let mut findings: Vec<(Origin, String, String)> = Vec::new();
        for (verb, own, all) in lists {
            for (at, entry) in own.iter().enumerate() {
                let finding = self
                    .without_effect(verb, entry)
                    .or_else(|| self.granted_already(verb, entry, &own[..at], all));
                findings.extend(finding.map(|(message, help)| (entry.origin.clone(), message, help)));
            }
        }
        if self.composed.rules.files.unconfined.is_none() {
            // `execute: [/]` means whatever the image holds; only who names folders of programs has said more.
            for entry in &own.write {
                if let Some(run) = own
                    .execute
                    .iter()
                    .find(|run| run.path != "/" && overlap(&run.path, &entry.path))
                {
                    findings.push((
                        entry.origin.clone(),
                        format!(
                            "{} can be written and executed ({}): whoever writes there runs what they like",
                            entry.path, run.origin
                        ),
                        "keep what is written and what is run in different folders".to_owned(),
                    ));
                }
            }
        }
        for (origin, message, help) in findings {
            self.warn(&origin, message, help);
        }
    }

    fn without_effect(&self, verb: &str, entry: &PathEntry) -> Option<(String, String)> {
        let rules = &self.composed.rules;
        let path = &entry.path;
        if let Some(origin) = &rules.files.unconfined {
            return Some((
                format!("{path} does nothing: files are unconfined ({origin})"),
                if self.is_own(origin) {
                    "remove it, or `files: unconfined`".to_owned()
                } else {
                    "remove it, or extend a profile that confines files, as `strict` does".to_owned()
                },
            ));
        }
        if let Some(masked) = listed(&rules.process.masked_paths, &MASKED_PATHS, path) {
            return Some((
                format!("{verb} {path} does nothing: {masked} is hidden by `process.masked_paths`"),
                "remove it; hidden paths are the kernel's own business".to_owned(),
            ));
        }
        if verb != "write" {
            return None;
        }
        if let Some(kept) = listed(&rules.process.read_only_paths, &READ_ONLY_PATHS, path) {
            return Some((
                format!("write {path} does nothing: {kept} is read-only by `process.read_only_paths`"),
                "remove it; for a kernel setting use `kakoi run --sysctl`".to_owned(),
            ));
        }
        let is_mounted = |target: &str| covers(target, path) || covers(path, target);
        let has_read_only_root = rules.process.read_only_root.as_ref().is_some_and(|set| set.value);
        let has_mount = rules.mounts.iter().any(|mount| is_mounted(&mount.target))
            || WRITABLE_MOUNTS.iter().any(|target| is_mounted(target));
        if has_read_only_root && !has_mount {
            return Some((
                format!("write {path} does nothing: `process.read_only_root` is set and no mount lies there"),
                format!(
                    "add `mounts: [{{tmpfs: 16MiB, target: {path}}}]`, or mount a volume there when it is run"
                ),
            ));
        }
        let mount = rules
            .mounts
            .iter()
            .filter(|mount| covers(&mount.target, path))
            .max_by_key(|m| m.target.len());
        mount.filter(|mount| mount.read_only).map(|mount| {
            (
                format!(
                    "write {path} does nothing: {} is mounted read-only ({})",
                    mount.target, mount.origin
                ),
                "remove it, or `read_only: true` of the mount".to_owned(),
            )
        })
    }

    fn granted_already(
        &self,
        verb: &str,
        entry: &PathEntry,
        before: &[PathEntry],
        all: &[PathEntry],
    ) -> Option<(String, String)> {
        let covering = |other: &&PathEntry| {
            covers(&other.path, &entry.path)
                // A required grant where a parent's is best effort says more: without landlock nothing starts.
                && (other.enforce == Enforce::Required || entry.enforce == Enforce::BestEffort)
        };
        let parents = all.iter().filter(|other| !self.is_own(&other.origin));
        let known = before.iter().chain(parents).find(covering)?;
        Some((
            format!(
                "{verb} {} is granted already by {} ({})",
                entry.path, known.path, known.origin
            ),
            "remove it: it changes nothing".to_owned(),
        ))
    }
}

fn overlap(one: &str, other: &str) -> bool {
    covers(one, other) || covers(other, one)
}

/// The entry of a list of paths that a path lies in; absent lists are the standard ones.
fn listed(list: &Option<PathList>, standard: &[&str], path: &str) -> Option<String> {
    let in_standard = || {
        standard
            .iter()
            .find(|known| covers(known, path))
            .map(|known| (*known).to_owned())
    };
    match list {
        None => in_standard(),
        Some(PathList::None(_)) => None,
        Some(PathList::These(paths)) => paths.iter().find_map(|known| {
            if known.value == "standard" {
                in_standard()
            } else {
                covers(&known.value, path).then(|| known.value.clone())
            }
        }),
    }
}
