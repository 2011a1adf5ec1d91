//! All logs together have a ceiling. Each is bounded by itself already; what a thousand of them come to is bounded here:
//! the largest log loses its oldest file first.

use std::path::PathBuf;
use std::time::Duration;

use stdx::{Context, Error, Id, Result, units};

use crate::Containers;

/// How often the files are looked at. A log grows by no more than its own bounds in between.
const EVERY: Duration = Duration::from_secs(5);

/// What the logs of all containers may take of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogBudget {
    /// Whatever each may take.
    Unlimited,
    Bytes(u64),
    /// Of the file system that they are on.
    Percent(u8),
}

impl Default for LogBudget {
    fn default() -> Self {
        Self::Percent(10)
    }
}

impl LogBudget {
    /// `10%`, `5GB`, or `0` for none.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("{text} is neither a size nor a percentage"));
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.parse().map_err(|_| bad())?;
            return match percent {
                0 => Ok(Self::Unlimited),
                1..=100 => Ok(Self::Percent(percent)),
                _ => Err(bad()),
            };
        }
        match u64::try_from(units::size_in_bytes(text).map_err(|_| bad())?) {
            Ok(0) => Ok(Self::Unlimited),
            Ok(bytes) => Ok(Self::Bytes(bytes)),
            Err(_) => Err(bad()),
        }
    }
}

/// One container's log as it lies on disk.
#[derive(Clone, Debug)]
struct Log {
    id: Id,
    /// Its shim writes it.
    is_up: bool,
    /// The one being written first, then ever older ones.
    files: Vec<LogFile>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct LogFile {
    index: u32,
    path: PathBuf,
    bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Remove(PathBuf),
    /// The shim begins a new file, so that the one it wrote can go.
    Rotate(Id),
}

impl Log {
    fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Takes the oldest file away; what that takes, and how much it gives back.
    fn shrink(&mut self) -> Option<(Vec<Step>, u64)> {
        let oldest = self.files.pop()?;
        let mut steps = Vec::new();
        let mut path = oldest.path;
        if oldest.index == 0 && self.is_up {
            steps.push(Step::Rotate(self.id.clone()));
            path.as_mut_os_string().push(".1");
        }
        steps.push(Step::Remove(path));
        Some((steps, oldest.bytes))
    }
}

/// What is to be done so that all fit. A little more than must be, so that not every line begins it anew.
fn plan(mut logs: Vec<Log>, budget: u64) -> Vec<Step> {
    let mut total: u64 = logs.iter().map(Log::bytes).sum();
    let mut steps = Vec::new();
    if total <= budget {
        return steps;
    }
    while total > budget / 10 * 9 {
        let largest = logs.iter_mut().max_by_key(|log| log.bytes());
        let Some((more, bytes)) = largest.and_then(Log::shrink) else { break };
        steps.extend(more);
        total -= bytes;
    }
    steps
}

/// What a name in a container's directory is of a log: the name it is written under, and how old it is.
fn part_of(name: &str, id: &Id) -> Option<u32> {
    let own = format!("{id}-json.log");
    let rest = [own.as_str(), "container.log", "container-cached.log"]
        .iter()
        .find_map(|base| name.strip_prefix(base))?;
    match rest.strip_prefix('.') {
        None => rest.is_empty().then_some(0),
        Some(rest) => rest.trim_end_matches(".gz").parse().ok(),
    }
}

impl Containers {
    /// Holds the logs to their budget for as long as the daemon lives.
    pub async fn keep_log_budget(self) {
        let budget = self.rooms.settings().log_budget;
        if budget == LogBudget::Unlimited {
            return;
        }
        let mut beat = tokio::time::interval(EVERY);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            let this = self.clone();
            let held = tokiox::blocking(move || this.hold_log_budget(budget)).await;
            if let Err(error) = held {
                tracing::warn!(error = %error.chain(), "cannot hold the logs to their budget");
            }
        }
    }

