//! `ps`: the processes of a container, by their numbers on the host.

use std::path::Path;

use serde_json::json;
use stdx::{Error, Result};

use super::flags::{Flag, Flags};
use super::record::Container;
use super::{Global, say};

pub(super) const FLAGS: &[Flag] = &[Flag::value("format").or("f")];

pub(super) fn run(global: &Global, flags: &Flags) -> Result<u8> {
    let Some((id, options)) = flags.rest().split_first() else {
        return Err(Error::invalid("container id cannot be empty"));
    };
    let container = Container::open(global, &id.to_string_lossy())?;
    let mut pids: Vec<i32> =
        container.cgroup()?.procs()?.iter().map(|pid| pid.as_raw_nonzero().get()).collect();
    pids.sort_unstable();
    match flags.get("format").unwrap_or("table") {
        "json" => say(&format!("{}\n", json!(pids)))?,
        "table" => {
            if !options.is_empty() && options != ["-ef"] {
                return Err(Error::not_implemented("ps options are not supported yet"));
            }
            let mut table = "UID          PID    PPID  CMD\n".to_owned();
            for row in pids.into_iter().filter_map(row) {
                table.push_str(&row);
            }
            say(&table)?;
        }
        _ => return Err(Error::invalid("invalid format option")),
    }
    Ok(0)
}

/// A line of the table; none for a process that has just ended.
fn row(pid: i32) -> Option<String> {
    let read = |name: &str| std::fs::read(Path::new("/proc").join(pid.to_string()).join(name)).ok();
    let status = String::from_utf8_lossy(&read("status")?).into_owned();
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next())
    };
    let command = read("cmdline")?;
    let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
    let command = if command.is_empty() { format!("[{}]", field("Name:")?) } else { command };
    Some(format!("{:<8} {pid:>7} {:>7}  {command}\n", field("Uid:")?, field("PPid:")?))
}
