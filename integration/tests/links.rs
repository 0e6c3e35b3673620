//! A policy's paths are what they were when the container was created: links of the image are followed once, links of the app never.
#![forbid(unsafe_code)]

use kakoi_integration::host::Host;
use kakoi_integration::image::Layer;
use kakoi_integration::needs_root;
use serde_json::json;

fn policy(host: &Host, name: &str, write: &str) -> String {
    let text = format!("kakoi: 1\nname: {name}\nextends: [strict]\nfiles:\n  write: [{write}]\n");
    host.file(&format!("{name}.yaml"), text)
}

/// An image as distributions make them: `/lib`, `/bin` and `/var/run` are links.
fn host_with_image() -> Host {
    let host = Host::new();
    let layer = Layer::new()
        .folder("run/", 0o755)
        .folder("usr/lib/", 0o755)
        .folder("usr/lib/app/", 0o755)
        .folder("var/", 0o755)
        .link("var/run", "/run")
        .link("lib", "usr/lib")
        .folder("data/", 0o755)
        .folder("data/spool/", 0o755)
        .link("outbox", "data/spool");
    host.load_variant("linked:1", &json!({ "Cmd": ["true"] }), layer)
        .ok();
    host
}

/// The attack of a reviewer: an app that may write to a folder and to one inside it makes the second one a link.
#[test]
fn an_app_does_not_widen_its_own_policy() {
    needs_root!();
    let host = host_with_image();
    for (write, name) in [
        ("/data, /data/spool", "required"),
        ("/data, {path: /data/spool, optional: true}", "optional"),
    ] {
        let policy = policy(&host, name, write);
        let script = "touch /data/spool/own && echo wrote; touch /etc/evil && echo EVIL; \
            rm -rf /data/spool; ln -s / /data/spool; echo linked; sleep 1000";
        host.ok(&[
            "run",
            "--detach",
            "--network",
            "none",
            "--name",
            name,
            "--policy",
            &policy,
            "linked:1",
            "sh",
            "-c",
            script,
        ]);
        kakoi_integration::wait::until("the link is made", || host.ok(&["logs", name]).contains("linked"));
        let added = host.kakoi(&["exec", name, "touch", "/etc/evil2"]);
        assert_ne!(added.code, 0, "{name}: {added}");
        let looked = host.kakoi(&["exec", name, "ls", "/etc"]);
        assert!(!looked.stdout.contains("evil"), "{name}: {looked}");
        let again = host.kakoi(&["restart", "--time", "0", name]);
        if name == "required" {
            assert_ne!(again.code, 0, "{again}");
            assert!(
                again.stderr.contains("/data/spool") && again.stderr.contains("symbolic link"),
                "{again}"
            );
        } else {
            again.ok();
            kakoi_integration::wait::until("it ran again", || {
                host.ok(&["logs", name]).matches("linked").count() == 2
            });
        }
        let said = host.ok(&["logs", name]);
        assert!(said.contains("wrote") && !said.contains("EVIL"), "{name}: {said}");
        host.ok(&["rm", "--force", "--time", "0", name]);
    }
    host.is_clean();
}

/// What must go on working: the image's own links, for the first process, for `exec`, and after a restart.
#[test]
fn an_images_links_lead_where_they_lead() {
    needs_root!();
    let host = host_with_image();
    for (write, path) in [
        ("/var/run", "/var/run/x"),
        ("/var/run", "/run/x"),
        ("/lib/app", "/usr/lib/app/x"),
        ("/outbox", "/data/spool/x"),
    ] {
        let policy = policy(&host, "links", write);
        host.ok(&[
            "run",
            "--detach",
            "--network",
            "none",
            "--name",
            "links",
            "--policy",
            &policy,
            "linked:1",
            "sleep",
            "1000",
        ]);
        host.ok(&["exec", "links", "touch", path]);
        host.ok(&["restart", "--time", "0", "links"]);
        host.ok(&["exec", "links", "touch", path]);
        let beside = host.kakoi(&["exec", "links", "touch", "/usr/x"]);
        assert_ne!(beside.code, 0, "{write}: {beside}");
        host.ok(&["rm", "--force", "--time", "0", "links"]);
    }
    // And the default, with what is written to /proc/self.
    let script = "ls /lib /var/run && touch /var/run/x /run/y && echo name > /proc/self/comm && echo done";
    let ran = host.ok(&["run", "--rm", "--network", "none", "linked:1", "sh", "-c", script]);
    assert!(ran.ends_with("done"), "{ran}");
    // A link to its own parents would grant them.
    let upward = Layer::new().folder("srv/", 0o755).link("srv/all", "..");
    host.load_variant("upward:1", &json!({ "Cmd": ["true"] }), upward)
        .ok();
    let policy = policy(&host, "upward", "/srv/all");
    let ran = host.kakoi(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--policy",
        &policy,
        "upward:1",
        "touch",
        "/etc/evil",
    ]);
    assert_ne!(ran.code, 0, "{ran}");
    assert!(ran.stderr.contains("symbolic link"), "{ran}");
    host.is_clean();
}
