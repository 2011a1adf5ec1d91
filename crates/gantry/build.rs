//! What this is built from and by, for `docker version`.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rustc-env=GANTRY_COMMIT={}", commit().unwrap_or_default());
    println!("cargo::rustc-env=GANTRY_COMPILER={}", compiler().unwrap_or_default());
}

/// The commit that is checked out, if this is a git tree of our own and not a corner of somebody else's.
fn commit() -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    let git = |args: &[&str]| said(Command::new("git").arg("-C").arg(root).args(args));
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    // Whatever moves HEAD is written there.
    if let Some(log) = git(&["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "--short=7", "HEAD"])
}

/// `rustc 1.91.0`
#[expect(clippy::disallowed_methods, reason = "this is how cargo says which compiler it uses")]
fn compiler() -> Option<String> {
    let line = said(Command::new(std::env::var_os("RUSTC")?).arg("--version"))?;
    let mut words = line.split(' ');
    Some(format!("{} {}", words.next()?, words.next()?))
}

fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
