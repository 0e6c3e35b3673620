//! `system_calls`: groups, names, conditions on arguments, error numbers.
//!
//! Owns the grammar of the section. Knows nothing of numbers and of BPF.

use std::collections::{BTreeMap, BTreeSet};

use super::fields::{Fields, boolean, choice, enforce, list, number, origin, printable, scalar, word};
use super::sections::capability;
use crate::capability::Capability;
use crate::constants;
use crate::diagnostics::{Report, Span};
use crate::model::{CallRule, CallSubject, Calls, Condition, Enforce, Operator, Width};
use crate::syscalls::{self, groups};
use crate::units;
use crate::yaml::{Kind, Node};

/// The most conditions of one rule. Six arguments, each with a range, are twelve; the filter's jumps reach over sixteen.
const CONDITIONS_MAX: usize = 12;

/// The fields of a rule.
pub(crate) const KEYS: [&str; 9] = [
    "name",
    "names",
    "group",
    "when",
    "errno",
    "log",
    "if_capability",
    "unless_capability",
    "enforce",
];

/// Which list a rule stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Allow,
    Deny,
}

pub(crate) fn decode(node: Node, report: &mut Report<'_>) -> Calls {
    let mut calls = Calls {
        unconfined: None,
        allow: Vec::new(),
        deny: Vec::new(),
    };
    if let Kind::Scalar { text, .. } = &node.kind {
        if text == "unconfined" {
            calls.unconfined = Some(origin(&node, report));
        } else {
            report
                .error(
                    node.span,
                    format!("unknown word `{}` for `system_calls`", printable(text)),
                )
                .nearest(text, ["unconfined"]);
        }
        return calls;
    }
    let Some(mut fields) = Fields::open(node, "`system_calls`", &["allow", "deny", "enforce"], report) else {
        return calls;
    };
    let otherwise = enforce(&mut fields, Enforce::Required, report);
    if let Some(node) = fields.take("allow", report) {
        calls.allow = rules(node, Side::Allow, otherwise, report);
    }
    if let Some(node) = fields.take("deny", report) {
        calls.deny = rules(node, Side::Deny, otherwise, report);
    }
    refuse_contradictions(&calls, report);
    calls
}

fn rules(node: Node, side: Side, otherwise: Enforce, report: &mut Report<'_>) -> Vec<CallRule> {
    list(node, "system calls", report)
        .into_iter()
        .filter_map(|node| rule(node, side, otherwise, report))
        .collect()
}

fn rule(node: Node, side: Side, otherwise: Enforce, report: &mut Report<'_>) -> Option<CallRule> {
    let at = origin(&node, report);
    let mut rule = CallRule {
        subject: CallSubject::Names(Vec::new()),
        when: Vec::new(),
        errno: None,
        log: true,
        if_capabilities: BTreeSet::new(),
        unless_capabilities: BTreeSet::new(),
        enforce: otherwise,
        origin: at,
    };
    if matches!(node.kind, Kind::Scalar { .. }) {
        rule.subject = subject(&node, report)?;
        return Some(rule);
    }
    let span = node.span;
    let mut fields = Fields::open(node, "a rule", &KEYS, report)?;
    rule.subject = subject_field(&mut fields, span, report)?;
    if let Some(node) = fields.take("when", report) {
        rule.when = conditions(node, side, report);
    }
    if let Some(node) = fields.take("errno", report) {
        if side == Side::Allow {
            report
                .error(node.span, "`errno` in an allowing rule")
                .help("move the rule to `deny`");
        }
        rule.errno = errno(&node, report);
    }
    if let Some(node) = fields.take("log", report) {
        if side == Side::Allow {
            report
                .error(node.span, "`log` in an allowing rule")
                .help("allowed calls are not logged");
        }
        rule.log = boolean(&node, "`log`", report).unwrap_or(true);
    }
    rule.if_capabilities = capabilities(fields.take("if_capability", report), report);
    rule.unless_capabilities = capabilities(fields.take("unless_capability", report), report);
    rule.enforce = enforce(&mut fields, otherwise, report);
    Some(rule)
}

