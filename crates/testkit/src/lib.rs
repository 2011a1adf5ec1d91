//! What tests need and the internet would give: images made offline, and a registry on loopback.
//!
//! Sits on oci; serves the tests of every room. Nothing here is part of the product.

pub mod client;
pub mod house;
pub mod images;
pub mod registry;

pub use house::House;
pub use images::TestImage;
pub use registry::Registry;
