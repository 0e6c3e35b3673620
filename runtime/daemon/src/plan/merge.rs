//! What a container takes over from its image: Docker's rules of merging, as a pure function.

use std::collections::BTreeMap;

use kakoi_api::container::{ContainerConfig, HealthConfig};
use kakoi_api::{Empty, Words};
use kakoi_image::{Healthcheck, ImageConfig};

use crate::refusal::{Answer, Refusal};

/// Where programs are looked for if neither image nor request says. Docker's value.
const PATH_DEFAULT: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image's configuration in the wire's words.
pub fn to_wire(image: &ImageConfig) -> ContainerConfig {
    let set = |keys: Vec<&String>| {
        keys.into_iter()
            .map(|key| (key.clone(), Empty))
            .collect::<BTreeMap<_, _>>()
    };
    ContainerConfig {
        user: image.user.clone(),
        exposed_ports: set(image.exposed_ports.keys().collect()),
        env: image.env.clone(),
        cmd: image.cmd.clone().map(Words),
        healthcheck: image.healthcheck.as_ref().map(|health| HealthConfig {
            test: health.test.clone(),
            interval: health.interval,
            timeout: health.timeout,
            start_period: health.start_period,
            start_interval: health.start_interval,
            retries: health.retries,
        }),
        args_escaped: image.args_escaped,
        volumes: set(image.volumes.keys().collect()),
        working_dir: image.working_dir.clone(),
        entrypoint: image.entrypoint.clone().map(Words),
        on_build: (!image.on_build.is_empty()).then(|| image.on_build.clone()),
        labels: image.labels.clone(),
        stop_signal: image.stop_signal.clone(),
        stop_timeout: image.stop_timeout,
        shell: (!image.shell.is_empty()).then(|| image.shell.clone()),
        ..ContainerConfig::default()
    }
}

/// The wire's words as an image's configuration: what a container alone has is left out.
pub fn from_wire(config: &ContainerConfig) -> ImageConfig {
    let set = |keys: Vec<&String>| {
        keys.into_iter()
            .map(|key| (key.clone(), kakoi_image::Empty {}))
            .collect::<BTreeMap<_, _>>()
    };
    ImageConfig {
        user: config.user.clone(),
        exposed_ports: set(config.exposed_ports.keys().collect()),
        env: config.env.clone(),
        entrypoint: config.entrypoint.clone().map(|words| words.0),
        cmd: config.cmd.clone().map(|words| words.0),
        args_escaped: config.args_escaped,
        volumes: set(config.volumes.keys().collect()),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone(),
        stop_timeout: config.stop_timeout,
        healthcheck: config.healthcheck.as_ref().map(|health| Healthcheck {
            test: health.test.clone(),
            interval: health.interval,
            timeout: health.timeout,
            retries: health.retries,
            start_period: health.start_period,
            start_interval: health.start_interval,
        }),
        on_build: config.on_build.clone().unwrap_or_default(),
        shell: config.shell.clone().unwrap_or_default(),
    }
}

/// Completes a request from its image.
pub fn merge(asked: &ContainerConfig, image: &ImageConfig) -> ContainerConfig {
    let image = to_wire(image);
    let mut config = asked.clone();
    let or = |own: &mut String, inherited: String| {
        if own.is_empty() {
            *own = inherited;
        }
    };
    or(&mut config.user, image.user);
    or(&mut config.working_dir, image.working_dir);
    or(&mut config.stop_signal, image.stop_signal);
    for (port, empty) in image.exposed_ports {
        config.exposed_ports.entry(port).or_insert(empty);
    }
    for (place, empty) in image.volumes {
        config.volumes.entry(place).or_insert(empty);
    }
    for (name, value) in image.labels {
        config.labels.entry(name).or_insert(value);
    }
    config.env = environment(&image.env, &asked.env);
    let has_words = |words: &Option<Words>| words.as_ref().is_some_and(|words| !words.0.is_empty());
    if !has_words(&config.entrypoint) {
        if !has_words(&config.cmd) {
            config.cmd = image.cmd;
        }
        if config.entrypoint.is_none() {
            config.entrypoint = image.entrypoint;
        }
    }
    config.stop_timeout = config.stop_timeout.or(image.stop_timeout);
    config.shell = config.shell.filter(|shell| !shell.is_empty()).or(image.shell);
    config.healthcheck = health(config.healthcheck, image.healthcheck);
    config
}

