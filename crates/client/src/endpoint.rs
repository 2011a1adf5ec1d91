//! Where the daemon is: `unix://`, `tcp://`, `http(s)://` and `ssh://` addresses understood.

use std::fmt;
use std::path::PathBuf;

use stdx::{Error, Result};

/// An address of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Unix(PathBuf),
    /// `host:port`, and a path put before every request (mostly empty).
    Tcp {
        authority: String,
        prefix: String,
    },
    Ssh(SshTarget),
}

/// Who to reach by ssh, and the daemon's socket there when it is not the default one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshTarget {
    pub user: Option<String>,
    pub host: String,
    pub port: Option<u16>,
    pub socket: Option<String>,
}

impl Endpoint {
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("unable to parse docker host `{text}`"));
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        if rest.is_empty() {
            return Err(bad());
        }
        match scheme {
            "unix" => Ok(Self::Unix(PathBuf::from(rest))),
            "tcp" | "http" | "https" => {
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                let path = path.trim_end_matches('/');
                let prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
                Ok(Self::Tcp { authority: authority.to_owned(), prefix })
            }
            "ssh" => SshTarget::parse(rest).map(Self::Ssh),
            _ => Err(bad()),
        }
    }

    /// The host part of a URL in messages: Go's client writes the socket's path there, escaped.
    pub(crate) fn authority(&self) -> String {
        match self {
            Self::Unix(path) => path.display().to_string().replace('/', "%2F"),
            Self::Tcp { authority, .. } => authority.clone(),
            Self::Ssh(_) => "docker.example.com".to_owned(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { authority, prefix } => write!(f, "tcp://{authority}{prefix}"),
            Self::Ssh(target) => write!(f, "ssh://{}", target.host),
        }
    }
}

impl SshTarget {
    fn parse(rest: &str) -> Result<Self> {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err(Error::invalid("plain-text password is not supported"));
        }
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()) => {
                let port = port
                    .parse()
                    .map_err(|_| Error::invalid(format!("invalid ssh port {port:?}")))?;
                (host, Some(port))
            }
            _ => (host, None),
        };
        if host.is_empty() {
            return Err(Error::invalid("no host specified"));
        }
        Ok(Self {
            user: user.filter(|user| !user.is_empty()).map(str::to_owned),
            host: host.to_owned(),
            port,
            socket: (!path.is_empty()).then(|| format!("/{path}")),
        })
    }

    /// The words after `ssh`: nothing in the address can become an option of ssh's.
    pub fn arguments(&self, program: &str) -> Vec<String> {
        let mut words: Vec<String> = ["-o", "ConnectTimeout=30", "-T"].map(str::to_owned).into();
        if let Some(user) = &self.user {
            words.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(port) = self.port {
            words.extend(["-p".to_owned(), port.to_string()]);
        }
        words.extend(["--".to_owned(), self.host.clone(), program.to_owned()]);
        if let Some(socket) = &self.socket {
            words.push(format!("--host=unix://{socket}"));
        }
        words.extend(["system".to_owned(), "dial-stdio".to_owned()]);
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(
            Endpoint::parse("unix:///run/x.sock").unwrap(),
            Endpoint::Unix("/run/x.sock".into())
        );
        assert_eq!(
            Endpoint::parse("tcp://10.0.0.1:2375/base/").unwrap(),
            Endpoint::Tcp { authority: "10.0.0.1:2375".into(), prefix: "/base".into() }
        );
        assert_eq!(
            Endpoint::parse("fd://").unwrap_err().to_string(),
            "unable to parse docker host `fd://`"
        );
        assert_eq!(
            Endpoint::parse("nothing").unwrap_err().to_string(),
            "unable to parse docker host `nothing`"
        );
    }

    #[test]
    fn ssh() {
        let Endpoint::Ssh(target) = Endpoint::parse("ssh://me@box:22/run/d.sock").unwrap() else {
            panic!()
        };
        assert_eq!(
            target.arguments("docker").join(" "),
            "-o ConnectTimeout=30 -T -l me -p 22 -- box docker --host=unix:///run/d.sock system dial-stdio"
        );
        assert!(Endpoint::parse("ssh://me:secret@box").is_err());
    }
}
