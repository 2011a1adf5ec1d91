//! F23: a process that the kernel does not let die, because a file system of somebody's does not answer it.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;

use rustix::mount::MountFlags;

use crate::containers::house;
use testkit::house::shown;

use super::{looks_at, until};

/// A file system in user space with one file, which nobody will ever have opened.
struct Silent {
    place: PathBuf,
    server: Option<JoinHandle<()>>,
}

impl Silent {
    fn mount(place: &Path) -> Self {
        let device = File::options().read(true).write(true).open("/dev/fuse").expect("FUSE");
        let data =
            format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let data = CString::new(data).expect("no zeros");
        rustix::mount::mount("silent", place, "fuse", MountFlags::empty(), Some(data.as_c_str()))
            .expect("FUSE can be mounted");
        let server = std::thread::spawn(move || serve(device));
        Self { place: place.to_owned(), server: Some(server) }
    }

    /// Whoever waits for an answer is told that there is none.
    fn abort(&mut self) {
        if let Some(server) = self.server.take() {
            let _aborted = Command::new("umount").arg("-f").arg(&self.place).status();
            let _gone = Command::new("umount")
                .arg("-l")
                .arg(&self.place)
                .stderr(std::process::Stdio::null())
                .status();
            server.join().expect("the server ends with its mount");
        }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Answers what a look needs (`linux/fuse.h`), and nobody who opens anything.
fn serve(mut device: File) {
    const LOOKUP: u32 = 1;
    const FORGET: u32 = 2;
    const GETATTR: u32 = 3;
    const OPEN: u32 = 14;
    const STATFS: u32 = 17;
    const INIT: u32 = 26;
    const INTERRUPT: u32 = 36;
    const BATCH_FORGET: u32 = 42;
    let mut request = vec![0; 1 << 17];
    while let Ok(length) = device.read(&mut request) {
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().expect("four"));
        let long = |at: usize| u64::from_ne_bytes(request[at..at + 8].try_into().expect("eight"));
        assert!(length >= 40, "a request has a head");
        let (opcode, unique, node) = (word(4), long(8), long(16));
        let mut answer = Vec::new();
        let mut error = 0_i32;
        match opcode {
            INIT => {
                answer.extend([7_u32, 31, 0, 0, 0, 4096, 1].map(u32::to_ne_bytes).concat());
                answer.resize(64, 0);
            }
            GETATTR => {
                answer.extend([3600_u64, 0].map(u64::to_ne_bytes).concat());
                answer.extend(attributes(node));
            }
            LOOKUP => {
                answer.extend([2_u64, 0, 3600, 3600, 0].map(u64::to_ne_bytes).concat());
                answer.extend(attributes(2));
            }
            STATFS => answer.resize(80, 0),
            OPEN | FORGET | INTERRUPT | BATCH_FORGET => continue,
            _ => error = -38,
        }
        let mut reply = ((16 + answer.len()) as u32).to_ne_bytes().to_vec();
        reply.extend(error.to_ne_bytes());
        reply.extend(unique.to_ne_bytes());
        reply.extend(answer);
        if device.write_all(&reply).is_err() {
            return;
        }
    }
}

/// `struct fuse_attr` of the root, which is a directory, or of the file.
fn attributes(node: u64) -> Vec<u8> {
    let mode: u32 = if node == 1 { 0o40755 } else { 0o100644 };
    let mut bytes = [node, 0, 0, 0, 0, 0].map(u64::to_ne_bytes).concat();
    bytes.extend([0, 0, 0, mode, 1, 0, 0, 0, 4096, 0].map(u32::to_ne_bytes).concat());
    bytes
}

#[test]
fn f23_what_cannot_die_is_called_so() {
    let house = house();
    let place = house.path("silent");
    std::fs::create_dir(&place).expect("a directory");
    let mut silent = Silent::mount(&place);
    let bind = format!("{}:/silent", place.display());
    house.ok(&[
        "run",
        "-d",
        "--name",
        "stuck",
        "--network",
        "none",
        "-v",
        &bind,
        "busybox",
        "cat",
        "/silent/file",
    ]);
    house.ok(&["run", "-d", "--name", "other", "--network", "none", "busybox", "sleep", "600"]);
    let pid = house.ok(&["inspect", "-f", "{{.State.Pid}}", "stuck"]);
    let status = format!("/proc/{}/syscall", pid.trim());
    // openat: it waits for an answer.
    until("it is stuck", || {
        std::fs::read_to_string(&status).unwrap_or_default().starts_with("257 ")
    });
    let stop = house.docker(&["stop", "-t", "1", "stuck"]).output().expect("docker");
    assert!(!stop.status.success() && shown(&stop).contains("unkillable"), "{}", shown(&stop));
    // It is what it is, and nobody else has to wait for it.
    let said = house.ok(&["inspect", "-f", "{{.State.Status}} {{.State.Error}}", "stuck"]);
    assert!(said.starts_with("running unkillable"), "{said}");
    looks_at(
        &house,
        &[
            "/containers/json?all=1",
            "/containers/stuck/json",
            "/containers/stuck/logs?stdout=1",
            "/info",
            "/system/df",
        ],
    );
    assert_eq!(house.ok(&["exec", "other", "echo", "hi"]), "hi\n");
    let removed = house.docker(&["rm", "-f", "stuck"]).output().expect("docker");
    assert!(
        !removed.status.success() && shown(&removed).contains("unkillable"),
        "{}",
        shown(&removed)
    );
    silent.abort();
    until("it dies", || house.ok(&["inspect", "-f", "{{.State.Status}}", "stuck"]) == "exited\n");
    assert_eq!(
        house.ok(&["inspect", "-f", "{{.State.ExitCode}} {{.State.Error}}", "stuck"]),
        "137 \n"
    );
    house.ok(&["rm", "stuck"]);
    house.check();
}
