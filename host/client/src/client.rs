//! The client: sends requests over pooled connections, and retries if a connection fails.

use std::{
    fmt,
    io::{self, Write as _},
    sync::Arc,
    thread,
    time::Duration,
};

use crate::{
    Address, ClientError, Request, Response, TlsFiles, Wait,
    message::{ReadError, Received},
    pool::{Pool, ProcessPool},
    stream::Stream,
    tls::TlsSetup,
    wait::Stopped,
};

/// The settings of a client.
#[derive(Clone)]
pub struct Settings {
    /// The server's address.
    pub address: Address,
    /// The bearer token.
    pub token: Option<String>,
    /// The PEM files for TLS.
    pub tls: TlsFiles,
    /// How often connecting is retried, within the timeout of the call.
    pub connect_retries: u32,
    /// The maximum size of a response's body in bytes.
    pub response_bytes_max: usize,
}

/// A client of one server. Threads may share it, and it may be used in a process that forks.
pub struct Client {
    settings: Settings,
    /// The address in messages.
    shown: String,
    /// The headers of every request.
    headers: String,
    tls: Option<TlsSetup>,
    pool: Pool,
}

/// How an attempt failed.
enum Failure {
    /// A reused connection was closed before the response. The server closes idle connections and connections of a
    /// previous process without notice.
    Stale,
    Final(ClientError),
}

/// How long a client waits before it connects again. The time doubles with each retry.
const RETRY_DELAY: Duration = Duration::from_millis(20);

// === impl Client ===

impl Client {
    /// Reads the files for TLS. Does not connect.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be used, or if the token is invalid.
    pub fn new(settings: Settings) -> Result<Self, ClientError> {
        // A line break would begin another header.
        if settings.token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(ClientError::Token);
        }
        let tls = match settings.address {
            Address::Tcp { tls: true, .. } => Some(TlsSetup::load(&settings.tls)?),
            _ => None,
        };
        let mut headers = format!("host: {}\r\n", settings.address.host_header());
        if let Some(token) = &settings.token {
            headers.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        let shown = settings.address.to_string();
        let client = Self { settings, shown, headers, tls, pool: Pool::new() };
        if let Some(tls) = &client.tls {
            // Reports an unusable key now, and not at the first call.
            tls.config()?;
        }
        Ok(client)
    }

