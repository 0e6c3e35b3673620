//! Which policy confines a container: the shelf of known ones, the owner's ceiling, and the decision.
//!
//! Owns `<config>/policies/*.yaml` and `<config>/ceiling.yaml` as texts in memory, read at the start and on SIGHUP: a container that exists keeps the
//! confinement it was created with. Fails closed: a ceiling that cannot be read stops the daemon, or, on SIGHUP, leaves the one before in force.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use kakoi_api::container::CreateBody;
use kakoi_api::kakoi::{PolicySummary, PolicyText};
use kakoi_policy::confinement::{Confinement, Identity};
use kakoi_policy::kernel::KernelFacts;
use kakoi_policy::{
    Bounded, Capability, Ceiling, Composed, DEFAULT_POLICY, DOCUMENT_BYTES_MAX, Diagnostics, LimitRequests,
    NeighbourRequests, NetworkRequest, OwnLimits, Resolver, SHIPPED, bound, bound_limits, bound_neighbours,
    bound_network, compile, compose, parse,
};

use crate::config::{ConfigError, Settings, read_owner_file};
use crate::refusal::{Answer, Refusal, chain};

/// The label that names a container's policy.
pub const LABEL: &str = "io.kakoi.policy";
/// Longest name of a policy that a request brings: a path of the client (PATH_MAX).
const PATH_BYTES_MAX: usize = 4096;
/// Policies that an owner may put on the shelf: each is read into memory.
const LOCAL_MAX: usize = 256;
/// Compiled policies that are remembered, each some tens of kilobytes: a device starts the same few apps again and again.
const COMPILED_MAX: usize = 4;

/// The policy of containers that Docker's clients make: unmodified images work under it.
const DOCKER_DEFAULT: &str = "docker-default";

/// Which socket a request came by. Docker's clients know nothing of policies, so what holds where they name none is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `kakoid.sock`.
    Kakoi,
    /// `docker.sock`.
    Docker,
}

/// The policy of a request.
enum Chosen {
    /// One that this device knows.
    Named(String),
    /// A file's name and text.
    Brought(String, String),
}

/// The most that a ceiling lets containers have, of what their daemon must hold itself to hand it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// Capabilities, bit n being number n.
    pub capabilities: u64,
    /// Whether executing a program may give more of them.
    pub new_privileges: bool,
}

/// The known policies and the ceiling.
#[derive(Debug)]
pub struct Shelf {
    local: BTreeMap<String, String>,
    ceiling: Ceiling,
    default: String,
    docker_default: String,
    /// What named policies say, once somebody asked: texts do not change for as long as this shelf stands.
    composed: Mutex<BTreeMap<String, Composed>>,
    /// What was compiled last, newest first.
    compiled: Mutex<Vec<Compiled>>,
}

/// The same policy compiled for the same identity and kernel is the same confinement: compiling is pure.
#[derive(Debug)]
struct Compiled {
    policy: Composed,
    identity: Identity,
    facts: KernelFacts,
    confinement: Confinement,
}

impl Shelf {
    /// Reads the owner's files.
    pub fn read(config: &Path, settings: &Settings) -> Result<Self, ConfigError> {
        let path = config.join("ceiling.yaml");
        let ceiling = match read_owner_file(&path, DOCUMENT_BYTES_MAX as u64)? {
            Some(text) => Ceiling::parse(&path.display().to_string(), &text).map_err(|diagnostics| {
                ConfigError::Invalid {
                    path,
                    reason: diagnostics.to_string(),
                }
            })?,
            None => Ceiling::built_in(),
        };
        if ceiling.closes_bridges() {
            tracing::warn!(
                "ceiling.yaml lets apps have a bridge that no packet leaves: write `egress: any`, or a list of destinations"
            );
        }
        let default = |other: &str| ceiling.default_policy.clone().unwrap_or_else(|| other.to_owned());
        Ok(Self {
            local: read_local(&config.join("policies"))?,
            default: default(&settings.default_policy),
            docker_default: default(DOCKER_DEFAULT),
            ceiling,
            composed: Mutex::default(),
            compiled: Mutex::default(),
        })
    }

