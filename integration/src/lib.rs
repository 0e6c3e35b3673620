//! kakoi-integration.
#![forbid(unsafe_code)]
