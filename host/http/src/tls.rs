//! TLS 1.2 and 1.3, with or without client certificates.
//!
//! The keys of a [`Tls`] can be replaced while connections are open. Open connections keep their keys. New connections
//! use the new keys.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use larder_common::files::read_regular;
use larder_model::yaml::Located;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// `server: tls`: PEM files.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// The server's certificate, followed by the intermediate certificates.
    pub cert: Located<PathBuf>,
    /// The private key of the server's certificate.
    pub key: Located<PathBuf>,
    /// The certificate authorities of clients. If set, clients must present a certificate that one of them issued.
    pub client_ca: Option<Located<PathBuf>>,
}

/// The keys and certificates from the files of a [`TlsConfig`], after all checks.
#[derive(Clone, Debug)]
pub struct TlsKeys {
    server: Arc<ServerConfig>,
}

/// The keys for the handshakes of new connections, which can be replaced.
#[derive(Debug)]
pub struct Tls {
    current: ArcSwap<ServerConfig>,
}

/// One of the files of a [`TlsConfig`], named by its configuration key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFile {
    /// `cert`.
    Cert,
    /// `key`.
    Key,
    /// `client_ca`.
    ClientCa,
}

/// Why the keys cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The kind of file.
        file: TlsFile,
        /// The path of the file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A file does not contain the expected PEM section.
    #[error("{} has no {wanted} in PEM format", path.display())]
    MissingPem {
        /// The kind of file.
        file: TlsFile,
        /// The path of the file.
        path: PathBuf,
        /// The expected content.
        wanted: &'static str,
    },
    /// The private key does not match the certificate.
    #[error("the private key in {} does not match the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
    },
    /// A file's content cannot be used.
    #[error("{} cannot be used: {why}", path.display())]
    Unusable {
        /// The kind of file.
        file: TlsFile,
        /// The path of the file.
        path: PathBuf,
        /// The TLS library's reason.
        why: String,
    },
}

/// The size limit of a PEM file in bytes. A bundle of all public authorities has a few hundred kilobytes.
const PEM_BYTES_MAX: u64 = 4 << 20;

/// The limit on encrypted bytes that a connection buffers for a client that does not read them.
const UNSENT_BYTES_MAX: usize = 32 << 10;

/// The protocol for ALPN.
const HTTP_1_1: &[u8] = b"http/1.1";

// === impl TlsConfig ===

impl TlsConfig {
    /// Returns the path of a file, with its location in the configuration. Returns `cert` for `client_ca` if that is
    /// not set.
    #[must_use]
    pub fn file(&self, file: TlsFile) -> &Located<PathBuf> {
        match (file, &self.client_ca) {
            (TlsFile::ClientCa, Some(client_ca)) => client_ca,
            (TlsFile::Key, _) => &self.key,
            (TlsFile::Cert | TlsFile::ClientCa, _) => &self.cert,
        }
    }
}

// === impl TlsKeys ===

impl TlsKeys {
    /// Reads and checks the files. Also checks that the key matches the certificate, if the two can be compared.
    ///
    /// # Errors
    /// The first problem that is found.
    pub fn read(config: &TlsConfig) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certified = certified(&config.cert.value, &config.key.value, &provider)?;

        let unusable = |file, path: &Path, error: &dyn fmt::Display| TlsError::Unusable {
            file,
            path: path.to_path_buf(),
            why: error.to_string(),
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(TlsFile::Cert, &config.cert.value, &error))?;
        let builder = match &config.client_ca {
            None => builder.with_no_client_auth(),
            Some(Located { value: path, .. }) => {
                let mut roots = RootCertStore::empty();
                for root in certificates(TlsFile::ClientCa, path)? {
                    roots.add(root).map_err(|error| unusable(TlsFile::ClientCa, path, &error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| unusable(TlsFile::ClientCa, path, &error))?)
            }
        };
        let mut server = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        server.alpn_protocols = vec![HTTP_1_1.to_vec()];
        Ok(Self { server: Arc::new(server) })
    }
}

/// Reads the certificate and its key, and checks that they match.
fn certified(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(TlsFile::Cert, cert)?;
    // The parser's error may quote the invalid line, so it is dropped for a key.
    let private = PrivateKeyDer::from_pem_slice(&read(TlsFile::Key, key)?).map_err(|_| TlsError::MissingPem {
        file: TlsFile::Key,
        path: key.to_path_buf(),
        wanted: "private key",
    })?;
    let private = provider.key_provider.load_private_key(private).map_err(|error| TlsError::Unusable {
        file: TlsFile::Key,
        path: key.to_path_buf(),
        why: error.to_string(),
    })?;
    let certified = CertifiedKey::new(chain, private);
    match certified.keys_match() {
        // A key that does not expose its public half cannot be compared. If it does not match, handshakes fail.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::Mismatch { key: key.to_path_buf(), cert: cert.to_path_buf() })
        }
        Err(error) => Err(TlsError::Unusable { file: TlsFile::Cert, path: cert.to_path_buf(), why: error.to_string() }),
    }
}

