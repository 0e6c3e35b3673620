//! Filters of lists: `{"label":{"a=b":true}}` or `{"label":["a=b"]}`.
//!
//! Invariant: a key that the list does not know is an error, so that a misspelt filter never widens a prune.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::refusal::{Answer, Refusal};

/// Parsed filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads the query parameter; `known` are the keys that the list understands.
    pub fn parse(text: Option<&str>, known: &[&str]) -> Answer<Self> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(Self::default());
        };
        let document: BTreeMap<String, Value> =
            serde_json::from_str(text).map_err(|cause| Refusal::bad(format!("invalid filters: {cause}")))?;
        let mut filters = BTreeMap::new();
        for (key, value) in document {
            if !known.contains(&key.as_str()) {
                return Err(Refusal::bad(format!("invalid filter '{key}'")));
            }
            let values = match value {
                Value::Object(set) => set
                    .into_iter()
                    .filter(|(_, on)| on.as_bool().unwrap_or(true))
                    .map(|(value, _)| value)
                    .collect(),
                Value::Array(list) => list
                    .into_iter()
                    .map(|item| match item {
                        Value::String(text) => Ok(text),
                        _ => Err(Refusal::bad(format!(
                            "invalid filters: {key} holds something else than strings"
                        ))),
                    })
                    .collect::<Answer<Vec<_>>>()?,
                _ => {
                    return Err(Refusal::bad(format!(
                        "invalid filters: {key} is neither a list nor a set"
                    )));
                }
            };
            filters.insert(key, values);
        }
        Ok(Self(filters))
    }

    /// The values of a key; empty where it is absent.
    pub fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Forgets a key.
    pub fn drop_key(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// Whether `test` holds for a value of `key`, or the key is absent.
    pub fn any(&self, key: &str, test: impl Fn(&str) -> bool) -> bool {
        let values = self.values(key);
        values.is_empty() || values.iter().any(|value| test(value))
    }

    /// Whether `labels` fit every `label` (`name` or `name=value`) and no `label!`.
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let fits = |wanted: &String| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|held| held == value),
            None => labels.contains_key(wanted),
        };
        self.values("label").iter().all(fits) && !self.values("label!").iter().any(fits)
    }

    /// A key that holds one truth value.
    pub fn flag(&self, key: &str) -> Answer<Option<bool>> {
        match self.values(key) {
            [] => Ok(None),
            [value] => match value.to_ascii_lowercase().as_str() {
                "1" | "t" | "true" => Ok(Some(true)),
                "0" | "f" | "false" => Ok(Some(false)),
                _ => Err(Refusal::bad(format!("invalid filter '{key}=[{value}]'"))),
            },
            _ => Err(Refusal::bad(format!(
                "invalid filter '{key}': more than one value"
            ))),
        }
    }
}

/// Whether `name` fits a name filter: a part of the name, `^` and `$` anchoring it.
pub fn name_fits(name: &str, wanted: &str) -> bool {
    let wanted = wanted.strip_prefix('/').unwrap_or(wanted);
    let (start, wanted) = wanted
        .strip_prefix('^')
        .map_or((false, wanted), |rest| (true, rest));
    let wanted = wanted.strip_prefix('/').unwrap_or(wanted);
    let (end, wanted) = wanted
        .strip_suffix('$')
        .map_or((false, wanted), |rest| (true, rest));
    match (start, end) {
        (true, true) => name == wanted,
        (true, false) => name.starts_with(wanted),
        (false, true) => name.ends_with(wanted),
        (false, false) => name.contains(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sets_and_lists() {
        for text in [r#"{"label":{"a=b":true,"c":true}}"#, r#"{"label":["a=b","c"]}"#] {
            let filters = Filters::parse(Some(text), &["label"]).expect("valid");
            assert_eq!(filters.values("label"), ["a=b", "c"]);
        }
        assert_eq!(Filters::parse(None, &[]).expect("valid"), Filters::default());
    }

    #[test]
    fn refuses_unknown_keys_and_broken_text() {
        for text in [
            "{",
            r#"{"labell":["a"]}"#,
            r#"{"label":[1]}"#,
            r#"{"label":"a"}"#,
            "[]",
        ] {
            let refusal = Filters::parse(Some(text), &["label"]).expect_err("invalid");
            assert_eq!(refusal.status, hyper::StatusCode::BAD_REQUEST, "{text}");
        }
    }

    #[test]
    fn labels_must_all_fit() {
        let labels = BTreeMap::from([("a".into(), "b".into())]);
        let fits = |text| {
            Filters::parse(Some(text), &["label", "label!"])
                .expect("valid")
                .labels(&labels)
        };
        assert!(fits(r#"{"label":["a=b","a"]}"#));
        assert!(!fits(r#"{"label":["a=b","c"]}"#));
        assert!(!fits(r#"{"label!":["a"]}"#));
        assert!(fits(r#"{"label!":["a=c"]}"#));
    }

    #[test]
    fn names_fit_in_part_or_anchored() {
        assert!(name_fits("web-1", "web"));
        assert!(name_fits("web-1", "^/web"));
        assert!(name_fits("web-1", "^web-1$"));
        assert!(!name_fits("web-1", "^eb"));
        assert!(!name_fits("web-1", "web$"));
    }
}
