//! What an archive may ask of this machine.
//!
//! Owns [`Limits`] and the reasons for its numbers. The constants of formats (names, headers, windows) stand with their formats.

/// Limits on loading and unpacking. The default suits a gateway with a few gigabytes of flash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of files in one layer: larger than any flash this is meant for, small enough that sums stay far from overflowing.
    pub layer_bytes_max: u64,
    /// Most entries of one layer. Debian's largest packages have some ten thousand files; each entry costs an inode.
    pub layer_entries_max: u64,
    /// Most bytes of folders' names of one layer, which are kept in memory until the folders get their times: half a million folders.
    pub folder_names_bytes_max: u64,
    /// How many times larger a compressed stream may become. Deflate ends at 1032; real layers stay below 20.
    pub expansion_max: u64,
    /// Below this many bytes the ratio is not looked at: an empty tar is all zeros and compresses without end.
    pub expansion_free_bytes: u64,
    /// Bytes that loading leaves free on the disk, so that running containers and the store's own index can go on writing.
    pub reserve_bytes: u64,
    /// Most entries of an image archive. One image of 127 layers has about 400 in the oldest format.
    pub archive_entries_max: u64,
    /// Most images of one archive.
    pub archive_images_max: usize,
    /// Most layers of an image: Docker's own limit, and with it that of every image there is.
    pub layers_max: usize,
    /// Most bytes of a manifest or index: what registries accept.
    pub manifest_bytes_max: u64,
    /// Most bytes of an image configuration. BuildKit's inline cache makes some of several hundred kilobytes.
    pub config_bytes_max: u64,
    /// Deepest nesting of indexes: one is common, two is what tools make.
    pub index_depth_max: u32,
    /// From so many bytes on, the beginning of a layer that was not fetched to its end is kept: less is fetched again sooner than it is looked after.
    pub partial_bytes_min: u64,
    /// Most bytes that are kept of pulls that broke off, all together: a large image's layers, an eighth of the smallest flash this is meant for.
    pub partials_bytes_max: u64,
    /// Most layers and beginnings of layers that are kept: those of two pulls or three.
    pub partials_max: usize,
    /// Most descriptors looked at in one archive, so that indexes that name each other end.
    pub descriptors_max: usize,
}

impl Limits {
    /// The limits used outside tests.
    pub const DEVICE: Self = Self {
        layer_bytes_max: 1 << 38,
        layer_entries_max: 1_000_000,
        folder_names_bytes_max: 32 << 20,
        expansion_max: 200,
        expansion_free_bytes: 64 << 20,
        reserve_bytes: 16 << 20,
        archive_entries_max: 20_000,
        archive_images_max: 256,
        layers_max: 127,
        manifest_bytes_max: 4 << 20,
        config_bytes_max: 4 << 20,
        index_depth_max: 4,
        partial_bytes_min: 1 << 20,
        partials_bytes_max: 512 << 20,
        partials_max: 64,
        descriptors_max: 4096,
    };
}
