//! Against the tools that people use on U-Boot's environment: `fw_setenv` and `fw_printenv`. Left out, and said to be so, where they are not installed.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use super::*;

const COPY_BYTES: u64 = 4096;

fn has_tools() -> bool {
    if Command::new("fw_printenv").arg("-V").output().is_ok() {
        return true;
    }
    crate::required::leave_out("fw_printenv", "fw_printenv is not installed");
    false
}

fn run(folder: &Path, tool: &str, arguments: &[&str]) -> String {
    let output = Command::new(tool)
        .args(["-c", "fw_env.config"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect(tool);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Both sides write in turn, past the wrap of the flag byte, and each reads what the other wrote.
#[test]
fn the_environment_is_that_of_u_boots_tools() {
    if !has_tools() {
        return;
    }
    let temporary = tempfile::tempdir().expect("a folder");
    let folder = temporary.path();
    let path = folder.join("env");
    std::fs::write(&path, vec![0; 2 * COPY_BYTES as usize]).expect("made");
    let line = |at: u64| format!("{} {at:#x} {COPY_BYTES:#x}\n", path.display());
    std::fs::write(folder.join("fw_env.config"), line(0) + &line(COPY_BYTES)).expect("configured");
    std::fs::write(folder.join("default"), "bootdelay=2\n").expect("made");
    for (name, value) in [("boot_good", "a"), ("boot_try", "none"), ("boot_left", "0")] {
        run(folder, "fw_setenv", &["-f", "default", name, value]);
    }
    for turn in 0..300 {
        let file = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .expect("opened");
        let mut boot = UbootEnvironment::new(file, 0, COPY_BYTES, COPY_BYTES as usize).expect("apart");
        let left = turn % 9 + 1;
        boot.set_trial(Slot::B, left as u8).expect("set");
        let said = run(folder, "fw_printenv", &["-f", "default", "-n", "boot_left"]);
        assert_eq!(said.trim(), left.to_string(), "turn {turn}");
        if turn % 50 == 0 {
            run(folder, "fw_setenv", &["-f", "default", "boot_left", "0"]);
            let trial = Some(Trial {
                slot: Slot::B,
                left: 0,
            });
            assert_eq!(boot.read().expect("whole").trial, trial, "turn {turn}");
        }
    }
}
