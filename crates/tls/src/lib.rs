//! TLS as all of us speak it: one provider, one way to the system's authorities, one way to do without them.
//!
//! Which files are read, and in which words it is told when they cannot be, is for whoever asks.

pub mod seal;

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Whose certificates are believed.
#[derive(Debug)]
pub enum Trust {
    /// Those that the system's certificate authorities vouch for.
    System,
    /// Those that these have signed.
    Authorities(RootCertStore),
    /// Anybody's. That the handshake is signed with what was shown is checked all the same.
    Anybody,
}

/// What a client shows of itself.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A client's side of connections. Fails where the identity is none: a key that does not fit its certificate.
pub fn client(trust: Trust, identity: Option<Identity>) -> Result<ClientConfig, Error> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match trust {
        Trust::System => builder.with_root_certificates(system_authorities()),
        Trust::Authorities(roots) => builder.with_root_certificates(roots),
        Trust::Anybody => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(NoQuestions(provider)))
        }
    };
    match identity {
        Some((certificates, key)) => builder.with_client_auth_cert(certificates, key),
        None => Ok(builder.with_no_client_auth()),
    }
}

fn system_authorities() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "cannot read some of the system's CA certificates");
    }
    let (_, ignored) = roots.add_parsable_certificates(found.certs);
    if ignored > 0 {
        tracing::debug!(ignored, "some of the system's CA certificates are unusable");
    }
    roots
}

/// Believes whatever certificate is shown; the signatures must still be made with it.
#[derive(Debug)]
struct NoQuestions(Arc<CryptoProvider>);

impl ServerCertVerifier for NoQuestions {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
