//! From files to what this program is asked to do.
//!
//! Owns names, references between files, and the checks of values. Refuses to know systemd's units. Pure, except that a relative path is made
//! absolute. Invariant: a value is checked by the flag that it becomes, so that both refuse the same.

use std::path::{Component, Path, PathBuf};

use super::file::Entry;
use super::keys::{self, Means};
use super::{Kind, Source, Wrong, words};
use crate::commands::network;
use crate::create::check_flags;

/// The sections that are systemd's.
pub(super) const SYSTEMD: [&str; 3] = ["Unit", "Service", "Install"];

/// What a file comes to.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The file.
    pub path: PathBuf,
    /// What it describes.
    pub kind: Kind,
    /// Name of the service, with its ending.
    pub service: String,
    /// Name of the container, network or volume; the image.
    pub resource: String,
    /// Flags of `run`, `network create`, `volume create` or `pull`, each with its value.
    pub flags: Vec<String>,
    /// What follows them: the image and its arguments, or the name.
    pub tail: Vec<String>,
    /// Services that come first.
    pub needs: Vec<String>,
    /// Paths of the host that are mounted.
    pub mounts: Vec<String>,
    /// How the app reads its settings anew.
    pub reload: Option<Vec<String>>,
    /// Whether the network goes when the service stops.
    pub is_removed_at_stop: bool,
    /// Whether the service waits for the network of the host.
    pub has_default_dependencies: bool,
    /// The entries of systemd's sections.
    pub passed: Vec<(String, Entry)>,
}

impl Unit {
    /// The values of one of systemd's keys.
    pub fn passed<'u>(&'u self, section: &'u str, key: &'u str) -> impl Iterator<Item = &'u str> {
        self.passed
            .iter()
            .filter(move |(name, entry)| name == section && entry.key == key)
            .map(|(_, entry)| entry.value.as_str())
    }
}

/// An entry and its file.
pub(super) type Located<'s> = (&'s Path, &'s Entry);

/// Translates all files; what is wrong with one keeps no other from being translated.
pub fn translate(sources: &[Source]) -> (Vec<Unit>, Vec<Wrong>) {
    let names: Vec<Named> = sources.iter().map(Named::of).collect();
    let (mut units, mut wrong) = (Vec::<Unit>::new(), Vec::new());
    for (source, named) in sources.iter().zip(&names) {
        let mut maker = Maker::new(source, named, &names);
        maker.sections();
        maker.own();
        maker.finish();
        if !maker.wrong.is_empty() {
            wrong.append(&mut maker.wrong);
            continue;
        }
        if let Some(other) = units.iter().find(|unit| unit.service == maker.unit.service) {
            let words = format!(
                "its service is {}, as is that of {}: name one with ServiceName=",
                other.service,
                other.path.display()
            );
            wrong.push(Wrong::new(&source.path, 0, words));
            continue;
        }
        units.push(maker.unit);
    }
    (units, wrong)
}

/// What others call a file's container, network, volume or image.
struct Named {
    file: String,
    resource: String,
    service: String,
}

impl Named {
    fn of(source: &Source) -> Self {
        let (name_key, suffix) = match source.kind {
            Kind::Container => ("ContainerName", ""),
            Kind::Network => ("NetworkName", "-network"),
            Kind::Volume => ("VolumeName", "-volume"),
            Kind::Image => ("Image", "-image"),
        };
        let last = |key: &str| {
            let entries = own_entries(source);
            let found = entries.into_iter().rfind(|(_, entry)| entry.key == key);
            found
                .map(|(_, entry)| entry.value.clone())
                .filter(|value| !value.is_empty())
        };
        let service = last("ServiceName").unwrap_or_else(|| format!("{}{suffix}", source.stem));
        Self {
            file: source.name(),
            resource: last(name_key).unwrap_or_else(|| format!("systemd-{}", source.stem)),
            service: format!("{service}.service"),
        }
    }
}