/// The image's variables, overridden by those asked for; a name without a value takes one away, which is shown as it was asked for.
fn environment(image: &[String], asked: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut all: Vec<String> = Vec::new();
    for entry in image.iter().chain(asked) {
        let known = all.iter().position(|held| name(held) == name(entry));
        match (known, entry.contains('=')) {
            (Some(index), _) => all[index] = entry.clone(),
            (None, _) => all.push(entry.clone()),
        }
    }
    if !all.iter().any(|entry| name(entry) == "PATH") {
        all.insert(0, PATH_DEFAULT.into());
    }
    all
}

fn health(asked: Option<HealthConfig>, image: Option<HealthConfig>) -> Option<HealthConfig> {
    let (Some(mut asked), Some(image)) = (asked.clone(), image.clone()) else {
        return asked.or(image);
    };
    if asked.test.is_empty() {
        asked.test = image.test;
    }
    let or = |own: &mut i64, inherited: i64| {
        if *own == 0 {
            *own = inherited;
        }
    };
    or(&mut asked.interval, image.interval);
    or(&mut asked.timeout, image.timeout);
    or(&mut asked.start_period, image.start_period);
    or(&mut asked.start_interval, image.start_interval);
    or(&mut asked.retries, image.retries);
    Some(asked)
}

/// Program and arguments of a merged configuration.
pub fn arguments(config: &ContainerConfig) -> Answer<Vec<String>> {
    let words = |words: &Option<Words>| words.clone().unwrap_or_default().0;
    let mut args = words(&config.entrypoint);
    // How Docker's clients say "no entry point" (`--entrypoint ""`).
    if args == [""] {
        args.clear();
    }
    args.extend(words(&config.cmd));
    if args.first().is_none_or(String::is_empty) {
        return Err(Refusal::bad("no command specified"));
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ImageConfig {
        ImageConfig {
            env: vec!["PATH=/bin".into(), "A=1".into(), "B=2".into()],
            entrypoint: Some(vec!["/init".into()]),
            cmd: Some(vec!["serve".into()]),
            user: "app".into(),
            ..ImageConfig::default()
        }
    }

    fn words(list: &[&str]) -> Option<Words> {
        Some(Words(list.iter().map(|word| (*word).into()).collect()))
    }

    #[test]
    fn commands_are_taken_over_as_docker_does() {
        let args = |entrypoint, cmd| {
            let asked = ContainerConfig {
                entrypoint,
                cmd,
                ..ContainerConfig::default()
            };
            arguments(&merge(&asked, &image()))
        };
        assert_eq!(args(None, None).expect("image"), ["/init", "serve"]);
        assert_eq!(args(None, words(&["x"])).expect("cmd"), ["/init", "x"]);
        assert_eq!(
            args(words(&["sh"]), None).expect("an entry point drops the image's arguments"),
            ["sh"]
        );
        assert_eq!(args(words(&[]), words(&["x"])).expect("none asked for"), ["x"]);
        assert_eq!(args(words(&[]), None).expect("none asked for"), ["serve"]);
        assert_eq!(args(words(&[""]), words(&["x"])).expect("none asked for"), ["x"]);
        assert!(args(words(&[""]), None).is_err());
        assert!(arguments(&merge(&ContainerConfig::default(), &ImageConfig::default())).is_err());
    }

    #[test]
    fn variables_override_and_disappear() {
        let asked = ContainerConfig {
            env: vec!["A=3".into(), "B".into(), "C=4".into()],
            ..Default::default()
        };
        assert_eq!(merge(&asked, &image()).env, ["PATH=/bin", "A=3", "B", "C=4"]);
        let asked = ContainerConfig {
            env: vec!["PATH".into()],
            ..Default::default()
        };
        assert_eq!(merge(&asked, &image()).env, ["PATH", "A=1", "B=2"]);
        assert_eq!(
            merge(&ContainerConfig::default(), &ImageConfig::default()).env,
            [PATH_DEFAULT]
        );
    }

    #[test]
    fn health_is_completed_or_turned_off() {
        let inherited = HealthConfig {
            test: vec!["CMD".into(), "x".into()],
            interval: 7,
            ..Default::default()
        };
        let asked = HealthConfig {
            retries: 2,
            ..Default::default()
        };
        let merged = health(Some(asked), Some(inherited.clone())).expect("some");
        assert_eq!((merged.test.len(), merged.interval, merged.retries), (2, 7, 2));
        let off = HealthConfig {
            test: vec!["NONE".into()],
            ..Default::default()
        };
        assert_eq!(health(Some(off), Some(inherited)).expect("some").test, ["NONE"]);
    }
}