/// Exactly one of `name`, `names` and `group`.
fn subject_field(fields: &mut Fields, span: Span, report: &mut Report<'_>) -> Option<CallSubject> {
    let name = fields.take("name", report);
    let names = fields.take("names", report);
    let group = fields.take("group", report);
    match (name, names, group) {
        (Some(node), None, None) => subject(&node, report),
        (None, Some(node), None) => {
            let names: Vec<String> = list(node, "system calls", report)
                .iter()
                .filter_map(|node| call_name(node, report))
                .collect();
            (!names.is_empty()).then_some(CallSubject::Names(names))
        }
        (None, None, Some(node)) => {
            let text = word(&node, "a group", report)?;
            group_name(&node, &text, report)
        }
        _ => {
            report
                .error(span, "a rule names its calls in exactly one way")
                .help("give one of `name: call`, `names: [call, call]` and `group: \"@group\"`");
            None
        }
    }
}

fn subject(node: &Node, report: &mut Report<'_>) -> Option<CallSubject> {
    let text = word(node, "a system call or a group", report)?;
    if text.starts_with('@') {
        return group_name(node, &text, report);
    }
    call_name(node, report).map(|name| CallSubject::Names(vec![name]))
}

fn group_name(node: &Node, text: &str, report: &mut Report<'_>) -> Option<CallSubject> {
    match groups::find(text) {
        Some(group) => Some(CallSubject::Group(group.name)),
        None => {
            report
                .error(node.span, format!("unknown group `{}`", printable(text)))
                .nearest(text, groups::GROUPS.iter().map(|group| group.name));
            None
        }
    }
}

fn call_name(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = word(node, "a system call", report)?;
    if syscalls::exists(&text) {
        return Some(text);
    }
    report
        .error(node.span, format!("unknown system call `{}`", printable(&text)))
        .nearest(&text, syscalls::all_names());
    None
}

fn conditions(node: Node, side: Side, report: &mut Report<'_>) -> Vec<Condition> {
    let span = node.span;
    let nodes = match node.kind {
        Kind::Map(_) => vec![node],
        _ => list(node, "conditions", report),
    };
    if nodes.len() > CONDITIONS_MAX {
        report
            .error(span, format!("more than {CONDITIONS_MAX} conditions"))
            .help("split the rule in two");
        return Vec::new();
    }
    nodes
        .into_iter()
        .filter_map(|node| condition(node, side, report))
        .collect()
}

const OPERATORS: [(&str, Operator); 7] = [
    ("eq", Operator::Eq),
    ("ne", Operator::Ne),
    ("lt", Operator::Lt),
    ("le", Operator::Le),
    ("gt", Operator::Gt),
    ("ge", Operator::Ge),
    ("masked_eq", Operator::MaskedEq(0)),
];

/// The operators' names, for the schema.
pub(crate) fn operator_names() -> impl Iterator<Item = &'static str> {
    OPERATORS.iter().map(|(name, _)| *name)
}

/// The fields of a condition.
pub(crate) const CONDITION_KEYS: [&str; 5] = ["argument", "is", "value", "mask", "width"];

fn condition(node: Node, side: Side, report: &mut Report<'_>) -> Option<Condition> {
    let span = node.span;
    let mut fields = Fields::open(node, "a condition", &CONDITION_KEYS, report)?;
    let argument = fields
        .need("argument", "a condition", report)
        .and_then(|n| number(&n, "`argument`", 5, report));
    let operator = match fields.take("is", report) {
        Some(node) => choice(&node, "`is`", &OPERATORS, report)?,
        None => Operator::Eq,
    };
    let value = fields
        .need("value", "a condition", report)
        .and_then(|node| constant(&node, report));
    let mask = fields.take("mask", report);
    let mask_span = mask.as_ref().map(|node| node.span);
    let mask = mask.and_then(|node| constant(&node, report));
    let width = fields.take("width", report).and_then(|node| {
        choice(
            &node,
            "`width`",
            &[("32", Width::Low32), ("64", Width::Full64)],
            report,
        )
    });
    let operator = match (operator, mask) {
        (Operator::MaskedEq(_), Some(mask)) => Operator::MaskedEq(mask),
        (Operator::MaskedEq(_), None) => {
            if mask_span.is_none() {
                report
                    .error(span, "`masked_eq` without `mask`")
                    .help("give the bits that are compared: `mask: 0xf`");
            }
            return None;
        }
        (other, None) => other,
        (_, Some(_)) => {
            report
                .error(mask_span.unwrap_or(span), "`mask` without `is: masked_eq`")
                .help("add `is: masked_eq`, or remove the mask");
            return None;
        }
    };
    let (argument, value) = (argument?, value?);
    if let Operator::MaskedEq(mask) = operator
        && value & !mask != 0
    {
        report
            .error(
                span,
                "the value has bits outside of the mask, so that the condition never holds",
            )
            .help("widen the mask, or take the bits out of the value");
        return None;
    }
    let width = match width {
        Some(width) => width,
        None => default_width(side, operator, value, span, report)?,
    };
    Some(Condition {
        argument: u8::try_from(argument).unwrap_or(u8::MAX),
        operator,
        value,
        width,
    })
}

