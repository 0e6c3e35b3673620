//! What is wrong with trust.yaml: messages that point at line and column, in the look of a policy's.
//!
//! Owns [`Diagnostic`] and [`Diagnostics`]. Knows nothing of the document's meaning. Invariant: a [`Diagnostics`] is never empty.

use std::fmt;

/// The most findings that are kept of one document.
const FINDINGS_MAX: usize = 50;

/// The most characters of a source line that are shown.
const LINE_CHARS_MAX: usize = 160;

/// A stretch of one line, counted in characters from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) width: usize,
}

impl Span {
    pub(crate) const START: Span = Span {
        line: 1,
        column: 1,
        width: 1,
    };
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub message: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    width: usize,
    source_line: String,
    label: Option<String>,
    help: Option<String>,
    file: String,
}

/// The findings about one document, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// The findings.
    pub fn list(&self) -> &[Diagnostic] {
        &self.0
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, finding) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{finding}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gutter = self.line.to_string().len();
        let lead = self.column.saturating_sub(1).min(LINE_CHARS_MAX);
        let marks = "^".repeat(self.width.clamp(1, LINE_CHARS_MAX));
        write!(f, "error: {}", self.message)?;
        write!(
            f,
            "\n{:gutter$}--> {}:{}:{}",
            "", self.file, self.line, self.column
        )?;
        write!(f, "\n{:gutter$} |\n{} | {}", "", self.line, self.source_line)?;
        write!(f, "\n{:gutter$} | {:lead$}{marks}", "", "")?;
        if let Some(label) = &self.label {
            write!(f, " {label}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n{:gutter$} = help: {help}", "")?;
        }
        Ok(())
    }
}

/// Collects findings while a document is read.
pub(crate) struct Report<'a> {
    file: &'a str,
    text: &'a str,
    found: Vec<Diagnostic>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            text,
            found: Vec::new(),
        }
    }

    /// Adds a finding. Beyond [`FINDINGS_MAX`] it is dropped: the document is refused anyway.
    pub(crate) fn error(&mut self, span: Span, message: impl Into<String>) -> Note<'_> {
        if self.found.len() >= FINDINGS_MAX {
            return Note(None);
        }
        let source = self.text.lines().nth(span.line.saturating_sub(1));
        self.found.push(Diagnostic {
            message: message.into(),
            line: span.line,
            column: span.column,
            width: span.width,
            source_line: shown(source.unwrap_or_default()),
            label: None,
            help: None,
            file: self.file.to_owned(),
        });
        Note(self.found.last_mut())
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    pub(crate) fn finish(mut self) -> Option<Diagnostics> {
        self.found.sort_by_key(|finding| (finding.line, finding.column));
        (!self.found.is_empty()).then_some(Diagnostics(self.found))
    }
}

/// The finding that was just added, to be completed.
pub(crate) struct Note<'a>(Option<&'a mut Diagnostic>);

impl Note<'_> {
    pub(crate) fn label(mut self, text: impl Into<String>) -> Self {
        if let Some(finding) = &mut self.0 {
            finding.label = Some(text.into());
        }
        self
    }

    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        if let Some(finding) = &mut self.0 {
            finding.help = Some(text.into());
        }
        self
    }

    /// Proposes the nearest valid word and lists them where they are few.
    pub(crate) fn nearest(self, word: &str, valid: &[&str]) -> Self {
        let near = valid
            .iter()
            .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
            .filter(|(distance, candidate)| word.len() < 64 && *distance <= (candidate.len() / 3).max(1))
            .min();
        let note = match near {
            Some((_, candidate)) => self.label(format!("did you mean `{candidate}`?")),
            None => self,
        };
        if valid.is_empty() || valid.len() > 12 {
            return note;
        }
        let words: Vec<_> = valid.iter().map(|word| format!("`{word}`")).collect();
        note.help(format!("expected one of {}", words.join(", ")))
    }
}

/// What could drive a terminal or turn text around becomes a space.
fn shown(line: &str) -> String {
    line.chars()
        .take(LINE_CHARS_MAX)
        .map(|c| if is_unprintable(c) { ' ' } else { c })
        .collect()
}

/// A control character, or one that reorders the text around it (CVE-2021-42574).
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
