//! From tokens to a tree.
//!
//! Owns the grammar. Refuses to know values. Invariant: the tree is no deeper than [`DEPTH_MAX`].

use super::functions::Function;
use super::lex::{LexError, Placed, Token, lex};

/// The deepest nesting of actions and parentheses: far beyond what a person writes, far below what overflows a stack.
const DEPTH_MAX: usize = 64;

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// `{{` without `}}`.
    #[error("{{{{ has no }}}}")]
    UnclosedAction,
    /// `/*` without `*/}}`.
    #[error("the comment has no end")]
    UnclosedComment,
    /// A string without its closing quote.
    #[error("the string has no closing quote")]
    UnclosedString,
    /// An escape that is not known.
    #[error("the string has an unknown escape: use \\n, \\t, \\r, \\\" or \\\\")]
    BadEscape,
    /// No number.
    #[error("{0:?} is not a number")]
    BadNumber(String),
    /// A character that has no meaning.
    #[error("{0:?} has no meaning in an action")]
    BadCharacter(char),
    /// A function that does not exist.
    #[error("there is no function {name:?}{}", nearest(.name))]
    UnknownFunction {
        /// What was written.
        name: String,
    },
    /// A part of Go's language that is left out.
    #[error("{0} is not supported in --format")]
    Unsupported(String),
    /// Something else was expected.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// `{{if}}` without `{{end}}`.
    #[error("{{{{{0}}}}} has no {{{{end}}}}")]
    NoEnd(&'static str),
    /// `{{end}}` or `{{else}}` without a beginning.
    #[error("{{{{{0}}}}} belongs to no {{{{if}}}}, {{{{range}}}} or {{{{with}}}}")]
    Stray(String),
    /// Too much nesting.
    #[error("more than {DEPTH_MAX} levels of nesting")]
    TooDeep,
}

fn nearest(name: &str) -> String {
    Function::NAMES
        .iter()
        .find(|(known, _)| {
            known.eq_ignore_ascii_case(name) || known.starts_with(name) || name.starts_with(known)
        })
        .map(|(known, _)| format!(": did you mean {known:?}?"))
        .unwrap_or_default()
}

impl From<LexError> for ParseError {
    fn from(error: LexError) -> Self {
        match error {
            LexError::UnclosedAction => Self::UnclosedAction,
            LexError::UnclosedComment => Self::UnclosedComment,
            LexError::UnclosedString => Self::UnclosedString,
            LexError::BadEscape => Self::BadEscape,
            LexError::BadNumber(text) => Self::BadNumber(text),
            LexError::BadCharacter(c) => Self::BadCharacter(c),
        }
    }
}

/// A part of a template.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    /// `if`, and `with` where `rebinds`.
    If {
        condition: Pipeline,
        rebinds: bool,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        list: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Break,
    Continue,
}

/// `$a, $b := command | command`.
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    pub(super) at: usize,
    pub(super) variables: Vec<String>,
    pub(super) is_assignment: bool,
    pub(super) commands: Vec<Command>,
}

/// One link of a pipeline.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) at: usize,
    pub(super) function: Option<Function>,
    pub(super) operands: Vec<Operand>,
}

/// A value and the fields taken of it.
#[derive(Clone, Debug)]
pub(super) struct Operand {
    pub(super) at: usize,
    pub(super) root: Root,
    pub(super) fields: Vec<String>,
}

/// Where an operand's value comes from.
#[derive(Clone, Debug)]
pub(super) enum Root {
    Dot,
    Variable(String),
    Literal(serde_json::Value),
    Function(Function),
    Parenthesis(Box<Pipeline>),
}

type Outcome<T> = Result<T, (usize, ParseError)>;

struct Parser {
    tokens: Vec<Placed>,
    next: usize,
    end: usize,
    depth: usize,
}

/// What ended a list of nodes.
enum Ending {
    Document,
    End,
    Else { at: usize },
}

