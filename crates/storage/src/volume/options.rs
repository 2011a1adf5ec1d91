//! Options of local volumes: instead of its directory a volume may be any mount that `type`, `device` and `o` describe.
//!
//! It is mounted where nobody sees it, for one container at a time; what it is made from shares what is to be shared.

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};
use stdx::{Context, Error, Result};
use sys::mount::{Attr, Change, Propagation, Reach, mount_setattr};

/// Which mount a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    kind: String,
    device: String,
    /// As mount(8) takes them.
    words: String,
}

/// What a word of mount(8) means to a mount: its bit in mount(2), which is in the words of a refusal, and the attribute.
const FLAGS: [(&str, u32, Attr); 12] = [
    ("ro", 0x1, Attr::RDONLY),
    ("nosuid", 0x2, Attr::NOSUID),
    ("nodev", 0x4, Attr::NODEV),
    ("noexec", 0x8, Attr::NOEXEC),
    ("sync", 0x10, Attr(0)),
    ("mand", 0x40, Attr(0)),
    ("dirsync", 0x80, Attr(0)),
    ("noatime", 0x400, Attr::NOATIME),
    ("nodiratime", 0x800, Attr::NODIRATIME),
    ("bind", 0x1000, Attr(0)),
    ("rbind", 0x5000, Attr(0)),
    ("relatime", 0x20_0000, Attr(0)),
];

/// What is so anyway, or is said of a place and not of what is mounted there.
const WITHOUT_MEANING: [&str; 20] = [
    "defaults",
    "rw",
    "suid",
    "dev",
    "exec",
    "async",
    "atime",
    "diratime",
    "norelatime",
    "nomand",
    "remount",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
    "strictatime",
];

/// What a volume may hold; `None` where that does not matter.
pub fn size(options: &BTreeMap<String, String>) -> Result<Option<u64>> {
    let Some(size) = options.get("size") else { return Ok(None) };
    Ok(u64::try_from(stdx::units::ram_in_bytes(size)?).ok().filter(|size| *size > 0))
}

pub(super) fn no_quota() -> Error {
    Error::invalid("quota size requested but no quota support")
}

