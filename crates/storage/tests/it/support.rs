//! Archives made by hand, and trees as text.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use oci::{ChainId, Digest};
use storage::Storage;
use storage::layer::{Applied, Options, Whiteouts, apply_with};
use storage::tar::{Entry, Kind, Writer};

pub(crate) type Item = (Entry, Vec<u8>);

pub(crate) fn dir(path: &str) -> Item {
    (Entry::new(Kind::Directory, path), Vec::new())
}

pub(crate) fn file(path: impl Into<Vec<u8>>, data: &str) -> Item {
    (Entry { size: data.len() as u64, ..Entry::new(Kind::File, path) }, data.into())
}

pub(crate) fn symlink(path: &str, to: &str) -> Item {
    (Entry { link: to.into(), mode: 0o777, ..Entry::new(Kind::Symlink, path) }, Vec::new())
}

pub(crate) fn hard(path: &str, to: &str) -> Item {
    (Entry { link: to.into(), ..Entry::new(Kind::HardLink, path) }, Vec::new())
}

pub(crate) fn node(kind: Kind, path: &str, major: u32, minor: u32) -> Item {
    (Entry { device: (major, minor), mode: 0o666, ..Entry::new(kind, path) }, Vec::new())
}

pub(crate) trait Dressed {
    fn mode(self, mode: u32) -> Self;
    fn owner(self, uid: u32, gid: u32) -> Self;
    fn xattr(self, name: &str, value: &[u8]) -> Self;
}

impl Dressed for Item {
    fn mode(mut self, mode: u32) -> Self {
        self.0.mode = mode;
        self
    }

    fn owner(mut self, uid: u32, gid: u32) -> Self {
        (self.0.uid, self.0.gid) = (uid, gid);
        self
    }

    fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.0.xattrs.push((name.into(), value.into()));
        self
    }
}

pub(crate) fn archive(items: &[Item]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, data) in items {
        match entry.kind {
            Kind::File => writer.append_file(entry, &mut &data[..]).unwrap(),
            _ => writer.append(entry).unwrap(),
        }
    }
    writer.finish().unwrap()
}

/// A block with a right checksum, everything else as given.
pub(crate) fn header(
    flag: u8,
    name: &[u8],
    size: &[u8],
    change: impl Fn(&mut [u8; 512]),
) -> Vec<u8> {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..124 + size.len()].copy_from_slice(size);
    block[136..147].copy_from_slice(b"00000000000");
    block[156] = flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    change(&mut block);
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.to_vec()
}

/// Data and the zeros that fill its last block.
pub(crate) fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().div_ceil(512) * 512, 0);
    data
}

/// An extended header with these records, written as they are.
pub(crate) fn pax(records: &str) -> Vec<u8> {
    let size = format!("{:011o}", records.len());
    [header(b'x', b"PaxHeaders/x", size.as_bytes(), |_| {}), padded(records.as_bytes())].concat()
}

/// `length key=value\n`
pub(crate) fn record(key: &str, value: &str) -> String {
    let body = format!(" {key}={value}\n");
    let mut length = body.len() + 1;
    while format!("{length}{body}").len() != length {
        length += 1;
    }
    format!("{length}{body}")
}

pub(crate) fn end() -> Vec<u8> {
    vec![0; 1024]
}

/// A directory to extract into, with things around it that nobody may touch.
pub(crate) struct Jail {
    pub home: tempfile::TempDir,
    before: String,
}

impl Jail {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        for above in ["", "above"] {
            let canary = home.path().join(above).join("canary");
            fs::create_dir_all(&canary).unwrap();
            fs::write(canary.join("secret"), "secret").unwrap();
            fs::set_permissions(canary.join("secret"), PermissionsExt::from_mode(0o600)).unwrap();
            fs::write(canary.join("program"), "program").unwrap();
            fs::set_permissions(canary.join("program"), PermissionsExt::from_mode(0o4755)).unwrap();
            fs::hard_link(canary.join("program"), canary.join("twin")).unwrap();
            std::os::unix::fs::symlink("secret", canary.join("link")).unwrap();
        }
        fs::create_dir(home.path().join("above/root")).unwrap();
        let mut jail = Self { home, before: String::new() };
        jail.before = jail.canaries();
        jail
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.home.path().join("above/root")
    }

    pub(crate) fn root(&self) -> OwnedFd {
        File::open(self.path()).unwrap().into()
    }

    fn canaries(&self) -> String {
        ["canary", "above/canary"]
            .map(|canary| picture(&self.home.path().join(canary), Detail::All))
            .concat()
    }

    #[track_caller]
    pub(crate) fn untouched(&self) {
        assert_eq!(self.canaries(), self.before, "the stream reached outside");
        let names = |at: &str| fs::read_dir(self.home.path().join(at)).unwrap().count();
        assert_eq!((names(""), names("above")), (2, 2), "the stream made something outside");
    }

    pub(crate) fn extract(&self, tar: &[u8], whiteouts: Whiteouts) -> stdx::Result<Applied> {
        let options = Options { whiteouts, ..Options::default() };
        apply_with(self.root().as_fd(), &mut &tar[..], &options)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// What a person would write down.
    Short,
    /// Times, links and attributes too.
    All,
}

