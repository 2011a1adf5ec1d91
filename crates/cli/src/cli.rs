//! What every command is given: the printer, the user's settings, and the way to the daemon.

use std::cell::OnceCell;
use std::path::PathBuf;

use client::{ApiVersion, Client, Endpoint, TlsFiles};

use crate::config_file::ConfigFile;
use crate::context;
use crate::env;
use crate::failure::{Failure, Result};
use crate::flags::Parsed;
use crate::printer::Printer;

pub(crate) struct Cli {
    /// What we are called: `gantry` or `docker`.
    pub(crate) program: &'static str,
    pub(crate) printer: Printer,
    pub(crate) globals: Globals,
    config: OnceCell<ConfigFile>,
    client: OnceCell<Client>,
}

/// The flags before the command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Globals {
    pub(crate) config: Option<String>,
    pub(crate) context: Option<String>,
    pub(crate) debug: bool,
    pub(crate) hosts: Vec<String>,
    pub(crate) tls: bool,
    pub(crate) tls_verify: bool,
    pub(crate) tls_ca: Option<String>,
    pub(crate) tls_cert: Option<String>,
    pub(crate) tls_key: Option<String>,
}

impl Globals {
    pub(crate) fn of(flags: &Parsed) -> Self {
        let text = |name| flags.get(name).map(str::to_owned);
        Self {
            config: text("config"),
            context: text("context"),
            debug: flags.on("debug"),
            hosts: flags.list("host").into_iter().map(str::to_owned).collect(),
            tls: flags.on("tls") || flags.given("tlsverify"),
            tls_verify: flags
                .switch("tlsverify")
                .unwrap_or_else(|| env::non_empty("DOCKER_TLS_VERIFY").is_some()),
            tls_ca: text("tlscacert"),
            tls_cert: text("tlscert"),
            tls_key: text("tlskey"),
        }
    }
}

/// Where the daemon is, and how that was found out.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) tls: Option<TlsFiles>,
}

impl Cli {
    pub(crate) fn new(program: &'static str, globals: Globals) -> Self {
        Self {
            program,
            printer: Printer::default(),
            globals,
            config: OnceCell::new(),
            client: OnceCell::new(),
        }
    }

    /// Does help speak of what Docker's command does not have? Called by Docker's name it says what Docker's says.
    pub(crate) fn shows_more(&self) -> bool {
        self.program != "docker"
    }

    pub(crate) fn config_directory(&self) -> PathBuf {
        match &self.globals.config {
            Some(directory) => directory.into(),
            None => env::non_empty("DOCKER_CONFIG")
                .map_or_else(|| env::home().join(".docker"), Into::into),
        }
    }

    /// The user's settings. A file that cannot be read is reported once and counts as empty.
    pub(crate) fn config(&self) -> &ConfigFile {
        self.config.get_or_init(|| {
            let directory = self.config_directory();
            ConfigFile::load(&directory).unwrap_or_else(|err| {
                self.printer.complain(&format!("WARNING: Error {}", err.chain()));
                ConfigFile::empty(&directory.join("none"))
            })
        })
    }

    pub(crate) fn contexts(&self) -> context::Store {
        context::Store::new(&self.config_directory())
    }

    /// The name of the context in use, by flag, environment or setting.
    pub(crate) fn context_name(&self) -> String {
        if let Some(name) = &self.globals.context {
            return name.clone();
        }
        if !self.globals.hosts.is_empty() || env::ours_or_dockers("HOST").is_some() {
            return context::DEFAULT.to_owned();
        }
        if let Some(name) = env::ours_or_dockers("CONTEXT") {
            return name;
        }
        match self.config().text("currentContext") {
            "" => context::DEFAULT.to_owned(),
            name => name.to_owned(),
        }
    }

    /// The address meant by the default context.
    pub(crate) fn default_host(&self) -> String {
        if let Some(host) = self.globals.hosts.last() {
            return host.clone();
        }
        if let Some(host) = env::ours_or_dockers("HOST") {
            return host;
        }
        if let Some(socket) = own_socket() {
            return format!("unix://{}", socket.display());
        }
        const OURS: &str = "/run/gantry.sock";
        const DOCKERS: &str = "/var/run/docker.sock";
        let path = match self.program {
            "docker"
                if std::path::Path::new(DOCKERS).exists()
                    || !std::path::Path::new(OURS).exists() =>
            {
                DOCKERS
            }
            _ => OURS,
        };
        format!("unix://{path}")
    }

