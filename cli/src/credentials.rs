//! Credentials for registries, where Docker keeps them: `config.json` and helper programs.
//!
//! Owns the file's format and the helpers' protocol. Refuses to send anything. Invariants: what is in the file and not ours stays as it is; the
//! file is replaced as a whole and only its owner reads it; no error holds a secret.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kakoi_api::registry::{AuthConfig, join_pair, split_pair};
use serde_json::{Map, Value, json};

use crate::bounded::{ReadError, read_text};

/// Longest `config.json`.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The registry meant where none is named, and the name under which Docker keeps its credentials.
pub const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_KEY: &str = "https://index.docker.io/v1/";
/// The user name under which helpers keep a refresh token.
const TOKEN_USER: &str = "<token>";

/// Why credentials cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is no JSON object.
    #[error("{} is not a JSON object: correct it, or remove it and log in again", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error("writing {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Nobody knows where it is.
    #[error("there is no home folder to keep credentials in: name a file with --authfile")]
    NoHome,
    /// A helper's name that is none.
    #[error("{name:?} is not a credential helper's name")]
    HelperName {
        /// The name.
        name: String,
    },
    /// A helper cannot be run.
    #[error("running the credential helper {program}")]
    HelperRun {
        /// The program.
        program: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A helper failed.
    #[error("the credential helper {program} failed: {words}")]
    HelperFailed {
        /// The program.
        program: String,
        /// Its words.
        words: String,
    },
    /// A login that there is none of.
    #[error("not logged in to {registry}")]
    NotLoggedIn {
        /// The registry.
        registry: String,
    },
}

/// One person's credentials.
pub struct Credentials {
    path: PathBuf,
    document: Map<String, Value>,
}

/// The registry of an image's name, by Docker's rule.
pub fn registry_of(name: &str) -> &str {
    let is_host = |first: &str| {
        first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
    };
    match name.split_once('/') {
        Some(("index.docker.io", _)) | None => DEFAULT_REGISTRY,
        Some((first, _)) if is_host(first) => first,
        Some(_) => DEFAULT_REGISTRY,
    }
}

/// A registry as a person names it, without what belongs to an address.
pub fn registry_name(text: &str) -> &str {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    match bare.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
        host => host,
    }
}

