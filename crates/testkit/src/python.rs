//! Python with packages from PyPI, in a place of its own; made once per machine, and kept.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use oci::Digest;

use crate::house::succeed;

/// Where what took long to make is kept between runs.
const CACHE: &str = "/var/cache/gantry-testkit";

/// The interpreter that has these packages, which are named with their versions.
pub fn with(packages: &[&str]) -> PathBuf {
    std::fs::create_dir_all(CACHE).expect("a place for what is kept");
    let lock = File::create(Path::new(CACHE).join("python-lock")).expect("a lock file");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("a lock");
    let place = Path::new(CACHE)
        .join(format!("python-{}", Digest::of(packages.join(" ").as_bytes()).short()));
    let (python, done) = (place.join("bin/python"), place.join("done"));
    if !done.exists() {
        // Half of one may be there. It cannot be made elsewhere and moved: its scripts know where they are.
        let _absent = std::fs::remove_dir_all(&place);
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(&place);
        succeed(venv);
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet"]).args(packages);
        succeed(pip);
        File::create(done).expect("a mark");
    }
    python
}
