//! Whether the store is whole: every kind of damage that a disk, a person or a bug can do to it, found, and healed where it can be.
//!
//! Owns the kinds of damage ([`Damage`]), the order of looking and healing, and what is said of each. Refuses to know containers: a caller
//! says who uses an image. Invariants: what is whole is not touched; a repair removes only what is damaged, what nothing names, and the names
//! of images that are not whole any more and that no container uses; each of those is named with what brings it back. Nothing goes that was
//! made anew since it was found, and nothing under a container that runs or is being started.
//!
//! A look does not hold the store: it works on the index as it was when it began, and what was removed meanwhile is not reported.

mod find;
mod heal;
mod rebuild;

use crate::digest::Digest;
use crate::index::Index;
use crate::remove::{Still, Uses};
use crate::store::{ImageStore, StoreError};

/// How closely [`ImageStore::check`] looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Names, lengths and modes of what the index names: takes as long as there are images, whatever is in them. The daemon's own, at its
    /// start after an unclean stop.
    Names,
    /// Every entry of every unpacked layer too, without its content.
    Metadata,
    /// Every byte against its digest.
    Content,
}

/// Whether damage is healed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// It is only told.
    No,
    /// It is healed from what the store has; nothing that is shown goes, and nothing whose name the store does not give.
    Heal,
    /// The same, and an image that cannot be healed goes, so that nothing that is not whole is shown.
    Full,
}

/// A kind of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// The index is no index or gone; it was made anew from what lies beside it. Lost where something lies there that it cannot name.
    IndexUnreadable,
    /// A name leads to an image that the index does not have.
    NameWithoutImage,
    /// An image's configuration or manifest, though its digest is not looked at, does not read as one or names other layers than the index.
    DocumentUnreadable,
    /// A blob's file is not there.
    BlobMissing,
    /// A blob's file is no regular file.
    BlobKind,
    /// A blob's file has another length than when it was published.
    BlobLength,
    /// A blob's file is not the owner's alone.
    BlobMode,
    /// A blob's bytes do not have its digest.
    BlobContent,
    /// A layer's recipe is not there.
    RecipeMissing,
    /// A layer's recipe is no regular file, has another length than when it was published, or does not begin as one.
    RecipeUnreadable,
    /// A layer's recipe is not the owner's alone.
    RecipeMode,
    /// An unpacked layer is not there.
    LayerMissing,
    /// What should be a layer's folder is none.
    LayerKind,
    /// Files of an unpacked layer went or came, or have another size, owner, mode or time.
    LayerFiles,
    /// Folder and recipe do not give back the layer.
    LayerContent,
    /// A folder of the store is not the owner's alone.
    FolderMode,
    /// A blob that no image names.
    BlobWithoutImage,
    /// A recipe that no image names.
    RecipeWithoutImage,
    /// An unpacked layer that no image names.
    LayerWithoutImage,
    /// Something left by work that was cut off, or set aside.
    Leftover,
}

impl Damage {
    /// Every kind.
    pub const ALL: [Self; 20] = [
        Self::IndexUnreadable,
        Self::NameWithoutImage,
        Self::DocumentUnreadable,
        Self::BlobMissing,
        Self::BlobKind,
        Self::BlobLength,
        Self::BlobMode,
        Self::BlobContent,
        Self::RecipeMissing,
        Self::RecipeUnreadable,
        Self::RecipeMode,
        Self::LayerMissing,
        Self::LayerKind,
        Self::LayerFiles,
        Self::LayerContent,
        Self::FolderMode,
        Self::BlobWithoutImage,
        Self::RecipeWithoutImage,
        Self::LayerWithoutImage,
        Self::Leftover,
    ];

    /// The word for scripts.
    pub const fn word(self) -> &'static str {
        match self {
            Self::IndexUnreadable => "index-unreadable",
            Self::NameWithoutImage => "name-without-image",
            Self::DocumentUnreadable => "document-unreadable",
            Self::BlobMissing => "blob-missing",
            Self::BlobKind => "blob-kind",
            Self::BlobLength => "blob-length",
            Self::BlobMode => "blob-mode",
            Self::BlobContent => "blob-content",
            Self::RecipeMissing => "recipe-missing",
            Self::RecipeUnreadable => "recipe-unreadable",
            Self::RecipeMode => "recipe-mode",
            Self::LayerMissing => "layer-missing",
            Self::LayerKind => "layer-kind",
            Self::LayerFiles => "layer-files",
            Self::LayerContent => "layer-content",
            Self::FolderMode => "folder-mode",
            Self::BlobWithoutImage => "blob-without-image",
            Self::RecipeWithoutImage => "recipe-without-image",
            Self::LayerWithoutImage => "layer-without-image",
            Self::Leftover => "leftover",
        }
    }
}

