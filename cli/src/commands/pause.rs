//! `kakoi pause` and `kakoi unpause`: freeze and thaw containers.

use crate::client::{Client, Target};
use crate::each::{self, Chosen, Told};
use crate::failure::Failure;

/// The arguments of `kakoi pause`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    chosen: Chosen,
}

/// The arguments of `kakoi unpause`.
#[derive(clap::Args, Debug)]
pub struct UnpauseArguments {
    #[command(flatten)]
    chosen: Chosen,
}

/// Freezes containers.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    change(&arguments.chosen, "pause", "running", client).await
}

/// Thaws containers.
pub async fn run_unpause(arguments: UnpauseArguments, client: &Client) -> Result<u8, Failure> {
    change(&arguments.chosen, "unpause", "paused", client).await
}

async fn change(chosen: &Chosen, action: &str, status: &str, client: &Client) -> Result<u8, Failure> {
    let names = chosen.resolve(client, &[status]).await?;
    let request = async |name: String| {
        client
            .post(Target::new("/containers").segment(&name).segment(action), None)
            .await?;
        Ok(Told::Line(name))
    };
    each::run(&names, request, each::engine_status).await
}
