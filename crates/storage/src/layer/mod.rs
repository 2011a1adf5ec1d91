//! Layers: trees as tar streams, both ways. Read in this order: apply, whiteout, diff, pack; compression beside them.
//!
//! What must stay true: nothing in a stream names a place outside the tree it is extracted into, and no stream costs
//! more than its [`Limits`].

mod apply;
pub mod compression;
pub(crate) mod copy;
pub(crate) mod diff;
pub(crate) mod limits;
mod pack;
mod pipe;
mod place;
pub(crate) mod tree;
pub(crate) mod whiteout;

pub use self::copy::copy as duplicate;
pub use apply::{Applied, Clash, Options, Owners, Whiteouts, apply, apply_with};
pub use diff::{Change, ChangeKind};
pub use limits::Limits;
pub use pack::export;
pub use pipe::{Ahead, Verified};
pub use place::{Place, destination, directory, make};
pub use tree::{Depth, Summary};