/// What became of damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It stands.
    Found,
    /// It is healed.
    Healed,
    /// It cannot be healed from here: an image has to be fetched again.
    Lost,
    /// It cannot be healed from here, and nothing that runs needs it: the image stays, and cannot be saved or pushed until it is fetched again.
    Kept,
    /// It can be healed once a container that runs on it is stopped.
    InUse {
        /// The container's id.
        container: String,
    },
    /// Healing was tried.
    Failed {
        /// Why it failed, without paths of the host.
        reason: String,
    },
}

/// One piece of damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind.
    pub damage: Damage,
    /// Where: a path below the store's folder, or a name.
    pub place: String,
    /// The blob or layer.
    pub digest: Option<Digest>,
    /// Images that need it: familiar names, or ids where they have none.
    pub images: Vec<String>,
    /// What became of it.
    pub outcome: Outcome,
}

/// An image that is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its id.
    pub id: Digest,
    /// Familiar names with tags, else with digests.
    pub names: Vec<String>,
    /// Whether a registry served it; else it was loaded from a file.
    pub is_pulled: bool,
    /// Containers that use it; while there are any, it keeps its names.
    pub containers: Vec<String>,
}

/// What a check tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// In the order in which they were found.
    pub findings: Vec<Finding>,
    /// Images that must be fetched again.
    pub lost: Vec<Lost>,
    /// Images looked at.
    pub images: usize,
    /// Blobs looked at.
    pub blobs: usize,
    /// Unpacked layers looked at.
    pub layers: usize,
}

impl CheckReport {
    /// Whether everything is whole, or was made so.
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty()
            && self
                .findings
                .iter()
                .all(|finding| finding.outcome == Outcome::Healed)
    }
}

impl ImageStore {
    /// Looks for damage, and heals it as far as `repair` says.
    ///
    /// Blocks for as long as `depth` takes. Healing a layer needs its unpacked size on the disk for a moment. What goes or is exchanged does so
    /// within `still`, after `uses` was asked there.
    ///
    /// # Errors
    /// The store's own folders cannot be listed or its index cannot be written; what is damaged is no error.
    pub fn check(
        &self,
        depth: Depth,
        repair: Repair,
        uses: Uses<'_>,
        still: Still<'_>,
    ) -> Result<CheckReport, StoreError> {
        let (mut report, index) = self.find_damage(depth)?;
        if repair == Repair::No {
            self.tell_lost(&mut report, &index, uses);
        } else {
            self.heal(&mut report, repair, uses, still)?;
        }
        Ok(report)
    }

    /// Names the images that cannot be healed, without trying.
    fn tell_lost(&self, report: &mut CheckReport, index: &Index, uses: Uses<'_>) {
        let lost = heal::hopeless(index, &report.findings, &|finding| match finding.damage {
            damage if damage.is_of_layer() => !self.can_be_made(index, finding),
            damage => !damage.is_of_recipe(),
        });
        report.lost = lost.iter().map(|id| heal::lost(index, id, uses)).collect();
    }
}

impl Damage {
    /// Whether bytes that an image needs are gone, rather than a mode wrong or something too much.
    pub(crate) fn is_of_content(self) -> bool {
        matches!(
            self,
            Self::DocumentUnreadable
                | Self::BlobMissing
                | Self::BlobKind
                | Self::BlobLength
                | Self::BlobContent
                | Self::RecipeMissing
                | Self::RecipeUnreadable
                | Self::LayerMissing
                | Self::LayerKind
                | Self::LayerFiles
                | Self::LayerContent
        )
    }

    /// Whether it is something that nothing names.
    pub(crate) fn is_stranger(self) -> bool {
        matches!(
            self,
            Self::BlobWithoutImage | Self::RecipeWithoutImage | Self::LayerWithoutImage | Self::Leftover
        )
    }

    /// Whether it is of a recipe, which is named by the diff id as its layer is.
    pub(crate) fn is_of_recipe(self) -> bool {
        matches!(
            self,
            Self::RecipeMissing | Self::RecipeUnreadable | Self::RecipeMode
        )
    }

    /// Whether it is of an unpacked layer, which a whole recipe or blob may heal.
    pub(crate) fn is_of_layer(self) -> bool {
        matches!(
            self,
            Self::LayerMissing | Self::LayerKind | Self::LayerFiles | Self::LayerContent
        )
    }
}
