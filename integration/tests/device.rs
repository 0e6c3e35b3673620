//! Kakoi on machines that this one is not: with control groups of version 2 alone, and on aarch64.
//!
//! `make device-test` makes the disks (`integration/device/run`) and names their folder in `KAKOI_DEVICE`; without it the tests are left out.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;

use kakoi_integration::device::folder;
use kakoi_integration::machine::Machine;

/// A machine with a disk of its own, which it forgets, and a kernel that is given to it from outside.
fn machine(qemu: &str, kind: &[&str], disk: &Path, append: &str) -> Machine {
    let mut command = Command::new(qemu);
    command
        .args(kind)
        .args([
            "-m", "1024", "-display", "none", "-serial", "stdio", "-monitor", "none",
        ])
        .args([
            "-nic",
            "none",
            "-no-reboot",
            "-device",
            "nvme,drive=disk,serial=kakoi",
        ])
        .arg("-drive")
        .arg(format!(
            "file={},format=raw,if=none,id=disk,snapshot=on",
            disk.display()
        ))
        .arg("-kernel")
        .arg(disk.with_extension("kernel"))
        .arg("-append")
        .arg(format!("quiet panic=-1 root=/dev/nvme0n1 rw rootwait {append}"));
    Machine::start(command)
}

/// Runs tests of this package in a machine that mounts control groups of version 2 and nothing else.
#[track_caller]
fn on_version_2(tests: &[&str]) {
    let Some(folder) = folder() else { return };
    let append = format!("console=ttyS0 init=/init TESTS={}", tests.join(","));
    let kind = ["-machine", "q35,accel=tcg", "-cpu", "max"];
    let mut machine = machine("qemu-system-x86_64", &kind, &folder.join("unified"), &append);
    for test in tests {
        let report = machine.expect(&format!("RESULT {test} "));
        let code = machine.expect("\n");
        assert_eq!(code.trim(), "0", "{test}: {report}");
        assert!(
            !report.contains("test result: ok. 0 passed"),
            "{test} names no test: {report}"
        );
        assert!(!report.contains("SKIP"), "{report}");
    }
    machine.ended();
}

/// The share that every run of the tests has: limits and figures, and a network with a published port.
#[test]
fn version_2_in_short() {
    on_version_2(&["groups", "networks:a_network_may_keep_its_containers_apart"]);
}

#[test]
fn version_2_lives() {
    on_version_2(&["groups", "life"]);
}

/// Of a kernel whose ext4 has quotas, which not every kernel that runs tests has.
#[test]
fn volumes_end_at_their_size() {
    on_version_2(&["quotas"]);
}

#[test]
fn version_2_networks() {
    on_version_2(&["networks"]);
}

/// Left out is what needs a newer landlock than this kernel's, which the policy's author is told.
#[test]
fn version_2_confines() {
    on_version_2(&["mapped", "privileges", "state", "mounts:--skip:a_policys_links"]);
}

#[test]
fn aarch64_runs_a_container() {
    let Some(folder) = folder() else { return };
    let kind = ["-machine", "virt,accel=tcg", "-cpu", "cortex-a57"];
    let append = "console=ttyAMA0 init=/sbin/init";
    let mut machine = machine("qemu-system-aarch64", &kind, &folder.join("aarch64"), append);
    machine.expect("DEVICE IS UP");
    assert_eq!(machine.ok("uname -m").trim(), "aarch64");
    machine.ok("kakoi load --quiet --input /app.tar");
    // What a policy asks for at best effort and this kernel's landlock cannot do is said on the way.
    let strict = machine.ok("kakoi run --rm --network none --policy strict app:1 uname -m 2>/dev/null");
    assert_eq!(strict.trim(), "aarch64");
    let (code, refused) =
        machine.run("kakoi run --rm --network none --policy strict app:1 sh -c 'echo x > /etc/passwd'");
    assert_ne!(code, 0, "strict writes no file: {refused}");
    machine.ok("kakoi run -d --name web --policy docker-default --memory 64m --pids-limit 20 -p 8080:80 app:1 httpd -f -p 80 -h /etc");
    machine.ok("until wget -q -O - http://127.0.0.1:8080/passwd | grep root:; do sleep 0.1; done");
    assert_eq!(machine.ok("kakoi exec web id -u").trim(), "0");
    assert_eq!(machine.ok("cat /sys/fs/cgroup/kakoi/*/pids.max").trim(), "20");
    machine.ok("kakoi pause web && kakoi unpause web && kakoi rm --force --time 0 web");
    let (code, _) = machine.run("kakoi run --rm --memory 16m --policy docker-default app:1 dd if=/dev/zero of=/dev/null bs=64M count=1");
    assert_eq!(code, 137, "its memory ends at its limit");
    machine.cut();
}
