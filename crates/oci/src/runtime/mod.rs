//! The runtime document (`config.json` of runtime-spec 1.2), its state document, and our word for a root file system.
//!
//! Fields are the specification's, unknown ones are ignored. Everything is optional where the specification says so, and
//! `..Default::default()` leaves it out of the JSON.

mod cgroup;
mod features;
mod hooks;
mod linux;
mod process;
mod seccomp;
mod state;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use cgroup::{
    BlockIo, Cpu, HugepageLimit, InterfacePriority, Memory, Network, Pids, Rdma, Resources,
    ThrottleDevice, WeightDevice,
};
pub use features::{
    CgroupFeatures, Features, IntelRdtFeatures, LinuxFeatures, MountExtensions, SeccompFeatures,
    Switch,
};
pub use hooks::{Hook, Hooks};
pub use linux::{
    Device, DeviceRule, IdMapping, IntelRdt, Linux, MemoryPolicy, Namespace, NamespaceType,
    NetDevice, Personality, TimeOffset,
};
pub use process::{
    Capabilities, ConsoleSize, CpuAffinity, IoPriority, Process, Rlimit, Scheduler, User,
};
pub use seccomp::{Seccomp, SeccompAction, SeccompArg, SeccompOperator, SeccompSyscall};
pub use state::{State, Status};

/// The version of the specification that is spoken.
pub const VERSION: &str = "1.2.1";

/// What to run and in what surroundings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    pub oci_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domainname: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Root {
    pub path: PathBuf,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub readonly: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Mount {
    pub destination: PathBuf,
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<PathBuf>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
}

/// How the root file system is to be put together inside the container's mount namespace (ours, not the specification's).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Rootfs {
    /// A directory that is there already.
    Directory { path: PathBuf },
    /// Layers, topmost first, under a writable directory. `volatile` gives up syncing for containers that nobody keeps.
    Overlay {
        lowers: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        volatile: bool,
    },
}

impl Spec {
    /// The Linux part, or an empty one.
    pub fn linux_or_default(&self) -> std::borrow::Cow<'_, Linux> {
        match &self.linux {
            Some(linux) => std::borrow::Cow::Borrowed(linux),
            None => std::borrow::Cow::Owned(Linux::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_spec_is_short() {
        let spec = Spec { oci_version: VERSION.into(), ..Spec::default() };
        assert_eq!(serde_json::to_string(&spec).unwrap(), r#"{"ociVersion":"1.2.1"}"#);
    }

    #[test]
    fn what_podman_writes_comes_back() {
        let text = r#"{"ociVersion":"1.0.2-dev",
            "process":{"terminal":true,"user":{"uid":0,"gid":0,"additionalGids":[1,2]},"args":["sh"],"env":["A=b"],"cwd":"/",
              "capabilities":{"bounding":["CAP_KILL"]},"rlimits":[{"type":"RLIMIT_NOFILE","hard":1,"soft":1}],
              "noNewPrivileges":true,"apparmorProfile":"p","oomScoreAdj":-1},
            "root":{"path":"rootfs","readonly":true},"hostname":"h",
            "mounts":[{"destination":"/proc","type":"proc","source":"proc","options":["nosuid"]}],
            "hooks":{"createRuntime":[{"path":"/bin/true","args":["true"],"timeout":3}]},
            "linux":{"uidMappings":[{"containerID":0,"hostID":1000,"size":1}],
              "namespaces":[{"type":"pid"},{"type":"network","path":"/run/netns/x"}],
              "resources":{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":-1},"cpu":{"cpus":"0-1"},
                "blockIO":{"weight":10,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":5}]},
                "unified":{"memory.high":"1"}},
              "devices":[{"path":"/dev/fuse","type":"c","major":10,"minor":229,"fileMode":438,"uid":0,"gid":0}],
              "seccomp":{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"architectures":["SCMP_ARCH_X86_64"],
                "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}]},
              "maskedPaths":["/proc/kcore"],"readonlyPaths":["/proc/sys"],"rootfsPropagation":"slave",
              "personality":{"domain":"LINUX32"},"timeOffsets":{"monotonic":{"secs":1,"nanosecs":2}},
              "sysctl":{"net.ipv4.ip_forward":"1"},"cgroupsPath":"/a/b"}}"#;
        let spec: Spec = serde_json::from_str(text).unwrap();
        let again: serde_json::Value = serde_json::to_value(&spec).unwrap();
        assert_eq!(again, serde_json::from_str::<serde_json::Value>(text).unwrap());
    }
}
