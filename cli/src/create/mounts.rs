//! The notations of `--volume`, `--mount` and `--tmpfs`.
//!
//! Owns the splitting. Refuses to look at the host's files. Invariant: a target is absolute.

use std::path::{Component, Path, PathBuf};

use kakoi_api::container::{BindOptions, Mount, TmpfsOptions, VolumeOptions};

use super::Pairs;
use crate::text::{TextError, parse_size};

/// Why a mount cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// `--volume` has another form.
    #[error("--volume {text:?}: {words}")]
    Volume {
        /// What was written.
        text: String,
        /// What is wrong.
        words: &'static str,
    },
    /// `--mount` has another form.
    #[error("--mount {text:?}: {words}")]
    Mount {
        /// What was written.
        text: String,
        /// What is wrong.
        words: String,
    },
    /// A size in `--mount`.
    #[error("--mount {text:?}")]
    Size {
        /// What was written.
        text: String,
        /// Why.
        #[source]
        cause: TextError,
    },
    /// `--tz` is no zone.
    #[error("--tz {text:?} is no time zone: name one of /usr/share/zoneinfo, as in Europe/Berlin, or local")]
    Zone {
        /// What was written.
        text: String,
    },
    /// `--tmpfs` has another form.
    #[error("--tmpfs {text:?} is not /PATH or /PATH:OPTIONS")]
    Tmpfs {
        /// What was written.
        text: String,
    },
}

/// `--tz`: the host's file of the zone in the place where programs look for their own. One that is not there is refused by the daemon.
pub(super) fn time_zone(zone: &str) -> Result<Mount, MountError> {
    let is_name = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+'))
    };
    let source = match zone {
        "local" => "/etc/localtime".to_owned(),
        zone if zone.split('/').all(is_name) => format!("/usr/share/zoneinfo/{zone}"),
        _ => {
            return Err(MountError::Zone {
                text: zone.to_owned(),
            });
        }
    };
    Ok(Mount {
        kind: "bind".to_owned(),
        source,
        target: "/etc/localtime".to_owned(),
        read_only: true,
        ..Mount::default()
    })
}

/// `--volume` values: binds, and places of anonymous volumes.
pub(super) fn binds(values: &[String]) -> Result<(Vec<String>, Vec<String>), MountError> {
    let mut binds = Vec::new();
    let mut anonymous = Vec::new();
    for text in values {
        let wrong = |words| MountError::Volume {
            text: text.clone(),
            words,
        };
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            [place] if place.starts_with('/') => anonymous.push((*place).to_owned()),
            [source, place] | [source, place, _] => {
                if !place.starts_with('/') {
                    return Err(wrong("the path inside must be absolute: write SOURCE:/INSIDE"));
                }
                if source.is_empty() {
                    return Err(wrong("there is no source before the colon"));
                }
                let options = parts
                    .get(2)
                    .map(|options| format!(":{options}"))
                    .unwrap_or_default();
                binds.push(format!("{}:{place}{options}", source_of(source)));
            }
            [_] => return Err(wrong("the path inside must be absolute: write SOURCE:/INSIDE")),
            _ => return Err(wrong("there are too many colons: write SOURCE:/INSIDE:OPTIONS")),
        }
    }
    Ok((binds, anonymous))
}

/// A source that is written as a path, made absolute: the daemon stands elsewhere. Others are names of volumes.
fn source_of(source: &str) -> String {
    if !source.starts_with('.') && !source.starts_with('~') {
        return source.to_owned();
    }
    let path = match (source.strip_prefix('~'), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            Path::new(&home).join(rest.trim_start_matches('/'))
        }
        _ => std::env::current_dir()
            .unwrap_or_else(|_| PathBuf::from("/"))
            .join(source),
    };
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean.display().to_string()
}

/// `--tmpfs` values.
pub(super) fn tmpfs(values: &[String]) -> Result<Pairs, MountError> {
    values
        .iter()
        .map(|text| {
            let (place, options) = text.split_once(':').unwrap_or((text, ""));
            if place.starts_with('/') {
                Ok((place.to_owned(), options.to_owned()))
            } else {
                Err(MountError::Tmpfs { text: text.clone() })
            }
        })
        .collect()
}

/// `--mount` values.
pub(super) fn long(values: &[String]) -> Result<Vec<Mount>, MountError> {
    values.iter().map(|text| mount(text)).collect()
}

