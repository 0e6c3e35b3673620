//! What happens to each system call, by name and independent of any architecture.
//!
//! Owns precedence. A call's lines are tried in order and the first that holds decides; what no line decides is denied with EPERM:
//!
//! 1. denials, in the order of the documents;
//! 2. the call named without conditions;
//! 3. else the call named with conditions (any of them), and for `socket` what `network` grants;
//! 4. else a group that holds the call.
//!
//! A group therefore never widens a call for which conditions are given by name: only naming the call without conditions does.

use std::collections::BTreeMap;

use crate::compose::Composed;
use crate::constants::EPERM;
use crate::diagnostics::Origin;
use crate::model::{CallRule, CallSubject, Condition, Operator, Width};
use crate::syscalls::groups;

/// What a line does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Allow,
    Deny { errno: u16, log: bool },
}

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) when: Vec<Condition>,
    pub(crate) action: Action,
    pub(crate) origin: Origin,
    /// What the rule says, for people (`@file-system`, `socket`, `network.udp`).
    pub(crate) says: String,
}

impl Line {
    pub(crate) fn holds(&self, arguments: &[u64; 6]) -> bool {
        self.when.iter().all(|condition| condition.holds(arguments))
    }
}

/// Every call that some rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan(pub(crate) BTreeMap<String, Vec<Line>>);

/// What a call that no line decides gets.
pub(crate) const OTHERWISE: Action = Action::Deny {
    errno: EPERM,
    log: true,
};

impl Plan {
    /// The line that decides a call with certain arguments.
    pub(crate) fn decide(&self, call: &str, arguments: &[u64; 6]) -> Option<&Line> {
        self.0.get(call)?.iter().find(|line| line.holds(arguments))
    }

    pub(crate) fn action(&self, call: &str, arguments: &[u64; 6]) -> Action {
        self.decide(call, arguments).map_or(OTHERWISE, |line| line.action)
    }
}

#[derive(Default)]
struct Candidates<'a> {
    deny: Vec<&'a CallRule>,
    named_plain: Option<&'a CallRule>,
    named: Vec<&'a CallRule>,
    group_plain: Option<&'a CallRule>,
    group: Vec<&'a CallRule>,
}

/// Works the plan out.
pub(crate) fn plan(policy: &Composed) -> Plan {
    let mut calls: BTreeMap<&str, Candidates<'_>> = BTreeMap::new();
    let counts = |rule: &&CallRule| {
        let held =
            |set: &std::collections::BTreeSet<_>| set.iter().any(|c| policy.capabilities.contains_key(c));
        (rule.if_capabilities.is_empty() || held(&rule.if_capabilities)) && !held(&rule.unless_capabilities)
    };
    for rule in policy.rules.calls.deny.iter().filter(counts) {
        each_call(&rule.subject, |call, _| {
            calls.entry(call).or_default().deny.push(rule)
        });
    }
    for rule in policy.rules.calls.allow.iter().filter(counts) {
        each_call(&rule.subject, |call, named| {
            let candidates = calls.entry(call).or_default();
            match (named, rule.when.is_empty()) {
                (true, true) => candidates.named_plain = candidates.named_plain.or(Some(rule)),
                (true, false) => candidates.named.push(rule),
                (false, true) => candidates.group_plain = candidates.group_plain.or(Some(rule)),
                (false, false) => candidates.group.push(rule),
            }
        });
    }
    let mut sockets = socket_grants(policy);
    if !sockets.is_empty() {
        calls.entry("socket").or_default();
    }
    let lines = calls.into_iter().map(|(call, candidates)| {
        let extra = if call == "socket" {
            std::mem::take(&mut sockets)
        } else {
            Vec::new()
        };
        (call.to_owned(), lines(candidates, extra))
    });
    Plan(lines.collect())
}

fn each_call<'a>(subject: &'a CallSubject, mut take: impl FnMut(&'a str, bool)) {
    match subject {
        CallSubject::Names(names) => names.iter().for_each(|name| take(name, true)),
        CallSubject::Group(name) => {
            if let Some(group) = groups::find(name) {
                group.calls().for_each(|call| take(call, false));
            }
        }
    }
}

fn lines(candidates: Candidates<'_>, granted: Vec<Line>) -> Vec<Line> {
    let mut lines: Vec<Line> = candidates
        .deny
        .iter()
        .map(|rule| {
            let errno = rule.errno.unwrap_or(EPERM);
            line(rule, Action::Deny { errno, log: rule.log })
        })
        .collect();
    let allow = |rule: &&CallRule| line(rule, Action::Allow);
    if let Some(rule) = candidates.named_plain {
        lines.push(allow(&rule));
    } else if !candidates.named.is_empty() || !granted.is_empty() {
        lines.extend(candidates.named.iter().map(allow));
        lines.extend(granted);
    } else if let Some(rule) = candidates.group_plain {
        lines.push(allow(&rule));
    } else {
        lines.extend(candidates.group.iter().map(allow));
    }
    // Nothing after a line without conditions is ever tried.
    if let Some(end) = lines.iter().position(|line| line.when.is_empty()) {
        lines.truncate(end + 1);
    }
    lines
}

fn line(rule: &CallRule, action: Action) -> Line {
    Line {
        when: rule.when.clone(),
        action,
        origin: rule.origin.clone(),
        says: rule.subject.to_string(),
    }
}

/// The sockets that `network` grants: of TCP, of UDP and for echo requests, over IPv4 and IPv6, and nothing of the other protocols that
/// reach the same network around the port rules (MPTCP, SCTP, SMC, DCCP, UDP-Lite, raw).
fn socket_grants(policy: &Composed) -> Vec<Line> {
    const STREAM: u64 = 1;
    const DATAGRAM: u64 = 2;
    let network = &policy.rules.network;
    let tcp = [&network.bind, &network.connect].into_iter().find_map(|ports| {
        ports
            .any
            .clone()
            .or_else(|| ports.entries.first().map(|entry| entry.origin.clone()))
    });
    let granted = |flag: &Option<crate::model::Sited<bool>>| {
        flag.as_ref()
            .filter(|flag| flag.value)
            .map(|flag| flag.origin.clone())
    };
    let mut lines = Vec::new();
    let mut grant = |origin: &Origin, says: &str, kind: u64, pairs: &[(u64, u64)]| {
        for (domain, protocol) in pairs {
            let compare = |argument, operator, value| Condition {
                argument,
                operator,
                value,
                width: Width::Low32,
            };
            lines.push(Line {
                when: vec![
                    compare(0, Operator::Eq, *domain),
                    compare(1, Operator::MaskedEq(0xf), kind),
                    compare(2, Operator::Eq, *protocol),
                ],
                action: Action::Allow,
                origin: origin.clone(),
                says: says.to_owned(),
            });
        }
    };
    if let Some(origin) = tcp {
        grant(
            &origin,
            "network.bind or network.connect",
            STREAM,
            &[(2, 0), (10, 0), (2, 6), (10, 6)],
        );
    }
    if let Some(origin) = granted(&network.udp) {
        grant(
            &origin,
            "network.udp",
            DATAGRAM,
            &[(2, 0), (10, 0), (2, 17), (10, 17)],
        );
    }
    if let Some(origin) = granted(&network.icmp) {
        grant(&origin, "network.icmp", DATAGRAM, &[(2, 1), (10, 58)]);
    }
    lines
}
