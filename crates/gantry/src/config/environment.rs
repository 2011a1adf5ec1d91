//! What the daemon finds in its environment, which is read here only.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Sockets that systemd opened for us: names and numbers, from 3 on.
pub(crate) fn inherited_sockets() -> Vec<(String, u32)> {
    #[allow(clippy::disallowed_methods, reason = "the environment is read here")]
    let read = |name: &str| std::env::var(name).unwrap_or_default();
    if read("LISTEN_PID").parse() != Ok(std::process::id()) {
        return Vec::new();
    }
    let names = read("LISTEN_FDNAMES");
    let mut names = names.split(':');
    let count: u32 = read("LISTEN_FDS").parse().unwrap_or(0);
    (0..count).map(|index| (names.next().unwrap_or_default().to_owned(), 3 + index)).collect()
}

/// What logging drivers of clouds find there: who this machine is to them.
pub(crate) fn log_environment() -> BTreeMap<String, String> {
    const NAMES: [&str; 3] = ["GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST", "HOME"];
    const PREFIXES: [&str; 2] = ["AWS_", "SPLUNK_LOGGING_DRIVER_"];
    #[allow(clippy::disallowed_methods, reason = "the environment is read here")]
    let all = std::env::vars_os();
    let text =
        all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let is_theirs = |name: &str| {
        NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    text.filter(|(name, _)| is_theirs(name)).collect()
}

/// Where programs are, as the daemon was told.
pub(crate) fn program_dirs() -> Vec<PathBuf> {
    let path = variable("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect()
}

/// A variable that says something.
pub(crate) fn variable(name: &str) -> Option<String> {
    #[allow(clippy::disallowed_methods, reason = "the environment is read here")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The address of the host's message bus (D-Bus).
pub(crate) fn system_bus() -> String {
    variable("DBUS_SYSTEM_BUS_ADDRESS")
        .unwrap_or_else(|| "unix:path=/run/dbus/system_bus_socket".to_owned())
}

/// Where systemd wants to be told that we are ready.
pub(crate) fn notify_socket() -> Option<String> {
    variable("NOTIFY_SOCKET")
}
