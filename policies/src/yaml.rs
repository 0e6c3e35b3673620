//! YAML text, as a tree in which every node knows its place.
//!
//! Owns the restrictions on YAML: no anchors, aliases, merge keys, tags, directives or second documents, no key twice, and limits on size,
//! depth and count. Knows nothing of policies. Scalars stay text here: whoever reads one says which type it wants, so that `no`, `010` and
//! `1e3` never turn into something by themselves.
//!
//! It reads the event stream of the parser under serde-saphyr rather than deserialising, because serde stops at the first error and a person
//! wants all of them.

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, options};

use crate::diagnostics::{Report, Span};

/// The most bytes of one document. Docker's default seccomp profile is 15 KB; 256 KiB leaves room for any policy a person can read.
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// The most levels of nesting; the language itself needs five.
pub const DEPTH_MAX: usize = 16;

/// The most entries of one list or mapping.
pub const ENTRIES_MAX: usize = 4096;

/// The most characters of one scalar: PATH_MAX, which is the longest thing a policy names.
pub const SCALAR_CHARS_MAX: usize = 4096;

/// One node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Scalar { text: String, plain: bool },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) span: Span,
}

impl Kind {
    /// What a person calls it.
    pub(crate) fn noun(&self) -> &'static str {
        match self {
            Kind::Scalar { text, plain: true } if text.is_empty() => "nothing",
            Kind::Scalar { .. } => "a single value",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }
}

/// Reads one document; `None` if it cannot be read further, the reasons being in the report.
pub(crate) fn read(text: &str, report: &mut Report<'_>) -> Option<Node> {
    let start = Span {
        line: 1,
        column: 1,
        width: 1,
    };
    if text.len() > DOCUMENT_BYTES_MAX {
        let message = format!(
            "the document has {} bytes; at most {DOCUMENT_BYTES_MAX} are read",
            text.len()
        );
        report.error(start, message);
        return None;
    }
    if let Some(span) = find_forbidden(text) {
        report
            .error(span, "a control or text-direction character")
            .help("what is shown must be what is read: remove the invisible character");
        return None;
    }
    let options = options! {
        disallow_directives: true,
        emit_unresolved_aliases: true,
        emit_comments: false,
        block_nesting_limit: DEPTH_MAX * 2,
        flow_nesting_limit: DEPTH_MAX * 2,
    };
    let mut reader = Reader {
        stack: Vec::new(),
        root: None,
        documents: 0,
        dead: false,
    };
    for item in Parser::new_from_str_with_options(text, options) {
        match item {
            Ok((event, at)) => {
                // The parser gives a value that is not there as `~`; here it is text without characters.
                let event = match event {
                    Event::Scalar(_, style, anchor, tag) if at.start.index() == at.end.index() => {
                        Event::Scalar("".into(), style, anchor, tag)
                    }
                    other => other,
                };
                reader.take(event, place(at), report);
            }
            Err(error) => {
                let at = error.marker();
                let span = Span {
                    line: line_of(at.line()),
                    column: line_of(at.col() + 1),
                    width: 1,
                };
                report.error(span, format!("not valid YAML: {}", error.info()));
                return None;
            }
        }
        if reader.dead {
            return None;
        }
    }
    if reader.root.is_none() {
        report
            .error(start, "the document is empty")
            .help("it starts with `kakoi: 1`");
    }
    reader.root
}

