//! What to measure, from the command line.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

pub(crate) const HELP: &str = "\
Usage: bench/run [OPTIONS]

  --only GROUP       floor, memory, cli, api, exec, connect, dns, tcp, ports, copy, crowd,
                     stats, logs, load, pull or runtime; may be repeated
  --rounds N         rounds of each kind of work (30; heavy work takes a tenth)
  --containers N     how many containers there are where there are many (200)
  --no-peer          ours alone
  --dockerd PATH     the peer (/usr/sbin/dockerd)
  --runc PATH        the peer of `gantry runtime` (/usr/sbin/runc)
  --json             for programs

The binary measured is the one in $GANTRY.
";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) only: Vec<String>,
    pub(crate) rounds: usize,
    pub(crate) containers: usize,
    pub(crate) peer: bool,
    pub(crate) dockerd: PathBuf,
    pub(crate) runc: PathBuf,
    pub(crate) json: bool,
    pub(crate) help: bool,
}

const GROUPS: [&str; 16] = [
    "floor", "memory", "cli", "api", "exec", "connect", "dns", "tcp", "ports", "copy", "crowd",
    "stats", "logs", "load", "pull", "runtime",
];

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self {
            only: Vec::new(),
            rounds: 30,
            containers: 200,
            peer: true,
            dockerd: "/usr/sbin/dockerd".into(),
            runc: "/usr/sbin/runc".into(),
            json: false,
            help: false,
        };
        let mut rest = arguments.iter();
        while let Some(flag) = rest.next() {
            let mut value = || rest.next().with_context(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--only" => options.only.push(group(value()?)?),
                "--rounds" => options.rounds = value()?.parse::<usize>()?.max(1),
                "--containers" => options.containers = value()?.parse::<usize>()?.max(1),
                "--no-peer" => options.peer = false,
                "--dockerd" => options.dockerd = value()?.into(),
                "--runc" => options.runc = value()?.into(),
                "--json" => options.json = true,
                "--help" | "-h" => options.help = true,
                _ => bail!("{flag}?\n{HELP}"),
            }
        }
        Ok(options)
    }

    pub(crate) fn wants(&self, group: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == group)
    }
}

fn group(name: &str) -> Result<String> {
    if !GROUPS.contains(&name) {
        bail!("{name} is none of {}", GROUPS.join(", "));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_known() {
        let parse = |words: &[&str]| {
            Options::parse(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
        };
        let options = parse(&["--only", "api", "--rounds", "3"]).unwrap();
        assert!(options.wants("api") && !options.wants("cli") && options.rounds == 3);
        assert!(parse(&[]).unwrap().wants("cli"));
        assert!(parse(&["--only", "weather"]).is_err());
    }
}
