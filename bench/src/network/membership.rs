//! A container that runs is connected to a network, and disconnected again.

use anyhow::Result;
use serde_json::json;

use crate::network::site::Site;
use crate::network::{LEVEL, Promise};
use crate::table::Unit;
use crate::turns::{Values, clock};

pub(crate) const ROWS: [Promise; 2] = [
    ("network connect, container running", Unit::Milliseconds, LEVEL),
    ("network disconnect, container running", Unit::Milliseconds, LEVEL),
];

pub(crate) fn round(site: &Site) -> Result<Values> {
    let mut http = site.engine().connect()?;
    let body = json!({ "Container": site.guest });
    let mut timed = |verb: &str| {
        let path = format!("/networks/{}/{verb}", site.network());
        Ok::<_, anyhow::Error>(clock(|| http.ask("POST", &path, Some(&body)))?.0)
    };
    Ok(vec![timed("connect")?, timed("disconnect")?])
}
