//! Devices by name: specs of the Container Device Interface, found in directories, and what they change of a container.
//!
//! A name is `vendor/class=device`. Specs are read at each start: whoever installs a driver restarts no daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use api::container::DeviceRequest;
use oci::runtime::{Device, DeviceRule, Hook, Hooks, Mount, Spec};
use rustix::fs::{FileType, major, minor};
use serde::Deserialize;
use stdx::{Context, Error, Result};

/// A spec is a few devices; one that is larger than this is none.
const LARGEST: u64 = 4 << 20;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Document {
    cdi_version: String,
    /// `vendor/class`
    kind: String,
    devices: Vec<Named>,
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Named {
    name: String,
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Bind>,
    hooks: Vec<NamedHook>,
    #[serde(rename = "additionalGids")]
    additional_gids: Vec<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Node {
    path: String,
    host_path: String,
    r#type: String,
    major: i64,
    minor: i64,
    file_mode: Option<u32>,
    permissions: String,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Bind {
    host_path: PathBuf,
    container_path: PathBuf,
    options: Vec<String>,
    r#type: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NamedHook {
    hook_name: String,
    path: PathBuf,
    args: Vec<String>,
    env: Vec<String>,
    timeout: Option<i64>,
}

/// All devices that the directories' specs name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    /// By full name: what every device of its spec changes, and what it changes itself.
    devices: BTreeMap<String, (Edits, Edits)>,
}

impl Registry {
    /// Reads every spec. Later directories win; one that cannot be understood is logged, and its devices are not there.
    pub(crate) fn read(dirs: &[PathBuf]) -> Self {
        let mut registry = Self::default();
        for dir in dirs {
            let Ok(entries) = std::fs::read_dir(dir) else { continue };
            let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            paths.sort();
            for path in paths {
                match document(&path) {
                    Ok(Some(document)) => registry.add(document),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(spec = %path.display(), error = %error.chain(), "a CDI spec is not used");
                    }
                }
            }
        }
        registry
    }

    fn add(&mut self, document: Document) {
        for device in document.devices {
            let name = format!("{}={}", document.kind, device.name);
            self.devices.insert(name, (document.container_edits.clone(), device.container_edits));
        }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.devices.keys().map(String::as_str)
    }

    /// The devices that requests mean, by full name.
    fn select(&self, requests: &[DeviceRequest]) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for request in requests {
            let ids = request.device_ids.as_deref().unwrap_or_default();
            if request.driver == "cdi" {
                names.extend(ids.iter().cloned());
                continue;
            }
            let kind = self.kind_of(request).ok_or_else(|| no_driver(request))?;
            match (ids, request.count) {
                ([], -1) => names.push(format!("{kind}=all")),
                ([], count) => names.extend((0..count).map(|index| format!("{kind}={index}"))),
                (ids, _) => names.extend(ids.iter().map(|id| format!("{kind}={id}"))),
            }
        }
        let missing: BTreeSet<&str> = names
            .iter()
            .map(String::as_str)
            .filter(|name| !self.devices.contains_key(*name))
            .collect();
        if missing.is_empty() {
            return Ok(names);
        }
        let missing = missing.into_iter().collect::<Vec<_>>().join(", ");
        Err(Error::invalid(format!(
            "CDI device injection failed: unresolvable CDI devices {missing}"
        )))
    }

    /// `--gpus` names no vendor: any that has devices of the class `gpu` will do, its driver's if it names one.
    fn kind_of(&self, request: &DeviceRequest) -> Option<&str> {
        let asks_for_gpu =
            request.capabilities.iter().flatten().any(|all| all.iter().any(|one| one == "gpu"));
        let mut kinds = self.names().filter_map(|name| Some(name.split_once('=')?.0));
        kinds.find(|kind| {
            asks_for_gpu
                && kind.ends_with("/gpu")
                && (request.driver.is_empty() || kind.starts_with(&request.driver))
        })
    }
}

fn no_driver(request: &DeviceRequest) -> Error {
    let all = request.capabilities.as_deref().unwrap_or_default();
    let lists: Vec<String> = all.iter().map(|list| format!("[{}]", list.join(" "))).collect();
    Error::internal(format!(
        "could not select device driver {:?} with capabilities: [{}]",
        request.driver,
        lists.join(" ")
    ))
}

/// Changes a container's spec as its devices want it.
pub(crate) fn inject(spec: &mut Spec, requests: &[DeviceRequest], dirs: &[PathBuf]) -> Result<()> {
    if requests.is_empty() {
        return Ok(());
    }
    let registry = Registry::read(dirs);
    let mut edited = BTreeSet::new();
    for name in registry.select(requests)? {
        let Some((common, own)) = registry.devices.get(&name) else { continue };
        let kind = name.split_once('=').map_or(name.as_str(), |(kind, _)| kind);
        // What all devices of a spec want is done once.
        if edited.insert(kind.to_owned()) {
            apply(spec, common).context(|| format!("CDI device injection failed: {kind}"))?;
        }
        apply(spec, own).context(|| format!("CDI device injection failed: {name}"))?;
    }
    Ok(())
}

