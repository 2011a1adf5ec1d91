//! `features`: what this runtime can do, as the specification wants it told.

use oci::runtime::{
    CgroupFeatures, Features, IntelRdtFeatures, LinuxFeatures, MountExtensions, SeccompFeatures,
    Switch,
};
use stdx::Result;

use super::flags::Flags;
use super::{Global, say};
use crate::{capabilities, rootfs};

pub(super) fn run(_: &Global, _: &Flags) -> Result<u8> {
    say(&format!("{}\n", serde_json::to_string_pretty(&features()).expect("only words")))?;
    Ok(0)
}

fn features() -> Features {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    Features {
        oci_version_min: "1.0.0".to_owned(),
        oci_version_max: oci::runtime::VERSION.to_owned(),
        hooks: words(&[
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ]),
        mount_options: rootfs::mount_options(),
        linux: LinuxFeatures {
            namespaces: words(&["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]),
            capabilities: words(capabilities::names()),
            cgroup: CgroupFeatures {
                v1: true,
                v2: true,
                systemd: true,
                systemd_user: false,
                rdma: true,
            },
            seccomp: SeccompFeatures {
                enabled: true,
                actions: words(&[
                    "SCMP_ACT_ALLOW",
                    "SCMP_ACT_ERRNO",
                    "SCMP_ACT_KILL",
                    "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD",
                    "SCMP_ACT_LOG",
                    "SCMP_ACT_NOTIFY",
                    "SCMP_ACT_TRACE",
                    "SCMP_ACT_TRAP",
                ]),
                operators: words(&[
                    "SCMP_CMP_EQ",
                    "SCMP_CMP_GE",
                    "SCMP_CMP_GT",
                    "SCMP_CMP_LE",
                    "SCMP_CMP_LT",
                    "SCMP_CMP_MASKED_EQ",
                    "SCMP_CMP_NE",
                ]),
                archs: words(&[
                    "SCMP_ARCH_AARCH64",
                    "SCMP_ARCH_ARM",
                    "SCMP_ARCH_RISCV64",
                    "SCMP_ARCH_X32",
                    "SCMP_ARCH_X86",
                    "SCMP_ARCH_X86_64",
                ]),
                known_flags: flags(),
                supported_flags: flags(),
            },
            apparmor: Switch { enabled: true },
            selinux: Switch { enabled: true },
            intel_rdt: IntelRdtFeatures { enabled: false },
            mount_extensions: MountExtensions { idmap: Switch { enabled: true } },
        },
        ..Features::default()
    }
}

fn flags() -> Vec<String> {
    [
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ]
    .map(str::to_owned)
    .to_vec()
}
