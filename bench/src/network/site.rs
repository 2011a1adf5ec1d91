//! What is built at each engine to be measured: a network with two containers, a neighbour of its host, a server of names
//! and one of bytes.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::Netns;

use crate::engine::{Engine, busybox};
use crate::network::dns::Upstream;
use crate::network::place::Place;
use crate::network::streams::{self, Server};

const NETWORK: &str = "bench";
/// The container that answers, and the name it is asked for.
pub(crate) const TARGET: &str = "target";
const CLIENT: &str = "client";
/// Of the host, where its neighbour sees it.
const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const WIRE: &str = "bench-wire";

pub(crate) struct Site {
    engine: Engine,
    /// On the default bridge, to be connected to the network and taken off it.
    pub(crate) guest: String,
    ids: Vec<String>,
    pub(crate) host: Place,
    pub(crate) client: Place,
    pub(crate) neighbour: Place,
    /// The target, on its network.
    pub(crate) direct: SocketAddr,
    pub(crate) published: u16,
    _neighbour: Netns,
    _upstream: Upstream,
    /// In the container, and in the host itself.
    _servers: [Server; 2],
}

impl Site {
    pub(crate) fn new(engine: &Engine) -> Result<Self> {
        let mut http = engine.connect()?;
        let body = json!({ "Name": NETWORK, "Driver": "bridge", "CheckDuplicate": true });
        http.ask("POST", "/networks/create", Some(&body))?;
        let network = http.json("GET", &format!("/networks/{NETWORK}"), None)?;
        let gateway: Ipv4Addr = text(&network["IPAM"]["Config"][0]["Gateway"])?
            .split('/')
            .next()
            .unwrap_or_default()
            .parse()?;
        let mut ids = Vec::new();
        let mut up = |name: &str, host: Value| -> Result<Value> {
            let mut body = busybox(&["sleep", "86400"]);
            body["ExposedPorts"] = json!({ format!("{}/tcp", streams::PORT): {} });
            for (key, value) in host.as_object().into_iter().flatten() {
                body["HostConfig"][key] = value.clone();
            }
            let answer =
                http.json("POST", &format!("/containers/create?name={name}"), Some(&body))?;
            let id = text(&answer["Id"])?.to_owned();
            engine.start(&mut http, &id)?;
            ids.push(id.clone());
            http.json("GET", &format!("/containers/{id}/json"), None)
        };
        let bindings = json!({ format!("{}/tcp", streams::PORT): [{}] });
        let target = up(TARGET, json!({ "NetworkMode": NETWORK, "PortBindings": bindings }))?;
        let client = up(CLIENT, json!({ "NetworkMode": NETWORK, "Dns": [gateway.to_string()] }))?;
        let guest = text(&up("guest", json!({}))?["Id"])?.to_owned();
        let settings = &target["NetworkSettings"];
        let address: Ipv4Addr = text(&settings["Networks"][NETWORK]["IPAddress"])?.parse()?;
        let bound = &settings["Ports"][format!("{}/tcp", streams::PORT)][0]["HostPort"];
        let published = text(bound)?.parse()?;
        let host = Place::at(&engine.network_namespace())?;
        let upstream = host.within(|| Upstream::start(gateway))?;
        let servers = [place_of(&target)?.within(Server::start)?, host.within(Server::start)?];
        let neighbour = neighbour(engine)?;
        Ok(Self {
            engine: engine.clone(),
            guest,
            ids,
            client: place_of(&client)?,
            neighbour: Place::at(&neighbour.path())?,
            host,
            direct: SocketAddr::new(address.into(), streams::PORT),
            published,
            _neighbour: neighbour,
            _upstream: upstream,
            _servers: servers,
        })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn network(&self) -> &'static str {
        NETWORK
    }

    /// The published port, as the host's neighbour finds it.
    pub(crate) fn outside(&self) -> SocketAddr {
        SocketAddr::new(HOST.into(), self.published)
    }

    /// The published port, as the host itself finds it.
    pub(crate) fn inside(&self) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.published)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let Ok(mut http) = self.engine.connect() else { return };
        for id in &self.ids {
            let _as_far_as_it_goes = self.engine.remove(&mut http, id);
        }
        let _as_far_as_it_goes = http.ask("DELETE", &format!("/networks/{NETWORK}"), None);
    }
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().context("an answer without what it must have")
}

fn place_of(container: &Value) -> Result<Place> {
    let pid = container["State"]["Pid"].as_u64().context("no process id")?;
    Place::of_process(u32::try_from(pid)?)
}

/// Another host on a wire with the engine's; the wire goes with it.
fn neighbour(engine: &Engine) -> Result<Netns> {
    let neighbour = Netns::new();
    let [here, there] = [engine.network_namespace(), neighbour.path()];
    let [here, there] = [here, there].map(|path| format!("--net={}", path.display()));
    let daemon = engine.daemon.to_string();
    for (place, words) in [
        (&there, format!("link add eth0 type veth peer name {WIRE} netns {daemon}")),
        (&here, format!("addr add {HOST}/30 dev {WIRE}")),
        (&here, format!("link set {WIRE} up")),
        (&there, "addr add 198.51.100.2/30 dev eth0".to_owned()),
        (&there, "link set eth0 up".to_owned()),
    ] {
        let status =
            Command::new("nsenter").arg(place).arg("ip").args(words.split(' ')).status()?;
        ensure!(status.success(), "ip {words}: {status}");
    }
    Ok(neighbour)
}
