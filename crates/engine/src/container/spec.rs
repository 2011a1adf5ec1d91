//! A plan becomes an OCI runtime spec. Pure: what had to be looked up or taken first is in [`Surroundings`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::exec::CreateBody;
use oci::runtime::{
    BlockIo, Capabilities, DeviceRule, Linux, Mount, Namespace, NamespaceType, Process, Resources,
    Rlimit, Root, Seccomp, Spec, User,
};
use runtime::cgroup::Driver;
use stdx::{Error, Id, Result};

use super::ids::Ids;
use super::mounts::Recursive;
use super::plan::{Cgroupns, DevicePlan, Ipc, Network, Pid, Plan, Uts};

/// What a container finds around it, taken before the spec is written.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    pub id: String,
    pub hostname: String,
    /// Files of ours that are bound over the image's: source and target.
    pub files: Vec<(PathBuf, &'static str)>,
    pub mounts: Vec<ResolvedMount>,
    /// Namespaces of other containers, by path.
    pub join: Vec<(NamespaceType, PathBuf)>,
    pub devices: Vec<Device>,
    /// Weights and limits of single block devices, by number.
    pub block_io: BlockIo,
    pub cgroups_path: String,
    /// /dev/shm is another container's, handed over by descriptor (`--ipc container:`).
    pub shares_shm: bool,
    /// Who the container's users are outside, unless they are the host's.
    pub ids: Option<Ids>,
    /// How many groups the host has, from root's on: fewer than all where it is itself a user namespace.
    pub groups: u32,
    /// Hybrid and v1 hosts share their cgroup namespace by default, pure v2 hosts do not (Docker's rule).
    pub cgroup_v2: bool,
    /// The profile, for a runtime that has to compile it.
    pub seccomp: Option<Seccomp>,
}

/// A mount whose source exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedMount {
    pub target: String,
    pub read_only: bool,
    pub what: What,
    pub ids: MountIds,
}

/// Whose the files of a bind are, seen from inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MountIds {
    /// Those of the host's users.
    #[default]
    Host,
    /// As the container's own files: by the same numbers inside as on disk.
    Container,
    Given(Ids),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Bind { source: PathBuf, propagation: String, recursive: Recursive },
    Tmpfs { options: Vec<String> },
}

/// A device of the host, looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub node: oci::runtime::Device,
    pub access: String,
}

impl Device {
    /// Looks at the host's node for what number it has.
    pub fn stat(plan: &DevicePlan) -> Result<Vec<Self>> {
        let missing = |errno: rustix::io::Errno| {
            Error::internal(format!(
                "error gathering device information while adding custom device \"{}\"",
                plan.host
            ))
            .caused_by(Error::from(errno))
        };
        let stat = rustix::fs::stat(plan.host.as_str()).map_err(missing)?;
        let file_type = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        let kind = match file_type {
            rustix::fs::FileType::CharacterDevice => "c",
            rustix::fs::FileType::BlockDevice => "b",
            rustix::fs::FileType::Directory => return Self::tree(plan),
            _ => {
                return Err(Error::internal(format!(
                    "error gathering device information while adding custom device \"{}\": not a device node",
                    plan.host
                )));
            }
        };
        let node = oci::runtime::Device {
            path: PathBuf::from(&plan.container),
            kind: kind.to_owned(),
            major: i64::from(rustix::fs::major(stat.st_rdev)),
            minor: i64::from(rustix::fs::minor(stat.st_rdev)),
            file_mode: Some(stat.st_mode & 0o7777),
            uid: Some(stat.st_uid),
            gid: Some(stat.st_gid),
        };
        Ok(vec![Self { node, access: plan.access.clone() }])
    }

    /// `--privileged` sees the host's. Those of terminals are made fresh in any case.
    pub fn all() -> Result<Vec<Self>> {
        let dev = || "/dev".to_owned();
        let plan = DevicePlan { host: dev(), container: dev(), access: "rwm".to_owned() };
        let mut all = Self::tree(&plan)?;
        all.retain(|device| {
            !["/dev/console", "/dev/ptmx"].map(Path::new).contains(&&*device.node.path)
        });
        Ok(all)
    }

