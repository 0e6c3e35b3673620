//! From a tree and a value to text.
//!
//! Owns variables, truth, and how values are printed (as Go prints them). Invariant: steps and output are bounded, so that a template over a large
//! answer ends.

use serde_json::{Map, Value};

use super::functions::{self, Function};
use super::parse::{Command, Node, Operand, Pipeline, Root};

/// The most nodes and operands that are looked at: a second's work.
const STEPS_MAX: usize = 2_000_000;
/// The longest text that is made.
const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// Why a template does not fit a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// A field that is not there.
    #[error("there is no field {name:?}{}", there_are(.known))]
    NoField {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A field of something that has none.
    #[error("{kind} has no field {name:?}")]
    NotAnObject {
        /// What was asked for.
        name: String,
        /// What it was asked of.
        kind: &'static str,
    },
    /// A variable that is not there.
    #[error("there is no variable ${name}")]
    NoVariable {
        /// Which.
        name: String,
    },
    /// A list was expected.
    #[error("cannot range over {kind}")]
    NotAList {
        /// What was there.
        kind: &'static str,
    },
    /// A function's arguments do not fit.
    #[error("{function}: {words}")]
    Argument {
        /// The function's name.
        function: &'static str,
        /// What is wrong.
        words: String,
    },
    /// A value where a function is needed.
    #[error("only a function can take a piped value")]
    NotAFunction,
    /// Too much work.
    #[error("the template takes more than {STEPS_MAX} steps")]
    TooManySteps,
    /// Too much text.
    #[error("the template makes more than {OUTPUT_BYTES_MAX} bytes")]
    TooMuchOutput,
}

fn there_are(names: &[String]) -> String {
    const SHOWN_MAX: usize = 24;
    if names.is_empty() {
        return String::new();
    }
    let more = if names.len() > SHOWN_MAX { " …" } else { "" };
    format!(
        ": there are {}{more}",
        names
            .iter()
            .take(SHOWN_MAX)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ")
    )
}

type Outcome<T> = Result<T, (usize, EvaluateError)>;

enum Flow {
    On,
    Break,
    Continue,
}

struct Scope<'v> {
    root: &'v Value,
    variables: Vec<(String, Value)>,
    output: String,
    steps: usize,
}

/// Applies a template's nodes.
pub(super) fn render(nodes: &[Node], value: &Value) -> Outcome<String> {
    let mut scope = Scope {
        root: value,
        variables: Vec::new(),
        output: String::new(),
        steps: 0,
    };
    scope.nodes(nodes, value)?;
    Ok(scope.output)
}

