//! Arguments that are defined when their command is called.
//!
//! Owns [`Deferred`]. `run` and `create` have some hundred options each, and making them costs more than all the rest of a short command.

use clap::{ArgMatches, Args, Command, Error, FromArgMatches};

/// The arguments of a command with many options.
#[derive(Debug)]
pub struct Deferred<T>(Box<T>);

impl<T> Deferred<T> {
    /// The arguments themselves.
    pub fn take(self) -> T {
        *self.0
    }
}

impl<T: FromArgMatches> FromArgMatches for Deferred<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches(matches).map(|arguments| Self(Box::new(arguments)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl<T: Args> Args for Deferred<T> {
    fn augment_args(command: Command) -> Command {
        command.defer(|command| described(command, T::augment_args))
    }

    fn augment_args_for_update(command: Command) -> Command {
        command.defer(|command| described(command, T::augment_args_for_update))
    }
}

/// Adds the arguments and keeps what the command says of itself, in whose place their own description would come.
fn described(command: Command, augment: fn(Command) -> Command) -> Command {
    let about = command.get_about().cloned();
    augment(command).about(about.unwrap_or_default()).long_about(None)
}