    /// The most that a container may be given of what a daemon has to hold for it.
    pub fn most(&self) -> Most {
        Most {
            capabilities: self.ceiling.capabilities(),
            new_privileges: self.ceiling.allows_new_privileges(),
        }
    }

    /// Which policy a request names or brings.
    fn choose(&self, body: &CreateBody) -> Answer<Chosen> {
        let choice = body.policy.clone().unwrap_or_default();
        if let Some(source) = choice.source {
            if source.len() > DOCUMENT_BYTES_MAX {
                return Err(Refusal::bad(format!(
                    "the policy is longer than {DOCUMENT_BYTES_MAX} bytes"
                )));
            }
            let name = if choice.name.is_empty() {
                "policy.yaml".into()
            } else {
                choice.name
            };
            if name.len() > PATH_BYTES_MAX || name.chars().any(char::is_control) {
                return Err(Refusal::bad(
                    "the policy's name is too long or holds control characters",
                ));
            }
            return Ok(Chosen::Brought(name, source));
        }
        let name = Self::name_of(body).unwrap_or(&self.default);
        if name.starts_with('/') {
            return Ok(Chosen::Brought(name.to_owned(), read_brought(Path::new(name))?));
        }
        Ok(Chosen::Named(name.to_owned()))
    }

    /// The policy of requests that name none, by the socket they come by; the owner's ceiling decides for both.
    pub fn default_for(&self, door: Door) -> &str {
        match door {
            Door::Kakoi => &self.default,
            Door::Docker => &self.docker_default,
        }
    }

    /// The name that a request gives: in Kakoi's own field, as an option or as a label.
    fn name_of(body: &CreateBody) -> Option<&str> {
        let option = body.host_config.security_opt.iter().find_map(|option| {
            option
                .strip_prefix("kakoi")
                .and_then(|rest| rest.strip_prefix(['=', ':']))
        });
        let named = [
            body.policy.as_ref().map(|choice| choice.name.as_str()),
            option,
            body.config.labels.get(LABEL).map(String::as_str),
        ];
        named.into_iter().flatten().find(|name| !name.is_empty())
    }

    /// Whether a request says which policy it wants.
    pub fn is_named(&self, body: &CreateBody) -> bool {
        let brings = body.policy.as_ref().is_some_and(|choice| choice.source.is_some());
        brings || Self::name_of(body).is_some()
    }

    /// Shipped ones come first, so that no file can take the place of one.
    fn find(&self, name: &str) -> Option<(String, String)> {
        if let Some(profile) = SHIPPED.iter().find(|profile| profile.name == name) {
            return Some((profile.file(), profile.text.to_owned()));
        }
        self.local
            .get(name)
            .map(|text| (format!("{name}.yaml"), text.clone()))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        SHIPPED
            .iter()
            .map(|profile| profile.name)
            .chain(self.local.keys().map(String::as_str))
    }

    /// Composes a request's policy: what it says before flags and ceiling.
    pub fn composed(&self, body: &CreateBody) -> Answer<Composed> {
        let name = match self.choose(body)? {
            Chosen::Brought(file, text) => return self.compose(&file, &text),
            Chosen::Named(name) => name,
        };
        let known = || self.composed.lock().expect("no panic while locked");
        if let Some(composed) = known().get(&name) {
            return Ok(composed.clone());
        }
        let (file, text) = self.find(&name).ok_or_else(|| {
            let known: Vec<&str> = self.names().collect();
            Refusal::bad(format!("no such policy: {name}; known are {}", known.join(", ")))
        })?;
        let composed = self.compose(&file, &text)?;
        known().insert(name, composed.clone());
        Ok(composed)
    }

    fn compose(&self, file: &str, text: &str) -> Answer<Composed> {
        let invalid = |diagnostics: Diagnostics| Refusal::bad(format!("invalid policy:\n{diagnostics}"));
        let policy = parse(file, text).map_err(invalid)?;
        compose(&policy, self).map_err(invalid)
    }

