//! `--userns`: whose numbers the users inside are, and what that rules out.

use api::container::HostConfig;
use stdx::{Error, Result};

use super::{Ipc, Network, Pid};
use crate::container::ids::Userns;

pub(super) fn userns(
    host: &HostConfig,
    default: Userns,
    (network, pid, ipc): (&Network, &Pid, &Ipc),
) -> Result<Userns> {
    let wanted = Userns::parse(&host.userns_mode, default)?;
    if wanted == Userns::Host {
        return Ok(wanted);
    }
    let conflict = match () {
        () if host.privileged => {
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode"
        }
        () if *network == Network::Host => {
            "cannot share the host's network namespace when user namespaces are enabled"
        }
        () if *pid == Pid::Host => {
            "cannot share the host PID namespace when user namespaces are enabled"
        }
        () if *ipc == Ipc::Host => {
            "cannot share the host IPC namespace when user namespaces are enabled"
        }
        () => return Ok(wanted),
    };
    // Who asks for the host and leaves this to the daemon has asked for the host's users, too.
    if host.userns_mode.is_empty() && matches!(default, Userns::Auto { .. }) {
        return Ok(Userns::Host);
    }
    Err(Error::invalid(conflict))
}

/// Who runs: with `keep-id` the one who is kept, unless somebody else was asked for.
pub(super) fn user(asked: &str, userns: Userns) -> String {
    match userns {
        Userns::KeepId { uid, gid, .. } if asked.is_empty() => format!("{uid}:{gid}"),
        _ => asked.to_owned(),
    }
}
