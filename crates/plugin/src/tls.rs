//! TLS towards a plugin that listens elsewhere: the files of its description become a rustls configuration.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use stdx::{Context, Error, Result};

use crate::discovery::TlsFiles;

pub(crate) fn config(files: &TlsFiles) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal(error.to_string()))?;
    let builder = if files.trusts_anybody {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustsAnybody(provider)))
    } else {
        let mut roots = RootCertStore::empty();
        if files.ca.as_os_str().is_empty() {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        } else {
            for certificate in certificates(&files.ca)? {
                roots
                    .add(certificate)
                    .map_err(|error| Error::invalid(error.to_string()))
                    .context(|| format!("cannot use {}", files.ca.display()))?;
            }
        }
        builder.with_root_certificates(roots)
    };
    let config = if files.certificate.as_os_str().is_empty() {
        builder.with_no_client_auth()
    } else {
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .map_err(|error| Error::invalid(error.to_string()))
            .context(|| format!("cannot read the key {}", files.key.display()))?;
        builder
            .with_client_auth_cert(certificates(&files.certificate)?, key)
            .map_err(|error| Error::invalid(error.to_string()))
            .context(|| format!("cannot use {}", files.certificate.display()))?
    };
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| Error::invalid(error.to_string()))
        .context(|| format!("cannot read {}", path.display()))
}

/// For those who asked for no look at the certificate; that its owner signed the handshake is checked all the same.
#[derive(Debug)]
struct TrustsAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustsAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
