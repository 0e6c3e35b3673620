//! `kakoi wait`: print the exit codes of containers when they end.

use crate::client::{Client, Target};
use crate::each::{self, Chosen, Told};
use crate::failure::Failure;

/// The arguments of `kakoi wait`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// What to wait for: not-running, next-exit, removed
    #[arg(long, value_name = "WHAT", default_value = "not-running")]
    condition: String,
    #[command(flatten)]
    chosen: Chosen,
}

/// Podman's words for what Docker's API calls otherwise.
fn condition_of(word: &str) -> &str {
    match word {
        "stopped" | "exited" => "not-running",
        other => other,
    }
}

/// Waits for containers.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let names = arguments.chosen.resolve(client, &[]).await?;
    let request = async |name: String| {
        let target = Target::new("/containers")
            .segment(&name)
            .segment("wait")
            .query("condition", condition_of(&arguments.condition));
        let answer = client.post(target, None).await?;
        Ok(Told::Line(answer["StatusCode"].to_string()))
    };
    each::run(&names, request, each::engine_status).await
}