fn line_of(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn place(at: serde_saphyr::granit_parser::Span) -> Span {
    let width = if at.start.line() == at.end.line() {
        at.end.col().saturating_sub(at.start.col())
    } else {
        1
    };
    Span {
        line: line_of(at.start.line()),
        column: line_of(at.start.col() + 1),
        width: line_of(width.max(1)),
    }
}

/// The place of the first character that would make the text read differently from how it looks.
fn find_forbidden(text: &str) -> Option<Span> {
    for (row, line) in text.lines().enumerate() {
        for (col, c) in line.chars().enumerate() {
            if (c.is_control() && c != '\t') || crate::diagnostics::is_bidi(c) {
                return Some(Span {
                    line: line_of(row + 1),
                    column: line_of(col + 1),
                    width: 1,
                });
            }
        }
    }
    None
}

/// A collection that is being filled.
enum Open {
    List(Span, Vec<Node>),
    Map(Span, Vec<(Key, Node)>, Pending),
}

/// What a mapping waits for.
enum Pending {
    Key,
    Value(Key),
    /// The value of a key that was refused; it is read and dropped.
    Refused,
}

struct Reader {
    stack: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    dead: bool,
}

impl Reader {
    fn take(&mut self, event: Event<'_>, span: Span, report: &mut Report<'_>) {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    report
                        .error(span, "a second document")
                        .help("one file holds one policy; remove the `---`");
                    self.dead = true;
                }
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                report.error(span, "an alias").label("aliases are not part of the language").help(
                    "write the value out, or put what is shared into a policy of its own and name it in `extends`",
                );
                self.place(
                    Node {
                        span,
                        kind: Kind::Scalar {
                            text: String::new(),
                            plain: false,
                        },
                    },
                    report,
                );
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_properties(anchor, tag.is_some(), span, report);
                if text.chars().count() > SCALAR_CHARS_MAX {
                    report.error(
                        span,
                        format!("a value of more than {SCALAR_CHARS_MAX} characters"),
                    );
                    self.dead = true;
                    return;
                }
                // An escape (`"\e"`) brings in what the text itself must not hold; names and paths end up in logs and on terminals.
                if text
                    .chars()
                    .any(|c| c.is_control() || crate::diagnostics::is_bidi(c))
                {
                    report
                        .error(span, "a control or text-direction character in a value")
                        .help("no value of the language holds line breaks or control characters");
                }
                let plain = matches!(style, ScalarStyle::Plain);
                self.place(
                    Node {
                        span,
                        kind: Kind::Scalar {
                            text: text.into_owned(),
                            plain,
                        },
                    },
                    report,
                );
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_properties(anchor, tag.is_some(), span, report);
                self.open(Open::List(span, Vec::new()), span, report);
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_properties(anchor, tag.is_some(), span, report);
                self.open(Open::Map(span, Vec::new(), Pending::Key), span, report);
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(report),
            _ => {}
        }
    }

    fn refuse_properties(&mut self, anchor: usize, tagged: bool, span: Span, report: &mut Report<'_>) {
        if anchor != 0 {
            report
                .error(span, "an anchor")
                .label("anchors are not part of the language")
                .help("remove the `&name`; policies share rules through `extends`");
        }
        if tagged {
            report
                .error(span, "a tag")
                .label("tags are not part of the language")
                .help("remove the `!name`; every field has one type");
        }
    }

    fn open(&mut self, open: Open, span: Span, report: &mut Report<'_>) {
        if self.stack.len() >= DEPTH_MAX {
            report.error(span, format!("nested deeper than {DEPTH_MAX} levels"));
            self.dead = true;
            return;
        }
        self.stack.push(open);
    }

    fn close(&mut self, report: &mut Report<'_>) {
        let node = match self.stack.pop() {
            Some(Open::List(span, list)) => Node {
                span,
                kind: Kind::List(list),
            },
            Some(Open::Map(span, map, _)) => Node {
                span,
                kind: Kind::Map(map),
            },
            None => return,
        };
        self.place(node, report);
    }

    /// Puts a finished node where the innermost open collection wants it.
    fn place(&mut self, node: Node, report: &mut Report<'_>) {
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(_, list)) => {
                if list.len() >= ENTRIES_MAX {
                    report.error(node.span, format!("a list of more than {ENTRIES_MAX} entries"));
                    self.dead = true;
                    return;
                }
                list.push(node);
            }
            Some(Open::Map(_, map, pending)) => match std::mem::replace(pending, Pending::Key) {
                Pending::Key => {
                    if map.len() >= ENTRIES_MAX {
                        report.error(node.span, format!("a mapping of more than {ENTRIES_MAX} entries"));
                        self.dead = true;
                        return;
                    }
                    *pending = key(node, map, report);
                }
                Pending::Value(key) => map.push((key, node)),
                Pending::Refused => {}
            },
        }
    }
}

/// Judges a key: a scalar, not `<<`, not there before.
fn key(node: Node, map: &[(Key, Node)], report: &mut Report<'_>) -> Pending {
    let span = node.span;
    let Kind::Scalar { text, plain } = node.kind else {
        report.error(
            span,
            format!("{} where a field name is expected", node.kind.noun()),
        );
        return Pending::Refused;
    };
    if text == "<<" && plain {
        report
            .error(span, "a merge key")
            .label("merge keys are not part of the language")
            .help("policies share rules through `extends`");
        return Pending::Refused;
    }
    if let Some((first, _)) = map.iter().find(|(key, _)| key.text == text) {
        let line = first.span.line;
        report
            .error(span, format!("field `{text}` twice"))
            .label(format!("first given on line {line}"))
            .help("merge both into one, or remove one");
        return Pending::Refused;
    }
    Pending::Value(Key { text, span })
}