    /// `--device /dev/snd`: every node below it that is still there when it is looked at. What is no place for devices is
    /// left out, as by Docker: whatever is in the host's shared memory comes and goes.
    fn tree(plan: &DevicePlan) -> Result<Vec<Self>> {
        use rustix::io::Errno;
        use std::os::unix::fs::FileTypeExt;
        const ELSEWHERE: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];
        let mut found = Vec::new();
        let mut entries: Vec<_> = std::fs::read_dir(&plan.host)?.collect::<std::io::Result<_>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !ELSEWHERE.contains(name)) else {
                continue;
            };
            let below = DevicePlan {
                host: format!("{}/{name}", plan.host),
                container: format!("{}/{name}", plan.container),
                access: plan.access.clone(),
            };
            let kind = entry.file_type();
            let devices = match kind {
                Ok(kind) if kind.is_dir() => Self::tree(&below),
                Ok(kind) if kind.is_char_device() || kind.is_block_device() => Self::stat(&below),
                Ok(_) => continue,
                Err(err) => Err(err.into()),
            };
            // Whether it is there now says nothing: it may have come again.
            let gone = [Errno::NOENT, Errno::NOTDIR].map(Errno::raw_os_error);
            match devices {
                Ok(devices) => found.extend(devices),
                Err(err) if err.errno().is_some_and(|errno| gone.contains(&errno)) => {}
                Err(err) => return Err(err),
            }
        }
        Ok(found)
    }
}

/// Docker's, in its order. A path that the kernel does not have is skipped.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The paths that are hidden and write-protected unless somebody says otherwise, as `inspect` shows them.
pub fn masked_paths() -> Vec<String> {
    MASKED.iter().map(|&path| path.to_owned()).collect()
}

pub fn readonly_paths() -> Vec<String> {
    READONLY.iter().map(|&path| path.to_owned()).collect()
}

/// The spec of the container's first process and all around it.
pub fn spec(plan: &Plan, around: &Surroundings) -> Spec {
    let linux = Linux {
        cgroups_path: around.cgroups_path.clone(),
        namespaces: namespaces(plan, around),
        resources: Some(resources(plan, around)),
        devices: around.devices.iter().map(|device| device.node.clone()).collect(),
        sysctl: sysctls(plan, around),
        uid_mappings: around.ids.as_ref().map(|ids| ids.uids.clone()).unwrap_or_default(),
        gid_mappings: around.ids.as_ref().map(|ids| ids.gids.clone()).unwrap_or_default(),
        seccomp: around.seccomp.clone(),
        masked_paths: plan.masked_paths.iter().map(PathBuf::from).collect(),
        readonly_paths: plan.readonly_paths.iter().map(PathBuf::from).collect(),
        rootfs_propagation: propagation(around),
        ..Linux::default()
    };
    Spec {
        oci_version: oci::runtime::VERSION.to_owned(),
        process: Some(process(plan, around)),
        root: Some(Root { path: PathBuf::from("rootfs"), readonly: plan.read_only }),
        hostname: if plan.uts == Uts::Private { around.hostname.clone() } else { String::new() },
        domainname: if plan.uts == Uts::Private { plan.domainname.clone() } else { String::new() },
        mounts: mounts(plan, around),
        annotations: plan.annotations.clone(),
        linux: Some(linux),
        ..Spec::default()
    }
}

fn process(plan: &Plan, around: &Surroundings) -> Process {
    Process {
        terminal: plan.tty,
        user: user(&plan.user, &plan.groups),
        args: plan.args.clone(),
        env: environment(plan, &around.hostname),
        cwd: PathBuf::from(if plan.cwd.is_empty() { "/" } else { &plan.cwd }),
        capabilities: Some(capabilities(plan)),
        rlimits: plan
            .ulimits
            .iter()
            .map(|limit| Rlimit {
                kind: format!("RLIMIT_{}", limit.name.to_ascii_uppercase()),
                hard: limit.hard as u64,
                soft: limit.soft as u64,
            })
            .collect(),
        no_new_privileges: plan.no_new_privileges,
        apparmor_profile: plan.apparmor.clone(),
        oom_score_adj: Some(plan.oom_score_adj),
        ..Process::default()
    }
}

/// What systemd calls our containers, before their ids.
const SCOPE: &str = "gantry";

