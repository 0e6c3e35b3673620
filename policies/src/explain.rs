//! Why something is allowed or refused, by which rule, and what to write to change it.
//!
//! Owns [`Question`] and [`Answer`]. It answers from the same plan that filters are compiled from, so that an explanation cannot differ from
//! what is enforced.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::capability::Capability;
use crate::compile::STANDARD_DEVICES;
use crate::compile::landlock::granting;
use crate::compile::plan::{Action, Line, plan};
use crate::compose::Composed;
use crate::confinement::DeviceKind;
use crate::constants::errno_name;
use crate::diagnostics::Origin;
use crate::model::{DeviceSubject, PathEntry, Ports};
use crate::syscalls::{self, groups};

/// What someone wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// A system call, with its arguments where they are known.
    SystemCall {
        /// Its name.
        name: String,
        /// Its arguments; `None` asks for the call as such.
        arguments: Option<[u64; 6]>,
    },
    /// Reading a file or listing a folder.
    Read(String),
    /// Writing, creating or removing.
    Write(String),
    /// Running a program.
    Execute(String),
    /// Binding a TCP port.
    Bind(u16),
    /// Connecting to a TCP port.
    Connect(u16),
    /// Holding a capability.
    Capability(Capability),
    /// Opening a device by path.
    Device(String),
    /// Opening a device by numbers.
    DeviceNumbers {
        /// Kind of node.
        kind: DeviceKind,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// Whether it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Always.
    Allowed,
    /// Depending on arguments.
    Conditional,
    /// Never.
    Denied,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What was asked, in words.
    pub asked: String,
    /// Whether it may be.
    pub verdict: Verdict,
    /// What decided it: a rule, or that there is none.
    pub because: String,
    /// Where the rule stands; `None` where no rule grants it.
    pub rule: Option<Origin>,
    /// A piece of policy that would allow it; `None` where it is allowed, or where no policy may.
    pub remedy: Option<String>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Allowed => "allowed",
            Verdict::Conditional => "depends",
            Verdict::Denied => "denied",
        };
        write!(f, "{}: {verdict}\n  because {}", self.asked, self.because)?;
        if let Some(rule) = &self.rule {
            write!(f, "\n  rule    {rule}")?;
        }
        if let Some(remedy) = &self.remedy {
            f.write_str("\n  to allow it, add to the policy:")?;
            for line in remedy.lines() {
                write!(f, "\n    {line}")?;
            }
        }
        Ok(())
    }
}

/// Answers a question about a policy.
pub fn explain(policy: &Composed, question: &Question) -> Answer {
    match question {
        Question::SystemCall { name, arguments } => system_call(policy, name, arguments.as_ref()),
        Question::Read(path) => file(
            policy,
            "read",
            path,
            &[&policy.rules.files.read, &policy.rules.files.execute],
        ),
        Question::Write(path) => file(policy, "write", path, &[&policy.rules.files.write]),
        Question::Execute(path) => file(policy, "execute", path, &[&policy.rules.files.execute]),
        Question::Bind(port) => tcp("bind", *port, &policy.rules.network.bind),
        Question::Connect(port) => tcp("connect", *port, &policy.rules.network.connect),
        Question::Capability(capability) => capability_answer(policy, *capability),
        Question::Device(path) => device(policy, path),
        Question::DeviceNumbers { kind, major, minor } => device_numbers(policy, *kind, *major, *minor),
    }
}

fn allowed(asked: String, because: String, rule: &Origin) -> Answer {
    Answer {
        asked,
        verdict: Verdict::Allowed,
        because,
        rule: Some(rule.clone()),
        remedy: None,
    }
}

fn denied(asked: String, because: String, rule: Option<Origin>, remedy: Option<String>) -> Answer {
    Answer {
        asked,
        verdict: Verdict::Denied,
        because,
        rule,
        remedy,
    }
}