/// Reads a template.
pub(super) fn parse(text: &str) -> Outcome<Vec<Node>> {
    let tokens = lex(text).map_err(|(at, error)| (at, error.into()))?;
    let mut parser = Parser {
        tokens,
        next: 0,
        end: text.len(),
        depth: 0,
    };
    let (nodes, ending, at) = parser.nodes()?;
    match ending {
        Ending::Document => Ok(nodes),
        Ending::End => Err((at, ParseError::Stray("end".to_owned()))),
        Ending::Else { at } => Err((at, ParseError::Stray("else".to_owned()))),
    }
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|placed| &placed.token)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |placed| placed.at)
    }

    fn take(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.next).map(|placed| placed.token.clone());
        self.next += 1;
        token
    }

    fn expected<T>(&self, expected: &'static str) -> Outcome<T> {
        let found = match self.peek() {
            None => "the end".to_owned(),
            Some(Token::Close) => "}}".to_owned(),
            Some(Token::Field(name)) => format!(".{name}"),
            Some(Token::Variable(name)) => format!("${name}"),
            Some(Token::Word(word)) => word.clone(),
            Some(Token::String(text)) => format!("{text:?}"),
            Some(Token::Number(number)) => number.to_string(),
            Some(Token::CloseParenthesis) => ")".to_owned(),
            Some(Token::OpenParenthesis) => "(".to_owned(),
            Some(Token::Pipe) => "|".to_owned(),
            Some(Token::Comma) => ",".to_owned(),
            Some(Token::Declare) => ":=".to_owned(),
            Some(Token::Assign) => "=".to_owned(),
            Some(Token::Text(_) | Token::Open) => "text".to_owned(),
        };
        Err((self.at(), ParseError::Expected { expected, found }))
    }

    fn close(&mut self) -> Outcome<()> {
        if self.peek() == Some(&Token::Close) {
            self.next += 1;
            Ok(())
        } else {
            self.expected("}}")
        }
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        if self.depth == DEPTH_MAX {
            return Err((self.at(), ParseError::TooDeep));
        }
        self.depth += 1;
        let outcome = inner(self);
        self.depth -= 1;
        outcome
    }

    /// Reads nodes up to what ends them; the ending's own action is consumed up to its word.
    fn nodes(&mut self) -> Outcome<(Vec<Node>, Ending, usize)> {
        let mut nodes = Vec::new();
        loop {
            let at = self.at();
            match self.take() {
                None => return Ok((nodes, Ending::Document, at)),
                Some(Token::Text(text)) => nodes.push(Node::Text(text)),
                Some(_) => {
                    let word = match self.peek() {
                        Some(Token::Word(word)) => word.clone(),
                        _ => String::new(),
                    };
                    match word.as_str() {
                        "end" => {
                            self.next += 1;
                            self.close()?;
                            return Ok((nodes, Ending::End, at));
                        }
                        "else" => {
                            self.next += 1;
                            return Ok((nodes, Ending::Else { at }, at));
                        }
                        _ => nodes.push(self.action(&word)?),
                    }
                }
            }
        }
    }

    fn action(&mut self, word: &str) -> Outcome<Node> {
        let at = self.at();
        match word {
            "if" => self.deeper(|parser| parser.branch("if", at)),
            "with" => self.deeper(|parser| parser.branch("with", at)),
            "range" => self.deeper(|parser| parser.range(at)),
            "break" | "continue" => {
                self.next += 1;
                self.close()?;
                Ok(if word == "break" {
                    Node::Break
                } else {
                    Node::Continue
                })
            }
            "define" | "template" | "block" => Err((at, ParseError::Unsupported(format!("{{{{{word}}}}}")))),
            _ => {
                let pipeline = self.pipeline()?;
                self.close()?;
                Ok(Node::Print(pipeline))
            }
        }
    }

    fn branch(&mut self, word: &'static str, at: usize) -> Outcome<Node> {
        self.next += 1;
        let condition = self.pipeline()?;
        self.close()?;
        let (then, ending, _) = self.nodes()?;
        let otherwise = self.otherwise(ending, word, at)?;
        Ok(Node::If {
            condition,
            rebinds: word == "with",
            then,
            otherwise,
        })
    }

    fn range(&mut self, at: usize) -> Outcome<Node> {
        self.next += 1;
        let list = self.pipeline()?;
        self.close()?;
        let (body, ending, _) = self.nodes()?;
        let otherwise = self.otherwise(ending, "range", at)?;
        Ok(Node::Range {
            list,
            body,
            otherwise,
        })
    }

    fn otherwise(&mut self, ending: Ending, word: &'static str, at: usize) -> Outcome<Vec<Node>> {
        match ending {
            Ending::Document => Err((at, ParseError::NoEnd(word))),
            Ending::End => Ok(Vec::new()),
            Ending::Else { at: else_at } => {
                match self.peek() {
                    Some(Token::Word(next)) if next == "if" || next == "with" => {
                        let next = if next == "if" { "if" } else { "with" };
                        return Ok(vec![self.deeper(|parser| parser.branch(next, else_at))?]);
                    }
                    _ => self.close()?,
                }
                let (nodes, ending, _) = self.nodes()?;
                match ending {
                    Ending::End => Ok(nodes),
                    Ending::Document => Err((at, ParseError::NoEnd(word))),
                    Ending::Else { at } => Err((at, ParseError::Stray("else".to_owned()))),
                }
            }
        }
    }

    fn pipeline(&mut self) -> Outcome<Pipeline> {
        let at = self.at();
        let (variables, is_assignment) = self.declaration()?;
        let mut commands = vec![self.command()?];
        while self.peek() == Some(&Token::Pipe) {
            self.next += 1;
            commands.push(self.command()?);
        }
        Ok(Pipeline {
            at,
            variables,
            is_assignment,
            commands,
        })
    }

    fn declaration(&mut self) -> Outcome<(Vec<String>, bool)> {
        let start = self.next;
        let mut variables = Vec::new();
        while let Some(Token::Variable(name)) = self.peek() {
            variables.push(name.clone());
            self.next += 1;
            match self.peek() {
                Some(Token::Comma) if variables.len() == 1 => self.next += 1,
                Some(Token::Declare) => {
                    self.next += 1;
                    return Ok((variables, false));
                }
                Some(Token::Assign) => {
                    self.next += 1;
                    return Ok((variables, true));
                }
                _ => break,
            }
        }
        self.next = start;
        Ok((Vec::new(), false))
    }

    fn command(&mut self) -> Outcome<Command> {
        let at = self.at();
        let mut function = None;
        if let Some(Token::Word(word)) = self.peek()
            && let Some(found) = Function::of(word)
        {
            self.next += 1;
            function = Some(found);
        }
        let mut operands = Vec::new();
        while let Some(token) = self.peek() {
            if matches!(token, Token::Close | Token::CloseParenthesis | Token::Pipe) {
                break;
            }
            operands.push(self.operand()?);
        }
        if function.is_none() && operands.is_empty() {
            return self.expected("a value");
        }
        if function.is_none() && operands.len() > 1 {
            return Err((
                operands[1].at,
                ParseError::Expected {
                    expected: "a function before its arguments",
                    found: "a value".to_owned(),
                },
            ));
        }
        Ok(Command {
            at,
            function,
            operands,
        })
    }

    fn operand(&mut self) -> Outcome<Operand> {
        let at = self.at();
        let mut fields = Vec::new();
        let root = match self.peek().cloned() {
            Some(Token::Field(name)) => {
                if !name.is_empty() {
                    fields.push(name);
                }
                Root::Dot
            }
            Some(Token::Variable(name)) => Root::Variable(name),
            Some(Token::String(text)) => Root::Literal(text.into()),
            Some(Token::Number(number)) => Root::Literal(serde_json::Value::Number(number)),
            Some(Token::Word(word)) => match word.as_str() {
                "true" => Root::Literal(true.into()),
                "false" => Root::Literal(false.into()),
                "nil" => Root::Literal(serde_json::Value::Null),
                _ => Root::Function(
                    Function::of(&word).ok_or((at, ParseError::UnknownFunction { name: word }))?,
                ),
            },
            Some(Token::OpenParenthesis) => {
                self.next += 1;
                let inner = self.deeper(Self::pipeline)?;
                if self.peek() != Some(&Token::CloseParenthesis) {
                    return self.expected(")");
                }
                Root::Parenthesis(Box::new(inner))
            }
            _ => return self.expected("a value"),
        };
        self.next += 1;
        while let Some(Placed {
            token: Token::Field(name),
            is_apart: false,
            ..
        }) = self.tokens.get(self.next)
        {
            if name.is_empty() {
                return self.expected("a field's name");
            }
            fields.push(name.clone());
            self.next += 1;
        }
        Ok(Operand { at, root, fields })
    }
}

