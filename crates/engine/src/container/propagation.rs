//! Whether mounts can travel between a bind's source and the container: only where the source's own mount lets them.

use std::path::Path;

use stdx::{Context, Error, Result};

/// How mounts travel into a bind of which a user has said `wanted`. Where it shows the daemon's root, they must: a mount of
/// the daemon's that a container holds as its own could not be taken away.
pub(super) fn of_bind<'a>(source: &str, wanted: &'a str, root: &Path) -> Result<&'a str> {
    if !shows(source, root) {
        return Ok(if wanted.is_empty() { "rprivate" } else { wanted });
    }
    match wanted {
        "" => Ok("rslave"),
        "rslave" | "rshared" => Ok(wanted),
        other => Err(Error::invalid(format!(
            "invalid mount config: must use either propagation mode \"rslave\" or \"rshared\" when mount source is within the \
             daemon root, daemon root: {:?}, bind mount source: {source:?}, propagation: {other:?}",
            root.display().to_string()
        ))),
    }
}

/// The same when it is mounted: what nobody asked for is left out where it is impossible.
pub(super) fn in_force<'a>(source: &str, wanted: &'a str, root: &Path) -> Result<&'a str> {
    let propagation = of_bind(source, wanted, root)?;
    match check(source, propagation) {
        Err(_) if wanted.is_empty() => Ok("rprivate"),
        checked => checked.map(|()| propagation),
    }
}

fn shows(source: &str, root: &Path) -> bool {
    let source = Path::new(source);
    source.starts_with(root) || root.starts_with(source)
}

/// Refuses `shared` and `slave` where they would mean nothing, in Docker's words.
pub(super) fn check(path: &str, propagation: &str) -> Result<()> {
    if !matches!(propagation, "shared" | "rshared" | "slave" | "rslave") {
        return Ok(());
    }
    let real = std::fs::canonicalize(path).context(|| format!("cannot look at {path}"))?;
    let table = std::fs::read_to_string("/proc/self/mountinfo")
        .context(|| "cannot read /proc/self/mountinfo".to_owned())?;
    check_in(&table, path, &real, propagation)
}

fn check_in(table: &str, path: &str, real: &Path, propagation: &str) -> Result<()> {
    let Some((at, fields)) = mount_of(table, real) else { return Ok(()) };
    let has = |kind: &str| fields.iter().any(|field| field.starts_with(kind));
    let (right, what) = match propagation {
        "shared" | "rshared" => (has("shared:"), "shared"),
        _ => (has("shared:") || has("master:"), "shared or slave"),
    };
    match right {
        true => Ok(()),
        false => Err(Error::internal(format!(
            "path {path} is mounted on {at} but it is not a {what} mount"
        ))),
    }
}

/// The mount that a path lies on, the last of those at the deepest place, with its optional fields.
fn mount_of<'a>(table: &'a str, path: &Path) -> Option<(&'a str, Vec<&'a str>)> {
    let mut found: Option<(&str, Vec<&str>)> = None;
    for line in table.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (Some(&at), Some(end)) = (words.get(4), words.iter().position(|word| *word == "-"))
        else {
            continue;
        };
        let deepest = found.as_ref().is_none_or(|(other, _)| at.len() >= other.len());
        if path.starts_with(at) && deepest {
            found = Some((at, words[6.min(end)..end].to_vec()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_mounts_stay_the_daemons() {
        let of = |source: &str, wanted: &'static str| {
            of_bind(source, wanted, Path::new("/var/lib/gantry")).map_err(|error| error.to_string())
        };
        assert_eq!(of("/srv", ""), Ok("rprivate"));
        assert_eq!(of("/var/lib/gantry-other", "shared"), Ok("shared"));
        for source in ["/", "/var", "/var/lib/gantry", "/var/lib/gantry/volumes"] {
            assert_eq!(of(source, ""), Ok("rslave"), "{source}");
            assert_eq!(of(source, "rshared"), Ok("rshared"), "{source}");
        }
        assert_eq!(
            of("/var", "private").unwrap_err(),
            "invalid mount config: must use either propagation mode \"rslave\" or \"rshared\" when mount source is within \
             the daemon root, daemon root: \"/var/lib/gantry\", bind mount source: \"/var\", propagation: \"private\""
        );
    }

    #[test]
    fn only_from_where_mounts_travel() {
        let table = "\
22 1 0:20 / / rw,relatime - ext4 /dev/vda rw
23 22 0:21 / /shared rw shared:1 - tmpfs tmpfs rw
24 22 0:22 / /slave rw master:1 - tmpfs tmpfs rw
";
        let check = |path: &str, propagation: &str| match check_in(
            table,
            path,
            Path::new(path),
            propagation,
        ) {
            Ok(()) => "yes".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(check("/shared/a", "rshared"), "yes");
        assert_eq!(check("/shared/a", "slave"), "yes");
        assert_eq!(check("/slave", "rslave"), "yes");
        assert_eq!(
            check("/slave", "shared"),
            "path /slave is mounted on /slave but it is not a shared mount"
        );
        assert_eq!(
            check("/sharedx", "rslave"),
            "path /sharedx is mounted on / but it is not a shared or slave mount"
        );
    }
}
