//! `kakoi trust`: whose images run on this device.
//!
//! Owns the words. What is trusted stands in trust.yaml, which `allow`, `allow-downgrade`, `add-key` and `revoke` edit in this process, as whoever types: to widen
//! what runs takes the right to write that file, and no request to the daemon will do. What is signed is signed here too, so that no private key
//! travels. All the rest is asked of the daemon.

mod add_key;
mod allow;
mod allow_downgrade;
mod check;
mod commit;
mod file;
mod revoke;
mod show;
pub mod sign;

use clap::Subcommand;

use crate::client::Client;
use crate::failure::Failure;

/// What is verified when, and what is not.
pub const VERIFIED: &str = "What comes in is hashed whole and its signatures are verified. Each start verifies those signatures again, offline, with keys, revocation and \
floors as they are then; it does not hash the layers on the disk: who may write there may change what runs (kakoi system check --hash looks).";

/// Commands about trust.
#[derive(Subcommand, Debug)]
pub enum TrustCommand {
    /// Show whose images run here, by which keys, and what was committed and revoked
    Show(show::Arguments),
    /// Tell whether an image would run, and who signed it
    Check(check::Arguments),
    /// Let the images of a registry, or of a part of it, run
    Allow(allow::Arguments),
    /// Let a key sign the images of a registry, or of a part of it
    AddKey(add_key::Arguments),
    /// Take a key's word no longer, or take a signed list of revoked keys
    Revoke(revoke::Arguments),
    /// Sign an image in its registry, as cosign and skopeo do
    Sign(sign::Arguments),
    /// Accept a release as good: what is older than it does not run any more
    Commit(commit::Arguments),
    /// Let one version of a release run all the same, though a newer one was committed
    AllowDowngrade(allow_downgrade::Arguments),
}

/// Runs a command about trust.
pub async fn run(command: TrustCommand, client: &Client) -> Result<u8, Failure> {
    match command {
        TrustCommand::Show(arguments) => show::run(&arguments, client).await,
        TrustCommand::Check(arguments) => check::run(&arguments, client).await,
        TrustCommand::Allow(arguments) => allow::run(&arguments, client),
        TrustCommand::AllowDowngrade(arguments) => allow_downgrade::run(&arguments, client),
        TrustCommand::AddKey(arguments) => add_key::run(&arguments, client),
        TrustCommand::Revoke(arguments) => revoke::run(&arguments, client).await,
        TrustCommand::Sign(arguments) => sign::run(&arguments, client).await,
        TrustCommand::Commit(arguments) => commit::run(&arguments, client).await,
    }
}
