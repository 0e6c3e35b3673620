//! From characters to tokens.
//!
//! Owns what is text and what is an action, trim markers, comments, literals. Refuses to know grammar.

/// What a template consists of.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Characters between actions.
    Text(String),
    /// `{{`.
    Open,
    /// `}}`.
    Close,
    /// `.Name`, without the dot; empty for the dot alone.
    Field(String),
    /// `$name`, without the dollar.
    Variable(String),
    /// A function or keyword.
    Word(String),
    /// A literal string.
    String(String),
    /// A literal number.
    Number(serde_json::Number),
    /// `(`.
    OpenParenthesis,
    /// `)`.
    CloseParenthesis,
    /// `|`.
    Pipe,
    /// `,`.
    Comma,
    /// `:=`.
    Declare,
    /// `=`.
    Assign,
}

/// A token, where it begins, and whether white space stands before it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placed {
    pub(super) token: Token,
    pub(super) at: usize,
    pub(super) is_apart: bool,
}

/// Why characters are no tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LexError {
    UnclosedAction,
    UnclosedComment,
    UnclosedString,
    BadEscape,
    BadNumber(String),
    BadCharacter(char),
}

/// Splits a template into tokens.
pub(super) fn lex(text: &str) -> Result<Vec<Placed>, (usize, LexError)> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let mut trims = false;
    loop {
        let Some(open) = text[at..].find("{{").map(|found| at + found) else {
            push_text(&mut tokens, &text[at..], at, trims, false);
            return Ok(tokens);
        };
        let marker = text[open + 2..].starts_with('-')
            && text[open + 3..].starts_with(|c: char| c.is_ascii_whitespace());
        push_text(&mut tokens, &text[at..open], at, trims, marker);
        let start = if marker { open + 3 } else { open + 2 };
        let body = text[start..].trim_start();
        let (end, trim_after) = if body.starts_with("/*") {
            let close = body.find("*/").ok_or((open, LexError::UnclosedComment))?;
            let after = text.len() - body.len() + close + 2;
            let rest = text[after..].trim_start();
            let trim = rest.starts_with("-}}");
            let rest = rest.strip_prefix('-').unwrap_or(rest);
            let rest = rest.strip_prefix("}}").ok_or((open, LexError::UnclosedComment))?;
            (text.len() - rest.len(), trim)
        } else {
            tokens.push(Placed {
                token: Token::Open,
                at: open,
                is_apart: false,
            });
            let (end, trim) = action(text, start, open, &mut tokens)?;
            tokens.push(Placed {
                token: Token::Close,
                at: end - 2,
                is_apart: false,
            });
            (end, trim)
        };
        at = end;
        trims = trim_after;
    }
}

fn push_text(tokens: &mut Vec<Placed>, text: &str, at: usize, trim_start: bool, trim_end: bool) {
    let text = if trim_start { text.trim_start() } else { text };
    let text = if trim_end { text.trim_end() } else { text };
    if !text.is_empty() {
        tokens.push(Placed {
            token: Token::Text(text.to_owned()),
            at,
            is_apart: false,
        });
    }
}

/// Reads an action's tokens up to its close; returns where the text goes on and whether white space is trimmed there.
fn action(
    text: &str,
    start: usize,
    open: usize,
    tokens: &mut Vec<Placed>,
) -> Result<(usize, bool), (usize, LexError)> {
    let mut at = start;
    let mut is_apart = true;
    loop {
        let rest = &text[at..];
        let Some(first) = rest.chars().next() else {
            return Err((open, LexError::UnclosedAction));
        };
        if rest.starts_with("}}") {
            return Ok((at + 2, false));
        }
        if is_apart && rest.starts_with("-}}") {
            return Ok((at + 3, true));
        }
        if first.is_whitespace() {
            at += first.len_utf8();
            is_apart = true;
            continue;
        }
        let (token, length) = token(rest, first).map_err(|error| (at, error))?;
        tokens.push(Placed { token, at, is_apart });
        at += length;
        is_apart = false;
    }
}

fn token(rest: &str, first: char) -> Result<(Token, usize), LexError> {
    let simple = |token| Ok((token, 1));
    match first {
        '(' => simple(Token::OpenParenthesis),
        ')' => simple(Token::CloseParenthesis),
        '|' => simple(Token::Pipe),
        ',' => simple(Token::Comma),
        '=' => simple(Token::Assign),
        ':' if rest.starts_with(":=") => Ok((Token::Declare, 2)),
        '"' => quoted(rest),
        '`' => match rest[1..].find('`') {
            Some(end) => Ok((Token::String(rest[1..=end].to_owned()), end + 2)),
            None => Err(LexError::UnclosedString),
        },
        '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
            let name = word(&rest[1..]);
            Ok((Token::Field(name.to_owned()), 1 + name.len()))
        }
        '$' => {
            let name = word(&rest[1..]);
            Ok((Token::Variable(name.to_owned()), 1 + name.len()))
        }
        '0'..='9' | '-' | '+' | '.' => number(rest),
        c if c.is_alphabetic() || c == '_' => {
            let name = word(rest);
            Ok((Token::Word(name.to_owned()), name.len()))
        }
        c => Err(LexError::BadCharacter(c)),
    }
}

fn word(text: &str) -> &str {
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    &text[..end]
}

fn number(rest: &str) -> Result<(Token, usize), LexError> {
    let end = rest
        .char_indices()
        .find(|&(index, c)| {
            !(c.is_ascii_alphanumeric() || c == '.' || (index == 0 && (c == '-' || c == '+')))
        })
        .map_or(rest.len(), |(index, _)| index);
    let written = &rest[..end];
    let plain = written.strip_prefix('+').unwrap_or(written);
    let parsed = match plain.parse::<i64>() {
        Ok(whole) => Some(whole.into()),
        Err(_) => plain.parse::<f64>().ok().and_then(serde_json::Number::from_f64),
    };
    parsed
        .map(|number| (Token::Number(number), end))
        .ok_or_else(|| LexError::BadNumber(written.to_owned()))
}

fn quoted(rest: &str) -> Result<(Token, usize), LexError> {
    let mut text = String::new();
    let mut characters = rest.char_indices().skip(1);
    while let Some((index, c)) = characters.next() {
        match c {
            '"' => return Ok((Token::String(text), index + 1)),
            '\n' => break,
            '\\' => match characters.next().map(|(_, escaped)| escaped) {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('r') => text.push('\r'),
                Some(same @ ('"' | '\\' | '\'')) => text.push(same),
                _ => return Err(LexError::BadEscape),
            },
            c => text.push(c),
        }
    }
    Err(LexError::UnclosedString)
}
