//! Files against the flags that they become, and against what is refused.

use super::*;

fn all(files: &[(&str, &str)]) -> (Vec<Unit>, Vec<Wrong>) {
    let sources: Vec<Source> = files
        .iter()
        .map(|(name, text)| Source::of_text(&format!("/q/{name}"), text))
        .collect();
    translate(&sources)
}

fn container(lines: &str) -> Result<Unit, String> {
    let text = format!("[Container]\nImage=img\n{lines}\n");
    let (mut units, wrong) = all(&[("web.container", &text)]);
    match wrong.first() {
        Some(wrong) => Err(wrong.to_string()),
        None => Ok(units.remove(0)),
    }
}

#[test]
fn each_key_becomes_its_flag() {
    for (lines, flags) in [
        (
            "AddCapability=CAP_NET_ADMIN CAP_CHOWN",
            "--cap-add=CAP_NET_ADMIN --cap-add=CAP_CHOWN",
        ),
        ("DropCapability=all", "--cap-drop=all"),
        (
            "AddDevice=/dev/ttyS0:/dev/tty:rw",
            "--device=/dev/ttyS0:/dev/tty:rw",
        ),
        ("AddHost=db:10.0.0.1", "--add-host=db:10.0.0.1"),
        ("Annotation=a=b c=d", "--annotation=a=b --annotation=c=d"),
        (
            "DNS=192.0.2.1\nDNSSearch=lan\nDNSOption=ndots:2",
            "--dns=192.0.2.1 --dns-search=lan --dns-option=ndots:2",
        ),
        ("Entrypoint=/bin/sh", "--entrypoint=/bin/sh"),
        (
            "Environment=A=1 \"B=two words\"\nEnvironment=C=3",
            "--env=A=1 --env=B=two words --env=C=3",
        ),
        ("Environment=A=1\nEnvironment=\nEnvironment=B=2", "--env=B=2"),
        ("EnvironmentFile=env/web", "--env-file=/q/env/web"),
        ("ExposeHostPort=80", "--expose=80"),
        ("GroupAdd=20", "--group-add=20"),
        (
            "HealthCmd=curl x || exit 1\nHealthInterval=5s\nHealthRetries=2\nHealthStartPeriod=1m\nHealthTimeout=3s",
            "--health-cmd=curl x || exit 1 --health-interval=5s --health-retries=2 --health-start-period=1m --health-timeout=3s",
        ),
        ("HealthOnFailure=none", ""),
        ("HostName=web", "--hostname=web"),
        ("Network=host", "--network=host"),
        ("Network=app:ip=10.89.0.5", "--network=app:ip=10.89.0.5"),
        (
            "Network=app\nIP=10.89.0.5\nIP6=fd00::5\nNetworkAlias=w",
            "--network=app --ip=10.89.0.5 --ip6=fd00::5 --network-alias=w",
        ),
        ("Label=a=b \"c=d e\"", "--label=a=b --label=c=d e"),
        ("LogDriver=journald", "--log-driver=none"),
        (
            "LogDriver=json-file\nLogOpt=max-size=1m",
            "--log-driver=json-file --log-opt=max-size=1m",
        ),
        (
            "Memory=64m\nPidsLimit=10\nShmSize=1m\nUlimit=nofile=10:20",
            "--memory=64m --pids-limit=10 --shm-size=1m --ulimit=nofile=10:20",
        ),
        (
            "Mount=type=bind,source=./a,target=/b,ro",
            "--mount=type=bind,source=/q/a,target=/b,ro",
        ),
        ("NoNewPrivileges=true", "--security-opt=no-new-privileges"),
        ("NoNewPrivileges=no\nNotify=false", ""),
        (
            "PublishPort=8080:80\nPublishPort=127.0.0.1::53/udp",
            "--publish=8080:80 --publish=127.0.0.1::53/udp",
        ),
        ("Pull=never", "--pull=never"),
        (
            "ReadOnly=yes",
            "--read-only --tmpfs=/run --tmpfs=/tmp --tmpfs=/var/tmp",
        ),
        ("ReadOnly=yes\nReadOnlyTmpfs=no", "--read-only"),
        (
            "ReadOnly=yes\nTmpfs=/tmp:size=1m\nVolume=/d:/run",
            "--tmpfs=/tmp:size=1m --volume=/d:/run --read-only --tmpfs=/var/tmp",
        ),
        ("RunInit=on", "--init"),
        ("SeccompProfile=unconfined", "--security-opt=seccomp=unconfined"),
        ("SeccompProfile=own.json", "--security-opt=seccomp=/q/own.json"),
        (
            "StopSignal=SIGINT\nStopTimeout=30",
            "--stop-signal=SIGINT --stop-timeout=30",
        ),
        ("Sysctl=net.ipv4.ip_forward=1", "--sysctl=net.ipv4.ip_forward=1"),
        ("Timezone=Europe/Berlin", "--tz=Europe/Berlin"),
        ("Unmask=ALL", "--security-opt=unmask=ALL"),
        ("User=app", "--user=app"),
        ("User=1000\nGroup=2000", "--user=1000:2000"),
        ("UserNS=auto", "--userns=auto"),
        (
            "Volume=/srv:/srv:ro\nVolume=../up:/up\nVolume=data:/data:Z\nVolume=/anon",
            "--volume=/srv:/srv:ro --volume=/up:/up --volume=data:/data:Z --volume=/anon",
        ),
        ("WorkingDir=/app", "--workdir=/app"),
        // What systemd puts in its place cannot be checked here.
        (
            "PublishPort=%i:80\nVolume=%h/data:/data",
            "--publish=%i:80 --volume=%h/data:/data",
        ),
    ] {
        let unit = container(lines).unwrap_or_else(|error| panic!("{error}"));
        let expected: String = [flags, "--policy=docker-default"].join(" ");
        assert_eq!(unit.flags.join(" "), expected.trim_start(), "{lines}");
    }
    let unit = container("Exec=sh -c 'echo \"a b\"' ;\nLabel=io.kakoi.policy=strict").expect("right");
    assert_eq!(unit.tail, ["img", "sh", "-c", "echo \"a b\"", ";"]);
    assert_eq!(unit.flags, ["--label=io.kakoi.policy=strict"]);
    assert_eq!(
        (unit.service.as_str(), unit.resource.as_str()),
        ("web.service", "systemd-web")
    );
    let unit = container("ContainerName=w\nServiceName=www\nReloadSignal=HUP\nVolume=/a:/b").expect("right");
    assert_eq!(
        (unit.service.as_str(), unit.resource.as_str()),
        ("www.service", "w")
    );
    assert_eq!(unit.reload.expect("some"), ["kill", "--signal=HUP", "w"]);
    assert_eq!(unit.mounts, ["/a"]);
}