/// Without `width`, an allowing rule compares all 64 bits and a denying rule the low 32: in both cases the choice that refuses more. The
/// kernel ignores the high half of an `int`, so that a 64-bit denial of one could be stepped around by setting a high bit.
fn default_width(side: Side, op: Operator, value: u64, span: Span, report: &mut Report<'_>) -> Option<Width> {
    let mask = if let Operator::MaskedEq(mask) = op {
        mask
    } else {
        0
    };
    let wide = value > u64::from(u32::MAX) || mask > u64::from(u32::MAX);
    match (side, op) {
        (Side::Allow, _) => Some(Width::Full64),
        (Side::Deny, Operator::Eq | Operator::MaskedEq(_)) if !wide => Some(Width::Low32),
        (Side::Deny, _) => {
            report
                .error(
                    span,
                    "this denying condition must say how many bits of the argument count",
                )
                .help(
                    "add `width: 32` for an int or a flag word, `width: 64` for a size, a long or an address",
                );
            None
        }
    }
}

/// A number, a constant's name, or constants joined by `|`.
fn constant(node: &Node, report: &mut Report<'_>) -> Option<u64> {
    let text = scalar(node, "a number or a constant", report)?;
    let mut value = 0;
    for part in text.split('|').map(str::trim) {
        match units::integer(part).or_else(|| constants::argument(part)) {
            Some(bits) => value |= bits,
            None => {
                report
                    .error(
                        node.span,
                        format!("`{}` is neither a number nor a known constant", printable(part)),
                    )
                    .nearest(part, constants::ARGUMENTS.iter().map(|(name, _)| *name));
                return None;
            }
        }
    }
    Some(value)
}

fn errno(node: &Node, report: &mut Report<'_>) -> Option<u16> {
    let text = scalar(node, "an error number", report)?;
    // The kernel cuts at MAX_ERRNO; 0 would let a denied call look successful.
    let number = units::integer(&text)
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| (1..=4095).contains(n));
    match number.or_else(|| constants::errno(&text)) {
        Some(number) => Some(number),
        None => {
            report
                .error(node.span, format!("unknown error number `{}`", printable(&text)))
                .nearest(&text, constants::ERRNOS.iter().map(|(name, _)| *name));
            None
        }
    }
}

/// One capability, or a list.
fn capabilities(node: Option<Node>, report: &mut Report<'_>) -> BTreeSet<Capability> {
    let Some(node) = node else { return BTreeSet::new() };
    let nodes = match node.kind {
        Kind::Scalar { .. } => vec![node],
        _ => list(node, "capabilities", report),
    };
    nodes.iter().filter_map(|node| capability(node, report)).collect()
}

/// One document must not name a call both with and without conditions: nobody could say which was meant.
fn refuse_contradictions(calls: &Calls, report: &mut Report<'_>) {
    let everywhere =
        |rule: &&CallRule| rule.if_capabilities.is_empty() && rule.unless_capabilities.is_empty();
    let mut conditional: BTreeMap<&str, u32> = BTreeMap::new();
    for rule in calls
        .allow
        .iter()
        .filter(everywhere)
        .filter(|rule| !rule.when.is_empty())
    {
        if let CallSubject::Names(names) = &rule.subject {
            for name in names {
                conditional.entry(name).or_insert(rule.origin.line);
            }
        }
    }
    for plain in calls
        .allow
        .iter()
        .filter(everywhere)
        .filter(|rule| rule.when.is_empty())
    {
        let CallSubject::Names(names) = &plain.subject else {
            continue;
        };
        for name in names {
            let Some(line) = conditional.get(name.as_str()) else {
                continue;
            };
            let width = u32::try_from(name.chars().count()).unwrap_or(1);
            let span = Span {
                line: plain.origin.line,
                column: plain.origin.column,
                width,
            };
            report
                .error(span, format!("`{name}` both with and without conditions"))
                .label(format!("its conditions stand on line {line}"))
                .help("remove this entry to keep the conditions, or the conditions to allow every use");
        }
    }
}
