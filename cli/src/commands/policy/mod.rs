//! `kakoi policy`: policies, checked, shown and explained.
//!
//! Owns finding a policy by name or file, and the parents it names. The language itself is `kakoi-policy`'s, which needs no daemon: only policies
//! that a daemon keeps, and what its kernel can, are asked of one.

mod attach;
mod check;
mod explain;
mod list;
mod schema;
mod show;
mod source;

use clap::Subcommand;

use crate::client::Client;
use crate::failure::Failure;

/// Commands about policies.
#[derive(Subcommand, Debug)]
pub enum PolicyCommand {
    /// Attach a policy to an image in its registry, signed: who runs the image without another gets it
    Attach(attach::Arguments),
    /// Check policy files, and say where and how they are wrong
    Check(check::Arguments),
    /// Tell whether a policy allows something, by which rule, and what would allow it
    Explain(explain::Arguments),
    /// List the policies there are
    #[command(visible_alias = "list")]
    Ls(list::Arguments),
    /// Print what a policy may say: a JSON Schema for editors, or a reference for people
    Schema(schema::Arguments),
    /// Show a policy with everything it extends, or what becomes of it on this device
    Show(show::Arguments),
}

/// Runs a command about policies.
pub async fn run(command: PolicyCommand, client: &Client) -> Result<u8, Failure> {
    match command {
        PolicyCommand::Attach(arguments) => attach::run(&arguments, client).await,
        PolicyCommand::Check(arguments) => check::run(&arguments, client).await,
        PolicyCommand::Explain(arguments) => explain::run(&arguments, client).await,
        PolicyCommand::Ls(arguments) => list::run(&arguments, client).await,
        PolicyCommand::Schema(arguments) => schema::run(&arguments),
        PolicyCommand::Show(arguments) => show::run(&arguments, client).await,
    }
}
