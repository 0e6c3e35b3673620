//! Layers seen through a user namespace's mapping.
//!
//! Owns the mapped mounts of layers. Refuses to fall back to changing owners on disk: layers are shared between containers.

use std::path::PathBuf;

use crate::plan::RunPlan;
use crate::rootfs::RootfsError;
use crate::spec::has_user_namespace;

/// Returns the folders to stack: the layers themselves, or mounts of them that show every owner as the container's mapping has it.
pub(crate) fn mapped_layers(plan: &RunPlan, layers: Vec<PathBuf>) -> Result<Vec<PathBuf>, RootfsError> {
    if !has_user_namespace(plan) {
        return Ok(layers);
    }
    let path = layers.into_iter().next().unwrap_or_default();
    let source = Box::new(std::io::Error::from(std::io::ErrorKind::Unsupported));
    Err(RootfsError::IdMap { path, source })
}
