//! Findings about capabilities and system calls.
//!
//! Owns the list of what a capability is for. Refuses to guess: a capability that also works without a system call of its own is not in it.

use super::Lints;
use crate::capability::{Capability, CapabilityWord};
use crate::compile::plan::Action;
use crate::diagnostics::Origin;
use crate::model::{CallRule, CallSubject};

/// What a capability is good for: calls that it opens. One of them suffices.
const OPENED: [(&str, &[&str]); 16] = [
    ("CHOWN", &["chown", "fchown", "lchown", "fchownat"]),
    ("KILL", &["kill", "tkill", "tgkill", "pidfd_send_signal"]),
    (
        "SETGID",
        &["setgid", "setregid", "setresgid", "setfsgid", "setgroups"],
    ),
    ("SETUID", &["setuid", "setreuid", "setresuid", "setfsuid"]),
    ("IPC_LOCK", &["mlock", "mlock2", "mlockall", "mmap", "shmctl"]),
    ("SYS_MODULE", &["init_module", "finit_module", "delete_module"]),
    ("SYS_CHROOT", &["chroot", "setns"]),
    (
        "SYS_PTRACE",
        &[
            "ptrace",
            "process_vm_readv",
            "process_vm_writev",
            "kcmp",
            "pidfd_getfd",
            "process_madvise",
        ],
    ),
    ("SYS_PACCT", &["acct"]),
    ("SYS_BOOT", &["reboot", "kexec_load", "kexec_file_load"]),
    (
        "SYS_TIME",
        &[
            "settimeofday",
            "clock_settime",
            "clock_settime64",
            "adjtimex",
            "clock_adjtime",
        ],
    ),
    ("SYSLOG", &["syslog"]),
    ("WAKE_ALARM", &["timer_create", "timerfd_create"]),
    ("PERFMON", &["perf_event_open", "bpf"]),
    ("BPF", &["bpf"]),
    ("SETFCAP", &["setxattr", "lsetxattr", "fsetxattr", "setxattrat"]),
];