    pub(crate) fn target(&self) -> Result<Target> {
        if self.globals.context.is_some() && !self.globals.hosts.is_empty() {
            return Err(Failure::words(
                "conflicting options: cannot specify both --host and --context",
            ));
        }
        let name = self.context_name();
        if name == context::DEFAULT {
            let host = self.default_host();
            return Ok(Target { host: complete(&host), tls: self.tls_of_flags() });
        }
        let contexts = self.contexts();
        let stored = contexts.load(&name).map_err(|err| {
            Failure::words(format!("unable to resolve docker endpoint: {}", err.chain()))
        })?;
        let endpoint = stored.docker();
        let file = |file| contexts.tls_file(&name, file);
        let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
        let tls = (ca.is_some() || cert.is_some() || endpoint.skip_tls_verify)
            .then_some(TlsFiles { ca, cert, key, skip_verify: endpoint.skip_tls_verify });
        let host = if endpoint.host.is_empty() { self.default_host() } else { endpoint.host };
        Ok(Target { host: complete(&host), tls })
    }

    fn tls_of_flags(&self) -> Option<TlsFiles> {
        let globals = &self.globals;
        if !(globals.tls || globals.tls_verify || env::non_empty("DOCKER_TLS").is_some()) {
            return None;
        }
        let directory =
            env::non_empty("DOCKER_CERT_PATH").map_or_else(|| self.config_directory(), Into::into);
        let file = |given: &Option<String>, name: &str| match given {
            Some(path) => Some(PathBuf::from(path)),
            None => Some(directory.join(name)).filter(|path| path.exists()),
        };
        Some(TlsFiles {
            ca: file(&globals.tls_ca, "ca.pem").filter(|_| globals.tls_verify),
            cert: file(&globals.tls_cert, "cert.pem"),
            key: file(&globals.tls_key, "key.pem"),
            skip_verify: !globals.tls_verify,
        })
    }

    /// The daemon. Nothing is sent until something is asked.
    pub(crate) fn client(&self) -> Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let initialize = |words: &str| Failure::words(format!("Failed to initialize: {words}"));
        let target = self.target().map_err(|failure| initialize(failure.text()))?;
        let endpoint = Endpoint::parse(&target.host).map_err(|err| initialize(&err.chain()))?;
        let mut config = client::Config::new(endpoint);
        config.tls = target.tls.filter(|_| matches!(config.endpoint, Endpoint::Tcp { .. }));
        config.headers = self.config().map("HttpHeaders").into_iter().collect();
        config.ssh_program = self.program.to_owned();
        if let Some(version) = env::ours_or_dockers("API_VERSION") {
            config.version =
                Some(ApiVersion::parse(&version).map_err(|err| initialize(&err.chain()))?);
        }
        Ok(self.client.get_or_init(|| Client::new(config)))
    }
}

/// Where the daemon of a user who is not root listens, if he has one.
fn own_socket() -> Option<PathBuf> {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return None;
    }
    let runtime = env::non_empty("XDG_RUNTIME_DIR")
        .map_or_else(|| PathBuf::from(format!("/run/user/{uid}")), PathBuf::from);
    Some(runtime.join("gantry.sock")).filter(|socket| socket.exists())
}

/// An address as people write it, made whole: `-H box` is `tcp://box:2375`, `-H unix://` the default socket.
fn complete(host: &str) -> String {
    match host.split_once("://") {
        Some(("unix", "")) => "unix:///var/run/docker.sock".to_owned(),
        Some(("tcp" | "http" | "https", address)) => {
            let (authority, path) = address.split_once('/').unwrap_or((address, ""));
            let authority = with_port(authority);
            if path.is_empty() {
                format!("tcp://{authority}")
            } else {
                format!("tcp://{authority}/{path}")
            }
        }
        Some(_) => host.to_owned(),
        None if host.starts_with('/') => format!("unix://{host}"),
        None => format!("tcp://{}", with_port(host)),
    }
}

fn with_port(authority: &str) -> String {
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.ends_with(']') && !port.is_empty());
    match (authority, has_port) {
        ("", _) => "localhost:2375".to_owned(),
        (_, true) if authority.starts_with(':') => format!("localhost{authority}"),
        (_, true) => authority.to_owned(),
        (_, false) => format!("{}:2375", authority.trim_end_matches(':')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_made_whole() {
        for (given, whole) in [
            ("box", "tcp://box:2375"),
            ("tcp://box", "tcp://box:2375"),
            ("tcp://:2376", "tcp://localhost:2376"),
            ("tcp://[::1]:2376", "tcp://[::1]:2376"),
            ("unix:///x", "unix:///x"),
            ("ssh://a@b", "ssh://a@b"),
        ] {
            assert_eq!(complete(given), whole);
        }
    }
}