/// The entries of a file's own section.
pub(super) fn own_entries(source: &Source) -> Vec<Located<'_>> {
    let own = source
        .sections
        .iter()
        .filter(|(_, section)| section.name == source.kind.section());
    own.flat_map(|(path, section)| section.entries.iter().map(move |entry| (path.as_path(), entry)))
        .collect()
}

/// True and false as systemd reads them.
fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

/// A file on its way to a unit.
pub(super) struct Maker<'s> {
    pub(super) source: &'s Source,
    names: &'s [Named],
    pub(super) unit: Unit,
    /// Flags whose values are known already, with their places: not those that systemd expands, or that name files.
    known: Vec<(String, Located<'s>)>,
    pub(super) wrong: Vec<Wrong>,
}

impl<'s> Maker<'s> {
    fn new(source: &'s Source, named: &Named, names: &'s [Named]) -> Self {
        Self {
            source,
            names,
            unit: Unit {
                path: source.path.clone(),
                kind: source.kind,
                service: named.service.clone(),
                resource: named.resource.clone(),
                flags: Vec::new(),
                tail: Vec::new(),
                needs: Vec::new(),
                mounts: Vec::new(),
                reload: None,
                is_removed_at_stop: false,
                has_default_dependencies: true,
                passed: Vec::new(),
            },
            known: Vec::new(),
            wrong: Vec::new(),
        }
    }

    pub(super) fn refuse(&mut self, (path, entry): Located, words: impl std::fmt::Display) {
        let words = format!("{}={}: {words}", entry.key, entry.value);
        self.wrong.push(Wrong::new(path, entry.line, words));
    }

    /// What stands beside the file's own section.
    fn sections(&mut self) {
        let own = self.source.kind.section();
        let source = self.source;
        for (path, section) in &source.sections {
            match section.name.as_str() {
                name if name == own || name.starts_with("X-") => {}
                "Quadlet" => {
                    for entry in &section.entries {
                        match (entry.key.as_str(), truth(&entry.value)) {
                            ("DefaultDependencies", Some(is_wanted)) => {
                                self.unit.has_default_dependencies = is_wanted;
                            }
                            ("DefaultDependencies", None) => {
                                self.refuse((path, entry), "write true or false")
                            }
                            _ => self.refuse((path, entry), "[Quadlet] has no such key"),
                        }
                    }
                }
                name if SYSTEMD.contains(&name) => {
                    for entry in &section.entries {
                        self.pass(name, (path, entry));
                    }
                }
                name => {
                    let words = format!("there is no section [{name}] in a .{} file", source.kind.word());
                    self.wrong.push(Wrong::new(path, section.line, words));
                }
            }
        }
    }

    fn pass(&mut self, section: &str, located: Located) {
        let (_, entry) = located;
        match (section, entry.key.as_str()) {
            ("Service", "ExecStart") => {
                return self.refuse(located, "the start is made of the file's own section");
            }
            ("Service", "Type") if !matches!(entry.value.as_str(), "exec" | "simple" | "oneshot") => {
                return self.refuse(
                    located,
                    "an app cannot tell systemd that it is ready: use exec or oneshot",
                );
            }
            ("Install", "Also" | "DefaultInstance") => {
                return self.refuse(
                    located,
                    "it is not supported: services are made anew at each boot",
                );
            }
            _ => {}
        }
        // Other files may be named in place of their services.
        let mut entry = entry.clone();
        if section == "Unit" {
            let service = |word: &str| {
                let named = self.names.iter().find(|named| named.file == word);
                named.map_or_else(|| word.to_owned(), |named| named.service.clone())
            };
            let words: Vec<String> = entry.value.split_whitespace().map(service).collect();
            if !words
                .iter()
                .map(String::as_str)
                .eq(entry.value.split_whitespace())
            {
                entry.value = words.join(" ");
            }
        }
        self.unit.passed.push((section.to_owned(), entry));
    }

