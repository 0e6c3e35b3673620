//! The JSON Schema of the language, for editors that complete from one.

/// The JSON Schema of policies, version 1 of the language.
pub fn json_schema() -> serde_json::Value {
    serde_json::json!({})
}
