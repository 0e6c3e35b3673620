//! `kakoi top`: show a container's processes.

use serde_json::Value;

use crate::client::{Client, Target};
use crate::each;
use crate::failure::Failure;
use crate::listing::items;
use crate::{output, table};

/// The arguments of `kakoi top`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// In the container that was created last
    #[arg(short, long)]
    latest: bool,
    /// The container, then options of ps(1), as in -ef or -o pid,comm
    #[arg(value_name = "CONTAINER [PS OPTION...]", num_args = 0.., trailing_var_arg = true)]
    words: Vec<String>,
}

/// Shows processes.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let (name, options) = match (arguments.latest, arguments.words.split_first()) {
        (true, _) => (None, arguments.words.as_slice()),
        (false, Some((name, options))) => (Some(name.as_str()), options),
        (false, None) => (None, &[][..]),
    };
    let name = each::one(client, name, arguments.latest).await?;
    let options = options.join(" ");
    let target = Target::new("/containers")
        .segment(&name)
        .segment("top")
        .maybe("ps_args", (!options.is_empty()).then_some(options.as_str()));
    let answer = client.get(target).await?;
    let line = |list: &Value| -> Vec<String> {
        items(list)
            .iter()
            .map(|cell| cell.as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let mut rows = vec![line(&answer["Titles"])];
    rows.extend(items(&answer["Processes"]).iter().map(line));
    output::print(&table::align(&rows))?;
    Ok(0)
}
