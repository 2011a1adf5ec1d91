//! How fast a layer becomes a tree, beside `gzip -dc | tar x` of the same bytes in the same minute.
//!
//! `cargo run --release -p storage --example unpack -- LAYER.tar.gz DIRECTORY [ROUNDS]`
//!
//! A benchmark, not a test: it prints what it saw. The peer neither hashes nor syncs; we are shown without and with.

#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use oci::{ChainId, Digest, Hasher};
use storage::Storage;
use storage::layer::{Ahead, Limits, Options, Verified, Whiteouts, apply_with, compression};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let (Some(layer), Some(home)) = (arguments.next(), arguments.next()) else {
        return Err("usage: unpack LAYER.tar.gz DIRECTORY [ROUNDS]".into());
    };
    let rounds = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let layer = PathBuf::from(layer);
    let home = PathBuf::from(home).join("unpack-bench");
    let diff_id = diff_id(&layer)?;
    for round in 1..=rounds {
        let measure = |what: &str, work: &dyn Fn(&Path) -> Outcome| -> Outcome<Duration> {
            fs::create_dir_all(&home)?;
            let begin = Instant::now();
            work(&home)?;
            let took = begin.elapsed();
            println!("{round} {what:<28} {:>7.1} ms", took.as_secs_f64() * 1e3);
            fs::remove_dir_all(&home)?;
            rustix::fs::sync();
            Ok(took)
        };
        let peer = measure("gzip -dc | tar x", &|home| peer(&layer, home))?;
        let tree = measure("decoder, apply", &|home| tree(&layer, home))?;
        let all = measure("decoder, hash, unpack, sync", &|home| all(&layer, &diff_id, home))?;
        let ratio = |ours: Duration| ours.as_secs_f64() / peer.as_secs_f64();
        println!("{round} ratio {:.2}, with hash and sync {:.2}", ratio(tree), ratio(all));
    }
    Ok(())
}

fn diff_id(layer: &Path) -> Outcome<Digest> {
    let mut hasher = Hasher::sha256();
    std::io::copy(&mut compression::decoder(File::open(layer)?)?, &mut hasher)?;
    Ok(hasher.finish())
}

fn peer(layer: &Path, home: &Path) -> Outcome {
    let script = "gzip -dc \"$1\" | tar --numeric-owner -x -C \"$2\"";
    let status = Command::new("sh").args(["-c", script, "sh"]).arg(layer).arg(home).status()?;
    if status.success() { Ok(()) } else { Err("the peer failed".into()) }
}

fn tree(layer: &Path, home: &Path) -> Outcome {
    let mut tar = Ahead::new(compression::decoder(File::open(layer)?)?)?;
    let options =
        Options { whiteouts: Whiteouts::Overlay, limits: Limits::default(), ..Options::default() };
    apply_with(File::open(home)?.as_fd(), &mut tar, &options).map_err(|error| error.chain())?;
    Ok(())
}

/// As a pull does it: one thread inflates and hashes, the other makes files.
fn all(layer: &Path, diff_id: &Digest, home: &Path) -> Outcome {
    let state = state::Store::in_memory();
    let storage = Storage::open(home, Some("overlay2"), &state).map_err(|error| error.chain())?;
    let tar = compression::decoder(File::open(layer)?)?;
    let mut tar = Ahead::new(Verified::new(tar, diff_id))?;
    let chain = ChainId::base(diff_id);
    storage.snapshots.unpack(&chain, None, &mut tar).map_err(|error| error.chain())?;
    Ok(())
}
