//! `ps`: the processes of a container, by their numbers on the host.

use std::path::Path;

use serde_json::json;
use stdx::time::Timestamp;
use stdx::{Error, Result};

use super::containers::user_name;
use super::flags::{Flag, Flags};
use super::record::Container;
use super::{Global, id, say};

pub(super) const FLAGS: &[Flag] = &[Flag::value("format").or("f")];

pub(super) fn run(global: &Global, flags: &Flags) -> Result<u8> {
    let container = Container::open(global, id(flags)?)?;
    let mut pids: Vec<i32> =
        container.cgroup()?.procs()?.iter().map(|pid| pid.as_raw_nonzero().get()).collect();
    pids.sort_unstable();
    match flags.get("format").unwrap_or("table") {
        "json" => say(&format!("{}\n", json!(pids)))?,
        "table" => {
            let options = flags.rest().get(1..).unwrap_or_default();
            if !options.is_empty() && options != ["-ef"] {
                return Err(Error::not_implemented(
                    "ps: options other than -ef are not supported: no program is executed to list processes",
                ));
            }
            let mut table = row(["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
            let (boot, now) = (boot_time(), Timestamp::now());
            for pid in pids {
                // One that has just ended has no line.
                if let Some(process) = Process::read(pid) {
                    table.push_str(&process.row(boot, now));
                }
            }
            say(&table)?;
        }
        _ => return Err(Error::invalid("invalid format option")),
    }
    Ok(0)
}

/// As `ps -ef` lays it out.
fn row([uid, pid, ppid, c, stime, tty, time, cmd]: [&str; 8]) -> String {
    format!("{uid:<8} {pid:>7} {ppid:>7} {c:>2} {stime:<5} {tty:<8} {time:>8} {cmd}\n")
}

/// What there is to tell of a process. Times are in the kernel's ticks.
#[derive(Debug)]
struct Process {
    pid: i32,
    user: u32,
    parent: i32,
    terminal: u64,
    used: u64,
    start: u64,
    command: String,
}

/// `USER_HZ`.
const TICKS: u64 = 100;

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let read = |name: &str| {
            let bytes = std::fs::read(Path::new("/proc").join(pid.to_string()).join(name)).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        let status = read("status")?;
        let user = status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse().ok())?;
        let stat = read("stat")?;
        // The name stands in parentheses and may hold anything, more of them too.
        let (head, tail) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
        let command = read("cmdline")?.trim_end_matches('\0').replace('\0', " ");
        let name = || head.split_once('(').map_or("", |(_, name)| name);
        Some(Self {
            pid,
            user,
            parent: number(1)? as i32,
            terminal: number(4).unwrap_or(0),
            used: number(11)? + number(12)?,
            start: number(19)?,
            command: if command.is_empty() { format!("[{}]", name()) } else { command },
        })
    }

    fn row(&self, boot: i64, now: Timestamp) -> String {
        let seconds = self.used / TICKS;
        let begun = boot + (self.start / TICKS) as i64;
        let lived = now.unix().saturating_sub(begun).max(1) as u64;
        let started = Timestamp::from_unix_nanos(i128::from(begun) * 1_000_000_000).date_time();
        let stime = match lived < 24 * 3600 {
            true => format!("{:02}:{:02}", started.hour(), started.minute()),
            false => format!("{:.3}{:02}", started.month().to_string(), started.day()),
        };
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        row([
            &user_name(self.user),
            &self.pid.to_string(),
            &self.parent.to_string(),
            &(seconds * 100 / lived).min(99).to_string(),
            &stime,
            &terminal(self.terminal),
            &format!("{hours:02}:{minutes:02}:{:02}", seconds % 60),
            &self.command,
        ])
    }
}

/// From the number of the device: pseudo terminals and consoles have a name, others none here.
fn terminal(device: u64) -> String {
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 if minor < 64 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

fn boot_time() -> i64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_eight_columns() {
        let own = Process::read(std::process::id() as i32).unwrap();
        let line = own.row(boot_time(), Timestamp::now());
        let columns: Vec<&str> = line.split_whitespace().collect();
        assert!(columns.len() >= 8, "{line}");
        assert_eq!(columns[1], std::process::id().to_string());
        assert_eq!(columns[4].len(), 5, "{line}");
    }

    #[test]
    fn terminals_by_number() {
        assert_eq!(terminal(0), "?");
        assert_eq!(terminal(136 << 8 | 3), "pts/3");
        assert_eq!(terminal(4 << 8 | 1), "tty1");
    }
}
