//! What a user asked to see inside: `-v`, `--mount`, `--tmpfs` and the image's `VOLUME`s, understood. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stdx::{Context, Error, Result};

use super::owners::Owners;

/// One thing to be mounted, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPlan {
    /// Absolute and clean.
    pub target: String,
    pub read_only: bool,
    pub source: Source,
    /// Docker's mode column in `inspect`: what stood behind the second colon of `-v`.
    pub mode: String,
    /// Whose its files are inside.
    #[serde(default)]
    pub owners: Owners,
    pub origin: Origin,
}

/// Whose wish a mount is. At one place the first of these wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    #[default]
    Request,
    /// `--volumes-from`
    OtherContainer,
    Image,
}

/// One word of `--volumes-from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumesFrom {
    /// By name or id.
    pub container: String,
    pub read_only: bool,
}

impl VolumesFrom {
    /// Understands `container[:mode]`.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::invalid("volumes-from specification cannot be an empty string"));
        }
        let (container, mode) = text.split_once(':').unwrap_or((text, ""));
        let words: Vec<&str> = mode.split(',').collect();
        let count = |known: &[&str]| words.iter().filter(|word| known.contains(word)).count();
        let (access, label) = (count(&["ro", "rw"]), count(&["z", "Z"]));
        if !mode.is_empty() && (access > 1 || label > 1 || access + label < words.len()) {
            return Err(Error::invalid(format!("invalid mode: {mode}")));
        }
        Ok(Self { container: container.to_owned(), read_only: words.contains(&"ro") })
    }
}

/// All that is mounted in the end, with what comes from other containers.
pub(crate) fn joined<'a>(own: &'a [MountPlan], others: &'a [MountPlan]) -> Vec<&'a MountPlan> {
    let by = |origin| own.iter().filter(move |mount: &&MountPlan| mount.origin == origin);
    let mut all: Vec<&MountPlan> = Vec::new();
    for mount in by(Origin::Request).chain(others).chain(by(Origin::Image)) {
        if !all.iter().any(|other| other.target == mount.target) {
            all.push(mount);
        }
    }
    all
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    Bind {
        path: String,
        /// `-v` makes a missing directory, `--mount` refuses.
        missing: Missing,
        propagation: String,
        recursive: Recursive,
    },
    /// By name, or, without one, a new anonymous one.
    Volume { name: Option<String>, copy_up: bool, subpath: Option<String>, making: Making },
    /// An image by any of its names, to look at.
    Image { name: String, subpath: Option<String> },
    /// With mount options as mount(8) writes them.
    Tmpfs { options: Vec<String>, by: By },
}

/// Docker shows what `--mount` asked for, and not what `--tmpfs` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    Mount,
    Tmpfs,
}

/// How a volume is made that is not there yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Making {
    /// Empty: whoever has it, or the local one.
    pub driver: String,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Missing {
    Create,
    Refuse,
}

/// How mounts below a bind come along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recursive {
    /// They come along; read-only as well where the kernel can (5.12).
    Enabled,
    Disabled,
    /// They come along and stay writable.
    Writable,
    /// They come along read-only, or the container does not start.
    Readonly,
}

/// What a read-only bind means to who asked for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadOnlyBinds {
    /// All that is mounted below is read-only as well.
    #[default]
    Whole,
    /// What is mounted below stays writable, as in versions of the API before 1.44.
    Alone,
}

impl Source {
    pub fn volume() -> Self {
        Self::Volume { name: None, copy_up: true, subpath: None, making: Making::default() }
    }
}

