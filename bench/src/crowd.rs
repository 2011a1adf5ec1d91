//! Many containers: how fast they come up, what each of them weighs, and how long a list of them takes.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::House;

use crate::api::side_by_side;
use crate::engine::{Engine, busybox};
use crate::http::Http;
use crate::table::{Budget, Row, Table, Unit};
use crate::turns::{Turns, clock};

const CLIENTS: usize = 8;
/// As many as are looked at to tell whether the first come up as fast as the last.
const FEW: usize = 50;
/// Where a crowd is at home: a bridge has a thousand ports, and the one that is there to begin with not as many addresses.
const NETWORK: &str = "crowd";

const REST: std::time::Duration = std::time::Duration::from_secs(15);

/// What an engine weighs that has nothing to do.
#[expect(clippy::disallowed_methods, reason = "that nothing happens is no event")]
pub(crate) fn idle(ours: &Engine, theirs: Option<&Engine>, table: &mut Table) -> Result<()> {
    // So long that every engine has done what it does when it has nothing to do.
    std::thread::sleep(REST);
    table.push(Row {
        name: "engine memory, idle".to_owned(),
        unit: Unit::MiB,
        ours: vec![ours.memory()?],
        against: theirs.map(|peer| peer.memory().map(|it| ("dockerd", vec![it]))).transpose()?,
        budget: Some(Budget { ratio: 12.0 / 155.0, words: "12 of 155 MiB" }),
    });
    Ok(())
}

pub(crate) fn measure(
    turns: &Turns,
    containers: usize,
    house: &mut House,
    theirs: Option<&Engine>,
    table: &mut Table,
) -> Result<()> {
    let ours = &Engine::of_house(house);
    let engines: Vec<&Engine> = [Some(ours), theirs].into_iter().flatten().collect();
    let mut crowds = Vec::new();
    for engine in &engines {
        crowds.push(Crowd::new(engine)?);
    }
    let few = containers.min(FEW);
    for size in [few, containers] {
        for (engine, crowd) in engines.iter().zip(&mut crowds) {
            crowd.grow(turns, engine, size)?;
        }
        let budget = (size == FEW).then_some(Budget { ratio: 1.0 / 9.0, words: "1 of 9 ms" });
        let name = format!("GET /containers/json, {size} running");
        side_by_side(turns, ours, theirs, table, &[(name.as_str(), budget)], |engine| {
            let mut http = engine.connect()?;
            let (time, answer) = clock(|| http.ask("GET", "/containers/json", None))?;
            let list: Vec<serde_json::Value> = serde_json::from_slice(&answer)?;
            ensure!(list.len() == size, "{} lists {} of {size}", engine.name, list.len());
            Ok(vec![time])
        })?;
    }
    let mut rates = Vec::new();
    let mut weights = Vec::new();
    for (engine, crowd) in engines.iter().zip(&crowds) {
        rates.push(vec![containers as f64 / crowd.seconds]);
        weights.push(vec![(engine.memory()? - crowd.empty) / containers as f64]);
    }
    let mut push = |name: String, unit, values: Vec<Vec<f64>>, budget| {
        let mut values = values.into_iter();
        table.push(Row {
            name,
            unit,
            ours: values.next().unwrap_or_default(),
            against: values.next().map(|values| ("dockerd", values)),
            budget: Some(budget),
        });
    };
    push(
        format!("containers started, {CLIENTS} clients"),
        Unit::PerSecond,
        rates,
        Budget { ratio: 150.0 / 7.5, words: "150 for 7.5" },
    );
    push(
        format!("engine memory per container, {containers} up"),
        Unit::MiB,
        weights,
        Budget { ratio: 0.5 / 4.2, words: "0.5 of 4.2 MiB" },
    );
    for which in ["first", "last"] {
        let mut values = crowds.iter().map(|crowd| match which {
            "first" => crowd.times[..few].to_vec(),
            _ => crowd.times[crowd.times.len() - few..].to_vec(),
        });
        table.push(Row {
            name: format!("create and start, the {which} {few} of {containers}"),
            unit: Unit::Milliseconds,
            ours: values.next().unwrap_or_default(),
            against: values.next().map(|values| ("dockerd", values)),
            budget: None,
        });
    }
    table.push(Row {
        name: format!("kill -9 with {containers} up, until all are listed again"),
        unit: Unit::Milliseconds,
        ours: vec![replace(house, &crowds[0])?],
        against: None,
        budget: None,
    });
    let ours = &Engine::of_house(house);
    for (engine, crowd) in [Some(ours), theirs].into_iter().flatten().zip(&crowds) {
        crowd.remove(engine)?;
    }
    Ok(())
}

