//! Apps: what should run on a device, and how it stands with it.

wire! { "PascalCase";
    /// The body of `POST /kakoi/v1/apps`.
    pub struct AppBody {
        /// The document's name, for messages.
        pub file: String,
        /// The document, YAML.
        pub document: String,
    }

    /// How an app stands.
    pub struct AppStatus {
        /// Its name.
        pub name: String,
        /// `steady`, `fetch`, `verify`, `stage`, `switch`, `trial`, `commit`, `rollback` or `remove`.
        pub phase: String,
        /// When the phase began, RFC 3339.
        pub since: String,
        /// Attempts at the phase, from 1.
        pub attempt: i64,
        /// Nothing below this generation is taken.
        pub floor: i64,
        /// What runs, or ran before the update that is under way; `null` where nothing did.
        pub current: Option<AppVersion>,
        /// What is being tried.
        pub candidate: Option<AppVersion>,
        /// What worked before, kept and down.
        pub previous: Option<AppVersion>,
        /// `running`, `exited` … of the current version's container; `missing` where there is none.
        pub state: String,
        /// `starting`, `healthy`, `unhealthy`, or empty where health is not tested.
        pub health: String,
        /// Why the last update did not come to be; empty where it did.
        pub failure: String,
        /// What is wrong with what should run; empty where nothing is.
        pub trouble: String,
        /// What is not tried again by itself.
        pub blocked: Vec<AppBlocked>,
        /// Why its owner wants no other version; `null` where it takes what comes.
        pub pinned: Option<String>,
    }

    /// The body of `POST /kakoi/v1/apps/{name}/pin`.
    pub struct AppPin {
        /// Why, for people; may be empty.
        pub reason: String,
    }

    /// One version of an app.
    pub struct AppVersion {
        /// The document's generation.
        pub generation: i64,
        /// The image, as the document names it.
        pub image: String,
        /// Id of the image; empty before it is known.
        pub image_id: String,
        /// The policy that the document names; empty where it names none.
        pub policy: String,
        /// Name of its container.
        pub container: String,
        /// SHA-256 over what the document says, its generation left out.
        pub digest: String,
    }

    /// A version that is not tried again by itself.
    pub struct AppBlocked {
        /// The generation under which it failed.
        pub generation: i64,
        /// SHA-256 over what its document says, its generation left out.
        pub digest: String,
        /// Id of its image.
        pub image_id: String,
        /// Why.
        pub reason: String,
        /// When, RFC 3339.
        pub at: String,
    }

    /// Something that happened to an app.
    pub struct AppEvent {
        /// When, RFC 3339.
        pub at: String,
        /// `applied`, `retried`, `committed`, `rolled back`, `gave up`, `unblocked`, `pinned`, `unpinned` or `trouble`.
        pub what: String,
        /// The generation that it is about.
        pub generation: i64,
        /// Why, where something failed.
        pub reason: String,
    }
}
