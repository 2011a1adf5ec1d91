//! What the kernel alone takes for a container: `clone3`, overlay, /proc /sys /dev, `pivot_root`, `execve`, wait.
//!
//! Measured by this program executed again, as a small process of one thread; it prints one time a line.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{WaitId, WaitIdOptions, chdir, pivot_root};
use sys::process::{CloneArgs, CloneFlags, Fork, StringArray};

use crate::table::{Row, Table, Unit};
use crate::turns::{Round, Turns, clock};

const WITHOUT: CloneFlags = CloneFlags::empty();

pub(crate) fn measure(turns: &Turns, scratch: &Path, table: &mut Table) -> Result<()> {
    let lower = scratch.join("floor-root");
    make_root(&lower)?;
    let once = |network: &str| -> Result<Vec<f64>> {
        let output = Command::new(std::env::current_exe()?)
            .args(["floor", network])
            .arg(&lower)
            .arg(scratch.join("floor"))
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "the floor gave way: {}", output.status);
        Ok(vec![String::from_utf8(output.stdout)?.trim().parse()?])
    };
    let mut contestants: Vec<Round> =
        vec![Box::new(|| once("without-network")), Box::new(|| once("with-network"))];
    for (name, rows) in ["kernel's floor", "kernel's floor, with a network namespace"]
        .iter()
        .zip(turns.take(&mut contestants)?)
    {
        table.push(Row {
            name: (*name).to_owned(),
            unit: Unit::Milliseconds,
            ours: rows.into_iter().next().unwrap_or_default(),
            against: None,
            budget: None,
        });
    }
    Ok(())
}

/// A root file system with busybox alone.
pub(crate) fn make_root(root: &Path) -> Result<()> {
    for dir in ["bin", "proc", "sys", "dev"] {
        std::fs::create_dir_all(root.join(dir))?;
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).context("busybox-static is needed")?;
    Ok(())
}

/// `floor with-network|without-network LOWER DIR`
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let [network, lower, dir] = arguments else { bail!("floor takes three arguments") };
    let network = match network.as_str() {
        "with-network" => CloneFlags::NEWNET,
        _ => WITHOUT,
    };
    let (lower, dir) = (PathBuf::from(lower), PathBuf::from(dir));
    let (time, ()) = clock(|| container(network, &lower, &dir))?;
    std::fs::remove_dir_all(&dir)?;
    println!("{time}");
    Ok(())
}

fn container(network: CloneFlags, lower: &Path, dir: &Path) -> Result<()> {
    for name in ["upper", "work", "merged"] {
        std::fs::create_dir_all(dir.join(name))?;
    }
    let options = CString::new(format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        dir.join("upper").display(),
        dir.join("work").display()
    ))?;
    let merged = dir.join("merged");
    let argv = StringArray::new(vec![c"true".into()]);
    let envp = StringArray::new(Vec::new());
    let flags = network
        | CloneFlags::NEWNS
        | CloneFlags::NEWPID
        | CloneFlags::NEWIPC
        | CloneFlags::NEWUTS
        | CloneFlags::NEWCGROUP;
    match sys::process::clone3(&CloneArgs { flags, cgroup: None })? {
        Fork::Child => {
            let refused = match enter(&merged, &options) {
                Ok(()) => sys::process::execve(c"/bin/busybox", &argv, &envp).into(),
                Err(error) => error,
            };
            eprintln!("floor: {refused:#}");
            sys::process::exit_now(1)
        }
        Fork::Parent { pid, .. } => {
            let status = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED)?;
            let code = status.and_then(|status| status.exit_status());
            ensure!(code == Some(0), "the floor's container ended with {code:?}");
            Ok(())
        }
    }
}

fn enter(merged: &Path, options: &CString) -> Result<()> {
    use rustix::mount::{mount, mount_change, unmount};
    let none = MountFlags::empty();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("overlay", merged, "overlay", none, Some(options.as_c_str()))?;
    chdir(merged)?;
    mount("proc", "proc", "proc", none, None)?;
    mount("sysfs", "sys", "sysfs", MountFlags::RDONLY, None)?;
    mount("tmpfs", "dev", "tmpfs", none, None)?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")?;
    Ok(())
}
