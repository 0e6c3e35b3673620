//! Quadlet: apps as files in the style of systemd's units, in Podman's words.
//!
//! Owns reading the files, translating each to commands of this program, and the units that run those. Refuses to run anything itself. Invariants: an
//! unknown or unsupported key is an error that names file and line, never passed over; a value that a flag would refuse is refused here. Source:
//! podman-systemd.unit(5).

mod container;
mod file;
mod keys;
mod service;
mod translate;
mod words;

use std::fmt;
use std::path::{Path, PathBuf};

use file::Section;

use crate::bounded::{self, ReadError};

pub use service::{Made, services};
pub use translate::{Unit, translate};

/// Where Quadlet files lie: of this boot, the owner's, the distribution's. The first of a name counts.
pub const FOLDERS: [&str; 3] = [
    "/run/containers/systemd",
    "/etc/containers/systemd",
    "/usr/share/containers/systemd",
];

/// The largest file: the longest that people publish have some kilobytes.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// Files that are read: each is a unit, and systemd grows slow with thousands.
const FILES_MAX: usize = 1024;
/// Folders within folders.
const DEPTH_MAX: usize = 8;

/// What a file describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `.container`
    Container,
    /// `.network`
    Network,
    /// `.volume`
    Volume,
    /// `.image`
    Image,
}

impl Kind {
    const ALL: [(&'static str, &'static str, Self); 4] = [
        ("container", "Container", Self::Container),
        ("network", "Network", Self::Network),
        ("volume", "Volume", Self::Volume),
        ("image", "Image", Self::Image),
    ];

    fn row(self) -> (&'static str, &'static str) {
        let [container, network, volume, image] = Self::ALL;
        let (ending, section, _) = match self {
            Self::Container => container,
            Self::Network => network,
            Self::Volume => volume,
            Self::Image => image,
        };
        (ending, section)
    }

    /// How its files end, and what it is called.
    pub fn word(self) -> &'static str {
        self.row().0
    }

    /// Its own section.
    pub fn section(self) -> &'static str {
        self.row().1
    }
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    path: PathBuf,
    /// 0 where it is the file as a whole.
    line: usize,
    words: String,
}

impl Wrong {
    fn new(path: &Path, line: usize, words: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            words: words.into(),
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(formatter, "{}: {}", self.path.display(), self.words),
            line => write!(formatter, "{}:{line}: {}", self.path.display(), self.words),
        }
    }
}

/// A file, read.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// Its name without the ending.
    pub stem: String,
    /// What it describes.
    pub kind: Kind,
    /// Its sections, and those of the files that amend it (`web.container.d/*.conf`); each with the file it comes from.
    sections: Vec<(PathBuf, Section)>,
}

impl Source {
    /// The file's name.
    pub fn name(&self) -> String {
        format!("{}.{}", self.stem, self.kind.word())
    }

    /// Reads a text as if it were the file.
    #[cfg(test)]
    fn of_text(path: &str, text: &str) -> Self {
        let path = Path::new(path);
        let (stem, kind) = named(path).expect("a known ending").expect("supported");
        let sections = file::parse(text).expect("well-formed");
        Self {
            path: path.to_owned(),
            stem,
            kind,
            sections: sections
                .into_iter()
                .map(|section| (path.to_owned(), section))
                .collect(),
        }
    }
}

/// What a file's name says: nothing where it is none of Quadlet's.
fn named(path: &Path) -> Option<Result<(String, Kind), &'static str>> {
    let name = path.file_name()?.to_str()?;
    let (stem, ending) = name.rsplit_once('.')?;
    if stem.is_empty() || stem.starts_with('.') {
        return None;
    }
    let known = Kind::ALL.iter().find(|(word, _, _)| *word == ending);
    match (known, ending) {
        (Some(_), _) if stem.contains('@') => {
            Some(Err("templates are not supported: write a file for each instance"))
        }
        (Some((_, _, kind)), _) => Some(Ok((stem.to_owned(), *kind))),
        (None, "kube") => Some(Err(
            "Kubernetes' files are not supported: write a .container file for each container",
        )),
        (None, "pod") => Some(Err(
            "pods are not supported: use Network=NAME.container to share a container's network",
        )),
        (None, "build") => Some(Err(
            "there is no builder on the device: build elsewhere, and push or 'kakoi load' the image",
        )),
        (None, "artifact") => Some(Err("artifacts are not supported")),
        _ => None,
    }
}

