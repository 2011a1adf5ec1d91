//! The room on a real file system: hostile streams, full disks, damage, and what must work beside them.
//!
//! Needs root: layers have owners, devices and attributes that nobody else may make.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod bombs;
mod content;
mod damage;
mod full;
mod hostile;
mod readings;
mod round_trip;
mod support;