impl Credentials {
    /// Reads the file that is named, or else Docker's.
    pub fn open(authfile: Option<&Path>) -> Result<Self, CredentialError> {
        let path = match authfile {
            Some(path) => path.to_owned(),
            None => default_path(|name| std::env::var_os(name)).ok_or(CredentialError::NoHome)?,
        };
        let text = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            _ => read_text(&path, FILE_BYTES_MAX)?,
        };
        let document = match text.trim() {
            "" => Map::new(),
            text => match serde_json::from_str(text) {
                Ok(Value::Object(document)) => document,
                _ => return Err(CredentialError::Json { path }),
            },
        };
        Ok(Self { path, document })
    }

    /// The header with the credentials for an image's registry; `None` where there are none. No home folder means no credentials.
    pub fn header_for(authfile: Option<&Path>, name: &str) -> Result<Option<String>, CredentialError> {
        match Self::open(authfile) {
            Ok(credentials) => Ok(credentials.get(registry_of(name))?.map(|auth| auth.to_header())),
            Err(CredentialError::NoHome) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The helper that keeps a registry's credentials.
    pub fn helper(&self, registry: &str) -> Option<String> {
        let own = self.document.get("credHelpers");
        let own = own.and_then(|helpers| keys(registry).iter().find_map(|key| helpers.get(key)));
        let name = own.or(self.document.get("credsStore"))?.as_str()?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// The credentials for a registry.
    pub fn get(&self, registry: &str) -> Result<Option<AuthConfig>, CredentialError> {
        if let Some(helper) = self.helper(registry) {
            for key in keys(registry) {
                if let Some(found) = helper_get(&helper, &key)? {
                    return Ok(Some(AuthConfig {
                        serveraddress: registry.to_owned(),
                        ..found
                    }));
                }
            }
        }
        let auths = self.document.get("auths");
        let entry = auths.and_then(|auths| keys(registry).iter().find_map(|key| auths.get(key)));
        let Some(entry) = entry else { return Ok(None) };
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let (username, password) =
            split_pair(&text("auth")).unwrap_or_else(|| (text("username"), text("password")));
        let auth = AuthConfig {
            username,
            password,
            identitytoken: text("identitytoken"),
            registrytoken: text("registrytoken"),
            serveraddress: registry.to_owned(),
            ..AuthConfig::default()
        };
        let is_empty =
            auth.username.is_empty() && auth.identitytoken.is_empty() && auth.registrytoken.is_empty();
        Ok((!is_empty).then_some(auth))
    }

    /// Keeps credentials: with the helper where there is one, else in the file.
    pub fn store(&mut self, registry: &str, username: &str, password: &str) -> Result<(), CredentialError> {
        let key = key_of(registry);
        if let Some(helper) = self.helper(registry) {
            let secret = json!({"ServerURL": key, "Username": username, "Secret": password});
            run_helper(&helper, "store", secret.to_string().as_bytes())?;
            return self.set(key, json!({}));
        }
        self.set(key, json!({"auth": join_pair(username, password)}))
    }

    /// Forgets credentials.
    pub fn erase(&mut self, registry: &str) -> Result<(), CredentialError> {
        let helper = self.helper(registry);
        let mut was_there = false;
        for key in keys(registry) {
            if let Some(helper) = &helper {
                was_there |= helper_get(helper, &key)?.is_some();
                run_helper(helper, "erase", key.as_bytes())?;
            }
            let auths = self.document.get_mut("auths").and_then(Value::as_object_mut);
            was_there |= auths.is_some_and(|auths| auths.shift_remove(&key).is_some());
        }
        if !was_there {
            return Err(CredentialError::NotLoggedIn {
                registry: registry.to_owned(),
            });
        }
        self.save()
    }

    /// Registries that the file has credentials for.
    pub fn registries(&self) -> Vec<String> {
        let auths = self.document.get("auths").and_then(Value::as_object);
        let names = auths.into_iter().flat_map(|auths| auths.keys());
        names.map(|key| registry_name(key).to_owned()).collect()
    }

    fn set(&mut self, key: String, entry: Value) -> Result<(), CredentialError> {
        let auths = self.document.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            return Err(CredentialError::Json {
                path: self.path.clone(),
            });
        }
        auths[key] = entry;
        self.save()
    }

    /// Written aside, synced, renamed.
    fn save(&self) -> Result<(), CredentialError> {
        let failed = |cause| CredentialError::Write {
            path: self.path.clone(),
            cause,
        };
        // A link is kept: people share one file between tools.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(failed)?;
        }
        let mut aside = path.clone().into_os_string();
        aside.push(format!(".{}", std::process::id()));
        let text = serde_json::to_vec_pretty(&self.document).expect("it was JSON");
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&aside)
            .and_then(|mut file| {
                file.write_all(&text)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&aside, &path));
        if written.is_err() {
            fs::remove_file(&aside).ok();
        }
        written.map_err(failed)
    }
}

fn default_path(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    let get = |name: &str| variable(name).filter(|value| !value.is_empty());
    match get("DOCKER_CONFIG") {
        Some(folder) => Some(PathBuf::from(folder).join("config.json")),
        None => Some(PathBuf::from(get("HOME")?).join(".docker/config.json")),
    }
}

/// The key under which we keep a registry's credentials.
fn key_of(registry: &str) -> String {
    match registry {
        DEFAULT_REGISTRY => DEFAULT_KEY.to_owned(),
        other => other.to_owned(),
    }
}

