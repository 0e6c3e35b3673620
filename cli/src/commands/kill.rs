//! `kakoi kill`: send a signal to containers.

use crate::client::{Client, Target};
use crate::each::{self, Chosen, Told};
use crate::failure::Failure;

/// The arguments of `kakoi kill`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The signal, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    #[command(flatten)]
    chosen: Chosen,
}

/// Sends a signal.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let names = arguments.chosen.resolve(client, &["running", "paused"]).await?;
    let request = async |name: String| {
        let target = Target::new("/containers")
            .segment(&name)
            .segment("kill")
            .query("signal", &arguments.signal);
        client.post(target, None).await?;
        Ok(Told::Line(name))
    };
    each::run(&names, request, each::engine_status).await
}
