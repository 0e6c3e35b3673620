//! What is wrong with a document: messages that point at the line and column, in the look of rustc.
//!
//! Owns [`Diagnostic`], [`Diagnostics`] and [`Origin`]. Knows nothing of any document's meaning. Invariant: a [`Diagnostics`] is never empty,
//! and rendering one never panics, whatever its source text holds.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use unicode_width::UnicodeWidthStr;

/// The most diagnostics that are kept of one document; more help nobody, and a hostile file could ask for a million.
pub const DIAGNOSTICS_MAX: usize = 50;

/// The most characters of a source line that are shown, so that a one-line file of 256 KiB stays readable.
const LINE_CHARS_MAX: usize = 160;

/// Where a rule stands: a place in a file, or a flag of the command line (then line and column are 0).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The document's name, or the flag (`--cap-add`).
    #[serde(with = "shared_text")]
    pub file: Arc<str>,
    /// Line, from 1; 0 where there is none.
    pub line: u32,
    /// Column in characters, from 1; 0 where there is none.
    pub column: u32,
}

impl Origin {
    /// Names a place without line and column: a flag, or a built-in default.
    pub fn flag(name: &str) -> Self {
        Self {
            file: name.into(),
            line: 0,
            column: 0,
        }
    }
}

/// Shared text in stored form; serde's own support for it is a feature that every crate of the workspace would have to be rebuilt for.
mod shared_text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(from).map(Into::into)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return f.write_str(&self.file);
        }
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A stretch of source text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Characters on that line; at least 1.
    pub width: u32,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The document is refused.
    Error,
    /// The document is taken; someone should look.
    Warning,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, lower case, without full stop.
    pub message: String,
    /// Where.
    pub origin: Origin,
    /// How many characters are meant, from the origin's column on.
    pub width: u32,
    /// The source line, as far as it is shown.
    pub source_line: String,
    /// A few words under the marked text.
    pub label: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
}

/// The findings about one document; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Wraps findings; `None` where there are none.
    pub(crate) fn new(found: Vec<Diagnostic>) -> Option<Self> {
        (!found.is_empty()).then_some(Self(found))
    }

    /// These findings and more.
    pub fn with(mut self, more: Vec<Diagnostic>) -> Self {
        self.0.extend(more);
        self
    }

    /// The findings, in the order of the document.
    pub fn list(&self) -> &[Diagnostic] {
        &self.0
    }

    /// The findings as a JSON array, for editors and machines.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(&self.0).expect("diagnostics are plain data")
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, diagnostic) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{word}: {}", self.message)?;
        let gutter = self.origin.line.to_string().len();
        write!(f, "\n{:gutter$}--> {}", "", self.origin)?;
        if self.origin.line > 0 {
            let (line, lead) = shown(&self.source_line, self.origin.column);
            let marks = "^".repeat(marked(&self.source_line, self.origin.column, self.width));
            let label = self
                .label
                .as_deref()
                .map(|text| format!(" {text}"))
                .unwrap_or_default();
            write!(f, "\n{:gutter$} |", "")?;
            write!(f, "\n{} | {line}", self.origin.line)?;
            write!(f, "\n{:gutter$} | {:lead$}{marks}{label}", "", "")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n{:gutter$} = help: {help}", "")?;
        }
        Ok(())
    }
}

/// The text of a source line up to the first characters that a terminal could act on, and the columns before the marks.
fn shown(line: &str, column: u32) -> (String, usize) {
    let lead: String = clean(line)
        .chars()
        .take(column.saturating_sub(1) as usize)
        .collect();
    (clean(line), lead.width())
}

/// How many columns are underlined: at least one, at most what is shown of the line.
fn marked(line: &str, column: u32, width: u32) -> usize {
    let text: String = clean(line)
        .chars()
        .skip(column.saturating_sub(1) as usize)
        .take(width.max(1) as usize)
        .collect();
    text.width().max(1)
}

