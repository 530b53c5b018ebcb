//! HTTP/1.1 messages: writes requests and reads responses.

use std::{
    io::{self, Read, Write},
    str,
};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `POST /get-online-features`, answered in JSON.
    Lookup,
    /// `POST /get-online-features`, answered in Arrow.
    ArrowLookup,
    /// `GET /v1/catalog`.
    Catalog,
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// What the request asks for.
    pub route: Route,
    /// The JSON body; empty for [`Route::Catalog`].
    pub body: &'r [u8],
}

/// A complete response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The header `x-larder-read-through`: `timeout` or `unavailable` if rows could not be fetched.
    pub read_through: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// A response with the state of its connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) response: Response,
    /// Whether the connection can be used for another request.
    pub(crate) keep_alive: bool,
}

/// Why no complete response was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The connection failed or ended before the first byte of the response.
    #[error("{0}")]
    Unanswered(io::Error),
    /// The connection failed or ended within the response.
    #[error("{0}")]
    Broken(io::Error),
    /// The response is not valid HTTP.
    #[error("{0}")]
    Invalid(String),
    /// The body is larger than the limit.
    #[error("the body is too large")]
    TooLarge,
}

/// The head of a response.
struct Head {
    status: u16,
    read_through: Option<String>,
    keep_alive: bool,
    body: BodyLength,
    /// The length of the head in bytes.
    bytes: usize,
}

enum BodyLength {
    Known(usize),
    Chunked,
    UntilClose,
}

/// The bytes of a connection that were read but not used.
struct Input<'s, S> {
    stream: &'s mut S,
    buffer: Vec<u8>,
    /// The offset of the first unused byte in `buffer`.
    start: usize,
}

/// The size of a read. A response of a few hundred values fits into it.
const READ_BYTES: usize = 16 << 10;
/// The maximum size of a response's head, and of the size line of a chunk, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 64;

// === impl Request ===

impl Request<'_> {
    /// Returns the bytes of the request. `fixed` has the headers that all requests of a client share.
    pub(crate) fn bytes(&self, fixed: &str) -> Vec<u8> {
        let start = match self.route {
            Route::Lookup => "POST /get-online-features HTTP/1.1\r\n",
            Route::ArrowLookup => {
                "POST /get-online-features HTTP/1.1\r\naccept: application/vnd.apache.arrow.stream\r\n"
            }
            Route::Catalog => "GET /v1/catalog HTTP/1.1\r\n",
        };
        let mut bytes = Vec::with_capacity(start.len() + fixed.len() + self.body.len() + 80);
        bytes.extend_from_slice(start.as_bytes());
        bytes.extend_from_slice(fixed.as_bytes());
        if self.route == Route::Catalog {
            bytes.extend_from_slice(b"\r\n");
        } else {
            // Writing to a vector cannot fail.
            let _ = write!(bytes, "content-type: application/json\r\ncontent-length: {}\r\n\r\n", self.body.len());
        }
        bytes.extend_from_slice(self.body);
        bytes
    }
}

// === impl Received ===

impl Received {
    /// Reads one response. `limit` is the maximum size of its body in bytes.
    pub(crate) fn read(stream: &mut impl Read, limit: usize) -> Result<Self, ReadError> {
        let mut input = Input { stream, buffer: Vec::new(), start: 0 };
        let mut head = input.head()?;
        // The server may send any number of interim responses, such as 100 Continue, before the response.
        while (100..200).contains(&head.status) {
            input.start += head.bytes;
            head = input.head()?;
        }
        input.start += head.bytes;
        let mut keep_alive = head.keep_alive;
        let body = match head.body {
            BodyLength::Known(length) if length > limit => return Err(ReadError::TooLarge),
            BodyLength::Known(length) => input.take(length)?,
            BodyLength::Chunked => input.chunks(limit)?,
            BodyLength::UntilClose => {
                keep_alive = false;
                input.rest(limit)?
            }
        };
        // Larder sends nothing before the next request. Other bytes mean that the connection is out of step.
        keep_alive &= input.start == input.buffer.len();
        Ok(Self { response: Response { status: head.status, read_through: head.read_through, body }, keep_alive })
    }
}

// === impl Input ===

