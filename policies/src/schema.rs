//! The JSON Schema of the language, from which editors complete and check while one types.
//!
//! Owns the documented shape of each section, as types that exist for their schema alone: the parser reads by hand, in order to find every
//! error at once. A test holds both to the same fields, and the shipped profiles to the schema.
#![expect(dead_code, reason = "the types below are never made, only described")]

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};

use crate::{capability, constants, decode, shipped, syscalls};

/// Makes the JSON Schema (draft 2020-12) of policies, version 1 of the language.
pub fn json_schema() -> serde_json::Value {
    let mut schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<PolicyDocument>();
    schema.insert("$id".to_owned(), "urn:kakoi:schema:policy:1".into());
    schema.insert("title".to_owned(), "Kakoi policy, version 1".into());
    schema.to_value()
}

/// What an app may do. Deny by default: what is not written here, or in a policy named in `extends`, is refused.
#[derive(JsonSchema)]
#[schemars(rename = "Policy", deny_unknown_fields)]
struct PolicyDocument {
    /// The version of the language: 1.
    kakoi: Version,
    /// The policy's name; without it, the file's.
    name: Option<String>,
    /// Policies whose rules are taken over, in order. Grants are united, denials win, later single values override.
    extends: Option<OneOrMany<PolicyName>>,
    /// Capabilities the app may hold (capabilities(7)).
    capabilities: Option<Capabilities>,
    /// System calls the app may make.
    system_calls: Option<SystemCalls>,
    /// Paths the app may read, write and execute, enforced by landlock.
    files: Option<Files>,
    /// The network the app gets, and the TCP ports it may use.
    network: Option<Network>,
    /// Whether the app is kept among its own where it shares namespaces with the host.
    scope: Option<Scope>,
    /// Devices the app may open; `standard` are null, zero, full, random, urandom, tty, console, ptmx and pseudo-terminals.
    devices: Option<Vec<Device>>,
    /// Resource limits.
    limits: Option<Limits>,
    /// The process: its user, its rights, its view of the kernel's files.
    process: Option<Process>,
    /// Mounts the app needs. The device's owner bounds where bind mounts may come from.
    mounts: Option<Vec<Mount>>,
    /// `host`: none of its own. `auto`: its own range of ids. `keep-id`: the app's user is the same number outside.
    user_namespace: Option<Word<UserNamespaces>>,
}

/// A list of words that a schema offers.
trait Words {
    const NAME: &'static str;
    fn words() -> Vec<String>;
    /// Whether other text is taken too.
    const OPEN: bool = false;
}

/// Text that is one of some words.
struct Word<W>(std::marker::PhantomData<W>);

impl<W: Words> JsonSchema for Word<W> {
    fn schema_name() -> Cow<'static, str> {
        W::NAME.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words = W::words();
        if W::OPEN {
            return json_schema!({"anyOf": [{"enum": words}, {"type": "string"}]});
        }
        json_schema!({"enum": words})
    }
}

macro_rules! words {
    ($($type:ident $name:literal $open:literal $list:expr;)*) => {
        $(
            struct $type;

            impl Words for $type {
                const NAME: &'static str = $name;
                const OPEN: bool = $open;

                fn words() -> Vec<String> {
                    $list.into_iter().map(|word| word.to_string()).collect()
                }
            }
        )*
    };
}

