//! What tests need and the internet would give: images made offline, and a registry on loopback.
//!
//! Sits on oci; serves the tests of every room. Nothing here is part of the product.

pub mod client;
pub mod debian;
pub mod disk;
pub mod house;
pub mod images;
pub mod netns;
pub mod plugin;
pub mod port;
pub mod python;
pub mod registry;
pub mod terminal;

pub use disk::Disk;
pub use house::House;
pub use images::TestImage;
pub use netns::Netns;
pub use plugin::{Plugin, Reply};
pub use registry::Registry;
pub use terminal::Terminal;
