//! `kakoi completion`: a shell's completion script, from the definitions of the commands.

use clap::CommandFactory as _;

use crate::failure::Failure;
use crate::output;

/// The arguments of `kakoi completion`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

/// Prints the script.
pub fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut crate::arguments::Arguments::command(),
        "kakoi",
        &mut script,
    );
    output::write_bytes(&script)?;
    Ok(0)
}
