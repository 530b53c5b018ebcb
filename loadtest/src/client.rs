//! A client with little overhead. It parses only the parts of HTTP/1.1, or of Redis' protocol, that are needed to find
//! the end of a response. The load has a single core, so all CPU time that the client needs reduces the load.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    endpoint::{Endpoint, Stream},
    resp::{NotResp, Replies},
};

#[cfg(test)]
mod tests;

/// The maximum size of a response's head in bytes. Valid heads have a few hundred bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// The maximum size of a response's body in bytes. The largest valid body has about 500 kB. The limit prevents an
/// invalid length from exhausting memory.
const BODY_BYTES_MAX: usize = 64 << 20;

/// One keep-alive connection, with at most one request in progress.
#[derive(Debug)]
pub(crate) struct Connection {
    endpoint: Endpoint,
    stream: Stream,
    /// The last response, or the part of the next response that was received so far.
    buffer: Vec<u8>,
}

/// A request, encoded before the measurement.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    pub(crate) wire: Wire,
}

/// The protocol of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Http,
    /// Redis' protocol. The response consists of one reply for each command.
    Resp {
        commands: usize,
    },
}

/// A complete response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Response<'a> {
    /// The HTTP status. For Redis, 200 if no reply is an error, and otherwise 500.
    pub(crate) status: u16,
    head: &'a [u8],
    pub(crate) body: &'a [u8],
}

/// The status of a response, and the sizes of its head and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    head_bytes: usize,
    body_bytes: usize,
}

/// Why a request has no valid response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("the server closed the connection")]
    Closed,
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("expected {expected} in the response, got {got:?}")]
    Malformed { expected: &'static str, got: String },
}

/// Creates a request without a body.
pub(crate) fn get(path: &str) -> Request {
    let bytes = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes();
    Request { bytes, wire: Wire::Http }
}

/// Creates a request with a JSON body.
pub(crate) fn post_json(path: &str, body: &str) -> Request {
    let bytes = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    Request { bytes: bytes.into_bytes(), wire: Wire::Http }
}

// === impl Request ===

impl Request {
    /// Returns the size of the body in bytes. Returns 0 for Redis' protocol.
    pub(crate) fn body_bytes(&self) -> usize {
        let blank = self.bytes.windows(4).position(|window| window == b"\r\n\r\n");
        blank.map_or(0, |blank| self.bytes.len() - blank - 4)
    }
}

// === impl Connection ===

impl Connection {
    pub(crate) async fn open(endpoint: &Endpoint) -> io::Result<Self> {
        let stream = endpoint.connect().await?;
        Ok(Self { endpoint: endpoint.clone(), stream, buffer: Vec::with_capacity(HEAD_BYTES_MAX) })
    }

    /// Closes the connection and opens a new one. This is needed after an error.
    pub(crate) async fn reopen(&mut self) -> io::Result<()> {
        self.stream = self.endpoint.connect().await?;
        Ok(())
    }

    /// Sends a request and waits for the complete response. After an error, the connection must be reopened.
    pub(crate) async fn exchange(&mut self, request: &Request) -> Result<Response<'_>, ClientError> {
        self.buffer.clear();
        match request.wire {
            Wire::Http => {
                self.stream.write_all(&request.bytes).await?;
                self.read_http().await
            }
            Wire::Resp { commands } => {
                self.send_and_read(&request.bytes).await?;
                self.read_replies(commands).await
            }
        }
    }

    async fn read_http(&mut self) -> Result<Response<'_>, ClientError> {
        let head = loop {
            self.read_more().await?;
            if let Some(head) = parse_head(&self.buffer)? {
                break head;
            }
        };
        let response_bytes = head.head_bytes + head.body_bytes;
        self.buffer.reserve(response_bytes.saturating_sub(self.buffer.len()));
        while self.buffer.len() < response_bytes {
            self.read_more().await?;
        }
        if self.buffer.len() > response_bytes {
            return Err(malformed("nothing after the body", &self.buffer[response_bytes..]));
        }
        let (head_part, body) = self.buffer.split_at(head.head_bytes);
        Ok(Response { status: head.status, head: head_part, body })
    }

    /// Sends commands and reads replies at the same time. Redis sends replies before it has read all commands, and
    /// stops reading commands if its replies are not read.
    async fn send_and_read(&mut self, mut bytes: &[u8]) -> Result<(), ClientError> {
        let (mut reading, mut writing) = tokio::io::split(&mut self.stream);
        while !bytes.is_empty() {
            tokio::select! {
                biased;
                written = writing.write(bytes) => bytes = &bytes[written?..],
                read = reading.read_buf(&mut self.buffer) => if read? == 0 {
                    return Err(ClientError::Closed);
                },
            }
        }
        Ok(())
    }

    async fn read_replies(&mut self, commands: usize) -> Result<Response<'_>, ClientError> {
        let mut replies = Replies::to(commands);
        let end = loop {
            if let Some(end) = replies.read(&self.buffer)? {
                break end;
            }
            self.read_more().await?;
        };
        if self.buffer.len() > end {
            return Err(malformed("nothing after the replies", &self.buffer[end..]));
        }
        Ok(Response { status: if replies.failed { 500 } else { 200 }, head: &[], body: &self.buffer })
    }

    async fn read_more(&mut self) -> Result<(), ClientError> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(ClientError::Closed),
            _ => Ok(()),
        }
    }
}

impl From<NotResp> for ClientError {
    fn from(NotResp(expected): NotResp) -> Self {
        Self::Malformed { expected, got: "bytes that are not RESP".to_owned() }
    }
}

// === impl Response ===

impl Response<'_> {
    /// Returns the size of the response in bytes, including the head.
    pub(crate) fn wire_bytes(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Returns the start of the body, for a message.
    pub(crate) fn excerpt(&self) -> String {
        excerpt(self.body)
    }
}

/// Parses the head of a response. Returns `None` if the head is not complete yet.
fn parse_head(buffer: &[u8]) -> Result<Option<Head>, ClientError> {
    let Some(blank) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if buffer.len() < HEAD_BYTES_MAX { Ok(None) } else { Err(malformed("the end of the head", buffer)) };
    };
    let (head, head_bytes) = (&buffer[..blank], blank + 4);
    let status = status(head).ok_or_else(|| malformed("a status line", head))?;
    let body_bytes = header(head, "content-length")
        .and_then(decimal)
        .filter(|&bytes| bytes <= BODY_BYTES_MAX)
        .ok_or_else(|| malformed("a content-length within bounds", head))?;
    Ok(Some(Head { status, head_bytes, body_bytes }))
}

fn status(head: &[u8]) -> Option<u16> {
    let (code, rest) = head.strip_prefix(b"HTTP/1.1 ")?.split_at_checked(3)?;
    // A reason phrase may follow the status.
    matches!(rest.first(), None | Some(b' ' | b'\r')).then_some(())?;
    decimal(code).and_then(|code| u16::try_from(code).ok())
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|&byte| byte == b'\n').skip(1).find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        found.eq_ignore_ascii_case(name.as_bytes()).then_some(value.trim_ascii())
    })
}

/// Parses a number that consists only of digits. `str::parse` would also accept a sign.
fn decimal(text: &[u8]) -> Option<usize> {
    text.iter().all(u8::is_ascii_digit).then_some(())?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn malformed(expected: &'static str, got: &[u8]) -> ClientError {
    ClientError::Malformed { expected, got: excerpt(got) }
}

fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned()
}
