//! `exec`: another process in a container.

use std::os::fd::AsFd;
use std::path::Path;

use oci::runtime::{Capabilities, Process, Status, User};
use rustix::process::Pid;
use stdx::{Context, Error, Result};

use super::flags::{Flag, Flags};
use super::record::{Container, read_json};
use super::run::{console_socket, send_terminal, write_pid_file};
use super::{Global, foreground};
use crate::{Stdio, Target};

pub(super) const FLAGS: &[Flag] = &[
    Flag::value("console-socket"),
    Flag::value("pidfd-socket"),
    Flag::value("cwd"),
    Flag::value("env").or("e"),
    Flag::switch("tty").or("t"),
    Flag::value("user").or("u"),
    Flag::value("additional-gids").or("g"),
    Flag::value("process").or("p"),
    Flag::switch("detach").or("d"),
    Flag::value("pid-file"),
    Flag::value("process-label"),
    Flag::value("apparmor"),
    Flag::switch("no-new-privs"),
    Flag::value("cap").or("c"),
    Flag::value("preserve-fds"),
    Flag::value("cgroup"),
    Flag::switch("ignore-paused"),
    Flag::switch("no-subreaper"),
];

pub(super) fn run(global: &Global, flags: &Flags) -> Result<u8> {
    execute(global, flags).context(|| "exec failed".to_owned())
}

fn execute(global: &Global, flags: &Flags) -> Result<u8> {
    let (id, args) = flags.rest().split_first().context(|| "no container id".to_owned())?;
    if flags.get("cgroup").is_some() {
        return Err(Error::not_implemented("exec --cgroup is not supported yet"));
    }
    let container = Container::open(global, &id.to_string_lossy())?;
    match container.status()? {
        Status::Stopped => return Err(Error::conflict("cannot exec in a stopped container")),
        Status::Paused if !flags.has("ignore-paused") => {
            return Err(Error::conflict(
                "cannot exec in a paused container (use --ignore-paused to override)",
            ));
        }
        _ => {}
    }
    let args: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let process = process(&container, flags, args)?;
    let detach = flags.has("detach");
    let console = console_socket(flags, process.terminal, detach)?;
    let pidfd = container
        .process()?
        .ok_or_else(|| Error::conflict("cannot exec in a stopped container"))?;
    let cgroup = container.cgroup()?;
    let target = Target {
        id: &container.record.id,
        pid: Pid::from_raw(container.record.pid)
            .context(|| "the container has no process".to_owned())?,
        pidfd: pidfd.as_fd(),
        spec: &container.record.spec,
        cgroup: &cgroup,
        filter: None,
        preserve_fds: flags.number("preserve-fds")?.unwrap_or(0),
    };
    let stdio = if process.terminal { Stdio::Terminal } else { Stdio::Inherit };
    let executed = crate::exec(&target, &process, stdio)
        .context(|| "unable to start container process".to_owned())?;
    executed.warnings.iter().for_each(|warning| global.log.warning(warning));
    write_pid_file(flags, executed.pid)?;
    if let (Some(socket), Some(master)) = (&console, &executed.terminal) {
        send_terminal(socket, master)?;
    }
    if detach { Ok(0) } else { foreground::follow(&executed.pidfd, executed.terminal) }
}

fn process(container: &Container, flags: &Flags, args: Vec<String>) -> Result<Process> {
    if let Some(path) = flags.get("process") {
        return read_json(Path::new(path));
    }
    if args.is_empty() {
        return Err(Error::invalid("process args cannot be empty"));
    }
    let mut process = container.record.spec.process.clone().unwrap_or_default();
    process.args = args;
    process.terminal = flags.has("tty");
    process.env.extend(flags.all("env").map(str::to_owned));
    if let Some(cwd) = flags.get("cwd") {
        process.cwd = cwd.into();
    }
    if let Some(profile) = flags.get("apparmor") {
        process.apparmor_profile = profile.to_owned();
    }
    if let Some(label) = flags.get("process-label") {
        process.selinux_label = label.to_owned();
    }
    let added: Vec<String> = flags.all("cap").map(str::to_owned).collect();
    if !added.is_empty() {
        let capabilities = process.capabilities.get_or_insert_default();
        add_capabilities(capabilities, &added);
    }
    if flags.get("no-new-privs").is_some() {
        process.no_new_privileges = flags.has("no-new-privs");
    }
    if let Some(user) = flags.get("user") {
        let (uid, gid) = parse_user(user)?;
        process.user = User { uid, gid: gid.unwrap_or(process.user.gid), ..process.user };
    }
    for gid in flags.all("additional-gids") {
        process.user.additional_gids.push(id_number(gid)?);
    }
    Ok(process)
}

/// What runc gives for `--cap`: bounding, effective, permitted, and ambient where the user keeps it.
fn add_capabilities(capabilities: &mut Capabilities, added: &[String]) {
    for set in [
        &mut capabilities.bounding,
        &mut capabilities.effective,
        &mut capabilities.permitted,
        &mut capabilities.ambient,
    ] {
        for name in added {
            if !set.contains(name) {
                set.push(name.clone());
            }
        }
    }
}

fn parse_user(user: &str) -> Result<(u32, Option<u32>)> {
    match user.split_once(':') {
        Some((uid, gid)) => Ok((id_number(uid)?, Some(id_number(gid)?))),
        None => Ok((id_number(user)?, None)),
    }
}

/// Digits and nothing else: what cannot be a number is refused, not taken for another (CVE-2026-30892).
fn id_number(text: &str) -> Result<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(id) if digits && id != u32::MAX => Ok(id),
        _ => Err(Error::invalid(format!("parsing {text} as int for uid failed: invalid syntax"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        assert_eq!(parse_user("1").unwrap(), (1, None));
        assert_eq!(parse_user("1:2").unwrap(), (1, Some(2)));
        for bad in
            ["", "1:", ":1", "root", "0x1", "+1", " 1", "-1", "4294967295", "4294967296", "1:u"]
        {
            assert!(parse_user(bad).is_err(), "{bad}");
        }
    }
}
