//! `gantry rootless`: what a host lacks for a user's daemon, and a service of the user's that runs it. Nothing here needs root;
//! what does is said, and left to root.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use stdx::{Context, Error, Result};

use crate::config;
use crate::user::{self, Places};

const UNIT: &str = include_str!("../../../packaging/gantry-user.service");
const SERVICE: &str = "gantry.service";
const USAGE: &str = "Usage:  gantry rootless COMMAND

Set up the engine of a user who is not root

Commands:
  check       Say what the host lacks, and what root does about it
  install     Have the user's systemd run the daemon, now and whenever the user is there
              (--force: whatever the host lacks)
  uninstall   Stop the daemon and remove its service; images, volumes and containers stay
";

pub(crate) fn main(args: &[OsString]) -> ExitCode {
    let words: Vec<_> = args.iter().map(|word| word.to_string_lossy()).collect();
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    let done = match words.as_slice() {
        [] | ["help" | "-h" | "--help"] => {
            return say(USAGE);
        }
        ["check"] => Setup::new().and_then(|setup| setup.check()),
        ["install"] => Setup::new().and_then(|setup| setup.install(Insist::No)),
        ["install", "-f" | "--force"] => Setup::new().and_then(|setup| setup.install(Insist::Yes)),
        ["uninstall"] => Setup::new().and_then(|setup| setup.uninstall()),
        other => Err(Error::invalid(format!("unknown command: {}\n\n{USAGE}", other.join(" ")))),
    };
    match done {
        Ok(said) => say(&said),
        Err(error) => {
            let _closed = writeln!(std::io::stderr(), "gantry rootless: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Is it to be done whatever is missing?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Insist {
    Yes,
    No,
}

/// The user, and this program.
struct Setup {
    places: Places,
    path: String,
    program: PathBuf,
}

impl Setup {
    fn new() -> Result<Self> {
        let places = user::places()?.ok_or_else(|| {
            Error::invalid(
                "it is for users who are not root: root has gantry.service of the system",
            )
        })?;
        let program =
            std::env::current_exe().context(|| "cannot say where this program is".to_owned())?;
        Ok(Self { places, path: config::variable("PATH").unwrap_or_default(), program })
    }

    fn check(&self) -> Result<String> {
        let mut lacks = rootless::lacks(&self.path);
        if self.places.runtime.is_none() {
            lacks.push(rootless::Lack {
                what: "XDG_RUNTIME_DIR is not set: without it a user has no place for sockets"
                    .to_owned(),
                remedy: format!("loginctl enable-linger {}", rustix::process::getuid()),
            });
        }
        match lacks.is_empty() {
            true => Ok("Nothing is missing.\n".to_owned()),
            false => Err(Error::unavailable(lacking(&lacks))),
        }
    }

    fn install(&self, insist: Insist) -> Result<String> {
        let missing = self.check().err();
        if let Some(error) = missing.filter(|_| insist == Insist::No) {
            return Err(error);
        }
        let unit = self.unit();
        let failed = || format!("cannot write {}", unit.display());
        std::fs::create_dir_all(unit.parent().expect("it is in a directory")).context(failed)?;
        std::fs::write(&unit, unit_for(&self.program)).context(failed)?;
        let mut said = format!("Written: {}\n", unit.display());
        if self.systemctl(&["show-environment"]).is_ok() {
            self.systemctl(&["daemon-reload"])?;
            self.systemctl(&["enable", SERVICE])?;
            self.systemctl(&["restart", SERVICE])?;
            said += &format!(
                "The daemon runs. To control it:\n\n    systemctl --user start|stop|restart {SERVICE}\n\n\
                 To have it without being logged in, as root:\n\n    loginctl enable-linger {}\n",
                rustix::process::getuid()
            );
        } else {
            said += &format!(
                "This user has no systemd that runs. To start the daemon by hand:\n\n    {} daemon\n",
                self.program.display()
            );
        }
        Ok(said + &self.environment())
    }

    fn uninstall(&self) -> Result<String> {
        let unit = self.unit();
        if self.systemctl(&["show-environment"]).is_ok() && unit.exists() {
            self.systemctl(&["disable", "--now", SERVICE])?;
        }
        match std::fs::remove_file(&unit) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context(|| format!("cannot remove {}", unit.display()));
            }
            _ => {}
        }
        // Where nobody runs, nobody has to be told.
        let _untold = self.systemctl(&["daemon-reload"]);
        let data = self.places.data.join("gantry");
        Ok(format!(
            "Removed: {}\nWhat the engine has is still there, and so are containers that run. To remove it when they have \
             ended:\n\n    unshare --map-auto --map-root-user rm -rf {}\n",
            unit.display(),
            data.display()
        ))
    }

    fn unit(&self) -> PathBuf {
        self.places.config.join("systemd/user").join(SERVICE)
    }

    /// What other programs are told, for a shell to read.
    fn environment(&self) -> String {
        let directory = self.program.parent().unwrap_or(Path::new("/")).display().to_string();
        let mut lines = String::new();
        if !self.path.split(':').any(|known| known == directory) {
            lines += &format!("    export PATH={directory}:$PATH\n");
        }
        let run = self.places.runtime.clone().unwrap_or_default();
        let socket = run.join("gantry.sock").display().to_string();
        lines += &format!("    export DOCKER_HOST=unix://{socket}\n");
        format!(
            "`gantry` finds the daemon by itself. For docker, and all that speak to it:\n\n{lines}"
        )
    }

    fn systemctl(&self, words: &[&str]) -> Result<()> {
        let output =
            Command::new("systemctl").arg("--user").args(words).stdin(Stdio::null()).output();
        let failed = || format!("systemctl --user {} failed", words.join(" "));
        let output = output.context(failed)?;
        match output.status.success() {
            true => Ok(()),
            false => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(Error::internal(format!("{}: {}", failed(), said.trim())))
            }
        }
    }
}

/// All that is missing, and what root does about it, in one go.
fn lacking(lacks: &[rootless::Lack]) -> String {
    let mut text = "something is missing:\n\n".to_owned();
    for lack in lacks {
        text += &format!("  {}\n", lack.what);
    }
    text += "\nAs root:\n\n";
    for lack in lacks {
        text += &format!("    {}\n", lack.remedy);
    }
    text.trim_end().to_owned()
}

/// The unit, for a program that may lie anywhere.
fn unit_for(program: &Path) -> String {
    let program = program.display().to_string().replace('%', "%%");
    let quoted = match program.contains(char::is_whitespace) {
        true => format!("\"{program}\""),
        false => program,
    };
    let unit: Vec<&str> = UNIT.lines().skip_while(|line| line.starts_with('#')).collect();
    unit.join("\n").replace("/usr/local/bin/gantry", &quoted) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_for_a_program() {
        let line = |program: &str| {
            let unit = unit_for(Path::new(program));
            assert!(unit.starts_with("[Unit]\n"), "{unit}");
            unit.lines().find(|line| line.starts_with("ExecStart=")).map(str::to_owned)
        };
        assert_eq!(line("/opt/gantry").unwrap(), "ExecStart=/opt/gantry daemon");
        assert_eq!(line("/my 5%/gantry").unwrap(), "ExecStart=\"/my 5%%/gantry\" daemon");
    }
}
