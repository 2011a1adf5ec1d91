//! `docker top`: the container's processes as the host's `ps` shows them. The usual columns are read from /proc by
//! ourselves; for any others the host's `ps` is asked, as Docker always does.

use std::path::Path;

use api::container::TopResponse;
use stdx::{Context, Error, Result};

use super::Container;
use super::state::Phase;

/// One process, as far as any column needs it.
struct Process {
    pid: u32,
    parent: u32,
    user: u32,
    tty: String,
    ticks: u64,
    start: u64,
    command: String,
}

const TICKS: u64 = 100;

impl Container {
    pub async fn top(&self, options: Option<&str>) -> Result<TopResponse> {
        let options = options.unwrap_or("-ef").to_owned();
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
        self.event("top", &[]);
        tokiox::blocking(move || match options.split_whitespace().collect::<Vec<_>>().as_slice() {
            [] | ["-ef"] => Ok(full(pids)),
            options => ask_ps(options, &pids),
        })
        .await
    }
}

/// What `ps -ef` says, without a `ps`.
fn full(pids: Vec<u32>) -> TopResponse {
    let (boot, uptime) = (boot_time(), uptime());
    let mut processes: Vec<Process> = pids.into_iter().filter_map(read).collect();
    processes.sort_by_key(|process| process.pid);
    let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
    TopResponse {
        titles: titles.map(str::to_owned).to_vec(),
        processes: processes.iter().map(|process| process.row(boot, uptime)).collect(),
    }
}

/// Every other wish goes to the host's `ps`, and what it says of other processes is left out.
fn ask_ps(options: &[&str], pids: &[u32]) -> Result<TopResponse> {
    let output =
        std::process::Command::new("ps").args(options).output().context(|| "ps".to_owned())?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(match words.lines().find(|line| !line.is_empty()) {
            Some(first) => Error::invalid(format!("ps: {first}")),
            None => {
                Error::internal(format!("ps: exit status {}", output.status.code().unwrap_or(-1)))
            }
        });
    }
    table(&String::from_utf8_lossy(&output.stdout), pids)
}

fn table(text: &str, pids: &[u32]) -> Result<TopResponse> {
    let mut lines = text.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let Some(place) = titles.iter().position(|title| title == "PID") else {
        return Err(Error::internal("Couldn't find PID field in ps output"));
    };
    let row = |line: &str| {
        let mut cells = Vec::with_capacity(titles.len());
        let mut rest = line.trim();
        while cells.len() + 1 < titles.len() {
            let (cell, after) = rest.split_once(char::is_whitespace)?;
            cells.push(cell.to_owned());
            rest = after.trim_start();
        }
        cells.push(rest.to_owned());
        let pid: u32 = cells[place].parse().ok()?;
        pids.contains(&pid).then_some(cells)
    };
    let processes = lines.filter_map(row).collect();
    Ok(TopResponse { titles, processes })
}

impl Process {
    /// How much of one processor it has used since it began, in percent, as `ps` rounds it.
    fn share(&self, uptime: u64) -> u64 {
        let lived = (uptime * TICKS).saturating_sub(self.start);
        (self.ticks * 100).checked_div(lived).unwrap_or(0).min(99)
    }

    fn row(&self, boot: u64, uptime: u64) -> Vec<String> {
        let started = boot + self.start / TICKS;
        let seconds = self.ticks / TICKS;
        vec![
            user_name(self.user),
            self.pid.to_string(),
            self.parent.to_string(),
            self.share(uptime).to_string(),
            format!("{:02}:{:02}", started / 3600 % 24, started / 60 % 60),
            self.tty.clone(),
            format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
            self.command.clone(),
        ]
    }
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

/// Seconds.
fn uptime() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
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
        tty: if terminal == 0 { "?".to_owned() } else { format!("pts/{}", terminal & 0xff) },
        ticks: (number(11) + number(12)) as u64,
        start: number(19) as u64,
        command: if command.is_empty() { format!("[{name}]") } else { command },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_ps() {
        let text = "  PID COMMAND\n    7 sleep 5  x\n    8 other\n";
        let table = super::table(text, &[7]).unwrap();
        assert_eq!(table.titles, ["PID", "COMMAND"]);
        assert_eq!(table.processes, [["7", "sleep 5  x"]]);
        assert!(super::table("COMMAND\nsleep\n", &[7]).is_err());
    }

    #[test]
    fn we_can_read_ourselves() {
        let me = read(std::process::id()).unwrap();
        assert_eq!(me.pid, std::process::id());
        assert!(!me.command.is_empty());
    }
}
