//! Mounts in the wire's three forms (`Binds`, `Mounts`, `Tmpfs`) and the image's volumes, made one list.

use std::path::PathBuf;

use kakoi_api::container::{ContainerConfig, HostConfig, Mount, MountPoint};

use crate::names;
use crate::refusal::{Answer, Refusal};

/// Mounts of one container.
const MOUNTS_MAX: usize = 256;
/// What the kernel counts a tmpfs in: pages, of 64 KiB at most on the machines that this runs on.
const PAGE_BYTES: u64 = 64 << 10;

/// Where a mount comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path of the host, and whether a missing one is made.
    Bind {
        /// The path.
        path: PathBuf,
        /// Whether a folder is made where nothing is.
        make: bool,
    },
    /// A volume; an empty name asks for a new one.
    Volume {
        /// Its name.
        name: String,
        /// A folder within.
        subpath: String,
        /// Whether it goes with the container.
        anonymous: bool,
    },
    /// Memory.
    Tmpfs,
    /// A file in memory: the secret of this number among the container's.
    Secret {
        /// The number.
        number: usize,
    },
}

/// One mount that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where it comes from.
    pub source: Source,
    /// Absolute path inside, without a trailing `/`.
    pub target: String,
    /// Whether it is read-only.
    pub read_only: bool,
    /// Options in mount(8)'s words.
    pub options: Vec<String>,
    /// Whether an empty volume takes over what the image has.
    pub copy_up: bool,
    /// The options as they were written.
    pub mode: String,
}

/// All mounts of a request. Those of other containers give way to its own.
pub fn asked(config: &ContainerConfig, host: &HostConfig, others: Vec<Asked>) -> Answer<Vec<Asked>> {
    let mut all = Vec::new();
    for bind in &host.binds {
        add(&mut all, of_bind(bind)?)?;
    }
    for mount in &host.mounts {
        add(&mut all, of_mount(mount)?)?;
    }
    for (target, options) in &host.tmpfs {
        add(&mut all, of_tmpfs(target, options)?)?;
    }
    for mount in others {
        if !all.iter().any(|own| own.target == mount.target) {
            all.push(mount);
        }
    }
    for place in config.volumes.keys() {
        let target = target(place)?;
        if !all.iter().any(|mount| mount.target == target) {
            let source = Source::Volume {
                name: String::new(),
                subpath: String::new(),
                anonymous: true,
            };
            all.push(Asked {
                source,
                target,
                read_only: false,
                options: vec![],
                copy_up: true,
                mode: String::new(),
            });
        }
    }
    if all.len() > MOUNTS_MAX {
        return Err(Refusal::bad(format!(
            "a container has at most {MOUNTS_MAX} mounts"
        )));
    }
    Ok(all)
}

/// `container[:ro|rw]`: whose volumes, and whether they are read-only here.
pub fn volumes_from(text: &str) -> Answer<(&str, bool)> {
    let (name, mode) = text.split_once(':').unwrap_or((text, ""));
    match (name, mode) {
        ("", _) => Err(Refusal::bad(format!("invalid volumes-from: {text:?}"))),
        (name, "" | "rw" | "z" | "Z") => Ok((name, false)),
        (name, "ro") => Ok((name, true)),
        (_, mode) => Err(Refusal::bad(format!(
            "invalid mode for volumes-from: {mode}; use ro or rw"
        ))),
    }
}

/// What another container mounts, apart from memory, which is its own.
pub fn of_points(points: &[MountPoint], read_only: bool) -> impl Iterator<Item = Asked> {
    points.iter().filter_map(move |point| {
        let source = match point.kind.as_str() {
            "bind" => Source::Bind {
                path: PathBuf::from(&point.source),
                make: false,
            },
            "volume" => Source::Volume {
                name: point.name.clone(),
                subpath: String::new(),
                anonymous: false,
            },
            _ => return None,
        };
        Some(Asked {
            source,
            target: point.destination.clone(),
            read_only: read_only || !point.rw,
            options: vec![],
            copy_up: false,
            mode: String::new(),
        })
    })
}

