//! The container's control groups: made, limited, watched, frozen, killed, measured, removed. Both versions, and the hybrid.
//!
//! Sits on rustix and sys. On v1 a container is one directory in *every* mounted hierarchy; on v2 one directory; a hybrid
//! host has both, and there we are in both. The trees are only ever touched below a container's own directory (and the
//! parents made for it).
//!
//! Read `host` (what is mounted), `location` (which directories are a container's), [`handle`](Handle) (what can be done
//! with them), `v1` and `v2` (which values go into which files, pure), `systemd` (where it is the host's who makes them),
//! `devices` and `stats`.

mod devices;
mod dir;
mod handle;
mod host;
mod location;
mod oom;
mod stats;
mod support;
mod systemd;
mod v1;
mod v2;

pub use handle::{Handle, Joiner};
pub use host::Mode;
pub(crate) use host::SYSTEMD;
pub use location::{Driver, Location, Place};
pub use oom::Watch;
pub use stats::{BlockIo, Cpu, HugePages, IoEntry, Memory, Pids, Stats};
pub use support::Support;
pub use systemd::{runs as systemd_runs, users_runs as users_systemd_runs};

/// A value for a file of a controller: what `v1` and `v2` decide and [`Handle`] writes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    /// The v1 hierarchy it belongs to. v2 has everything in one directory.
    controller: &'static str,
    file: String,
    value: String,
    /// What if the host has no such file?
    missing: Missing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Missing {
    /// The limit was asked for and cannot be kept: an error.
    Refuse,
    /// The value means "no limit", which is what no file means too.
    Ignore,
    /// Another file means the same; if that is missing too, refuse.
    Instead { file: &'static str, value: String },
}

impl Setting {
    fn new(controller: &'static str, file: impl Into<String>, value: impl ToString) -> Self {
        Self { controller, file: file.into(), value: value.to_string(), missing: Missing::Refuse }
    }

    fn or_ignore(self) -> Self {
        Self { missing: Missing::Ignore, ..self }
    }

    fn or_instead(self, file: &'static str, value: impl ToString) -> Self {
        Self { missing: Missing::Instead { file, value: value.to_string() }, ..self }
    }
}
