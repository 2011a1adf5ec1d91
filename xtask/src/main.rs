//! Chores that shell is too weak for. `cargo xtask tidy` holds the house to the promises of ARCHITECTURE.md.

mod tidy;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let task = std::env::args().nth(1);
    match task.as_deref() {
        Some("tidy") => match tidy::check(root) {
            Ok(complaints) if complaints.is_empty() => ExitCode::SUCCESS,
            Ok(complaints) => {
                complaints.iter().for_each(|complaint| say(complaint));
                ExitCode::FAILURE
            }
            Err(error) => {
                say(&format!("{error:#}"));
                ExitCode::FAILURE
            }
        },
        _ => {
            say("usage: cargo xtask tidy");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr, reason = "a developer's tool speaks to its developer")]
fn say(text: &str) {
    eprintln!("{text}");
}
