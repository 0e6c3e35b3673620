//! Every knob of a create request, one row each: the owner bounds it, it is refused, or it cannot hurt anybody but the container itself, and why.
//!
//! The rows are compared with the fields that the wire types really have, so that a new field has to be judged before it is there.

use std::collections::BTreeSet;

use kakoi_api::container::{ContainerConfig, HostConfig, UpdateBody};
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::{Value, json};

use crate::given::{Daemon, needs_root};

/// What keeps a field from hurting others.
enum Judged {
    /// The ceiling, or the policy, refuses this value with these words.
    Bounded(fn() -> Value, &'static str),
    /// Kakoi does not do it, and says so.
    Refused(fn() -> Value),
    /// It changes nothing outside of the container. Why.
    Harmless(&'static str),
}
use Judged::{Bounded, Harmless, Refused};

/// Nothing of it but none is allowed.
const CEILING: &str = "network: [none]\nbind_mounts: [/srv]\nlimits: {memory: 64MiB, cpu: 50%, pids: 5000, tmpfs: 1MiB, swap: 1MiB}\n\
    cpus: \"0\"\ncapabilities: [CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID]";

const HOST: &[(&str, Judged)] = &[
    ("Binds", Bounded(|| json!(["/etc:/x"]), "bind_mounts")),
    (
        "ContainerIDFile",
        Harmless("the client writes it; the daemon does not read it"),
    ),
    (
        "LogConfig",
        Bounded(
            || json!({"Type": "json-file", "Config": {"max-size": "-1"}}),
            "`log: unlimited`",
        ),
    ),
    ("NetworkMode", Bounded(|| json!("host"), "network")),
    (
        "PortBindings",
        Harmless(
            "the ceiling's `publish` bounds them where it gives a bridge: `ports_stay_within_the_ceiling`",
        ),
    ),
    (
        "RestartPolicy",
        Harmless("starts are backed off, and each is a start under the same confinement"),
    ),
    ("AutoRemove", Harmless("removes the container itself")),
    (
        "VolumeDriver",
        Harmless("without a volume it says nothing; with one, another than `local` is refused"),
    ),
    (
        "VolumesFrom",
        Harmless("volumes are any container's by name; binds of the other are judged as this one's own"),
    ),
    ("ConsoleSize", Harmless("size of the container's own terminal")),
    (
        "Annotations",
        Bounded(|| json!({"io.kakoi.policy": "privileged"}), "io.kakoi."),
    ),
    ("CapAdd", Bounded(|| json!(["SYS_ADMIN"]), "SYS_ADMIN")),
    ("CapDrop", Harmless("takes away")),
    ("CgroupnsMode", Bounded(|| json!("host"), "host_namespaces")),
    ("Dns", Harmless("text of the container's own resolv.conf")),
    ("DnsOptions", Harmless("text of the container's own resolv.conf")),
    ("DnsSearch", Harmless("text of the container's own resolv.conf")),
    ("ExtraHosts", Harmless("text of the container's own hosts file")),
    ("NoHosts", Harmless("leaves that file out")),
    (
        "GroupAdd",
        Harmless(
            "a group of ids: files that it opens are only those of allowed binds and devices, which root inside has anyway",
        ),
    ),
    ("IpcMode", Bounded(|| json!("host"), "host_namespaces")),
    ("Cgroup", Refused(|| json!("x"))),
    ("Links", Harmless("what it alone calls others in its networks")),
    ("OomScoreAdj", Bounded(|| json!(-1), "oom_score_adj")),
    ("PidMode", Bounded(|| json!("host"), "host_namespaces")),
    ("Privileged", Bounded(|| json!(true), "privileged")),
    (
        "PublishAllPorts",
        Harmless("as PortBindings, of the exposed ports"),
    ),
    ("ReadonlyRootfs", Harmless("takes away")),
    (
        "SecurityOpt",
        Bounded(|| json!(["seccomp=unconfined"]), "unconfined"),
    ),
    ("StorageOpt", Refused(|| json!({"size": "1G"}))),
    ("Tmpfs", Bounded(|| json!({"/t": "size=2m"}), "at most 1MiB")),
    ("UTSMode", Bounded(|| json!("host"), "host_namespaces")),
    (
        "UsernsMode",
        Harmless(
            "a user namespace takes away; without one the container has what its policy says, which the ceiling judged",
        ),
    ),
    ("ShmSize", Bounded(|| json!(2 << 20), "at most 1MiB")),
    ("Sysctls", Refused(|| json!({"kernel.core_pattern": "x"}))),
    ("Runtime", Refused(|| json!("crun"))),
    ("Isolation", Refused(|| json!("hyperv"))),
    ("CpuShares", Bounded(|| json!(2048), "cpu_shares")),
    ("Memory", Bounded(|| json!(1 << 30), "limits.memory")),
    ("NanoCpus", Bounded(|| json!(2_000_000_000_i64), "limits.cpu")),
    (
        "CgroupParent",
        Bounded(|| json!("/system.slice"), "cgroup_parents"),
    ),
    ("BlkioWeight", Bounded(|| json!(900), "io_weight")),
    (
        "BlkioWeightDevice",
        Refused(|| json!([{"Path": "/dev/sda", "Weight": 10}])),
    ),
    (
        "BlkioDeviceReadBps",
        Refused(|| json!([{"Path": "/dev/sda", "Rate": 1}])),
    ),
    (
        "BlkioDeviceWriteBps",
        Refused(|| json!([{"Path": "/dev/sda", "Rate": 1}])),
    ),
    (
        "BlkioDeviceReadIOps",
        Refused(|| json!([{"Path": "/dev/sda", "Rate": 1}])),
    ),
    (
        "BlkioDeviceWriteIOps",
        Refused(|| json!([{"Path": "/dev/sda", "Rate": 1}])),
    ),
    (
        "CpuPeriod",
        Harmless("the length of a period; how much of it is judged with CpuQuota"),
    ),
    ("CpuQuota", Bounded(|| json!(200_000), "limits.cpu")),
    ("CpuRealtimePeriod", Refused(|| json!(1000))),
    ("CpuRealtimeRuntime", Refused(|| json!(1000))),
    ("CpusetCpus", Bounded(|| json!("0-1"), "processors 0")),
    (
        "CpusetMems",
        Harmless("leaves fewer memory nodes than the container has without it"),
    ),
    (
        "Devices",
        Bounded(
            || json!([{"PathOnHost": "/dev/mem", "CgroupPermissions": "rw"}]),
            "/dev/mem",
        ),
    ),
    ("DeviceCgroupRules", Bounded(|| json!(["b 8:* rwm"]), "b 8:*")),
    ("DeviceRequests", Refused(|| json!([{"Driver": "nvidia"}]))),
    ("KernelMemory", Harmless("discarded, with a warning")),
    (
        "MemoryReservation",
        Bounded(|| json!(1 << 20), "memory_reservation"),
    ),
    ("MemorySwap", Bounded(|| json!(-1), "limits.swap")),
    ("MemorySwappiness", Refused(|| json!(101))),
    ("OomKillDisable", Bounded(|| json!(true), "oom_kill_disable")),
    ("PidsLimit", Bounded(|| json!(-1), "limits.pids")),
    (
        "Ulimits",
        Bounded(
            || json!([{"Name": "rtprio", "Soft": 1, "Hard": 1}]),
            "ulimits.rtprio",
        ),
    ),
    ("CpuCount", Refused(|| json!(1))),
    ("CpuPercent", Refused(|| json!(1))),
    (
        "Mounts",
        Bounded(
            || json!([{"Type": "bind", "Source": "/etc", "Target": "/x"}]),
            "bind_mounts",
        ),
    ),
    (
        "MaskedPaths",
        Harmless(
            "read only together with ReadonlyPaths, as systempaths=unconfined, which the ceiling judges",
        ),
    ),
    ("ReadonlyPaths", Harmless("as MaskedPaths")),
    (
        "Init",
        Harmless("process 1 is a program of ours under the same confinement"),
    ),
];

const CONFIG: &[(&str, Judged)] = &[
    (
        "Hostname",
        Harmless("of the container's own namespace; with the host's, none is set"),
    ),
    ("Domainname", Harmless("as Hostname")),
    ("User", Harmless("the confinement is compiled for whoever it is")),
    ("AttachStdin", Harmless("streams of the client")),
    ("AttachStdout", Harmless("streams of the client")),
    ("AttachStderr", Harmless("streams of the client")),
    ("ExposedPorts", Harmless("words of the image; opens nothing")),
    ("Tty", Harmless("a terminal of the container's own")),
    ("OpenStdin", Harmless("streams of the client")),
    ("StdinOnce", Harmless("streams of the client")),
    ("Env", Harmless("of the app alone: no hook and no shim reads it")),
    ("Cmd", Harmless("what runs inside")),
    (
        "Healthcheck",
        Harmless("a process inside, as confined as exec; times are bounded below"),
    ),
    ("ArgsEscaped", Harmless("Windows' word; read by nobody")),
    ("Image", Harmless("which image may run is trust's to say")),
    ("Volumes", Harmless("new volumes of the container's own")),
    ("WorkingDir", Harmless("resolved inside")),
    ("Entrypoint", Harmless("what runs inside")),
    ("NetworkDisabled", Harmless("takes away")),
    (
        "MacAddress",
        Harmless("of the container's own link; a packet with another one is dropped"),
    ),
    ("OnBuild", Harmless("words of the image; read by nobody")),
    (
        "Labels",
        Bounded(|| json!({"io.kakoi.policy": "privileged"}), "privileged"),
    ),
    ("StopSignal", Harmless("a signal to the container")),
    ("StopTimeout", Harmless("whoever stops may give another")),
    ("Shell", Harmless("words of the image; read by nobody")),
];

const UPDATE: &[(&str, Judged)] = &[
    ("BlkioWeight", Bounded(|| json!(900), "io_weight")),
    ("CpuShares", Bounded(|| json!(2048), "cpu_shares")),
    ("CpuPeriod", Harmless("as in a create request")),
    ("CpuQuota", Bounded(|| json!(200_000), "limits.cpu")),
    ("CpusetCpus", Bounded(|| json!("0-1"), "processors 0")),
    ("CpusetMems", Harmless("as in a create request")),
    ("Memory", Bounded(|| json!(1 << 30), "limits.memory")),
    (
        "MemoryReservation",
        Bounded(|| json!(1 << 20), "memory_reservation"),
    ),
    ("MemorySwap", Bounded(|| json!(-1), "limits.swap")),
    ("NanoCpus", Bounded(|| json!(2_000_000_000_i64), "limits.cpu")),
    ("PidsLimit", Bounded(|| json!(-1), "limits.pids")),
    ("RestartPolicy", Harmless("as in a create request")),
];

/// Takes the names of a structure's fields from its own decoder.
struct Names<'a>(&'a mut BTreeSet<&'static str>);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("only the names are wanted"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.extend(fields);
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple
        tuple_struct map enum identifier ignored_any
    }
}

