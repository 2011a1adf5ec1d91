//! The door's own behaviour, asked through a socket: what a client sees whatever the rooms behind it do.

mod client;
mod door;
mod events;
mod hijack;