/// A tree as text, one line a name, sorted.
pub(crate) fn picture(root: &Path, detail: Detail) -> String {
    let mut lines = Vec::new();
    draw(root, root, detail, &mut lines);
    lines.sort();
    lines.concat()
}

fn draw(root: &Path, at: &Path, detail: Detail, lines: &mut Vec<String>) {
    let meta = fs::symlink_metadata(at).unwrap();
    let kind = meta.file_type();
    let path = at.strip_prefix(root).unwrap();
    let name = path.as_os_str().as_bytes().escape_ascii();
    let mut line = format!("{name} {:o}", meta.mode() & 0o7777);
    if (meta.uid(), meta.gid()) != (0, 0) {
        line += &format!(" {}:{}", meta.uid(), meta.gid());
    }
    let device =
        || format!("{}:{}", rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    if kind.is_dir() {
        line += " dir";
    } else if kind.is_symlink() {
        line = format!("{name} -> {}", fs::read_link(at).unwrap().display());
    } else if kind.is_fifo() {
        line += " fifo";
    } else if kind.is_char_device() {
        line += &format!(" char {}", device());
    } else if kind.is_block_device() {
        line += &format!(" block {}", device());
    } else if meta.len() > 4096 {
        line += &format!(" {} bytes {}", meta.len(), digest_of(at));
    } else {
        line += &format!(" {:?}", String::from_utf8_lossy(&fs::read(at).unwrap()));
    }
    for (attribute, value) in xattrs(at) {
        line += &format!(" {attribute}={}", value.escape_ascii());
    }
    if detail == Detail::All {
        line += &format!(" @{}.{:09} x{}", meta.mtime(), meta.mtime_nsec(), meta.nlink());
    }
    if !path.as_os_str().is_empty() || detail == Detail::All {
        lines.push(line + "\n");
    }
    if kind.is_dir() {
        for entry in fs::read_dir(at).unwrap() {
            draw(root, &entry.unwrap().path(), detail, lines);
        }
    }
}

fn digest_of(path: &Path) -> String {
    let mut hasher = oci::Hasher::sha256();
    std::io::copy(&mut File::open(path).unwrap(), &mut hasher).unwrap();
    hasher.finish().short().to_owned()
}

pub(crate) fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut list = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap_or(0);
    let names = list[..length].split(|c| *c == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            (String::from_utf8(name.to_vec()).unwrap(), value[..length].to_vec())
        })
        .collect()
}

pub(crate) fn open(root: &Path, driver: &str) -> Storage {
    Storage::open(root, Some(driver), &state::Store::in_memory()).unwrap()
}

pub(crate) fn chain(text: &str) -> ChainId {
    ChainId::base(&Digest::of(text.as_bytes()))
}

/// Runs `test`, which measures memory, in a process where nothing else runs. `name` is the test's own.
pub(crate) fn alone(name: &str, test: impl FnOnce()) {
    const ALONE: &str = "GANTRY_TEST_ALONE";
    #[allow(clippy::disallowed_methods, reason = "one half of a test tells the other who it is")]
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    let output = again.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "no test is called {name}"
    );
}

/// By how many MiB the resident size grows at most while `work` runs, in a process of its own: [`alone`].
pub(crate) fn growth<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let peak = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    // Sets the peak to what is resident now (proc_pid_clear_refs(5)).
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak();
    let outcome = work();
    (outcome, (peak() - before) >> 10)
}

/// A file system of its own in memory, mounted nowhere: small, fast to sync, and gone with its descriptor.
pub(crate) struct Memory {
    root: OwnedFd,
}

impl Memory {
    pub(crate) fn new(size: &str, inodes: &str) -> Self {
        use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
        let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        rustix::mount::fsconfig_set_string(&context, "size", size).unwrap();
        rustix::mount::fsconfig_set_string(&context, "nr_inodes", inodes).unwrap();
        rustix::mount::fsconfig_create(&context).unwrap();
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        Self { root: rustix::mount::fsmount(&context, flags, MountAttrFlags::empty()).unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        through(&self.root)
    }
}

/// A directory by its descriptor, as a path.
pub(crate) fn through(directory: &impl std::os::fd::AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/", directory.as_raw_fd()))
}
