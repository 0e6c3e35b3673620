//! Docker's own seccomp profiles (`--security-opt seccomp=FILE`): an OCI document with conditions on capabilities, architectures and kernels.
//!
//! Owns those conditions. A profile is one more filter beside the policy's: it narrows what the policy allows and never widens it, so that it
//! needs no leave of the owner. Knows nothing of programs. Invariant: a rule whose condition is not understood is an error, not a guess.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::capability::Capability;
use crate::confinement::Filter;
use crate::confinement::Seccomp;
use crate::kernel::{Arch, KernelFacts};
use crate::oci::{OciSeccompError, from_oci};

/// The most bytes of a profile; Docker's own has 15 KB.
pub const PROFILE_BYTES_MAX: usize = 256 * 1024;

/// A Docker seccomp profile that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// It is larger than any profile is.
    #[error("the seccomp profile has {bytes} bytes, at most {PROFILE_BYTES_MAX} are read")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It is not of Docker's form.
    #[error("read the seccomp profile")]
    Form {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A word of a condition is not known.
    #[error("the seccomp profile has an unknown {what} `{word}`")]
    Word {
        /// Which kind of word.
        what: &'static str,
        /// The word.
        word: String,
    },
    /// It wants calls answered by a process outside, which no container of ours has.
    #[error("the seccomp profile names a listener, which is not supported")]
    Listener,
    /// It makes no filter.
    #[error("compile the seccomp profile")]
    Compile {
        /// Why.
        #[source]
        source: OciSeccompError,
    },
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Conditions {
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// Makes a profile's filters for a set of capabilities and a kernel.
pub(crate) fn filters(text: &str, held: u64, facts: &KernelFacts) -> Result<Vec<Filter>, ProfileError> {
    if text.len() > PROFILE_BYTES_MAX {
        return Err(ProfileError::TooLarge { bytes: text.len() });
    }
    let document: Map<String, Value> =
        serde_json::from_str(text).map_err(|source| ProfileError::Form { source })?;
    if document
        .get("listenerPath")
        .is_some_and(|path| path.as_str().is_some_and(|path| !path.is_empty()))
    {
        return Err(ProfileError::Listener);
    }
    let mut resolved = Map::new();
    for field in ["defaultAction", "defaultErrnoRet", "flags"] {
        if let Some(value) = document.get(field) {
            resolved.insert(field.to_owned(), value.clone());
        }
    }
    let rules = match document.get("syscalls") {
        Some(Value::Array(rules)) => rules.as_slice(),
        _ => &[],
    };
    let mut kept = Vec::new();
    for rule in rules {
        if counts(rule, held, facts)? {
            kept.push(plain(rule));
        }
    }
    resolved.insert("syscalls".to_owned(), Value::Array(kept));
    let seccomp =
        from_oci(&Value::Object(resolved), facts.arch).map_err(|source| ProfileError::Compile { source })?;
    let Seccomp::Filters(mut filters) = seccomp else {
        return Ok(Vec::new());
    };
    for filter in &mut filters {
        filter.purpose = "seccomp profile".to_owned();
        filter.log |= facts.seccomp_log;
    }
    Ok(filters)
}

/// A rule as the OCI document has it: Docker's older profiles say `name` for one call.
fn plain(rule: &Value) -> Value {
    let mut rule = rule.clone();
    if let Some(fields) = rule.as_object_mut() {
        let name = fields
            .remove("name")
            .filter(|name| name.as_str().is_some_and(|name| !name.is_empty()));
        if let (Some(name), false) = (name, fields.contains_key("names")) {
            fields.insert("names".to_owned(), Value::Array(vec![name]));
        }
    }
    rule
}

/// Whether a rule counts here: every condition of `includes` holds, all of its capabilities being held, and none of `excludes`,
/// of whose capabilities one suffices.
fn counts(rule: &Value, held: u64, facts: &KernelFacts) -> Result<bool, ProfileError> {
    let read = |field: &str| match rule.get(field) {
        None | Some(Value::Null) => Ok(Conditions::default()),
        Some(value) => Conditions::deserialize(value).map_err(|source| ProfileError::Form { source }),
    };
    let (includes, excludes) = (read("includes")?, read("excludes")?);
    let arch = match facts.arch {
        Arch::X86_64 => "amd64",
        Arch::Aarch64 => "arm64",
    };
    let names_arch =
        |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| list.iter().any(|a| a == arch));
    let is_held = |word: &String| match word.parse::<Capability>() {
        Ok(capability) => Ok(held & capability.bit() != 0),
        Err(_) => Err(ProfileError::Word {
            what: "capability",
            word: word.clone(),
        }),
    };
    let held_of =
        |list: &Option<Vec<String>>| list.iter().flatten().map(is_held).collect::<Result<Vec<_>, _>>();
    let new_enough = |version: &Option<String>| match version {
        None => Ok(true),
        Some(version) => {
            let wanted = numbers(version).ok_or_else(|| ProfileError::Word {
                what: "kernel version",
                word: version.clone(),
            })?;
            Ok(numbers(&facts.release).is_some_and(|has| has >= wanted))
        }
    };
    let included = (includes.arches.as_ref().is_none_or(Vec::is_empty) || names_arch(&includes.arches))
        && held_of(&includes.caps)?.into_iter().all(|held| held)
        && new_enough(&includes.min_kernel)?;
    let excluded = names_arch(&excludes.arches)
        || held_of(&excludes.caps)?.into_iter().any(|held| held)
        || (excludes.min_kernel.is_some() && new_enough(&excludes.min_kernel)?);
    Ok(included && !excluded)
}

/// The first two numbers of a kernel's version.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(|c: char| !c.is_ascii_digit());
    let major = parts.next()?.parse().ok()?;
    Some((major, parts.next()?.parse().ok()?))
}
