//! The keys of Quadlet files, and what each comes to.
//!
//! Owns the tables. Refuses to read any value. Pure. Source: podman-systemd.unit(5) of Podman 5.8, whose keys stand here all: what is not supported is
//! refused by its name, with what to do instead.

use super::Kind;

/// What a key comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// A flag; the last value counts.
    Last(&'static str),
    /// A flag for each value.
    Each(&'static str),
    /// A flag for each word of each value.
    Words(&'static str),
    /// A flag that is there where the value is true.
    Switch(&'static str),
    /// Something of its own.
    Own,
    /// Nothing: why, and what to do.
    Refused(&'static str),
}

use Means::{Each, Last, Own, Refused, Switch, Words};

/// A key of a table.
pub type Key = (&'static str, Means);

const ARGUMENTS: Means =
    Refused("it is not taken: Podman's options are not Kakoi's; use the key of each option");
const CONTAINERS_CONF: Means = Refused("there is no containers.conf; see kakoid.yaml");
const SELINUX: Means = Refused("SELinux labels are not supported; the policy confines");
const MAPPING: Means = Refused("ranges of ids are the daemon's to give: use UserNS=auto");
const STARTUP: Means = Refused("it is not supported: use HealthStartPeriod=");
const HEALTH_LOG: Means = Refused("it is not supported: the last results stand in 'kakoi inspect'");
const TRIES: Means =
    Refused("it is not supported: broken downloads go on by themselves, and systemd starts again");
const PODS: Means =
    Refused("pods are not supported: use Network=NAME.container to share a container's network");

const CONTAINER: &[Key] = &[
    ("AddCapability", Words("--cap-add")),
    ("AddDevice", Own),
    ("AddHost", Each("--add-host")),
    ("Annotation", Words("--annotation")),
    (
        "AppArmor",
        Refused("AppArmor is not supported; the policy confines"),
    ),
    (
        "AutoUpdate",
        Refused("images are not updated by themselves: pull, and start the service again"),
    ),
    (
        "CgroupsMode",
        Refused("control groups are always the container's own"),
    ),
    ("ContainerName", Own),
    ("ContainersConfModule", CONTAINERS_CONF),
    ("DNS", Each("--dns")),
    ("DNSOption", Each("--dns-option")),
    ("DNSSearch", Each("--dns-search")),
    ("DropCapability", Words("--cap-drop")),
    ("Entrypoint", Last("--entrypoint")),
    ("Environment", Words("--env")),
    ("EnvironmentFile", Own),
    (
        "EnvironmentHost",
        Refused("the host's variables stay outside: name each with Environment="),
    ),
    ("Exec", Own),
    ("ExposeHostPort", Each("--expose")),
    ("GIDMap", MAPPING),
    ("GlobalArgs", ARGUMENTS),
    ("Group", Own),
    ("GroupAdd", Each("--group-add")),
    ("HealthCmd", Last("--health-cmd")),
    ("HealthInterval", Last("--health-interval")),
    ("HealthLogDestination", HEALTH_LOG),
    ("HealthMaxLogCount", HEALTH_LOG),
    ("HealthMaxLogSize", HEALTH_LOG),
    ("HealthOnFailure", Own),
    ("HealthRetries", Last("--health-retries")),
    ("HealthStartPeriod", Last("--health-start-period")),
    ("HealthStartupCmd", STARTUP),
    ("HealthStartupInterval", STARTUP),
    ("HealthStartupRetries", STARTUP),
    ("HealthStartupSuccess", STARTUP),
    ("HealthStartupTimeout", STARTUP),
    ("HealthTimeout", Last("--health-timeout")),
    ("HostName", Last("--hostname")),
    (
        "HttpProxy",
        Refused("the host's variables stay outside: name them with Environment="),
    ),
    ("IP", Last("--ip")),
    ("IP6", Last("--ip6")),
    ("Image", Own),
    ("Label", Words("--label")),
    ("LogDriver", Own),
    ("LogOpt", Each("--log-opt")),
    (
        "Mask",
        Refused("it is not supported: the policy hides paths, with files.hide"),
    ),
    ("Memory", Last("--memory")),
    ("Mount", Own),
    ("Network", Own),
    ("NetworkAlias", Each("--network-alias")),
    ("NoNewPrivileges", Own),
    ("Notify", Own),
    ("PidsLimit", Last("--pids-limit")),
    ("Pod", PODS),
    ("PodmanArgs", ARGUMENTS),
    ("PublishPort", Each("--publish")),
    ("Pull", Last("--pull")),
    ("ReadOnly", Own),
    ("ReadOnlyTmpfs", Own),
    ("ReloadCmd", Own),
    ("ReloadSignal", Own),
    ("RemapGid", MAPPING),
    ("RemapUid", MAPPING),
    ("RemapUidSize", MAPPING),
    ("RemapUsers", Refused("it is superseded: use UserNS=")),
    ("Retry", TRIES),
    ("RetryDelay", TRIES),
    (
        "Rootfs",
        Refused("it is not supported: make an image of the folder with 'kakoi import'"),
    ),
    ("RunInit", Switch("--init")),
    ("SeccompProfile", Own),
    ("Secret", Each("--secret")),
    ("SecurityLabelDisable", SELINUX),
    ("SecurityLabelFileType", SELINUX),
    ("SecurityLabelLevel", SELINUX),
    ("SecurityLabelNested", SELINUX),
    ("SecurityLabelType", SELINUX),
    ("ServiceName", Own),
    ("ShmSize", Last("--shm-size")),
    ("StartWithPod", PODS),
    ("StopSignal", Last("--stop-signal")),
    ("StopTimeout", Last("--stop-timeout")),
    ("SubGIDMap", MAPPING),
    ("SubUIDMap", MAPPING),
    ("Sysctl", Words("--sysctl")),
    ("Timezone", Last("--tz")),
    ("Tmpfs", Each("--tmpfs")),
    ("UIDMap", MAPPING),
    ("Ulimit", Each("--ulimit")),
    ("Unmask", Own),
    ("User", Own),
    ("UserNS", Last("--userns")),
    ("Volume", Own),
    ("VolatileTmp", Refused("it is superseded: use Tmpfs=/tmp")),
    ("WorkingDir", Last("--workdir")),
];

const NETWORK: &[Key] = &[
    ("ContainersConfModule", CONTAINERS_CONF),
    (
        "DNS",
        Refused("it is not supported: say it for each container, with DNS= there"),
    ),
    ("DisableDNS", Own),
    ("Driver", Last("--driver")),
    ("Gateway", Each("--gateway")),
    ("GlobalArgs", ARGUMENTS),
    ("IPAMDriver", Last("--ipam-driver")),
    ("IPRange", Each("--ip-range")),
    ("IPv6", Switch("--ipv6")),
    ("InterfaceName", Last("--interface-name")),
    ("Internal", Switch("--internal")),
    ("Label", Words("--label")),
    ("NetworkDeleteOnStop", Own),
    ("NetworkName", Own),
    ("Options", Own),
    ("PodmanArgs", ARGUMENTS),
    ("ServiceName", Own),
    ("Subnet", Each("--subnet")),
];

const VOLUME_OPTIONS: Means =
    Refused("it is not supported: mount what is not a plain folder on the host, and name that in Volume=");

const VOLUME: &[Key] = &[
    ("ContainersConfModule", CONTAINERS_CONF),
    ("Copy", Own),
    ("Device", VOLUME_OPTIONS),
    ("Driver", Last("--driver")),
    (
        "GID",
        Refused("it is not supported: the first container to mount the volume copies its folder's owner"),
    ),
    ("GlobalArgs", ARGUMENTS),
    (
        "Group",
        Refused("it is not supported: the first container to mount the volume copies its folder's owner"),
    ),
    (
        "Image",
        Refused("it is not supported: a volume takes what the image has where it is mounted first"),
    ),
    ("Label", Words("--label")),
    ("Options", VOLUME_OPTIONS),
    ("PodmanArgs", ARGUMENTS),
    ("ServiceName", Own),
    ("Type", VOLUME_OPTIONS),
    (
        "UID",
        Refused("it is not supported: the first container to mount the volume copies its folder's owner"),
    ),
    (
        "User",
        Refused("it is not supported: the first container to mount the volume copies its folder's owner"),
    ),
    ("VolumeName", Own),
];

const IMAGE: &[Key] = &[
    ("AllTags", Refused("it is not supported: name each image")),
    ("Arch", Own),
    ("AuthFile", Last("--authfile")),
    ("CertDir", Refused("it is not supported: see registries.yaml")),
    ("ContainersConfModule", CONTAINERS_CONF),
    (
        "Creds",
        Refused("secrets do not belong into unit files: use 'kakoi login', or AuthFile="),
    ),
    ("DecryptionKey", Refused("encrypted images are not supported")),
    ("GlobalArgs", ARGUMENTS),
    ("Image", Own),
    (
        "ImageTag",
        Refused("it is not supported: write the image's name into Image= of the container"),
    ),
    ("OS", Own),
    ("PodmanArgs", ARGUMENTS),
    (
        "Policy",
        Refused(
            "an image is fetched when its unit starts: to fetch it only where it is missing use Pull= of the container",
        ),
    ),
    ("Retry", TRIES),
    ("RetryDelay", TRIES),
    ("ServiceName", Own),
    ("TLSVerify", Refused("it is not supported: see registries.yaml")),
    ("Variant", Own),
];

/// The keys of a kind's own section.
pub const fn keys(kind: Kind) -> &'static [Key] {
    match kind {
        Kind::Container => CONTAINER,
        Kind::Network => NETWORK,
        Kind::Volume => VOLUME,
        Kind::Image => IMAGE,
    }
}

/// The key that was probably meant.
pub fn nearest(kind: Kind, word: &str) -> Option<&'static str> {
    let known = keys(kind).iter().map(|(key, _)| *key);
    let near = known.map(|key| {
        (
            distance(&key.to_ascii_lowercase(), &word.to_ascii_lowercase()),
            key,
        )
    });
    near.filter(|(distance, key)| *distance <= key.len().div_ceil(4))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, key)| key)
}

/// How many letters must be put in, taken out or exchanged.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, c) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, against) in other.iter().enumerate() {
            let exchanged = diagonal + usize::from(c != *against);
            diagonal = row[column + 1];
            row[column + 1] = exchanged.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_in_order_and_near_words_are_found() {
        for kind in [Kind::Container, Kind::Network, Kind::Volume, Kind::Image] {
            let names: Vec<&str> = keys(kind).iter().map(|(key, _)| *key).collect();
            let mut sorted = names.clone();
            sorted.sort_by_key(|key| key.to_ascii_lowercase());
            sorted.dedup();
            assert_eq!(names.len(), sorted.len(), "{kind:?}");
        }
        for (word, key) in [
            ("PublishPorts", Some("PublishPort")),
            ("publishport", Some("PublishPort")),
            ("Enviroment", Some("Environment")),
            ("Imgae", Some("Image")),
            ("Colour", None),
        ] {
            assert_eq!(nearest(Kind::Container, word), key, "{word}");
        }
    }

    /// The document says of each key whether it is supported; families of refused ones stand there by what they have in common.
    #[test]
    fn the_document_has_every_key() {
        let text = include_str!("../../QUADLET.md");
        let families = [
            "SecurityLabel",
            "HealthLog",
            "HealthMaxLog",
            "HealthStartup",
            "Remap",
        ];
        for kind in [Kind::Container, Kind::Network, Kind::Volume, Kind::Image] {
            let row = format!("| `[{}]` |", kind.section());
            let row = text.lines().find(|line| line.starts_with(&row)).expect("a row");
            let (_, below) = text.split_once("Refused, each").expect("a paragraph");
            for (key, means) in keys(kind) {
                let name = format!("`{key}`");
                let is_refused = matches!(means, Refused(_));
                assert_eq!(row.contains(&name), !is_refused, "{key} of {kind:?}");
                let is_family = families.iter().any(|family| key.starts_with(family));
                assert!(
                    !is_refused || is_family || below.contains(&name),
                    "{key} of {kind:?}"
                );
            }
        }
    }
}