    /// Bounds and compiles.
    pub fn decide(&self, asked: Composed, identity: &Identity, facts: &KernelFacts) -> Answer<Confinement> {
        let bounded =
            bound(&asked, &self.ceiling).map_err(|excess| Refusal::forbidden(excess.to_string()))?;
        let known = || self.compiled.lock().expect("no panic while locked");
        let is_same = |known: &Compiled| {
            known.policy == bounded && known.identity == *identity && known.facts == *facts
        };
        if let Some(found) = known().iter().find(|known| is_same(known)) {
            return Ok(found.confinement.clone());
        }
        let confinement = compile(&bounded, identity, facts).map_err(|error| {
            Refusal::forbidden(format!(
                "policy {:?} cannot be enforced here: {}",
                bounded.name,
                chain(&error)
            ))
        })?;
        let mut known = known();
        known.truncate(COMPILED_MAX - 1);
        let compiled = Compiled {
            policy: bounded,
            identity: identity.clone(),
            facts: facts.clone(),
            confinement: confinement.clone(),
        };
        known.insert(0, compiled);
        Ok(confinement)
    }

    /// Judges new limits of a container that is there.
    pub fn limits(&self, policy: &str, own: &OwnLimits, asked: &LimitRequests) -> Answer<Bounded> {
        bound_limits(policy, own, asked, &self.ceiling)
            .map_err(|excess| Refusal::forbidden(excess.to_string()))
    }

    /// Judges what a container that is there is to take from its neighbours.
    pub fn neighbours(&self, policy: &str, asked: &NeighbourRequests) -> Answer<()> {
        bound_neighbours(policy, asked, &self.ceiling)
            .map_err(|excess| Refusal::forbidden(excess.to_string()))
    }

    /// Judges a network that a client wants to make.
    pub fn network(&self, asked: &NetworkRequest) -> Answer<()> {
        bound_network(asked, &self.ceiling).map_err(|excess| Refusal::forbidden(excess.to_string()))
    }

    /// The owner's ceiling.
    pub fn ceiling(&self) -> &Ceiling {
        &self.ceiling
    }

    /// All, for people.
    pub fn list(&self) -> Vec<PolicySummary> {
        self.names()
            .filter_map(|name| {
                let (file, text) = self.find(name)?;
                let is_shipped = SHIPPED.iter().any(|profile| profile.name == name);
                let error = parse(&file, &text)
                    .and_then(|policy| compose(&policy, self))
                    .err();
                Some(PolicySummary {
                    name: name.to_owned(),
                    origin: if is_shipped { "shipped" } else { "local" }.into(),
                    description: description(&text),
                    error: error
                        .map(|diagnostics| diagnostics.to_string())
                        .unwrap_or_default(),
                })
            })
            .collect()
    }

    /// One, as text.
    pub fn text(&self, name: &str) -> Answer<PolicyText> {
        let (_, source) = self
            .find(name)
            .ok_or_else(|| Refusal::missing(format!("no such policy: {name}")))?;
        let is_shipped = SHIPPED.iter().any(|profile| profile.name == name);
        Ok(PolicyText {
            name: name.into(),
            origin: if is_shipped { "shipped" } else { "local" }.into(),
            source,
        })
    }
}

impl Most {
    /// What this has and `other` has not.
    pub fn names_beyond(self, other: Self) -> Vec<String> {
        let more = self.capabilities & !other.capabilities;
        let capabilities = Capability::all().filter(|capability| more & capability.bit() != 0);
        let privileges = (self.new_privileges && !other.new_privileges).then_some("new privileges");
        capabilities
            .map(|capability| capability.name().to_owned())
            .chain(privileges.map(str::to_owned))
            .collect()
    }
}

impl Resolver for Shelf {
    fn resolve(&self, name: &str) -> Option<(String, String)> {
        self.local
            .get(name)
            .map(|text| (format!("{name}.yaml"), text.clone()))
    }
}

