//! The door's own behaviour, asked through a socket: what a client sees whatever the rooms behind it do.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod client;
mod door;
mod events;
mod hijack;
