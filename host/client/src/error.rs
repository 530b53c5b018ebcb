//! The errors of a call.

use std::{io, path::PathBuf, time::Duration};

/// Why a call failed before a complete response arrived.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL is invalid.
    #[error("url '{url}': {reason}. hint: use 'http://HOST:PORT', 'https://HOST:PORT' or 'unix:///PATH'")]
    Address {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The token contains a character that a header cannot contain. The message does not have the token.
    #[error("the token contains a character that is not printable ASCII. hint: remove line breaks and spaces")]
    Token,
    /// A file of a certificate or a key cannot be used.
    #[error("{}: {reason}", .path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system has no certificate authorities.
    #[error("the system has no certificate authorities: {0}. hint: set 'ca' to a PEM file of the server's authority")]
    NoAuthorities(String),
    /// No connection could be opened.
    #[error("cannot connect to {address}: {error}. hint: check that 'larder serve' runs at this address")]
    Connect {
        /// The server's address.
        address: String,
        /// The error of the last attempt.
        error: io::Error,
    },
    /// The TLS handshake failed.
    #[error("TLS handshake with {address} failed: {error}. hint: check 'ca' and 'client_certificate'")]
    Handshake {
        /// The server's address.
        address: String,
        /// The error.
        error: io::Error,
    },
    /// The connection broke before the response was complete.
    #[error("the connection to {address} broke before the response was complete: {error}")]
    Broken {
        /// The server's address.
        address: String,
        /// The error.
        error: io::Error,
    },
    /// The response is not valid HTTP.
    #[error("{address} sent an invalid response: {reason}. hint: check that the port is Larder's HTTP port")]
    Protocol {
        /// The server's address.
        address: String,
        /// What is wrong with the response.
        reason: String,
    },
    /// The response exceeds the limit.
    #[error("the response of {address} is larger than {limit} bytes. hint: raise 'max_response_bytes'")]
    TooLarge {
        /// The server's address.
        address: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// The call took longer than its timeout.
    #[error("no response from {address} within {} s. hint: raise 'timeout'", .timeout.as_secs_f64())]
    Timeout {
        /// The server's address.
        address: String,
        /// The timeout.
        timeout: Duration,
    },
    /// The caller interrupted the call.
    #[error("the call was interrupted")]
    Interrupted,
}