fn system_call(policy: &Composed, name: &str, arguments: Option<&[u64; 6]>) -> Answer {
    let asked = match arguments {
        Some(arguments) => {
            let list: Vec<String> = arguments
                .iter()
                .map(|argument| format!("{argument:#x}"))
                .collect();
            format!("system call {name}({})", list.join(", "))
        }
        None => format!("system call {name}"),
    };
    if !syscalls::exists(name) {
        let near = crate::diagnostics::nearest(name, syscalls::all_names());
        let because = match near {
            Some(near) => format!("there is no such call; did you mean `{near}`?"),
            None => "there is no such call; an unknown call gives ENOSYS".to_owned(),
        };
        return denied(asked, because, None, None);
    }
    if let Some(origin) = &policy.rules.calls.unconfined {
        return allowed(asked, "system calls are unconfined".to_owned(), origin);
    }
    let plan = plan(policy);
    let lines = plan.0.get(name).map(Vec::as_slice).unwrap_or_default();
    let deciding = match arguments {
        Some(arguments) => lines.iter().find(|line| line.holds(arguments)),
        None => lines.first().filter(|line| line.when.is_empty()),
    };
    match deciding {
        Some(line) => match line.action {
            Action::Allow => allowed(asked, format!("`{}` is allowed", line.says), &line.origin),
            Action::Deny { errno, .. } => {
                let because = format!("`{}` is denied with {}", line.says, errno_name(errno));
                denied(asked, because, Some(line.origin.clone()), None)
            }
        },
        None => undecided(asked, name, lines, arguments.is_some()),
    }
}

/// The answer where no line decides: there is none, none holds, or it depends.
fn undecided(asked: String, name: &str, lines: &[Line], with_arguments: bool) -> Answer {
    let remedy = Some(format!("system_calls:\n  allow: [{name}]"));
    let rule = lines.first().map(|line| line.origin.clone());
    let listed = |lines: Vec<&Line>| {
        lines
            .into_iter()
            .map(in_words)
            .collect::<Vec<_>>()
            .join("\n          ")
    };
    if lines.is_empty() {
        let group = groups::GROUPS.iter().find(|group| group.contains(name));
        let hint = group
            .map(|g| format!(" (it is in {}: {})", g.name, g.about))
            .unwrap_or_default();
        return denied(
            asked,
            format!("no rule allows it{hint}; it gives EPERM"),
            None,
            remedy,
        );
    }
    if with_arguments {
        let open = listed(lines.iter().filter(|line| line.action == Action::Allow).collect());
        let because =
            format!("its arguments meet no allowing rule; it gives EPERM. Allowed is:\n          {open}");
        return denied(asked, because, rule, remedy);
    }
    let because = format!(
        "it depends on its arguments, in this order:\n          {}",
        listed(lines.iter().collect())
    );
    Answer {
        asked,
        verdict: Verdict::Conditional,
        because,
        rule,
        remedy,
    }
}

fn in_words(line: &Line) -> String {
    let action = match line.action {
        Action::Allow => "allowed".to_owned(),
        Action::Deny { errno, .. } => format!("denied with {}", errno_name(errno)),
    };
    let conditions: Vec<String> = line.when.iter().map(ToString::to_string).collect();
    let when = if conditions.is_empty() {
        "otherwise".to_owned()
    } else {
        format!("if {}", conditions.join(" and "))
    };
    format!("{action} {when} ({})", line.origin)
}

fn file(policy: &Composed, verb: &str, path: &str, lists: &[&Vec<PathEntry>]) -> Answer {
    let asked = format!("{verb} {path}");
    if let Some(origin) = &policy.rules.files.unconfined {
        return allowed(
            asked,
            "files are unconfined; the image's permissions decide".to_owned(),
            origin,
        );
    }
    if let Some(origin) = lists.iter().find_map(|list| granting(list, path)) {
        let because = format!("`files` grants {verb} here; the image's permissions decide further");
        return allowed(asked, because, origin);
    }
    if verb != "execute"
        && let Some(origin) = device_grant(policy, path, verb == "write")
    {
        return allowed(asked, "`devices` grants it".to_owned(), &origin);
    }
    let remedy = format!("files:\n  {verb}: [{}]", serde_json::Value::from(path));
    denied(
        asked,
        format!("no entry of `files.{verb}` covers it; landlock gives EACCES"),
        None,
        Some(remedy),
    )
}

