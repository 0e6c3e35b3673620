//! kakoi-sys.
