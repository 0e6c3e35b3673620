//! A boot loader that a program speaks for, in the words of RAUC's custom back end and of what SWUpdate's users write: `get-primary`, `set-primary SLOT`,
//! `get-state SLOT`, `set-state SLOT good|bad`.
//!
//! The program counts starts itself, and knows no difference between a slot on trial and one that was committed. So what is on trial stands in
//! `os-boot.json` in the supervisor's folder, written before the program hears of it and taken away after:
//!
//! ```json
//! {"good":"a","trial":"b","told":true}
//! ```
//!
//! A trial whose slot is no longer the primary one, or is bad, has been given up by the boot loader.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::boot::{BootControl, Control, ControlError, Slot, Trial};

const NAME: &str = "os-boot.json";
const ASIDE: &str = "os-boot.json.aside";
const NOTE_BYTES_MAX: u64 = 4096;
/// What the program may take: it writes some bytes of flash.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the program may say.
const SAID_BYTES_MAX: u64 = 4096;

/// See the module.
pub struct BootCommand {
    words: Vec<String>,
    folder: PathBuf,
    patience: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    good: Slot,
    trial: Slot,
    /// Whether the program was told to try it.
    told: bool,
}

fn failed(act: &'static str) -> impl Fn(io::Error) -> ControlError {
    move |cause| ControlError::Medium { act, cause }
}

impl BootCommand {
    /// A program with its first arguments, and where to note what is on trial.
    pub fn new(words: Vec<String>, folder: PathBuf) -> Self {
        Self {
            words,
            folder,
            patience: PATIENCE,
        }
    }

    /// Runs the program to its end; says the one word that it says.
    fn ask(&self, act: &'static str, arguments: &[&str]) -> Result<String, ControlError> {
        let said = self.run(arguments);
        said.map_err(|cause| {
            let what = arguments.join(" ");
            failed(act)(io::Error::new(
                cause.kind(),
                format!("the boot command {what}: {cause}"),
            ))
        })
    }

    fn run(&self, arguments: &[&str]) -> io::Result<String> {
        let (program, first) = self.words.split_first().ok_or(io::ErrorKind::NotFound)?;
        let mut child = Command::new(program)
            .args(first)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        if !kakoi_sys::process::ends_within(child.id(), self.patience).map_err(io::Error::other)? {
            child.kill()?;
            child.wait()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        let status = child.wait()?;
        if !status.success() {
            return Err(io::Error::other(format!("it ended with {status}")));
        }
        let mut said = String::new();
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        output.take(SAID_BYTES_MAX).read_to_string(&mut said)?;
        Ok(said.trim().to_owned())
    }

    fn primary(&self) -> Result<Slot, ControlError> {
        let said = self.ask("read", &["get-primary"])?;
        Slot::parse(&said).ok_or(ControlError::Damaged)
    }

    fn is_good(&self, slot: Slot) -> Result<bool, ControlError> {
        match self.ask("read", &["get-state", slot.word()])?.as_str() {
            "good" => Ok(true),
            "bad" => Ok(false),
            _ => Err(ControlError::Damaged),
        }
    }

    fn set_primary(&self, slot: Slot) -> Result<(), ControlError> {
        self.ask("write", &["set-primary", slot.word()]).map(drop)
    }

    fn set_state(&self, slot: Slot, state: &str) -> Result<(), ControlError> {
        self.ask("write", &["set-state", slot.word(), state]).map(drop)
    }

    fn note(&self) -> Result<Option<Note>, ControlError> {
        let path = self.folder.join(NAME);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(failed("read")(cause)),
        };
        let mut bytes = Vec::new();
        file.take(NOTE_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(failed("read"))?;
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|_| ControlError::Damaged)
    }

    fn keep(&self, note: Option<Note>) -> Result<(), ControlError> {
        let path = self.folder.join(NAME);
        match note {
            Some(note) => {
                let bytes = serde_json::to_vec(&note).expect("three words serialise");
                let aside = self.folder.join(ASIDE);
                let mut file = File::create(&aside).map_err(failed("write"))?;
                file.write_all(&bytes).map_err(failed("write"))?;
                file.sync_all().map_err(failed("sync"))?;
                fs::rename(&aside, &path).map_err(failed("write"))?;
            }
            None => match fs::remove_file(&path) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(failed("write")(cause)),
                _ => {}
            },
        }
        let folder = File::open(&self.folder).map_err(failed("sync"))?;
        folder.sync_all().map_err(failed("sync"))
    }
}

impl BootControl for BootCommand {
    fn read(&mut self) -> Result<Control, ControlError> {
        let primary = self.primary()?;
        let Some(note) = self.note()? else {
            return Ok(Control {
                good: primary,
                trial: None,
            });
        };
        let is_tried = primary == note.trial && self.is_good(note.trial)?;
        // Noted and not told yet: whoever set it is told that it is not set, and sets it again.
        let trial = (is_tried || note.told).then_some(Trial {
            slot: note.trial,
            left: u8::from(is_tried),
        });
        Ok(Control {
            good: note.good,
            trial,
        })
    }

