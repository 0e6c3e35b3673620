//! Secrets of an app: which of the device's it is given, and where it finds them.

use serde::{Deserialize, Serialize};

use super::refuse;
use crate::decode::fields::{Fields, number, printable, word};
use crate::diagnostics::Report;
use crate::yaml::{Kind, Node};

/// Where a file of a secret is where nothing is said.
const FOLDER: &str = "/run/secrets";
/// Who may read it where nothing is said: everyone in the container.
const MODE: u32 = 0o444;
/// Longest name.
const NAME_BYTES_MAX: usize = 200;

/// A secret that an app is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSecret {
    /// Its name on the device.
    pub name: String,
    /// Where the app finds it.
    pub place: SecretPlace,
}

/// Where an app finds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretPlace {
    /// In a file, which lies in memory.
    File {
        /// Its path.
        target: String,
        /// Its owner's id inside.
        uid: u32,
        /// Its group's id inside.
        gid: u32,
        /// Its mode.
        mode: u32,
    },
    /// In a variable.
    Env(String),
}

/// `NAME`, or `{name, target, uid, gid, mode}`, or `{name, env}`.
pub(super) fn read(node: &Node, report: &mut Report<'_>) -> Option<AppSecret> {
    if !matches!(node.kind, Kind::Map(_)) {
        let name = name(node, report)?;
        let target = format!("{FOLDER}/{name}");
        let place = SecretPlace::File {
            target,
            uid: 0,
            gid: 0,
            mode: MODE,
        };
        return Some(AppSecret { name, place });
    }
    let known = ["name", "target", "uid", "gid", "mode", "env"];
    let mut fields = Fields::open(node.clone(), "a secret", &known, report)?;
    let name = fields.need("name", "a secret", report);
    let name = name.and_then(|node| self::name(&node, report));
    let env = fields.take("env", report);
    let target = fields.take("target", report);
    let (uid, gid) = (fields.take("uid", report), fields.take("gid", report));
    let mode = fields.take("mode", report);
    if let Some(env) = env {
        for node in [&target, &uid, &gid, &mode].into_iter().flatten() {
            report
                .error(node.span, "a variable has no path, owner or mode")
                .help("write `env`, or what a file has");
        }
        return Some(AppSecret {
            place: SecretPlace::Env(variable(&env, report)?),
            name: name?,
        });
    }
    let target = target.map(|node| self::target(&node, report));
    let id = |node: Option<Node>, what: &str, report: &mut Report<'_>| {
        let value = node.map(|node| number(&node, what, u32::MAX.into(), report));
        value.map_or(Some(0), |value| value.and_then(|value| u32::try_from(value).ok()))
    };
    let (uid, gid) = (id(uid, "`uid`", report), id(gid, "`gid`", report));
    let mode = mode.map_or(Some(MODE), |node| self::mode(&node, report));
    let name = name?;
    let target = target.unwrap_or_else(|| Some(format!("{FOLDER}/{name}")))?;
    Some(AppSecret {
        place: SecretPlace::File {
            target,
            uid: uid?,
            gid: gid?,
            mode: mode?,
        },
        name,
    })
}

fn name(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = word(node, "a secret's name", report)?;
    let is_good = text.len() <= NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if !is_good {
        refuse(
            node,
            &text,
            "a secret's name",
            "write the name of one of `kakoi secret ls`",
            report,
        );
        return None;
    }
    Some(text)
}

fn variable(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = word(node, "a variable's name", report)?;
    if !super::is_variable(&text) {
        let help = "use letters, digits and `_`, no digit in front";
        refuse(node, &text, "a variable's name", help, report);
        return None;
    }
    Some(text)
}

fn target(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = word(node, "a path", report)?;
    let is_good = text.starts_with('/') && text.len() > 1 && text.split('/').all(|part| part != "..");
    if !is_good {
        let help = "write an absolute path of the container, without `..`";
        refuse(node, &text, "a secret's place", help, report);
        return None;
    }
    Some(text)
}

/// An octal number, quoted or not, as chmod(1) has it.
fn mode(node: &Node, report: &mut Report<'_>) -> Option<u32> {
    let text = match &node.kind {
        Kind::Scalar { text, .. } => text.clone(),
        _ => word(node, "a mode", report)?,
    };
    let digits = text.strip_prefix("0o").unwrap_or(&text);
    let is_octal =
        (1..=4).contains(&digits.len()) && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = u32::from_str_radix(digits, 8).ok().filter(|_| is_octal);
    match mode.filter(|mode| (1..=0o777).contains(mode)) {
        Some(mode) => Some(mode),
        None => {
            report
                .error(node.span, format!("`{}` is not a file's mode", printable(&text)))
                .help("write it in octal, from \"0001\" to \"0777\"; \"0400\" is for its owner alone");
            None
        }
    }
}
