//! Where the host mounts its control group hierarchies.
//!
//! Owns reading `/proc/self/mountinfo`. Pure but for that one read. Source: proc(5), cgroups(7).

use std::collections::BTreeSet;
use std::path::PathBuf;

use kakoi_policy::kernel::CgroupMode;

use super::{CgroupError, Folder};

/// The mounted hierarchies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchies {
    /// How they are mounted.
    pub mode: CgroupMode,
    /// Version 1 hierarchies: their controllers and mount points.
    v1: Vec<(BTreeSet<String>, PathBuf)>,
    /// The unified hierarchy's mount point.
    v2: Option<PathBuf>,
}

impl Hierarchies {
    /// Reads the host's mount table.
    pub fn of_host() -> Result<Self, CgroupError> {
        let table = std::fs::read_to_string("/proc/self/mountinfo").map_err(CgroupError::MountTable)?;
        Self::parse(&table)
    }

    /// Takes the lines of a mount table.
    pub fn parse(table: &str) -> Result<Self, CgroupError> {
        let mut found = Self {
            mode: CgroupMode::V2,
            v1: vec![],
            v2: None,
        };
        for line in table.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let Some(point) = left.split(' ').nth(4).map(unescape) else {
                continue;
            };
            let mut right = right.split(' ');
            match (right.next(), right.nth(1)) {
                (Some("cgroup"), Some(options)) => found.add_v1(options, point),
                // The first mount wins: later ones may be a container's view.
                (Some("cgroup2"), _) => found.v2 = found.v2.or(Some(point)),
                _ => {}
            }
        }
        found.mode = match (found.v1.is_empty(), &found.v2) {
            (true, None) => return Err(CgroupError::NoHierarchy),
            (true, Some(_)) => CgroupMode::V2,
            (false, None) => CgroupMode::V1,
            (false, Some(_)) => CgroupMode::Hybrid,
        };
        Ok(found)
    }

    fn add_v1(&mut self, options: &str, point: PathBuf) {
        // Super options mix flags with controllers; a flag that names no control file is harmless as a name.
        let names: BTreeSet<String> = options
            .split(',')
            .filter(|word| {
                !matches!(
                    *word,
                    "rw" | "ro" | "xattr" | "none" | "noprefix" | "clone_children"
                )
            })
            .filter(|word| !word.starts_with("release_agent="))
            .map(str::to_owned)
            .collect();
        if !self.v1.iter().any(|(known, _)| *known == names) {
            self.v1.push((names, point));
        }
    }

    /// The folders of one group, in every hierarchy that carries limits or membership.
    pub(super) fn folders(&self, relative: &str) -> Vec<Folder> {
        let unified = self.v2.iter().map(|point| (BTreeSet::new(), point.clone()));
        let all: Vec<_> = match self.mode {
            CgroupMode::V2 => unified.collect(),
            // In hybrid mode version 1 carries everything; the unified folder exists only if somebody made it.
            CgroupMode::V1 | CgroupMode::Hybrid => self.v1.iter().cloned().chain(unified).collect(),
        };
        all.into_iter()
            .map(|(controllers, point)| Folder {
                controllers,
                path: point.join(relative),
            })
            .collect()
    }

    /// The folder of a process's own group, by its `/proc/<pid>/cgroup`, in the hierarchy that decides where processes are.
    pub(super) fn own_group(&self, table: &str) -> Option<PathBuf> {
        table.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (names, path) = (fields.next()?, fields.next()?);
            let point = match self.mode {
                CgroupMode::V2 => self.v2.as_ref().filter(|_| names.is_empty()),
                CgroupMode::V1 | CgroupMode::Hybrid => {
                    let names: BTreeSet<_> = names.split(',').map(str::to_owned).collect();
                    let carried = self.v1.iter().find(|(known, _)| *known == names);
                    carried.map(|(_, point)| point)
                }
            };
            Some(point?.join(path.trim_start_matches('/')))
        })
    }
}

/// Undoes the table's octal escapes of space, tab, newline and backslash.
pub(crate) fn unescape(field: &str) -> PathBuf {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    PathBuf::from(
        escapes
            .iter()
            .fold(field.to_owned(), |text, (from, to)| text.replace(from, to)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "30 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n\
         31 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    const V2: &str = "40 24 0:40 / /sys/fs/cg\\040roup rw - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_mode_follows_from_what_is_mounted() {
        assert_eq!(Hierarchies::parse(V1).expect("v1").mode, CgroupMode::V1);
        assert_eq!(Hierarchies::parse(V2).expect("v2").mode, CgroupMode::V2);
        assert_eq!(
            Hierarchies::parse(&format!("{V1}{V2}")).expect("both").mode,
            CgroupMode::Hybrid
        );
        assert!(matches!(
            Hierarchies::parse("1 2 0:3 / / rw - ext4 /dev/vda rw\n"),
            Err(CgroupError::NoHierarchy)
        ));
        assert!(matches!(
            Hierarchies::parse("nonsense"),
            Err(CgroupError::NoHierarchy)
        ));
    }

    #[test]
    fn the_own_group_is_found_where_processes_are_counted() {
        let table = "9:name=systemd:/user\n4:memory:/a/b\n1:cpu,cpuacct:/\n0::/x\n";
        let v1 = Hierarchies::parse(V1).expect("v1");
        assert_eq!(v1.own_group(table), Some("/sys/fs/cgroup/memory/a/b".into()));
        let v2 = Hierarchies::parse(V2).expect("v2");
        assert_eq!(v2.own_group(table), Some("/sys/fs/cg roup/x".into()));
        assert_eq!(v2.own_group("4:memory:/a\n"), None);
        assert_eq!(v1.own_group("4:pids:/a\n0::/x\nnonsense\n"), None);
    }

    #[test]
    fn folders_lie_below_each_mount_point() {
        let folders = Hierarchies::parse(V1).expect("v1").folders("kakoi/x");
        assert_eq!(
            folders[0].path,
            PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/kakoi/x")
        );
        assert!(folders[0].controllers.contains("cpuacct") && !folders[0].controllers.contains("rw"));
        let unified = Hierarchies::parse(V2).expect("v2").folders("kakoi/x");
        assert_eq!(unified[0].path, PathBuf::from("/sys/fs/cg roup/kakoi/x"));
    }
}
