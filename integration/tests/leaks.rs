//! The harness finds what a runtime leaves behind: each kind of leftover is planted, seen, and taken away again.
#![forbid(unsafe_code)]

use std::process::{Child, Command, Stdio};

use kakoi_integration::command::run;
use kakoi_integration::host::Host;
use kakoi_integration::{needs_root, wait};

fn victim(host: &Host) -> String {
    host.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "victim",
        "busybox:test",
        "sleep",
        "1000",
    ]);
    host.pid("victim").to_string()
}

/// A process of the test's that enters some of the container's namespaces, and outlives the container; the host looks once while both live.
fn planted(host: &Host, arguments: &[&str]) -> Child {
    let child = Command::new("nsenter")
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
        .expect("starting a process");
    let command = format!("/proc/{}/cmdline", child.id());
    wait::until("the planted process is in place", || {
        std::fs::read_to_string(&command).is_ok_and(|text| text.starts_with("/bin/sleep"))
    });
    host.pid("victim");
    child
}

fn removed(mut child: Child) {
    child.kill().expect("killing a child of ours");
    child.wait().expect("waiting for a child of ours");
}

/// What is seen once the container itself is gone.
fn traces_without_container(host: &Host) -> Vec<String> {
    host.ok(&["rm", "--force", "--time", "0", "victim"]);
    let gone = |trace: &String| !trace.contains("kakoi-shim");
    wait::until("the shim is gone", || host.traces().iter().all(gone));
    host.traces()
}

#[test]
fn a_process_that_stays_in_a_namespace_is_seen() {
    needs_root!();
    let host = Host::new();
    let pid = victim(&host);
    let child = planted(&host, &["--target", &pid, "--net", "/bin/sleep", "1000"]);
    let traces = traces_without_container(&host);
    let wanted = format!("process {} is in net:[", child.id());
    let seen = traces.iter().any(|trace| trace.contains(&wanted));
    removed(child);
    assert!(seen, "{traces:?}");
    host.is_clean();
}

#[test]
fn a_process_that_stays_in_the_root_is_seen() {
    needs_root!();
    let host = Host::new();
    let pid = victim(&host);
    let child = planted(
        &host,
        &["--target", &pid, "--mount", "--root", "/bin/sleep", "1000"],
    );
    let traces = traces_without_container(&host);
    let wanted = format!("process {} /bin/sleep", child.id());
    let seen = traces.iter().any(|trace| trace.starts_with(&wanted));
    removed(child);
    assert!(seen, "{traces:?}");
    host.is_clean();
}

#[test]
fn a_namespace_that_is_kept_by_a_mount_is_seen() {
    needs_root!();
    let host = Host::new();
    let pid = victim(&host);
    // Not below the host's folder: there a mount would be found by its path.
    let elsewhere = tempfile::NamedTempFile::new().expect("making a temporary file");
    let point = elsewhere.path().to_str().expect("UTF-8");
    run(
        Command::new("mount").args(["--bind", &format!("/proc/{pid}/ns/net"), point]),
        b"",
    )
    .ok();
    let traces = traces_without_container(&host);
    let seen = traces
        .iter()
        .any(|trace| trace.ends_with(&format!("is mounted at {point}")));
    run(Command::new("umount").arg(point), b"").ok();
    assert!(seen, "{traces:?}");
    host.is_clean();
}

#[test]
fn a_namespace_that_is_kept_by_a_descriptor_is_seen() {
    needs_root!();
    let host = Host::new();
    let pid = victim(&host);
    let held = std::fs::File::open(format!("/proc/{pid}/ns/ipc")).expect("opening a namespace");
    let traces = traces_without_container(&host);
    let wanted = format!("process {} has ipc:[", std::process::id());
    assert!(traces.iter().any(|trace| trace.contains(&wanted)), "{traces:?}");
    drop(held);
    host.is_clean();
}
