//! Words of a unit file's value, and back.
//!
//! Owns quotes and escapes. Refuses to know what is put in place of `%` and `$`: that is systemd's. Pure. Source: systemd.service(5), "Command lines".

/// Splits at white space; quotes keep words together, and a backslash escapes as in C.
pub fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let escaped = unescape(&mut chars)?;
                word.get_or_insert_default().push(escaped);
            }
            c if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && quote.is_none() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote has no end");
    }
    words.extend(word);
    Ok(words)
}

fn unescape(chars: &mut std::str::Chars) -> Result<char, &'static str> {
    let c = chars.next().ok_or("the last backslash escapes nothing")?;
    let (count, radix) = match c {
        'a' => return Ok('\x07'),
        'b' => return Ok('\x08'),
        'f' => return Ok('\x0c'),
        'n' => return Ok('\n'),
        'r' => return Ok('\r'),
        't' => return Ok('\t'),
        'v' => return Ok('\x0b'),
        's' => return Ok(' '),
        '\\' | '"' | '\'' => return Ok(c),
        'x' => (2, 16),
        'u' => (4, 16),
        'U' => (8, 16),
        '0'..='7' => {
            let rest: String = chars.by_ref().take(2).collect();
            return number(&format!("{c}{rest}"), 3, 8);
        }
        _ => return Err("there is no such escape: write \\\\ for a backslash"),
    };
    let digits: String = chars.by_ref().take(count).collect();
    number(&digits, count, radix)
}

fn number(digits: &str, count: usize, radix: u32) -> Result<char, &'static str> {
    let value = u32::from_str_radix(digits, radix)
        .ok()
        .filter(|_| digits.len() == count && !digits.starts_with('+'));
    value
        .and_then(char::from_u32)
        .filter(|c| *c != '\0')
        .ok_or("an escape is not the number of a character")
}

/// Joins words so that systemd splits them into the same.
pub fn join(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
    quoted.join(" ")
}

fn quote(word: &str) -> String {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '\'' | '\\');
    // A word that is a semicolon alone would end the command.
    if !word.is_empty() && word != ";" && word.chars().all(is_plain) {
        return word.to_owned();
    }
    let mut text = String::from('"');
    for c in word.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            c if c.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_systemd_splits_them_and_come_back() {
        for (text, expected) in [
            ("", &[][..]),
            ("  a   b ", &["a", "b"]),
            ("sh -c 'echo \"x\" y'", &["sh", "-c", "echo \"x\" y"]),
            ("A=\"b c\" D='e'f", &["A=b c", "D=ef"]),
            ("''", &[""]),
            (
                "a\\sb \\x41 \\101 \\u00e9 \\\\ \\t",
                &["a b", "A", "A", "é", "\\", "\t"],
            ),
            (";", &[";"]),
            ("%h/$HOME", &["%h/$HOME"]),
        ] {
            let words = split(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(words, expected, "{text}");
            assert_eq!(split(&join(&words)), Ok(words), "{text}");
        }
        assert_eq!(
            join(&["a".into(), String::new(), ";".into(), "b\n".into()]),
            "a \"\" \";\" \"b\\n\""
        );
    }

    #[test]
    fn broken_words_are_refused() {
        for text in [
            "'a", "\"a", "a\\", "\\x4", "\\xzz", "\\q", "\\x00", "\\x+1", "\\ud800", "\\9",
        ] {
            assert!(split(text).is_err(), "{text}");
        }
    }
}
