//! What is attached to an image in its registry: signatures under the tag `sha256-<hex>.sig`, and whatever refers to a digest.
//!
//! Owns finding and fetching it, within bounds. Refuses to judge it: nothing that comes out of here is verified, except that each payload has
//! the digest by which its manifest names it. What it is is told by the media type of a layer: tools write what they like into `artifactType`.

use kakoi_trust::Layer as Attached;

use super::document::{BlobDescriptor, Document, is_index};
use super::error::RegistryError;
use super::repository::{Repository, Served, fallback_tag};
use crate::digest::Digest;
use crate::limits::Limits;

/// The most payloads of one image that are fetched. A judge that looks at fewer hears of the rest.
pub const ATTACHED_MAX: usize = 65;
/// The most documents that refer to one digest and are opened to see what they are.
const REFERRERS_MAX: usize = 64;
/// The most bytes of one payload: bills of materials are larger, and nobody asks for them here.
pub(crate) const PAYLOAD_BYTES_MAX: u64 = 256 << 10;
/// The most bytes of all payloads of one image, so that memory does not grow with what strangers attached.
const PAYLOADS_BYTES_MAX: u64 = 4 << 20;
/// The most bytes of a document that refers: some hundred signatures with their annotations.
const DOCUMENT_BYTES_MAX: u64 = 1 << 20;
/// The most signatures of a document that is read at all: no signer's is lost because others signed often.
const SIGNATURES_MAX: usize = 4096;
/// The most bytes of one payload's annotations. An RSA signature of 8192 bits is 1.4 KB; certificates that ride along are larger.
const ANNOTATIONS_BYTES_MAX: usize = 16 << 10;

/// What was taken so far, within bounds.
pub(crate) struct Basket<'w> {
    /// What is asked for; everything without them.
    media_types: Option<&'w [&'w str]>,
    pub(crate) found: Vec<Attached>,
    bytes: u64,
}

impl<'w> Basket<'w> {
    pub(crate) fn new(media_types: Option<&'w [&'w str]>) -> Self {
        Self {
            media_types,
            found: Vec::new(),
            bytes: 0,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= ATTACHED_MAX || self.bytes >= PAYLOADS_BYTES_MAX
    }

    /// Whether a layer is asked for, and there is room for it.
    pub(crate) fn takes(&self, layer: &BlobDescriptor) -> bool {
        let is_asked = |kinds: &[&str]| kinds.contains(&layer.media_type.as_str());
        self.media_types.is_none_or(is_asked) && !self.is_full() && !is_too_wordy(layer)
    }

    pub(crate) fn put(&mut self, layer: &BlobDescriptor, payload: Vec<u8>) {
        self.add(Attached {
            media_type: layer.media_type.clone(),
            payload,
            annotations: layer.annotations.clone().unwrap_or_default(),
        });
    }

    pub(crate) fn add(&mut self, attached: Attached) {
        self.bytes += attached.payload.len() as u64;
        self.found.push(attached);
    }
}

