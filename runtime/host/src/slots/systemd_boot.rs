//! systemd-boot's boot counting: the state is the names of two files in its folder of entries.
//!
//! ```text
//! kakoi-7-b+2-1.conf      slot b, on trial: 2 starts left, 1 made
//! kakoi-6-a.conf          slot a, good: nothing is counted
//! kakoi-0-b.conf          slot b, neither good nor on trial
//! ```
//!
//! systemd-boot starts the entry with the highest version in its name, and puts those without starts left behind all others (Boot Loader Specification, "Boot
//! Counting"). So a trial has a higher number than the good entry, and who is no longer to be started has the number 0. Both files have to be there when the device is
//! delivered, without `sort-key`; loader.conf has no `default`, or `default kakoi-*`; each names its slot's kernel, and `kakoi.slot=a` or `=b`
//! among the options.
//!
//! A change is one rename, but FAT keeps no journal: a cut may leave the file under both names, or with its old one. Of two names of a slot the higher
//! number counts, and the next write removes the other. A slot of which no name is left is told as damaged, and the other one starts.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use super::boot::{BootControl, Control, ControlError, Slot, Trial};

/// Numbers that systemd-boot compares as numbers, and that a device never reaches.
const NUMBER_MAX: u64 = 999_999_999;
/// Entries of the folder that are looked at: some are others' own.
const ENTRIES_MAX: usize = 1024;

/// The folder of entries, `loader/entries` of the EFI system partition.
pub struct SystemdBoot {
    entries: PathBuf,
}

/// A file's name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    number: u64,
    slot: Slot,
    /// Starts that are left and that were made; none where nothing is counted.
    count: Option<(u64, u64)>,
    text: String,
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        let stem = text.strip_prefix("kakoi-")?.strip_suffix(".conf")?;
        let (name, count) = match stem.split_once('+') {
            None => (stem, None),
            Some((name, count)) => {
                let (left, done) = count.split_once('-').unwrap_or((count, "0"));
                (name, Some((digits(left)?, digits(done)?)))
            }
        };
        let (number, slot) = name.split_once('-')?;
        Some(Self {
            number: digits(number)?,
            slot: Slot::parse(slot)?,
            count,
            text: text.to_owned(),
        })
    }

    fn of(number: u64, slot: Slot, left: Option<u8>) -> String {
        let count = left.map(|left| format!("+{left}")).unwrap_or_default();
        format!("kakoi-{number}-{}{count}.conf", slot.word())
    }
}

fn digits(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

fn failed(act: &'static str) -> impl Fn(io::Error) -> ControlError {
    move |cause| ControlError::Medium { act, cause }
}

impl SystemdBoot {
    /// The entries in this folder.
    pub fn new(entries: PathBuf) -> Self {
        Self { entries }
    }

    fn names(&self) -> Result<Vec<Name>, ControlError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.entries)
            .map_err(failed("read"))?
            .take(ENTRIES_MAX)
        {
            let name = entry.map_err(failed("read"))?.file_name();
            names.extend(name.to_str().and_then(Name::parse));
        }
        names.sort_by_key(|name| std::cmp::Reverse(name.number));
        Ok(names)
    }

    /// The name of each slot that counts.
    fn both(&self) -> Result<[Name; 2], ControlError> {
        let names = self.names()?;
        let of = |slot| names.iter().find(|name| name.slot == slot).cloned();
        match (of(Slot::A), of(Slot::B)) {
            (Some(a), Some(b)) => Ok([a, b]),
            _ => Err(ControlError::Damaged),
        }
    }

    fn rename(&self, slot: Slot, from: &Name, to: &str) -> Result<(), ControlError> {
        if from.text != to {
            fs::rename(self.entries.join(&from.text), self.entries.join(to)).map_err(failed("write"))?;
        }
        for other in self.names()? {
            if other.slot == slot && other.text != to {
                fs::remove_file(self.entries.join(&other.text)).map_err(failed("write"))?;
            }
        }
        let folder = File::open(&self.entries).map_err(failed("sync"))?;
        folder.sync_all().map_err(failed("sync"))?;
        File::open(self.entries.join(to))
            .and_then(|file| file.sync_all())
            .map_err(failed("sync"))
    }
}

