//! Owns how TLS to endpoints is set up: whom it trusts, and the protocols it offers.
//!
//! It never connects.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_platform_verifier::Verifier;

use super::client::BuildError;

/// What HTTP/2 is called in a handshake.
pub(super) const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// The system's certificate authorities and the extra ones, on the ring provider.
pub(super) fn tls_config(extra_roots_pem: &[u8]) -> Result<ClientConfig, BuildError> {
    let provider = Arc::new(ring::default_provider());
    let extra: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(extra_roots_pem)
        .collect::<Result<_, _>>()
        .map_err(|error| BuildError::Roots(Box::new(error)))?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let mut config = if extra.is_empty() {
        with_system_roots(builder, provider)
    } else {
        let verifier = Verifier::new_with_extra_roots(extra, provider)
            .map_err(|error| BuildError::Roots(Box::new(error)))?;
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth()
    };
    config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
    Ok(config)
}

fn with_system_roots(
    builder: rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>,
    provider: Arc<CryptoProvider>,
) -> ClientConfig {
    match Verifier::new(provider) {
        Ok(verifier) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth(),
        Err(error) => {
            // A laptop's demo on a bare container needs no certificates; https fails by itself.
            tracing::warn!(%error, "no certificate authorities found: https endpoints will fail");
            builder
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth()
        }
    }
}
