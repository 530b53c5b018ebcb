//! The address of a server, from its URL.

use std::{fmt, path::PathBuf};

use crate::ClientError;

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host and a port, with or without TLS.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// The port.
        port: u16,
        /// Whether connections use TLS.
        tls: bool,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

// === impl Address ===

impl Address {
    /// Parses a URL: `http://HOST[:PORT]`, `https://HOST[:PORT]` or `unix:///PATH`.
    ///
    /// # Errors
    ///
    /// Returns [`ClientError::Address`] if the URL has another form.
    pub fn parse(url: &str) -> Result<Self, ClientError> {
        // A password must not be printed.
        let shown = match (url.split_once("://"), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
            _ => url.to_owned(),
        };
        let invalid = |reason| ClientError::Address { url: shown.clone(), reason };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid("it has no scheme"))?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            "unix" if rest.starts_with('/') => return Ok(Self::Unix(rest.into())),
            "unix" => return Err(invalid("the path of the socket is not absolute")),
            _ => return Err(invalid("the scheme is not known")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(invalid("it has a path"));
        }
        if rest.contains('@') {
            return Err(invalid("user names are not supported"));
        }
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(|| invalid("the port is invalid"))?)),
            None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() || host.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(invalid("the host is invalid"));
        }
        let port = match port {
            Some(port) => port.parse().map_err(|_| invalid("the port is invalid"))?,
            None if tls => 443,
            None => 80,
        };
        Ok(Self::Tcp { host: host.to_owned(), port, tls })
    }

    /// Returns the value of the `Host` header.
    pub(crate) fn host_header(&self) -> String {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { tls, .. } => write!(f, "{}://{}", if *tls { "https" } else { "http" }, self.host_header()),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_url_is_parsed() {
        let tcp = |host: &str, port, tls| Address::Tcp { host: host.to_owned(), port, tls };
        for (url, expected, shown) in [
            ("http://127.0.0.1:6566", tcp("127.0.0.1", 6566, false), "http://127.0.0.1:6566"),
            ("http://larder/", tcp("larder", 80, false), "http://larder:80"),
            ("https://larder.internal", tcp("larder.internal", 443, true), "https://larder.internal:443"),
            ("http://[::1]:6566", tcp("::1", 6566, false), "http://[::1]:6566"),
            ("https://[::1]", tcp("::1", 443, true), "https://[::1]:443"),
            ("unix:///run/larder.sock", Address::Unix("/run/larder.sock".into()), "unix:///run/larder.sock"),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!(address, expected, "{url}");
            assert_eq!(address.to_string(), shown);
        }
    }

    #[test]
    fn password_is_not_printed() {
        let message = Address::parse("http://user:secret@larder:1").unwrap_err().to_string();
        assert!(message.starts_with("url 'http://***@larder:1': user names are not supported"), "{message}");
    }

    #[test]
    fn invalid_urls_are_rejected() {
        for (url, reason) in [
            ("127.0.0.1:6566", "no scheme"),
            ("grpc://larder:6567", "scheme is not known"),
            ("unix://run/larder.sock", "not absolute"),
            ("http://larder/get", "a path"),
            ("http://", "host is invalid"),
            ("http://lar der", "host is invalid"),
            ("http://larder:65536", "port is invalid"),
            ("http://[::1]6566", "port is invalid"),
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(url), "{error}");
        }
    }
}