/// Where a container's cgroup is, in every hierarchy.
pub(crate) fn cgroups_path(driver: Driver, parent: &str, id: &str) -> String {
    match driver {
        Driver::Cgroupfs => format!("{}/{id}", parent.trim_end_matches('/')),
        Driver::Systemd => format!("{parent}:{SCOPE}:{id}"),
    }
}

/// Whose a directory of this name there is.
pub(crate) fn id_of_cgroup(driver: Driver, name: &str) -> Option<Id> {
    let id = match driver {
        Driver::Cgroupfs => name,
        Driver::Systemd => name.strip_prefix(SCOPE)?.strip_prefix('-')?.strip_suffix(".scope")?,
    };
    Id::parse(id)
}

/// Root's name is looked up too: the groups it is in are its own.
fn user(name: &str, groups: &[String]) -> User {
    let username = if name.is_empty() { "0".to_owned() } else { name.to_owned() };
    User { username, additional_groups: groups.to_vec(), ..User::default() }
}

/// Docker puts PATH, HOSTNAME and, with a terminal, TERM before what was asked for, which overrides them. HOME is the
/// runtime's to add, from the container's own passwd.
fn environment(plan: &Plan, hostname: &str) -> Vec<String> {
    let mut env = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("HOSTNAME={hostname}"),
    ];
    if plan.tty {
        env.push("TERM=xterm".to_owned());
    }
    overlay_env(&mut env, &plan.env);
    env
}

/// Later pairs replace earlier ones of the same name in place; a bare name takes its variable away.
fn overlay_env(env: &mut Vec<String>, over: &[String]) {
    for pair in over {
        let name = pair.split('=').next().unwrap_or_default();
        let place = env.iter().position(|old| old.split('=').next() == Some(name));
        match (place, pair.contains('=')) {
            (Some(place), true) => env[place].clone_from(pair),
            (Some(place), false) => drop(env.remove(place)),
            (None, true) => env.push(pair.clone()),
            (None, false) => {}
        }
    }
}

/// Inheritable and ambient stay empty (CVE-2022-24769).
fn capabilities(plan: &Plan) -> Capabilities {
    let names: Vec<String> = plan.capabilities.iter().cloned().collect();
    Capabilities {
        bounding: names.clone(),
        effective: names.clone(),
        permitted: names,
        ..Capabilities::default()
    }
}

fn namespaces(plan: &Plan, around: &Surroundings) -> Vec<Namespace> {
    let mut list = vec![Namespace { kind: NamespaceType::Mount, path: None }];
    let mut add = |kind: NamespaceType, private: bool| {
        let joined =
            around.join.iter().find(|(other, _)| *other == kind).map(|(_, path)| path.clone());
        if private || joined.is_some() {
            list.push(Namespace { kind, path: joined });
        }
    };
    // The network namespace itself is handed over as a descriptor; here stands that there is one.
    add(NamespaceType::Network, plan.network != Network::Host);
    add(NamespaceType::Uts, plan.uts == Uts::Private);
    add(NamespaceType::Pid, plan.pid == Pid::Private);
    add(NamespaceType::Ipc, !matches!(plan.ipc, Ipc::Host));
    let private_cgroup = match plan.cgroupns {
        Cgroupns::Private => true,
        Cgroupns::Host => false,
        Cgroupns::Default => around.cgroup_v2,
    };
    add(NamespaceType::Cgroup, private_cgroup);
    // Handed over as a descriptor, too.
    add(NamespaceType::User, around.ids.is_some());
    list
}

/// In a network of their own programs may listen on low ports and ping without being root, as in Docker's.
fn sysctls(plan: &Plan, around: &Surroundings) -> BTreeMap<String, String> {
    let mut all = plan.sysctls.clone();
    if matches!(plan.network, Network::None | Network::Named(_)) {
        // Not a range with numbers that nobody has.
        let groups = around.ids.as_ref().map_or(around.groups, |ids| ids.groups_from_root());
        let last = groups.saturating_sub(1).min(i32::MAX as u32);
        let mut usual = |name: &str, value: String| {
            all.entry(name.to_owned()).or_insert(value);
        };
        usual("net.ipv4.ip_unprivileged_port_start", "0".to_owned());
        usual("net.ipv4.ping_group_range", format!("0 {last}"));
    }
    all
}