words! {
    PolicyNames "PolicyName" true shipped::SHIPPED.iter().map(|profile| profile.name);
    CapabilityNames "Capability" true capability::NAMES.into_iter().chain(["ALL"]);
    CallNames "SystemCall" false syscalls::groups::GROUPS.iter().map(|group| group.name).chain(syscalls::all_names());
    GroupNames "SystemCallGroup" false syscalls::groups::GROUPS.iter().map(|group| group.name);
    ErrnoNames "ErrorNumber" true constants::ERRNOS.iter().map(|(name, _)| *name);
    ConstantNames "Constant" true constants::ARGUMENTS.iter().map(|(name, _)| *name);
    OperatorNames "Operator" false decode::operator_names();
    EnforceWords "Enforce" false decode::fields::ENFORCE.iter().map(|(name, _)| *name);
    NetworkModes "NetworkMode" false decode::sections::NETWORK_MODES.iter().map(|(name, _)| *name);
    Transports "Transport" false decode::egress::TRANSPORTS.iter().map(|(name, _)| *name);
    UserNamespaces "UserNamespace" false decode::sections::USER_NAMESPACES.iter().map(|(name, _)| *name);
    DeviceKinds "DeviceKind" false decode::sections::DEVICE_KINDS.iter().map(|(name, _)| *name);
    ScopeWords "ScopeWord" false ["confined", "open"];
    Unconfined "Unconfined" false ["unconfined"];
    Any "Any" false ["any"];
    NoPaths "NoPaths" false ["none"];
}

type PolicyName = Word<PolicyNames>;
type Enforce = Word<EnforceWords>;

/// 1.
struct Version;

impl JsonSchema for Version {
    fn schema_name() -> Cow<'static, str> {
        "Version".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"const": 1})
    }
}

