//! `kakoi restart`: stop and start containers.

use crate::client::{Client, Target};
use crate::each::{self, Chosen, Told};
use crate::failure::Failure;

/// The arguments of `kakoi restart`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Seconds between asking and killing; -1 waits for ever
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<i64>,
    /// Signal that asks, in place of the container's own
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    #[command(flatten)]
    chosen: Chosen,
}

/// Restarts containers.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let names = arguments.chosen.resolve(client, &[]).await?;
    let seconds = arguments.time.map(|seconds| seconds.to_string());
    let request = async |name: String| {
        let target = Target::new("/containers")
            .segment(&name)
            .segment("restart")
            .maybe("t", seconds.as_deref())
            .maybe("signal", arguments.signal.as_deref());
        client.post(target, None).await?;
        Ok(Told::Line(name))
    };
    each::run(&names, request, super::run::start_status).await
}
