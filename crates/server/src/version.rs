//! The version gate: every path may begin with `/v1.41`, and every difference between versions ends here.

use std::borrow::Cow;
use std::collections::BTreeMap;

use api::ApiVersion;
use api::container::{BindOptions, LegacyNetworkSettings};
use api::system::{DiskUsage, LegacyDiskUsage};
use axum::response::Response;
use engine::Filters;
use http::Uri;
use serde_json::{Value, json};
use stdx::{Error, Result};

use crate::stream;

/// Takes the version off the front of a path, and doubled slashes with it. A path without a version speaks the newest.
pub(crate) fn strip(uri: &Uri) -> Result<(ApiVersion, Uri)> {
    if !is_text(uri.path()) {
        return Err(Error::invalid("malformed path: it is not text"));
    }
    let path = collapse(uri.path());
    let (version, rest) = match split(&path) {
        None => (ApiVersion::MAX, path.as_str()),
        Some((text, rest)) => {
            let version: ApiVersion = text.parse()?;
            if version < ApiVersion::MIN {
                return Err(Error::invalid(format!(
                    "client version {text} is too old. Minimum supported API version is {}, please upgrade your client \
                     to a newer version",
                    ApiVersion::MIN
                )));
            }
            if version > ApiVersion::MAX {
                return Err(Error::invalid(format!(
                    "client version {text} is too new. Maximum supported API version is {}",
                    ApiVersion::MAX
                )));
            }
            (version, rest)
        }
    };
    let rest = by_link(rest);
    let text = match uri.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.into_owned(),
    };
    let uri = text.parse().map_err(|cause| Error::invalid("malformed path").caused_by(cause))?;
    Ok((version, uri))
}

/// Whether what the path means is UTF-8.
fn is_text(path: &str) -> bool {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((plain, escaped)) = rest.split_once('%') {
        bytes.extend_from_slice(plain.as_bytes());
        let byte = escaped.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.extend(byte);
        rest = escaped.get(if byte.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    std::str::from_utf8(&bytes).is_ok()
}

/// `/v1.41/info` → `1.41`, `/info`. Only digits and points are a version: `/volumes` is not.
fn split(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/v")?;
    let end = rest.find('/')?;
    let (version, rest) = rest.split_at(end);
    let right =
        !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    right.then_some((version, rest))
}

/// `docker inspect /web` asks for `/containers//web/json`.
fn collapse(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out
}

/// A container may be called by what another one calls it: `/containers/web/db/json`. The routes see one name.
fn by_link(path: &str) -> Cow<'_, str> {
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["", "containers", name, "attach", "ws"] if !name.is_empty() => path.into(),
        ["", "containers", parent, alias, "attach", "ws"] => {
            format!("/containers/{parent}%2F{alias}/attach/ws").into()
        }
        ["", "containers", parent, alias, verb] if alias != "checkpoints" => {
            format!("/containers/{parent}%2F{alias}/{verb}").into()
        }
        _ => path.into(),
    }
}

const V1_42: ApiVersion = ApiVersion::new(1, 42);
const V1_44: ApiVersion = ApiVersion::new(1, 44);
const V1_45: ApiVersion = ApiVersion::new(1, 45);
const V1_46: ApiVersion = ApiVersion::new(1, 46);
const V1_48: ApiVersion = ApiVersion::new(1, 48);
const V1_49: ApiVersion = ApiVersion::new(1, 49);
const V1_50: ApiVersion = ApiVersion::new(1, 50);
const V1_52: ApiVersion = ApiVersion::new(1, 52);

/// The content type of a container's output. Before 1.42 it did not tell whether there are frames.
pub(crate) fn output_type(version: ApiVersion, tty: bool) -> &'static str {
    match tty || version < V1_42 {
        true => "application/vnd.docker.raw-stream",
        false => "application/vnd.docker.multiplexed-stream",
    }
}

/// What an older client expects to find in a container.
pub(crate) fn inspect(container: &mut api::container::Inspect, version: ApiVersion) {
    if version >= V1_52 {
        // The endpoint has it.
        container.config.mac_address.clear();
        return;
    }
    let networks = &mut container.network_settings.networks;
    let bridge = networks.get("bridge").cloned().unwrap_or_default();
    container.network_settings.legacy = Some(LegacyNetworkSettings {
        endpoint_id: bridge.endpoint_id,
        gateway: bridge.gateway,
        global_ipv6_address: bridge.global_ipv6_address,
        global_ipv6_prefix_len: bridge.global_ipv6_prefix_len,
        ip_address: bridge.ip_address,
        ip_prefix_len: bridge.ip_prefix_len,
        ipv6_gateway: bridge.ipv6_gateway,
        mac_address: bridge.mac_address,
        ..LegacyNetworkSettings::default()
    });
    if version < V1_45 {
        // The short ID and the hostname were aliases; now they are among the DNS names only.
        let short: String = container.id.chars().take(12).collect();
        let names = [short, container.config.hostname.clone()];
        let user_defined = |name: &str| !matches!(name, "bridge" | "host" | "none" | "default");
        let mut ever_joined =
            networks.iter_mut().filter(|(_, joined)| !joined.network_id.is_empty());
        for (_, endpoint) in ever_joined.by_ref().filter(|(name, _)| user_defined(name)) {
            let aliases = endpoint.aliases.get_or_insert_default();
            for name in names.iter().filter(|name| !name.is_empty()) {
                if !aliases.contains(name) {
                    aliases.push(name.clone());
                }
            }
        }
    }
    if version < V1_44 {
        // They all are so for a client of then, and it did not say it.
        for mount in &mut container.host_config.mounts {
            if let Some(options) = &mut mount.bind_options {
                options.read_only_non_recursive = false;
            }
            mount.bind_options.take_if(|options| *options == BindOptions::default());
        }
    }
}

