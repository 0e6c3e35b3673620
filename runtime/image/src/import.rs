//! Importing: a root file system's tar becomes an image of one layer.
//!
//! Owns the configuration of such an image. Unpacking, verifying and publishing are those of a load.

use std::io::{BufReader, Read};

use crate::archive::{Planned, architecture};
use crate::changes::{ChangeError, apply_change};
use crate::compression::Decoder;
use crate::config::{ConfigDocument, HistoryStep, RootFs};
use crate::digest::Digest;
use crate::guard::{Counted, Guarded};
use crate::load::{Additions, LoadError, Loaded, Progress, now, write_member};
use crate::reference::{Reference, ReferenceError};
use crate::spool::{SpoolError, keep};
use crate::store::ImageStore;

/// What an imported image is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Its name.
    pub reference: Option<String>,
    /// A note for its history.
    pub message: String,
    /// Changes to its configuration, in a Dockerfile's words.
    pub changes: Vec<String>,
    /// Architecture in Go's words, where it is not this machine's.
    pub architecture: Option<String>,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A bad name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A bad change.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// Something else than a tar.
    #[error("input is not a tar archive")]
    NotTar,
    /// Our own configuration: only memory can be the reason.
    #[error("cannot write the image's configuration")]
    Document(#[source] serde_json::Error),
    /// As in a load.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl ImageStore {
    /// Imports a root file system: a tar, plain, gzip or zstd.
    pub fn import(
        &self,
        reader: impl Read,
        options: &ImportOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Loaded, ImportError> {
        // What is wrong with the words is said before a gigabyte is read.
        let tag = options
            .reference
            .as_deref()
            .map(Reference::parse_tag)
            .transpose()?;
        let mut document = configuration(options);
        for change in &options.changes {
            apply_change(&mut document.config, change)?;
        }
        let mut staging = self.stage().map_err(LoadError::from)?;
        let (counted, count) = Counted::new(reader);
        let decoder = Decoder::new(BufReader::with_capacity(64 * 1024, counted))
            .map_err(|source| LoadError::Spool(SpoolError::Read(source)))?;
        let mut content = Guarded::new(decoder, count.clone(), &staging.path, &self.limits);
        let layer = keep(&mut content, staging.path.join("layer"), &mut || {
            progress(Progress::Read { bytes: count.get() })
        })
        .map_err(LoadError::Spool)?;
        if !layer.is_packed {
            return Err(ImportError::NotTar);
        }
        document.rootfs.diff_ids = vec![layer.digest.clone()];
        let bytes = serde_json::to_vec(&document).map_err(ImportError::Document)?;
        let id = Digest::of(&bytes);
        let config = write_member(&staging, "config", id.clone(), &bytes).map_err(LoadError::from)?;
        let planned = Planned {
            id,
            config,
            manifest: None,
            layers: vec![(layer.digest.clone(), layer)],
            tags: tag.into_iter().collect(),
            documents: Vec::new(),
        };
        let mut additions = Additions::default();
        self.add(&mut staging, &mut additions, planned, progress)?;
        let mut loaded = self.publish(staging, additions)?;
        Ok(loaded.remove(0))
    }
}

fn configuration(options: &ImportOptions) -> ConfigDocument {
    let created = now();
    let comment = match options.message.as_str() {
        "" => String::from("Imported from -"),
        message => message.to_owned(),
    };
    ConfigDocument {
        created: Some(created.clone()),
        architecture: options
            .architecture
            .clone()
            .unwrap_or_else(|| architecture().to_owned()),
        os: String::from("linux"),
        rootfs: RootFs {
            kind: String::from("layers"),
            diff_ids: Vec::new(),
        },
        history: vec![HistoryStep {
            created: Some(created),
            comment: comment.clone(),
            ..HistoryStep::default()
        }],
        comment,
        ..ConfigDocument::default()
    }
}
