//! `kakoi rm`: remove containers.

use crate::client::{Client, Target};
use crate::each::{self, Chosen, Told};
use crate::failure::Failure;

/// The arguments of `kakoi rm`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Kill containers that run, and say nothing about those that do not exist
    #[arg(short, long)]
    force: bool,
    /// Say nothing about containers that do not exist
    #[arg(short, long)]
    ignore: bool,
    /// Remove their anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Seconds between asking and killing, with --force
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<i64>,
    #[command(flatten)]
    chosen: Chosen,
}

/// Removes containers.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let names = arguments.chosen.resolve(client, &[]).await?;
    let seconds = arguments.time.map(|seconds| seconds.to_string());
    let request = async |name: String| {
        if arguments.force
            && let Some(seconds) = &seconds
        {
            let stop = Target::new("/containers")
                .segment(&name)
                .segment("stop")
                .query("t", seconds);
            client.post(stop, None).await?;
        }
        let target = Target::new("/containers")
            .segment(&name)
            .flag("force", arguments.force)
            .flag("v", arguments.volumes);
        match client.delete(target).await {
            Ok(_) => Ok(Told::Line(name)),
            Err(error) if (arguments.ignore || arguments.force) && error.is_not_found() => Ok(Told::Nothing),
            Err(error) => Err(error),
        }
    };
    each::run(&names, request, each::removal_status).await
}
