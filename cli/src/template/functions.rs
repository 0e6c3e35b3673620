//! The functions of templates: Go's own and those that Docker's command line adds.
//!
//! Owns their names and what they do. Pure. Invariant: a wrong argument is an error that names the function.

use std::cmp::Ordering;

use serde_json::Value;

use super::evaluate::{EvaluateError, is_true, kind, print};

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    And,
    Or,
    Not,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Len,
    Index,
    Slice,
    Print,
    Printf,
    Println,
    Json,
    Upper,
    Lower,
    Title,
    Join,
    Split,
    Pad,
    Truncate,
}

impl Function {
    /// Every function by its name.
    pub(super) const NAMES: &'static [(&'static str, Self)] = &[
        ("and", Self::And),
        ("or", Self::Or),
        ("not", Self::Not),
        ("eq", Self::Eq),
        ("ne", Self::Ne),
        ("lt", Self::Lt),
        ("le", Self::Le),
        ("gt", Self::Gt),
        ("ge", Self::Ge),
        ("len", Self::Len),
        ("index", Self::Index),
        ("slice", Self::Slice),
        ("print", Self::Print),
        ("printf", Self::Printf),
        ("println", Self::Println),
        ("json", Self::Json),
        ("upper", Self::Upper),
        ("lower", Self::Lower),
        ("title", Self::Title),
        ("join", Self::Join),
        ("split", Self::Split),
        ("pad", Self::Pad),
        ("truncate", Self::Truncate),
    ];

    pub(super) fn of(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, function)| *function)
    }

    fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, known)| *known == self)
            .map_or("", |(name, _)| name)
    }
}

/// Calls a function; a piped value is the last argument.
pub(super) fn call(function: Function, arguments: Vec<Value>) -> Result<Value, EvaluateError> {
    let wrong = |words: String| EvaluateError::Argument {
        function: function.name(),
        words,
    };
    let (least, most) = counts(function);
    if arguments.len() < least || arguments.len() > most {
        let wanted = if most == usize::MAX {
            format!("at least {least}")
        } else {
            most.to_string()
        };
        return Err(wrong(format!(
            "takes {wanted} argument(s), got {}",
            arguments.len()
        )));
    }
    match function {
        Function::And | Function::Or => Ok(arguments.into_iter().next_back().unwrap_or(Value::Null)),
        Function::Not => Ok((!is_true(&arguments[0])).into()),
        Function::Eq => Ok(arguments[1..]
            .iter()
            .any(|other| is_equal(&arguments[0], other))
            .into()),
        Function::Ne => Ok((!is_equal(&arguments[0], &arguments[1])).into()),
        Function::Lt | Function::Le | Function::Gt | Function::Ge => {
            ordered(function, &arguments).map_err(wrong)
        }
        Function::Len => length(&arguments[0])
            .map(Value::from)
            .ok_or_else(|| wrong(format!("{} has no length", kind(&arguments[0])))),
        Function::Index => index(&arguments).map_err(wrong),
        Function::Slice => slice(&arguments).map_err(wrong),
        Function::Print => Ok(joined(&arguments, "").into()),
        Function::Println => Ok(format!("{}\n", joined(&arguments, " ")).into()),
        Function::Printf => printf(&arguments).map(Value::from).map_err(wrong),
        Function::Json => Ok(arguments[0].to_string().into()),
        Function::Upper => Ok(shown(&arguments[0]).to_uppercase().into()),
        Function::Lower => Ok(shown(&arguments[0]).to_lowercase().into()),
        Function::Title => Ok(titled(&shown(&arguments[0])).into()),
        Function::Join => join(&arguments).map_err(wrong),
        Function::Split => Ok(split(&arguments)),
        Function::Truncate => {
            let length = number(&arguments[1]).map_err(wrong)?;
            Ok(shown(&arguments[0])
                .chars()
                .take(length)
                .collect::<String>()
                .into())
        }
        Function::Pad => pad(&arguments).map_err(wrong),
    }
}

/// The fewest and the most arguments.
fn counts(function: Function) -> (usize, usize) {
    match function {
        Function::Print | Function::Println => (0, usize::MAX),
        Function::And | Function::Or | Function::Printf | Function::Index | Function::Slice => {
            (1, usize::MAX)
        }
        Function::Eq => (2, usize::MAX),
        Function::Not
        | Function::Len
        | Function::Json
        | Function::Upper
        | Function::Lower
        | Function::Title => (1, 1),
        Function::Ne | Function::Lt | Function::Le | Function::Gt | Function::Ge => (2, 2),
        Function::Join | Function::Split | Function::Truncate => (2, 2),
        Function::Pad => (3, 3),
    }
}

fn ordered(function: Function, arguments: &[Value]) -> Result<Value, String> {
    let (a, b) = (&arguments[0], &arguments[1]);
    let order = compare(a, b).ok_or_else(|| format!("cannot compare {} with {}", kind(a), kind(b)))?;
    Ok(Value::from(match function {
        Function::Lt => order == Ordering::Less,
        Function::Le => order != Ordering::Greater,
        Function::Gt => order == Ordering::Greater,
        _ => order != Ordering::Less,
    }))
}

fn shown(value: &Value) -> String {
    let mut text = String::new();
    print(&mut text, value, true);
    text
}