/// Has the daemon killed and another start, which finds everybody as they were. Returns how long nobody answered.
fn replace(house: &mut House, crowd: &Crowd) -> Result<f64> {
    let listed = |house: &House| -> Result<Vec<(Value, Value)>> {
        let list = Engine::of_house(house).connect()?.json("GET", "/containers/json", None)?;
        let state = |one: &Value| (one["Id"].clone(), one["State"].clone());
        Ok(list.as_array().context("no list")?.iter().map(state).collect())
    };
    let before = listed(house)?;
    ensure!(before.len() == crowd.ids.len(), "{} of {}", before.len(), crowd.ids.len());
    let (time, after) = clock(|| {
        house.kill();
        house.start();
        listed(house)
    })?;
    ensure!(before == after, "not everybody is as before");
    Ok(time)
}

pub(crate) struct Crowd {
    pub(crate) ids: Vec<String>,
    /// How long each took.
    times: Vec<f64>,
    /// How long it took to start them.
    seconds: f64,
    /// What the engine weighed before.
    empty: f64,
}

impl Crowd {
    pub(crate) fn new(engine: &Engine) -> Result<Self> {
        let body = json!({
            "Name": NETWORK,
            "IPAM": { "Config": [{ "Subnet": "10.99.0.0/16" }] },
        });
        engine.connect()?.json("POST", "/networks/create", Some(&body))?;
        Ok(Self { ids: Vec::new(), times: Vec::new(), seconds: 0.0, empty: engine.memory()? })
    }

    /// Create and start, by several clients at once, until there are so many.
    pub(crate) fn grow(&mut self, turns: &Turns, engine: &Engine, size: usize) -> Result<()> {
        let (time, mut more) = clock(|| {
            together(engine, size.saturating_sub(self.ids.len()), |http, at| {
                turns.stop.check()?;
                let mut body = busybox(&["sleep", "86400"]);
                body["HostConfig"]["NetworkMode"] = NETWORK.into();
                let (time, id) = clock(|| {
                    let id = engine.create(http, &body)?;
                    engine.start(http, &id)?;
                    Ok(id)
                })?;
                Ok((at, time, id))
            })
        })?;
        self.seconds += time / 1000.0;
        more.sort_by_key(|(at, ..)| *at);
        for (_, time, id) in more {
            self.times.push(time);
            self.ids.push(id);
        }
        Ok(())
    }

    pub(crate) fn remove(&self, engine: &Engine) -> Result<()> {
        together(engine, self.ids.len(), |http, at| engine.remove(http, &self.ids[at]))?;
        engine.connect()?.ask("DELETE", &format!("/networks/{NETWORK}"), None)?;
        Ok(())
    }
}

/// Does a numbered list of things, each client taking the next.
fn together<T: Send>(
    engine: &Engine,
    count: usize,
    act: impl Fn(&mut Http, usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let client = || -> Result<Vec<T>> {
        let mut http = engine.connect()?;
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return Ok(done);
            }
            done.push(act(&mut http, at)?);
        }
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let mut all = Vec::new();
        for client in clients {
            all.extend(client.join().expect("a client does not panic")?);
        }
        Ok(all)
    })
}
