//! Owns what the client shows in a TLS handshake: a certificate and its key (mutual TLS).
//!
//! It must never print the key. The surprise: an identity has TLS sessions of its own, so that none
//! is resumed under another one's name.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use sha2::{Digest, Sha256};

/// Sessions that are kept for one endpoint's servers.
const SESSIONS_MAX: usize = 8;

/// A client's certificate with its private key.
pub struct Identity {
    key: Arc<CertifiedKey>,
    fingerprint: [u8; 32],
    config: OnceLock<Arc<ClientConfig>>,
}

impl Identity {
    /// Reads a certificate, with its chain, and its key.
    ///
    /// # Errors
    /// Why they cannot be used; nothing of the key.
    pub fn parse(certificates_pem: &str, key_pem: &[u8]) -> Result<Self, String> {
        let certificates: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(certificates_pem.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|_| "certificate is not pem".to_owned())?;
        let mut hash = Sha256::new();
        for certificate in &certificates {
            hash.update(Sha256::digest(certificate));
        }
        let key = PrivateKeyDer::from_pem_slice(key_pem)
            .map_err(|_| "private key is not pem".to_owned())?;
        hash.update(Sha256::digest(key.secret_der()));
        let key = CertifiedKey::from_der(certificates, key, &ring::default_provider())
            .map_err(|error| error.to_string())?;
        Ok(Self {
            key: Arc::new(key),
            fingerprint: hash.finalize().into(),
            config: OnceLock::new(),
        })
    }

    /// TLS as in `base`, with this identity.
    pub(super) fn config(&self, base: &ClientConfig) -> Arc<ClientConfig> {
        let make = || {
            let mut config = base.clone();
            let resolver = SingleCertAndKey::from(CertifiedKey::clone(&self.key));
            config.client_auth_cert_resolver = Arc::new(resolver);
            config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
            Arc::new(config)
        };
        Arc::clone(self.config.get_or_init(make))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(redacted)")
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fingerprint.hash(state);
    }
}
