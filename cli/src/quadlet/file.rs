//! The format of systemd's unit files.
//!
//! Owns lines, sections, comments and continued lines. Refuses to know any key. Pure. Source: systemd.syntax(7).
//!
//! ```text
//! # a comment
//! [Container]
//! Image=docker.io/library/busybox
//! Exec=sh -c \
//!   "echo hello"
//! ```

/// A key, its value, and the line it begins at, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value, without white space around it; continued lines are joined by a blank.
    pub value: String,
    /// The line.
    pub line: usize,
}

/// What stands between two headings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// The line of its heading.
    pub line: usize,
    /// Its entries, in their order.
    pub entries: Vec<Entry>,
}

/// A line that is none of a unit file, and what is wrong with it.
pub type Malformed = (usize, String);

/// Reads a file; the first malformed line ends it.
pub fn parse(text: &str) -> Result<Vec<Section>, Malformed> {
    let mut sections: Vec<Section> = Vec::new();
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()));
    while let Some((at, line)) = lines.next() {
        if is_passed_over(line) {
            continue;
        }
        let mut whole = line.to_owned();
        while let Some(rest) = whole.strip_suffix('\\') {
            let mut joined = rest.trim_end().to_owned();
            // A comment between continued lines is passed over, and does not end them.
            match lines.by_ref().find(|(_, next)| !next.starts_with(['#', ';'])) {
                Some((_, next)) => {
                    joined.push(' ');
                    joined.push_str(next);
                    whole = joined;
                }
                None => return Err((at, "the last line ends with a backslash".to_owned())),
            }
        }
        if let Some(name) = whole.strip_prefix('[') {
            let name = name
                .strip_suffix(']')
                .filter(|name| !name.is_empty() && !name.contains(['[', ']']));
            let name = name.ok_or_else(|| (at, format!("{whole:?} is not [SECTION]")))?;
            sections.push(Section {
                name: name.to_owned(),
                line: at,
                entries: Vec::new(),
            });
            continue;
        }
        let pair = whole
            .split_once('=')
            .map(|(key, value)| (key.trim(), value.trim()));
        let (key, value) = pair
            .filter(|(key, _)| !key.is_empty() && !key.contains(char::is_whitespace))
            .ok_or_else(|| (at, format!("{whole:?} is not KEY=VALUE")))?;
        let section = sections
            .last_mut()
            .ok_or_else(|| (at, format!("{key}= stands before the first [SECTION]")))?;
        section.entries.push(Entry {
            key: key.to_owned(),
            value: value.to_owned(),
            line: at,
        });
    }
    Ok(sections)
}

fn is_passed_over(line: &str) -> bool {
    line.is_empty() || line.starts_with(['#', ';'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_entries_and_continued_lines_are_read() {
        let sections = parse(
            "# c\n; c\n[Unit]\nDescription = a b \n\n[Container]\nExec=sh -c \\\n# between\n  'x' \\\n  y\nImage=\n",
        )
        .expect("well-formed");
        let rows: Vec<(String, String, usize)> = sections
            .iter()
            .flat_map(|section| &section.entries)
            .map(|entry| (entry.key.clone(), entry.value.clone(), entry.line))
            .collect();
        assert_eq!(
            sections.iter().map(|section| section.line).collect::<Vec<_>>(),
            [3, 6]
        );
        assert_eq!(
            rows,
            [
                ("Description".into(), "a b".into(), 4),
                ("Exec".into(), "sh -c 'x' y".into(), 7),
                ("Image".into(), String::new(), 11),
            ]
        );
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn malformed_lines_are_named() {
        for (text, line, reason) in [
            ("Image=x", 1, "before the first"),
            ("[Container]\nImage", 2, "is not KEY=VALUE"),
            ("[Container]\n=x", 2, "is not KEY=VALUE"),
            ("[Container]\nA B=x", 2, "is not KEY=VALUE"),
            ("[Container", 1, "is not [SECTION]"),
            ("[]", 1, "is not [SECTION]"),
            ("[a]b]", 1, "is not [SECTION]"),
            ("[Container]\n\nImage=x\\", 3, "ends with a backslash"),
            ("[Container]\nImage=x \\\n# only this", 2, "ends with a backslash"),
        ] {
            let (at, words) = parse(text).expect_err(text);
            assert_eq!(at, line, "{text:?}");
            assert!(words.contains(reason), "{text:?}: {words}");
        }
    }
}
