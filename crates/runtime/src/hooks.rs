//! Hooks: the only programs of the host that are ever executed here, because the spec's author asks for them.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use oci::runtime::{Hook, State};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use stdx::{Context, Error, Result};

/// As much of a hook's output as goes into a message.
const OUTPUT: u64 = 2048;

/// Runs the hooks of one moment in order; the first that fails ends it.
pub(crate) fn run(moment: &str, hooks: &[Hook], state: &State) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = serde_json::to_vec(state).expect("a state has only names and numbers");
    for (number, hook) in hooks.iter().enumerate() {
        run_one(hook, &state).context(|| format!("error running {moment} hook #{number}"))?;
    }
    Ok(())
}

/// As [`run`], and all of them whatever becomes of each; the first failure.
pub(crate) fn run_all(moment: &str, hooks: &[Hook], state: &State) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = serde_json::to_vec(state).expect("a state has only names and numbers");
    let mut first = Ok(());
    for (number, hook) in hooks.iter().enumerate() {
        let done =
            run_one(hook, &state).context(|| format!("error running {moment} hook #{number}"));
        first = first.and(done);
    }
    first
}

fn run_one(hook: &Hook, state: &[u8]) -> Result<()> {
    if !hook.path.is_absolute() {
        return Err(Error::invalid(format!(
            "the path of a hook must be absolute: {}",
            hook.path.display()
        )));
    }
    let mut command = Command::new(&hook.path);
    if let Some((name, arguments)) = hook.args.split_first() {
        command.arg0(name).args(arguments);
    }
    command.env_clear();
    command.envs(hook.env.iter().filter_map(|variable| variable.split_once('=')));
    // Output goes to files, not pipes: what a hook leaves running in the background cannot hold us up.
    let (out, err) = (scratch("stdout")?, scratch("stderr")?);
    let both =
        |file: &std::fs::File| file.try_clone().context(|| "cannot copy a descriptor".to_owned());
    command.stdin(Stdio::piped()).stdout(both(&out)?).stderr(both(&err)?);
    let mut child = command.spawn().context(|| format!("fork/exec {}", hook.path.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read what it is told (its end of the pipe may be gone), and the state fits into a pipe.
        let _told = stdin.write_all(state);
    }
    let pid = Pid::from_child(&child);
    let pidfd =
        pidfd_open(pid, PidfdFlags::empty()).context(|| "cannot watch the hook".to_owned())?;
    let timeout =
        hook.timeout.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    if !ends_within(pidfd.as_fd(), timeout)? {
        child.kill().context(|| "cannot kill the hook".to_owned())?;
        child.wait().context(|| "cannot wait for the hook".to_owned())?;
        let seconds = timeout.unwrap_or_default().as_secs_f64();
        return Err(Error::internal(format!("hook ran past specified timeout of {seconds:.1}s")));
    }
    let status = child.wait().context(|| "cannot wait for the hook".to_owned())?;
    if status.success() {
        return Ok(());
    }
    let status = match (status.code(), std::os::unix::process::ExitStatusExt::signal(&status)) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {signal}"),
        (None, None) => status.to_string(),
    };
    Err(Error::internal(format!(
        "{status}, stdout: {}, stderr: {}",
        beginning(out),
        beginning(err)
    )))
}

fn scratch(name: &str) -> Result<std::fs::File> {
    let memfd = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC);
    Ok(memfd.context(|| "cannot make room for a hook's output".to_owned())?.into())
}

fn beginning(file: std::fs::File) -> String {
    let mut bytes = Vec::new();
    let mut file = file;
    let rewound = std::io::Seek::rewind(&mut file);
    if rewound.is_err() || file.take(OUTPUT).read_to_end(&mut bytes).is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn ends_within(pidfd: std::os::fd::BorrowedFd, timeout: Option<Duration>) -> Result<bool> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], left.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err).context(|| "cannot wait for the hook".to_owned()),
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use oci::runtime::Status;

    use super::*;

    fn state() -> State {
        State {
            oci_version: oci::runtime::VERSION.into(),
            id: "c".into(),
            status: Status::Creating,
            pid: Some(7),
            bundle: "/b".into(),
            annotations: Default::default(),
        }
    }

    fn shell(script: &str) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        Hook { path: "/bin/sh".into(), args, env: vec!["A=b".into()], timeout: Some(5) }
    }

    #[test]
    fn a_hook_hears_the_state() {
        run("prestart", &[shell("test $A = b && grep -q '\"pid\":7'")], &state()).unwrap();
    }

    #[test]
    fn a_failing_hook_says_why() {
        let error =
            run("prestart", &[shell("true"), shell("echo out; echo err >&2; exit 3")], &state())
                .unwrap_err();
        assert_eq!(
            error.chain(),
            "error running prestart hook #1: exit status 3, stdout: out\n, stderr: err\n"
        );
    }

    #[test]
    fn the_last_hooks_are_all_run() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        let second = shell(&format!("touch {}", mark.display()));
        let error = run_all("poststop", &[shell("exit 3"), second], &state()).unwrap_err();
        assert!(error.chain().starts_with("error running poststop hook #0"), "{}", error.chain());
        assert!(mark.exists());
    }

    #[test]
    fn a_hook_that_hangs_is_ended() {
        let hook = Hook { timeout: Some(0), ..shell("exec sleep 100") };
        let error = run("prestart", &[hook], &state()).unwrap_err();
        assert_eq!(
            error.chain(),
            "error running prestart hook #0: hook ran past specified timeout of 0.0s"
        );
    }
}