    fn write(&mut self, wanted: Control) -> Result<(), ControlError> {
        match wanted.trial {
            Some(trial) => {
                let note = |told| {
                    Some(Note {
                        good: wanted.good,
                        trial: trial.slot,
                        told,
                    })
                };
                self.keep(note(false))?;
                self.set_state(wanted.good, "good")?;
                self.set_state(trial.slot, "good")?;
                self.set_primary(trial.slot)?;
                self.keep(note(true))?;
            }
            None => {
                let other = wanted.good.other();
                let tried = self.note()?.map(|note| note.trial);
                self.set_state(wanted.good, "good")?;
                self.set_primary(wanted.good)?;
                if tried == Some(other) {
                    self.set_state(other, "bad")?;
                }
                self.keep(None)?;
            }
        }
        // The program counts starts by itself: how many it grants is not read back.
        let is_same = |found: Control| {
            let slots = |control: Control| (control.good, control.trial.map(|trial| trial.slot));
            slots(found) == slots(wanted)
        };
        match is_same(self.read()?) {
            true => Ok(()),
            false => Err(ControlError::ReadBack),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A boot loader's program that keeps its state in files, and fails from its Nth call on.
    const PROGRAM: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
left=$(cat left); [ "$left" -gt 0 ] || exit 7; echo $((left - 1)) >left
case $1 in
get-primary) cat primary ;;
set-primary) echo "$2" >primary ;;
get-state) cat "state-$2" ;;
set-state) echo "$3" >"state-$2" ;;
*) exit 2 ;;
esac
"#;

    struct Loader {
        folder: tempfile::TempDir,
    }

    impl Loader {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let loader = Self { folder };
            loader.put("boot", PROGRAM);
            let program = loader.folder.path().join("boot");
            fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("set");
            for (name, text) in [("primary", "a\n"), ("state-a", "good\n"), ("state-b", "bad\n")] {
                loader.put(name, text);
            }
            loader.allow(1000);
            loader
        }

        fn put(&self, name: &str, text: &str) {
            fs::write(self.folder.path().join(name), text).expect("written");
        }

        fn allow(&self, calls: usize) {
            self.put("left", &calls.to_string());
        }

        fn boot(&self) -> BootCommand {
            let program = self.folder.path().join("boot").display().to_string();
            BootCommand::new(vec![program], self.folder.path().to_owned())
        }

        fn primary(&self) -> String {
            let text = fs::read_to_string(self.folder.path().join("primary")).expect("read");
            text.trim().to_owned()
        }
    }

    fn control(good: Slot, trial: Option<u8>) -> Control {
        Control {
            good,
            trial: trial.map(|left| Trial {
                slot: good.other(),
                left,
            }),
        }
    }

    #[test]
    fn a_trial_is_set_given_up_and_committed() {
        let loader = Loader::new();
        let mut boot = loader.boot();
        assert_eq!(boot.read().expect("read"), control(Slot::A, None));
        boot.set_trial(Slot::B, 3).expect("set");
        assert_eq!(
            (boot.read().expect("read"), loader.primary().as_str()),
            (control(Slot::A, Some(1)), "b")
        );
        // The boot loader has tried it as often as it does.
        loader.put("primary", "a");
        assert_eq!(boot.read().expect("read"), control(Slot::A, Some(0)));
        boot.mark_bad(Slot::B).expect("marked");
        assert_eq!(boot.read().expect("read"), control(Slot::A, None));
        boot.set_trial(Slot::B, 3).expect("set");
        loader.put("state-b", "bad");
        assert_eq!(boot.read().expect("read"), control(Slot::A, Some(0)));
        boot.set_trial(Slot::B, 3).expect("again");
        boot.commit(Slot::B).expect("committed");
        assert_eq!(
            (boot.read().expect("read"), loader.primary().as_str()),
            (control(Slot::B, None), "b")
        );
    }

    /// Each call of the program is the last one before a cut: what is read is the old or the new, and the call can be made again.
    #[test]
    fn a_cut_between_two_calls_leaves_the_old_or_the_new() {
        let (mut olds, mut news) = (0, 0);
        for calls in 0..8 {
            let loader = Loader::new();
            loader.allow(calls);
            let done = loader.boot().set_trial(Slot::B, 2);
            loader.allow(1000);
            let found = loader.boot().read().expect("read");
            match (
                found == control(Slot::A, None),
                found == control(Slot::A, Some(1)),
            ) {
                (true, _) => olds += 1,
                (_, true) => news += 1,
                _ => panic!("{found:?} after {calls} calls"),
            }
            assert!(done.is_err() || found.trial.is_some());
            loader.boot().set_trial(Slot::B, 2).expect("again");
            loader.allow(calls);
            let done = loader.boot().commit(Slot::B);
            loader.allow(1000);
            let found = loader.boot().read().expect("read");
            assert!(
                found == control(Slot::B, None) || found == control(Slot::A, Some(1)),
                "{found:?}"
            );
            assert!(done.is_err() || found.good == Slot::B);
            loader.boot().commit(Slot::B).expect("again");
            assert_eq!(loader.boot().read().expect("read"), control(Slot::B, None));
        }
        assert!(olds > 0 && news > 0, "{olds} {news}");
    }

    #[test]
    fn a_program_that_fails_hangs_or_babbles_is_an_error() {
        let loader = Loader::new();
        loader.put("primary", "c");
        assert!(matches!(loader.boot().read(), Err(ControlError::Damaged)));
        loader.put("primary", "a");
        loader.put(NAME, "{");
        assert!(matches!(loader.boot().read(), Err(ControlError::Damaged)));
        let absent =
            BootCommand::new(vec!["/nonexistent/boot".into()], loader.folder.path().to_owned()).read();
        assert!(matches!(absent, Err(ControlError::Medium { act: "read", .. })));
        let mut hangs = BootCommand::new(
            vec!["/bin/sleep".into(), "100".into()],
            loader.folder.path().to_owned(),
        );
        hangs.patience = Duration::from_millis(50);
        // `sleep 100 get-primary` is refused by sleep itself; so it is asked through a shell that ignores its arguments.
        hangs.words = vec!["/bin/sh".into(), "-c".into(), "exec sleep 100".into()];
        let error = hangs.read().expect_err("it hangs");
        assert!(
            matches!(&error, ControlError::Medium { cause, .. } if cause.kind() == io::ErrorKind::TimedOut),
            "{error:?}"
        );
    }
}
