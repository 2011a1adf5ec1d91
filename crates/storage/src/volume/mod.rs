//! Volumes: directories that outlive containers. A file a driver.

mod local;

pub use local::Local;
