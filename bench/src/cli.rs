//! `run --rm` as people type it.

use std::process::Command;

use anyhow::{Result, ensure};
use testkit::House;

use crate::engine::Engine;
use crate::table::{Budget, Row, Table, Unit};
use crate::turns::{Round, Turns, clock};

pub(crate) fn measure(
    turns: &Turns,
    house: &House,
    theirs: Option<&Engine>,
    table: &mut Table,
) -> Result<()> {
    let ours = Engine::of_house(house);
    let own = House::binary();
    let own = own.to_string_lossy();
    for (image, arguments, budgets) in [
        (
            "busybox true",
            vec!["run", "--rm", "busybox", "true"],
            [
                Budget { ratio: 12.0 / 343.0, words: "12 of 343 ms" },
                Budget { ratio: 45.0 / 343.0, words: "45 of 343 ms" },
            ],
        ),
        (
            "hello-world",
            vec!["run", "--rm", "hello-world"],
            [
                Budget { ratio: 12.0 / 343.0, words: "as busybox" },
                Budget { ratio: 45.0 / 343.0, words: "as busybox" },
            ],
        ),
    ] {
        let arguments = &arguments;
        let mut contestants: Vec<Round> = vec![
            Box::new(|| timed(ours.client(&own, arguments))),
            Box::new(|| timed(ours.client("docker", arguments))),
        ];
        if let Some(theirs) = theirs {
            contestants.push(Box::new(|| timed(theirs.client("docker", arguments))));
        }
        let mut all = turns.take(&mut contestants)?.into_iter().map(|mut rows| rows.swap_remove(0));
        let (gantry, docker) = (all.next().unwrap_or_default(), all.next().unwrap_or_default());
        let against = all.next().map(|values| ("dockerd", values));
        for (cli, ours, budget) in
            [("our CLI", gantry, budgets[0]), ("docker's CLI", docker, budgets[1])]
        {
            table.push(Row {
                name: format!("run --rm {image}, {cli}"),
                unit: Unit::Milliseconds,
                ours,
                against: against.clone(),
                budget: Some(budget),
            });
        }
    }
    Ok(())
}

fn timed(mut command: Command) -> Result<Vec<f64>> {
    let (time, status) = clock(|| Ok(command.status()?))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(vec![time])
}
