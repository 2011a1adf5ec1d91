//! How fast, beside a peer: the budgets, measured on this machine in one run, ours and dockerd in turn.
//!
//! Nothing here asserts a time: it prints a table. Start reading at [`measure`]; `README.md` says how to read the result.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a table on a terminal is what it is for"
)]

mod api;
mod cli;
mod copy;
mod crowd;
mod engine;
mod floor;
mod http;
mod interrupt;
mod layers;
mod logs;
mod network;
mod options;
mod peer;
mod ports;
mod runtime;
mod stats;
mod table;
mod turns;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use testkit::{House, Netns};

use crate::engine::Engine;
use crate::options::Options;
use crate::peer::Peer;
use crate::table::Table;
use crate::turns::Turns;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        // This program again, small and alone, as the kernel's floor needs it.
        Some("floor") => floor::run(&arguments[1..]),
        Some("measure") => Options::parse(&arguments[1..]).and_then(|options| measure(&options)),
        _ => Options::parse(&arguments).and_then(|_| interrupt::supervise(&arguments)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Both engines up, all work done in turn, both gone again.
fn measure(options: &Options) -> Result<()> {
    if options.help {
        print!("{}", options::HELP);
        return Ok(());
    }
    let binary = House::binary();
    ensure!(binary.is_file(), "{} is missing: scripts/build-release makes it", binary.display());
    let stop = interrupt::listen()?;
    let _alone = interrupt::alone()?;
    let scratch = tempfile::Builder::new().prefix("gantry-bench-").tempdir()?;
    // As the peer has one: nothing of the machine's own is on either's way.
    let netns = Netns::new();
    let mut house = House::within(&netns);
    let peer = match options.peer {
        true => Some(Peer::start(&options.dockerd).context("cannot start the peer")?),
        false => None,
    };
    let turns = Turns { rounds: options.rounds, stop };
    let mut table = Table::default();
    let outcome = work(options, &turns, scratch.path(), &mut house, peer.as_ref(), &mut table);
    // Also what there is when it was interrupted.
    match options.json {
        true => println!("{:#}", table.json()),
        false => print!("{}", table.text()),
    }
    outcome
}

fn work(
    options: &Options,
    turns: &Turns,
    scratch: &Path,
    house: &mut House,
    peer: Option<&Peer>,
    table: &mut Table,
) -> Result<()> {
    let mut engine = Engine::of_house(house);
    let ours = &engine;
    let theirs = peer.map(Peer::engine);
    let theirs = theirs.as_ref();
    for engine in [Some(ours), theirs].into_iter().flatten() {
        layers::load_small_images(engine)?;
    }
    if options.wants("floor") {
        floor::measure(turns, scratch, table)?;
    }
    if options.wants("memory") {
        crowd::idle(ours, theirs, table)?;
    }
    if options.wants("cli") {
        cli::measure(turns, house, theirs, table)?;
    }
    if options.wants("api") {
        api::measure(turns, ours, theirs, table)?;
    }
    if options.wants("exec") {
        api::measure_exec(turns, ours, theirs, table)?;
    }
    if network::GROUPS.iter().any(|group| options.wants(group)) {
        network::measure(options, turns, ours, theirs, table)?;
    }
    if options.wants("ports") {
        ports::measure(turns, options.containers, ours, theirs, table)?;
    }
    if options.wants("copy") {
        copy::measure(turns, scratch, house, theirs, table)?;
    }
    if options.wants("crowd") {
        crowd::measure(turns, options.containers, house, theirs, table)?;
        engine = Engine::of_house(house);
    }
    // Another daemon answers, perhaps.
    let ours = &engine;
    if options.wants("stats") {
        stats::measure(turns, ours, theirs, table)?;
    }
    if options.wants("logs") {
        logs::measure(turns, ours, theirs, table)?;
    }
    if options.wants("load") || options.wants("pull") {
        let large = layers::Large::new()?;
        if options.wants("load") {
            layers::measure_load(turns, scratch, &large, ours, theirs, table)?;
        }
        if options.wants("pull") {
            layers::measure_pull(turns, scratch, &large, ours, theirs, table)?;
        }
    }
    if options.wants("runtime") {
        runtime::measure(turns, scratch, &options.runc, table)?;
    }
    Ok(())
}