fn certificates(file: TlsFile, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(file, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| TlsError::Unusable { file, path: path.to_path_buf(), why: error.to_string() })?;
    if found.is_empty() {
        return Err(TlsError::MissingPem { file, path: path.to_path_buf(), wanted: "certificate" });
    }
    Ok(found)
}

fn read(file: TlsFile, path: &Path) -> Result<Vec<u8>, TlsError> {
    read_regular(path, PEM_BYTES_MAX).map_err(|source| TlsError::Read { file, path: path.to_path_buf(), source })
}

// === impl Tls ===

impl Tls {
    /// Creates a TLS configuration with these keys.
    #[must_use]
    pub fn new(keys: TlsKeys) -> Self {
        Self { current: ArcSwap::new(keys.server) }
    }

    /// Replaces the keys for new connections. Earlier TLS sessions cannot be resumed, so every new connection is
    /// checked against the new authorities.
    pub fn replace(&self, keys: TlsKeys) {
        self.current.store(keys.server);
    }

    /// Performs the handshake. The caller must limit its duration.
    pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let acceptor = TlsAcceptor::from(self.current.load_full());
        acceptor.accept_with(stream, |connection| connection.set_buffer_limit(Some(UNSENT_BYTES_MAX))).await
    }
}

// === impl TlsError ===

impl TlsError {
    /// Returns the file that caused the error.
    #[must_use]
    pub fn file(&self) -> TlsFile {
        match self {
            Self::Read { file, .. } | Self::MissingPem { file, .. } | Self::Unusable { file, .. } => *file,
            Self::Mismatch { .. } => TlsFile::Key,
        }
    }
}

// === impl TlsFile ===

impl fmt::Display for TlsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cert => "cert",
            Self::Key => "key",
            Self::ClientCa => "client_ca",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use larder_model::yaml::Place;
    use rcgen::{CertifiedKey as Made, KeyPair, generate_simple_self_signed};

    use super::*;

    struct Files {
        dir: tempfile::TempDir,
        config: TlsConfig,
    }

    fn files(cert: &str, key: &str, client_ca: Option<&str>) -> Files {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            Located { value: path, at: Place::file("larder.yaml") }
        };
        let config = TlsConfig {
            cert: write("cert.pem", cert),
            key: write("key.pem", key),
            client_ca: client_ca.map(|text| write("ca.pem", text)),
        };
        Files { dir, config }
    }

    fn pair() -> (String, String) {
        let Made { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (cert.pem(), signing_key.serialize_pem())
    }

    #[test]
    fn matching_key_pair_is_accepted() {
        let (cert, key) = pair();
        for client_ca in [None, Some(&*cert)] {
            let keys = TlsKeys::read(&files(&cert, &key, client_ca).config).unwrap();
            assert_eq!(keys.server.alpn_protocols, [b"http/1.1".to_vec()]);
        }
        // A file may contain both sections, and text around them.
        let both = format!("a note\n{key}{cert}");
        assert!(TlsKeys::read(&files(&both, &both, None).config).is_ok());
    }

    #[test]
    fn error_names_the_invalid_file() {
        let (cert, key) = pair();
        let other = KeyPair::generate().unwrap().serialize_pem();
        let broken = cert.replace("MII", "!!!");
        let no_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let cut_off = &key[..key.len() / 2];
        for (cert, key, client_ca, file, words) in [
            ("", &*key, None, TlsFile::Cert, "DIR/cert.pem has no certificate in PEM format"),
            (&*key, &*key, None, TlsFile::Cert, "DIR/cert.pem has no certificate in PEM format"),
            (&*broken, &*key, None, TlsFile::Cert, "DIR/cert.pem cannot be used"),
            (no_der, &*key, None, TlsFile::Cert, "DIR/cert.pem cannot be used"),
            (&*cert, "", None, TlsFile::Key, "DIR/key.pem has no private key in PEM format"),
            (&*cert, &*cert, None, TlsFile::Key, "DIR/key.pem has no private key in PEM format"),
            (&*cert, cut_off, None, TlsFile::Key, "DIR/key.pem has no private key in PEM format"),
            (&*cert, no_key, None, TlsFile::Key, "DIR/key.pem cannot be used"),
            (
                &*cert,
                &*other,
                None,
                TlsFile::Key,
                "the private key in DIR/key.pem does not match the certificate in DIR/cert.pem",
            ),
            (&*cert, &*key, Some(""), TlsFile::ClientCa, "DIR/ca.pem has no certificate in PEM format"),
            (&*cert, &*key, Some(no_der), TlsFile::ClientCa, "DIR/ca.pem cannot be used"),
        ] {
            let files = files(cert, key, client_ca);
            let error = TlsKeys::read(&files.config).unwrap_err();
            let message = error.to_string().replace(&files.dir.path().display().to_string(), "DIR");
            assert!(message.starts_with(words), "{message}");
            assert_eq!(error.file(), file, "{message}");
        }
        let files = files(&cert, &key, None);
        fs::remove_file(&files.config.key.value).unwrap();
        let error = TlsKeys::read(&files.config).unwrap_err();
        assert!(matches!(error, TlsError::Read { file: TlsFile::Key, .. }), "{error}");
    }
}