impl Options {
    /// Understands the options of a volume; `None` where it stays a directory. In Docker's words where they make no sense.
    pub fn of(options: &BTreeMap<String, String>) -> Result<Option<Self>> {
        const KNOWN: [&str; 4] = ["device", "o", "size", "type"];
        if let Some(other) = options.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            return Err(Error::invalid(format!("invalid option: {other:?}")));
        }
        let get = |key: &str| options.get(key).map(String::as_str).unwrap_or_default();
        let size = size(options)?;
        const NEEDS: [(&str, &str); 4] =
            [("device", "type"), ("type", "device"), ("o", "device"), ("o", "type")];
        if let Some((_, missing)) = NEEDS
            .iter()
            .find(|(given, needed)| options.contains_key(*given) && !options.contains_key(*needed))
        {
            return Err(Error::invalid(format!("missing required option: {missing:?}")));
        }
        if get("type").is_empty() && get("device").is_empty() {
            return Ok(None);
        }
        if size.is_some() {
            // What is mounted there counts for itself.
            return Err(no_quota());
        }
        Ok(Some(Self {
            kind: get("type").to_owned(),
            device: get("device").to_owned(),
            words: get("o").to_owned(),
        }))
    }

    /// Whether a second mount of it would be another file system: what is in memory only is shared by mount.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.kind.as_str(), "tmpfs" | "ramfs") && !self.binds()
    }

    fn binds(&self) -> bool {
        self.words.split(',').any(|word| matches!(word, "bind" | "rbind"))
    }

    /// Mounts it, attached nowhere. `place` is what the volume is called in a refusal.
    pub fn mount(&self, place: &Path) -> Result<OwnedFd> {
        let words = self.with_address()?;
        let mounted = match self.binds() {
            true => self.clone_of_device(&words),
            false => self.new_mount(&words),
        };
        mounted.map_err(|errno| {
            let error = Error::from(std::io::Error::from(errno));
            Error::internal(self.refusal(place)).caused_by(error)
        })
    }

    fn clone_of_device(&self, words: &str) -> Result<OwnedFd, Errno> {
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if words.split(',').any(|word| word == "rbind") {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        let tree = rustix::mount::open_tree(CWD, &*self.device, flags)?;
        let change = |change| {
            mount_setattr(&tree, Reach::Tree, &change)
                .map_err(|io| io.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
        };
        change(Change { propagation: Some(Propagation::Private), ..Change::default() })?;
        let set = attributes(words);
        if !set.is_empty() {
            change(Change { set, ..Change::default() })?;
        }
        Ok(tree)
    }

    fn new_mount(&self, words: &str) -> Result<OwnedFd, Errno> {
        let context = rustix::mount::fsopen(&*self.kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&context, "source", &*self.device)?;
        for word in words.split(',').filter(|word| !word.is_empty()) {
            let of_the_mount = FLAGS
                .iter()
                .any(|(name, _, attribute)| *name == word && !attribute.is_empty() && word != "ro");
            match word.split_once('=') {
                Some((key, value)) => rustix::mount::fsconfig_set_string(&context, key, value)?,
                None if of_the_mount || WITHOUT_MEANING.contains(&word) || word == "relatime" => {}
                None => rustix::mount::fsconfig_set_flag(&context, word)?,
            }
        }
        rustix::mount::fsconfig_create(&context)?;
        let attributes = MountAttrFlags::from_bits_retain(attributes(words).0 as u32);
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    }

    /// The kernel takes servers by their addresses only.
    fn with_address(&self) -> Result<String> {
        if !matches!(self.kind.as_str(), "nfs" | "cifs") {
            return Ok(self.words.clone());
        }
        let named = self.words.split(',').find_map(|word| word.strip_prefix("addr="));
        match named {
            Some(name) if name.parse::<IpAddr>().is_err() => {
                let address = address_of(name)?;
                Ok(self.words.replacen(&format!("addr={name}"), &format!("addr={address}"), 1))
            }
            None if self.kind == "cifs" => {
                let host =
                    self.device.trim_start_matches('/').split('/').next().unwrap_or_default();
                Ok(format!("{},ip={}", self.words, address_of(host)?))
            }
            _ => Ok(self.words.clone()),
        }
    }

    /// As Docker words it; passwords are nobody's business.
    fn refusal(&self, place: &Path) -> String {
        let (mut flags, mut data) = (0, Vec::new());
        for word in self.words.split(',').filter(|word| !word.is_empty()) {
            match FLAGS.iter().find(|(name, ..)| *name == word) {
                Some((_, bit, _)) => flags |= bit,
                None if WITHOUT_MEANING.contains(&word) => {}
                None if word.starts_with("password=") => data.push("password=********"),
                None => data.push(word),
            }
        }
        let mut text =
            format!("failed to mount local volume: mount {}:{}", self.device, place.display());
        if flags != 0 {
            text += &format!(", flags: {flags:#x}");
        }
        if !data.is_empty() {
            text += &format!(", data: {}", data.join(","));
        }
        text
    }
}

fn attributes(words: &str) -> Attr {
    let mut set = Attr::empty();
    for word in words.split(',') {
        if let Some((_, _, attribute)) = FLAGS.iter().find(|(name, ..)| *name == word) {
            set |= *attribute;
        }
    }
    set
}

fn address_of(host: &str) -> Result<IpAddr> {
    let words = || "error resolving passed in network volume address".to_owned();
    let found = (host, 0).to_socket_addrs().context(words)?.next();
    found.map(|address| address.ip()).context(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[(&str, &str)]) -> Result<Option<Options>> {
        let options =
            options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Options::of(&options)
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_dockers_words() {
        for (options, words) in [
            (&[("colour", "red")][..], "invalid option: \"colour\""),
            (&[("type", "tmpfs")], "missing required option: \"device\""),
            (&[("device", "/x")], "missing required option: \"type\""),
            (&[("o", "ro"), ("type", "none")], "missing required option: \"device\""),
            (
                &[("size", "1g"), ("type", "tmpfs"), ("device", "tmpfs")],
                "quota size requested but no quota support",
            ),
        ] {
            assert_eq!(of(options).unwrap_err().to_string(), words);
        }
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&[("size", "0")]).unwrap(), None);
        assert_eq!(of(&[("size", "1g")]).unwrap(), None);
        for (given, bytes) in [("0", None), ("1g", Some(1 << 30)), ("10m", Some(10 << 20))] {
            let options = BTreeMap::from([("size".to_owned(), given.to_owned())]);
            assert_eq!(size(&options).unwrap(), bytes, "{given}");
        }
    }

    #[test]
    fn refusals_tell_no_passwords() {
        let options =
            of(&[("type", "cifs"), ("device", "//h/s"), ("o", "ro,nodev,user=me,password=pw")]);
        let options = options.unwrap().unwrap();
        assert_eq!(
            options.refusal(Path::new("/v/_data")),
            "failed to mount local volume: mount //h/s:/v/_data, flags: 0x5, data: user=me,password=********"
        );
        assert!(!options.is_in_memory());
        assert!(of(&[("type", "tmpfs"), ("device", "tmpfs")]).unwrap().unwrap().is_in_memory());
    }
}
