//! The device guard on a real version 2 control group.

#[path = "../../../integration/src/required.rs"]
mod required;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use kakoi_sys::bpf::{Access, DeviceKind, DeviceRule, guard_devices, guards};

/// A control group that goes away with the test.
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).expect("it is empty");
    }
}

fn group() -> Option<Group> {
    let root = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .find(|root| fs::exists(format!("{root}/cgroup.controllers")).unwrap_or(false))?;
    let path = PathBuf::from(format!("{root}/kakoi-sys-test-{}", std::process::id()));
    fs::create_dir(&path).ok()?;
    Some(Group(path))
}

fn opens(group: &Group, mode: &str, device: &str) -> bool {
    let enter = format!(
        "echo $$ > {}/cgroup.procs && exec 5{mode}{device}",
        group.0.display()
    );
    Command::new("sh")
        .arg0("sh")
        .args(["-c", &enter])
        .stderr(std::process::Stdio::null())
        .status()
        .expect("there is a shell")
        .success()
}

#[test]
fn only_allowed_devices_open() {
    let Some(group) = group() else {
        required::leave_out("root", "no version 2 hierarchy that can be written");
        return;
    };
    let folder = fs::File::open(&group.0).expect("it was made");
    assert!(
        opens(&group, "<", "/dev/zero"),
        "without a guard everything opens"
    );

    let null = DeviceRule {
        allow: true,
        kind: DeviceKind::Char,
        major: Some(1),
        minor: Some(3),
        access: Access::new(true, false, false),
    };
    guard_devices(folder.as_fd(), &[null]).expect("root may attach");
    assert!(opens(&group, "<", "/dev/null"));
    assert!(!opens(&group, ">", "/dev/null"));
    assert!(!opens(&group, "<", "/dev/zero"));

    // Another program takes the first one's place: neither are the old rights kept nor do the programs pile up.
    let zero = DeviceRule {
        minor: Some(5),
        ..null
    };
    guard_devices(folder.as_fd(), &[zero]).expect("root may attach");
    assert_eq!(guards(folder.as_fd()), Ok(1));
    assert!(opens(&group, "<", "/dev/zero"));
    assert!(!opens(&group, "<", "/dev/null"));
}