fn apply(spec: &mut Spec, edits: &Edits) -> Result<()> {
    if let Some(process) = &mut spec.process {
        for pair in &edits.env {
            let name = pair.split('=').next().unwrap_or_default();
            process.env.retain(|old| old.split('=').next() != Some(name));
            process.env.push(pair.clone());
        }
        let gids = edits.additional_gids.iter().filter(|gid| **gid != 0);
        process.user.additional_gids.extend(gids);
    }
    let linux = spec.linux.get_or_insert_default();
    for node in &edits.device_nodes {
        let (device, rule) = node.look_up()?;
        linux.devices.retain(|old| old.path != device.path);
        linux.devices.push(device);
        linux.resources.get_or_insert_default().devices.push(rule);
    }
    spec.mounts.extend(edits.mounts.iter().map(Bind::to_mount));
    let hooks = spec.hooks.get_or_insert_default();
    edits.hooks.iter().try_for_each(|hook| hook.add_to(hooks))
}

impl Node {
    /// The node and who may do what with it; what the spec leaves out the host's node says.
    fn look_up(&self) -> Result<(Device, DeviceRule)> {
        let host = if self.host_path.is_empty() { &self.path } else { &self.host_path };
        let mut node = self.clone();
        if node.r#type.is_empty() || (node.major == 0 && node.r#type != "p") {
            let stat = rustix::fs::stat(host.as_str()).context(|| format!("stat {host}"))?;
            node.r#type = match FileType::from_raw_mode(stat.st_mode) {
                FileType::CharacterDevice => "c",
                FileType::BlockDevice => "b",
                FileType::Fifo => "p",
                _ => return Err(Error::invalid(format!("{host} is not a device node"))),
            }
            .to_owned();
            (node.major, node.minor) =
                (i64::from(major(stat.st_rdev)), i64::from(minor(stat.st_rdev)));
            node.file_mode = node.file_mode.or(Some(stat.st_mode & 0o7777));
            node.uid = node.uid.or(Some(stat.st_uid));
            node.gid = node.gid.or(Some(stat.st_gid));
        }
        let access = if node.permissions.is_empty() { "rwm" } else { &node.permissions };
        let rule = DeviceRule {
            allow: true,
            kind: node.r#type.clone(),
            major: Some(node.major),
            minor: Some(node.minor),
            access: access.to_owned(),
        };
        let device = Device {
            path: PathBuf::from(node.path),
            kind: node.r#type,
            major: node.major,
            minor: node.minor,
            file_mode: node.file_mode,
            uid: node.uid,
            gid: node.gid,
        };
        Ok((device, rule))
    }
}

impl Bind {
    fn to_mount(&self) -> Mount {
        let mut options = self.options.clone();
        if self.r#type.is_empty() && !options.iter().any(|one| one == "bind" || one == "rbind") {
            options.push("rbind".to_owned());
        }
        Mount {
            destination: self.container_path.clone(),
            kind: if self.r#type.is_empty() { "bind".to_owned() } else { self.r#type.clone() },
            source: Some(self.host_path.clone()),
            options,
            ..Mount::default()
        }
    }
}

impl NamedHook {
    fn add_to(&self, hooks: &mut Hooks) -> Result<()> {
        let list = match self.hook_name.as_str() {
            "prestart" => &mut hooks.prestart,
            "createRuntime" => &mut hooks.create_runtime,
            "createContainer" => &mut hooks.create_container,
            "startContainer" => &mut hooks.start_container,
            "poststart" => &mut hooks.poststart,
            "poststop" => &mut hooks.poststop,
            other => return Err(Error::invalid(format!("invalid hook name {other:?}"))),
        };
        list.push(Hook {
            path: self.path.clone(),
            args: self.args.clone(),
            env: self.env.clone(),
            timeout: self.timeout,
        });
        Ok(())
    }
}

