//! TLS towards a plugin that listens elsewhere: the files of its description become a rustls configuration.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use stdx::{Context, Error, Result};
use tls::Trust;

use crate::discovery::TlsFiles;

/// What a connection is made from.
pub fn config(files: &TlsFiles) -> Result<Arc<ClientConfig>> {
    let trust = match (files.trusts_anybody, files.ca.as_os_str().is_empty()) {
        (true, _) => Trust::Anybody,
        (false, true) => Trust::System,
        (false, false) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&files.ca)? {
                roots
                    .add(certificate)
                    .map_err(|error| Error::invalid(error.to_string()))
                    .context(|| format!("cannot use {}", files.ca.display()))?;
            }
            Trust::Authorities(roots)
        }
    };
    let identity = match files.certificate.as_os_str().is_empty() {
        true => None,
        false => {
            let key = PrivateKeyDer::from_pem_file(&files.key)
                .map_err(|error| unreadable(&files.key, error))?;
            Some((certificates(&files.certificate)?, key))
        }
    };
    let config = tls::client(trust, identity)
        .map_err(|error| Error::invalid(error.to_string()))
        .context(|| format!("cannot use {}", files.certificate.display()))?;
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.map_err(|error| unreadable(path, error))
}

/// A file that is not there, or none of the sort.
fn unreadable(path: &Path, error: pem::Error) -> Error {
    match error {
        pem::Error::Io(cause) => {
            Error::invalid(format!("open {}", path.display())).caused_by(Error::from(cause))
        }
        other => Error::invalid(format!("cannot read {}: {other}", path.display())),
    }
}
