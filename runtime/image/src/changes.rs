//! Changes to a configuration in a Dockerfile's words (`--change 'CMD ["sh"]'`).
//!
//! Owns the small part of that grammar that needs no build. Pure. Refuses the rest (`RUN`, `COPY` …) by name.

use crate::config::{Empty, Healthcheck, ImageConfig};

/// Why a change is refused.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// An instruction that changes files, or none at all.
    #[error("{instruction} is not a valid change command")]
    Instruction {
        /// The first word, shortened.
        instruction: String,
    },
    /// An instruction with the wrong words after it.
    #[error("invalid change {instruction}: {expected}")]
    Arguments {
        /// The instruction.
        instruction: &'static str,
        /// What would be right.
        expected: &'static str,
    },
}

/// Applies one change.
pub fn apply_change(config: &mut ImageConfig, change: &str) -> Result<(), ChangeError> {
    let change = change.trim();
    let (instruction, rest) = change.split_once(char::is_whitespace).unwrap_or((change, ""));
    let rest = rest.trim();
    match instruction.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = Some(command(rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(rest)),
        "ENV" => {
            for (name, value) in pairs(rest).ok_or(wrong("ENV", "NAME=value"))? {
                let prefix = format!("{name}=");
                config.env.retain(|known| !known.starts_with(&prefix));
                config.env.push(format!("{name}={value}"));
            }
        }
        "LABEL" => config
            .labels
            .extend(pairs(rest).ok_or(wrong("LABEL", "NAME=value"))?),
        "EXPOSE" => {
            for port in nonempty(rest, "EXPOSE", "PORT[/tcp|udp|sctp] …")?.split_whitespace() {
                config.exposed_ports.insert(exposed(port)?, Empty {});
            }
        }
        "VOLUME" => {
            for path in command_or_words(nonempty(rest, "VOLUME", "PATH …")?) {
                config.volumes.insert(path, Empty {});
            }
        }
        "WORKDIR" => {
            let path = nonempty(rest, "WORKDIR", "PATH")?;
            config.working_dir = match path.starts_with('/') {
                true => path.to_owned(),
                false => format!("{}/{path}", config.working_dir.trim_end_matches('/')),
            };
        }
        "USER" => config.user = nonempty(rest, "USER", "USER[:GROUP]")?.to_owned(),
        "STOPSIGNAL" => config.stop_signal = nonempty(rest, "STOPSIGNAL", "SIGNAL")?.to_owned(),
        "ONBUILD" => config
            .on_build
            .push(nonempty(rest, "ONBUILD", "INSTRUCTION")?.to_owned()),
        "SHELL" => config.shell = json_words(rest).ok_or(wrong("SHELL", "[\"program\", \"argument\"]"))?,
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        _ => {
            return Err(ChangeError::Instruction {
                instruction: instruction.chars().take(50).collect(),
            });
        }
    }
    Ok(())
}

fn wrong(instruction: &'static str, expected: &'static str) -> ChangeError {
    ChangeError::Arguments {
        instruction,
        expected,
    }
}

fn nonempty<'a>(
    rest: &'a str,
    instruction: &'static str,
    expected: &'static str,
) -> Result<&'a str, ChangeError> {
    if rest.is_empty() {
        Err(wrong(instruction, expected))
    } else {
        Ok(rest)
    }
}

/// A list in JSON, or a line for the shell.
fn command(rest: &str) -> Vec<String> {
    match json_words(rest) {
        Some(words) => words,
        None if rest.is_empty() => Vec::new(),
        None => vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.to_owned()],
    }
}

fn command_or_words(rest: &str) -> Vec<String> {
    json_words(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect())
}

fn json_words(rest: &str) -> Option<Vec<String>> {
    rest.starts_with('[')
        .then(|| serde_json::from_str(rest).ok())
        .flatten()
}

