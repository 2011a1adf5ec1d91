//! The host's switches: turned only when they have to be, and never without a word in the log. And those of containers'
//! namespaces.

use std::fs;
use std::io;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use stdx::{Context, Result};

/// Where the kernel keeps the switches of this thread's network namespace.
const NET: &str = "/proc/sys/net";

/// What a switch says; `None` where the kernel has none of this name.
pub(crate) fn get(name: &str) -> Result<Option<String>> {
    match fs::read_to_string(format!("{NET}/{name}")) {
        Ok(value) => Ok(Some(value.trim().to_owned())),
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err).context(|| format!("cannot read the switch net/{name}")),
    }
}

/// Turns a switch, and says so; leaves one alone that is where it should be, or not there at all.
pub(crate) fn set(name: &str, wanted: &str) -> Result<()> {
    let Some(found) = get(name)?.filter(|found| found != wanted) else { return Ok(()) };
    fs::write(format!("{NET}/{name}"), wanted)
        .context(|| format!("cannot set the switch net/{name} to {wanted}"))?;
    tracing::info!(switch = %format!("net/{name}"), from = %found, to = wanted, "turned a switch of the host");
    Ok(())
}

/// The IPv4 switches of the host's devices, found once: the kernel keeps the directories of all network namespaces under one
/// name, and whoever looks for the host's passes them all (`proc_sys_compare`: 60 µs with 500 containers).
pub(crate) struct Devices(Option<OwnedFd>);

impl Devices {
    /// Those of this thread's network namespace. A kernel that has none is asked by name each time.
    pub(crate) fn open() -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self(rustix::fs::openat(CWD, format!("{NET}/ipv4/conf"), flags, Mode::empty()).ok())
    }

    /// As [`set`], of one device.
    pub(crate) fn set(&self, device: &str, name: &str, wanted: &str) -> Result<()> {
        let found = self.0.as_ref().and_then(|devices| {
            let path = format!("{device}/{name}");
            let file =
                rustix::fs::openat(devices, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            let mut value = [0; 16];
            let length = rustix::io::read(file.ok()?, &mut value).ok()?;
            str::from_utf8(&value[..length]).ok().map(|value| value.trim() == wanted)
        });
        if found == Some(true) {
            Ok(())
        } else {
            set(&format!("ipv4/conf/{device}/{name}"), wanted)
        }
    }
}

/// The switches of the network namespace that a thread is in, through a procfs that nobody else has: in the host's, each
/// namespace that was looked at makes all others harder to find, the host's too. To mount one costs 60 µs.
pub(crate) struct Procfs(OwnedFd);

impl Procfs {
    /// The host's, where none may be mounted.
    pub(crate) fn open() -> Result<Self> {
        let mount = || {
            let fs = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
            rustix::mount::fsconfig_create(&fs)?;
            let attributes = MountAttrFlags::empty();
            rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = mount().or_else(|_| rustix::fs::openat(CWD, "/proc", flags, Mode::empty()));
        proc.map(Self).context(|| "cannot open a procfs".to_owned())
    }

    /// Turns one, named as below `/proc/sys/net`. A kernel that has none of this name has nothing to turn.
    pub(crate) fn set(&self, name: &str, value: &str) -> io::Result<()> {
        let path = format!("sys/net/{name}");
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.0, path, flags, Mode::empty()) {
            Ok(file) => Ok(rustix::io::write(file, value.as_bytes()).map(drop)?),
            Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Whether what a bridge carries between its ports is filtered like what the host forwards: all of it, or some.
pub(crate) fn bridges_are_filtered() -> Result<[bool; 2]> {
    let filtered = |family: &str| -> Result<bool> {
        Ok(get(&format!("bridge/bridge-nf-call-{family}"))?.as_deref() == Some("1"))
    };
    let (ipv4, ipv6) = (filtered("iptables")?, filtered("ip6tables")?);
    Ok([ipv4 && ipv6, ipv4 || ipv6])
}

/// Devices whose default IPv6 route a router told them of.
pub(crate) fn devices_told_by_routers() -> Vec<String> {
    let routes = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
    routes.lines().filter_map(told_by_router).map(str::to_owned).collect()
}

/// The device of a default route that came with a router's advertisement.
fn told_by_router(line: &str) -> Option<&str> {
    /// `RTF_ADDRCONF`
    const ADVERTISED: u32 = 0x0004_0000;
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [destination, length, _, _, _, _, _, _, flags, device] = fields[..] else { return None };
    let everywhere = length == "00" && destination.bytes().all(|digit| digit == b'0');
    let advertised = u32::from_str_radix(flags, 16).ok()? & ADVERTISED != 0;
    (everywhere && advertised).then_some(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_that_routers_tell_of() {
        let route = |destination: &str, length: &str, flags: &str| {
            let line = format!(
                "{destination} {length} 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 \
                 00000001 00000000 {flags}     eth0"
            );
            told_by_router(&line).map(str::to_owned)
        };
        let everywhere = "00000000000000000000000000000000";
        assert_eq!(route(everywhere, "00", "00450003"), Some("eth0".to_owned()));
        assert_eq!(route(everywhere, "00", "00000003"), None, "by hand");
        assert_eq!(
            route("20010db8000000000000000000000000", "40", "00440001"),
            None,
            "not default"
        );
        assert_eq!(told_by_router("nonsense"), None);
    }
}