    /// The file's own section, key by key in the order in which they appear first.
    fn own(&mut self) {
        let entries = own_entries(self.source);
        let has_section = self
            .source
            .sections
            .iter()
            .any(|(_, section)| section.name == self.source.kind.section());
        if !has_section {
            let words = format!("[{}] is missing", self.source.kind.section());
            self.wrong.push(Wrong::new(&self.source.path, 0, words));
            return;
        }
        let mut done: Vec<&str> = Vec::new();
        for located in &entries {
            let key = located.1.key.as_str();
            if done.contains(&key) {
                continue;
            }
            done.push(key);
            let all: Vec<Located> = entries
                .iter()
                .copied()
                .filter(|(_, entry)| entry.key == key)
                .collect();
            // An empty value takes back what stands before it.
            let from = all.iter().rposition(|(_, entry)| entry.value.is_empty());
            let values = &all[from.map_or(0, |at| at + 1)..];
            let known = keys::keys(self.source.kind).iter().find(|(name, _)| *name == key);
            match known {
                Some((_, means)) => self.key(*means, values),
                None => {
                    let hint = keys::nearest(self.source.kind, key)
                        .map(|near| format!(": did you mean {near}=?"))
                        .unwrap_or_default();
                    let words = format!("[{}] has no key {key}={hint}", self.source.kind.section());
                    self.wrong.push(Wrong::new(located.0, located.1.line, words));
                }
            }
        }
    }

