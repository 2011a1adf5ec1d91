//! AppArmor, where the host has it: the profile that containers are under which do not say, known by Docker's name so that
//! what administrators have written about it stays true.

mod policy;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use stdx::{Context, Error, Result};

pub(crate) const DEFAULT: &str = "docker-default";
pub(crate) const UNCONFINED: &str = "unconfined";

const LOADED: &str = "/sys/kernel/security/apparmor/profiles";
/// Where distributions keep macros of theirs that policies build on.
const MACROS: &str = "/etc/apparmor.d";

/// Whether containers can be confined: the kernel does it, and somebody can compile a profile.
pub fn is_there() -> bool {
    let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|text| text.starts_with(b"Y"))
        && Path::new(LOADED).exists()
        && runtime::userns::in_initial_user_namespace()
        && parser().is_some()
}

fn parser() -> Option<PathBuf> {
    ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

/// Has the kernel know the usual profile. Whoever has written another one of its name is let be.
pub fn load_default() -> Result<()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let what =
        || format!("AppArmor enabled on system but the {DEFAULT} profile could not be loaded");
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let loaded = std::fs::read_to_string(LOADED).context(what)?;
    if is_loaded(&loaded, DEFAULT) {
        return Ok(());
    }
    let own = std::fs::read_to_string("/proc/self/attr/apparmor/current")
        .or_else(|_| std::fs::read_to_string("/proc/self/attr/current"));
    let text = policy::text(
        DEFAULT,
        own.unwrap_or_default().split(" (").next().unwrap_or_default().trim(),
        |name| Path::new(MACROS).join(name).exists(),
    );
    compile(&text).context(what)
}

/// Each line is a name and its mode in parentheses.
fn is_loaded(list: &str, name: &str) -> bool {
    list.lines().any(|line| line.rsplit_once(" (").is_some_and(|(known, _)| known == name))
}

fn compile(text: &str) -> Result<()> {
    let parser = parser().ok_or_else(|| Error::not_found("there is no apparmor_parser"))?;
    let what = || format!("cannot execute {}", parser.display());
    // Neither what somebody has compiled before nor anything of ours is kept on disk.
    let mut child = Command::new(&parser)
        .args(["--replace", "--skip-cache"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context(what)?;
    let mut stdin = child.stdin.take().expect("it has just been made");
    let sent = stdin.write_all(text.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().context(what)?;
    match output.status.success() {
        true => sent.context(what),
        false => Err(Error::internal(format!(
            "{}: {}: {}",
            parser.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaded_is_what_the_kernel_lists() {
        let list = "/usr/bin/man (enforce)\ndocker-default (enforce)\nnvidia_modprobe (complain)\n";
        assert!(is_loaded(list, "docker-default"));
        assert!(!is_loaded(list, "docker"));
        assert!(!is_loaded("docker-default-of-mine (enforce)\n", "docker-default"));
    }
}
