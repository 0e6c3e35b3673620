//! Where the shim's own words go: lines on standard error.
//!
//! Owns a subscriber of a few lines. A full one would weigh more than the rest of the shim, in each running container. Invariant: a stream that
//! is full or closed never ends the shim; the standard macros would panic.

use std::fmt;
use std::io::Write as _;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Prints our own events of `Level` and worse. Others' are left out: libcontainer logs in the container's process too, where standard error is
/// already the app's.
struct Lines(Level);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.0 && metadata.target().starts_with("kakoi")
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.0.into())
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let text = format!("kakoi-shim: {}:{}\n", event.metadata().level(), line.0);
        // Nobody is left to tell when standard error is gone.
        drop(std::io::stderr().write_all(text.as_bytes()));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&match field.name() {
            "message" => format!(" {value:?}"),
            name => format!(" {name}={value:?}"),
        });
    }
}

/// Prints a line on standard error, as `eprintln!` does but for the panic.
macro_rules! complain {
    ($($text:tt)*) => {
        $crate::report::complain(format_args!($($text)*))
    };
}

/// See the macro.
pub(crate) fn complain(text: fmt::Arguments<'_>) {
    // Nobody is left to tell when standard error is gone.
    drop(std::io::stderr().write_fmt(format_args!("{text}\n")));
}

/// Begins printing warnings and errors.
pub(crate) fn begin() {
    // A second call finds the first one's subscriber in place, which is as good.
    drop(tracing::subscriber::set_global_default(Lines(Level::WARN)));
}

/// An error with its causes, outermost first.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
