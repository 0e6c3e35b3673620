//! Registries: OCI distribution 1.1 and Docker schema 2, over blocking HTTP.
//!
//! Owns the way from a name to verified bytes and back. Everything blocks: the daemon gives each call a thread. Refuses to read the owner's
//! files (except the certificates they name), to know containers and to judge signatures: [`Resolved`] is what a judge is shown, before
//! anything large is fetched.
//!
//! | module | owns |
//! |---|---|
//! | `settings` | `registries.yaml`, proxies, mirrors, short names |
//! | `client` | TLS, connections, patience |
//! | `session` | credentials, redirects, coming again |
//! | `auth` | challenges and tokens |
//! | `document` | manifests, indexes, platforms |
//! | `repository` | what is small: manifests, configurations, tags, referrers |
//! | `blob` | what is large: streams that survive broken connections |
//! | `pull` | into the store |
//! | `fetch` | the layers of a pull, from where an earlier one got to |
//! | `signatures` | what is attached to a digest: signatures, policies |
//! | `attach` | adding to that |
//! | `push` | out of the store |
//! | `parts` | byte ranges of a blob, for whoever has the rest |
//! | `send` | an artifact that comes as a stream |

mod attach;
mod auth;
mod blob;
mod client;
mod document;
mod error;
mod fetch;
mod parts;
mod pull;
mod push;
mod repository;
mod send;
mod session;
mod settings;
mod signatures;

pub use attach::{ATTACHMENT_BYTES_MAX, Attachment};
pub use auth::Credentials;
pub use client::{Cancel, Client, Patience};
pub(crate) use document::Document;
pub use document::{BlobDescriptor, Platform};
pub use error::RegistryError;
/// Something small that is attached to an image: what a judge is shown.
pub use kakoi_trust::Layer as Attached;
pub use parts::Parts;
pub use pull::{Admit, LayerStep, Listener, PullError, PullEvent, PullOptions, Pulled, Resolved};
pub use push::{PushError, PushEvent, PushStep, Pushed};
pub(crate) use push::{media_type_of, relayered};
pub use repository::{Access, Repository, Served, check_login, fallback_tag, platforms};
pub use send::SendError;
pub use settings::{Proxies, Registries, Registry, SettingsError, Transport};
pub use signatures::ATTACHED_MAX;
pub(crate) use signatures::{Basket, PAYLOAD_BYTES_MAX};
