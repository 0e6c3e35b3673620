//! The stock `docker` client does every verb that needs no network, the same scenario first with a real dockerd: a check that fails there is wrong.
//!
//! Takes the clients that there are: Debian's (20.10 on Debian 12), and whatever `docker` the path leads to.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

use kakoi_integration::command::run;
use kakoi_integration::host::{Host, binary};
use kakoi_integration::{image, needs_root};

/// Clients, each once.
fn clients() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let by_path = std::env::split_paths(&path).map(|folder| folder.join("docker"));
    let mut found: Vec<PathBuf> = Vec::new();
    for client in by_path.chain([PathBuf::from("/usr/bin/docker")]) {
        if let Ok(client) = client.canonicalize()
            && !found.contains(&client)
        {
            found.push(client);
        }
    }
    found
}

fn scenario(host: &Host) -> (String, String) {
    let script = host.file("docker_client.sh", include_str!("docker_client.sh"));
    let rootfs = host.file("rootfs.tar", image::busybox_layer(&binary("attacker")));
    (script, rootfs)
}

#[test]
fn the_scenario_is_what_docker_does() {
    needs_root!();
    let host = Host::empty();
    let (script, rootfs) = scenario(&host);
    let reference = host.file("docker_reference.sh", include_str!("docker_reference.sh"));
    let mut command = Command::new("unshare");
    // In namespaces of its own: Docker must not touch the machine's network, and all of it ends with the script.
    command.args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "bash",
    ]);
    command
        .args([&reference, &script, &rootfs])
        .arg(host.path("docker"));
    let said = run(&mut command, b"").ok();
    assert!(said.contains(" 0 failed"), "{said}");
}

#[test]
fn the_stock_client_just_works() {
    needs_root!();
    let clients = clients();
    assert!(
        !clients.is_empty(),
        "docker.io is installed (integration/provision test)"
    );
    for client in clients {
        let host = Host::empty();
        let (script, rootfs) = scenario(&host);
        let folder = host.path("work");
        let socket = format!("unix://{}", host.path("run/docker.sock").display());
        let mut command = Command::new("bash");
        command.arg(&script).arg(&client).arg(&rootfs).arg(&folder);
        command.env("DOCKER_HOST", socket);
        let said = run(&mut command, b"").ok();
        assert!(said.contains(" 0 failed"), "{}: {said}", client.display());
        assert!(Path::new(&folder).exists());
        host.is_clean();
    }
}
