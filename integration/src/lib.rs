//! kakoi-integration.
