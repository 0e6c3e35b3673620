//! `kakoi stop`: ask containers to end, wait, then kill.

use crate::client::{Client, Target};
use crate::each::{self, Chosen, Told};
use crate::failure::Failure;

/// The arguments of `kakoi stop`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Seconds between asking and killing; -1 waits for ever
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<i64>,
    /// Signal that asks, in place of the container's own
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Say nothing about containers that do not exist
    #[arg(short, long)]
    ignore: bool,
    #[command(flatten)]
    chosen: Chosen,
}

/// Stops containers.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let names = arguments
        .chosen
        .resolve(client, &["running", "paused", "restarting"])
        .await?;
    let seconds = arguments.time.map(|seconds| seconds.to_string());
    let request = async |name: String| {
        let target = Target::new("/containers")
            .segment(&name)
            .segment("stop")
            .maybe("t", seconds.as_deref())
            .maybe("signal", arguments.signal.as_deref());
        match client.post(target, None).await {
            Ok(_) => Ok(Told::Line(name)),
            Err(error) if arguments.ignore && error.is_not_found() => Ok(Told::Nothing),
            Err(error) => Err(error),
        }
    };
    each::run(&names, request, each::engine_status).await
}
