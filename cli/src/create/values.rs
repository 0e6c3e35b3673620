//! Single values of flags, from their notation to their types.
//!
//! Pure, except that a seccomp profile is read from its file. Invariant: a value that is not understood is refused with what to write instead.

use std::net::IpAddr;
use std::path::Path;

use kakoi_api::Words;
use kakoi_api::container::{DeviceMapping, RestartPolicy, Ulimit};

use super::Pairs;
use crate::bounded::{self, ReadError};
use crate::text::{TextError, parse_size};

/// The largest seccomp profile: Docker's own has 12 KB.
const SECCOMP_BYTES_MAX: u64 = 1 << 20;

/// Why a value cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    /// It has another form.
    #[error("{text:?} is not {wanted}")]
    Form {
        /// What was written.
        text: String,
        /// What to write.
        wanted: &'static str,
    },
    /// A seccomp profile cannot be read.
    #[error("reading the seccomp profile")]
    Seccomp(#[source] ReadError),
    /// A seccomp profile is no JSON.
    #[error("the seccomp profile {path} is not JSON")]
    SeccompJson {
        /// The file.
        path: String,
        /// Why.
        #[source]
        cause: serde_json::Error,
    },
}

fn form(text: &str, wanted: &'static str) -> ValueError {
    ValueError::Form {
        text: text.to_owned(),
        wanted,
    }
}

/// Translates each value of a flag.
pub(super) fn each<T>(
    values: &[String],
    translate: impl Fn(&str) -> Result<T, ValueError>,
) -> Result<Vec<T>, ValueError> {
    values.iter().map(|value| translate(value)).collect()
}

/// `NAME=VALUE` values as a map; the last of a name wins.
pub(super) fn pairs(values: &[String]) -> Result<Pairs, ValueError> {
    values
        .iter()
        .map(|value| match value.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(form(value, "NAME=VALUE")),
        })
        .collect()
}

/// A program, a JSON list, or nothing.
pub(super) fn entrypoint(text: &str) -> Words {
    if text.is_empty() {
        // A list of one empty word is how Docker's clients say "none": an empty list means "the image's" to old engines.
        return Words(vec![String::new()]);
    }
    words_or(text, |text| vec![text.to_owned()])
}

fn words_or(text: &str, otherwise: impl Fn(&str) -> Vec<String>) -> Words {
    let list = text
        .starts_with('[')
        .then(|| serde_json::from_str::<Vec<String>>(text).ok())
        .flatten();
    Words(list.unwrap_or_else(|| otherwise(text)))
}

/// A health test: `none`, a JSON list, or a line for the shell.
pub fn health_test(text: &str) -> Vec<String> {
    if text == "none" {
        return vec!["NONE".to_owned()];
    }
    let mut words = words_or(text, |line| vec!["CMD-SHELL".to_owned(), line.to_owned()]).0;
    if words
        .first()
        .is_some_and(|word| !matches!(word.as_str(), "CMD" | "CMD-SHELL" | "NONE"))
    {
        words.insert(0, "CMD".to_owned());
    }
    words
}

/// `no`, `always`, `unless-stopped`, `on-failure[:n]`.
pub fn parse_restart(text: &str) -> Result<RestartPolicy, ValueError> {
    let wrong = || {
        form(
            text,
            "no, on-failure, on-failure:ATTEMPTS, always or unless-stopped",
        )
    };
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => (name, Some(count.parse::<u32>().map_err(|_| wrong())?)),
        None => (text, None),
    };
    match (name, count) {
        ("no" | "always" | "unless-stopped", None) | ("on-failure", _) => Ok(RestartPolicy {
            name: name.to_owned(),
            maximum_retry_count: i64::from(count.unwrap_or(0)),
        }),
        _ => Err(wrong()),
    }
}

/// Processors, into thousand-millionths.
pub fn parse_cpus(text: &str) -> Result<i64, ValueError> {
    const CPUS_MAX: f64 = 65_536.0;
    match text.parse::<f64>() {
        Ok(cpus) if cpus > 0.0 && cpus <= CPUS_MAX => Ok((cpus * 1e9).round() as i64),
        _ => Err(form(text, "a number of processors, as in 1.5")),
    }
}