fn fields<'de, T: Deserialize<'de>>() -> BTreeSet<&'static str> {
    let mut names = BTreeSet::new();
    assert!(T::deserialize(Names(&mut names)).is_err());
    names
}

#[test]
fn every_field_of_a_request_has_a_row() {
    for (rows, fields) in [
        (HOST, fields::<HostConfig>()),
        (CONFIG, fields::<ContainerConfig>()),
        (UPDATE, fields::<UpdateBody>()),
    ] {
        let named: BTreeSet<&str> = rows.iter().map(|(name, _)| *name).collect();
        assert_eq!(named.len(), rows.len(), "a row twice");
        let missing: Vec<_> = fields.symmetric_difference(&named).collect();
        assert!(
            missing.is_empty(),
            "fields without a row, or rows without a field: {missing:?}"
        );
        for (name, judged) in rows {
            let Harmless(why) = judged else { continue };
            assert!(!why.is_empty(), "{name}");
        }
    }
}

#[test]
fn every_row_is_as_it_says() {
    needs_root!();
    let daemon = Daemon::under(CEILING);
    let refused = |path: &str, name: &str, body: Value, status: &[u16], says: &str| {
        let (got, answer) = daemon.ask("POST", path, Some(body)).expect("an answer");
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(status.contains(&got), "{name}: {got} {answer}");
        assert!(message.contains(says), "{name}: no {says:?} in {message}");
    };
    let create = "/containers/create?name=x";
    for (rows, is_host) in [(HOST, true), (CONFIG, false)] {
        for (name, judged) in rows {
            let body = |value: Value| {
                let mut body = json!({"Image": "bb", "Cmd": ["true"], "HostConfig": {}});
                let mut part = json!({ *name: value });
                // Words that mean something only beside another.
                if *name == "OomKillDisable" || *name == "MemorySwap" {
                    part["Memory"] = json!(32 << 20);
                }
                let place = if is_host {
                    &mut body["HostConfig"]
                } else {
                    &mut body
                };
                for (key, value) in part.as_object().expect("made so") {
                    place[key] = value.clone();
                }
                body
            };
            match judged {
                Bounded(value, says) => refused(create, name, body(value()), &[403, 400], says),
                Refused(value) => refused(create, name, body(value()), &[400, 403, 501], ""),
                Harmless(_) => {}
            }
        }
    }
    assert_eq!(daemon.ids(), Vec::<String>::new(), "a refusal leaves nothing");

    daemon.create("app", &["sleep", "1000"], json!({"Memory": 32 << 20}));
    daemon.must(204, "POST", "/containers/app/start", None);
    for (name, judged) in UPDATE {
        if let Bounded(value, says) = judged {
            let body = json!({ *name: value() });
            refused("/containers/app/update", name, body, &[403], says);
        }
    }
    daemon.is_clean();
}