#[test]
fn what_cannot_be_names_file_line_and_key() {
    for (lines, reason) in [
        (
            "PublishPorts=80",
            "/q/web.container:3: [Container] has no key PublishPorts=: did you mean PublishPort=?",
        ),
        ("Colour=red", "/q/web.container:3: [Container] has no key Colour="),
        (
            "PodmanArgs=--rm",
            "/q/web.container:3: PodmanArgs=--rm: it is not taken",
        ),
        ("GlobalArgs=--log-level=debug", "GlobalArgs="),
        ("Secret=x,type=y", "there is no option \"type=y\""),
        ("Pod=x.pod", "pods are not supported"),
        ("Rootfs=/x", "'kakoi import'"),
        ("Notify=true", "an app cannot tell systemd"),
        ("Notify=healthy", "let others wait for its health"),
        ("AutoUpdate=registry", "AutoUpdate="),
        ("CgroupsMode=split", "CgroupsMode="),
        ("SecurityLabelDisable=true", "SELinux"),
        ("HealthOnFailure=kill", "HealthOnFailure=kill"),
        (
            "HealthInterval=5",
            "web.container:3: HealthInterval=5: --health-interval: \"5\" is not a duration",
        ),
        (
            "\n\nPublishPort=80:x",
            "web.container:5: PublishPort=80:x: --publish \"80:x\": the container's port",
        ),
        ("PublishPort=80\nPublishPort=x", "web.container:4: PublishPort=x"),
        ("Memory=lots", "Memory=lots: --memory: \"lots\" is not a size"),
        ("Pull=newer", "Pull=newer: invalid value 'newer'"),
        ("ReadOnly=maybe", "write true or false"),
        ("RunInit=", "RunInit"),
        ("Group=20", "it needs User="),
        ("Environment=\"A=1", "a quote has no end"),
        ("Exec='sh", "a quote has no end"),
        ("EnvironmentFile=-/x", "drop the -"),
        ("AddDevice=-/dev/x", "drop the -"),
        ("Network=app.network", "there is no file app.network"),
        ("Network=db.container", "there is no file db.container"),
        ("Volume=data.volume:/data", "there is no file data.volume"),
        (
            "Mount=type=volume,source=data.volume,target=/d",
            "there is no file data.volume",
        ),
        ("Network=none\nPublishPort=80:80", "--publish and --network none"),
        ("IP=10.89.0.5", "--ip needs a network of your own"),
        ("Image=x.image", "there is no file x.image"),
        ("Image=x.build", "there is no builder"),
        ("Image=--privileged", "not the name of an image"),
        ("Image=", "[Container] needs Image="),
        ("Unmask=/proc/kcore", "only ALL"),
        ("ReloadCmd=x\nReloadSignal=HUP", "cannot be used together"),
        (
            "[Nonsense]\nA=b",
            "web.container:3: there is no section [Nonsense]",
        ),
        ("[Network]\nSubnet=10.0.0.0/8", "there is no section [Network]"),
        ("[Quadlet]\nFoo=b", "[Quadlet] has no such key"),
        ("[Service]\nExecStart=/bin/x", "web.container:4: ExecStart=/bin/x"),
        ("[Service]\nType=notify", "Type=notify"),
        ("[Install]\nAlso=x.service", "Also=x.service"),
    ] {
        if lines == "RunInit=" {
            // An empty value is no value.
            assert!(container(lines).is_ok());
            continue;
        }
        let error = container(lines).expect_err(lines);
        assert!(error.contains(reason), "{lines}: {error}");
    }
    let (units, wrong) = all(&[
        ("a.container", "[Unit]\nDescription=x\n"),
        ("b.image", "[Image]\nArch=arm64\n"),
    ]);
    assert!(units.is_empty());
    let words: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    assert_eq!(words[0], "/q/a.container: [Container] is missing");
    assert!(
        words.iter().any(|word| word.contains("[Image] needs Image=")),
        "{words:?}"
    );
}