pub(crate) fn summary(container: &mut api::container::Summary, version: ApiVersion) {
    if version < V1_52 {
        container.health = None;
    }
    if version < V1_46 {
        container.host_config.annotations.clear();
    }
}

pub(crate) fn images(images: &mut [api::image::Summary], version: ApiVersion) {
    if version < V1_44 {
        for image in images {
            image.virtual_size = image.size;
        }
    }
}

/// An image, with the fields that were never left out when they were empty. Docker adds them to the finished document,
/// which sorts its keys; so do we.
pub(crate) fn image(image: &api::image::Inspect, version: ApiVersion) -> Response {
    if version >= V1_52 {
        return stream::ok(image);
    }
    let mut document = serde_json::to_value(image).expect("what we answer has string keys only");
    let mut empty = json!({"Author": "", "Comment": "", "DockerVersion": "", "Parent": ""});
    if version < V1_44 {
        empty["VirtualSize"] = image.size.into();
    }
    let mut config = json!({
        "Cmd": null, "Entrypoint": null, "Env": null, "Labels": null, "OnBuild": null, "User": "", "Volumes": null,
        "WorkingDir": "",
    });
    if version < V1_50 {
        let more = json!({
            "AttachStderr": false, "AttachStdin": false, "AttachStdout": false, "Domainname": "", "Hostname": "",
            "Image": "", "OpenStdin": false, "StdinOnce": false, "Tty": false,
        });
        fill(&mut config, more);
    }
    fill(&mut document["Config"], config);
    if version < V1_45 {
        // Of the container that an image was made from. Whoever reads it, as Compose's first edition does, looks for the
        // volumes that the image declares.
        empty["Container"] = "".into();
        empty["ContainerConfig"] = document["Config"].clone();
    }
    fill(&mut document, empty);
    stream::ok(&document)
}

/// Adds what is not there.
fn fill(document: &mut Value, fields: Value) {
    if let (Value::Object(document), Value::Object(fields)) = (document, fields) {
        for (name, value) in fields {
            document.entry(name).or_insert(value);
        }
    }
}

pub(crate) fn info(info: &mut api::system::Info, version: ApiVersion) {
    if version < V1_50 {
        (info.bridge_nf_iptables, info.bridge_nf_ip6tables) = (Some(false), Some(false));
        info.discovered_devices.clear();
    }
    if version < V1_49 {
        info.firewall_backend = None;
        for commit in [&mut info.containerd_commit, &mut info.runc_commit, &mut info.init_commit] {
            commit.expected.clone_from(&commit.id);
        }
    }
}

/// Lists of networks carried an empty map of containers.
pub(crate) fn networks(networks: &mut [api::network::Network], version: ApiVersion) {
    for network in networks {
        network.status = None;
        network.containers = (version < V1_52).then(BTreeMap::new);
    }
}

/// What a client asks for: before 1.48 nobody could do without IPv4.
pub(crate) fn network_body(
    mut body: api::network::CreateBody,
    version: ApiVersion,
) -> api::network::CreateBody {
    if version < V1_48 {
        body.enable_ipv4 = None;
    }
    body
}

pub(crate) fn network(network: &mut api::network::Network, version: ApiVersion) {
    if version < V1_52 {
        network.status = None;
    }
}

/// Before 1.42 all unused volumes went, named or not.
pub(crate) fn volume_prune_filters(
    mut filters: BTreeMap<String, Vec<String>>,
    version: ApiVersion,
) -> Result<Filters> {
    if version < V1_42 {
        filters.insert("all".to_owned(), vec!["true".to_owned()]);
    }
    Filters::parse(&serde_json::to_string(&filters).expect("text is always JSON"))
}

/// The fields at the top of an event that were there before there were actors.
pub(crate) fn event(message: &mut api::event::Message, version: ApiVersion) {
    if version >= V1_52 {
        return;
    }
    match message.r#type.as_str() {
        "container" => {
            message.from = message.actor.attributes.get("image").cloned().unwrap_or_default();
        }
        "image" => {}
        _ => return,
    }
    message.status.clone_from(&message.action);
    message.id.clone_from(&message.actor.id);
}

