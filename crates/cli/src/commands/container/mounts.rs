//! `--mount` and `-v`, understood.

use std::path::Path;

use api::container::{BindOptions, DriverConfig, ImageOptions, Mount, TmpfsOptions, VolumeOptions};
use stdx::{Error, Result, units};

/// Splits one record of comma-separated values; quotes keep commas.
pub(super) fn fields(text: &str) -> Result<Vec<String>> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                field.push('"');
                chars.next();
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            '"' => {
                return Err(Error::invalid(
                    "parse error on line 1, column 1: bare \" in non-quoted-field",
                ));
            }
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    Ok(fields)
}

/// `type=bind,source=/a,target=/b,readonly`.
pub(super) fn mount(text: &str) -> Result<Mount> {
    if text.is_empty() {
        return Err(Error::invalid("value is empty"));
    }
    let mut mount = Mount { r#type: "volume".to_owned(), ..Mount::default() };
    let mut bind: Option<BindOptions> = None;
    let mut volume: Option<VolumeOptions> = None;
    let mut image: Option<ImageOptions> = None;
    let mut tmpfs: Option<TmpfsOptions> = None;
    let mut ids: Vec<String> = Vec::new();
    for field in fields(text)? {
        let (key, value) =
            field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        let key = key.to_lowercase();
        let value = match (value, key.as_str()) {
            (Some(value), _) => value,
            (
                None,
                "readonly" | "ro" | "volume-nocopy" | "bind-nonrecursive" | "bind-create-src",
            ) => "true",
            (None, "idmap") => "",
            (None, _) => {
                return Err(Error::invalid(format!(
                    "invalid field '{field}' must be a key=value pair"
                )));
            }
        };
        let truth = || match value {
            "1" | "true" | "t" | "T" | "TRUE" | "True" => Ok(true),
            "0" | "false" | "f" | "F" | "FALSE" | "False" => Ok(false),
            _ => Err(Error::invalid(format!("invalid value for {key}: {value}"))),
        };
        match key.as_str() {
            "type" => mount.r#type = value.to_lowercase(),
            "source" | "src" => mount.source = value.to_owned(),
            "target" | "dst" | "destination" => mount.target = value.to_owned(),
            "readonly" | "ro" => mount.read_only = truth()?,
            "consistency" => mount.consistency = value.to_lowercase(),
            "bind-propagation" => bind.get_or_insert_default().propagation = value.to_lowercase(),
            "bind-nonrecursive" => bind.get_or_insert_default().non_recursive = truth()?,
            "bind-create-src" => bind.get_or_insert_default().create_mountpoint = truth()?,
            "bind-recursive" => {
                let bind = bind.get_or_insert_default();
                match value {
                    "enabled" => {}
                    "disabled" => bind.non_recursive = true,
                    "writable" => bind.read_only_non_recursive = true,
                    "readonly" => bind.read_only_force_recursive = true,
                    _ => {
                        return Err(Error::invalid(format!(
                            "invalid value for {key}: {value} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
                        )));
                    }
                }
            }
            "volume-subpath" => volume.get_or_insert_default().subpath = value.to_owned(),
            "volume-nocopy" => volume.get_or_insert_default().no_copy = truth()?,
            "volume-label" => {
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                volume.get_or_insert_default().labels.insert(name.to_owned(), value.to_owned());
            }
            "volume-driver" => driver(&mut volume).name = value.to_owned(),
            "volume-opt" => {
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                driver(&mut volume).options.insert(name.to_owned(), value.to_owned());
            }
            "uid" | "gid" | "idmap" => ids.push(field.clone()),
            "image-subpath" => image.get_or_insert_default().subpath = value.to_owned(),
            "tmpfs-size" => {
                let size = units::ram_in_bytes(value)
                    .map_err(|_| Error::invalid(format!("invalid value for {key}: {value}")))?;
                tmpfs.get_or_insert_default().size_bytes = size;
            }
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8)
                    .map_err(|_| Error::invalid(format!("invalid value for {key}: {value}")))?;
                tmpfs.get_or_insert_default().mode = mode;
            }
            _ => return Err(Error::invalid(format!("unexpected key '{key}' in '{field}'"))),
        }
    }
    if mount.r#type.is_empty() {
        return Err(Error::invalid("type is required"));
    }
    if mount.target.is_empty() {
        return Err(Error::invalid("target is required"));
    }
    let kind = mount.r#type.clone();
    let mixed = |options: &str, wanted: &str, given: bool| match given && kind != wanted {
        true => Err(Error::invalid(format!(
            "cannot mix '{options}-*' options with mount type '{kind}'"
        ))),
        false => Ok(()),
    };
    mixed("volume", "volume", volume.is_some())?;
    mixed("bind", "bind", bind.is_some())?;
    mixed("image", "image", image.is_some())?;
    mixed("tmpfs", "tmpfs", tmpfs.is_some())?;
    mount.ids = ids.join(",");
    if kind == "bind" {
        mount.source = absolute(&mount.source);
    }
    (mount.bind_options, mount.volume_options) = (bind, volume);
    (mount.image_options, mount.tmpfs_options) = (image, tmpfs);
    Ok(mount)
}