    fn hold_log_budget(&self, budget: LogBudget) -> Result<()> {
        let bytes = match budget {
            LogBudget::Unlimited => return Ok(()),
            LogBudget::Bytes(bytes) => bytes,
            LogBudget::Percent(percent) => {
                let root = &self.rooms.settings().data_root;
                let disk = rustix::fs::statvfs(root)
                    .context(|| format!("cannot look at {}", root.display()))?;
                (disk.f_blocks * disk.f_frsize) / 100 * u64::from(percent)
            }
        };
        let steps = plan(self.logs_on_disk(), bytes);
        if steps.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            budget = bytes,
            steps = steps.len(),
            "the logs are over their budget: the oldest files go"
        );
        for step in steps {
            match step {
                Step::Rotate(id) => {
                    // One that has ended meanwhile loses its file the next time.
                    let container = self.find(id.as_str()).and_then(|container| container.shim());
                    container.and_then(|shim| shim.rotate_logs())?;
                }
                Step::Remove(path) => match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error).context(|| format!("cannot remove {}", path.display()));
                    }
                    _ => {}
                },
            }
        }
        Ok(())
    }

    fn logs_on_disk(&self) -> Vec<Log> {
        let log = |container: crate::Container| {
            let record = container.record();
            // One that was never started, or is being removed, may have no directory.
            let entries = std::fs::read_dir(self.rooms.data_dir(&record.id)).ok()?;
            let file = |entry: std::fs::DirEntry| {
                let index = part_of(entry.file_name().to_str()?, &record.id)?;
                Some(LogFile { index, bytes: entry.metadata().ok()?.len(), path: entry.path() })
            };
            let mut files: Vec<_> = entries.flatten().filter_map(file).collect();
            files.sort_by_key(|file| file.index);
            Some(Log { id: record.id.clone(), is_up: record.state.phase.is_up(), files })
        };
        self.all().into_iter().filter_map(log).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets() {
        let parse = |text| LogBudget::parse(text).map_err(|error| error.chain());
        assert_eq!(parse("10%"), Ok(LogBudget::Percent(10)));
        assert_eq!(parse("5GB"), Ok(LogBudget::Bytes(5_000_000_000)));
        assert_eq!(parse("0"), Ok(LogBudget::Unlimited));
        for bad in ["x", "101%", "-1"] {
            let words = format!("{bad} is neither a size nor a percentage");
            assert_eq!(parse(bad), Err(words));
        }
    }

    #[test]
    fn names() {
        let id = Id::random();
        let index = |name: &str| part_of(name, &id);
        assert_eq!(index(&format!("{id}-json.log")), Some(0));
        assert_eq!(index(&format!("{id}-json.log.3.gz")), Some(3));
        assert_eq!(index("container.log.1"), Some(1));
        assert_eq!(index("container-cached.log"), Some(0));
        for other in ["hostname", "container.log.1.gz.new", "container.logs", "x-json.log"] {
            assert_eq!(index(other), None, "{other}");
        }
    }

    fn log(name: &str, is_up: bool, sizes: &[u64]) -> (Id, Log) {
        let id = Id::random();
        let file = |(index, bytes): (usize, &u64)| LogFile {
            index: u32::try_from(index).unwrap(),
            path: if index == 0 { name.into() } else { format!("{name}.{index}").into() },
            bytes: *bytes,
        };
        let files = sizes.iter().enumerate().map(file).collect();
        (id.clone(), Log { id, is_up, files })
    }

    #[test]
    fn the_oldest_of_the_largest_goes() {
        let (_, large) = log("large", true, &[10, 20, 20]);
        let (_, small) = log("small", false, &[25]);
        let logs = vec![large, small];
        assert_eq!(plan(logs.clone(), 100), []);
        assert_eq!(plan(logs.clone(), 70), [Step::Remove("large.2".into())]);
        let steps = plan(logs, 20);
        let expected = ["large.2", "large.1", "small"].map(|name| Step::Remove(name.into()));
        assert_eq!(steps, expected);
    }

    #[test]
    fn what_is_being_written_is_rotated_first() {
        let (id, only) = log("only", true, &[50]);
        let steps = plan(vec![only], 40);
        assert_eq!(steps, [Step::Rotate(id), Step::Remove("only.1".into())]);
    }
}