/// Adds a mount; two at one place are refused.
pub fn add(all: &mut Vec<Asked>, mount: Asked) -> Answer<()> {
    if all.iter().any(|other| other.target == mount.target) {
        return Err(Refusal::bad(format!("Duplicate mount point: {}", mount.target)));
    }
    all.push(mount);
    Ok(())
}

/// An absolute path inside, cleaned.
pub fn target(text: &str) -> Answer<String> {
    let invalid = |why: &str| Err(Refusal::bad(format!("invalid mount target {text:?}: {why}")));
    if !text.starts_with('/') {
        return invalid("mount path must be absolute");
    }
    if text.contains('\0') {
        return invalid("it holds a NUL byte");
    }
    let parts: Vec<&str> = text
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if parts.contains(&"..") {
        return invalid("it holds '..'");
    }
    if parts.is_empty() {
        return invalid("destination can't be '/'");
    }
    Ok(format!("/{}", parts.join("/")))
}

/// `source:target[:options]`.
fn of_bind(text: &str) -> Answer<Asked> {
    let invalid = || Refusal::bad(format!("invalid volume specification: '{text}'"));
    let mut parts = text.splitn(3, ':');
    let (Some(from), Some(to)) = (parts.next().filter(|part| !part.is_empty()), parts.next()) else {
        return Err(invalid());
    };
    let words = parts.next().unwrap_or_default();
    let target = target(to)?;
    let is_volume = !from.starts_with('/');
    let mut mount = Asked {
        source: Source::Tmpfs,
        target,
        read_only: false,
        options: vec![],
        copy_up: is_volume,
        mode: words.to_owned(),
    };
    for word in words.split(',').filter(|word| !word.is_empty()) {
        match word {
            "ro" => mount.read_only = true,
            "rw" | "z" | "Z" | "delegated" | "cached" | "consistent" => {}
            "nocopy" if is_volume => mount.copy_up = false,
            "copy" if is_volume => {}
            "noexec" | "nosuid" | "nodev" | "exec" | "suid" | "bind" | "rbind" => {
                mount.options.push(word.into())
            }
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" if !is_volume => {
                mount.options.push(word.into());
            }
            _ => return Err(Refusal::bad(format!("invalid mode: {words}"))),
        }
    }
    mount.source = if is_volume {
        if !names::is_valid(from) {
            return Err(Refusal::bad(format!(
                "create {from}: \"{from}\" includes invalid characters for a local volume name, only \
                 {} are allowed. If you intended to pass a host directory, use absolute path",
                names::RULE
            )));
        }
        Source::Volume {
            name: from.into(),
            subpath: String::new(),
            anonymous: false,
        }
    } else {
        Source::Bind {
            path: host_path(from)?,
            make: true,
        }
    };
    Ok(mount)
}

fn host_path(text: &str) -> Answer<PathBuf> {
    if !text.starts_with('/') || text.contains('\0') {
        return Err(Refusal::bad(format!(
            "invalid mount path: '{text}' mount path must be absolute"
        )));
    }
    Ok(PathBuf::from(text))
}

/// A refusal in dockerd's words.
fn invalid(wire: &Mount, why: &str) -> Refusal {
    Refusal::bad(format!("invalid mount config for type \"{}\": {why}", wire.kind))
}

fn of_mount(wire: &Mount) -> Answer<Asked> {
    if wire.target.is_empty() {
        return Err(invalid(wire, "field Target must not be empty"));
    }
    let mut mount = Asked {
        source: Source::Tmpfs,
        target: target(&wire.target)?,
        read_only: wire.read_only,
        options: vec![],
        copy_up: false,
        mode: String::new(),
    };
    match wire.kind.as_str() {
        "bind" => bind(wire, &mut mount)?,
        "volume" => volume(wire, &mut mount)?,
        "tmpfs" => tmpfs(wire, &mut mount)?,
        other => return Err(Refusal::bad(format!("mount type unknown: {other:?}"))),
    }
    Ok(mount)
}

