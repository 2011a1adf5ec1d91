//! `system check`: do records, kernel and disk agree? Exit status 1 when something does not.

use crate::command::{Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Help, Kind};
use crate::format::Value;
use crate::format::listing::align;

pub(crate) static COMMAND: Command = Command {
    names: &["system check"],
    usage: "[OPTIONS]",
    about: "Verify that the engine's records, the kernel and the disk agree",
    flags: &[
        Flag::new("format", Kind::Text, "Format output: 'json' prints what the daemon answered"),
        Flag::new("repair", Kind::Switch, "Repair what can be repaired"),
        Flag::new("strict", Kind::Switch, "Also verify the content of every blob"),
    ],
    help: Help::Beyond,
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let request = call.cli.client()?.post("/gantry/system/check");
    let request = request
        .query_flag("strict", call.flags.on("strict"))
        .query_flag("repair", call.flags.on("repair"));
    let answer: Value = request.fetch().await?;
    let findings = answer.items_at("findings");
    if call.flags.text("format") == "json" {
        call.cli.printer.line(&answer.to_json(crate::format::Escape::Plain))?;
    } else {
        call.cli.printer.text(&table(findings))?;
    }
    match findings.is_empty() {
        true => Ok(()),
        false => Err(Failure::quiet(1)),
    }
}

fn table(findings: &[Value]) -> String {
    if findings.is_empty() {
        return "No problems found.\n".to_owned();
    }
    let mut text = "ID\tOBJECT\tPROBLEM\tREPAIRED\n".to_owned();
    for finding in findings {
        let repaired = if finding.bool_at("repaired") { "yes" } else { "no" };
        let id = match finding.at("id") {
            Some(Value::Int(id)) => id.to_string(),
            _ => finding.str_at("id").to_owned(),
        };
        text.push_str(&format!(
            "{id}\t{}\t{}\t{repaired}\n",
            finding.str_at("object"),
            finding.str_at("problem")
        ));
    }
    align(&text)
}