#[test]
fn files_name_each_other() {
    let (units, wrong) = all(&[
        (
            "web.container",
            "[Unit]\nAfter=db.container x.service\n[Container]\nImage=app.image\nNetwork=net.network:alias=w\nVolume=data.volume:/d\n",
        ),
        (
            "side.container",
            "[Container]\nImage=img\nNetwork=web.container\nMount=type=volume,src=data.volume,dst=/d\n",
        ),
        (
            "db.container",
            "[Container]\nContainerName=database\nServiceName=dbms\nImage=img\n",
        ),
        (
            "app.image",
            "[Image]\nImage=registry.example/app:1\nArch=arm\nVariant=v7\n",
        ),
        (
            "net.network",
            "[Network]\nNetworkName=front\nSubnet=10.89.0.0/24\nOptions=mtu=1400,com.docker.network.bridge.enable_icc=false\nInternal=true\nIPv6=no\n",
        ),
        ("data.volume", "[Volume]\nLabel=a=b\nDriver=local\n"),
    ]);
    assert_eq!(wrong, []);
    let unit = |name: &str| units.iter().find(|unit| unit.service == name).expect("made");
    let web = unit("web.service");
    assert_eq!(web.tail, ["registry.example/app:1"]);
    assert_eq!(
        web.flags[..2],
        ["--network=front:alias=w", "--volume=systemd-data:/d"]
    );
    assert_eq!(
        web.needs,
        ["net-network.service", "data-volume.service", "app-image.service"]
    );
    assert_eq!(
        web.passed("Unit", "After").collect::<Vec<_>>(),
        ["dbms.service x.service"]
    );
    let side = unit("side.service");
    assert_eq!(
        side.flags[..2],
        [
            "--network=container:systemd-web",
            "--mount=type=volume,src=systemd-data,dst=/d"
        ]
    );
    assert_eq!(unit("dbms.service").resource, "database");
    assert_eq!(
        unit("app-image.service").start(),
        [
            "pull",
            "--quiet",
            "--platform=linux/arm/v7",
            "registry.example/app:1"
        ]
    );
    assert_eq!(
        unit("net-network.service").start(),
        [
            "network",
            "create",
            "--ignore",
            "--subnet=10.89.0.0/24",
            "--opt=mtu=1400",
            "--opt=com.docker.network.bridge.enable_icc=false",
            "--internal",
            "front"
        ]
    );
    assert_eq!(
        unit("data-volume.service").start(),
        [
            "volume",
            "create",
            "--label=a=b",
            "--driver=local",
            "systemd-data"
        ]
    );
    for (name, text, reason) in [
        (
            "n.network",
            "[Network]\nDriver=macvlan",
            "n.network:2: Driver=macvlan: --driver \"macvlan\"",
        ),
        (
            "n.network",
            "[Network]\nGateway=10.0.0.1",
            "n.network:2: Gateway=10.0.0.1: --gateway",
        ),
        ("n.network", "[Network]\nDisableDNS=true", "DisableDNS=true"),
        (
            "n.network",
            "[Network]\nSubnets=10.0.0.0/8",
            "did you mean Subnet=?",
        ),
        ("v.volume", "[Volume]\nType=nfs", "Type=nfs"),
        ("v.volume", "[Volume]\nCopy=false", "nocopy"),
        ("i.image", "[Image]\nImage=x\nCreds=a:b", "'kakoi login'"),
        ("i.image", "[Image]\nImage=x\nVariant=v7", "it needs Arch="),
    ] {
        let (_, wrong) = all(&[(name, text)]);
        let first = wrong.first().expect(text).to_string();
        assert!(first.contains(reason), "{text}: {first}");
    }
    let two = "[Container]\nImage=x\nServiceName=one\n";
    let (units, wrong) = all(&[("a.container", two), ("b.container", two)]);
    assert_eq!((units.len(), wrong.len()), (1, 1));
    assert!(wrong[0].to_string().contains("one.service"), "{}", wrong[0]);
}

