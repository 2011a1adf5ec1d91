//! Resource limits of a process (setrlimit), by the names of the spec.

use oci::runtime::Rlimit;
use rustix::process::{Pid, Resource};
use stdx::{Context, Error, Result};

/// Sets the limits of the calling process.
pub fn apply(limits: &[Rlimit]) -> Result<()> {
    set(None, limits)
}

/// Sets the limits of another process. Its parent may be allowed to raise what it may not itself, in its user namespace.
pub fn apply_to(pid: Pid, limits: &[Rlimit]) -> Result<()> {
    set(Some(pid), limits)
}

/// All or, where one entry cannot be understood, nothing.
fn set(pid: Option<Pid>, limits: &[Rlimit]) -> Result<()> {
    for (resource, limit) in understood(limits)? {
        let value =
            rustix::process::Rlimit { current: finite(limit.soft), maximum: finite(limit.hard) };
        rustix::process::prlimit(pid, resource, value)
            .context(|| format!("error setting rlimit type {}", limit.kind))?;
    }
    Ok(())
}

fn understood(limits: &[Rlimit]) -> Result<Vec<(Resource, &Rlimit)>> {
    let mut seen: Vec<(Resource, &Rlimit)> = Vec::new();
    for limit in limits {
        let Some((_, resource)) = RESOURCES.iter().find(|(name, _)| *name == limit.kind) else {
            return Err(Error::invalid(format!("invalid rlimit type: {}", limit.kind)));
        };
        if limit.soft > limit.hard {
            let Rlimit { kind, soft, hard } = limit;
            return Err(Error::invalid(format!(
                "rlimit {kind}: soft limit {soft} is above the hard limit {hard}"
            )));
        }
        if seen.iter().any(|(known, _)| known == resource) {
            // The specification: the runtime must refuse it.
            return Err(Error::invalid(format!("rlimit {} is given twice", limit.kind)));
        }
        seen.push((*resource, limit));
    }
    Ok(seen)
}

/// `RLIM_INFINITY` is no limit.
fn finite(value: u64) -> Option<u64> {
    (value != u64::MAX).then_some(value)
}

const RESOURCES: [(&str, Resource); 16] = [
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_RSS", Resource::Rss),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_STACK", Resource::Stack),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(kind: &str, soft: u64, hard: u64) -> Rlimit {
        Rlimit { kind: kind.to_owned(), soft, hard }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let refusal = |limits: &[Rlimit]| understood(limits).unwrap_err().to_string();
        assert_eq!(refusal(&[limit("RLIMIT_X", 1, 1)]), "invalid rlimit type: RLIMIT_X");
        assert_eq!(
            refusal(&[limit("RLIMIT_CPU", 2, 1)]),
            "rlimit RLIMIT_CPU: soft limit 2 is above the hard limit 1"
        );
        let cpu = limit("RLIMIT_CPU", 1, 1);
        assert_eq!(refusal(&[cpu.clone(), cpu]), "rlimit RLIMIT_CPU is given twice");
    }

    #[test]
    fn own_limits_change() {
        let before = rustix::process::getrlimit(Resource::Core);
        let soft = before.maximum.unwrap_or(u64::MAX).min(4096);
        apply(&[limit("RLIMIT_CORE", soft, before.maximum.unwrap_or(u64::MAX))]).unwrap();
        assert_eq!(rustix::process::getrlimit(Resource::Core).current, Some(soft));
        rustix::process::setrlimit(Resource::Core, before).unwrap();
    }
}
