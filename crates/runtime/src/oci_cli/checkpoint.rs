//! `checkpoint` and `restore`: a container's processes to images and back, by CRIU.

use std::path::{Path, PathBuf};

use oci::runtime::{NamespaceType, Status};
use rustix::process::Pid;
use stdx::{Context, Error, Result};

use super::flags::{Flag, Flags};
use super::record::Container;
use super::run::{Born, Bundle};
use super::{Global, foreground, id};
use crate::Options;
use crate::criu::{self, Cgroups, Criu, Dump, Network, Restore, Settings};

pub(super) const CHECKPOINT: &[Flag] = &[
    Flag::value("image-path"),
    Flag::value("work-path"),
    Flag::value("parent-path"),
    Flag::switch("leave-running"),
    Flag::switch("tcp-established"),
    Flag::switch("tcp-skip-in-flight"),
    Flag::switch("link-remap"),
    Flag::switch("ext-unix-sk"),
    Flag::switch("shell-job"),
    Flag::switch("lazy-pages"),
    Flag::value("status-fd"),
    Flag::value("page-server"),
    Flag::switch("file-locks"),
    Flag::switch("pre-dump"),
    Flag::value("manage-cgroups-mode"),
    Flag::value("empty-ns"),
    Flag::switch("auto-dedup"),
];

pub(super) const RESTORE: &[Flag] = &[
    Flag::value("console-socket"),
    Flag::value("image-path"),
    Flag::value("work-path"),
    Flag::switch("tcp-established"),
    Flag::switch("ext-unix-sk"),
    Flag::switch("shell-job"),
    Flag::switch("file-locks"),
    Flag::value("manage-cgroups-mode"),
    Flag::value("bundle").or("b"),
    Flag::switch("detach").or("d"),
    Flag::value("pid-file"),
    Flag::switch("no-subreaper"),
    Flag::switch("no-pivot"),
    Flag::value("empty-ns"),
    Flag::switch("auto-dedup"),
    Flag::switch("lazy-pages"),
    Flag::value("lsm-profile"),
    Flag::value("lsm-mount-context"),
];

pub(super) fn checkpoint(global: &Global, flags: &Flags) -> Result<u8> {
    let container = Container::open(global, id(flags)?)?;
    let status = container.status()?;
    if matches!(status, Status::Created | Status::Stopped) {
        return Err(Error::conflict(format!("Container cannot be checkpointed in {status} state")));
    }
    refuse(flags, &["lazy-pages", "status-fd", "page-server"])?;
    let parent_images = flags.get("parent-path").filter(|path| !path.is_empty());
    if parent_images.is_some_and(|path| Path::new(path).is_absolute()) {
        return Err(Error::invalid("--parent-path must be relative"));
    }
    let settings = settings(flags)?;
    let images = images(flags)?;
    for directory in settings.work.iter().chain([&images]) {
        let made = std::fs::create_dir_all(directory);
        made.context(|| format!("cannot make {}", directory.display()))?;
    }
    let pid = Pid::from_raw(container.record.pid);
    let (leave_running, pre_dump) = (flags.has("leave-running"), flags.has("pre-dump"));
    let linux = container.record.spec.linux_or_default();
    let dump = Dump {
        pid: pid.context(|| "the container has no process".to_owned())?,
        spec: &container.record.spec,
        cgroup: &container.record.cgroup,
        images: &images,
        leave_running,
        pre_dump,
        parent_images,
        link_remap: flags.has("link-remap"),
        tcp_skip_in_flight: flags.has("tcp-skip-in-flight"),
        network: match linux.namespace(NamespaceType::Network) {
            Some(network) if network.path.is_none() => Network::Own,
            _ => Network::Given,
        },
        settings: &settings,
    };
    criu::dump(&find(global)?, &dump)?;
    if !leave_running && !pre_dump {
        super::containers::remove(global, &container)?;
    }
    Ok(0)
}

pub(super) fn restore(global: &Global, flags: &Flags) -> Result<u8> {
    refuse(flags, &["lazy-pages", "lsm-mount-context"])?;
    let settings = settings(flags)?;
    let images = images(flags)?;
    let criu = find(global)?;
    let detach = flags.has("detach");
    let bundle = Bundle::open(global, flags, detach)?;
    let from = Restore {
        images: &images,
        lsm_profile: flags.get("lsm-profile").map(str::to_owned),
        settings: &settings,
    };
    let (container, born) = bundle.make(flags, Options::default(), |create| {
        let mut running = criu::restore(&criu, &from, create)?;
        Ok(Born { pid: running.pid, terminal: running.terminal.take(), what: running.pidfd })
    })?;
    if detach {
        return Ok(0);
    }
    let code = foreground::follow(&born.what, born.terminal);
    super::containers::remove(global, &container)?;
    code
}

/// What runc knows and we do not do is told, not left out.
fn refuse(flags: &Flags, names: &[&str]) -> Result<()> {
    match names.iter().find(|name| flags.has(name) || flags.get(name).is_some()) {
        Some(name) => Err(Error::not_implemented(format!("--{name} is not supported yet"))),
        None => Ok(()),
    }
}

fn settings(flags: &Flags) -> Result<Settings> {
    let mode = flags.get("manage-cgroups-mode").unwrap_or_default();
    let empty_network = match flags.get("empty-ns") {
        None | Some("") => false,
        Some("network") => true,
        Some(other) => {
            return Err(Error::invalid(format!("namespace {other} is not supported")));
        }
    };
    Ok(Settings {
        work: flags.get("work-path").filter(|path| !path.is_empty()).map(PathBuf::from),
        tcp_established: flags.has("tcp-established"),
        external_unix_sockets: flags.has("ext-unix-sk"),
        shell_job: flags.has("shell-job"),
        file_locks: flags.has("file-locks"),
        auto_dedup: flags.has("auto-dedup"),
        cgroups: Cgroups::parse(mode)
            .ok_or_else(|| Error::invalid("Invalid manage-cgroups-mode value"))?,
        empty_network,
    })
}

/// As runc: below the directory we are called in.
fn images(flags: &Flags) -> Result<PathBuf> {
    let named = flags.get("image-path").filter(|path| !path.is_empty());
    std::path::absolute(named.unwrap_or("checkpoint"))
        .context(|| "cannot find the images' directory".to_owned())
}

#[expect(clippy::disallowed_methods, reason = "the shell's way to name programs")]
fn find(global: &Global) -> Result<Criu> {
    if let Some(path) = &global.criu {
        return Ok(Criu::at(path));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    Criu::find(&std::env::split_paths(&path).collect::<Vec<_>>())
}