/// What two names say. Of two that are not counted the higher number is the good one.
fn control([a, b]: &[Name; 2]) -> Option<Control> {
    let (good, other) = match (a.count, b.count) {
        (None, Some(_)) => (a, b),
        (Some(_), None) => (b, a),
        (None, None) if a.number > b.number => (a, b),
        (None, None) if b.number > a.number => (b, a),
        _ => return None,
    };
    let trial = other.count.filter(|_| other.number > good.number);
    Some(Control {
        good: good.slot,
        trial: trial.map(|(left, _)| Trial {
            slot: other.slot,
            left: u8::try_from(left.min(9)).unwrap_or(9),
        }),
    })
}

impl BootControl for SystemdBoot {
    fn read(&mut self) -> Result<Control, ControlError> {
        control(&self.both()?).ok_or(ControlError::Damaged)
    }

    fn write(&mut self, wanted: Control) -> Result<(), ControlError> {
        let names = self.both()?;
        let now = control(&names).ok_or(ControlError::Damaged)?;
        let other = wanted.good.other();
        let [good_name, other_name] = match wanted.good {
            Slot::A => [&names[0], &names[1]],
            Slot::B => [&names[1], &names[0]],
        };
        let highest = names[0].number.max(names[1].number);
        if highest >= NUMBER_MAX {
            return Err(ControlError::Full);
        }
        // A slot that becomes the good one stands above the other before anything else is done: what was tried loses its count by one rename.
        if now.good != wanted.good {
            let to = Name::of(highest + 1, wanted.good, None);
            self.rename(wanted.good, good_name, &to)?;
        }
        match wanted.trial {
            Some(trial) => {
                let to = Name::of(highest + 2, trial.slot, Some(trial.left));
                self.rename(trial.slot, other_name, &to)?;
            }
            // Once the good one stands above it and it is not counted, nothing starts it.
            None => self.rename(other, other_name, &Name::of(0, other, None))?,
        }
        match self.read()? == wanted {
            true => Ok(()),
            false => Err(ControlError::ReadBack),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for name in names {
            fs::write(folder.path().join(name), format!("title {name}")).expect("made");
        }
        folder
    }

    fn listed(folder: &tempfile::TempDir) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder.path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    }

    fn boot(folder: &tempfile::TempDir) -> SystemdBoot {
        SystemdBoot::new(folder.path().to_owned())
    }

    /// What systemd-boot starts, and the name that it gives it when it counts: the highest version, those without starts left last.
    fn start(folder: &tempfile::TempDir) -> Slot {
        let mut names = boot(folder).names().expect("read");
        names.sort_by_key(|name| {
            (
                name.count.is_some_and(|(left, _)| left == 0),
                std::cmp::Reverse(name.number),
            )
        });
        let first = names.first().expect("an entry");
        if let Some((left @ 1.., done)) = first.count {
            let counted = format!(
                "kakoi-{}-{}+{}-{}.conf",
                first.number,
                first.slot.word(),
                left - 1,
                done + 1
            );
            fs::rename(folder.path().join(&first.text), folder.path().join(counted)).expect("counted");
        }
        first.slot
    }

