//! Generates certificates for tests, and a TLS client.

use std::{
    fs, io,
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
};

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{
    ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use crate::wire::{self, Answer};

/// A certificate authority.
pub(crate) struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
pub(crate) struct Pair {
    certificate: Certificate,
    key: KeyPair,
}

/// A TLS client, with the authorities that it trusts and the certificate that it presents.
pub(crate) struct Client {
    config: ClientConfig,
}

pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

// === impl Authority ===

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Python requires these key usages in an authority's certificate. The authority needs its own name, because
        // Python treats a certificate with the authority's name as self-signed.
        params.distinguished_name.push(DnType::CommonName, "Larder's tests");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        Self { certificate: params.self_signed(&key).unwrap(), issuer: Issuer::new(params, key) }
    }

    pub(crate) fn issue(&self) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.use_authority_key_identifier_extension = true;
        Pair { certificate: params.signed_by(&key, &self.issuer).unwrap(), key }
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Returns a client that trusts this authority.
    pub(crate) fn client(&self) -> Client {
        self.client_with(None, rustls::ALL_VERSIONS)
    }

    pub(crate) fn client_with(&self, pair: Option<&Pair>, versions: &[&'static SupportedProtocolVersion]) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.serialize_pem().as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![pair.certificate.der().clone()], key).unwrap()
            }
        };
        Client { config }
    }
}

// === impl Pair ===

impl Pair {
    /// Writes `tls.crt` and `tls.key`.
    pub(crate) fn write(&self, dir: &Path) {
        fs::write(dir.join("tls.crt"), self.certificate.pem()).unwrap();
        fs::write(dir.join("tls.key"), self.key.serialize_pem()).unwrap();
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }
}

// === impl Client ===

impl Client {
    pub(crate) fn offering(mut self, protocol: &str) -> Self {
        self.config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        self
    }

    /// Connects and completes the handshake.
    pub(crate) fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::new(self.config.clone()), name).unwrap();
        let mut stream = StreamOwned::new(session, wire::connect(address));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    /// Sends a request on a separate connection. Returns `None` if the connection fails or there is no response.
    pub(crate) fn send(
        &self,
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Answer> {
        let method = if body.is_empty() { "GET" } else { "POST" };
        wire::ask(&mut self.connect(address).ok()?, method, path, headers, body)
    }

    /// Returns the certificate that the server presents to a new connection.
    pub(crate) fn certificate(&self, address: SocketAddr) -> CertificateDer<'static> {
        self.connect(address).unwrap().conn.peer_certificates().unwrap()[0].clone()
    }

    pub(crate) fn agreed(&self, address: SocketAddr) -> (Option<ProtocolVersion>, Option<Vec<u8>>) {
        let stream = self.connect(address).unwrap();
        (stream.conn.protocol_version(), stream.conn.alpn_protocol().map(<[u8]>::to_vec))
    }
}