/// Usage by kind, or, for older clients, plain lists.
pub(crate) enum Usage {
    Today(DiskUsage),
    Legacy(LegacyDiskUsage),
}

pub(crate) fn disk_usage(mut usage: DiskUsage, version: ApiVersion, items: Items) -> Usage {
    if version >= V1_52 {
        if items == Items::Omitted {
            usage.image_usage.iter_mut().for_each(|usage| usage.items.clear());
            usage.container_usage.iter_mut().for_each(|usage| usage.items.clear());
            usage.volume_usage.iter_mut().for_each(|usage| usage.items.clear());
            usage.build_cache_usage.iter_mut().for_each(|usage| usage.items.clear());
        }
        return Usage::Today(usage);
    }
    let layers_size = usage.image_usage.as_ref().map_or(0, |usage| usage.total_size);
    Usage::Legacy(LegacyDiskUsage {
        layers_size,
        images: usage.image_usage.map(|usage| {
            let mut items = usage.items;
            images(&mut items, version);
            items
        }),
        containers: usage.container_usage.map(|usage| {
            let mut items = usage.items;
            items.iter_mut().for_each(|item| summary(item, version));
            items
        }),
        volumes: usage.volume_usage.map(|usage| usage.items),
        build_cache: usage.build_cache_usage.map(|usage| usage.items),
    })
}

/// `verbose` of `/system/df`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Items {
    Listed,
    Omitted,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uri: &str) -> Result<(String, String)> {
        let (version, uri) = strip(&uri.parse().unwrap())?;
        Ok((version.to_string(), uri.to_string()))
    }

    fn passes(uri: &str, version: &str, rest: &str) {
        assert_eq!(check(uri).unwrap(), (version.to_owned(), rest.to_owned()), "{uri}");
    }

    #[test]
    fn the_version_comes_off() {
        passes("/v1.41/info", "1.41", "/info");
        passes("/info?a=b", "1.55", "/info?a=b");
        passes("/volumes", "1.55", "/volumes");
        passes("/v1.24/containers//web/json?size=1", "1.24", "/containers/web/json?size=1");
        passes("/version", "1.55", "/version");
        passes("/containers/%c3%a9%2f/json", "1.55", "/containers/%c3%a9%2f/json");
        passes("/containers/100%/json", "1.55", "/containers/100%/json");
        assert!(check("/containers/%ff/json").is_err());
    }

    #[test]
    fn names_by_link_are_one_name() {
        passes("/containers/web/db/json?size=1", "1.55", "/containers/web%2Fdb/json?size=1");
        passes("/v1.41/containers//web/db/start", "1.41", "/containers/web%2Fdb/start");
        passes("/containers/web/db/attach/ws", "1.55", "/containers/web%2Fdb/attach/ws");
        for plain in
            ["/containers/web/attach/ws", "/containers/web/checkpoints/one", "/containers/web/json"]
        {
            passes(plain, "1.55", plain);
        }
    }

    #[test]
    fn a_mac_address_is_the_endpoints_since_1_52() {
        let shown = |minor| {
            let mut container = api::container::Inspect::default();
            container.config.mac_address = "02:42:ac:11:00:02".to_owned();
            inspect(&mut container, ApiVersion::new(1, minor));
            container.config.mac_address
        };
        assert_eq!(
            [shown(43), shown(51), shown(52)],
            ["02:42:ac:11:00:02", "02:42:ac:11:00:02", ""]
        );
    }

    #[test]
    fn out_of_range_in_dockers_words() {
        assert_eq!(
            check("/v1.20/info").unwrap_err().to_string(),
            "client version 1.20 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer \
             version"
        );
        assert_eq!(
            check("/v1.99/info").unwrap_err().to_string(),
            "client version 1.99 is too new. Maximum supported API version is 1.55"
        );
        assert!(check("/v1..2/info").is_err());
    }

    #[tokio::test]
    async fn an_image_for_older_clients() {
        use http_body_util::BodyExt;
        let image = api::image::Inspect {
            config: Some(api::image::Config::default()),
            ..Default::default()
        };
        let body = async |version: &str| {
            let bytes = super::image(&image, version.parse().unwrap())
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes();
            String::from_utf8(bytes.to_vec()).unwrap()
        };
        assert!(body("1.52").await.contains(r#""Config":{},"Architecture""#));
        let config = r#""Config":{"Cmd":null,"Entrypoint":null,"Env":null,"Labels":null,"OnBuild":null,"User":"","Volumes":null,"WorkingDir":""}"#;
        assert!(body("1.51").await.contains(config));
        assert!(body("1.49").await.contains(r#""Hostname":"","Image":"""#));
        assert!(body("1.43").await.contains(r#""VirtualSize":0"#));
        assert!(body("1.44").await.contains(r#""ContainerConfig":{"AttachStderr":false"#));
        assert!(!body("1.45").await.contains("ContainerConfig"));
    }
}