/// Reads a policy that a request names by a path of this host. Whoever may use the socket is not to read what only root reads: it must be a file that
/// everyone may read, reached through no link. Whatever else is there reads as nothing.
fn read_brought(path: &Path) -> Answer<String> {
    let none = || {
        Refusal::bad(format!(
            "no such policy: {}; a path names a file of this host that everyone may read, reached by no link and no longer than {DOCUMENT_BYTES_MAX} bytes",
            path.display()
        ))
    };
    kakoi_sys::path::read_public_file(path, DOCUMENT_BYTES_MAX as u64).map_err(|_| none())
}

/// The first comment line.
fn description(text: &str) -> String {
    let comment = text.lines().find_map(|line| line.trim_start().strip_prefix('#'));
    comment.unwrap_or_default().trim().to_owned()
}

fn read_local(folder: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let read = |cause| ConfigError::Read {
        path: folder.to_owned(),
        cause,
    };
    let entries = match fs::read_dir(folder) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        other => other.map_err(read)?,
    };
    let mut local = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(read)?.path();
        let (Some(name), Some("yaml")) = (
            path.file_stem().and_then(|s| s.to_str()),
            path.extension().and_then(|e| e.to_str()),
        ) else {
            continue;
        };
        if name == DEFAULT_POLICY || SHIPPED.iter().any(|profile| profile.name == name) {
            tracing::warn!(path = %path.display(), "ignoring a policy that has the name of a shipped one");
            continue;
        }
        if local.len() == LOCAL_MAX {
            let reason = format!("it holds more than {LOCAL_MAX} policies");
            return Err(ConfigError::Invalid {
                path: folder.to_owned(),
                reason,
            });
        }
        if let Some(text) = read_owner_file(&path, DOCUMENT_BYTES_MAX as u64)? {
            local.insert(name.to_owned(), text);
        }
    }
    Ok(local)
}

#[cfg(test)]
mod tests {
    use kakoi_api::kakoi::PolicyChoice;

    use super::*;

