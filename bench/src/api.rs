//! One container's life through the API, on a connection that is kept.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::engine::{Engine, busybox};
use crate::http::NotBuilt;
use crate::table::{Budget, Row, Table, Unit};
use crate::turns::{Round, Turns, clock};

const STEPS: [(&str, Option<Budget>); 5] = [
    ("API create", None),
    ("API start", None),
    ("API wait", None),
    ("API rm", None),
    ("API create + start + wait + rm", Some(Budget { ratio: 8.0 / 291.0, words: "8 of 291 ms" })),
];

pub(crate) fn measure(
    turns: &Turns,
    ours: &Engine,
    theirs: Option<&Engine>,
    table: &mut Table,
) -> Result<()> {
    side_by_side(turns, ours, theirs, table, &STEPS, life)?;
    let budget = Budget { ratio: 10.0 / 197.0, words: "10 of 197 ms" };
    let rows = [("create + start, a published port", Some(budget))];
    match side_by_side(turns, ours, theirs, table, &rows, published) {
        Err(error) if error.chain().any(|cause| cause.is::<NotBuilt>()) => {
            eprintln!("{}: left out: {error:#}", rows[0].0);
            Ok(())
        }
        outcome => outcome,
    }
}

pub(crate) fn measure_exec(
    turns: &Turns,
    ours: &Engine,
    theirs: Option<&Engine>,
    table: &mut Table,
) -> Result<()> {
    let engines: Vec<&Engine> = [Some(ours), theirs].into_iter().flatten().collect();
    let mut ids = Vec::new();
    for engine in &engines {
        let mut http = engine.connect()?;
        let id = engine.create(&mut http, &busybox(&["sleep", "86400"]))?;
        engine.start(&mut http, &id)?;
        ids.push(id);
    }
    let of = |engine: &Engine| if engine.name == ours.name { &ids[0] } else { &ids[1] };
    let budget = Budget { ratio: 4.0 / 64.0, words: "4 of 64 ms" };
    let rows = [("exec true, through the API", Some(budget))];
    side_by_side(turns, ours, theirs, table, &rows, |engine| exec(engine, of(engine)))?;
    for engine in engines {
        engine.remove(&mut engine.connect()?, of(engine))?;
    }
    Ok(())
}

/// Both in turn, one row of milliseconds for each value of a round.
pub(crate) fn side_by_side(
    turns: &Turns,
    ours: &Engine,
    theirs: Option<&Engine>,
    table: &mut Table,
    rows: &[(&str, Option<Budget>)],
    round: impl Fn(&Engine) -> Result<Vec<f64>>,
) -> Result<()> {
    let rows: Vec<_> =
        rows.iter().map(|(name, budget)| (*name, Unit::Milliseconds, *budget)).collect();
    rows_side_by_side(turns, ours, theirs, table, &rows, round)
}

/// Both in turn, one row for each value of a round.
pub(crate) fn rows_side_by_side(
    turns: &Turns,
    ours: &Engine,
    theirs: Option<&Engine>,
    table: &mut Table,
    rows: &[(&str, Unit, Option<Budget>)],
    round: impl Fn(&Engine) -> Result<Vec<f64>>,
) -> Result<()> {
    let round = &round;
    let mut contestants: Vec<Round> = vec![Box::new(move || round(ours))];
    if let Some(theirs) = theirs {
        contestants.push(Box::new(move || round(theirs)));
    }
    let mut all = turns.take(&mut contestants)?.into_iter();
    let mut ours = all.next().unwrap_or_default().into_iter();
    let mut theirs = all.next().unwrap_or_default().into_iter();
    for (name, unit, budget) in rows {
        table.push(Row {
            name: (*name).to_owned(),
            unit: *unit,
            ours: ours.next().unwrap_or_default(),
            against: theirs.next().map(|values| ("dockerd", values)),
            budget: *budget,
        });
    }
    Ok(())
}

fn life(engine: &Engine) -> Result<Vec<f64>> {
    let mut http = engine.connect()?;
    let (create, id) = clock(|| engine.create(&mut http, &busybox(&["true"])))?;
    let (start, ()) = clock(|| engine.start(&mut http, &id))?;
    let (wait, ()) = clock(|| engine.wait(&mut http, &id))?;
    let (remove, ()) = clock(|| engine.remove(&mut http, &id))?;
    Ok(vec![create, start, wait, remove, create + start + wait + remove])
}

fn published(engine: &Engine) -> Result<Vec<f64>> {
    let mut http = engine.connect()?;
    let mut body = busybox(&["sleep", "86400"]);
    body["ExposedPorts"] = json!({ "80/tcp": {} });
    body["HostConfig"]["PortBindings"] = json!({ "80/tcp": [{ "HostIp": "", "HostPort": "" }] });
    let (time, id) = clock(|| {
        let id = engine.create(&mut http, &body)?;
        engine.start(&mut http, &id)?;
        Ok(id)
    })?;
    engine.remove(&mut http, &id)?;
    Ok(vec![time])
}

/// As `docker exec` does it: make, start and read to the end, look at the exit code.
fn exec(engine: &Engine, container: &str) -> Result<Vec<f64>> {
    let body = json!({ "Cmd": ["true"], "AttachStdout": true, "AttachStderr": true });
    let mut http = engine.connect()?;
    let mut joined = engine.connect()?;
    let (time, state) = clock(|| {
        let path = format!("/containers/{container}/exec");
        let made = http.json("POST", &path, Some(&body))?;
        let id = made["Id"].as_str().context("no id")?;
        joined.ask("POST", &format!("/exec/{id}/start"), Some(&json!({ "Detach": false })))?;
        http.json("GET", &format!("/exec/{id}/json"), None)
    })?;
    ensure!(state["ExitCode"] == 0, "{}: {state}", engine.name);
    Ok(vec![time])
}
