//! Flags against the bodies that Docker's own client would send, and against what is refused.

use clap::Parser;
use kakoi_api::container::CreateBody;

use super::{Attached, ContainerFlags, ImageAndCommand, create_body};

#[derive(Parser)]
#[command(disable_help_flag = true)]
struct Line {
    #[command(flatten)]
    flags: ContainerFlags,
    #[command(flatten)]
    what: ImageAndCommand,
}

fn translate(words: &str) -> Result<CreateBody, String> {
    let words = std::iter::once("run").chain(words.split(' '));
    let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
    let attached = Attached {
        stdin: line.flags.interactive,
        stdout: true,
        stderr: true,
    };
    create_body(&line.flags, &line.what, attached).map_err(|error| crate::failure::describe(&error))
}

fn body(words: &str) -> CreateBody {
    translate(words).unwrap_or_else(|error| panic!("{words}: {error}"))
}

fn refuse(words: &str, reason: &str) {
    let error = translate(words).expect_err(words);
    assert!(error.contains(reason), "{words}: {error}");
}

#[test]
fn everything_after_the_image_is_the_apps() {
    let body = body("-i --rm alpine sh -c --rm -d x");
    assert_eq!(body.config.image, "alpine");
    assert_eq!(
        body.config.cmd.expect("a command").0,
        ["sh", "-c", "--rm", "-d", "x"]
    );
    assert!(body.host_config.auto_remove && body.config.stdin_once);
    let bare = self::body("alpine");
    assert!(bare.config.cmd.is_none() && bare.config.entrypoint.is_none() && bare.policy.is_none());
    assert_eq!(bare.host_config.network_mode, "");
}

#[test]
fn values_become_docker_s() {
    let body = body(
        "-m 64m --memory-swap -1 --cpus 1.5 --pids-limit 10 --ulimit nofile=10:20 --device /dev/null:/dev/x:rw \
         --restart on-failure:3 --add-host a:10.0.0.1 --sysctl net.a=1 --log-opt max-size=1m --shm-size 1m \
         --tmpfs /run:size=1m --security-opt no-new-privileges:true -h web -u 1:2 -w /x -e A=1 -l a=b \
         --health-cmd true --health-interval 5s --network none --stop-timeout 3 --userns auto img",
    );
    let host = &body.host_config;
    assert_eq!(
        (host.memory, host.memory_swap, host.nano_cpus),
        (64 << 20, -1, 1_500_000_000)
    );
    assert_eq!((host.pids_limit, host.shm_size), (Some(10), 1 << 20));
    assert_eq!((host.ulimits[0].soft, host.ulimits[0].hard), (10, 20));
    assert_eq!(host.devices[0].cgroup_permissions, "rw");
    assert_eq!(
        (
            host.restart_policy.name.as_str(),
            host.restart_policy.maximum_retry_count
        ),
        ("on-failure", 3)
    );
    assert_eq!(host.extra_hosts, ["a:10.0.0.1"]);
    assert_eq!(host.security_opt, ["no-new-privileges=true"]);
    assert_eq!(host.tmpfs["/run"], "size=1m");
    assert_eq!(
        (host.network_mode.as_str(), host.userns_mode.as_str()),
        ("none", "auto")
    );
    assert_eq!(host.log_config.config["max-size"], "1m");
    assert_eq!(host.sysctls["net.a"], "1");
    let config = &body.config;
    assert_eq!(
        (
            config.hostname.as_str(),
            config.user.as_str(),
            config.working_dir.as_str()
        ),
        ("web", "1:2", "/x")
    );
    assert_eq!(config.env, ["A=1"]);
    assert_eq!(config.labels["a"], "b");
    assert_eq!(config.stop_timeout, Some(3));
    let health = config.healthcheck.as_ref().expect("a test");
    assert_eq!(
        (health.test.as_slice(), health.interval),
        (&["CMD-SHELL".to_owned(), "true".to_owned()][..], 5_000_000_000)
    );
}

