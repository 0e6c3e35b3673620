//! The document that says what should run: `kind: App`, one app of a device.
//!
//! Owns its grammar and limits; reads with the language's own reader, so that an error has line, column and the nearest valid word. Knows nothing of
//! containers, images or the wire: what a field means there is the supervisor's. Invariant: a field that is written is understood or refused.
//!
//! ```
//! let app = kakoi_policy::parse_app(
//!     "web.yaml",
//!     "kakoi: 1\nkind: App\nname: web\ngeneration: 3\nimage: registry.example.com/acme/web:1.2\nports: [\"8080:80\"]\n",
//! )?;
//! assert_eq!((app.name.as_str(), app.generation), ("web", 3));
//! # Ok::<(), kakoi_policy::Diagnostics>(())
//! ```

mod secret;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::decode::fields::{Fields, choice, list, number, printable, word};
use crate::decode::{policy_name, version};
use crate::diagnostics::{Diagnostics, Report, Span};
use crate::units;
use crate::yaml::{self, Kind, Node};

pub use secret::{AppSecret, SecretPlace};

/// Longest name: with `-a` and `-b` behind it it is a host's name too, of which DNS knows 63 characters.
const NAME_CHARS_MAX: usize = 48;
/// Entries of one list of a document: more ports or volumes than any app has.
const ENTRIES_MAX: usize = 64;
/// Longest trial and period: a day.
const DURATION_MS_MAX: u64 = 24 * 3600 * 1000;
/// How long connections may take to end where nothing is said: as long as a stop waits.
const DRAIN_MS_DEFAULT: u64 = 10_000;
/// Most attempts at one version, and most failures in a row.
const TIMES_MAX: u64 = 10;

const KEYS: [&str; 16] = [
    "kakoi",
    "kind",
    "name",
    "generation",
    "image",
    "command",
    "args",
    "env",
    "policy",
    "secrets",
    "volumes",
    "networks",
    "ports",
    "devices",
    "health",
    "update",
];

/// An app as a person wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Its name: lower-case letters, digits and `-`.
    pub name: String,
    /// Counts up with each change; an older one is never taken.
    pub generation: u64,
    /// The image, by tag or digest.
    pub image: String,
    /// The program, in place of the image's.
    pub command: Option<Vec<String>>,
    /// Its arguments, in place of the image's.
    pub args: Option<Vec<String>>,
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// A policy that the device knows; else the image's own, or the device's default.
    pub policy: Option<String>,
    /// Secrets of the device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<AppSecret>,
    /// Volumes and folders of the device.
    pub volumes: Vec<AppVolume>,
    /// Networks; empty leaves it to the policy.
    pub networks: Vec<String>,
    /// Published ports.
    pub ports: Vec<AppPort>,
    /// Devices.
    pub devices: Vec<AppDevice>,
    /// How health is tested; else as the image says.
    pub health: Option<AppHealth>,
    /// How a new version is tried.
    pub update: AppUpdate,
}

/// `NAME:TARGET[:ro]`, or `/FOLDER:TARGET[:ro]` of the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppVolume {
    /// A volume's name, or an absolute path.
    pub source: String,
    /// Where it is seen.
    pub target: String,
    /// Whether it is only read.
    pub read_only: bool,
}

/// `[ADDRESS:]HOST:CONTAINER[/PROTOCOL]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppPort {
    /// Address of the device; every one where it is absent.
    pub address: Option<IpAddr>,
    /// Port of the device.
    pub host: u16,
    /// Port of the app.
    pub container: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// `/dev/NAME[:/dev/NAME][:rwm]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppDevice {
    /// Path on the device.
    pub host: String,
    /// Path in the container.
    pub container: String,
    /// Some of `r`, `w` and `m`.
    pub access: String,
}

/// How health is tested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppHealth {
    /// By what.
    pub probe: Probe,
    /// Milliseconds between two tests.
    pub period_ms: u64,
    /// Milliseconds after which a test has failed.
    pub timeout_ms: u64,
    /// Failures in a row that make it unhealthy.
    pub failures: u64,
    /// Milliseconds after the start in which failures do not count.
    pub start_period_ms: u64,
}

