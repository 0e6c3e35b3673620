//! Reads a request body as Go's decoder would: field names in any case, `null` for absent, unknown fields passed over.
//!
//! Invariant: only names of struct fields are normalised. Keys of maps (labels, ports, ulimit options) are the client's own data and
//! stay as they are.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// A body that does not fit the type it was read as.
#[derive(Debug)]
pub struct DecodeError(serde_json::Error);

impl std::fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(formatter, "invalid JSON: {}", self.0)
    }
}

impl std::error::Error for DecodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Reads `bytes` as `T`. An empty body and `null` read as `{}`: Docker 20.10 sends the latter where it has nothing to say.
///
/// # Errors
/// The bytes are not JSON, or a field has the wrong type.
pub fn decode<T: DeserializeOwned + Serialize + Default>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    let mut value: Value = serde_json::from_slice(bytes).map_err(DecodeError)?;
    if value.is_null() {
        return Ok(T::default());
    }
    let template = serde_json::to_value(T::default()).map_err(DecodeError)?;
    normalise(&mut value, &template);
    serde_json::from_value(value).map_err(DecodeError)
}

/// Reads a field that may be `null` as its type's default.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Renames the fields of `value` to their spelling in `template`, an instance of the same type; an object that is empty in the
/// template is a map and is left alone.
fn normalise(value: &mut Value, template: &Value) {
    let (Value::Object(fields), Value::Object(known)) = (value, template) else {
        return;
    };
    if known.is_empty() {
        return;
    }
    let mut renamed = Map::new();
    for (name, mut field) in std::mem::take(fields) {
        let spelling = if known.contains_key(&name) {
            name
        } else {
            known
                .keys()
                .find(|key| key.eq_ignore_ascii_case(&name))
                .cloned()
                .unwrap_or(name)
        };
        if let Some(below) = known.get(&spelling) {
            normalise(&mut field, below);
        }
        renamed.insert(spelling, field);
    }
    *fields = renamed;
}

#[cfg(test)]
mod tests {
    use super::decode;
    use crate::container::CreateBody;

    #[test]
    fn reads_fields_in_any_case_and_nulls_as_absent() {
        let body: CreateBody = decode(
            br#"{"image":"x","CMD":"true","Env":null,"labels":{"Env":"kept"},"hostconfig":{"MEMORY":7,"Binds":null},"Nonsense":1}"#,
        )
        .expect("a valid body");
        assert_eq!(body.config.image, "x");
        assert_eq!(body.config.cmd.expect("a command").0, ["true"]);
        assert!(body.config.env.is_empty());
        assert_eq!(body.config.labels["Env"], "kept");
        assert_eq!(body.host_config.memory, 7);
    }

    #[test]
    fn nothing_is_nothing_however_it_is_written() {
        for text in ["", " \n", "null", "{}"] {
            assert_eq!(
                decode::<CreateBody>(text.as_bytes()).expect(text),
                CreateBody::default()
            );
        }
    }

    #[test]
    fn an_empty_entrypoint_is_not_an_absent_one() {
        let body: CreateBody = decode(br#"{"Entrypoint":[]}"#).expect("a valid body");
        assert_eq!(body.config.entrypoint.expect("present").0, Vec::<String>::new());
        let body: CreateBody = decode(br#"{"Entrypoint":null}"#).expect("a valid body");
        assert_eq!(body.config.entrypoint, None);
    }

    #[test]
    fn refuses_wrong_types_and_broken_json() {
        for bad in [
            "{",
            "[]",
            r#"{"Env":"A=b"}"#,
            r#"{"HostConfig":{"Memory":"much"}}"#,
        ] {
            assert!(decode::<CreateBody>(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_is_granted_by_default() {
        let body = CreateBody::default();
        assert!(!body.host_config.privileged);
        assert!(body.host_config.cap_add.is_empty() && body.host_config.devices.is_empty());
        assert!(body.host_config.binds.is_empty() && body.host_config.security_opt.is_empty());
    }
}
