//! `kakoi system gc`: make room on the disk, as a pull would before it begins.

use serde_json::Value;

use super::rmi;
use crate::client::{Client, Target};
use crate::each::Told;
use crate::failure::Failure;
use crate::{output, text};

/// Printed after the options.
pub const EXIT_STATUS: &str = "\
Images that a container uses stay, and so do volumes and containers. What pulls that broke off left goes first, \
then images without a name, then (with --named) those with one, the longest here before the later, until there is \
room enough.

Exit status:
  0    there is as much room as wanted
  1    there is less, and nothing more may go
  125  the command failed";

/// The arguments of `kakoi system gc`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// How much is to be free, as in 500m or 2g; without it disk_low_bytes of kakoid.yaml
    #[arg(long, value_name = "SIZE", value_parser = text::parse_size)]
    free: Option<i64>,
    /// Also images that have a name and no container
    #[arg(long)]
    named: bool,
}

/// Makes room.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let free = arguments.free.map(|bytes| bytes.to_string());
    let target = Target::new("/system/gc")
        .maybe("free", free.as_deref())
        .maybe("named", arguments.named.then_some("1"));
    let answer = client.post(target, None).await?;
    if let Told::Line(lines) = rmi::told(&answer["ImagesDeleted"]) {
        output::line(&format!("Deleted Images:\n{lines}\n"))?;
    }
    let bytes = |field: &str| answer[field].as_f64().unwrap_or_default();
    let size = |field| text::decimal_size(bytes(field));
    output::line(&format!(
        "Total reclaimed space: {}; free now: {}, wanted: {}",
        size("SpaceReclaimed"),
        size("Free"),
        size("Wanted")
    ))?;
    Ok(u8::from(is_short(&answer)))
}

fn is_short(answer: &Value) -> bool {
    answer["Free"].as_i64() < answer["Wanted"].as_i64()
}