impl Repository<'_> {
    /// Fetches what is attached to any of some digests, of the media types asked for: from one mirror after the other and then from the registry
    /// itself, until it is enough; what a later place has comes first. A mirror may know nothing of what is attached, or too little, and must not
    /// be able to hide it. Empty where there is nothing.
    ///
    /// # Errors
    /// No place can be asked. What cannot be read of what strangers attached is passed over, and where a mirror answered, so is that the registry
    /// does not: what it would have added is missing then.
    pub fn attached(
        &self,
        digests: &[Digest],
        media_types: &[&str],
        limits: &Limits,
        is_enough: &dyn Fn(&[Attached]) -> bool,
    ) -> Result<Vec<Attached>, RegistryError> {
        let mut places = self.places();
        let Some(mut origin) = places.pop().filter(|_| !places.is_empty()) else {
            return self.attached_here(digests, media_types, limits);
        };
        let mut found: Option<Vec<Attached>> = None;
        for mirror in places {
            match mirror.attached_here(digests, media_types, limits) {
                Ok(more) => {
                    let known = found.take();
                    let all = found.insert(joined(more, known));
                    if is_enough(all) {
                        return Ok(std::mem::take(all));
                    }
                }
                Err(RegistryError::Cancelled) => return Err(RegistryError::Cancelled),
                Err(error) => tracing::info!(mirror = mirror.own().name(), %error, "ignoring a mirror"),
            }
        }
        if found.is_some() {
            origin = origin.once_only();
        }
        match (origin.attached_here(digests, media_types, limits), found) {
            (Ok(more), found) => Ok(joined(more, found)),
            (Err(error), Some(found)) if !matches!(error, RegistryError::Cancelled) => {
                let registry = origin.own().name();
                tracing::warn!(registry, %error, "ignoring that only mirrors could be asked for signatures");
                Ok(found)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The same from this place, or these: from the tags of classic signatures, then from what refers to the digests.
    fn attached_here(
        &self,
        digests: &[Digest],
        media_types: &[&str],
        limits: &Limits,
    ) -> Result<Vec<Attached>, RegistryError> {
        let limits = Limits {
            manifest_bytes_max: DOCUMENT_BYTES_MAX,
            layers_max: SIGNATURES_MAX,
            ..limits.clone()
        };
        let mut basket = Basket::new(Some(media_types));
        for digest in digests {
            match self.manifest(&format!("{}.sig", fallback_tag(digest)), &limits) {
                Ok(served) => self.take(&served, &mut basket, &limits)?,
                Err(error) => passed_over(error)?,
            }
            for referrer in self.referrers(digest, &limits)?.iter().take(REFERRERS_MAX) {
                if basket.is_full() {
                    break;
                }
                if is_index(&referrer.media_type) {
                    continue;
                }
                match self.manifest(&referrer.digest.to_string(), &limits) {
                    Ok(served) => self.take(&served, &mut basket, &limits)?,
                    Err(error) => passed_over(error)?,
                }
            }
        }
        Ok(basket.found)
    }

    /// Takes the layers of a manifest that are asked for.
    fn take(&self, served: &Served, basket: &mut Basket<'_>, limits: &Limits) -> Result<(), RegistryError> {
        let layers = match Document::parse(&served.bytes, &served.media_type, limits) {
            Ok(Document::Manifest { layers, .. }) => layers,
            Ok(Document::Index(_)) => return Ok(()),
            Err(reason) => {
                tracing::info!(digest = %served.digest, reason, "ignoring what refers to an image");
                return Ok(());
            }
        };
        for layer in layers.iter().filter(|layer| layer.size <= PAYLOAD_BYTES_MAX) {
            if !basket.takes(layer) {
                continue;
            }
            match self.blob(&layer.digest, layer.size, PAYLOAD_BYTES_MAX) {
                Ok(payload) => basket.put(layer, payload),
                Err(error) => passed_over(error)?,
            }
        }
        Ok(())
    }
}

/// What one place has, and then what others had beside it.
fn joined(mut first: Vec<Attached>, others: Option<Vec<Attached>>) -> Vec<Attached> {
    let others = others.unwrap_or_default().into_iter();
    let new: Vec<_> = others.filter(|one| !first.contains(one)).collect();
    first.extend(new);
    first
}

/// What is missing or malformed belongs to whoever attached it, and must not keep others' signatures from being seen; a registry that cannot be
/// asked is another matter.
fn passed_over(error: RegistryError) -> Result<(), RegistryError> {
    match error {
        RegistryError::NotFound { .. } => Ok(()),
        RegistryError::TooLarge { .. }
        | RegistryError::DigestMismatch { .. }
        | RegistryError::Size { .. }
        | RegistryError::Document { .. } => {
            tracing::info!(%error, "ignoring what is attached to an image");
            Ok(())
        }
        other => Err(other),
    }
}

fn is_too_wordy(layer: &BlobDescriptor) -> bool {
    let notes = layer.annotations.iter().flatten();
    let bytes: usize = notes.map(|(key, value)| key.len() + value.len()).sum();
    bytes > ANNOTATIONS_BYTES_MAX
}
