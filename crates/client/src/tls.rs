//! TLS towards a daemon: the three files of `DOCKER_CERT_PATH` become a rustls configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use stdx::{Context, Error, Result};
use tls::Trust;

/// Which files to trust and to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Trust what these have signed; the system's roots when absent.
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Take any certificate the daemon shows (`--tls` without `--tlsverify`).
    pub skip_verify: bool,
}

pub(crate) fn config(files: &TlsFiles) -> Result<Arc<ClientConfig>> {
    let trust = match (&files.ca, files.skip_verify) {
        (_, true) => Trust::Anybody,
        (Some(ca), false) => Trust::Authorities(authorities(ca)?),
        (None, false) => Trust::System,
    };
    let words = |cert: &Path| format!("could not load X509 key pair: {}", cert.display());
    let identity = match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|err| Error::invalid(words(cert)).caused_by(err))?;
            Some((certificates(cert)?, key))
        }
        _ => None,
    };
    let config = tls::client(trust, identity).map_err(|err| match &files.cert {
        Some(cert) => Error::invalid(words(cert)).caused_by(err),
        None => Error::internal("cannot set up TLS").caused_by(err),
    })?;
    Ok(Arc::new(config))
}

fn authorities(ca: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|err| {
            Error::invalid(format!("invalid certificate in {}", ca.display())).caused_by(err)
        })?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = std::fs::read(path).context(|| format!("could not read CA certificate {path:?}"))?;
    CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|err| Error::invalid(format!("failed to read {}", path.display())).caused_by(err))
}