#[test]
fn folders_are_read_and_the_first_of_a_name_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    };
    file("first/web.container", "[Container]\nImage=one\n");
    file(
        "first/web.container.d/10-more.conf",
        "[Container]\nEnvironment=A=1\n",
    );
    file(
        "first/web.container.d/20-less.conf",
        "[Container]\nImage=two\nPublishPort=nope\n",
    );
    file("first/notes.txt", "nothing");
    file("first/below/side.container", "[Container]\nImage=side\n");
    file("first/x@.container", "[Container]\nImage=x\n");
    file("first/app.kube", "");
    file("second/web.container", "[Container]\nImage=hidden\n");
    file("second/broken.container", "Image=x\n");
    let (sources, wrong) = read(&["first", "second"].map(|name| folder.path().join(name)));
    let names: Vec<String> = sources.iter().map(Source::name).collect();
    assert_eq!(names, ["side.container", "web.container"]);
    let mut words: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    words.sort();
    assert_eq!(words.len(), 3, "{words:?}");
    assert!(words[0].contains("app.kube: Kubernetes"), "{words:?}");
    assert!(words[1].contains("templates are not supported"), "{words:?}");
    assert!(
        words[2].contains("broken.container:1: Image= stands before"),
        "{words:?}"
    );
    let (units, wrong) = translate(&sources);
    assert_eq!(units.len(), 1, "the other is wrong");
    assert!(
        wrong[0].to_string().contains("20-less.conf:3: PublishPort=nope"),
        "the amending file is named: {}",
        wrong[0]
    );
    let (_, wrong) = read(&[
        folder.path().join("first/notes.txt"),
        folder.path().join("none.container"),
    ]);
    assert!(
        wrong[0].to_string().contains("the ending is none of"),
        "{}",
        wrong[0]
    );
    assert!(
        wrong[1].to_string().contains("there is no such file"),
        "{}",
        wrong[1]
    );
}
