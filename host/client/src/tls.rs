//! TLS: the files of certificates and keys, and the configuration of handshakes.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};

use crate::ClientError;

/// The PEM files of a TLS client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate authorities of the server. If `None`, the authorities of the system are used.
    pub ca: Option<PathBuf>,
    /// The client's certificate and its key, if the server requires a client certificate.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The contents of the files. A process creates its own configuration from them.
pub(crate) struct TlsSetup {
    roots: Arc<RootCertStore>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, PathBuf)>,
}

// === impl TlsSetup ===

impl TlsSetup {
    /// Reads the files.
    pub(crate) fn load(files: &TlsFiles) -> Result<Self, ClientError> {
        let mut roots = RootCertStore::empty();
        match &files.ca {
            Some(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| unusable(path, &error))?;
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                // The files of a system may have certificates that rustls does not support. They are skipped.
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    let reasons: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
                    return Err(ClientError::NoAuthorities(reasons.join("; ")));
                }
            }
        }
        let identity = match &files.identity {
            Some((certificate, key)) => {
                let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
                Some((certificates(certificate)?, secret, certificate.clone()))
            }
            None => None,
        };
        Ok(Self { roots: Arc::new(roots), identity })
    }

    /// Creates the configuration of a process. It has no session cache, whose lock another thread could hold during a
    /// fork.
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, ClientError> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| ClientError::NoAuthorities(error.to_string()))?
            .with_root_certificates(Arc::clone(&self.roots));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key, path)) => {
                builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(|error| unusable(path, &error))?
            }
        };
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found = found.map_err(|error| unreadable(path, &error))?;
    if found.is_empty() {
        return Err(ClientError::TlsFile { path: path.to_owned(), reason: "has no certificate".to_owned() });
    }
    Ok(found)
}

fn unreadable(path: &Path, error: &pem::Error) -> ClientError {
    let reason = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "has no certificate or key in PEM format".to_owned(),
        other => format!("is not a valid PEM file: {other}"),
    };
    ClientError::TlsFile { path: path.to_owned(), reason }
}

fn unusable(path: &Path, error: &rustls::Error) -> ClientError {
    ClientError::TlsFile { path: path.to_owned(), reason: error.to_string() }
}
