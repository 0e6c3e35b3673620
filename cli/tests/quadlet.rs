//! Quadlet files through the program: the services that it writes, held against files, and how it ends where something is wrong.
//!
//! `KAKOI_BLESS=1 cargo test -p kakoi --test quadlet` writes the services anew.

mod fake;

use std::path::{Path, PathBuf};

use fake::{Ran, kakoi, ran};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn run(words: &[&str], folder: &Path) -> Ran {
    let words: Vec<String> = words
        .iter()
        .map(|word| word.replace("FOLDER", &folder.display().to_string()))
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    ran(kakoi(&words)
        .env_remove("QUADLET_UNIT_DIRS")
        .output()
        .expect("it runs"))
}

/// The paths that differ from machine to machine, as they are on a device.
fn on_a_device(text: &str) -> String {
    text.replace(env!("CARGO_BIN_EXE_kakoi"), "/usr/local/bin/kakoi")
        .replace(
            &folder("quadlet").display().to_string(),
            "/etc/containers/systemd",
        )
}

#[test]
fn services_are_as_they_were() {
    let made = tempfile::tempdir().expect("a folder");
    let from = format!("--from={}", folder("quadlet").display());
    let ran = run(
        &["quadlet", "generate", &from, "FOLDER", "/early", "/late"],
        made.path(),
    );
    assert_eq!(
        (ran.status, ran.stdout.as_str(), ran.stderr.as_str()),
        (0, "", "")
    );
    let mut names = Vec::new();
    for entry in std::fs::read_dir(made.path()).expect("listed") {
        let entry = entry.expect("listed");
        let name = entry.file_name().into_string().expect("a name");
        names.push(name.clone());
        if entry.file_type().expect("a type").is_file() {
            let text = on_a_device(&std::fs::read_to_string(entry.path()).expect("read"));
            let golden = folder("goldens/quadlet").join(&name);
            if std::env::var_os("KAKOI_BLESS").is_some() {
                std::fs::create_dir_all(golden.parent().expect("a folder")).expect("made");
                std::fs::write(&golden, &text).expect("written");
            }
            let expected = std::fs::read_to_string(&golden).unwrap_or_default();
            assert_eq!(text, expected, "{} differs: look, then bless", golden.display());
        }
    }
    names.sort();
    assert_eq!(
        names,
        [
            "broker.service",
            "mosquitto-image.service",
            "multi-user.target.wants",
            "page.service",
            "pages-volume.service",
            "site-network.service",
            "web.service",
            "web.service.requires"
        ]
    );
    let link = |name: &str| std::fs::read_link(made.path().join(name)).expect("a link");
    assert_eq!(
        link("multi-user.target.wants/web.service"),
        Path::new("../web.service")
    );
    assert_eq!(
        link("web.service.requires/pages-volume.service"),
        Path::new("../pages-volume.service")
    );
    assert_eq!(link("page.service"), Path::new("web.service"));
    // Once more over what is there.
    assert_eq!(
        run(&["quadlet", "generate", &from, "FOLDER"], made.path()).status,
        0
    );
    let dry = run(&["quadlet", "generate", &from, "--dry-run"], made.path());
    assert!(
        dry.stdout.contains("---web.service---\n# Made by"),
        "{}",
        dry.stdout
    );
}

/// The reference reads what was written.
#[test]
fn systemd_takes_the_services() {
    let made = tempfile::tempdir().expect("a folder");
    let from = format!("--from={}", folder("quadlet").display());
    assert_eq!(
        run(&["quadlet", "generate", &from, "FOLDER"], made.path()).status,
        0
    );
    std::fs::write(
        made.path().join("kakoid.service"),
        "[Service]\nExecStart=/bin/true\n",
    )
    .expect("written");
    let verify = std::process::Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(made.path().join("web.service"))
        .arg(made.path().join("site-network.service"))
        .env("SYSTEMD_UNIT_PATH", format!("{}:", made.path().display()))
        .output();
    let Ok(verify) = verify else {
        let required = std::env::var("KAKOI_TEST_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|word| word.trim() == "systemd-analyze"),
            "systemd-analyze is required"
        );
        println!("SKIP systemd_takes_the_services: there is no systemd-analyze");
        return;
    };
    let words = String::from_utf8_lossy(&verify.stderr);
    assert!(verify.status.success() && !words.contains("service:"), "{words}");
}

#[test]
fn wrong_files_are_told_and_right_ones_served() {
    let files = tempfile::tempdir().expect("a folder");
    let made = tempfile::tempdir().expect("a folder");
    let put = |name: &str, text: &str| std::fs::write(files.path().join(name), text).expect("written");
    put("good.container", "[Container]\nImage=img\n");
    put(
        "bad.container",
        "[Container]\nImage=img\nPodmanArgs=--privileged\nImgae=x\n",
    );
    let checked = run(&["quadlet", "check", "FOLDER"], files.path());
    assert_eq!(checked.status, 125);
    let bad = files.path().join("bad.container").display().to_string();
    assert_eq!(
        checked.stderr,
        format!(
            "Error: {bad}:3: PodmanArgs=--privileged: it is not taken: Podman's options are not Kakoi's; use the key of each option\n\
             Error: {bad}:4: [Container] has no key Imgae=: did you mean Image=?\n"
        )
    );
    assert!(
        checked.stdout.ends_with("good.container: good.service\n"),
        "{}",
        checked.stdout
    );
    let from = format!("--from={}", files.path().display());
    let ran = run(&["quadlet", "generate", &from, "FOLDER"], made.path());
    assert_eq!(ran.status, 125);
    assert!(made.path().join("good.service").exists() && !made.path().join("bad.service").exists());
    let listed = run(
        &[
            "quadlet",
            "ls",
            "FOLDER",
            "--format",
            "{{.Unit}} {{.Kind}} {{.Name}}",
        ],
        files.path(),
    );
    assert_eq!(listed.stdout, "good.service container systemd-good\n");
    for (words, reason) in [
        (&["quadlet", "generate"][..], "<NORMAL-DIR>"),
        (&["quadlet", "generate", "/nonexistent/dir"], "writing"),
        (
            &["quadlet", "check", "/nonexistent.container"],
            "there is no such file",
        ),
        (&["quadlet", "check", "/etc/passwd"], "the ending is none of"),
        (&["quadlet"], "Usage"),
    ] {
        let ran = ran_with_folders(words, files.path());
        assert_eq!(ran.status, 125, "{words:?}");
        assert!(ran.stderr.contains(reason), "{words:?}: {}", ran.stderr);
    }
}

/// The folders that Podman's variable names.
fn ran_with_folders(words: &[&str], folder: &Path) -> Ran {
    ran(kakoi(words)
        .env("QUADLET_UNIT_DIRS", folder)
        .output()
        .expect("it runs"))
}