fn bind(wire: &Mount, mount: &mut Asked) -> Answer<()> {
    if wire.source.is_empty() {
        return Err(invalid(wire, "field Source must not be empty"));
    }
    let options = wire.bind_options.clone().unwrap_or_default();
    match options.propagation.as_str() {
        "" => {}
        "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
            mount.options.push(options.propagation.clone());
        }
        other => return Err(invalid(wire, &format!("invalid propagation mode: {other}"))),
    }
    if options.non_recursive {
        mount.options.push("bind".into());
    }
    if wire.read_only && options.read_only_force_recursive {
        mount.options.push("rro".into());
    }
    mount.source = Source::Bind {
        path: host_path(&wire.source)?,
        make: options.create_mountpoint,
    };
    Ok(())
}

fn volume(wire: &Mount, mount: &mut Asked) -> Answer<()> {
    let options = wire.volume_options.clone().unwrap_or_default();
    if !wire.source.is_empty() && !names::is_valid(&wire.source) {
        return Err(invalid(
            wire,
            &format!("{:?} is no name for a volume", wire.source),
        ));
    }
    let has_escape = options.subpath.starts_with('/') || options.subpath.split('/').any(|part| part == "..");
    if has_escape || options.subpath.contains('\0') {
        return Err(invalid(wire, "subpath must be a relative path within the volume"));
    }
    mount.copy_up = !options.no_copy;
    let anonymous = wire.source.is_empty();
    mount.source = Source::Volume {
        name: wire.source.clone(),
        subpath: options.subpath,
        anonymous,
    };
    Ok(())
}

fn tmpfs(wire: &Mount, mount: &mut Asked) -> Answer<()> {
    if !wire.source.is_empty() {
        return Err(invalid(wire, "field Source must not be specified"));
    }
    let options = wire.tmpfs_options.clone().unwrap_or_default();
    if options.size_bytes < 0 {
        return Err(invalid(wire, "size cannot be negative"));
    }
    if options.size_bytes > 0 {
        mount.options.push(format!("size={}", options.size_bytes));
    }
    if options.mode != 0 {
        mount.options.push(format!("mode={:o}", options.mode & 0o7777));
    }
    Ok(())
}

fn of_tmpfs(place: &str, words: &str) -> Answer<Asked> {
    let mut mount = Asked {
        source: Source::Tmpfs,
        target: target(place)?,
        read_only: false,
        options: vec![],
        copy_up: false,
        mode: words.to_owned(),
    };
    for word in words.split(',').filter(|word| !word.is_empty()) {
        let key = word.split('=').next().unwrap_or_default();
        match key {
            "ro" => mount.read_only = true,
            "rw" => {}
            "size" | "mode" | "uid" | "gid" | "nr_inodes" | "nr_blocks" if word.len() > key.len() + 1 => {
                mount.options.push(word.into());
            }
            "exec" | "noexec" | "suid" | "nosuid" | "dev" | "nodev" | "noatime" | "relatime" | "sync" => {
                mount.options.push(word.into());
            }
            _ => return Err(Refusal::bad(format!("invalid tmpfs option {word:?}"))),
        }
    }
    Ok(mount)
}

/// The largest that a tmpfs may become by its own options; `None` where they say nothing. What grows with the machine, and 0, which the
/// kernel reads as no limit, count as everything.
pub fn tmpfs_bytes(options: &[String]) -> Answer<Option<u64>> {
    let mut largest = None;
    for option in options {
        let (value, unit) = match option.split_once('=') {
            Some(("size", value)) => (value, 1),
            Some(("nr_blocks", value)) => (value, PAGE_BYTES),
            _ => continue,
        };
        let share = value
            .strip_suffix('%')
            .and_then(|share| share.parse::<u32>().ok());
        let bytes = match share {
            Some(_) if unit == 1 => u64::MAX,
            _ => kernel_number(value)
                .map(|number| {
                    if number == 0 {
                        u64::MAX
                    } else {
                        number.saturating_mul(unit)
                    }
                })
                .ok_or_else(|| Refusal::bad(format!("invalid tmpfs option {option:?}")))?,
        };
        // Which of two the kernel takes is its own affair.
        largest = largest.max(Some(bytes));
    }
    Ok(largest)
}