/// `None` for what is no spec.
fn document(path: &Path) -> Result<Option<Document>> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    // Other endings are of other things, `.yml` among them: so say the specification's own programs.
    if !matches!(extension, Some("json" | "yaml")) {
        return Ok(None);
    }
    let size = std::fs::metadata(path)?.len();
    if size > LARGEST {
        return Err(Error::invalid(format!("it has {size} bytes")));
    }
    let text = std::fs::read_to_string(path)?;
    let document: Document = match extension {
        Some("yaml") => serde_json::from_value(crate::yaml::value(&text)?),
        _ => serde_json::from_str(&text),
    }
    .map_err(std::io::Error::from)?;
    let right = document.kind.split_once('/').is_some_and(|(vendor, class)| {
        let word = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphabetic())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
        };
        word(vendor) && word(class)
    });
    if document.cdi_version.is_empty() || !right {
        return Err(Error::invalid(format!(
            "it is of version {:?} and kind {:?}",
            document.cdi_version, document.kind
        )));
    }
    Ok(Some(document))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"{
        "cdiVersion": "0.6.0", "kind": "vendor.com/gpu",
        "devices": [
            {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/null", "permissions": "rw"}]}},
            {"name": "all", "containerEdits": {"env": ["GPUS=all"]}}
        ],
        "containerEdits": {
            "env": ["DRIVER=1"],
            "mounts": [{"hostPath": "/lib/x", "containerPath": "/lib/y", "options": ["ro"]}],
            "hooks": [{"hookName": "createContainer", "path": "/bin/true", "args": ["true"]}],
            "additionalGids": [0, 44]
        }
    }"#;

    fn injected(requests: &[DeviceRequest]) -> Result<Spec> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("vendor.json"), SPEC).unwrap();
        std::fs::write(dir.path().join("broken.json"), "{").unwrap();
        let process = oci::runtime::Process {
            env: vec!["A=1".to_owned(), "DRIVER=0".to_owned()],
            ..oci::runtime::Process::default()
        };
        let mut spec = Spec { process: Some(process), ..Spec::default() };
        inject(&mut spec, requests, &[dir.path().to_owned(), PathBuf::from("/nonexistent")])?;
        Ok(spec)
    }

    fn by_name(names: &[&str]) -> DeviceRequest {
        let ids = names.iter().map(|&name| name.to_owned()).collect();
        DeviceRequest {
            driver: "cdi".to_owned(),
            device_ids: Some(ids),
            ..DeviceRequest::default()
        }
    }

    fn gpus(count: i64, driver: &str) -> DeviceRequest {
        DeviceRequest {
            driver: driver.to_owned(),
            count,
            capabilities: Some(vec![vec!["gpu".to_owned()]]),
            ..DeviceRequest::default()
        }
    }

    #[test]
    fn a_device_changes_the_spec() {
        let spec = injected(&[by_name(&["vendor.com/gpu=0", "vendor.com/gpu=all"])]).unwrap();
        let process = spec.process.unwrap();
        assert_eq!(process.env, ["A=1", "DRIVER=1", "GPUS=all"]);
        assert_eq!(process.user.additional_gids, [44]);
        let linux = spec.linux.unwrap();
        let device = &linux.devices[0];
        assert_eq!((device.path.to_str(), device.major, device.minor), (Some("/dev/gpu0"), 1, 3));
        assert_eq!(linux.resources.unwrap().devices[0].access, "rw");
        assert_eq!((spec.mounts.len(), &*spec.mounts[0].kind), (1, "bind"));
        assert_eq!(spec.mounts[0].options, ["ro", "rbind"]);
        assert_eq!(spec.hooks.unwrap().create_container.len(), 1);
    }

    #[test]
    fn a_spec_in_yaml_is_the_same() {
        let yaml = "# made by a tool\ncdiVersion: 0.6.0\nkind: vendor.com/gpu\ndevices:\n- name: \"0\"\n  containerEdits:\n    \
                    deviceNodes:\n    - path: /dev/gpu0\n      hostPath: /dev/null\n      fileMode: 0620\n      permissions: rw\n\
                    containerEdits:\n  env:\n  - DRIVER=1\n";
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("vendor.yaml"), yaml).unwrap();
        std::fs::write(dir.path().join("broken.yaml"), "kind: [").unwrap();
        std::fs::write(dir.path().join("other.yml"), yaml.replace("vendor.com", "other.com"))
            .unwrap();
        let dirs = [dir.path().to_owned()];
        assert_eq!(Registry::read(&dirs).names().collect::<Vec<_>>(), ["vendor.com/gpu=0"]);
        let mut spec = Spec::default();
        inject(&mut spec, &[by_name(&["vendor.com/gpu=0"])], &dirs).unwrap();
        let device = &spec.linux.unwrap().devices[0];
        assert_eq!((device.minor, device.file_mode), (3, Some(0o620)));
    }

    #[test]
    fn gpus_are_devices_of_that_class() {
        let all = injected(&[gpus(-1, "")]).unwrap();
        assert!(all.process.unwrap().env.contains(&"GPUS=all".to_owned()));
        assert_eq!(injected(&[gpus(1, "vendor")]).unwrap().linux.unwrap().devices.len(), 1);
        let refusal = |request| injected(&[request]).unwrap_err().chain();
        assert_eq!(
            refusal(gpus(-1, "nvidia")),
            "could not select device driver \"nvidia\" with capabilities: [[gpu]]"
        );
        assert_eq!(
            refusal(by_name(&["vendor.com/gpu=7", "x.com/y=z"])),
            "CDI device injection failed: unresolvable CDI devices vendor.com/gpu=7, x.com/y=z"
        );
    }
}