/// What a capability is good for where arguments count: its name, calls with them, and what opens one.
type OpenedWith = (&'static str, &'static [(&'static str, [u64; 6])], &'static str);

const OPENED_WITH: [OpenedWith; 3] = [
    (
        "MKNOD",
        &[
            ("mknod", [0, 0o020_600, 0, 0, 0, 0]),
            ("mknodat", [0, 0, 0o020_600, 0, 0, 0]),
        ],
        "{name: mknodat, when: {argument: 2, is: masked_eq, mask: S_IFMT, value: S_IFCHR}}",
    ),
    (
        "NET_RAW",
        &[
            ("socket", [2, 3, 1, 0, 0, 0]),
            ("socket", [10, 3, 58, 0, 0, 0]),
            ("socket", [17, 3, 0, 0, 0, 0]),
        ],
        "{name: socket, when: [{argument: 0, value: AF_INET}, {argument: 1, is: masked_eq, mask: 0xf, value: SOCK_RAW}]}",
    ),
    (
        "AUDIT_WRITE",
        &[("socket", [16, 3, 9, 0, 0, 0])],
        "{name: socket, when: [{argument: 0, value: AF_NETLINK}, {argument: 2, value: NETLINK_AUDIT}]}",
    ),
];

impl Lints<'_> {
    pub(super) fn capabilities(&mut self) {
        let section = &self.policy.rules.capabilities;
        let mut findings = Vec::new();
        for (at, word) in section.allow.iter().enumerate() {
            let name = match word.value {
                CapabilityWord::All => "ALL".to_owned(),
                CapabilityWord::One(capability) => capability.to_string(),
            };
            if let Some(denied) = section.deny.iter().find(|denied| denied.value == word.value) {
                findings.push((
                    &word.origin,
                    format!(
                        "{name} is granted and taken away ({}): it is not held",
                        denied.origin
                    ),
                    "remove one of the two".to_owned(),
                ));
            } else if section.allow[..at].iter().any(|other| other.value == word.value) {
                findings.push((
                    &word.origin,
                    format!("{name} is listed twice"),
                    "remove this one".to_owned(),
                ));
            } else if let Some(parent) = self.parents_capability(word.value) {
                findings.push((
                    &word.origin,
                    format!("{name} is granted already ({parent})"),
                    "remove it: it changes nothing".to_owned(),
                ));
            } else if let CapabilityWord::One(capability) = word.value
                && let Some((calls, rule)) = self.needed_and_denied(capability)
            {
                findings.push((
                    &word.origin,
                    format!(
                        "{name} does nothing: the system calls it is for are denied ({})",
                        calls.join(", ")
                    ),
                    format!("remove it, or add `system_calls: {{allow: [{rule}]}}`"),
                ));
            }
            if matches!(word.value, CapabilityWord::All) || name == "SYS_ADMIN" {
                findings.push((
                    &word.origin,
                    format!(
                        "{name} undoes most of the confinement: who holds it can mount, trace and reconfigure"
                    ),
                    "name the capability the app needs; `kakoi why CONTAINER` shows what it was refused"
                        .to_owned(),
                ));
            }
        }
        self.add(findings);
    }

    fn add(&mut self, findings: Vec<(&Origin, String, String)>) {
        for (origin, message, help) in findings {
            self.warn(origin, message, help);
        }
    }

    fn parents_capability(&self, word: CapabilityWord) -> Option<Origin> {
        let section = &self.composed.rules.capabilities;
        let others = section.allow.iter().filter(|other| !self.is_own(&other.origin));
        let mut granting = others.filter(|other| other.value == word || other.value == CapabilityWord::All);
        let is_denied = section
            .deny
            .iter()
            .any(|denied| !self.is_own(&denied.origin) && denied.value == word);
        if is_denied {
            None
        } else {
            granting.next().map(|other| other.origin.clone())
        }
    }

    /// The calls that a capability is for, where every one of them is denied, and the rule that would open one.
    fn needed_and_denied(&self, capability: Capability) -> Option<(Vec<&'static str>, &'static str)> {
        if self.composed.rules.calls.unconfined.is_some() {
            return None;
        }
        let name = capability.name();
        let bare = name.strip_prefix("CAP_").unwrap_or(name);
        if let Some((_, calls)) = OPENED.iter().find(|(known, _)| *known == bare) {
            let is_open = |call: &&str| {
                let lines = self.plan.0.get(*call).map(Vec::as_slice).unwrap_or_default();
                lines.iter().any(|line| line.action == Action::Allow)
            };
            return (!calls.iter().any(is_open)).then(|| (calls.to_vec(), calls[0]));
        }
        let (_, calls, rule) = OPENED_WITH.iter().find(|(known, ..)| *known == bare)?;
        let is_open = calls
            .iter()
            .any(|(call, arguments)| self.plan.action(call, arguments) == Action::Allow);
        let mut names: Vec<_> = calls.iter().map(|(call, _)| *call).collect();
        names.dedup();
        (!is_open).then_some((names, *rule))
    }

    pub(super) fn calls(&mut self) {
        let mut findings = Vec::new();
        let own = &self.policy.rules.calls;
        if let Some(origin) = &self.composed.rules.calls.unconfined {
            for rule in own.allow.iter().chain(&own.deny) {
                findings.push((
                    &rule.origin,
                    format!(
                        "`{}` does nothing: system calls are unconfined ({origin})",
                        rule.subject
                    ),
                    "remove the rule, or `system_calls: unconfined`".to_owned(),
                ));
            }
            return self.add(findings);
        }
        for (at, rule) in own.allow.iter().enumerate() {
            if let Some(denied) = self.denied_whole(rule) {
                findings.push((
                    &rule.origin,
                    format!(
                        "`{}` stays denied: a denial wins over a grant ({denied})",
                        rule.subject
                    ),
                    "remove this rule, or extend a profile without that denial".to_owned(),
                ));
            } else if let Some(known) = self.allowed_already(rule, &own.allow[..at]) {
                findings.push((
                    &rule.origin,
                    format!("`{}` is allowed already ({known})", rule.subject),
                    "remove it: it changes nothing".to_owned(),
                ));
            }
            if names(rule, "listen") && self.binds_nothing() {
                findings.push((
                    &rule.origin,
                    "`listen` without a port in `network.bind`: the kernel then picks a port that no rule sees".to_owned(),
                    "name the port in `network: {bind: [PORT]}`, or remove `listen`".to_owned(),
                ));
            }
        }
        self.add(findings);
    }

    fn binds_nothing(&self) -> bool {
        let bind = &self.composed.rules.network.bind;
        bind.any.is_none() && bind.entries.is_empty()
    }

    /// The denial that leaves nothing of a grant.
    fn denied_whole(&self, rule: &CallRule) -> Option<Origin> {
        let denials = &self.composed.rules.calls.deny;
        let mut last = None;
        for call in calls_of(rule) {
            let denial = denials.iter().find(|denial| {
                denial.when.is_empty()
                    && denial.if_capabilities.is_empty()
                    && denial.unless_capabilities.is_empty()
                    && denial.subject.is_about(call)
            });
            last = Some(denial?.origin.clone());
        }
        last
    }

    /// Another rule that grants the same: the same words, or an earlier document that allows each call whatever its arguments.
    fn allowed_already(&self, rule: &CallRule, before: &[CallRule]) -> Option<Origin> {
        let same = |other: &&CallRule| {
            other.subject == rule.subject
                && other.when == rule.when
                && other.if_capabilities == rule.if_capabilities
                && other.unless_capabilities == rule.unless_capabilities
        };
        let parents = || {
            let all = self.composed.rules.calls.allow.iter();
            all.filter(|other| !self.is_own(&other.origin))
        };
        if let Some(other) = before.iter().find(same).or_else(|| parents().find(same)) {
            return Some(other.origin.clone());
        }
        if !rule.when.is_empty() {
            return None;
        }
        let mut last = None;
        for call in calls_of(rule) {
            // Naming a call widens what a parent gave by name under conditions, so only a parent without conditions makes it useless.
            let is_conditional =
                parents().any(|other| !other.when.is_empty() && other.subject.is_about(call));
            let grant = parents().find(|other| {
                other.when.is_empty()
                    && other.if_capabilities.is_empty()
                    && other.unless_capabilities.is_empty()
                    && other.subject.is_about(call)
            });
            last = Some(grant.filter(|_| !is_conditional)?.origin.clone());
        }
        last
    }
}

fn names(rule: &CallRule, call: &str) -> bool {
    matches!(&rule.subject, CallSubject::Names(names) if names.iter().any(|name| name == call))
}

fn calls_of(rule: &CallRule) -> Vec<&str> {
    match &rule.subject {
        CallSubject::Names(names) => names.iter().map(String::as_str).collect(),
        CallSubject::Group(group) => crate::syscalls::groups::find(group)
            .map(|group| group.calls().collect())
            .unwrap_or_default(),
    }
}