    fn shelf(files: &[(&str, &str)]) -> Result<Shelf, ConfigError> {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("policies")).expect("a folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("a file");
        }
        Shelf::read(folder.path(), &Settings::default())
    }

    fn named(name: &str) -> CreateBody {
        CreateBody {
            policy: Some(PolicyChoice {
                name: name.into(),
                source: None,
            }),
            ..CreateBody::default()
        }
    }

    #[test]
    fn the_default_is_the_strictest_and_names_are_found() {
        let shelf = shelf(&[
            ("policies/app.yaml", "kakoi: 1\nextends: [strict]\n"),
            ("policies/strict.yaml", "bad"),
        ])
        .expect("valid");
        assert_eq!(
            shelf.composed(&CreateBody::default()).expect("the default").name,
            "strict"
        );
        assert_eq!(shelf.composed(&named("app")).expect("local").name, "app");
        assert!(
            shelf
                .composed(&named("ap"))
                .expect_err("unknown")
                .message
                .contains("app")
        );
        let mut labelled = CreateBody::default();
        labelled
            .config
            .labels
            .insert(LABEL.into(), "docker-default".into());
        assert_eq!(
            shelf.composed(&labelled).expect("by label").name,
            "docker-default"
        );
        labelled.host_config.security_opt.push("kakoi=app".into());
        assert_eq!(
            shelf.composed(&labelled).expect("an option before a label").name,
            "app"
        );
        assert!(shelf.list().iter().all(|row| row.error.is_empty()));
    }

    #[test]
    fn the_door_chooses_where_nobody_else_does_and_the_ceiling_closes_both() {
        let own = shelf(&[]).expect("valid");
        assert_eq!(own.default_for(Door::Kakoi), "strict");
        assert_eq!(own.default_for(Door::Docker), "docker-default");
        let strict = shelf(&[("ceiling.yaml", "kakoi: 1\ndefault_policy: strict\n")]).expect("valid");
        assert_eq!(strict.default_for(Door::Docker), "strict");
    }

    #[test]
    fn a_policy_by_path_is_what_everyone_may_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let shelf = shelf(&[]).expect("valid");
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().canonicalize().expect("a real path");
        let file = folder.join("app.yaml");
        fs::write(&file, "kakoi: 1\nextends: [strict]\n").expect("a file");
        std::os::unix::fs::symlink(&file, folder.join("link.yaml")).expect("a link");
        let ask = |path: &Path| {
            let mut body = CreateBody::default();
            body.host_config
                .security_opt
                .push(format!("kakoi={}", path.display()));
            shelf.composed(&body)
        };
        let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("a mode");
        mode(0o644);
        assert_eq!(ask(&file).expect("everyone may read it").name, "app");
        for bad in [
            folder.join("link.yaml"),
            folder.join("none"),
            folder.clone(),
            "/etc/shadow".into(),
        ] {
            let refusal = ask(&bad).expect_err("no policy");
            assert!(
                refusal.message.starts_with("no such policy"),
                "{}",
                refusal.message
            );
        }
        mode(0o600);
        assert!(
            ask(&file)
                .expect_err("root's alone")
                .message
                .starts_with("no such policy")
        );
    }

    #[test]
    fn what_is_remembered_is_what_would_be_compiled() {
        let shelf = shelf(&[]).expect("valid");
        let facts = crate::plan::build::tests::facts();
        let identity = |uid| Identity {
            uid,
            gid: 0,
            groups: vec![],
            umask: 0o022,
        };
        for _ in 0..2 {
            for (name, uid) in [
                ("strict", 0),
                ("docker-default", 0),
                ("strict", 1000),
                ("network-server", 0),
            ] {
                let composed = shelf.composed(&named(name)).expect("shipped");
                let fresh = bound(&composed, &shelf.ceiling).expect("within the ceiling");
                let fresh = compile(&fresh, &identity(uid), &facts).expect("enforceable");
                let decided = shelf
                    .decide(composed, &identity(uid), &facts)
                    .expect("enforceable");
                assert_eq!(decided, fresh, "{name} for {uid}");
            }
        }
        let mut older = facts.clone();
        older.seccomp_log = false;
        let composed = || shelf.composed(&named("strict")).expect("shipped");
        let (now, then) = (
            shelf
                .decide(composed(), &identity(0), &facts)
                .expect("enforceable"),
            shelf
                .decide(composed(), &identity(0), &older)
                .expect("enforceable"),
        );
        assert_ne!(now, then, "another kernel is another confinement");
        assert!(shelf.compiled.lock().expect("no panic while locked").len() <= COMPILED_MAX);
    }

    #[test]
    fn a_bad_policy_is_refused_with_its_place() {
        let shelf = shelf(&[]).expect("valid");
        let source = Some("kakoi: 1\ncapabilites: {}\n".into());
        let body = CreateBody {
            policy: Some(PolicyChoice {
                name: "x.yaml".into(),
                source,
            }),
            ..Default::default()
        };
        let refusal = shelf.composed(&body).expect_err("a typo");
        assert_eq!(refusal.status.as_u16(), 400);
        assert!(refusal.message.contains("x.yaml:2:1"), "{}", refusal.message);
    }

    #[test]
    fn a_daemon_is_asked_for_no_more_than_the_ceiling_it_started_under_allowed() {
        let most = |ceiling: &str| {
            let text = format!("kakoi: 1\n{ceiling}\n");
            shelf(&[("ceiling.yaml", &text)]).expect("valid").most()
        };
        let little = most("capabilities: [CHOWN]");
        let more = most("capabilities: [CHOWN, SYS_TIME]\nnew_privileges: true");
        let all = most("privileged: true");
        assert_eq!(more.names_beyond(little), ["SYS_TIME", "new privileges"]);
        assert!(little.names_beyond(more).is_empty());
        assert_eq!(all.names_beyond(more).len(), 39);
        assert!(more.names_beyond(all).is_empty());
    }

    #[test]
    fn a_broken_ceiling_is_no_ceiling() {
        assert!(shelf(&[("ceiling.yaml", "kakoi: 1\nprivilegd: true\n")]).is_err());
    }
}
