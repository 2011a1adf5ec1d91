//! The five capability sets of a process: read from the spec, cut to what the host has, applied in two steps.
//!
//! First [`Sets::apply_bounding`] while the process still has CAP_SETPCAP; then, after the change of user,
//! [`Sets::apply_final`].

use std::sync::OnceLock;

use oci::runtime::Capabilities;
use stdx::{Context, Result};
use sys::caps;

/// What a process may do. Each set is a mask: bit n is the kernel's capability n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

/// Capabilities by the bit they have in the kernel: the position is the number.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// All names this runtime knows, `CAP_CHOWN` first.
pub fn names() -> &'static [&'static str] {
    &NAMES
}

/// The bit of `CAP_KILL` and the like; `None` for a word that names no capability.
pub fn parse(name: &str) -> Option<u64> {
    NAMES.iter().position(|known| *known == name).map(|bit| 1 << bit)
}

/// The names in a set, in the kernel's order.
pub fn names_of(set: u64) -> Vec<&'static str> {
    NAMES.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1).map(|(_, name)| *name).collect()
}

/// What can be given here at all: the calling thread's own permitted set, as far as its bounding set allows it.
pub fn available() -> Result<u64> {
    let own = caps::get().context(|| "cannot read our own capabilities".to_owned())?;
    static BOUNDING: OnceLock<u64> = OnceLock::new();
    // Forty questions to the kernel. A process that gives some up becomes another program and never asks again.
    Ok(own.permitted & *BOUNDING.get_or_init(caps::bounding_set))
}

/// All there are: every kernel that is new enough for us has them.
pub(crate) fn known() -> u64 {
    (1 << NAMES.len()) - 1
}

impl Sets {
    /// Reads the spec's lists. No lists: no capabilities. Names that are no capability are returned for a warning, as runc
    /// passes over them.
    pub fn from_spec(spec: Option<&Capabilities>) -> (Self, Vec<String>) {
        let Some(spec) = spec else { return (Self::default(), Vec::new()) };
        let mut unknown = Vec::new();
        let mut mask = |names: &[String]| {
            let mut mask = 0;
            for name in names {
                match parse(name) {
                    Some(bit) => mask |= bit,
                    None if unknown.contains(name) => {}
                    None => unknown.push(name.clone()),
                }
            }
            mask
        };
        let sets = Self {
            bounding: mask(&spec.bounding),
            effective: mask(&spec.effective),
            permitted: mask(&spec.permitted),
            inheritable: mask(&spec.inheritable),
            ambient: mask(&spec.ambient),
        };
        (sets, unknown)
    }

    /// Takes away what is not [`available`], and what the kernel would refuse in combination. Returns what was lost of the
    /// bounding, effective and permitted sets: a container gets what the host has, and somebody is told.
    #[must_use]
    pub fn limit_to(&mut self, available: u64) -> u64 {
        let lost = (self.bounding | self.effective | self.permitted) & !available;
        self.bounding &= available;
        self.permitted &= available;
        self.inheritable &= available;
        self.effective &= self.permitted;
        // The kernel keeps in the ambient set only what is both permitted and inheritable.
        self.ambient &= self.permitted & self.inheritable;
        lost
    }

    /// Drops everything else from the bounding set, for ever. Needs CAP_SETPCAP.
    pub fn apply_bounding(&self) -> Result<()> {
        let surplus = caps::bounding_set() & !self.bounding;
        for bit in (0..64).filter(|bit| surplus >> bit & 1 == 1) {
            caps::drop_bounding(bit)
                .context(|| format!("cannot drop capability {bit} from the bounding set"))?;
        }
        Ok(())
    }

    /// Sets the rest, the ambient set included. After this the process is what it will be at `execve`.
    pub fn apply_final(&self) -> Result<()> {
        // A change of user leaves ambient capabilities behind only by accident; start from none.
        caps::clear_ambient().context(|| "cannot clear ambient capabilities".to_owned())?;
        let sets = caps::Sets {
            effective: self.effective,
            permitted: self.permitted,
            inheritable: self.inheritable,
        };
        caps::set(&sets).context(|| "cannot set capabilities".to_owned())?;
        for bit in (0..64).filter(|bit| self.ambient >> bit & 1 == 1) {
            caps::raise_ambient(bit)
                .context(|| format!("cannot raise ambient capability {bit}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn names_and_bits() {
        assert_eq!(parse("CAP_CHOWN"), Some(1));
        assert_eq!(parse("CAP_CHECKPOINT_RESTORE"), Some(1 << 40));
        assert_eq!(parse("CHOWN"), None);
        assert_eq!(names_of(0b1001), ["CAP_CHOWN", "CAP_FOWNER"]);
    }

    #[test]
    fn no_lists_are_no_capabilities() {
        assert_eq!(Sets::from_spec(None), (Sets::default(), vec![]));
    }

    #[test]
    fn what_nobody_knows_is_reported_once() {
        let spec = Capabilities {
            bounding: list(&["CAP_KILL", "CAP_NEW"]),
            effective: list(&["CAP_NEW"]),
            ..Capabilities::default()
        };
        let (sets, unknown) = Sets::from_spec(Some(&spec));
        assert_eq!((sets.bounding, sets.effective), (1 << 5, 0));
        assert_eq!(unknown, ["CAP_NEW"]);
    }

    #[test]
    fn what_the_host_lacks_is_lost() {
        let mut sets = Sets {
            bounding: 0b111,
            effective: 0b111,
            permitted: 0b011,
            inheritable: 0b110,
            ambient: 0b111,
        };
        assert_eq!(sets.limit_to(0b011), 0b100);
        let expected = Sets {
            bounding: 0b011,
            effective: 0b011,
            permitted: 0b011,
            inheritable: 0b010,
            ambient: 0b010,
        };
        assert_eq!(sets, expected);
    }
}
