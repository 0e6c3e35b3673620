//! A door for `integration/fuzz` to a parser that is nobody else's to call.
//!
//! Is there only where that, or a test, is built.

use crate::limits::Limits;
use crate::registry::Document;

/// Reads a document as it would be read from a registry that serves it under a content type; tells whether it is an index.
///
/// # Errors
/// What is wrong with it.
pub fn document(bytes: &[u8], content_type: &str, limits: &Limits) -> Result<bool, String> {
    let document = Document::parse(bytes, content_type, limits)?;
    Ok(matches!(document, Document::Index(_)))
}
