//! What a hundred containers use, as `docker stats --no-stream` asks: all at once.

use std::thread;

use anyhow::{Result, ensure};

use crate::api::side_by_side;
use crate::crowd::Crowd;
use crate::engine::Engine;
use crate::table::{Budget, Table};
use crate::turns::{Turns, clock};

const CONTAINERS: usize = 100;

pub(crate) fn measure(
    turns: &Turns,
    ours: &Engine,
    theirs: Option<&Engine>,
    table: &mut Table,
) -> Result<()> {
    let mut crowds = Vec::new();
    for engine in [Some(ours), theirs].into_iter().flatten() {
        let mut crowd = Crowd::new(engine)?;
        crowd.grow(turns, engine, CONTAINERS)?;
        crowds.push((engine, crowd));
    }
    let budget = Budget { ratio: 1.0, words: "theirs" };
    let rows = [("stats of 100 containers at once", Some(budget))];
    side_by_side(&turns.fewer(), ours, theirs, table, &rows, |engine| {
        let crowd = &crowds[usize::from(engine.name != ours.name)].1;
        let (time, ()) = clock(|| {
            thread::scope(|scope| {
                let asked: Vec<_> =
                    crowd.ids.iter().map(|id| scope.spawn(|| ask(engine, id))).collect();
                asked.into_iter().try_for_each(|one| one.join().expect("it does not panic"))
            })
        })?;
        Ok(vec![time])
    })?;
    crowds.iter().try_for_each(|(engine, crowd)| crowd.remove(engine))
}

fn ask(engine: &Engine, id: &str) -> Result<()> {
    let path = format!("/containers/{id}/stats?stream=false&one-shot=1");
    let stats = engine.connect()?.json("GET", &path, None)?;
    let used = &stats["memory_stats"]["usage"];
    ensure!(used.as_u64().is_some_and(|used| used > 0), "{}: {used}", engine.name);
    Ok(())
}