impl Scope<'_> {
    fn step(&mut self, at: usize) -> Outcome<()> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err((at, EvaluateError::TooManySteps));
        }
        if self.output.len() > OUTPUT_BYTES_MAX {
            return Err((at, EvaluateError::TooMuchOutput));
        }
        Ok(())
    }

    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Outcome<Flow> {
        let outer = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(node, dot)?;
            if !matches!(flow, Flow::On) {
                break;
            }
        }
        self.variables.truncate(outer);
        Ok(flow)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Outcome<Flow> {
        self.step(0)?;
        match node {
            Node::Text(text) => self.output.push_str(text),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline, dot, false)?;
                if pipeline.variables.is_empty() {
                    print(&mut self.output, &value, true);
                }
            }
            Node::If {
                condition,
                rebinds,
                then,
                otherwise,
            } => {
                let outer = self.variables.len();
                let value = self.pipeline(condition, dot, true)?;
                let flow = match (is_true(&value), rebinds) {
                    (true, true) => self.nodes(then, &value)?,
                    (true, false) => self.nodes(then, dot)?,
                    (false, _) => self.nodes(otherwise, dot)?,
                };
                self.variables.truncate(outer);
                return Ok(flow);
            }
            Node::Range {
                list,
                body,
                otherwise,
            } => return self.range(list, body, otherwise, dot),
        }
        Ok(Flow::On)
    }

    fn range(&mut self, list: &Pipeline, body: &[Node], otherwise: &[Node], dot: &Value) -> Outcome<Flow> {
        let mut unbound = list.clone();
        let names = std::mem::take(&mut unbound.variables);
        let items: Vec<(Value, Value)> = match self.pipeline(&unbound, dot, true)? {
            Value::Null => Vec::new(),
            Value::Array(items) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| (index.into(), item))
                .collect(),
            Value::Object(map) => {
                let mut pairs: Vec<(String, Value)> = map.into_iter().collect();
                pairs.sort_by(|a, b| a.0.cmp(&b.0));
                pairs.into_iter().map(|(key, item)| (key.into(), item)).collect()
            }
            other => return Err((list.at, EvaluateError::NotAList { kind: kind(&other) })),
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, item) in items {
            self.step(list.at)?;
            let outer = self.variables.len();
            match names.as_slice() {
                [value] => self.variables.push((value.clone(), item.clone())),
                [index, value] => {
                    self.variables.push((index.clone(), key));
                    self.variables.push((value.clone(), item.clone()));
                }
                _ => {}
            }
            let flow = self.nodes(body, &item)?;
            self.variables.truncate(outer);
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        Ok(Flow::On)
    }

    /// `is_question` says that a missing field is an answer, not a mistake: in `if`, `with` and `range`.
    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value, is_question: bool) -> Outcome<Value> {
        let mut piped: Option<Value> = None;
        for command in &pipeline.commands {
            piped = Some(self.command(command, dot, piped, is_question)?);
        }
        let value = piped.unwrap_or(Value::Null);
        for name in &pipeline.variables {
            if pipeline.is_assignment {
                let slot = self.variables.iter_mut().rev().find(|(known, _)| known == name);
                let slot =
                    slot.ok_or_else(|| (pipeline.at, EvaluateError::NoVariable { name: name.clone() }))?;
                slot.1 = value.clone();
            } else {
                self.variables.push((name.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    fn command(
        &mut self,
        command: &Command,
        dot: &Value,
        piped: Option<Value>,
        is_question: bool,
    ) -> Outcome<Value> {
        let Some(function) = command.function else {
            if piped.is_some() {
                return Err((command.at, EvaluateError::NotAFunction));
            }
            return self.operand(&command.operands[0], dot, is_question);
        };
        let is_question = is_question || matches!(function, Function::Not | Function::And | Function::Or);
        let mut arguments = Vec::with_capacity(command.operands.len() + 1);
        for operand in &command.operands {
            let value = self.operand(operand, dot, is_question)?;
            // Go's `and` and `or` look no further than they must.
            let is_decided = match function {
                Function::And => !is_true(&value),
                Function::Or => is_true(&value),
                _ => false,
            };
            arguments.push(value);
            if is_decided {
                return Ok(arguments.pop().unwrap_or(Value::Null));
            }
        }
        arguments.extend(piped);
        functions::call(function, arguments).map_err(|error| (command.at, error))
    }

    fn operand(&mut self, operand: &Operand, dot: &Value, is_question: bool) -> Outcome<Value> {
        self.step(operand.at)?;
        let mut owned;
        let mut value: &Value = match &operand.root {
            Root::Dot => dot,
            Root::Variable(name) if name.is_empty() => self.root,
            Root::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                &found
                    .ok_or_else(|| (operand.at, EvaluateError::NoVariable { name: name.clone() }))?
                    .1
            }
            Root::Literal(value) => value,
            Root::Function(function) => {
                owned = functions::call(*function, Vec::new()).map_err(|error| (operand.at, error))?;
                &owned
            }
            Root::Parenthesis(pipeline) => {
                owned = self.pipeline(pipeline, dot, is_question)?;
                &owned
            }
        };
        for name in &operand.fields {
            match field(value, name) {
                Ok(found) => value = found,
                Err(_) if is_question => return Ok(Value::Null),
                Err(error) => return Err((operand.at, error)),
            }
        }
        owned = value.clone();
        Ok(owned)
    }
}

fn field<'v>(value: &'v Value, name: &str) -> Result<&'v Value, EvaluateError> {
    match value {
        Value::Object(map) => map.get(name).ok_or_else(|| EvaluateError::NoField {
            name: name.to_owned(),
            known: map.keys().cloned().collect(),
        }),
        other => Err(EvaluateError::NotAnObject {
            name: name.to_owned(),
            kind: kind(other),
        }),
    }
}

/// What a value is, in words.
pub(super) const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Go's truth: everything but zero, empty and nothing.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// Prints a value as Go does: `[a b]`, `map[k:v]`, `<no value>`.
pub(super) fn print(output: &mut String, value: &Value, is_top: bool) {
    match value {
        Value::Null => output.push_str(if is_top { "<no value>" } else { "<nil>" }),
        Value::Bool(truth) => output.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => output.push_str(&number.to_string()),
        Value::String(text) => output.push_str(text),
        Value::Array(items) => {
            output.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    output.push(' ');
                }
                print(output, item, false);
            }
            output.push(']');
        }
        Value::Object(map) => print_map(output, map),
    }
}

fn print_map(output: &mut String, map: &Map<String, Value>) {
    let mut pairs: Vec<_> = map.iter().collect();
    pairs.sort_by(|a, b| a.0.cmp(b.0));
    output.push_str("map[");
    for (index, (key, item)) in pairs.into_iter().enumerate() {
        if index > 0 {
            output.push(' ');
        }
        output.push_str(key);
        output.push(':');
        print(output, item, false);
    }
    output.push(']');
}