/// What the owner bounds is also what a container has that asks for nothing.
#[test]
fn who_asks_for_nothing_gets_the_owners_bounds() {
    needs_root!();
    let daemon =
        Daemon::under("network: [none]\ncpus: \"0\"\nulimits: {core: 0, memlock: 4096}\ncapabilities: [ALL]");
    daemon.create("app", &["sleep", "1000"], json!({}));
    daemon.must(204, "POST", "/containers/app/start", None);
    let pid = daemon.state("app")["Pid"].clone();
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).expect("it runs");
    let status = read("status");
    let list = status.lines().find(|line| line.starts_with("Cpus_allowed_list:"));
    assert!(list.is_some_and(|line| line.ends_with("\t0")), "{status}");
    let limits = read("limits");
    for (name, most) in [("Max core file size", "0"), ("Max locked memory", "4096")] {
        let line = limits
            .lines()
            .find(|line| line.starts_with(name))
            .expect("it is there");
        let words: Vec<&str> = line[name.len()..].split_whitespace().take(2).collect();
        assert_eq!(words, [most, most], "{line}");
    }
    // And an added process too.
    let words = json!({"Cmd": ["/bin/busybox", "grep", "core", "/proc/self/limits"], "AttachStdout": true});
    let exec = daemon.must(201, "POST", "/containers/app/exec", Some(words))["Id"].clone();
    let begin = format!("/exec/{}/start", exec.as_str().expect("an id"));
    let (_, said) = daemon
        .ask("POST", &begin, Some(json!({"Detach": false})))
        .expect("an answer");
    assert!(said.to_string().contains("0                    0"), "{said}");
    daemon.is_clean();
}
