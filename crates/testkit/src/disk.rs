//! A disk of a test's own: a small file system in a file, ext4 unless asked for, which can be full, broken, or silent.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::house::succeed;

/// A file system that is mounted as long as this is held.
pub struct Disk {
    dir: tempfile::TempDir,
    place: PathBuf,
    frozen: bool,
}

impl Disk {
    /// One of so many MiB, with as many inodes as `mkfs` finds right.
    pub fn new(mebibytes: u64) -> Self {
        Self::with(mebibytes, &[])
    }

    /// One on which `inodes` files find room.
    pub fn with_inodes(mebibytes: u64, inodes: u64) -> Self {
        Self::with(mebibytes, &["-N", &inodes.to_string()])
    }

    /// One that counts by projects, `ext4` or `xfs`; `None` where the kernel, or who is here to make it, cannot.
    pub fn counting(kind: &str) -> Option<Self> {
        // xfs is made no smaller.
        let disk = Self::unmade(512);
        let mut make = Command::new(format!("mkfs.{kind}"));
        make.arg("-q").stdout(Stdio::null()).stderr(Stdio::null());
        if kind == "ext4" {
            make.args(["-O", "quota,project", "-E", "quotatype=prjquota"]);
        }
        let made = make.arg(disk.dir.path().join("file")).status();
        let mut mount = disk.mounting("loop,prjquota");
        let counts = made.is_ok_and(|status| status.success())
            && mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        counts.then_some(disk)
    }

    fn with(mebibytes: u64, more: &[&str]) -> Self {
        let disk = Self::unmade(mebibytes);
        // No blocks are kept for root, who is who fills it here; what breaks it makes it read-only.
        let mut make = Command::new("mkfs.ext4");
        make.args(["-q", "-F", "-m", "0", "-e", "remount-ro"]).args(more);
        make.arg(disk.dir.path().join("file"));
        succeed(make);
        disk.mount();
        disk
    }

    fn unmade(mebibytes: u64) -> Self {
        let dir = tempfile::Builder::new().prefix("gt-disk-").tempdir().expect("a place");
        let (file, place) = (dir.path().join("file"), dir.path().join("d"));
        std::fs::create_dir(&place).expect("a directory");
        let blocks = File::create(&file).expect("a file");
        blocks.set_len(mebibytes << 20).expect("room");
        Self { dir, place, frozen: false }
    }

    pub fn path(&self) -> &Path {
        &self.place
    }

    fn mount(&self) {
        succeed(self.mounting("loop"));
    }

    fn mounting(&self, options: &str) -> Command {
        let mut mount = Command::new("mount");
        mount.args(["-o", options]).arg(self.dir.path().join("file")).arg(&self.place);
        mount
    }

    /// The loop device it is on, as the kernel calls it.
    fn device(&self) -> String {
        let mut command = Command::new("findmnt");
        command.args(["-n", "-o", "SOURCE"]).arg(&self.place);
        succeed(command).trim().trim_start_matches("/dev/").to_owned()
    }

    /// Takes every block that is left. What is given back is the file that has them.
    pub fn fill(&self) -> PathBuf {
        let filler = self.place.join("filler");
        let mut file = File::options().create(true).append(true).open(&filler).expect("a file");
        for size in [1 << 20, 1 << 12, 1] {
            let block = vec![b'f'; size];
            while file.write_all(&block).and_then(|()| file.sync_data()).is_ok() {}
        }
        filler
    }

    /// Takes every inode that is left.
    pub fn fill_inodes(&self) -> PathBuf {
        let filler = self.place.join("fillers");
        std::fs::create_dir(&filler).expect("there is one left");
        let full =
            (0..).find(|number: &u32| File::create(filler.join(number.to_string())).is_err());
        full.expect("there is an end");
        filler
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.place).expect("it is mounted");
        stat.f_bavail * stat.f_frsize
    }

    /// As when the kernel finds it damaged: whatever is written fails from here on. What was written before is on it.
    pub fn break_it(&self) {
        let place = File::open(&self.place).expect("it is mounted");
        rustix::fs::syncfs(&place).expect("it is whole");
        let switch = format!("/sys/fs/ext4/{}/trigger_fs_error", self.device());
        std::fs::write(switch, "a test\n").expect("ext4 can be told so");
    }

    /// As an operator mends it: unmounted, checked and mounted again.
    pub fn mend(&self) {
        let mut unmount = Command::new("umount");
        unmount.arg(&self.place);
        succeed(unmount);
        let mut check = Command::new("e2fsck");
        check.args(["-fy"]).arg(self.dir.path().join("file"));
        check.stdout(Stdio::null()).stderr(Stdio::null());
        // One tells that something was mended.
        let code = check.status().expect("it can be executed").code();
        assert!(matches!(code, Some(0 | 1)), "e2fsck: {code:?}");
        self.mount();
    }

    /// From here on, until it thaws, whoever writes waits.
    pub fn freeze(&mut self) {
        self.turn("-f");
        self.frozen = true;
    }

    pub fn thaw(&mut self) {
        self.turn("-u");
        self.frozen = false;
    }

    fn turn(&self, way: &str) {
        let mut command = Command::new("fsfreeze");
        command.arg(way).arg(&self.place);
        succeed(command);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.frozen {
            let _thawed = Command::new("fsfreeze").arg("-u").arg(&self.place).status();
        }
        let _gone = Command::new("umount").arg("-l").arg(&self.place).status();
    }
}
