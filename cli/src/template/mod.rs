//! Go's text templates, as far as `--format` needs them.
//!
//! Owns the language: fields, variables, pipelines, `if`, `range`, `with`, and the functions that Docker's and Podman's command lines offer.
//! Pure. Refuses `define`, `template` and `block` by name. Invariants: a template's size, nesting, steps and output are bounded, and an error says
//! where it is.
//!
//! ```text
//! {{.Names}}: {{range $i, $p := .Ports}}{{if $i}}, {{end}}{{$p}}{{else}}no ports{{end}}
//! ```

mod evaluate;
mod functions;
mod lex;
mod parse;

use serde_json::Value;

pub use evaluate::EvaluateError;
pub use parse::ParseError;

/// The longest template: a whole report's page.
const TEMPLATE_BYTES_MAX: usize = 64 << 10;

/// Why a template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is too long.
    #[error("the template has {bytes} bytes, more than {TEMPLATE_BYTES_MAX}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// It is not a template.
    #[error("template, line {line} column {column}: {cause}")]
    Parse {
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// Why.
        cause: ParseError,
    },
    /// It does not fit what it is applied to.
    #[error("template, line {line} column {column}: {cause}")]
    Evaluate {
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// Why.
        cause: EvaluateError,
    },
}

/// A template that was understood.
#[derive(Clone, Debug)]
pub struct Template {
    text: String,
    nodes: Vec<parse::Node>,
}

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLong { bytes: text.len() });
        }
        match parse::parse(text) {
            Ok(nodes) => Ok(Self {
                text: text.to_owned(),
                nodes,
            }),
            Err((at, cause)) => {
                let (line, column) = place(text, at);
                Err(TemplateError::Parse { line, column, cause })
            }
        }
    }

    /// Reads a template from a command line, where `\t` and `\n` between actions stand for a tab and a line break.
    pub fn parse_format(text: &str) -> Result<Self, TemplateError> {
        let mut template = Self::parse(text)?;
        parse::unescape(&mut template.nodes);
        Ok(template)
    }

    /// Applies it to a value.
    pub fn render(&self, value: &Value) -> Result<String, TemplateError> {
        evaluate::render(&self.nodes, value).map_err(|(at, cause)| {
            let (line, column) = place(&self.text, at);
            TemplateError::Evaluate { line, column, cause }
        })
    }

    /// Applies it with the words of a header in place of fields.
    pub fn header(&self, title_of: impl Fn(&str) -> String) -> String {
        parse::header(&self.nodes, &title_of)
    }
}

/// Line and column of a byte offset.
fn place(text: &str, at: usize) -> (usize, usize) {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before[start..].chars().count() + 1)
}

#[cfg(test)]
mod tests;