/// What a test of health does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// Runs a program in the container, as confined as the app.
    Command(Vec<String>),
    /// Connects to a port of the app's own loopback.
    Tcp(u16),
    /// Asks there for a page; an answer from 200 to 399 is good.
    Http {
        /// The port.
        port: u16,
        /// The page.
        path: String,
    },
}

/// How a new version is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppUpdate {
    /// Milliseconds that it must stay up, and be healthy at their end.
    pub trial_ms: u64,
    /// How often it is started before the version that worked before comes back.
    pub attempts: u64,
    /// How it takes the place of the version that runs.
    #[serde(default, skip_serializing_if = "Handover::is_usual")]
    pub handover: Handover,
    /// Milliseconds that connections of the version before have to end, where the new one took over beside it.
    #[serde(default = "drain_ms_default", skip_serializing_if = "is_usual_drain")]
    pub drain_ms: u64,
}

/// How one version takes the place of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handover {
    /// What runs is stopped, then the new version started.
    #[default]
    StopThenStart,
    /// The new version stands its trial beside what runs, gets its ports, and only then that is stopped.
    StartThenStop,
}

impl Handover {
    /// Whether nothing need be said of it. What is written of an app is what its digest is of: a word that is new to documents may not change it where
    /// nobody says it.
    fn is_usual(&self) -> bool {
        *self == Self::StopThenStart
    }
}

fn drain_ms_default() -> u64 {
    DRAIN_MS_DEFAULT
}

fn is_usual_drain(drain_ms: &u64) -> bool {
    *drain_ms == DRAIN_MS_DEFAULT
}

/// Reads one app.
///
/// # Errors
/// Every error of the document that can be found at once.
pub fn parse_app(file: &str, text: &str) -> Result<App, Diagnostics> {
    let mut report = Report::new(file, text);
    let app = yaml::read(text, &mut report).and_then(|node| app(node, &mut report));
    match (app, report.finish()) {
        (_, Some(diagnostics)) => Err(diagnostics),
        (Some(app), None) => Ok(app),
        (None, None) => unreachable!("a document that gives no app gives a diagnostic"),
    }
}

fn app(node: Node, report: &mut Report<'_>) -> Option<App> {
    let mut fields = Fields::open(node, "an app", &KEYS, report)?;
    version(&mut fields, "an app", report);
    if let Some(kind) = fields.need("kind", "an app", report) {
        choice(&kind, "`kind`", &[("App", ())], report);
    }
    let name = fields.need("name", "an app", report);
    let name = name.and_then(|node| app_name(&node, report));
    let generation = fields.need("generation", "an app", report);
    let generation = generation.and_then(|node| at_least_one(&node, "`generation`", i64::MAX as u64, report));
    let image = fields.need("image", "an app", report);
    let image = image.and_then(|node| image_name(&node, report));
    let mut words = |name: &str, report: &mut Report<'_>| {
        let node = fields.take(name, report)?;
        Some(texts(node, "words", report))
    };
    let (command, args) = (words("command", report), words("args", report));
    let mut rows = |name: &str, what: &str, report: &mut Report<'_>| {
        let node = fields.take(name, report);
        node.map(|node| entries(node, what, report)).unwrap_or_default()
    };
    let secrets = rows("secrets", "secrets", report);
    let volumes = rows("volumes", "volumes", report);
    let networks = rows("networks", "networks", report);
    let ports = rows("ports", "ports", report);
    let devices = rows("devices", "devices", report);
    let env = fields.take("env", report);
    let policy = fields.take("policy", report);
    let health = fields.take("health", report);
    let update = fields.take("update", report);
    let (update, handover) = self::update(update, report);
    let app = App {
        command,
        args,
        env: env.map(|node| variables(node, report)).unwrap_or_default(),
        policy: policy.and_then(|node| policy_name(&node, report)),
        secrets: each(&secrets, secret::read, report),
        volumes: each(&volumes, volume, report),
        networks: each(&networks, network, report),
        ports: each(&ports, port, report),
        devices: each(&devices, device, report),
        health: health.and_then(|node| self::health(node, report)),
        update,
        name: name?,
        generation: generation?,
        image: image?,
    };
    side_by_side(&app, handover, report);
    Some(app)
}

