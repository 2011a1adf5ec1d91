//! A bundle run by a runtime alone: `gantry runtime run` and `runc run`.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::House;

use crate::floor;
use crate::table::{Budget, Row, Table, Unit};
use crate::turns::{Round, Turns, clock};

pub(crate) fn measure(turns: &Turns, scratch: &Path, runc: &Path, table: &mut Table) -> Result<()> {
    let bundle = scratch.join("bundle");
    std::fs::create_dir(&bundle)?;
    floor::make_root(&bundle.join("rootfs"))?;
    let made = Command::new(runc).arg("spec").current_dir(&bundle).status();
    ensure!(made.context("runc is needed")?.success(), "runc spec failed");
    let config = bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&std::fs::read(&config)?)?;
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["/bin/busybox", "true"]);
    std::fs::write(&config, spec.to_string())?;

    let run = |command: &mut Command, name: &str| -> Result<Vec<f64>> {
        let id = format!("gantry-bench-{name}-{}", std::process::id());
        command.args(["run", "--bundle"]).arg(&bundle).arg(id).stdin(Stdio::null());
        let (time, status) = clock(|| Ok(command.status()?))?;
        ensure!(status.success(), "{command:?}: {status}");
        Ok(vec![time])
    };
    let root = |name: &str| scratch.join(name);
    let mut contestants: Vec<Round> = vec![
        Box::new(|| {
            let mut ours = Command::new(House::binary());
            run(ours.arg("runtime").arg("--root").arg(root("gantry-state")), "ours")
        }),
        Box::new(|| run(Command::new(runc).arg("--root").arg(root("runc-state")), "runc")),
    ];
    let mut all = turns.take(&mut contestants)?.into_iter().map(|mut rows| rows.swap_remove(0));
    table.push(Row {
        name: "runtime run of a bundle".to_owned(),
        unit: Unit::Milliseconds,
        ours: all.next().unwrap_or_default(),
        against: all.next().map(|values| ("runc", values)),
        budget: Some(Budget { ratio: 1.0 / 4.0, words: "a quarter" }),
    });
    Ok(())
}
