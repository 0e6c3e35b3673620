//! The query of a request, and paths, percent-decoded.

use crate::refusal::{Answer, Refusal};

/// Parameters of a request; the first of a name counts, except where all are asked for.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what follows the `?`.
    pub fn parse(text: &str) -> Answer<Self> {
        text.split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((
                    decode(&name.replace('+', " "))?,
                    decode(&value.replace('+', " "))?,
                ))
            })
            .collect::<Answer<_>>()
            .map(Self)
    }

    /// A parameter; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(held, _)| held == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// All of a name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0
            .iter()
            .filter(|(held, _)| held == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// A truth value: as in Docker, everything but `0`, `no`, `false`, `none` and nothing is true.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| {
            !matches!(
                value.to_ascii_lowercase().trim(),
                "" | "0" | "no" | "false" | "none"
            )
        })
    }

    /// The same with another default where it is absent.
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        if self.get(name).is_some() {
            self.flag(name)
        } else {
            default
        }
    }

    /// A number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Answer<Option<T>> {
        self.get(name)
            .map(|text| {
                text.parse()
                    .map_err(|_| Refusal::bad(format!("invalid value {text:?} for {name}: not a number")))
            })
            .transpose()
    }
}

/// Undoes percent-encoding.
pub fn decode(text: &str) -> Answer<String> {
    let invalid = || Refusal::bad(format!("invalid URL escape in {text:?}"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .ok_or_else(invalid)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| invalid())?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_parameters() {
        let query = Query::parse("all=1&filters=%7B%22a%22%3A1%7D&t=-1&name=a+b&x&all=0").expect("valid");
        assert!(query.flag("all"));
        assert_eq!(query.get("filters"), Some("{\"a\":1}"));
        assert_eq!(query.number::<i64>("t").expect("a number"), Some(-1));
        assert_eq!(query.get("name"), Some("a b"));
        assert_eq!(query.all("all"), ["1", "0"]);
        assert!(!query.flag("x") && !query.flag("y") && query.flag_or("y", true));
        for word in ["0", "no", "False", "none", ""] {
            assert!(
                !Query::parse(&format!("a={word}")).expect("valid").flag("a"),
                "{word}"
            );
        }
    }

    #[test]
    fn refuses_broken_escapes() {
        for bad in ["a=%", "a=%1", "a=%zz", "a=%ff", "%=1"] {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
        assert!(Query::parse("t=x").expect("valid").number::<i64>("t").is_err());
    }
}
