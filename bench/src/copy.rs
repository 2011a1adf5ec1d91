//! `cp` of one large file, into a container that runs and out of it again.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use testkit::House;

use crate::engine::{Engine, busybox};
use crate::table::{Budget, Row, Table, Unit};
use crate::turns::{Round, Turns, Values, clock};

const SIZE: usize = 64 << 20;
const BUDGET: Budget = Budget { ratio: 60.0 / 200.0, words: "60 of 200 ms" };

pub(crate) fn measure(
    turns: &Turns,
    scratch: &Path,
    house: &House,
    theirs: Option<&Engine>,
    table: &mut Table,
) -> Result<()> {
    let ours = &Engine::of_house(house);
    let own = House::binary();
    let own = &*own.to_string_lossy();
    let file = &scratch.join("copied");
    // Nothing in it is a hole, and nothing repeats itself within a page.
    let mut bytes = std::io::BufWriter::new(std::fs::File::create(file)?);
    (0..SIZE / 4).try_for_each(|number| bytes.write_all(&(number as u32).to_le_bytes()))?;
    bytes.flush()?;
    let mut ids = Vec::new();
    for engine in [Some(ours), theirs].into_iter().flatten() {
        let mut http = engine.connect()?;
        let id = engine.create(&mut http, &busybox(&["sleep", "86400"]))?;
        engine.start(&mut http, &id)?;
        ids.push((engine, id));
    }
    let round = |engine: &Engine, program: &str, id: &str| -> Result<Values> {
        let (outside, inside) = (file.to_string_lossy(), format!("{id}:/copied"));
        let back = scratch.join("back");
        let into = timed(engine.client(program, &["cp", &outside, &inside]))?;
        let out = timed(engine.client(program, &["cp", &inside, &back.to_string_lossy()]))?;
        ensure!(std::fs::metadata(&back)?.len() == SIZE as u64, "{} copied less", engine.name);
        std::fs::remove_file(&back)?;
        Ok(vec![into, out])
    };
    let id = |at: usize| ids.get(at).map_or("", |(_, id)| id);
    let mut contestants: Vec<Round> =
        vec![Box::new(|| round(ours, own, id(0))), Box::new(|| round(ours, "docker", id(0)))];
    if let Some(theirs) = theirs {
        contestants.push(Box::new(move || round(theirs, "docker", id(1))));
    }
    let all = turns.part(3).take(&mut contestants)?;
    drop(contestants);
    for (cli, ours) in ["our CLI", "docker's CLI"].iter().zip(&all) {
        for (at, way) in ["into", "out of"].iter().enumerate() {
            table.push(Row {
                name: format!("cp of 64 MiB {way} a container, {cli}"),
                unit: Unit::Milliseconds,
                ours: ours[at].clone(),
                against: all.get(2).map(|theirs| ("dockerd", theirs[at].clone())),
                budget: Some(BUDGET),
            });
        }
    }
    for (engine, id) in &ids {
        engine.remove(&mut engine.connect()?, id)?;
    }
    Ok(())
}

fn timed(mut command: Command) -> Result<f64> {
    let (time, status) = clock(|| Ok(command.status()?))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(time)
}
