//! Much output: written by a container, read by a client.

use anyhow::{Result, ensure};

use crate::api::side_by_side;
use crate::engine::{Engine, busybox};
use crate::table::{Budget, Table};
use crate::turns::{Turns, clock};

const LINES: usize = 400_000;
/// 64 bytes with its end, as a short line of an access log.
const LINE: &str = "10.0.0.1 - - [21/Nov/2026:15:05:18] GET /index.html HTTP/1.1 200";

pub(crate) fn measure(
    turns: &Turns,
    ours: &Engine,
    theirs: Option<&Engine>,
    table: &mut Table,
) -> Result<()> {
    let rows = [
        ("400,000 log lines written", Some(Budget { ratio: 0.5 / 1.39, words: "0.5 of 1.39 s" })),
        ("400,000 log lines read", Some(Budget { ratio: 0.3 / 5.07, words: "0.3 of 5.07 s" })),
    ];
    side_by_side(&turns.fewer(), ours, theirs, table, &rows, round)
}

fn round(engine: &Engine) -> Result<Vec<f64>> {
    let mut http = engine.connect()?;
    let script = format!("yes '{LINE}' | head -n {LINES}");
    let id = engine.create(&mut http, &busybox(&["sh", "-c", &script]))?;
    let (written, ()) = clock(|| {
        engine.start(&mut http, &id)?;
        engine.wait(&mut http, &id)
    })?;
    let mut bytes = 0;
    let path = format!("/containers/{id}/logs?stdout=1&stderr=1");
    let (read, ()) =
        clock(|| http.stream_to("GET", &path, "", b"", &mut |piece| bytes += piece.len()))?;
    // A frame's head for each line, or for several.
    ensure!(bytes >= LINES * (LINE.len() + 1), "{} returned {bytes} bytes", engine.name);
    engine.remove(&mut engine.connect()?, &id)?;
    Ok(vec![written, read])
}