/// What the kernel's own reader takes for the same number: digits without a leading zero, which it takes for octal, and one letter.
fn kernel_number(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()?.to_ascii_lowercase() {
        b'k' => (&text[..text.len() - 1], 10),
        b'm' => (&text[..text.len() - 1], 20),
        b'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let is_plain =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    digits
        .parse::<u64>()
        .ok()
        .filter(|_| is_plain)?
        .checked_mul(1 << shift)
}

/// Options of a tmpfs, no larger than `most`: more was asked for only where the owner trims, and then it stands in the losses.
pub fn within_tmpfs(options: Vec<String>, most: u64) -> Vec<String> {
    if !matches!(tmpfs_bytes(&options), Ok(Some(bytes)) if bytes > most) {
        return options;
    }
    let is_size = |option: &String| option.starts_with("size=") || option.starts_with("nr_blocks=");
    let others = options.into_iter().filter(|option| !is_size(option));
    others.chain([format!("size={most}")]).collect()
}

#[cfg(test)]
mod tests {
    use kakoi_api::Empty;
    use kakoi_api::container::{BindOptions, TmpfsOptions, VolumeOptions};

    use super::*;

    #[test]
    fn reads_binds() {
        let bind = of_bind("/srv/data/:/data/:ro,rslave").expect("valid");
        assert_eq!(
            bind.source,
            Source::Bind {
                path: "/srv/data/".into(),
                make: true
            }
        );
        assert_eq!((bind.target.as_str(), bind.read_only), ("/data", true));
        assert_eq!(bind.options, ["rslave"]);
        let volume = of_bind("vol:/data:nocopy").expect("valid");
        assert_eq!(
            volume.source,
            Source::Volume {
                name: "vol".into(),
                subpath: String::new(),
                anonymous: false
            }
        );
        assert!(!volume.copy_up);
        for bad in [
            "",
            "/a",
            ":/b",
            "/a:b",
            "/a:/",
            "/a:/b/../c",
            "/a:/b:maybe",
            "../x:/b",
            "vol:/b:rslave",
            "a b:/c",
        ] {
            assert!(of_bind(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reads_the_long_form() {
        let mount = |kind: &str, source: &str| Mount {
            kind: kind.into(),
            source: source.into(),
            target: "/t".into(),
            ..Mount::default()
        };
        let bind = of_mount(&mount("bind", "/s")).expect("valid");
        assert_eq!(
            bind.source,
            Source::Bind {
                path: "/s".into(),
                make: false
            }
        );
        let mut tmpfs = mount("tmpfs", "");
        tmpfs.tmpfs_options = Some(TmpfsOptions {
            size_bytes: 4096,
            mode: 0o700,
            options: vec![],
        });
        assert_eq!(
            of_mount(&tmpfs).expect("valid").options,
            ["size=4096", "mode=700"]
        );
        let mut escaping = mount("volume", "v1");
        escaping.volume_options = Some(VolumeOptions {
            subpath: "a/../../b".into(),
            ..Default::default()
        });
        let mut shared = mount("bind", "/s");
        shared.bind_options = Some(BindOptions {
            propagation: "all".into(),
            ..Default::default()
        });
        for bad in [
            escaping,
            shared,
            mount("bind", ""),
            mount("bind", "s"),
            mount("tmpfs", "/s"),
            mount("npipe", "x"),
        ] {
            assert!(of_mount(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_images_volume_yields_to_a_mount_and_doubles_are_refused() {
        let config = ContainerConfig {
            volumes: [("/data/".to_owned(), Empty), ("/other".to_owned(), Empty)].into(),
            ..ContainerConfig::default()
        };
        let host = HostConfig {
            binds: vec!["v1:/data".into()],
            ..HostConfig::default()
        };
        let all = asked(&config, &host, Vec::new()).expect("valid");
        let anonymous = |mount: &Asked| matches!(mount.source, Source::Volume { anonymous: true, .. });
        assert_eq!(
            all.iter()
                .filter(|mount| anonymous(mount))
                .map(|m| m.target.as_str())
                .collect::<Vec<_>>(),
            ["/other"]
        );
        let double = HostConfig {
            binds: vec!["v1:/data".into(), "/x:/data".into()],
            ..HostConfig::default()
        };
        assert!(asked(&ContainerConfig::default(), &double, Vec::new()).is_err());
    }

    #[test]
    fn reads_tmpfs_options() {
        let mount = of_tmpfs("/run", "rw,size=64m,mode=1777,noexec").expect("valid");
        assert_eq!(mount.options, ["size=64m", "mode=1777", "noexec"]);
        for bad in ["size=", "bind", "rshared", "context=x"] {
            assert!(of_tmpfs("/run", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_size_of_a_tmpfs_is_what_the_kernel_would_take_it_for() {
        let read = |words: &str| tmpfs_bytes(&of_tmpfs("/t", words).expect("valid").options);
        for (words, bytes) in [
            ("", None),
            ("mode=1777", None),
            ("size=64m", Some(64 << 20)),
            ("size=1K,nr_blocks=100", Some(100 * PAGE_BYTES)),
            ("nr_blocks=2k", Some(2048 * PAGE_BYTES)),
            ("size=50%", Some(u64::MAX)),
            ("size=0", Some(u64::MAX)),
            ("nr_blocks=0", Some(u64::MAX)),
        ] {
            assert_eq!(read(words).expect("valid"), bytes, "{words}");
        }
        for bad in [
            "size=x",
            "size=0x10",
            "size=010m",
            "size=1mb",
            "size=-1",
            "nr_blocks=5%",
            "size=99999999999g",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_the_owner_trims_is_smaller() {
        let options = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let asked = options(&["mode=1777", "nr_blocks=0", "size=2m"]);
        assert_eq!(
            within_tmpfs(asked, 1 << 20),
            options(&["mode=1777", "size=1048576"])
        );
        let less = options(&["size=64k"]);
        assert_eq!(within_tmpfs(less.clone(), 1 << 20), less);
    }

    #[test]
    fn mounts_of_others_give_way_and_never_gain() {
        let point = |kind: &str, destination: &str, rw| MountPoint {
            kind: kind.into(),
            name: "v".into(),
            source: "/srv/v".into(),
            destination: destination.into(),
            rw,
            ..MountPoint::default()
        };
        let points = [
            point("volume", "/data", true),
            point("bind", "/etc/app", false),
            point("tmpfs", "/tmp", true),
        ];
        let taken: Vec<Asked> = of_points(&points, false).collect();
        let seen: Vec<_> = taken
            .iter()
            .map(|mount| (mount.target.as_str(), mount.read_only))
            .collect();
        assert_eq!(seen, [("/data", false), ("/etc/app", true)]);
        assert!(of_points(&points, true).all(|mount| mount.read_only));
        let host = HostConfig {
            binds: vec!["own:/data".into()],
            ..Default::default()
        };
        let all = asked(&ContainerConfig::default(), &host, taken).expect("valid");
        assert_eq!(all.len(), 2);
        assert!(matches!(&all[0].source, Source::Volume { name, .. } if name == "own"));
        assert_eq!(volumes_from("web").expect("valid"), ("web", false));
        assert_eq!(volumes_from("web:ro").expect("valid"), ("web", true));
        for bad in ["", ":ro", "web:exec"] {
            assert!(volumes_from(bad).is_err(), "{bad}");
        }
    }
}