    fn key(&mut self, means: Means, values: &[Located<'s>]) {
        let Some(last) = values.last().copied() else {
            return;
        };
        match means {
            Means::Last(flag) => self.flag(flag, &last.1.value, last),
            Means::Each(flag) => {
                for value in values {
                    self.flag(flag, &value.1.value, *value);
                }
            }
            Means::Words(flag) => {
                for value in values {
                    for word in self.words(*value) {
                        self.flag(flag, &word, *value);
                    }
                }
            }
            Means::Switch(flag) => {
                if self.truth(last) == Some(true) {
                    self.push(flag.to_owned(), true, last);
                }
            }
            Means::Refused(words) => self.refuse(values[0], words),
            Means::Own => match self.source.kind {
                Kind::Container => self.container_key(values, last),
                Kind::Network => self.network_key(values, last),
                Kind::Volume => self.volume_key(last),
                Kind::Image => self.image_key(last),
            },
        }
    }

    pub(super) fn words(&mut self, located: Located<'s>) -> Vec<String> {
        words::split(&located.1.value).unwrap_or_else(|words| {
            self.refuse(located, words);
            Vec::new()
        })
    }

    pub(super) fn truth(&mut self, located: Located<'s>) -> Option<bool> {
        let found = truth(&located.1.value);
        if found.is_none() {
            self.refuse(located, "write true or false");
        }
        found
    }

    /// Adds a flag with its value, and checks it where systemd puts nothing in its place.
    pub(super) fn flag(&mut self, flag: &str, value: &str, located: Located<'s>) {
        let is_known = !value.contains(['%', '$']);
        self.push(format!("{flag}={value}"), is_known, located);
    }

    /// Adds a flag whose value names a file, which may come into being later.
    pub(super) fn file_flag(&mut self, flag: &str, value: &str, located: Located<'s>) {
        self.push(format!("{flag}={value}"), false, located);
    }

    fn push(&mut self, flag: String, is_known: bool, located: Located<'s>) {
        if is_known {
            self.known.push((flag.clone(), located));
        }
        self.unit.flags.push(flag);
    }

    /// Judges flags as the command that takes them does.
    fn check(&self, flags: &[String]) -> Result<(), String> {
        match self.source.kind {
            Kind::Container => check_flags(flags),
            Kind::Network => network::check_flags(flags),
            Kind::Volume | Kind::Image => Ok(()),
        }
    }

    /// The name and the service behind a reference to another file; the service comes first.
    pub(super) fn refer(&mut self, file: &str, located: Located<'s>) -> Option<String> {
        let Some(named) = self.names.iter().find(|named| named.file == file) else {
            self.refuse(located, format!("there is no file {file}"));
            return None;
        };
        if !self.unit.needs.contains(&named.service) {
            self.unit.needs.push(named.service.clone());
        }
        Some(named.resource.clone())
    }

    /// A path, from the folder of the file that names it.
    pub(super) fn absolute(path: &str, located: Located) -> String {
        if path.starts_with(['/', '%']) {
            return path.to_owned();
        }
        let folder = located.0.parent().unwrap_or_else(|| Path::new("/"));
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let mut clean = PathBuf::new();
        for component in folder.join(path).components() {
            match component {
                Component::CurDir => {}
                Component::ParentDir => {
                    clean.pop();
                }
                other => clean.push(other),
            }
        }
        clean.display().to_string()
    }

    fn network_key(&mut self, values: &[Located<'s>], last: Located<'s>) {
        match last.1.key.as_str() {
            "DisableDNS" if self.truth(last) == Some(true) => self.refuse(
                last,
                "it is not supported: a container that is to ask other servers says so with DNS=",
            ),
            "NetworkDeleteOnStop" => self.unit.is_removed_at_stop = self.truth(last).unwrap_or(false),
            "Options" => {
                for value in values {
                    for option in value.1.value.split(',') {
                        self.flag("--opt", option.trim(), *value);
                    }
                }
            }
            // The names are known already.
            _ => {}
        }
    }

    fn volume_key(&mut self, last: Located<'s>) {
        if last.1.key == "Copy" && self.truth(last) == Some(false) {
            self.refuse(
                last,
                "it is not supported: say nocopy where the volume is mounted",
            );
        }
    }

    fn image_key(&mut self, last: Located<'s>) {
        let platform = |source: &Source| {
            let own = own_entries(source);
            let one = |key: &str| {
                let found = own.iter().rfind(|(_, entry)| entry.key == key);
                found
                    .map(|(_, entry)| entry.value.clone())
                    .filter(|value| !value.is_empty())
            };
            let arch = one("Arch")?;
            let system = one("OS").unwrap_or_else(|| "linux".to_owned());
            let variant = one("Variant").map(|variant| format!("/{variant}"));
            Some(format!("{system}/{arch}{}", variant.unwrap_or_default()))
        };
        match last.1.key.as_str() {
            "Arch" => {
                if let Some(platform) = platform(self.source) {
                    self.flag("--platform", &platform, last);
                }
            }
            "OS" | "Variant" if platform(self.source).is_none() => {
                self.refuse(last, "it needs Arch= beside it")
            }
            _ => {}
        }
    }

    /// What holds for the file as a whole.
    fn finish(&mut self) {
        let is_named = |maker: &Self, key: &str| {
            own_entries(maker.source)
                .iter()
                .any(|(_, entry)| entry.key == key)
        };
        match self.source.kind {
            Kind::Container => self.container_end(),
            Kind::Network | Kind::Volume => self.unit.tail = vec![self.unit.resource.clone()],
            Kind::Image if is_named(self, "Image") => self.unit.tail = vec![self.unit.resource.clone()],
            Kind::Image if self.wrong.is_empty() => {
                self.wrong
                    .push(Wrong::new(&self.source.path, 0, "[Image] needs Image="));
            }
            Kind::Image => {}
        }
        if self.wrong.is_empty() {
            self.check_all();
        }
    }

    /// Judges all flags together, since some need others; who is to blame is the one without which the complaint is another.
    fn check_all(&mut self) {
        let mut known = std::mem::take(&mut self.known);
        let line = |known: &[(String, Located)]| -> Vec<String> {
            known.iter().map(|(flag, _)| flag.clone()).collect()
        };
        while let Err(words) = self.check(&line(&known)) {
            let culprit = (0..known.len()).find(|at| {
                let mut rest = known.clone();
                rest.remove(*at);
                self.check(&line(&rest)).err().as_ref() != Some(&words)
            });
            match culprit {
                Some(at) => {
                    let (_, located) = known.remove(at);
                    self.refuse(located, words);
                }
                None => return self.wrong.push(Wrong::new(&self.source.path, 0, words)),
            }
        }
    }
}
