//! Rules that do nothing, and rules that undo the point: what a correct document is warned about.
//!
//! Owns the advice. Refuses to refuse: a finding here never stops a container. Only what the document itself says is judged, against everything
//! it extends; a parent is judged when it is checked itself. Invariant: every finding has a place and a proposal.

mod calls;
mod files;
mod rest;

use crate::compile::plan::{Plan, plan};
use crate::compose::Composed;
use crate::diagnostics::{DIAGNOSTICS_MAX, Diagnostic, Origin, Severity, source_line};
use crate::model::{Enforce, Policy};

/// Looks for such rules in a document, given what it composes to.
pub fn lint(policy: &Policy, composed: &Composed) -> Vec<Diagnostic> {
    let mut lints = Lints {
        policy,
        composed,
        plan: plan(composed),
        found: Vec::new(),
    };
    lints.capabilities();
    lints.calls();
    lints.files();
    lints.network();
    lints.devices();
    lints.best_effort();
    let mut found = lints.found;
    found.sort_by_key(|finding| (finding.origin.line, finding.origin.column));
    found.truncate(DIAGNOSTICS_MAX);
    found
}

struct Lints<'a> {
    policy: &'a Policy,
    composed: &'a Composed,
    plan: Plan,
    found: Vec<Diagnostic>,
}

impl Lints<'_> {
    fn is_own(&self, origin: &Origin) -> bool {
        *origin.file == *self.policy.file
    }

    fn warn(&mut self, origin: &Origin, message: String, help: String) {
        let source_line = source_line(&self.policy.text, origin.line);
        self.found.push(Diagnostic {
            severity: Severity::Warning,
            message,
            origin: origin.clone(),
            width: width(&source_line, origin.column),
            source_line,
            label: None,
            help: Some(help),
        });
    }

    /// A device without landlock starts a policy of which every rule may be lost: it then holds nothing that the author asked for.
    fn best_effort(&mut self) {
        let rules = &self.policy.rules;
        let sections: [Vec<(&Origin, Enforce)>; 4] = [
            [&rules.files.read, &rules.files.write, &rules.files.execute]
                .into_iter()
                .flatten()
                .map(|entry| (&entry.origin, entry.enforce))
                .collect(),
            [&rules.network.bind.entries, &rules.network.connect.entries]
                .into_iter()
                .flatten()
                .map(|entry| (&entry.origin, entry.enforce))
                .collect(),
            [&rules.scope.signals, &rules.scope.abstract_sockets]
                .into_iter()
                .flatten()
                .map(|entry| (&entry.origin, entry.enforce))
                .collect(),
            [&rules.calls.allow, &rules.calls.deny]
                .into_iter()
                .flatten()
                .map(|rule| (&rule.origin, rule.enforce))
                .collect(),
        ];
        let said: Vec<_> = sections.iter().filter(|section| !section.is_empty()).collect();
        let is_all = said
            .iter()
            .copied()
            .flatten()
            .all(|(_, enforce)| *enforce == Enforce::BestEffort);
        if said.len() < 2 || !is_all {
            return;
        }
        let first = said.iter().copied().flatten().map(|(origin, _)| *origin).min();
        if let Some(origin) = first.cloned() {
            self.warn(
                &origin,
                "every rule of this document is `best_effort`: on a kernel that enforces none of them the container starts all the same"
                    .to_owned(),
                "leave `enforce` out where the app must not run without the rule; `required` is the default".to_owned(),
            );
        }
    }
}

/// How many characters the word at a column has, for underlining it.
fn width(line: &str, column: u32) -> u32 {
    let rest = line.chars().skip(column.saturating_sub(1) as usize);
    let word: Vec<char> = rest.collect();
    let count = match word.first() {
        Some(quote @ ('"' | '\'')) => word[1..].iter().position(|c| c == quote).map_or(1, |end| end + 2),
        Some('{') => word.iter().position(|c| *c == '}').map_or(1, |end| end + 1),
        _ => word
            .iter()
            .position(|c| matches!(c, ',' | ']' | '}' | ' ' | '#' | ':'))
            .unwrap_or(word.len()),
    };
    u32::try_from(count.max(1)).unwrap_or(1)
}
