//! `spec`: a document to begin with.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use oci::runtime::Spec;
use serde_json::{Value, json};
use stdx::{Context, Error, Result};

use super::Global;
use super::flags::{Flag, Flags};

pub(super) const FLAGS: &[Flag] = &[Flag::value("bundle").or("b"), Flag::switch("rootless")];

pub(super) fn run(_: &Global, flags: &Flags) -> Result<u8> {
    let path = Path::new(flags.get("bundle").unwrap_or(".")).join("config.json");
    let spec = if flags.has("rootless") { rootless(example()) } else { example() };
    let spec: Spec = serde_json::from_value(spec).expect("the example is a spec");
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::conflict("File config.json exists. Remove it first"));
        }
        other => other.context(|| format!("cannot create {}", path.display()))?,
    };
    let text = serde_json::to_string_pretty(&spec).expect("a spec is a document");
    file.write_all(text.as_bytes()).context(|| format!("cannot write {}", path.display()))?;
    Ok(0)
}

/// runc's example, so that what is written about it holds here.
fn example() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": oci::runtime::VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "gantry",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"},
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// For somebody without privilege: a user namespace of his own, and nothing he may not mount.
fn rootless(mut spec: Value) -> Value {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let linux = &mut spec["linux"];
    linux["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
    linux["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
    linux["namespaces"] = json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}, {"type": "user"}]);
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        for mount in mounts.iter_mut() {
            if mount["type"] == "sysfs" {
                *mount = json!({"destination": "/sys", "type": "none", "source": "/sys",
                    "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
            }
            if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
                options
                    .retain(|option| !option.as_str().is_some_and(|text| text.starts_with("gid=")));
            }
        }
        mounts.retain(|mount| mount["type"] != "cgroup");
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_examples_are_specs() {
        for spec in [example(), rootless(example())] {
            let spec: Spec = serde_json::from_value(spec).unwrap();
            assert!(spec.process.is_some());
        }
    }
}
