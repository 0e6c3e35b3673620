//! `kakoi cp`, `diff`, `export` and `commit` through the real command line.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::symlink;

use kakoi_integration::host::Host;
use kakoi_integration::needs_root;

#[test]
fn files_go_both_ways_and_changes_become_an_image() {
    needs_root!();
    let host = Host::new();
    let work = host.path("work");
    fs::create_dir_all(work.join("tree")).expect("a folder");
    fs::write(work.join("tree/file"), "given").expect("a file");
    symlink("file", work.join("tree/link")).expect("a link");
    let here = |name: &str| work.join(name).display().to_string();
    let policy = ["--policy", "docker-default", "--network", "none"];
    let create = [
        &["create", "--name", "box"][..],
        &policy[..],
        &["busybox:test", "sleep", "100000"],
    ]
    .concat();
    host.ok(&create);
    for state in ["created", "running"] {
        host.ok(&["cp", &here("tree"), &format!("box:/{state}")]);
        host.ok(&["cp", &here("tree/file"), &format!("box:/{state}/other")]);
        host.ok(&["cp", &format!("box:/{state}/other"), &here(state)]);
        assert_eq!(fs::read_to_string(work.join(state)).expect("copied"), "given");
        host.ok(&[
            "cp",
            "-L",
            &format!("box:/{state}/link"),
            &here(&format!("{state}-followed")),
        ]);
        let followed = work.join(format!("{state}-followed"));
        assert!(followed.symlink_metadata().expect("copied").is_file());
        let folder = here(&format!("{state}-folder"));
        host.ok(&["cp", &format!("box:/{state}"), &folder]);
        assert!(fs::read_link(format!("{folder}/link")).is_ok());
        host.kakoi(&["cp", &folder, &format!("box:/{state}/other")])
            .fails(125, "cannot overwrite non-directory");
        host.kakoi(&["cp", "box:/none", &folder])
            .fails(125, "Could not find the file /none in container box");
        host.kakoi(&["cp", &here("none"), "box:/"])
            .fails(125, "looking for");
        host.kakoi(&["cp", &folder, "box:/no/such/folder"])
            .fails(125, "in container box");
        host.kakoi(&["cp", &folder, &folder]).fails(125, "CONTAINER:PATH");
        if state == "created" {
            host.ok(&["start", "box"]);
        }
    }
    let changes = host.ok(&["diff", "box"]);
    assert!(
        changes.contains("A /created/link") && !changes.contains("/proc"),
        "{changes}"
    );
    host.ok(&["export", "-o", &here("all.tar"), "box"]);
    assert!(fs::metadata(work.join("all.tar")).expect("written").len() > 4096);
    host.ok(&["commit", "--author", "me", "-c", "ENV A=1", "box", "made:1"]);
    let again = [
        &["run", "--rm"][..],
        &policy[..],
        &["made:1", "cat", "/running/file"],
    ]
    .concat();
    assert_eq!(host.ok(&again), "given");
    host.kakoi(&["commit", "-c", "RUN true", "box"])
        .fails(125, "RUN is not a valid change command");
    host.kakoi(&["diff", "none"])
        .fails(125, "No such container: none");
    host.ok(&["rm", "--force", "box"]);
    host.is_clean();
}
