//! Images: names, manifests, configurations and layers; pulled, loaded, saved, tagged, listed, removed.
//!
//! Sits on storage (bytes), state (records) and oci (words); serves engine, builder and server. Network and progress are
//! async here, disk work crosses to threads that may wait.
//!
//! What must stay true: an image that has a record is complete; every byte of it was hashed on its way in, compressed
//! and uncompressed; what somebody holds is not removed, and the refusal names the holder.
//!
//! Start reading at [`Images`] in store.rs; what is decided without disk or network is in catalog.rs, delete.rs, list.rs.

mod catalog;
mod config;
mod create;
mod delete;
mod distribution;
pub mod embedded;
mod gc;
mod history;
mod import;
mod inspect;
mod limits;
mod list;
mod load;
mod platform;
mod progress;
mod prune;
mod pull;
mod records;
mod save;
mod store;
mod stream;
mod unpack;
mod variables;
mod work;

pub use config::apply_changes;
pub use create::{By, NewImage};
pub use delete::RemoveOptions;
pub use distribution::{Credentials, RegistryConfig};
pub use gc::Swept;
pub use import::ImportRequest;
pub use list::{Filters, ListOptions};
pub use load::{LoadOptions, Loaded};
pub use progress::{Detail, Progress};
pub use save::Archive;
pub use store::{Actions, Image, Images};
pub use stream::reader;