fn each<T>(nodes: &[Node], read: fn(&Node, &mut Report<'_>) -> Option<T>, report: &mut Report<'_>) -> Vec<T> {
    nodes.iter().filter_map(|node| read(node, report)).collect()
}

fn entries(node: Node, what: &str, report: &mut Report<'_>) -> Vec<Node> {
    let span = node.span;
    let nodes = list(node, what, report);
    if nodes.len() > ENTRIES_MAX {
        report.error(span, format!("more than {ENTRIES_MAX} {what}"));
        return Vec::new();
    }
    nodes
}

fn texts(node: Node, what: &str, report: &mut Report<'_>) -> Vec<String> {
    entries(node, what, report)
        .iter()
        .filter_map(|node| match &node.kind {
            // An argument may be empty, and is text whatever it looks like.
            Kind::Scalar { text, plain: false } => Some(text.clone()),
            _ => word(node, "a word", report),
        })
        .collect()
}

fn refuse(node: &Node, text: &str, what: &str, help: &str, report: &mut Report<'_>) {
    report
        .error(node.span, format!("`{}` is not {what}", printable(text)))
        .help(help);
}

fn app_name(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = word(node, "an app's name", report)?;
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_good = text.len() <= NAME_CHARS_MAX
        && text.starts_with(is_plain)
        && text.ends_with(is_plain)
        && text.chars().all(|c| is_plain(c) || c == '-');
    if !is_good {
        let help = format!(
            "use up to {NAME_CHARS_MAX} lower-case letters, digits and `-`, with a letter or digit at both ends"
        );
        refuse(node, &text, "an app's name", &help, report);
        return None;
    }
    Some(text)
}

fn image_name(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = word(node, "an image", report)?;
    if text.len() > 512 || text.chars().any(char::is_whitespace) {
        let help = "write it as in `kakoi pull`: registry.example.com/acme/app:1.2, or with @sha256:…";
        refuse(node, &text, "an image's name", help, report);
        return None;
    }
    Some(text)
}

fn at_least_one(node: &Node, what: &str, max: u64, report: &mut Report<'_>) -> Option<u64> {
    let value = number(node, what, max, report)?;
    if value == 0 {
        report
            .error(node.span, format!("0 is too small for {what}"))
            .help("it counts from 1");
        return None;
    }
    Some(value)
}

fn variables(node: Node, report: &mut Report<'_>) -> BTreeMap<String, String> {
    let span = node.span;
    let Kind::Map(rows) = node.kind else {
        let noun = node.kind.noun();
        report
            .error(span, format!("{noun} where variables are expected"))
            .help("write `env: {NAME: \"value\"}`, or one `NAME: value` a line");
        return BTreeMap::new();
    };
    let mut all = BTreeMap::new();
    for (key, node) in rows {
        if !is_variable(&key.text) {
            let message = format!("`{}` is not a variable's name", printable(&key.text));
            report
                .error(key.span, message)
                .help("use letters, digits and `_`, no digit in front");
            continue;
        }
        let value = match &node.kind {
            Kind::Scalar { text, plain: false } => Some(text.clone()),
            _ => word(&node, "a variable's value", report),
        };
        all.extend(value.map(|value| (key.text, value)));
    }
    all
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn volume(node: &Node, report: &mut Report<'_>) -> Option<AppVolume> {
    let text = word(node, "a volume", report)?;
    let mut parts = text.split(':');
    let (source, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (option, rest) = (parts.next(), parts.next());
    let is_name = source.starts_with(|c: char| c.is_ascii_alphanumeric())
        && source
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    let is_good = (source.starts_with('/') || is_name)
        && target.starts_with('/')
        && matches!(option, None | Some("ro" | "rw"))
        && rest.is_none();
    if !is_good {
        let help = "write NAME:/PLACE or /FOLDER:/PLACE, and `:ro` behind it where it is only read";
        refuse(node, &text, "a volume", help, report);
        return None;
    }
    Some(AppVolume {
        source: source.to_owned(),
        target: target.to_owned(),
        read_only: option == Some("ro"),
    })
}

fn network(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = word(node, "a network", report)?;
    let is_good = text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if !is_good {
        let help = "write `none`, `host`, `bridge`, or the name of a network of `kakoi network ls`";
        refuse(node, &text, "a network's name", help, report);
        return None;
    }
    Some(text)
}

fn port(node: &Node, report: &mut Report<'_>) -> Option<AppPort> {
    let text = word(node, "a port", report)?;
    let found = read_port(&text);
    if found.is_none() {
        let help = "write \"HOST:CONTAINER\", \"ADDRESS:HOST:CONTAINER\" or \"[ADDRESS]:HOST:CONTAINER\", with /udp or /sctp behind it; one line \
                    a port";
        refuse(node, &text, "a published port", help, report);
    }
    found
}

fn read_port(text: &str) -> Option<AppPort> {
    let (text, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (rest, container) = text.rsplit_once(':')?;
    let (address, host) = match rest.rsplit_once(':') {
        None => (None, rest),
        Some((address, host)) => {
            let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            (Some(bare.unwrap_or(address).parse::<IpAddr>().ok()?), host)
        }
    };
    let number = |text: &str| {
        let value = units::integer(text).and_then(|value| u16::try_from(value).ok());
        value.filter(|port| *port > 0)
    };
    Some(AppPort {
        address,
        host: number(host)?,
        container: number(container)?,
        protocol: matches!(protocol, "tcp" | "udp" | "sctp").then(|| protocol.to_owned())?,
    })
}

fn device(node: &Node, report: &mut Report<'_>) -> Option<AppDevice> {
    let text = word(node, "a device", report)?;
    let found = read_device(&text);
    if found.is_none() {
        let help = "write /dev/NAME, /dev/NAME:/dev/OTHER, and :r, :rw or :rwm behind it";
        refuse(node, &text, "a device", help, report);
    }
    found
}

fn read_device(text: &str) -> Option<AppDevice> {
    let parts: Vec<&str> = text.split(':').collect();
    let is_path = |part: &&str| part.starts_with("/dev/") && !part.split('/').any(|part| part == "..");
    let is_access =
        |part: &&str| !part.is_empty() && part.len() <= 3 && part.chars().all(|c| "rwm".contains(c));
    let (host, container, access) = match parts.as_slice() {
        [host] => (host, host, &"rw"),
        [host, access] if is_access(access) => (host, host, access),
        [host, container] => (host, container, &"rw"),
        [host, container, access] if is_access(access) => (host, container, access),
        _ => return None,
    };
    (is_path(host) && is_path(container)).then(|| AppDevice {
        host: (*host).to_owned(),
        container: (*container).to_owned(),
        access: (*access).to_owned(),
    })
}

fn duration(node: &Node, what: &str, report: &mut Report<'_>) -> Option<u64> {
    let text = word(node, what, report)?;
    let found = units::duration_ms(&text).filter(|value| *value <= DURATION_MS_MAX);
    if found.is_none() {
        refuse(
            node,
            &text,
            &format!("a duration, which {what} needs"),
            "write 500ms, 30s, 5m or 1h; at most a day",
            report,
        );
    }
    found
}

fn health(node: Node, report: &mut Report<'_>) -> Option<AppHealth> {
    const HEALTH_KEYS: [&str; 7] = [
        "command",
        "tcp",
        "http",
        "period",
        "timeout",
        "failures",
        "start_period",
    ];
    let mut fields = Fields::open(node, "a test of health", &HEALTH_KEYS, report)?;
    let span = fields.span;
    let command = fields.take("command", report).map(|node| {
        let words = texts(node, "words", report);
        (!words.is_empty()).then_some(Probe::Command(words))
    });
    let tcp = fields.take("tcp", report).map(|node| {
        let port = at_least_one(&node, "`tcp`", 65535, report)?;
        u16::try_from(port).ok().map(Probe::Tcp)
    });
    let http = fields.take("http", report).map(|node| http(node, report));
    let mut probes: Vec<_> = [command, tcp, http].into_iter().flatten().collect();
    let mut time = |name: &str, otherwise: u64, report: &mut Report<'_>| {
        let node = fields.take(name, report);
        node.and_then(|node| duration(&node, &format!("`{name}`"), report))
            .unwrap_or(otherwise)
    };
    let (period_ms, timeout_ms) = (time("period", 10_000, report), time("timeout", 5_000, report));
    let start_period_ms = time("start_period", 0, report);
    for (name, value) in [("period", period_ms), ("timeout", timeout_ms)] {
        if value == 0 {
            report.error(span, format!("`{name}` of 0"));
        }
    }
    let failures = fields.take("failures", report);
    let failures = failures.and_then(|node| at_least_one(&node, "`failures`", TIMES_MAX, report));
    if probes.len() != 1 {
        report
            .error(span, format!("a test of health with {} probes", probes.len()))
            .help("write exactly one of `command`, `tcp` and `http`");
        return None;
    }
    Some(AppHealth {
        probe: probes.pop().flatten()?,
        period_ms,
        timeout_ms,
        failures: failures.unwrap_or(3),
        start_period_ms,
    })
}

fn http(node: Node, report: &mut Report<'_>) -> Option<Probe> {
    let mut fields = Fields::open(node, "a page", &["port", "path"], report)?;
    let port = fields.need("port", "a page", report);
    let port = port.and_then(|node| at_least_one(&node, "`port`", 65535, report));
    let page = match fields.take("path", report) {
        None => "/".to_owned(),
        Some(node) => {
            let text = word(&node, "a page's path", report)?;
            if !text.starts_with('/') || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                let help = "it starts with `/`; write other characters than ASCII's in percent form";
                refuse(&node, &text, "a page's path", help, report);
                return None;
            }
            text
        }
    };
    Some(Probe::Http {
        port: u16::try_from(port?).ok()?,
        path: page,
    })
}

fn update(node: Option<Node>, report: &mut Report<'_>) -> (AppUpdate, Option<Span>) {
    let mut update = AppUpdate {
        trial_ms: 30_000,
        attempts: 2,
        handover: Handover::StopThenStart,
        drain_ms: drain_ms_default(),
    };
    let known = ["trial", "attempts", "handover", "drain"];
    let fields = node.and_then(|node| Fields::open(node, "rules of updates", &known, report));
    let Some(mut fields) = fields else {
        return (update, None);
    };
    let trial = fields.take("trial", report);
    let attempts = fields.take("attempts", report);
    let handover = fields.take("handover", report);
    let drain = fields.take("drain", report);
    if let Some(trial_ms) = trial.and_then(|node| duration(&node, "`trial`", report)) {
        update.trial_ms = trial_ms;
    }
    if let Some(times) = attempts.and_then(|node| at_least_one(&node, "`attempts`", TIMES_MAX, report)) {
        update.attempts = times;
    }
    let modes = [
        ("stop-then-start", Handover::StopThenStart),
        ("start-then-stop", Handover::StartThenStop),
    ];
    let place = handover.as_ref().map(|node| node.span);
    if let Some(mode) = handover.and_then(|node| choice(&node, "`handover`", &modes, report)) {
        update.handover = mode;
    }
    if let Some(node) = drain {
        if update.handover == Handover::StopThenStart {
            report
                .error(node.span, "`drain` without `handover: start-then-stop`")
                .help("a version that is stopped before the next one starts has nobody to leave its connections to");
        }
        if let Some(drain_ms) = duration(&node, "`drain`", report) {
            update.drain_ms = drain_ms;
        }
    }
    (update, place)
}

/// Refuses what two versions cannot have at a time, where they are to run side by side; `place` is where that is written.
fn side_by_side(app: &App, place: Option<Span>, report: &mut Report<'_>) {
    let Some(place) = place.filter(|_| app.update.handover == Handover::StartThenStop) else {
        return;
    };
    let otherwise = "`handover: stop-then-start`, which is the default";
    for device in &app.devices {
        report
            .error(
                place,
                format!("two versions cannot have `{}` at a time", printable(&device.host)),
            )
            .help(format!("use {otherwise}"));
    }
    for volume in app.volumes.iter().filter(|volume| !volume.read_only) {
        report
            .error(
                place,
                format!(
                    "two versions would write into `{}` at a time",
                    printable(&volume.source)
                ),
            )
            .help(format!("mount it with `:ro`, or use {otherwise}"));
    }
    if app.networks.iter().any(|network| network == "host") {
        report
            .error(
                place,
                "two versions cannot listen at the device's own ports at a time",
            )
            .help(format!(
                "publish `ports` on a bridge instead of `host`, or use {otherwise}"
            ));
    }
}
