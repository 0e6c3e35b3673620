//! Lists as people and scripts want them: a table, JSON, or a template.
//!
//! Owns `--format` and the filters' notation. Refuses to know what is listed. Invariant: a template is read before anything is asked of the daemon's
//! answer, and a wrong one says where.

use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::template::{Template, TemplateError};
use crate::{output, table};

/// A column of a default table: the row's field, and its title.
pub type Column = (&'static str, &'static str);

/// Why a list cannot be shown or asked for.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// The format.
    #[error("--format")]
    Format(#[source] TemplateError),
    /// A filter.
    #[error("--filter {text:?} is not NAME=VALUE")]
    Filter {
        /// What was written.
        text: String,
    },
    /// JSON cannot be written.
    #[error("writing JSON")]
    Json(#[source] serde_json::Error),
}

/// How a list is shown.
#[derive(Clone, Debug)]
pub enum Format {
    /// The command's own columns.
    Table,
    /// Columns by a template, titles from its fields.
    TableOf(Template),
    /// The daemon's answer.
    Json,
    /// One text per row.
    Rows(Template),
}

impl Format {
    /// Reads `--format`.
    pub fn parse(text: Option<&str>) -> Result<Self, ListingError> {
        let template = |text: &str| Template::parse_format(text).map_err(ListingError::Format);
        match text {
            None | Some("table") => Ok(Self::Table),
            Some("json") => Ok(Self::Json),
            Some(text) => match text.strip_prefix("table ") {
                Some(columns) => Ok(Self::TableOf(template(columns)?)),
                None => Ok(Self::Rows(template(text)?)),
            },
        }
    }
}

/// A list to show.
pub struct Listing<'l> {
    /// The default table.
    pub columns: &'l [Column],
    /// What the daemon answered, for JSON.
    pub raw: &'l Value,
    /// One object per row, all with the same fields.
    pub rows: &'l [Value],
    /// Whether titles are left out.
    pub has_no_titles: bool,
}

impl Listing<'_> {
    /// Shows the list.
    pub fn show(&self, format: &Format) -> Result<(), Failure> {
        output::print(&self.render(format)?)
    }

    /// Makes the list's text.
    pub fn render(&self, format: &Format) -> Result<String, ListingError> {
        match format {
            Format::Json => pretty(self.raw),
            Format::Table => {
                let mut lines = Vec::with_capacity(self.rows.len() + 1);
                if !self.has_no_titles {
                    lines.push(
                        self.columns
                            .iter()
                            .map(|(_, title)| (*title).to_owned())
                            .collect(),
                    );
                }
                for row in self.rows {
                    lines.push(
                        self.columns
                            .iter()
                            .map(|(field, _)| shown(&row[*field]))
                            .collect(),
                    );
                }
                Ok(table::align(&lines))
            }
            Format::TableOf(template) => {
                let mut lines = Vec::with_capacity(self.rows.len() + 1);
                if !self.has_no_titles {
                    lines.push(cells(&template.header(|field| self.title(field))));
                }
                for row in self.rows {
                    lines.push(cells(&template.render(row).map_err(ListingError::Format)?));
                }
                Ok(table::align(&lines))
            }
            Format::Rows(template) => {
                let mut text = String::new();
                for row in self.rows {
                    text.push_str(&template.render(row).map_err(ListingError::Format)?);
                    text.push('\n');
                }
                Ok(text)
            }
        }
    }

    fn title(&self, field: &str) -> String {
        match self.columns.iter().find(|(known, _)| *known == field) {
            Some((_, title)) => (*title).to_owned(),
            None => spaced(field),
        }
    }
}

fn cells(line: &str) -> Vec<String> {
    line.split('\t').map(str::to_owned).collect()
}

/// `CreatedAt` as `CREATED AT`.
fn spaced(field: &str) -> String {
    let mut title = String::new();
    let mut was_lower = false;
    for c in field.chars() {
        if c.is_uppercase() && was_lower {
            title.push(' ');
        }
        was_lower = c.is_lowercase();
        title.extend(c.to_uppercase());
    }
    title
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// JSON for people and scripts, with a line break.
pub fn pretty(value: &Value) -> Result<String, ListingError> {
    let mut text = serde_json::to_string_pretty(value).map_err(ListingError::Json)?;
    text.push('\n');
    Ok(text)
}

/// Filters as the API wants them: `{"name":["value", …]}`; nothing where there are none.
pub fn filters(values: &[String]) -> Result<Option<String>, ListingError> {
    if values.is_empty() {
        return Ok(None);
    }
    let mut map = Map::new();
    for text in values {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                let list = map
                    .entry(name.to_owned())
                    .or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = list {
                    list.push(value.into());
                }
            }
            _ => return Err(ListingError::Filter { text: text.clone() }),
        }
    }
    Ok(Some(Value::Object(map).to_string()))
}

/// A list out of an answer that may be null.
pub fn items(answer: &Value) -> &[Value] {
    answer.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(format: Option<&str>, expected: &str) {
        let raw = json!([{ "Id": "1" }]);
        let rows = [
            json!({"ID": "1", "Names": "web", "CreatedAt": "now"}),
            json!({"ID": "22", "Names": "db", "CreatedAt": "then"}),
        ];
        let listing = Listing {
            columns: &[("ID", "CONTAINER ID"), ("Names", "NAMES")],
            raw: &raw,
            rows: &rows,
            has_no_titles: false,
        };
        let format = Format::parse(format).expect("it is a format");
        assert_eq!(listing.render(&format).expect("it is shown"), expected);
    }

    #[test]
    fn every_form_is_shown() {
        check(
            None,
            "CONTAINER ID   NAMES\n1              web\n22             db\n",
        );
        check(
            Some("table"),
            "CONTAINER ID   NAMES\n1              web\n22             db\n",
        );
        check(
            Some("table {{.CreatedAt}}\\t{{.ID}}"),
            "CREATED AT   CONTAINER ID\nnow          1\nthen         22\n",
        );
        check(Some("{{.ID}}\\t{{.Names}}"), "1\tweb\n22\tdb\n");
        check(Some("json"), "[\n  {\n    \"Id\": \"1\"\n  }\n]\n");
    }

    #[test]
    fn wrong_formats_and_filters_are_refused() {
        assert!(Format::parse(Some("{{.ID")).is_err());
        assert!(Format::parse(Some("table {{nope .ID}}")).is_err());
        assert!(filters(&["running".to_owned()]).is_err());
        assert!(filters(&["=x".to_owned()]).is_err());
    }

    #[test]
    fn filters_of_one_name_are_joined() {
        let text = filters(&["label=a=b".to_owned(), "label=c".to_owned(), "name=x".to_owned()]);
        assert_eq!(
            text.expect("they are filters").as_deref(),
            Some(r#"{"label":["a=b","c"],"name":["x"]}"#)
        );
    }
}
