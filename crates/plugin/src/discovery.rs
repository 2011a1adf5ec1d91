//! Where plugins say that they are: a socket, or a file with an address, named after the plugin.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use stdx::{Context, Error, Result, bounded};

/// Directories to look in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// For `NAME.sock`.
    pub sockets: Vec<PathBuf>,
    /// For `NAME.spec` and `NAME.json`.
    pub specs: Vec<PathBuf>,
}

/// A file with an address is no longer than this.
const LONGEST_FILE: usize = 64 << 10;

impl Default for Places {
    /// Docker's.
    fn default() -> Self {
        Self {
            sockets: vec!["/run/docker/plugins".into()],
            specs: vec!["/etc/docker/plugins".into(), "/usr/lib/docker/plugins".into()],
        }
    }
}

impl Places {
    /// Everything in these and nowhere else.
    pub fn only(directories: &[PathBuf]) -> Self {
        Self { sockets: directories.to_vec(), specs: directories.to_vec() }
    }

    /// Where the plugin of that name listens, if it is there. A socket goes before a file, one lying in the directory
    /// before one in a directory of its own.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Address>> {
        if !is_name(name) {
            return Ok(None);
        }
        let is_socket = |path: &PathBuf| path.metadata().is_ok_and(|m| m.file_type().is_socket());
        if let Some(path) = candidates(&self.sockets, name, &["sock"]).into_iter().find(is_socket) {
            return Ok(Some(Address::Unix(path)));
        }
        let file = candidates(&self.specs, name, &["spec", "json"]);
        let Some(path) = file.into_iter().find(|path| path.is_file()) else { return Ok(None) };
        let context = || format!("cannot read {}", path.display());
        let file = File::open(&path).context(context)?;
        let text = bounded::read_to_end(file, LONGEST_FILE, &path.display().to_string())?;
        let text = String::from_utf8_lossy(&text);
        let json = path.extension().is_some_and(|extension| extension == "json");
        let address =
            if json { Address::of_json(&text) } else { Address::parse(text.trim(), None) };
        address.context(context).map(Some)
    }

    /// The names of all that are there, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = BTreeSet::new();
        for (directories, extensions) in
            [(&self.sockets, &["sock"][..]), (&self.specs, &["spec", "json"][..])]
        {
            for directory in directories {
                // One that is not there has no plugins in it.
                let Ok(entries) = std::fs::read_dir(directory) else { continue };
                for entry in entries.flatten() {
                    let path = entry.path();
                    let nested = path.is_dir();
                    let matching =
                        path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x));
                    let stem = if nested { path.file_name() } else { path.file_stem() };
                    if let Some(name) = stem.and_then(|stem| stem.to_str())
                        && (nested || matching)
                    {
                        names.insert(name.to_owned());
                    }
                }
            }
        }
        names.retain(|name| self.find(name).is_ok_and(|found| found.is_some()));
        names.into_iter().collect()
    }
}

/// A name is a name in a directory, and leads nowhere else.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']) && name.len() < 200
}

/// `dir/name.ext`, then `dir/name/name.ext`, for each directory.
fn candidates(directories: &[PathBuf], name: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let mut candidates = Vec::new();
    for directory in directories {
        for extension in extensions {
            let file = format!("{name}.{extension}");
            candidates.push(directory.join(&file));
            candidates.push(directory.join(name).join(file));
        }
    }
    candidates
}

/// Where a plugin listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    Tcp { host: String, port: u16, tls: Option<TlsFiles> },
}

/// What a TLS connection is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TlsFiles {
    #[serde(rename = "InsecureSkipVerify")]
    pub trusts_anybody: bool,
    #[serde(rename = "CAFile")]
    pub ca: PathBuf,
    #[serde(rename = "CertFile")]
    pub certificate: PathBuf,
    #[serde(rename = "KeyFile")]
    pub key: PathBuf,
}

/// `NAME.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    addr: String,
    #[serde(default, rename = "TLSConfig")]
    tls: Option<TlsFiles>,
}

impl Address {
    fn of_json(text: &str) -> Result<Self> {
        let described: Described = serde_json::from_str(text)
            .map_err(|error| Error::invalid(format!("not a plugin's description: {error}")))?;
        let tls = described.tls.map(|tls| TlsFiles {
            // Docker's rule: who names no authority trusts anybody.
            trusts_anybody: tls.trusts_anybody || tls.ca.as_os_str().is_empty(),
            ..tls
        });
        Self::parse(&described.addr, tls)
    }