/// `name=value name="a value"`, or the old `name value`.
fn pairs(rest: &str) -> Option<Vec<(String, String)>> {
    let words = quoted_words(rest)?;
    let first = words.first()?;
    if !first.contains('=') {
        let (name, value) = rest.split_once(char::is_whitespace)?;
        return Some(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: &String| {
        let (name, value) = word.split_once('=')?;
        (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    };
    words.iter().map(pair).collect()
}

/// Words as a shell splits them, with quotes and backslashes.
fn quoted_words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', Some('"') | None) => word.get_or_insert_default().push(characters.next()?),
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            (c @ ('"' | '\''), None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// `port[/protocol]` in full: `80` becomes `80/tcp`.
fn exposed(port: &str) -> Result<String, ChangeError> {
    let bad = || wrong("EXPOSE", "PORT[/tcp|udp|sctp]");
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let range = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
    let good = match number.split_once('-') {
        Some((first, last)) => range(first) && range(last),
        None => range(number),
    };
    if !good || !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(bad());
    }
    Ok(format!("{number}/{protocol}"))
}

/// `NONE` or `[--interval=30s] … CMD command`.
fn healthcheck(rest: &str) -> Result<Healthcheck, ChangeError> {
    const EXPECTED: &str =
        "NONE, or [--interval=30s --timeout=30s --start-period=0s --retries=3] CMD COMMAND";
    let bad = || wrong("HEALTHCHECK", EXPECTED);
    let mut check = Healthcheck::default();
    let mut rest = rest;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).ok_or_else(bad)?;
        rest = after.trim_start();
        let (name, value) = flag.split_once('=').ok_or_else(bad)?;
        let field = match name {
            "interval" => &mut check.interval,
            "timeout" => &mut check.timeout,
            "start-period" => &mut check.start_period,
            "start-interval" => &mut check.start_interval,
            "retries" => {
                check.retries = value.parse().ok().filter(|count| *count >= 0).ok_or_else(bad)?;
                continue;
            }
            _ => return Err(bad()),
        };
        *field = nanoseconds(value).ok_or_else(bad)?;
    }
    let (word, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    check.test = match (word.to_ascii_uppercase().as_str(), command.trim()) {
        ("NONE", "") => vec!["NONE".to_owned()],
        ("CMD", "") => return Err(bad()),
        ("CMD", command) => match json_words(command) {
            Some(words) => std::iter::once("CMD".to_owned()).chain(words).collect(),
            None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        _ => return Err(bad()),
    };
    Ok(check)
}

/// Go's durations, in whole units: `1m30s`, `500ms`.
fn nanoseconds(text: &str) -> Option<i64> {
    let mut total = 0i64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |end| digits + end);
        let factor = match &rest[digits..unit] {
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(factor)?)?;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_read_as_in_a_dockerfile() {
        let mut config = ImageConfig::default();
        for change in [
            r#"CMD ["sh", "-c", "true"]"#,
            "entrypoint /bin/app --flag",
            r#"ENV A=1 B="two words" C=\"q\""#,
            "ENV D an old way",
            "ENV A=2",
            "LABEL x.y=z empty=",
            "EXPOSE 80 53/udp",
            "VOLUME /data /logs",
            r#"VOLUME ["/more"]"#,
            "WORKDIR /srv",
            "WORKDIR app",
            "USER 1000:1000",
            "STOPSIGNAL SIGINT",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD true",
        ] {
            apply_change(&mut config, change).expect(change);
        }
        let expected = json!({
            "User": "1000:1000",
            "ExposedPorts": {"53/udp": {}, "80/tcp": {}},
            "Env": ["B=two words", "C=\"q\"", "D=an old way", "A=2"],
            "Entrypoint": ["/bin/sh", "-c", "/bin/app --flag"],
            "Cmd": ["sh", "-c", "true"],
            "Volumes": {"/data": {}, "/logs": {}, "/more": {}},
            "WorkingDir": "/srv/app",
            "Labels": {"empty": "", "x.y": "z"},
            "StopSignal": "SIGINT",
            "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 90_000_000_000i64, "Retries": 2},
        });
        assert_eq!(serde_json::to_value(&config).expect("json"), expected);
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for bad in [
            "",
            "RUN true",
            "COPY a b",
            "CMDX",
            "ENV",
            "ENV =x",
            "ENV A=\"open",
            "LABEL",
            "EXPOSE",
            "EXPOSE x",
            "EXPOSE 0",
            "EXPOSE 80/icmp",
            "VOLUME",
            "WORKDIR",
            "USER",
            "HEALTHCHECK",
            "HEALTHCHECK CMD",
            "HEALTHCHECK --interval=x CMD a",
            "SHELL /bin/sh",
        ] {
            assert!(apply_change(&mut ImageConfig::default(), bad).is_err(), "{bad}");
        }
    }
}
