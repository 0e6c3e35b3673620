//! kakoi-confine.
