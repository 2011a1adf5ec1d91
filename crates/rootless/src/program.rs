//! Programs of the system that only it can have: found, run, and quoted when they refuse.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use stdx::{Context, Error, Result};

/// Where else to look: a user's path often lacks the last two.
const ALSO: &str = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin";

/// The first executable file of this name in `path` and the usual places.
pub(crate) fn find(name: &str, path: &str) -> Option<PathBuf> {
    let executable = |file: &PathBuf| {
        std::fs::metadata(file)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    path.split(':')
        .chain(ALSO.split(':'))
        .filter(|dir| dir.starts_with('/'))
        .map(|dir| Path::new(dir).join(name))
        .find(executable)
}

/// Runs one to its end; its own words are the reason if it fails.
pub(crate) fn run(program: &Path, args: &[String], path: &str) -> Result<()> {
    let output = command(program, path)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context(|| format!("cannot execute {}", program.display()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(refused(program, &output)),
    }
}

/// What one says; nothing if it cannot be asked.
pub(crate) fn output(program: &Path, args: &[&str], path: &str) -> String {
    let output = command(program, path).args(args).stdin(Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

pub(crate) fn command(program: &Path, path: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", path).current_dir("/");
    command
}

fn refused(program: &Path, output: &Output) -> Error {
    let said = String::from_utf8_lossy(&output.stderr);
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match last_words(&said) {
        "" => Error::internal(format!("{name} failed: {}", output.status)),
        words => Error::internal(format!("{name} failed: {words}")),
    }
}

/// What a program said last is why it ended; what it could not tell a log is not.
pub(crate) fn last_words(said: &str) -> &str {
    let told = |line: &&str| !line.is_empty() && !line.ends_with("to syslog");
    said.lines().map(str::trim).rfind(told).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_in_the_path_and_beside_it() {
        assert_eq!(find("sh", "relative:/nowhere:/bin"), Some("/bin/sh".into()));
        assert_eq!(find("sh", ""), Some("/usr/bin/sh".into()));
        assert_eq!(find("no such program", "/bin"), None);
    }

    #[test]
    fn refusals_are_quoted() {
        let sh = find("sh", "").unwrap();
        let run = |script: &str| run(&sh, &["-c".to_owned(), script.to_owned()], "/bin");
        assert!(run("true").is_ok());
        assert_eq!(
            run("echo a >&2; echo why >&2; exit 1").unwrap_err().to_string(),
            "sh failed: why"
        );
        assert_eq!(run("exit 3").unwrap_err().to_string(), "sh failed: exit status: 3");
        assert_eq!(last_words("why\nFailed to send 3 bytes to syslog\n"), "why");
    }
}
