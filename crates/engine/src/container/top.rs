//! `docker top`: the container's processes as the host's `ps` would show them, read from /proc by ourselves.
//!
//! Docker runs the host's `ps` and filters its output. We never run a program here, so the columns are those of the usual
//! options; others are refused by name.

use std::path::Path;

use api::container::TopResponse;
use stdx::{Error, Result};

use super::Container;
use super::state::Phase;

/// One process, as far as any column needs it.
struct Process {
    pid: u32,
    parent: u32,
    user: u32,
    state: char,
    tty: String,
    ticks: u64,
    start: u64,
    rss_kib: u64,
    size_kib: u64,
    nice: i64,
    priority: i64,
    threads: u64,
    name: String,
    command: String,
}

const PAGE_KIB: u64 = 4;
const TICKS: u64 = 100;

impl Container {
    pub async fn top(&self, options: Option<&str>) -> Result<TopResponse> {
        let columns = columns(options.unwrap_or("-ef"))?;
        let record = self.record();
        match record.state.phase {
            Phase::Restarting => {
                return Err(Error::conflict(format!(
                    "Container {} is restarting, wait until the container is running",
                    record.id
                )));
            }
            phase if phase.is_up() => {}
            _ => return Err(Error::conflict(format!("container {} is not running", record.id))),
        }
        let pids = self.with_shim(shim::Client::processes).await?;
        tokiox::blocking(move || {
            let boot = boot_time();
            let mut processes: Vec<Process> = pids.into_iter().filter_map(read).collect();
            processes.sort_by_key(|process| process.pid);
            let cell = |process: &Process| {
                columns.iter().map(|column| value(column, process, boot)).collect()
            };
            Ok(TopResponse {
                titles: columns.iter().map(|column| (*column).to_owned()).collect(),
                processes: processes.iter().map(cell).collect(),
            })
        })
        .await
    }
}

/// The titles that a set of `ps` options asks for.
fn columns(options: &str) -> Result<Vec<&'static str>> {
    const FULL: &[&str] = &["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
    const AUX: &[&str] =
        &["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"];
    const KNOWN: &[(&str, &str)] = &[
        ("pid", "PID"),
        ("ppid", "PPID"),
        ("user", "USER"),
        ("euser", "EUSER"),
        ("uid", "UID"),
        ("comm", "COMMAND"),
        ("cmd", "CMD"),
        ("args", "COMMAND"),
        ("command", "COMMAND"),
        ("time", "TIME"),
        ("stat", "STAT"),
        ("rss", "RSS"),
        ("vsz", "VSZ"),
        ("tty", "TT"),
        ("ni", "NI"),
        ("nlwp", "NLWP"),
        ("pri", "PRI"),
        ("stime", "STIME"),
    ];
    let words: Vec<&str> = options.split_whitespace().collect();
    match words.as_slice() {
        [] | ["-ef"] | ["-e", "-f"] => Ok(FULL.to_vec()),
        ["aux"] | ["-aux"] => Ok(AUX.to_vec()),
        [first, rest @ ..]
            if first.trim_start_matches('-').trim_start_matches(['e', 'a', 'x']) == "o" =>
        {
            let fields: Vec<&str> = rest
                .iter()
                .flat_map(|word| word.split(','))
                .filter(|word| !word.is_empty())
                .collect();
            fields
                .iter()
                .map(|field| match KNOWN.iter().find(|(name, _)| name == field) {
                    Some((_, title)) => Ok(*title),
                    None => Err(Error::invalid(format!(
                        "error running ps: unknown user-defined format specifier \"{field}\""
                    ))),
                })
                .collect::<Result<Vec<_>>>()
                .and_then(|titles| match titles.contains(&"PID") {
                    true => Ok(titles),
                    false => Err(Error::internal("Couldn't find PID field in ps output")),
                })
        }
        _ => Err(Error::invalid(format!(
            "ps option \"{options}\" is not supported; use -ef, aux or -o"
        ))),
    }
}

fn value(column: &str, process: &Process, boot: u64) -> String {
    let clock = |seconds: u64| {
        format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    };
    match column {
        "UID" | "USER" | "EUSER" => user_name(process.user),
        "PID" => process.pid.to_string(),
        "PPID" => process.parent.to_string(),
        "C" => "0".to_owned(),
        "STIME" | "START" => {
            let at = time_of_day(boot + process.start / TICKS);
            format!("{:02}:{:02}", at.0, at.1)
        }
        "TTY" | "TT" => process.tty.clone(),
        "TIME" => clock(process.ticks / TICKS),
        "CMD" => process.command.clone(),
        "COMMAND" => process.command.clone(),
        "%CPU" | "%MEM" => "0.0".to_owned(),
        "VSZ" => process.size_kib.to_string(),
        "RSS" => process.rss_kib.to_string(),
        "STAT" => process.state.to_string(),
        "NI" => process.nice.to_string(),
        "PRI" => process.priority.to_string(),
        "NLWP" => process.threads.to_string(),
        _ => process.name.clone(),
    }
}

fn time_of_day(unix: u64) -> (u64, u64) {
    (unix / 3600 % 24, unix / 60 % 60)
}

/// The host's name of a user, as its own `ps` would say; the number when it has none.
fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    passwd
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
        .unwrap_or_else(|| uid.to_string())
}

fn boot_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok()).unwrap_or(0)
}

/// Reads one process; `None` when it has ended meanwhile.
fn read(pid: u32) -> Option<Process> {
    let dir = Path::new("/proc").join(pid.to_string());
    let stat = std::fs::read_to_string(dir.join("stat")).ok()?;
    // The name stands in parentheses and may hold anything, parentheses too.
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let number =
        |index: usize| fields.get(index).and_then(|field| field.parse::<i64>().ok()).unwrap_or(0);
    let status = std::fs::read_to_string(dir.join("status")).ok()?;
    let user = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse().ok())?;
    let raw = std::fs::read(dir.join("cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&raw).trim_end_matches('\0').replace('\0', " ");
    let terminal = number(4) as u64;
    Some(Process {
        pid,
        parent: number(1) as u32,
        user,
        state: fields.first()?.chars().next()?,
        tty: if terminal == 0 { "?".to_owned() } else { format!("pts/{}", terminal & 0xff) },
        ticks: (number(11) + number(12)) as u64,
        start: number(19) as u64,
        rss_kib: number(21) as u64 * PAGE_KIB,
        size_kib: number(20) as u64 / 1024,
        nice: number(16),
        priority: number(15),
        threads: number(17) as u64,
        command: if command.is_empty() { format!("[{name}]") } else { command },
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_columns() {
        assert_eq!(columns("-ef").unwrap().len(), 8);
        assert_eq!(columns("-eo pid,comm").unwrap(), ["PID", "COMMAND"]);
        assert!(columns("-o comm").is_err());
        assert!(columns("-o pid,nonsense").is_err());
    }

    #[test]
    fn we_can_read_ourselves() {
        let me = read(std::process::id()).unwrap();
        assert_eq!(me.pid, std::process::id());
        assert!(!me.command.is_empty());
    }
}
