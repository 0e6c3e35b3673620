//! What an app's document asks for, as the request by which anybody makes a container: one place decides about both.
//!
//! Pure. Knows what the fields of a document mean on the wire; judges none of them, which is the creation's.

use kakoi_api::container::{CreateBody, DeviceMapping, HealthConfig, Mount, PortBinding, RestartPolicy};
use kakoi_api::kakoi::PolicyChoice;
use kakoi_api::network::EndpointSettings;
use kakoi_api::secret::SecretUse;
use kakoi_api::{Empty, Words};
use kakoi_policy::app::{App, AppHealth, AppSecret, Probe, SecretPlace};

use super::table::Slot;
use crate::life::health::{HTTP, TCP};
use crate::networks::{BRIDGE, ask};

/// The label that says whose a container is. It is for people: what belongs to an app is known by its name.
pub const LABEL: &str = "io.kakoi.app";
/// The label that says of which generation of its app it was made.
pub const GENERATION_LABEL: &str = "io.kakoi.app.generation";
/// The label that says of which document it was made: what the supervisor knows a version's container by, besides its name and image.
pub const DIGEST_LABEL: &str = "io.kakoi.app.digest";
/// The name of an app's container in a slot.
pub fn container_name(app: &str, slot: Slot) -> String {
    format!("{app}-{}", slot.word())
}

/// The request for an app's container.
pub fn body(app: &App) -> CreateBody {
    let mut body = CreateBody::default();
    let config = &mut body.config;
    config.image.clone_from(&app.image);
    config.env = app
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    config.entrypoint = app.command.clone().map(Words);
    config.cmd = app.args.clone().map(Words);
    config.healthcheck = app.health.as_ref().map(health);
    config.labels.insert(LABEL.into(), app.name.clone());
    config
        .labels
        .insert(GENERATION_LABEL.into(), app.generation.to_string());
    config.labels.insert(DIGEST_LABEL.into(), digest(app));
    for port in &app.ports {
        let inside = format!("{}/{}", port.container, port.protocol);
        config.exposed_ports.insert(inside.clone(), Empty);
        let binding = PortBinding {
            host_ip: port
                .address
                .map(|address| address.to_string())
                .unwrap_or_default(),
            host_port: port.host.to_string(),
        };
        let bindings = body.host_config.port_bindings.entry(inside).or_default();
        bindings.get_or_insert_default().push(binding);
    }
    let host = &mut body.host_config;
    // A container that its supervisor stopped is the fallback, and stays down whatever happens.
    host.restart_policy = RestartPolicy {
        name: "unless-stopped".into(),
        maximum_retry_count: 0,
    };
    host.mounts = app
        .volumes
        .iter()
        .map(|volume| Mount {
            kind: if volume.source.starts_with('/') {
                "bind"
            } else {
                "volume"
            }
            .into(),
            source: volume.source.clone(),
            target: volume.target.clone(),
            read_only: volume.read_only,
            ..Mount::default()
        })
        .collect();
    host.devices = app
        .devices
        .iter()
        .map(|device| DeviceMapping {
            path_on_host: device.host.clone(),
            path_in_container: device.container.clone(),
            cgroup_permissions: device.access.clone(),
        })
        .collect();
    body.secrets = app.secrets.iter().map(secret).collect();
    body.policy = app.policy.clone().map(|name| PolicyChoice { name, source: None });
    networks(app, &mut body);
    body
}

/// The first network is the container's mode, as on the command line; on those that have names, the app's name leads to whichever slot runs.
fn networks(app: &App, body: &mut CreateBody) {
    let Some(first) = app.networks.first() else {
        if !app.ports.is_empty() {
            body.host_config.network_mode = BRIDGE.into();
        }
        return;
    };
    body.host_config.network_mode.clone_from(first);
    for name in &app.networks {
        let mut settings = EndpointSettings::default();
        if name != BRIDGE && ask::is_bridged(name) {
            settings.aliases = Some(vec![app.name.clone()]);
        }
        if ask::is_bridged(name) || app.networks.len() > 1 {
            let endpoints = &mut body.networking_config.endpoints_config;
            endpoints.insert(name.clone(), Some(settings));
        }
    }
}

fn secret(secret: &AppSecret) -> SecretUse {
    let mut used = SecretUse {
        name: secret.name.clone(),
        ..SecretUse::default()
    };
    match &secret.place {
        SecretPlace::Env(name) => used.env.clone_from(name),
        SecretPlace::File {
            target,
            uid,
            gid,
            mode,
        } => {
            used.target.clone_from(target);
            (used.uid, used.gid, used.mode) = (*uid, *gid, *mode);
        }
    }
    used
}