/// A number, or text that says one.
struct Quantity;

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number, or a number with a unit (`64MiB`, `64M`, `0.5`, `500m`), or `unlimited`.",
            "type": ["number", "string"]
        })
    }
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Capabilities {
    /// Capabilities that are allowed.
    Allow(Vec<Word<CapabilityNames>>),
    Sets(CapabilitySets),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct CapabilitySets {
    /// What the app may hold.
    allow: Option<Vec<Word<CapabilityNames>>>,
    /// What it may not hold, whatever else allows it.
    deny: Option<Vec<Word<CapabilityNames>>>,
    /// What a user other than root holds from the start.
    ambient: Option<Vec<Word<CapabilityNames>>>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum SystemCalls {
    /// No filter; the device's owner must permit it.
    Unconfined(Word<Unconfined>),
    Rules(CallRules),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct CallRules {
    /// Calls and groups of calls that are allowed. A group does not widen a call that is named with conditions.
    allow: Option<Vec<CallRule>>,
    /// Calls and groups that are refused, whatever else allows them.
    deny: Option<Vec<CallRule>>,
    /// What happens on a kernel without system call filters.
    enforce: Option<Enforce>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum CallRule {
    Plain(Word<CallNames>),
    Full(Box<FullCallRule>),
}

/// Exactly one of `name`, `names` and `group`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct FullCallRule {
    /// One system call.
    name: Option<Word<CallNames>>,
    /// Several system calls.
    names: Option<Vec<Word<CallNames>>>,
    /// A group of system calls.
    group: Option<Word<GroupNames>>,
    /// Conditions on the arguments, all of which must hold.
    when: Option<OneOrMany<Condition>>,
    /// What a refused call returns; EPERM without it. Only in `deny`.
    errno: Option<OrNumber<ErrnoNames>>,
    /// Whether refusals are reported; true without it. Only in `deny`.
    log: Option<bool>,
    /// The rule counts only if one of these is held.
    if_capability: Option<OneOrMany<Word<CapabilityNames>>>,
    /// The rule counts only if none of these is held.
    unless_capability: Option<OneOrMany<Word<CapabilityNames>>>,
    /// What happens on a kernel without system call filters.
    enforce: Option<Enforce>,
}

#[derive(JsonSchema)]
#[schemars(untagged, bound = "W: Words")]
enum OrNumber<W> {
    Number(u64),
    Word(Word<W>),
}

/// A condition on one argument.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Condition {
    /// Which argument, from 0.
    #[schemars(range(min = 0, max = 5))]
    argument: u8,
    /// The comparison; `eq` without it.
    is: Option<Word<OperatorNames>>,
    /// A number, a constant, or constants joined by `|`.
    value: OrNumber<ConstantNames>,
    /// With `masked_eq`, the bits that are compared.
    mask: Option<OrNumber<ConstantNames>>,
    /// How many bits count, 32 or 64. Without it 64 where the rule allows, and 32 where it denies.
    width: Option<Width>,
}

/// 32 or 64.
struct Width;

impl JsonSchema for Width {
    fn schema_name() -> Cow<'static, str> {
        "Width".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"enum": [32, 64]})
    }
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Files {
    /// No rules on files; the image's permissions decide alone.
    Unconfined(Word<Unconfined>),
    Rules(FileRules),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct FileRules {
    /// Files and folders to read, with all below them.
    read: Option<Vec<PathRule>>,
    /// Files and folders to write, create in and remove from.
    write: Option<Vec<PathRule>>,
    /// Programs to run, or folders of them.
    execute: Option<Vec<PathRule>>,
    /// The lowest landlock ABI of the kernel that this policy accepts; what later ones add (3: truncating, 5: device ioctl) is then not required.
    #[schemars(range(min = 0, max = 6))]
    landlock_abi: Option<u32>,
    /// What happens on a kernel without landlock.
    enforce: Option<Enforce>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum PathRule {
    Plain(String),
    Full(FullPathRule),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct FullPathRule {
    /// An absolute path inside the container.
    path: String,
    /// Whether the path may be missing; else that stops the start.
    optional: Option<bool>,
    /// What happens on a kernel without landlock.
    enforce: Option<Enforce>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Network {
    /// `none`: nothing but loopback. `host`: the host's. `bridge`: an address of its own.
    mode: Option<Word<NetworkModes>>,
    /// TCP ports to listen on; `any` is every one.
    bind: Option<Ports>,
    /// TCP ports to connect to; `any` is every one.
    connect: Option<Ports>,
    /// Whether UDP may be used. Landlock cannot bound its ports.
    udp: Option<bool>,
    /// Whether echo requests may be sent.
    icmp: Option<bool>,
    /// Where packets may go beyond the container's own networks; `any` is everywhere. Needs `bridge`.
    egress: Option<Egress>,
    /// Containers in the same networks, by name, that it talks to: both must list each other.
    peers: Option<Vec<String>>,
    /// What happens on a kernel that has no rules for ports.
    enforce: Option<Enforce>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Egress {
    Any(Word<Any>),
    These(Vec<Destination>),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Destination {
    /// An address, a network or a name: `192.0.2.0/24`, `broker.example.com`, `*.example.com`.
    Plain(String),
    Full(FullDestination),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct FullDestination {
    /// An address, a network or a name.
    to: String,
    /// `tcp` or `udp`.
    protocol: Option<Word<Transports>>,
    /// Ports and ranges of the protocol.
    ports: Option<Vec<Port>>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Ports {
    Any(Word<Any>),
    These(Vec<Port>),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Port {
    One(u16),
    /// A range: `8000-8010`.
    Range(String),
    Full(FullPort),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct FullPort {
    /// A port, or a range: `8000-8010`.
    port: NumberOrText,
    /// What happens on a kernel that has no rules for ports.
    enforce: Option<Enforce>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Scope {
    /// Signals to processes outside, where the container shares the host's process ids.
    signals: Option<Word<ScopeWords>>,
    /// Abstract unix sockets outside, where the container shares the host's network.
    abstract_sockets: Option<Word<ScopeWords>>,
    /// What happens on a kernel that has no scopes.
    enforce: Option<Enforce>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Device {
    /// `standard`, `all`, or a path below `/dev`, which may hold `*`, `?` and `[…]`.
    Plain(String),
    Full(FullDevice),
}

/// Either `path`, or `type` with `major` and `minor`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct FullDevice {
    /// A path below `/dev`, which may hold `*`, `?` and `[…]`.
    path: Option<String>,
    /// The kind of node.
    r#type: Option<Word<DeviceKinds>>,
    /// The major number; `*` is every one.
    major: Option<NumberOrText>,
    /// The minor number; `*` is every one.
    minor: Option<NumberOrText>,
    /// Some of `r`, `w` and `m`; `rw` without it.
    #[schemars(regex(pattern = "^[rwm]{1,3}$"))]
    access: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Limits {
    /// Memory.
    memory: Option<Quantity>,
    /// Swap, beside memory.
    swap: Option<Quantity>,
    /// Processor time: 1 is one processor, `500m` half of one.
    cpu: Option<Quantity>,
    /// Processes and threads.
    pids: Option<Quantity>,
    /// Open files per process.
    files: Option<Quantity>,
    /// Bytes per second from and to block devices.
    io: Option<Io>,
    /// The size of each tmpfs that does not say its own.
    tmpfs: Option<Quantity>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Io {
    /// Reading.
    read: Option<Quantity>,
    /// Writing.
    write: Option<Quantity>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Process {
    /// `user` or `user:group`, each a name of the image or a number.
    user: Option<NumberOrText>,
    /// Whether programs may not raise privileges; true without it.
    no_new_privileges: Option<bool>,
    /// Whether the image is read-only.
    read_only_root: Option<bool>,
    /// The file mode creation mask, in octal.
    umask: Option<NumberOrText>,
    /// Paths that are hidden; `standard` is Docker's list, which also holds without this field.
    masked_paths: Option<Paths>,
    /// Paths that are read-only; `standard` is Docker's list, which also holds without this field.
    read_only_paths: Option<Paths>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Paths {
    /// Nothing, not even what Docker protects; the device's owner must permit it.
    None(Word<NoPaths>),
    These(Vec<String>),
}

/// Exactly one of `bind`, `volume` and `tmpfs`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Mount {
    /// A path of the host.
    bind: Option<String>,
    /// A named volume.
    volume: Option<String>,
    /// Memory of a size, or `default`.
    tmpfs: Option<Quantity>,
    /// An absolute path inside the container.
    target: String,
    /// Whether it is read-only.
    read_only: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys_of(schema: &serde_json::Value, at: &str) -> Vec<String> {
        let properties = schema.pointer(at).and_then(|node| node.get("properties"));
        let mut keys: Vec<String> = properties
            .and_then(|p| p.as_object())
            .map(|p| p.keys().cloned().collect())
            .unwrap_or_default();
        keys.sort();
        keys
    }

    #[test]
    fn the_schema_has_the_fields_that_the_parser_reads() {
        let schema = json_schema();
        for (at, keys) in [
            ("", decode::KEYS.as_slice()),
            ("/$defs/CapabilitySets", &decode::sections::CAPABILITIES_KEYS),
            ("/$defs/CallRules", &["allow", "deny", "enforce"]),
            ("/$defs/FullCallRule", &decode::CALL_KEYS),
            ("/$defs/Condition", &decode::CONDITION_KEYS),
            ("/$defs/FileRules", &decode::sections::FILES_KEYS),
            ("/$defs/FullPathRule", &decode::sections::PATH_KEYS),
            ("/$defs/Network", &decode::sections::NETWORK_KEYS),
            ("/$defs/FullPort", &decode::sections::PORT_KEYS),
            ("/$defs/FullDestination", &decode::egress::EGRESS_KEYS),
            ("/$defs/Scope", &decode::sections::SCOPE_KEYS),
            ("/$defs/FullDevice", &decode::sections::DEVICE_KEYS),
            ("/$defs/Limits", &decode::sections::LIMIT_KEYS),
            ("/$defs/Process", &decode::sections::PROCESS_KEYS),
            ("/$defs/Mount", &decode::sections::MOUNT_KEYS),
        ] {
            let mut want: Vec<&str> = keys.to_vec();
            want.sort_unstable();
            assert_eq!(keys_of(&schema, at), want, "{at}");
        }
    }
}
