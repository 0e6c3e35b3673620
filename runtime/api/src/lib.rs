//! kakoi-api.