/// Understands `source:target[:mode]` or a bare `target` (an anonymous volume).
pub fn parse_bind(text: &str) -> Result<MountPlan> {
    let bad = || Error::invalid(format!("invalid volume specification: '{text}'"));
    let mut parts = text.splitn(3, ':');
    let (first, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let (source, target, mode) = match (second, third) {
        (None, _) => ("", first, ""),
        // `/a:ro`: nobody's volume has no mode.
        (Some(second), None) if Mode::parse(second).is_some() => return Err(bad()),
        (Some(second), third) => (first, second, third.unwrap_or_default()),
    };
    if second.is_some() && (source.is_empty() || target.is_empty()) || mode.contains(':') {
        return Err(bad());
    }
    let understood =
        Mode::parse(mode).ok_or_else(|| Error::invalid(format!("invalid mode: {mode}")))?;
    let kind = if source.starts_with('/') { "bind" } else { "volume" };
    let wrong = |why: String| {
        Error::invalid(format!(
            "invalid volume specification: '{text}': invalid mount config for type \"{kind}\": {why}"
        ))
    };
    let clean = absolute(target).ok_or_else(|| {
        wrong(format!("invalid mount path: '{target}' mount path must be absolute"))
    })?;
    if clean == "/" {
        return Err(wrong("invalid specification: destination can't be '/'".to_owned()));
    }
    let Mode { read_only, no_copy, propagation, owners } = understood;
    let source = if let Some(path) = absolute(source) {
        if no_copy {
            return Err(wrong("field VolumeOptions must not be specified".to_owned()));
        }
        Source::Bind { path, missing: Missing::Create, propagation, recursive: Recursive::Enabled }
    } else {
        if !propagation.is_empty() {
            return Err(wrong("field BindOptions must not be specified".to_owned()));
        }
        if !source.is_empty() {
            check_volume_name(source)?;
        }
        let name = (!source.is_empty()).then(|| source.to_owned());
        Source::Volume { name, copy_up: !no_copy, subpath: None, making: Making::default() }
    };
    let mode = mode.to_owned();
    Ok(MountPlan { target: clean, read_only, source, mode, owners, origin: Origin::Request })
}

/// The words behind the last colon of `-v`.
#[derive(Default)]
struct Mode {
    read_only: bool,
    no_copy: bool,
    propagation: String,
    owners: Owners,
}

impl Mode {
    fn parse(text: &str) -> Option<Self> {
        if contradicts(text) {
            return None;
        }
        let mut mode = Self::default();
        let mut owners = Vec::new();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            match word {
                "ro" | "readonly" => mode.read_only = true,
                "rw" => {}
                // SELinux relabelling does nothing where SELinux is not; `consistent` and its kin were macOS's.
                "z" | "Z" | "consistent" | "cached" | "delegated" | "default" => {}
                "nocopy" => mode.no_copy = true,
                "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate" => {
                    mode.propagation = word.to_owned();
                }
                other => owners.push(other),
            }
        }
        mode.owners = Owners::parse(owners)?;
        Some(mode)
    }
}

/// Whether two words of a mode speak of the same.
fn contradicts(mode: &str) -> bool {
    const KINDS: [&[&str]; 5] = [
        &["ro", "rw", "readonly"],
        &["z", "Z"],
        &["nocopy"],
        &["shared", "rshared", "slave", "rslave", "private", "rprivate"],
        &["default", "consistent", "cached", "delegated"],
    ];
    KINDS.iter().any(|kind| mode.split(',').filter(|word| kind.contains(word)).count() > 1)
}

/// Docker's rule and words for volume names.
pub fn check_volume_name(name: &str) -> Result<()> {
    storage::volume::validate(name).context(|| format!("create {name}"))
}

