//! kakoi-image.