/// Reads files and all that folders hold; the first of a name counts. A folder that is not there holds nothing.
pub fn read(paths: &[PathBuf]) -> (Vec<Source>, Vec<Wrong>) {
    let (mut sources, mut wrong) = (Vec::<Source>::new(), Vec::new());
    let mut files = Vec::new();
    for path in paths {
        find(path, 0, &mut files, &mut wrong);
    }
    if files.len() > FILES_MAX {
        let words = format!("there are more than {FILES_MAX} files: the rest is not read");
        wrong.push(Wrong::new(&files[FILES_MAX], 0, words));
        files.truncate(FILES_MAX);
    }
    for path in files {
        let (stem, kind) = match named(&path) {
            Some(Ok(parts)) => parts,
            Some(Err(words)) => {
                wrong.push(Wrong::new(&path, 0, words));
                continue;
            }
            None => continue,
        };
        if sources
            .iter()
            .any(|known| known.stem == stem && known.kind == kind)
        {
            continue;
        }
        match sections(&path) {
            Ok(sections) => sources.push(Source {
                path,
                stem,
                kind,
                sections,
            }),
            Err(its) => wrong.push(its),
        }
    }
    (sources, wrong)
}

/// A file that was named is looked at whatever its ending.
fn find(path: &Path, depth: usize, files: &mut Vec<PathBuf>, wrong: &mut Vec<Wrong>) {
    if !path.is_dir() {
        if depth == 0 && named(path).is_none() {
            let words = "the ending is none of .container, .network, .volume and .image";
            wrong.push(Wrong::new(path, 0, words));
        } else if depth > 0 || path.exists() {
            files.push(path.to_owned());
        } else {
            wrong.push(Wrong::new(path, 0, "there is no such file"));
        }
        return;
    }
    if depth > DEPTH_MAX {
        wrong.push(Wrong::new(path, 0, "folders lie too deep in one another"));
        return;
    }
    let listed = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match listed {
        Ok(mut entries) => {
            entries.sort_by_key(std::fs::DirEntry::file_name);
            for entry in entries {
                let path = entry.path();
                // Amendments are read with what they amend.
                let is_amending = path.is_dir() && path.extension().is_some_and(|ending| ending == "d");
                if !is_amending {
                    find(&path, depth + 1, files, wrong);
                }
            }
        }
        Err(cause) => wrong.push(Wrong::new(path, 0, format!("it cannot be listed: {cause}"))),
    }
}

/// The sections of a file and of those that amend it, in the order of their names.
fn sections(path: &Path) -> Result<Vec<(PathBuf, Section)>, Wrong> {
    let mut paths = vec![path.to_owned()];
    let mut folder = path.as_os_str().to_owned();
    folder.push(".d");
    if let Ok(entries) = std::fs::read_dir(&folder) {
        let mut more: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "conf"))
            .collect();
        more.sort();
        paths.append(&mut more);
    }
    let mut all = Vec::new();
    for path in paths {
        let text = bounded::read_text(&path, FILE_BYTES_MAX).map_err(|error| {
            let words = match error {
                ReadError::Read { cause, .. } => format!("it cannot be read: {cause}"),
                other => other.to_string(),
            };
            Wrong::new(&path, 0, words)
        })?;
        let sections = file::parse(&text).map_err(|(line, words)| Wrong::new(&path, line, words))?;
        all.extend(sections.into_iter().map(|section| (path.clone(), section)));
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