/// Cleans an absolute path lexically, as Go's `filepath.Clean`; `None` when it is not absolute. What it means inside a
/// container is decided later, below the container's own root.
pub fn absolute(path: &str) -> Option<String> {
    if !path.starts_with('/') || path.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

/// Adds a mount; two at one place are refused unless the later one may replace the earlier.
pub(crate) fn add(mounts: &mut Vec<MountPlan>, plan: MountPlan) -> Result<()> {
    if mounts.iter().any(|other| other.target == plan.target) {
        return Err(Error::invalid(format!("Duplicate mount point: {}", plan.target)));
    }
    mounts.push(plan);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_volumes_and_bare_targets() {
        let bind = parse_bind("/src/../a:/b/:ro,rslave").unwrap();
        assert_eq!((bind.target.as_str(), bind.read_only), ("/b", true));
        assert!(
            matches!(bind.source, Source::Bind { path, propagation, .. } if path == "/a" && propagation == "rslave")
        );
        let volume = parse_bind("data:/b:nocopy").unwrap();
        assert!(
            matches!(volume.source, Source::Volume { name: Some(name), copy_up: false, .. } if name == "data")
        );
        assert!(matches!(parse_bind("/b").unwrap().source, Source::Volume { name: None, .. }));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let of = |kind: &str, why: &str| format!("invalid mount config for type \"{kind}\": {why}");
        let (root, volume, bind) = (
            "invalid specification: destination can't be '/'",
            "field VolumeOptions must not be specified",
            "field BindOptions must not be specified",
        );
        for (text, why) in [
            ("/a:/b:ro,nocopy", of("bind", volume)),
            ("data:/b:rslave", of("volume", bind)),
            ("data:/b/..", of("volume", root)),
            ("/a:/", of("bind", root)),
            ("data:b", of("volume", "invalid mount path: 'b' mount path must be absolute")),
        ] {
            let expected = format!("invalid volume specification: '{text}': {why}");
            assert_eq!(parse_bind(text).unwrap_err().chain(), expected);
        }
        let short =
            "volume name is too short, names should be at least two alphanumeric characters";
        for (text, expected) in [
            ("/b:ro", "invalid volume specification: '/b:ro'".to_owned()),
            ("data:rw,z", "invalid volume specification: 'data:rw,z'".to_owned()),
            ("/a:/b:nope", "invalid mode: nope".to_owned()),
            ("v:/b", format!("create v: {short}")),
        ] {
            assert_eq!(parse_bind(text).unwrap_err().chain(), expected);
        }
    }

    #[test]
    fn mounts_of_other_containers() {
        let parse = |text: &str| match VolumesFrom::parse(text) {
            Ok(from) => format!("{} {}", from.container, if from.read_only { "ro" } else { "rw" }),
            Err(error) => error.to_string(),
        };
        for (text, expected) in [
            ("a", "a rw"),
            ("a:", "a rw"),
            ("a:ro", "a ro"),
            ("a:rw,z", "a rw"),
            ("a:ro,Z", "a ro"),
            ("", "volumes-from specification cannot be an empty string"),
            ("a:xx", "invalid mode: xx"),
            ("a:ro,rw", "invalid mode: ro,rw"),
            ("a:nocopy", "invalid mode: nocopy"),
            ("a:rshared", "invalid mode: rshared"),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_request_wins_over_other_containers_and_they_over_the_image() {
        let mount = |target: &str, mode: &str, origin| MountPlan {
            mode: mode.to_owned(),
            origin,
            ..parse_bind(target).unwrap()
        };
        let own = [
            mount("/a", "asked", Origin::Request),
            mount("/b", "image", Origin::Image),
            mount("/d", "image", Origin::Image),
        ];
        let others = [
            mount("/a", "other", Origin::OtherContainer),
            mount("/b", "other", Origin::OtherContainer),
        ];
        let all = joined(&own, &others);
        let all: Vec<_> = all.iter().map(|mount| (&*mount.target, &*mount.mode)).collect();
        assert_eq!(all, [("/a", "asked"), ("/b", "other"), ("/d", "image")]);
    }

    #[test]
    fn what_is_refused() {
        for bad in [
            "a:b",
            "/a:b",
            "/a:/b:xx",
            "/a:/",
            ":/b",
            "/a:",
            "../x:/b",
            "/a:/b:ro:rw",
            "/a:/b:ro,rw",
            "/a:/b:z,Z",
        ] {
            assert!(parse_bind(bad).is_err(), "{bad}");
        }
    }
}