    /// `unix:///run/x.sock`, `tcp://localhost:8080`, `https://example.com`.
    fn parse(text: &str, tls: Option<TlsFiles>) -> Result<Self> {
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| Error::invalid("Unknown protocol"))?;
        let default = match scheme {
            "unix" if Path::new(rest).is_absolute() => return Ok(Self::Unix(rest.into())),
            "tcp" | "http" => 80,
            "https" => 443,
            _ => return Err(Error::invalid(format!("unsupported address of a plugin: {text}"))),
        };
        let bad = || Error::invalid(format!("invalid address of a plugin: {text}"));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            // The last colon of a bare IPv6 address is not a port's.
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| bad())?),
            _ => (authority, default),
        };
        let host = host.trim_matches(['[', ']']);
        if host.is_empty() || host.contains(|c: char| c.is_control() || " @".contains(c)) {
            return Err(bad());
        }
        let tls = (scheme == "https").then(|| tls.unwrap_or_default());
        Ok(Self::Tcp { host: host.to_owned(), port, tls })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn tcp(host: &str, port: u16, tls: Option<TlsFiles>) -> Address {
        Address::Tcp { host: host.to_owned(), port, tls }
    }

    #[test]
    fn addresses() {
        let parse = |text: &str| Address::parse(text, None).unwrap();
        assert_eq!(parse("unix:///run/x.sock"), Address::Unix("/run/x.sock".into()));
        assert_eq!(parse("tcp://localhost:8080"), tcp("localhost", 8080, None));
        assert_eq!(parse("http://10.0.0.1/plugin"), tcp("10.0.0.1", 80, None));
        assert_eq!(parse("tcp://[::1]:99"), tcp("::1", 99, None));
        assert_eq!(parse("https://[::1]"), tcp("::1", 443, Some(TlsFiles::default())));
        for bad in
            ["", "x", "/run/x.sock", "unix://x", "ftp://x", "tcp://", "tcp://:80", "tcp://x:y"]
        {
            assert!(Address::parse(bad, None).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn who_names_no_authority_trusts_anybody() {
        let json = r#"{"Name": "x", "Addr": "https://x:1", "TLSConfig": {"CertFile": "/c", "KeyFile": "/k"}}"#;
        let Address::Tcp { tls: Some(tls), .. } = Address::of_json(json).unwrap() else { panic!() };
        assert!(tls.trusts_anybody);
        let json = r#"{"Addr": "https://x:1", "TLSConfig": {"CAFile": "/ca"}}"#;
        let Address::Tcp { tls: Some(tls), .. } = Address::of_json(json).unwrap() else { panic!() };
        assert!(!tls.trusts_anybody);
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        for bad in ["", ".", "..", "../x", "a/b", "/x", "a\0b"] {
            assert!(!is_name(bad), "{bad:?}");
        }
        assert!(is_name("rclone") && is_name("a.b-c_d:latest"));
    }

    #[test]
    fn sockets_files_and_directories_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["deep", "file.spec"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        let _flat = UnixListener::bind(at("flat.sock")).unwrap();
        let _deep = UnixListener::bind(at("deep/deep.sock")).unwrap();
        std::fs::write(at("not.sock"), "").unwrap();
        std::fs::write(at("spec.spec"), "tcp://localhost:1\n").unwrap();
        std::fs::write(at("json.json"), r#"{"Addr": "unix:///x"}"#).unwrap();
        std::fs::write(at("bad.json"), "{").unwrap();
        std::fs::write(at("other.txt"), "unix:///x").unwrap();
        // Beside a socket, what a file says does not count.
        std::fs::write(at("flat.spec"), "tcp://localhost:1").unwrap();
        let places = Places::only(&[dir.path().to_owned()]);
        assert_eq!(places.names(), ["deep", "flat", "json", "spec"]);
        assert_eq!(places.find("flat").unwrap(), Some(Address::Unix(at("flat.sock"))));
        assert_eq!(places.find("deep").unwrap(), Some(Address::Unix(at("deep/deep.sock"))));
        assert_eq!(places.find("spec").unwrap(), Some(tcp("localhost", 1, None)));
        assert_eq!(places.find("not").unwrap(), None);
        assert!(places.find("bad").is_err());
    }
}