fn driver(volume: &mut Option<VolumeOptions>) -> &mut DriverConfig {
    volume.get_or_insert_default().driver_config.get_or_insert_default()
}

/// What `-v` asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Volume {
    /// Only a place inside: an anonymous volume.
    Anonymous(String),
    /// As the API's `Binds` take it.
    Bind(String),
}

/// `/a:/b:ro`, `name:/b`, `/b`. A source that begins with a dot is made absolute.
pub(super) fn volume(text: &str) -> Result<Volume> {
    let wrong = |words: &str| Error::invalid(format!("invalid spec: {text}: {words}"));
    if text.is_empty() {
        return Err(Error::invalid("invalid empty volume spec"));
    }
    match text.split(':').collect::<Vec<_>>().as_slice() {
        [inside] => Ok(Volume::Anonymous((*inside).to_owned())),
        ["", ..] => Err(wrong("empty section between colons")),
        [_, "", _, ..] => Err(wrong("empty section between colons")),
        [source, rest @ ..] => Ok(Volume::Bind(format!("{}:{}", absolute(source), rest.join(":")))),
        [] => Err(Error::invalid("invalid empty volume spec")),
    }
}

/// A path that begins with a dot, seen from the root.
fn absolute(path: &str) -> String {
    if !path.starts_with('.') {
        return path.to_owned();
    }
    std::path::absolute(path).map_or_else(|_| path.to_owned(), |absolute| clean(&absolute))
}

/// Without `.` and `..`, as Go's filepath.Clean.
fn clean(path: &Path) -> String {
    let mut parts: Vec<std::path::Component<'_>> = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir if parts.len() > 1 => {
                parts.pop();
            }
            std::path::Component::ParentDir => {}
            part => parts.push(part),
        }
    }
    parts.iter().collect::<std::path::PathBuf>().display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        mount(text).unwrap_err().to_string()
    }

    #[test]
    fn mounts() {
        let parsed = mount("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave").unwrap();
        assert_eq!(
            (parsed.source.as_str(), parsed.target.as_str(), parsed.read_only),
            ("/a", "/b", true)
        );
        assert_eq!(parsed.bind_options.unwrap().propagation, "rslave");
        let parsed = mount("dst=/b,volume-opt=type=nfs,\"volume-opt=o=a,b\"").unwrap();
        let options = parsed.volume_options.unwrap().driver_config.unwrap().options;
        assert_eq!((options["type"].as_str(), options["o"].as_str()), ("nfs", "a,b"));
        assert_eq!(
            mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777")
                .unwrap()
                .tmpfs_options
                .unwrap()
                .mode,
            0o1777
        );
    }

    #[test]
    fn refusals() {
        assert_eq!(refused("foo"), "invalid field 'foo' must be a key=value pair");
        assert_eq!(refused("type=foo"), "target is required");
        assert_eq!(refused("type=volume,dst=/x,foo=bar"), "unexpected key 'foo' in 'foo=bar'");
        assert_eq!(
            refused("type=bind,dst=/x,tmpfs-size=1"),
            "cannot mix 'tmpfs-*' options with mount type 'bind'"
        );
    }

    #[test]
    fn volumes() {
        assert_eq!(volume("/b").unwrap(), Volume::Anonymous("/b".into()));
        assert_eq!(volume("/a:/b:ro").unwrap(), Volume::Bind("/a:/b:ro".into()));
        assert_eq!(volume("a:/b").unwrap(), Volume::Bind("a:/b".into()));
        assert_eq!(
            volume(":/x").unwrap_err().to_string(),
            "invalid spec: :/x: empty section between colons"
        );
        assert!(
            matches!(volume("./a:/b").unwrap(), Volume::Bind(text) if text.starts_with('/') && !text.contains("./"))
        );
    }
}