fn propagation(around: &Surroundings) -> String {
    let wants = |word: &str| {
        around.mounts.iter().any(|mount| matches!(&mount.what, What::Bind { propagation, .. } if propagation.trim_start_matches('r') == word))
    };
    match () {
        () if wants("shared") => "shared".to_owned(),
        () if wants("slave") => "rslave".to_owned(),
        () => "rprivate".to_owned(),
    }
}

fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: PathBuf::from(target),
        kind: kind.to_owned(),
        source: Some(PathBuf::from(source)),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        ..Mount::default()
    }
}

fn mounts(plan: &Plan, around: &Surroundings) -> Vec<Mount> {
    let writable = if plan.privileged { "rw" } else { "ro" };
    let shm_size = format!("size={}", plan.shm_size);
    let mut list = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", writable]),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &[if plan.writable_cgroups { "rw" } else { writable }, "nosuid", "noexec", "nodev"],
        ),
    ];
    match (&plan.ipc, around.shares_shm) {
        (Ipc::Host, _) => {
            // The host may have none mounted; of its namespace this is the same one.
            list.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
            list.push(mount("/dev/shm", "bind", "/dev/shm", &["rbind"]));
        }
        (_, true) => {
            list.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
            list.push(mount("/dev/shm", "bind", "shm", &["rbind", "nosuid", "noexec", "nodev"]));
        }
        (Ipc::None, false) => {
            list.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]))
        }
        _ => {
            list.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
            list.push(mount(
                "/dev/shm",
                "tmpfs",
                "shm",
                &["nosuid", "noexec", "nodev", "mode=1777", &shm_size],
            ));
        }
    }
    // What a user mounts replaces what stands above at the same place, and comes in the order of its depth.
    let mut users: Vec<&ResolvedMount> = around.mounts.iter().collect();
    users.sort_by_key(|mount| mount.target.matches('/').count());
    list.retain(|ours| !users.iter().any(|theirs| Path::new(&theirs.target) == ours.destination));
    let taken = |target: &str| users.iter().any(|theirs| theirs.target == target);
    let files = around.files.iter().filter(|(_, target)| !taken(target));
    for (source, target) in files {
        let mode = if plan.read_only { "ro" } else { "rw" };
        let mut file =
            mount(target, "bind", &source.to_string_lossy(), &["rbind", "rprivate", mode]);
        if around.ids.is_some() {
            file.options.push("idmap".to_owned());
        }
        list.push(file);
    }
    list.extend(users.into_iter().map(user_mount));
    list
}

fn user_mount(wanted: &ResolvedMount) -> Mount {
    match &wanted.what {
        What::Tmpfs { options } => {
            let mut all: Vec<&str> = vec!["noexec", "nosuid", "nodev"];
            for option in options {
                // What is asked for overrides the defaults.
                match option.as_str() {
                    "exec" | "suid" | "dev" => {
                        all.retain(|old| old.trim_start_matches("no") != option)
                    }
                    other => all.push(other),
                }
            }
            if wanted.read_only {
                all.push("ro");
            }
            mount(&wanted.target, "tmpfs", "tmpfs", &all)
        }
        What::Bind { source, propagation, recursive } => {
            let mut options = vec![match recursive {
                Recursive::Disabled => "bind",
                _ => "rbind",
            }];
            match (wanted.read_only, recursive) {
                (false, _) => options.push("rw"),
                (true, Recursive::Readonly) => options.push("rro"),
                (true, Recursive::Enabled) => options.push("rro"),
                (true, _) => options.push("ro"),
            }
            options.push(if propagation.is_empty() { "rprivate" } else { propagation });
            let mut mount = mount(&wanted.target, "bind", &source.to_string_lossy(), &options);
            match &wanted.ids {
                MountIds::Host => {}
                MountIds::Container => mount.options.push("idmap".to_owned()),
                MountIds::Given(ids) => {
                    mount.uid_mappings.clone_from(&ids.uids);
                    mount.gid_mappings.clone_from(&ids.gids);
                }
            }
            mount
        }
    }
}

