//! `port`: where a container's ports are published.

use super::fetch;
use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::format::Value;

pub(crate) static COMMAND: Command = Command {
    names: &["container port", "port"],
    usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
    about: "List port mappings or a specific mapping for the container",
    args: Args::Between(1, 2),
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let container = fetch(call.cli.client()?, call.arg(0)).await?;
    let ports = container.entries_at("NetworkSettings.Ports");
    let place = |binding: &Value| {
        let (ip, port) = (binding.str_at("HostIp"), binding.str_at("HostPort"));
        if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
    };
    let mut lines = Vec::new();
    match call.args().get(1) {
        Some(asked) => {
            let (port, protocol) = asked.split_once('/').unwrap_or((asked, "tcp"));
            if port.parse::<u16>().is_err() {
                return Err(Failure::words(format!(
                    "Error: invalid port ({port}): {}",
                    not_a(port)
                )));
            }
            let wanted = format!("{port}/{protocol}");
            let bindings =
                ports.iter().find(|(port, _)| **port == wanted).map(|(_, value)| value.items());
            match bindings {
                Some(bindings) if !bindings.is_empty() => lines.extend(bindings.iter().map(place)),
                _ => {
                    return Err(Failure::words(format!(
                        "Error: No public port '{asked}' published for {}",
                        call.arg(0)
                    )));
                }
            }
        }
        None => {
            for (port, bindings) in ports {
                lines.extend(
                    bindings.items().iter().map(|binding| format!("{port} -> {}", place(binding))),
                );
            }
        }
    }
    // By the number of the port, as people count.
    lines.sort_by_key(|line| {
        let number: u32 = line.split('/').next().and_then(|port| port.parse().ok()).unwrap_or(0);
        (number, line.clone())
    });
    for line in lines {
        call.cli.printer.line(&line)?;
    }
    Ok(())
}

/// Go's words for a text that is no number of a port.
fn not_a(port: &str) -> String {
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let why = if digits { "value out of range" } else { "invalid syntax" };
    format!("strconv.ParseUint: parsing {port:?}: {why}")
}
