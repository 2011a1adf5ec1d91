//! What a container may not do, whatever its capabilities: the second lock on doors that masked paths, read-only mounts
//! and capabilities have locked already. Pure.

use std::fmt::Write as _;

/// Writing below /proc is for what belongs to a process, and for the sysctls that a container has for itself.
const DENIED: [(&str, &str); 14] = [
    ("@{PROC}/*", "w"),
    // Not a number, which is a process, and not `sys`.
    ("@{PROC}/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}/**", "w"),
    // Of these, `kernel` alone has more to say.
    ("@{PROC}/sys/[^k]**", "w"),
    // `shm*` belongs to the container's own IPC namespace.
    ("@{PROC}/sys/kernel/{?,??,[^s][^h][^m]**}", "w"),
    ("@{PROC}/sysrq-trigger", "rwklx"),
    ("@{PROC}/kcore", "rwklx"),
    // Everything but /sys/fs/cgroup, which other rules guard.
    ("/sys/[^f]*/**", "wklx"),
    ("/sys/f[^s]*/**", "wklx"),
    ("/sys/fs/[^c]*/**", "wklx"),
    ("/sys/fs/c[^g]*/**", "wklx"),
    ("/sys/fs/cg[^r]*/**", "wklx"),
    ("/sys/firmware/**", "rwklx"),
    ("/sys/devices/virtual/powercap/**", "rwklx"),
    ("/sys/kernel/security/**", "rwklx"),
];

/// The profile in AppArmor's language, for a daemon that is itself under the profile `own`. `has` tells which macros of
/// the distribution's there are.
pub(super) fn text(name: &str, own: &str, has: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    match has("tunables/global") {
        true => text.push_str("#include <tunables/global>\n"),
        false => text.push_str("@{PROC}=/proc/\n"),
    }
    let _infallible =
        writeln!(text, "profile {name} flags=(attach_disconnected,mediate_deleted) {{");
    let mut rule = |rule: &str| {
        let _infallible = writeln!(text, "  {rule}");
    };
    if has("abstractions/base") {
        rule("#include <abstractions/base>");
    }
    for all in ["network,", "capability,", "file,", "umount,"] {
        rule(all);
    }
    // Whoever stops it, and whoever it stops.
    rule("signal (receive) peer=unconfined,");
    if !matches!(own, "" | "unconfined") {
        rule(&format!("signal (receive) peer=\"{own}\","));
    }
    // Other runtimes may be under profiles of the distribution's.
    for peer in ["runc", "crun"] {
        rule(&format!("signal (receive) peer={peer},"));
    }
    rule(&format!("signal (send,receive) peer={name},"));
    rule(&format!("ptrace (trace,read,tracedby,readby) peer={name},"));
    rule("deny mount,");
    for (path, access) in DENIED {
        rule(&format!("deny {path} {access},"));
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stands_alone_or_builds_on_what_there_is() {
        let alone = text("p", "unconfined", |_| false);
        assert!(alone.starts_with(
            "@{PROC}=/proc/\nprofile p flags=(attach_disconnected,mediate_deleted) {\n  network,\n"
        ));
        assert!(!alone.contains("include") && !alone.contains("peer=\"unconfined\""), "{alone}");
        assert!(alone.ends_with("  deny /sys/kernel/security/** rwklx,\n}\n"), "{alone}");
        let with = text("p", "/usr/bin/gantry", |_| true);
        assert!(with.starts_with("#include <tunables/global>\n"), "{with}");
        for rule in [
            "  #include <abstractions/base>\n",
            "  signal (receive) peer=\"/usr/bin/gantry\",\n",
            "  signal (receive) peer=crun,\n",
            "  ptrace (trace,read,tracedby,readby) peer=p,\n",
        ] {
            assert!(with.contains(rule), "{rule}");
        }
    }
}
