//! Published ports in numbers: whether the last container's cost what the first one's did.

use anyhow::Result;
use serde_json::json;

use crate::engine::{Engine, busybox};
use crate::table::{Row, Table, Unit};
use crate::turns::{Turns, clock};

/// As many as are looked at, of the first and of the last.
const FEW: usize = 20;
const NETWORK: &str = "ports";

/// One client has one container after the other made and started, each with two published ports, on one bridge.
pub(crate) fn measure(
    turns: &Turns,
    containers: usize,
    ours: &Engine,
    theirs: Option<&Engine>,
    table: &mut Table,
) -> Result<()> {
    let mut crowds = Vec::new();
    for engine in [Some(ours), theirs].into_iter().flatten() {
        let network = json!({
            "Name": NETWORK,
            "IPAM": { "Config": [{ "Subnet": "10.98.0.0/16" }] },
        });
        let mut http = engine.connect()?;
        http.json("POST", "/networks/create", Some(&network))?;
        crowds.push((engine, http, Vec::new(), Vec::new()));
    }
    let mut body = busybox(&["sleep", "86400"]);
    body["ExposedPorts"] = json!({ "80/tcp": {}, "443/tcp": {} });
    body["HostConfig"]["PortBindings"] = json!({ "80/tcp": [{}], "443/tcp": [{}] });
    body["HostConfig"]["NetworkMode"] = NETWORK.into();
    // The first of all warms up.
    for _ in 0..=containers {
        for (engine, http, times, ids) in &mut crowds {
            turns.stop.check()?;
            let (time, id) = clock(|| {
                let id = engine.create(http, &body)?;
                engine.start(http, &id)?;
                Ok(id)
            })?;
            times.push(time);
            ids.push(id);
        }
    }
    let few = containers.min(FEW);
    for which in ["first", "last"] {
        let mut values = crowds.iter().map(|(_, _, times, _)| match which {
            "first" => times[1..=few].to_vec(),
            _ => times[times.len() - few..].to_vec(),
        });
        table.push(Row {
            name: format!("two published ports, the {which} {few} of {containers}"),
            unit: Unit::Milliseconds,
            ours: values.next().unwrap_or_default(),
            against: values.next().map(|values| ("dockerd", values)),
            budget: None,
        });
    }
    for (engine, mut http, _, ids) in crowds {
        ids.iter().try_for_each(|id| engine.remove(&mut http, id))?;
        http.ask("DELETE", &format!("/networks/{NETWORK}"), None)?;
    }
    Ok(())
}