impl<S: Read> Input<'_, S> {
    /// Reads more bytes. An end of the connection is an error.
    fn fill(&mut self) -> Result<(), ReadError> {
        let is_first = self.buffer.is_empty();
        let fail = |error| if is_first { ReadError::Unanswered(error) } else { ReadError::Broken(error) };
        let end = self.buffer.len();
        self.buffer.resize(end + READ_BYTES, 0);
        let read = self.stream.read(&mut self.buffer[end..]).map_err(fail);
        self.buffer.truncate(end + *read.as_ref().unwrap_or(&0));
        if read? == 0 { Err(fail(io::ErrorKind::UnexpectedEof.into())) } else { Ok(()) }
    }

    /// Returns the head that begins at the first unused byte, without using it.
    fn head(&mut self) -> Result<Head, ReadError> {
        loop {
            if self.start < self.buffer.len() {
                if let Some(head) = Head::parse(&self.buffer[self.start..]).map_err(ReadError::Invalid)? {
                    return Ok(head);
                }
                if self.buffer.len() - self.start > HEAD_BYTES_MAX {
                    return Err(ReadError::Invalid("the head is too long".to_owned()));
                }
            }
            self.fill()?;
        }
    }

    /// Uses up the next bytes.
    fn take(&mut self, length: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, length)?;
        Ok(bytes)
    }

    fn append(&mut self, bytes: &mut Vec<u8>, length: usize) -> Result<(), ReadError> {
        let buffered = (self.buffer.len() - self.start).min(length);
        let missing = (length - buffered) as u64;
        // The length is within the limit, but a faulty server may send fewer bytes. So memory is only allocated ahead of
        // the bytes for responses of a usual size.
        bytes.reserve(length.min(1 << 20));
        bytes.extend_from_slice(&self.buffer[self.start..self.start + buffered]);
        self.start += buffered;
        if missing > 0 {
            let read = self.stream.take(missing).read_to_end(bytes).map_err(ReadError::Broken)?;
            if (read as u64) < missing {
                return Err(ReadError::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(())
    }

    fn chunks(&mut self, limit: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::new();
        loop {
            let length = self.chunk_length()?;
            if length > limit - bytes.len() {
                return Err(ReadError::TooLarge);
            }
            if length == 0 {
                break;
            }
            self.append(&mut bytes, length)?;
            if self.take(2)? != b"\r\n" {
                return Err(ReadError::Invalid("a chunk has no end".to_owned()));
            }
        }
        // The trailers end with an empty line.
        loop {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            match httparse::parse_headers(&self.buffer[self.start..], &mut headers) {
                Ok(httparse::Status::Complete((length, _))) => {
                    self.start += length;
                    return Ok(bytes);
                }
                Ok(httparse::Status::Partial) if self.buffer.len() - self.start <= HEAD_BYTES_MAX => self.fill()?,
                Ok(httparse::Status::Partial) => {
                    return Err(ReadError::Invalid("the trailers are too long".to_owned()));
                }
                Err(error) => return Err(ReadError::Invalid(error.to_string())),
            }
        }
    }

    /// Uses up the line with the length of a chunk.
    fn chunk_length(&mut self) -> Result<usize, ReadError> {
        loop {
            match httparse::parse_chunk_size(&self.buffer[self.start..]) {
                Ok(httparse::Status::Complete((length, bytes))) => {
                    self.start += length;
                    return usize::try_from(bytes).map_err(|_| ReadError::TooLarge);
                }
                Ok(httparse::Status::Partial) if self.buffer.len() - self.start <= HEAD_BYTES_MAX => self.fill()?,
                _ => return Err(ReadError::Invalid("the length of a chunk is invalid".to_owned())),
            }
        }
    }

    /// Uses up all bytes until the end of the connection.
    fn rest(&mut self, limit: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = self.buffer.split_off(self.start);
        self.stream.take((limit as u64).saturating_add(1)).read_to_end(&mut bytes).map_err(ReadError::Broken)?;
        if bytes.len() > limit { Err(ReadError::TooLarge) } else { Ok(bytes) }
    }
}

// === impl Head ===

impl Head {
    /// Parses the head at the beginning of the bytes. Returns `None` if it is incomplete.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, String> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut headers);
        let length = match parsed.parse(bytes).map_err(|error| error.to_string())? {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial => return Ok(None),
        };
        let status = parsed.code.unwrap_or_default();
        let (mut content_length, mut chunked, mut read_through) = (None, false, None);
        // Connections of HTTP/1.0 are closed after a response.
        let mut keep_alive = parsed.version == Some(1);
        for header in parsed.headers.iter() {
            let text = str::from_utf8(header.value).unwrap_or_default().trim();
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                let length = text.parse().map_err(|_| "the content length is invalid")?;
                if content_length.replace(length).is_some_and(|other| other != length) {
                    return Err("there are two content lengths".to_owned());
                }
            } else if is("transfer-encoding") {
                if !text.eq_ignore_ascii_case("chunked") {
                    return Err(format!("the transfer encoding '{text}' is not supported"));
                }
                chunked = true;
            } else if is("connection") {
                keep_alive &= !text.split(',').any(|option| option.trim().eq_ignore_ascii_case("close"));
            } else if is("content-encoding") && !text.eq_ignore_ascii_case("identity") {
                return Err(format!("the content encoding '{text}' is not supported"));
            } else if is("x-larder-read-through") {
                read_through = Some(text.to_owned());
            }
        }
        let body = match (status, chunked, content_length) {
            (100..200 | 204 | 304, ..) => BodyLength::Known(0),
            (_, true, _) => BodyLength::Chunked,
            (_, false, Some(length)) => BodyLength::Known(length),
            (_, false, None) => BodyLength::UntilClose,
        };
        Ok(Some(Self { status, read_through, keep_alive, body, bytes: length }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns one byte per read.
    struct Slow<'b>(&'b [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(1);
            self.0.read(&mut buffer[..length])
        }
    }

    fn read(bytes: &[u8], limit: usize) -> Result<Received, ReadError> {
        let at_once = Received::read(&mut &bytes[..], limit);
        let slow = Received::read(&mut Slow(bytes), limit);
        match (&at_once, &slow) {
            (Ok(at_once), Ok(slow)) => assert_eq!(at_once.response, slow.response),
            (Err(at_once), Err(slow)) => assert_eq!(at_once.to_string(), slow.to_string()),
            _ => panic!("{at_once:?} {slow:?}"),
        }
        at_once
    }

    fn body(bytes: &[u8]) -> (Vec<u8>, bool) {
        let received = read(bytes, 5).unwrap();
        (received.response.body, received.keep_alive)
    }

    #[test]
    fn body_ends_where_headers_say() {
        assert_eq!(body(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), (b"hello".to_vec(), true));
        assert_eq!(body(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"), (vec![], false));
        assert_eq!(body(b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na"), (b"a".to_vec(), false));
        assert_eq!(body(b"HTTP/1.1 200 OK\r\n\r\nhello"), (b"hello".to_vec(), false));
        assert_eq!(body(b"HTTP/1.1 204 No Content\r\n\r\n"), (vec![], true));
        let chunked =
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nx: y\r\n\r\n";
        assert_eq!(body(chunked), (b"hello".to_vec(), true));
    }

    #[test]
    fn interim_responses_are_skipped() {
        let bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\na: b\r\n\r\nHTTP/1.1 404 Not Found\r\n\
                      x-larder-read-through: timeout\r\ncontent-length: 2\r\n\r\n{}";
        let response = read(bytes, 5).unwrap().response;
        let read_through = Some("timeout".to_owned());
        assert_eq!(response, Response { status: 404, read_through, body: b"{}".to_vec() });
    }

    #[test]
    fn bytes_after_response_end_the_connection() {
        let received = Received::read(&mut &b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab"[..], 5).unwrap();
        assert_eq!((received.response.body, received.keep_alive), (b"a".to_vec(), false));
    }

    #[test]
    fn larger_bodies_than_limit_are_rejected() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello!"[..],
            b"HTTP/1.1 200 OK\r\n\r\nhello!",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n3\r\nlo!\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        ] {
            assert!(matches!(read(bytes, 5), Err(ReadError::TooLarge)));
        }
    }

    #[test]
    fn invalid_responses_are_rejected() {
        for bytes in [
            &b"HTTP/2 200\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\na",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\na",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        ] {
            let result = read(bytes, 5);
            assert!(matches!(result, Err(ReadError::Invalid(_))), "{result:?}");
        }
    }

    #[test]
    fn cut_off_responses_are_errors() {
        assert!(matches!(read(b"", 5), Err(ReadError::Unanswered(_))));
        for bytes in [
            &b"HTTP/1.1 200"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\na",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n",
        ] {
            assert!(matches!(read(bytes, 5), Err(ReadError::Broken(_))));
        }
    }

    #[test]
    fn long_heads_are_rejected() {
        let bytes = [b"HTTP/1.1 200 OK\r\na: ".to_vec(), vec![b'b'; HEAD_BYTES_MAX + READ_BYTES]].concat();
        assert!(matches!(Received::read(&mut &bytes[..], 5), Err(ReadError::Invalid(_))));
    }
}