/// The template with titles where the value's fields stand.
pub(super) fn header(nodes: &[Node], title_of: &impl Fn(&str) -> String) -> String {
    let mut text = String::new();
    for node in nodes {
        match node {
            Node::Text(words) => text.push_str(words),
            Node::If { .. } | Node::Range { .. } | Node::Break | Node::Continue => {}
            Node::Print(_) => {
                if let Some(name) = field(node) {
                    text.push_str(&title_of(&name));
                }
            }
        }
    }
    text
}

fn field(node: &Node) -> Option<String> {
    let Node::Print(pipeline) = node else { return None };
    let named = pipeline
        .commands
        .iter()
        .flat_map(|command| &command.operands)
        .find(|operand| matches!(operand.root, Root::Dot) && !operand.fields.is_empty())?;
    named.fields.last().cloned()
}

/// Makes tabs and line breaks of their escapes in the text between actions.
pub(super) fn unescape(nodes: &mut [Node]) {
    for node in nodes {
        match node {
            Node::Text(text) => *text = text.replace("\\t", "\t").replace("\\n", "\n"),
            Node::If { then, otherwise, .. } => {
                unescape(then);
                unescape(otherwise);
            }
            Node::Range { body, otherwise, .. } => {
                unescape(body);
                unescape(otherwise);
            }
            Node::Print(_) | Node::Break | Node::Continue => {}
        }
    }
}