fn joined(values: &[Value], between: &str) -> String {
    values.iter().map(shown).collect::<Vec<_>>().join(between)
}

fn is_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn length(value: &Value) -> Option<usize> {
    match value {
        Value::String(text) => Some(text.len()),
        Value::Array(items) => Some(items.len()),
        Value::Object(map) => Some(map.len()),
        Value::Null => Some(0),
        _ => None,
    }
}

fn number(value: &Value) -> Result<usize, String> {
    value
        .as_u64()
        .and_then(|number| usize::try_from(number).ok())
        .ok_or_else(|| format!("{} is not a position", shown(value)))
}

fn index(arguments: &[Value]) -> Result<Value, String> {
    let mut value = &arguments[0];
    for key in &arguments[1..] {
        value = match (value, key) {
            // As in Go, a key that a map does not have gives nothing.
            (Value::Object(map), Value::String(key)) => map.get(key).unwrap_or(&Value::Null),
            (Value::Array(items), key) => {
                let at = number(key)?;
                items
                    .get(at)
                    .ok_or_else(|| format!("{at} is beyond a list of {}", items.len()))?
            }
            (Value::Null, _) => &Value::Null,
            (other, _) => return Err(format!("cannot look up {} in {}", shown(key), kind(other))),
        };
    }
    Ok(value.clone())
}

fn slice(arguments: &[Value]) -> Result<Value, String> {
    let total = length(&arguments[0]).ok_or_else(|| format!("{} cannot be cut", kind(&arguments[0])))?;
    let from = arguments.get(1).map_or(Ok(0), number)?;
    let to = arguments.get(2).map_or(Ok(total), number)?;
    if from > to || to > total || arguments.len() > 3 {
        return Err(format!("{from} to {to} is beyond a length of {total}"));
    }
    match &arguments[0] {
        Value::String(text) => text
            .get(from..to)
            .map(Value::from)
            .ok_or_else(|| "cuts a character apart".to_owned()),
        Value::Array(items) => Ok(items[from..to].to_vec().into()),
        other => Err(format!("{} cannot be cut", kind(other))),
    }
}

fn join(arguments: &[Value]) -> Result<Value, String> {
    // `join .List ", "` and `.List | join ", "`: whichever of the two is the list.
    let (list, between) = match (&arguments[0], &arguments[1]) {
        (Value::Array(list), between) | (between, Value::Array(list)) => (list.as_slice(), shown(between)),
        (Value::Null, between) | (between, Value::Null) => (&[][..], shown(between)),
        (other, _) => return Err(format!("{} is not a list", kind(other))),
    };
    Ok(joined(list, &between).into())
}

fn split(arguments: &[Value]) -> Value {
    let between = shown(&arguments[1]);
    let text = shown(&arguments[0]);
    if between.is_empty() {
        return text.chars().map(|c| Value::from(c.to_string())).collect();
    }
    text.split(&between).map(Value::from).collect()
}

fn pad(arguments: &[Value]) -> Result<Value, String> {
    const PAD_MAX: usize = 1000;
    let (before, after) = (number(&arguments[1])?, number(&arguments[2])?);
    if before > PAD_MAX || after > PAD_MAX {
        return Err(format!("pads with {PAD_MAX} spaces at most"));
    }
    Ok(format!(
        "{}{}{}",
        " ".repeat(before),
        shown(&arguments[0]),
        " ".repeat(after)
    )
    .into())
}

fn titled(text: &str) -> String {
    let mut starts = true;
    text.chars()
        .map(|c| {
            let is_first = starts && c.is_alphabetic();
            starts = !c.is_alphanumeric();
            if is_first { c.to_ascii_uppercase() } else { c }
        })
        .collect()
}

/// `%s %v %d %q %%`, with a width and a minus sign.
fn printf(arguments: &[Value]) -> Result<String, String> {
    const WIDTH_MAX: usize = 1000;
    let format = arguments[0].as_str().ok_or("the format is not a string")?;
    let mut values = arguments[1..].iter();
    let mut text = String::new();
    let mut characters = format.chars().peekable();
    while let Some(c) = characters.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let is_left = characters.next_if_eq(&'-').is_some();
        let mut width = 0usize;
        while let Some(digit) = characters.peek().and_then(|c| c.to_digit(10)) {
            characters.next();
            width = width * 10 + digit as usize;
            if width > WIDTH_MAX {
                return Err(format!("a width is {WIDTH_MAX} at most"));
            }
        }
        let verb = characters.next().ok_or("the format ends with %")?;
        if verb == '%' {
            text.push('%');
            continue;
        }
        let value = values.next().ok_or_else(|| format!("%{verb} has no argument"))?;
        let word = match verb {
            's' | 'v' | 'd' | 't' => shown(value),
            'q' => Value::from(shown(value)).to_string(),
            _ => return Err(format!("%{verb} is not supported: use %s, %v, %d, %t or %q")),
        };
        let fill = " ".repeat(width.saturating_sub(word.chars().count()));
        if is_left {
            text.push_str(&word);
            text.push_str(&fill);
        } else {
            text.push_str(&fill);
            text.push_str(&word);
        }
    }
    if values.next().is_some() {
        return Err("the format uses fewer arguments than there are".to_owned());
    }
    Ok(text)
}
