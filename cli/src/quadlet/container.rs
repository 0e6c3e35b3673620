//! The keys of `[Container]` that are more than a flag.
//!
//! Owns their meaning. Pure, as all of the translation.

use super::Wrong;
use super::translate::{Located, Maker, own_entries};

/// The policy of containers whose labels name none: what Podman's users expect of an image that says nothing of policies.
const POLICY: &str = "docker-default";
/// The label that names another.
const POLICY_LABEL: &str = "io.kakoi.policy=";
/// Where Podman mounts memory over a read-only root.
const MEMORY: [&str; 3] = ["/run", "/tmp", "/var/tmp"];

impl<'s> Maker<'s> {
    pub(super) fn container_key(&mut self, values: &[Located<'s>], last: Located<'s>) {
        let value = last.1.value.as_str();
        match last.1.key.as_str() {
            "AddDevice" => {
                for located in values {
                    self.device(*located);
                }
            }
            "EnvironmentFile" => {
                for located in values {
                    match located.1.value.starts_with('-') {
                        true => self.refuse(
                            *located,
                            "a file that may be missing is not supported: drop the -",
                        ),
                        false => {
                            let path = Self::absolute(&located.1.value, *located);
                            self.file_flag("--env-file", &path, *located);
                        }
                    }
                }
            }
            "HealthOnFailure" if value != "none" => self.refuse(
                last,
                "it is not supported: an app that is not well runs on; 'kakoi events' and the log tell",
            ),
            "LogDriver" => match value {
                // What the app prints is in the journal already: it goes through the service.
                "journald" | "passthrough" => self.flag("--log-driver", "none", last),
                "k8s-file" => self.flag("--log-driver", "json-file", last),
                _ => self.flag("--log-driver", value, last),
            },
            "Mount" => {
                for located in values {
                    self.mount(*located);
                }
            }
            "Network" => {
                for located in values {
                    self.network(*located);
                }
            }
            "NoNewPrivileges" if self.truth(last) == Some(true) => {
                self.flag("--security-opt", "no-new-privileges", last);
            }
            "Notify" if value != "false" => self.refuse(
                last,
                "an app cannot tell systemd that it is ready: let others wait for its health",
            ),
            "SeccompProfile" if value == "unconfined" => {
                self.flag("--security-opt", "seccomp=unconfined", last)
            }
            "SeccompProfile" => {
                let path = Self::absolute(value, last);
                self.file_flag("--security-opt", &format!("seccomp={path}"), last);
            }
            "Unmask" if value.eq_ignore_ascii_case("all") => self.flag("--security-opt", "unmask=ALL", last),
            "Unmask" => self.refuse(last, "only ALL is supported: the policy hides single paths"),
            "Volume" => {
                for located in values {
                    self.volume(*located);
                }
            }
            // Settled together at the end.
            _ => {}
        }
    }

    fn device(&mut self, located: Located<'s>) {
        if located.1.value.starts_with('-') {
            return self.refuse(
                located,
                "a device that may be missing is not supported: drop the -",
            );
        }
        for word in self.words(located) {
            self.flag("--device", &word, located);
        }
    }

    fn network(&mut self, located: Located<'s>) {
        let (name, rest) = match located.1.value.split_once(':') {
            Some((name, rest)) => (name, format!(":{rest}")),
            None => (located.1.value.as_str(), String::new()),
        };
        if name.ends_with(".network") {
            if let Some(name) = self.refer(name, located) {
                self.flag("--network", &format!("{name}{rest}"), located);
            }
        } else if name.ends_with(".container") && rest.is_empty() {
            if let Some(name) = self.refer(name, located) {
                self.flag("--network", &format!("container:{name}"), located);
            }
        } else {
            self.flag("--network", &located.1.value, located);
        }
    }

    fn volume(&mut self, located: Located<'s>) {
        let value = located.1.value.as_str();
        let Some((source, rest)) = value.split_once(':') else {
            return self.flag("--volume", value, located);
        };
        if let Some(source) = self.mounted(source, located) {
            self.flag("--volume", &format!("{source}:{rest}"), located);
        }
    }

    fn mount(&mut self, located: Located<'s>) {
        let mut fields = Vec::new();
        for field in located.1.value.split(',') {
            match field.split_once('=') {
                Some((key @ ("source" | "src"), source)) => match self.mounted(source, located) {
                    Some(source) => fields.push(format!("{key}={source}")),
                    None => return,
                },
                _ => fields.push(field.to_owned()),
            }
        }
        self.flag("--mount", &fields.join(","), located);
    }

    /// A source of a mount: a `.volume` file's name, a path made absolute, or what it is.
    fn mounted(&mut self, source: &str, located: Located<'s>) -> Option<String> {
        if source.ends_with(".volume") && !source.contains('/') {
            return self.refer(source, located);
        }
        if !source.starts_with(['.', '/']) {
            return Some(source.to_owned());
        }
        let path = Self::absolute(source, located);
        if !path.contains(['%', '$']) && !self.unit.mounts.contains(&path) {
            self.unit.mounts.push(path.clone());
        }
        Some(path)
    }

    /// What depends on several keys.
    pub(super) fn container_end(&mut self) {
        let entries = own_entries(self.source);
        let last = |key: &str| {
            let found = entries.iter().copied().rfind(|(_, entry)| entry.key == key);
            found.filter(|(_, entry)| !entry.value.is_empty())
        };
        match (last("User"), last("Group")) {
            (Some(user), Some(group)) => {
                self.flag("--user", &format!("{}:{}", user.1.value, group.1.value), user);
            }
            (Some(user), None) => self.flag("--user", &user.1.value, user),
            (None, Some(group)) => self.refuse(group, "it needs User= beside it"),
            (None, None) => {}
        }
        let is_read_only = last("ReadOnly").is_some_and(|located| self.truth(located) == Some(true));
        let has_memory = last("ReadOnlyTmpfs").is_none_or(|located| self.truth(located) == Some(true));
        if let Some(located) = last("ReadOnly").filter(|_| is_read_only) {
            self.unit.flags.push("--read-only".to_owned());
            for place in MEMORY.into_iter().filter(|_| has_memory) {
                let is_mounted = |flag: &String| {
                    flag.split_once('=')
                        .is_some_and(|(_, value)| value.split([':', ',', '=']).any(|part| part == place))
                };
                if !self.unit.flags.iter().any(is_mounted) {
                    self.flag("--tmpfs", place, located);
                }
            }
        }
        if !self
            .unit
            .flags
            .iter()
            .any(|flag| flag.starts_with(&format!("--label={POLICY_LABEL}")))
        {
            self.unit.flags.push(format!("--policy={POLICY}"));
        }
        let name = self.unit.resource.clone();
        match (last("ReloadCmd"), last("ReloadSignal")) {
            (Some(one), Some(_)) => self.refuse(one, "ReloadCmd= and ReloadSignal= cannot be used together"),
            (Some(command), None) => {
                let mut line = vec!["exec".to_owned(), name];
                line.extend(self.words(command));
                self.unit.reload = Some(line);
            }
            (None, Some(signal)) => {
                self.unit.reload = Some(vec![
                    "kill".to_owned(),
                    format!("--signal={}", signal.1.value),
                    name,
                ]);
            }
            (None, None) => {}
        }
        self.image(last("Image"));
        if let Some(command) = last("Exec") {
            let words = self.words(command);
            self.unit.tail.extend(words);
        }
    }

    fn image(&mut self, located: Option<Located<'s>>) {
        let Some(located) = located else {
            if self.wrong.is_empty() {
                self.wrong
                    .push(Wrong::new(&self.source.path, 0, "[Container] needs Image="));
            }
            return;
        };
        let name = located.1.value.as_str();
        if name.ends_with(".image") {
            let image = self.refer(name, located);
            self.unit.tail.extend(image);
        } else if name.ends_with(".build") {
            self.refuse(
                located,
                "there is no builder on the device: build elsewhere, and push or 'kakoi load' the image",
            );
        } else if name.starts_with('-') || name.contains(char::is_whitespace) {
            self.refuse(located, "this is not the name of an image");
        } else {
            self.unit.tail.push(name.to_owned());
        }
    }
}