fn tcp(verb: &str, port: u16, ports: &Ports) -> Answer {
    let asked = format!("{verb} TCP port {port}");
    if let Some(origin) = &ports.any {
        return allowed(asked, format!("`network.{verb}` is `any`"), origin);
    }
    if let Some(entry) = ports
        .entries
        .iter()
        .find(|entry| (entry.first..=entry.last).contains(&port))
    {
        return allowed(asked, format!("`network.{verb}` lists it"), &entry.origin);
    }
    let because = format!("no entry of `network.{verb}` names it; landlock gives EACCES");
    denied(
        asked,
        because,
        None,
        Some(format!("network:\n  {verb}: [{port}]")),
    )
}

fn capability_answer(policy: &Composed, capability: Capability) -> Answer {
    let asked = format!("capability {capability}");
    if let Some(origin) = policy.capabilities.get(&capability) {
        return allowed(asked, "it is in `capabilities`".to_owned(), origin);
    }
    match policy.capabilities_denied.get(&capability) {
        Some(origin) => denied(asked, "it was taken away".to_owned(), Some(origin.clone()), None),
        None => {
            let remedy = format!("capabilities: [{capability}]");
            denied(
                asked,
                "no entry of `capabilities` names it".to_owned(),
                None,
                Some(remedy),
            )
        }
    }
}

/// Whether `devices: [standard]` covers a path.
pub(crate) fn is_standard_device(path: &str) -> bool {
    const STANDARD: [&str; 8] = [
        "null", "zero", "full", "random", "urandom", "tty", "console", "ptmx",
    ];
    path.strip_prefix("/dev/")
        .is_some_and(|name| STANDARD.contains(&name) || name.starts_with("pts/"))
}

/// The rule that opens a device by its path.
fn device_grant(policy: &Composed, path: &str, write: bool) -> Option<Origin> {
    path.strip_prefix("/dev/")?;
    let fits = |subject: &DeviceSubject| match subject {
        DeviceSubject::All => true,
        DeviceSubject::Standard => is_standard_device(path),
        DeviceSubject::Path(pattern) => crate::ceiling::glob_covers(pattern, path),
        DeviceSubject::Numbers { .. } => false,
    };
    policy
        .rules
        .devices
        .iter()
        .find(|entry| {
            fits(&entry.subject)
                && if write {
                    entry.access.write
                } else {
                    entry.access.read
                }
        })
        .map(|entry| entry.origin.clone())
}

fn device(policy: &Composed, path: &str) -> Answer {
    let asked = format!("device {path}");
    match device_grant(policy, path, false).or_else(|| device_grant(policy, path, true)) {
        Some(origin) => allowed(asked, "`devices` grants it".to_owned(), &origin),
        None => {
            let remedy = format!("devices: [{}]", serde_json::Value::from(path));
            denied(
                asked,
                "no entry of `devices` covers it".to_owned(),
                None,
                Some(remedy),
            )
        }
    }
}

fn device_numbers(policy: &Composed, kind: DeviceKind, major: u32, minor: u32) -> Answer {
    let asked = format!(
        "device {}",
        crate::ceiling::numbers(kind, Some(major), Some(minor))
    );
    let fits = |subject: &DeviceSubject| match subject {
        DeviceSubject::All => true,
        DeviceSubject::Standard => {
            kind == DeviceKind::Char
                && STANDARD_DEVICES
                    .iter()
                    .any(|(m, n)| *m == major && n.is_none_or(|n| n == minor))
        }
        DeviceSubject::Path(_) => false,
        DeviceSubject::Numbers {
            kind: k,
            major: m,
            minor: n,
        } => {
            (*k == DeviceKind::All || *k == kind)
                && m.is_none_or(|m| m == major)
                && n.is_none_or(|n| n == minor)
        }
    };
    let opens = |entry: &&crate::model::DeviceEntry| {
        fits(&entry.subject) && (entry.access.read || entry.access.write)
    };
    match policy.rules.devices.iter().find(opens) {
        Some(entry) => allowed(asked, "`devices` grants it".to_owned(), &entry.origin),
        None => {
            let word = if kind == DeviceKind::Block {
                "block"
            } else {
                "char"
            };
            let remedy =
                format!("devices:\n  - {{type: {word}, major: {major}, minor: {minor}, access: rw}}");
            denied(
                asked,
                "no entry of `devices` covers it".to_owned(),
                None,
                Some(remedy),
            )
        }
    }
}