/// Docker's device rules: nothing, but the harmless nodes, terminals, and what was asked for.
fn resources(plan: &Plan, around: &Surroundings) -> Resources {
    let rule = |allow: bool, kind: &str, major: Option<i64>, minor: Option<i64>, access: &str| {
        DeviceRule { allow, kind: kind.to_owned(), major, minor, access: access.to_owned() }
    };
    let mut devices = Vec::new();
    if plan.privileged {
        devices.push(rule(true, "a", None, None, "rwm"));
    } else {
        devices.push(rule(false, "a", None, None, "rwm"));
        devices.push(rule(true, "c", None, None, "m"));
        devices.push(rule(true, "b", None, None, "m"));
        for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)] {
            devices.push(rule(true, "c", Some(major), Some(minor), "rwm"));
        }
        devices.push(rule(true, "c", Some(136), None, "rwm"));
        for device in &around.devices {
            devices.push(rule(
                true,
                &device.node.kind,
                Some(device.node.major),
                Some(device.node.minor),
                &device.access,
            ));
        }
        devices.extend(plan.device_rules.iter().cloned());
    }
    let mut resources = Resources { devices, ..plan.resources.clone() };
    if around.block_io != BlockIo::default() {
        let weight = plan.resources.block_io.as_ref().and_then(|block_io| block_io.weight);
        resources.block_io = Some(BlockIo { weight, ..around.block_io.clone() });
    }
    resources
}

/// One more process in a running container.
pub fn exec(plan: &Plan, around_hostname: &str, wanted: &CreateBody) -> Process {
    let mut env = environment(plan, around_hostname);
    if wanted.tty && !plan.tty {
        overlay_env(&mut env, &["TERM=xterm".to_owned()]);
    }
    overlay_env(&mut env, wanted.env.as_deref().unwrap_or_default());
    let caps = if wanted.privileged {
        let all: Vec<String> =
            super::capabilities::ALL.iter().map(|&name| name.to_owned()).collect();
        Capabilities {
            bounding: all.clone(),
            effective: all.clone(),
            permitted: all,
            ..Capabilities::default()
        }
    } else {
        capabilities(plan)
    };
    let cwd = if !wanted.working_dir.is_empty() {
        wanted.working_dir.as_str()
    } else if plan.cwd.is_empty() {
        "/"
    } else {
        &plan.cwd
    };
    Process {
        terminal: wanted.tty,
        user: user(if wanted.user.is_empty() { &plan.user } else { &wanted.user }, &plan.groups),
        args: wanted.cmd.clone().unwrap_or_default(),
        env,
        cwd: PathBuf::from(cwd),
        capabilities: Some(caps),
        no_new_privileges: plan.no_new_privileges,
        apparmor_profile: plan.apparmor.clone(),
        ..Process::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_variables_win_in_place() {
        let mut env = vec!["A=1".to_owned(), "B=2".to_owned(), "C=3".to_owned()];
        overlay_env(
            &mut env,
            &["B=x".to_owned(), "C".to_owned(), "D=4".to_owned(), "E".to_owned()],
        );
        assert_eq!(env, ["A=1", "B=x", "D=4"]);
    }

    #[test]
    fn tmpfs_options_override_the_defaults() {
        let wanted = ResolvedMount {
            target: "/t".to_owned(),
            read_only: false,
            what: What::Tmpfs { options: vec!["exec".to_owned(), "size=64k".to_owned()] },
            ids: MountIds::Host,
        };
        assert_eq!(user_mount(&wanted).options, ["nosuid", "nodev", "size=64k"]);
    }

    #[test]
    fn what_vanishes_while_devices_are_looked_for_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("shm/of/somebody")).unwrap();
        std::fs::create_dir(at("net")).unwrap();
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let plan = DevicePlan {
            host: text(dir.path().to_owned()),
            container: "/dev".to_owned(),
            access: "rwm".to_owned(),
        };
        let looked = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !looked.load(std::sync::atomic::Ordering::Relaxed) {
                    std::fs::create_dir(at("comes")).unwrap();
                    std::fs::remove_dir(at("comes")).unwrap();
                }
            });
            let found: Vec<_> = (0..2000).map(|_| Device::tree(&plan)).collect();
            looked.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(found.iter().all(Result::is_ok), "{:?}", found.iter().find(|one| one.is_err()));
        });
        std::fs::remove_dir(at("shm/of/somebody")).unwrap();
        assert!(Device::stat(&DevicePlan { host: text(at("none")), ..plan }).is_err());
    }
}
