//! Committing: a container's writable layer on top of its image becomes an image.
//!
//! Owns the new document and manifest. Unpacking, verifying and publishing are those of a load: the layer comes as a tar and is trusted no more than one
//! from anywhere else. Invariant: the layers below are those of the image, by digest, and stay while this lasts.

use std::io::Read;

use serde_json::{Value, json};

use crate::config::{ConfigDocument, HistoryStep, ImageConfig};
use crate::digest::Digest;
use crate::guard::{Counted, Guarded};
use crate::index::{LayerRecord, Record, Stored};
use crate::load::{Additions, LoadError, Loaded, now, write_member};
use crate::reference::{Reference, ReferenceError};
use crate::spool::{Member, keep};
use crate::store::{ImageStore, Staging, StoreError};

/// Media type of the new layer in a manifest of Docker's.
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// The same in OCI's.
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What a committed image is to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommitOptions {
    /// Its name.
    pub reference: Option<String>,
    /// Who made it.
    pub author: String,
    /// A note.
    pub comment: String,
    /// What its containers inherit.
    pub config: ImageConfig,
    /// The command that made the layer.
    pub created_by: String,
}

/// Why nothing was committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A bad name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The image's own documents do not read as what they are.
    #[error("the image's manifest is damaged; pull or load the image again")]
    Manifest,
    /// As in a load.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl From<StoreError> for CommitError {
    fn from(error: StoreError) -> Self {
        Self::Load(LoadError::Store(error))
    }
}

impl ImageStore {
    /// Makes an image of the image `base` and a layer's bare tar.
    pub fn commit_layer(
        &self,
        base: &Digest,
        layer: impl Read,
        options: &CommitOptions,
    ) -> Result<Loaded, CommitError> {
        let tags: Vec<Reference> = options
            .reference
            .as_deref()
            .map(Reference::parse_tag)
            .transpose()?
            .into_iter()
            .collect();
        let mut staging = self.stage().map_err(LoadError::from)?;
        let below = {
            let mut state = self.state();
            let missing = || {
                StoreError::from(crate::index::ResolveError::NotFound {
                    name: base.to_string(),
                })
            };
            let record = state.index.images.get(base).cloned().ok_or_else(missing)?;
            staging.pin_image(&mut state, base, &record);
            record
        };
        let mut document = self.document(base)?;
        let (counted, count) = Counted::new(layer);
        let mut content = Guarded::new(counted, count, &staging.path, &self.limits);
        let member = keep(&mut content, staging.path.join("layer"), &mut || {}).map_err(LoadError::Spool)?;
        let mut additions = Additions::default();
        let top = self.take_layer(&mut staging, &mut additions, &member)?;
        describe(&mut document, &top, options);
        let config = serde_json::to_vec(&document).map_err(|_| CommitError::Manifest)?;
        let id = Digest::of(&config);
        let config = write_member(&staging, "config", id.clone(), &config).map_err(LoadError::from)?;
        let manifest = self.manifest_on(&below, &config, &member)?;
        let manifest =
            write_member(&staging, "manifest", Digest::of(&manifest), &manifest).map_err(LoadError::from)?;
        additions.take_blob(&config);
        additions.take_blob(&manifest);
        let mut layers = below.layers;
        layers.push(top);
        let record = Record {
            manifest: manifest.digest,
            layers,
            repo_digests: Vec::new(),
            documents: Default::default(),
            evidence: Default::default(),
            loaded: now(),
            hidden: false,
        };
        additions.records.push((id, record, tags));
        let mut loaded = self.publish(staging, additions)?;
        Ok(loaded.remove(0))
    }

    /// Unpacks the new layer, unless the store has it.
    fn take_layer(
        &self,
        staging: &mut Staging<'_>,
        additions: &mut Additions,
        member: &Member,
    ) -> Result<LayerRecord, CommitError> {
        let diff_id = member.digest.clone();
        let bytes = match self.known_layer(staging, &diff_id) {
            Some(bytes) => bytes,
            None => {
                let folder = staging.path.join(format!("layer-{}", diff_id.hex()));
                let made = self.unpack_layer(staging, &diff_id, member, &folder)?;
                let bytes = made.bytes;
                additions.layers.insert(diff_id.clone(), made);
                bytes
            }
        };
        Ok(LayerRecord {
            blob: diff_id.clone(),
            diff_id,
            stored: Stored::Recipe,
            bytes,
        })
    }

    /// The manifest of the image below, with another configuration and one layer more.
    fn manifest_on(&self, below: &Record, config: &Member, layer: &Member) -> Result<Vec<u8>, CommitError> {
        let bytes = self.read_blob(&below.manifest, self.limits.config_bytes_max)?;
        let mut manifest: Value = serde_json::from_slice(&bytes).map_err(|_| CommitError::Manifest)?;
        let layers = manifest["layers"].as_array_mut().ok_or(CommitError::Manifest)?;
        let is_dockers = layers.iter().any(|known| {
            known["mediaType"]
                .as_str()
                .is_some_and(|kind| kind.contains("vnd.docker."))
        });
        layers.push(json!({
            "mediaType": if is_dockers { DOCKER_LAYER } else { OCI_LAYER },
            "digest": layer.digest.to_string(),
            "size": layer.size,
        }));
        manifest["config"]["digest"] = json!(config.digest.to_string());
        manifest["config"]["size"] = json!(config.size);
        if let Some(fields) = manifest.as_object_mut() {
            fields.remove("annotations");
        }
        serde_json::to_vec(&manifest).map_err(|_| CommitError::Manifest)
    }
}

/// Turns the document of the image below into that of the new one.
fn describe(document: &mut ConfigDocument, top: &LayerRecord, options: &CommitOptions) {
    document.created = Some(now());
    document.author.clone_from(&options.author);
    document.comment.clone_from(&options.comment);
    document.config = options.config.clone();
    document.rootfs.diff_ids.push(top.diff_id.clone());
    document.history.push(HistoryStep {
        created: document.created.clone(),
        created_by: options.created_by.clone(),
        author: options.author.clone(),
        comment: options.comment.clone(),
        empty_layer: false,
    });
}
