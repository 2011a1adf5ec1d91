//! `network doctor`: what is reachable from where, and what stands in the way. Exit status 1 when something is broken.

use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Help, Kind};
use crate::format::listing::align;
use crate::format::{Escape, Value};

pub(crate) static COMMAND: Command = Command {
    names: &["network doctor"],
    usage: "[OPTIONS] [NETWORK|CONTAINER]",
    about: "Show what is reachable from where, and what stands in the way",
    args: Args::AtMost(1),
    flags: &[Flag::new(
        "format",
        Kind::Text,
        "Format output: 'json' prints what the daemon answered",
    )],
    help: Help::Beyond,
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let subject = call.args().first().map(String::as_str);
    let request = call.cli.client()?.get("/gantry/networks/doctor").query_opt("subject", subject);
    let report: Value = request.fetch().await?;
    if call.flags.text("format") == "json" {
        call.cli.printer.line(&report.to_json(Escape::Plain))?;
    } else {
        call.cli.printer.text(&text(&report))?;
    }
    let broken = |finding: &Value| finding.str_at("Level") == "broken";
    match report.items_at("Findings").iter().any(broken) {
        true => Err(Failure::quiet(1)),
        false => Ok(()),
    }
}

fn text(report: &Value) -> String {
    let mut networks = "NETWORK\tDRIVER\tSUBNETS\tREACHES\tREACHED BY\n".to_owned();
    for network in report.items_at("Networks") {
        let subnets: Vec<&str> =
            network.items_at("Subnets").iter().filter_map(Value::as_str).collect();
        let columns = [
            network.str_at("Name"),
            network.str_at("Driver"),
            &subnets.join(" "),
            network.str_at("Reaches"),
            network.str_at("ReachedBy"),
        ];
        networks.push_str(&format!("{}\n", columns.join("\t")));
    }
    let mut parts = vec![align(&networks)];
    let ports = report.items_at("Ports");
    if !ports.is_empty() {
        let mut text = "CONTAINER\tPORT\tPUBLISHED AT\tREACHABLE FROM\n".to_owned();
        for port in ports {
            let number = |key: &str| match port.at(key) {
                Some(Value::Int(number)) => number.to_string(),
                _ => String::new(),
            };
            let place = match (port.str_at("HostIp"), number("HostPort").as_str()) {
                (_, "0") => "its own address".to_owned(),
                (ip, port) if ip.contains(':') => format!("[{ip}]:{port}"),
                (ip, port) => format!("{ip}:{port}"),
            };
            let from = match port.str_at("Reach") {
                "lan" => "neighbours",
                "host" => "this host only",
                other => other,
            };
            text.push_str(&format!(
                "{}\t{}/{}\t{place}\t{from}\n",
                port.str_at("Container"),
                number("ContainerPort"),
                port.str_at("Protocol")
            ));
        }
        parts.push(align(&text));
    }
    let findings = report.items_at("Findings");
    if findings.is_empty() {
        parts.push("No problems found.\n".to_owned());
    } else {
        let mut text = "LEVEL\tSUBJECT\tPROBLEM\n".to_owned();
        for finding in findings {
            let columns = ["Level", "Subject", "Problem"].map(|key| finding.str_at(key));
            text.push_str(&format!("{}\n", columns.join("\t")));
        }
        parts.push(align(&text));
    }
    parts.join("\n")
}