#[test]
fn wrong_values_are_refused_by_the_flag_s_name() {
    refuse("-m 64x img", "--memory: \"64x\" is not a size");
    refuse("--cpus 0 img", "--cpus");
    refuse("--cpus abc img", "--cpus");
    refuse("--cpus 1 --cpu-quota 5 img", "--cpus and --cpu-quota");
    refuse("--restart sometimes img", "--restart: \"sometimes\" is not no,");
    refuse("--restart always:3 img", "--restart");
    refuse("--rm --restart always img", "--rm and --restart");
    refuse("--ulimit nofile img", "--ulimit");
    refuse("--ulimit nofile=20:10 img", "--ulimit");
    refuse("--device dev/null img", "--device");
    refuse("--device /dev/null:/x:q img", "--device");
    refuse("--add-host a img", "--add-host");
    refuse("--add-host a:notanaddress img", "--add-host");
    refuse("--sysctl a img", "--sysctl");
    refuse("--log-opt a img", "--log-opt");
    refuse(
        "--health-interval 5 --health-cmd x img",
        "--health-interval: \"5\" is not a duration",
    );
    refuse(
        "--no-healthcheck --health-cmd x img",
        "--no-healthcheck and --health-*",
    );
    refuse(
        "--security-opt seccomp=/nonexistent.json img",
        "--security-opt: reading the seccomp profile",
    );
    refuse("--policy missing.yaml img", "--policy");
    refuse("--env-file /nonexistent img", "--env-file");
    refuse("--pod x img", "--pod is not supported");
    refuse(
        "--secret x,mode=9 img",
        "--secret: \"x,mode=9\": mode=\"9\" is not one of",
    );
    refuse("--rootfs /x", "--rootfs is not supported");
    refuse("--no-hosts --add-host a:1.1.1.1 img", "--no-hosts");
    refuse(
        "--pull sometimes img",
        "[possible values: always, missing, never]",
    );
    refuse("--nonsense img", "unexpected argument '--nonsense'");
    refuse("--memroy 5m img", "a similar argument exists: '--memory'");
    refuse("-i", "required arguments");
}

#[test]
fn networks_are_docker_s() {
    let places = |body: &CreateBody| -> Vec<String> {
        let all = &body.networking_config.endpoints_config;
        all.keys().cloned().collect()
    };
    let bare = body("--network app img");
    assert_eq!(bare.host_config.network_mode, "app");
    assert!(places(&bare).is_empty(), "nothing is asked but to be in it");
    let both = body("--net web --network app:ip=10.9.0.5 --network-alias x img");
    assert_eq!(both.host_config.network_mode, "web");
    assert_eq!(places(&both), ["app", "web"]);
    let settings = both.networking_config.endpoints_config["app"]
        .clone()
        .expect("some");
    assert_eq!(settings.ipam_config.expect("one").ipv4_address, "10.9.0.5");
    assert_eq!(settings.aliases.expect("one"), ["x"]);
    let list = body("--network a,b img");
    assert_eq!(
        (list.host_config.network_mode.as_str(), places(&list).len()),
        ("a", 2)
    );
    let fixed = body("--network app --ip 10.9.0.5 --ip6 fd00::5 --mac-address 02-42-00-00-00-05 img");
    let settings = fixed.networking_config.endpoints_config["app"]
        .clone()
        .expect("some");
    assert_eq!(settings.ipam_config.expect("both").ipv6_address, "fd00::5");
    assert_eq!(settings.mac_address, "02-42-00-00-00-05");
    // Docker's mode that leaves it to the daemon stays what it is.
    assert_eq!(body("--network default img").host_config.network_mode, "default");
    assert_eq!(
        body("--link db --link store:data img").host_config.links,
        ["db", "store:data"]
    );
    // Publishing asks for a network where none is named.
    for words in [
        "-p 80 img",
        "--link db img",
        "-P img",
        "--mac-address 02:42:00:00:00:05 img",
    ] {
        assert_eq!(body(words).host_config.network_mode, "bridge", "{words}");
    }
    assert!(body("-P img").host_config.publish_all_ports && !bare.host_config.publish_all_ports);
    let host = body("--network host -p 80:80 img");
    assert_eq!(host.host_config.network_mode, "host", "the daemon warns");
    for (words, reason) in [
        ("--network app --network app img", "named twice"),
        ("--network none --network app img", "cannot stand beside one"),
        (
            "--network app --network container:x img",
            "cannot stand beside one",
        ),
        ("--network none -p 80:80 img", "--publish and --network none"),
        (
            "--network container:x -P img",
            "--publish and --network container:",
        ),
        ("--ip 10.9.0.5 img", "--ip needs a network of your own"),
        (
            "--network-alias x img",
            "--network-alias needs a network of your own",
        ),
        ("--network host --ip 10.9.0.5 img", "--ip needs a network:"),
        (
            "--network none --network-alias x img",
            "--network-alias needs a network:",
        ),
        (
            "--network a --network b --ip 10.9.0.5 img",
            "--ip can mean one network only",
        ),
        (
            "--network a --ip 10.9.0.300 img",
            "--ip \"10.9.0.300\": not an IPv4 address",
        ),
        (
            "--network a --ip6 10.9.0.3 img",
            "--ip6 \"10.9.0.3\": not an IPv6 address",
        ),
        (
            "--network a --mac-address 02:42 img",
            "--mac-address \"02:42\": six pairs",
        ),
        ("--mac-address 03:42:00:00:00:05 img", "many receivers"),
        ("--network a --network-alias a,b img", "--network-alias \"a,b\""),
        ("--link :db img", "--link \":db\": CONTAINER or CONTAINER:ALIAS"),
        ("--link a:b:c img", "--link \"a:b:c\""),
        ("--network none --link db img", "--link needs a network"),
        (
            "--link-local-ip 169.254.0.2 img",
            "--link-local-ip is not supported",
        ),
        ("-p 80:x img", "--publish \"80:x\": the container's port"),
    ] {
        refuse(words, reason);
    }
}