    #[test]
    fn a_trial_is_counted_by_the_boot_loader_and_commits_or_ends() {
        let folder = folder(&["kakoi-1-a.conf", "kakoi-0-b.conf", "other.conf"]);
        assert_eq!(start(&folder), Slot::A);
        boot(&folder).set_trial(Slot::B, 2).expect("set");
        assert_eq!(
            listed(&folder),
            ["kakoi-1-a.conf", "kakoi-3-b+2.conf", "other.conf"]
        );
        assert_eq!(
            [start(&folder), start(&folder), start(&folder)],
            [Slot::B, Slot::B, Slot::A]
        );
        let spent = boot(&folder).read().expect("read");
        assert_eq!(
            spent.trial,
            Some(Trial {
                slot: Slot::B,
                left: 0
            })
        );
        boot(&folder).mark_bad(Slot::B).expect("marked");
        assert_eq!(
            boot(&folder).read().expect("read"),
            Control {
                good: Slot::A,
                trial: None
            }
        );
        assert_eq!(start(&folder), Slot::A);
        boot(&folder).set_trial(Slot::B, 3).expect("set");
        assert_eq!(start(&folder), Slot::B);
        boot(&folder).commit(Slot::B).expect("committed");
        assert_eq!(
            boot(&folder).read().expect("read"),
            Control {
                good: Slot::B,
                trial: None
            }
        );
        assert_eq!(start(&folder), Slot::B);
        assert!(boot(&folder).set_trial(Slot::B, 1).is_err());
        // And the other way round, with numbers that went on.
        boot(&folder).set_trial(Slot::A, 1).expect("set");
        assert_eq!([start(&folder), start(&folder)], [Slot::A, Slot::B]);
        assert!(
            listed(&folder).contains(&"other.conf".to_owned()),
            "others' entries are theirs"
        );
    }

    /// Each write is one or two renames; whatever names a cut leaves, a whole slot starts, and the call can be made again.
    #[test]
    fn what_a_cut_leaves_is_the_old_or_the_new() {
        let good_a = Control {
            good: Slot::A,
            trial: None,
        };
        let trial_b = Control {
            good: Slot::A,
            trial: Some(Trial {
                slot: Slot::B,
                left: 2,
            }),
        };
        for (names, said) in [
            // set_trial: before, under both names, after.
            (vec!["kakoi-1-a.conf", "kakoi-0-b.conf"], good_a),
            (
                vec!["kakoi-1-a.conf", "kakoi-0-b.conf", "kakoi-3-b+2.conf"],
                trial_b,
            ),
            (vec!["kakoi-1-a.conf", "kakoi-3-b+2.conf"], trial_b),
            // commit: b is good and stands above a; a has its old number still.
            (
                vec!["kakoi-1-a.conf", "kakoi-3-b+1-1.conf", "kakoi-4-b.conf"],
                Control {
                    good: Slot::B,
                    trial: None,
                },
            ),
            (
                vec!["kakoi-1-a.conf", "kakoi-4-b.conf"],
                Control {
                    good: Slot::B,
                    trial: None,
                },
            ),
        ] {
            let folder = folder(&names);
            assert_eq!(boot(&folder).read().expect("read"), said, "{names:?}");
            let first = start(&folder);
            assert_eq!(
                first,
                said.trial.map_or(said.good, |trial| trial.slot),
                "{names:?}"
            );
            boot(&folder).commit(first).expect("again");
            assert_eq!(start(&folder), first);
            boot(&folder).set_trial(first.other(), 1).expect("the other one");
            boot(&folder).commit(first.other()).expect("is good");
            assert_eq!(start(&folder), first.other());
            assert_eq!(listed(&folder).len(), 2, "old names are gone: {names:?}");
        }
    }

    #[test]
    fn what_says_no_state_is_refused() {
        for names in [
            vec![],
            vec!["kakoi-1-a.conf"],
            vec!["kakoi-1-a.conf", "kakoi-1-b.conf"],
            vec!["kakoi-1-a+1.conf", "kakoi-2-b+1.conf"],
            vec!["kakoi-1-a.conf", "kakoi-x-b.conf"],
            vec!["kakoi-1-a.conf", "kakoi-2-c.conf"],
            vec!["kakoi-1-a.conf", "kakoi-2-b+x.conf"],
            vec!["kakoi-1-a.conf", "kakoi-2-b.efi"],
        ] {
            let folder = folder(&names);
            assert!(boot(&folder).read().is_err(), "{names:?}");
            assert!(boot(&folder).set_trial(Slot::B, 1).is_err(), "{names:?}");
            assert_eq!(listed(&folder).len(), names.len(), "nothing was changed");
        }
    }
}
