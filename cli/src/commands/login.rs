//! `kakoi login` and `kakoi logout`: credentials for registries, kept where Docker keeps them.

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::path::PathBuf;

use kakoi_api::registry::AuthConfig;

use crate::client::{Client, ClientError, Target};
use crate::credentials::{Credentials, registry_name};
use crate::failure::Failure;
use crate::{output, terminal};

/// Longest password from standard input: tokens of cloud registries have up to 12 KiB.
const PASSWORD_BYTES_MAX: u64 = 64 << 10;

/// The arguments of `kakoi login`.
#[derive(clap::Args, Debug)]
pub struct LoginArguments {
    /// User name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password; better left out, since other users of the machine can see it
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// The file to keep credentials in, in Docker's format
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true)]
    authfile: Option<PathBuf>,
    /// The registry; docker.io where it is absent
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    registry: String,
}

/// The arguments of `kakoi logout`.
#[derive(clap::Args, Debug)]
pub struct LogoutArguments {
    /// Log out of every registry
    #[arg(short, long)]
    all: bool,
    /// The file that credentials are kept in, in Docker's format
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true)]
    authfile: Option<PathBuf>,
    /// The registry; docker.io where it is absent
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    registry: String,
}

/// Why nobody is logged in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Nobody is there to be asked.
    #[error("there is no terminal to ask on: give --username NAME and --password-stdin")]
    NoTerminal,
    /// Nothing was typed.
    #[error("a user name and a password are needed")]
    Empty,
    /// Standard input cannot be read.
    #[error("reading the password")]
    Read(#[source] io::Error),
}

/// Logs in: the registry is asked, then the credentials are kept.
pub async fn login(arguments: LoginArguments, client: &Client) -> Result<u8, Failure> {
    let registry = registry_name(&arguments.registry);
    let mut kept = Credentials::open(arguments.authfile.as_deref())?;
    let username = match &arguments.username {
        Some(username) => username.clone(),
        None if arguments.password_stdin => return Err(LoginError::NoTerminal.into()),
        None => ask("Username: ", true)?,
    };
    let password = match (&arguments.password, arguments.password_stdin) {
        (Some(password), _) => password.clone(),
        (None, true) => read_password()?,
        (None, false) => ask("Password: ", false)?,
    };
    if username.is_empty() || password.is_empty() {
        return Err(LoginError::Empty.into());
    }
    let auth = AuthConfig {
        username: username.clone(),
        password: password.clone(),
        serveraddress: registry.to_owned(),
        ..AuthConfig::default()
    };
    let body = serde_json::to_value(&auth).map_err(ClientError::Encode)?;
    client.post(Target::new("/auth"), Some(&body)).await?;
    kept.store(registry, &username, &password)?;
    if kept.helper(registry).is_none() {
        output::complain(&format!(
            "The password is kept unencrypted in {}",
            kept.path().display()
        ));
    }
    output::line("Login Succeeded!")?;
    Ok(0)
}

/// Logs out; no registry needs to be there for it.
pub fn logout(arguments: &LogoutArguments) -> Result<u8, Failure> {
    let mut kept = Credentials::open(arguments.authfile.as_deref())?;
    let registries = match arguments.all {
        true => kept.registries(),
        false => vec![registry_name(&arguments.registry).to_owned()],
    };
    for registry in registries {
        kept.erase(&registry)?;
        output::line(&format!("Removed login credentials for {registry}"))?;
    }
    Ok(0)
}

fn read_password() -> Result<String, LoginError> {
    let mut password = String::new();
    io::stdin()
        .lock()
        .take(PASSWORD_BYTES_MAX)
        .read_to_string(&mut password)
        .map_err(LoginError::Read)?;
    Ok(password.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks a person; what is secret is not shown.
fn ask(question: &str, is_shown: bool) -> Result<String, Failure> {
    if !terminal::is_input() {
        return Err(LoginError::NoTerminal.into());
    }
    let mut error = io::stderr().lock();
    // Where it cannot be shown nobody answers either.
    error
        .write_all(question.as_bytes())
        .and_then(|()| error.flush())
        .ok();
    let hidden = match is_shown {
        true => None,
        false => Some(terminal::Hidden::enter()?),
    };
    let mut line = String::new();
    let read = io::stdin().lock().take(PASSWORD_BYTES_MAX).read_line(&mut line);
    if hidden.is_some() {
        drop(hidden);
        error.write_all(b"\n").ok();
    }
    read.map_err(LoginError::Read)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
