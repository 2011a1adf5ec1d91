//! Placeholder until the real one lands.

use std::path::PathBuf;

/// Where a container's cgroup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location(pub PathBuf);

/// A container's cgroup.
#[derive(Debug)]
pub struct Handle(pub Location);
