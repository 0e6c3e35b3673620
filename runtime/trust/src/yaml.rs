//! YAML text as a tree in which every node knows its place.
//!
//! Owns the restrictions: no anchors, aliases, merge keys, tags, directives or second documents, no key twice, bounds on size and depth.
//! Scalars stay text, so that `no`, `010` and `1e3` turn into nothing by themselves. Knows nothing of trust.

use serde_saphyr::granit_parser::{Event, Parser, Span as Place, StructureStyle, options};

use crate::diagnostics::{Report, Span};

/// The most bytes of trust.yaml: a thousand keys.
pub const DOCUMENT_BYTES_MAX: usize = 512 * 1024;

/// The most levels: the document has four.
const DEPTH_MAX: usize = 8;

/// The most entries of one list or mapping.
const ENTRIES_MAX: usize = 1024;

/// A node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Scalar(String),
    List(Vec<Node>),
    Map { flow: bool, entries: Vec<(Key, Node)> },
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) span: Span,
}

impl Kind {
    pub(crate) fn noun(&self) -> &'static str {
        match self {
            Kind::Scalar(text) if text.is_empty() => "nothing",
            Kind::Scalar(_) => "a single value",
            Kind::List(_) => "a list",
            Kind::Map { .. } => "a mapping",
        }
    }
}

/// Reads one document; `None` if it cannot be read on, the reason being in the report.
pub(crate) fn read(text: &str, report: &mut Report<'_>) -> Option<Node> {
    if text.len() > DOCUMENT_BYTES_MAX {
        let message = format!(
            "the document has {} bytes; at most {DOCUMENT_BYTES_MAX} are read",
            text.len()
        );
        report.error(Span::START, message);
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
    };
    for item in Parser::new_from_str_with_options(text, options) {
        let (event, at) = match item {
            Ok(item) => item,
            Err(error) => {
                let at = error.marker();
                let span = Span {
                    line: at.line(),
                    column: at.col() + 1,
                    width: 1,
                };
                report.error(span, format!("not valid YAML: {}", error.info()));
                return None;
            }
        };
        if let Err(complaint) = reader.take(event, &at) {
            report.error(place(&at), complaint);
            return None;
        }
    }
    reader.root
}

fn place(at: &Place) -> Span {
    let one_line = at.start.line() == at.end.line();
    Span {
        line: at.start.line(),
        column: at.start.col() + 1,
        width: if one_line {
            at.end.col().saturating_sub(at.start.col()).max(1)
        } else {
            1
        },
    }
}

enum Open {
    List(Span, Vec<Node>),
    Map {
        span: Span,
        flow: bool,
        entries: Vec<(Key, Node)>,
        pending: Option<Key>,
    },
}

struct Reader {
    stack: Vec<Open>,
    root: Option<Node>,
    documents: usize,
}

impl Reader {
    fn take(&mut self, event: Event<'_>, at: &Place) -> Result<(), String> {
        let span = place(at);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err("a second document".into());
                }
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => return Err("an alias: write the value out".into()),
            Event::Scalar(text, _, anchor, tag) => {
                plain(anchor, tag.is_some())?;
                // The parser gives a value that is not there as `~`; here it is text without characters.
                let absent = at.start.index() == at.end.index();
                let text = if absent { String::new() } else { text.into_owned() };
                self.place(Node {
                    span,
                    kind: Kind::Scalar(text),
                })?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                plain(anchor, tag.is_some())?;
                self.open(Open::List(span, Vec::new()))?;
            }
            Event::MappingStart(style, anchor, tag) => {
                plain(anchor, tag.is_some())?;
                self.open(Open::Map {
                    span,
                    flow: matches!(style, StructureStyle::Flow),
                    entries: Vec::new(),
                    pending: None,
                })?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let node = match self.stack.pop() {
                    Some(Open::List(span, list)) => Node {
                        span,
                        kind: Kind::List(list),
                    },
                    Some(Open::Map {
                        span, flow, entries, ..
                    }) => Node {
                        span,
                        kind: Kind::Map { flow, entries },
                    },
                    None => return Err("an end without a start".into()),
                };
                self.place(node)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, open: Open) -> Result<(), String> {
        if self.stack.len() >= DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX} levels"));
        }
        self.stack.push(open);
        Ok(())
    }

    /// Puts a finished node where the innermost open collection wants it.
    fn place(&mut self, node: Node) -> Result<(), String> {
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(_, list)) if list.len() < ENTRIES_MAX => list.push(node),
            Some(Open::Map { entries, pending, .. }) if entries.len() < ENTRIES_MAX => match pending.take() {
                Some(key) => entries.push((key, node)),
                None => *pending = Some(key(node, entries)?),
            },
            Some(_) => return Err(format!("more than {ENTRIES_MAX} entries")),
        }
        Ok(())
    }
}

fn plain(anchor: usize, tagged: bool) -> Result<(), String> {
    match (anchor, tagged) {
        (0, false) => Ok(()),
        (0, true) => Err("a tag: every field has one type".into()),
        _ => Err("an anchor: write values out".into()),
    }
}

fn key(node: Node, entries: &[(Key, Node)]) -> Result<Key, String> {
    let Kind::Scalar(text) = node.kind else {
        return Err(format!("{} where a field name is expected", node.kind.noun()));
    };
    if text == "<<" {
        return Err("a merge key: write values out".into());
    }
    if let Some((first, _)) = entries.iter().find(|(key, _)| key.text == text) {
        let name: String = text.chars().filter(|c| !c.is_control()).take(64).collect();
        return Err(format!("field `{name}` twice, first on line {}", first.span.line));
    }
    Ok(Key {
        text,
        span: node.span,
    })
}
