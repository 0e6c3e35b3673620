//! JSON from strangers: bounded in size and depth, and no key twice.
//!
//! Two readers that take different ones of two equal keys see two documents under one signature, so such a document is refused whoever
//! signed it. Knows nothing of what documents mean.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The most levels of nesting: a bundle needs six.
const DEPTH_MAX: u8 = 24;

/// Why bytes are no acceptable JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// More bytes than such a document has.
    #[error("a document of {bytes} bytes, more than {bytes_max}")]
    TooLarge {
        /// How many there are.
        bytes: usize,
        /// How many are read.
        bytes_max: usize,
    },
    /// Not JSON, nested too deep, or a key twice.
    #[error("not acceptable JSON")]
    Malformed(#[source] serde_json::Error),
    /// JSON, but not this document.
    #[error("`{field}` is missing or of another type")]
    Field {
        /// The field, with the objects around it.
        field: &'static str,
    },
}

/// Reads one document of at most `bytes_max` bytes.
pub(crate) fn read(bytes: &[u8], bytes_max: usize) -> Result<Value, JsonError> {
    if bytes.len() > bytes_max {
        return Err(JsonError::TooLarge {
            bytes: bytes.len(),
            bytes_max,
        });
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0 }
        .deserialize(&mut reader)
        .map_err(JsonError::Malformed)?;
    reader.end().map_err(JsonError::Malformed)?;
    Ok(value)
}

/// The text at a path of keys.
pub(crate) fn text<'v>(value: &'v Value, field: &'static str) -> Result<&'v str, JsonError> {
    let found = field.split('.').try_fold(value, |at, key| at.get(key));
    found.and_then(Value::as_str).ok_or(JsonError::Field { field })
}

/// The list at a path of keys.
pub(crate) fn list<'v>(value: &'v Value, field: &'static str) -> Result<&'v Vec<Value>, JsonError> {
    let found = field.split('.').try_fold(value, |at, key| at.get(key));
    found.and_then(Value::as_array).ok_or(JsonError::Field { field })
}

struct Strict {
    depth: u8,
}

impl Strict {
    fn deeper<E: serde::de::Error>(&self) -> Result<u8, E> {
        if self.depth >= DEPTH_MAX {
            return Err(E::custom(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut list = Vec::new();
        while let Some(value) = from.next_element_seed(Strict { depth })? {
            list.push(value);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = from.next_key::<String>()? {
            let value = from.next_value_seed(Strict { depth })?;
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom("a key twice in one object"));
            }
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_json_is_read_and_ambiguous_json_refused() {
        let good = read(br#"{"a":[1,-2,1.5,null,true],"b":{"c":"d"}}"#, 100).expect("good");
        assert_eq!(text(&good, "b.c").expect("there"), "d");
        assert_eq!(list(&good, "a").expect("there").len(), 5);
        assert!(text(&good, "b.x").is_err() && list(&good, "b").is_err());
        let deep = "[".repeat(30) + &"]".repeat(30);
        for bad in [
            r#"{"a":1,"a":2}"#,
            r#"[{"x":{"a":1,"b":2,"a":1}}]"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":1} x"#,
            r#"{"a":1"#,
            "",
            &deep,
        ] {
            assert!(read(bad.as_bytes(), 1000).is_err(), "{bad}");
        }
        assert!(matches!(read(b"[1,2,3]", 6), Err(JsonError::TooLarge { .. })));
    }
}
