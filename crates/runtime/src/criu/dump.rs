//! A running container becomes images in a directory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use oci::runtime::{NamespaceType, Spec};
use rustix::process::Pid;
use stdx::{Context, Error, Result};

use super::rpc::{Kind, Options};
use super::session::Work;
use super::{Criu, DESCRIPTORS, NETWORK, NULL, Settings, empty_namespaces};
use crate::cgroup::Location;
use crate::rootfs;

/// What to dump, and where to.
#[derive(Debug)]
pub struct Dump<'a> {
    /// The container's first process.
    pub pid: Pid,
    pub spec: &'a Spec,
    pub cgroup: &'a Location,
    /// Exists.
    pub images: &'a Path,
    /// It goes on; else CRIU ends it.
    pub leave_running: bool,
    /// Only its memory, so that a later dump is short.
    pub pre_dump: bool,
    /// Images of an earlier one, relative to these.
    pub parent_images: Option<&'a str>,
    pub link_remap: bool,
    pub tcp_skip_in_flight: bool,
    pub network: Network,
    pub settings: &'a Settings,
}

/// Whose the container's network namespace is, if it is not the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Made by somebody else, before and again; only what is bound to it is kept.
    Given,
    /// Made with the container, and kept with it.
    Own,
}

/// Dumps it. `Kind::NotImplemented` where CRIU or the kernel cannot, or not a container of this sort.
pub fn dump(criu: &Criu, dump: &Dump) -> Result<()> {
    let images = Work::open(dump.images)?;
    let own = dump.settings.work.as_deref().map(Work::open).transpose()?;
    let work = own.as_ref().unwrap_or(&images);
    criu.check(work)?;
    let process = Process(format!("/proc/{}", dump.pid.as_raw_nonzero()));
    if process.lives_elsewhere("user")? {
        return Err(Error::not_implemented(
            "CRIU cannot dump a container whose users are mapped by a namespace from outside",
        ));
    }
    if !makes(dump.spec, NamespaceType::Pid) && process.lives_elsewhere("pid")? {
        return Err(Error::not_implemented(
            "CRIU cannot dump a container that lives in the pid namespace of another",
        ));
    }
    let terminal = dump.spec.process.as_ref().is_some_and(|process| process.terminal);
    let mut options = Options {
        images: images.number(),
        work: Some(work.number()),
        log_file: "dump.log".to_owned(),
        pid: Some(dump.pid.as_raw_nonzero().get()),
        parent_images: dump.parent_images.map(str::to_owned),
        leave_running: dump.leave_running,
        tcp_established: dump.settings.tcp_established,
        tcp_skip_in_flight: dump.tcp_skip_in_flight,
        external_unix_sockets: dump.settings.external_unix_sockets,
        shell_job: dump.settings.shell_job,
        file_locks: dump.settings.file_locks,
        link_remap: dump.link_remap,
        track_memory: dump.pre_dump || dump.parent_images.is_some(),
        auto_dedup: dump.settings.auto_dedup,
        orphan_terminal: terminal,
        cgroups: Some(dump.settings.cgroups),
        freeze_cgroup: freezer(dump.cgroup),
        external: external_mounts(dump.spec, &process.mounts()?),
        empty_namespaces: empty_namespaces(dump.settings),
        ..Options::default()
    };
    let given = dump.network == Network::Given && !dump.settings.empty_network;
    if given && process.lives_elsewhere("net")? {
        let inode = process.namespace("net")?;
        options.external.push(format!("net[{inode}]:{NETWORK}"));
    }
    let streams = serde_json::to_vec(&process.streams()).expect("an array of words");
    fs::write(dump.images.join(DESCRIPTORS), streams)
        .context(|| format!("cannot write {DESCRIPTORS}"))?;
    let kind = if dump.pre_dump { Kind::PreDump } else { Kind::Dump };
    criu.begin()?.finish(kind, &options, work).map(drop)
}

/// Whether the container was to have one of its own.
fn makes(spec: &Spec, kind: NamespaceType) -> bool {
    spec.linux_or_default().namespace(kind).is_some_and(|namespace| namespace.path.is_none())
}

/// The directory that stops all of it at once.
fn freezer(location: &Location) -> Option<String> {
    let place = match location.v1() {
        [] => location.unified(),
        v1 => v1.iter().find(|place| place.controllers.iter().any(|one| one == "freezer")),
    };
    Some(place?.full_path().to_string_lossy().into_owned())
}

/// A process of the container's as `/proc` shows it.
struct Process(String);

impl Process {
    fn namespace(&self, kind: &str) -> Result<u64> {
        let found = fs::metadata(format!("{}/ns/{kind}", self.0));
        Ok(found.context(|| "cannot look at the container's process".to_owned())?.ino())
    }

    fn lives_elsewhere(&self, kind: &str) -> Result<bool> {
        Ok(self.namespace(kind)? != Self("/proc/self".to_owned()).namespace(kind)?)
    }

    fn streams(&self) -> Vec<String> {
        let stream = |number| fs::read_link(format!("{}/fd/{number}", self.0));
        (0..3)
            .map(|number| stream(number).unwrap_or_default().to_string_lossy().into_owned())
            .collect()
    }

    fn mounts(&self) -> Result<String> {
        fs::read_to_string(format!("{}/mountinfo", self.0))
            .context(|| "cannot read the container's mounts".to_owned())
    }
}

/// What is mounted from outside, by its place; and files that are hidden, which are all one.
fn external_mounts(spec: &Spec, mountinfo: &str) -> Vec<String> {
    let linux = spec.linux_or_default();
    let mut external: Vec<String> =
        rootfs::bind_places(spec).map(|place| place_of(&place)).collect();
    for line in mountinfo.lines() {
        let mut fields = line.split(' ').skip(3);
        if let (Some("/null"), Some(place)) = (fields.next(), fields.next())
            && linux.masked_paths.iter().any(|masked| masked == Path::new(place))
        {
            external.push(format!("mnt[{place}]:{NULL}"));
        }
    }
    external
}

fn place_of(place: &Path) -> String {
    let place = place.display();
    format!("mnt[{place}]:{place}")
}

#[cfg(test)]
mod tests {
    use oci::runtime::{Linux, Mount};

    use super::*;

    #[test]
    fn what_comes_from_outside_is_named() {
        let bind = Mount {
            destination: "/etc//hosts".into(),
            kind: "bind".into(),
            source: Some("/run/x/hosts".into()),
            ..Mount::default()
        };
        let proc = Mount { destination: "/proc".into(), kind: "proc".into(), ..Mount::default() };
        let linux = Linux {
            masked_paths: vec!["/proc/kcore".into(), "/proc/acpi".into()],
            ..Linux::default()
        };
        let spec = Spec { mounts: vec![proc, bind], linux: Some(linux), ..Spec::default() };
        let mountinfo = "1 0 0:1 / / rw - overlay overlay rw\n\
            2 1 0:6 /null /proc/kcore rw - devtmpfs udev rw\n\
            3 1 0:9 / /proc/acpi ro - tmpfs tmpfs ro\n\
            4 1 0:6 /null /other rw - devtmpfs udev rw\n";
        assert_eq!(
            external_mounts(&spec, mountinfo),
            ["mnt[/etc/hosts]:/etc/hosts", "mnt[/proc/kcore]:/dev/null"]
        );
    }
}
