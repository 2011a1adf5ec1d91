//! `--cap-add` and `--cap-drop` against Docker's fourteen. Pure.

use std::collections::BTreeSet;

use stdx::{Error, Result};

/// What a container may do when nobody says otherwise.
pub const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// All that Linux knows, up to 5.9's CAP_CHECKPOINT_RESTORE.
pub const ALL: [&str; 41] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

/// The set a container gets. Privileged ones get all, whatever else is said.
pub fn resolve(add: &[String], drop: &[String], privileged: bool) -> Result<BTreeSet<String>> {
    let add = normalize(add, "CapAdd")?;
    let drop = normalize(drop, "CapDrop")?;
    let owned =
        |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<String>>();
    if privileged {
        return Ok(owned(&ALL));
    }
    let mut set = match (add.contains("ALL"), drop.contains("ALL")) {
        (true, _) => owned(&ALL),
        (false, true) => BTreeSet::new(),
        (false, false) => owned(&DEFAULT),
    };
    if !drop.contains("ALL") {
        set.retain(|name| !drop.contains(name));
    }
    set.extend(add.into_iter().filter(|name| name != "ALL"));
    Ok(set)
}

fn normalize(names: &[String], what: &str) -> Result<BTreeSet<String>> {
    names
        .iter()
        .map(|name| {
            let upper = name.to_ascii_uppercase();
            let full = if upper == "ALL" || upper.starts_with("CAP_") {
                upper
            } else {
                format!("CAP_{upper}")
            };
            if full == "ALL" || ALL.contains(&full.as_str()) {
                Ok(full)
            } else {
                Err(Error::invalid(format!("invalid {what}: unknown capability: \"{full}\"")))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> BTreeSet<String> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        resolve(&owned(add), &owned(drop), false).unwrap()
    }

    #[test]
    fn dockers_table() {
        assert_eq!(set(&[], &[]).len(), 14);
        assert_eq!(set(&["net_admin"], &[]).len(), 15);
        assert_eq!(set(&[], &["CAP_CHOWN"]).len(), 13);
        assert_eq!(set(&["CHOWN"], &["ALL"]).into_iter().collect::<Vec<_>>(), ["CAP_CHOWN"]);
        assert_eq!(set(&["ALL"], &["MKNOD"]).len(), 40);
        assert_eq!(
            resolve(&["foo".to_owned()], &[], false).unwrap_err().to_string(),
            "invalid CapAdd: unknown capability: \"CAP_FOO\""
        );
    }
}