    /// Sends a request and returns the response, whatever its status. If a reused connection turns out to be closed, the
    /// request is sent once more over a new connection.
    ///
    /// # Errors
    ///
    /// Returns an error if no complete response arrives within `timeout`, or if `interrupted` returns true.
    pub fn call(
        &self,
        request: Request<'_>,
        timeout: Duration,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Response, ClientError> {
        let wait = Wait::new(timeout, interrupted);
        let bytes = request.bytes(&self.headers);
        let pool = self.pool.of_process();
        let call = || {
            if let Some(stream) = pool.take(request.route) {
                match self.exchange(&pool, request, &bytes, stream, true, &wait) {
                    Err(Failure::Stale) => pool.clear(),
                    Err(Failure::Final(error)) => return Err(error),
                    Ok(response) => return Ok(response),
                }
            }
            let stream = self.connect(&pool, &wait)?;
            match self.exchange(&pool, request, &bytes, stream, false, &wait) {
                Err(Failure::Final(error)) => Err(error),
                Err(Failure::Stale) => Err(self.broken(io::ErrorKind::ConnectionReset.into())),
                Ok(response) => Ok(response),
            }
        };
        call().map_err(|error| match error {
            ClientError::Timeout { address, .. } => ClientError::Timeout { address, timeout },
            error => error,
        })
    }

    /// Writes a request and reads its response.
    fn exchange(
        &self,
        pool: &ProcessPool,
        request: Request<'_>,
        bytes: &[u8],
        mut stream: Stream,
        is_reused: bool,
        wait: &Wait<'_>,
    ) -> Result<Response, Failure> {
        let mut limited = stream.limited(wait);
        // If the server has closed the connection, a response that explains the reason may have arrived before.
        let written = limited.write_all(bytes).and_then(|()| limited.flush());
        if let Err(error) = written.as_ref()
            && Stopped::of(error).is_some()
        {
            return Err(self.stopped(error));
        }
        match Received::read(&mut limited, self.settings.response_bytes_max) {
            Ok(received) => {
                if received.keep_alive && written.is_ok() {
                    pool.put(request.route, stream);
                }
                Ok(received.response)
            }
            Err(ReadError::Unanswered(error) | ReadError::Broken(error)) if Stopped::of(&error).is_some() => {
                Err(self.stopped(&error))
            }
            Err(ReadError::Unanswered(_)) if is_reused => Err(Failure::Stale),
            Err(ReadError::Unanswered(error) | ReadError::Broken(error)) => Err(Failure::Final(self.broken(error))),
            Err(ReadError::Invalid(reason)) => {
                Err(Failure::Final(ClientError::Protocol { address: self.shown.clone(), reason }))
            }
            Err(ReadError::TooLarge) => Err(Failure::Final(ClientError::TooLarge {
                address: self.shown.clone(),
                limit: self.settings.response_bytes_max,
            })),
        }
    }

    /// Opens a connection. Retries if the server does not accept it.
    fn connect(&self, pool: &ProcessPool, wait: &Wait<'_>) -> Result<Stream, ClientError> {
        let mut retries = 0;
        loop {
            let connected = match &self.settings.address {
                Address::Tcp { host, port, .. } => Stream::connect_tcp(host, *port, wait),
                Address::Unix(path) => Stream::connect_unix(path, wait),
            };
            match connected {
                Ok(mut stream) => {
                    self.start_tls(pool, &mut stream, wait)?;
                    return Ok(stream);
                }
                Err(error) if Stopped::of(&error).is_some() => return Err(self.stop_error(&error)),
                Err(_) if retries < self.settings.connect_retries => {
                    wait.check().map_err(|error| self.stop_error(&error))?;
                    thread::sleep(
                        RETRY_DELAY.saturating_mul(1 << retries.min(16)).min(wait.slice().unwrap_or_default()),
                    );
                    retries += 1;
                }
                Err(error) => return Err(ClientError::Connect { address: self.shown.clone(), error }),
            }
        }
    }

    fn start_tls(&self, pool: &ProcessPool, stream: &mut Stream, wait: &Wait<'_>) -> Result<(), ClientError> {
        let (Some(tls), Address::Tcp { host, .. }) = (&self.tls, &self.settings.address) else { return Ok(()) };
        let config = match pool.tls.get() {
            Some(config) => Arc::clone(config),
            None => {
                let config = tls.config()?;
                Arc::clone(pool.tls.get_or_init(|| config))
            }
        };
        stream.start_tls(host, config, wait).map_err(|error| match Stopped::of(&error) {
            Some(_) => self.stop_error(&error),
            None => ClientError::Handshake { address: self.shown.clone(), error },
        })
    }

    fn broken(&self, error: io::Error) -> ClientError {
        ClientError::Broken { address: self.shown.clone(), error }
    }

    fn stopped(&self, error: &io::Error) -> Failure {
        Failure::Final(self.stop_error(error))
    }

    /// Returns the error of a call that stopped to wait. `call` sets the timeout in the message.
    fn stop_error(&self, error: &io::Error) -> ClientError {
        match Stopped::of(error) {
            Some(Stopped::Interrupt) => ClientError::Interrupted,
            _ => ClientError::Timeout { address: self.shown.clone(), timeout: Duration::ZERO },
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token is secret.
        f.debug_struct("Settings").field("address", &self.address).finish_non_exhaustive()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The headers and the settings contain the token.
        f.debug_struct("Client").field("address", &self.shown).finish_non_exhaustive()
    }
}