/// Control characters become spaces, so that a document cannot drive the reader's terminal.
fn clean(line: &str) -> String {
    line.chars()
        .take(LINE_CHARS_MAX)
        .map(|c| if c.is_control() || is_bidi(c) { ' ' } else { c })
        .collect()
}

/// Whether a character reorders the text around it (Trojan Source, CVE-2021-42574).
pub(crate) fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Collects the findings about one document while it is read.
pub(crate) struct Report<'a> {
    file: Arc<str>,
    text: &'a str,
    found: Vec<Diagnostic>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(file: &str, text: &'a str) -> Self {
        Self {
            file: file.into(),
            text,
            found: Vec::new(),
        }
    }

    pub(crate) fn origin(&self, span: Span) -> Origin {
        Origin {
            file: self.file.clone(),
            line: span.line,
            column: span.column,
        }
    }

    /// Adds a finding; beyond [`DIAGNOSTICS_MAX`] it is dropped, the document being refused anyway.
    pub(crate) fn error(&mut self, span: Span, message: impl Into<String>) -> Note<'_> {
        // Before any work: a hostile document has thousands of errors in a text of which each would be searched for its line.
        if self.found.len() >= DIAGNOSTICS_MAX {
            return Note { last: None };
        }
        self.found.push(Diagnostic {
            severity: Severity::Error,
            message: message.into(),
            origin: self.origin(span),
            width: span.width,
            source_line: source_line(self.text, span.line),
            label: None,
            help: None,
        });
        Note {
            last: self.found.last_mut(),
        }
    }

    pub(crate) fn finish(mut self) -> Option<Diagnostics> {
        self.found.sort_by_key(|d| (d.origin.line, d.origin.column));
        Diagnostics::new(self.found)
    }
}

/// A finding about a whole document that has no text to show: a missing parent, a cycle.
pub(crate) fn at_origin(origin: &Origin, text: &str, width: u32, message: String) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        message,
        origin: origin.clone(),
        width,
        source_line: source_line(text, origin.line),
        label: None,
        help: None,
    }
}

pub(crate) fn source_line(text: &str, line: u32) -> String {
    let line = text
        .lines()
        .nth((line as usize).saturating_sub(1))
        .unwrap_or_default();
    line.chars().take(LINE_CHARS_MAX).collect()
}

/// The finding that was just added, to be completed.
pub(crate) struct Note<'a> {
    last: Option<&'a mut Diagnostic>,
}

impl Note<'_> {
    pub(crate) fn label(self, text: impl Into<String>) -> Self {
        let Note { mut last } = self;
        if let Some(diagnostic) = last.as_deref_mut() {
            diagnostic.label = Some(text.into());
        }
        Note { last }
    }

    pub(crate) fn help(self, text: impl Into<String>) -> Self {
        let Note { mut last } = self;
        if let Some(diagnostic) = last.as_deref_mut() {
            diagnostic.help = Some(text.into());
        }
        Note { last }
    }

    /// Proposes the nearest valid word under the marked text, and lists all of them where they are few.
    pub(crate) fn nearest<'w>(self, word: &str, valid: impl IntoIterator<Item = &'w str>) -> Self {
        if self.last.is_none() {
            return self;
        }
        let valid: Vec<&str> = valid.into_iter().collect();
        let note = match nearest(word, valid.iter().copied()) {
            Some(near) => self.label(format!("did you mean `{near}`?")),
            None => self,
        };
        if valid.len() <= 24 {
            let list = valid
                .iter()
                .map(|w| format!("`{w}`"))
                .collect::<Vec<_>>()
                .join(", ");
            return note.help(format!("expected one of {list}"));
        }
        note
    }
}

/// The valid word nearest to a misspelt one, if any is near enough to be meant.
pub(crate) fn nearest<'w>(word: &str, valid: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    // Long words are not spelling mistakes, and the distance costs time in the product of both lengths.
    if word.chars().count() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    valid
        .into_iter()
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, candidate)| {
            *distance <= (candidate.chars().count().max(word.chars().count()) / 3).max(1)
        })
        .min_by_key(|(distance, candidate)| (*distance, *candidate))
        .map(|(_, candidate)| candidate)
}
