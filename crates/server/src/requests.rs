//! What older clients ask for, in the words of today: a field that came with a later version is not there for a client that
//! speaks an earlier one, whatever it sent. The versions are those of the Engine API's history.

use std::path::Path;

use api::ApiVersion;
use api::container::{BindOptions, CreateBody, HostConfig, NetworkingConfig, UpdateBody};
use api::network::EndpointSettings;
use engine::ReadOnlyBinds;
use stdx::{Context, Error, Result};

/// The option of an endpoint that has the sysctls of its interface.
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

const fn v(minor: u16) -> ApiVersion {
    ApiVersion::new(1, minor)
}

/// What is to be created. Gives what the client is warned of.
///
/// # Errors
/// Where it asks for what its version does not have, and leaving that out would be worse than saying so.
pub(crate) fn create(body: &mut CreateBody, version: ApiVersion) -> Result<Vec<String>> {
    if version < v(44)
        && let Some(check) = &mut body.config.healthcheck
    {
        check.start_interval = 0;
    }
    let mut warnings = Vec::new();
    if let Some(host) = &mut body.host_config {
        settings(host, version);
        mounts(host, version)?;
        warnings.extend(volume_driver(host, version));
    }
    if let Some(networking) = &mut body.networking_config {
        endpoints(networking, version)?;
    }
    warnings.extend(mac_address(body, version)?);
    warnings.extend(sysctls(body, version)?);
    Ok(warnings)
}

/// What is to be changed of a container.
pub(crate) fn update(body: &mut UpdateBody, version: ApiVersion) {
    if version < v(40) {
        body.resources.pids_limit = None;
    }
    if version >= v(42) {
        body.resources.kernel_memory = 0;
    }
}

fn settings(host: &mut HostConfig, version: ApiVersion) {
    if version < v(25) {
        host.auto_remove = false;
    }
    if version < v(40) {
        host.resources.kernel_memory_tcp = 0;
        if host.ipc_mode.is_empty() {
            host.ipc_mode = "shareable".to_owned();
        }
    }
    let is_unified = || Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if version < v(41) && host.cgroupns_mode.is_empty() && !is_unified() {
        host.cgroupns_mode = "host".to_owned();
    }
    if version < v(42) {
        host.console_size = [0, 0];
    } else {
        host.resources.kernel_memory = 0;
    }
    if version < v(43) {
        host.annotations.clear();
    }
}

/// What the client means by a read-only bind.
pub(crate) fn read_only_binds(version: ApiVersion) -> ReadOnlyBinds {
    if version < v(44) { ReadOnlyBinds::Alone } else { ReadOnlyBinds::Whole }
}