/// A size, or -1 for unlimited.
pub fn parse_limit(text: &str) -> Result<i64, TextError> {
    if text == "-1" { Ok(-1) } else { parse_size(text) }
}

/// `NAME:ADDRESS`, also with several names before the address, and with `=` in place of the colon.
pub(super) fn extra_hosts(text: &str) -> Result<Vec<String>, ValueError> {
    let wrong = || form(text, "NAME:ADDRESS with an IPv4 or IPv6 address, or host-gateway");
    let (names, address) = text.split_once([':', '=']).ok_or_else(wrong)?;
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    if bare != "host-gateway" && bare.parse::<IpAddr>().is_err() {
        return Err(wrong());
    }
    let one = |name: &str| {
        let is_name = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '#');
        is_name.then(|| format!("{name}:{bare}")).ok_or_else(wrong)
    };
    names.split(';').map(one).collect()
}

/// The address of a name server.
pub(super) fn name_server(text: &str) -> Result<String, ValueError> {
    match text.parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() && !address.is_multicast() => Ok(address.to_string()),
        _ => Err(form(text, "the address of a name server")),
    }
}

/// A domain to look for short names in, or `.` for none.
pub(super) fn domain(text: &str) -> Result<String, ValueError> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    if text == "." || (name.len() <= 253 && name.split('.').all(is_label)) {
        Ok(text.to_owned())
    } else {
        Err(form(text, "a domain, as in example.com, or . for none"))
    }
}

/// One word, as a line of resolv.conf has several.
pub(super) fn word(text: &str) -> Result<String, ValueError> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err(form(text, "one word, as in ndots:2"))
    }
}

pub(super) fn device(text: &str) -> Result<DeviceMapping, ValueError> {
    const WANTED: &str = "HOST[:INSIDE][:PERMISSIONS] with absolute paths and some of r, w, m";
    let is_permissions = |part: &str| !part.is_empty() && part.bytes().all(|byte| b"rwm".contains(&byte));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, inside, permissions) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, last] if is_permissions(last) => (*host, *host, *last),
        [host, inside] => (*host, *inside, "rwm"),
        [host, inside, permissions] if is_permissions(permissions) => (*host, *inside, *permissions),
        _ => return Err(form(text, WANTED)),
    };
    if !host.starts_with('/') || !inside.starts_with('/') {
        return Err(form(text, WANTED));
    }
    Ok(DeviceMapping {
        path_on_host: host.to_owned(),
        path_in_container: inside.to_owned(),
        cgroup_permissions: permissions.to_owned(),
    })
}

pub(super) fn ulimit(text: &str) -> Result<Ulimit, ValueError> {
    let wrong = || {
        form(
            text,
            "NAME=SOFT[:HARD] with numbers or unlimited, as in nofile=1024:2048",
        )
    };
    let number = |text: &str| match text {
        "unlimited" | "-1" => Some(-1),
        text => text.parse::<i64>().ok().filter(|number| *number >= 0),
    };
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    match (number(soft), number(hard)) {
        (Some(soft), Some(hard)) if !name.is_empty() && (hard == -1 || (soft != -1 && soft <= hard)) => {
            Ok(Ulimit {
                name: name.to_owned(),
                hard,
                soft,
            })
        }
        _ => Err(wrong()),
    }
}

/// Security options pass to the daemon; a seccomp profile's file becomes its text, for the daemon opens no file of the client's.
pub(super) fn security_option(text: &str) -> Result<String, ValueError> {
    let normal = if text.contains('=') {
        text.to_owned()
    } else {
        text.replacen(':', "=", 1)
    };
    let Some(profile) = normal.strip_prefix("seccomp=") else {
        return Ok(normal);
    };
    if matches!(profile, "unconfined" | "builtin") || profile.trim_start().starts_with('{') {
        return Ok(normal);
    }
    let content = bounded::read_text(Path::new(profile), SECCOMP_BYTES_MAX).map_err(ValueError::Seccomp)?;
    let document: serde_json::Value =
        serde_json::from_str(&content).map_err(|cause| ValueError::SeccompJson {
            path: profile.to_owned(),
            cause,
        })?;
    Ok(format!("seccomp={document}"))
}