#[test]
fn names_are_resolved_as_asked() {
    let body = body(
        "--dns 192.0.2.1 --dns 2001:db8::1 --dns-search example.com --dns-search . --dns-opt ndots:2 \
         --add-host a;b:10.0.0.1 --add-host c=::1 --add-host d:[::2] --add-host h:host-gateway img",
    );
    let host = &body.host_config;
    assert_eq!(host.dns, ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(host.dns_search, ["example.com", "."]);
    assert_eq!(host.dns_options, ["ndots:2"]);
    assert_eq!(
        host.extra_hosts,
        ["a:10.0.0.1", "b:10.0.0.1", "c:::1", "d:::2", "h:host-gateway"]
    );
    for (words, reason) in [
        ("--dns server img", "--dns: \"server\" is not the address"),
        ("--dns 0.0.0.0 img", "--dns"),
        ("--dns-search a..b img", "--dns-search: \"a..b\" is not a domain"),
        ("--dns-search= img", "--dns-search"),
        ("--dns-option= img", "--dns-option: \"\" is not one word"),
        ("--add-host a;:10.0.0.1 img", "--add-host"),
        ("--add-host :10.0.0.1 img", "--add-host"),
        ("--add-host a#b:10.0.0.1 img", "--add-host"),
    ] {
        refuse(words, reason);
    }
}

#[test]
fn health_tests_and_entrypoints_keep_their_words() {
    let test = |text: &str| super::health_test(text);
    assert_eq!(test("none"), ["NONE"]);
    assert_eq!(test("curl x"), ["CMD-SHELL", "curl x"]);
    assert_eq!(test("[\"curl\",\"x\"]"), ["CMD", "curl", "x"]);
    assert_eq!(test("[\"CMD\",\"x\"]"), ["CMD", "x"]);
    assert_eq!(
        body("--entrypoint /bin/x img").config.entrypoint.expect("one").0,
        ["/bin/x"]
    );
    assert_eq!(
        body("--entrypoint [\"a\",\"b\"] img")
            .config
            .entrypoint
            .expect("one")
            .0,
        ["a", "b"]
    );
    assert_eq!(body("--entrypoint= img").config.entrypoint.expect("one").0, [""]);
}

#[test]
fn podmans_further_words() {
    let body = body(
        "--env A=1 --env B=2 --unsetenv A --unsetenv PATH --expose 80 --expose 8000-8001/udp --tz Europe/Berlin img",
    );
    assert_eq!(body.config.env, ["B=2", "A", "PATH"]);
    let ports: Vec<&str> = body.config.exposed_ports.keys().map(String::as_str).collect();
    assert_eq!(ports, ["80/tcp", "8000/udp", "8001/udp"]);
    let zone = &body.host_config.mounts[0];
    assert_eq!(
        (
            zone.kind.as_str(),
            zone.source.as_str(),
            zone.target.as_str(),
            zone.read_only
        ),
        (
            "bind",
            "/usr/share/zoneinfo/Europe/Berlin",
            "/etc/localtime",
            true
        )
    );
    assert!(
        zone.bind_options.is_none(),
        "a zone that is not there is not made"
    );
    assert_eq!(
        self::body("--tz local img").host_config.mounts[0].source,
        "/etc/localtime"
    );
    for (words, reason) in [
        ("--unsetenv A=1 img", "not the name of a variable"),
        ("--expose 0 img", "--expose \"0\": the port"),
        ("--tz ../shadow img", "no time zone"),
        ("--tz /etc/shadow img", "no time zone"),
        ("--tz Europe//Berlin img", "no time zone"),
        ("--replace img", "--name"),
    ] {
        refuse(words, reason);
    }
}

/// Where each flag of `create` and `run` goes: a field of the request, which the daemon's own table judges (`knobs.rs`), or nowhere but this program.
const PLACES: &[(&str, &str)] = &[
    ("add-host", "ExtraHosts"),
    ("annotation", "Annotations"),
    ("authfile", "client: credentials for a registry"),
    ("blkio-weight", "BlkioWeight"),
    ("cap-add", "CapAdd"),
    ("cap-drop", "CapDrop"),
    ("cgroup-parent", "CgroupParent"),
    ("cgroupns", "CgroupnsMode"),
    ("cidfile", "ContainerIDFile"),
    ("cpu-period", "CpuPeriod"),
    ("cpu-quota", "CpuQuota"),
    ("cpu-shares", "CpuShares"),
    ("cpus", "NanoCpus"),
    ("cpuset-cpus", "CpusetCpus"),
    ("cpuset-mems", "CpusetMems"),
    ("device", "Devices"),
    ("device-cgroup-rule", "DeviceCgroupRules"),
    ("dns", "Dns"),
    ("dns-option", "DnsOptions"),
    ("dns-search", "DnsSearch"),
    ("domainname", "Domainname"),
    ("entrypoint", "Entrypoint"),
    ("env", "Env"),
    ("env-file", "Env"),
    ("expose", "ExposedPorts"),
    ("group-add", "GroupAdd"),
    ("health-cmd", "Healthcheck"),
    ("health-interval", "Healthcheck"),
    ("health-retries", "Healthcheck"),
    ("health-start-period", "Healthcheck"),
    ("health-timeout", "Healthcheck"),
    ("help", "client: prints"),
    ("hostname", "Hostname"),
    ("init", "Init"),
    ("interactive", "OpenStdin"),
    ("ip", "NetworkingConfig"),
    ("ip6", "NetworkingConfig"),
    ("ipc", "IpcMode"),
    ("label", "Labels"),
    ("label-file", "Labels"),
    ("link", "Links"),
    ("link-local-ip", "refused"),
    ("log-driver", "LogConfig"),
    ("log-opt", "LogConfig"),
    ("mac-address", "NetworkingConfig"),
    ("memory", "Memory"),
    ("memory-reservation", "MemoryReservation"),
    ("memory-swap", "MemorySwap"),
    ("mount", "Mounts"),
    ("name", "the path of the request"),
    ("network", "NetworkMode"),
    ("network-alias", "NetworkingConfig"),
    ("no-healthcheck", "Healthcheck"),
    ("no-hosts", "NoHosts"),
    ("oom-kill-disable", "OomKillDisable"),
    ("oom-score-adj", "OomScoreAdj"),
    ("pid", "PidMode"),
    ("pidfile", "client: writes a file of the caller's"),
    ("pids-limit", "PidsLimit"),
    ("pod", "refused"),
    ("policy", "Policy"),
    ("privileged", "Privileged"),
    ("publish", "PortBindings"),
    ("publish-all", "PublishAllPorts"),
    ("pull", "client: asks for an image first"),
    ("quiet", "client: prints less"),
    ("read-only", "ReadonlyRootfs"),
    (
        "replace",
        "client: removes the other first, by a request of its own",
    ),
    ("restart", "RestartPolicy"),
    ("rm", "AutoRemove"),
    ("rootfs", "refused"),
    ("secret", "Secrets"),
    ("security-opt", "SecurityOpt"),
    ("shm-size", "ShmSize"),
    ("stop-signal", "StopSignal"),
    ("stop-timeout", "StopTimeout"),
    ("sysctl", "Sysctls"),
    ("tmpfs", "Tmpfs"),
    ("tty", "Tty"),
    ("tz", "Mounts"),
    ("ulimit", "Ulimits"),
    ("umask", "SecurityOpt"),
    ("unsetenv", "Env"),
    ("user", "User"),
    ("userns", "UsernsMode"),
    ("uts", "UTSMode"),
    ("volume", "Binds"),
    ("volumes-from", "VolumesFrom"),
    ("workdir", "WorkingDir"),
];

#[test]
fn every_flag_has_a_place_that_is_judged() {
    use clap::CommandFactory as _;
    let command = Line::command();
    let flags: std::collections::BTreeSet<&str> =
        command.get_arguments().filter_map(clap::Arg::get_long).collect();
    let named: std::collections::BTreeSet<&str> = PLACES.iter().map(|(flag, _)| *flag).collect();
    let differ: Vec<_> = flags.symmetric_difference(&named).collect();
    assert!(
        differ.is_empty(),
        "flags without a place, or places without a flag: {differ:?}"
    );
    // A place on the wire is one that the wire has.
    let wire = serde_json::to_value(body("--privileged img")).expect("plain data");
    let skipped = [
        // Left out of the body where nobody asks.
        "Annotations",
        "NoHosts",
        "Tmpfs",
        "Sysctls",
        "Mounts",
        "Init",
        "StopSignal",
        "StopTimeout",
        "Policy",
    ];
    for (flag, place) in PLACES
        .iter()
        .filter(|(_, place)| place.starts_with(char::is_uppercase))
    {
        let is_there = wire.get(place).is_some() || wire["HostConfig"].get(place).is_some();
        assert!(
            is_there || skipped.contains(place),
            "--{flag}: the wire has no {place}"
        );
    }
}