fn mount(text: &str) -> Result<Mount, MountError> {
    let wrong = |words: String| MountError::Mount {
        text: text.to_owned(),
        words,
    };
    let mut mount = Mount {
        kind: "volume".to_owned(),
        ..Mount::default()
    };
    let mut bind = BindOptions::default();
    let mut volume = VolumeOptions::default();
    let mut memory = TmpfsOptions::default();
    for field in fields(text).ok_or_else(|| wrong("a quote has no end".to_owned()))? {
        let (key, value) = field.split_once('=').unwrap_or((&field, "true"));
        let truth = match value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(wrong(format!("{key} is true or false"))),
        };
        match key {
            "type" => mount.kind = value.to_owned(),
            "source" | "src" => mount.source = source_of(value),
            "target" | "dst" | "destination" => mount.target = value.to_owned(),
            "readonly" | "ro" => mount.read_only = truth?,
            "rw" => mount.read_only = !truth?,
            "bind-propagation" => bind.propagation = value.to_owned(),
            "bind-nonrecursive" => bind.non_recursive = truth?,
            "volume-nocopy" => volume.no_copy = truth?,
            "volume-label" => {
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                volume.labels.insert(name.to_owned(), value.to_owned());
            }
            "volume-subpath" => volume.subpath = value.to_owned(),
            "tmpfs-size" => {
                memory.size_bytes = parse_size(value).map_err(|cause| MountError::Size {
                    text: text.to_owned(),
                    cause,
                })?;
            }
            "tmpfs-mode" => {
                memory.mode = u32::from_str_radix(value, 8)
                    .map_err(|_| wrong(format!("tmpfs-mode {value:?} is not an octal number")))?;
            }
            _ => {
                return Err(wrong(format!(
                    "there is no key {key:?}: use type, source, target, readonly, bind-propagation, volume-nocopy, tmpfs-size or tmpfs-mode"
                )));
            }
        }
    }
    if !mount.target.starts_with('/') {
        return Err(wrong("it needs target=/PATH".to_owned()));
    }
    match mount.kind.as_str() {
        "bind" if mount.source.is_empty() => return Err(wrong("a bind needs source=/PATH".to_owned())),
        "bind" => mount.bind_options = (bind != BindOptions::default()).then_some(bind),
        "volume" => mount.volume_options = (volume != VolumeOptions::default()).then_some(volume),
        "tmpfs" if !mount.source.is_empty() => return Err(wrong("memory has no source".to_owned())),
        "tmpfs" => mount.tmpfs_options = (memory != TmpfsOptions::default()).then_some(memory),
        other => {
            return Err(wrong(format!(
                "there is no type {other:?}: use bind, volume or tmpfs"
            )));
        }
    }
    Ok(mount)
}

/// Splits at commas that are not within double quotes, as a CSV reader does.
fn fields(text: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    for c in text.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            c => fields.last_mut().expect("the list starts with one").push(c),
        }
    }
    if is_quoted { None } else { Some(fields) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn volumes_are_split() {
        let (binds, anonymous) = binds(&words(&["/a:/b", "data:/d:ro", "/only"])).expect("they are volumes");
        assert_eq!(binds, ["/a:/b", "data:/d:ro"]);
        assert_eq!(anonymous, ["/only"]);
        let here = std::env::current_dir().expect("there is one");
        let (relative, _) = super::binds(&words(&["./x/../y:/b"])).expect("it is a volume");
        assert_eq!(relative, [format!("{}:/b", here.join("y").display())]);
        for wrong in ["a", "a:b", ":/b", "/a:/b:ro:x", ""] {
            assert!(super::binds(&words(&[wrong])).is_err(), "{wrong}");
        }
    }

    #[test]
    fn long_mounts_are_read() {
        let list = long(&words(&[
            "type=bind,source=/a,target=/b,readonly,bind-propagation=rslave",
            "src=v,dst=/d",
            "type=tmpfs,destination=/t,tmpfs-size=1m,tmpfs-mode=1777",
            "type=bind,\"source=/with,comma\",target=/c",
        ]))
        .expect("they are mounts");
        assert!(list[0].read_only && list[0].bind_options.is_some());
        assert_eq!((list[1].kind.as_str(), list[1].source.as_str()), ("volume", "v"));
        assert_eq!(
            list[2]
                .tmpfs_options
                .as_ref()
                .map(|options| (options.size_bytes, options.mode)),
            Some((1 << 20, 0o1777))
        );
        assert_eq!(list[3].source, "/with,comma");
        for wrong in [
            "type=bind,target=/b",
            "type=x,target=/b",
            "target=b",
            "type=tmpfs,source=/a,target=/t",
            "target=/b,foo=1",
            "target=/b,ro=maybe",
            "\"target=/b",
            "target=/t,type=tmpfs,tmpfs-mode=9",
        ] {
            assert!(long(&words(&[wrong])).is_err(), "{wrong}");
        }
    }

    #[test]
    fn memory_mounts_are_read() {
        let map = tmpfs(&words(&["/run", "/tmp:size=1m,mode=1777"])).expect("they are mounts");
        assert_eq!(map["/run"], "");
        assert_eq!(map["/tmp"], "size=1m,mode=1777");
        assert!(tmpfs(&words(&["run"])).is_err());
    }
}