fn mounts(host: &mut HostConfig, version: ApiVersion) -> Result<()> {
    for mount in &mut host.mounts {
        let kind = mount.r#type.clone();
        if version < v(40) {
            change(&mut mount.bind_options, |options| options.non_recursive = false);
        }
        if version < v(42) {
            change(&mut mount.bind_options, |options| options.create_mountpoint = false);
            mount.volume_options.take_if(|_| kind != "volume");
            mount.tmpfs_options.take_if(|_| kind != "tmpfs");
        } else {
            let misplaced = [
                ("VolumeOptions", mount.volume_options.is_some() && kind != "volume"),
                ("BindOptions", mount.bind_options.is_some() && kind != "bind"),
                ("TmpfsOptions", mount.tmpfs_options.is_some() && kind != "tmpfs"),
            ];
            if let Some((name, _)) = misplaced.into_iter().find(|(_, is)| *is) {
                return Err(Error::invalid(format!(
                    "{name} must not be specified on mount type {kind:?}"
                )));
            }
        }
        if version < v(44) && kind == "bind" {
            if mount.bind_options.as_ref().is_some_and(|options| options.read_only_force_recursive)
            {
                return Err(Error::invalid(
                    "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
                ));
            }
            if mount.read_only {
                let options = mount.bind_options.get_or_insert_default();
                options.read_only_non_recursive = true;
            }
        }
        let subpath =
            mount.volume_options.as_ref().is_some_and(|options| !options.subpath.is_empty());
        if version < v(45) && subpath {
            return Err(Error::invalid("VolumeOptions.Subpath needs API v1.45 or newer"));
        }
        if version < v(48) && kind == "image" {
            return Err(Error::invalid(r#"Mount type "Image" needs API v1.48 or newer"#));
        }
    }
    Ok(())
}

fn change(options: &mut Option<BindOptions>, how: impl FnOnce(&mut BindOptions)) {
    if let Some(options) = options {
        how(options);
    }
}

fn volume_driver(host: &HostConfig, version: ApiVersion) -> Option<String> {
    if host.volume_driver.is_empty() || version < v(48) {
        return None;
    }
    let has_its_own = |mount: &api::container::Mount| {
        let options = mount.volume_options.as_ref();
        options
            .and_then(|options| options.driver_config.as_ref())
            .is_some_and(|own| !own.name.is_empty())
    };
    let mut volumes = host.mounts.iter().filter(|mount| mount.r#type == "volume");
    volumes.any(|mount| !has_its_own(mount)).then(|| {
        "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. Use \
         '--mount type=volume,volume-driver=...' instead"
            .to_owned()
    })
}

fn endpoints(networking: &mut NetworkingConfig, version: ApiVersion) -> Result<()> {
    let Some(endpoints) = &mut networking.endpoints_config else { return Ok(()) };
    if version < v(44) && endpoints.len() > 1 {
        let names: Vec<&str> = endpoints.keys().map(String::as_str).collect();
        return Err(Error::invalid(format!(
            "Container cannot be created with multiple network endpoints: {}",
            names.join(", ")
        )));
    }
    if version < v(48) {
        endpoints.values_mut().flatten().for_each(|endpoint| endpoint.gw_priority = 0);
    }
    Ok(())
}

/// The network that gives a container its mode.
fn mode(body: &CreateBody) -> &str {
    match body.host_config.as_ref().map_or("", |host| &host.network_mode) {
        "" => "default",
        mode => mode,
    }
}

fn is_joined(mode: &str) -> bool {
    !matches!(mode, "host" | "none") && !mode.starts_with("container:")
}

/// A MAC address belongs to the network the container runs on.
fn mac_address(body: &mut CreateBody, version: ApiVersion) -> Result<Option<String>> {
    let address = std::mem::take(&mut body.config.mac_address);
    if version < v(44) {
        if address.is_empty() {
            let networking = body.networking_config.as_mut();
            let endpoints = networking.and_then(|networking| networking.endpoints_config.as_mut());
            endpoints.into_iter().flat_map(|all| all.values_mut().flatten()).for_each(|endpoint| {
                endpoint.mac_address.clear();
            });
            return Ok(None);
        }
        if !is_joined(mode(body)) {
            return Err(Error::invalid("conflicting options: mac-address and the network mode"));
        }
        endpoint_of_mode(body, version)?.mac_address = address;
        return Ok(None);
    }
    if address.is_empty() {
        return Ok(None);
    }
    if is_joined(mode(body)) {
        let words =
            || "unable to migrate container-wide MAC address to a specific network".to_owned();
        let endpoint = endpoint_of_mode(body, version).context(words)?;
        if endpoint.mac_address.is_empty() {
            endpoint.mac_address = address;
        } else if endpoint.mac_address != address {
            return Err(Error::invalid(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be \
                 left empty",
            ));
        }
    }
    Ok(Some(
        "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
            .to_owned(),
    ))
}

/// `net.ipv4.conf.eth0.forwarding` can be set when there is an `eth0`: it belongs to the network that becomes it.
fn sysctls(body: &mut CreateBody, version: ApiVersion) -> Result<Option<String>> {
    if !is_joined(mode(body)) {
        return Ok(None);
    }
    let Some(host) = &mut body.host_config else { return Ok(None) };
    let of_interface = |name: &str| {
        let parts: Vec<&str> = name.splitn(5, '.').collect();
        parts.len() == 5 && parts[0] == "net" && parts[3].starts_with("eth")
    };
    let (mut moved, mut settings) = (Vec::new(), Vec::new());
    for (name, value) in &host.sysctls {
        if !of_interface(name) {
            continue;
        }
        if version > v(47) {
            return Err(Error::internal(format!(
                "interface specific sysctl setting {name:?} must be supplied using driver option '{SYSCTLS}'"
            )));
        }
        let parts: Vec<&str> = name.splitn(5, '.').collect();
        if parts[3] != "eth0" {
            return Err(Error::internal(format!(
                "unable to determine network endpoint for sysctl {name}, use driver option '{SYSCTLS}' to set \
                 per-interface sysctls"
            )));
        }
        settings.push(format!("net.{}.{}.IFNAME.{}={value}", parts[1], parts[2], parts[4]));
        moved.push(name.clone());
    }
    if moved.is_empty() {
        return Ok(None);
    }
    for name in &moved {
        host.sysctls.remove(name);
    }
    let words = || format!("unable to find a network for sysctl {}", moved[0]);
    let endpoint = endpoint_of_mode(body, version).context(words)?;
    let options = endpoint.driver_opts.get_or_insert_default();
    let settings = settings.join(",");
    let warning =
        format!("Migrated sysctl {:?} to DriverOpts{{{SYSCTLS:?}:{settings:?}}}.", moved.join(","));
    // What was said of the endpoint itself comes last, and stays in force.
    let all = match options.get(SYSCTLS) {
        Some(own) => format!("{settings},{own}"),
        None => settings,
    };
    options.insert(SYSCTLS.to_owned(), all);
    Ok(Some(warning))
}

/// The endpoint of the network that gives the container its mode.
fn endpoint_of_mode(body: &mut CreateBody, version: ApiVersion) -> Result<&mut EndpointSettings> {
    let name = mode(body).to_owned();
    let endpoints =
        body.networking_config.get_or_insert_default().endpoints_config.get_or_insert_default();
    // An older client's only endpoint is of that network, whatever it is called there.
    let key = match endpoints.keys().next() {
        None => name,
        Some(only) if version < v(44) => only.clone(),
        Some(_) if endpoints.contains_key(&name) => name,
        Some(_) if name == "default" && endpoints.contains_key("bridge") => "bridge".to_owned(),
        Some(_) => {
            return Err(Error::invalid(
                "HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks",
            ));
        }
    };
    Ok(endpoints.entry(key).or_default().get_or_insert_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The body as `version` has it, and the warnings; or the refusal.
    fn at(minor: u16, body: Value) -> Result<(Value, Vec<String>), String> {
        let mut body: CreateBody = serde_json::from_value(body).unwrap();
        let warnings = create(&mut body, v(minor)).map_err(|error| error.chain())?;
        Ok((serde_json::to_value(&body).unwrap(), warnings))
    }

    fn refused(minor: u16, body: Value) -> String {
        at(minor, body).unwrap_err()
    }

    #[test]
    fn what_came_later_is_not_there() {
        let check = json!({ "Healthcheck": { "StartInterval": 5 } });
        assert_eq!(at(44, check.clone()).unwrap().0["Healthcheck"]["StartInterval"], 5);
        assert_eq!(at(43, check).unwrap().0["Healthcheck"]["StartInterval"], Value::Null);
        let host = |minor, host: Value| {
            at(minor, json!({ "HostConfig": host })).unwrap().0["HostConfig"].clone()
        };
        assert_eq!(host(24, json!({ "AutoRemove": true }))["AutoRemove"], false);
        assert_eq!(host(25, json!({ "AutoRemove": true }))["AutoRemove"], true);
        assert_eq!(host(39, json!({}))["IpcMode"], "shareable");
        assert_eq!(host(39, json!({ "IpcMode": "host" }))["IpcMode"], "host");
        assert_eq!(host(40, json!({}))["IpcMode"], "");
        assert_eq!(host(41, json!({ "ConsoleSize": [3, 4] }))["ConsoleSize"], json!([0, 0]));
        assert_eq!(host(42, json!({ "KernelMemory": 9 }))["KernelMemory"], Value::Null);
        assert_eq!(host(42, json!({ "Annotations": { "a": "b" } }))["Annotations"], Value::Null);
        assert_eq!(host(43, json!({ "Annotations": { "a": "b" } }))["Annotations"]["a"], "b");
        assert_eq!(read_only_binds(v(43)), ReadOnlyBinds::Alone);
        assert_eq!(read_only_binds(v(44)), ReadOnlyBinds::Whole);
        let mut body = UpdateBody::default();
        body.resources.pids_limit = Some(3);
        update(&mut body, v(40));
        assert_eq!(body.resources.pids_limit, Some(3));
        update(&mut body, v(39));
        assert_eq!(body.resources.pids_limit, None);
    }

    #[test]
    fn mounts_of_older_clients() {
        let mount = |minor, mount: Value| at(minor, json!({ "HostConfig": { "Mounts": [mount] } }));
        let bind = |options: Value| json!({ "Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true, "BindOptions": options });
        let options = |minor, given: Value| {
            mount(minor, bind(given)).unwrap().0["HostConfig"]["Mounts"][0]["BindOptions"].clone()
        };
        assert_eq!(options(43, json!({})), json!({ "ReadOnlyNonRecursive": true }));
        assert_eq!(options(44, json!({})), json!({}));
        assert_eq!(
            options(39, json!({ "NonRecursive": true, "CreateMountpoint": true })),
            json!({ "ReadOnlyNonRecursive": true })
        );
        assert_eq!(
            mount(43, bind(json!({ "ReadOnlyForceRecursive": true }))).unwrap_err(),
            "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer"
        );
        let wrong = json!({ "Type": "volume", "Target": "/b", "TmpfsOptions": {} });
        assert_eq!(
            mount(42, wrong.clone()).unwrap_err(),
            r#"TmpfsOptions must not be specified on mount type "volume""#
        );
        assert!(mount(41, wrong).is_ok());
        let subpath =
            json!({ "Type": "volume", "Target": "/b", "VolumeOptions": { "Subpath": "x" } });
        assert!(mount(45, subpath.clone()).is_ok());
        assert_eq!(
            mount(44, subpath).unwrap_err(),
            "VolumeOptions.Subpath needs API v1.45 or newer"
        );
        let image = json!({ "Type": "image", "Source": "i", "Target": "/b" });
        assert_eq!(mount(47, image).unwrap_err(), r#"Mount type "Image" needs API v1.48 or newer"#);
    }

    #[test]
    fn a_mac_address_belongs_to_a_network() {
        const MAC: &str = "02:42:ac:11:00:02";
        let address = |minor, more: Value| {
            let mut body = json!({ "MacAddress": MAC });
            body.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
            at(minor, body)
        };
        let (body, warnings) = address(50, json!({})).unwrap();
        assert_eq!(body["NetworkingConfig"]["EndpointsConfig"]["default"]["MacAddress"], MAC);
        assert!(warnings[0].starts_with("The container-wide MacAddress field is now deprecated."));
        assert_eq!(address(43, json!({})).unwrap().1, Vec::<String>::new());
        let host = json!({ "HostConfig": { "NetworkMode": "host" } });
        assert_eq!(
            address(43, host.clone()).unwrap_err(),
            "conflicting options: mac-address and the network mode"
        );
        assert_eq!(address(44, host).unwrap().1.len(), 1);
        let other = json!({
            "HostConfig": { "NetworkMode": "net" },
            "NetworkingConfig": { "EndpointsConfig": { "net": { "MacAddress": "02:42:ac:11:00:03" } } },
        });
        assert!(
            address(44, other)
                .unwrap_err()
                .starts_with("the container-wide MAC address must match")
        );
        let elsewhere = json!({
            "HostConfig": { "NetworkMode": "net" },
            "NetworkingConfig": { "EndpointsConfig": { "other": {} } },
        });
        assert!(
            address(44, elsewhere.clone())
                .unwrap_err()
                .contains("must match the identity of a network")
        );
        let (body, _) = address(43, elsewhere).unwrap();
        assert_eq!(body["NetworkingConfig"]["EndpointsConfig"]["other"]["MacAddress"], MAC);
        let two = json!({ "NetworkingConfig": { "EndpointsConfig": { "a": {}, "b": {} } } });
        assert_eq!(
            refused(43, two.clone()),
            "Container cannot be created with multiple network endpoints: a, b"
        );
        assert!(at(44, two).is_ok());
    }

    #[test]
    fn sysctls_of_an_interface() {
        let with =
            |minor, sysctls: Value| at(minor, json!({ "HostConfig": { "Sysctls": sysctls } }));
        let eth0 = json!({ "net.ipv4.conf.eth0.forwarding": "1", "net.ipv4.ip_forward": "1" });
        let (body, warnings) = with(47, eth0.clone()).unwrap();
        assert_eq!(body["HostConfig"]["Sysctls"], json!({ "net.ipv4.ip_forward": "1" }));
        assert_eq!(
            body["NetworkingConfig"]["EndpointsConfig"]["default"]["DriverOpts"][SYSCTLS],
            "net.ipv4.conf.IFNAME.forwarding=1"
        );
        assert_eq!(
            warnings,
            [
                r#"Migrated sysctl "net.ipv4.conf.eth0.forwarding" to DriverOpts{"com.docker.network.endpoint.sysctls":"net.ipv4.conf.IFNAME.forwarding=1"}."#
            ]
        );
        assert!(with(48, eth0).unwrap_err().contains("must be supplied using driver option"));
        assert!(
            with(47, json!({ "net.ipv4.conf.eth1.x": "1" }))
                .unwrap_err()
                .contains("unable to determine")
        );
    }
}