fn health(health: &AppHealth) -> HealthConfig {
    let test = match &health.probe {
        Probe::Command(words) => [&["CMD".to_owned()], words.as_slice()].concat(),
        Probe::Tcp(port) => vec![TCP.into(), port.to_string()],
        Probe::Http { port, path } => vec![HTTP.into(), port.to_string(), path.clone()],
    };
    let nanoseconds = |ms: u64| i64::try_from(ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    HealthConfig {
        test,
        interval: nanoseconds(health.period_ms),
        timeout: nanoseconds(health.timeout_ms),
        start_period: nanoseconds(health.start_period_ms),
        start_interval: nanoseconds(health.period_ms.min(5_000)),
        retries: i64::try_from(health.failures).unwrap_or(i64::MAX),
    }
}

/// SHA-256 over what a document says, its generation left out: two documents with it ask for the same.
pub fn digest(app: &App) -> String {
    let said = App {
        generation: 0,
        ..app.clone()
    };
    let bytes = serde_json::to_vec(&said).expect("a document is plain data");
    let hash = ring::digest::digest(&ring::digest::SHA256, &bytes);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(rest: &str) -> App {
        let text = format!("kakoi: 1\nkind: App\nname: web\ngeneration: 3\nimage: busybox:test\n{rest}");
        kakoi_policy::parse_app("web.yaml", &text).expect("a document")
    }

    #[test]
    fn every_field_is_on_the_wire() {
        let body = body(&app(
            "command: [httpd]\nargs: [-f]\nenv: {A: \"1\"}\npolicy: web\nvolumes: [\"data:/data\", \"/etc/x:/x:ro\"]\nnetworks: [site, other]\n\
             ports: [\"8080:80\", \"127.0.0.1:53:53/udp\"]\ndevices: [\"/dev/ttyUSB0:r\"]\nhealth: {http: {port: 80}, period: 2s}\n",
        ));
        let json = serde_json::to_value(&body).expect("plain data");
        assert_eq!(json["Entrypoint"], serde_json::json!(["httpd"]));
        assert_eq!(json["Cmd"], serde_json::json!(["-f"]));
        assert_eq!(json["Env"], serde_json::json!(["A=1"]));
        assert_eq!(json["Policy"]["Name"], "web");
        let host = &json["HostConfig"];
        assert_eq!(host["Mounts"][0]["Type"], "volume");
        assert_eq!(
            (&host["Mounts"][1]["Type"], &host["Mounts"][1]["ReadOnly"]),
            (&"bind".into(), &true.into())
        );
        assert_eq!(host["NetworkMode"], "site");
        assert_eq!(host["PortBindings"]["80/tcp"][0]["HostPort"], "8080");
        assert_eq!(host["PortBindings"]["53/udp"][0]["HostIp"], "127.0.0.1");
        assert_eq!(host["Devices"][0]["CgroupPermissions"], "r");
        assert_eq!(host["RestartPolicy"]["Name"], "unless-stopped");
        let site = &json["NetworkingConfig"]["EndpointsConfig"]["other"];
        assert_eq!(site["Aliases"], serde_json::json!(["web"]));
        assert_eq!(
            json["Healthcheck"]["Test"],
            serde_json::json!(["KAKOI-HTTP", "80", "/"])
        );
        assert_eq!(json["Healthcheck"]["Interval"], 2_000_000_000_i64);
    }

    #[test]
    fn what_is_not_said_is_left_to_policy_and_image() {
        let silent = body(&app(""));
        assert_eq!(silent.host_config.network_mode, "");
        assert!(silent.policy.is_none() && silent.config.healthcheck.is_none());
        assert!(silent.config.entrypoint.is_none() && silent.config.cmd.is_none());
        // A port is published on a bridge.
        assert_eq!(
            body(&app("ports: [\"80:80\"]\n")).host_config.network_mode,
            "bridge"
        );
    }

    /// Records name documents by it: words that are new to the language may not change it where a document does not say them.
    #[test]
    fn the_digest_of_a_document_is_the_same_for_ever() {
        let document = app("health: {tcp: 80}\nupdate: {trial: 1s}\n");
        assert_eq!(
            digest(&document),
            "afb925f5543598a740d24c8c8b64cbf79f474125175af183c5f316cbb7476b01"
        );
    }

    #[test]
    fn a_generation_alone_changes_no_digest() {
        let one = app("");
        let later = App {
            generation: 9,
            ..one.clone()
        };
        assert_eq!(digest(&one), digest(&later));
        assert_ne!(digest(&one), digest(&app("args: [x]\n")));
    }
}
