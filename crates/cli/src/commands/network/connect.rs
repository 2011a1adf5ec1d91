//! `network connect`.

use api::network::{ConnectBody, EndpointIpamConfig, EndpointSettings};

use super::path;
use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["network connect"],
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Connect a container to a network",
    args: Args::Exactly(2),
    flags: &[
        Flag::new("alias", Kind::Strings, "Add network-scoped alias for the container"),
        Flag::new("driver-opt", Kind::Strings, "driver options for the network"),
        Flag::new(
            "gw-priority",
            Kind::Int,
            "Highest gw-priority provides the default gateway. Accepts positive and negative values.",
        ),
        Flag::new("ip", Kind::Text, "IPv4 address (e.g., \"172.30.100.104\")"),
        Flag::new("ip6", Kind::Text, "IPv6 address (e.g., \"2001:db8::33\")"),
        Flag::new("link", Kind::List, "Add link to another container"),
        Flag::new("link-local-ip", Kind::Strings, "Add a link-local address for the container"),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    let owned = |name: &str| flags.list(name).into_iter().map(str::to_owned).collect::<Vec<_>>();
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    let mut driver_opts = api::StringMap::new();
    for option in flags.list("driver-opt") {
        let (key, value) = option
            .split_once('=')
            .ok_or_else(|| Failure::words("invalid key/value pair format in driver options"))?;
        driver_opts.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    let ipam = EndpointIpamConfig {
        ipv4_address: flags.text("ip").to_owned(),
        ipv6_address: flags.text("ip6").to_owned(),
        link_local_ips: owned("link-local-ip"),
    };
    let body = ConnectBody {
        container: call.arg(1).to_owned(),
        endpoint_config: Some(EndpointSettings {
            ipam_config: Some(ipam),
            links: some(owned("link")),
            aliases: some(owned("alias")),
            driver_opts: Some(driver_opts),
            gw_priority: flags.int("gw-priority").unwrap_or(0),
            ..EndpointSettings::default()
        }),
    };
    Ok(call
        .cli
        .client()?
        .post(format!("{}/connect", path(call.arg(0))))
        .json(&body)?
        .done()
        .await?)
}
