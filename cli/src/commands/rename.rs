//! `kakoi rename`: give a container another name.

use crate::client::{Client, Target};
use crate::failure::Failure;

/// The arguments of `kakoi rename`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Name or id of a container
    #[arg(value_name = "CONTAINER")]
    from: String,
    /// Its new name
    #[arg(value_name = "NAME")]
    to: String,
}

/// Renames a container.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let target = Target::new("/containers")
        .segment(&arguments.from)
        .segment("rename")
        .query("name", &arguments.to);
    client.post(target, None).await?;
    Ok(0)
}
