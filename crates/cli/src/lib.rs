//! The command: what `docker` prints and returns, spoken to a daemon over its API.
//!
//! [`main`] reads the words, finds the [`command::Command`] in the tables of `commands/`, and runs it. Everything shown
//! passes [`printer::Printer`]; every failure is a [`failure::Failure`] with an exit status. Nothing is set up before it
//! is needed: the whole thing starts in a millisecond.

mod cli;
mod command;
mod commands;
mod config_file;
mod context;
mod credentials;
mod env;
mod failure;
mod flags;
mod format;
mod pipes;
mod printer;
mod progress;
mod root;
mod signals;
mod streams;
mod times;
mod tty;

pub use root::main;
