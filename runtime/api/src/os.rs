//! The operating system of a device with two slots: what runs, what is coming, and what happened.

wire! { "PascalCase";
    /// How it stands with the operating system.
    pub struct OsStatus {
        /// The board that images must be for.
        pub board: String,
        /// The repository that they come from.
        pub repository: String,
        /// The slot that runs: `a` or `b`; empty where it is not known.
        pub running: String,
        /// The slot that the boot loader starts where there is no trial.
        pub good: String,
        /// The slot that is tried; empty where none is.
        pub trying: String,
        /// How often it may still be started.
        pub left: i64,
        /// What slot a holds; `null` where it is not known, or being written.
        pub slot_a: Option<OsHeld>,
        /// What slot b holds.
        pub slot_b: Option<OsHeld>,
        /// `idle`, `fetching`, `written`, `verified`, `armed`, `trial`, `committed` or `rolled-back`.
        pub phase: String,
        /// The image that the phase is about, by the digest of its manifest.
        pub image: String,
        /// Its version.
        pub version: String,
        /// Why it was rolled back; empty where it was not.
        pub reason: String,
        /// No lower version is installed any more.
        pub floor: String,
        /// How far the write is that is under way; `null` where none is.
        pub progress: Option<OsProgress>,
        /// On trial: what must become well before it is committed.
        pub waits_for: Vec<String>,
        /// The device is to be started anew.
        pub needs_restart: bool,
        /// What is wrong with the slots themselves, or was with the last write.
        pub trouble: String,
        /// `fed`, `hungry` and why, `unusable` and why, or empty where there is none.
        pub watchdog: String,
        /// What is not tried again by itself.
        pub blocked: Vec<OsBlocked>,
    }

    /// What a slot holds.
    pub struct OsHeld {
        /// The digest of the image's manifest.
        pub image: String,
        /// Its version.
        pub version: String,
        /// Where it came from.
        pub reference: String,
    }

    /// How far a write is, in bytes.
    pub struct OsProgress {
        /// Of the whole image.
        pub total: i64,
        /// Were there already.
        pub kept: i64,
        /// Are zeros.
        pub zeros: i64,
        /// Were copied from the slot that runs.
        pub copied: i64,
        /// Were fetched.
        pub fetched: i64,
        /// Came over the network, documents left out.
        pub moved: i64,
    }

    /// An image that is not tried again by itself.
    pub struct OsBlocked {
        /// The digest of its manifest.
        pub image: String,
        /// Why.
        pub reason: String,
        /// Since when, RFC 3339.
        pub at: String,
    }

    /// Something that happened.
    pub struct OsEvent {
        /// When, RFC 3339.
        pub at: String,
        /// The phase that began.
        pub what: String,
        /// The image that it is about.
        pub image: String,
        /// Its version.
        pub version: String,
        /// Why, where something failed.
        pub reason: String,
    }
}