/// The keys under which others may have kept them.
fn keys(registry: &str) -> Vec<String> {
    let mut keys = vec![key_of(registry)];
    for form in [
        "{}",
        "https://{}",
        "http://{}",
        "https://{}/v1/",
        "https://{}/v2/",
    ] {
        let key = form.replace("{}", registry);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    if registry == DEFAULT_REGISTRY {
        keys.push(String::from("index.docker.io"));
    }
    keys
}

fn helper_get(helper: &str, key: &str) -> Result<Option<AuthConfig>, CredentialError> {
    let output = match run_helper(helper, "get", key.as_bytes()) {
        Ok(output) => output,
        // The protocol's words for "there are none" (docker-credential-helpers).
        Err(CredentialError::HelperFailed { words, .. }) if words.contains("credentials not found") => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let found: Value = serde_json::from_slice(&output).unwrap_or(Value::Null);
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    let (username, secret) = (text("Username"), text("Secret"));
    if username.is_empty() || secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(match username.as_str() {
        TOKEN_USER => AuthConfig {
            identitytoken: secret,
            ..AuthConfig::default()
        },
        _ => AuthConfig {
            username,
            password: secret,
            ..AuthConfig::default()
        },
    }))
}

fn run_helper(helper: &str, verb: &str, input: &[u8]) -> Result<Vec<u8>, CredentialError> {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !helper.bytes().all(is_word) {
        return Err(CredentialError::HelperName {
            name: helper.to_owned(),
        });
    }
    let program = format!("docker-credential-{helper}");
    let failed = |cause| CredentialError::HelperRun {
        program: program.clone(),
        cause,
    };
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read has its reasons, which its status tells.
        stdin.write_all(input).ok();
    }
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stdout);
        return Err(CredentialError::HelperFailed {
            program,
            words: crate::text::printable(words.trim()),
        });
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn registries_are_told_from_names() {
        for (name, registry) in [
            ("busybox", "docker.io"),
            ("a/b:1", "docker.io"),
            ("index.docker.io/a", "docker.io"),
            ("localhost/a", "localhost"),
            ("r:5000/a/b", "r:5000"),
            ("ghcr.io/a@sha256:x", "ghcr.io"),
        ] {
            assert_eq!(registry_of(name), registry, "{name}");
        }
        assert_eq!(registry_name("https://index.docker.io/v1/"), "docker.io");
        assert_eq!(registry_name("http://r:5000/"), "r:5000");
        assert_eq!(registry_name(""), "docker.io");
    }

    #[test]
    fn the_file_is_docker_s_and_keeps_what_is_not_ours() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/config.json");
        let mut credentials = Credentials::open(Some(&path)).expect("none yet");
        assert!(credentials.get("r:5000").expect("read").is_none());
        credentials.store("r:5000", "u", "p").expect("stored");
        credentials.store("docker.io", "h", "q").expect("stored");
        let mode = fs::metadata(&path).expect("written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut text = fs::read_to_string(&path).expect("read");
        assert!(text.contains("https://index.docker.io/v1/") && text.contains("dTpw"));
        text = text.replacen('{', "{\"detachKeys\": \"ctrl-e\",", 1);
        fs::write(&path, text).expect("written");
        let mut credentials = Credentials::open(Some(&path)).expect("read");
        let found = credentials.get("docker.io").expect("read").expect("there");
        assert!(found.username == "h" && found.password == "q" && found.serveraddress == "docker.io");
        assert_eq!(credentials.registries(), ["r:5000", "docker.io"]);
        credentials.erase("r:5000").expect("erased");
        assert!(matches!(
            credentials.erase("r:5000"),
            Err(CredentialError::NotLoggedIn { .. })
        ));
        assert!(fs::read_to_string(&path).expect("read").contains("ctrl-e"));
        fs::write(&path, "[]").expect("written");
        assert!(matches!(
            Credentials::open(Some(&path)),
            Err(CredentialError::Json { .. })
        ));
    }

    #[test]
    fn a_helper_s_name_is_no_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.json");
        fs::write(
            &path,
            r#"{"credHelpers": {"r": "../x"}, "credsStore": "nowhere-to-be-found"}"#,
        )
        .expect("written");
        let credentials = Credentials::open(Some(&path)).expect("read");
        assert!(matches!(
            credentials.get("r"),
            Err(CredentialError::HelperName { .. })
        ));
        assert!(matches!(
            credentials.get("s"),
            Err(CredentialError::HelperRun { .. })
        ));
    }
}
