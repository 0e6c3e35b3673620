//! The command line as a whole: what stands before the command.
//!
//! Owns the global flags and the choice of the daemon. Refuses to know any command.

use std::path::PathBuf;

use clap::Parser;

use crate::client::{Client, ClientError, Launch, socket_of};
use crate::commands::Command;

/// Containers that stay within their policy
#[derive(Parser, Debug)]
#[command(
    name = "kakoi",
    version,
    max_term_width = 110,
    infer_subcommands = false,
    arg_required_else_help = true,
    subcommand_required = true,
    help_expected = true,
    after_help = "A first container:\n  kakoi run --rm alpine echo hello\n  kakoi run --policy app.yaml --network host -d IMAGE\n\nWhat a policy may say: kakoi policy schema. Whether one is right: kakoi policy check FILE."
)]
pub struct Arguments {
    /// The daemon's socket, as in unix:///run/kakoi/kakoid.sock
    #[arg(
        short = 'H',
        long,
        visible_alias = "url",
        env = "KAKOI_HOST",
        value_name = "SOCKET"
    )]
    host: Option<String>,
    /// Durable folder of a daemon that is started for this command
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kakoi")]
    root: PathBuf,
    /// Run-time folder, with the daemon's socket
    #[arg(long, value_name = "DIR", default_value = "/run/kakoi")]
    run: PathBuf,
    /// Configuration of a daemon that is started for this command
    #[arg(long, value_name = "DIR", default_value = "/etc/kakoi")]
    config: PathBuf,
    /// How much a daemon that is started logs: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", value_parser = ["error", "warn", "info", "debug", "trace"])]
    log_level: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

impl Arguments {
    /// Names the daemon. One that was named by hand is never started here: nobody knows where its folders are.
    pub fn client(&self) -> Result<Client, ClientError> {
        if let Some(host) = self.host.as_deref().filter(|host| !host.is_empty()) {
            return Ok(Client::new(socket_of(host)?, None));
        }
        let launch = Launch {
            root: absolute(&self.root),
            run: absolute(&self.run),
            config: absolute(&self.config),
            log_level: self.log_level.clone(),
        };
        Ok(Client::new(launch.run.join("kakoid.sock"), Some(launch)))
    }
}

/// The daemon stands in `/`: what a person writes is relative to where the person stands.
fn absolute(path: &std::path::Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
