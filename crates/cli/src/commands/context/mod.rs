//! Contexts: which daemon is meant.

pub(crate) mod create;
pub(crate) mod inspect;
pub(crate) mod ls;
pub(crate) mod rm;
pub(crate) mod show;
pub(crate) mod update;
pub(crate) mod r#use;

use crate::context::EndpointMeta;
use crate::failure::{Failure, Result};

/// `host=…,ca=…,cert=…,key=…,skip-tls-verify=…` understood.
#[derive(Debug, Default)]
struct DockerEndpoint {
    from: Option<String>,
    host: String,
    files: Vec<(&'static str, String)>,
    skip_tls_verify: bool,
}

impl DockerEndpoint {
    fn of(pairs: &[(&str, &str)]) -> Result<Self> {
        let mut endpoint = Self::default();
        for (key, value) in pairs {
            match *key {
                "from" => endpoint.from = Some((*value).to_owned()),
                "host" => endpoint.host = (*value).to_owned(),
                "ca" => endpoint.files.push(("ca.pem", (*value).to_owned())),
                "cert" => endpoint.files.push(("cert.pem", (*value).to_owned())),
                "key" => endpoint.files.push(("key.pem", (*value).to_owned())),
                "skip-tls-verify" => endpoint.skip_tls_verify = matches!(*value, "1" | "true"),
                key => return Err(Failure::words(format!("unrecognized config key: {key}"))),
            }
        }
        if !endpoint.host.is_empty() {
            client::Endpoint::parse(&endpoint.host).map_err(|err| {
                Failure::words(format!("unable to create docker endpoint config: {}", err.chain()))
            })?;
        }
        Ok(endpoint)
    }

    fn meta(&self) -> EndpointMeta {
        EndpointMeta { host: self.host.clone(), skip_tls_verify: self.skip_tls_verify }
    }

    /// Copies the TLS files to where the context keeps them.
    fn keep_files(&self, contexts: &crate::context::Store, name: &str) -> Result {
        for (file, source) in &self.files {
            let directory = contexts.tls_directory(name).join("docker");
            let source = source.replacen(
                "~",
                &crate::env::home().display().to_string(),
                usize::from(source.starts_with("~/")),
            );
            std::fs::create_dir_all(&directory)
                .and_then(|()| std::fs::copy(&source, directory.join(file)))
                .map_err(|err| {
                    Failure::words(format!(
                        "unable to create docker endpoint config: open {source}: {}",
                        stdx::Error::from(err)
                    ))
                })?;
        }
        Ok(())
    }
}
